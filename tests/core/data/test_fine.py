"""Fine fields on rotated grids as truth, against PROJ's rotation and SciPy's interpolation."""

import numpy as np
import pytest
import xarray as xr
from pyproj import CRS, Geod, Transformer
from scipy.interpolate import RegularGridInterpolator

from core.data.era5 import Era5Error, ingest
from core.data.fine import ingest_fine
from core.data.store import Store
from core.domain import ITALY
from tests.era5_like import DOMAIN, fields, stamps, write_new
from tests.synthetic_store import make_store, static_dataset

FINE = DOMAIN.fine
POLE = {"grid_north_pole_latitude": 43.0, "grid_north_pole_longitude": -170.0}
SPHERE = "+proj=longlat +R=6371229"
ROWS = np.arange(-4.5, -1.0, 0.05)
COLUMNS = np.arange(0.0, 3.0, 0.05)


def to_rotated(latitude=43.0, longitude=-170.0):
    rotated = (
        f"+proj=ob_tran +o_proj=longlat +o_lat_p={latitude} +o_lon_p=0 +lon_0={longitude + 180} +R=6371229"
    )
    return Transformer.from_crs(CRS.from_proj4(SPHERE), CRS.from_proj4(rotated), always_xy=True)


def positions(grid=FINE, **pole):
    """Rotated (longitude, latitude) of the cells, by PROJ."""
    return to_rotated(**pole).transform(grid.longitude, grid.latitude)


def cosmo(variables, times, *, mapping=POLE, plane=True, bounds=None):
    """A file as COSMO-CLM writes it; ``variables`` maps names to (values, attributes)."""
    dataset = xr.Dataset(
        {
            name: (
                ("time", "rlat", "rlon"),
                np.broadcast_to(values, (len(times), ROWS.size, COLUMNS.size)),
                {"grid_mapping": "rotated_pole", **attrs},
            )
            for name, (values, attrs) in variables.items()
        },
        coords={
            "time": times,
            "rlat": ("rlat", ROWS.astype(np.float32), {"standard_name": "grid_latitude", "units": "degrees"}),
            "rlon": ("rlon", COLUMNS.astype(np.float32), {"standard_name": "grid_longitude"}),
        },
    )
    if mapping is not None:
        attrs = {"grid_mapping_name": "rotated_latitude_longitude", **mapping}
        dataset["rotated_pole"] = ((), np.int32(0), attrs)
    if plane:
        lon, lat = to_rotated().transform(*np.meshgrid(COLUMNS, ROWS), direction="INVERSE")
        dataset = dataset.assign_coords(
            lon=(("rlat", "rlon"), lon.astype(np.float32), {"units": "degrees_east"}),
            lat=(("rlat", "rlon"), lat.astype(np.float32), {"units": "degrees_north"}),
        )
    if bounds is not None:
        dataset["time"].attrs["bounds"] = "time_bnds"
        dataset["time_bnds"] = (("time", "bnds"), bounds)
    return dataset


def put(folder, dataset, times=None, name="fine.nc", **options):
    """The fine fields of the store made from ``dataset`` and coarse temperatures of the same hours."""
    units = {"units": "seconds since 2000-01-01", "dtype": "int64"}
    dataset.to_netcdf(folder / name, encoding={"time": units})
    if not (folder / "coarse.zarr").exists():
        hours = dataset["time"].values if times is None else times
        ingest(
            [write_new(fields(["t2m", "msl"], hours), folder / "coarse.nc")],
            folder / "coarse.zarr",
            DOMAIN,
            static=static_dataset(DOMAIN),
        )
    report = ingest_fine([folder / name], folder / "coarse.zarr", folder / "both.zarr", **options)
    return report, Store.open(folder / "both.zarr")


def bumps(times):
    """A field with shape, in kelvin."""
    wave = 3 * np.sin(2 * ROWS[:, None]) * np.cos(3 * COLUMNS)
    return 285 + wave + np.arange(len(times))[:, None, None]


TEMPERATURE = {"units": "K", "standard_name": "air_temperature"}


