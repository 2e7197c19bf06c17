"""The flux ratio by hand, against a plain loop over cells, and what it keeps or loses under changes."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.flux import flux_ratio_by_loop
from core.physics import (
    VARIANTS,
    CellRule,
    Cells,
    FluxFormula,
    PhysicsError,
    block_mean,
    cell_fluxes,
    flux_formula,
    flux_ratio,
    flux_ratio_loss,
    flux_ratios,
)

NAMES = ("paper", "published_training", "published_metric", "centred")
# Cells that suit every variant: 4 coarse, 16 fine pixels.
CELLS = 4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plane(height: int, width: int, at_corner: float, south: float, east: float) -> Tensor:
    i, j = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    return at_corner + south * i[:, None] + east * j


def weather(*leading: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A fine field 64 x 48 [K] with structure at both scales, and a coarse one 16 x 12 close to its mean."""
    large = 285 + 6 * noise(*leading, 16, 12, seed=seed)
    fine = large.repeat_interleave(4, -2).repeat_interleave(4, -1) + noise(*leading, 64, 48, seed=seed + 1)
    return fine, block_mean(fine, 4) + 0.3 * noise(*leading, 16, 12, seed=seed + 2)


def by_hand(height: int, width: int, south: float, east: float, epsilon: float, spacing: float = 1) -> float:
    """F_adv of a cell of a plane field: steps of T from side to side, along the unit gradient."""
    steep = math.hypot(south, east) / spacing
    g_south, g_east = south / spacing / (steep + epsilon), east / spacing / (steep + epsilon)
    ends = width * south * (height - 1) * g_south
    sides = (height - 2) * east * (width - 1) * g_east
    return (ends + sides) / (2 * width + 2 * (height - 2))


@pytest.mark.parametrize("name", NAMES)
def test_a_plane_field_by_hand(name: str) -> None:
    south, east = 0.25, -0.125
    fine = plane(32, 48, 280, south, east)
    coarse = block_mean(fine, 4)
    rule = CellRule(unit="fine_pixels", count=16)
    result = flux_ratios(fine, coarse, name, spacing=2.0, cells=rule)
    formula = result.formula
    steep = math.hypot(south, east)

    def expected(size: int, step: float, spacing: float) -> float:
        advective = by_hand(size, size, step * south, step * east, formula.epsilon, spacing)
        diffusive = step * steep / spacing + formula.epsilon * (1 + (formula.epsilon_in == "magnitude"))
        return advective / diffusive

    fine_expected = {
        "paper": expected(16, 1, 2),
        "published_training": expected(16, 1, 1),
        "published_metric": expected(16, 1, 1),
        "centred": expected(4, 4, 8),
    }
    coarse_expected = {
        "paper": expected(4, 4, 8),
        "published_training": expected(4, 4, 1),
        "centred": expected(4, 4, 8),
    }
    assert result.fine.shape == result.coarse.shape == (2, 3)
    torch.testing.assert_close(result.fine, torch.full_like(result.fine, fine_expected[name]))
    if name in coarse_expected:
        torch.testing.assert_close(result.coarse, torch.full_like(result.coarse, coarse_expected[name]))
    if name == "centred":
        assert float(result.loss) < 1e-20


