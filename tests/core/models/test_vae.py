"""The VAE against what the published classes computed with the same weights (tests/fixtures)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from core.models.unet import UNet, UNetConfig
from core.models.unet import from_published_names as unet_from_published_names
from core.models.vae import (
    VAE,
    GroupNorm,
    Posterior,
    ResidualBlock,
    VAEConfig,
    from_published_names,
    vae_loss,
)
from tests.reference_weights import reference_weights

TINY = VAEConfig(in_channels=1, latent_channels=3, features=(4, 4, 6))
FIELDS = ("io", "io_wide")


@pytest.fixture(scope="module")
def weights(fixtures: Path) -> dict[str, Tensor]:
    return reference_weights(fixtures / "ldm_tiny_2mT.weight_rules.json")


def load_vae(weights: dict[str, Tensor]) -> VAE:
    state = from_published_names(weights, "autoencoder.")
    vae = VAE(VAEConfig.from_weights(state))
    vae.load_state_dict(state, strict=True)
    return vae


def load_unet(weights: dict[str, Tensor]) -> UNet:
    unet = UNet(UNetConfig(features=(4, 8, 16, 32)))
    unet.load_state_dict(unet_from_published_names(weights, "autoencoder.unet_regr.net."))
    return unet.eval()


def recorded(fixtures: Path, name: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The fields of a fixture, and by how much its float32 strays from its float64."""
    with np.load(fixtures / f"ldm_tiny_2mT.{name}.npz") as file:
        fields = {key: torch.from_numpy(file[key]) for key in file.files if not key.startswith("ddim")}
    table = json.loads((fixtures / f"ldm_tiny_2mT.{name}.f32_vs_f64.json").read_text())
    return fields, {key: row["max_abs"] for key, row in table.items()}


def distance(result: Tensor, expected: Tensor) -> float:
    return float((result.detach() - expected).abs().max())


