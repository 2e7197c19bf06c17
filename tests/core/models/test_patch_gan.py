"""The discriminator and the GAN's losses against the published ones (tests/fixtures)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from core.models.patch_gan import (
    PatchGAN,
    PatchGANConfig,
    adaptive_weight,
    discriminator_loss,
    from_published_names,
    generator_loss,
)
from core.models.unet import UNet, UNetConfig
from core.models.unet import from_published_names as unet_from_published_names
from tests.reference_weights import reference_weights

# The generator's losses and gradients pass through batch statistics, which amplify rounding.
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def inputs(fixtures: Path) -> dict[str, Tensor]:
    with np.load(fixtures / "ldm_tiny_2mT.io.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in ("low_res", "static", "high_res")}


@pytest.fixture
def networks(fixtures: Path) -> tuple[UNet, PatchGAN]:
    """The recorded generator and discriminator."""
    weights = reference_weights(fixtures / "gan_tiny.weight_rules.json")
    generator = UNet(UNetConfig(features=(4, 8, 16, 32)))
    generator.load_state_dict(unet_from_published_names(weights))
    state = from_published_names(weights)
    discriminator = PatchGAN(PatchGANConfig.from_weights(state))
    discriminator.load_state_dict(state)
    return generator, discriminator


def test_logits_equal_the_published_ones(
    fixtures: Path, inputs: dict[str, Tensor], networks: tuple[UNet, PatchGAN]
) -> None:
    with np.load(fixtures / "train_tiny_2mT.npz") as file:
        expected = torch.from_numpy(file["gan/disc_logits_on_high_res_eval"])
    discriminator = networks[1].eval()
    with torch.inference_mode():
        single = discriminator(inputs["high_res"])
        double = discriminator.double()(inputs["high_res"].double())
    scale = float(expected.square().mean().sqrt())
    # Both stray from the exact result by rounding.
    assert float((single - expected).abs().max()) <= 5e-6 * scale
    assert float((double - expected).abs().max()) <= 3e-6 * scale


@pytest.mark.parametrize(("step", "record"), [(0, "gs0"), (20, "gs20")])
def test_training_step_equals_the_published_one(
    fixtures: Path,
    inputs: dict[str, Tensor],
    networks: tuple[UNet, PatchGAN],
    step: int,
    record: str,
) -> None:
    """Both losses, the adaptive weight and gradients, before and after the discriminator takes part."""
    expected = json.loads((fixtures / "train_tiny_2mT.json").read_text())
    generator, discriminator = (network.train() for network in networks)
    target = inputs["high_res"]
    prediction = generator(inputs["low_res"], inputs["static"])
    loss = generator_loss(
        prediction, target, discriminator(prediction), generator.head.weight, step=step, start=10
    )
    loss.total.backward()
    ours = {key: float(value.detach()) for key, value in loss._asdict().items()}
    theirs = expected[f"gan_gen_{record}"]
    assert ours["total"] == pytest.approx(theirs["train/total_loss"], rel=TOLERANCE)
    assert ours["reconstruction"] == pytest.approx(theirs["train/rec_loss"], rel=TOLERANCE)
    assert ours["adversarial"] == pytest.approx(theirs["train/g_loss"], rel=TOLERANCE)
    active = theirs["train/disc_factor"]
    assert ours["weight"] == pytest.approx(active * theirs["train/d_weight"], rel=TOLERANCE)
    gradient = generator.head.weight.grad
    assert gradient is not None
    assert float(gradient.norm()) == pytest.approx(
        expected[f"gan_gen_{record}_gradnorm_outputs"], rel=TOLERANCE
    )

    if active:
        discriminator.zero_grad()
        real, generated = discriminator(target), discriminator(prediction.detach())
        hinge = discriminator_loss(real, generated)
        hinge.backward()
        theirs = expected[f"gan_disc_{record}"]
        assert float(real.detach().mean()) == pytest.approx(theirs["train/logits_real"], rel=TOLERANCE)
        assert float(generated.detach().mean()) == pytest.approx(theirs["train/logits_fake"], rel=TOLERANCE)
        assert float(hinge.detach()) == pytest.approx(theirs["train/disc_loss"], rel=TOLERANCE)
        gradient = discriminator[0].weight.grad
        assert isinstance(gradient, Tensor)
        norm = expected[f"gan_disc_{record}_gradnorm_main0"]
        assert float(gradient.norm()) == pytest.approx(norm, rel=TOLERANCE)


@pytest.mark.parametrize(("targets", "variant"), [(1, "2mT"), (2, "UV")])
def test_published_size_and_names(fixtures: Path, targets: int, variant: str) -> None:
    with torch.device("meta"):
        discriminator = PatchGAN(PatchGANConfig(in_channels=targets))
    counts = json.loads((fixtures / "param_counts.json").read_text())
    assert sum(p.numel() for p in discriminator.parameters()) == counts[f"GAN_{variant}"]["disc"]
    assert counts[f"GAN_{variant}"]["disc"] == counts[f"disc_{variant}"]
    keys: dict[str, Any] = json.loads((fixtures / f"GAN_{variant}.keys.json").read_text())
    published = {
        key: torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]), device="meta")
        for key, value in keys.items()
    }
    renamed = from_published_names(published)
    own = {key: (value.shape, value.dtype) for key, value in discriminator.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in renamed.items()} == own
    assert PatchGANConfig.from_weights(renamed) == discriminator.config
    # The rest of the file is the generator.
    assert len(keys) == len(renamed) + len(unet_from_published_names(published))


@given(features=st.lists(st.integers(1, 4), min_size=2, max_size=5), channels=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_sizes_follow_from_weights(features: list[int], channels: int) -> None:
    config = PatchGANConfig(in_channels=channels, features=tuple(features))
    discriminator = PatchGAN(config)
    assert PatchGANConfig.from_weights(discriminator.state_dict()) == config
    halvings = len(features) - 1
    x = torch.zeros(2, channels, 5 << halvings, 6 << halvings)
    assert discriminator(x).shape == (2, 1, 3, 4)


def test_weights_start_small() -> None:
    torch.manual_seed(0)
    discriminator = PatchGAN(PatchGANConfig(features=(8, 32)))
    kernel, scale, shift = discriminator[2].weight, discriminator[3].weight, discriminator[3].bias
    assert isinstance(kernel, Tensor)
    assert isinstance(scale, Tensor)
    assert isinstance(shift, Tensor)
    assert float(kernel.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(scale.detach().mean()) == pytest.approx(1.0, abs=0.02)
    assert not shift.any()


def test_hinge_loss_by_hand() -> None:
    real, generated = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert float(discriminator_loss(real, generated)) == 0.5 * (0.25 + 0.5)


def test_adaptive_weight_by_hand() -> None:
    last = torch.tensor([3.0, 4.0], requires_grad=True)
    # Gradients (6, 8) and (1, 0).
    weight = adaptive_weight(last.square().sum(), last[0] * 1.0, last, scale=0.5)
    assert float(weight) == pytest.approx(0.5 * 10 / (1 + 1e-4))
    assert not weight.requires_grad
    largest = adaptive_weight(1e6 * last.sum(), 0.0 * last.sum(), last)
    assert float(largest) == pytest.approx(0.2e4)


def test_discriminator_waits_for_its_start() -> None:
    last = torch.tensor([2.0], requires_grad=True)
    prediction = last * torch.ones(1, 1, 2, 2)
    target = torch.zeros(1, 1, 2, 2)
    before, after = (
        generator_loss(prediction, target, 3 * prediction, last, step=step) for step in (49_999, 50_000)
    )
    assert [float(part.detach()) for part in before] == [2.0, 2.0, -6.0, 0.0]
    weight = 0.2 / (3 + 1e-4)
    assert float(after.weight) == pytest.approx(weight)
    assert float(after.total.detach()) == pytest.approx(2.0 - 6.0 * weight)
    with torch.no_grad():
        validation = generator_loss(last * target.add(1), target, prediction, last, step=50_000)
    assert float(validation.total) == 2.0


def test_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"main\.x\.weight is not part of a published discriminator"):
        from_published_names({"loss.discriminator.main.x.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"No weights lie beneath 'loss\.discriminator\.'"):
        from_published_names({"net.outputs.bias": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"0\.weight is missing"):
        PatchGANConfig.from_weights({"net.weight": torch.zeros(1, 1, 4, 4)})


@pytest.mark.parametrize(
    "wrong", [{"features": (4,)}, {"features": (4, 0)}, {"width": 3}, {"in_channels": 0}]
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PatchGANConfig(**wrong)


@pytest.mark.parametrize("features", [(2, 2), (2, 2, 2), (2, 2, 2, 2), (2, 2, 2, 2, 2)])
def test_the_smallest_field_gives_one_logit_and_smaller_ones_are_refused(features: tuple[int, ...]) -> None:
    discriminator = PatchGAN(PatchGANConfig(in_channels=2, features=features))
    side = discriminator.smallest_side
    assert discriminator(torch.zeros(1, 2, side, side)).shape == (1, 1, 1, 1)
    for height, width in ((side - 1, 64), (64, side - 1)):
        # The plain convolutions have no room there, so nothing that would work is refused.
        with pytest.raises(RuntimeError, match=r"Kernel size|output size"):
            torch.nn.Sequential(*discriminator)(torch.zeros(1, 2, height, width))
        with pytest.raises(ValueError, match=f"at least {side} x {side} cells; got {height} x {width}"):
            discriminator(torch.zeros(1, 2, height, width))


@pytest.mark.parametrize("shape", [(1, 24, 24), (1, 2, 24, 24), (24, 24)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"of the shape \(N, 1, H, W\); got"):
        PatchGAN(PatchGANConfig(features=(2, 2)))(torch.zeros(shape))
