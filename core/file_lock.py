"""Work that one process does at a time, for as long as it holds the lock on a file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LOCK = "lock"
"""Name of the file in a folder that is locked for the folder; whoever clears the folder removes it last."""


def lock_file(path: Path) -> IO[str] | None:
    """Make a file and lock it until the returned one is closed or this process ends, however it does.

    None where another process has it. File systems without locks, and Windows, lock nothing.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a")
        except FileNotFoundError:
            if path.is_symlink():  # to nothing
                raise
            continue  # whoever held it removed the folder in between
        if sys.platform == "win32":
            return file
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            # Some file systems of clusters have no locks.
            return file
        # Whoever held it may have finished, and removed the file, in between.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()


def clear(folder: Path) -> None:
    """Remove a folder whose lock is held, as far as it can be; the lock last, so that none begins before."""
    with suppress(OSError):
        for entry in folder.iterdir():
            if entry.name == LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    with suppress(OSError):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone may work on what ``path`` stands for, while the block runs."""
    file = lock_file(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            file.close()
