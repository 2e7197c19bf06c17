"""A comparison of two ways to compute the same thing, and its measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """Two functions without arguments that return equal arrays.

    ``tolerance`` is how far the results may differ; ``required`` how many times faster ours has to be, None
    where the row only informs.
    """

    what: str
    reference_name: str
    ours: Callable[[], Any]
    reference: Callable[[], Any]
    tolerance: float
    required: float | None = None


@dataclass(frozen=True)
class Outcome:
    """``ratio`` is the reference's shortest time over ours, ``spread`` the range of that over rounds.

    ``memory`` is the peak of ours and of the reference [GiB], where each ran in a process of its own.
    """

    comparison: Comparison
    ratio: float
    spread: tuple[float, float]
    ours_seconds: float
    difference: float
    memory: tuple[float, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether results agree and the required ratio is reached."""
        required = self.comparison.required
        return self.difference <= self.comparison.tolerance and (required is None or self.ratio >= required)


def _best(function: Callable[[], Any], seconds: float) -> float:
    """Shortest processor time of repeated runs that together take about ``seconds`` of it [s]."""
    best, until = float("inf"), time.process_time() + seconds
    while best == float("inf") or time.process_time() < until:
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def measure(comparison: Comparison, *, rounds: int = 5, seconds: float = 0.1) -> Outcome:
    """Time both in turns, so that what else the machine does touches both alike.

    Processor time of all threads, not time on the clock: on a busy machine the clock goes on while a
    longer run waits for its turn, and the ratio would flatter the shorter one.
    """
    difference = float(np.abs(np.asarray(comparison.ours()) - np.asarray(comparison.reference())).max())
    pairs = [(_best(comparison.ours, seconds), _best(comparison.reference, seconds)) for _ in range(rounds)]
    ratios = [reference / ours for ours, reference in pairs]
    ours, reference = (min(times) for times in zip(*pairs, strict=True))
    return Outcome(comparison, reference / ours, (min(ratios), max(ratios)), ours, difference)
