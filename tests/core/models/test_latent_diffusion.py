"""The joined model against what the published classes computed with the same weights (tests/fixtures)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from core.diffusion.schedule import Schedule
from core.models.afno import ModeTruncation
from core.models.conditioner import ConditionerConfig
from core.models.denoiser import DenoiserConfig
from core.models.latent_diffusion import LatentDiffusion, LatentDiffusionConfig, from_published_names
from core.models.unet import UNetConfig
from core.models.vae import VAEConfig
from tests.reference_weights import reference_weights

SMALL = LatentDiffusionConfig(
    unet=UNetConfig(in_channels=5, features=(2, 2)),
    vae=VAEConfig(latent_channels=3, features=(2, 4)),
    conditioner=ConditionerConfig(
        coarse_channels=3,
        static_channels=2,
        static_features=(3, 4),
        static_latent_channels=2,
        static_embedding=4,
        coarse_embedding=4,
        static_depth=1,
        coarse_depth=1,
        width=4,
        levels=2,
        filter_blocks=2,
    ),
    denoiser=DenoiserConfig(
        in_channels=3,
        out_channels=3,
        width=4,
        multipliers=(1, 2),
        attention_levels=1,
        context_channels=(4, 8),
        filter_blocks=2,
    ),
)


@pytest.fixture(scope="module")
def published(fixtures: Path) -> dict[str, Tensor]:
    """The tiny model's weights under their published names."""
    return reference_weights(fixtures / "ldm_tiny_2mT.weight_rules.json")


def joined(published: dict[str, Tensor], truncate_modes: ModeTruncation) -> LatentDiffusion:
    state = from_published_names(published)
    model = LatentDiffusion(LatentDiffusionConfig.from_weights(state, truncate_modes=truncate_modes))
    model.load_state_dict(state, strict=True)
    return model.eval()


def loaded(path: Path) -> dict[str, Tensor]:
    with np.load(path) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def distance(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).abs().max())


@pytest.mark.parametrize(
    ("name", "truncate_modes"), [("io", "none"), ("io", "published"), ("io_wide", "published")]
)
def test_every_intermediate_equals_the_published_one(
    fixtures: Path, published: dict[str, Tensor], name: str, truncate_modes: ModeTruncation
) -> None:
    fields = loaded(fixtures / f"ldm_tiny_2mT.{name}.npz")
    table = json.loads((fixtures / f"ldm_tiny_2mT.{name}.f32_vs_f64.json").read_text())
    rounding = {key: row["max_abs"] for key, row in table.items()}
    single = joined(published, truncate_modes)
    double = joined(published, truncate_modes).double()

    @torch.inference_mode()
    def results(model: LatentDiffusion, dtype: torch.dtype) -> dict[str, Tensor]:
        given = ("low_res", "static", "high_res", "x_noisy", "x_T", "ddim_x")
        coarse, static, fine, z, first, states = (fields[key].to(dtype) for key in given)
        mean = model.mean(coarse, static)
        posterior = model.vae.encode(fine - mean)
        context = model.condition(coarse, static)
        # Every step starts from the recorded state: the sampler is not tested here.
        outputs = [
            model.denoise(state, t.expand(len(state)), context)
            for state, t in zip([first, *states[:-1]], fields["ddim_timesteps"], strict=True)
        ]
        decoded = model.decode(states[-1])
        return {
            "unet_out": mean,
            "residual": fine - mean,
            "vae_mean": posterior.mean,
            "vae_logvar": posterior.log_variance,
            "vae_decode_mean": model.decode(posterior.mean),
            **{f"ctx_level{level}": field for level, field in enumerate(context)},
            "denoiser_ema": model.denoise(z, fields["t"], context),
            "ddim_model_out": torch.stack(outputs),
            "decoded": decoded,
            "final": decoded + mean,
        }

    ours, exact = results(single, torch.float32), results(double, torch.float64)
    # The wide fixture records no residual.
    assert set(ours) - set(fields) <= {"residual"}
    for key in set(ours) & set(fields):
        # Their rounding and ours.
        assert distance(ours[key], fields[key]) <= 2.5 * rounding[key], key
        # In float64 their rounding remains, and that of the recorded states and noisy latents.
        assert distance(exact[key], fields[key]) <= 1.5 * rounding[key], key


