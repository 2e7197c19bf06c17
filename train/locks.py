"""Locks between processes: a file that one at a time holds, and lets go of when it ends or is killed."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from train.run_folder import TrainError, writing

BUSY = frozenset({errno.EAGAIN, errno.EACCES})
SECONDS_BETWEEN_TRIES = 1.0


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock ``path``, or get False where another process (or this one, elsewhere) holds it.

    The file is made where it is not there, and stays. Raises TrainError where the system or the file system
    has no such locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise TrainError(
            f"This system has no locks of files (fcntl), without which processes can't share {path.parent}."
        ) from error
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in BUSY:
                raise TrainError(f"{path} can't be locked: {error.strerror}.") from error
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock ``path``; while another process holds it, wait, and call ``waiting`` every second."""
    while True:
        with lock_if_free(path) as held:
            if held:
                yield
                return
        waiting()
        time.sleep(SECONDS_BETWEEN_TRIES)
