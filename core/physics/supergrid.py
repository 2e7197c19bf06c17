"""The supergrid: square pieces of a grid, their area means and their boundary pixels.

A supergrid cell is a block of pixels; its boundary is the outermost ring of these pixels (Rosu et al., arXiv
2510.23866, section 3.3). The four corners belong to the top and bottom rows, whose outward normals are minus
and plus the row direction; the rest of the first and last column has the normals minus and plus the column
direction. A boundary of h x w pixels thus has P = 2 w + 2 (h - 2) of them, in the order top, bottom, left,
right. North and south therefore weigh more than west and east, and in cells two pixels high nothing else
counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from core.physics.gradients import (
    PhysicsError,
    Spacing,
    check_field,
    difference,
    magnitude,
    spacing_pair,
)

Gradients = Literal["field", "cell"]
"""Differences across cell borders (of the whole field), or of every cell alone, one-sided at its border."""


@dataclass(frozen=True)
class Cells:
    """Whole supergrid cells that fit a field, from its first row and column.

    Attributes
    ----------
    height, width : pixels of one cell
    rows, columns : number of cells
    spare_rows, spare_columns : pixels of the field that no cell covers, at its last rows and columns

    Raises
    ------
    PhysicsError
        if a cell has fewer than 2 x 2 pixels, or none fits.
    """

    height: int
    width: int
    rows: int
    columns: int
    spare_rows: int = 0
    spare_columns: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 2:
            raise PhysicsError(
                f"A supergrid cell needs at least 2 x 2 pixels to have fluxes over its boundary; these have "
                f"{self.height} x {self.width}. Choose larger, or fewer, cells."
            )
        if min(self.rows, self.columns) < 1:
            raise PhysicsError(
                f"No supergrid cell of {self.height} x {self.width} pixels fits the field; choose smaller "
                "cells or a larger field."
            )

    @classmethod
    def fit(cls, shape: tuple[int, ...], size: int | tuple[int, int]) -> Cells:
        """As many cells of ``size`` pixels (height and width, or both) as fit a field of ``shape``.

        Only the last two numbers of ``shape`` count. What remains is in ``spare_rows`` and
        ``spare_columns``.
        """
        height, width = size if isinstance(size, tuple) else (size, size)
        if min(height, width) < 1:
            raise PhysicsError(f"A supergrid cell can't have {height} x {width} pixels.")
        (rows, spare_rows), (columns, spare_columns) = divmod(shape[-2], height), divmod(shape[-1], width)
        return cls(height, width, rows, columns, spare_rows, spare_columns)

    @classmethod
    def per_side(cls, shape: tuple[int, ...], count: int) -> Cells:
        """``count`` x ``count`` cells that cover a field of ``shape``.

        Raises PhysicsError where both sides are not multiples of ``count``.
        """
        if count < 1 or shape[-2] % count or shape[-1] % count:
            raise PhysicsError(
                f"A field of {shape[-2]} x {shape[-1]} pixels can't be divided into {count} x {count} equal "
                f"cells; both sides must be multiples of {count}. Give the size of a cell in pixels instead."
            )
        return cls(shape[-2] // count, shape[-1] // count, count, count)

    def in_blocks(self, ratio: int) -> Cells:
        """The same cells on the grid whose pixels are blocks of ``ratio`` x ``ratio`` of this one's.

        Raises PhysicsError where a cell does not consist of whole blocks.
        """
        sides = (self.height, self.width, self.spare_rows, self.spare_columns)
        if any(side % ratio for side in sides):
            raise PhysicsError(
                f"Supergrid cells of {self.height} x {self.width} fine pixels are not made of whole coarse "
                f"pixels, each of which has {ratio} x {ratio}; choose cells whose sides are multiples."
            )
        height, width, spare_rows, spare_columns = (side // ratio for side in sides)
        return Cells(height, width, self.rows, self.columns, spare_rows, spare_columns)

    @property
    def boundary_pixels(self) -> int:
        """P: pixels of one cell's boundary."""
        return 2 * self.width + 2 * (self.height - 2)

    @property
    def left_out(self) -> str | None:
        """A sentence about pixels that no cell covers, None where there are none."""
        if not self.spare_rows and not self.spare_columns:
            return None
        return (
            f"The last {self.spare_rows} rows and {self.spare_columns} columns are in no supergrid cell: "
            f"{self.rows} x {self.columns} whole cells of {self.height} x {self.width} pixels fit."
        )


