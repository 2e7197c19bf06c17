"""Numbers of things in sentences."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """``"1 hour"``, ``"2 hours"``; ``many`` where an s does not do: ``counted(3, "axis", "axes")``."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def are(number: int) -> str:
    """``"is"`` for one, else ``"are"``."""
    return "is" if number == 1 else "are"
