"""Carrying out plans: complete files or none, resumed after every kind of interruption."""

import errno
import json
import signal
import subprocess
import sys
import threading
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

import core.data.remote.parts
from core.data.remote import (
    ChangedArchiveError,
    DiskSpaceError,
    FetchError,
    MemberError,
    ServerError,
    Wanted,
    fetch,
    fetch_whole,
    make_plan,
)
from tests.core.data.remote.conftest import day_files, large_archive, noise
from tests.range_server import write_zip

DAY = date(2016, 5, 2)
LOW, HIGH = "2016/2016-05-02_low.pt.zst", "2016/2016-05-02_high_2mT.pt.zst"
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def planned(catalogue, client, out):
    """A plan of one day, made anew with every call."""
    return lambda **options: make_plan(catalogue, Wanted(days=(DAY,)), out, client, **options)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(core.data.remote.parts, "PIECE", 7_000)


def content(out: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def expected() -> dict[str, bytes]:
    """The files of the day."""
    return day_files("", "2016-05-02", ("2mT",)) | {
        "metadata_2015-2017.csv": b"ref_time\n",
        "normalization_data.pkl": noise("normalization", 300),
    }


@pytest.mark.parametrize("parallel", [1, 4])
def test_files_arrive_and_nothing_else(planned, client, server, out, parallel, small_pieces):
    plan = planned()
    before = client.transferred
    seen = list(fetch(plan, client, parallel=parallel))
    assert content(out) == expected()
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["2016", "metadata_2015-2017.csv", "normalization_data.pkl"]
    )
    assert (seen[-1].done, seen[-1].files) == (plan.to_transfer, 4)
    assert [at.done for at in seen] == sorted(at.done for at in seen)
    assert {at.total for at in seen} == {plan.to_transfer}
    assert client.transferred - before == plan.to_transfer
    assert client.transferred == server.sent
    # The high file has 40 kB: six requests of at most 7 kB.
    item = next(item for item in plan.items if item.path == HIGH)
    starts = range(item.member.start, item.member.stop, 7_000)
    asked = {f"bytes={start}-{min(start + 7_000, item.member.stop) - 1}" for start in starts}
    assert len(asked) == 6
    assert asked <= set(server.ranges())


def test_less_than_5_percent_of_an_archive(catalogue, client, published, out):
    days = {name: data for day in range(1, 31) for name, data in day_files("d/", f"2016-06-{day:02}").items()}
    path = write_zip(published / "records/12945058/files/2015-2017.zip", days)
    plan = make_plan(catalogue, Wanted(days=(date(2016, 6, 7),), targets=()), out, client)
    list(fetch(plan, client))
    assert (out / "2016/2016-06-07_low.pt.zst").read_bytes() == noise("2016-06-07_low.pt.zst", 9_000)
    assert client.transferred < 0.05 * path.stat().st_size


def test_a_day_out_of_an_archive_of_more_than_4_gb(catalogue, client, published, out):
    path = large_archive(published / "records/12945058/files/2015-2017.zip", 5 << 30)
    list(fetch(make_plan(catalogue, Wanted(days=(DAY,), targets=()), out, client), client))
    assert (out / LOW).read_bytes() == b"low" * 1000
    assert client.transferred < 1e-4 * path.stat().st_size


def test_an_interrupted_transfer_goes_on(planned, client, server, out, small_pieces):
    with closing(fetch(planned(), client, parallel=1)) as run:
        for at in run:
            if at.done > 30_000:
                break
    assert not (out / HIGH).exists()
    plan = planned()
    begun = sum(item.had for item in plan.items)
    assert begun > 20_000
    before = client.transferred
    seen = list(fetch(plan, client))
    assert seen[0].done >= begun
    assert client.transferred - before == plan.to_transfer == seen[-1].done - begun
    assert content(out) == expected()