def grid_ratio(fine: Tensor, coarse: Tensor) -> int:
    """Fine pixels along one side of a coarse pixel, for two fields that are to be compared.

    Parameters
    ----------
    fine : (..., H, W)
    coarse : (..., h, w), with no leading dimensions or as many as ``fine``, each of them equal to the fine
        one's or 1: many members may share one coarse field, but no channels or samples are crossed

    Raises
    ------
    PhysicsError
        if H and W are not one and the same whole multiple of h and w, leading dimensions do not pair, or a
        field is not of float32 or float64.
    """
    check_field(fine, "fine field", smallest=1)
    check_field(coarse, "coarse field", smallest=1)
    (*leading, height, width), (*coarse_leading, h, w) = fine.shape, coarse.shape
    ratio = height // h
    if ratio < 1 or (h * ratio, w * ratio) != (height, width):
        raise PhysicsError(
            f"The fine field has {height} x {width} pixels, which is not one whole multiple of the coarse "
            f"{h} x {w} along both sides."
        )
    if coarse_leading and (
        len(leading) != len(coarse_leading)
        or any(own not in (1, other) for own, other in zip(coarse_leading, leading, strict=True))
    ):
        raise PhysicsError(
            f"A fine field of shape {tuple(fine.shape)} and a coarse one of {tuple(coarse.shape)} can't be "
            "paired; give both the same leading dimensions, and of the coarse predictors only the one that "
            "the fine field is compared with."
        )
    return ratio


