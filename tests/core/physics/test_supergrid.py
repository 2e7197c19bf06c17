"""Cells, their boundary pixels and means, against plain slices of one cell at a time."""

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain import ITALY
from core.physics import (
    Cells,
    PhysicsError,
    block_mean,
    boundary,
    boundary_flux,
    boundary_gradient,
    boundary_mean,
    cell_mean,
    gradient,
    grid_ratio,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def piece(field: torch.Tensor, cells: Cells, i: int, j: int) -> torch.Tensor:
    rows = slice(i * cells.height, (i + 1) * cells.height)
    return field[..., rows, j * cells.width : (j + 1) * cells.width]


def ring(cell: torch.Tensor) -> torch.Tensor:
    """Top, bottom, left, right of one cell (..., h, w), corners in the first two."""
    return torch.cat((cell[..., 0, :], cell[..., -1, :], cell[..., 1:-1, 0], cell[..., 1:-1, -1]), -1)


def test_boundary_pixels_of_numbered_fields() -> None:
    field = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    cells = Cells.fit(field.shape, (4, 3))
    assert boundary(field, cells).tolist() == [
        [[0, 1, 2, 18, 19, 20, 6, 12, 8, 14], [3, 4, 5, 21, 22, 23, 9, 15, 11, 17]]
    ]
    assert cells.boundary_pixels == 10
    assert cell_mean(field, cells).tolist() == [[10.0, 13.0]]


shapes = st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None, max_examples=30)
@given(
    sizes=shapes,
    spare=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    gradients=st.sampled_from(["field", "cell"]),
)
def test_every_cell_equals_plain_slices(
    sizes: tuple[int, int, int, int], spare: tuple[int, int], gradients: Literal["field", "cell"]
) -> None:
    height, width, rows, columns = sizes
    # The spare pixels must stay fewer than a cell.
    spare = (min(spare[0], height - 1), min(spare[1], width - 1))
    field = noise(2, rows * height + spare[0], columns * width + spare[1], seed=sum(sizes))
    cells = Cells.fit(field.shape, (height, width))
    assert (cells.rows, cells.columns, cells.spare_rows, cells.spare_columns) == (rows, columns, *spare)
    edge = boundary_gradient(field, cells, spacing=(2.0, 3.0), gradients=gradients)
    south, east = gradient(field, (2.0, 3.0))
    other = noise(*field.shape, seed=1)
    means, fluxes = boundary_mean(field, cells), boundary_flux(field, other, cells)
    for i in range(rows):
        for j in range(columns):
            cell = piece(field, cells, i, j)
            if gradients == "cell":
                local_south, local_east = gradient(cell, (2.0, 3.0))
            else:
                local_south, local_east = piece(south, cells, i, j), piece(east, cells, i, j)
            torch.testing.assert_close(edge.value[:, i, j], ring(cell))
            normal = torch.cat(
                (
                    -local_south[:, 0],
                    local_south[:, -1],
                    -local_east[:, 1:-1, 0],
                    local_east[:, 1:-1, -1],
                ),
                -1,
            )
            torch.testing.assert_close(edge.outward[:, i, j], normal)
            torch.testing.assert_close(edge.steepness[:, i, j], ring((local_south**2 + local_east**2).sqrt()))
            torch.testing.assert_close(means[:, i, j], ring(cell).mean(-1))
            across = piece(other, cells, i, j)
            flux = torch.cat((-cell[:, 0], cell[:, -1], -across[:, 1:-1, 0], across[:, 1:-1, -1]), -1)
            torch.testing.assert_close(fluxes[:, i, j], flux.mean(-1))


def test_a_uniform_flow_leaves_as_much_as_enters() -> None:
    cells = Cells.fit((6, 8), (3, 4))
    uniform = torch.ones(6, 8)
    assert boundary_flux(2 * uniform, -3 * uniform, cells).abs().max() == 0


