"""The state of a session in the address of the page, so that a link reproduces a view.

Panel's own synchronisation guesses types (a store called 2022 becomes a number, a list turns into
Python's notation on its second way), so the few kinds of values are written and read here.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

from panel.io.location import Location

from explorer.session import Session
from explorer.words import LISTS_OF_NUMBERS, LISTS_OF_WORDS, STATE, WHOLE_NUMBERS

ALWAYS = ("store", "hour", "models")
"""Written even where they are the default, which depends on what else lies in the folder."""


def to_query(session: Session) -> str:
    """The query part of the address, beginning with ``?``; what is at its default is left out."""
    words = {}
    for name in STATE:
        value = getattr(session, name)
        if value is None or value == "" or (name not in ALWAYS and value == session.param[name].default):
            continue
        words[name] = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in _many(value))
    return "?" + urlencode(words, safe=",:") if words else ""


def from_query(query: str) -> dict[str, Any]:
    """Values of session parameters found in a query; unknown names and broken numbers are left out.

    Whether a value makes sense is for the session to decide.
    """
    words = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))
    found: dict[str, Any] = {name: word for name, word in words.items() if name in STATE}
    for name in found.keys() & LISTS_OF_WORDS:
        found[name] = [word for word in found[name].split(",") if word]
    for name in found.keys() & LISTS_OF_NUMBERS:
        try:
            found[name] = [float(number) for number in found[name].split(",")]
        except ValueError:
            del found[name]
    for name in found.keys() & WHOLE_NUMBERS:
        if re.fullmatch("-?[0-9]{1,12}", found[name]):
            found[name] = int(found[name])
        else:
            del found[name]
    return found


def connect(session: Session, location: Location) -> None:
    """Keep the address and the session alike from now on, in both directions."""

    def write(*_: object) -> None:
        if location.search != to_query(session):
            location.search = to_query(session)

    def read(*_: object) -> None:
        if location.search != to_query(session):
            session.restore(from_query(location.search))

    session.param.watch(write, list(STATE))
    location.param.watch(read, "search")
    write()


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
