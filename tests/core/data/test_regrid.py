"""Regridding against an independent interpolation, brute-force areas and its invariants."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from scipy.interpolate import RegularGridInterpolator

from core.data.regrid import Regridder, RegridError, bilinear, conservative
from core.domain import ITALY, Domain, Grid

SMALL = Domain.regular("Small", left=4_400_000.0, top=2_400_000.0, shape=(48, 40), spacing=4_000.0, ratio=8)
GRID = SMALL.coarse  # 6 x 5 cells of 32 km
LATITUDE = np.arange(48.0, 39.0, -0.25)
LONGITUDE = np.arange(7.0, 16.0, 0.25)


def _field(longitude, latitude, seed=0):
    return np.random.default_rng(seed).normal(size=(np.size(latitude), np.size(longitude)))


def _apply(regridder: Regridder, field):
    return regridder(regridder.window(field))


def test_bilinear_equals_scipy():
    field = _field(LONGITUDE, LATITUDE)
    oracle = RegularGridInterpolator((LATITUDE[::-1], LONGITUDE), field[::-1], method="linear")
    expected = oracle((GRID.latitude, GRID.longitude))
    np.testing.assert_allclose(_apply(bilinear(LONGITUDE, LATITUDE, GRID), field), expected, atol=1e-6)


def test_bilinear_leaves_cells_outside_the_area_empty_and_italy_with_a_part_covered():
    # As float32, like in the files of the Climate Data Store.
    latitude = np.arange(46.9, 36.3, -0.25, dtype=np.float32)
    longitude = np.arange(6.6, 18.4, 0.25, dtype=np.float32)
    field = _field(longitude, latitude)
    oracle = RegularGridInterpolator(
        (latitude[::-1].astype(float), longitude.astype(float)), field[::-1], bounds_error=False
    )
    expected = oracle((ITALY.coarse.latitude, ITALY.coarse.longitude))
    regridder = bilinear(longitude, latitude, ITALY.coarse)
    np.testing.assert_allclose(_apply(regridder, field), expected, atol=2e-5)
    np.testing.assert_array_equal(regridder.covered, np.isfinite(expected))
    assert 0.5 < regridder.covered.mean() < 0.8


@settings(max_examples=25, deadline=None)
@given(
    coefficients=st.tuples(*[st.floats(-5, 5)] * 3),
    step=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    north_first=st.booleans(),
    turns=st.sampled_from([-360.0, 0.0, 360.0]),
)
def test_bilinear_reproduces_linear_functions(coefficients, step, north_first, turns):
    constant, east, north = coefficients
    latitude = np.arange(38.0, 50.0, step)[:: -1 if north_first else 1]
    longitude = np.arange(5.0, 17.0, step)
    field = constant + east * longitude + north * latitude[:, None]
    expected = constant + east * GRID.longitude + north * GRID.latitude
    np.testing.assert_allclose(
        _apply(bilinear(longitude + turns, latitude, GRID), field), expected, atol=1e-4, rtol=1e-6
    )


@pytest.mark.parametrize("method", [bilinear, conservative])
@pytest.mark.parametrize("western_edge", [-180.0, 0.0])
@pytest.mark.parametrize(("centre_x", "centre_y"), [(3_400_000, 2_700_000), (4_321_000, 2_400_000)])
def test_global_fields_have_no_seam(method, western_edge, centre_x, centre_y):
    # The first grid lies across the prime meridian, where a 0-360 file begins and ends.
    grid = Domain.regular(
        "Seam", left=centre_x - 1e5, top=centre_y + 1e5, shape=(8, 24), spacing=25_000.0, ratio=1
    ).fine
    longitude = western_edge + np.arange(0, 360, 0.5)
    latitude = np.linspace(90, -90, 361)
    smooth = np.cos(np.radians(longitude)) + np.sin(np.radians(latitude))[:, None]
    regridder = method(longitude, latitude, grid)
    expected = np.cos(np.radians(grid.longitude)) + np.sin(np.radians(grid.latitude))
    # First-order conservative regridding leaves steps of up to half a source cell's gradient.
    tolerance = 2e-4 if method is bilinear else np.radians(0.25)
    np.testing.assert_allclose(_apply(regridder, smooth), expected, atol=tolerance)
    # Only the neighbourhood of the target is read.
    assert regridder.weights.shape[1] < 0.01 * smooth.size


@pytest.mark.parametrize("method", [bilinear, conservative])
def test_an_area_across_the_prime_meridian_equals_its_part_of_the_globe(method):
    grid = Domain.regular(
        "Seam", left=3_300_000, top=2_800_000, shape=(8, 24), spacing=25_000.0, ratio=1
    ).fine
    assert grid.longitude.min() < 0 < grid.longitude.max()
    latitude = np.arange(52.0, 40.0, -0.5)
    globe = np.arange(0, 360, 0.5)
    field = _field(globe, latitude)
    area = np.r_[np.arange(340, 360, 0.5), np.arange(0, 20, 0.5)]
    part = field[:, np.searchsorted(globe, area)]
    expected = _apply(method(globe, latitude, grid), field)
    assert np.isfinite(expected).all()
    for longitude in (area, (area + 180) % 360 - 180, np.where(area < 180, area + 360, area)):
        np.testing.assert_allclose(_apply(method(longitude, latitude, grid), part), expected, atol=1e-6)


def test_meridians_given_twice_are_used_once():
    field = _field(np.arange(0, 361, 1.0), LATITUDE)
    field[:, -1] = field[:, 0]
    twice, once = (conservative(np.arange(0, stop, 1.0), LATITUDE, GRID) for stop in (361, 360))
    np.testing.assert_allclose(_apply(twice, field), _apply(once, field[:, :-1]), atol=1e-6)


def test_conservative_equals_brute_force_sampling():
    field = _field(LONGITUDE, LATITUDE)
    samples = 200
    offset = (np.arange(samples) + 0.5) / samples - 0.5
    regridded = _apply(conservative(LONGITUDE, LATITUDE, GRID), field)
    to_degrees = Transformer.from_crs(GRID.crs, "EPSG:4326", always_xy=True)
    for row, column in [(0, 0), (2, 3), (5, 4)]:
        # EPSG:3035 is an equal-area projection, so even samples in x and y weigh the same.
        x, y = np.meshgrid(GRID.x[column] + offset * GRID.dx, GRID.y[row] + offset * GRID.dy)
        longitude, latitude = to_degrees.transform(x, y)
        i = np.rint((longitude - LONGITUDE[0]) / 0.25).astype(int)
        j = np.rint((LATITUDE[0] - latitude) / 0.25).astype(int)
        assert regridded[row, column] == pytest.approx(field[j, i].mean(), abs=3e-3)


def test_edges_of_large_cells_are_curved():
    # Cells of 250 km: between their corners straight edges leave the parallels by up to a kilometre.
    grid = Grid(np.array([4.2e6, 4.45e6]), np.array([2.7e6, 2.45e6]))
    latitude = np.arange(38.0, 52.0, 0.05)
    longitude = np.arange(5.0, 17.0, 0.05)
    field = np.broadcast_to(latitude[:, None], (latitude.size, longitude.size))
    offset = (np.arange(400) + 0.5) / 400 - 0.5
    x, y = np.meshgrid(grid.x[0] + offset * grid.dx, grid.y[0] + offset * grid.dy)
    _, sampled = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(x, y)
    mean = _apply(conservative(longitude, latitude, grid), field)[0, 0]
    assert mean == pytest.approx(sampled.mean(), abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000), step=st.sampled_from([0.2, 0.5, 1.25]), crs=st.sampled_from(["laea", "utm"])
)
def test_conservative_keeps_the_integral(seed, step, crs):
    # A source that lies wholly inside the target: nothing may be lost or invented.
    grid = (
        Domain.regular("A", left=4.1e6, top=2.7e6, shape=(25, 18), spacing=32_000.0, ratio=1).fine
        if crs == "laea"
        else Grid(np.arange(200_000, 900_000, 32_000.0), np.arange(5.1e6, 4.4e6, -32_000.0), "EPSG:32632")
    )
    longitude = np.arange(9.5, 11.6, step)
    latitude = np.arange(42.0, 44.1, step)
    field = np.random.default_rng(seed).uniform(0, 1, (latitude.size, longitude.size))
    regridder = conservative(longitude, latitude, grid)
    geod = Geod(ellps="WGS84")

    def area(west, south):
        # Points along the parallels, because geodesics leave them.
        along = np.linspace(west, west + step, 50)
        outline = np.r_[along, along[::-1]], np.r_[np.full(50, south), np.full(50, south + step)]
        return geod.polygon_area_perimeter(*outline)[0]

    source = sum(
        field[j, i] * area(west - step / 2, south - step / 2)
        for j, south in enumerate(latitude)
        for i, west in enumerate(longitude)
    )
    total = (regridder.weights @ regridder.window(field).ravel()).reshape(grid.shape)
    corners = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    half = np.array([-0.5, 0.5, 0.5, -0.5]), np.array([-0.5, -0.5, 0.5, 0.5])
    target = sum(
        total[j, i]
        * geod.polygon_area_perimeter(
            *corners.transform(grid.x[i] + half[0] * grid.dx, grid.y[j] + half[1] * grid.dy)
        )[0]
        for j, i in zip(*np.nonzero(total), strict=True)
    )
    assert target == pytest.approx(source, rel=2e-4)


@pytest.mark.parametrize("method", [bilinear, conservative])
@pytest.mark.parametrize("step", [0.1, 0.25, 2.0])
def test_constants_stay_and_nothing_exceeds_the_source(method, step):
    longitude, latitude = np.arange(4.0, 20.0, step), np.arange(36.0, 50.0, step)
    regridder = method(longitude, latitude, GRID)
    np.testing.assert_allclose(
        _apply(regridder, np.full((latitude.size, longitude.size), 287.3)), 287.3, rtol=1e-6
    )
    field = _field(longitude, latitude)
    regridded = _apply(regridder, field)
    assert field.min() <= regridded.min()
    assert regridded.max() <= field.max()


@pytest.mark.parametrize("method", [bilinear, conservative])
def test_missing_values_need_half_of_the_weight_and_do_not_spread(method):
    regridder = method(LONGITUDE, LATITUDE, GRID)
    field = np.full((LATITUDE.size, LONGITUDE.size), 290.0)
    land = _field(LONGITUDE, LATITUDE) > 0.3
    field[land] = np.nan
    regridded = _apply(regridder, field)
    share_of_sea = (regridder.weights @ (~regridder.window(land)).ravel().astype(float)).reshape(GRID.shape)
    np.testing.assert_array_equal(np.isnan(regridded), share_of_sea < 0.5)
    assert 0 < np.isnan(regridded).sum() < regridded.size
    np.testing.assert_allclose(regridded[~np.isnan(regridded)], 290.0, rtol=1e-6)


def test_a_lone_missing_point_by_hand():
    # One target cell centred on the middle of four source points: each weighs a quarter.
    grid = Grid(np.array([4_321_000.0, 4_341_000.0]), np.array([3_210_000.0, 3_190_000.0]))
    longitude = np.array([9.5, 10.5, 11.5])
    latitude = np.array([51.5, 52.5])
    regridder = bilinear(longitude, latitude, grid)
    weight_north = float(grid.latitude[0, 0]) - 51.5
    values = np.array([[1.0, 2.0, 0.0], [3.0, np.nan, 0.0]])
    east = float(grid.longitude[0, 0]) - 9.5
    weights = np.array(
        [(1 - weight_north) * (1 - east), (1 - weight_north) * east, weight_north * (1 - east)]
    )
    expected = weights @ [1.0, 2.0, 3.0] / weights.sum()
    assert _apply(regridder, values)[0, 0] == pytest.approx(expected, rel=1e-6)
    values[1, 0] = np.nan
    values[0, 0] = np.nan
    assert np.isnan(_apply(regridder, values)[0, 0])


def test_area_that_misses_the_grid_covers_nothing():
    for method in (bilinear, conservative):
        regridder = method(np.arange(100, 110.0), np.arange(-10, 0.0), GRID)
        assert not regridder.covered.any()
        assert np.isnan(_apply(regridder, np.ones((10, 10)))).all()


def test_data_arrays_and_dask_stay_lazy_and_agree():
    values = np.stack([_field(LONGITUDE, LATITUDE, seed) for seed in range(5)])
    field = xr.DataArray(
        values,
        dims=("time", "latitude", "longitude"),
        coords={"latitude": LATITUDE, "longitude": LONGITUDE},
        attrs={"units": "K"},
        name="t2m",
    )
    regridder = bilinear(LONGITUDE, LATITUDE, GRID)
    eager = regridder.regrid(field)
    assert eager.dims == ("time", "y", "x")
    assert eager.attrs == {"units": "K"}
    np.testing.assert_array_equal(eager, _apply(regridder, values))
    np.testing.assert_array_equal(eager.x, GRID.x)
    lazy = regridder.regrid(field.chunk({"time": 2}))
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), eager)
    with pytest.raises(RegridError, match="36 latitudes and 36 longitudes"):
        regridder.regrid(field.isel(latitude=slice(3)))


@pytest.mark.parametrize(
    ("longitude", "latitude", "message"),
    [
        ([5.0, 6.0, 8.0], [40.0, 41.0], "longitudes are not evenly spaced"),
        ([5.0, 6.0], [40.0, 41.0, 44.0], "latitudes are not evenly spaced"),
        ([5.0, 6.0], [40.0, 40.0], "latitudes are not evenly spaced"),
        ([5.0, 5.0], [40.0, 41.0], "two different meridians"),
        ([5.0], [40.0, 41.0], "at least two numbers"),
        ([[5.0, 6.0]], [40.0, 41.0], "at least two numbers"),
        ([5.0, np.nan], [40.0, 41.0], "not all numbers of degrees"),
        ([5.0, 6.0], [80.0, 100.0], "beyond the poles"),
        ([2_000_000.0, 2_016_000.0], [40.0, 41.0], "not all numbers of degrees"),
    ],
)
@pytest.mark.parametrize("method", [bilinear, conservative])
def test_other_grids_are_refused(method, longitude, latitude, message):
    with pytest.raises(RegridError, match=message):
        method(np.array(longitude), np.array(latitude), GRID)


def test_conservative_refuses_a_target_with_a_pole():
    grid = Grid(np.arange(-1e5, 1.1e5, 1e5), np.arange(1e5, -1.1e5, -1e5), "EPSG:3995")
    with pytest.raises(RegridError, match="contains a pole"):
        conservative(np.arange(0, 360, 1.0), np.arange(-90, 91, 1.0), grid)
