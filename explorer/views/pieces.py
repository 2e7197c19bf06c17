"""Files that a browser sends, taken piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import panel_material_ui as pmui

PIECE = 4 * 2**20
"""Bytes of an upload that travel at once; the server takes messages of 20 MB at most."""


class Pieces(pmui.FileInput):
    """A file input that hands on what arrives piece by piece, so that whoever takes it can stop at a limit.

    Whatever a browser sends goes to ``arrive`` (name, number of the piece from 1, its bytes), ``finish`` or
    ``fail`` (a sentence).
    """

    _esm_base = "FileInput.jsx"

    def __init__(
        self,
        arrive: Callable[[str, int, bytes], None],
        finish: Callable[[], None],
        fail: Callable[[str], None],
        **params: Any,
    ) -> None:
        super().__init__(**params)
        self._arrive, self._finish, self._fail = arrive, finish, fail

    def _handle_msg(self, msg: Any) -> None:
        status = msg.get("status")
        if status == "upload_event":
            data = msg.get("data")
            if isinstance(data, bytes | bytearray | memoryview):  # bytes() of a number would make as many
                self._arrive(str(msg.get("name", "")), msg.get("chunk"), bytes(data))
        elif status == "finished":
            self._finish()
            self._send_msg({"status": "finished"})
        elif status == "error":
            self._fail(str(msg.get("error", "It could not be sent.")))


class Content:
    """What arrived of a file that is held in memory, ``limit`` bytes at most.

    Browsers keep to what they are told; whoever writes to the server without one does not.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.name = ""
        self._expected = 1
        self._content: bytearray | None = None

    def add(self, name: str, number: object, piece: bytes) -> str:
        """Take the next piece, of which the first has the number 1; gives why the file is refused, or nothing."""
        if number == 1:
            self.name, self._expected, self._content = name, 1, bytearray()
        if self._content is None:
            return ""  # it was refused before
        if number != self._expected:
            self._content = None
            return "The file did not arrive in order; send it again."
        if len(self._content) + len(piece) > self.limit:
            self._content = None
            return f"{self.name} is larger than the {self.limit / 1e6:g} MB that may be loaded here."
        self._expected += 1
        self._content += piece
        return ""

    def take(self) -> bytes:
        """All of it, once, and nothing where it was refused."""
        content, self._content = self._content, None
        return bytes(content or b"")
