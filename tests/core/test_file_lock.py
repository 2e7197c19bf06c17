"""One process at a time: who comes second is told, and neither a kill nor a removed file confuses it."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.file_lock import LOCK, claimed, clear, lock_file

HOLD = """
import sys, time
from pathlib import Path
from core.file_lock import claimed
with claimed(Path(sys.argv[1])) as alone:
    print(alone, flush=True)
    time.sleep(600)
"""


def test_the_second_is_told_until_the_first_is_done(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "lock"
    with claimed(path) as first, claimed(path) as second:
        assert (first, second) == (True, False)
        assert lock_file(path) is None
    with claimed(path) as again:
        assert again


def test_it_is_free_again_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "lock"):
        _ = 1 / 0
    with claimed(tmp_path / "lock") as alone:
        assert alone


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "True\n"
            with claimed(path) as alone:
                assert not alone
        finally:
            other.kill()
    with claimed(path) as alone:
        assert alone


def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(tmp_path / "lock") as alone:
        assert alone


def test_a_lock_that_its_holder_removed_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two would hold locks of the same name: one on the removed file, one on the new."""
    path, flock, tries = tmp_path / "folder" / "lock", fcntl.flock, []

    def after_removal(file: Any, how: int) -> None:
        tries.append(file)
        if len(tries) == 1:
            path.unlink()
            path.parent.rmdir()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", after_removal)
    with claimed(path) as alone:
        assert alone
        assert len(tries) == 2
        monkeypatch.undo()
        assert lock_file(path) is None


def test_a_folder_that_is_removed_before_the_lock_is_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, made = Path.mkdir, []

    def removed_at_first(path: Path, *given: Any, **options: Any) -> None:
        mkdir(path, *given, **options)
        made.append(path)
        if len(made) == 1:
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", removed_at_first)
    with claimed(tmp_path / "folder" / LOCK) as alone:
        assert alone
    assert len(made) == 2


def test_the_lock_of_a_folder_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    for path in (folder / "parts" / "a", folder / "z", elsewhere / "kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "link").symlink_to(elsewhere)
    unlink, removed = Path.unlink, []

    def follow(path: Path, **options: Any) -> None:
        unlink(path, **options)
        removed.append(path.name)
        if path.name == LOCK:
            assert list(folder.iterdir()) == []

    monkeypatch.setattr(Path, "unlink", follow)
    with claimed(folder / LOCK):
        clear(folder)
    assert removed[-1] == LOCK
    assert not folder.exists()
    assert (elsewhere / "kept").exists()
