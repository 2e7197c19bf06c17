"""Rotated grids against PROJ's own rotation."""

import numpy as np
import pytest
from pyproj import CRS, Geod, Transformer

from core.data.rotated import RotatedPole, RotatedPoleError, find_pole

POLES = [
    RotatedPole(43.0, -170.0),
    RotatedPole(32.5, -170.0, 0.0),
    RotatedPole(39.25, -162.0, 20.0),
    RotatedPole(90.0, 180.0),
]
LONGITUDE, LATITUDE = np.meshgrid(np.linspace(4, 20, 9), np.linspace(35, 49, 8))


def proj(pole):
    """PROJ's transformation from geographic to rotated coordinates, both on the sphere."""
    rotated = CRS.from_proj4(
        f"+proj=ob_tran +o_proj=longlat +o_lat_p={pole.latitude} +o_lon_p={pole.grid_longitude} "
        f"+lon_0={pole.longitude + 180} +R=6371229 +no_defs"
    )
    return Transformer.from_crs(CRS.from_proj4("+proj=longlat +R=6371229"), rotated, always_xy=True)


@pytest.mark.parametrize("pole", POLES)
def test_rotation_equals_that_of_proj(pole):
    true = proj(pole).transform(LONGITUDE, LATITUDE)
    found = pole.rotate(LONGITUDE, LATITUDE)
    np.testing.assert_allclose((found[0] - true[0] + 180) % 360 - 180, 0, atol=1e-9)
    np.testing.assert_allclose(found[1], true[1], atol=1e-9)


@pytest.mark.parametrize("pole", POLES[:3])
def test_winds_along_the_grid_turn_to_its_directions_on_earth(pole):
    # A short way along the rotated latitude, seen from the starting point as an azimuth.
    back = proj(pole)
    x, y = back.transform(LONGITUDE, LATITUDE)
    lon, lat = back.transform(x, np.asarray(y) + 1e-4, direction="INVERSE")
    azimuth = np.radians(Geod("+a=6371229 +b=6371229").inv(LONGITUDE, LATITUDE, lon, lat)[0])
    northward = pole.to_earth(LONGITUDE, LATITUDE) @ np.array([0.0, 1.0])
    np.testing.assert_allclose(northward[..., 0], np.sin(azimuth), atol=1e-6)
    np.testing.assert_allclose(northward[..., 1], np.cos(azimuth), atol=1e-6)
    eastward = pole.to_earth(LONGITUDE, LATITUDE) @ np.array([1.0, 0.0])
    np.testing.assert_allclose(eastward[..., 0], np.cos(azimuth), atol=1e-6)
    np.testing.assert_allclose(eastward[..., 1], -np.sin(azimuth), atol=1e-6)
    assert np.abs(np.sin(azimuth)).max() > 0.05


@pytest.mark.parametrize("north_first", [False, True])
def test_the_pole_is_found_from_positions(north_first):
    pole = RotatedPole(43.0, -170.0)
    columns, rows = np.arange(-5.0, 5.0, 0.05), np.arange(-6.0, 4.0, 0.05)[:: -1 if north_first else 1]
    lon, lat = proj(pole).transform(*np.meshgrid(columns, rows), direction="INVERSE")
    found, x, y = find_pole(lon.astype(np.float32), lat.astype(np.float32))
    assert found.latitude == pytest.approx(43.0, abs=1e-4)
    assert found.longitude == pytest.approx(-170.0, abs=1e-3)
    np.testing.assert_allclose(x, columns, atol=1e-3)
    np.testing.assert_allclose(y, rows, atol=1e-3)


def test_other_curved_grids_are_refused():
    lambert = Transformer.from_crs("EPSG:3035", "EPSG:4326", always_xy=True)
    x, y = np.meshgrid(np.arange(4.0e6, 4.5e6, 1e4), np.arange(2.0e6, 2.6e6, 1e4))
    with pytest.raises(RotatedPoleError, match="not a regular grid in any rotated"):
        find_pole(*lambert.transform(x, y))
    with pytest.raises(RotatedPoleError, match="gaps"):
        find_pole(np.full((5, 5), np.nan), np.full((5, 5), 45.0))


def test_grid_mappings_of_cf():
    attrs = {"grid_north_pole_latitude": 39.25, "grid_north_pole_longitude": np.float32(-162)}
    assert RotatedPole.from_cf(attrs) == RotatedPole(39.25, -162.0, 0.0)
    assert RotatedPole.from_cf(attrs | {"north_pole_grid_longitude": 5.0}).grid_longitude == 5.0
    with pytest.raises(RotatedPoleError, match="grid_north_pole_longitude"):
        RotatedPole.from_cf({"grid_north_pole_latitude": 39.25})
