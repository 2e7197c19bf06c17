"""Files from the server to the browser over the connection that the page has.

Sent in pieces, each when the one before has arrived, so that a large file neither fills the memory of the
server nor keeps the page waiting; and without an address of its own, which a proxy or a login would have to
know. The browser puts the pieces together and saves them as a download.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from panel.custom import JSComponent

PIECE = 2**20
"""Bytes sent at once."""

ESM = """
export function render({model, el}) {
  let pieces = [], current = 0
  model.on('msg:custom', (event) => {
    const {file, name, type, piece, last} = event.data ?? event
    if (file != current) { pieces = []; current = file }
    pieces.push(piece)
    if (last) {
      const link = document.createElement('a')
      link.href = URL.createObjectURL(new Blob(pieces, {type}))
      link.download = name
      document.body.append(link)
      link.click()
      link.remove()
      pieces = []
      setTimeout(() => URL.revokeObjectURL(link.href), 60000)
    }
    model.send_msg({file, last})
  })
}
"""


@dataclass(frozen=True)
class Download:
    """A file to be saved under ``name``; ``content`` is read from where it stands, ``size`` bytes."""

    name: str
    type: str
    content: IO[bytes]
    size: int


class Sender(JSComponent):
    """Sends one download after the other to one page; a newer one takes the place of an older."""

    _esm = ESM

    def __init__(self, **params: Any) -> None:
        self._number = 0
        self._download: Download | None = None
        self._sent = 0
        self._done: Callable[[Download], None] = lambda download: None
        super().__init__(
            width=0, height=0, margin=0, sizing_mode="fixed", styles={"position": "absolute"}, **params
        )

    def send(self, download: Download, done: Callable[[Download], None]) -> None:
        """Send a file; calls ``done`` when the browser has all of it."""
        self.drop()
        self._number += 1
        self._download, self._sent, self._done = download, 0, done
        self._send_piece()

    def drop(self) -> None:
        """Stop sending, and let go of the file."""
        if self._download is not None:
            self._download.content.close()
        self._download = None

    def _send_piece(self) -> None:
        download = self._download
        assert download is not None
        piece = download.content.read(PIECE)
        self._sent += len(piece)
        last = self._sent >= download.size or not piece
        self._send_msg(
            {
                "file": self._number, "name": download.name, "type": download.type, "piece": piece,
                "last": last,
            }
        )  # fmt: skip

    def _handle_msg(self, data: Any) -> None:
        """A piece has arrived."""
        download = self._download
        if not isinstance(data, dict) or data.get("file") != self._number or download is None:
            return
        if data.get("last"):
            self.drop()
            self._done(download)
        else:
            self._send_piece()
