"""Hours as people give them."""

from __future__ import annotations

import re

import numpy as np

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def time_span(start: str | None, end: str | None) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    """First and last time stamp (UTC, both included) of days or hours; an ``end`` without hour: all the day.

    Raises ValueError where a text is no date or the end lies before the start.
    """
    first = None if start is None else _time("start", start)
    last = None if end is None else _time("end", end)
    if last is not None and end is not None and _DAY.fullmatch(end.strip()):
        last = last + np.timedelta64(24 * 3600 - 1, "s")
    if first is not None and last is not None and last < first:
        raise ValueError(f"The end {end} lies before the start {start}.")
    return first, last


def _time(what: str, text: str) -> np.datetime64:
    try:
        time = np.datetime64(text.strip().replace(" ", "T"), "ns")
    except ValueError as error:
        raise ValueError(
            f"The {what} {text!r} is no date; write 2016-05-01 or 2016-05-01T06 (UTC)."
        ) from error
    if np.isnat(time):
        raise ValueError(f"The {what} is no date; write 2016-05-01 or 2016-05-01T06 (UTC).")
    return time
