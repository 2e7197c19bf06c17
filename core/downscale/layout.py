"""How files of fields are laid out: dimensions, coordinates, attributes, packing; for NetCDF and for Zarr."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import netCDF4
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from core import __version__
from core.data.store import grid_mapping_attrs
from core.domain import Domain, Grid
from core.downscale.packing import MISSING, PACKINGS
from core.downscale.pieces import Block
from core.variables import VARIABLES

Times = NDArray[np.datetime64]
Attrs = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Source:
    """One downscaler's part of a file.

    ``targets`` and ``members`` are what it gives, ``attrs`` say where the fields come from (model, hash of
    its file, sampler, seed). The fields lie on ``grid``, by default the fine grid of the domain. ``numbers``
    are the coarse members of an ensemble forecast, None where the input is no ensemble.
    """

    targets: tuple[str, ...]
    members: tuple[int, ...]
    attrs: Attrs = field(default_factory=dict)
    grid: Grid | None = None
    numbers: tuple[int, ...] | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of its fields."""
        return (*(() if self.numbers is None else ("number",)), "member", "time", "y", "x")


@dataclass(frozen=True)
class FieldArray:
    """A variable to make: dimensions, shape, attributes; whether packed; shape of a shard (Zarr)."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    attrs: Attrs
    packed: bool
    shard: tuple[int, ...] | None = None

    @property
    def chunk(self) -> tuple[int, ...]:
        """One field."""
        return (*(1 for _ in self.shape[:-2]), *self.shape[-2:])


class Backend(Protocol):
    """The few things a file format must do; a group is named "" at the root."""

    def attrs(self, group: str, values: Mapping[str, Any]) -> None: ...

    def coordinate(
        self, group: str, name: str, dims: Sequence[str], values: NDArray[Any], attrs: Mapping[str, Any]
    ) -> None: ...

    def scalar(self, group: str, name: str, attrs: Mapping[str, Any]) -> None: ...

    def field(self, group: str, array: FieldArray) -> None: ...

    def close(self) -> None: ...


def group_names(sources: Mapping[str, Source]) -> dict[str, str]:
    """The group of each source: one source lies at the root, several in groups named by their keys."""
    return {key: "" if len(sources) == 1 else key for key in sources}


def define(
    backend: Backend,
    domain: Domain,
    times: Times,
    sources: Mapping[str, Source],
    *,
    attrs: Attrs,
    packed: bool = False,
    blocks: Mapping[str, Block] | None = None,
) -> None:
    """Make everything but the fields: groups, coordinates, attributes and empty variables.

    Places are given twice, as CF-1.11 asks of projected grids (section 5.2): by x and y [m] with the CRS, and
    by ``latitude`` and ``longitude`` (y, x) of the cell centres on WGS 84 [degrees], float32: to half a
    metre. ``blocks`` are the hours and members that share a shard, by source (Zarr).
    """
    groups = group_names(sources)
    named = ", ".join(group for group in groups.values() if group)
    # Says to who opens the file that its root is not all there is.
    where = {"comment": f"Fields are in the groups {named}; xarray.open_datatree reads all."} if named else {}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    history = f"{now} downscaled by tramontana {__version__}"
    backend.attrs("", {"Conventions": "CF-1.11", "history": history, **where, **attrs})
    for key, source in sources.items():
        block = None if blocks is None else blocks[key]
        _define_source(backend, groups[key], source.grid or domain.fine, times, source, packed, block)


def _define_source(
    backend: Backend,
    group: str,
    grid: Grid,
    times: Times,
    source: Source,
    packed: bool,
    block: Block | None,
) -> None:
    backend.attrs(group, source.attrs)
    members = np.asarray(source.members, np.int32)
    axes: list[tuple[str, NDArray[Any], dict[str, str]]] = [
        ("member", members, {"standard_name": "realization", "long_name": "member of the ensemble"}),
        ("time", times.astype("datetime64[s]").astype(np.int64), _TIME),
        ("y", grid.y, _axis("y")),
        ("x", grid.x, _axis("x")),
    ]
    if source.numbers is not None:
        axes.insert(0, ("number", np.asarray(source.numbers, np.int64), _NUMBER))
    for name, values, attrs in axes:
        backend.coordinate(group, name, (name,), values, attrs)
    for name, degrees in (("latitude", grid.latitude), ("longitude", grid.longitude)):
        backend.coordinate(group, name, ("y", "x"), degrees.astype(np.float32), _PLACES[name])
    backend.scalar(group, "spatial_ref", grid_mapping_attrs(grid))
    shape = tuple(values.size for _, values, _ in axes)
    shard = None
    if block is not None:
        shard = (*(1 for _ in shape[:-4]), block.members, block.hours, *shape[-2:])
    for name in source.targets:
        words = {**VARIABLES[name].attrs, "grid_mapping": "spatial_ref", "coordinates": " ".join(_PLACES)}
        if packed:
            error = f"{PACKINGS[name].error:g} {VARIABLES[name].units}"
            words["comment"] = f"Packed into 16 bits; values differ from those computed by at most {error}."
        backend.field(group, FieldArray(name, source.dims, shape, words, packed, shard))


_TIME = {
    "standard_name": "time",
    "units": "seconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
    "axis": "T",
}
# The standard name realization is the generated member's; two axes with it could not be told apart.
_NUMBER = {"long_name": "member of the coarse ensemble that was downscaled", "units": "1"}
_PLACES = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
}


def _axis(name: str) -> dict[str, str]:
    return {"standard_name": f"projection_{name}_coordinate", "units": "m", "axis": name.upper()}


class NetCDFBackend:
    """NetCDF 4; fields are written with :meth:`put`, packed already where they are packed."""

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
        compressed = {"compression": "zlib", "complevel": 1, "shuffle": True} if values.ndim > 1 else {}
        variable = node.createVariable(name, values.dtype, tuple(dims), **compressed)
        variable.setncatts(dict(attrs))
        variable[:] = values

    def scalar(self, group: str, name: str, attrs: Mapping[str, Any]) -> None:
        variable = self._group(group).createVariable(name, "i4", ())
        variable.setncatts(dict(attrs))
        variable[...] = 0

    def field(self, group: str, array: FieldArray) -> None:
        variable = self._group(group).createVariable(
            array.name,
            "i2" if array.packed else "f4",
            array.dims,
            fill_value=np.int16(MISSING) if array.packed else np.float32(np.nan),
            chunksizes=array.chunk,
            compression="zlib",
            complevel=1,
            shuffle=True,
        )
        variable.setncatts({**array.attrs, **(PACKINGS[array.name].attrs if array.packed else {})})
        # Values come packed; the library would pack them again.
        variable.set_auto_maskandscale(False)

    def put(self, group: str, name: str, place: tuple[int, ...], values: NDArray[Any]) -> None:
        """Write one field."""
        self._group(group)[name][place] = values

    def close(self) -> None:
        if self._file.isopen():
            self._file.close()


class ZarrBackend:
    """A Zarr v3 hierarchy; its arrays are written by who opens them."""

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

    def field(self, group: str, array: FieldArray) -> None:
        attrs: dict[str, Any] = dict(array.attrs)
        if array.packed:
            attrs |= {**PACKINGS[array.name].attrs, "_FillValue": MISSING}
        options = {
            "dtype": "int16" if array.packed else "float32",
            "chunks": array.chunk,
            "shards": array.shard,
            "fill_value": MISSING if array.packed else np.nan,
            "compressors": BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
        }
        self._array(group, array.name, array.shape, array.dims, attrs, **options)

    def close(self) -> None:
        consolidate(self._root)


def consolidate(root: zarr.Group) -> None:
    """Copy the descriptions of all arrays to the root, so that opening reads one file."""
    with warnings.catch_warnings():
        # Zarr v3 leaves this to conventions; without it xarray warns at every opening.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(root.store)
