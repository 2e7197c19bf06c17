"""Which hours: those of a part of the split, some of many, those of a day."""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from core.data.splits import blocked_split

Hours = NDArray[np.datetime64]

PARTS = ("all", "train", "validation", "test")
"""Parts of the split by weeks, see :func:`core.data.splits.blocked_split`."""

MOST = (12, 24, 48, 96, 240)
"""How many hours a long computation may take at most; 0 means all."""


def in_part(hours: Hours, part: str) -> NDArray[np.bool_]:
    """Which hours belong to a part of the split, (N,) bool; "all" has every hour."""
    if part == "all" or not hours.size:
        return np.ones(hours.size, bool)
    return np.isin(hours, getattr(blocked_split(hours), part))


def every_nth(count: int, most: int) -> int:
    """The n for which every n-th of ``count`` hours are at most ``most``; 1 where ``most`` is 0.

    n has at most the factor 3 in common with 24, so that hours of many times of day are met and not always
    noon.
    """
    if most < 1 or count <= most:
        return 1
    n = ceil(count / most)
    while gcd(n, 24) > 3:
        n += 1
    return n


def thinned(hours: Hours, most: int) -> Hours:
    """Every n-th hour as :func:`every_nth` says, from the first one on."""
    return hours[:: every_nth(hours.size, most)]


def of_day(hours: Hours, hour: np.datetime64, every: int) -> Hours:
    """Hours of the day (UTC) of ``hour`` whose time is a multiple of ``every`` hours."""
    day = hours.astype("datetime64[D]") == hour.astype("datetime64[D]")
    times = (hours.astype("datetime64[h]") - hours.astype("datetime64[D]")).astype(int)
    return hours[day & (times % every == 0)]


def spread_out(hours: Hours, count: int) -> Hours:
    """At most ``count`` hours from the first to the last, evenly by their number."""
    if hours.size <= count:
        return hours
    return hours[np.unique(np.linspace(0, hours.size - 1, count).round().astype(int))]


def far_apart(values: NDArray[np.floating], hours: Hours, count: int, apart: int = 24) -> list[int]:
    """Positions of the ``count`` largest values, the largest first, no two of them within ``apart`` hours.

    ``values`` (N,) belong to ``hours`` (N,); NaN is left out.
    """
    chosen: list[int] = []
    for position in np.argsort(-values, kind="stable").tolist():
        if len(chosen) == count or not np.isfinite(values[position]):
            break
        distance = np.abs(hours[chosen] - hours[position])
        if (distance >= np.timedelta64(apart, "h")).all():
            chosen.append(position)
    return chosen
