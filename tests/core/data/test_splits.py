"""core.data.splits: parts that stand still."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.splits import blocked_split, week_number

HOUR = np.timedelta64(1, "h")

hour_lists = st.lists(st.integers(0, 24 * 365 * 60), min_size=1, max_size=60, unique=True).map(
    lambda numbers: np.datetime64("1979-01-01T00", "ns") + np.sort(np.array(numbers)) * HOUR
)


def test_week_numbers_follow_the_iso_calendar():
    days = np.arange(np.datetime64("1969-06-01"), np.datetime64("2027-01-01"))
    weeks = week_number(days)
    iso = [day.astype(object).isocalendar()[:2] for day in days]
    changes = [left != right for left, right in pairwise(iso)]
    np.testing.assert_array_equal(np.diff(weeks), np.array(changes, int))
    assert week_number(np.datetime64("1970-01-05")) == 0
    assert week_number(np.datetime64("1970-01-04T23")) == -1


@given(hour_lists)
def test_parts_are_disjoint_and_complete(hours):
    parts = blocked_split(hours)
    together = np.concatenate([parts.train, parts.validation, parts.test, parts.left_out])
    np.testing.assert_array_equal(np.sort(together), hours)


@given(hour_lists, hour_lists)
def test_more_hours_move_no_hour(hours, others):
    alone, grown = blocked_split(hours), blocked_split(np.union1d(hours, others))
    for part in ("train", "validation", "test", "left_out"):
        assert np.isin(getattr(alone, part), getattr(grown, part)).all()


def test_parts_of_two_years_by_hand():
    hours = np.arange(np.datetime64("2016-01-01T00"), np.datetime64("2018-01-01T00"), HOUR)
    parts = blocked_split(hours)
    total = parts.train.size + parts.validation.size + parts.test.size
    assert parts.train.size / total == pytest.approx(0.7, abs=0.05)
    # Monday 2016-01-04 begins week 2400, the first of a cycle of 20: left out, for the week before is a test.
    assert week_number(np.datetime64("2016-01-04")) == 2400
    assert np.datetime64("2016-01-04T12", "ns") in parts.left_out
    assert np.datetime64("2016-01-05T00", "ns") in parts.train
    assert np.datetime64("2016-01-11T00", "ns") in parts.train
    assert np.datetime64("2016-01-03T23", "ns") in parts.test
    # Weeks 14 and 17 of the cycle begin on 11 April and 2 May.
    assert np.datetime64("2016-04-10T23", "ns") in parts.train
    assert np.datetime64("2016-04-11T00", "ns") in parts.left_out
    assert np.datetime64("2016-04-12T00", "ns") in parts.validation
    assert np.datetime64("2016-05-03T00", "ns") in parts.test
    kept = np.concatenate([parts.train, parts.validation, parts.test])
    label = np.repeat(range(3), [parts.train.size, parts.validation.size, parts.test.size])[np.argsort(kept)]
    gaps = np.diff(np.sort(kept))[np.diff(label) != 0]
    assert gaps.size == 16
    assert (gaps == np.timedelta64(25, "h")).all()


def test_it_needs_no_pytorch():
    code = "import sys, core.data.splits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
