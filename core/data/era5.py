"""ERA5 into a store: files of any area and any subset of the predictors, regridded to the coarse grid.

Files are NetCDF, GRIB or Zarr, also over a network; forecasts of other models come the same way
(:mod:`core.data.era5_files` says what is understood).

States are interpolated bilinearly and sums over the past hour (precipitation, radiation) are averaged
conservatively (:mod:`core.data.regrid`); winds stay earth-relative. Where several files hold the same
variable at the same hour, the file named first counts and later ones fill the cells that it does not cover.
Cells that no file covers are NaN.

ERA5's hourly sums end at the time stamp. ERA5-Land instead accumulates from 00 UTC; this is recognised by
values that hardly ever fall in the course of a day and start again the next, and is turned into sums of the
past hour. Data at every third hour keep their meaning: each value is the sum of the hour before its stamp.
(ECMWF, "Conversion table for accumulated variables", Copernicus Knowledge Base.) Forecasts accumulate from
their start; GRIB says so, for NetCDF the user does (:mod:`core.data.merging`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from core.data.era5_files import Era5Error, FileContent, Options, Series, Times, members, open_files
from core.data.merging import (
    Accumulation,
    Fields,
    Merged,
    Regridders,
    blocks,
    choose_hours,
    merge,
    show_time,
)
from core.data.staging import staged
from core.data.store import Store
from core.data.zarr_source import is_zarr, name_of
from core.domain import ITALY, Domain
from core.plural import are, counted
from core.variables import PREDICTORS

__all__ = ["Era5Error", "FileSummary", "IngestReport", "ingest", "ingest_members", "inspect"]

Progress = Callable[[int, int], None]

ERA5 = "ERA5"
ACKNOWLEDGEMENT = "Contains modified Copernicus Climate Change Service information"


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
        span = "" if self.first is None else f" from {show_time(self.first)} to {show_time(self.last)}"
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
                "No coarse orography: add a file with the surface geopotential (z) of the model that these "
                "fields come from for lapse-rate interpolation."
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
    accumulation: Accumulation = "detect",
    assume_850: bool = False,
    number: int | None = None,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    source: str | None = None,
    anonymous: bool = False,
) -> IngestReport:
    """Regrid ERA5 files to the coarse grid of ``domain`` and write them to a store.

    Parameters
    ----------
    files : NetCDF or GRIB files, or zip archives of them as the Climate Data Store delivers, or Zarr stores
        (folders, or addresses as strings); a file with the surface geopotential ``z`` gives the coarse
        orography
    out : store to make; with ``append`` one to add later hours to, if it exists
    static : fields of the fine grid for a new store, for Italy ``load_italy_static()``
    progress : called with (hours done, hours in all)
    hours : "common" writes the hours at which every variable has data; "all" the union, NaN where missing
    accumulation : whether precipitation and radiation are sums of the past hour, since 00 UTC, or since the
        start of the forecast; "detect" takes what the files say, and notices sums since 00 UTC
    assume_850 : take q, t, u, v, w without a pressure level for 850 hPa
    number : ensemble member to take (dimension ``number``), kept in the root attribute ``coarse_member``
    start, end : hours wanted, both included; by default all
    source : what the data are, for the attributes of the store, by default what GRIB files say, or ERA5
    anonymous : read cloud storage without credentials

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
    options = Options(assume_850=assume_850, number=number, start=start, end=end, anonymous=anonymous)
    with open_files(files, options) as contents:
        made_by = source or _centre(contents) or ERA5
        notes = [note for content in contents for note in content.notes]
        notes += _ignored(contents)
        merged = merge(contents, PREDICTORS, Regridders(domain.coarse, domain.name), accumulation)
        if not merged:
            raise Era5Error(
                f"{contents[0].label} holds constant fields only; name files with some of "
                f"{', '.join(PREDICTORS)} as well."
            )
        orography = _orography(contents, domain)
        notes += _foreign_orography(contents)
        for predictor in merged:
            notes += predictor.notes()
        stamps, more = choose_hours(merged, hours)
        notes += more
        stamps = _within(stamps, start, end)
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
                lambda place: Store.create(
                    place,
                    domain,
                    title=f"{made_by} on the coarse grid of {domain.name}",
                    source=_source(files, made_by),
                    times=stamps,
                    coarse=[predictor.name for predictor in merged],
                    static=static if existing is None else None,
                    coarse_orography=orography if existing is None else None,
                    synthetic=False,
                    fingerprint=_fingerprint(
                        files, domain, (hours, accumulation, assume_850, number, str(start), str(end))
                    ),
                    attrs={
                        "regridding": "bilinear; precipitation and radiation conservative",
                        **({"acknowledgement": ACKNOWLEDGEMENT} if made_by == ERA5 else {}),
                        **({} if number is None else {"coarse_member": number}),
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


def ingest_members(
    files: Sequence[str | Path],
    out: str | Path,
    domain: Domain = ITALY,
    *,
    progress: Progress | None = None,
    append: bool = False,
    anonymous: bool = False,
    **options: Any,
) -> tuple[IngestReport, ...]:
    """As :func:`ingest`, each ensemble member into a store of its own: out.zarr becomes out-00.zarr, ...

    Progress counts the hours of all members. Stores of members that were finished before something went wrong
    stay, and all names are checked to be free before anything is read, unless ``append``.

    Raises Era5Error as :func:`ingest` does, and where the files hold no members.
    """
    out = Path(out)
    numbers = members(files, Options(anonymous=anonymous))
    if not numbers:
        raise Era5Error(
            f"{', '.join(map(name_of, files[:3]))} hold no ensemble members (no coordinate number); ingest "
            "them as they are."
        )
    names = {number: out.with_name(f"{out.stem}-{number:02d}{out.suffix}") for number in numbers}
    taken = [str(path) for path in names.values() if path.exists()]
    if taken and not append:
        raise Era5Error(f"{taken[0]} exists already; append to it, give another name, or delete it.")

    def count(before: int) -> Progress | None:
        if progress is None:
            return None
        return lambda done, total: progress(before * total + done, total * len(names))

    return tuple(
        ingest(
            files,
            path,
            domain,
            number=number,
            progress=count(position),
            append=append,
            anonymous=anonymous,
            **options,
        )
        for position, (number, path) in enumerate(names.items())
    )


def _within(stamps: Times, start: np.datetime64 | None, end: np.datetime64 | None) -> Times:
    """The time stamps from ``start`` to ``end``. Raises Era5Error where there are none."""
    kept = stamps
    if start is not None:
        kept = kept[kept >= start]
    if end is not None:
        kept = kept[kept <= end]
    if stamps.size and not kept.size:
        raise Era5Error(
            f"The files have no hour of those wanted; they have {show_time(stamps[0])} to "
            f"{show_time(stamps[-1])}."
        )
    return kept


def _foreign_orography(contents: Sequence[FileContent]) -> list[str]:
    """A sentence where the height of the surface has another spacing than the temperature."""
    heights = [content.orography for content in contents if content.orography is not None]
    fields = [series for content in contents for series in content.series if series.predictor == "t2m"]
    if not heights or not fields:
        return []
    height, own, wanted = heights[0], _spacing(heights[0]), _spacing(fields[0])
    if own is None or wanted is None or np.isclose(own, wanted, rtol=0.02):
        return []
    return [
        f"{height.label}: the height of the surface has a spacing of {own:.3g} degrees, the temperature "
        f"one of {wanted:.3g}, so they may be of different models; lapse-rate interpolation needs the height "
        "of the model itself."
    ]


def _spacing(series: Series) -> float | None:
    """Distance of neighbouring latitudes [degree]; None where they are no axis."""
    if series.latitude.ndim != 1 or series.latitude.size < 2:
        return None
    return float(np.median(np.abs(np.diff(series.latitude))))


def _orography(contents: Sequence[FileContent], domain: Domain) -> Fields | None:
    """Height of the model's surface on the coarse grid [m], interpolated like the temperature."""
    regridders = Regridders(domain.coarse, domain.name)
    height: Fields | None = None
    for content in contents:
        if content.orography is not None:
            regridder = regridders.get(content.orography)
            found = regridder(content.orography.read_constant(regridder.rows, regridder.columns))
            height = found if height is None else np.where(np.isnan(height), found, height)
    return height


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


def _not_yet_written(store: Store, merged: Sequence[Merged], stamps: Times) -> tuple[Times, list[str]]:
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
            f"{store.path} ends at {show_time(planned.max())} and can only be continued with later hours, "
            f"but the files also have {show_time(fresh[0])}; make a new store from all files."
        )
    missing = stamps[~np.isin(stamps, store.hours)]
    skipped = stamps.size - missing.size
    return missing, [
        f"{counted(skipped, 'hour')} {are(skipped)} in {store.path} already and left as before."
    ] if skipped else []


def _write(
    out: Path,
    existing: Store | None,
    merged: Sequence[Merged],
    stamps: Times,
    progress: Progress | None,
    create: Callable[[Path], Store],
) -> list[str]:
    """Build the store under a temporary name, then move it into place or append it to ``existing``."""
    empty = dict.fromkeys((predictor.name for predictor in merged), 0)
    try:
        with staged(out) as place:
            store = create(place)
            for block in blocks(stamps):
                fields = {predictor.name: predictor.read(block) for predictor in merged}
                for name, values in fields.items():
                    empty[name] += int(np.isnan(values).all(axis=(1, 2)).sum())
                store.write(block, fields)
                if progress is not None:
                    progress(int(np.searchsorted(stamps, block[-1])) + 1, stamps.size)
            if existing is None:
                place.rename(out)
            else:
                _append(existing, store, stamps)
    except OSError as error:
        raise Era5Error(f"{out} can't be written: {error.strerror or error}.") from error
    return [
        f"{name} has no value at {count} of {counted(stamps.size, 'hour')}."
        for name, count in empty.items()
        if count and name != "sst"
    ]


def _append(existing: Store, store: Store, stamps: Times) -> None:
    now = Store.open(existing.path)
    if not np.array_equal(now.hours, existing.hours) or not np.array_equal(now.pending, existing.pending):
        raise Era5Error(f"Hours were added to {existing.path} meanwhile; repeat the command.")
    existing.plan(stamps[~np.isin(stamps, existing.pending)])
    for block in blocks(stamps):
        existing.write(block, store.read_coarse(block))


def _fingerprint(files: Sequence[str | Path], domain: Domain, options: tuple[object, ...]) -> str:
    """Hash of the files (size, first and last MiB) and of everything that shapes the result."""
    digest = hashlib.sha256(json.dumps([1, domain.to_dict(), options]).encode())
    for file in files:
        if is_zarr(file):
            # Of a store, which may be larger than any disk, the name stands for the content.
            digest.update(name_of(file).encode())
            continue
        with Path(file).open("rb") as opened:
            size = opened.seek(0, 2)
            digest.update(str(size).encode())
            for start in (0, max(size - (1 << 20), 0)):
                opened.seek(start)
                digest.update(opened.read(1 << 20))
    return digest.hexdigest()


# ---------------------------------------------------------------- words


def _source(files: Sequence[str | Path], made_by: str) -> str:
    names = [name_of(file) if is_zarr(file) else Path(file).name for file in files]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    kind = "ERA5 hourly data on single and pressure levels" if made_by == ERA5 else made_by
    return f"{kind}: {', '.join(names[:6])}{more}"


def _centre(contents: Sequence[FileContent]) -> str | None:
    """The weather service that all GRIB files are from, None for ECMWF, which makes ERA5."""
    centres = {content.centre for content in contents if content.centre}
    if not centres or any("European Centre" in centre for centre in centres):
        return None
    return " and ".join(sorted(centres))


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
        area=all_series[0].area,
        notes=content.notes,
    )
