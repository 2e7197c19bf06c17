"""The denoiser against what the published classes computed with the same weights (tests/fixtures)."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from core.models.afno import ModeTruncation
from core.models.denoiser import Averages, Denoiser, DenoiserConfig, from_published_names, time_embedding
from tests.reference_weights import reference_weights

SMALL = DenoiserConfig(
    in_channels=3, out_channels=5, width=4, multipliers=(1, 2), attention_levels=1, context_channels=(4, 8)
)


@pytest.fixture(scope="module")
def published(fixtures: Path) -> dict[str, Tensor]:
    """The tiny latent diffusion model's weights under their published names."""
    return reference_weights(fixtures / "ldm_tiny_2mT.weight_rules.json")


def denoiser(
    published: dict[str, Tensor], truncate_modes: ModeTruncation, *, ema: Averages = True
) -> Denoiser:
    state = from_published_names(published, ema=ema)
    model = Denoiser(DenoiserConfig.from_weights(state, truncate_modes=truncate_modes))
    model.load_state_dict(state, strict=True)
    return model.eval()


def recorded(fixtures: Path, name: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The fields of a fixture, and by how much its float32 strays from its float64."""
    with np.load(fixtures / f"ldm_tiny_2mT.{name}.npz") as file:
        wanted = ("x_noisy", "x_T", "t", "temb", "ctx_level", "denoiser", "ddim_", "f64_denoiser")
        fields = {key: torch.from_numpy(file[key]) for key in file.files if key.startswith(wanted)}
    table = json.loads((fixtures / f"ldm_tiny_2mT.{name}.f32_vs_f64.json").read_text())
    return fields, {key: row["max_abs"] for key, row in table.items()}


def context_of(fields: dict[str, Tensor]) -> list[Tensor]:
    return [fields[f"ctx_level{level}"] for level in range(3)]


def distance(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).abs().max())


@pytest.mark.parametrize(
    ("name", "truncate_modes"), [("io", "none"), ("io", "published"), ("io_wide", "published")]
)
@pytest.mark.parametrize(("ema", "key"), [(True, "denoiser_ema"), (False, "denoiser_raw")])
def test_output_equals_the_published_one(
    fixtures: Path,
    published: dict[str, Tensor],
    name: str,
    truncate_modes: ModeTruncation,
    ema: bool,
    key: str,
) -> None:
    fields, rounding = recorded(fixtures, name)
    model = denoiser(published, truncate_modes, ema=ema)
    with torch.inference_mode():
        result = model(fields["x_noisy"], fields["t"], context_of(fields))
        # Their rounding and ours.
        assert distance(result, fields[key]) <= 2 * rounding[key]
        context = [level.double() for level in context_of(fields)]
        exact = model.double()(fields["x_noisy"].double(), fields["t"], context)
    # The context is recorded in float32, whose rounding remains.
    assert distance(exact, fields[key]) <= 1.5 * rounding[key]


@pytest.mark.parametrize("name", ["io", "io_wide"])
def test_time_embedding_equals_the_published_one(
    fixtures: Path, published: dict[str, Tensor], name: str
) -> None:
    fields, rounding = recorded(fixtures, name)
    model = denoiser(published, "published", ema=False)
    with torch.inference_mode():
        assert distance(time_embedding(fields["t"], 8), fields["temb_in"]) <= 1e-7
        assert distance(model.embed_time(fields["t"]), fields["temb"]) <= 2 * rounding["temb"]


@pytest.mark.parametrize("name", ["io", "io_wide"])
def test_output_of_every_sampling_step_equals_the_published_one(
    fixtures: Path, published: dict[str, Tensor], name: str
) -> None:
    fields, rounding = recorded(fixtures, name)
    model = denoiser(published, "published")
    states = [fields["x_T"], *fields["ddim_x"][:-1]]
    with torch.inference_mode():
        for z, t, expected in zip(states, fields["ddim_timesteps"], fields["ddim_model_out"], strict=True):
            result = model(z, t.expand(len(z)), context_of(fields))
            assert distance(result, expected) <= 2 * rounding["ddim_model_out"]


def test_modes_that_the_published_code_drops_matter(fixtures: Path, published: dict[str, Tensor]) -> None:
    fields, rounding = recorded(fixtures, "io_wide")
    with torch.inference_mode():
        result = denoiser(published, "none")(fields["x_noisy"], fields["t"], context_of(fields))
    assert distance(result, fields["denoiser_ema"]) > 1000 * rounding["denoiser_ema"]


@pytest.mark.parametrize("variant", ["2mT", "UV"])
def test_published_size_and_names(fixtures: Path, variant: str) -> None:
    keys: dict[str, Any] = json.loads((fixtures / f"LDM_residual_{variant}.keys.json").read_text())
    published = {
        key: torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]), device="meta")
        for key, value in keys.items()
    }
    counts = json.loads((fixtures / "param_counts.json").read_text())[f"LDM_{variant}"]
    channels = 32 if variant == "2mT" else 64
    for ema in (True, False):
        state = from_published_names(published, ema=ema)
        config = DenoiserConfig.from_weights(state)
        assert config == DenoiserConfig(in_channels=channels, out_channels=channels)
        with torch.device("meta"):
            model = Denoiser(config)
        assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
            k: (v.shape, v.dtype) for k, v in model.state_dict().items()
        }

    def size(part: nn.Module) -> int:
        return sum(p.numel() for p in part.parameters())

    assert size(model) == counts["denoiser"]
    assert {name: size(part) for name, part in model.named_children()} == counts["denoiser_parts"]
    # The number of updates and the decay are buffers, too.
    assert counts["ema_buffers"] == counts["denoiser"] + 2


def test_default_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Denoiser().parameters()) == 274_467_616


def test_every_average_takes_the_place_of_its_weight(published: dict[str, Tensor]) -> None:
    """Every weight of the denoiser and every buffer of the averages is used once."""
    names = [key for key in published if key.startswith(("denoiser.", "denoiser_ema."))]
    marked = {key: torch.full_like(published[key], number) for number, key in enumerate(names)}
    values = {ema: from_published_names(marked, ema=ema) for ema in (True, False)}
    assert list(values[True]) == list(values[False])
    used = {
        names[int(value.flatten()[0])].removeprefix("denoiser_ema.") for value in values[True].values()
    } | {"decay", "num_updates"}
    assert used == {n.removeprefix("denoiser_ema.") for n in names if n.startswith("denoiser_ema.")}
    for average, raw in zip(values[True].values(), values[False].values(), strict=True):
        of, name = names[int(average.flatten()[0])], names[int(raw.flatten()[0])]
        assert of.removeprefix("denoiser_ema.") == name.removeprefix("denoiser.").replace(".", "")


def test_missing_averages_are_refused(published: dict[str, Tensor]) -> None:
    raw = {key: value for key, value in published.items() if not key.startswith("denoiser_ema.")}
    for averages in (True, "partial"):
        with pytest.raises(ValueError, match="250 of 250 weights of the denoiser have no moving average"):
            from_published_names(raw, ema=averages)  # type: ignore[arg-type]
    assert len(from_published_names(raw, ema=False)) == 250


def test_a_model_fine_tuned_in_parts_has_averages_of_those_parts(published: dict[str, Tensor]) -> None:
    tuned = ("denoiser_ema.middle_block", "denoiser_ema.output_blocks")
    partial = {k: v for k, v in published.items() if not k.startswith("denoiser_ema.") or k.startswith(tuned)}
    with pytest.raises(ValueError, match=r"92 of 250 .* first denoiser\.time_embed\.0\.weight"):
        from_published_names(partial)
    mixed = from_published_names(partial, ema="partial")
    averaged, raw = from_published_names(published), from_published_names(published, ema=False)
    for name, value in mixed.items():
        source = averaged if name.startswith(("middle_block.", "output_blocks.")) else raw
        assert torch.equal(value, source[name])


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("denoiser.input_blocks.1.0.in_layers.0.weight", torch.zeros(1), "is not part of a published denois"),
        ("denoiser.middle_block.1.in_layers.2.weight", torch.zeros(1), "is not part of a published denoiser"),
        ("denoiser.input_blocks.3.0.weight", torch.zeros(1), "is not part of a published denoiser"),
        ("denoiser_ema.out9bias", torch.zeros(1), "denoiser_ema.out9bias is the average of no weight"),
        ("denoiser_ema.out2bias", torch.zeros(3), r"denoiser\.out\.2\.bias has the shape \(3,\)"),
    ],
)
def test_other_weights_are_refused(
    published: dict[str, Tensor], key: str, value: Tensor, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_published_names(published | {key: value})


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"No weights lie beneath 'denoiser\.'"):
        from_published_names({"net.b.conv.0.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        DenoiserConfig(width=8, multipliers=(2,), attention_levels=0, context_channels=(8,)),
        DenoiserConfig(
            width=6,
            multipliers=(1, 1, 3, 2),
            residual_blocks=1,
            attention_levels=4,
            context_channels=(2, 4, 6, 8),
            filter_blocks=2,
            truncate_modes="published",
        ),
    ],
)
def test_sizes_follow_from_the_weights(config: DenoiserConfig) -> None:
    with torch.device("meta"):
        state = Denoiser(config).state_dict()
    assert DenoiserConfig.from_weights(state, truncate_modes=config.truncate_modes) == config


def test_weights_of_something_else_are_refused() -> None:
    with torch.device("meta"):
        state = Denoiser(SMALL).state_dict()
    with pytest.raises(ValueError, match=r"input_blocks\.0\.weight is missing"):
        DenoiserConfig.from_weights({})
    del state["input_blocks.4.residual.conv1.weight"]
    with pytest.raises(
        ValueError, match="same number of residual blocks, at least 1; these weights have 2, 0"
    ):
        DenoiserConfig.from_weights(state)


def inputs(batch: int = 2, height: int = 4, width: int = 6) -> tuple[Tensor, Tensor, list[Tensor]]:
    torch.manual_seed(1)
    context = [torch.randn(batch, 4, height, width), torch.randn(batch, 8, height // 2, width // 2)]
    return torch.randn(batch, 3, height, width), torch.arange(batch) * 100, context


def awake(config: DenoiserConfig) -> Denoiser:
    """A denoiser whose zero-initialised layers are random."""
    torch.manual_seed(0)
    model = Denoiser(config)
    for weight in model.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    return model.eval()


def test_untrained_denoiser_predicts_zero() -> None:
    z, t, context = inputs()
    with torch.inference_mode():
        assert torch.equal(Denoiser(SMALL)(z, t, context), torch.zeros(2, 5, 4, 6))


def test_one_context_serves_a_batch_and_samples_do_not_mix() -> None:
    model = awake(SMALL)
    z, t, context = inputs(3)
    first = [level[:1] for level in context]
    with torch.inference_mode():
        shared = model(z, t, first)
        repeated = model(z, t, [level.repeat(3, 1, 1, 1) for level in first])
        alone = torch.cat([model(z[i : i + 1], t[i : i + 1], first) for i in range(3)])
        assert shared.shape == (3, 5, 4, 6)
        torch.testing.assert_close(shared, repeated)
        torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-4)
        # Each sample has its own context where there are several.
        assert not torch.allclose(model(z, t, context)[1:], shared[1:], atol=1e-3)


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2)])
@pytest.mark.parametrize("contexts", [1, 3])
def test_inference_on_a_cpu_agrees_with_one_batch(multipliers: tuple[int, ...], contexts: int) -> None:
    levels = len(multipliers)
    model = awake(
        DenoiserConfig(
            in_channels=3,
            out_channels=3,
            width=8,
            multipliers=multipliers,
            attention_levels=max(1, levels - 1),
            context_channels=(8,) * levels,
        )
    )
    z, t = torch.randn(3, 3, 4, 8), torch.tensor([10, 500, 900])
    context = [torch.randn(contexts, 8, 4 >> level, 8 >> level) for level in range(levels)]
    together = model(z, t, context)  # gradients are on, so samples stay together
    with torch.inference_mode():
        torch.testing.assert_close(model(z, t, context), together.detach(), atol=1e-5, rtol=1e-4)


def test_time_and_every_level_of_context_matter() -> None:
    model = awake(SMALL)
    z, t, context = inputs()
    with torch.inference_mode():
        usual = model(z, t, context)
        assert not torch.allclose(model(z, t + 50, context), usual, atol=1e-4)
        torch.testing.assert_close(model(z, t.double(), context), usual)
        for level in range(2):
            other = [*context]
            other[level] = other[level] + 1.0
            assert not torch.allclose(model(z, t, other), usual, atol=1e-4)


def test_every_weight_learns() -> None:
    model = awake(SMALL).train()
    model(*inputs()).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_autocast_keeps_the_result_near() -> None:
    model = awake(SMALL)
    z, t, context = inputs()
    with torch.inference_mode():
        expected = model(z, t, context)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = model(z, t, context)
    assert result.isfinite().all()
    assert distance(result.float(), expected) <= 0.05 * float(expected.abs().max())


@given(st.floats(0.0, 1000.0), st.integers(2, 33))
def test_time_embedding_is_the_formula(t: float, channels: int) -> None:
    half = channels // 2
    rates = [10_000 ** (-i / half) for i in range(half)]
    expected = [math.cos(t * r) for r in rates] + [math.sin(t * r) for r in rates] + [0.0] * (channels % 2)
    result = time_embedding(torch.tensor([t], dtype=torch.float64), channels)
    # float32 resolves an angle of 1000 to 6e-5.
    torch.testing.assert_close(result, torch.tensor([expected]), atol=2e-4, rtol=0.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"z": (2, 4, 4, 6)}, "takes latents of 3 channels; got 4"),
        ({"z": (2, 3, 5, 6)}, "multiples of 2; got 5 x 6"),
        ({"z": (3, 4, 6)}, r"latents of the shape \(N, 3, h, w\); got \(3, 4, 6\)"),
        ({"z": (1, 2, 3, 4, 6)}, r"latents of the shape \(N, 3, h, w\)"),
        ({"t": (1,)}, r"t must have the shape \(2,\); got \(1,\)"),
        ({"context": ((2, 4, 4, 6),)}, "takes 2 levels of context; got 1"),
        ({"context": ((2, 4, 4, 6), (2, 8, 4, 6))}, r"level 1 must have shape \(2 or 1, 8, 2, 3\)"),
        ({"context": ((3, 4, 4, 6), (3, 8, 2, 3))}, r"level 0 must have .* got \(3, 4, 4, 6\)"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], sentence: str) -> None:
    shapes = {"z": (2, 3, 4, 6), "t": (2,), "context": ((2, 4, 4, 6), (2, 8, 2, 3))} | change
    with pytest.raises(ValueError, match=sentence):
        Denoiser(SMALL)(
            torch.zeros(shapes["z"]), torch.zeros(shapes["t"]), [torch.zeros(s) for s in shapes["context"]]
        )


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"context_channels": (256,)}, "one number for each of the 3 levels; got 1"),
        ({"attention_levels": 1}, "must be 2 or 3 with 3 levels; got 1"),
        ({"width": 9}, "9 channels and 256 of context cannot be cut into 8"),
        ({"multipliers": ()}, "multipliers"),
        ({"residual_blocks": 0}, "residual_blocks"),
        ({"truncate_modes": "some"}, "truncate_modes"),
        ({"depth": 3}, "depth"),
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        DenoiserConfig(**wrong)
