"""What the sampling benchmark makes of measurements, without measuring anything."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import sampling
from benchmarks.sampling import CASES, Measurement


def measured(name: str, count: int, total: int) -> Measurement:
    """The published way takes 3 s a step, ours 1 s and 2 s once; states equal but for ``few``."""
    once, step = {"published": (0, 3), "together": (0, 3), "apart": (0, 4)}.get(name, (2, 1))
    seconds = once + step * total
    state = np.full((1, 2), float(name == "few"))
    return Measurement(seconds, (0.9 * seconds, 1.1 * seconds), 2**30, state)


@pytest.mark.parametrize("quick", [True, False])
def test_ratios_of_whole_runs(monkeypatch: pytest.MonkeyPatch, quick: bool):
    asked = {}

    def record(name: str, count: int, total: int) -> Measurement:
        asked[name] = (count, total)
        return measured(name, count, total)

    monkeypatch.setattr(sampling, "measure_case", record)
    same_steps, few, members = sampling.outcomes(quick=quick)
    assert set(asked) == set(CASES)
    assert asked["published"] == ((2, 100) if quick else (100, 100))
    assert same_steps.ratio == pytest.approx(300 / 102)
    assert few.ratio == pytest.approx(300 / 17)
    assert members.ratio == pytest.approx(4 / 3)
    assert all(outcome.passed for outcome in (same_steps, few, members))
    assert ("scaled from 2 steps" in same_steps.comparison.what) is quick
    low, high = same_steps.spread
    assert low < same_steps.ratio < high


def test_a_case_is_scaled_from_its_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    state = tmp_path / "state.npy"
    np.save(state, np.ones((1, 2)))
    text = f'{{"once": 5.0, "steps": [1.0, 3.0], "memory": 7, "state": "{state}"}}'
    monkeypatch.setattr(
        sampling.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": f"noise\n{text}\n"})()
    )
    found = sampling.measure_case("ours", 2, 100)
    assert (found.seconds, found.spread, found.memory) == (205, (105, 305), 7)
    assert not state.exists()


def test_both_ways_denoise_alike():
    """The exchange of weights leaves the network as it was."""
    import torch

    from core.models.latent_diffusion import LatentDiffusion
    from tests.core.downscale.conftest import liven, small_latent_diffusion

    model = LatentDiffusion(small_latent_diffusion()).eval().requires_grad_(False)
    liven(model)
    case = sampling.Case(model, torch.randn(1, 14, 8, 8), torch.randn(1, 18, 64, 64))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    z, t = torch.randn(1, 4, 8, 8), torch.tensor([300.0])
    torch.testing.assert_close(case.published()(z, t), case.ours()(z, t))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_unknown_groups_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["benchmarks", "sampling", "cheese"])
    assert command.main() == 2
    assert "no group cheese" in capsys.readouterr().out
