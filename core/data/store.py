"""The store: one Zarr hierarchy that holds everything a downscaler reads and is judged by.

    /coarse   predictors (time, y, x) on the coarse grid, orography (y, x), written (time)
    /fine     targets (time, y, x) on the fine grid; absent where there is no truth
    /static   orography, land_cover, latitude, land_fraction on the fine grid; may be absent

The time axis is planned first and filled afterwards: ``/coarse/written`` says hour by hour what is complete,
so an interrupted writer resumes where it stopped, several writers may fill different days at once, and a
reader never sees half an hour of weather. Chunks hold one hour and shards 24, and a shard is the unit of
writing. Every file is written under a temporary name and renamed, by Zarr for chunks and here for
a new store. Opens with :func:`xarray.open_datatree` (CF-1.11 attributes, grid mapping in ``spatial_ref``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import xarray as xr
import zarr
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS
from zarr.codecs import BloscCodec

from core import __version__
from core.domain import Domain, DomainError, Grid
from core.plural import are, counted
from core.variables import PREDICTORS, STATICS, TARGETS, VARIABLES

FORMAT_VERSION = 1
HOURS_PER_SHARD = 24
MOST_COARSE_MEMBERS = 2**32
HOWTO = "Make one with `tramontana demo`, or from your own files with `tramontana ingest era5`."

Times = NDArray[np.datetime64]


class StoreError(ValueError):
    """A store that can't be used as asked; the message names the store, the fault and the way out."""


@dataclass(frozen=True)
class Contents:
    """What a store holds and lacks; downscalers decide from it whether they can run.

    ``hours`` counts complete hours, ``pending`` planned hours that are not written yet, ``unknown`` names
    variables that the table of :mod:`core.variables` does not have (they are ignored).
    """

    hours: int
    first: np.datetime64 | None
    last: np.datetime64 | None
    pending: int
    predictors: tuple[str, ...]
    missing_predictors: tuple[str, ...]
    targets: tuple[str, ...]
    statics: tuple[str, ...]
    coarse_orography: bool
    unknown: tuple[str, ...]

    def sentences(self) -> list[str]:
        """The same for people, a sentence each."""
        if self.first is None:
            lines = ["No hour is complete yet."]
        else:
            lines = [f"{counted(self.hours, 'hour')} from {_show(self.first)} to {_show(self.last)}."]
        if self.pending:
            lines.append(
                f"{counted(self.pending, 'planned hour')} {are(self.pending)} not written yet; run the "
                "command that made it again."
            )
        if self.missing_predictors:
            lines.append(f"Missing predictors: {', '.join(self.missing_predictors)}.")
        lines.append(
            f"Truth: {', '.join(self.targets)}."
            if self.targets
            else "No fine truth: scores are not possible."
        )
        missing_statics = [name for name in STATICS if name not in self.statics]
        if missing_statics:
            lines.append(f"Missing static fields: {', '.join(missing_statics)}.")
        if not self.coarse_orography:
            lines.append("No coarse orography.")
        if self.unknown:
            lines.append(f"Ignored unknown variables: {', '.join(self.unknown)}.")
        return lines


def _show(time: np.datetime64 | None) -> str:
    return "never" if time is None else f"{np.datetime_as_string(time, unit='m').replace('T', ' ')} UTC"


