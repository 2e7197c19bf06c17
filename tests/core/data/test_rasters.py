"""core.data.rasters: averages over cells, checked against means computed pixel by pixel."""

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.transform import Affine

import core.data.rasters as rasters
from core.data.rasters import RasterError, cell_means, class_fractions
from core.domain import Grid


def grid(shape=(12, 20), spacing=2000.0, left=4_400_000.0, top=2_500_000.0, crs="EPSG:3035"):
    height, width = shape
    return Grid(left + spacing * (np.arange(width) + 0.5), top - spacing * (np.arange(height) + 0.5), crs)


def write(path, values, transform, crs="EPSG:3035", **profile):
    height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=values.dtype,
        crs=crs, transform=transform, **profile,
    ) as raster:  # fmt: skip
        raster.write(values, 1)
    return path


def overlap(cells, pixels, spacing, size):
    """Length of cell i that lies in pixel j, both given by their lower edges."""
    low = np.maximum(cells[:, None], pixels[None, :])
    high = np.minimum(cells[:, None] + spacing, pixels[None, :] + size)
    return np.maximum(high - low, 0.0)


@settings(max_examples=15, deadline=None)
@given(size=st.floats(150, 1900), shift=st.floats(0, 1), seed=st.integers(0, 9))
def test_means_are_weighted_by_area(tmp_path_factory, size, shift, seed):
    """Equal to the exact area-weighted mean for any ratio of pixel and cell, so totals are conserved."""
    target = grid((4, 6))
    left, right, bottom, top = target.extent
    rows, columns = int((top - bottom) / size) + 3, int((right - left) / size) + 3
    values = np.random.default_rng(seed).uniform(0, 100, (rows, columns)).astype(np.float32)
    west, north = left - shift * size, top + shift * size
    path = write(tmp_path_factory.mktemp("r") / "dem.tif", values, Affine(size, 0, west, 0, -size, north))
    across = overlap(left + 2000 * np.arange(6), west + size * np.arange(columns), 2000, size)
    down = overlap(2000.0 * np.arange(4), north * -1 + top + size * np.arange(rows), 2000, size)
    expected = down @ values.astype(float) @ across.T / 2000**2
    means = cell_means(path, target)
    np.testing.assert_allclose(means.mean, expected, rtol=2e-3)
    np.testing.assert_allclose(means.valid, 1.0, atol=1e-5)
    assert means.mean.mean() == pytest.approx(expected.mean(), rel=2e-4)


def test_shares_and_signs(tmp_path):
    """Four pixels a cell: -10, 30, 50 and a missing one."""
    block = np.array([[-10, 30], [50, -999]], np.int16)
    path = write(
        tmp_path / "dem.tif",
        np.tile(block, (12, 20)),
        Affine(1000, 0, 4_400_000, 0, -1000, 2_500_000),
        nodata=-999,
    )
    means = cell_means(path, grid())
    np.testing.assert_allclose(means.mean, 70 / 3, rtol=1e-6)
    np.testing.assert_allclose(means.mean_above_zero, 80 / 3, rtol=1e-6)
    np.testing.assert_allclose(means.above_zero, 0.5, rtol=1e-6)
    np.testing.assert_allclose(means.valid, 0.75, rtol=1e-6)


def test_packed_values_are_decoded(tmp_path):
    path = write(
        tmp_path / "dem.tif", np.full((12, 20), 40, np.uint8), Affine(2000, 0, 4.4e6, 0, -2000, 2.5e6)
    )
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (28.0,), (-450.0,)
    np.testing.assert_allclose(cell_means(path, grid()).mean, 40 * 28 - 450)


def test_tiles_do_not_show(tmp_path, monkeypatch):
    """The result does not depend on how the work was cut."""
    rng = np.random.default_rng(1)
    path = write(
        tmp_path / "dem.tif",
        rng.uniform(0, 100, (400, 500)).astype(np.float32),
        Affine(0.002, 0, 10.0, 0, -0.002, 45.9),
        crs="EPSG:4326",
    )
    target = grid((24, 30), left=4_380_000.0, top=2_500_000.0)
    whole = cell_means(path, target)
    cover = write(
        tmp_path / "cover.tif",
        rng.integers(0, 2, (400, 500)).astype(np.uint8),
        Affine(0.002, 0, 10.0, 0, -0.002, 45.9),
        crs="EPSG:4326",
    )
    classes = {0: 0, 1: 1}
    fractions = class_fractions(cover, target, classes, 16)
    monkeypatch.setattr(rasters, "TILE_CELLS", 7)
    tiled = cell_means(path, target)
    assert whole.valid.mean() > 0
    np.testing.assert_array_equal(np.isnan(tiled.mean), np.isnan(whole.mean))
    np.testing.assert_allclose(tiled.mean, whole.mean, atol=3.0)
    assert np.nanstd(tiled.mean - whole.mean) < 0.1 * np.nanstd(whole.mean)
    assert abs(class_fractions(cover, target, classes, 16) - fractions).max() <= 0.05


