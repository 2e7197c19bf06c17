"""Whether inputs lie outside what a checkpoint was trained on.

A network gives a field whatever it is fed. What it makes of values that it never saw in training is a guess,
and this says so. Two things are looked at, from what training records (:mod:`core.data.ranges`):

- of each variable, in which share of the cells it lies outside the values it had in training, and how far;
- of the means of the hour over the domain, whether each is what the others let expect, as they vary together
  in the training data: a field 10 K too warm in January has values that are usual in June, but not beside
  those of January.

What counts as unusual was chosen so that no hour is of those that the shipped models were not trained on;
docs/applicability.md has the measurement. Silence is no promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.checkpoint import Header
from core.data.ranges import RANGED_STATICS, HourlyMeans, VariableRange
from core.data.samples import MeanStd
from core.data.store import Store
from core.plural import counted
from core.variables import VARIABLES

MOST_OUTSIDE = 0.1
"""Share of the cells that may lie outside the range."""

MOST_WIDTHS = 1.0
"""How far the most distant cell may lie outside the range, in widths of the range."""

MOST_SURPRISE = 7.0
"""How far the mean of a variable may lie from what the others let expect, in standard deviations of that
difference in training."""

RIDGE = 0.01
"""Added to the variances, as a share of them, so that variables that follow from others in training (a dew
point from a humidity) do not make every small difference unheard of."""

SIGMAS = 10.0
"""Half the range, in standard deviations about the mean, where a checkpoint records no range. By Chebyshev's
inequality at most 1 % of the training values lay outside, however skewed."""

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
    widths : the same in widths of the range
    shift : mean over the cells minus that of the training data, in its standard deviations
    lowest, highest : values found, in SI units
    excess : how much the mean is above what the other variables let expect, in SI units; 0 where nothing is
        known
    surprise : the same in standard deviations of that difference in training
    """

    name: str
    outside: float
    distance: float
    widths: float
    shift: float
    lowest: float
    highest: float
    excess: float = 0.0
    surprise: float = 0.0

    @property
    def out_of_range(self) -> bool:
        """Whether its values lie too far out."""
        return self.outside > MOST_OUTSIDE or self.widths > MOST_WIDTHS

    @property
    def out_of_place(self) -> bool:
        """Whether its mean does not go with the other variables."""
        return abs(self.surprise) > MOST_SURPRISE

    @property
    def unusual(self) -> bool:
        """Whether people should know."""
        return self.out_of_range or self.out_of_place

    @property
    def label(self) -> str:
        """The variable for people, as a sentence begins."""
        name = VARIABLES[self.name].long_name
        return name[:1].upper() + name[1:]

    def verdict(self, who: str, when: str = "") -> str:
        """What is unusual about it, without a full stop; ``who`` is a phrase like "LDM_res was"."""
        of_hour = f" of {when}" if when else ""
        if self.out_of_range:
            return (
                f"{self.label}{of_hour} lies outside what {who} trained on in {_share(self.outside)} of the "
                f"cells, "
                f"up to {self.distance:.1f} standard deviations"
            )
        units = VARIABLES[self.name].units
        return (
            f"{self.label}{of_hour} is on average {abs(self.excess):.3g} {units} "
            f"{'above' if self.excess > 0 else 'below'} what the other inputs let expect after all that "
            f"{who} "
            f"trained on ({abs(self.surprise):.0f} standard deviations)"
        )


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
        """What people should know: first what lies out of range, the most distant before the others."""
        found = [check for check in self.checks if check.unusual]
        return tuple(sorted(found, key=lambda c: (not c.out_of_range, -c.distance, -abs(c.surprise))))

    def sentence(self, model: str, when: str = "") -> str:
        """What is unusual, for people; empty where nothing is. ``when`` names the hour."""
        found = self.unusual
        if not found:
            return ""
        # What is out of place beside something foreign may be so because of that.
        rest = [VARIABLES[check.name].long_name for check in found[1:] if check.out_of_range]
        more = f" So {'do' if len(rest) > 1 else 'does'} {_listed(rest)}." if rest else ""
        return f"{found[0].verdict(f'{model} was', when)}.{more}"


