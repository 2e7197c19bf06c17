"""Work that one process does at a time, for as long as it holds the lock on a file."""

from __future__ import annotations

import os
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
        file = path.open("a")
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


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone may work on what ``path`` stands for, while the block runs."""
    file = lock_file(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            file.close()