def _history_line(what: str) -> str:
    """A line of the attribute ``history`` (CF-1.11, section 2.6.2): when, what and by which program."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {what} by tramontana {__version__}"


def as_times(values: ArrayLike | str) -> Times:
    """One time stamp or many as a 1-D datetime64[ns] array (UTC)."""
    return np.atleast_1d(np.asarray(values, dtype="datetime64[ns]"))


class Store:
    """An open store. Use :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, root: zarr.Group, domain: Domain) -> None:
        self.path = path
        self.domain = domain
        self.attrs: dict[str, Any] = dict(root.attrs)
        self._root = root
        self._static: xr.Dataset | None = None
        self._load_index()

    # ---------------------------------------------------------------- making and opening

    @classmethod
    def create(
        cls,
        path: str | Path,
        domain: Domain,
        *,
        title: str,
        source: str,
        times: ArrayLike,
        coarse: Sequence[str],
        fine: Sequence[str] = (),
        static: xr.Dataset | None = None,
        coarse_orography: ArrayLike | None = None,
        synthetic: bool,
        fingerprint: str,
        attrs: Mapping[str, Any] | None = None,
    ) -> Store:
        """Make a store with a planned time axis and no hour written.

        Parameters
        ----------
        times : strictly increasing time stamps (UTC) that :meth:`write` may fill
        coarse, fine : short names of the predictors and targets it will hold
        static : dataset with variables of ``STATICS`` on the fine grid
        coarse_orography : height of the coarse model's surface [m], shape (h, w)
        synthetic : whether the weather was invented by a program
        fingerprint : hash of all parameters that define the content; a resumed writer compares it
        attrs : further JSON attributes

        Raises
        ------
        StoreError
            if something is already there, a name is unknown, or a field does not fit the domain.
        """
        path = Path(path)
        if path.exists():
            raise StoreError(f"{path} exists already; give another name, delete it, or open it to append.")
        for group, names, allowed in (("coarse", coarse, PREDICTORS), ("fine", fine, TARGETS)):
            strangers = [name for name in names if name not in allowed]
            if strangers or not (names or group == "fine"):
                raise StoreError(
                    f"The {group} variables must be some of {', '.join(allowed)}; "
                    f"got {', '.join(names) or 'none'}."
                )
        stamps = as_times(times)
        _check_increasing(stamps, after=None)

        # A leading dot and a suffix that no command takes for a store.
        temporary = path.with_name(f".{path.name}.partial")
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            root = zarr.create_group(str(temporary), zarr_format=3)
            root.attrs.update(
                {
                    **(attrs or {}),
                    "Conventions": "CF-1.11",
                    "title": title,
                    "source": source,
                    "history": _history_line("created"),
                    "synthetic": bool(synthetic),
                    "fingerprint": fingerprint,
                    "domain": domain.to_dict(),
                    "tramontana_store": FORMAT_VERSION,
                }
            )
            _create_group(root, "coarse", domain.coarse, coarse, stamps)
            node = _group(root, "coarse")
            _create_array(node, "written", (stamps.size,), "bool", ("time",), (HOURS_PER_SHARD,), fill=False)
            node["written"].attrs.update({"long_name": "whether the hour is complete"})
            if coarse_orography is not None:
                orography = np.asarray(coarse_orography, np.float32)
                if orography.shape != domain.coarse.shape:
                    raise StoreError(
                        f"The coarse orography has the shape {orography.shape}, "
                        f"the coarse grid {domain.coarse.shape}."
                    )
                _create_array(node, "orography", orography.shape, "float32", ("y", "x"), orography.shape)
                node["orography"].attrs.update(
                    {**VARIABLES["orography"].attrs, "grid_mapping": "spatial_ref"}
                )
                _array(node, "orography")[...] = orography
            if fine:
                _create_group(root, "fine", domain.fine, fine, stamps)
            if static is not None:
                _write_static(temporary, domain, static)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return cls.open(path, mode="a")

    @classmethod
    def open(cls, path: str | Path, *, mode: Literal["r", "a"] = "r") -> Store:
        """Open for reading ("r") or for writing and appending ("a").

        Opening for appending also mends what an interrupted :meth:`plan` left: arrays longer than the
        record of hours are cut back.

        Raises StoreError where there is no store, the folder is something else, or its parts disagree.
        """
        path = Path(path)
        if not path.exists():
            raise StoreError(f"There is no store at {path}. {HOWTO}")
        try:
            root = zarr.open_group(str(path), mode="r" if mode == "r" else "r+", use_consolidated=False)
            attrs = dict(root.attrs)
        except Exception as error:
            raise StoreError(f"{path} is not a store (no readable Zarr group). {HOWTO}") from error
        version = attrs.get("tramontana_store")
        if version is None:
            raise StoreError(f"{path} is a Zarr group, but not a Tramontana store. {HOWTO}")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise StoreError(
                f"{path} has the store format {version}; this version reads up to {FORMAT_VERSION}. "
                "Update Tramontana."
            )
        try:
            domain = Domain.from_dict(cast(Mapping[str, Any], attrs["domain"]))
        except (KeyError, DomainError, ValueError, TypeError) as error:
            raise StoreError(f"{path} does not describe its domain: {error} Make the store again.") from error
        store = cls(path, root, domain)
        if mode == "a":
            store._trim()
        return store

    # ---------------------------------------------------------------- what is there

    @property
    def coarse_member(self) -> int | None:
        """The number of the coarse member that this store holds of an ensemble forecast; None otherwise.

        From the root attribute ``coarse_member``. Raises StoreError where that is no such number.
        """
        number = self.attrs.get("coarse_member")
        if number is None:
            return None
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MOST_COARSE_MEMBERS:
            raise StoreError(
                f"{self.path} has the coarse member {number!r}; it must be a whole number from 0. "
                "Make the store again."
            )
        return number

    def _load_index(self) -> None:
        names = set(self._root.group_keys())
        if "coarse" not in names:
            raise StoreError(
                f"{self.path} has no /coarse group, so nothing to downscale; make the store again."
            )
        coarse = _group(self._root, "coarse")
        try:
            written = np.asarray(_array(coarse, "written")[...], dtype=bool)
            planned = _read_times(coarse)[: written.size]
        except (KeyError, ValueError) as error:
            raise StoreError(f"{self.path} lacks its time axis or record of hours; make it again.") from error
        if planned.size < written.size:
            raise StoreError(f"{self.path} has fewer time stamps than recorded hours; make it again.")
        # One object, replaced at once: threads that read while another refreshes never see half of it.
        self._axis = (planned, written)
        self._variables: dict[str, tuple[str, ...]] = {
            group: _data_names(self._root, group) for group in ("coarse", "fine") if group in names
        }
        # Kept, since each array would be looked up on disk: a page asks for every control that it draws.
        self._timed: dict[str, tuple[str, ...]] = {
            group: self._check_shapes(group, grid)
            for group, grid in (("coarse", self.domain.coarse), ("fine", self.domain.fine))
            if group in names
        }

    def _check_shapes(self, group: str, grid: Grid) -> tuple[str, ...]:
        """The variables of a group that have a value for each hour."""
        node = _group(self._root, group)
        timed = []
        for name in self._variables[group]:
            array = _array(node, name)
            if array.ndim == 3:
                timed.append(name)
            expected = grid.shape if array.ndim == 2 else (self._planned.size, *grid.shape)
            too_short = array.ndim == 3 and array.shape[0] < self._planned.size
            if array.ndim not in (2, 3) or array.shape[-2:] != grid.shape or too_short:
                raise StoreError(
                    f"/{group}/{name} in {self.path} has the shape {array.shape} instead of {expected}; "
                    "make it again."
                )
        return tuple(timed)

    def _trim(self) -> None:
        """Cut arrays back to the record of hours, after a :meth:`plan` that was interrupted."""
        size = self._planned.size
        for group in self._variables:
            node = _group(self._root, group)
            for name in (*self._timed[group], "time"):
                array = _array(node, name)
                if array.shape[0] != size:
                    array.resize((size, *array.shape[1:]))

    @property
    def _planned(self) -> Times:
        return self._axis[0]

    @property
    def _written(self) -> NDArray[np.bool_]:
        return self._axis[1]

    @property
    def hours(self) -> Times:
        """Complete hours, ascending, datetime64[ns] in UTC."""
        planned, written = self._axis
        hours: Times = planned[written]
        return hours

    @property
    def pending(self) -> Times:
        """Planned hours that are not complete yet."""
        planned, written = self._axis
        hours: Times = planned[~written]
        return hours

    @property
    def contents(self) -> Contents:
        """What is there and what is missing."""
        hours = self.hours
        coarse = self._timed["coarse"]
        fine = self._timed.get("fine", ())
        statics = _data_names(self._root, "static") if "static" in set(self._root.group_keys()) else ()
        unknown = [
            f"/{group}/{name}"
            for group, names, known in (
                ("coarse", coarse, PREDICTORS),
                ("fine", fine, TARGETS),
                ("static", statics, STATICS),
            )
            for name in names
            if name not in known
        ]
        return Contents(
            hours=hours.size,
            first=hours[0] if hours.size else None,
            last=hours[-1] if hours.size else None,
            pending=int(self.pending.size),
            predictors=tuple(name for name in PREDICTORS if name in coarse),
            missing_predictors=tuple(name for name in PREDICTORS if name not in coarse),
            targets=tuple(name for name in TARGETS if name in fine),
            statics=tuple(name for name in STATICS if name in statics),
            coarse_orography="orography" in self._variables["coarse"],
            unknown=tuple(unknown),
        )

    def refresh(self) -> bool:
        """Look again at what is written; True where hours or variables were added since."""
        before = (self._planned.size, int(self._written.sum()), self._variables)
        fresh = Store.open(self.path)
        self._root, self.attrs = fresh._root, fresh.attrs
        self._axis = fresh._axis
        self._variables, self._timed = fresh._variables, fresh._timed
        return before != (self._planned.size, int(self._written.sum()), self._variables)

    # ---------------------------------------------------------------- writing

    def plan(self, times: ArrayLike) -> None:
        """Append time stamps, all later than those planned so far, for :meth:`write` to fill.

        The attribute ``history`` gets a line that says when and what. Raises StoreError where the stamps are
        not strictly increasing or not later.
        """
        stamps = as_times(times)
        if stamps.size == 0:
            return
        _check_increasing(stamps, after=self._planned[-1] if self._planned.size else None)
        self._trim()
        start = self._planned.size
        size = start + stamps.size
        # `written` grows last: until then the store has its old length for every reader.
        for group in sorted(self._variables, reverse=True):
            node = _group(self._root, group)
            for name in self._timed[group]:
                array = _array(node, name)
                array.resize((size, *array.shape[1:]))
            time = _array(node, "time")
            time.resize((size,))
            time[start:] = stamps.astype("datetime64[s]").astype(np.int64)
        written = _array(_group(self._root, "coarse"), "written")
        written.resize((size,))
        written[start:] = False
        span = _show(stamps[0]) + (f" to {_show(stamps[-1])}" if stamps.size > 1 else "")
        line = _history_line(f"{counted(stamps.size, 'hour')} added, {span},")
        self._root.attrs["history"] = "\n".join([*str(self.attrs.get("history", "")).splitlines(), line])
        self.attrs = dict(self._root.attrs)
        self._load_index()

    def write(
        self,
        times: ArrayLike,
        coarse: Mapping[str, Any] | xr.Dataset,
        fine: Mapping[str, Any] | xr.Dataset | None = None,
    ) -> None:
        """Write planned hours and mark them complete.

        ``coarse`` and ``fine`` hold an array (time, y, x) in SI units for every variable of the group;
        missing values are NaN. Whole shards of 24 hours are fastest, and writers in different processes
        must own different shards.

        Raises StoreError where an hour was not planned, a variable is missing or unknown, or a shape is
        wrong; nothing is marked complete then.
        """
        stamps = as_times(times)
        index = self._index(stamps, self._planned, "was not planned; call plan() first")
        blocks: list[tuple[zarr.Array[Any], NDArray[np.float32]]] = []
        for group, values, grid in (
            ("coarse", coarse, self.domain.coarse),
            ("fine", {} if fine is None else fine, self.domain.fine),
        ):
            names = self._timed.get(group, ())
            given = {str(name) for name in values if str(name) != "orography"}
            if given != set(names):
                raise StoreError(
                    f"/{group} of {self.path} holds {', '.join(names) or 'nothing'}, but "
                    f"{', '.join(sorted(given)) or 'nothing'} was given to write."
                )
            for name in names:
                block = np.asarray(values[name], dtype=np.float32)
                if block.shape != (stamps.size, *grid.shape):
                    raise StoreError(
                        f"/{group}/{name}: got the shape {block.shape}, need {(stamps.size, *grid.shape)}."
                    )
                blocks.append((_array(_group(self._root, group), name), block))
        for array, block in blocks:
            for positions, rows in _runs(index):
                array[positions] = block[rows]
        written = _array(_group(self._root, "coarse"), "written")
        for positions, _ in _runs(index):
            written[positions] = True
        self._written[index] = True

    # ---------------------------------------------------------------- reading

    def read_coarse(
        self, hours: ArrayLike | None = None, variables: Iterable[str] | None = None
    ) -> xr.Dataset:
        """Predictors of complete hours, float32 in SI units, dims (time, y, x).

        Where the store holds it, ``orography`` (y, x) [m] comes along, and as a scalar coordinate ``number``
        the coarse member of a forecast. One hour keeps its time dimension. Raises StoreError for hours or
        variables that are not there.
        """
        dataset = self._read("coarse", self.domain.coarse, hours, variables)
        if "orography" in self._variables["coarse"]:
            values = np.asarray(_array(_group(self._root, "coarse"), "orography")[...])
            dataset["orography"] = (("y", "x"), values, VARIABLES["orography"].attrs)
        if self.coarse_member is not None:
            dataset.coords["number"] = ((), self.coarse_member)
        return dataset

    def read_fine(self, hours: ArrayLike | None = None, variables: Iterable[str] | None = None) -> xr.Dataset:
        """Targets (the truth) of complete hours, float32 in SI units, dims (time, y, x).

        Raises StoreError for hours or variables that are not there, or a store without truth.
        """
        if "fine" not in self._variables:
            raise StoreError(f"{self.path} holds no fine truth (no /fine group).")
        return self._read("fine", self.domain.fine, hours, variables)

    def read_static(self) -> xr.Dataset:
        """Static fields of the fine grid, float32, by the names and in the units of ``STATICS``.

        orography, latitude and land_fraction have dims (y, x), land_cover (class, y, x). Read once
        and kept. Raises StoreError where the store has none or they do not fit the domain.
        """
        if self._static is None:
            if "static" not in set(self._root.group_keys()):
                raise StoreError(f"{self.path} holds no static fields (no /static group).")
            # Without Dask, which a worker would have to ask its own scheduler for while it computes.
            with xr.open_zarr(str(self.path), group="static", consolidated=False, chunks=None) as dataset:
                static = dataset.load()
            if not self.domain.fine.matches(static["x"].values, static["y"].values):
                raise StoreError(
                    f"The static fields of {self.path} do not lie on its fine grid; make the store again."
                )
            self._static = static
        return self._static

    def _index(self, stamps: Times, known: Times, complaint: str) -> NDArray[np.intp]:
        index = np.searchsorted(known, stamps)
        found = (
            (index < known.size) & (known[np.minimum(index, max(known.size - 1, 0))] == stamps)
            if known.size
            else (np.zeros(stamps.shape, bool))
        )
        if not np.all(found):
            stranger = stamps[~found][0]
            raise StoreError(f"The hour {_show(stranger)} {complaint} ({self.path}).")
        return index

    def _read(
        self, group: str, grid: Grid, hours: ArrayLike | None, variables: Iterable[str] | None
    ) -> xr.Dataset:
        stamps = self.hours if hours is None else as_times(hours)
        index = self._index(stamps, self._planned, "is not in the store")
        if not self._written[index].all():
            late = stamps[~self._written[index]][0]
            raise StoreError(f"The hour {_show(late)} of {self.path} is planned but not written yet.")
        held = self._timed[group]
        names = [name for name in held if name in VARIABLES] if variables is None else list(variables)
        missing = [name for name in names if name not in held]
        if missing:
            raise StoreError(
                f"{self.path} holds no {', '.join(missing)} in /{group}; "
                f"it holds {', '.join(held) or 'nothing'}."
            )
        node = _group(self._root, group)
        data = {}
        for name in names:
            values = np.empty((stamps.size, *grid.shape), np.float32)
            for positions, rows in _runs(index):
                values[rows] = _array(node, name)[positions]
            data[name] = (("time", "y", "x"), values, VARIABLES[name].attrs if name in VARIABLES else {})
        return xr.Dataset(data, coords={"time": stamps, "y": grid.y, "x": grid.x})

    # ---------------------------------------------------------------- checking

    def validate(self) -> list[str]:
        """Everything wrong with the store, a sentence each; empty where all is well.

        Reads every complete hour once, so it takes as long as reading the store.
        """
        problems: list[str] = []
        contents = self.contents
        if contents.unknown:
            problems.append(f"Unknown variables are ignored: {', '.join(contents.unknown)}.")
        for group in self._variables:
            node = _group(self._root, group)
            stamps = _read_times(node)
            if stamps.size != self._planned.size or (stamps != self._planned).any():
                problems.append(
                    f"/{group}/time does not agree with the record of hours; "
                    "open the store for appending to mend it."
                )
            for name in self._timed[group]:
                if name in VARIABLES:
                    problems += self._check_values(group, name)
        if "static" in set(self._root.group_keys()):
            try:
                self.read_static()
            except StoreError as error:
                problems.append(str(error))
        return problems

    def _check_values(self, group: str, name: str) -> list[str]:
        low, high = VARIABLES[name].valid_range
        array = _array(_group(self._root, group), name)
        for position in np.flatnonzero(self._written):
            values = np.asarray(array[int(position)])
            hour = _show(self._planned[position])
            if np.isinf(values).any():
                return [f"/{group}/{name} is infinite somewhere at {hour}."]
            valid = values[~np.isnan(values)]
            if valid.size == 0:
                return [f"/{group}/{name} has no value at {hour}."]
            if valid.min() < low or valid.max() > high:
                return [
                    f"/{group}/{name} ranges from {valid.min():g} to {valid.max():g} {VARIABLES[name].units} "
                    f"at {hour}; "
                    f"possible values are {low:g} to {high:g}. Wrong units or a corrupt file?"
                ]
        return []


