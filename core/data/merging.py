"""Several files into one series per variable: which file counts where, and sums made those of an hour.

Where several files hold the same variable at the same hour, the file named first counts and later ones fill
the cells that it does not cover.

Precipitation and radiation are sums of the hour before their time stamp. Files give them as such, as sums
since 00 UTC (ERA5-Land, noticed by their values) or since the start of a forecast (which a file has to state,
as GRIB does, or the user). A sum over several hours, as coarser forecasts give it, becomes the mean of one
hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.data.era5_files import Era5Error, FileContent, Series, Times
from core.data.regrid import Regridder, RegridError, bilinear, conservative
from core.data.rotated import RotatedPole
from core.data.store import HOURS_PER_SHARD
from core.domain import Grid
from core.plural import are, counted
from core.variables import VARIABLES

Fields = NDArray[np.float32]
Accumulation = Literal["detect", "hourly", "since_midnight", "since_start"]

HOUR = np.timedelta64(1, "h")

_DAYS_TO_JUDGE = 40
# So many days are looked at to tell sums of an hour from sums since midnight; nearly always one is enough.

_PACKING_FALLS = 0.02
# Packed accumulations fall a little now and then; hourly sums fall about as much as they rise.


class Part:
    """One file's share of a variable.

    Attributes
    ----------
    series, regridder : where the values are and how they get to the grid
    times : distinct time stamps, ascending, shape (n,)
    positions : theirs in the file, shape (n,)
    spans : hours that a sum covers, shape (n,); 1 for states
    """

    def __init__(self, series: Series, regridder: Regridder, starts: Times | None = None) -> None:
        self.series = series
        self.regridder = regridder
        given = np.flatnonzero(~np.isnat(series.times))
        # Positions whose value is to be subtracted from that of a position, -1 for none.
        self._previous = np.full(series.times.size, -1, np.intp)
        spans = np.ones(series.times.size)
        if starts is not None:
            given = given[starts[given] < series.times[given]]
            # Forecasts that begin at other times have sums of their own, even of the same hours.
            runs = starts if series.reference is None else series.reference
            order = given[np.lexsort((series.times[given], starts[given], runs[given]))]
            before, after = order[:-1], order[1:]
            same = (runs[after] == runs[before]) & (starts[after] == starts[before])
            same &= series.times[after] > series.times[before]
            self._previous[after[same]] = before[same]
            begins = np.where(self._previous >= 0, series.times[self._previous], starts)
            spans[given] = (series.times[given] - begins[given]).astype(np.float64) / 3.6e12
        # Of several forecasts for one hour the one with the shortest sum, then the first of the file.
        given = given[np.argsort(spans[given], kind="stable")]
        times, first = np.unique(series.times[given], return_index=True)
        self.times: Times = times
        self.positions: NDArray[np.intp] = given[first]
        self.spans = spans[self.positions]
        self._span_of = spans

    def find(self, times: Times) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """(which of ``times`` it has, their positions in the file)."""
        if times.size == 0 or self.times.size == 0:
            return np.zeros(times.shape, bool), np.empty(0, np.intp)
        index = np.minimum(np.searchsorted(self.times, times), self.times.size - 1)
        found: NDArray[np.bool_] = self.times[index] == times
        return found, self.positions[index[found]]

    def read(self, positions: NDArray[np.intp]) -> Fields:
        """Regridded fields at ``positions``, shape (n, h, w); sums of several hours as means of an hour."""
        previous = self._previous[positions]
        subtract = previous >= 0
        if not subtract.any() and (self._span_of[positions] == 1).all():
            return self._regridded(positions)
        needed = np.unique(np.concatenate([positions, previous[subtract]]))
        totals = self._regridded(needed)
        fields = totals[np.searchsorted(needed, positions)]
        fields[subtract] -= totals[np.searchsorted(needed, previous[subtract])]
        # Packing makes totals fall by a little now and then.
        return (np.maximum(fields, 0) / self._span_of[positions, None, None]).astype(np.float32)

    def _regridded(self, positions: NDArray[np.intp]) -> Fields:
        window = self.regridder.rows, self.regridder.columns
        runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
        return np.concatenate([self.regridder(self.series.read(run, *window)) for run in runs])


class Merged:
    """One variable over all files, on the grid of its regridders."""

    def __init__(self, name: str, parts: Sequence[Part]) -> None:
        self.name = name
        self.parts = parts
        self.given: Times = np.unique(np.concatenate([part.times for part in parts]))
        self.since_midnight = False
        self._last: tuple[np.datetime64, Fields] | None = None

    def coverage(self, stamps: Times) -> float:
        """Share of the coarse cells within the area of the files that have some of ``stamps``, 0 to 1."""
        used = [part.regridder.covered for part in self.parts if np.isin(part.times, stamps).any()]
        return float(np.logical_or.reduce(used).mean()) if used else 0.0

    @property
    def times(self) -> Times:
        """Time stamps at which :meth:`read` has values, ascending."""
        if not self.since_midnight:
            return self.given
        return self.given[_starts_accumulation(self.given) | np.isin(self.given - HOUR, self.given)]

    def read(self, times: Times) -> Fields:
        """Fields at ascending ``times``, shape (n, h, w); NaN where missing.

        Accumulations come as sums of the past hour. Made for reading forward: the last field is kept.
        """
        fields = self._hourly(times) if self.since_midnight else self._values(times)
        if VARIABLES[self.name].accumulated:
            # Files are checked for sums of a day at most; only here it is known that these are hours.
            for part in self.parts:
                part.series.check_range(fields[part.find(times)[0]], *VARIABLES[self.name].valid_range)
        return fields

    def _hourly(self, times: Times) -> Fields:
        """Accumulations since 00 UTC as sums of the past hour."""
        later = np.flatnonzero(~_starts_accumulation(times))
        needed = np.unique(np.concatenate([times, times[later] - HOUR]))
        if self._last is not None and self._last[0] == needed[0]:
            totals = np.concatenate([self._last[1][np.newaxis], self._values(needed[1:])])
        else:
            totals = self._values(needed)
        self._last = needed[-1], totals[-1]
        fields = totals[np.searchsorted(needed, times)]
        # Packing makes totals fall by a little now and then.
        fields[later] = np.maximum(fields[later] - totals[np.searchsorted(needed, times[later] - HOUR)], 0)
        return fields

    def _values(self, times: Times) -> Fields:
        """Values as in the files, regridded; the first file counts, later ones fill in."""
        height, width = self.parts[0].regridder.grid.shape
        values = np.full((times.size, height, width), np.nan, np.float32)
        for part in self.parts:
            found, positions = part.find(times)
            if positions.size:
                values[found] = np.where(np.isnan(values[found]), part.read(positions), values[found])
        return values

    def judge_accumulation(self, accumulation: str) -> None:
        """Decide whether values are sums since 00 UTC. Raises Era5Error where files disagree or have gaps."""
        if not VARIABLES[self.name].accumulated or accumulation in ("hourly", "since_start"):
            return
        if accumulation == "detect" and any(part.series.starts is not None for part in self.parts):
            return
        stated = [part for part in self.parts if part.series.since_midnight]
        if accumulation == "detect" and stated and len(stated) < len(self.parts):
            other = next(part for part in self.parts if not part.series.since_midnight)
            raise Era5Error(
                f"{self.name} is from ERA5-Land in {stated[0].series.label}, but not in "
                f"{other.series.label}; ingest them into separate stores, or say how it accumulates."
            )
        self.since_midnight = (
            accumulation == "since_midnight" or bool(stated) or self._grows_and_starts_again()
        )
        if self.since_midnight and self.times.size < max(1, self.given.size // 2):
            raise Era5Error(
                f"{self.name} accumulates since 00 UTC in {self.parts[0].series.label}, but hours in between "
                "are missing, so sums of the past hour can't be made; get every hour."
            )

    def _grows_and_starts_again(self) -> bool:
        """Whether values hardly fall from 01 to 24 UTC, then start again: accumulations, not hourly sums."""
        days = (self.given - HOUR).astype("datetime64[D]")
        candidates = np.unique(days)
        rises = falls = repeated = dropped = 0.0
        growing, spanned = 0, np.timedelta64(0, "h")
        for day in candidates[:: -(-candidates.size // _DAYS_TO_JUDGE)]:
            within = np.flatnonzero(days == day)
            values = self._values(self.given[within[0] : within[-1] + 2])  # and the next day's first
            steps = np.nan_to_num(np.diff(values, axis=0))
            inside, after = steps[: within.size - 1], steps[within.size - 1 :]
            risen = float(inside[inside > 0].sum())
            rises += risen
            falls -= float(inside[inside < 0].sum())
            growing += int((inside > 0).any(axis=(1, 2)).sum())
            spanned += self.given[within[-1]] - self.given[within[0]]
            if after.size:
                repeated += risen
                dropped -= float(after[after < 0].sum())
            # A rainfall may begin late in the day and grow to its end, so several hours must tell.
            if growing >= 6 and spanned >= 20 * HOUR:
                return falls < _PACKING_FALLS * rises and dropped >= 0.5 * repeated
        return False

    def notes(self) -> list[str]:
        notes = []
        doubles = sum(part.times.size for part in self.parts) - self.given.size
        if doubles:
            notes.append(
                f"{self.name} is given more than once for {counted(doubles, 'hour')}; the file named first "
                "counts, the others fill cells that it does not cover."
            )
        if self.since_midnight:
            lost = self.given.size - self.times.size
            notes.append(
                f"{self.name} accumulates since 00 UTC, as in ERA5-Land, and was turned into sums of the "
                + (f"past hour; {lost} lack the hour before and are lost." if lost else "past hour.")
            )
        spans = np.concatenate([part.spans for part in self.parts])
        if (spans != 1).any():
            long = np.unique(spans[spans != 1])
            hours = ", ".join(f"{span:g}" for span in long[:4]) + (", ..." if long.size > 4 else "")
            notes.append(
                f"{self.name} comes at {counted(int((spans != 1).sum()), 'time stamp')} as sums over {hours} "
                "hours; each was divided by their number, so it is the mean of one hour."
            )
        elif VARIABLES[self.name].accumulated and not self.since_midnight and self.given.size > 1:
            step = np.diff(self.given).min() / HOUR
            if step > 1:
                notes.append(
                    f"{self.name} comes every {step:g} hours; each value is taken as the sum of the hour "
                    "before its time stamp, as in ERA5's hourly data."
                )
        return notes


def _starts_accumulation(times: Times) -> NDArray[np.bool_]:
    """Stamps whose accumulation since 00 UTC is that of one hour."""
    first: NDArray[np.bool_] = times - times.astype("datetime64[D]") == HOUR
    return first


def accumulation_starts(series: Series, accumulation: str) -> Times | None:
    """When the sums of ``series`` began, None where the file doesn't say or they are those of an hour.

    Raises Era5Error where they are to be taken since the start of a forecast, which the file doesn't give.
    """
    if not VARIABLES[series.predictor].accumulated or accumulation in ("hourly", "since_midnight"):
        return None
    if accumulation == "since_start":
        if series.starts is None and series.reference is None:
            raise Era5Error(
                f"{series.label}: the start of the forecast that {series.name} accumulates from is not in "
                "the file (a coordinate forecast_reference_time, or time beside valid_time)."
            )
        return series.reference if series.starts is None else series.starts
    return series.starts


class Regridders:
    """Weights to ``grid``, made once for each grid among the files: bilinear, for sums conservative."""

    def __init__(self, grid: Grid, name: str) -> None:
        self._grid = grid
        self._name = name
        self._made: dict[tuple[bool, RotatedPole | None, bytes, bytes], Regridder] = {}

    def get(self, series: Series) -> Regridder:
        """The weights for one series. Raises Era5Error where its grid can't be used or lies elsewhere."""
        accumulated = VARIABLES[series.predictor].accumulated
        key = accumulated, series.pole, series.longitude.tobytes(), series.latitude.tobytes()
        if key not in self._made:
            method = conservative if accumulated else bilinear
            try:
                self._made[key] = method(series.longitude, series.latitude, self._grid, series.pole)
            except RegridError as error:
                raise Era5Error(f"{series.label}: {error}") from error
        regridder = self._made[key]
        if not regridder.covered.any():
            west, east, south, north = series.area
            raise Era5Error(
                f"{series.label} covers {west:g} to {east:g} degrees east and {south:g} to {north:g} degrees "
                f"north{' of its rotated grid' if series.pole else ''}, which leaves out the domain "
                f"{self._name}."
            )
        return regridder