@pytest.mark.parametrize("crs", ["EPSG:3035", "EPSG:4326", "EPSG:32632", "EPSG:3857"])
def test_any_projection(tmp_path, crs):
    """A plane over a UTM grid keeps its values, whatever the projection of the file."""
    target = Grid(600_500.0 + 1000 * np.arange(16), 5_000_500.0 - 1000 * np.arange(12), "EPSG:32632")
    to_file = Transformer.from_crs(target.crs, crs, always_xy=True)
    x, y = to_file.transform(*np.meshgrid(target.x, target.y))
    step = 120.0 if crs != "EPSG:4326" else 0.0012
    west, north = x.min() - 40 * step, y.max() + 40 * step
    shape = int((north - y.min()) / step) + 40, int((x.max() - west) / step) + 40
    column, row = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    back = Transformer.from_crs(crs, target.crs, always_xy=True)
    east, up = back.transform(west + step * column, north - step * row)
    plane = ((east - 600_000) / 100 + (up - 4_990_000) / 50).astype(np.float32)
    path = write(tmp_path / "dem.tif", plane, Affine(step, 0, west, 0, -step, north), crs=crs)
    expected = (target.x - 600_000) / 100 + (target.y[:, None] - 4_990_000) / 50
    # A pixel is 1.2 to 2.4 m of this plane; half of one is the error that GDAL allows itself.
    np.testing.assert_allclose(cell_means(path, target).mean, expected, atol=1.0)


def test_longitudes_from_zero_and_rows_from_the_south(tmp_path):
    """A cell at Greenwich takes its pixels from both ends of a file that counts from 0 to 360."""
    target = Grid(3_604_000.0 + 8000.0 * np.arange(24), 3_300_000.0 - 8000.0 * np.arange(16), "EPSG:3035")
    assert target.longitude.min() < 0 < target.longitude.max()
    lon, lat = np.arange(0.05, 360, 0.1), np.arange(45.05, 60, 0.1)
    wrapped = np.where(lon > 180, lon - 360, lon)
    field = (50 * wrapped[None, :] + 20 * lat[:, None]).astype(np.float32)
    dataset = xr.Dataset({"z": (("lat", "lon"), field)}, coords={"lat": lat, "lon": lon})
    dataset["lat"].attrs = {"units": "degrees_north", "standard_name": "latitude"}
    dataset["lon"].attrs = {"units": "degrees_east", "standard_name": "longitude"}
    expected = 50 * target.longitude + 20 * target.latitude
    for name, data in (("south", dataset), ("north", dataset.isel(lat=slice(None, None, -1)))):
        data.to_netcdf(tmp_path / f"{name}.nc")
        means = cell_means(tmp_path / f"{name}.nc", target)
        np.testing.assert_allclose(means.mean, expected, atol=1.0)
        np.testing.assert_allclose(means.valid, 1.0, atol=1e-5)


def test_class_fractions_are_counted(tmp_path):
    """Two of four pixels a cell are class 3, one is water, one is missing."""
    block = np.array([[7, 7], [0, 255]], np.uint8)
    transform = Affine(1000, 0, 4_400_000, 0, -1000, 2_500_000)
    path = write(tmp_path / "cover.tif", np.tile(block, (12, 20)), transform, nodata=255)
    fractions = class_fractions(path, grid(), {7: 3, 0: 0}, 16)
    assert fractions.shape == (16, 12, 20)
    np.testing.assert_array_equal(fractions[2], 0.5)
    assert fractions.sum() == fractions[2].sum()
    floats = np.where(np.tile(block, (12, 20)) == 255, np.nan, np.tile(block, (12, 20)))
    path = write(tmp_path / "floats.tif", floats.astype(np.float32), transform)
    np.testing.assert_array_equal(class_fractions(path, grid(), {7: 3, 0: 0}, 16), fractions)
    with pytest.raises(RasterError, match=r"class numbers 0, which the legend does not know"):
        class_fractions(path, grid(), {7: 3}, 16)
    with pytest.raises(RasterError, match="Class 7 is mapped to 17"):
        class_fractions(path, grid(), {7: 17}, 16)
    path = write(tmp_path / "parts.tif", floats.astype(np.float32) / 2, transform)
    with pytest.raises(RasterError, match="fractional numbers"):
        class_fractions(path, grid(), {7: 3, 0: 0}, 16)


def test_bad_files_are_refused_with_a_sentence(tmp_path):
    values = np.random.default_rng(0).uniform(1, 9, (64, 64)).astype(np.float32)
    transform = Affine(1000, 0, 4_390_000, 0, -1000, 2_510_000)
    good = write(tmp_path / "good.tif", values, transform)
    (tmp_path / "cut.tif").write_bytes(good.read_bytes()[:8000])
    with pytest.raises(RasterError, match=r"cut\.tif is damaged"):
        cell_means(tmp_path / "cut.tif", grid())
    rotated = write(tmp_path / "rotated.tif", values, Affine(900, 90, 4_390_000, 90, -900, 2_510_000))
    with pytest.raises(RasterError, match="is rotated"):
        cell_means(rotated, grid())
    with pytest.raises(RasterError, match="right region"):
        cell_means(good, grid(left=9e6))
    xr.Dataset({name: (("y", "x"), values) for name in "ab"}).to_netcdf(tmp_path / "two.nc")
    with pytest.raises(RasterError, match=r"several variables.*netcdf:"):
        cell_means(tmp_path / "two.nc", grid())