@pytest.mark.parametrize("plane", [True, False])
@pytest.mark.parametrize("name", ["T_2M", "tas", "odd"])
def test_temperature_on_a_rotated_grid(tmp_path, plane, name):
    times = stamps(hours=3)
    report, store = put(tmp_path, cosmo({name: (bumps(times), TEMPERATURE)}, times, plane=plane))
    x, y = positions()
    fine = store.read_fine()["t2m"]
    for values, field in zip(fine.values, bumps(times), strict=True):
        oracle = RegularGridInterpolator((ROWS, COLUMNS), field)
        np.testing.assert_allclose(values, oracle((y, x)), atol=2e-4)
    assert report.targets == ("t2m",)
    assert report.coverage == {"t2m": 1.0}
    np.testing.assert_array_equal(store.hours, times)
    assert store.validate() == []
    assert store.attrs["synthetic"] is False
    assert "fine.nc" in store.attrs["source"]
    assert store.attrs["acknowledgement"].startswith("Contains modified Copernicus")
    before = Store.open(tmp_path / "coarse.zarr")
    xr.testing.assert_identical(store.read_coarse(), before.read_coarse())
    xr.testing.assert_identical(store.read_static(), before.read_static())
    assert store.attrs["fingerprint"] != before.attrs["fingerprint"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".zarr") == [
        "both.zarr",
        "coarse.zarr",
    ]


def test_the_pole_is_found_where_the_file_has_positions_only(tmp_path):
    times = stamps(hours=1)
    dataset = cosmo({"T_2M": (bumps(times), TEMPERATURE)}, times, mapping=None).drop_vars(["rlat", "rlon"])
    _, store = put(tmp_path, dataset.rename(rlat="y", rlon="x"))
    x, y = positions()
    true = RegularGridInterpolator((ROWS, COLUMNS), bumps(times)[0])((y, x))
    np.testing.assert_allclose(store.read_fine()["t2m"][0], true, atol=2e-3)


def winds(times, **names):
    """A steady wind of 6 m/s to the east and 8 m/s to the north in components along the grid."""
    back = to_rotated()
    x, y = np.meshgrid(COLUMNS, ROWS)
    lon, lat = back.transform(x, y, direction="INVERSE")
    ahead = back.transform(x, y + 1e-4, direction="INVERSE")
    azimuth = np.radians(Geod("+a=6371229 +b=6371229").inv(lon, lat, *ahead)[0])
    u = 6 * np.cos(azimuth) - 8 * np.sin(azimuth)
    v = 6 * np.sin(azimuth) + 8 * np.cos(azimuth)
    assert np.abs(u - 6).max() > 0.1
    return cosmo(
        {
            "U_10M": (u, {"units": "m s-1", "standard_name": names.get("u", "")}),
            "V_10M": (v, {"units": "m s-1", "standard_name": names.get("v", "")}),
        },
        times,
    )


@pytest.mark.parametrize(
    ("names", "options"),
    [({"u": "grid_eastward_wind", "v": "grid_northward_wind"}, {}), ({}, {"winds": "grid"})],
)
def test_winds_along_the_grid_are_turned(tmp_path, names, options):
    report, store = put(tmp_path, winds(stamps(hours=1), **names), **options)
    fine = store.read_fine()
    np.testing.assert_allclose(fine["u10"], 6, atol=2e-4)
    np.testing.assert_allclose(fine["v10"], 8, atol=2e-4)
    assert any("were turned to point east and north" in line for line in report.sentences())


def test_winds_to_east_and_north_are_left(tmp_path):
    dataset = winds(stamps(hours=1), u="eastward_wind", v="northward_wind")
    report, store = put(tmp_path, dataset)
    x, y = positions()
    true = RegularGridInterpolator((ROWS, COLUMNS), dataset["U_10M"].values[0])((y, x))
    np.testing.assert_allclose(store.read_fine()["u10"][0], true, atol=2e-4)
    assert not any("turned" in line for line in report.sentences())


def test_winds_that_can_not_be_turned(tmp_path):
    unstated = winds(stamps(hours=1))
    with pytest.raises(Era5Error, match=r"U_10M is relative to its rotated grid or to Earth is not stated"):
        put(tmp_path, unstated)
    with pytest.raises(Era5Error, match="both components are needed"):
        put(tmp_path, unstated.drop_vars("V_10M"), winds="grid")
    assert not (tmp_path / "both.zarr").exists()


@pytest.mark.parametrize(
    ("names", "told", "stated"),
    [
        ({"u": "grid_eastward_wind", "v": "grid_northward_wind"}, "earth", "its rotated grid"),
        ({"u": "eastward_wind", "v": "northward_wind"}, "grid", "Earth"),
    ],
)
def test_what_a_file_says_of_its_winds_is_not_overruled(tmp_path, names, told, stated):
    dataset = winds(stamps(hours=1), **names)
    with pytest.raises(Era5Error, match=rf"U_10M is relative to {stated}, as the file says, .* '{told}'"):
        put(tmp_path, dataset, winds=told)
    assert not (tmp_path / "both.zarr").exists()
    # What agrees with the file is no contradiction.
    put(tmp_path, dataset, winds={"earth": "grid", "grid": "earth"}[told])


