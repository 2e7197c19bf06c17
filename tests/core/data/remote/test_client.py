"""Requests of parts of files, and what comes back when servers do not keep to their word."""

import base64
import io
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
import requests

from core.data.remote import ChangedArchiveError, Client, NotThereError, OfflineError, ServerError
from core.data.remote.client import Cancelled
from tests.range_server import serving

DATA = bytes(range(256)) * 1000


@pytest.fixture
def served(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    with serving(tmp_path) as server:
        yield server


@pytest.fixture
def remote(served, client):
    return client.look(f"{served.address}/file")


def test_a_look_costs_four_bytes(served, client, remote):
    assert (remote.size, remote.etag, remote.ranges) == (len(DATA), '"first"', True)
    assert client.transferred == served.sent == 4


def test_parts_are_what_was_asked_for(served, client, remote):
    assert client.read(remote, 1000, 150_000) == DATA[1000:150_000]
    assert served.ranges() == ["bytes=0-3", "bytes=1000-149999"]
    assert client.transferred == 4 + 149_000
    _, headers = served.requests[-1]
    assert headers["If-Range"] == '"first"'
    assert headers["Accept-Encoding"] == "identity"
    assert headers["User-Agent"].startswith("tramontana")


def test_nothing_is_asked_for_an_empty_part(served, client, remote):
    assert client.read(remote, 5, 5) == b""
    assert len(served.requests) == 1


def test_a_cut_connection_goes_on_where_it_was(served, client, remote):
    served.faults.cut_after, served.faults.cuts = 70_000, 3
    notes = []
    assert client.read(remote, 0, len(DATA), note=notes.append) == DATA
    starts = [int(part.removeprefix("bytes=").split("-")[0]) for part in served.ranges()[1:]]
    # The client may not have seen the last bytes before a cut; it never starts over.
    assert len(starts) == 4
    assert starts[0] == 0
    assert all(0 < after - before <= 70_000 for before, after in pairwise(starts))
    assert len(notes) == 3
    assert "cut" in notes[0]


def test_a_cut_is_noticed_without_a_length(served, client, remote):
    served.faults.announce = False
    served.faults.cut_after, served.faults.cuts = 70_000, 2
    assert client.read(remote, 0, len(DATA)) == DATA
    assert served.ranges()[1:] == ["bytes=0-255999", "bytes=70000-255999", "bytes=140000-255999"]


def test_more_than_asked_for_is_noticed_without_a_length(served, client, remote):
    served.faults.announce = False
    served.faults.excess = 10
    with pytest.raises(ServerError, match="more bytes came than the 100 asked for"):
        client.read(remote, 0, 100)


def test_a_connection_that_is_always_cut_is_given_up(served, client, remote):
    served.faults.cut_after, served.faults.cuts = 0, 1000
    with pytest.raises(ServerError, match=r"cut \(8 attempts\).*kept"):
        client.read(remote, 0, 10)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_faults_that_pass_are_tried_again(served, client, remote, status):
    served.faults.statuses = [(status, {})] * 3
    assert client.read(remote, 3, 7) == DATA[3:7]
    assert len(served.requests) == 5


def test_faults_that_stay_are_given_up(served, client, remote):
    served.faults.statuses = [(503, {})] * 100
    with pytest.raises(ServerError, match=r"503 .*8 attempts"):
        client.read(remote, 3, 7)
    assert len(served.requests) == 1 + 8


def waits(monkeypatch, client) -> list[float]:
    """Records the waits instead of waiting."""
    recorded = []
    monkeypatch.setattr(client, "_sleep", lambda seconds, cancelled: recorded.append(seconds))
    return recorded


def test_waits_double(served, client, remote, monkeypatch):
    recorded = waits(monkeypatch, client)
    served.faults.statuses = [(503, {})] * 4
    client.read(remote, 0, 1)
    for number, seconds in enumerate(recorded):
        assert 0.75 <= seconds / (0.01 * 2**number) <= 1.25
    assert len(recorded) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_holds_for_every_thread(served, client, remote, monkeypatch, status):
    recorded = waits(monkeypatch, client)
    served.faults.statuses = [(status, {"Retry-After": "100"})]
    notes = []
    client.read(remote, 0, 1, note=notes.append)
    # One wait of the request that was told, and one of the next request, which is told by nobody.
    assert recorded == [100.0, pytest.approx(100, abs=60)]
    assert str(status) in notes[0]
    assert "100 s" in notes[0]


def test_retry_after_as_a_date(served, client, remote, monkeypatch):
    recorded = waits(monkeypatch, client)
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=200), usegmt=True)
    served.faults.statuses = [(429, {"Retry-After": moment})]
    client.read(remote, 0, 1)
    assert recorded[0] == pytest.approx(200, abs=60)


