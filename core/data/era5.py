"""ERA5 into a store: NetCDF files of any area and any subset of the predictors, regridded to the coarse grid.

States are interpolated bilinearly and sums over the past hour (precipitation, radiation) are averaged
conservatively (:mod:`core.data.regrid`); winds stay earth-relative. Where several files hold the same
variable at the same hour, the file named first counts and later ones fill the cells that it does not cover.
Cells that no file covers are NaN.

ERA5's hourly sums end at the time stamp. ERA5-Land instead accumulates from 00 UTC; this is recognised by
values that hardly ever fall in the course of a day and start again the next, and is turned into sums of the
past hour. Data at every third hour keep their meaning: each value is the sum of the hour before its stamp.
(ECMWF, "Conversion table for accumulated variables", Copernicus Knowledge Base.)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.data.era5_files import Era5Error, FileContent, Series, Times, open_files
from core.data.regrid import Regridder, RegridError, bilinear, conservative
from core.data.store import HOURS_PER_SHARD, Store
from core.domain import ITALY, Domain
from core.plural import are, counted
from core.variables import PREDICTORS, VARIABLES

__all__ = ["Era5Error", "FileSummary", "IngestReport", "ingest", "inspect"]

Progress = Callable[[int, int], None]
Fields = NDArray[np.float32]

HOUR = np.timedelta64(1, "h")

_DAYS_TO_JUDGE = 40
# So many days are looked at to tell sums of an hour from sums since midnight; nearly always one is enough.

_PACKING_FALLS = 0.02
# Packed accumulations fall a little now and then; hourly sums fall about as much as they rise.


@dataclass(frozen=True)
class FileSummary:
    """What :func:`inspect` found in one file or member of an archive.

    ``variables`` maps predictors to their names in the file; ``area`` is (west, east, south, north) [degree].
    """

    file: str
    variables: Mapping[str, str]
    orography: bool
    ignored: tuple[str, ...]
    hours: int
    first: np.datetime64 | None
    last: np.datetime64 | None
    area: tuple[float, float, float, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class IngestReport:
    """What :func:`ingest` wrote.

    Attributes
    ----------
    store : where
    files : what was read, archives by member
    hours, first, last : complete hours written now (not those that a store had before)
    predictors, missing_predictors : of the 14
    coverage : for each predictor the share of coarse cells within the area of the files used, 0 to 1
    orography : whether the files held the surface geopotential
    notes : sentences about everything that was assumed, ignored or left out
    """

    store: Path
    files: tuple[str, ...]
    hours: int
    first: np.datetime64 | None
    last: np.datetime64 | None
    predictors: tuple[str, ...]
    missing_predictors: tuple[str, ...]
    coverage: Mapping[str, float]
    orography: bool
    notes: tuple[str, ...]

    def sentences(self) -> list[str]:
        """The report for people, a sentence each."""
        span = "" if self.first is None else f" from {_show(self.first)} to {_show(self.last)}"
        shares: dict[str, list[str]] = {}
        for name, share in self.coverage.items():
            shares.setdefault(f"{100 * share:.1f} %", []).append(name)
        lines = [
            f"{counted(self.hours, 'hour')}{span} from {counted(len(self.files), 'file')} "
            f"written to {self.store}."
        ]
        lines += [
            f"{', '.join(names)}: {share} of the coarse cells are covered." for share, names in shares.items()
        ]
        if self.missing_predictors:
            lines.append(f"Not in the files: {', '.join(self.missing_predictors)}.")
        if not self.orography:
            lines.append(
                "No coarse orography: add a file with ERA5's surface geopotential (z) for lapse-rate "
                "interpolation."
            )
        return lines + list(self.notes)


def inspect(files: Sequence[str | Path], *, assume_850: bool = False) -> tuple[FileSummary, ...]:
    """Look into files without regridding them: names, hours, area.

    Raises Era5Error as :func:`ingest` does for files that can't be used; values are not checked.
    """
    with open_files(files, assume_850=assume_850) as contents:
        return tuple(_summary(content) for content in contents)


def ingest(
    files: Sequence[str | Path],
    out: str | Path,
    domain: Domain = ITALY,
    *,
    static: xr.Dataset | None,
    progress: Progress | None = None,
    append: bool = False,
    hours: Literal["common", "all"] = "common",
    accumulation: Literal["detect", "hourly", "since_midnight"] = "detect",
    assume_850: bool = False,
) -> IngestReport:
    """Regrid ERA5 files to the coarse grid of ``domain`` and write them to a store.

    Parameters
    ----------
    files : NetCDF files, or zip archives of them as the Climate Data Store delivers; a file with the surface
        geopotential ``z`` gives the coarse orography
    out : store to make; with ``append`` one to add later hours to, if it exists
    static : fields of the fine grid for a new store, for Italy ``load_italy_static()``
    progress : called with (hours done, hours in all)
    hours : "common" writes the hours at which every variable has data; "all" the union, NaN where missing
    accumulation : whether precipitation and radiation are sums of the past hour or since 00 UTC
    assume_850 : take q, t, u, v, w without a pressure level for 850 hPa

    Memory holds about a day of the files' values around the domain, whatever the length of the files (more
    where compressed chunks span more hours, up to 128 MB a variable). The store is built under a temporary
    name, so nothing is written unless all of it succeeds.

    Raises
    ------
    Era5Error
        where a file can't be used, the files don't fit together, or ``out`` exists and can't be appended to.
    StoreError
        where ``static`` does not fit the domain.
    """
    out = Path(out)
    existing = _existing(out, domain, append)
    with open_files(files, assume_850=assume_850) as contents:
        notes = [note for content in contents for note in content.notes]
        notes += _ignored(contents)
        merged = _merge(contents, domain, accumulation)
        orography = _orography(contents, domain)
        for predictor in merged:
            notes += predictor.notes()
        stamps, more = _choose_hours(merged, hours)
        notes += more
        if existing is not None:
            stamps, more = _not_yet_written(existing, merged, stamps)
            notes += more
            if orography is not None and not existing.contents.coarse_orography:
                notes.append(f"{out} has no coarse orography, and appending can't add it; make a new store.")
        if stamps.size:
            notes += _write(
                out,
                existing,
                merged,
                stamps,
                progress,
                lambda staged: Store.create(
                    staged,
                    domain,
                    title=f"ERA5 on the coarse grid of {domain.name}",
                    source=_source(files),
                    times=stamps,
                    coarse=[predictor.name for predictor in merged],
                    static=static if existing is None else None,
                    coarse_orography=orography if existing is None else None,
                    synthetic=False,
                    fingerprint=_fingerprint(files, domain, (hours, accumulation, assume_850)),
                    attrs={
                        "regridding": "bilinear; precipitation and radiation conservative",
                        "acknowledgement": "Contains modified Copernicus Climate Change Service information",
                    },
                ),
            )
        held = [predictor.name for predictor in merged]
        return IngestReport(
            store=out,
            files=tuple(content.label for content in contents),
            hours=int(stamps.size),
            first=stamps[0] if stamps.size else None,
            last=stamps[-1] if stamps.size else None,
            predictors=tuple(held),
            missing_predictors=tuple(name for name in PREDICTORS if name not in held),
            coverage={predictor.name: predictor.coverage(stamps) for predictor in merged},
            orography=orography is not None or (existing is not None and existing.contents.coarse_orography),
            notes=tuple(dict.fromkeys(notes)),
        )


# ---------------------------------------------------------------- merging files


@dataclass(frozen=True, eq=False)
class _Part:
    """One file's share of a predictor, with its distinct time stamps in ascending order."""

    series: Series
    regridder: Regridder
    times: Times
    positions: NDArray[np.intp]

    @classmethod
    def of(cls, series: Series, regridder: Regridder) -> _Part:
        given = np.flatnonzero(~np.isnat(series.times))
        times, first = np.unique(series.times[given], return_index=True)
        return cls(series, regridder, times, given[first])

    def find(self, times: Times) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """(which of ``times`` it has, their positions in the file)."""
        if times.size == 0 or self.times[-1] < times[0] or self.times[0] > times[-1]:
            return np.zeros(times.shape, bool), np.empty(0, np.intp)
        index = np.minimum(np.searchsorted(self.times, times), self.times.size - 1)
        found: NDArray[np.bool_] = self.times[index] == times
        return found, self.positions[index[found]]

    def read(self, positions: NDArray[np.intp]) -> Fields:
        window = self.regridder.rows, self.regridder.columns
        runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
        return np.concatenate([self.regridder(self.series.read(run, *window)) for run in runs])