def test_after_a_kill_it_goes_on_within_a_request(catalogue, client, server, published, out):
    high = noise("high", 2_000_000)
    write_zip(published / "records/12945058/files/2015-2017.zip", {LOW: b"low", HIGH: high})
    stuck, blocks = threading.Event(), []

    def block(path: str) -> None:
        blocks.append(path)
        if len(blocks) > 60:
            stuck.wait(60)

    server.faults.block = block
    script = (
        "import sys; from datetime import date; from core.data.remote import *\n"
        "catalogue = read_catalogue().with_mirror(sys.argv[1])\n"
        "plan = make_plan(catalogue, Wanted(days=(date(2016, 5, 2),)), sys.argv[2], client := Client())\n"
        "for at in fetch(plan, client, parallel=1): print(at.done, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, server.address, out], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if int(line) > 500_000:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    server.faults.block = None
    stuck.set()
    assert not (out / HIGH).exists()
    plan = make_plan(catalogue, Wanted(days=(DAY,)), out, client)
    begun = {item.path: item.had for item in plan.items}[HIGH]
    assert begun > 500_000
    before = client.transferred
    list(fetch(plan, client))
    assert client.transferred - before == plan.to_transfer < 1_600_000
    assert content(out)[HIGH] == high
    assert not (out / ".fetching").exists()


def test_a_kill_before_the_last_step_needs_no_transfer(planned, client, server, out, monkeypatch):
    def killed(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(core.data.remote.parts.Part, "unpack", killed)
        with pytest.raises(KeyboardInterrupt):
            list(fetch(planned(), client, parallel=1))
    plan = planned()
    first = plan.items[0]
    assert first.had == first.packed
    list(fetch(plan, client))
    assert content(out) == expected()


def test_cut_connections_and_busy_servers(planned, client, server, out):
    plan = planned()
    server.faults.cut_after, server.faults.cuts = 15_000, 3
    server.faults.statuses = [(429, {"Retry-After": "0"}), (503, {})]
    seen = list(fetch(plan, client, parallel=2))
    assert content(out) == expected()
    assert any("429" in at.note or "503" in at.note for at in seen)


def test_a_server_that_fails_for_good_leaves_what_came(planned, client, server, out):
    plan = planned()
    server.faults.statuses = [(500, {})] * 1000
    with pytest.raises(ServerError, match=r"500.*kept"):
        list(fetch(plan, client))
    server.faults.statuses.clear()
    list(fetch(planned(), client))
    assert content(out) == expected()


def test_a_damaged_member_is_not_kept_and_the_others_are(planned, client, server, out):
    plan = planned()
    member = next(item.member for item in plan.items if item.path == HIGH)
    server.faults.damage = frozenset({member.start + 20_000})
    with pytest.raises(MemberError, match=r"high_2mT.*damaged.*It was not kept; the rest was"):
        list(fetch(plan, client))
    names = set(content(out))
    assert names - {".fetching/lock"} == set(expected()) - {HIGH}
    server.faults.damage = frozenset()
    plan = planned()
    assert [(item.path, item.had) for item in plan.items if item.path != "metadata_2015-2017.csv"] == [
        (HIGH, 0)
    ]
    list(fetch(plan, client))
    assert content(out) == expected()


def interrupted(run) -> None:
    """Stop a transfer after it has received something."""
    with closing(run):
        for at in run:
            if at.done > 10_000:
                return


def test_an_archive_that_changed_between_calls_is_refused(planned, client, server, out, small_pieces):
    interrupted(fetch(planned(), client, parallel=1))
    server.faults.etag = '"second"'
    with pytest.raises(ChangedArchiveError, match=r'etag was "first" and is "second".*--restart'):
        planned()
    plan = planned(restart=True)
    assert sum(item.had for item in plan.items) == 0
    list(fetch(plan, client))
    assert content(out) == expected()


def test_an_archive_of_another_length_is_refused(planned, client, server, published, out, small_pieces):
    interrupted(fetch(planned(), client, parallel=1))
    server.faults.etag = None
    path = published / "records/12945058/files/2015-2017.zip"
    write_zip(path, {"first": b"1"} | day_files("", "2016-05-02") | {"metadata.csv": b"ref_time\n"})
    with pytest.raises(ChangedArchiveError, match="archive size was"):
        planned()


def test_an_archive_that_changes_meanwhile_is_refused(planned, client, server, out):
    plan = planned()
    server.faults.etag = '"second"'
    with pytest.raises(ChangedArchiveError, match=r"changed while it was fetched.*--restart"):
        list(fetch(plan, client))
    assert not (out / HIGH).exists()


def test_another_server_of_the_same_archive_may_go_on(catalogue, client, server, out, small_pieces):
    wanted = Wanted(days=(DAY,))
    interrupted(fetch(make_plan(catalogue, wanted, out, client), client, parallel=1))
    server.faults.etag = '"of the other server"'
    other = catalogue.with_mirror(server.address.replace("127.0.0.1", "localhost"))
    plan = make_plan(other, wanted, out, client)
    assert sum(item.had for item in plan.items) > 0
    list(fetch(plan, client))
    assert content(out) == expected()


@pytest.mark.parametrize("notes", ["", "{", "[]"])
def test_notes_that_were_cut_short_are_begun_anew(planned, client, out, small_pieces, notes):
    interrupted(fetch(planned(), client, parallel=1))
    for path in out.rglob("member.json"):
        path.write_text(notes)
    plan = planned()
    assert sum(item.had for item in plan.items) == 0
    list(fetch(plan, client))
    assert content(out) == expected()


def test_a_piece_that_is_too_long_is_fetched_again(planned, client, out, small_pieces):
    interrupted(fetch(planned(), client, parallel=1))
    piece = max(path for path in out.rglob("0*") if path.is_file())
    piece.write_bytes(bytes(8_000))
    plan = planned()
    assert sum(item.had for item in plan.items) <= sum(item.packed for item in plan.items)
    list(fetch(plan, client))
    assert content(out) == expected()


def test_notes_name_what_they_belong_to(planned, client, out, small_pieces):
    interrupted(fetch(planned(), client, parallel=1))
    notes = [json.loads(path.read_text()) for path in out.rglob("member.json")]
    assert {note["etag"] for note in notes} == {'"first"'}
    assert all("2015-2017.zip" in note["url"] for note in notes)


@pytest.mark.parametrize("where", ["pieces", "unpacked"])
def test_a_full_disk(planned, client, out, monkeypatch, where, small_pieces):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = Path.open

    def full(self, mode="r", *arguments, **options):
        file = opened(self, mode, *arguments, **options)
        full_now = (mode == "ab" and "000" in self.name) if where == "pieces" else self.name == "unpacked"
        return Full(file) if full_now and mode != "rb" else file

    plan = planned()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(DiskSpaceError, match=r"disk of .*out is full.*the same command goes on"):
            list(fetch(plan, client))
    assert not (set(content(out)) & set(expected()))
    list(fetch(planned(), client))
    assert content(out) == expected()


def test_other_errors_of_the_disk_are_passed_on(planned, client, out):
    out.mkdir()
    (out / "2016").write_text("a file in the place of a folder")
    with pytest.raises(OSError, match="2016"):
        list(fetch(planned(), client))


def test_too_little_room_is_said_before(planned, client, server, out, monkeypatch):
    plan = planned()
    asked = len(server.requests)
    monkeypatch.setattr("core.data.remote.plan.free_space", lambda folder: 1000)
    with pytest.raises(DiskSpaceError):
        list(fetch(plan, client))
    assert len(server.requests) == asked
    assert not out.exists()


def test_two_processes_do_not_fetch_into_one_folder(planned, client, out):
    run = fetch(planned(), client, parallel=1)
    next(run)
    with pytest.raises(FetchError, match="Another process"):
        list(fetch(planned(), client))
    # Nor does another one throw away what this one has begun.
    with pytest.raises(FetchError, match="Another process"):
        planned(restart=True)
    run.close()
    list(fetch(planned(), client))
    assert content(out) == expected()


def whole_plan(catalogue, client, out):
    """Fetch whole archives until the plan is complete, and the progress of each."""
    seen = {}
    while (plan := make_plan(catalogue, Wanted(days=(DAY,)), out, client)).whole:
        archive = plan.whole[0]
        with pytest.raises(FetchError, match="not complete"):
            next(fetch(plan, client))
        seen[archive.name] = list(fetch_whole(archive, out, client))
    return plan, seen


def test_a_server_without_ranges(catalogue, client, server, published, out):
    server.faults.ranges = False
    plan, seen = whole_plan(catalogue, client, out)
    # The archive that surely holds the day comes first; the sample has to come for the normalisation.
    assert list(seen) == ["2015-2017", "sample"]
    size = (published / "records/12945058/files/2015-2017.zip").stat().st_size
    assert (seen["2015-2017"][-1].done, seen["2015-2017"][-1].total) == (size, size)
    assert plan.to_transfer == 0
    transferred = client.transferred
    last = list(fetch(plan, client))[-1]
    assert (last.files, last.of_files) == (4, 4)
    assert client.transferred == transferred
    archives = {"archives/2015-2017.zip", "archives/sample_data.zip"}
    assert set(content(out)) == set(expected()) | archives
    assert {name: data for name, data in content(out).items() if name not in archives} == expected()


def test_a_whole_archive_that_breaks_off(catalogue, client, server, out):
    server.faults.ranges = False
    plan = make_plan(catalogue, Wanted(statics=True), out, client)
    server.faults.cut_after, server.faults.cuts = 30_000, 2
    seen = list(fetch_whole(plan.whole[0], out, client))
    assert "cut" in " ".join(at.note for at in seen)
    list(fetch(make_plan(catalogue, Wanted(statics=True), out, client), client))
    assert len(content(out)) == 5
    with closing(fetch_whole(plan.whole[0], out, client)) as run:
        next(run)
    assert len(content(out)) == 5, "a whole archive that was stopped leaves something behind"


def test_a_whole_archive_of_far_more_than_was_said(catalogue, client, server, out):
    """Without a length, what was agreed to is the catalogue's."""
    server.faults.ranges = server.faults.announce = False
    said = {"sample": catalogue.archives["sample"].model_copy(update={"size": 1000})}
    catalogue = catalogue.model_copy(update={"archives": said})
    (archive,) = make_plan(catalogue, Wanted(statics=True), out, client).whole
    assert (archive.exact, archive.size, archive.most) == (False, 1000, 1250)
    with pytest.raises(ServerError, match="more bytes came than the 1250 awaited at most"):
        list(fetch_whole(archive, out, client))
    assert content(out) == {}


def test_a_page_in_the_place_of_an_archive(catalogue, client, server, published, out):
    server.faults.ranges = False
    (published / "records/12934521/files/sample_data.zip").write_text("<html>Please sign in</html>")
    plan = make_plan(catalogue, Wanted(statics=True), out, client)
    with pytest.raises(MemberError, match=r"What came from http.*is damaged, or no zip archive"):
        list(fetch_whole(plan.whole[0], out, client))
    assert content(out) == {}


def test_a_damaged_member_of_a_whole_archive(catalogue, client, server, published, out):
    (out / "archives").mkdir(parents=True)
    path = published / "records/12934521/files/sample_data.zip"
    plan = make_plan(catalogue, Wanted(statics=True), out, client)
    data = bytearray(path.read_bytes())
    data[plan.items[0].member.start + 1000] ^= 1
    (out / "archives/sample_data.zip").write_bytes(data)
    plan = make_plan(catalogue, Wanted(statics=True), out, client)
    with pytest.raises(MemberError, match=r"sample_data\.zip: .*dtm.*damaged"):
        list(fetch(plan, client))
    names = {name.rpartition("/")[2] for name in content(out)}
    assert names == {
        "sample_data.zip",
        "lock",
        "land_cover_classes_2km_domain_trim_EPSG3035.tif",
        "lat_2km_domain_trim_EPSG3035.tif",
        "borders_downscaling_domain_3035.geojson",
    }
