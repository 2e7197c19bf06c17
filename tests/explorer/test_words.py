"""What the words of the state may be."""

from pathlib import Path

import numpy as np
import pytest

from explorer.session import Session
from explorer.settings import Settings
from explorer.words import ALLOWED, STATE, WHOLE_NUMBERS, bounds, mended, read_hour, write_hour

SETTINGS = Settings((), Path("checkpoints"), Path())


def test_every_word_is_a_parameter_whose_default_makes_sense():
    for name in STATE:
        default = Session.param[name].default
        assert mended(name, default, default, SETTINGS) == default, name
    assert set(WHOLE_NUMBERS) == {name for name in STATE if type(Session.param[name].default) is int}
    assert set(WHOLE_NUMBERS) <= set(ALLOWED) | set(bounds(SETTINGS))


@pytest.mark.parametrize(
    ("name", "nonsense", "instead"),
    [
        ("most", 7, 48), ("members", 10**11, 4), ("members", 0, 4), ("seed", -1, 0), ("cells", 10**11, 0),
        ("layers", ["cells", "x"], ["cells"]), ("limits", [1.0], None), ("limits", [1.0, np.nan], None),
        ("fit", [np.nan, 3.0], [1.0, 2.0]), ("fit", [-1.0, 3.0], [1.0, 2.0]), ("point", [np.inf, 1.0], None),
        ("hour", "today", ""), ("hour", "NaT", ""), ("hour", "2021-03-16T12:00Z", "2021-03-16T12:00"),
    ],
)  # fmt: skip
def test_nonsense_is_put_right(name: str, nonsense: object, instead: object):
    default = [1.0, 2.0] if name == "fit" else Session.param[name].default
    assert mended(name, nonsense, default, SETTINGS) == instead


def test_a_default_is_within_what_the_page_allows():
    few = Settings((), Path("checkpoints"), Path(), most_members=2)
    assert mended("members", 3, 4, few) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "word", ["2021-03-16T12:00", "2021-03-16T12:00Z", "2021-03-16T12", "2021-03-16T12:00:00"]
)
def test_hours_are_read_as_people_write_them(word: str):
    assert write_hour(read_hour(word)) == "2021-03-16T12:00"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "word", ["", "99999999", "1e99", "2021-13-45", "9999-01-01", "1500-01-01", "2021-3-1"]
)
def test_what_is_no_hour_is_none(word: str):
    assert read_hour(word) is None