@pytest.mark.parametrize(("height", "width", "count"), [(32, 48, 4), (16, 16, 8), (48, 36, 3)])
def test_equals_a_loop_over_cells(height: int, width: int, count: int) -> None:
    field = (285 + 8 * noise(3, height, width)).requires_grad_()
    cells = Cells.per_side(field.shape, count)
    ours = flux_ratio(field, cells, epsilon=1e-4, gradients="cell", epsilon_in="magnitude")
    expected = flux_ratio_by_loop(field, count, 1e-4)
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-13)
    weights = noise(*ours.shape, seed=5)
    gradients = [torch.autograd.grad((r * weights).sum(), field)[0] for r in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_losses_can_be_differentiated(name: str) -> None:
    fine, coarse = weather()
    fine, coarse = fine[:16, :16].clone().requires_grad_(), coarse[:4, :4]

    def loss(field: Tensor) -> Tensor:
        return flux_ratio_loss(field, coarse, name, spacing=2.0, cells=2)

    assert torch.autograd.gradcheck(loss, (fine,), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_field_has_no_fluxes_and_a_finite_gradient(name: str) -> None:
    fine = torch.full((2, 64, 48), 285.0).requires_grad_()
    _, coarse = weather(2)
    result = flux_ratios(fine, coarse.float(), name, spacing=2.0, cells=CELLS)
    assert float(result.fine.detach().abs().max()) < 1e-6
    result.loss.backward()
    assert fine.grad is not None
    assert fine.grad.isfinite().all()


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 99), constant=st.floats(-300, 300))
def test_only_the_centred_one_ignores_a_constant(name: str, seed: int, constant: float) -> None:
    fine, coarse = weather(seed=seed)
    before = flux_ratios(fine, coarse, name, spacing=2.0, cells=CELLS)
    after = flux_ratios(fine + constant, coarse + constant, name, spacing=2.0, cells=CELLS)
    if name == "centred":
        torch.testing.assert_close(after.fine, before.fine, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(after.coarse, before.coarse, rtol=1e-9, atol=1e-9)
    elif abs(constant) > 1:
        assert float((after.fine - before.fine).abs().max()) > 1e-3


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 99), factor=st.floats(0.01, 100))
def test_ratio_does_not_change_with_the_unit_of_temperature(name: str, seed: int, factor: float) -> None:
    """epsilon has the unit of the gradient, so it scales along."""
    fine, coarse = weather(seed=seed)
    epsilon = flux_formula(name).epsilon
    before = flux_ratios(fine, coarse, name, spacing=2.0, cells=CELLS)
    options: dict[str, Any] = {"spacing": 2.0, "cells": CELLS, "epsilon": factor * epsilon}
    after = flux_ratios(factor * fine, factor * coarse, name, **options)
    torch.testing.assert_close(after.fine, before.fine, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after.coarse, before.coarse, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(("paper", "centred")), seed=st.integers(0, 99), factor=st.floats(0.01, 100))
