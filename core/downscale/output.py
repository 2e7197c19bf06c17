"""Fields as CF files: NetCDF or Zarr, filled hour by hour and named only when complete."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import netCDF4
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from core import __version__
from core.data.store import grid_mapping_attrs
from core.domain import Domain, Grid
from core.downscale.base import DownscaleError
from core.variables import VARIABLES

Times = NDArray[np.datetime64]

SUFFIXES = (".nc", ".zarr")
WRITE_ERRORS = (OSError, RuntimeError)
"""A full disk among others; the NetCDF library reports it as the second."""


@dataclass(frozen=True)
class Source:
    """One downscaler's part of a file.

    ``targets`` and ``members`` are what it gives, ``attrs`` say where the fields come from (model, hash of
    its file, sampler, seed). The fields lie on ``grid``, by default the fine grid of the domain.
    """

    targets: tuple[str, ...]
    members: tuple[int, ...]
    attrs: Mapping[str, str | int | float] = field(default_factory=dict)
    grid: Grid | None = None


def check_output(path: str | Path, *, overwrite: bool = False) -> None:
    """Raise DownscaleError where a file of fields can't have this name."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DownscaleError(f"{path} must end in {' or '.join(SUFFIXES)}.")
    if path.exists() and not overwrite:
        raise DownscaleError(f"{path} exists already; give another name, or delete it.")


