"""Addresses with a user and a password in them, which nobody is to be shown."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes, urlsplit

Login = tuple[bytes, bytes]
"""User and password."""

_CREDENTIALS = re.compile(r"(?<=://)(?:[^/?#\s]*|[^/?#\s:]*:(?!\d+[/?#\s])\S*)@")
# The second kind is a password with a letter such as / in it, which should be written as %2F.


_ALONE = re.compile(r"^([a-z][a-z0-9+.-]+:/{1,2})[^/?#]*@", re.IGNORECASE)
# An address that is all of the text may hold spaces, which should be written as %20.


def without_credentials(text: str) -> str:
    """A text with ``https://user:password@host/...`` in it as ``https://host/...``."""
    return _CREDENTIALS.sub("", _ALONE.sub(r"\1", text))


def split_credentials(address: str) -> tuple[str, Login | None]:
    """(the address without user and password, these, or None where it has none)."""
    credentials, at, _ = urlsplit(address).netloc.rpartition("@")
    if not at:
        return address, None
    user, _, password = credentials.partition(":")
    return without_credentials(address), (unquote_to_bytes(user), unquote_to_bytes(password))