def forward(weights: dict[str, Tensor], fields: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """What the fixture records, by our UNet and VAE in ``dtype``."""
    vae, unet = load_vae(weights).to(dtype), load_unet(weights).to(dtype)
    fields = {name: field.to(dtype) for name, field in fields.items()}
    with torch.inference_mode():
        residual = fields["high_res"] - unet(fields["low_res"], fields["static"])
        posterior = vae.encode(residual)
        # The recorded sample starts from the recorded moments, in both precisions.
        sample = Posterior(fields["vae_mean"], fields["vae_logvar"]).sample(fields["vae_noise"])
        return {
            "residual": residual,
            "vae_mean": posterior.mean,
            "vae_logvar": posterior.log_variance,
            "vae_decode_mean": vae.decode(posterior.mean),
            "vae_sample_z": sample,
            "vae_decode_sample": vae.decode(sample),
            "decoded": vae.decode(fields["f64_ddim_x_last"]),
        }


@pytest.mark.parametrize("name", FIELDS)
def test_forward_equals_the_published_one(fixtures: Path, weights: dict[str, Tensor], name: str) -> None:
    fields, rounding = recorded(fixtures, name)
    single, double = (forward(weights, fields, dtype) for dtype in (torch.float32, torch.float64))
    # The latent that was decoded is stored in float32, so its decoding is compared below only.
    for key in (double.keys() & fields.keys()) - {"decoded"}:
        # Their rounding and ours; kernels round differently from one machine to the next.
        assert distance(single[key], fields[key]) <= 3 * rounding[key], key
        # In float64 nothing is left but the recorded rounding of theirs.
        assert distance(double[key], fields[key]) <= 1.001 * rounding[key], key
    for key in ("vae_mean", "vae_decode_mean", "decoded"):
        exact = fields["f64_" + key]
        # Stored in float32.
        assert distance(double[key], exact) <= 1e-7 * float(exact.abs().max()), key


def test_loss_and_gradients_equal_the_published_ones(fixtures: Path, weights: dict[str, Tensor]) -> None:
    fields, _ = recorded(fixtures, "io")
    with np.load(fixtures / "train_tiny_2mT.npz") as file:
        trained = {name: torch.from_numpy(file[name]) for name in file.files if name.startswith("vae")}
    scalars = json.loads((fixtures / "train_tiny_2mT.json").read_text())
    vae, residual = load_vae(weights), fields["residual"]
    reconstruction, posterior = vae(residual, trained["vae/noise"])
    loss = vae_loss(reconstruction, residual, posterior)
    loss.total.backward()
    for part, key in zip(loss, ("total", "rec", "kl"), strict=True):
        assert float(part.detach()) == pytest.approx(scalars["vae"][key], rel=1e-6)

    gradients = {name: parameter.grad for name, parameter in vae.named_parameters()}
    norms = {name: torch.tensor(value) for name, value in scalars["vae_grad_norms"].items()}
    norms = from_published_names(norms)
    assert norms.keys() == gradients.keys()
    for name, norm in norms.items():
        gradient = gradients[name]
        assert gradient is not None
        assert float(gradient.norm()) == pytest.approx(float(norm), rel=2e-5, abs=1e-7), name
    fields_of = {k.removeprefix("vae_grad/"): v for k, v in trained.items() if k.startswith("vae_grad/")}
    assert len(fields_of) == 4
    for name, expected in from_published_names(fields_of).items():
        gradient = gradients[name]
        assert gradient is not None
        # The sign in the gradient of |x| flips where rounding moves x across 0.
        assert distance(gradient, expected) <= 2e-5 * float(expected.square().mean().sqrt()), name


@pytest.mark.parametrize(("targets", "variant"), [(1, "2mT"), (2, "UV")])
def test_published_size_and_names(fixtures: Path, targets: int, variant: str) -> None:
    with torch.device("meta"):
        vae = VAE(VAEConfig.published(targets))
    counts = json.loads((fixtures / "param_counts.json").read_text())[f"VAE_{variant}"]
    for part, module in vae.named_children():
        assert sum(p.numel() for p in module.parameters()) == counts[part]
    assert sum(p.numel() for p in vae.parameters()) == counts["total"] - counts["unet_regr"]
    own = {key: (value.shape, value.dtype) for key, value in vae.state_dict().items()}
    for name, prefix in ((f"VAE_residual_{variant}", ""), (f"LDM_residual_{variant}", "autoencoder.")):
        keys: dict[str, Any] = json.loads((fixtures / f"{name}.keys.json").read_text())
        published = {
            key: torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]), device="meta")
            for key, value in keys.items()
        }
        renamed = from_published_names(published, prefix)
        assert {key: (value.shape, value.dtype) for key, value in renamed.items()} == own
        assert VAEConfig.from_weights(renamed) == vae.config


def test_defaults_are_published() -> None:
    assert VAEConfig() == VAEConfig.published(1)
    assert VAEConfig.published(2).latent_channels == 64
    assert VAEConfig().levels == 3


@given(
    features=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    channels=st.integers(1, 3),
    latent=st.integers(1, 4),
)
@settings(max_examples=15, deadline=None)
def test_sizes_follow_from_weights(features: list[int], channels: int, latent: int) -> None:
    config = VAEConfig(in_channels=channels, latent_channels=latent, features=tuple(features))
    vae = VAE(config)
    assert VAEConfig.from_weights(vae.state_dict()) == config
    ratio = vae.side_multiple
    reconstruction, posterior = vae(torch.zeros(2, channels, 2 * ratio, 3 * ratio))
    assert reconstruction.shape == (2, channels, 2 * ratio, 3 * ratio)
    assert posterior.mean.shape == posterior.log_variance.shape == (2, latent, 2, 3)


