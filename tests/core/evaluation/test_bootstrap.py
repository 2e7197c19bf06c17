"""Block bootstrap: blocks, weights, means, intervals."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.evaluation.bootstrap import blocks_of, interval, weighted_means, weights


def hours(*numbers):
    return np.datetime64("2018-01-01T00", "ns") + np.array(numbers) * np.timedelta64(1, "h")


def test_blocks_are_consecutive_hours():
    found = blocks_of(hours(0, 1, 23, 24, 25, 900, 901), 24)
    assert [block.tolist() for block in found] == [[0, 1, 2], [3, 4], [5, 6]]


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=60, unique=True), st.integers(1, 100))
def test_blocks_hold_every_hour_once(numbers, length):
    times = hours(*sorted(numbers))
    blocks = blocks_of(times, length)
    assert np.concatenate(blocks).tolist() == list(range(times.size))
    for block in blocks:
        assert times[block[-1]] - times[block[0]] < np.timedelta64(length, "h")


def test_draws_take_whole_blocks():
    blocks = [np.array([0, 1, 2]), np.array([3]), np.array([4, 5])]
    counts = weights(blocks, 6, 50, seed=3)
    assert counts.shape == (51, 6)
    assert (counts[0] == 1).all()
    for row in counts:
        assert len(set(row[:3])) == len(set(row[4:])) == 1
        assert row[0] + row[3] + row[4] == 3
    np.testing.assert_array_equal(counts, weights(blocks, 6, 50, seed=3))


def test_means_leave_gaps_out():
    values = np.array([[1.0, np.nan, 3.0], [np.nan] * 3])
    counts = np.array([[1.0, 1.0, 1.0], [2.0, 5.0, 0.0], [0.0, 3.0, 0.0]])
    np.testing.assert_allclose(weighted_means(values, counts), [[2.0, 1.0, np.nan], [np.nan] * 3])


def test_interval_is_as_wide_as_theory_says():
    generator = np.random.default_rng(0)
    # Blocks of ten equal hours: only the 400 blocks are independent.
    values = np.repeat(generator.normal(3, 2, 400), 10)
    blocks = list(np.arange(4000).reshape(400, 10))
    value, low, high = interval(weighted_means(values, weights(blocks, 4000, 2000)))
    assert value == np.float64(values.mean()) or abs(value - values.mean()) < 1e-12
    expected = 2 * 1.96 * values.std() / 400**0.5
    assert 0.9 * expected < high - low < 1.1 * expected
    assert low < value < high


def test_nothing_known_has_no_interval():
    draws = np.array([[1.0, 2.0, 3.0], [np.nan] * 3])
    found = interval(draws)
    np.testing.assert_allclose(found[0], [1.0, 2.025, 2.975])
    assert np.isnan(found[1]).all()
