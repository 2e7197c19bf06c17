"""One training step with the flux loss against what the published code computed (tests/fixtures)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.diffusion.losses import diffusion_loss
from core.diffusion.schedule import Schedule
from core.models import denoiser, vae
from core.models.latent_diffusion import LatentDiffusion, LatentDiffusionConfig, from_published_names
from core.physics import energy_loss, flux_ratio_loss
from tests.reference_weights import reference_weights

WEIGHT = 0.01


@pytest.fixture(scope="module")
def step(fixtures: Path) -> dict[str, Tensor]:
    with np.load(fixtures / "pde_plosses_tiny.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def published(fixtures: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((fixtures / "pde_plosses_tiny.json").read_text())
    return result


@pytest.mark.parametrize(
    ("tensor", "part"),
    [
        ("decoded_denoiser_out_T_f", "pde_on_decode_v"),
        ("decoded_x0", "pde_on_decode_x0"),
        ("decoded_x0_plus_unet", "pde_on_decode_x0_plus_unet"),
        ("high_res", "pde_on_truth"),
    ],
)
def test_flux_loss_of_every_tensor(
    step: dict[str, Tensor], published: dict[str, Any], tensor: str, part: str
) -> None:
    tensors = {**step, "decoded_x0": step["decoded_x0_plus_unet"] - step["unet_out"]}
    loss = flux_ratio_loss(tensors[tensor], step["low_res"][:, :1], "published_training")
    assert float(loss) == pytest.approx(published[part], rel=2e-6)


def test_energy_is_that_of_all_predictors(step: dict[str, Tensor], published: dict[str, Any]) -> None:
    """The published term subtracts every predictor from the fine temperature, not the temperature alone."""
    fine = step["decoded_denoiser_out_T_f"].expand(-1, step["low_res"].shape[1], -1, -1)
    assert float(energy_loss(fine, step["low_res"])) == pytest.approx(
        published["coef1.0"]["energy"], rel=2e-6
    )


def own_name(name: str) -> str:
    part, rename = {
        "denoiser": ("denoiser", lambda w: denoiser.from_published_names(w, "denoiser.", ema=False)),
        "autoencoder": ("vae", lambda w: vae.from_published_names(w, "autoencoder.")),
    }[name.split(".")[0]]
    return f"{part}.{next(iter(rename({name: torch.empty(0)})))}"


def test_losses_and_gradients_of_a_step(
    fixtures: Path, step: dict[str, Tensor], published: dict[str, Any]
) -> None:
    weights = from_published_names(
        reference_weights(fixtures / "pde_plosses_tiny.weight_rules.json"), ema=False
    )
    model = LatentDiffusion(LatentDiffusionConfig.from_weights(weights))
    model.load_state_dict(weights)
    context = model.condition(step["low_res"], step["static"])
    latent, noise, t = step["latent_target"], step["noise"], step["t"]
    result = diffusion_loss(lambda z, time: model.denoise(z, time, context), latent, noise, t, Schedule())
    # What the published step takes for the temperature: the decoded output, though that is v.
    flux = flux_ratio_loss(model.decode(result.output), step["low_res"][:, :1], "published_training")
    diffusion = result.losses.mean()
    expected = published["coef0.01"]
    assert float(diffusion.detach()) == pytest.approx(expected["diffusion"], rel=2e-6)
    assert float(flux.detach()) == pytest.approx(expected["pde"], rel=1e-5)
    total = diffusion + WEIGHT * flux
    assert float(total.detach()) == pytest.approx(expected["total"], rel=2e-6)
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norms = {own_name(name): norm for name, norm in published["grad_norms_coef0.01"].items()}
    assert {name.split(".")[0] for name in norms} == {"denoiser", "vae"}
    for part in ("denoiser", "vae"):
        # Biases before a normalisation have no influence: theirs is rounding, relative to the others.
        largest = max(norm for name, norm in norms.items() if name.startswith(part))
        for name, norm in norms.items():
            if name.startswith(part):
                assert float(gradients[name].norm()) == pytest.approx(norm, rel=1e-4, abs=1e-6 * largest)
    recorded = [name.removeprefix("grad_coef0.01/") for name in step if name.startswith("grad_coef0.01/")]
    assert len(recorded) == 4
    for name in recorded:
        values = step[f"grad_coef0.01/{name}"]
        tolerance = 2e-5 * float(values.abs().max())
        torch.testing.assert_close(gradients[own_name(name)], values, rtol=0, atol=tolerance)
