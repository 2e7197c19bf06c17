"""Numbers of things in sentences."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """``"1 hour"``, ``"2 hours"``; ``many`` is for nouns that do not end in s: ``counted(3, "axis", "axes")``."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