def _check_increasing(stamps: Times, *, after: np.datetime64 | None) -> None:
    if stamps.ndim != 1 or np.isnat(stamps).any() or (np.diff(stamps) <= np.timedelta64(0, "ns")).any():
        raise StoreError("Time stamps must be a strictly increasing list of dates.")
    if (stamps.astype("datetime64[s]") != stamps).any():
        raise StoreError("Time stamps must be whole seconds.")
    if after is not None and stamps.size and stamps[0] <= after:
        raise StoreError(
            f"Only later hours can be appended: the store ends at {_show(after)}, "
            f"the new hours start at {_show(stamps[0])}."
        )


def _runs(index: NDArray[np.intp]) -> list[tuple[slice, slice]]:
    """Contiguous runs of ``index`` as (slice of the array, slice of the request), for few large reads."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    starts, stops = np.r_[0, breaks], np.r_[breaks, index.size]
    return [
        (slice(int(index[start]), int(index[stop - 1]) + 1), slice(int(start), int(stop)))
        for start, stop in zip(starts, stops, strict=True)
        if stop > start
    ]


def _group(root: zarr.Group, name: str) -> zarr.Group:
    return cast(zarr.Group, root[name])


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    return cast("zarr.Array[Any]", group[name])


def _data_names(root: zarr.Group, group: str) -> tuple[str, ...]:
    coordinates = {"x", "y", "time", "written", "spatial_ref", "class"}
    return tuple(sorted(name for name in _group(root, group).array_keys() if name not in coordinates))


def _read_times(group: zarr.Group) -> Times:
    seconds = np.asarray(_array(group, "time")[...], dtype=np.int64)
    return seconds.astype("datetime64[s]").astype("datetime64[ns]")


def grid_mapping_attrs(grid: Grid) -> dict[str, Any]:
    """Attributes of the ``spatial_ref`` variable of a grid, as rioxarray and GDAL read them."""
    left, _, _, top = grid.extent
    crs = CRS.from_user_input(grid.crs)
    transform = f"{left!r} {grid.dx!r} 0.0 {top!r} 0.0 {-grid.dy!r}"
    return {**crs.to_cf(), "spatial_ref": crs.to_wkt(), "GeoTransform": transform}


def _create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    dims: tuple[str, ...],
    chunks: tuple[int, ...],
    *,
    shards: tuple[int, ...] | None = None,
    fill: Any = None,
) -> None:
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        dimension_names=dims,
        fill_value=np.nan if dtype == "float32" else fill,
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
    )


def _create_group(root: zarr.Group, name: str, grid: Grid, variables: Sequence[str], stamps: Times) -> None:
    group = root.create_group(name)
    for axis, values in (("y", grid.y), ("x", grid.x)):
        _create_array(group, axis, values.shape, "float64", (axis,), values.shape, fill=0.0)
        group[axis].attrs.update(
            {"standard_name": f"projection_{axis}_coordinate", "units": "m", "axis": axis.upper()}
        )
        _array(group, axis)[...] = values
    _create_array(group, "time", stamps.shape, "int64", ("time",), (8192,), fill=0)
    group["time"].attrs.update(
        {
            "standard_name": "time",
            "units": "seconds since 1970-01-01",
            "calendar": "proleptic_gregorian",
            "axis": "T",
        }
    )
    _array(group, "time")[...] = stamps.astype("datetime64[s]").astype(np.int64)
    group.create_array("spatial_ref", shape=(), dtype="int64", dimension_names=())
    group["spatial_ref"].attrs.update(grid_mapping_attrs(grid))
    height, width = grid.shape
    for variable in variables:
        _create_array(
            group,
            variable,
            (stamps.size, height, width),
            "float32",
            ("time", "y", "x"),
            (1, height, width),
            shards=(HOURS_PER_SHARD, height, width),
        )
        group[variable].attrs.update({**VARIABLES[variable].attrs, "grid_mapping": "spatial_ref"})


def _write_static(path: Path, domain: Domain, static: xr.Dataset) -> None:
    missing = [axis for axis in ("x", "y") if axis not in static.coords]
    if missing or not domain.fine.matches(static["x"].values, static["y"].values):
        raise StoreError(
            f"The static fields do not lie on the fine grid of {domain.name} ({domain.fine.shape[0]} x "
            f"{domain.fine.shape[1]} cells); build them for this domain with `tramontana statics`."
        )
    names = [name for name in STATICS if name in static]
    dataset = static[names].astype(np.float32).assign_coords(y=domain.fine.y, x=domain.fine.x)
    dataset.coords["spatial_ref"] = ((), 0, grid_mapping_attrs(domain.fine))
    for name in names:
        dataset[name].attrs = {**static[name].attrs, **VARIABLES[name].attrs, "grid_mapping": "spatial_ref"}
        dataset[name].encoding = {}
    dataset.to_zarr(str(path), group="static", mode="a", consolidated=False, zarr_format=3)
