"""core.domain: grids and domains check themselves and know their geometry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Proj, Transformer

from core.domain import ITALY, Domain, DomainError, Grid


def small(**changes):
    values = {"left": 4_000_000.0, "top": 2_500_000.0, "shape": (48, 32), "spacing": 2000.0, "ratio": 8}
    return Domain.regular("Small", **{**values, **changes})


def test_italy_is_the_published_domain():
    assert ITALY.fine.shape == (672, 576)
    assert ITALY.coarse.shape == (84, 72)
    assert (ITALY.fine.x[0], ITALY.fine.x[-1]) == (3_911_000, 5_061_000)
    assert (ITALY.fine.y[0], ITALY.fine.y[-1]) == (2_697_000, 1_355_000)
    assert (ITALY.coarse.x[0], ITALY.coarse.x[-1]) == (3_918_000, 5_054_000)
    assert (ITALY.coarse.y[0], ITALY.coarse.y[-1]) == (2_690_000, 1_362_000)
    assert ITALY.supergrid_cell == 12
    assert ITALY.supergrid_shape == (7, 6)
    assert (ITALY.coarse.dx, ITALY.coarse.dy) == (16_000, 16_000)


def test_coordinates_agree_with_pyproj():
    lon, lat = Transformer.from_crs("EPSG:3035", "EPSG:4326", always_xy=True).transform(
        ITALY.fine.x[10], ITALY.fine.y[20]
    )
    assert ITALY.fine.longitude[20, 10] == pytest.approx(lon)
    assert ITALY.fine.latitude[20, 10] == pytest.approx(lat)


def test_rotation_is_the_meridian_convergence():
    grid = ITALY.coarse
    factors = Proj("EPSG:3035").get_factors(grid.longitude, grid.latitude)
    np.testing.assert_allclose(np.degrees(grid.rotation), factors.meridian_convergence, atol=2e-3)
    assert grid.rotation[0, 0] < 0  # west of the central meridian true north leans to the right
    north = np.array([-np.sin(grid.rotation), np.cos(grid.rotation)])
    to_grid = Transformer.from_crs("EPSG:4326", "EPSG:3035", always_xy=True)
    x, y = to_grid.transform(grid.longitude, grid.latitude + 0.01)
    step = np.array([x - grid.x[None, :], y - grid.y[:, None]])
    np.testing.assert_allclose(step / np.hypot(*step), north, atol=1e-4)


def test_extent_is_the_outer_edge():
    assert ITALY.fine.extent == ITALY.coarse.extent == (3_910_000, 5_062_000, 1_354_000, 2_698_000)


@given(
    rows=st.integers(2, 9), columns=st.integers(2, 9), ratio=st.integers(1, 5), spacing=st.floats(100, 30_000)
)
def test_coarse_cells_are_blocks_of_fine_cells(rows, columns, ratio, spacing):
    domain = small(shape=(rows * ratio, columns * ratio), spacing=spacing, ratio=ratio, supergrid_cell=1)
    assert domain.coarse.shape == (rows, columns)
    np.testing.assert_allclose(domain.coarse.extent, domain.fine.extent)
    assert domain.coarse.dx == pytest.approx(ratio * spacing)
    assert Domain.from_dict(domain.to_dict()) == domain


@pytest.mark.parametrize(
    ("x", "y", "crs", "message"),
    [
        ([0, 1000, 2500], [1000, 0], "EPSG:3035", "evenly spaced"),
        ([0, 1000], [0, 1000], "EPSG:3035", "north to south"),
        ([1000, 0], [1000, 0], "EPSG:3035", "west to east"),
        ([0], [1000, 0], "EPSG:3035", "at least two"),
        ([0, np.nan], [1000, 0], "EPSG:3035", "west to east"),
        ([0, 1], [1, 0], "EPSG:4326", "projected"),
        ([0, 1], [1, 0], "nonsense", "Unknown coordinate reference system"),
    ],
)
def test_wrong_grids_are_refused_with_a_sentence(x, y, crs, message):
    with pytest.raises(DomainError, match=message):
        Grid(np.array(x, float), np.array(y, float), crs)


def test_wrong_domains_are_refused_with_a_sentence():
    with pytest.raises(DomainError, match="can't be averaged in blocks of 7"):
        small(ratio=7)
    with pytest.raises(DomainError, match="Supergrid cells of 9"):
        small(supergrid_cell=9)
    with pytest.raises(DomainError, match="needs a name"):
        Domain(" ", ITALY.fine, 8)
    with pytest.raises(DomainError, match="at most 100000 rows"):
        Domain.from_dict({**ITALY.to_dict(), "width": 10**12})
    with pytest.raises(DomainError, match="incomplete"):
        Domain.from_dict({"name": "Nowhere"})


def test_grids_can_not_be_changed_in_place():
    with pytest.raises(ValueError, match="read-only"):
        ITALY.fine.x[0] = 0
