"""Print the table of ratios; the exit status is 1 where a required ratio is missed or results differ.

``python -m benchmarks`` measures all, ``python -m benchmarks interpolation`` one group. Sampling at published
width takes some twenty minutes on two cores; with ``--quick`` two steps of it are measured and scaled up,
which the table says, memory is measured for that group only, and all ends in three minutes.

Times are processor times of all threads, on a GPU times on the clock; memory is that of a process that does
nothing else, with its libraries and weights, on a GPU what PyTorch takes there.
"""

from __future__ import annotations

import importlib
import math
import os
import platform
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks import peak_memory, sampling
from benchmarks.comparison import Outcome, measure

SAMPLING = "sampling"
GROUPS = ("flux", "ingest", "interpolation", "networks", "published", "spectra", SAMPLING)
HEAD = (
    "what",
    "reference",
    "times faster (range)",
    "required",
    "time of ours",
    "peak GiB, ours / reference",
    "largest difference",
    "holds",
)


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _line(outcome: Outcome) -> tuple[str, ...]:
    comparison = outcome.comparison
    return (
        comparison.what,
        comparison.reference_name,
        f"{outcome.ratio:.2f} ({outcome.spread[0]:.2f}-{outcome.spread[1]:.2f})",
        f"{comparison.required:g}" if comparison.required is not None else "-",
        _time(outcome.ours_seconds),
        "-" if outcome.memory is None else "{:.2f} / {:.2f}".format(*outcome.memory),
        f"{outcome.difference:.1e} (at most {comparison.tolerance:g})"
        if math.isfinite(comparison.tolerance)
        else "not comparable",
        "yes" if outcome.passed else "NO",
    )


def _group(name: str, quick: bool) -> list[Outcome]:
    if name == SAMPLING:
        return sampling.outcomes(quick=quick)
    outcomes = [measure(row) for row in importlib.import_module(f"benchmarks.{name}").comparisons()]
    if quick:
        return outcomes
    return [
        replace(outcome, memory=peak_memory.in_own_processes(name, index))
        for index, outcome in enumerate(outcomes)
    ]


def machine() -> str:
    """What the numbers belong to: processor, cores, GPU, PyTorch."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    parts = [models[0] if models else platform.processor() or platform.machine(), f"{os.cpu_count()} cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"PyTorch {torch.__version__}"])


def main(words: list[str]) -> int:
    """Measure every comparison of the groups named on the command line (all by default), one row each."""
    quick = "--quick" in words
    names = [word for word in words if word != "--quick"] or list(GROUPS)
    if strangers := set(names) - set(GROUPS):
        print(f"There is no group {', '.join(sorted(strangers))}; choose from {', '.join(GROUPS)}.")
        return 2
    if "spectra" in names and find_spec("pysteps") is None:
        print("The group spectra needs pysteps: pip install -e '.[benchmarks]', or name other groups.")
        return 2
    outcomes = [outcome for name in names for outcome in _group(name, quick)]
    rows = [HEAD, *map(_line, outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    print(machine())
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