def test_a_limit_of_requests_that_ends_at_a_time(served, client, remote, monkeypatch):
    recorded = waits(monkeypatch, client)
    served.faults.statuses = [(429, {"X-RateLimit-Reset": str(int(time.time()) + 50)})]
    client.read(remote, 0, 1)
    assert recorded[0] == pytest.approx(50, abs=40)


@pytest.mark.parametrize("nonsense", ["soon", "²", "9" * 5000])
def test_retry_after_that_is_nonsense_is_as_none(served, client, remote, monkeypatch, nonsense):
    recorded = waits(monkeypatch, client)
    served.faults.statuses = [(429, {"Retry-After": nonsense})]
    client.read(remote, 0, 1)
    assert len(recorded) == 1
    assert recorded[0] < 0.02


def test_a_server_that_wants_hours_is_not_waited_for(served, client, remote):
    served.faults.statuses = [(429, {"Retry-After": "7200"})]
    with pytest.raises(ServerError, match=r"429 .*in 120 minutes.*kept"):
        client.read(remote, 0, 1)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ({"etag": '"second"'}, ChangedArchiveError, 'ETag was "first" and is "second"'),
        ({"size": 999}, ChangedArchiveError, "had 256000 bytes and has 999"),
        ({"shift": 1}, ServerError, "asked for bytes 0 to 99, the server answered with 'bytes 1-100"),
        ({"length_off": -1}, ServerError, "a length of 99"),
        ({"length_off": 5}, ServerError, "a length of 105"),
        ({"ranges": False}, ServerError, "200 OK to a request for a part"),
        ({"headers": {"Content-Encoding": "gzip"}}, ServerError, "compressed as gzip"),
        ({"statuses": [(304, {})]}, ServerError, "304 Not Modified"),
        ({"statuses": [(416, {})]}, ChangedArchiveError, "shorter"),
        ({"statuses": [(404, {})]}, NotThereError, "has no .*/file"),
        ({"statuses": [(403, {})]}, ServerError, "403 Forbidden"),
        ({"statuses": [(206, {})]}, ServerError, "without saying which"),
        ({"statuses": [(206, {"Content-Range": "bytes 0-²/9"})]}, ServerError, "without saying which"),
        ({"statuses": [(206, {"Content-Range": f"bytes 0-9/{'9' * 5000}"})]}, ServerError, "without saying"),
        ({"statuses": [(302, {"Location": "/file"})] * 50}, ServerError, "without end"),
    ],
)
def test_answers_that_are_not_what_was_asked_for(served, client, remote, fault, error, words):
    for name, value in fault.items():
        setattr(served.faults, name, value)
    with pytest.raises(error, match=words):
        client.read(remote, 0, 100)


def test_a_longer_archive_sent_whole_has_changed(served, client, remote, tmp_path):
    (tmp_path / "file").write_bytes(DATA + b"more")
    served.faults.etag = None
    served.faults.ranges = False
    with pytest.raises(ChangedArchiveError, match="had 256000 bytes and has 256004"):
        client.read(remote, 0, 100)


def test_a_weak_etag_is_compared_but_not_sent(served, client):
    served.faults.etag = 'W/"weak"'
    remote = client.look(f"{served.address}/file")
    assert client.read(remote, 0, 9) == DATA[:9]
    assert "If-Range" not in served.requests[-1][1]
    served.faults.etag = 'W/"other"'
    with pytest.raises(ChangedArchiveError):
        client.read(remote, 0, 9)


