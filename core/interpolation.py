"""Interpolation of coarse fields to the fine grid: quadratic spline, and with a lapse-rate correction.

Plain functions on arrays whose last two axes are (row, column), north first. Coarse cells are blocks of
``ratio`` x ``ratio`` fine cells, as :class:`core.domain.Domain` guarantees, so nothing else about the grids
is needed for the spline.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
F = TypeVar("F", bound=np.floating)

STANDARD_LAPSE_RATE = 6.5e-3
"""Decrease of temperature with height in the standard atmosphere's troposphere [K m-1] (ISO 2533:1975)."""

LAPSE_RATE_RANGE = (-6.5e-3, 9.8e-3)
"""Estimates outside are clipped [K m-1]: from an inversion as strong as the standard decrease to the dry
adiabatic lapse rate g / c_p."""

LAPSE_RATE_BANDWIDTH = 50e3
"""Standard deviation of the Gaussian window in which the lapse rate is estimated [m]."""

LAPSE_RATE_PRIOR = 1e6
"""Scatter of heights [m2] at which data and standard lapse rate weigh the same in the estimate: a residual of
1 K against a natural variation of 1 K km-1, squared."""


# --- quadratic spline -------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _spline_coefficients(size: int) -> tuple[Float64, Float64]:
    """Matrix (size + 2, size) from values at cell centres to coefficients of quadratic B-splines.

    Comes with its transpose, because products with a transposed view take longer.

    The splines are uniform with knots at cell edges, and one coefficient more lies beyond each end. Rows of
    the inverted system: the spline meets the value at each centre, (1, 6, 1) / 8; and the polynomial of the
    second cell continues through the first (third difference zero), the same at the other end. That is the
    interpolating spline of de Boor, A Practical Guide to Splines (2001), chapter XIII, with the first and
    last inner knot left out, which SciPy and xarray build.
    """
    system = np.zeros((size + 2, size + 2))
    for row in range(size):
        system[row, row : row + 3] = (1 / 8, 6 / 8, 1 / 8)
    # Two values determine no more than a straight line.
    difference = (1.0, -3.0, 3.0, -1.0) if size > 2 else (1.0, -2.0, 1.0)
    system[size, : len(difference)] = difference
    system[size + 1, -len(difference) :] = difference
    return _with_transpose(np.asarray(np.linalg.inv(system)[:, :size], np.float64))


@lru_cache(maxsize=32)
def _spline_values(ratio: int) -> tuple[Float32, Float32]:
    """Matrix (ratio, 3) from coefficients around a cell to values at its fine centres; and its transpose."""
    t = (np.arange(ratio) + 0.5) / ratio
    values = np.stack([(1 - t) ** 2 / 2, 0.5 + t * (1 - t), t**2 / 2], axis=1)
    return _with_transpose(values.astype(np.float32))


def _with_transpose(matrix: NDArray[F]) -> tuple[NDArray[F], NDArray[F]]:
    pair = np.ascontiguousarray(matrix), np.ascontiguousarray(matrix.T)
    for array in pair:
        array.setflags(write=False)
    return pair


def _spline(field: NDArray[np.floating], ratio: int, out: Float32) -> None:
    """Quadratic spline of one complete field (h, w) into ``out`` (h * ratio, w * ratio)."""
    height, width = field.shape
    basis, basis_transposed = _spline_values(ratio)
    along_columns, _ = _spline_coefficients(height)
    _, along_rows = _spline_coefficients(width)
    # Without its mean the field loses nothing of its digits in float32.
    mean = field.mean(dtype=np.float64)
    coefficients = (along_columns @ (field - mean) @ along_rows).astype(np.float32)
    # Overlapping windows of three coefficients turn each direction into one stack of small products.
    rows = height + 2
    along_x = np.empty((rows, width, ratio), np.float32)
    step_y, step_x = coefficients.strides
    windows = as_strided(coefficients, (width, rows, 3), (step_x, step_y, step_x), writeable=False)
    np.matmul(windows, basis_transposed, out=along_x.transpose(1, 0, 2))
    along_x += np.float32(mean)
    lines = along_x.reshape(rows, width * ratio)
    step_y, step_x = lines.strides
    windows = as_strided(lines, (height, 3, width * ratio), (step_y, step_y, step_x), writeable=False)
    np.matmul(basis, windows, out=out.reshape(height, ratio, width * ratio))


def quadratic(fields: ArrayLike, ratio: int) -> Float32:
    """Separable quadratic spline through coarse values, at the fine cell centres, extrapolated at the edge.

    ``fields`` (..., h, w) in any units gives float32 (..., h * ratio, w * ratio) in the same. Equals
    xarray's ``interp(method="quadratic", kwargs={"fill_value": "extrapolate"})`` along x and y, up to
    rounding. Where a coarse cell is NaN, the spline sees the value of the nearest cell that is not, and the
    fine cells of that coarse cell are NaN in the result.

    Raises ValueError where a side has fewer than two cells.
    """
    values = np.asarray(fields)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    if values.ndim < 2 or min(values.shape[-2:]) < 2:
        raise ValueError(f"Interpolation needs fields of at least 2 x 2 cells; got the shape {values.shape}.")
    *leading, height, width = values.shape
    result = np.empty((*leading, height * ratio, width * ratio), np.float32)
    flat = result.reshape(-1, height * ratio, width * ratio)
    for field, fine in zip(values.reshape(-1, height, width), flat, strict=True):
        missing = np.isnan(field)
        if not missing.any():
            _spline(field, ratio, fine)
        elif missing.all():
            fine[:] = np.nan
        else:
            nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
            _spline(field[tuple(nearest)], ratio, fine)
            fine.reshape(height, ratio, width, ratio)[missing.nonzero()[0], :, missing.nonzero()[1]] = np.nan
    return result


