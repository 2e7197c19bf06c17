"""Named regions on a domain."""

import numpy as np
import pytest

from core.domain import ITALY, Domain
from core.regions import REGIONS, SMALLEST_SIDE, WHOLE, whole_window, windows


def test_italy_offers_all_regions_after_the_whole():
    found = windows(ITALY)
    assert found[0] == whole_window(ITALY)
    assert [window.key for window in found[1:]] == [region.key for region in REGIONS]


@pytest.mark.parametrize("window", windows(ITALY), ids=lambda window: window.key)
def test_windows_cut_coarse_and_fine_alike(window):
    rows, columns = window.slices(ITALY.coarse)
    fine_rows, fine_columns = window.slices(ITALY.fine)
    assert (fine_rows.start, fine_rows.stop) == (rows.start * 8, rows.stop * 8)
    assert (fine_columns.start, fine_columns.stop) == (columns.start * 8, columns.stop * 8)
    assert min(rows.stop - rows.start, columns.stop - columns.start) >= SMALLEST_SIDE


@pytest.mark.parametrize(
    ("key", "longitude", "latitude"),
    [("alps", 7.87, 45.94), ("po-valley", 9.19, 45.46), ("sicily", 14.99, 37.75), ("sardinia", 9.11, 39.22)],
)
def test_places_lie_in_their_region(key: str, longitude: float, latitude: float):
    window = next(window for window in windows(ITALY) if window.key == key)
    rows, columns = window.slices(ITALY.fine)
    distance = np.hypot(ITALY.fine.longitude - longitude, ITALY.fine.latitude - latitude)
    row, column = np.unravel_index(distance.argmin(), distance.shape)
    assert rows.start <= row < rows.stop
    assert columns.start <= column < columns.stop


def test_a_domain_elsewhere_offers_itself_alone():
    norway = Domain.regular("Norway", left=4_200_000, top=4_400_000, shape=(64, 64), spacing=2000, ratio=8)
    assert [window.key for window in windows(norway)] == [WHOLE]


def test_a_region_that_barely_touches_the_domain_is_left_out():
    alps_only = Domain.regular("Alps", left=4_100_000, top=2_650_000, shape=(128, 160), spacing=2000, ratio=8)
    keys = [window.key for window in windows(alps_only)]
    assert "sicily" not in keys
    assert "tyrrhenian" not in keys