def rain(times):
    generator = np.random.default_rng(0)
    return generator.gamma(0.5, 2.0, (len(times), ROWS.size, COLUMNS.size))


def area_means(field, samples=20):
    """Means over the fine cells of a field that is constant in cells of the rotated grid, by sampling."""
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    x = (FINE.x[:, None] + FINE.dx * offsets).ravel()
    y = (FINE.y[:, None] - FINE.dy * offsets).ravel()
    lon, lat = Transformer.from_crs(FINE.crs, "EPSG:4326", always_xy=True).transform(*np.meshgrid(x, y))
    column, row = to_rotated().transform(lon, lat)
    taken = field[
        np.rint((np.asarray(row) - ROWS[0]) / 0.05).astype(int),
        np.rint((np.asarray(column) - COLUMNS[0]) / 0.05).astype(int),
    ]
    height, width = FINE.shape
    return taken.reshape(height, samples, width, samples).mean(axis=(1, 3))


@pytest.mark.parametrize("since_start", [False, True])
def test_precipitation_is_averaged_over_cells(tmp_path, since_start):
    # Stamps after the first hour: a sum needs an hour before them.
    times = stamps("2020-03-01T01", 3)
    amounts = rain(times)
    hour = np.timedelta64(1, "h")
    lower = np.full(3, times[0] - hour) if since_start else times - hour
    dataset = cosmo(
        {
            "TOT_PREC": (
                amounts.cumsum(axis=0) if since_start else amounts,
                {"units": "kg m-2", "standard_name": "precipitation_amount", "cell_methods": "time: sum"},
            )
        },
        times,
        bounds=np.stack([lower, times], axis=1),
    )
    _, store = put(tmp_path, dataset)
    np.testing.assert_array_equal(store.hours, times)
    for found, field in zip(store.read_fine()["tp"].values, amounts, strict=True):
        # Sampling errs where a cell's edge runs between two samples.
        np.testing.assert_allclose(found, area_means(field) / 1000, atol=3e-4)
        assert found.mean() == pytest.approx(area_means(field).mean() / 1000, rel=2e-3)


def test_sums_of_several_hours_become_means_of_an_hour(tmp_path):
    times = stamps("2020-03-01T03", 2, step=3)
    bounds = np.stack([times - np.timedelta64(3, "h"), times], axis=1)
    attrs = {"units": "mm", "cell_methods": "time: sum"}
    report, store = put(tmp_path, cosmo({"TOT_PREC": (6.0, attrs)}, times, bounds=bounds))
    np.testing.assert_allclose(store.read_fine()["tp"], 2e-3, rtol=1e-5)
    assert any("tp comes at 2 time stamps as sums over 3 hours" in note for note in report.notes)


def test_hours_without_fine_fields_are_left_out(tmp_path):
    times = stamps(hours=5)
    dataset = cosmo({"T_2M": (bumps(times), TEMPERATURE)}, times).isel(time=[1, 3])
    report, store = put(tmp_path, dataset, times)
    np.testing.assert_array_equal(store.hours, times[[1, 3]])
    assert any("3 of 5 coarse hours are left out" in note for note in report.notes)


def test_cells_outside_the_files_are_empty_and_counted(tmp_path):
    times = stamps(hours=1)
    dataset = cosmo({"T_2M": (bumps(times), TEMPERATURE)}, times).isel(rlon=slice(0, 30))
    report, store = put(tmp_path, dataset)
    inside = np.asarray(positions()[0]) <= COLUMNS[29]
    np.testing.assert_array_equal(np.isfinite(store.read_fine()["t2m"].values[0]), inside)
    assert report.coverage["t2m"] == pytest.approx(inside.mean())
    assert "t2m is missing in cells outside the files." in report.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.assign(T_2M=d["T_2M"].assign_attrs(units="degF")), "T_2M is in 'degF'"),
        (lambda d: d.assign(T_2M=d["T_2M"] * 0 + 20), r"possible values are 180 to 340"),
        (lambda d: d.rename(T_2M="CLCT").drop_attrs(), "holds none of t2m, u10, v10, tp; it has CLCT"),
        (lambda d: d.assign_coords(rlon=d["rlon"] + 40, lon=d["lon"] + 60), "disagree by up to"),
        (
            lambda d: d.assign(rotated_pole=((), 0, {"grid_mapping_name": "rotated_latitude_longitude"})),
            "lacks a readable grid_north_pole_latitude",
        ),
        (
            lambda d: d.drop_vars(["lon", "lat"]).assign_coords(
                rlon=d["rlon"].copy(data=d["rlon"].values + 40).assign_attrs(d["rlon"].attrs)
            ),
            "of its rotated grid, which leaves out the domain Small",
        ),
        (lambda d: d.assign_coords(time=d["time"] + np.timedelta64(30, "D")), "have no hour in common"),
    ],
)
def test_files_that_can_not_be_used(tmp_path, change, message):
    times = stamps(hours=1)
    dataset = change(cosmo({"T_2M": (bumps(times), TEMPERATURE)}, times))
    with pytest.raises(Era5Error, match=message):
        put(tmp_path, dataset, times)
    assert not list(tmp_path.glob("*both*"))


