"""What the sampling benchmark makes of measurements; on a tiny network, that both ways make one field."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import random_model, sampling
from benchmarks.sampling import CASES, Case, Measurement, run_case, take_time
from tests.core.downscale.conftest import small_latent_diffusion
from tests.synthetic_store import DOMAIN


def test_time_between_marks_goes_to_steps_or_the_rest():
    times = iter([0.0, 2.0, 5.0, 9.0, 14.0])

    def marks():
        yield False  # loaded: the clock starts
        yield False
        yield True
        yield True
        return np.ones(1)

    steps, rest, field = take_time(marks(), lambda: next(times))
    assert (steps, rest, field.tolist()) == ([3.0, 4.0], 2.0 + 5.0, [1.0])


def test_a_longer_run_is_scaled_from_the_later_steps():
    measured = Measurement(steps=[9.0, 3.0], rest=5.0, memory=1.0, field=np.zeros(1))
    assert measured.seconds() == 5 + 9 + 3
    assert measured.seconds(longer=50) == 5 + 3 * 100
    assert Measurement([1.0, 3.0], 0.0, 1.0, np.zeros(1)).seconds(per_step=np.max) == 6


@pytest.mark.parametrize("quick", [True, False])
def test_ratios_of_whole_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quick: bool):
    asked = {}

    def measured(name: str, count: int, device: str, path: Path) -> Measurement:
        """3 s a step the published way, 1 s ours; four members together take three times as long as one."""
        asked[name] = count
        each = {"published": 3.0, "together": 3.0, "apart": 1.0}.get(name, 1.0)
        fields = np.full((1, 2), float(name == "few"))
        return Measurement([each] * count * (4 if name == "apart" else 1), 0.0, 1.0, fields)

    monkeypatch.setattr(sampling, "_in_own_process", measured)
    monkeypatch.setattr(random_model, "write", lambda *_: None)
    monkeypatch.setattr(sampling.torch.cuda, "is_available", lambda: False)
    same_steps, few, members = sampling.outcomes(quick=quick)
    assert asked == {name: 2 if quick else case.steps for name, case in CASES.items()}
    assert same_steps.ratio == pytest.approx(3)
    assert few.ratio == pytest.approx(3 * 100 / 15)
    assert members.ratio == pytest.approx(4 / 3)
    assert all(outcome.passed for outcome in (same_steps, few, members))
    assert ("scaled up from 2 steps" in same_steps.comparison.what) is quick


def test_fields_that_differ_do_not_pass(monkeypatch: pytest.MonkeyPatch):
    def measured(name: str, *_: object) -> Measurement:
        return Measurement([1.0, 1.0], 0.0, 1.0, np.full((1, 2), float(name == "published")))

    monkeypatch.setattr(sampling, "_in_own_process", measured)
    monkeypatch.setattr(random_model, "write", lambda *_: None)
    same_steps, *_ = sampling.outcomes(quick=True)
    assert same_steps.difference == 1
    assert not same_steps.passed


def test_both_ways_make_the_same_field(tmp_path: Path):
    """The published way must run with the averages and leave nothing behind from one step to the next."""
    path = tmp_path / "model.safetensors"
    random_model.write(path, DOMAIN, small_latent_diffusion())
    ours, published = (
        run_case(Case("ddim", 4, published=way), 4, "cpu", path, DOMAIN) for way in (False, True)
    )
    assert ours.field.shape == published.field.shape == (1, 64, 64)
    assert ours.field.std() > 0.1
    np.testing.assert_allclose(ours.field, published.field, atol=2e-3)
    assert len(ours.steps) == len(published.steps)
    assert ours.memory > 0


def test_members_at_once_are_those_made_one_by_one(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    random_model.write(path, DOMAIN, small_latent_diffusion())
    together, apart = (
        run_case(Case("dpmpp_2m", 3, 2, batch), 3, "cpu", path, DOMAIN).field for batch in (2, 1)
    )
    assert together.shape == (2, 64, 64)
    np.testing.assert_allclose(together, apart, atol=2e-3)


def test_a_process_of_its_own_returns_what_it_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    np.save(tmp_path / "field.npy", np.ones((1, 2)))
    text = json.dumps({"steps": [1.0], "rest": 2.0, "memory": 3.0})
    monkeypatch.setattr(
        sampling.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": f"noise\n{text}\n"})()
    )
    found = sampling._in_own_process("few", 1, "cpu", tmp_path / "model.safetensors")
    assert (found.steps, found.rest, found.memory, found.field.tolist()) == ([1.0], 2.0, 3.0, [[1.0, 1.0]])


def test_unknown_groups_are_named(capsys: pytest.CaptureFixture[str]):
    assert command.main(["sampling", "cheese"]) == 2
    assert "no group cheese" in capsys.readouterr().out
