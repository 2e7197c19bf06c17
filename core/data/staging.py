"""Stores that are built under a temporary name, by one process at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.data.input_error import InputError
from core.file_lock import LOCK, lock_file


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A free name beside ``out`` to build it under; what is there when the block ends is removed.

    What a killed process has left is removed first.

    Raises InputError where another process builds ``out``.
    """
    folder = out.with_name(f".{out.name}.ingest")
    lock = lock_file(folder / LOCK)
    if lock is None:
        raise InputError(f"Another command is writing {out}; wait for it, or give another name.")
    try:
        for old in folder.iterdir():
            if old.name != LOCK:
                shutil.rmtree(old, ignore_errors=True)
        yield folder / "store.zarr"
    finally:
        shutil.rmtree(folder / "store.zarr", ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
