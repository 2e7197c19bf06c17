"""The conditioner against what the published classes computed with the same weights (tests/fixtures)."""

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

from core.models.afno import ModeTruncation
from core.models.conditioner import Conditioner, ConditionerConfig, from_published_names
from core.models.denoiser import Denoiser, DenoiserConfig
from core.models.denoiser import from_published_names as denoiser_from_published_names
from tests.reference_weights import reference_weights

TINY = ConditionerConfig(
    coarse_channels=3,
    static_channels=2,
    static_features=(3, 4, 5),
    static_latent_channels=3,
    static_embedding=4,
    coarse_embedding=2,
    static_depth=1,
    coarse_depth=2,
    width=3,
    filter_blocks=2,
)


@pytest.fixture(scope="module")
def state(fixtures: Path) -> dict[str, Tensor]:
    return from_published_names(reference_weights(fixtures / "ldm_tiny_2mT.weight_rules.json"))


def conditioner(state: dict[str, Tensor], truncate_modes: ModeTruncation) -> Conditioner:
    model = Conditioner(ConditionerConfig.from_weights(state, truncate_modes=truncate_modes))
    model.load_state_dict(state, strict=True)
    return model


def recorded(fixtures: Path, name: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The fields of a fixture, and by how much its float32 strays from its float64."""
    with np.load(fixtures / f"ldm_tiny_2mT.{name}.npz") as file:
        names = [key for key in file.files if key in ("low_res", "static") or key.startswith("ctx_")]
        fields = {key: torch.from_numpy(file[key]) for key in names}
    table = json.loads((fixtures / f"ldm_tiny_2mT.{name}.f32_vs_f64.json").read_text())
    return fields, {key: row["max_abs"] for key, row in table.items()}


def distance(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).abs().max())


@pytest.mark.parametrize(
    ("name", "truncate_modes"), [("io", "none"), ("io", "published"), ("io_wide", "published")]
)
def test_contexts_equal_the_published_ones(
    fixtures: Path, state: dict[str, Tensor], name: str, truncate_modes: ModeTruncation
) -> None:
    fields, rounding = recorded(fixtures, name)
    model = conditioner(state, truncate_modes)
    with torch.inference_mode():
        single = model(fields["low_res"], fields["static"])
        double = model.double()(fields["low_res"].double(), fields["static"].double())
    assert len(single) == len(double) == 3
    for level in range(3):
        key = f"ctx_level{level}"
        # Their rounding and ours; kernels round differently from one machine to the next.
        assert distance(single[level], fields[key]) <= 3 * rounding[key]
        # In float64 nothing is left but the recorded rounding of theirs.
        assert distance(double[level], fields[key]) <= 1.001 * rounding[key]


def test_intermediates_equal_the_published_ones(fixtures: Path, state: dict[str, Tensor]) -> None:
    fields, _ = recorded(fixtures, "io")
    model = conditioner(state, "none").double()
    with torch.inference_mode():
        static, coarse = fields["static"].double(), fields["low_res"].double()
        mean = model.static_encoder(static)
        encoded, projected = model.encode_static(static), model.coarse_projection(coarse)
        analysed = model.coarse_analysis(projected.permute(0, 2, 3, 1))
        found = {
            "ctx_static_mean": mean,
            "ctx_proj0": model.static_projection(mean),
            "ctx_analysis0_nhwc": encoded.permute(0, 2, 3, 1),
            "ctx_proj1": projected,
            "ctx_analysis1_nhwc": analysed,
            "ctx_fusion_nhwc": model.fusion(torch.cat([encoded.permute(0, 2, 3, 1), analysed], dim=-1)),
        }
    assert {key for key in fields if key.startswith("ctx_") and "level" not in key} == found.keys()
    for key, result in found.items():
        # Theirs is float32: the contexts are recorded to stray by up to 3e-6 of their rms.
        assert distance(result, fields[key]) <= 4e-6 * float(fields[key].square().mean().sqrt()), key


def test_gradients_equal_the_published_ones(fixtures: Path, state: dict[str, Tensor]) -> None:
    """Of the diffusion model's loss, through the denoiser with the published (raw) weights."""
    weights = denoiser_from_published_names(
        reference_weights(fixtures / "ldm_tiny_2mT.weight_rules.json"), ema=False
    )
    denoiser = Denoiser(DenoiserConfig.from_weights(weights))
    denoiser.load_state_dict(weights)
    denoiser.requires_grad_(False)
    model = conditioner(state, "published")
    with np.load(fixtures / "ldm_tiny_2mT.io.npz") as file:
        names = ("low_res", "static", "x_noisy", "t", "v_target")
        coarse, static, noisy, t, target = (torch.from_numpy(file[name]) for name in names)
    loss = (denoiser(noisy, t, model(coarse, static)) - target).square().mean()
    loss.backward()
    scalars = json.loads((fixtures / "train_tiny_2mT.json").read_text())
    assert float(loss.detach()) == pytest.approx(scalars["ldm_p_losses"], rel=2e-6)

    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # Each norm stands for its tensor on the way through the names.
    norms = from_published_names({k: torch.tensor(v) for k, v in scalars["ldm_grad_norms"].items()})
    without = {k: torch.empty(0) for k in scalars["ldm_params_without_grad"]}
    assert norms.keys() == found.keys()
    assert norms.keys() | from_published_names(without).keys() == dict(model.named_parameters()).keys()
    largest = max(float(norm) for norm in norms.values())
    for name, norm in norms.items():
        # Some are the small rest of a sum that cancels.
        assert float(found[name].norm()) == pytest.approx(float(norm), rel=1e-4, abs=1e-6 * largest), name
    with np.load(fixtures / "train_tiny_2mT.npz") as file:
        own = from_published_names(
            {k.removeprefix("ldm_grad/"): torch.from_numpy(file[k]) for k in file.files}
        )
    assert len(own) == 6
    for name, expected in own.items():
        assert distance(found[name], expected) <= 1e-4 * float(expected.square().mean().sqrt()), name


def test_published_truncation_acts_on_wide_fields_only(fixtures: Path, state: dict[str, Tensor]) -> None:
    for name, same in (("io", True), ("io_wide", False)):
        fields, _ = recorded(fixtures, name)
        with torch.inference_mode():
            results = [
                conditioner(state, option)(fields["low_res"], fields["static"])[0]
                for option in ("none", "published")
            ]
        assert torch.allclose(*results, atol=1e-3) == same


@pytest.mark.parametrize("variant", ["2mT", "UV"])
def test_published_size_and_names(fixtures: Path, variant: str) -> None:
    with torch.device("meta"):
        model = Conditioner()
    counts = json.loads((fixtures / "param_counts.json").read_text())[f"LDM_{variant}"]
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert sum(sizes.values()) == counts["context_encoder"]
    assert counts["ctx_parts"] == {
        "autoencoder": sizes["static_encoder"],
        "proj": sizes["static_projection"] + sizes["coarse_projection"],
        "analysis": sizes["static_analysis"] + sizes["coarse_analysis"],
        "fusion": sizes["fusion"],
        "resnet": sizes["cascade"],
    }
    keys: dict[str, Any] = json.loads((fixtures / f"LDM_residual_{variant}.keys.json").read_text())
    published = {
        key: torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]), device="meta")
        for key, value in keys.items()
    }
    renamed = from_published_names(published)
    own = {key: (value.shape, value.dtype) for key, value in model.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in renamed.items()} == own
    assert ConditionerConfig.from_weights(renamed) == model.config
    assert model.config.context_channels == (256, 512, 1024)
    assert (model.latent_ratio, model.side_multiple) == (8, 32)


