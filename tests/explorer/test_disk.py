"""Results on disk."""

import errno
import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from explorer.disk import FORGOTTEN, PARTIAL, Disk

LARGE = 10**9


def address(number: int = 0) -> dict[str, str | int]:
    return {"what": "member", "checkpoint": "abc", "member": number}


def fields(number: int = 0, size: int = 20) -> dict[str, np.ndarray]:
    return {"t2m": np.full((size, 10), 280 + number, "f4"), "tp": np.zeros((size, 10), "f4")}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_is_there_for_another_process_to_read(tmp_path: Path):
    Disk(tmp_path / "a" / "b", LARGE).write(address(), fields())
    program = (
        "import sys; from pathlib import Path; from explorer.disk import Disk;"
        "found = Disk(Path(sys.argv[1]), 10**9).read({'what': 'member', 'checkpoint': 'abc', 'member': 0});"
        "print(found['t2m'].shape, found['t2m'].dtype, found['t2m'][3, 4], sorted(found));"
        "Disk(Path(sys.argv[1]), 10**9).write({'from': 'there'}, found)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a" / "b")], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "(20, 10) float32 280.0 ['t2m', 'tp']"
    np.testing.assert_array_equal(
        Disk(tmp_path / "a" / "b", LARGE).read({"from": "there"})["t2m"], fields()["t2m"]
    )


@pytest.mark.parametrize(
    "other", [{"member": 1}, {"checkpoint": "abd"}, {"what": "field"}, {"seed": 0}], ids=str
)
def test_another_address_is_another_result(tmp_path: Path, other: dict[str, str | int]):
    disk = Disk(tmp_path, LARGE)
    disk.write(address(), fields())
    assert disk.read({**address(), **other}) is None


def test_values_come_back_bit_for_bit_also_when_they_are_missing(tmp_path: Path):
    disk = Disk(tmp_path, LARGE)
    given = {"t2m": np.array([[np.nan, -0.0], [1e-42, 280.1]], "f4")}
    disk.write(address(), given)
    assert disk.read(address())["t2m"].tobytes() == given["t2m"].tobytes()


def test_the_least_recently_used_goes_first_whoever_used_it(tmp_path: Path):
    one = len(_written(tmp_path / "measure"))
    first, second = Disk(tmp_path / "r", 4 * one), Disk(tmp_path / "r", 4 * one)
    for number in range(4):
        first.write(address(number), fields(number))
    assert second.read(address(0)) is not None  # used by somebody else
    first.write(address(4), fields(4))
    kept = [number for number in range(5) if first.read(address(number)) is not None]
    assert kept[0] == 0
    assert kept[-1] == 4
    assert 1 not in kept
    assert first.size <= 4 * one


def _written(folder: Path) -> bytes:
    Disk(folder, LARGE).write(address(), fields())
    return files(folder)[0].read_bytes()


def test_several_writers_stay_within_the_limit(tmp_path: Path):
    limit = 20 * len(_written(tmp_path / "measure"))
    writers = [Disk(tmp_path / "r", limit) for _ in range(3)]
    for number in range(90):
        writers[number % 3].write(address(number), fields(number))
        assert writers[0].size <= limit
    assert writers[0].size > 0.5 * limit


def test_a_result_larger_than_the_limit_is_not_kept(tmp_path: Path):
    disk = Disk(tmp_path / "r", 100)
    disk.write(address(), fields())
    assert files(tmp_path) == []


@pytest.mark.parametrize("fault", ["short", "flipped", "text", "empty", "pickle", "huge header"])
def test_what_is_damaged_or_foreign_is_removed_and_never_run(tmp_path: Path, fault: str, caplog):
    disk = Disk(tmp_path / "r", LARGE)
    disk.write(address(), fields())
    (path,) = files(tmp_path / "r")
    data = path.read_bytes()
    mark = tmp_path / "was-run"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(mark),)

    path.write_bytes(
        {
            "short": data[:-7],
            "flipped": data[:-7] + bytes([data[-7] ^ 1]) + data[-6:],
            "text": b"Some words that somebody left here.",
            "empty": b"",
            "pickle": pickle.dumps(Bomb()),
            "huge header": (2**62).to_bytes(8, "little") + data[8:],
        }[fault]
    )
    with caplog.at_level(logging.WARNING):
        assert disk.read(address()) is None
    assert "is removed" in caplog.text
    assert not path.exists()
    assert not mark.exists()
    disk.write(address(), fields(3))
    assert disk.read(address())["t2m"][0, 0] == 283


def test_a_sound_file_in_the_place_of_another_is_refused(tmp_path: Path):
    disk = Disk(tmp_path, LARGE)
    disk.write(address(0), fields())
    (path,) = files(tmp_path)
    disk.write(address(1), fields(1))
    (other,) = set(files(tmp_path)) - {path}
    other.replace(path)
    assert disk.read(address(0)) is None
    save_file({"t2m": np.zeros((2, 2), "f4")}, path)  # no words of ours in it
    assert disk.read(address(0)) is None


def test_files_of_other_programs_are_neither_counted_nor_removed(tmp_path: Path):
    others = [tmp_path / "thesis.txt", tmp_path / "ab" / "photo.safetensors", tmp_path / "zz" / ("0" * 62)]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 5000)
        os.utime(path, (0, 0))
    disk = Disk(tmp_path, 4000)
    for number in range(6):
        disk.write(address(number), fields(number))
    assert all(path.exists() for path in others)
    assert 0 < disk.size <= 4000


def test_a_full_disk_is_said_once_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    disk = Disk(tmp_path / "r", LARGE)

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Path, "write_bytes", full)
        for number in range(3):
            disk.write(address(number), fields())
    assert [record.message.count("No space left on device") for record in caplog.records] == [1]
    assert files(tmp_path) == []
    disk.write(address(), fields())  # there is room again
    assert disk.read(address()) is not None


def test_a_folder_that_can_not_be_made_is_said_once(tmp_path: Path, caplog):
    (tmp_path / "file").write_text("in the way")
    disk = Disk(tmp_path / "file" / "results", LARGE)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            disk.write(address(), fields())
            assert disk.read(address()) is None
    assert len({record.message for record in caplog.records}) == len(caplog.records) <= 2
    assert "the page goes on without" in caplog.text


def test_a_folder_closed_to_writing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk = Disk(tmp_path, LARGE)
    disk.write(address(), fields())

    def closed(*_: object, **__: object) -> None:  # as the system says it; to root no folder is closed
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        for name in ("write_bytes", "mkdir", "unlink", "replace"):
            patch.setattr(Path, name, closed)
        patch.setattr(os, "utime", closed)
        disk.write({"another": 1}, fields())
        assert disk.read(address()) is not None
        assert disk.read({"another": 1}) is None


def test_what_was_begun_and_never_finished_is_removed_after_a_while(tmp_path: Path):
    disk = Disk(tmp_path, LARGE)
    disk.write(address(), fields())
    (path,) = files(tmp_path)
    old, new = (path.with_name(f".{path.name}.{mark}{PARTIAL}") for mark in ("1-a", "2-b"))
    for begun in (old, new):
        begun.write_bytes(b"begun")
    long_ago = time.time() - FORGOTTEN - 60
    os.utime(old, (long_ago, long_ago))
    disk.trim()
    assert [begun.exists() for begun in (old, new)] == [False, True]
    assert disk.read(address()) is not None
