"""Files written by ``torch.save`` (Lightning's ``.ckpt`` among them), read without running them.

Such a file is a zip archive without compression: a pickle, ``data.pkl``, that describes everything, and one
member per storage with the bare numbers. :class:`TorchArchive` reads the description with
:mod:`core.unpickle`, where tensors are inert objects like all others, and maps a tensor from the file when
:meth:`TorchArchive.tensor` asks for it. So a file needs no memory for what nobody asks for, and neither
names nor sizes in it are believed before they were checked.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.mapped_memory import map_file, mapped_tensor, release
from core.unpickle import MAX_BYTES, Inert, Reference, UnpickleError, read_pickle

MAX_DIRECTORY_BYTES = 8 * 2**20
MAX_DIMENSIONS = 16

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_REBUILD = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_WRAPPED = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


class ArchiveError(ValueError):
    """A file that can't be read as an archive of tensors; the message names the file and the fault."""


@dataclass(frozen=True)
class Member:
    """Where bytes lie in a file."""

    start: int
    size: int


class _Guarded(FileIO):
    """A file that refuses to be read in large pieces, so that a forged directory takes no memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        most = MAX_DIRECTORY_BYTES + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        if len(data) > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("its directory is too large")
        return data


class TorchArchive:
    """An archive, mapped for as long as it or a tensor of it is in use.

    Attributes
    ----------
    path : of the file
    value : everything the file holds, with :class:`core.unpickle.Inert` for tensors, classes and calls

    Raises ArchiveError where the file is absent, truncated, no archive of tensors, compressed, encrypted,
    or holds members that overlap, stand twice or have names which lead out of the archive.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ArchiveError(f"There is no file {self.path}.")
        try:
            if self.path.stat().st_size == 0:
                raise ArchiveError(f"{self.path} is empty.")
            self._map = map_file(self.path)
        except OSError as error:
            raise ArchiveError(f"{self.path} can't be read: {error.strerror or error}.") from error
        self._members = self._read_members()
        self._prefix = self._find_prefix()
        self.value = self._read_description()

    def release(self) -> None:
        """Let the system take back the memory that reading took; what is needed again is read again."""
        release(self._map)

    # --- tensors

    @staticmethod
    def is_tensor(value: Any) -> bool:
        """Whether ``value`` stands for a tensor."""
        return (
            isinstance(value, Inert)
            and not isinstance(value, Reference)
            and value.arguments is not None
            and value.name in (*_REBUILD, *_WRAPPED)
        )

    def tensor(self, value: Any, what: str = "a tensor") -> Tensor:
        """The tensor that ``value`` stands for, mapped from the file: treat it as read-only.

        ``what`` names it in errors. Raises ArchiveError where the storage is absent, or of another size or
        type than described, or where the tensor reaches outside it or has more elements than it.
        """
        if self.is_tensor(value) and value.name in _WRAPPED:
            # A parameter is a tensor in a wrapper, never in more than one.
            value = value.arguments[0] if value.arguments else None
            if isinstance(value, Inert) and value.name in _WRAPPED:
                raise self._fault(what, "is a parameter within a parameter")
        if not self.is_tensor(value):
            raise self._fault(what, f"is {_kind(value)}, not a tensor")
        arguments: tuple[Any, ...] = value.arguments or ()
        if not 4 <= len(arguments) <= 7:
            raise self._fault(what, "is described incompletely")
        storage, offset, size, stride, *_ = arguments
        dtype, key, count = self._storage(storage, what)
        if not (_counts((offset,)) and _counts(size) and _counts(stride) and len(size) == len(stride)):
            raise self._fault(what, "has an impossible size, stride or offset")
        elements = math.prod(size)
        reach = sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + offset + 1
        # Even a tensor without elements has a limit to its other sides.
        if math.prod(n for n in size if n) > max(count, 2**40) or (elements and max(reach, elements) > count):
            raise self._fault(what, f"needs more numbers than its storage {key} has ({count})")
        flat = self._numbers(dtype, key, count, what)
        return flat.as_strided(size, stride, offset) if elements else flat.new_empty(size)

    def _storage(self, value: Any, what: str) -> tuple[torch.dtype, str, int]:
        """(dtype, key, number of elements) of a storage as described."""
        identifier = value.identifier if isinstance(value, Reference) else None
        if not (isinstance(identifier, tuple) and len(identifier) == 5 and identifier[0] == "storage"):
            raise self._fault(what, "has no storage of the known form")
        _, kind, key, _, count = identifier
        # Since PyTorch 2 the class is also found in torch.storage.
        match = isinstance(kind, Inert) and re.fullmatch(r"torch\.(?:storage\.)?(\w+?)Storage", kind.name)
        if not match or match[1] not in _STORAGES:
            raise self._fault(what, f"has numbers of the unknown type {_kind(kind)}")
        if not isinstance(key, str) or not re.fullmatch(r"[0-9]{1,12}", key) or not _counts((count,)):
            raise self._fault(what, "has a storage without a proper number")
        return _STORAGES[match[1]], key, count

    def _numbers(self, dtype: torch.dtype, key: str, count: int, what: str) -> Tensor:
        member = self.storage(key)
        if member is None:
            raise self._fault(what, f"has its numbers in the storage {key}, which the file lacks")
        if member.size != count * dtype.itemsize:
            raise self._fault(
                what,
                f"should have {count * dtype.itemsize} bytes in the storage {key}, which has {member.size}",
            )
        return mapped_tensor(self._map, member.start, count, dtype)

    def storage(self, key: str) -> Member | None:
        """Where the numbers of a storage lie; None where there are none."""
        return self._members.get(f"{self._prefix}data/{key}")

    def _fault(self, what: str, fault: str) -> ArchiveError:
        return ArchiveError(f"{self.path}: {what} {fault}.")

    # --- the archive

    def _read_members(self) -> dict[str, Member]:
        """Where every member lies, once it is sure that none is more than a piece of this file."""
        try:
            with _Guarded(self.path) as file, zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, struct.error, OSError, ValueError, OverflowError, RuntimeError) as error:
            if self._map[:2] != b"PK":
                raise ArchiveError(
                    f"{self.path} is not a checkpoint in the zip form that PyTorch has written since 1.6. "
                    "Write an older one again with a recent PyTorch."
                ) from error
            raise ArchiveError(
                f"{self.path} is truncated or damaged ({error}). Copy or download it again."
            ) from error
        members: dict[str, Member] = {}
        for info in infos:
            name = info.filename
            if re.match(r"[/\\]|[A-Za-z]:", name) or "\\" in name or ".." in name.split("/"):
                raise ArchiveError(f"{self.path} has a member whose name leads out of it: {name[:80]!r}.")
            if name in members:
                raise ArchiveError(f"{self.path} has two members named {name[:80]!r}.")
            if info.flag_bits & 0x1:
                raise ArchiveError(f"{self.path} is encrypted. Write it again without.")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ArchiveError(
                    f"{self.path} is compressed, which PyTorch never does. Unpack it and write it again "
                    "without compression."
                )
            members[name] = Member(self._start(info), info.file_size)
        end = 0
        for name, member in sorted(members.items(), key=lambda entry: entry[1].start):
            if member.start < end and member.size:
                raise ArchiveError(f"{self.path} has members that overlap, at {name[:80]!r}.")
            end = max(end, member.start + member.size)
        if end > len(self._map):
            raise ArchiveError(f"{self.path} is truncated. Copy or download it again.")
        return members

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Where the bytes of a member begin, behind its own header."""
        header = self._map[info.header_offset : info.header_offset + 30]
        if info.header_offset < 0 or len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise ArchiveError(f"{self.path} is damaged at {info.filename[:80]!r}. Copy it again.")
        name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        return info.header_offset + 30 + name + extra

    def _find_prefix(self) -> str:
        """Folder inside the archive that everything lies in."""
        found = [name for name in self._members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(found) != 1:
            raise ArchiveError(f"{self.path} is a zip file, but not one that PyTorch wrote.")
        prefix = found[0].removesuffix("data.pkl")
        order = self._bytes(self._members.get(f"{prefix}byteorder"), 16)
        if order not in (b"", b"little"):
            raise ArchiveError(
                f"{self.path} was written on a machine with another byte order. Write it again on this one."
            )
        return prefix

    def _bytes(self, member: Member | None, most: int) -> bytes:
        return b"" if member is None else self._map[member.start : member.start + min(member.size, most)]

    def _read_description(self) -> Any:
        member = self._members[f"{self._prefix}data.pkl"]
        try:
            if member.size > MAX_BYTES:
                raise UnpickleError(f"it has {member.size} bytes; at most {MAX_BYTES} are read")
            return read_pickle(self._bytes(member, MAX_BYTES))
        except UnpickleError as error:
            raise ArchiveError(
                f"The description (data.pkl) in {self.path} can't be used: {error}."
            ) from error


def _counts(values: Any) -> bool:
    """Whether ``values`` are whole numbers from 0 on that a file could have."""
    return (
        isinstance(values, tuple | list)
        and len(values) <= MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value < 2**48 for value in values)
    )


def _kind(value: Any) -> str:
    return repr(value) if isinstance(value, Inert) else f"a {type(value).__name__}"
