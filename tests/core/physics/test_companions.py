"""Energy, balance and divergence by hand, against numpy, and on fields where they are known."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.domain import ITALY
from core.physics import (
    PhysicsError,
    block_mean,
    divergence,
    divergence_loss,
    energy_loss,
    fit_balance,
    residual_loss,
    rotate_to_grid,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth(height: int, width: int, seed: int = 0) -> Tensor:
    """Random, with less power at small scales."""
    spectrum = torch.fft.rfft2(noise(height, width, seed=seed))
    k = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    return 285 + 40 * torch.fft.irfft2(spectrum / (1 + (30 * k) ** 2), s=(height, width))


def test_energy_by_hand() -> None:
    coarse = noise(2, 3, 4)
    fine = coarse.repeat_interleave(2, -2).repeat_interleave(2, -1)
    assert float(energy_loss(fine, coarse)) < 1e-30
    detail = torch.tensor([[1.0, -1.0], [-2.0, 2.0]], dtype=torch.float64).repeat(3, 4)
    assert float(energy_loss(fine + detail, coarse)) < 1e-30
    assert float(energy_loss(fine + 3, coarse)) == pytest.approx(9)
    shifted = fine.clone()
    shifted[0, 0, 0] += 8
    assert float(energy_loss(shifted, coarse)) == pytest.approx(2**2 / coarse.numel())


def test_energy_can_be_differentiated_and_refuses_what_does_not_fit() -> None:
    assert torch.autograd.gradcheck(
        lambda f: energy_loss(f, noise(2, 2, 2)), (noise(2, 6, 6).requires_grad_(),)
    )
    with pytest.raises(PhysicsError, match="whole multiple"):
        energy_loss(noise(6, 6), noise(4, 4))
    with pytest.raises(PhysicsError, match="only the one"):
        energy_loss(noise(2, 1, 6, 6), noise(2, 14, 2, 2))


def terms(field: Tensor, spacing: float) -> np.ndarray[Any, Any]:
    """Laplacian and |grad| on inner pixels, flat, by numpy alone: (pixels, 2)."""
    values = field.numpy()
    south, east = np.gradient(values, spacing)
    curvature = (
        values[2:, 1:-1] + values[:-2, 1:-1] + values[1:-1, 2:] + values[1:-1, :-2] - 4 * values[1:-1, 1:-1]
    ) / spacing**2
    return np.stack((curvature.ravel(), np.hypot(south, east)[1:-1, 1:-1].ravel()), 1)


@pytest.mark.parametrize("seed", range(4))
def test_balance_is_the_least_singular_vector(seed: int) -> None:
    """The fit is that of numpy's singular value decomposition of both terms, scaled to mean square 1."""
    field = smooth(14, 11, seed)
    columns = terms(field, 16.0) * (1, -1)
    scale = np.sqrt((columns**2).mean(0))
    _, singular, vectors = np.linalg.svd(columns / scale, full_matrices=False)
    expected = vectors[-1] / scale * math.sqrt(2)
    expected *= np.sign(expected[0])
    balance = fit_balance(field, 16.0)
    np.testing.assert_allclose([balance.diffusivity, balance.advection], expected, rtol=1e-9)
    assert float(balance.residual) == pytest.approx(2 * singular[-1] ** 2 / len(columns), rel=1e-9)


def test_balance_holds_exactly_where_it_can() -> None:
    """T = exp(k x) has lap T = k |grad T|, up to the differences, which keep the proportion too."""
    k, spacing = 0.03, 2.0
    x = spacing * torch.arange(20, dtype=torch.float64)
    balance = fit_balance(torch.exp(k * x).expand(15, 20), spacing)
    discrete = (2 * math.cosh(k * spacing) - 2) / spacing / math.sinh(k * spacing)
    assert float(balance.advection / balance.diffusivity) == pytest.approx(discrete, rel=1e-9)
    assert float(balance.residual) < 1e-9


def test_residual_is_one_for_the_field_it_was_fitted_to() -> None:
    field = torch.stack([smooth(12, 10, seed) for seed in range(3)])
    assert float(residual_loss(field, field, spacing=2.0)) == pytest.approx(1)


