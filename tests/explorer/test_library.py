"""What all visitors share, asked for by several threads at once."""

import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from core.data.store import Store
from core.outlines import add_outlines, load_outlines
from explorer.jobs import Draw, Piece
from explorer.library import QUADRATIC, Library, OpenStore
from explorer.points import find_place, middle
from explorer.settings import Settings
from tests.explorer.small_store import DOMAIN, HOURS, make_unet

PATIENCE = 20.0


@pytest.fixture
def threaded(folder: Path) -> Library:
    """A library as it is served, with real threads, over the store ``full`` and a folder of models."""
    (folder / "checkpoints").mkdir()
    return Library(Settings((folder / "full.zarr",), folder / "checkpoints", folder, cache=folder / "cache"))


def run(*works: object) -> None:
    """Run functions at the same time; fails where one does not end."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


# ---------------------------------------------------------------- a store


def test_outlines_of_a_store_are_its_own_where_it_has_some(
    folder: Path, threaded: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    shipped = threaded.outlines(OpenStore("full", folder / "full.zarr"))
    assert shipped.keys() == load_outlines(DOMAIN.fine).keys()
    for kind, line in load_outlines(DOMAIN.fine).items():
        np.testing.assert_array_equal(shipped[kind], line)
    left, _, _, top = DOMAIN.fine.extent
    line = [[left + 100, top - 100], [left + 9_000, top - 9_000]]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "LineString", "coordinates": line}))
    add_outlines(Store.open(folder / "full.zarr"), tmp_path / "a.geojson")
    opened = OpenStore("full", folder / "full.zarr")
    np.testing.assert_array_equal(
        threaded.outlines(opened)["coastline"][0], [left + 100, left + 9_000, np.nan]
    )
    # Damage is no reason to show no map.
    shutil.rmtree(folder / "full.zarr" / "outlines" / "y")
    damaged = threaded.outlines(OpenStore("full", folder / "full.zarr"))
    np.testing.assert_array_equal(damaged["lake"][0], shipped["lake"][0])
    assert "Maps show the outlines that ship" in caplog.text


def test_hashing_inputs_and_asking_for_statics_at_once_ends(folder: Path, monkeypatch: pytest.MonkeyPatch):
    opened = OpenStore("full", folder / "full.zarr")
    hashing, read = threading.Event(), opened.read

    def slow(*arguments: object):
        hashing.set()
        time.sleep(0.3)  # whoever asks for the statics now must get them
        return read(*arguments)

    monkeypatch.setattr(opened, "read", slow)
    found = []

    def ask() -> None:
        assert hashing.wait(PATIENCE)
        found.append(find_place(opened, *middle(opened)))

    run(lambda: found.append(opened.inputs_hash(HOURS[0])), ask, ask)
    assert len(found) == 3
    assert opened.inputs_hash(HOURS[0]) in found


def test_a_thread_that_waits_for_the_store_holds_nothing_that_another_needs(folder: Path):
    opened = OpenStore("full", folder / "full.zarr")
    held, asked = threading.Event(), threading.Event()

    def holder() -> None:
        with opened._lock:
            held.set()
            assert asked.wait(PATIENCE)
            time.sleep(0.1)
            _ = opened.static, opened._static_hash, opened.coarse_surface

    def asker() -> None:
        assert held.wait(PATIENCE)
        asked.set()
        _ = opened.static, opened._static_hash, opened.coarse_surface

    run(holder, asker)


def test_what_was_read_in_advance_is_there_while_others_read(
    threaded: Library, monkeypatch: pytest.MonkeyPatch
):
    opened = threaded.open("full")
    place = find_place(opened, *middle(opened))
    opened = OpenStore("full", opened.path)
    threaded.warm(opened).result(PATIENCE)
    assert threaded.warm(opened).done()

    def fail(*_: object) -> None:
        raise AssertionError("The store is read again.")

    for name in ("read_static", "read_coarse"):
        monkeypatch.setattr(Store, name, fail)
    monkeypatch.setattr(Store, "contents", property(fail))
    with opened._lock:
        run(lambda: [find_place(opened, *middle(opened)) for _ in range(3)])
    assert find_place(opened, *middle(opened)) == place


# ---------------------------------------------------------------- the search for checkpoints


def test_a_checkpoint_that_comes_while_all_threads_are_busy_stops_nobody(threaded: Library, folder: Path):
    before = threaded.catalogue.result(PATIENCE)
    opened = threaded.open("full")
    make_unet(folder / "checkpoints" / "new.safetensors", DOMAIN, "New")
    gate = threading.Event()
    busy = [threaded.submit(gate.wait) for _ in range(2)]
    look = threaded.submit(threaded.look_for_checkpoints)
    fields = [
        threaded.submit(lambda hour=hour: threaded.fields(opened, hour, QUADRATIC)) for hour in HOURS[:4]
    ]
    gate.set()
    for work in (*busy, look, *fields):
        work.result(PATIENCE)
    found = threaded.search.result(PATIENCE)
    assert threaded.catalogue.result() is found
    assert len(found.downscalers) == len(before.downscalers) + 1


def test_the_old_catalogue_serves_until_the_new_one_is_there(
    threaded: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    before = threaded.catalogue.result(PATIENCE)
    searching, go, find = threading.Event(), threading.Event(), threaded._find_downscalers

    def slow() -> object:
        searching.set()
        assert go.wait(PATIENCE)
        return find()

    monkeypatch.setattr(threaded, "_find_downscalers", slow)
    make_unet(folder / "checkpoints" / "new.safetensors", DOMAIN, "New")
    threaded.look_for_checkpoints()
    threaded.look_for_checkpoints()  # one search is enough
    assert searching.wait(PATIENCE)
    assert threaded.catalogue.result(0) is before
    go.set()
    found = threaded.search.result(PATIENCE)
    assert threaded.catalogue.result(0) is found
    threaded.look_for_checkpoints()
    assert threaded.search.result(0) is found


def test_a_search_that_fails_leaves_what_was_found(
    threaded: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    before = threaded.catalogue.result(PATIENCE)

    def fail() -> None:
        raise OSError("The disk is gone.")

    monkeypatch.setattr(threaded, "_find_downscalers", fail)
    make_unet(folder / "checkpoints" / "new.safetensors", DOMAIN, "New")
    threaded.look_for_checkpoints()
    assert isinstance(threaded.search.exception(PATIENCE), OSError)
    assert threaded.catalogue.result(0) is before


# ---------------------------------------------------------------- members


def test_a_member_that_is_needed_once_is_not_kept_in_memory(threaded: Library):
    opened = threaded.open("full")
    pieces = [Piece(opened, HOURS[0], "ldm", "hash", Draw(), member) for member in range(3)]
    assert threaded.member_once(pieces[0]) is None
    for piece in pieces[:2]:
        threaded.keep_member(piece, {"t2m": np.full(DOMAIN.fine.shape, piece.member, "f4")})
    assert threaded.member_once(pieces[0]) is threaded.peek_member(pieces[0])
    again = Library(threaded.settings)
    pieces = [Piece(again.open("full"), HOURS[0], "ldm", "hash", Draw(), member) for member in range(3)]
    np.testing.assert_array_equal(again.member_once(pieces[1])["t2m"], 1)
    assert again.peek_member(pieces[1]) is None
    assert again.results.size == 0
    assert again.member_once(pieces[2]) is None
