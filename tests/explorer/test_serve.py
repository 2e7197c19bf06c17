"""The command that serves the page."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from explorer import serve as module
from explorer.serve import ServeError, command, free_port, serve
from explorer.settings import parse

ROOT = Path(__file__).resolve().parent.parent.parent
LOGIN = ROOT / "explorer" / "login.html"
PATIENCE = 60.0


@pytest.fixture
def taken():
    """A port on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_takes_the_next_free_port(taken: int):
    assert taken < free_port("localhost", taken) <= taken + module.PORTS_TRIED


def test_no_free_port_is_an_error(taken: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PORTS_TRIED", 1)
    with pytest.raises(ServeError, match=r"No port .* is free; choose another with --port"):
        free_port("localhost", taken)


def test_foreign_address_is_an_error():
    with pytest.raises(ServeError, match=r"not an address of this machine|can't listen"):
        free_port("192.0.2.1", 5006)


def test_says_which_port_it_took_and_serves_there(taken: int, monkeypatch: pytest.MonkeyPatch):
    import panel.command

    calls, said = [], []
    monkeypatch.setattr(panel.command, "main", lambda: calls.append(list(sys.argv)))
    serve(["x.zarr"], port=taken, open_browser=False, say=said.append)
    assert said[0].startswith(f"Port {taken} is taken; using ")
    port = said[0].rstrip(".").split()[-1]
    assert f"http://localhost:{port}/app" in said[1]
    assert calls[0][:2] == ["panel", "serve"]
    assert calls[0][calls[0].index("--port") + 1] == port


def test_listens_on_this_machine_alone_by_default():
    arguments = command([], port=5006, open_browser=False)
    assert arguments[arguments.index("--address") + 1] == "localhost"
    origins = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--allow-websocket-origin"]
    assert origins == ["localhost:5006", "127.0.0.1:5006"]
    assert "--show" not in arguments
    assert arguments[arguments.index("--args") :] == ["--args", "--local"]


def test_passes_stores_and_checkpoints_on():
    arguments = command(["/d/a.zarr", "/d/b.zarr"], "/m", port=5006)
    assert arguments[arguments.index("--args") + 1 :] == [
        "/d/a.zarr",
        "/d/b.zarr",
        "--checkpoints",
        "/m",
        "--local",
    ]
    assert "--show" in arguments


def test_settings_are_passed_on_and_what_is_off_is_left_out():
    arguments = command(
        ["a.zarr"], port=5006, address="0.0.0.0", cache=Path("kept"), cache_gb=2.5, read_only=True,
        most_members=None, allow_upload=False, stations=Path("seen.csv"),
    )  # fmt: skip
    tail = arguments[arguments.index("--args") + 2 :]
    stations = ["--stations", str(Path("seen.csv").absolute())]
    assert tail == ["--cache", str(Path("kept").absolute()), "--cache-gb", "2.5", "--read-only", *stations]
    settings = parse(arguments[arguments.index("--args") + 1 :], {})
    assert (settings.cache, settings.cache_gb, settings.read_only) == (Path("kept").absolute(), 2.5, True)
    assert not settings.local


@pytest.mark.parametrize(("address", "local"), [("localhost", True), ("127.0.0.1", True), ("", False)])
def test_the_page_is_told_where_it_listens(address: str, local: bool):
    arguments = command([], port=5006, address=address)
    tail = arguments[arguments.index("--args") + 1 :] if "--args" in arguments else []
    assert parse(tail, {}).local == local


# ---------------------------------------------------------------- the real server


@contextmanager
def running(folder: Path, *flags: str, **options: object) -> Iterator[int]:
    """The port of the real server over no store, with further flags of ``panel serve``."""
    port = free_port("localhost", 5100 + os.getpid() % 800)
    arguments = command(
        [], folder / "checkpoints", port=port, open_browser=False, cache=folder / "kept", **options
    )
    at = arguments.index("--args")
    arguments[at:at] = flags
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "panel", *arguments],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            end = time.monotonic() + PATIENCE
            while not _listens("127.0.0.1", port):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, "The server did not start."
                time.sleep(0.1)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _listens(address: str, port: int) -> bool:
    with socket.socket() as trial:
        trial.settimeout(5)
        return trial.connect_ex((address, port)) == 0


def get(url: str) -> tuple[int, str, str]:
    """(status, final address, text) of a page."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.url, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, url, error.read().decode()


def open_websocket(port: int, path: str, origin: str) -> int:
    """HTTP status of asking for the websocket of the page from a page of ``origin``; 101 where it opens."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: bokeh, none\r\nOrigin: {origin}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(request.encode())
        return int(connection.recv(4096).split()[1])


def test_the_server_is_for_this_machine_under_a_prefix_and_for_its_own_pages(tmp_path: Path):
    several = ["--num-procs", "2", "--setup", str(ROOT / "explorer" / "prepare.py")]
    with running(tmp_path, "--prefix", "/weather", *several) as port:
        assert _listens("127.0.0.1", port)
        # Another address of the same machine, which answers where a server listens on all.
        assert not _listens("127.0.0.2", port)
        status, _, page = get(f"http://localhost:{port}/weather/app")
        assert status == 200
        assert "<title>Tramontana</title>" in page
        assert get(f"http://localhost:{port}/app")[0] == 404
        assert get(f"http://localhost:{port}/weather/static/js/bokeh.min.js")[0] == 200
        # Whichever process answers, also one that has not shown a page.
        icons = f"http://localhost:{port}/weather/static/extensions/panel-material-ui/material-icons.css"
        assert [get(icons)[0] for _ in range(8)] == [200] * 8
        here = f"http://localhost:{port}"
        assert open_websocket(port, "/weather/app/ws", "http://elsewhere.example") == 403
        assert open_websocket(port, "/weather/app/ws", here) != 403


def test_basic_auth_asks_for_a_login_that_needs_no_internet(tmp_path: Path):
    (tmp_path / "users.json").write_text('{"ada": "secret"}')
    login = ["--basic-auth", str(tmp_path / "users.json"), "--cookie-secret", "x" * 32]
    with running(tmp_path, *login, "--basic-login-template", str(LOGIN)) as port:
        here = f"http://localhost:{port}"
        status, address, page = get(f"{here}/app")
        assert status == 200
        assert "/login" in address
        assert 'name="password"' in page
        assert "Sign in to open the explorer" in page
        assert "http" not in page.replace("http-equiv", "")
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

        def sign_in(password: str) -> str:
            form = urllib.parse.urlencode({"username": "ada", "password": password}).encode()
            visitor.open(f"{here}/login", form, timeout=PATIENCE).close()
            with visitor.open(f"{here}/app", timeout=PATIENCE) as answer:
                return answer.read().decode()

        assert 'name="password"' in sign_in("wrong")
        assert "<title>Tramontana</title>" in sign_in("secret")
