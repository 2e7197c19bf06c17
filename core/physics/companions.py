"""Terms that go along with the flux ratio: energy, an advection-diffusion balance, and wind divergence.

All are differentiable, take fields (..., H, W) in float32 or float64 and return a single number, the mean
over pixels and fields. They follow the terms that the code published with Rosu et al., arXiv 2510.23866, adds
to the diffusion loss, in the physical form that it only approximates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.physics.gradients import (
    PhysicsError,
    Spacing,
    check_field,
    gradient,
    laplacian,
    magnitude,
    spacing_pair,
)
from core.physics.supergrid import block_mean, grid_ratio


def energy_loss(fine: Tensor, coarse: Tensor) -> Tensor:
    """Mean squared difference of the fine field averaged to the coarse grid and the coarse field.

    mean over coarse pixels and fields of (block mean of T_fine - T_coarse)^2, units of the field squared.

    Parameters
    ----------
    fine : (..., H, W)
    coarse : (..., h, w), which pairs with ``fine`` as :func:`core.physics.supergrid.grid_ratio` says

    Raises
    ------
    PhysicsError
        if the grids do not fit each other, or a field is not of float32 or float64.
    """
    return (block_mean(fine, grid_ratio(fine, coarse)) - coarse).square().mean()


class Balance(NamedTuple):
    """Coefficients of D lap T = a |grad T| fitted to a field, each of the leading shape (...).

    Attributes
    ----------
    diffusivity : D, such that the mean square of D lap T over the field is 1
    advection : a, such that the mean square of a |grad T| over the field is 1; negative where the field is
        steeper where it is curved downwards
    residual : mean square of D lap T - a |grad T| over the field, from 0 to 2
    """

    diffusivity: Tensor
    advection: Tensor
    residual: Tensor


def _terms(field: Tensor, spacing: Spacing) -> tuple[Tensor, Tensor]:
    """Laplacian and steepness on the pixels that have all four neighbours."""
    along_rows, along_columns = gradient(field, spacing)
    inner = magnitude(along_rows[..., 1:-1, 1:-1], along_columns[..., 1:-1, 1:-1])
    return laplacian(field, spacing), inner


def _mean(values: Tensor) -> Tensor:
    return values.mean((-2, -1))


def fit_balance(field: Tensor, spacing: Spacing, *, epsilon: float = 1e-6) -> Balance:
    """Least-squares fit of the balance of diffusion and advection, D lap T = a |grad T|.

    The equation is homogeneous: only the ratio of D and a is determined, and D = a = 0 fits best. So the
    mean square of D lap T - a |grad T| is made least among coefficients of one length, (D l)^2 + (a s)^2 = 2
    with l and s the root mean squares of lap T and |grad T| over the field, which makes the two terms alike
    and the result independent of units. With r the mean of lap T |grad T| over l s, the smaller eigenvalue of
    [[1, -r], [-r, 1]] is 1 - |r|, hence

        D = 1 / l,   a = sign(r) / s,   residual = 2 (1 - |r|)

    Parameters
    ----------
    field : (..., H, W), at least 3 x 3
    spacing : of its grid, any unit of length
    epsilon : smallest l and s, so that a field without gradients has finite coefficients
    """
    curvature, steepness = _terms(field, spacing)
    diffusivity = 1 / _mean(curvature.square()).sqrt().clamp(min=epsilon)
    advection = 1 / _mean(steepness.square()).sqrt().clamp(min=epsilon)
    product = diffusivity * advection * _mean(curvature * steepness)
    # Without any correlation either sign fits alike.
    sign = torch.where(product < 0, -1.0, 1.0).to(field.dtype)
    return Balance(diffusivity, sign * advection, 2 * (1 - product.abs()).clamp(min=0))


def residual_loss(
    fine: Tensor,
    coarse: Tensor,
    *,
    spacing: Spacing,
    epsilon: float = 1e-6,
) -> Tensor:
    """How much worse the fine field keeps the balance of diffusion and advection that fits the coarse one.

    mean over fields of mean(D lap T - a |grad T|)^2 over the fine field, divided by the same over the coarse
    field, with D and a of :func:`fit_balance` from that coarse field. Dimensionless; 1 for the coarse field
    itself. Derivatives grow with the resolution, so a realistic fine field gives far more than 1.

    Parameters
    ----------
    fine : (..., H, W), at least 3 x 3
    coarse : (..., h, w), at least 3 x 3, treated as constant; pairs with ``fine`` as
        :func:`core.physics.supergrid.grid_ratio` says
    spacing : of the fine grid, any unit of length
    epsilon : smallest divisor, see :func:`fit_balance`

    Raises
    ------
    PhysicsError
        if the fields do not fit each other, one is too small or not of float32 or float64, or the spacing
        is not positive.
    """
    ratio = grid_ratio(fine, coarse)
    along_rows, along_columns = spacing_pair(spacing)
    coarse_spacing = (ratio * along_rows, ratio * along_columns)
    balance = fit_balance(coarse.detach(), coarse_spacing, epsilon=epsilon)
    curvature, steepness = _terms(fine, spacing)
    left = balance.diffusivity[..., None, None] * curvature - balance.advection[..., None, None] * steepness
    return (_mean(left.square()) / balance.residual.clamp(min=epsilon)).mean()


def rotate_to_grid(east: Tensor, north: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Wind components along the grid's x and y from those towards true east and north [m s-1].

    ``rotation`` [radian] is the angle from grid east to true east, anticlockwise positive, shape (H, W), as
    :attr:`core.domain.Grid.rotation` gives it; u = east cos a - north sin a, v = east sin a + north cos a.
    """
    angle = rotation.to(east)
    cosine, sine = angle.cos(), angle.sin()
    return east * cosine - north * sine, east * sine + north * cosine


def divergence(x_wind: Tensor, y_wind: Tensor, spacing: Spacing) -> Tensor:
    """Horizontal divergence du/dx + dv/dy of grid-relative winds, central differences, one-sided at edges.

    Parameters
    ----------
    x_wind, y_wind : (..., H, W) along the grid's x (growing with the column index) and y (growing
        northwards, that is against the row index) [m s-1]
    spacing : of the grid [m]

    Returns
    -------
    (..., H, W) [s-1]
    """
    _, du_dx = gradient(x_wind, spacing)
    south, _ = gradient(y_wind, spacing)
    return du_dx - south


def divergence_loss(east: Tensor, north: Tensor, rotation: Tensor, spacing: Spacing) -> Tensor:
    """Mean square of the horizontal divergence of earth-relative winds [s-2].

    Parameters
    ----------
    east, north : (..., H, W), u10 and v10 as data sets give them [m s-1]
    rotation : (H, W), see :func:`rotate_to_grid`
    spacing : of the grid [m]

    Raises
    ------
    PhysicsError
        if a field is too small or not of float32 or float64, or the shapes do not fit each other.
    """
    check_field(east, "eastward wind")
    check_field(north, "northward wind")
    if east.shape != north.shape or rotation.shape[-2:] != east.shape[-2:]:
        raise PhysicsError(
            f"Winds of shape {tuple(east.shape)} and {tuple(north.shape)} and a rotation of "
            f"{tuple(rotation.shape)} do not lie on one grid."
        )
    return divergence(*rotate_to_grid(east, north, rotation), spacing).square().mean()
