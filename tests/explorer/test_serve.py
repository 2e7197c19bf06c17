"""The command that serves the page."""

import socket

import pytest

from explorer import serve as module
from explorer.serve import ServeError, command, free_port, serve


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
    import sys

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
    assert "--args" not in arguments


def test_passes_stores_and_checkpoints_on():
    arguments = command(["/d/a.zarr", "/d/b.zarr"], "/m", port=5006)
    assert arguments[arguments.index("--args") + 1 :] == ["/d/a.zarr", "/d/b.zarr", "--checkpoints", "/m"]
    assert "--show" in arguments
    arguments = command(["/d/a.zarr"], port=5006, stations="/d/obs.csv")
    assert arguments[-3:] == ["/d/a.zarr", "--stations", "/d/obs.csv"]