def merge(
    contents: Sequence[FileContent], names: Sequence[str], regridders: Regridders, accumulation: str
) -> list[Merged]:
    """One series for each of ``names`` that the files hold. Raises Era5Error as the parts do."""
    merged = []
    for name in names:
        parts = [
            Part(series, regridders.get(series), accumulation_starts(series, accumulation))
            for content in contents
            for series in content.series
            if series.predictor == name
        ]
        if parts:
            variable = Merged(name, parts)
            variable.judge_accumulation(accumulation)
            merged.append(variable)
    return merged


def choose_hours(merged: Sequence[Merged], hours: str) -> tuple[Times, list[str]]:
    """(time stamps to write, notes): those that every variable has, or with ``hours`` "all" any."""
    union = np.unique(np.concatenate([variable.times for variable in merged]))
    common = reduce(np.intersect1d, [variable.times for variable in merged])
    lacking = [
        f"{variable.name} lacks {union.size - variable.times.size}"
        for variable in merged
        if variable.times.size < union.size
    ]
    if not lacking:
        return union, []
    if hours == "all":
        return union, [f"Of {counted(union.size, 'hour')} {', '.join(lacking)}; missing fields are NaN."]
    if common.size == 0:
        spans = "; ".join(
            f"{variable.name} has {show_time(variable.times[0])} to {show_time(variable.times[-1])}"
            for variable in merged
            if variable.times.size
        )
        raise Era5Error(
            f"The files have no hour in common ({spans}); ingest them into separate stores, or keep all "
            "hours."
        )
    lost = union.size - common.size
    return common, [
        f"{lost} of {counted(union.size, 'hour')} {are(lost)} left out because not every variable is there "
        f"({', '.join(lacking)})."
    ]


def blocks(stamps: Times) -> Iterable[Times]:
    """``stamps`` in pieces of a shard."""
    return (stamps[start : start + HOURS_PER_SHARD] for start in range(0, stamps.size, HOURS_PER_SHARD))


def show_time(time: np.datetime64 | None) -> str:
    """A time stamp for people."""
    return "never" if time is None else f"{np.datetime_as_string(time, unit='m').replace('T', ' ')} UTC"
