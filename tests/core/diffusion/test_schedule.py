"""The noise schedule against the published one (tests/fixtures) and against itself."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from core.diffusion.schedule import Parameterization, Schedule, signal_and_spread

SCHEDULE = Schedule()
PARAMETERIZATIONS: tuple[Parameterization, ...] = get_args(Parameterization)


@pytest.fixture(scope="module")
def recorded(fixtures: Path) -> dict[str, Tensor]:
    with np.load(fixtures / "ldm_tiny_2mT.io.npz") as file:
        return {
            name: torch.from_numpy(file[name]) for name in ("vae_mean", "noise", "t", "x_noisy", "v_target")
        }


def test_equals_the_published_schedule(fixtures: Path) -> None:
    with np.load(fixtures / "train_tiny_2mT.npz") as file:
        np.testing.assert_allclose(SCHEDULE.betas, file["sched/betas_f64"], rtol=1e-13)
        np.testing.assert_allclose(SCHEDULE.alpha_bar, file["sched/alphas_cumprod_f64"], rtol=1e-13)
        np.testing.assert_array_equal(SCHEDULE.alpha_bar.astype(np.float32), file["sched/alphas_cumprod_f32"])


def test_state_and_target_equal_the_published_ones(recorded: dict[str, Tensor]) -> None:
    z0, noise, t = recorded["vae_mean"], recorded["noise"], recorded["t"]
    close = {"rtol": 0.0, "atol": 5e-7}
    torch.testing.assert_close(SCHEDULE.add_noise(z0, noise, t), recorded["x_noisy"], **close)
    torch.testing.assert_close(SCHEDULE.target(z0, noise, t, "v"), recorded["v_target"], **close)
    assert SCHEDULE.target(z0, noise, t, "eps") is noise
    assert SCHEDULE.target(z0, noise, t, "x0") is z0


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("t", [torch.tensor([0, 37, 612, 999]), 0, 37, 611.5, 999])
def test_a_perfect_output_converts_into_all_others(
    parameterization: Parameterization, t: Tensor | float
) -> None:
    """The state and what should be predicted there hold z0, noise and v."""
    generator = torch.Generator().manual_seed(1)
    z0, noise = torch.randn(2, 4, 3, 5, 2, generator=generator, dtype=torch.float64)
    z = SCHEDULE.add_noise(z0, noise, t)
    output = SCHEDULE.target(z0, noise, t, parameterization)
    torch.testing.assert_close(SCHEDULE.to_z0(output, z, t, parameterization), z0)
    torch.testing.assert_close(SCHEDULE.to_eps(output, z, t, parameterization), noise)
    torch.testing.assert_close(
        SCHEDULE.to_v(output, z, t, parameterization), SCHEDULE.target(z0, noise, t, "v")
    )


def test_one_number_serves_as_the_time_of_all_samples() -> None:
    z0, noise = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for t in (0, 5, 999):
        torch.testing.assert_close(
            SCHEDULE.add_noise(z0, noise, t), SCHEDULE.add_noise(z0, noise, torch.full((3,), t))
        )


def test_sigma_at_whole_times_is_that_of_alpha_bar() -> None:
    expected = np.sqrt((1 - SCHEDULE.alpha_bar) / SCHEDULE.alpha_bar)
    np.testing.assert_allclose(SCHEDULE.sigma(np.arange(1000)), expected, rtol=1e-11)
    signal, spread = signal_and_spread(float(SCHEDULE.sigma(612)))
    assert signal == pytest.approx(np.sqrt(SCHEDULE.alpha_bar[612]), rel=1e-12)
    assert spread == pytest.approx(np.sqrt(1 - SCHEDULE.alpha_bar[612]), rel=1e-12)


@given(st.floats(0.0, 999.0))
def test_time_is_the_inverse_of_sigma(t: float) -> None:
    sigma = float(SCHEDULE.sigma(t))
    assert float(SCHEDULE.time(sigma)) == pytest.approx(t, abs=1e-8)
    low, high = SCHEDULE.sigma([np.floor(t), np.ceil(t)])
    assert low * (1 - 1e-12) <= sigma <= high * (1 + 1e-12)


def test_conversions_pass_gradients_to_the_output() -> None:
    output = torch.ones(2, 3, requires_grad=True)
    t = torch.tensor([100, 900])
    SCHEDULE.to_z0(output, torch.zeros(2, 3), t).sum().backward()
    expected = -np.sqrt(1 - SCHEDULE.alpha_bar[[100, 900]])
    assert output.grad is not None
    np.testing.assert_allclose(output.grad[:, 0].numpy(), expected, rtol=1e-6)


def test_a_first_use_without_gradients_does_not_bar_later_ones() -> None:
    schedule = Schedule(steps=50)
    t = torch.tensor([3])
    with torch.inference_mode():
        schedule.add_noise(torch.ones(1, 2), torch.ones(1, 2), t)
    z0 = torch.ones(1, 2, requires_grad=True)
    schedule.add_noise(z0, torch.ones(1, 2), t).sum().backward()
    assert z0.grad is not None


def test_equal_settings_make_equal_schedules_also_after_use() -> None:
    one, other = Schedule(steps=60), Schedule(steps=60)
    one.sigma(3)
    other.add_noise(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([3]))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Schedule(steps=61)


def test_half_precision_latents_are_noised_in_single_precision() -> None:
    z0 = torch.ones(1, 2, dtype=torch.bfloat16)
    assert SCHEDULE.add_noise(z0, z0, torch.tensor([3])).dtype == torch.float32


def test_the_schedule_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        SCHEDULE.alpha_bar[0] = 0.0
    with pytest.raises(ValidationError):
        SCHEDULE.steps = 5


@pytest.mark.parametrize(
    "wrong", [{"steps": 1}, {"beta_start": 0.0}, {"beta_end": 1.0}, {"beta_end": 1e-5}, {"shape": "cosine"}]
)
def test_impossible_schedules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Schedule(**wrong)


@pytest.mark.parametrize("t", [-1, 999.5, 1000, float("nan")])
def test_times_outside_the_schedule_are_refused(t: float) -> None:
    with pytest.raises(ValueError, match="has the times 0 to 999"):
        SCHEDULE.sigma(t)
    with pytest.raises(ValueError, match="has the times 0 to 999"):
        SCHEDULE.to_z0(torch.zeros(1, 2), torch.zeros(1, 2), t)


@pytest.mark.parametrize("t", [torch.tensor([-1]), torch.tensor([1000])])
def test_whole_times_outside_the_schedule_are_refused(t: Tensor) -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        SCHEDULE.add_noise(torch.zeros(1, 2), torch.zeros(1, 2), t)


def test_other_arguments_that_do_not_fit_are_refused() -> None:
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"noise levels from 0\.01 to 36\.91"):
        SCHEDULE.time(0.0099)
    with pytest.raises(ValueError, match="one whole number for each of 2 samples"):
        SCHEDULE.to_z0(z, z, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="one whole number for each of 2 samples"):
        SCHEDULE.to_z0(z, z, torch.tensor([1.0, 2.5]))
    unknown: Any = "score"
    for method in (SCHEDULE.to_z0, SCHEDULE.to_eps, SCHEDULE.to_v, SCHEDULE.target):
        with pytest.raises(ValueError, match="v, eps or x0, not score"):
            method(z, z, 5, unknown)
