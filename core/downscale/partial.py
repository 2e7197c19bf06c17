"""An output that is not complete yet: a hidden folder beside its name, which a later run can go on with.

    .NAME.partial/request.json    what was asked for, how it is cut into pieces, and the name of the data
    .NAME.partial/done            a byte for each piece, 1 once its fields are written
    .NAME.partial/data-ID         the fields, a Zarr hierarchy
    .NAME.partial/netcdf          the file that is made of them at the end, where the output is one
    .NAME.partial/lock            locked by the run that works on it

The byte of a piece is written after its fields, by the one process that gives out the pieces; so a run that
is killed at any moment loses the pieces it was at and no more. The data have a name of their own, so that a
worker that was given up for lost can't write into those of a later run.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from core.downscale.base import DownscaleError
from core.downscale.output import WRITE_ERRORS, remove, unwritten
from core.file_lock import LOCK, lock_file

Request = Mapping[str, str]
"""What fields depend on, in words: what is asked for and the answer."""


def partial_folder(path: Path) -> Path:
    """Where the output ``path`` lies until it is complete."""
    return path.with_name(f".{path.name}.partial")


def check_request(path: Path, request: Request) -> None:
    """Raise DownscaleError where another request was begun under the name ``path``."""
    held = _held(partial_folder(path))
    if held is not None:
        _compare(path, held["request"], request)


def clear_leftovers(path: Path, request: Request) -> None:
    """Remove what a run for a complete output has left that was killed when it had named it."""
    if not partial_folder(path).is_dir():
        return
    try:
        output = PartialOutput(path, request, 1)
    except DownscaleError:
        # Of another request, or still at work.
        return
    with output:
        output.discard()


class PartialOutput:
    """The unfinished output ``path``, held by this process alone.

    Parameters
    ----------
    path : the name of the complete output
    request : what was asked for; a run that was begun goes on only with the same
    fields : of a piece; replaced by that of the run that was begun
    fresh : remove what was begun

    Raises DownscaleError where another request was begun or another process is at work, and where nothing can
    be written.
    """

    def __init__(self, path: Path, request: Request, fields: int, *, fresh: bool = False) -> None:
        self.path, self.request = path, dict(request)
        self.folder = partial_folder(path)
        try:
            self._lock = _locked(self.folder, path)
        except WRITE_ERRORS as error:
            raise unwritten(path, error) from error
        try:
            held = None if fresh else _held(self.folder)
            if held is not None:
                _compare(path, held["request"], self.request)
            self.begun = held is not None
            self.fields = fields if held is None else int(held["fields"])
            self.data = self.folder / (f"data-{uuid.uuid4().hex[:12]}" if held is None else held["data"])
            self._done = np.zeros(0, bool)
            self._known = held is None
        except BaseException:
            self._lock.close()
            raise

    def prepare(self, pieces: int, make: Callable[[Path], None]) -> None:
        """Make the data with ``make`` where nothing was begun; otherwise look up what is done."""
        record = self.folder / "done"
        try:
            if not self.begun:
                self._clear()
                make(self.data)
                record.write_bytes(bytes(pieces))
                content = {"request": self.request, "fields": self.fields, "data": self.data.name}
                written = self.folder / "request.json.new"
                written.write_text(json.dumps(content, indent=1))
                written.replace(self.folder / "request.json")
            self._done = np.frombuffer(record.read_bytes(), np.uint8) == 1
            self._record = record.open("r+b", buffering=0)
        except WRITE_ERRORS as error:
            raise unwritten(self.path, error) from error
        if self._done.size != pieces:
            raise DownscaleError(
                f"The record of the run in {self.folder} is damaged; begin anew with --fresh, or delete it."
            )
        self._done = self._done.copy()
        self._known = True

    @property
    def netcdf(self) -> Path:
        """Where a NetCDF file is made; one that a killed run has left there is replaced."""
        return self.folder / "netcdf"

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which pieces are written."""
        return self._done

    def mark(self, piece: int) -> None:
        """Record that the fields of a piece are written."""
        try:
            self._record.seek(piece)
            self._record.write(b"\1")
        except WRITE_ERRORS as error:
            raise unwritten(self.path, error) from error
        self._done[piece] = True

    def sweep(self) -> None:
        """Remove files that killed writers left among the data."""
        for folder, _, files in os.walk(self.data):
            for file in files:
                if file.endswith(".partial"):
                    Path(folder, file).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the folder."""
        with suppress(OSError):
            self._clear()
            remove(self.folder)

    def _clear(self) -> None:
        """Remove everything but the lock."""
        # First what says that there is something to go on with: a run killed in between must not leave a
        # record of fields that are gone.
        remove(self.folder / "request.json")
        for old in self.folder.iterdir():
            if old.name != LOCK:
                remove(old)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_record"):
            self._record.close()
        if kind is not None and self._known and not self._done.any():
            # Nothing to go on with.
            self.discard()
        self._lock.close()


def _held(folder: Path) -> dict[str, Any] | None:
    """The content of a record of a run; None where there is none to go on with."""
    file = folder / "request.json"
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text())
        request, fields, data = content["request"], content["fields"], content["data"]
        sound = (
            isinstance(request, dict)
            and isinstance(fields, int)
            and fields > 0
            and isinstance(data, str)
            and Path(data).name == data
        )
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise DownscaleError(f"{file} can't be read; delete the folder {folder} to begin anew.")
    # What was named already has left the folder.
    return content if (folder / data).is_dir() else None


def _compare(path: Path, before: Mapping[str, Any], now: Request) -> None:
    changed = [what for what in {**before, **now} if before.get(what) != now.get(what)]
    if changed:
        faults = "; ".join(
            f"{what} was {before.get(what, 'not given')}, now {now.get(what, 'not given')}"
            for what in changed[:3]
        )
        raise DownscaleError(
            f"A run of another request was begun for {path}: {faults}. Repeat that command to finish it, "
            f"give another name, or begin anew with --fresh, which removes {partial_folder(path)}."
        )


def _locked(folder: Path, path: Path) -> IO[str]:
    """An open file that no other process has locked until it is closed or this process ends."""
    lock = lock_file(folder / LOCK)
    if lock is None:
        raise DownscaleError(f"Another run is at work on {path}; wait for it, or give another name.")
    return lock
