"""Statistics of a field over a region."""

import numpy as np
import pytest

from core.regions import Window, whole_window
from explorer.region_statistics import Statistics, region_statistics, show_statistics
from tests.explorer.small_store import DOMAIN


def test_known_numbers_over_a_window():
    field = np.zeros(DOMAIN.fine.shape, "f4")
    field[:8, :8] = np.arange(64).reshape(8, 8)
    left, _, _, top = DOMAIN.fine.extent
    window = Window("corner", "Corner", left, left + 16_000, top - 16_000, top)
    found = region_statistics(field, window, DOMAIN)
    assert (found.mean, found.low, found.high) == (31.5, 0, 63)
    assert found.deviation == pytest.approx(np.arange(64).std())


def test_coarse_fields_and_gaps():
    field = np.full(DOMAIN.coarse.shape, 2.0, "f4")
    field[0, 0] = np.nan
    found = region_statistics(field, whole_window(DOMAIN), DOMAIN)
    assert (found.mean, found.deviation) == (2, 0)
    assert region_statistics(np.full_like(field, np.nan), whole_window(DOMAIN), DOMAIN) is None


def test_sums_of_many_cells_are_exact():
    field = np.full(DOMAIN.fine.shape, 0.1, "f4")
    found = region_statistics(field, whole_window(DOMAIN), DOMAIN)
    assert found.mean == pytest.approx(float(np.float32(0.1)), abs=1e-9)


def test_words_for_people():
    numbers = Statistics(1.26, -12.31, 5.0, 2.54)
    assert show_statistics(numbers, 1, "°C", signed=False) == "mean 1.3 · −12.3 to 5.0 · sd 2.5 °C"
    assert show_statistics(numbers, 1, "K", signed=True) == "mean +1.3 · −12.3 to +5.0 · sd 2.5 K"
