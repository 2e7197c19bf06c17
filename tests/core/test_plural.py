"""Numbers of things."""

import pytest

from core.plural import are, counted


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "hour"), "0 hours"),
        ((1, "hour"), "1 hour"),
        ((2, "hour"), "2 hours"),
        ((1, "axis", "axes"), "1 axis"),
        ((3, "axis", "axes"), "3 axes"),
    ],
)
def test_one_or_many(arguments: tuple, text: str) -> None:
    assert counted(*arguments) == text


def test_the_verb_agrees() -> None:
    assert [are(number) for number in (0, 1, 2)] == ["are", "is", "are"]
