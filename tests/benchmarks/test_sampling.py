"""Both ways of sampling, with a tiny model on a tiny domain."""

import contextlib
from collections import Counter

import numpy as np
import pytest

from benchmarks import random_model, sampling
from benchmarks.sampling import CASES, Case, Measurement, run_case, take_time
from core.diffusion.ema import EMA
from core.domain import Domain
from core.models.conditioner import Conditioner
from tests.small_models import small_latent_diffusion

DOMAIN = Domain.regular("Tiny", left=4_000_000.0, top=2_500_000.0, shape=(64, 32), spacing=2000.0, ratio=8)
TINY = small_latent_diffusion(multipliers=(1, 2, 4))
STEPS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    random_model.write(path, DOMAIN, TINY)
    return path


def run(name, model):
    return run_case(CASES[name], STEPS, "cpu", model, DOMAIN)


def test_both_ways_make_the_same_field(model):
    reference, ours = run("published", model), run("equal", model)
    assert reference.field.shape == ours.field.shape == (1, 64, 32)
    assert np.std(ours.field) > 0.1
    np.testing.assert_allclose(ours.field, reference.field, rtol=0, atol=1e-3)
    assert len(reference.steps) == len(ours.steps) == STEPS


def test_batched_members_are_those_made_alone(model):
    together, apart = run("together", model), run("apart", model)
    assert together.field.shape == (sampling.MEMBERS, 64, 32)
    np.testing.assert_allclose(together.field, apart.field, rtol=0, atol=1e-3)
    assert (len(together.steps), len(apart.steps)) == (STEPS, STEPS * sampling.MEMBERS)


def test_the_reference_exchanges_weights_and_conditions_in_every_step(model, monkeypatch):
    calls = Counter()
    encode, applied = Conditioner.encode_static, EMA.applied
    monkeypatch.setattr(Conditioner, "encode_static", lambda *a: calls.update(["conditioned"]) or encode(*a))
    monkeypatch.setattr(EMA, "applied", lambda *a: calls.update(["exchanged"]) or applied(*a))
    run("published", model)
    assert calls == {"conditioned": STEPS, "exchanged": STEPS}
    run("equal", model)
    assert calls == {"conditioned": STEPS + 1, "exchanged": STEPS}


def test_a_missing_exchange_would_show(model, monkeypatch):
    right = run("equal", model)
    monkeypatch.setattr(EMA, "applied", lambda self, module: contextlib.nullcontext(module))
    assert np.abs(run("published", model).field - right.field).max() > 0.01


def test_time_goes_to_steps_or_to_the_rest():
    def marks():
        yield False
        yield from (False, True, True, False)
        return np.zeros(1)

    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    steps, rest, field = take_time(marks(), lambda: next(clock))
    assert (steps, rest) == ([2.0, 3.0], 1.0 + 4.0 + 5.0)
    assert field == 0


def test_scaling_leaves_out_the_first_step():
    measured = Measurement(steps=[9.0, 2.0], rest=5.0, memory=1.0, field=np.zeros(1))
    assert measured.seconds() == 5.0 + 9.0 + 2.0
    assert measured.seconds(50) == 5.0 + 100 * 2.0


def found(seconds, memory):
    return {
        name: Measurement([each] * 2 * (case.members // case.batch), 0.0, memory, np.zeros(1))
        for (name, case), each in zip(CASES.items(), seconds, strict=True)
    }


def test_rows_of_a_scaled_run(monkeypatch):
    rows = sampling._rows("cpu", found([4.0, 2.0, 2.0, 8.0, 2.2], 2.0), True)
    assert [row.ratio for row in rows] == pytest.approx([2.0, 400.0 / 30.0, 1.1])
    assert [row.passed for row in rows] == [True, True, True]
    assert all("scaled up from 2 steps" in row.comparison.what for row in rows)
    assert rows[0].memory == (2.0, 2.0)
    slow = sampling._rows("cpu", found([2.0, 2.0, 2.0, 8.0, 2.0], 2.0), True)
    assert [row.passed for row in slow] == [False, False, False]


def test_rows_of_a_full_run_say_nothing_of_scaling():
    measured = {name: Measurement([1.0], 0.0, 1.0, np.zeros(1)) for name in CASES}
    assert not any("scaled" in row.comparison.what for row in sampling._rows("cpu", measured, False))


def test_cases_are_those_of_the_requirement():
    assert CASES["published"] == Case("ddim", 100, published=True)
    assert CASES["few"] == Case("dpmpp_2m", 15)
