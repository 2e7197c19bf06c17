"""Outputs that are not complete: their record, their lock, and what is refused."""

import errno
import fcntl
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.downscale import DownscaleError
from core.downscale.partial import PartialOutput, check_request, partial_folder

REQUEST = {"seed": "1"}


def make(data: Path) -> None:
    data.mkdir()


def begun(path: Path) -> Path:
    """An output of three pieces, the second of which is done; gives its folder."""
    with PartialOutput(path, REQUEST, 24) as output:
        output.prepare(3, make)
        output.mark(1)
    return partial_folder(path)


def test_what_is_marked_stays_marked(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    begun(path)
    with PartialOutput(path, REQUEST, 99) as output:
        output.prepare(3, make)
        assert output.begun
        assert output.fields == 24
        assert output.done.tolist() == [False, True, False]
        output.mark(0)
    with PartialOutput(path, REQUEST, 24, fresh=True) as output:
        output.prepare(3, make)
        assert not output.done.any()


def test_a_fresh_run_has_data_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    folder = begun(path)
    old = next(folder.glob("data-*"))
    with PartialOutput(path, REQUEST, 24, fresh=True) as output:
        output.prepare(3, make)
        assert output.data != old
        assert not old.exists()


@pytest.mark.parametrize("fresh", [True, False])
def test_a_run_killed_while_it_removes_leaves_no_record_of_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    path = tmp_path / "a.nc"
    field = next(begun(path).glob("data-*")) / "0"
    field.touch()

    def killed(folder: Path, **_: Any) -> None:
        for part in Path(folder).rglob("*"):
            if part.is_file():
                part.unlink()
        raise KeyboardInterrupt

    output = PartialOutput(path, REQUEST, 24, fresh=fresh)
    remove = partial(output.prepare, 3, make) if fresh else output.discard
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove()
    output._lock.close()
    assert not field.exists()
    with PartialOutput(path, REQUEST, 24) as output:
        assert not output.begun


def test_what_is_done_survives_a_record_that_can_not_be_read_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    begun(path)

    def broken(_: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", broken)
        with (
            pytest.raises(DownscaleError, match="Input/output error"),
            PartialOutput(path, REQUEST, 24) as output,
        ):
            output.prepare(3, make)
    with PartialOutput(path, REQUEST, 24) as output:
        output.prepare(3, make)
        assert output.done.tolist() == [False, True, False]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    begun(tmp_path / "a.zarr")
    with PartialOutput(tmp_path / "a.zarr", REQUEST, 24) as output:
        assert output.begun


def test_files_of_killed_writers_are_swept(tmp_path: Path) -> None:
    with PartialOutput(tmp_path / "a.zarr", REQUEST, 24) as output:
        output.prepare(1, make)
        (output.data / "t2m" / "c").mkdir(parents=True)
        (output.data / "t2m" / "c" / "0.1234.partial").touch()
        (output.data / "t2m" / "c" / "0").touch()
        output.sweep()
        assert [p.name for p in (output.data / "t2m" / "c").iterdir()] == ["0"]


def test_an_output_with_nothing_done_is_removed_where_the_run_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with PartialOutput(tmp_path / "a.zarr", REQUEST, 24) as output:
            output.prepare(3, make)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"request": {}}', '{"request": {}, "fields": 24, "data": "../x"}']
)
def test_a_record_that_can_not_be_read(tmp_path: Path, content: str) -> None:
    folder = begun(tmp_path / "a.zarr")
    (folder / "request.json").write_text(content)
    with pytest.raises(DownscaleError, match=r"request.json can't be read; delete the folder"):
        check_request(tmp_path / "a.zarr", REQUEST)


def test_a_record_of_other_length(tmp_path: Path) -> None:
    begun(tmp_path / "a.zarr")
    with (
        PartialOutput(tmp_path / "a.zarr", REQUEST, 24) as output,
        pytest.raises(DownscaleError, match="damaged"),
    ):
        output.prepare(4, make)


def test_what_was_named_already_is_not_gone_on_with(tmp_path: Path) -> None:
    """Killed after the data had their name, before the folder was removed."""
    path = tmp_path / "a.zarr"
    folder = begun(path)
    next(folder.glob("data-*")).rename(path)
    check_request(path, {"seed": "2"})
    with PartialOutput(path, {"seed": "2"}, 24) as output:
        assert not output.begun


def test_requests_are_compared_word_by_word(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    folder = begun(path)
    assert json.loads((folder / "request.json").read_text())["request"] == REQUEST
    check_request(path, REQUEST)
    with pytest.raises(DownscaleError, match="seed was 1, now 2; steps was not given, now 3"):
        check_request(path, {"seed": "2", "steps": "3"})
