"""Fields as CF files: filled hour by hour and named only when complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import xarray as xr

from core.domain import Domain
from core.downscale.base import DownscaleError
from core.downscale.layout import Attrs, NetCDFBackend, Source, Times, define, group_names
from core.downscale.packing import pack

SUFFIXES = (".nc", ".zarr")
WRITE_ERRORS = (OSError, RuntimeError)
"""A full disk among others; the NetCDF library reports it as the second."""


def check_output(path: str | Path, *, overwrite: bool = False) -> None:
    """Raise DownscaleError where fields can't have this name."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DownscaleError(f"{path} must end in {' or '.join(SUFFIXES)}.")
    if path.exists() and not overwrite:
        raise DownscaleError(f"{path} exists already; give another name, or delete it.")


class FieldFile:
    """A NetCDF 4 file of fields ([number,] member, time, y, x) with coordinates, CRS and provenance.

    With one source its variables lie at the root of the file; with several, each has a group of its own,
    named by its key (``xarray.open_datatree`` reads them all). See :func:`core.downscale.layout.define`. The
    file is written under a temporary name; leaving the ``with`` block names it, leaving it by an exception
    deletes it.

    Parameters
    ----------
    path : ends in ``.nc``
    times : every hour that will be written
    sources : by key
    attrs : global attributes
    packed : 16 bits a value (:mod:`core.downscale.packing`) in place of float32
    overwrite : replace what has this name, once the new file is complete
    temporary : the temporary name, on the same file system; by default a hidden one beside ``path``

    Raises DownscaleError for another suffix, where the name is taken, and where nothing can be written.
    """

    def __init__(
        self,
        path: str | Path,
        domain: Domain,
        times: Times,
        sources: Mapping[str, Source],
        *,
        attrs: Attrs,
        packed: bool = False,
        overwrite: bool = False,
        temporary: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        if self.path.suffix != ".nc":
            raise DownscaleError(f"{path} must end in .nc.")
        check_output(self.path, overwrite=overwrite)
        self._temporary = temporary or self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._groups = group_names(sources)
        self._sources = dict(sources)
        self._packed = packed
        self._rows = {time: row for row, time in enumerate(times.astype("datetime64[ns]").tolist())}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove(self._temporary)
            self._backend = NetCDFBackend(self._temporary)
            define(self._backend, domain, times, sources, attrs=attrs, packed=packed)
        except BaseException as error:
            self._abandon()
            if isinstance(error, WRITE_ERRORS):
                raise unwritten(self.path, error) from error
            raise

    def write(self, key: str, fields: xr.Dataset) -> None:
        """Write fields ([number,] member, time, y, x) of some hours and members of one source.

        Raises DownscaleError for hours, members or variables that were not announced, and for values that
        can't be packed.
        """
        source = self._sources[key]
        known: dict[str, list[int]] = {"member": list(source.members)}
        if source.numbers is not None:
            known = {"number": list(source.numbers), **known}
        hours = fields["time"].values.astype("datetime64[ns]").tolist()
        given = {dim: fields[dim].values.tolist() for dim in known}
        if not set(hours) <= self._rows.keys() or any(
            not set(given[dim]) <= set(known[dim]) for dim in known
        ):
            raise DownscaleError(f"Hours or members were given that {self.path} was not made for.")
        if set(fields.data_vars) != set(source.targets):
            raise DownscaleError(f"{self.path} takes {', '.join(source.targets)} of {key}.")
        places = [[known[dim].index(label) for label in given[dim]] for dim in known]
        places.append([self._rows[hour] for hour in hours])
        for name in source.targets:
            values = fields[name].transpose(*source.dims).values
            for at in np.ndindex(values.shape[:-2]):
                place = tuple(rows[i] for rows, i in zip(places, at, strict=True))
                field = pack(name, values[at]) if self._packed else values[at]
                try:
                    self._backend.put(self._groups[key], name, place, field)
                except WRITE_ERRORS as error:
                    raise unwritten(self.path, error) from error

    def _abandon(self) -> None:
        backend = getattr(self, "_backend", None)
        try:
            if backend is not None:
                # What can't be written can't be closed properly either.
                with suppress(*WRITE_ERRORS):
                    backend.close()
        finally:
            remove(self._temporary)

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
            put_in_place(self._temporary, self.path)
        except BaseException as failure:
            remove(self._temporary)
            if isinstance(failure, WRITE_ERRORS):
                raise unwritten(self.path, failure) from failure
            raise


def unwritten(path: Path, error: Exception) -> DownscaleError:
    """The sentence for a file that can't be written."""
    fault = getattr(error, "strerror", None) or error
    return DownscaleError(f"{path} can't be written ({fault}). Is there room, and leave to write?")


def put_in_place(new: Path, path: Path) -> None:
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
    remove(old)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