@pytest.mark.parametrize(("i", "o"), [(3, 3), (3, 5)])
def test_residual_block_equals_an_independent_one(i: int, o: int) -> None:
    """diffusers' block without time embedding is the same network."""
    torch.manual_seed(0)
    block = ResidualBlock(i, o)
    other = ResnetBlock2D(in_channels=i, out_channels=o, temb_channels=None, groups=1, eps=1e-5)
    other.load_state_dict({k.replace("shortcut", "conv_shortcut"): v for k, v in block.state_dict().items()})
    x = 3 * torch.randn(2, i, 5, 7) + 1
    torch.testing.assert_close(block(x), other(x, None))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation_is_accurate_far_from_zero(channels: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = 100 + torch.randn(2, channels, 96, 64)
    norm = GroupNorm(channels)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x64, weight, bias = x.double(), norm.weight.double(), norm.bias.double()
    expected = torch.nn.functional.group_norm(x64, 1, weight, bias, norm.eps)
    with torch.inference_mode():
        result = norm(x.to(memory_format=layout))
    torch.testing.assert_close(result.double(), expected.detach(), atol=1e-4, rtol=0)


def test_posterior_equals_that_of_torch_distributions() -> None:
    torch.manual_seed(0)
    posterior = Posterior(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5))
    normal = torch.distributions.Normal(posterior.mean, (posterior.log_variance / 2).exp())
    standard = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(posterior.kl(), torch.distributions.kl_divergence(normal, standard).mean())
    noise = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(normal.cdf(posterior.sample(noise)), standard.cdf(noise))
    assert Posterior(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)).kl() == 0


def test_noise_comes_from_a_generator_or_as_it_is() -> None:
    vae, x = VAE(TINY), torch.ones(1, 1, 16, 8)
    noise = torch.randn(1, 3, 2, 1, generator=torch.Generator().manual_seed(7))
    drawn = vae(x, torch.Generator().manual_seed(7))[0]
    given_noise, posterior = vae(x, noise)
    torch.testing.assert_close(drawn, given_noise, rtol=0, atol=0)
    torch.testing.assert_close(vae(x)[0], vae.decode(posterior.mean), rtol=0, atol=0)
    assert not torch.equal(vae(x)[0], drawn)


def test_loss_by_hand() -> None:
    posterior = Posterior(torch.full((1, 1, 1, 2), 2.0), torch.zeros(1, 1, 1, 2))
    loss = vae_loss(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0]), posterior, kl_weight=0.5)
    assert [float(part) for part in loss] == [3.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 2, 8, 8), r"shape \(N, 1, H, W\); got \(1, 2, 8, 8\)"),
        ((1, 8, 8), r"shape \(N, 1, H, W\); got \(1, 8, 8\)"),
        ((1, 1, 8, 12), "multiples of 8; got 8 x 12"),
    ],
)
def test_fields_that_do_not_fit_are_refused(shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        VAE(TINY).encode(torch.zeros(shape))


def test_latents_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latents of the shape \(N, 3, h, w\); got \(1, 4, 2, 2\)"):
        VAE(TINY).decode(torch.zeros(1, 4, 2, 2))


@pytest.mark.parametrize(
    "name",
    [
        "autoencoder.encoder.0.conv1.weight",
        "autoencoder.encoder.net.0.conv3.weight",
        "autoencoder.encoder.net.0.sequence.1.weight",
        "autoencoder.encoder.net.0.norm1.running_mean",
        "autoencoder.to_moments.0.weight",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not part of a published VAE"):
        from_published_names({name: torch.zeros(1)}, "autoencoder.")


def test_damaged_layers_are_refused(weights: dict[str, Tensor]) -> None:
    """The published file holds each layer of a residual block twice."""
    twice = "autoencoder.decoder.net.1.sequence.5.weight"
    assert from_published_names({k: v for k, v in weights.items() if k != twice}, "autoencoder.")
    with pytest.raises(
        ValueError, match=r"conv2\.weight and .*sequence\.5\.weight should be one and the same"
    ):
        from_published_names({**weights, twice: weights[twice] + 1}, "autoencoder.")
    missing = VAE(TINY).state_dict()
    del missing["encoder.2.conv2.weight"]
    with pytest.raises(ValueError, match=r"2\.conv2\.weight is missing"):
        VAEConfig.from_weights(missing)


@pytest.mark.parametrize(
    "wrong",
    [{"features": ()}, {"features": (0,)}, {"latent_channels": 0}, {"width": 3}, {"in_channels": 9999}],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VAEConfig(**wrong)
