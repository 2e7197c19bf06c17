"""The published data set into a store: ERA5 predictors at 16 km and COSMO-CLM truth at 2 km over Italy.

A folder holds what was fetched or unpacked of it (:mod:`core.data.published_files`): days, the file of
statistics, GeoTIFFs. Values are taken back from their normalised form to SI units. Sea surface temperature
over land, which the networks see as -10 after normalisation, is missing in the store.

A store is filled shard by shard, so that the same call goes on where it was stopped; later days can be
added by calling it again. What a store holds in all its hours is settled by the days it was made of.

Sources: Tomasi, Franch and Cristoforetti (2025), doi 10.5194/gmd-18-2051-2025; Raffa et al. (2021), doi
10.3390/data6080088, of the COSMO-CLM simulation.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from core.data import published_units
from core.data.published_files import (
    BORDERS,
    NORMALIZATION,
    TRUTH_FILES,
    Day,
    DayFile,
    Layout,
    PublishedError,
    Times,
    find_layout,
    hours_of,
)
from core.data.published_static import PublishedStatic, read_published_static
from core.data.published_units import to_si
from core.data.samples import MeanStd
from core.data.store import HOURS_PER_SHARD, Store
from core.domain import ITALY, Domain, DomainError
from core.file_lock import LOCK, claimed, clear
from core.geojson import GeoJsonError
from core.outlines import add_outlines, has_outlines
from core.plural import are, counted
from core.published_normalization import read_published_statistics
from core.variables import PREDICTORS, TARGETS, VARIABLES

__all__ = ["IngestReport", "PublishedError", "ingest"]

Progress = Callable[[int, int], None]
Fields = NDArray[np.float32]

FORMAT = 1
"""Goes into the fingerprint; raise it where the same files give other numbers."""

NO_SEA = -10.0
"""What stands for a missing sea surface temperature in normalised units."""

_MOST_NAMED = 6


@dataclass(frozen=True)
class IngestReport:
    """What :func:`ingest` wrote.

    Attributes
    ----------
    store : where
    days : dates that were asked for and are there
    hours : written now; ``held`` were in the store already
    predictors, targets : in the store
    notes : sentences about everything that was assumed or left out
    """

    store: Path
    days: int
    hours: int
    held: int
    predictors: tuple[str, ...]
    targets: tuple[str, ...]
    notes: tuple[str, ...]

    def sentences(self) -> list[str]:
        """The report for people, a sentence each."""
        truth = f"with truth ({', '.join(self.targets)})" if self.targets else "without truth"
        lines = [
            f"{counted(self.hours, 'hour')} of {counted(self.days, 'day')} {truth} written to {self.store}."
        ]
        if self.held:
            lines.append(f"{counted(self.held, 'hour')} {are(self.held)} in it already and left as before.")
        missing = [name for name in PREDICTORS if name not in self.predictors]
        if missing:
            lines.append(f"Not in the files: {', '.join(missing)}.")
        return lines + list(self.notes)


def ingest(
    folder: str | Path,
    out: str | Path,
    *,
    days: ArrayLike | None = None,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    targets: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Write days of a folder in the published layout to a store, or go on writing them.

    Parameters
    ----------
    folder : with days, ``normalization_data.pkl`` and, if they are there, ``metadata.csv``, the GeoTIFFs and
        the outlines; all of them may lie in folders below
    out : store to make, or one that this made and that lacks some of the hours or ends before them
    days : dates to take, by default all between ``start`` and ``end`` (both included) that the folder has
    targets : truth to take; by default what every one of these days has
    progress : called with (hours done, hours to do)

    A day that can't be read does not keep the others from being written: it is named in the error at the end,
    and the same call fills it in when it was got again. Memory holds one shard of 24 hours, disk a day or
    two.

    Raises
    ------
    PublishedError
        where a file is missing or damaged, the files don't fit together, ``out`` can't be continued, or
        another process writes it.
    NormalizationError
        where the file of statistics is absent, damaged or lacks a variable.
    StoreError
        where ``out`` is no store.
    """
    folder, out = Path(folder), Path(out)
    layout = find_layout(folder)
    normalization = layout.file(NORMALIZATION)
    if normalization is None:
        raise PublishedError(
            f"{folder} has no {NORMALIZATION}, without which the values mean nothing. Get it with "
            "`tramontana "
            "fetch normalization`."
        )
    chosen = _choose_days(layout.days, folder, days, start, end)
    static = read_published_static(layout)
    scratch = out.with_name(f".{out.name}.unpacked")
    try:
        with ExitStack() as opened:
            if not opened.enter_context(claimed(scratch / LOCK)):
                raise PublishedError(f"Another process writes {out}; wait for it.")
            opened.callback(clear, scratch)
            existing = Store.open(out, mode="a") if out.exists() else None
            predictors, domain = _first_look(chosen, existing, static, folder, scratch)
            held, more = _choose_targets(chosen, existing, targets)
            plan = _Plan.make(predictors, held, domain, normalization, static)
            axis, faults = _time_axis(chosen, scratch)
            run = _Run(plan, scratch, axis, faults)
            report = run.write(out, existing, static, progress)
            more += _take_outlines(layout, out)
    except OSError as error:
        raise PublishedError(f"{out} can't be written: {error.strerror or error}.") from error
    notes = [*_metadata_notes(layout.metadata, chosen), *more, *static.notes, *plan.notes, *run.notes]
    if run.faults:
        raise PublishedError(_fault_sentence(run.faults, report, out))
    return IngestReport(out, len(chosen), *report, predictors, held, tuple(dict.fromkeys(notes)))


