"""The hours in which two fields differ most."""

import numpy as np
import pytest

from core.regions import whole_window
from explorer.story import CHAPTERS, find_story, rms_difference
from tests.explorer.small_store import DOMAIN

HOURS = np.arange("2021-01-01", "2021-02-01", dtype="datetime64[h]").astype("datetime64[ns]")[::6]
WINDOW = whole_window(DOMAIN)
ZERO = np.zeros(DOMAIN.fine.shape, "f4")


def gap(hour: np.datetime64) -> float:
    """A difference that tells hours apart."""
    return float(np.flatnonzero(hour == HOURS)[0] * 7 % 124)


def test_differences_are_root_mean_squares_on_the_finer_grid():
    assert rms_difference(ZERO + 3, ZERO, WINDOW, DOMAIN) == 3
    coarse = np.ones(DOMAIN.coarse.shape, "f4")
    assert rms_difference(coarse, ZERO, WINDOW, DOMAIN) == 1
    assert np.isnan(rms_difference(ZERO * np.nan, ZERO, WINDOW, DOMAIN))


def test_the_largest_differences_are_found_and_lie_a_day_apart():
    stories = list(find_story(HOURS, lambda hour: (ZERO + gap(hour), ZERO), WINDOW, DOMAIN))
    last = stories[-1]
    assert last.complete
    assert len(last.chapters) == CHAPTERS
    found = [chapter.difference for chapter in last.chapters]
    assert found == sorted(found, reverse=True)
    assert found[0] == max(gap(hour) for hour in HOURS) == 123
    hours = [chapter.hour for chapter in last.chapters]
    assert all(abs(a - b) >= np.timedelta64(24, "h") for a in hours for b in hours if a != b)
    assert all((chapter.left == chapter.difference).all() for chapter in last.chapters)
    assert last.median == pytest.approx(np.median([gap(hour) for hour in HOURS]))


def test_it_grows_and_missing_hours_are_counted():
    now = iter(np.arange(1000.0) * 0.6)
    stories = list(
        find_story(
            HOURS[:12],
            lambda hour: None if hour == HOURS[3] else (ZERO + 1, ZERO),
            WINDOW,
            DOMAIN,
            clock=lambda: float(next(now)),
        )
    )
    told = [story for story in stories if story is not None]
    assert 2 < len(told) < len(stories) == 12
    assert (told[-1].looked, told[-1].missing) == (12, 1)
    assert told[0].looked < told[-1].looked


def test_nothing_to_compare_gives_an_empty_story():
    (story,) = [s for s in find_story(HOURS[:1], lambda hour: None, WINDOW, DOMAIN)]
    assert (story.chapters, story.missing) == ((), 1)
    assert np.isnan(story.median)