class _Predictor:
    """One predictor over all files."""

    def __init__(self, name: str, parts: Sequence[_Part]) -> None:
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
        if not VARIABLES[self.name].accumulated or accumulation == "hourly":
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
        elif VARIABLES[self.name].accumulated and self.given.size > 1:
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


def _merge(contents: Sequence[FileContent], domain: Domain, accumulation: str) -> list[_Predictor]:
    regridders = _Regridders(domain)
    merged = []
    for name in PREDICTORS:
        parts = [
            _Part.of(series, regridders.get(series))
            for content in contents
            for series in content.series
            if series.predictor == name
        ]
        if parts:
            predictor = _Predictor(name, parts)
            predictor.judge_accumulation(accumulation)
            merged.append(predictor)
    if not merged:
        raise Era5Error(
            f"{contents[0].label} holds constant fields only; name files with some of "
            f"{', '.join(PREDICTORS)} as well."
        )
    return merged


class _Regridders:
    """Weights, made once for each grid among the files."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._made: dict[tuple[bool, bytes, bytes], Regridder] = {}

    def get(self, series: Series) -> Regridder:
        accumulated = VARIABLES[series.predictor].accumulated
        key = accumulated, series.longitude.tobytes(), series.latitude.tobytes()
        if key not in self._made:
            method = conservative if accumulated else bilinear
            try:
                self._made[key] = method(series.longitude, series.latitude, self._domain.coarse)
            except RegridError as error:
                raise Era5Error(f"{series.label}: {error}") from error
        regridder = self._made[key]
        if not regridder.covered.any():
            west, east, south, north = _area(series)
            raise Era5Error(
                f"{series.label} covers {west:g} to {east:g} degrees east and {south:g} to {north:g} degrees "
                f"north, which leaves out the domain {self._domain.name}."
            )
        return regridder


def _orography(contents: Sequence[FileContent], domain: Domain) -> Fields | None:
    """Height of ERA5's surface on the coarse grid [m], interpolated like the temperature."""
    regridders = _Regridders(domain)
    height: Fields | None = None
    for content in contents:
        if content.orography is not None:
            regridder = regridders.get(content.orography)
            found = regridder(content.orography.read_constant(regridder.rows, regridder.columns))
            height = found if height is None else np.where(np.isnan(height), found, height)
    return height