# ---------------------------------------------------------------- what to take


def _choose_days(
    days: Sequence[Day],
    folder: Path,
    wanted: ArrayLike | None,
    start: np.datetime64 | None,
    end: np.datetime64 | None,
) -> list[Day]:
    there = {day.date: day for day in days}
    if wanted is not None:
        try:
            dates = np.unique(np.atleast_1d(np.asarray(wanted, "datetime64[D]")))
        except ValueError as error:
            raise PublishedError(f"A day is written as 2016-05-02, separated by commas ({error}).") from error
        if lacking := [str(date) for date in dates if date not in there]:
            raise PublishedError(
                f"{folder} does not hold {_few(lacking)}. Get them with `tramontana fetch days "
                f"{' '.join(lacking[:_MOST_NAMED])}`."
            )
        return [there[date] for date in dates]
    chosen = [
        day
        for day in days
        if (start is None or day.date >= start.astype("datetime64[D]"))
        and (end is None or day.date <= end.astype("datetime64[D]"))
    ]
    if not chosen:
        raise PublishedError(
            f"{folder} holds {days[0].date} to {days[-1].date}, and no day of those asked for."
        )
    return chosen


def _first_look(
    chosen: Sequence[Day], existing: Store | None, static: PublishedStatic, folder: Path, scratch: Path
) -> tuple[tuple[str, ...], Domain]:
    """The predictors that a store has or will have, and its domain, from the first day that can be read."""
    fault: PublishedError | None = None
    for day in chosen:
        try:
            with DayFile(day.low, scratch) as file:
                if not file.hours:
                    raise PublishedError(f"{day.low} holds no hour.")
                names = file.names(file.hours[0])
                found = tuple(name for name in PREDICTORS if VARIABLES[name].published_name in names)
                if not found:
                    raise PublishedError(f"{day.low} has none of the predictors.")
                shape = file.shape(file.hours[0], VARIABLES[found[0]].published_name)
        except PublishedError as error:
            fault = fault or error
            continue
        domain = _domain(shape, static, folder)
        if existing is None:
            return found, domain
        held = existing.contents.predictors
        if lacking := [name for name in held if name not in found]:
            raise PublishedError(f"{day.low} lacks {', '.join(lacking)}, which {existing.path} holds.")
        return held, domain
    assert fault is not None
    raise fault


