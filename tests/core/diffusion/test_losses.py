"""The training loss against the published one, with the published network's recorded and our own outputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.diffusion.losses import diffusion_loss
from core.diffusion.schedule import Parameterization, Schedule
from core.models.denoiser import Denoiser, DenoiserConfig, from_published_names
from tests.reference_weights import reference_weights

SCHEDULE = Schedule()


@pytest.fixture(scope="module")
def recorded(fixtures: Path) -> dict[str, Tensor]:
    names = ("vae_mean", "noise", "t", "denoiser_raw", "x_noisy", "ctx_level0", "ctx_level1", "ctx_level2")
    with np.load(fixtures / "ldm_tiny_2mT.io.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in names}


@pytest.fixture(scope="module")
def values(fixtures: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((fixtures / "train_tiny_2mT.json").read_text())
    return result


@pytest.mark.parametrize(
    ("parameterization", "name"), [("v", "ldm_p_losses"), ("eps", "p_losses_eps"), ("x0", "p_losses_x0")]
)
def test_value_equals_the_published_one(
    recorded: dict[str, Tensor], values: dict[str, Any], parameterization: Parameterization, name: str
) -> None:
    """Given the published network's own output."""
    seen: list[Tensor] = []

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        seen.extend((z, t))
        return recorded["denoiser_raw"]

    result = diffusion_loss(
        denoise,
        recorded["vae_mean"],
        recorded["noise"],
        recorded["t"],
        SCHEDULE,
        parameterization=parameterization,
    )
    assert float(result.losses.mean()) == pytest.approx(values[name], rel=2e-6)
    assert result.output is recorded["denoiser_raw"]
    assert result.z is seen[0]
    torch.testing.assert_close(seen[0], recorded["x_noisy"], rtol=0.0, atol=5e-7)
    assert torch.equal(seen[1], recorded["t"])


def test_gradients_equal_the_published_ones(
    fixtures: Path, recorded: dict[str, Tensor], values: dict[str, Any]
) -> None:
    """Through our denoiser with the published (raw) weights."""
    weights = from_published_names(
        reference_weights(fixtures / "ldm_tiny_2mT.weight_rules.json"), "denoiser.", ema=False
    )
    model = Denoiser(DenoiserConfig.from_weights(weights))
    model.load_state_dict(weights)
    context = tuple(recorded[f"ctx_level{level}"] for level in range(3))
    result = diffusion_loss(
        lambda z, t: model(z, t, context), recorded["vae_mean"], recorded["noise"], recorded["t"], SCHEDULE
    )
    loss = result.losses.mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(values["ldm_p_losses"], rel=2e-6)

    # A norm is not one of our names, so each stands for its tensor, on the way through the names.
    norms = {
        name: torch.tensor([norm])
        for name, norm in values["ldm_grad_norms"].items()
        if name.startswith("denoiser.")
    }
    parameters = dict(model.named_parameters())
    named = from_published_names(norms, "denoiser.", ema=False)
    assert named.keys() == parameters.keys()
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    assert gradients.keys() == parameters.keys()
    largest = max(float(norm) for norm in named.values())
    for name, norm in named.items():
        # Some are the small rest of a sum that cancels.
        assert float(gradients[name].norm()) == pytest.approx(float(norm), rel=1e-4, abs=1e-6 * largest), name

    with np.load(fixtures / "train_tiny_2mT.npz") as file:
        whole = {
            name.removeprefix("ldm_grad/"): torch.from_numpy(file[name])
            for name in file.files
            if name.startswith("ldm_grad/denoiser.")
        }
    assert len(whole) == 8
    for name, expected in from_published_names(whole, "denoiser.", ema=False).items():
        error = (gradients[name] - expected).abs().max() / expected.square().mean().sqrt()
        assert float(error) < 1e-4, name


def test_losses_are_those_of_single_samples_by_hand() -> None:
    z0 = torch.tensor([[1.0, 3.0], [0.0, -2.0]])
    noise = torch.tensor([[2.0, 2.0], [-1.0, 1.0]])
    t = torch.tensor([10, 500])
    options: dict[str, Any] = {"parameterization": "x0"}

    def zero(z: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(z)

    assert diffusion_loss(zero, z0, noise, t, SCHEDULE, **options).losses.tolist() == [5.0, 2.0]
    assert diffusion_loss(zero, z0, noise, t, SCHEDULE, norm="l1", **options).losses.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("parameterization", ["v", "eps", "x0"])
def test_the_perfect_network_has_no_loss(parameterization: Parameterization) -> None:
    z0, noise = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 400, 999])
    perfect = SCHEDULE.target(z0, noise, t, parameterization)
    result = diffusion_loss(lambda z, t: perfect, z0, noise, t, SCHEDULE, parameterization=parameterization)
    assert result.losses.tolist() == [0.0, 0.0, 0.0]


def test_what_does_not_fit_is_refused() -> None:
    z0, t = torch.zeros(2, 4, 3, 3), torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"Noise of shape \(4, 3, 3\) does not fit"):
        diffusion_loss(lambda z, t: z, z0, torch.zeros(4, 3, 3), t, SCHEDULE)
    with pytest.raises(ValueError, match="network made"):
        diffusion_loss(lambda z, t: z[:, :1], z0, z0, t, SCHEDULE)
    huber: Any = "huber"
    with pytest.raises(ValueError, match="l1 or l2, not huber"):
        diffusion_loss(lambda z, t: z, z0, z0, t, SCHEDULE, norm=huber)
