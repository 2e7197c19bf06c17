"""The hours in which two fields differ most, found by looking at many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from core.domain import Domain
from core.metrics.deterministic import METRICS
from core.regions import Window
from explorer.cut import cut, grid_of
from explorer.display import spread
from explorer.hours import Hours, far_apart
from explorer.quantities import FloatField

CHAPTERS = 8
"""Hours that a story has at most."""
TELL_EVERY = 1.0
"""Seconds between two reports, at least."""


@dataclass(frozen=True)
class Chapter:
    """An hour, the RMS difference of the two fields over the region in units of differences, and both fields
    (h, w) or (H, W) in display units."""

    hour: np.datetime64
    difference: float
    left: FloatField
    right: FloatField


@dataclass(frozen=True)
class Story:
    """The hours that differ most so far, the first most; no two within a day.

    Attributes
    ----------
    looked, total : hours looked at, and to look at
    missing : hours in which one of the fields is not there (members that were not sampled)
    median : of the differences of all hours looked at
    """

    chapters: tuple[Chapter, ...]
    looked: int
    total: int
    missing: int
    median: float

    @property
    def complete(self) -> bool:
        """Whether all hours were looked at."""
        return self.looked == self.total


def rms_difference(left: FloatField, right: FloatField, window: Window, domain: Domain) -> float:
    """Root-mean-square difference over the region, on the finer of both grids; NaN where nothing is there."""
    shape = tuple(np.maximum(left.shape, right.shape))
    pair = [spread(field, shape) for field in (left, right)]
    grid = grid_of(domain, pair[0])
    return float(METRICS["rmse"](*(cut(field, grid, window) for field in pair)))


def find_story(
    hours: Hours,
    fields: Callable[[np.datetime64], tuple[FloatField, FloatField] | None],
    window: Window,
    domain: Domain,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Story | None]:
    """Look at ``hours`` one after the other; gives a story now and then, and None in between.

    ``fields`` gives both fields of an hour in display units, None where one is missing. Of the hours that are
    ahead the fields are kept, of others they are forgotten.
    """
    differences = np.full(hours.size, np.nan)
    kept: dict[int, tuple[FloatField, FloatField]] = {}
    missing, told = 0, -np.inf
    for position, hour in enumerate(hours):
        pair = fields(hour)
        if pair is None:
            missing += 1
        else:
            differences[position] = rms_difference(*pair, window, domain)
            kept[position] = pair
        ahead = far_apart(differences, hours, CHAPTERS)
        # An hour may lead again when one near it is beaten by a third; its fields are then looked up again.
        kept = {place: kept[place] for place in ahead if place in kept}
        last = position == hours.size - 1
        if clock() - told < TELL_EVERY and not last:
            yield None
            continue
        told = clock()
        chapters = []
        for place in ahead:
            both = kept.get(place) or fields(hours[place])
            if both is not None:
                kept[place] = both
                chapters.append(Chapter(hours[place], float(differences[place]), *both))
        seen = differences[np.isfinite(differences)]
        median = float(np.median(seen)) if seen.size else float("nan")
        yield Story(tuple(chapters), position + 1, hours.size, missing, median)