def _domain(coarse: tuple[int, int], static: PublishedStatic, folder: Path) -> Domain:
    """The domain whose coarse grid has this shape."""
    if static.grid is None:
        if coarse == ITALY.coarse.shape:
            return ITALY
        raise PublishedError(
            f"{folder} holds fields of {coarse[0]} x {coarse[1]} cells; Italy has {ITALY.coarse.shape[0]} x "
            f"{ITALY.coarse.shape[1]}, and no GeoTIFF says where these lie."
        )
    (height, width), (rows, columns) = static.grid.shape, coarse
    ratio = height // rows
    if ratio < 1 or (rows * ratio, columns * ratio) != (height, width):
        raise PublishedError(
            f"The GeoTIFFs of {folder} have {height} x {width} cells, which is no multiple of the {rows} x "
            f"{columns} cells of the predictors."
        )
    if static.grid == ITALY.fine and ratio == ITALY.ratio:
        return ITALY
    try:
        return Domain(folder.resolve().name or "published", static.grid, ratio)
    except DomainError as error:
        raise PublishedError(f"The grid of {folder} can't be used: {error}") from error


def _choose_targets(
    chosen: Sequence[Day], existing: Store | None, wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """(targets to write, notes)."""
    if strangers := [name for name in wanted or () if name not in TARGETS]:
        raise PublishedError(f"There is no target {', '.join(strangers)}; there are {', '.join(TARGETS)}.")
    if existing is not None:
        held = existing.contents.targets
        if wanted is not None and set(wanted) != set(held):
            raise PublishedError(
                f"{existing.path} holds {', '.join(held) or 'no truth'}, which is the same at every hour; "
                "make a "
                "new store for other targets."
            )
        wanted = held
    everywhere = [name for name in TARGETS if all(name in day.high for day in chosen)]
    if wanted is None:
        notes = []
        for name in TARGETS:
            lacking = [str(day.date) for day in chosen if name not in day.high]
            if 0 < len(lacking) < len(chosen):
                notes.append(f"{name} is left out of the truth, because {_few(lacking)} {_lack(lacking)} it.")
        return tuple(everywhere), notes
    if missing := [name for name in wanted if name not in everywhere]:
        lacking = [str(day.date) for day in chosen if missing[0] not in day.high]
        part = next(part for part, names in TRUTH_FILES.items() if missing[0] in names)
        raise PublishedError(
            f"{_few(lacking)} {_lack(lacking)} the truth of {missing[0]} (a file _high_{part}.pt.zst). Get "
            "it "
            "with `tramontana fetch`, or leave these days out."
        )
    return tuple(name for name in TARGETS if name in wanted), []


def _time_axis(
    chosen: Sequence[Day], scratch: Path
) -> tuple[dict[np.datetime64, tuple[Day, int]], dict[Day, str]]:
    """Where every time stamp is to be found, ascending; and days whose hours can't be told."""
    axis: dict[np.datetime64, tuple[Day, int]] = {}
    faults = {}
    for day in chosen:
        try:
            hours = hours_of(day, scratch)
        except PublishedError as error:
            faults[day] = str(error)
            continue
        for time, hour in hours.items():
            if time in axis:
                raise PublishedError(
                    f"{_show(time)} is given twice, by {axis[time][0].low} and by {day.low}."
                )
            axis[time] = day, hour
    return dict(sorted(axis.items())), faults


def _metadata_notes(metadata: bool, chosen: Sequence[Day]) -> list[str]:
    unlisted = [str(day.date) for day in chosen if day.listed is None]
    if not metadata or not unlisted:
        return []
    return [
        f"The lists of hours (metadata.csv) do not name {_few(unlisted)}; the hours are those of the files."
    ]


def _take_outlines(layout: Layout, out: Path) -> list[str]:
    """Put the outlines of a folder into the store, if it has none yet; says what became of them."""
    if not out.exists() or has_outlines(store := Store.open(out)):
        return []
    try:
        file = layout.file(BORDERS)
        if file is None:
            return []
        add_outlines(store, file)
    except (GeoJsonError, PublishedError) as error:
        return [f"{error} Maps show the outlines that ship."]
    return [f"Maps show the outlines of {file.name}."]


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class _Plan:
    """What is written, and how to take it back to SI units."""

    predictors: Mapping[str, MeanStd]
    targets: Mapping[str, MeanStd]
    domain: Domain
    fingerprint: str
    notes: tuple[str, ...]

    @classmethod
    def make(
        cls,
        predictors: Sequence[str],
        targets: Sequence[str],
        domain: Domain,
        normalization: Path,
        static: PublishedStatic,
    ) -> _Plan:
        published = read_published_statistics(normalization, predictors=predictors, targets=targets)
        groups, units = [], []
        for statistics in published:
            converted = {name: to_si(name, value) for name, value in statistics.items()}
            groups.append({name: value for name, (value, _) in converted.items()})
            units.append({name: unit for name, (_, unit) in converted.items()})
        digest = hashlib.sha256()
        described = [{name: value.model_dump() for name, value in group.items()} for group in groups]
        digest.update(json.dumps([FORMAT, domain.to_dict(), *described]).encode())
        for name, field in sorted((static.fields if static.fields is not None else xr.Dataset()).items()):
            digest.update(str(name).encode() + field.values.tobytes())
        sentences = [*published_units.notes(units[0]), *published_units.notes(units[1])]
        return cls(groups[0], groups[1], domain, digest.hexdigest(), tuple(dict.fromkeys(sentences)))


class _Run:
    """Reads days and writes shards; ``faults`` says by day why it could not be written."""

    def __init__(
        self,
        plan: _Plan,
        scratch: Path,
        axis: Mapping[np.datetime64, tuple[Day, int]],
        faults: dict[Day, str],
    ) -> None:
        self.plan = plan
        self.axis = axis
        self.faults = faults
        self.notes: list[str] = []
        self._scratch = scratch
        self._open: dict[Path, DayFile] = {}
        self._gaps: dict[str, int] = {}

    def write(
        self, out: Path, existing: Store | None, static: PublishedStatic, progress: Progress | None
    ) -> tuple[int, int]:
        """(hours written, hours that were there)."""
        stamps = np.array(list(self.axis), "datetime64[ns]")
        if not stamps.size:
            raise PublishedError(next(iter(self.faults.values()), "The days hold no hour."))
        store = existing or self._create(out, stamps, static)
        if existing is not None:
            self._extend(existing, stamps)
        there = np.isin(stamps, store.hours)
        missing, written = stamps[~there], 0
        for block in _shards(missing, np.sort(np.concatenate([store.hours, store.pending]))):
            hours, coarse, fine = self._read(block)
            if hours.size:
                store.write(hours, coarse, fine if self.plan.targets else None)
                written += hours.size
            if progress is not None:
                progress(int(np.searchsorted(missing, block[-1])) + 1, missing.size)
        self._close(())
        if existing is None and not written:
            shutil.rmtree(out)
        self.notes += [
            f"{name} has missing values at {counted(count, 'hour')}." for name, count in self._gaps.items()
        ]
        return written, int(there.sum())

    def _create(self, out: Path, stamps: Times, static: PublishedStatic) -> Store:
        domain = self.plan.domain
        sources = "ERA5 and COSMO-CLM" if self.plan.targets else "ERA5"
        return Store.create(
            out,
            domain,
            title=f"{sources} over {domain.name}, the published data set",
            source=(
                "data set of Tomasi, Franch and Cristoforetti: ERA5 interpolated to 16 km"
                + (", COSMO-CLM VHR-REA_IT at 2 km" if self.plan.targets else "")
            ),
            times=stamps,
            coarse=list(self.plan.predictors),
            fine=list(self.plan.targets),
            static=static.fields,
            synthetic=False,
            fingerprint=self.plan.fingerprint,
            attrs={
                "references": "doi:10.5194/gmd-18-2051-2025, doi:10.3390/data6080088",
                "acknowledgement": "Contains modified Copernicus Climate Change Service information",
                "published_statistics": {
                    group: {name: [value.mean, value.std] for name, value in given.items()}
                    for group, given in (("ERA5", self.plan.predictors), ("CMCC", self.plan.targets))
                },
            },
        )

    def _extend(self, store: Store, stamps: Times) -> None:
        """Plan the hours that a store lacks; refuse a store of something else."""
        if store.attrs.get("fingerprint") != self.plan.fingerprint:
            raise PublishedError(
                f"{store.path} was not made from files in the published layout with the same statistics, "
                "static "
                "fields and variables, so it can't be continued. Give another name with --out."
            )
        planned = np.concatenate([store.hours, store.pending])
        fresh = stamps[~np.isin(stamps, planned)]
        if fresh.size and planned.size and fresh[0] <= planned.max():
            raise PublishedError(
                f"{store.path} ends at {_show(planned.max())} and can only be continued with later hours, "
                "but "
                f"{_show(fresh[0])} is among those asked for. Make a new store from all days, or name later "
                "days."
            )
        store.plan(fresh)

    def _read(self, block: Times) -> tuple[Times, dict[str, Fields], dict[str, Fields]]:
        """(hours of a block that could be read, predictors, targets), (time, y, x) in SI units."""
        hours: list[np.datetime64] = []
        rows: dict[str, list[dict[str, Fields]]] = {"coarse": [], "fine": []}
        for time in block:
            day, hour = self.axis[time]
            if day in self.faults:
                continue
            try:
                coarse = {
                    name: self._field(day.low, hour, name, statistics, self.plan.domain.coarse.shape)
                    for name, statistics in self.plan.predictors.items()
                }
                fine = {
                    name: self._field(day.high[name], hour, name, statistics, self.plan.domain.fine.shape)
                    for name, statistics in self.plan.targets.items()
                }
            except PublishedError as error:
                self.faults[day] = str(error)
                continue
            hours.append(time)
            rows["coarse"].append(coarse)
            rows["fine"].append(fine)
        last, _ = self.axis[block[-1]]
        self._close((last.low, *last.high.values()))
        stacked = [
            {name: np.stack([row[name] for row in rows[group]]) for name in names} if hours else {}
            for group, names in (("coarse", self.plan.predictors), ("fine", self.plan.targets))
        ]
        return np.array(hours, "datetime64[ns]"), stacked[0], stacked[1]

    def _field(self, path: Path, hour: int, name: str, statistics: MeanStd, shape: tuple[int, int]) -> Fields:
        """A field in SI units. Raises PublishedError where it is missing, damaged or impossible."""
        if path not in self._open:
            self._open[path] = DayFile(path, self._scratch)
        published = VARIABLES[name].published_name
        normalised = self._open[path].field(hour, published)
        if normalised.shape != shape:
            raise PublishedError(
                f"{path}: {published} at hour {hour} has {normalised.shape[0]} x {normalised.shape[1]} "
                "cells, not "
                f"{shape[0]} x {shape[1]}."
            )
        if name == "sst":
            normalised = np.where(normalised == NO_SEA, np.nan, normalised)
        values = (normalised * statistics.std + statistics.mean).astype(np.float32)
        valid = values[~np.isnan(values)]
        if valid.size < values.size and name != "sst":
            self._gaps[name] = self._gaps.get(name, 0) + 1
        low, high = VARIABLES[name].valid_range
        if valid.size and (valid.min() < low or valid.max() > high):
            raise PublishedError(
                f"{path}: {published} at hour {hour} would range from {valid.min():g} to {valid.max():g} "
                f"{VARIABLES[name].units}; possible values are {low:g} to {high:g}. Does {NORMALIZATION} "
                "belong "
                "to these days?"
            )
        return values

    def _close(self, keep: Iterable[Path]) -> None:
        """Remove what was unpacked of other days."""
        kept = set(keep)
        for path in [path for path in self._open if path not in kept]:
            self._open.pop(path).close()


def _shards(stamps: Times, planned: Times) -> Iterator[Times]:
    """The stamps in groups that lie in the same shard of a store with these planned hours."""
    shard = np.searchsorted(planned, stamps) // HOURS_PER_SHARD
    for number in np.unique(shard):
        yield stamps[shard == number]


# ---------------------------------------------------------------- words


def _fault_sentence(faults: Mapping[Day, str], report: tuple[int, int], out: Path) -> str:
    listed = list(faults.values())
    more = f" And {len(listed) - _MOST_NAMED} more." if len(listed) > _MOST_NAMED else ""
    kept = sum(report)
    done = (
        f" The other {counted(kept, 'hour')} {are(kept)} in {out}; the same command adds what is missing."
        if kept
        else ""
    )
    return (
        f"{counted(len(faults), 'day')} could not be written completely. "
        + " ".join(listed[:_MOST_NAMED])
        + more
        + done
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _lack(names: Sequence[str]) -> str:
    return "lacks" if len(names) == 1 else "lack"


def _show(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='m').replace('T', ' ')} UTC"
