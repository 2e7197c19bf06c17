"""The moving average against the published one (tests/fixtures) and against its definition."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.diffusion.ema import EMA
from tests.reference_weights import uniform


def filled(key: str, shape: tuple[int, ...], scale: float, seed: int) -> Tensor:
    numbers = scale * uniform(key, seed, int(np.prod(shape)))
    return torch.from_numpy(numbers.astype(np.float32).reshape(shape))


def test_equals_the_published_average(fixtures: Path) -> None:
    """Two parameters of the published denoiser, moved three times as the fixture's note says."""
    rules = json.loads((fixtures / "ldm_tiny_2mT.weight_rules.json").read_text())
    expected = json.loads((fixtures / "train_tiny_2mT.json").read_text())["ema"]
    names = {"out2weight": "out.2.weight", "time_embed0bias": "time_embed.0.bias"}
    module = nn.Module()
    for short, name in names.items():
        rule = rules["rules"][f"denoiser.{name}"]
        start = rule["offset"] + filled(name, tuple(rule["shape"]), rule["scale"], rules["seed"] + 3)
        module.register_parameter(short, nn.Parameter(start))
    ema = EMA(module)
    for number, row in enumerate(expected):
        for short, name in names.items():
            parameter = module.get_parameter(short)
            with torch.no_grad():
                parameter += filled(f"delta{number}.{name}", tuple(parameter.shape), 0.01, rules["seed"])
        ema.update(module)
        assert ema.updates == row["num_updates"]
        assert ema.decay == pytest.approx(row["decay"], rel=1e-12)
    with np.load(fixtures / "train_tiny_2mT.npz") as file:
        for short in names:
            recorded = file[f"ema/{short}_after3"]
            np.testing.assert_allclose(ema.weights()[short].numpy(), recorded, rtol=0, atol=2e-8)
            # The test would not notice a missing update otherwise.
            assert np.abs(module.get_parameter(short).detach().numpy() - recorded).max() > 1e-3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[2].bias.requires_grad_(False)
    return model


def moved(model: nn.Module, step: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += step


def test_decay_rises_to_its_maximum() -> None:
    model = network()
    ema = EMA(model, decay=0.5)
    decays = []
    for _ in range(12):
        ema.update(model)
        decays.append(ema.decay)
    assert decays[:3] == [2 / 11, 3 / 12, 4 / 13]
    assert decays[6] < decays[7] == decays[-1] == 0.5
    ema = EMA(model)
    ema.updates = 10**6
    assert ema.decay == 0.9999


def test_only_trained_parameters_are_averaged_and_written() -> None:
    model = network()
    ema = EMA(model)
    assert ema.weights().keys() == {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight"}
    first = model[0].bias.detach().clone()
    moved(model, 1.0)
    ema.update(model)
    expected = first + 9 / 11
    torch.testing.assert_close(ema.weights()["0.bias"], expected)
    frozen = model[2].bias.clone()
    ema.copy_to(model)
    torch.testing.assert_close(model[0].bias.detach(), expected)
    assert torch.equal(model[2].bias, frozen)


def test_it_is_applied_for_a_while_even_when_that_fails() -> None:
    model = network()
    ema = EMA(model)
    moved(model, 1.0)
    own = copy.deepcopy(model.state_dict())

    def evaluate() -> None:
        with ema.applied(model) as averaged:
            assert averaged is model
            assert torch.equal(model[0].bias, ema.weights()["0.bias"])
            assert not torch.equal(model[0].bias, own["0.bias"])
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        evaluate()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_it_goes_on_from_where_it_was() -> None:
    model = network()
    ema = EMA(model, decay=0.9)
    moved(model, 0.5)
    ema.update(model)
    resumed = EMA(network())
    resumed.load_state_dict(copy.deepcopy(ema.state_dict()))
    for average in (ema, resumed):
        average.update(model)
    assert (resumed.updates, resumed.decay) == (ema.updates, ema.decay) == (2, 0.25)
    assert all(torch.equal(ema.weights()[name], tensor) for name, tensor in resumed.weights().items())


def test_the_average_needs_no_gradient_and_does_not_follow_the_module() -> None:
    model = network()
    ema = EMA(model)
    before = {name: tensor.clone() for name, tensor in ema.weights().items()}
    moved(model, 1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ema.weights().items())
    ema.update(model)
    assert not any(tensor.requires_grad for tensor in ema.weights().values())


def test_it_follows_the_type_of_the_module() -> None:
    model = network()
    ema = EMA(model)
    ema.update(model.double())
    assert ema.weights()["0.bias"].dtype == torch.float64


def test_other_modules_are_refused() -> None:
    ema = EMA(network())
    with pytest.raises(ValueError, match=r"unknown: 2\.bias; 0\.weight has the shape \(5, 3\) instead of"):
        ema.update(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)))
    with pytest.raises(ValueError, match=r"other parameters; unknown: 2\.bias\.$"):
        ema.copy_to(network().requires_grad_(True))
    with pytest.raises(ValueError, match=r"between 0 and 1; got 1\.5"):
        EMA(network(), decay=1.5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("average"), r"^The state of a moving average lacks average\.$"),
        (lambda s: (s.pop("decay"), s.pop("updates")), "lacks decay, updates"),
        (lambda s: s.update(decay=2.0), r"between 0 and 1; got 2\.0"),
        (lambda s: s["average"].pop("1.bias"), r"other parameters; missing: 1\.bias\.$"),
        (lambda s: s["average"].clear(), r"missing: 0\.bias, 0\.weight, 1\.bias, 1\.weight, 2\.weight\.$"),
        (
            lambda s: s["average"].update({f"x{i}": torch.zeros(1) for i in range(7)}),
            r"unknown: x0, x1, x2, x3, x4 and 2 more\.$",
        ),
        (
            lambda s: s["average"].update({"0.bias": torch.zeros(4, 1)}),
            r"other parameters; 0\.bias has the shape \(4, 1\) instead of \(4,\)\.$",
        ),
        (
            lambda s: s["average"].update({"2.heavy": s["average"].pop("2.weight")}),
            r"missing: 2\.weight; unknown: 2\.heavy\.$",
        ),
    ],
)
def test_other_states_are_refused_whole(change: Any, sentence: str) -> None:
    model = network()
    source = EMA(model, decay=0.9)
    moved(model, 1.0)
    source.update(model)
    state = source.state_dict()
    change(state)
    ema = EMA(network())
    before = {name: tensor.clone() for name, tensor in ema.weights().items()}
    with pytest.raises(ValueError, match=sentence):
        ema.load_state_dict(state)
    assert (ema.updates, ema.maximum) == (0, 0.9999)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ema.weights().items())