def test_ratio_has_the_unit_of_the_spacing(name: str, seed: int, factor: float) -> None:
    fine, coarse = weather(seed=seed)
    before = flux_ratios(fine, coarse, name, spacing=2.0, cells=CELLS, epsilon=1e-6)
    after = flux_ratios(fine, coarse, name, spacing=2.0 * factor, cells=CELLS, epsilon=1e-6 / factor)
    torch.testing.assert_close(after.fine, factor * before.fine, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after.loss, factor**2 * before.loss, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(
    name=st.sampled_from(NAMES), seed=st.integers(0, 99), rows=st.integers(0, 3), columns=st.integers(0, 2)
)
def test_moving_fields_by_whole_cells_moves_the_ratios(name: str, seed: int, rows: int, columns: int) -> None:
    """Cells at the outer edge are left out: their gradients are one-sided before or after the move."""
    fine, coarse = weather(seed=seed)
    moved = [
        field.roll((rows * CELLS * ratio, columns * CELLS * ratio), (-2, -1))
        for field, ratio in ((fine, 4), (coarse, 1))
    ]
    before = flux_ratios(fine, coarse, name, spacing=2.0, cells=CELLS)
    after = flux_ratios(*moved, name, spacing=2.0, cells=CELLS)
    for ours, theirs in ((before.fine, after.fine), (before.coarse, after.coarse)):
        expected = ours.roll((rows, columns), (0, 1))
        if flux_formula(name).gradients == "cell":
            torch.testing.assert_close(theirs, expected)
            continue
        inner = torch.zeros(4, 3, dtype=torch.bool)
        inner[1:-1, 1:-1] = True
        both = inner & inner.roll((rows, columns), (0, 1))
        torch.testing.assert_close(theirs[both], expected[both])


@pytest.mark.parametrize("name", NAMES)
def test_turning_fields_turns_the_ratios(name: str) -> None:
    """Half a turn swaps all four sides of a cell, corners included."""
    fine, coarse = weather(2)
    before = flux_ratios(fine, coarse, name, spacing=2.0, cells=CELLS)
    after = flux_ratios(fine.flip(-1, -2), coarse.flip(-1, -2), name, spacing=2.0, cells=CELLS)
    torch.testing.assert_close(after.fine, before.fine.flip(-1, -2))
    torch.testing.assert_close(after.coarse, before.coarse.flip(-1, -2))


@pytest.mark.parametrize("name", NAMES)
def test_batches_hold_independent_fields(name: str) -> None:
    fine, coarse = weather(3, 2)
    together = flux_ratios(fine, coarse, name, spacing=2.0, cells=CELLS)
    assert together.fine.shape == (3, 2, 4, 3)
    assert together.per_field.shape == (3, 2)
    one = flux_ratios(fine[1, 0], coarse[1, 0], name, spacing=2.0, cells=CELLS)
    torch.testing.assert_close(together.fine[1, 0], one.fine)
    torch.testing.assert_close(together.per_field[1, 0], one.loss)
    torch.testing.assert_close(together.per_field.mean(), together.loss)
    members = flux_ratios(fine[:, 0], coarse[1, 0], name, spacing=2.0, cells=CELLS)
    torch.testing.assert_close(members.per_field[1], one.loss)


def test_what_each_name_stands_for() -> None:
    assert tuple(VARIANTS) == NAMES
    paper, training, metric, centred = VARIANTS.values()
    assert (paper.difference, paper.gradients, paper.spacing, paper.epsilon) == (
        "squared",
        "field",
        "length",
        1e-6,
    )
    assert (training.epsilon, training.epsilon_in, training.gradients) == (1e-4, "magnitude", "cell")
    assert (training.tensor, training.cells) == ("network_output", CellRule(unit="per_side", count=8))
    assert (metric.coarse, metric.spacing, metric.difference) == ("nearest", "pixel", "absolute")
    assert (centred.centred, centred.fine) == (True, "block_mean")
    assert flux_formula("paper") is paper
    assert flux_formula(metric) is metric


def test_cells_follow_the_greatest_common_divisor() -> None:
    result = flux_ratios(noise(48, 72), noise(12, 18), "paper", spacing=2.0)
    assert result.fine.shape == (2, 3)
    assert (result.cells.height, result.left_out) == (24, None)


def test_whole_cells_that_fit_are_used_and_the_rest_is_named() -> None:
    fine, coarse = weather()
    result = flux_ratios(fine, coarse, "paper", spacing=2.0, cells=5)
    assert result.fine.shape == (3, 2)
    assert result.left_out is not None
    assert "last 4 rows and 8 columns" in result.left_out
    # They still count as neighbours, so the last cells see central differences.
    cut = flux_ratios(fine[:60, :40], coarse[:15, :10], "paper", spacing=2.0, cells=5)
    torch.testing.assert_close(result.fine[:2, :1], cut.fine[:2, :1])
    assert not torch.allclose(result.fine[2], cut.fine[2])


def test_a_fine_reference_can_take_the_place_of_the_coarse_field() -> None:
    fine, _ = weather()
    for name in NAMES:
        assert float(flux_ratio_loss(fine, fine, name, spacing=2.0, cells=16)) == 0
        assert float(flux_ratio_loss(fine + noise(64, 48), fine, name, spacing=2.0, cells=16)) > 1e-3


def test_missing_values_stay_in_their_cell_and_its_neighbours() -> None:
    fine, coarse = weather()
    fine[40, 5] = torch.nan
    result = flux_ratios(fine, coarse, "centred", spacing=2.0, cells=CELLS)
    assert result.fine.isnan().nonzero().tolist() == [[2, 0]]


def test_fluxes_make_the_ratio() -> None:
    field, _ = weather()
    cells = Cells.fit(field.shape, 16)
    fluxes = cell_fluxes(field, cells, spacing=2.0)
    torch.testing.assert_close(fluxes.ratio(1e-6), flux_ratio(field, cells, spacing=2.0))
    assert (fluxes.diffusive > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formula": "papers"}, "paper, published_training, published_metric, centred"),
        ({"formula": "paper", "spacing": None}, "needs the spacing"),
        ({"formula": "paper", "cells": 0}, "greater than or equal to 1"),
        ({"formula": "paper", "cells": 1}, "at least 2 x 2 pixels"),
        ({"formula": "paper", "cells": 17}, "fits the field"),
        ({"formula": "paper", "epsilon": 0.0}, "epsilon"),
        ({"formula": "paper", "cells": CellRule(unit="fine_pixels", count=6)}, "whole coarse"),
        ({"formula": "paper", "cells": CellRule(unit="per_side")}, "need a count"),
        ({"formula": "published_training"}, "8 x 6 fine pixels.*whole coarse"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    fine, coarse = weather()
    with pytest.raises(PhysicsError, match=message):
        flux_ratios(fine, coarse, **{"spacing": 2.0, **options})


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(PhysicsError, match="stencil"):
        VARIANTS["paper"].with_choices(stencil=5)
    assert isinstance(VARIANTS["paper"].with_choices(difference="absolute"), FluxFormula)