def _choose_hours(merged: Sequence[_Predictor], hours: str) -> tuple[Times, list[str]]:
    """(time stamps to write, notes)."""
    union = np.unique(np.concatenate([predictor.times for predictor in merged]))
    common = reduce(np.intersect1d, [predictor.times for predictor in merged])
    lacking = [
        f"{predictor.name} lacks {union.size - predictor.times.size}"
        for predictor in merged
        if predictor.times.size < union.size
    ]
    if not lacking:
        return union, []
    if hours == "all":
        return union, [f"Of {counted(union.size, 'hour')} {', '.join(lacking)}; missing fields are NaN."]
    if common.size == 0:
        spans = "; ".join(
            f"{predictor.name} has {_show(predictor.times[0])} to {_show(predictor.times[-1])}"
            for predictor in merged
            if predictor.times.size
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


# ---------------------------------------------------------------- writing


def _existing(out: Path, domain: Domain, append: bool) -> Store | None:
    """The store to append to, None for a new one."""
    if not out.exists():
        return None
    if not append:
        raise Era5Error(f"{out} exists already; append to it, give another name, or delete it.")
    store = Store.open(out, mode="a")
    if store.domain.coarse != domain.coarse or store.domain.fine != domain.fine:
        raise Era5Error(f"{out} is for the domain {store.domain.name}, not {domain.name}; make a new store.")
    if store.attrs.get("synthetic"):
        raise Era5Error(f"{out} holds synthetic weather; real data belong in a store of their own.")
    if store.contents.targets:
        raise Era5Error(f"{out} holds fine truth, which ERA5 files can't continue; make a new store.")
    return store


def _not_yet_written(store: Store, merged: Sequence[_Predictor], stamps: Times) -> tuple[Times, list[str]]:
    """(the stamps that ``store`` lacks, notes)."""
    held, given = set(store.contents.predictors), {predictor.name for predictor in merged}
    if held != given:
        raise Era5Error(
            f"{store.path} holds {', '.join(n for n in PREDICTORS if n in held)}, but the files hold "
            f"{', '.join(n for n in PREDICTORS if n in given)}; a store has the same variables at every hour."
        )
    planned = np.concatenate([store.hours, store.pending])
    fresh = stamps[~np.isin(stamps, planned)]
    if fresh.size and planned.size and fresh[0] <= planned.max():
        raise Era5Error(
            f"{store.path} ends at {_show(planned.max())} and can only be continued with later hours, but "
            f"the files also have {_show(fresh[0])}; make a new store from all files."
        )
    missing = stamps[~np.isin(stamps, store.hours)]
    skipped = stamps.size - missing.size
    return missing, [
        f"{counted(skipped, 'hour')} {are(skipped)} in {store.path} already and left as before."
    ] if skipped else []


def _write(
    out: Path,
    existing: Store | None,
    merged: Sequence[_Predictor],
    stamps: Times,
    progress: Progress | None,
    create: Callable[[Path], Store],
) -> list[str]:
    """Build the store under a temporary name, then move it into place or append it to ``existing``."""
    staged = out.with_name(f".{out.name}.ingest")
    shutil.rmtree(staged, ignore_errors=True)
    empty = dict.fromkeys((predictor.name for predictor in merged), 0)
    try:
        store = create(staged)
        for block in _blocks(stamps):
            fields = {predictor.name: predictor.read(block) for predictor in merged}
            for name, values in fields.items():
                empty[name] += int(np.isnan(values).all(axis=(1, 2)).sum())
            store.write(block, fields)
            if progress is not None:
                progress(int(np.searchsorted(stamps, block[-1])) + 1, stamps.size)
        if existing is None:
            staged.rename(out)
        else:
            existing.plan(stamps[~np.isin(stamps, existing.pending)])
            for block in _blocks(stamps):
                existing.write(block, store.read_coarse(block))
    except OSError as error:
        raise Era5Error(f"{out} can't be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return [
        f"{name} has no value at {count} of {counted(stamps.size, 'hour')}."
        for name, count in empty.items()
        if count and name != "sst"
    ]


def _blocks(stamps: Times) -> Iterable[Times]:
    return (stamps[start : start + HOURS_PER_SHARD] for start in range(0, stamps.size, HOURS_PER_SHARD))


def _fingerprint(files: Sequence[str | Path], domain: Domain, options: tuple[object, ...]) -> str:
    """Hash of the files (size, first and last MiB) and of everything that shapes the result."""
    digest = hashlib.sha256(json.dumps([1, domain.to_dict(), options]).encode())
    for file in files:
        with Path(file).open("rb") as opened:
            size = opened.seek(0, 2)
            digest.update(str(size).encode())
            for start in (0, max(size - (1 << 20), 0)):
                opened.seek(start)
                digest.update(opened.read(1 << 20))
    return digest.hexdigest()


# ---------------------------------------------------------------- words


def _show(time: np.datetime64 | None) -> str:
    return "never" if time is None else f"{np.datetime_as_string(time, unit='m').replace('T', ' ')} UTC"


def _area(series: Series) -> tuple[float, float, float, float]:
    lon, lat = series.longitude, series.latitude
    return float(lon.min()), float(lon.max()), float(lat.min()), float(lat.max())


def _source(files: Sequence[str | Path]) -> str:
    names = [Path(file).name for file in files]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"ERA5 hourly data on single and pressure levels: {', '.join(names[:6])}{more}"


def _ignored(contents: Sequence[FileContent]) -> list[str]:
    """One note for all files with the same strangers."""
    files: dict[tuple[str, ...], list[str]] = {}
    for content in contents:
        if content.ignored:
            files.setdefault(content.ignored, []).append(content.label)
    notes = []
    for names, labels in files.items():
        others = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        notes.append(f"{labels[0]}{others}: {', '.join(names)} not needed, ignored.")
    return notes


def _summary(content: FileContent) -> FileSummary:
    all_series = (*content.series, *([content.orography] if content.orography else []))
    times = np.concatenate([series.times for series in all_series])
    times = np.unique(times[~np.isnat(times)])
    return FileSummary(
        file=content.label,
        variables={series.predictor: series.name for series in content.series},
        orography=content.orography is not None,
        ignored=content.ignored,
        hours=int(times.size),
        first=times[0] if times.size else None,
        last=times[-1] if times.size else None,
        area=_area(all_series[0]),
        notes=content.notes,
    )