def check_predictors(
    header: Header, coarse: xr.Dataset | Mapping[str, NDArray[np.floating]]
) -> Applicability:
    """Compare the coarse fields of an hour in SI units, of any shape, with the training data of a checkpoint.

    Missing values, as of sst over land, do not count; nor does a predictor that is absent or wholly missing.
    """
    ranges = header.description.ranges
    checks = []
    expected = {} if ranges is None or ranges.hourly is None else _surprises(ranges.hourly, coarse)
    for name, statistics in header.normalization.predictors.items():
        if name not in coarse:
            continue
        known = ranges.predictors.get(name) if ranges is not None else None
        # Where the training had no sea at all, any sea is unheard of, but there is no measure of how far.
        if known is None and ranges is not None:
            continue
        found = _check(name, np.asarray(coarse[name]), known or statistics)
        if found is not None:
            excess, surprise = expected.get(name, (0.0, 0.0))
            checks.append(replace(found, excess=excess, surprise=surprise))
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
        low, high = known.minimum, known.maximum
    else:
        low, high = mean - SIGMAS * std, mean + SIGMAS * std
    lowest, highest = float(values.min()), float(values.max())
    outside = np.count_nonzero(values < np.float32(low)) + np.count_nonzero(values > np.float32(high))
    beyond = max(low - lowest, highest - high, 0.0)
    return VariableCheck(
        name,
        outside=outside / values.size,
        distance=_ratio(beyond, std),
        widths=_ratio(beyond, high - low),
        shift=(float(values.mean(dtype=np.float64)) - mean) / std if std > 0 else 0.0,
        lowest=lowest,
        highest=highest,
    )


def _ratio(beyond: float, scale: float) -> float:
    # A field that never varied in training has no scale.
    return beyond / scale if scale > 0 else (float("inf") if beyond > 0 else 0.0)


def _surprises(
    known: HourlyMeans, coarse: xr.Dataset | Mapping[str, NDArray[np.floating]]
) -> dict[str, tuple[float, float]]:
    """Mean of each variable minus the one expected from the others: (SI units, standard deviations).

    The conditional mean of a normal distribution with the recorded means and covariance, by its precision
    matrix.
    """
    means = {}
    for name in known.names:
        if name in coarse:
            values = np.asarray(coarse[name])
            if (there := values[~np.isnan(values)]).size:
                means[name] = float(there.mean(dtype=np.float64))
    chosen = [position for position, name in enumerate(known.names) if name in means]
    if len(chosen) < 2:
        return {}
    names = [known.names[position] for position in chosen]
    mean, std = (np.array(values)[chosen] for values in (known.mean, known.std))
    correlation = np.array(known.correlation)[np.ix_(chosen, chosen)]
    try:
        precision = np.linalg.inv(correlation + RIDGE * np.eye(len(chosen)))
    except np.linalg.LinAlgError:
        return {}
    own = np.diag(precision)
    if own.min() <= 0:  # numbers in a file that are no correlations
        return {}
    pull = precision @ ((np.array([means[name] for name in names]) - mean) / std)
    return {
        name: (float(excess), float(surprise))
        for name, excess, surprise in zip(names, pull / own * std, pull / np.sqrt(own), strict=True)
    }


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
    chosen: Hours = hours[np.linspace(0, hours.size - 1, MOST_HOURS).round().astype(int)]
    return chosen


def warnings(store: Store, hours: Hours, models: Sequence[tuple[str, Header]]) -> list[str]:
    """What is unusual about the inputs of a run, a sentence per variable; empty where nothing is.

    ``models`` are (label, header) of checkpoints. Those that were trained on the same data are told of
    together.
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
                sentences.append(f"{check.verdict(f'{who} {were}')}.")
        found: dict[str, list[tuple[np.datetime64, VariableCheck]]] = {}
        for hour, applicability in check_store(header, store, hours):
            foreign = any(check.out_of_range for check in applicability.unusual)
            for check in applicability.unusual:
                if foreign and not check.out_of_range:
                    continue  # it may be out of place because of what lies out of range
                found.setdefault(check.name, []).append((hour, check))
        looked_at = spread(hours).size
        for cases in found.values():
            sentences.append(_told(cases, looked_at, hours.size, f"{who} {were}"))
    return sentences


def _told(cases: list[tuple[np.datetime64, VariableCheck]], looked_at: int, hours: int, who: str) -> str:
    worst, check = max(cases, key=lambda case: (case[1].distance, case[1].outside, abs(case[1].surprise)))
    stamp = str(np.datetime_as_string(worst, unit="m")).replace("T", " ")
    said = (
        f"{check.verdict(who, f'{stamp} UTC')}; its values are {check.lowest:.5g} to {check.highest:.5g} "
        f"{VARIABLES[check.name].units}."
    )
    if hours == 1:
        return said
    of_how_many = counted(looked_at, "hour") + (f" looked at (of {hours})" if looked_at < hours else "")
    return f"{said} It is unusual in {len(cases)} of {of_how_many}, and most so in this one."


def _share(share: float) -> str:
    return "less than 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