def block_mean(field: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Means of blocks of ``size`` pixels (height and width, or both): (..., H, W) to (..., H/h, W/w).

    This is how a fine field is brought to the coarse grid. Raises PhysicsError where the sides are not
    multiples of the block.
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    check_field(field, smallest=1)
    if min(height, width) < 1 or field.shape[-2] % height or field.shape[-1] % width:
        raise PhysicsError(
            f"A field of {field.shape[-2]} x {field.shape[-1]} pixels can't be averaged in blocks of "
            f"{height} x {width}; its sides must be multiples of the block's."
        )
    rows, columns = field.shape[-2] // height, field.shape[-1] // width
    return field.reshape(*field.shape[:-2], rows, height, columns, width).mean((-3, -1))


def cell_mean(field: Tensor, cells: Cells) -> Tensor:
    """Area mean of every supergrid cell: (..., H, W) to (..., rows, columns)."""
    _check_fit(field, cells)
    covered = field[..., : cells.rows * cells.height, : cells.columns * cells.width]
    return block_mean(covered, (cells.height, cells.width))


def boundary(field: Tensor, cells: Cells) -> Tensor:
    """The pixels of every cell's boundary: (..., H, W) to (..., rows, columns, P)."""
    _check_fit(field, cells)
    rows = field.index_select(-2, _edges(cells.height, cells.rows, field.device))
    columns = field.index_select(-1, _edges(cells.width, cells.columns, field.device))
    return _by_cell(rows, columns, cells)


def boundary_mean(field: Tensor, cells: Cells) -> Tensor:
    """Mean over every cell's boundary: (..., H, W) to (..., rows, columns), units of the field."""
    return boundary(field, cells).mean(-1)


def boundary_flux(row_component: Tensor, column_component: Tensor, cells: Cells) -> Tensor:
    """Mean over every cell's boundary of a vector field's component along the outward normal.

    Parameters
    ----------
    row_component, column_component : (..., H, W) along growing row and column index

    Returns
    -------
    (..., rows, columns), units of the components; positive outwards.
    """
    ends = boundary(row_component, cells)[..., : 2 * cells.width]
    sides = boundary(column_component, cells)[..., 2 * cells.width :]
    top, bottom = ends[..., : cells.width], ends[..., cells.width :]
    left, right = sides[..., : cells.height - 2], sides[..., cells.height - 2 :]
    total: Tensor = (bottom - top).sum(-1) + (right - left).sum(-1)
    return total / cells.boundary_pixels


class Boundary(NamedTuple):
    """A field and its gradient on the boundary pixels of supergrid cells.

    Attributes
    ----------
    value : (..., rows, columns, P), the field
    outward : (..., rows, columns, P), its derivative along the outward normal
    along : (..., rows, columns, P), its derivative along growing column (top, bottom) or row index (sides)
    """

    value: Tensor
    outward: Tensor
    along: Tensor

    @property
    def steepness(self) -> Tensor:
        """|grad|, (..., rows, columns, P); where it is 0 its derivative is taken to be 0."""
        return magnitude(self.outward, self.along)


def boundary_gradient(
    field: Tensor, cells: Cells, *, spacing: Spacing = 1.0, gradients: Gradients = "field"
) -> Boundary:
    """The field and its gradient on the boundaries of all cells.

    Equals :func:`core.physics.gradients.gradient` on these pixels, but touches no others, which is most of
    the work where cells are large.

    Parameters
    ----------
    field : (..., H, W)
    cells : of this field
    spacing : of the grid, any unit of length
    gradients : "field" takes differences across cell borders; "cell" stays inside each cell, one-sided at
        its border

    Raises
    ------
    PhysicsError
        if the field is not of float32 or float64 or does not have the size the cells were made for, or an
        option is unknown.
    """
    _check_fit(field, cells)
    if gradients not in ("field", "cell"):
        raise PhysicsError(f"Unknown gradients {gradients!r}; choose field or cell.")
    along_rows, along_columns = spacing_pair(spacing)
    inside = gradients == "cell"
    row_value, row_outward = _across(field, -2, cells.height, cells.rows, along_rows, inside)
    column_value, column_outward = _across(field, -1, cells.width, cells.columns, along_columns, inside)
    row_along = _lengthwise(row_value, -1, cells.width, cells.columns, along_columns, inside)
    column_along = _lengthwise(column_value, -2, cells.height, cells.rows, along_rows, inside)
    return Boundary(
        _by_cell(row_value, column_value, cells),
        _by_cell(row_outward, column_outward, cells),
        _by_cell(row_along, column_along, cells),
    )


def _check_fit(field: Tensor, cells: Cells) -> None:
    check_field(field)
    height = cells.rows * cells.height + cells.spare_rows
    width = cells.columns * cells.width + cells.spare_columns
    if tuple(field.shape[-2:]) != (height, width):
        raise PhysicsError(
            f"These supergrid cells were made for a field of {height} x {width} pixels, this one has "
            f"{field.shape[-2]} x {field.shape[-1]}."
        )


def _edges(size: int, count: int, device: torch.device) -> Tensor:
    """Index of the first and last line of every cell, (2 count,)."""
    first = torch.arange(count, device=device) * size
    return torch.stack((first, first + size - 1), 1).flatten()


def _across(
    field: Tensor, dim: int, size: int, count: int, spacing: float, inside: bool
) -> tuple[Tensor, Tensor]:
    """Along ``dim`` only the first and last line of every cell: values, and derivatives outwards."""
    lines = _edges(size, count, field.device)
    if inside:
        lowest = (lines // size) * size
        highest = lowest + size - 1
        before, after = torch.maximum(lines - 1, lowest), torch.minimum(lines + 1, highest)
    else:
        before, after = (lines - 1).clamp(min=0), (lines + 1).clamp(max=field.shape[dim] - 1)
    # One selection for all three, because each costs a pass over the whole field in the backward pass.
    picked = field.index_select(dim, torch.cat((before, lines, after)))
    previous, value, following = (picked.narrow(dim, n * 2 * count, 2 * count) for n in range(3))
    normal = torch.tensor([-1.0, 1.0], dtype=field.dtype, device=field.device).repeat(count)
    step = (normal * (after - before) * spacing).reshape(-1, *(1,) * (-1 - dim))
    return value, (following - previous) / step


def _lengthwise(lines: Tensor, dim: int, size: int, count: int, spacing: float, inside: bool) -> Tensor:
    """Derivative along the lines themselves, along ``dim``; at most what lies in cells is of use."""
    if not inside:
        return difference(lines, dim, spacing)
    axis = lines.ndim + dim
    pieces = lines.narrow(axis, 0, size * count)
    folded = pieces.reshape(*lines.shape[:axis], count, size, *lines.shape[axis + 1 :])
    return difference(folded, axis + 1, spacing).reshape(pieces.shape)


def _by_cell(rows: Tensor, columns: Tensor, cells: Cells) -> Tensor:
    """Lines (..., 2 rows, W) and (..., H, 2 columns) to the boundary pixels (..., rows, columns, P)."""
    leading = rows.shape[:-2]
    ends = rows[..., : cells.columns * cells.width].reshape(
        *leading, cells.rows, 2, cells.columns, cells.width
    )
    ends = ends.transpose(-3, -2).reshape(*leading, cells.rows, cells.columns, 2 * cells.width)
    sides = columns[..., : cells.rows * cells.height, :]
    sides = sides.reshape(*leading, cells.rows, cells.height, cells.columns, 2)
    # The corners belong to the ends.
    sides = sides[..., 1:-1, :, :].movedim(-3, -1)
    sides = sides.reshape(*leading, cells.rows, cells.columns, 2 * (cells.height - 2))
    return torch.cat((ends, sides), -1)