# --- lapse rate -------------------------------------------------------------------------------------


def _gaussian(position: Float64) -> Float64:
    """Matrix of Gaussian weights between positions given in standard deviations, 1 on the diagonal."""
    weights: Float64 = np.exp(-0.5 * np.square(position[:, None] - position))
    return weights


def lapse_rate(
    temperature: ArrayLike,
    orography: ArrayLike,
    *,
    dx: float,
    dy: float,
    weights: ArrayLike | None = None,
    bandwidth: float = LAPSE_RATE_BANDWIDTH,
    prior: float = LAPSE_RATE_PRIOR,
) -> Float64:
    """Decrease of 2-metre temperature with height around every cell [K m-1], from the field itself.

    In a Gaussian window around each cell, temperature is regressed on height and, so that the gradient
    between north and south or between coast and inland is not taken for one of height, on x and y:
    geographically weighted regression (Brunsdon, Fotheringham and Charlton, Geographical Analysis 28, 1996,
    281-298). The slope is drawn towards the standard atmosphere's (ridge regression): with S the weighted
    scatter of heights [m2] that x and y do not explain and g the least-squares slope,

        lapse rate = (S g + prior * 6.5 K km-1) / (S + prior)

    so it is 6.5 K km-1 where there is no relief or no data, and moves to the data without a threshold as
    the relief grows. The result is clipped to :data:`LAPSE_RATE_RANGE`.

    Parameters
    ----------
    temperature : (time, h, w), K; NaN cells do not count
    orography : (h, w), m, of the model that made the temperature
    dx, dy : spacing [m]
    weights : (h, w) of 0..1, how much a cell counts; give the land fraction, since the temperature of the
        sea says nothing about height
    bandwidth : standard deviation of the window [m]
    prior : scatter of heights at which data and standard lapse rate weigh the same [m2]

    Returns
    -------
    (time, h, w)
    """
    t = np.asarray(temperature, np.float64)
    z = np.asarray(orography, np.float64)
    height, width = z.shape
    known = np.isfinite(t) & np.isfinite(z)
    # Sums of products cancel less when the fields are near zero.
    t = np.where(known, t - (t[known].mean() if known.any() else 0.0), 0.0)
    z = np.where(np.isfinite(z), z, 0.0)
    # With the same cells at all hours, sums without temperature are taken once.
    w = (known[:1] if known.all() else known) * (1.0 if weights is None else np.asarray(weights, np.float64))
    y, x = np.meshgrid(np.arange(height) * dy / bandwidth, np.arange(width) * dx / bandwidth, indexing="ij")
    along_y, along_x = _gaussian(y[:, 0]), _gaussian(x[0])

    def sums(values: Float64) -> Float64:
        total: Float64 = along_y @ (w * values) @ along_x
        return total

    n = np.maximum(sums(np.ones_like(z)), np.finfo(float).tiny)
    sum_x, sum_y, sum_z, sum_t = sums(x), sums(y), sums(z), sums(t)
    # A trace of ridge keeps the plane solvable where the window holds a single row or column.
    xx, yy = sums(x * x) - sum_x**2 / n + 1e-3, sums(y * y) - sum_y**2 / n + 1e-3
    xy = sums(x * y) - sum_x * sum_y / n
    xz, yz = sums(x * z) - sum_x * sum_z / n, sums(y * z) - sum_y * sum_z / n
    xt, yt = sums(x * t) - sum_x * sum_t / n, sums(y * t) - sum_y * sum_t / n
    # The plane in x and y is taken out of height and temperature (theorem of Frisch, Waugh and Lovell).
    determinant = xx * yy - xy * xy
    slope_x, slope_y = (yy * xz - xy * yz) / determinant, (xx * yz - xy * xz) / determinant
    zz = np.maximum(sums(z * z) - sum_z**2 / n - slope_x * xz - slope_y * yz, 0.0)
    zt = sums(z * t) - sum_z * sum_t / n - slope_x * xt - slope_y * yt
    estimate: Float64 = np.clip((prior * STANDARD_LAPSE_RATE - zt) / (zz + prior), *LAPSE_RATE_RANGE)
    return estimate


def lapse_rate_corrected(
    temperature: ArrayLike,
    coarse_orography: ArrayLike,
    fine_orography: ArrayLike,
    rate: ArrayLike,
    ratio: int,
) -> Float32:
    """Temperature interpolated at sea level and put back on the fine orography [K].

    ``temperature`` and ``rate`` [K m-1] are (time, h, w), ``coarse_orography`` (h, w) and
    ``fine_orography`` (H, W) in m; the result is float32 (time, H, W), NaN where a coarse cell is.

    Each fine cell reduces the coarse field to sea level with its own lapse rate L, so the quadratic
    interpolation Q gives Q[T + L z] - L z_fine = Q[T] + L (Q[z] - z_fine): L multiplies a difference of
    heights and not the full height, and its error does as little harm as possible. The same correction by
    height, with other estimates of the lapse rate: Gao, Bernhardt and Schulz, Hydrol. Earth Syst. Sci.
    16 (2012), 4661-4673; Dutra et al., Earth and Space Science 7 (2020), e2019EA000984.
    """
    fine = quadratic(temperature, ratio)
    height_difference = quadratic(coarse_orography, ratio) - np.asarray(fine_orography, np.float32)
    fine += quadratic(rate, ratio) * height_difference
    return fine
