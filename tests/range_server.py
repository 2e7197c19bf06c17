"""A server of files on this machine, with parts of files and with every fault that servers have."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BLOCK = 1 << 14


@dataclass
class Faults:
    """What the server does wrong; change it while it runs.

    Attributes
    ----------
    ranges : whether parts of files are sent
    statuses : statuses of the next answers, with their headers, before anything else is tried
    cut_after : bytes after which an answer breaks off, for the next ``cuts`` answers
    etag : the ETag, or none
    size : length of files as it is claimed in Content-Range
    shift : how much the part that is sent lies behind the one asked for
    length_off : how much Content-Length differs from what comes
    announce : whether there is a Content-Length at all
    excess : bytes that are sent beyond the part
    damage : positions in the file whose bytes are sent wrong
    headers : further headers of every answer
    moved : paths whose files are sent as the body of a redirect to another path
    block : called before every block of a body, with the path
    """

    ranges: bool = True
    statuses: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)
    cut_after: int = 0
    cuts: int = 0
    etag: str | None = '"first"'
    size: int | None = None
    shift: int = 0
    length_off: int = 0
    announce: bool = True
    excess: int = 0
    damage: frozenset[int] = frozenset()
    headers: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    block: Any = None


@dataclass
class Served:
    """The running server: its address, its faults, and what it was asked and has sent."""

    address: str
    faults: Faults
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0

    def ranges(self) -> list[str]:
        """The parts that were asked for, in order; "all" where all of a file was."""
        return [headers.get("Range", "all") for _, headers in self.requests]


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve the files of a folder while the block runs."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def answer(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            with lock:
                served.requests.append((self.path, dict(self.headers)))
                status = faults.statuses.pop(0) if faults.statuses else None
            self.close_connection = True
            if status is not None:
                self.answer(status[0], {"Content-Length": "0", **status[1]})
                return
            # A proxy is sent the whole address.
            path = folder / urlsplit(self.path).path.lstrip("/")
            if not path.is_file():
                self.answer(404, {"Content-Length": "0"})
                return
            self.send_file(path)

        def send_file(self, path: Path) -> None:
            size = path.stat().st_size
            asked, start, stop, status = self.headers.get("Range"), 0, size, 200
            headers = dict(faults.headers) | ({} if faults.etag is None else {"ETag": faults.etag})
            if self.path in faults.moved:
                status, headers["Location"] = 302, faults.moved[self.path]
            valid = self.headers.get("If-Range") in (None, faults.etag)
            if faults.ranges and asked and valid:
                first, last = asked.removeprefix("bytes=").split("-")
                start, stop, status = int(first), min(int(last) + 1, size), 206
                if start >= size:
                    self.answer(416, {"Content-Length": "0", "Content-Range": f"bytes */{size}"})
                    return
                start, stop = start + faults.shift, stop + faults.shift
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{faults.size or size}"
            if faults.announce:
                headers["Content-Length"] = str(stop - start + faults.length_off)
            with lock:  # before the answer begins: the other side may change the faults when it has seen that
                limit = faults.cut_after if faults.cuts else None
                faults.cuts = max(0, faults.cuts - 1)
            self.answer(status, headers)
            with path.open("rb") as file:
                file.seek(start)
                self.send_blocks(file, start, stop + faults.excess, limit)

        def send_blocks(self, file: Any, start: int, stop: int, limit: int | None) -> None:
            at = start
            while at < stop:
                if faults.block is not None:
                    faults.block(self.path)
                end = min(at + BLOCK, stop)
                if limit is not None:
                    end = min(end, start + limit)
                data = bytearray(file.read(end - at))
                for place in faults.damage:
                    if at <= place < end:
                        data[place - at] ^= 0xFF
                try:
                    self.wfile.write(data)
                except OSError:
                    return  # the other side has heard enough
                with lock:
                    served.sent += len(data)
                at = end
                if limit is not None and at - start >= limit:
                    return

    faults = Faults()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Served(f"http://127.0.0.1:{server.server_port}", faults)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_zip(path: Path, members: Mapping[str, bytes], **options: Any) -> Path:
    """A zip archive of these members; ``options`` go to zipfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **{"compression": zipfile.ZIP_DEFLATED} | options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
