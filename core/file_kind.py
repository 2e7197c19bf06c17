"""What kind of file lies at a path, by its first bytes: so that errors can say what to do with it."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Literal

FileKind = Literal["safetensors", "zip", "text", "other"]

LOOKED_AT = 512


def file_kind(path: str | Path) -> FileKind:
    """``"safetensors"`` (our checkpoints), ``"zip"`` (PyTorch's since 1.6), ``"text"``, or ``"other"``.

    A guess from 512 bytes, fit for advice only. What can't be read, and what is empty, is ``"other"``.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(LOOKED_AT)
    except OSError:
        return "other"
    if start[:4] == b"PK\x03\x04":
        return "zip"
    # Eight bytes give the length of the JSON that follows; no text has a zero byte in the eighth place.
    if start[7:9] == b"\0{":
        return "safetensors"
    return "text" if start and _is_text(start) else "other"


def _is_text(start: bytes) -> bool:
    try:
        # A letter may be cut off at the end.
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text)