def test_redirects_are_followed(served, client):
    served.faults.statuses = [(302, {"Location": "/file"})]
    assert client.look(f"{served.address}/elsewhere").size == len(DATA)


def test_a_redirect_that_ends_encryption_is_not_followed(served, client, monkeypatch):
    asked = []

    def answer(self, address, **options):
        asked.append(address)
        found = requests.Response()
        found.status_code, found.url, found.raw = 302, address, io.BytesIO()
        found.headers["Location"] = f"{served.address}/file"
        return found

    monkeypatch.setattr(requests.Session, "get", answer)
    with pytest.raises(ServerError, match="not encrypted"):
        client.look("https://here/file")
    # Not even asked for.
    assert asked == ["https://here/file"]


def test_the_body_of_a_redirect_is_not_read(served, client, tmp_path):
    (tmp_path / "endless").write_bytes(bytes(50_000_000))
    served.faults.ranges = False
    served.faults.moved = {"/endless": "/file"}
    assert client.look(f"{served.address}/endless").size == len(DATA)
    assert served.sent < 10_000_000


def test_no_more_is_read_than_asked_for(served, client):
    served.faults.shift, served.faults.size = 0, 10
    remote = client.look(f"{served.address}/file")
    assert client.transferred == 4
    assert remote.size == 10


def test_a_server_without_ranges(served, client):
    served.faults.ranges = False
    remote = client.look(f"{served.address}/file")
    assert (remote.ranges, remote.size) == (False, len(DATA))
    assert client.transferred == 0
    served.faults.cut_after, served.faults.cuts = 100_000, 1
    chunks = list(client.whole(remote, 0))
    again = chunks.index(None)
    assert b"".join(chunks[again + 1 :]) == DATA


def test_a_whole_file_of_the_wrong_length(served, client):
    served.faults.ranges = False
    remote = client.look(f"{served.address}/file")
    served.faults.length_off = -5
    with pytest.raises(ServerError, match="255995 bytes came instead of the 256000"):
        list(client.whole(remote, 0))


def test_a_whole_file_without_end(served, client):
    """One whose length is announced at first, and one whose length never is."""
    served.faults.ranges = False
    known = client.look(f"{served.address}/file")
    served.faults.announce = False
    unknown = client.look(f"{served.address}/file")
    assert unknown.size is None
    assert b"".join(client.whole(unknown, len(DATA))) == DATA
    with pytest.raises(ServerError, match="more bytes came than the 100000 awaited at most"):
        list(client.whole(unknown, 100_000))
    known = replace(known, size=100_000)
    with pytest.raises(ServerError, match="more bytes came than the 100000 announced"):
        list(client.whole(known, 10**9))


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        Client(pause=0.01) as client,
        pytest.raises(OfflineError, match=r"can't be reached .*\(3 attempts\)"),
    ):
        client.look(f"http://127.0.0.1:{port}/file")


def test_a_server_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with Client(pause=0.01, timeout=0.1) as client, pytest.raises(OfflineError, match="in time"):
            client.look(f"http://127.0.0.1:{port}/file")


@pytest.mark.parametrize("address", ["http://", "nonsense://a/b", "http://[half"])
def test_addresses_that_are_none(client, address):
    with pytest.raises(ServerError, match="no address"):
        client.look(address)


def with_login(address, login="me:s%2Fecr%40t"):
    return address.replace("://", f"://{login}@")


def authorization(served):
    """What each request said of who sends it: user and password."""
    words = [headers.get("Authorization", "") for _, headers in served.requests]
    return [base64.b64decode(word.removeprefix("Basic ")).decode() for word in words]


def test_a_password_in_the_address_is_sent_and_not_kept(served, client, tmp_path):
    remote = client.look(with_login(f"{served.address}/file"))
    assert client.read(remote, 0, 10) == DATA[:10]
    assert list(client.whole(remote, len(DATA)))
    assert authorization(served) == ["me:s/ecr@t"] * 3
    assert remote.url == f"{served.address}/file"
    assert "ecr" not in repr(remote)


