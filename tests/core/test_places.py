"""Cells at longitudes and latitudes."""

import numpy as np
import pytest

from core.domain import ITALY, Domain
from core.places import find_places, to_lonlat

DOMAIN = Domain.regular("Small", left=4_500_000.0, top=2_500_000.0, shape=(64, 48), spacing=2000.0, ratio=8)


def test_centres_of_cells_find_their_cells():
    rows, columns = np.array([0, 17, 63]), np.array([0, 30, 47])
    grid = DOMAIN.fine
    found = find_places(DOMAIN, grid.longitude[rows, columns], grid.latitude[rows, columns])
    np.testing.assert_array_equal(found.fine.rows, rows)
    np.testing.assert_array_equal(found.fine.columns, columns)
    np.testing.assert_array_equal(found.coarse.rows, rows // 8)
    np.testing.assert_array_equal(found.coarse.columns, columns // 8)
    np.testing.assert_allclose(found.fine.distance, 0, atol=1e-3)
    assert found.inside.all()


def test_the_distance_is_that_to_the_centre():
    grid = DOMAIN.fine
    lon, lat = to_lonlat(DOMAIN, grid.x[5] + 600, grid.y[9] - 800)
    found = find_places(DOMAIN, lon, lat)
    assert (found.fine.rows[0], found.fine.columns[0]) == (9, 5)
    assert found.fine.distance[0] == pytest.approx(1000, abs=0.01)
    assert found.coarse.distance[0] == pytest.approx(
        np.hypot(grid.x[5] + 600 - DOMAIN.coarse.x[0], grid.y[9] - 800 - DOMAIN.coarse.y[1])
    )


@pytest.mark.parametrize(("lon", "lat"), [(-60, 10), (12.5, 30), (190, -45), (13, 89.9), (float("nan"), 45)])
def test_points_elsewhere_are_outside(lon: float, lat: float):
    assert not find_places(ITALY, lon, lat).inside[0]


def test_the_outer_edge_is_inside():
    left, _, _, top = DOMAIN.fine.extent
    found = find_places(DOMAIN, *to_lonlat(DOMAIN, left + 1, top - 1))
    assert found.inside[0]
    assert (found.fine.rows[0], found.fine.columns[0]) == (0, 0)
