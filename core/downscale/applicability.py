"""Whether inputs lie outside what a checkpoint was trained on.

A network gives a field whatever it is fed. What it makes of values that it never saw in training is a guess, and
this says so: of each variable, in which share of the cells it lies outside the range of the training data
(:mod:`core.data.ranges`), and how far, in standard deviations of the training data.

What counts as unusual (:data:`MOST_OUTSIDE`, :data:`MOST_DISTANCE`) was chosen so that no hour of the weeks that
the shipped models were not trained on is; docs/applicability.md has the measurement. Every variable is looked at by
itself: a warm hour in January may pass for one in May. So silence is no promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.checkpoint import Header
from core.data.ranges import RANGED_STATICS, VariableRange
from core.data.samples import MeanStd
from core.data.store import Store
from core.plural import counted
from core.variables import VARIABLES

MOST_OUTSIDE = 0.05
"""Share of the cells that may lie outside the range; in training 0.002 of all values do."""

MOST_DISTANCE = 3.0
"""Standard deviations that the most distant cell may lie outside the range."""

SIGMAS = 5.0
"""Half the range, in standard deviations about the mean, where a checkpoint records no range. By Chebyshev's
inequality at most 4 % of the training values lay outside, however skewed."""

MOST_HOURS = 240
"""Hours that are looked at, spread evenly over those of a longer run."""

TOGETHER = 24
"""Hours that are read at once: those of a shard."""

Hours = NDArray[np.datetime64]


@dataclass(frozen=True)
class VariableCheck:
    """How one variable compares with the training data.

    Attributes
    ----------
    name : short name
    outside : share of the cells outside the range, 0 to 1
    distance : how far the most distant one lies beyond it, in standard deviations of the training data
    shift : mean over the cells minus that of the training data, in its standard deviations
    lowest, highest : values found, in SI units
    """

    name: str
    outside: float
    distance: float
    shift: float
    lowest: float
    highest: float

    @property
    def unusual(self) -> bool:
        """Whether people should know."""
        return self.outside > MOST_OUTSIDE or self.distance > MOST_DISTANCE

    @property
    def label(self) -> str:
        """The variable for people, as a sentence begins."""
        name = VARIABLES[self.name].long_name
        return name[:1].upper() + name[1:]


@dataclass(frozen=True)
class Applicability:
    """How the inputs of an hour, or static fields, compare with the training data of a checkpoint.

    ``recorded`` says whether the checkpoint holds the ranges of its training data; without them mean and
    standard deviation stand for them.
    """

    checks: tuple[VariableCheck, ...]
    recorded: bool

    @property
    def unusual(self) -> tuple[VariableCheck, ...]:
        """What people should know, the most distant first."""
        return tuple(sorted((c for c in self.checks if c.unusual), key=lambda c: -c.distance))

    def sentence(self, model: str, when: str = "") -> str:
        """What is unusual, for people; empty where nothing is. ``when`` names the hour."""
        found = self.unusual
        if not found:
            return ""
        first, rest = found[0], [check.label for check in found[1:]]
        of_hour = f" of {when}" if when else ""
        more = f" So {'do' if len(rest) > 1 else 'does'} {_listed(rest)}." if rest else ""
        return (
            f"{first.label}{of_hour} lies outside what {model} was trained on in {_share(first.outside)} of the "
            f"cells, up to {first.distance:.1f} standard deviations.{more}"
        )


def check_predictors(header: Header, coarse: xr.Dataset | Mapping[str, NDArray[np.floating]]) -> Applicability:
    """Compare coarse fields in SI units, of any shape, with the training data of a checkpoint.

    Missing values, as of sst over land, do not count; nor does a predictor that is absent or wholly missing.
    """
    ranges = header.description.ranges
    checks = []
    for name, statistics in header.normalization.predictors.items():
        if name not in coarse:
            continue
        known = ranges.predictors.get(name) if ranges is not None else None
        # Where the training had no sea at all, any sea is unheard of, but there is no measure of how far.
        if known is None and ranges is not None:
            continue
        found = _check(name, np.asarray(coarse[name]), known or statistics)
        if found is not None:
            checks.append(found)
    return Applicability(tuple(checks), ranges is not None)


def check_statics(header: Header, static: xr.Dataset | Mapping[str, NDArray[np.floating]]) -> Applicability:
    """Compare orography and latitude of the fine grid with those of the training."""
    ranges = header.description.ranges
    checks = []
    for name in RANGED_STATICS:
        if name not in static or name not in header.statics:
            continue
        known = ranges.statics.get(name) if ranges is not None else None
        found = _check(name, np.asarray(static[name]), known or getattr(header.normalization, name))
        if found is not None:
            checks.append(found)
    return Applicability(tuple(checks), ranges is not None)


def _check(name: str, values: NDArray[np.floating], known: VariableRange | MeanStd) -> VariableCheck | None:
    values = values[~np.isnan(values)]
    if not values.size:
        return None
    mean, std = known.mean, known.std
    if isinstance(known, VariableRange):
        low, high = known.low, known.high
    else:
        low, high = mean - SIGMAS * std, mean + SIGMAS * std
    lowest, highest = float(values.min()), float(values.max())
    outside = np.count_nonzero(values < np.float32(low)) + np.count_nonzero(values > np.float32(high))
    beyond = max(low - lowest, highest - high, 0.0)
    return VariableCheck(
        name,
        outside=outside / values.size,
        # A field that never varied in training has no scale.
        distance=beyond / std if std > 0 else (float("inf") if beyond > 0 else 0.0),
        shift=(float(values.mean(dtype=np.float64)) - mean) / std if std > 0 else 0.0,
        lowest=lowest,
        highest=highest,
    )


def check_store(
    header: Header, store: Store, hours: Hours, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[np.datetime64, Applicability]]:
    """Compare hours of a store with the training data of a checkpoint, one after the other.

    Of more than :data:`MOST_HOURS` as many are taken, spread evenly. ``progress`` is called with (done, of).
    """
    chosen = spread(hours)
    names = [name for name in header.predictors if name in store.contents.predictors]
    for start in range(0, chosen.size, TOGETHER):
        batch = chosen[start : start + TOGETHER]
        coarse = store.read_coarse(batch, names)
        for position, hour in enumerate(batch):
            yield hour, check_predictors(header, coarse.isel(time=position))
            if progress is not None:
                progress(start + position + 1, chosen.size)


def spread(hours: Hours) -> Hours:
    """The hours that :func:`check_store` looks at."""
    if hours.size <= MOST_HOURS:
        return hours
    return hours[np.linspace(0, hours.size - 1, MOST_HOURS).round().astype(int)]


def warnings(store: Store, hours: Hours, models: Sequence[tuple[str, Header]]) -> list[str]:
    """What is unusual about the inputs of a run, a sentence per variable; empty where nothing is.

    ``models`` are (label, header) of checkpoints. Those that were trained on the same data are told of together.
    """
    groups: dict[str, list[tuple[str, Header]]] = {}
    for label, header in models:
        described = f"{header.normalization.model_dump_json()}{header.description.ranges}"
        groups.setdefault(described, []).append((label, header))
    sentences = []
    for group in groups.values():
        who, header = _listed([label for label, _ in group]), group[0][1]
        were = "were" if len(group) > 1 else "was"
        if store.contents.statics:
            for check in check_statics(header, store.read_static()).unusual:
                sentences.append(
                    f"{check.label} lies outside what {who} {were} trained on in {_share(check.outside)} of the "
                    f"cells, up to {check.distance:.1f} standard deviations."
                )
        found: dict[str, list[tuple[np.datetime64, VariableCheck]]] = {}
        for hour, applicability in check_store(header, store, hours):
            for check in applicability.unusual:
                found.setdefault(check.name, []).append((hour, check))
        looked_at = spread(hours).size
        for cases in found.values():
            sentences.append(_told(cases, looked_at, hours.size, f"{who} {were}"))
    return sentences


def _told(cases: list[tuple[np.datetime64, VariableCheck]], looked_at: int, hours: int, who: str) -> str:
    worst, check = max(cases, key=lambda case: (case[1].distance, case[1].outside))
    stamp = str(np.datetime_as_string(worst, unit="m")).replace("T", " ")
    where = (
        f"in {_share(check.outside)} of the cells, up to {check.distance:.1f} standard deviations "
        f"({check.lowest:.5g} to {check.highest:.5g} {VARIABLES[check.name].units})"
    )
    if hours == 1:
        return f"{check.label} of {stamp} UTC lies outside what {who} trained on {where}."
    of_how_many = counted(looked_at, "hour") + (f" looked at (of {hours})" if looked_at < hours else "")
    return (
        f"{check.label} lies outside what {who} trained on in {len(cases)} of {of_how_many}; most at {stamp} UTC: "
        f"{where}."
    )


def _share(share: float) -> str:
    return "less than 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