@pytest.mark.parametrize("gradients", ["field", "cell"])
def test_boundaries_can_be_differentiated(gradients: Literal["field", "cell"]) -> None:
    field = noise(2, 7, 6).requires_grad_()
    cells = Cells.fit(field.shape, (3, 2))

    def everything(f: torch.Tensor) -> tuple[torch.Tensor, ...]:
        edge = boundary_gradient(f, cells, spacing=2.0, gradients=gradients)
        return edge.value, edge.outward, edge.along, edge.steepness, cell_mean(f, cells)

    assert torch.autograd.gradcheck(everything, (field,))


def test_cells_of_the_italy_domain() -> None:
    cells = Cells.fit(ITALY.fine.shape, ITALY.ratio * ITALY.supergrid_cell)
    assert (cells.rows, cells.columns) == ITALY.supergrid_shape == (7, 6)
    assert (cells.height, cells.width, cells.left_out) == (96, 96, None)
    assert cells.in_blocks(ITALY.ratio) == Cells.fit(ITALY.coarse.shape, 12)


def test_pixels_in_no_cell_are_named() -> None:
    cells = Cells.fit((40, 33), 16)
    assert cells.left_out == (
        "The last 8 rows and 1 columns are in no supergrid cell: 2 x 2 whole cells of 16 x 16 pixels fit."
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cells.fit((8, 8), 1), "at least 2 x 2 pixels"),
        (lambda: Cells.fit((8, 8), 0), "0 x 0"),
        (lambda: Cells.fit((8, 8), 9), "9 x 9 pixels fits"),
        (lambda: Cells.per_side((72, 60), 8), "multiples of 8"),
        (lambda: Cells.per_side((8, 8), 8), "at least 2 x 2 pixels"),
        (lambda: Cells.per_side((8, 8), 0), "0 x 0"),
        (lambda: Cells.fit((84, 72), 12).in_blocks(8), "whole coarse pixels"),
        (lambda: boundary(torch.zeros(8, 9), Cells.fit((8, 8), 4)), "8 x 8 pixels, this one has 8 x 9"),
        (
            lambda: boundary_gradient(torch.zeros(8, 8), Cells.fit((8, 8), 4), gradients="both"),  # type: ignore[arg-type]
            "field or cell",
        ),
        (lambda: block_mean(torch.zeros(8, 9), 4), "multiples"),
    ],
)
def test_cells_that_do_not_fit_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(PhysicsError, match=message):
        make()


def test_block_means() -> None:
    field = noise(2, 3, 8, 12)
    torch.testing.assert_close(block_mean(field, 4), torch.nn.functional.avg_pool2d(field, 4))
    torch.testing.assert_close(block_mean(field, (2, 3)), torch.nn.functional.avg_pool2d(field, (2, 3)))


@pytest.mark.parametrize(
    ("fine", "coarse"), [((8, 8), (2, 2)), ((5, 8, 8), (2, 2)), ((5, 3, 8, 8), (1, 3, 2, 2))]
)
def test_fields_that_pair(fine: tuple[int, ...], coarse: tuple[int, ...]) -> None:
    assert grid_ratio(torch.zeros(fine), torch.zeros(coarse)) == 4


@pytest.mark.parametrize(
    ("fine", "coarse", "message"),
    [
        ((8, 8), (3, 2), "8 x 8 pixels.*3 x 2"),
        ((8, 8), (4, 2), "not one whole multiple"),
        ((2, 2), (8, 8), "not one whole multiple"),
        # Either would cross samples or predictors in silence.
        ((4, 1, 8, 8), (4, 2, 2), "can't be paired"),
        ((4, 1, 8, 8), (4, 14, 2, 2), "only the one"),
    ],
)
def test_fields_that_do_not_pair(fine: tuple[int, ...], coarse: tuple[int, ...], message: str) -> None:
    with pytest.raises(PhysicsError, match=message):
        grid_ratio(torch.zeros(fine), torch.zeros(coarse))
