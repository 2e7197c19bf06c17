"""A folder that one process works in at a time."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

LOCK = "lock"
"""Name of the file in the folder that is locked; whoever clears the folder removes it last."""


def lock_folder(folder: Path) -> IO[str] | None:
    """Make a folder and lock it until the returned file is closed or this process ends, however it does.

    None where another process has it. File systems without locks, and Windows, lock nothing.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
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
        # Whoever held it may have finished, and removed the folder, in between.
        with suppress(FileNotFoundError):
            if (folder / LOCK).stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()
