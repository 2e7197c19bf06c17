"""Which hours are taken of many."""

import numpy as np
import pytest

from core.data.splits import blocked_split
from explorer.hours import every_nth, far_apart, in_part, of_day, spread_out, thinned

DAY = np.arange("2021-03-16", "2021-03-17", dtype="datetime64[h]").astype("datetime64[ns]")
YEAR = np.arange("2021-01-01", "2022-01-01", dtype="datetime64[h]").astype("datetime64[ns]")


def test_parts_of_the_split_are_those_that_models_were_trained_with():
    split = blocked_split(YEAR)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(YEAR[in_part(YEAR, part)], getattr(split, part))
    assert in_part(YEAR, "all").all()
    assert in_part(YEAR[:0], "test").size == 0


@pytest.mark.parametrize(("count", "most"), [(240, 48), (1536, 48), (8760, 12), (100, 96), (25, 24), (7, 0)])
def test_thinning_keeps_to_the_limit_and_meets_many_times_of_day(count: int, most: int):
    chosen = thinned(YEAR[:count], most)
    assert chosen[0] == YEAR[0]
    assert most == 0 or chosen.size <= most
    times = set((chosen.astype("datetime64[h]").astype(int) % 24).tolist())
    assert len(times) >= min(8, chosen.size)


def test_few_hours_are_all_taken():
    assert every_nth(48, 48) == every_nth(10_000, 0) == 1
    assert every_nth(49, 48) == 2


def test_hours_of_a_day_are_multiples_of_the_step():
    times = of_day(YEAR, DAY[13], 6).astype("datetime64[h]")
    assert [str(t) for t in times] == [f"2021-03-16T{hour:02}" for hour in (0, 6, 12, 18)]


def test_hours_spread_out_hold_the_first_and_the_last():
    chosen = spread_out(YEAR, 8)
    assert chosen.size == 8
    assert (chosen[0], chosen[-1]) == (YEAR[0], YEAR[-1])
    np.testing.assert_array_equal(spread_out(DAY, 24), DAY)


def test_the_largest_values_are_a_day_apart():
    hours = YEAR[:96]
    values = np.zeros(96)
    values[[30, 31, 70]] = [5, 6, 4]
    values[10] = np.nan
    positions = far_apart(values, hours, 3)
    assert positions[:2] == [31, 70]
    assert all(abs(a - b) >= 24 for a in positions for b in positions if a != b)
    assert far_apart(np.full(3, np.nan), hours[:3], 2) == []
