"""Results on disk: computed once, shared by all processes, and there after a restart.

A result lies in a file named by the hash of its address, that is of everything it follows from. Files are
numbers with a header (safetensors) and are never run; one that is damaged or of another program is removed
and counts as absent. Nothing here raises where the disk is full, slow to answer or closed to writing: the page
goes on without what can't be kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from explorer.results import Fields

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the files and of their addresses; another one makes all that was kept before unknown."""

SUFFIX = ".safetensors"
PARTIAL = ".partial"
ADDRESS, CHECKSUM = "tramontana_result", "checksum"
FOLDER_NAME = re.compile(r"[0-9a-f]{2}")
FILE_NAME = re.compile(r"[0-9a-f]{62}\.safetensors")
FILL = 0.9
"""Part of the limit that is left when old results are removed, so that this is not needed at once again."""
LOOK_SHARE = 0.02
"""Part of the limit that a process writes between two looks at the size of the whole."""
FORGOTTEN = 3600.0
"""Seconds after which a file that somebody began to write will not be finished."""

Address = Mapping[str, str | int]


class Disk:
    """A folder of results that forgets the least recently used beyond ``limit`` bytes.

    Any number of processes and threads may share the folder. When a result was used last is the time stamp of
    its file. Only files that look like results are counted or removed.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._lock = Lock()
        self._written: int | None = None  # bytes since the last look at the whole; None before the first
        self._complained: set[str] = set()

    def read(self, address: Address) -> Fields | None:
        """The result at an address, or None where there is none that is sound."""
        text = _text(address)
        path = self._path(text)
        try:
            data = b"" if path.stat().st_size > self.limit else path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain("read", error)
            return None
        found = _decode(data, text)
        if found is None:
            log.warning("%s is damaged or no result of the explorer; it is removed.", path)
            with suppress(OSError):
                path.unlink()
            return None
        _touch(path)
        return found

    def write(self, address: Address, fields: Fields) -> None:
        """Keep a result, and remove old ones where there are too many; one that is there stays."""
        text = _text(address)
        path = self._path(text)
        if path.exists():
            _touch(path)
            return
        data = _encode(text, fields)
        if len(data) > self.limit:
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                _touch(temporary)
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._complain("written", error)
            return
        with self._lock:
            due = self._written is None or self._written + len(data) > LOOK_SHARE * self.limit
            self._written = 0 if due else (self._written or 0) + len(data)
        if due:
            self.trim()

    def trim(self) -> None:
        """Remove what was used least recently where all together is beyond the limit."""
        found: list[tuple[int, int, Path]] = []
        for path, state in self._files():
            if path.name.endswith(PARTIAL):
                if time.time() - state.st_mtime > FORGOTTEN:
                    with suppress(OSError):
                        path.unlink()
                continue
            found.append((state.st_mtime_ns, state.st_size, path))
        size = sum(each for _, each, _ in found)
        if size <= self.limit:
            return
        for _, each, path in sorted(found):
            if size <= FILL * self.limit:
                return
            try:
                path.unlink(missing_ok=True)  # another process may have been faster
            except OSError as error:
                self._complain("removed", error)
                return
            size -= each

    @property
    def size(self) -> int:
        """Bytes of all results."""
        return sum(state.st_size for path, state in self._files() if path.suffix == SUFFIX)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        with suppress(OSError):  # the folder went, or can't be listed
            for place in os.scandir(self.folder):
                if not FOLDER_NAME.fullmatch(place.name) or not place.is_dir(follow_symlinks=False):
                    continue
                for entry in os.scandir(place.path):
                    name = entry.name
                    started = name.startswith(".") and name.endswith(PARTIAL)
                    if FILE_NAME.fullmatch(name) or (started and FILE_NAME.match(name[1:])):
                        with suppress(OSError):
                            yield Path(entry.path), entry.stat(follow_symlinks=False)

    def _path(self, text: str) -> Path:
        name = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}{SUFFIX}"

    def _complain(self, what: str, error: OSError) -> None:
        with self._lock:
            known, _ = what in self._complained, self._complained.add(what)
        if not known:
            log.warning(
                "Results in %s can't be %s (%s); the page goes on without. This is said once.",
                self.folder, what, error.strerror or error,
            )  # fmt: skip


def _text(address: Address) -> str:
    return json.dumps({"format": FORMAT, **address}, sort_keys=True, separators=(",", ":"))


def _encode(text: str, fields: Fields) -> bytes:
    arrays = {name: np.ascontiguousarray(field, np.float32) for name, field in fields.items()}
    return save(arrays, {ADDRESS: text, CHECKSUM: _checksum(arrays)})


def _decode(data: bytes, text: str) -> Fields | None:
    """The fields of a file of this address; None where it is anything else."""
    try:
        length = int.from_bytes(data[:8], "little")
        said = json.loads(data[8 : 8 + length])["__metadata__"]
        if said[ADDRESS] != text:
            return None
        arrays = load(data)
        if not arrays or any(array.dtype != np.float32 for array in arrays.values()):
            return None
        return arrays if said[CHECKSUM] == _checksum(arrays) else None
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _checksum(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    content = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        content.update(f"{name}{arrays[name].shape}".encode())
        content.update(np.ascontiguousarray(arrays[name]).data)
    return content.hexdigest()


def _touch(path: Path) -> None:
    now = time.time_ns()  # finer than what the system takes by itself
    with suppress(OSError):
        os.utime(path, ns=(now, now))