def test_stores_that_can_not_be_used(tmp_path):
    times = stamps(hours=1)
    dataset = cosmo({"T_2M": (bumps(times), TEMPERATURE)}, times)
    put(tmp_path, dataset)
    with pytest.raises(Era5Error, match=r"both\.zarr exists already"):
        put(tmp_path, dataset)
    with pytest.raises(Era5Error, match="holds fine truth already"):
        ingest_fine([tmp_path / "fine.nc"], tmp_path / "both.zarr", tmp_path / "new.zarr")
    make_store(tmp_path / "invented.zarr", fine=())
    with pytest.raises(Era5Error, match="holds synthetic weather"):
        ingest_fine([tmp_path / "fine.nc"], tmp_path / "invented.zarr", tmp_path / "new.zarr")


def test_real_cosmo_temperature_of_italy(tmp_path, shared_data):
    path = shared_data / "cosmo_i7_t2m.nc"
    with xr.open_dataset(path) as source:
        times, field = source["time"].values, source["t2m"].values
        lon, lat = source["longitude"].values, source["latitude"].values
    coarse = fields(["t2m"], times, latitude=np.arange(50, 32, -1.0), longitude=np.arange(2, 24, 1.0))
    coarse["t2m"] = xr.full_like(coarse["t2m"], 285.0)
    ingest([write_new(coarse, tmp_path / "c.nc")], tmp_path / "c.zarr", ITALY, static=None)
    report = ingest_fine([path], tmp_path / "c.zarr", tmp_path / "both.zarr")
    assert report.hours == 4
    store = Store.open(tmp_path / "both.zarr")
    # The grid of COSMO-I7: pole at 32.5 north, 170 west, spacing 0.0625 degrees.
    columns, rows = to_rotated(32.5, -170.0).transform(lon, lat)
    x, y = columns.mean(axis=0), rows.mean(axis=1)
    np.testing.assert_allclose(np.diff(x), 0.0625, atol=1e-4)
    assert np.ptp(columns, axis=0).max() < 1e-4
    target = positions(ITALY.fine, latitude=32.5, longitude=-170.0)
    fine = store.read_fine()["t2m"].values
    for values, one in zip(fine, field, strict=True):
        oracle = RegularGridInterpolator((y, x), one, bounds_error=False)((target[1], target[0]))
        np.testing.assert_array_equal(np.isnan(values), np.isnan(oracle))
        np.testing.assert_allclose(values, oracle, atol=5e-3)
    assert report.coverage["t2m"] == pytest.approx(np.isfinite(fine[0]).mean())
    assert report.coverage["t2m"] > 0.9


def test_extremes_and_means_are_not_taken_for_the_temperature(tmp_path):
    times = stamps(hours=2)
    variables = {
        "TMAX_2M": (300.0, {**TEMPERATURE, "cell_methods": "time: maximum"}),
        "T_2M_AV": (290.0, {**TEMPERATURE, "cell_methods": "time: mean"}),
        "T_2M": (280.0, TEMPERATURE),
    }
    _, store = put(tmp_path, cosmo(variables, times))
    np.testing.assert_allclose(store.read_fine()["t2m"], 280)
    store.path.rename(tmp_path / "first.zarr")
    with pytest.raises(Era5Error, match="holds none of t2m"):
        put(tmp_path, cosmo({"TMAX_2M": variables["TMAX_2M"]}, times), name="max.nc")


def test_what_shapes_the_truth_is_part_of_its_fingerprint(tmp_path):
    times = stamps(hours=2)
    wind = {name: (3.0, {"units": "m s-1"}) for name in ("U_10M", "V_10M")}
    prints = set()
    for winds in ("grid", "earth"):
        _, store = put(tmp_path, cosmo(wind, times), winds=winds)
        prints.add(store.attrs["fingerprint"])
        store.path.rename(tmp_path / f"{winds}.zarr")
    assert len(prints) == 2
