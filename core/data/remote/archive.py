"""Zip archives on a server: their directory, and members found by the end of their names.

The directory is read by Python's :mod:`zipfile` (so archives beyond 4 GB are understood) through a file of
which only some regions are known. The same file, with the bytes of one member as a further region, unpacks
that member and checks its CRC.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from core.data.remote.client import Client, Note, RemoteFile
from core.data.remote.words import MemberError, ServerError, size_in_words

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TAIL = 1 << 14
"""Bytes at the end of an archive that are read first; a small archive's whole directory lies in them."""
LARGEST_DIRECTORY = 1 << 25
"""Bytes of a directory that is read, before anybody was asked; that of 300 000 members is smaller."""
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Of the others zipfile unpacks each block at once, so that some kB can fill the memory."""


class NotFetchedError(OSError):
    """Bytes of an archive that no region has."""


DAMAGE = (
    NotFetchedError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    IndexError,
    UnicodeDecodeError,
    MemoryError,
    OverflowError,
)
"""What zipfile and the decompressors raise on damaged archives."""
HEADER = 30
LARGEST_EXTRAS = 2 * 65535 + 24
"""Most that a member may have beside its header and its data: name, extra fields, data descriptor."""

Read = Callable[[int, int], bytes]
"""Reads the bytes from one position of the archive up to another; it may return fewer, but not none."""
Region = tuple[int, int, Read]


class Regions(io.RawIOBase):
    """A file of a given length of which some regions can be read.

    Parameters
    ----------
    size : length of the file
    regions : (start, stop, read) of each region; where they overlap the first one is read
    more : called with the start and stop of bytes that no region has, for all of these bytes; None: they
        can't be read and NotFetchedError is raised
    """

    def __init__(self, size: int, regions: Sequence[Region], more: Read | None = None) -> None:
        self._size = size
        self._regions = regions
        self._more = more
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"position {base + offset} before the beginning of the archive")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        start, stop = self._position, min(self._position + len(view), self._size)
        if start >= stop:
            return 0
        data = self._read(start, stop)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, start: int, stop: int) -> bytes:
        for first, end, read in self._regions:
            if first <= start < end:
                return read(start, min(stop, end))
        if self._more is None:
            raise NotFetchedError(f"it points to the bytes at {start}, which are not its own")
        # What a later region holds is not fetched twice.
        return self._more(start, min([stop, *(first for first, _, _ in self._regions if first > start)]))


def held(start: int, data: bytes) -> Region:
    """A region whose bytes are in memory."""
    return start, start + len(data), lambda first, stop: data[first - start : stop - start]


@dataclass(frozen=True)
class Member:
    """One file in an archive.

    Attributes
    ----------
    name : its name in the archive, as it is written there
    number : its place in the directory
    start, stop : the bytes of the archive that hold its header and its data
    size : bytes unpacked
    crc : CRC-32 of these
    """

    name: str
    number: int
    start: int
    stop: int
    size: int
    crc: int

    @property
    def packed(self) -> int:
        """Bytes to transfer."""
        return self.stop - self.start


class Directory:
    """What an archive holds.

    Parameters
    ----------
    archive : the archive, opened by zipfile
    label : how it is called in messages
    size : its length in bytes
    """

    def __init__(self, archive: zipfile.ZipFile, label: str, size: int) -> None:
        self.label = label
        self._infos = archive.infolist()
        self._ends = _ends(self._infos, archive.start_dir)
        self._size = size
        self._paths = [_slashes(info) for info in self._infos]
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_folder: dict[str, list[int]] = defaultdict(list)
        for number, path in enumerate(self._paths):
            if not path.endswith("/") and not path.startswith("__MACOSX/"):
                folder, _, name = path.rpartition("/")
                self._by_name[name].append(number)
                self._by_folder[folder].append(number)

    def names(self) -> list[str]:
        """Names of all files, with slashes."""
        return [path for path in self._paths if not path.endswith("/")]

    def find(self, path: str) -> Member | None:
        """The file with this path below any folder, the least deep one if there are several; None if none.

        Raises MemberError where two lie equally deep, and where its name, kind or place is not to be trusted.
        """
        numbers = [n for n in self._by_name[path.rpartition("/")[2]] if _ends_with(self._paths[n], path)]
        if not numbers:
            return None
        nearest = self._nearest([self._paths[n] for n in numbers], path)
        return self._member(next(n for n in numbers if self._paths[n] == nearest))

    def files_in(self, folder: str) -> list[Member]:
        """The files directly in the folder of this name, the least deep one if there are several.

        Files whose names begin with a dot are left out. Raises as :meth:`find`.
        """
        folders = [path for path in self._by_folder if _ends_with(path, folder)]
        if not folders:
            return []
        found: dict[str, Member] = {}
        for number in self._by_folder[self._nearest(folders, folder)]:
            path = self._paths[number]
            if path.rpartition("/")[2].startswith("."):
                continue
            if path in found:
                raise MemberError(f"{self.label} holds {path!r} more than once.")
            found[path] = self._member(number)
        return list(found.values())

    def _nearest(self, paths: Sequence[str], wanted: str) -> str:
        depth = min(path.count("/") for path in paths)
        nearest = [path for path in paths if path.count("/") == depth]
        if len(nearest) > 1:
            raise MemberError(
                f"{self.label} holds {wanted} more than once: {nearest[0]!r} and {nearest[1]!r}."
            )
        return nearest[0]

    def _member(self, number: int) -> Member:
        info = self._infos[number]
        _check(info, self.label)
        start, end = info.header_offset, self._ends[number]
        least = start + HEADER + info.compress_size
        if start < 0 or least > min(end, self._size):
            raise MemberError(
                f"{self.label}: {info.filename!r} lies over other members or beyond the end; the archive is "
                "damaged."
            )
        return Member(
            info.orig_filename,
            number,
            start,
            min(end, least + LARGEST_EXTRAS),
            info.file_size,
            info.CRC,
        )


class RemoteArchive:
    """A zip file on a server that sends parts of it.

    Reads the directory when it is made. Raises the errors of :meth:`Client.look` and :meth:`Client.chunks`,
    and MemberError where the file is no zip archive.
    """

    def __init__(self, client: Client, remote: RemoteFile, label: str, *, note: Note | None = None) -> None:
        if remote.size is None:
            raise ServerError(f"{remote.url}: the server does not say how long the file is.")
        self.remote = remote
        self.size = remote.size
        start = max(0, self.size - TAIL)
        self._regions = [held(start, client.read(remote, start, self.size, note=note))]

        def more(first: int, stop: int) -> bytes:
            if stop - first > LARGEST_DIRECTORY:
                raise MemberError(
                    f"{label} says that its directory has {size_in_words(stop - first)}, which can't be true."
                )
            data = client.read(remote, first, stop, note=note)
            self._regions.append(held(first, data))
            return data

        source = io.BufferedReader(Regions(self.size, self._regions, more))
        with _readable(label), zipfile.ZipFile(source) as archive:
            self.directory = Directory(archive, label, self.size)

    def unpack(self, member: Member, read: Read, target: Path) -> None:
        """Write a member to a file; ``read`` gives its bytes of the archive. Errors as of :func:`unpack`."""
        regions = [(member.start, member.stop, read), *self._regions]
        unpack(io.BufferedReader(Regions(self.size, regions), 1 << 20), member, target, self.directory.label)


def open_local(path: Path, label: str) -> Directory:
    """The directory of an archive on this disk. Raises MemberError where it is no zip archive."""
    with _readable(label), zipfile.ZipFile(path) as archive:
        return Directory(archive, label, path.stat().st_size)


def unpack(source: BinaryIO | io.BufferedReader, member: Member, target: Path, label: str) -> None:
    """Write a member of the archive ``source`` to a file and check its length and its CRC.

    Raises MemberError where it is damaged or not the one of the directory that was read before; OSError where
    the file can't be written.
    """
    with (
        _readable(f"{label}: {member.name!r}"),
        zipfile.ZipFile(source) as archive,
        archive.open(archive.infolist()[member.number]) as unpacking,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(unpacking, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    if target.stat().st_size != member.size:
        raise MemberError(f"{label}: {member.name!r} is shorter than its archive says; it is damaged.")


@contextmanager
def _readable(label: str) -> Iterator[None]:
    """Raise MemberError for what is raised on damaged archives."""
    try:
        yield
    except DAMAGE as error:
        raise MemberError(f"{label} is damaged, or no zip archive: {error}.") from error


def _slashes(info: zipfile.ZipInfo) -> str:
    """The name as it stands in the archive, with slashes where it has backslashes."""
    return info.orig_filename.replace("\\", "/")


def _ends_with(path: str, end: str) -> bool:
    """Whether the last parts of a path are these."""
    return f"/{path}".endswith(f"/{end}")


def _ends(infos: Sequence[zipfile.ZipInfo], directory: int) -> list[int]:
    """Where the room of each member ends: where the next one begins, or the directory."""
    starts = sorted({info.header_offset for info in infos} | {directory})
    after = dict(pairwise(starts))
    return [after.get(info.header_offset, directory) for info in infos]


def _check(info: zipfile.ZipInfo, label: str) -> None:
    """Raise MemberError for names that lead elsewhere, and for what is no plain, readable file."""
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    wrong = None
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        wrong = "its name is an absolute path"
    elif "\\" in name:
        wrong = "its name holds backslashes"
    elif ".." in name.split("/"):
        wrong = "its name leads out of its folder"
    elif name.rpartition("/")[2] == ".":
        wrong = "its name is that of a folder"
    elif not name.isprintable():
        wrong = "its name holds control characters"
    elif kind == stat.S_IFLNK:
        wrong = "it is a symbolic link"
    elif kind not in (0, stat.S_IFREG):
        wrong = "it is no regular file"
    elif info.flag_bits & 0x1:
        wrong = "it is encrypted"
    elif info.compress_type not in METHODS:
        wrong = f"it is compressed in a way that can't be read (method {info.compress_type})"
    if wrong is not None:
        raise MemberError(f"{label}: the member {name!r} is refused, because {wrong}.")
