"""Tensors that lie in a mapped file, and giving back the memory that reading them took."""

from __future__ import annotations

import mmap
from pathlib import Path

import torch
from torch import Tensor


def map_file(path: Path) -> mmap.mmap:
    """A private map of a whole file: nothing that is written to it reaches the file.

    It goes with the last tensor that lies in it. Raises OSError where the file can't be mapped.

    A file that is replaced by another of its name (written beside it and renamed, as all of ours are) stays
    as it was in the map. One that is written over in place, as ``cp`` does, changes in the map, and while it
    is shorter, reading behind its end kills the process with SIGBUS: see :func:`shrunk`.
    """
    with path.open("rb") as file:
        # Copy on write, because PyTorch warns of buffers that it could not write to.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def mapped_tensor(memory: mmap.mmap, start: int, count: int, dtype: torch.dtype) -> Tensor:
    """``count`` numbers of a map from byte ``start`` on, in place. Copy it before computing much with it.

    Some files begin their tensors anywhere, not where the type suits the processor. It reads those too, only
    more slowly, and a copy made here would fill the memory that mapping saves.
    """
    if count == 0:
        return torch.empty(0, dtype=dtype)
    # The view keeps the map open: PyTorch holds what it is given, but would let a map be closed beneath it.
    return torch.frombuffer(memoryview(memory), dtype=dtype, count=count, offset=start)


def shrunk(memory: mmap.mmap) -> bool:
    """Whether the file was cut short since it was mapped, so that its map must not be read (cheap)."""
    return memory.size() < len(memory)


def release(memory: mmap.mmap) -> None:
    """Let the system take back the memory that reading a map took; what is needed again is read again.

    Changes to the map are lost. Does nothing where the system has no such call.
    """
    if hasattr(memory, "madvise"):
        memory.madvise(mmap.MADV_DONTNEED)