def test_a_password_is_sent_to_no_other_server(served, client, tmp_path):
    with serving(tmp_path) as other:
        served.faults.statuses = [(302, {"Location": f"{other.address}/file"})]
        assert client.look(with_login(f"{served.address}/file")).size == len(DATA)
        assert authorization(served) == ["me:s/ecr@t"]
        assert authorization(other) == [""]
        served.faults.statuses = [(302, {"Location": "/file?again"})]
        client.look(with_login(f"{served.address}/file"))
        assert authorization(served) == ["me:s/ecr@t"] * 3


@pytest.mark.parametrize(
    ("first", "then", "sent"),
    [
        ("http://host/a", "https://host/a", True),  # how servers lead to encryption
        ("https://host/a", "https://host:443/b", True),
        ("https://host/a", "https://host:8443/a", False),
        ("https://host/a", "https://other/a", False),
        ("http://host:8000/a", "https://host/a", False),
    ],
)
def test_which_server_is_the_same_one(client, monkeypatch, first, then, sent):
    asked = []

    def get(session, address, *, auth, **_):
        asked.append((address, auth is not None))
        response = requests.Response()
        response.status_code = 302 if len(asked) == 1 else 404
        response.headers["Location"] = then
        response.raw = io.BytesIO()
        return response

    monkeypatch.setattr(requests.Session, "get", get)
    with pytest.raises(NotThereError):
        client.look(with_login(first))
    assert asked == [(first, True), (then, sent)]


@pytest.mark.parametrize(
    "fault",
    [
        (404, {}),
        (401, {}),
        (503, {}),
        (302, {"Location": "nonsense://me:s%2Fecr%40t@host"}),
        (302, {"Location": "http://me:s%2Fecr%40t@[host"}),
        (302, {"Location": "http://me:s%2Fecr%40t@host:99999"}),
    ],
    ids=["absent", "refused", "busy", "moved", "nowhere", "no port"],
)
def test_no_error_repeats_a_password(served, client, fault):
    served.faults.statuses = [fault] * 8
    with pytest.raises(ServerError) as error:
        client.look(with_login(f"{served.address}/file"))
    assert "ecr" not in str(error.value)
    assert served.address.removeprefix("http://") in str(error.value)


@pytest.mark.parametrize("address", ["http://me:secret@127.0.0.1:9/file", "http://me:secret@[half"])
def test_no_error_of_an_address_repeats_a_password(address):
    with Client(pause=0.01) as client, pytest.raises((OfflineError, ServerError)) as error:
        client.look(address)
    assert "secret" not in str(error.value)
    proxy = "http://me:secret@127.0.0.1:9"
    with Client(proxy=proxy, pause=0.01) as client, pytest.raises(OfflineError) as error:
        client.look("http://data.invalid/file")
    assert "secret" not in str(error.value)


def test_a_proxy_by_name(served, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    with Client(proxy=served.address) as client:
        assert client.look("http://data.invalid/file").size == len(DATA)
    assert served.requests[-1][0] == "http://data.invalid/file"


def test_a_proxy_of_the_environment(served, client, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("HTTP_PROXY", served.address)
    assert client.look("http://data.invalid/file").size == len(DATA)
    assert served.requests[-1][0] == "http://data.invalid/file"


def test_a_proxy_that_is_not_there(monkeypatch):
    with Client(proxy="http://127.0.0.1:9", pause=0.01) as client, pytest.raises(OfflineError, match="proxy"):
        client.look("http://data.invalid/file")


def test_it_stops_when_told(served, client, remote):
    cancelled = threading.Event()
    chunks = client.chunks(remote, 0, len(DATA), cancelled=cancelled)
    next(chunks)
    cancelled.set()
    with pytest.raises(Cancelled):
        next(chunks)


def test_it_stops_while_it_waits(served, client, remote):
    served.faults.statuses = [(503, {"Retry-After": "500"})]
    cancelled = threading.Event()
    chunks = client.chunks(remote, 0, 9, cancelled=cancelled, note=lambda text: cancelled.set())
    with pytest.raises(Cancelled):
        next(chunks)
