"""Fields of a fine model as truth: added to a store that holds the coarse hours, as a new store.

The model's grid may be rotated (COSMO-CLM, as in VHR-REA_IT) or a regular longitude/latitude grid.
Temperature and winds are interpolated bilinearly: at grid spacings so alike, the mean over a cell would
smooth what the model resolves. Precipitation is averaged conservatively, so that no rain is lost or made.
Winds relative to the model's grid are interpolated as they are and turned at each cell of the store to point
east and north.
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
from numpy.typing import NDArray

from core.data.era5_files import Era5Error, FileContent, Options, Times, open_files
from core.data.merging import Accumulation, Fields, Merged, Regridders, blocks, choose_hours, merge, show_time
from core.data.staging import staged
from core.data.store import Store
from core.data.zarr_source import is_zarr, name_of
from core.domain import Grid
from core.plural import are, counted
from core.variables import TARGETS

Winds = Literal["stated", "grid", "earth"]
Progress = Callable[[int, int], None]

REGRIDDING = "bilinear in the coordinates of the source; precipitation conservative"


@dataclass(frozen=True)
class FineReport:
    """What :func:`ingest_fine` wrote.

    Attributes
    ----------
    store : where
    files : what was read
    hours, first, last : complete hours
    targets : of the fine variables
    coverage : for each target the share of fine cells within the area of the files, 0 to 1
    notes : sentences about everything that was assumed, ignored or left out
    """

    store: Path
    files: tuple[str, ...]
    hours: int
    first: np.datetime64
    last: np.datetime64
    targets: tuple[str, ...]
    coverage: Mapping[str, float]
    notes: tuple[str, ...]

    def sentences(self) -> list[str]:
        """The report for people, a sentence each."""
        return [
            f"{counted(self.hours, 'hour')} of fine fields from {show_time(self.first)} to "
            f"{show_time(self.last)} from {counted(len(self.files), 'file')} written to {self.store}.",
            *(
                f"{name}: {100 * share:.1f} % of the fine cells are covered."
                for name, share in self.coverage.items()
            ),
            *self.notes,
        ]


def ingest_fine(
    files: Sequence[str | Path],
    store: str | Path,
    out: str | Path,
    *,
    winds: Winds = "stated",
    accumulation: Accumulation = "detect",
    number: int | None = None,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    source: str = "Fine model",
    progress: Progress | None = None,
) -> FineReport:
    """Regrid fields of a fine model to the fine grid of a store and write both to a new store.

    Parameters
    ----------
    files : NetCDF (CF), GRIB or Zarr with some of 2-metre temperature, 10-metre winds and precipitation
    store : a store with the coarse hours; it is not changed
    out : store to make, with the coarse hours that have fine fields
    winds : whether wind components are relative to the model's grid or to Earth, where the files don't say;
        files that say the contrary are refused
    accumulation : as for :func:`core.data.era5.ingest`
    number, start, end : ensemble member and hours to take
    source : what the fine data are, for the attributes of the store
    progress : called with (hours done, hours in all)

    Raises
    ------
    Era5Error
        where a file can't be used, no hour is in both, or ``out`` exists.
    StoreError
        where ``store`` is none.
    """
    out = Path(out)
    coarse = Store.open(store)
    if out.exists():
        raise Era5Error(f"{out} exists already; give another name, or delete it.")
    if coarse.contents.targets:
        raise Era5Error(f"{coarse.path} holds fine truth already; name a store with the coarse hours only.")
    if coarse.attrs.get("synthetic"):
        raise Era5Error(
            f"{coarse.path} holds synthetic weather; real truth belongs beside real coarse fields."
        )
    domain = coarse.domain
    with open_files(files, Options(number=number, start=start, end=end, fine=True)) as contents:
        merged = merge(contents, TARGETS, Regridders(domain.fine, domain.name), accumulation)
        if not merged:
            raise Era5Error(
                f"{contents[0].label} holds constant fields only; name files with some of "
                f"{', '.join(TARGETS)}."
            )
        turn = _turning(merged, domain.fine, winds)
        notes = [note for content in contents for note in content.notes]
        for variable in merged:
            notes += variable.notes()
        stamps, more = _hours(merged, coarse, start, end)
        notes += more
        if turn is not None:
            notes.append(
                "Winds are relative to the grid of the files and were turned to point east and north."
            )
        shaped = (winds, accumulation, number, str(start), str(end))
        attributes = _attributes(coarse, contents, files, source, shaped)
        _write(out, coarse, merged, turn, stamps, progress, attributes)
        coverage = {variable.name: variable.coverage(stamps) for variable in merged}
        notes += [
            f"{name} is missing in cells outside the files." for name, share in coverage.items() if share < 1
        ]
        return FineReport(
            store=out,
            files=tuple(content.label for content in contents),
            hours=int(stamps.size),
            first=stamps[0],
            last=stamps[-1],
            targets=tuple(variable.name for variable in merged),
            coverage=coverage,
            notes=tuple(dict.fromkeys(notes)),
        )


def _hours(
    merged: Sequence[Merged], coarse: Store, start: np.datetime64 | None, end: np.datetime64 | None
) -> tuple[Times, list[str]]:
    """(hours that files and store have, notes). Raises Era5Error where there are none."""
    given, notes = choose_hours(merged, "common")
    wanted = coarse.hours
    if start is not None:
        wanted = wanted[wanted >= start]
    if end is not None:
        wanted = wanted[wanted <= end]
    both: Times = np.intersect1d(given, wanted)
    if both.size == 0:
        span = f"{show_time(wanted[0])} to {show_time(wanted[-1])}" if wanted.size else "none of those wanted"
        raise Era5Error(
            f"The files and {coarse.path} have no hour in common: the files have {show_time(given[0])} to "
            f"{show_time(given[-1])}, the store {span}."
        )
    lost = wanted.size - both.size
    if lost:
        notes.append(
            f"{lost} of {counted(wanted.size, 'coarse hour')} {are(lost)} left out, because the files have "
            "no fine fields then."
        )
    return both, notes


def _turning(merged: Sequence[Merged], grid: Grid, winds: Winds) -> NDArray[np.float64] | None:
    """Matrices (H, W, 2, 2) that turn (u10, v10) to east and north, None where they point there already.

    Raises Era5Error where the files don't say, disagree with ``winds`` or with each other, or hold one
    component only.
    """
    parts = [part for variable in merged if variable.name in ("u10", "v10") for part in variable.parts]
    to_turn = set()
    for part in parts:
        series = part.series
        relative = series.grid_winds
        if series.pole is None:
            # Along parallels and meridians both are the same.
            relative = False
        elif winds != "stated" and relative not in (None, winds == "grid"):
            raise Era5Error(
                f"{series.label}: {series.name} is relative to "
                f"{'its rotated grid' if relative else 'Earth'}, as the file says, and winds says {winds!r}. "
                "Leave winds out, or correct the file (its standard_name, or the flag in GRIB)."
            )
        elif relative is None and winds != "stated":
            relative = winds == "grid"
        if relative is None:
            raise Era5Error(
                f"{series.label}: whether {series.name} is relative to its rotated grid or to Earth is not "
                "stated (standard_name grid_eastward_wind or eastward_wind); say which with winds."
            )
        to_turn.add(series.pole if relative else None)
    if to_turn <= {None}:
        return None
    if len(to_turn) > 1:
        raise Era5Error(
            "The winds of the files are relative to different grids; ingest them into separate stores."
        )
    names = {variable.name for variable in merged}
    if not {"u10", "v10"} <= names:
        raise Era5Error(
            f"{parts[0].series.label}: {parts[0].series.name} is relative to the grid, so both components "
            "are needed to turn it; add the file with the other one."
        )
    pole = to_turn.pop()
    assert pole is not None
    return pole.to_earth(grid.longitude, grid.latitude)


def _read(merged: Sequence[Merged], turn: NDArray[np.float64] | None, stamps: Times) -> dict[str, Fields]:
    fields = {variable.name: variable.read(stamps) for variable in merged}
    if turn is not None:
        u, v = fields["u10"], fields["v10"]
        for name, row in (("u10", 0), ("v10", 1)):
            fields[name] = (turn[..., row, 0] * u + turn[..., row, 1] * v).astype(np.float32)
    return fields


def _write(
    out: Path,
    coarse: Store,
    merged: Sequence[Merged],
    turn: NDArray[np.float64] | None,
    stamps: Times,
    progress: Progress | None,
    attributes: Mapping[str, Any],
) -> None:
    """Build the store under a temporary name, then move it into place."""
    try:
        with staged(out) as place:
            first = coarse.read_coarse(stamps[:1])
            written = Store.create(
                place,
                coarse.domain,
                times=stamps,
                coarse=coarse.contents.predictors,
                fine=[variable.name for variable in merged],
                static=_static(coarse),
                coarse_orography=first["orography"].values if "orography" in first else None,
                synthetic=False,
                **attributes,
            )
            for block in blocks(stamps):
                predictors = coarse.read_coarse(block, coarse.contents.predictors)
                written.write(block, predictors, _read(merged, turn, block))
                if progress is not None:
                    progress(int(np.searchsorted(stamps, block[-1])) + 1, stamps.size)
            place.rename(out)
    except OSError as error:
        raise Era5Error(f"{out} can't be written: {error.strerror or error}.") from error


def _static(coarse: Store) -> xr.Dataset | None:
    return coarse.read_static() if coarse.contents.statics else None


def _attributes(
    coarse: Store,
    contents: Sequence[FileContent],
    files: Sequence[str | Path],
    source: str,
    shaped: tuple[object, ...],
) -> dict[str, Any]:
    """Title, source, fingerprint and further attributes of the store with both.

    The fingerprint is that of the coarse fields, the files (name, size, first and last MiB) and the options
    that ``shaped`` the fine fields.
    """
    names = [name_of(file) if is_zarr(file) else Path(file).name for file in files]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    made_by = next((content.centre for content in contents if content.centre), None)
    digest = hashlib.sha256(json.dumps([str(coarse.attrs.get("fingerprint")), names, shaped]).encode())
    for file in files:
        if not is_zarr(file):
            with Path(file).open("rb") as opened:
                size = opened.seek(0, 2)
                digest.update(str(size).encode())
                for first in (0, max(size - (1 << 20), 0)):
                    opened.seek(first)
                    digest.update(opened.read(1 << 20))
    kept = ("acknowledgement", "regridding", "coarse_member")
    return {
        "title": f"{source} beside {coarse.attrs.get('title', 'coarse fields')}",
        "source": f"{coarse.attrs.get('source', '')}; {source}{f' ({made_by})' if made_by else ''}: "
        f"{', '.join(names[:6])}{more}",
        "fingerprint": digest.hexdigest(),
        "attrs": {name: coarse.attrs[name] for name in kept if name in coarse.attrs}
        | {"fine_regridding": REGRIDDING},
    }