class FieldFile:
    """A file of fields (member, time, y, x), float32, with coordinates, CRS and provenance.

    Places are given twice, as CF-1.11 asks of projected grids (section 5.2): by x and y [m] with the CRS, and
    by ``latitude`` and ``longitude`` (y, x) of the cell centres on WGS 84 [degrees], float32: to half a
    metre.

    With one source its variables lie at the root of the file; with several, each has a group of its own,
    named by its key (``xarray.open_datatree`` reads them all). The file is written under a temporary
    name; leaving the ``with`` block names it, leaving it by an exception deletes it.

    Parameters
    ----------
    path : ends in ``.nc`` (NetCDF 4) or ``.zarr`` (a Zarr v3 hierarchy)
    times : every hour that will be written
    sources : by key
    attrs : global attributes
    overwrite : replace what has this name, once the new file is complete

    Raises DownscaleError for another suffix, where the name is taken, and where nothing can be written.
    """

    def __init__(
        self,
        path: str | Path,
        domain: Domain,
        times: Times,
        sources: Mapping[str, Source],
        *,
        attrs: Mapping[str, str | int | float],
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        check_output(self.path, overwrite=overwrite)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._groups = {key: "" if len(sources) == 1 else key for key in sources}
        self._sources = dict(sources)
        self._rows = {time: row for row, time in enumerate(times.astype("datetime64[ns]").tolist())}
        self._backend: _Backend
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove(self._temporary)
            self._backend = _NetCDF(self._temporary) if self.path.suffix == ".nc" else _Zarr(self._temporary)
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            history = f"{now} downscaled by tramontana {__version__}"
            self._backend.attrs("", {"Conventions": "CF-1.11", "history": history, **self._where(), **attrs})
            for key, source in sources.items():
                self._define(self._groups[key], source.grid or domain.fine, times, source)
        except BaseException as error:
            self._abandon()
            if isinstance(error, WRITE_ERRORS):
                raise self._unwritten(error) from error
            raise

    def _where(self) -> dict[str, str]:
        """What says to who opens the file that its root is not all there is."""
        groups = ", ".join(group for group in self._groups.values() if group)
        return (
            {"comment": f"Fields are in the groups {groups}; xarray.open_datatree reads all."}
            if groups
            else {}
        )

    def _define(self, group: str, grid: Grid, times: Times, source: Source) -> None:
        backend = self._backend
        backend.attrs(group, source.attrs)
        members = np.asarray(source.members, np.int32)
        seconds = times.astype("datetime64[s]").astype(np.int64)
        for name, values, attrs in (
            ("member", members, {"standard_name": "realization", "long_name": "member of the ensemble"}),
            (
                "time",
                seconds,
                {
                    "standard_name": "time",
                    "units": "seconds since 1970-01-01",
                    "calendar": "proleptic_gregorian",
                    "axis": "T",
                },
            ),
            ("y", grid.y, _axis("y")),
            ("x", grid.x, _axis("x")),
        ):
            backend.coordinate(group, name, (name,), values, attrs)
        for name, degrees in (("latitude", grid.latitude), ("longitude", grid.longitude)):
            backend.coordinate(group, name, ("y", "x"), degrees.astype(np.float32), _PLACES[name])
        backend.scalar(group, "spatial_ref", grid_mapping_attrs(grid))
        shape = (members.size, times.size, *grid.shape)
        for name in source.targets:
            links = {"grid_mapping": "spatial_ref", "coordinates": " ".join(_PLACES)}
            backend.field(group, name, shape, {**VARIABLES[name].attrs, **links})

    def write(self, key: str, fields: xr.Dataset) -> None:
        """Write fields (member, time, y, x) of some hours and members of one source.

        Raises DownscaleError for hours, members or variables that were not announced.
        """
        source = self._sources[key]
        hours = fields["time"].values.astype("datetime64[ns]").tolist()
        members = fields["member"].values.tolist()
        if not set(hours) <= self._rows.keys() or not set(members) <= set(source.members):
            raise DownscaleError(f"Hours or members were given that {self.path} was not made for.")
        if set(fields.data_vars) != set(source.targets):
            raise DownscaleError(f"{self.path} takes {', '.join(source.targets)} of {key}.")
        for name in source.targets:
            values = fields[name].transpose("member", "time", "y", "x").values
            for i, member in enumerate(members):
                for j, hour in enumerate(hours):
                    place = (source.members.index(member), self._rows[hour])
                    try:
                        self._backend.put(self._groups[key], name, place, values[i, j])
                    except WRITE_ERRORS as error:
                        raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> DownscaleError:
        fault = getattr(error, "strerror", None) or error
        return DownscaleError(f"{self.path} can't be written ({fault}). Is there room, and leave to write?")

    def _abandon(self) -> None:
        backend = getattr(self, "_backend", None)
        try:
            if backend is not None:
                # What can't be written can't be closed properly either.
                with suppress(*WRITE_ERRORS):
                    backend.close()
        finally:
            _remove(self._temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            self._backend.close()
            # Another run may have taken the name since this one began.
            check_output(self.path, overwrite=self._overwrite)
            _put_in_place(self._temporary, self.path)
        except BaseException as failure:
            _remove(self._temporary)
            if isinstance(failure, WRITE_ERRORS):
                raise self._unwritten(failure) from failure
            raise


_PLACES = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
}


def _axis(name: str) -> dict[str, str]:
    return {"standard_name": f"projection_{name}_coordinate", "units": "m", "axis": name.upper()}


def _put_in_place(new: Path, path: Path) -> None:
    """Give ``new`` the name ``path``; what has it now goes only when that is done."""
    if not path.is_dir():
        new.replace(path)
        return
    # A folder can't be renamed onto one that holds something.
    old = new.with_suffix(".replaced")
    path.rename(old)
    try:
        new.replace(path)
    except BaseException:
        old.rename(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


class _Backend(Protocol):
    """The few things a file format must do; a group is named "" at the root."""

    def attrs(self, group: str, values: Mapping[str, Any]) -> None: ...

    def coordinate(
        self, group: str, name: str, dims: Sequence[str], values: NDArray[Any], attrs: Mapping[str, Any]
    ) -> None: ...

    def scalar(self, group: str, name: str, attrs: Mapping[str, Any]) -> None: ...

    def field(
        self, group: str, name: str, shape: tuple[int, int, int, int], attrs: Mapping[str, Any]
    ) -> None: ...

    def put(self, group: str, name: str, place: tuple[int, int], values: NDArray[np.float32]) -> None: ...

    def close(self) -> None: ...


FIELD_DIMS = ("member", "time", "y", "x")


class _NetCDF:
    def __init__(self, path: Path) -> None:
        self._file = netCDF4.Dataset(str(path), "w", format="NETCDF4")

    def _group(self, name: str) -> Any:
        return self._file.createGroup(name) if name else self._file

    def attrs(self, group: str, values: Mapping[str, Any]) -> None:
        self._group(group).setncatts(dict(values))

    def coordinate(
        self, group: str, name: str, dims: Sequence[str], values: NDArray[Any], attrs: Mapping[str, Any]
    ) -> None:
        node = self._group(group)
        if tuple(dims) == (name,):
            node.createDimension(name, values.size)
        packed = {"compression": "zlib", "complevel": 1, "shuffle": True} if values.ndim > 1 else {}
        variable = node.createVariable(name, values.dtype, tuple(dims), **packed)
        variable.setncatts(dict(attrs))
        variable[:] = values

    def scalar(self, group: str, name: str, attrs: Mapping[str, Any]) -> None:
        variable = self._group(group).createVariable(name, "i4", ())
        variable.setncatts(dict(attrs))
        variable[...] = 0

    def field(
        self, group: str, name: str, shape: tuple[int, int, int, int], attrs: Mapping[str, Any]
    ) -> None:
        variable = self._group(group).createVariable(
            name,
            "f4",
            FIELD_DIMS,
            fill_value=np.float32(np.nan),
            chunksizes=(1, 1, *shape[2:]),
            compression="zlib",
            complevel=1,
            shuffle=True,
        )
        variable.setncatts(dict(attrs))

    def put(self, group: str, name: str, place: tuple[int, int], values: NDArray[np.float32]) -> None:
        self._group(group)[name][place] = values

    def close(self) -> None:
        if self._file.isopen():
            self._file.close()


class _Zarr:
    def __init__(self, path: Path) -> None:
        self._root = zarr.create_group(str(path), zarr_format=3)

    def _group(self, name: str) -> zarr.Group:
        return self._root.require_group(name) if name else self._root

    def attrs(self, group: str, values: Mapping[str, Any]) -> None:
        self._group(group).attrs.update(dict(values))

    def _array(
        self,
        group: str,
        name: str,
        shape: Sequence[int],
        dims: Sequence[str],
        attrs: Mapping[str, Any],
        **options: Any,
    ) -> zarr.Array[Any]:
        array = self._group(group).create_array(name, shape=tuple(shape), dimension_names=dims, **options)
        array.attrs.update(dict(attrs))
        return array

    def coordinate(
        self, group: str, name: str, dims: Sequence[str], values: NDArray[Any], attrs: Mapping[str, Any]
    ) -> None:
        options = {"dtype": values.dtype, "chunks": values.shape, "fill_value": 0}
        self._array(group, name, values.shape, dims, attrs, **options)[...] = values

    def scalar(self, group: str, name: str, attrs: Mapping[str, Any]) -> None:
        self._array(group, name, (), (), attrs, dtype="int32", fill_value=0)

    def field(
        self, group: str, name: str, shape: tuple[int, int, int, int], attrs: Mapping[str, Any]
    ) -> None:
        options = {
            "dtype": "float32",
            "chunks": (1, 1, *shape[2:]),
            "fill_value": np.nan,
            "compressors": BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
        }
        self._array(group, name, shape, FIELD_DIMS, attrs, **options)

    def put(self, group: str, name: str, place: tuple[int, int], values: NDArray[np.float32]) -> None:
        array: Any = self._group(group)[name]
        array[place] = values

    def close(self) -> None:
        with warnings.catch_warnings():
            # Zarr v3 leaves this to conventions; without it xarray warns at every opening.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(self._root.store)
