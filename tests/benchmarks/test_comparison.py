"""The measuring code on computations that take no time."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import comparison
from benchmarks.comparison import Comparison, Outcome, measure


def compare(ours=lambda: [1.0, 2.0], reference=lambda: [1.0, 2.5], **options):
    return Comparison("sum", "loop", ours, reference, **{"tolerance": 0.1, "required": 2.0} | options)


def outcome(ratio=3.0, difference=0.0, **options):
    return Outcome(compare(**options), ratio, (ratio, ratio), 0.01, difference)


def test_difference_is_the_largest():
    assert measure(compare(), rounds=1, seconds=0.0).difference == 0.5


def test_ratio_is_of_the_shortest_times(monkeypatch):
    times = iter([3.0, 8.0, 2.0, 10.0])
    monkeypatch.setattr(comparison, "_best", lambda function, seconds: next(times))
    result = measure(compare(), rounds=2)
    assert result.ratio == 8.0 / 2.0
    assert result.spread == (8.0 / 3.0, 10.0 / 2.0)
    assert result.ours_seconds == 2.0


def test_best_is_the_shortest_run(monkeypatch):
    # Processor time after start, before and after the first run, at the check, and so on.
    clock = iter([0.0, 0.0, 5.0, 5.0, 5.0, 7.0, 12.0])
    monkeypatch.setattr(comparison.time, "process_time", lambda: next(clock))
    runs = itertools.count()
    assert comparison._best(lambda: next(runs), seconds=10.0) == 2.0
    assert next(runs) == 2


@pytest.mark.parametrize(
    ("result", "passed"),
    [
        (outcome(), True),
        (outcome(ratio=1.9), False),
        (outcome(ratio=1.9, required=None), True),
        (outcome(difference=0.2), False),
        (outcome(difference=np.nan), False),
    ],
)
def test_what_passes(result, passed):
    assert result.passed is passed


@pytest.mark.parametrize(("results", "status"), [([outcome()], 0), ([outcome(), outcome(ratio=1.0)], 1)])
def test_table_and_exit_status(monkeypatch, capsys, results, status):
    monkeypatch.setattr(command, "_group", lambda name, quick: results)
    assert command.main(["flux"]) == status
    machine, *table = capsys.readouterr().out.splitlines()
    assert "cores" in machine
    assert len(table) == 2 + len(results)
    assert len({len(line) for line in table}) == 1
    assert "3.00 (3.00-3.00)" in table[2]
    assert "10 ms" in table[2]


def test_groups_and_options_reach_the_measurement(monkeypatch):
    asked = []
    monkeypatch.setattr(command, "_group", lambda name, quick: asked.append((name, quick)) or [outcome()])
    command.main(["--quick", "networks", "sampling"])
    assert asked == [("networks", True), ("sampling", True)]


def test_unknown_group_is_refused(capsys):
    assert command.main(["flux", "clouds"]) == 2
    assert "no group clouds" in capsys.readouterr().out


def test_a_missing_package_is_named_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert command.main(["spectra"]) == 2
    assert "pysteps" in capsys.readouterr().out


def test_peak_memory_counts_what_was_taken_and_given_back():
    program = """
import numpy
from benchmarks.peak_memory import peak_memory
before = peak_memory()
numpy.ones(2**25)
print(peak_memory() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(0.25, abs=0.05)