def test_residual_against_numpy() -> None:
    coarse, fine = smooth(8, 7), smooth(32, 28, 5)
    fitted, fine_terms = fit_balance(coarse, 16.0), terms(fine, 4.0)
    left = fine_terms @ np.array([float(fitted.diffusivity), -float(fitted.advection)])
    own = terms(coarse, 16.0) @ np.array([float(fitted.diffusivity), -float(fitted.advection)])
    expected = (left**2).mean() / (own**2).mean()
    assert float(residual_loss(fine, coarse, spacing=4.0)) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 50), factor=st.floats(0.1, 10), constant=st.floats(-300, 300), unit=st.floats(0.1, 10)
)
def test_residual_ignores_units_and_constants(seed: int, factor: float, constant: float, unit: float) -> None:
    fine = smooth(24, 20, seed)
    coarse = block_mean(fine, 4)
    before = residual_loss(fine, coarse, spacing=2.0)
    after = residual_loss(constant + factor * fine, constant + factor * coarse, spacing=2.0 * unit)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=0)


def test_residual_can_be_differentiated_also_where_fields_are_flat() -> None:
    fine, coarse = smooth(8, 8).requires_grad_(), smooth(4, 4, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: residual_loss(f, coarse.detach(), spacing=2.0), (fine,))
    loss = residual_loss(fine, coarse, spacing=2.0)
    assert torch.autograd.grad(loss, coarse, allow_unused=True) == (None,)
    flat = torch.full((2, 8, 8), 285.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(residual_loss(flat, torch.full((2, 4, 4), 285.0), spacing=2.0), flat)
    assert gradient.isfinite().all()
    with pytest.raises(PhysicsError, match="3 rows"):
        residual_loss(noise(8, 8), noise(2, 2), spacing=1.0)


def test_divergence_of_known_winds() -> None:
    """u = a x, v = b y with y northwards has the divergence a + b; a rotation about a point has none."""
    spacing = 2000.0
    x = spacing * torch.arange(7, dtype=torch.float64).expand(5, 7)
    y = -spacing * torch.arange(5, dtype=torch.float64)[:, None].expand(5, 7)
    torch.testing.assert_close(
        divergence(3e-5 * x, -1e-5 * y, spacing), torch.full((5, 7), 2e-5, dtype=torch.float64)
    )
    assert float(divergence(-1e-4 * y, 1e-4 * x, spacing).abs().max()) < 1e-18


def test_winds_are_turned_to_the_grid_before_they_diverge() -> None:
    """Grid-relative winds without divergence, given as earth-relative ones over Italy, have none again."""
    rotation = torch.from_numpy(ITALY.fine.rotation.copy())
    i, j = torch.meshgrid(torch.arange(672.0), torch.arange(576.0), indexing="ij")
    # Of a stream function, by the same differences: u = -dpsi/dy, v = dpsi/dx.
    psi = (1e5 * torch.sin(i / 40) * torch.cos(j / 30)).double()
    south, east = torch.gradient(psi, spacing=2000.0)
    u, v = south, east
    true_east, true_north = u * rotation.cos() + v * rotation.sin(), v * rotation.cos() - u * rotation.sin()
    back = rotate_to_grid(true_east, true_north, rotation)
    torch.testing.assert_close(back, (u, v))
    inner = (slice(2, -2), slice(2, -2))
    assert float(divergence(*back, 2000.0)[inner].abs().max()) < 1e-15
    wrong = divergence(true_east, true_north, 2000.0)[inner]
    assert float(wrong.abs().max()) > 1e-6
    small = [field[200:260, :60].contiguous() for field in (true_east, true_north, rotation)]
    loss = divergence_loss(small[0], small[1], small[2], 2000.0)
    direct = divergence(u[200:260, :60], v[200:260, :60], 2000.0).square().mean()
    torch.testing.assert_close(loss, direct, rtol=1e-6, atol=1e-30)


def test_divergence_can_be_differentiated_and_refuses_other_grids() -> None:
    rotation = 0.1 * noise(4, 5)
    winds = noise(2, 4, 5).requires_grad_(), noise(2, 4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, v: divergence_loss(u, v, rotation, 2.0), winds)
    with pytest.raises(PhysicsError, match="one grid"):
        divergence_loss(*winds, noise(5, 4), 2.0)
    with pytest.raises(PhysicsError, match="one grid"):
        divergence_loss(winds[0], winds[1][:1], rotation, 2.0)