def test_raw_weights_give_the_raw_output(fixtures: Path, published: dict[str, Tensor]) -> None:
    fields = loaded(fixtures / "ldm_tiny_2mT.io.npz")
    rounding = json.loads((fixtures / "ldm_tiny_2mT.io.f32_vs_f64.json").read_text())["denoiser_raw"]
    model = joined(published, "published")
    model.load_state_dict(from_published_names(published, ema=False))
    with torch.inference_mode():
        context = model.condition(fields["low_res"], fields["static"])
        result = model.denoise(fields["x_noisy"], fields["t"], context)
    assert distance(result, fields["denoiser_raw"]) <= 2.5 * rounding["max_abs"]


def test_fine_tuned_model_equals_the_published_one(fixtures: Path) -> None:
    """Output, its decoding and the estimate of the fine field in the fine-tuning with the flux loss."""
    weights = reference_weights(fixtures / "pde_plosses_tiny.weight_rules.json")
    model = joined(weights, "published")
    # The loss sees the raw weights.
    model.load_state_dict(from_published_names(weights, ema=False))
    fields = loaded(fixtures / "pde_plosses_tiny.npz")
    coarse, static, t = fields["low_res"], fields["static"], fields["t"]
    schedule = Schedule()
    with torch.inference_mode():
        mean = model.mean(coarse, static)
        z = schedule.add_noise(fields["latent_target"], fields["noise"], t)
        output = model.denoise(z, t, model.condition(coarse, static))
        z0 = schedule.to_z0(output, z, t)
        # This fixture records no rounding: the other one's says what to expect of the same kind of field.
        results = {
            "unet_out": ("unet_out", mean),
            "latent_target": ("vae_mean", model.vae.encode(fields["high_res"] - mean).mean),
            "denoiser_out": ("denoiser_raw", output),
            "decoded_denoiser_out_T_f": ("vae_decode_mean", model.decode(output)),
            "x0_hat": ("ddim_pred_x0", z0),
            "decoded_x0_plus_unet": ("final", mean + model.decode(z0)),
        }
    table = json.loads((fixtures / "ldm_tiny_2mT.io.f32_vs_f64.json").read_text())
    for key, (kind, result) in results.items():
        rounding = table[kind]["max_abs"] / table[kind]["rms"]
        assert distance(result, fields[key]) <= 3 * rounding * float(fields[key].square().mean().sqrt()), key


@pytest.mark.parametrize("variant", ["2mT", "UV"])
def test_published_sizes_and_names(fixtures: Path, variant: str) -> None:
    keys: dict[str, Any] = json.loads((fixtures / f"LDM_residual_{variant}.keys.json").read_text())
    state_dict = {
        key: torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]), device="meta")
        for key, value in keys.items()
    }
    counts = json.loads((fixtures / "param_counts.json").read_text())[f"LDM_{variant}"]
    assert len(state_dict) == counts["state_dict_entries"]
    state = from_published_names(state_dict)
    config = LatentDiffusionConfig.from_weights(state)
    targets = 1 if variant == "2mT" else 2
    assert config == LatentDiffusionConfig(
        unet=UNetConfig(out_channels=targets),
        vae=VAEConfig.published(targets),
        denoiser=DenoiserConfig(in_channels=32 * targets, out_channels=32 * targets),
    )
    with torch.device("meta"):
        model = LatentDiffusion(config)
    assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
        k: (v.shape, v.dtype) for k, v in model.state_dict().items()
    }
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert sizes == {
        "unet": counts["autoencoder"] - sizes["vae"],
        "vae": counts["autoencoder"] - sizes["unet"],
        "conditioner": counts["context_encoder"],
        "denoiser": counts["denoiser"],
    }
    assert sum(sizes.values()) == counts["total_params"]


def test_every_published_entry_is_used_or_left_out_on_purpose(published: dict[str, Tensor]) -> None:
    values = {id(value) for value in from_published_names(published).values()}
    left_out = {key for key, value in published.items() if id(value) not in values}
    doubled = {key for key in left_out if ".sequence." in key or key.endswith("num_updates")}
    raw = {key for key in left_out if key.startswith("denoiser.")}
    assert left_out == doubled | raw | {"denoiser_ema.decay"}
    assert len(raw) == 250


def test_the_published_schedule_is_recognised(published: dict[str, Tensor]) -> None:
    alpha_bar = torch.from_numpy(Schedule().alpha_bar.copy()).float()
    buffers = {"betas": torch.zeros(1000), "alphas_cumprod": alpha_bar}
    assert set(from_published_names(published | buffers)) == set(from_published_names(published))
    for other in (alpha_bar[:500], alpha_bar**1.01):
        with pytest.raises(ValueError, match="another noise schedule"):
            from_published_names(published | {"alphas_cumprod": other})


