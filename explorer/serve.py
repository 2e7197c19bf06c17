"""Start the explorer as a web page; what ``tramontana explore`` calls."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

APP = Path(__file__).with_name("app.py")
PREPARE = APP.with_name("prepare.py")
PORTS_TRIED = 50


class ServeError(OSError):
    """The page can't be served; the message says why and how to mend it."""


def free_port(address: str, port: int) -> int:
    """The first port from ``port`` on that nobody listens on.

    Raises ServeError where the address is not one of this machine, or none of the next 50 ports is free.
    """
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        try:
            places = socket.getaddrinfo(
                address or None, candidate, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise ServeError(f"{address!r} is not an address of this machine ({error}).") from error
        # "localhost" has two places, IPv4 and IPv6; the server wants both.
        if all(_is_free(family, where) for family, _, _, _, where in places):
            return candidate
    raise ServeError(f"No port from {port} to {port + PORTS_TRIED - 1} is free; choose another with --port.")


def _is_free(family: socket.AddressFamily, where: tuple[Any, ...]) -> bool:
    try:
        trial = socket.socket(family, socket.SOCK_STREAM)
    except OSError:  # this machine does not speak IPv6
        return True
    with trial:
        if os.name == "posix":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(where)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6:
                return True
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise ServeError(f"The explorer can't listen on {where[0]}: {error.strerror}.") from error
    return True


def command(
    stores: Sequence[str | Path],
    checkpoints: str | Path | None = None,
    *,
    port: int,
    address: str = "localhost",
    open_browser: bool = True,
    **settings: object,
) -> list[str]:
    """The arguments of the ``panel`` command that serve the page.

    ``stores`` may hold checkpoint files too. ``settings`` are further ones of :class:`explorer.settings.Settings`
    by name; True switches an option on, and None and False leave it out.
    """
    everywhere = address in ("", "0.0.0.0", "::")
    local = address in ("localhost", "127.0.0.1", "::1")
    names = ["localhost", "127.0.0.1"] if local else ["*"] if everywhere else [address]
    arguments = ["serve", str(APP), "--port", str(port), "--index", "app", "--setup", str(PREPARE)]
    arguments += ["--address", address] if address else []
    # A page on another name may not open the websocket: it could read the data of this machine.
    for name in names:
        arguments += ["--allow-websocket-origin", name if name == "*" else f"{name}:{port}"]
    arguments += ["--show"] if open_browser else []
    tail = [str(Path(store).absolute()) for store in stores]
    tail += ["--checkpoints", str(Path(checkpoints).absolute())] if checkpoints else []
    for name, value in settings.items():
        word = f"--{name.replace('_', '-')}"
        if value is True:
            tail += [word]
        elif value is not None and value is not False:
            tail += [word, str(value.absolute() if isinstance(value, Path) else value)]
    # The page can't see where its server listens, so it is told; untold it is careful.
    tail += ["--local"] if local else []
    return [*arguments, "--args", *tail] if tail else arguments


def serve(
    stores: Sequence[str | Path] = (),
    checkpoints: str | Path | None = None,
    *,
    port: int = 5006,
    address: str = "localhost",
    open_browser: bool = True,
    say: Callable[[str], None] = print,
    **settings: object,
) -> None:
    """Serve the page until interrupted; equals ``panel serve explorer/app.py`` with sane options.

    Where the port is taken, says so and takes the next free one. Listens on this machine alone unless
    ``address`` says otherwise. ``settings`` as in :func:`command`. Raises ServeError where it can't listen.
    """
    chosen = free_port(address, port)
    if chosen != port:
        say(f"Port {port} is taken; using {chosen}.")
    shown = "localhost" if address in ("", "0.0.0.0", "::") else address
    say(f"The explorer is at http://{shown}:{chosen}/app (Ctrl-C stops it).")
    from panel.command import main

    arguments = command(
        stores, checkpoints, port=chosen, address=address, open_browser=open_browser, **settings
    )
    before = sys.argv
    sys.argv = ["panel", *arguments]  # where the command of Panel looks for its arguments
    try:
        main()
    finally:
        sys.argv = before
