"""Spatial derivatives of fields on a regular grid, differentiable and free of Python loops.

Fields are tensors (..., H, W) in float32 or float64. Derivatives are taken in index direction: along rows
(index i, which runs from north to south on our grids) and along columns (index j, west to east). The spacing
is that of the grid in any unit of length; derivatives have the unit of the field over that unit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Spacing = float | tuple[float, float]
"""Distance between neighbouring pixels: one number, or that between rows and that between columns."""


class PhysicsError(ValueError):
    """Fields, cells or options that physics can't be computed with; the message says why."""


def spacing_pair(spacing: Spacing) -> tuple[float, float]:
    """Spacing between rows and between columns. Raises PhysicsError unless both are positive numbers."""
    pair = spacing if isinstance(spacing, tuple) else (spacing, spacing)
    if len(pair) != 2 or not all(math.isfinite(step) and step > 0 for step in pair):
        raise PhysicsError(
            f"The spacing must be a positive length, or one for rows and one for columns; it is {spacing!r}."
        )
    return float(pair[0]), float(pair[1])


def check_field(field: Tensor, name: str = "field", *, smallest: int = 2) -> None:
    """Raise PhysicsError unless ``field`` is (..., H, W) in float32 or float64 with sides >= ``smallest``."""
    if field.dtype not in (torch.float32, torch.float64):
        raise PhysicsError(
            f"The {name} is in {str(field.dtype).removeprefix('torch.')}; differences of neighbouring "
            "temperatures need float32 or float64. Convert it with .float() first."
        )
    if field.ndim < 2 or min(field.shape[-2:]) < smallest:
        raise PhysicsError(
            f"The {name} must have at least {smallest} rows and {smallest} columns as its last two "
            f"dimensions; its shape is {tuple(field.shape)}."
        )


def difference(field: Tensor, dim: int, spacing: float) -> Tensor:
    """Derivative along one dimension: central differences, one-sided at both ends; the shape stays."""
    return torch.gradient(field, spacing=spacing, dim=dim)[0]


def gradient(field: Tensor, spacing: Spacing = 1.0) -> tuple[Tensor, Tensor]:
    """Derivatives along rows and along columns by central differences, one-sided at the outer edge.

    Rosu et al., arXiv 2510.23866, section 3.3, take gradients so.

    Parameters
    ----------
    field : (..., H, W)
    spacing : of the grid, any unit of length

    Returns
    -------
    d/drow (positive where the field grows with the row index, that is southwards) and d/dcolumn, each
    (..., H, W), units of the field per unit of the spacing.

    Raises
    ------
    PhysicsError
        if the field is not of float32 or float64, has fewer than two rows or columns, or the spacing is
        not positive.
    """
    check_field(field)
    along_rows, along_columns = spacing_pair(spacing)
    return difference(field, -2, along_rows), difference(field, -1, along_columns)


def magnitude(first: Tensor, second: Tensor) -> Tensor:
    """Length of a vector by its two components, ``sqrt(first^2 + second^2)``; shapes broadcast.

    At the zero vector its derivative is taken to be 0 (a sub-gradient), where that of a square root is NaN.
    """
    square = first.square() + second.square()
    zero = square == 0
    return square.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def laplacian(field: Tensor, spacing: Spacing = 1.0) -> Tensor:
    """Sum of the second derivatives by the five-point formula.

    Parameters
    ----------
    field : (..., H, W), at least 3 x 3
    spacing : of the grid, any unit of length

    Returns
    -------
    (..., H - 2, W - 2), pixels that have all four neighbours; units of the field per spacing squared.

    Raises
    ------
    PhysicsError
        as :func:`gradient`, or if a side is shorter than three pixels.
    """
    check_field(field, smallest=3)
    along_rows, along_columns = spacing_pair(spacing)
    centre = field[..., 1:-1, 1:-1]
    rows = field[..., 2:, 1:-1] - 2 * centre + field[..., :-2, 1:-1]
    columns = field[..., 1:-1, 2:] - 2 * centre + field[..., 1:-1, :-2]
    return rows / along_rows**2 + columns / along_columns**2