@pytest.mark.parametrize(
    "key", ["optimizer.step", "denoiserx", "autoencoder.unet_regr.loss.weight", "autoencoder.disc.main.0"]
)
def test_entries_of_no_part_are_refused(published: dict[str, Tensor], key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is not part of"):
        from_published_names(published | {key: torch.zeros(1)})


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        ("autoencoder.unet_regr.", r"No weights lie beneath 'autoencoder\.unet_regr\.net\.'"),
        ("context_encoder.", r"No weights lie beneath 'context_encoder\.'"),
        ("denoiser.", r"No weights lie beneath 'denoiser\.'"),
        ("denoiser_ema.", "have no moving average"),
    ],
)
def test_missing_parts_are_refused(published: dict[str, Tensor], prefix: str, sentence: str) -> None:
    rest = {key: value for key, value in published.items() if not key.startswith(prefix)}
    with pytest.raises(ValueError, match=sentence):
        from_published_names(rest)


def test_sizes_follow_from_the_weights() -> None:
    with torch.device("meta"):
        state = LatentDiffusion(SMALL).state_dict()
    assert LatentDiffusionConfig.from_weights(state) == SMALL
    rest = {key: value for key, value in state.items() if not key.startswith("unet.")}
    with pytest.raises(ValueError, match=r"The weight encoder\.0\.0\.weight is missing"):
        LatentDiffusionConfig.from_weights(rest)


def test_shapes_and_an_encoding_of_the_statics_that_serves_every_hour() -> None:
    torch.manual_seed(0)
    model = LatentDiffusion(SMALL).eval()
    assert (model.side_multiple, model.latent_ratio) == (8, 4)
    coarse, static = torch.randn(2, 3, 4, 6), torch.randn(1, 2, 16, 24)
    assert model.latent_shape(static) == (3, 4, 6)
    with torch.inference_mode():
        context = model.condition(coarse, static)
        assert [tuple(level.shape) for level in context] == [(2, 4, 4, 6), (2, 8, 2, 3)]
        assert all(level.is_contiguous() for level in context)
        encoded = model.conditioner.encode_static(static)
        for level, kept in zip(context, model.condition(coarse, static, encoded_static=encoded), strict=True):
            assert torch.equal(level, kept)
        z = torch.randn(2, *model.latent_shape(static))
        assert model.denoise(z, torch.tensor([3, 700]), context).shape == z.shape
        assert model.decode(z).shape == model.mean(coarse, static).shape == (2, 1, 16, 24)


def test_the_mean_does_not_drift_in_training() -> None:
    torch.manual_seed(0)
    model = LatentDiffusion(SMALL)
    coarse, static = torch.randn(2, 3, 4, 6), torch.randn(1, 2, 16, 24)
    before = {key: value.clone() for key, value in model.unet.state_dict().items()}
    fresh = model.mean(coarse, static)
    assert torch.equal(model.train().mean(coarse, static), fresh)
    assert all(part.training for part in (model.denoiser, model.vae, model.conditioner))
    for key, value in model.unet.state_dict().items():
        assert torch.equal(value, before[key])
    assert not model.eval().denoiser.training


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"unet": UNetConfig(in_channels=6, features=(2, 2))}, "UNet's inputs .* got 6 and 5"),
        (
            {"unet": UNetConfig(in_channels=5, out_channels=2, features=(2, 2))},
            "UNet's outputs .* got 2 and 1",
        ),
        ({"vae": VAEConfig(latent_channels=4, features=(2, 4))}, "VAE's latent channels .* got 4 and 3"),
        ({"vae": VAEConfig(latent_channels=3, features=(2, 4, 4))}, "halvings .* got 3 and 2"),
        (
            {"denoiser": SMALL.denoiser.model_copy(update={"out_channels": 6})},
            "inputs and outputs .* 3 and 6",
        ),
        (
            {"denoiser": SMALL.denoiser.model_copy(update={"context_channels": (4, 4)})},
            r"context channels .* got \(4, 8\) and \(4, 4\)",
        ),
        ({"parameterization": "score"}, "parameterization"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        LatentDiffusionConfig(**(dict(SMALL) | change))
