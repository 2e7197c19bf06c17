"""Radially averaged spectra (RALSD) and the slope of their decay with wavenumber.

The power spectral density of a field is averaged over rings of equal wavenumber; its logarithm against that
of the wavenumber is the radially averaged log-spectral density of the papers, and the slope of a straight
line fitted to it over a range of wavelengths says how much small-scale variance a field has.

Two conventions exist for rings on fields that are not square. ``"physical"`` (default) rounds the true
wavenumber to multiples of that of the longer side, so a ring holds waves of one length in every direction.
``"pysteps"`` rounds the radius in index space, as ``pysteps.utils.rapsd`` does, which mixes wavelengths
unless the field is square. Power is |FFT|^2 / (M N), unwindowed unless asked otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from core.metrics.metric import FieldMetric, Metric, MetricError, aligned, spacing

Window = Literal["none", "hann"]
Detrend = Literal["none", "mean", "linear"]
Rings = Literal["physical", "pysteps"]
Missing = Literal["nan", "mean"]

WAVELENGTHS = (10e3, 200e3)
"""Default range of the slope fit: shortest and longest wavelength [m]."""

WAVELENGTHS_OF_POWER = (269e3, 20e3, 9e3, 5e3)
"""Wavelengths at which the papers show the distribution of power [m]."""

Array = NDArray[np.float64]


def ralsd(
    field: xr.DataArray,
    *,
    window: Window = "none",
    detrend: Detrend = "none",
    rings: Rings = "physical",
    missing: Missing = "nan",
) -> xr.DataArray:
    """Radially averaged power spectral density of every (y, x) field.

    Parameters
    ----------
    field : dims (..., y, x) with evenly spaced coordinates x and y [m]
    window : "hann" tapers the field (power is corrected for the loss of variance)
    detrend : subtract the mean, or the least-squares plane, before the transform
    rings : "physical" wavenumber (default) or the index convention of "pysteps"
    missing : what to do with a field that has gaps: "nan" gives NaN for the whole spectrum (default), "mean"
        fills gaps with the mean of the field, which lowers the power; a field without a value stays NaN

    Returns
    -------
    dims (..., wavelength), units of the field squared, from the longest wavelength to the shortest;
    coordinate ``wavelength`` [m]. The mean (wavenumber 0) is left out. Lazy for arrays of dask.

    Raises
    ------
    MetricError
        if y or x or their coordinates are missing or not evenly spaced, or an option is unknown.
    """
    _check_option("window", window, ("none", "hann"))
    _check_option("detrend", detrend, ("none", "mean", "linear"))
    _check_option("rings", rings, ("physical", "pysteps"))
    _check_option("missing", missing, ("nan", "mean"))
    dy, dx = (spacing(field, axis, "A spectrum", cells=4) for axis in ("y", "x"))
    shape = (field.sizes["y"], field.sizes["x"])
    index, weight, count, wavelength = _rings(shape, dy, dx, rings)
    # Ring 0 is the mean of the field; narrow fields have rings without any wave.
    keep = np.flatnonzero(count > 0)
    keep = keep[keep > 0]

    def density(values: Array) -> Array:
        values = values.astype(np.float64)
        gaps = np.isnan(values)
        incomplete = gaps.any(axis=(-2, -1))
        if incomplete.any():
            number = (~gaps).sum(axis=(-2, -1), keepdims=True)
            mean = np.nansum(values, axis=(-2, -1), keepdims=True) / np.maximum(number, 1)
            values = np.where(gaps, mean, values)
        values = _prepared(values, window, detrend)
        power = np.abs(scipy.fft.rfft2(values, workers=1)) ** 2 / (shape[0] * shape[1])
        flat = (power * weight).reshape(-1, index.size)
        sums = [np.bincount(index, weights=row, minlength=count.size)[keep] / count[keep] for row in flat]
        result = np.reshape(sums, (*values.shape[:-2], keep.size))
        result[gaps.all(axis=(-2, -1)) if missing == "mean" else incomplete] = np.nan
        return result

    spectrum: xr.DataArray = xr.apply_ufunc(
        density,
        field,
        input_core_dims=[["y", "x"]],
        output_core_dims=[["wavelength"]],
        exclude_dims={"y", "x"},
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": {"wavelength": keep.size}},
        output_dtypes=[np.float64],
    )
    units = field.attrs.get("units")
    spectrum = spectrum.assign_coords(wavelength=("wavelength", wavelength[keep], {"units": "m"}))
    spectrum = spectrum.rename("ralsd")
    spectrum.attrs = {
        "long_name": "radially averaged power spectral density",
        **({"units": "1" if units == "1" else f"({units})2"} if units else {}),
        "rings": rings,
    }
    return spectrum


def spectral_slope(spectrum: xr.DataArray, *, wavelengths: tuple[float, float] = WAVELENGTHS) -> xr.DataArray:
    """Slope of the straight line fitted to log density against log wavenumber, dimensionless.

    Parameters
    ----------
    spectrum : as :func:`ralsd` gives it, dims (..., wavelength)
    wavelengths : shortest and longest wavelength of the fit [m], both included

    Every ring counts once (ordinary least squares). NaN where the spectrum is NaN or zero inside the range.

    Raises
    ------
    MetricError
        if fewer than three rings lie within the range.
    """
    shortest, longest = sorted(wavelengths)
    wavelength = np.asarray(spectrum["wavelength"].values, np.float64)
    # A ring on the bound belongs to the range whatever the rounding of its wavelength.
    inside = (wavelength >= shortest * (1 - 1e-9)) & (wavelength <= longest * (1 + 1e-9))
    if inside.sum() < 3:
        raise MetricError(
            f"Only {int(inside.sum())} rings of the spectrum lie between {shortest / 1e3:g} and "
            f"{longest / 1e3:g} km; a slope needs three. Choose a wider range or a larger field."
        )
    k = -np.log(wavelength[inside])
    k -= k.mean()

    def fit(density: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithm = np.log(np.where(density > 0, density, np.nan))
        slope: Array = (logarithm * k).sum(axis=-1) / (k**2).sum()
        return slope

    chosen = spectrum.isel(wavelength=np.flatnonzero(inside))
    slope: xr.DataArray = xr.apply_ufunc(
        fit,
        chosen,
        input_core_dims=[["wavelength"]],
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[np.float64],
    )
    slope.name = "spectral_slope"
    slope.attrs = {
        "long_name": "slope of the radially averaged log-spectral density",
        "units": "1",
        "wavelengths_m": [shortest, longest],
    }
    return slope


def power_at(spectrum: xr.DataArray, wavelengths: ArrayLike = WAVELENGTHS_OF_POWER) -> xr.DataArray:
    """Power of the rings nearest to some wavelengths, for its distribution over hours.

    Parameters
    ----------
    spectrum : as :func:`ralsd` gives it, dims (..., wavelength)
    wavelengths : [m], by default those of the published box plots

    Nearest by wavenumber. The result has dims (..., wavelength) with the rings' own wavelengths, and
    ``wanted`` [m] beside them.

    Raises
    ------
    MetricError
        for a wavelength that is farther than half a ring from all rings of the spectrum.
    """
    known = np.asarray(spectrum["wavelength"].values, np.float64)
    wanted = np.atleast_1d(np.asarray(wavelengths, np.float64))
    away = np.abs(1 / known[None, :] - 1 / wanted[:, None])
    nearest = away.argmin(axis=1)
    if (away.min(axis=1) > 0.5001 * np.diff(1 / known).max(initial=0)).any():
        raise MetricError(
            f"The spectrum reaches from {known[-1] / 1e3:g} to {known[0] / 1e3:g} km; choose wavelengths "
            f"within it, not {', '.join(f'{length / 1e3:g}' for length in wanted)} km."
        )
    power = spectrum.isel(wavelength=nearest)
    return power.assign_coords(wanted=("wavelength", wanted, {"units": "m"}))


@dataclass(frozen=True, eq=False)
class SpectralSlopeLoss(FieldMetric):
    """Absolute difference of the spectral slopes of two fields, ``|a_forecast - a_reference|``.

    Dimensionless. Of each hour's fields, averaged over what else is in ``reduce``; hours without a slope are
    left out. The fields need not share a grid: the reference may be the fine truth or the coarse field, as
    published. Each slope is fitted to the rings of its own grid, so against a coarse field of 16 km the
    ranges differ (10 to 200 and 32 to 200 km) unless ``wavelengths`` names one that both have. Options as
    in :func:`ralsd` and :func:`spectral_slope`. Reference: Rosu et al. (arXiv 2510.23866).
    """

    name = "spectral_slope_loss"
    title = "Spectral slope loss"
    long_name = "absolute difference of spectral slopes"
    units = "1"
    best = "lower"
    formula = "|a_forecast - a_reference|"
    source = "Rosu et al. (arXiv 2510.23866)"
    same_grid: ClassVar[bool] = False

    wavelengths: tuple[float, float] = WAVELENGTHS
    window: Window = "none"
    detrend: Detrend = "none"
    rings: Rings = "physical"
    missing: Missing = "nan"

    def values(self, forecast: xr.DataArray, reference: xr.DataArray) -> xr.DataArray:
        """The difference for every field."""
        one, other = (
            spectral_slope(
                ralsd(
                    field, window=self.window, detrend=self.detrend, rings=self.rings, missing=self.missing
                ),
                wavelengths=self.wavelengths,
            )
            for field in (forecast, reference)
        )
        one, other = aligned(one, other)
        return abs(one - other)


spectral_slope_loss = SpectralSlopeLoss()

METRICS: dict[str, Metric] = {"spectral_slope_loss": spectral_slope_loss}
"""The metrics of spectra by name."""


def _check_option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise MetricError(f"Unknown {name} {value!r}; choose one of {', '.join(allowed)}.")


def _prepared(values: Array, window: Window, detrend: Detrend) -> Array:
    height, width = values.shape[-2:]
    if detrend != "none":
        values = values - values.mean(axis=(-2, -1), keepdims=True)
    if detrend == "linear":
        y, x = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
        # On a full grid y and x are orthogonal, so the plane splits into two simple fits.
        tilt_y = (values.mean(axis=-1) @ y) / (y**2).sum()
        tilt_x = (values.mean(axis=-2) @ x) / (x**2).sum()
        values = values - tilt_y[..., None, None] * y[:, None] - tilt_x[..., None, None] * x
    if window == "hann":
        taper = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
        values = values * (taper / np.sqrt((taper**2).mean()))
    return values


def _rings(
    shape: tuple[int, int], dy: float, dx: float, rings: Rings
) -> tuple[NDArray[np.intp], Array, Array, Array]:
    """Ring of every rfft2 mode, its weight, modes per ring, and wavelength of the rings [m]."""
    height, width = shape
    ky = np.fft.fftfreq(height)[:, None]
    kx = np.fft.rfftfreq(width)[None, :]
    if rings == "physical":
        # In cells, so that ties between two rings fall as they do in the reference for square cells.
        cell = max(dx, dy)
        cells = round(max(height * dy, width * dx) / cell)
        radius = np.sqrt((ky * (cell / dy)) ** 2 + (kx * (cell / dx)) ** 2) * cells
        index = np.rint(radius).astype(np.intp)
        size = cells // 2 + cells % 2
        wavelength = cells * cell / np.maximum(np.arange(size), 1)
    else:
        if abs(dx - dy) > 1e-3 * dx:
            raise MetricError("The pysteps convention needs square cells.")
        index = np.rint(np.hypot(ky * height, kx * width)).astype(np.intp)
        longer = max(shape)
        size = longer // 2 + longer % 2
        wavelength = longer * dx / np.maximum(np.arange(size), 1)
    weight: Array = np.full((height, kx.shape[1]), 2.0)
    weight[:, 0] = 1.0
    if width % 2 == 0:
        weight[:, -1] = 1.0
    flat = np.minimum(index, size).ravel()
    count: Array = np.bincount(flat, weights=weight.ravel(), minlength=size + 1)[:size].astype(np.float64)
    return flat, weight, count, wavelength
