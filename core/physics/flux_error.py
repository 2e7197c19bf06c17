"""A flux comparison that tells good fields from bad: signed fluxes, at one scale, relative to their size.

The flux ratio R of the papers is the quotient of a signed flux, which depends on the zero of the temperature
scale, and a mean of |grad T|, which grows with the resolution and with noise. Two fields of different
resolution can't have the same R, so a loss on R prefers fields that are wrong (``docs/physics.md`` derives
and measures it). What is compared here instead, for every supergrid cell with boundary dG, outward normal n,
T' the temperature minus the area mean of the cell and g = grad T / (|grad T| + eps):

    F_adv = mean over dG of T' (g . n)        advective flux, as in the papers but centred     [K]
    F_dif = mean over dG of grad T . n        diffusive flux by Fick's law, signed and linear   [K / length]

    E(F) = sum over cells (F - F_ref)^2 / sum over cells (F^2 + F_ref^2)
    flux error = (E(F_adv) + E(F_dif)) / 2

A corner pixel counts once for each of the two sides it belongs to, so the mean is over 2 (h + w) pixels. The
flux ratio of the papers gives corners to the top and bottom rows alone; cells of 2 x 2 pixels would then have
no left and right sides at all, and nothing that varies from west to east would count.

E is dimensionless, 0 for equal fluxes, 1 for a field without any (a constant) or for uncorrelated fluxes, and
at most 2. Where the reference is a coarse field, the fine one is first brought to what the coarse model could
have seen of it (:func:`observe`). F_dif is linear, so that of the truth then differs from that of the coarse
field by the F_dif of the coarse model's errors and by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from core.physics.flux_ratio import Fluxes
from core.physics.gradients import PhysicsError, Spacing, check_field, spacing_pair
from core.physics.supergrid import Boundary, Cells, block_mean, boundary_gradient, cell_mean, grid_ratio

EPSILON = 1e-3
"""Regularises the direction of the gradient [K/km]: far below the gradients of weather, yet large enough for
the derivative of the loss to stay moderate where a field is flat."""

CELL = 2
"""Default side of a supergrid cell [coarse pixels]; on the Italy domain 32 km, the cells of the published
metric."""

WIDTHS = tuple(n / 8 for n in range(25))
"""Smoothing widths that are tried by :func:`fit_smoothing` [coarse pixels]."""


def smooth(field: Tensor, width: float | tuple[float, float]) -> Tensor:
    """Gaussian smoothing with reflecting edges, the solution of the heat equation without flux at the edge.

    Parameters
    ----------
    field : (..., H, W)
    width : standard deviation of the Gaussian along rows and columns, or of both [pixels]; 0 leaves the
        field as it is. Widths below a pixel are exact, too: it is done on the cosine modes of the field.

    Raises
    ------
    PhysicsError
        if a width is negative or not finite, or the field has gaps (NaN), which would spread everywhere.
    """
    check_field(field, smallest=1)
    pair = width if isinstance(width, tuple) else (width, width)
    if any(not math.isfinite(one) or one < 0 for one in pair):
        raise PhysicsError(f"The width of the smoothing must be 0 pixels or more; it is {width!r}.")
    if not any(pair):
        return field
    if field.isnan().any():
        raise PhysicsError("A field with gaps (NaN) can't be smoothed; fill them or leave the smoothing out.")
    down, across = (
        _heat_kernel(size, float(one)).to(field) for size, one in zip(field.shape[-2:], pair, strict=True)
    )
    return torch.matmul(torch.matmul(down, field), across)


@lru_cache(maxsize=64)
def _heat_kernel(size: int, width: float) -> Tensor:
    """Symmetric (size, size) matrix that damps cosine mode k by exp(-(pi k width / size)^2 / 2)."""
    k = torch.arange(size, dtype=torch.float64)
    modes = torch.cos(math.pi * k[:, None] * (k + 0.5) / size)
    modes *= math.sqrt(2 / size)
    modes[0] = math.sqrt(1 / size)
    return modes.T @ (torch.exp(-0.5 * (math.pi * k * width / size).square())[:, None] * modes)


def observe(fine: Tensor, ratio: int, smoothing: float = 0.0) -> Tensor:
    """What a coarse model could have seen of a fine field: block means, then Gaussian smoothing.

    Models do not resolve their own grid spacing; waves shorter than some seven spacings are damped
    (Skamarock 2004, doi:10.1175/MWR2830.1, calls that the effective resolution).

    Parameters
    ----------
    fine : (..., H, W)
    ratio : fine pixels along one side of a coarse one
    smoothing : standard deviation of the Gaussian [coarse pixels]; 0 where the coarse field is a plain
        average, otherwise a property of the data set, see :func:`fit_smoothing`

    Returns
    -------
    (..., H / ratio, W / ratio)
    """
    return smooth(block_mean(fine, ratio) if ratio > 1 else fine, smoothing)


def signed_fluxes(temperature: Tensor, cells: Cells, *, spacing: Spacing, epsilon: float = EPSILON) -> Fluxes:
    """F_adv [K] and F_dif [K per unit of the spacing] of every cell; see the module for the formulas.

    ``temperature`` (..., H, W) in any scale whose unit is the kelvin: adding a constant changes nothing.
    Returns fluxes (..., rows, columns).
    """
    edge = _with_corners_twice(boundary_gradient(temperature, cells, spacing=spacing), cells.width)
    centred = edge.value - cell_mean(temperature, cells).unsqueeze(-1)
    advective = (centred * edge.outward / (edge.steepness + epsilon)).mean(-1)
    return Fluxes(advective, edge.outward.mean(-1))


def _with_corners_twice(edge: Boundary, width: int) -> Boundary:
    """The boundary with its corners added once more, with the normals of the left and right sides."""
    corners = [0, width - 1, width, 2 * width - 1]
    normals = edge.along.new_tensor([-1.0, 1.0, -1.0, 1.0])
    return Boundary(
        torch.cat((edge.value, edge.value[..., corners]), -1),
        torch.cat((edge.outward, edge.along[..., corners] * normals), -1),
        torch.cat((edge.along, edge.outward[..., corners]), -1),
    )


def flux_error(
    temperature: Tensor,
    reference: Tensor,
    *,
    spacing: Spacing,
    cell: int = CELL,
    smoothing: float = 0.0,
    epsilon: float = EPSILON,
) -> Tensor:
    """Relative error of the fluxes of a field, dimensionless, 0 (equal) to 2; a constant field has 1.

    Parameters
    ----------
    temperature : (..., H, W) [K]
    reference : (..., h, w) [K], the truth on the same grid or a coarse field; leading dimensions pair as
        :func:`core.physics.supergrid.grid_ratio` says
    spacing : of the fine grid [km]
    cell : side of the supergrid cells in pixels of the reference; cells are laid from the first row and
        column, what does not fit a whole one is left out
    smoothing : of a coarse reference, see :func:`observe` [coarse pixels]
    epsilon : see :data:`EPSILON`

    Returns
    -------
    (...), one number per field; its mean is a training loss. Cells with gaps (NaN) in either field are left
    out; NaN where no cell remains.

    Raises
    ------
    PhysicsError
        if the fields do not fit each other, no cell fits, smoothing is asked for on one grid or for a field
        with gaps, or a field is not of float32 or float64.
    """
    ratio = grid_ratio(temperature, reference)
    if ratio == 1 and smoothing:
        raise PhysicsError(
            "Smoothing is for a coarse reference; the fields are on one grid, so leave it at 0."
        )
    along_rows, along_columns = spacing_pair(spacing)
    step = (ratio * along_rows, ratio * along_columns)
    cells = Cells.fit(tuple(reference.shape), cell)
    own = signed_fluxes(observe(temperature, ratio, smoothing), cells, spacing=step, epsilon=epsilon)
    theirs = signed_fluxes(reference, cells, spacing=step, epsilon=epsilon)
    errors = [_relative_error(one, other) for one, other in zip(own, theirs, strict=True)]
    return torch.stack(errors).mean(0)


def _relative_error(own: Tensor, reference: Tensor) -> Tensor:
    """E(F) over the last two dimensions; 0 where both fields have no flux at all."""
    valid = own.isfinite() & reference.isfinite()
    own, reference = (torch.where(valid, fluxes, 0.0) for fluxes in (own, reference))
    difference = (own - reference).square().sum((-2, -1))
    size = (own.square() + reference.square()).sum((-2, -1))
    error = difference / size.clamp(min=torch.finfo(size.dtype).tiny)
    return torch.where(valid.any(-1).any(-1), error, torch.nan)


def fit_smoothing(
    pairs: Iterable[tuple[Tensor, Tensor]],
    *,
    spacing: Spacing,
    cell: int = CELL,
    widths: Sequence[float] = WIDTHS,
) -> float:
    """Width of the Gaussian that makes coarse fields out of their truth [coarse pixels].

    A property of a data set, to be found once from hours with truth and then held fixed: the width with the
    smallest mean flux error between the observed truth and the coarse field. A coarse field that is the
    block mean of the truth gives 0.

    Parameters
    ----------
    pairs : truth (..., H, W) and coarse field (..., h, w) [K], some hours at a time
    spacing, cell : as in :func:`flux_error`
    widths : to choose from, ascending

    Raises
    ------
    PhysicsError
        if there is no pair.
    """
    total = torch.zeros(len(widths), dtype=torch.float64)
    known = False
    for fine, coarse in pairs:
        errors = torch.stack(
            [
                flux_error(fine, coarse, spacing=spacing, cell=cell, smoothing=width).reshape(-1).double()
                for width in widths
            ]
        )
        known |= bool(errors.isfinite().any())
        total += errors.nansum(-1).cpu()
    if not known:
        raise PhysicsError("The smoothing of the coarse field can be fitted only to hours with truth.")
    return float(widths[int(total.argmin())])
