"""The UNet against what the published classes computed with the same weights (tests/fixtures)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from core.models.unet import UNet, UNetConfig, from_published_names
from tests.reference_weights import reference_weights

TINY = UNetConfig(features=(4, 8, 16, 32))


@pytest.fixture(scope="module")
def inputs(fixtures: Path) -> dict[str, Tensor]:
    with np.load(fixtures / "ldm_tiny_2mT.io.npz") as file:
        names = ("low_res", "static", "high_res", "unet_out", "f64_unet_out")
        return {name: torch.from_numpy(file[name]) for name in names}


@pytest.fixture(scope="module")
def trained(fixtures: Path) -> dict[str, Tensor]:
    with np.load(fixtures / "train_tiny_2mT.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if name.startswith("unet")}


@pytest.fixture(scope="module")
def rounding(fixtures: Path) -> float:
    """How far float32 strays from float64 in the reference itself, as a part of the field's rms."""
    table = json.loads((fixtures / "ldm_tiny_2mT.io.f32_vs_f64.json").read_text())["unet_out"]
    return float(table["max_abs"] / table["rms"])


def unet(path: Path, prefix: str = "net.") -> UNet:
    model = UNet(TINY)
    model.load_state_dict(from_published_names(reference_weights(path), prefix), strict=True)
    return model


def error(result: Tensor, expected: Tensor) -> float:
    """Largest difference as a part of the expected rms."""
    return float((result - expected).abs().max() / expected.square().mean().sqrt())


def test_output_equals_the_published_one(fixtures: Path, inputs: dict[str, Tensor], rounding: float) -> None:
    model = unet(fixtures / "ldm_tiny_2mT.weight_rules.json", "autoencoder.unet_regr.net.").eval()
    with torch.inference_mode():
        result = model(inputs["low_res"], inputs["static"])
        exact = model.double()(inputs["low_res"].double(), inputs["static"].double())
    assert error(result, inputs["unet_out"]) <= 2 * rounding
    # Stored in float32.
    assert error(exact, inputs["f64_unet_out"]) <= 1e-6


def test_evaluation_equals_the_published_one(
    fixtures: Path, inputs: dict[str, Tensor], trained: dict[str, Tensor], rounding: float
) -> None:
    model = unet(fixtures / "unet_tiny.weight_rules.json").eval()
    with torch.inference_mode():
        result = model(inputs["low_res"], inputs["static"])
    assert error(result, trained["unet_eval/out"]) <= 2 * rounding


def test_training_step_equals_the_published_one(
    fixtures: Path, inputs: dict[str, Tensor], trained: dict[str, Tensor], rounding: float
) -> None:
    """Output with batch statistics, loss, gradients, and the running statistics afterwards."""
    model = unet(fixtures / "unet_tiny.weight_rules.json").train()
    out = model(inputs["low_res"], inputs["static"])
    loss = nn.functional.mse_loss(out, inputs["high_res"])
    loss.backward()
    recorded = json.loads((fixtures / "train_tiny_2mT.json").read_text())["unet_train_mse"]
    assert float(loss.detach()) == pytest.approx(recorded, rel=1e-6)

    def recorded_under(kind: str) -> dict[str, Tensor]:
        named = {k.removeprefix(kind + "/"): v for k, v in trained.items() if k.startswith(kind + "/")}
        return from_published_names(named)

    state, parameters = model.state_dict(), dict(model.named_parameters())
    pairs = [(out.detach(), trained["unet_train/out"])]
    pairs += [(state[name], value) for name, value in recorded_under("unet_train_after").items()]
    for name, value in recorded_under("unet_train_grad").items():
        gradient = parameters[name].grad
        assert gradient is not None
        pairs.append((gradient, value))
    assert len(pairs) == 8
    for result, expected in pairs:
        # Batch statistics and gradients amplify rounding: in float64 the recorded gradient of the first
        # layer is off by 3 times the rounding of the evaluation.
        assert error(result, expected) <= 4 * rounding


@pytest.mark.parametrize(("targets", "name"), [(1, "UNET_2mT"), (2, "UNET_UV")])
def test_published_size_and_names(fixtures: Path, targets: int, name: str) -> None:
    with torch.device("meta"):
        model = UNet(UNetConfig(out_channels=targets))
    counts = json.loads((fixtures / "param_counts.json").read_text())
    assert sum(p.numel() for p in model.parameters()) == counts[name]
    keys: dict[str, Any] = json.loads((fixtures / f"{name}.keys.json").read_text())
    published = {
        key: torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]), device="meta")
        for key, value in keys.items()
    }
    renamed = {key: (value.shape, value.dtype) for key, value in from_published_names(published).items()}
    assert renamed == {key: (value.shape, value.dtype) for key, value in model.state_dict().items()}


def test_default_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet().parameters()) == 31_054_337


@pytest.mark.parametrize("ratio", [2, 3, 8])
def test_coarse_fields_are_repeated(ratio: int) -> None:
    """A UNet fed with the block-repeated field at ratio 1 gives the same as with the field itself."""
    torch.manual_seed(0)
    model = UNet(UNetConfig(in_channels=5, features=(4,))).eval()
    coarse, static = torch.randn(2, 3, 4, 6), torch.randn(1, 2, 4 * ratio, 6 * ratio)
    with torch.inference_mode():
        repeated = torch.from_numpy(np.kron(coarse.numpy(), np.ones((ratio, ratio), np.float32)))
        torch.testing.assert_close(model(coarse, static), model(repeated, static))


def test_one_static_field_serves_a_batch() -> None:
    torch.manual_seed(0)
    model = UNet(UNetConfig(in_channels=5, out_channels=2, features=(4, 4))).eval()
    coarse, static = torch.randn(3, 3, 2, 4), torch.randn(1, 2, 8, 16)
    with torch.inference_mode():
        result = model(coarse, static)
        assert result.shape == (3, 2, 8, 16)
        torch.testing.assert_close(result, model(coarse, static.repeat(3, 1, 1, 1)))


@pytest.mark.parametrize(
    ("coarse", "static", "sentence"),
    [
        ((1, 3, 3, 2), (1, 2, 24, 16), "multiples of 16; got 24 x 16"),
        ((1, 3, 5, 2), (1, 2, 32, 16), "do not divide"),
        ((1, 4, 4, 2), (1, 2, 32, 16), "takes 5 channels; got 4 coarse and 2 static"),
    ],
)
def test_what_does_not_fit_is_refused(
    coarse: tuple[int, ...], static: tuple[int, ...], sentence: str
) -> None:
    model = UNet(UNetConfig(in_channels=5, features=(2, 2, 2, 2)))
    with pytest.raises(ValueError, match=sentence):
        model(torch.zeros(coarse), torch.zeros(static))


def test_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"net\.f1\.conv\.weight is not part"):
        from_published_names({"net.f1.conv.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"No weights lie beneath 'net\.'"):
        from_published_names({"disc.main.0.weight": torch.zeros(1)})


@pytest.mark.parametrize("wrong", [{"features": ()}, {"features": (0,)}, {"width": 3}, {"in_channels": 0}])
def test_impossible_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        UNetConfig(**wrong)
