"""The flux error: by hand, what it does not depend on, its derivative, and the smoothing it assumes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn, idctn
from torch import Tensor

from core.physics import Cells, PhysicsError, block_mean, gradient
from core.physics.flux_error import fit_smoothing, flux_error, observe, signed_fluxes, smooth

KM = 2.0


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weather(*leading: int, seed: int = 0) -> Tensor:
    """A field 64 x 48 [K] with structure at many scales."""
    return (
        285
        + 40 * smooth(noise(*leading, 64, 48, seed=seed), 6.0)
        + 4 * smooth(noise(*leading, 64, 48, seed=seed + 1), 1.0)
    )


def test_smoothing_damps_cosine_modes_as_the_heat_equation_does():
    field = noise(2, 12, 20)
    modes = dctn(field.numpy(), axes=(-2, -1), norm="ortho")
    k, m = np.arange(12)[:, None] * math.pi / 12, np.arange(20) * math.pi / 20
    expected = idctn(modes * np.exp(-0.5 * ((1.5 * k) ** 2 + (0.7 * m) ** 2)), axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(smooth(field, (1.5, 0.7)), expected, atol=1e-13)


@given(st.floats(0.05, 4), st.floats(0.05, 4))
@settings(max_examples=20, deadline=None)
def test_smoothing_keeps_the_mean_and_adds_up_in_squares(one: float, other: float):
    field = weather()
    twice = smooth(smooth(field, one), other)
    torch.testing.assert_close(twice, smooth(field, math.hypot(one, other)), rtol=0, atol=1e-9)
    torch.testing.assert_close(twice.mean(), field.mean(), rtol=0, atol=1e-9)


def test_smoothing_refuses_gaps_and_negative_widths():
    field = weather()
    assert smooth(field, 0.0) is field
    with pytest.raises(PhysicsError, match="0 pixels or more"):
        smooth(field, -1.0)
    field[0, 0] = torch.nan
    with pytest.raises(PhysicsError, match="gaps"):
        smooth(field, 1.0)


def test_observing_is_averaging_then_smoothing():
    field = weather(3)
    torch.testing.assert_close(observe(field, 8), block_mean(field, 8))
    torch.testing.assert_close(observe(field, 8, 1.5), smooth(block_mean(field, 8), 1.5))


def test_fluxes_of_a_plane_by_hand():
    # T = 3 K per pixel eastwards on cells of 4 x 4: the normal derivative cancels between the sides, and T'
    # is 4.5 K on the right and -4.5 K on the left of each cell, with four of its sixteen pixels on either.
    field = (290 + 3 * torch.arange(8, dtype=torch.float64)).expand(8, 8)
    for plane in (field, field.mT.contiguous()):
        fluxes = signed_fluxes(plane, Cells.fit((8, 8), 4), spacing=1.0, epsilon=1e-12)
        torch.testing.assert_close(fluxes.diffusive, torch.zeros(2, 2, dtype=torch.float64))
        advective = (4 * 4.5 + 4 * 4.5) / 16
        torch.testing.assert_close(fluxes.advective, torch.full((2, 2), advective, dtype=torch.float64))


@pytest.mark.parametrize("size", [2, 3, 16])
def test_fluxes_are_those_of_a_loop_over_cells_and_sides(size: int):
    field, down, across = weather(), 2.0, 3.0
    cells = Cells.fit((64, 48), size)
    south, east = gradient(field, (down, across))
    found = signed_fluxes(field, cells, spacing=(down, across))
    for row in range(cells.rows):
        for column in range(cells.columns):
            top, left = row * size, column * size
            inner = slice(top, top + size), slice(left, left + size)
            value = field[inner] - field[inner].mean()
            length = torch.hypot(south[inner], east[inner]) + 1e-3
            sides = [
                (-south[inner][0], value[0], length[0]),
                (south[inner][-1], value[-1], length[-1]),
                (-east[inner][:, 0], value[:, 0], length[:, 0]),
                (east[inner][:, -1], value[:, -1], length[:, -1]),
            ]
            diffusive = torch.cat([outward for outward, _, _ in sides]).mean()
            advective = torch.cat([t * outward / n for outward, t, n in sides]).mean()
            torch.testing.assert_close(found.diffusive[row, column], diffusive)
            torch.testing.assert_close(found.advective[row, column], advective)


def test_north_and_east_count_alike():
    truth, field = weather(2, seed=1)[..., :48, :], weather(2, seed=2)[..., :48, :]
    coarse = block_mean(truth, 4)
    expected = flux_error(field, coarse, spacing=KM, smoothing=0.5)
    turned = flux_error(field.mT.contiguous(), coarse.mT.contiguous(), spacing=KM, smoothing=0.5)
    torch.testing.assert_close(turned, expected)
    # What varies from west to east alone is seen by the smallest cells, too.
    stripes = truth[..., :1, :].expand_as(truth)
    constant = torch.full_like(truth, 280.0)
    found = flux_error(constant, block_mean(stripes, 4), spacing=KM)
    torch.testing.assert_close(found, torch.ones(2, dtype=torch.float64))


def test_by_hand_with_two_cells():
    """E of given fluxes: (1 - 2)^2 + (3 - 1)^2 over 1 + 4 + 9 + 1."""
    from core.physics.flux_error import _relative_error

    own, reference = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 1.0]])
    assert _relative_error(own, reference) == pytest.approx(5 / 15)


def test_equal_fields_have_none_and_a_constant_has_one():
    truth = weather(3)
    assert flux_error(truth, truth, spacing=KM, cell=16).tolist() == [0, 0, 0]
    constant = torch.full_like(truth, 280.0)
    torch.testing.assert_close(
        flux_error(constant, truth, spacing=KM, cell=16), torch.ones(3, dtype=torch.float64)
    )
    assert flux_error(constant, constant, spacing=KM, cell=16).tolist() == [0, 0, 0]


def test_a_field_that_is_averaged_is_perfect_for_its_average():
    truth = weather(2)
    assert flux_error(truth, block_mean(truth, 4), spacing=KM).tolist() == [0, 0]
    shifted = flux_error(truth, observe(truth, 4, 1.25), spacing=KM, smoothing=1.25)
    torch.testing.assert_close(shifted, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-20)


@given(st.floats(-300, 300), st.floats(-300, 300))
@settings(max_examples=20, deadline=None)
def test_constants_added_to_either_field_change_nothing(one: float, other: float):
    truth, field = weather(seed=1), weather(seed=2)
    coarse = block_mean(truth, 4)
    expected = flux_error(field, coarse, spacing=KM, smoothing=1.0)
    found = flux_error(field + one, coarse + other, spacing=KM, smoothing=1.0)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_units_of_temperature_and_length_do_not_matter():
    truth, field = weather(seed=1), weather(seed=2)
    expected = flux_error(field, truth, spacing=KM, cell=8, epsilon=1e-3)
    scaled = flux_error(5 * field, 5 * truth, spacing=1e3 * KM, cell=8, epsilon=5e-6)
    torch.testing.assert_close(scaled, expected)


def test_batches_members_and_spacing_pairs():
    truth = weather(2, 3)
    coarse = block_mean(weather(2, 1, seed=5), 4)
    together = flux_error(truth, coarse, spacing=(2.0, 3.0), smoothing=0.5)
    assert together.shape == (2, 3)
    alone = flux_error(truth[1, 2], coarse[1, 0], spacing=(2.0, 3.0), smoothing=0.5)
    torch.testing.assert_close(together[1, 2], alone)


def test_derivative_by_finite_differences_and_where_a_field_is_flat():
    truth = weather()[:16, :16].clone()
    field = (truth + noise(16, 16, seed=9)).requires_grad_()
    coarse = block_mean(truth, 4)
    assert torch.autograd.gradcheck(
        lambda x: flux_error(x, coarse, spacing=KM, smoothing=0.75), (field,), atol=1e-6
    )
    flat = torch.full((16, 16), 280.0, requires_grad=True)
    flux_error(flat, truth.float(), spacing=KM, cell=4).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_descent_on_it_finds_the_truth():
    truth = weather()[:32, :32].clone()
    field = (truth + noise(32, 32, seed=3)).requires_grad_()
    optimiser = torch.optim.Adam([field], lr=0.02)
    start = flux_error(field, truth, spacing=KM, cell=4).item()
    rmse = (field - truth).square().mean().sqrt().item()
    for _ in range(150):
        optimiser.zero_grad()
        loss = flux_error(field, truth, spacing=KM, cell=4)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05 * start
    assert (field - truth).square().mean().sqrt() < rmse


def test_gaps_leave_out_the_cells_they_touch():
    truth, field = weather(2, seed=1), weather(2, seed=2)
    cells = Cells.fit((64, 48), 16)
    # The second row of cells lies beside the gap, where gradients are missing.
    errors = [
        ((own - other)[2:].square().sum() / (own[2:].square() + other[2:].square()).sum()).item()
        for own, other in zip(
            signed_fluxes(field[0], cells, spacing=KM),
            signed_fluxes(truth[0], cells, spacing=KM),
            strict=True,
        )
    ]
    truth[0, :16] = torch.nan
    truth[1] = torch.nan
    found = flux_error(field, truth, spacing=KM, cell=16)
    assert found[0].item() == pytest.approx(sum(errors) / 2, rel=1e-12)
    assert found[1].isnan()


def test_wrong_use_is_explained():
    truth = weather()
    with pytest.raises(PhysicsError, match="one grid"):
        flux_error(truth, truth, spacing=KM, smoothing=1.0)
    with pytest.raises(PhysicsError, match="choose smaller"):
        flux_error(truth, block_mean(truth, 16), spacing=KM, cell=12)


def test_the_smoothing_of_a_data_set_is_found():
    hours = [weather(2, seed=seed) for seed in (0, 10)]
    pairs = [(hour, observe(hour, 4, 1.25) + 0.05 * noise(2, 16, 12, seed=7)) for hour in hours]
    assert fit_smoothing(pairs, spacing=KM) == pytest.approx(1.25, abs=0.125)
    assert fit_smoothing([(hour, block_mean(hour, 4)) for hour in hours], spacing=KM) == 0
    assert fit_smoothing([(hours[0], block_mean(hours[0], 4))], spacing=KM, widths=[0.0]) == 0
    for nothing in ([], [(torch.full((64, 48), torch.nan), torch.full((16, 12), torch.nan))]):
        with pytest.raises(PhysicsError, match="hours with truth"):
            fit_smoothing(nothing, spacing=KM, widths=[0.0])
