"""Winds as arrows on the coarse cells."""

import numpy as np
import pytest

from explorer.views.layers import cell_edges
from explorer.winds import grid_winds, longest
from tests.explorer.small_store import DOMAIN

COARSE, FINE = DOMAIN.coarse.shape, DOMAIN.fine.shape


def test_an_east_wind_points_where_east_is_on_the_grid():
    fields = {"u10": np.full(COARSE, 3.0, "f4"), "v10": np.full(COARSE, 4.0, "f4")}
    x, y = grid_winds(fields, DOMAIN)
    np.testing.assert_allclose(np.hypot(x, y), 5, rtol=1e-6)
    angle = DOMAIN.coarse.rotation
    np.testing.assert_allclose(np.arctan2(y, x), np.arctan2(4, 3) + angle, rtol=1e-5)
    assert np.abs(angle).max() > 0.005  # else the test would prove nothing


def test_fine_winds_are_means_over_coarse_cells():
    rows = np.repeat(np.arange(COARSE[0], dtype="f4"), DOMAIN.ratio)[:, None] * np.ones(FINE[1], "f4")
    noise = np.tile([1.0, -1.0], FINE[1] // 2).astype("f4")
    fine = grid_winds({"u10": rows + noise, "v10": np.zeros(FINE, "f4")}, DOMAIN)
    coarse = np.arange(COARSE[0], dtype="f4")[:, None] * np.ones(COARSE, "f4")
    np.testing.assert_allclose(fine, grid_winds({"u10": coarse, "v10": 0 * coarse}, DOMAIN), atol=1e-5)


def test_without_both_components_there_is_no_wind():
    assert grid_winds({"u10": np.zeros(COARSE), "t2m": np.zeros(COARSE)}, DOMAIN) is None


def test_the_longest_arrow_is_a_round_speed():
    assert longest([np.full((2, 3, 3), 6.0)]) == 10  # 8.5 m/s
    assert longest([]) == longest([np.full((2, 2, 2), np.nan)]) == 1
    assert longest([np.zeros((2, 4, 4))]) == pytest.approx(0.5)


def test_edges_bound_every_coarse_cell():
    edges = cell_edges(DOMAIN)
    left, right, bottom, top = DOMAIN.coarse.extent
    assert np.isnan(edges["x"]).sum() == sum(COARSE) + 2
    assert (np.nanmin(edges["x"]), np.nanmax(edges["x"])) == (left, right)
    assert (np.nanmin(edges["y"]), np.nanmax(edges["y"])) == (bottom, top)
    assert set(np.diff(np.unique(edges["x"][~np.isnan(edges["x"])])).tolist()) == {16_000.0}
