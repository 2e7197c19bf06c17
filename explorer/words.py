"""The words of a visitor's state: what each may be, and what stands for one that makes no sense.

They come from the controls, but also from addresses and from browsers, where anybody may have written
anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np

from explorer.fluxes import VARIANTS
from explorer.hours import MOST, PARTS
from explorer.jobs import MOST_SEED, SAMPLERS
from explorer.points import SPANS, is_point
from explorer.settings import Settings
from explorer.study import STATION_HEIGHT

STATE = (
    "store", "hour", "season", "daytime", "models", "variable", "region", "mode", "reference", "palette",
    "limits", "members", "sampler", "steps", "seed", "generator", "theme", "view", "fit", "variant", "cells",
    "point", "span", "height",
    "split", "scope", "most", "left", "right", "layers", "selection",
)  # fmt: skip
"""Names of what a person chooses, which the address of the page holds."""

FIELDS = "fields"
DIFFERENCE = "difference"
SWIPE = "swipe"
MODES = (FIELDS, DIFFERENCE, SWIPE)
VIEWS = ("maps", "spectra", "flux", "scores", "hours", "ensemble", "point", "about")
HOUR, HOURS = "hour", "hours"
SCOPES = (HOUR, HOURS)
ARROWS, CELLS, STATISTICS = "arrows", "cells", "statistics"
LAYERS = (ARROWS, CELLS, STATISTICS)
SPLIT_WORDS = {"train": "training weeks", "validation": "validation weeks", "test": "test weeks"}
STORY = "story"
SELECTIONS = ("day3", "day6", "spread", STORY)
THEMES = ("light", "dark")
SEASONS: dict[str, tuple[int, ...]] = {
    "all": tuple(range(1, 13)),
    "winter": (12, 1, 2),
    "spring": (3, 4, 5),
    "summer": (6, 7, 8),
    "autumn": (9, 10, 11),
}
DAYTIMES: dict[str, tuple[int, ...]] = {
    "all": tuple(range(24)),
    "day": tuple(range(6, 18)),
    "night": (*range(6), *range(18, 24)),
}
MOST_CELLS = 999
"""Coarse pixels along the side of a supergrid cell at most; no domain is as wide."""

ALLOWED: dict[str, Collection[Any]] = {
    "mode": MODES, "view": VIEWS, "theme": THEMES, "season": SEASONS, "daytime": DAYTIMES, "split": PARTS,
    "scope": SCOPES, "selection": SELECTIONS, "most": (*MOST, 0), "sampler": SAMPLERS, "variant": VARIANTS,
    "span": SPANS, "height": ("cell", STATION_HEIGHT),
}  # fmt: skip
"""What may be chosen, where the choice is among a few."""

WHOLE_NUMBERS = ("cells", "members", "steps", "seed", "most")
LISTS_OF_WORDS = ("models", "layers")
LISTS_OF_NUMBERS = ("limits", "fit", "point")
"""What is no single word in an address."""


def bounds(settings: Settings) -> dict[str, tuple[int, int]]:
    """Smallest and largest value of the whole numbers that may be any between them."""
    return {
        "members": (1, settings.most_members),
        "steps": (1, settings.most_steps),
        "seed": (0, MOST_SEED),
        "cells": (0, MOST_CELLS),
    }


def mended(name: str, value: Any, default: Any, settings: Settings) -> Any:
    """The value of a word of the state, or what stands for it where it makes no sense."""
    numbers = bounds(settings)
    if name in ALLOWED:
        return value if value in ALLOWED[name] else default
    if name in numbers:
        low, high = numbers[name]
        return value if low <= value <= high else min(default, high)
    if name == "hour":
        hour = read_hour(value)
        return "" if hour is None else write_hour(hour)
    if name == "layers":
        return value if all(layer in LAYERS for layer in value) else [x for x in LAYERS if x in value]
    if name == "limits":
        return value if value is None or _increase(value) else None
    if name == "fit":
        return value if _increase(value) and value[0] > 0 else default
    if name == "point":
        return value if value is None or is_point(value) else None
    return value


def read_hour(word: str) -> np.datetime64 | None:
    """An hour in ISO 8601 (UTC, with or without Z), or None where it is none."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}(T\d{2}(:\d{2}(:\d{2})?)?)?Z?", word):
        return None  # numpy would also read "today", and years that nanoseconds can't count
    try:
        hour = np.datetime64(word.removesuffix("Z"), "s")
    except ValueError:
        return None
    countable = np.datetime64("1678") <= hour < np.datetime64("2262")
    return hour.astype("datetime64[ns]") if countable else None


def write_hour(hour: np.datetime64) -> str:
    """An hour as the state holds it."""
    return str(np.datetime_as_string(hour, unit="m"))


def _increase(pair: Any) -> bool:
    numbers = len(pair) == 2 and all(isinstance(v, int | float) and np.isfinite(v) for v in pair)
    return numbers and pair[0] < pair[1]