@given(h=st.integers(1, 3), w=st.integers(1, 3), hours=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_any_sides_that_are_multiples_of_32(h: int, w: int, hours: int) -> None:
    torch.manual_seed(0)
    model = Conditioner(TINY)
    coarse, static = torch.randn(hours, 3, 4 * h, 4 * w), torch.randn(1, 2, 32 * h, 32 * w)
    with torch.inference_mode():
        contexts = model(coarse, static)
    assert [context.shape for context in contexts] == [
        (hours, 3 << level, 4 * h >> level, 4 * w >> level) for level in range(3)
    ]


def test_statics_are_encoded_once_for_all_hours() -> None:
    torch.manual_seed(0)
    model = Conditioner(TINY)
    coarse, static = torch.randn(3, 3, 4, 8), torch.randn(1, 2, 32, 64)
    with torch.inference_mode():
        together = model(coarse, static.repeat(3, 1, 1, 1))
        encoded = model.encode_static(static)
        model.static_encoder.forward = None  # type: ignore[assignment, method-assign]
        for hour in range(3):
            alone = model.contexts(coarse[hour : hour + 1], encoded)
            for a, b in zip(alone, together, strict=True):
                torch.testing.assert_close(a, b[hour : hour + 1])


@pytest.mark.parametrize("blocks", [1, 2])
def test_sizes_follow_from_weights(blocks: int) -> None:
    config = TINY.model_copy(update={"filter_blocks": blocks, "levels": 2, "static_features": (3, 2)})
    state = Conditioner(config).state_dict()
    assert ConditionerConfig.from_weights(state) == config
    assert ConditionerConfig.from_weights(state, truncate_modes="published").truncate_modes == "published"
    del state["fusion.2.weight"]
    with pytest.raises(ValueError, match=r"fusion\.2\.weight is missing"):
        ConditionerConfig.from_weights(state)


def test_all_but_the_weights_without_effect_are_trained() -> None:
    torch.manual_seed(0)
    model = Conditioner(TINY)
    contexts = model(torch.randn(2, 3, 8, 8), torch.randn(2, 2, 64, 64))
    sum(context.square().mean() for context in contexts).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        unused = name.startswith("static_encoder.to_decoder.")
        assert parameter.requires_grad == (not unused)
        assert (parameter.grad is None) == unused
        if name == "static_encoder.to_moments.weight":
            assert parameter.grad is not None
            assert parameter.grad[:3].any()
            assert not parameter.grad[3:].any()


@pytest.mark.parametrize(
    ("coarse", "static", "sentence"),
    [
        ((1, 3, 4, 4), (1, 2, 40, 32), "multiples of 32; got 40 x 32"),
        ((1, 3, 4, 4), (1, 3, 32, 32), r"\(N, 2, H, W\); got \(1, 3, 32, 32\)"),
        ((1, 2, 4, 4), (1, 2, 32, 32), r"\(N, 3, 4, 4\); got \(1, 2, 4, 4\)"),
        ((1, 3, 4, 8), (1, 2, 32, 32), r"fine fields of 32 x 32 .*\(N, 3, 4, 4\); got \(1, 3, 4, 8\)"),
        ((3, 3, 4, 4), (2, 2, 32, 32), "2 static fields serve neither"),
    ],
)
def test_what_does_not_fit_is_refused(
    coarse: tuple[int, ...], static: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Conditioner(TINY)(torch.zeros(coarse), torch.zeros(static))


@pytest.mark.parametrize(
    "name",
    [
        "autoencoder.0.decoder.net.0.weight",
        "autoencoder.1.encoder.net.0.conv1.weight",
        "analysis.2.0.norm1.weight",
        "analysis.0.0.mlp.fc3.weight",
        "fusion.scale.0.weight",
        "fusion.fusion.1.weight",
        "proj.0.scale",
        "resnet.0.conv3.weight",
        "resnet.x.conv1.weight",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not part of a published conditioner"):
        from_published_names({f"context_encoder.{name}": torch.zeros(1)})


@pytest.mark.parametrize(
    "wrong", [{"levels": 0}, {"static_features": ()}, {"truncate_modes": "some"}, {"dim": 1}]
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ConditionerConfig(**wrong)


def test_embeddings_must_be_divisible_into_blocks() -> None:
    with pytest.raises(ValueError, match="cannot be cut into 3 equal blocks"):
        Conditioner(TINY.model_copy(update={"filter_blocks": 3}))
