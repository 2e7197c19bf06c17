"""GRIB into a store: values, steps, sums since the start of a forecast, ensemble members."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import RegularGridInterpolator

from core.data.era5 import Era5Error, ingest, ingest_members
from core.data.regrid import conservative
from core.data.store import Store
from core.domain import ITALY
from tests.era5_like import DOMAIN, GRID, LATITUDE, LONGITUDE, expected, linear, stamps, write_new
from tests.era5_like import fields as netcdf_fields
from tests.grib_like import message, write_grib

import cfgrib  # isort: skip  # after pyproj, which core imports

PLACE = LATITUDE[:, None], LONGITUDE


def put(files, out, **options):
    return ingest(files, out, DOMAIN, static=None, **options)


def states(name, times, **options):
    """A message of an analysis for every hour."""
    return [
        message(name, values, reference=str(time.astype("datetime64[h]")), **options)
        for time, values in zip(times, linear(name, times, *PLACE), strict=True)
    ]


def amounts(hours, seed=0):
    """Rain of each hour on the source grid [m]."""
    return np.random.default_rng(seed).gamma(0.5, 1e-3, (hours, LATITUDE.size, LONGITUDE.size))


def on_grid(values):
    regridder = conservative(LONGITUDE, LATITUDE, GRID)
    return regridder(regridder.window(np.asarray(values)))


def test_analyses_on_the_ground_and_at_850_hpa(tmp_path):
    times = stamps(hours=3)
    messages = states("t2m", times) + states("t", times, level=850) + states("t", times, level=500)
    messages += [message("z", np.full((LATITUDE.size, LONGITUDE.size), 9806.65))]
    path = write_grib(tmp_path / "era5.grib", messages)
    report = put([path], tmp_path / "s.zarr")
    assert report.predictors == ("t2m", "t850")
    assert report.files == (str(path),)
    store = Store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.hours, times)
    coarse = store.read_coarse()
    np.testing.assert_allclose(coarse["t2m"], expected("t2m", times), atol=1e-3)
    np.testing.assert_allclose(coarse["t850"], expected("t", times), atol=1e-3)
    np.testing.assert_allclose(coarse["orography"], 1000, rtol=1e-6)
    assert store.attrs["title"].startswith("ERA5 on the coarse grid")
    # Neither an index nor anything else is left beside the file.
    assert sorted(one.name for one in tmp_path.iterdir()) == ["era5.grib", "s.zarr"]


def test_an_index_beside_the_file_is_not_read(tmp_path):
    path = write_grib(tmp_path / "t.grib", states("t2m", stamps(hours=1)))
    cfgrib.open_dataset(path).close()
    (index,) = tmp_path.glob("*.idx")
    index.write_bytes(b"no index, but something that must not be unpickled")
    put([path], tmp_path / "s.zarr")
    assert index.read_bytes().startswith(b"no index")


@pytest.mark.parametrize("length", [5, 30])
def test_sums_since_the_start_of_the_forecast_become_those_of_an_hour(tmp_path, length):
    fallen = amounts(length)
    totals = np.concatenate([fallen[:0], fallen.cumsum(axis=0)])
    messages = [message("tp", np.zeros_like(totals[0]), step=(0, 0))]
    messages += [message("tp", total, step=(0, end)) for end, total in enumerate(totals, 1)]
    put([write_grib(tmp_path / "f.grib", messages)], tmp_path / "s.zarr")
    store = Store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.hours, stamps("2020-03-01T01", length))
    np.testing.assert_allclose(store.read_coarse()["tp"], on_grid(fallen), atol=2e-8)


def test_hourly_sums_are_taken_as_they_are(tmp_path):
    # As in ERA5: forecasts from 06 and 18 UTC, each message the sum of one hour.
    fallen = amounts(24)
    messages = [
        message(
            "tp", values, reference=f"2020-03-01T{6 + 12 * (hour // 12):02d}", step=(hour % 12, hour % 12 + 1)
        )
        for hour, values in enumerate(fallen)
    ]
    report = put([write_grib(tmp_path / "e.grib", messages)], tmp_path / "s.zarr")
    store = Store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.hours, stamps("2020-03-01T07", 24))
    np.testing.assert_allclose(store.read_coarse()["tp"], on_grid(fallen), atol=2e-8)
    assert not any(note.startswith("tp") for note in report.notes)


def test_sums_over_several_hours_become_means_of_an_hour(tmp_path):
    fallen = amounts(9)
    totals = fallen.cumsum(axis=0)
    messages = [message("tp", totals[end - 1], step=(0, end)) for end in (3, 6, 9)]
    report = put([write_grib(tmp_path / "f.grib", messages)], tmp_path / "s.zarr")
    true = on_grid(fallen.reshape(3, 3, *fallen.shape[1:]).mean(axis=1))
    np.testing.assert_allclose(Store.open(tmp_path / "s.zarr").read_coarse()["tp"], true, atol=2e-8)
    assert any("tp comes at 3 time stamps as sums over 3 hours" in note for note in report.notes)


def test_forecasts_that_overlap_keep_to_themselves(tmp_path):
    # The second forecast begins anew; its sums have nothing to do with those of the first.
    first, second = amounts(6, seed=1), amounts(6, seed=2)
    messages = [message("tp", total, step=(0, end)) for end, total in enumerate(first.cumsum(axis=0), 1)]
    messages += [
        message("tp", total, reference="2020-03-01T03", step=(0, end))
        for end, total in enumerate(second.cumsum(axis=0), 1)
    ]
    put([write_grib(tmp_path / "f.grib", messages)], tmp_path / "s.zarr")
    store = Store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.hours, stamps("2020-03-01T01", 9))
    true = on_grid(np.concatenate([first, second[3:]]))
    np.testing.assert_allclose(store.read_coarse()["tp"], true, atol=2e-8)


def test_sums_over_more_than_a_day_may_be_large(tmp_path):
    sun = np.full((LATITUDE.size, LONGITUDE.size), 3e6)
    messages = [message("ssrd", sun * end, step=(0, end)) for end in (71, 72)]
    report = put([write_grib(tmp_path / "f.grib", messages)], tmp_path / "s.zarr")
    assert report.hours == 2
    np.testing.assert_allclose(Store.open(tmp_path / "s.zarr").read_coarse()["ssrd"], 3e6, rtol=1e-3)


def test_netcdf_of_a_forecast_accumulates_where_the_user_says_so(tmp_path):
    fallen = amounts(4)
    dataset = netcdf_fields(["tp"], stamps("2020-03-01T01", 4), time="valid_time")
    dataset["tp"] = dataset["tp"].dims, fallen.cumsum(axis=0), dataset["tp"].attrs
    path = write_new(dataset.assign_coords(time=np.datetime64("2020-03-01", "ns")), tmp_path / "f.nc")
    put([path], tmp_path / "s.zarr", accumulation="since_start")
    np.testing.assert_allclose(
        Store.open(tmp_path / "s.zarr").read_coarse()["tp"], on_grid(fallen), atol=2e-8
    )
    write_new(dataset, tmp_path / "g.nc")
    with pytest.raises(Era5Error, match=r"g\.nc: the start of the forecast that tp accumulates from is not"):
        put([tmp_path / "g.nc"], tmp_path / "t.zarr", accumulation="since_start")


def ensemble(path):
    """Two members of a forecast of two hours, the second one warmer and wetter."""
    times = stamps("2020-03-01T01", 2)
    warmth = linear("t2m", times, *PLACE)
    totals = amounts(2).cumsum(axis=0)
    messages = [
        one
        for number in (0, 1)
        for hour in (1, 2)
        for one in (
            message("t2m", warmth[hour - 1] + 3 * number, step=(hour, hour), number=number),
            message("tp", totals[hour - 1] * (1 + number), step=(0, hour), number=number),
        )
    ]
    return write_grib(path, messages)


def test_each_member_becomes_a_store(tmp_path):
    path = ensemble(tmp_path / "ens.grib")
    done = []
    reports = ingest_members(
        [path], tmp_path / "ens.zarr", DOMAIN, static=None, progress=lambda *at: done.append(at)
    )
    assert [report.store.name for report in reports] == ["ens-00.zarr", "ens-01.zarr"]
    assert done == [(2, 4), (4, 4)]
    stores = [Store.open(report.store) for report in reports]
    assert [store.attrs["coarse_member"] for store in stores] == [0, 1]
    assert len({store.attrs["fingerprint"] for store in stores}) == 2
    control, other = (store.read_coarse() for store in stores)
    np.testing.assert_allclose(other["t2m"] - control["t2m"], 3, atol=1e-3)
    np.testing.assert_allclose(control["tp"], on_grid(amounts(2)), atol=2e-8)
    np.testing.assert_allclose(other["tp"], 2 * control["tp"], atol=4e-8)
    with pytest.raises(Era5Error, match=r"ens-00\.zarr exists already"):
        ingest_members([path], tmp_path / "ens.zarr", DOMAIN, static=None)


def test_members_must_be_chosen(tmp_path):
    path = ensemble(tmp_path / "ens.grib")
    with pytest.raises(Era5Error, match=r"ens\.grib has 2 ensemble members \(number 0, 1\); pick one"):
        put([path], tmp_path / "s.zarr")
    with pytest.raises(Era5Error, match="no ensemble member 7; the files hold number 0, 1"):
        put([path], tmp_path / "s.zarr", number=7)
    put([path], tmp_path / "s.zarr", number=1)
    assert Store.open(tmp_path / "s.zarr").attrs["coarse_member"] == 1
    plain = write_grib(tmp_path / "plain.grib", states("t2m", stamps(hours=1)))
    with pytest.raises(Era5Error, match=r"plain\.grib hold no ensemble members"):
        ingest_members([plain], tmp_path / "t.zarr", DOMAIN, static=None)


def test_a_single_forecast_beside_the_ensemble_is_for_what_that_lacks(tmp_path):
    times = stamps("2020-03-01T01", 2)
    ground = [
        message("z", np.full((LATITUDE.size, LONGITUDE.size), 980.665)),
        *(message("t2m", np.full((LATITUDE.size, LONGITUDE.size), 250.0), step=(at, at)) for at in (1, 2)),
        *(message("msl", np.full((LATITUDE.size, LONGITUDE.size), 1e5), step=(at, at)) for at in (1, 2)),
    ]
    single = write_grib(tmp_path / "single.grib", ground)
    path = ensemble(tmp_path / "ens.grib")
    put([single, path], tmp_path / "s.zarr", number=1)
    coarse = Store.open(tmp_path / "s.zarr").read_coarse()
    np.testing.assert_allclose(coarse["t2m"], expected("t2m", times) + 3, atol=1e-3)
    np.testing.assert_allclose(coarse["msl"], 1e5)
    np.testing.assert_allclose(coarse["orography"], 100, rtol=1e-6)
    # In one file they are more than cfgrib can tell apart.
    path.write_bytes(single.read_bytes() + path.read_bytes())
    with pytest.raises(Era5Error, match=r"messages of .*ens\.grib can't be put together.*split the file"):
        put([path], tmp_path / "t.zarr", number=1)


def test_files_that_can_not_be_used(tmp_path, monkeypatch):
    whole = write_grib(tmp_path / "t.grib", states("t2m", stamps(hours=2)))
    (tmp_path / "cut.grib").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(Era5Error, match=r"cut\.grib can't be read, it is damaged or incomplete"):
        put([tmp_path / "cut.grib"], tmp_path / "s.zarr")
    upper = write_grib(tmp_path / "u.grib", states("u", stamps(hours=1), level=500))
    with pytest.raises(Era5Error, match=r"u\.grib holds none of t2m.*is on 500 hPa, not on 850 hPa"):
        put([upper], tmp_path / "s.zarr")
    monkeypatch.setitem(sys.modules, "cfgrib", None)
    with pytest.raises(Era5Error, match=r"is a GRIB file, and reading it needs cfgrib.*tramontana\[grib\]"):
        put([whole], tmp_path / "s.zarr")
    assert not list(tmp_path.glob("*s.zarr*"))


def test_projections_are_found_whoever_is_imported_first():
    program = "import core.data.grib, cfgrib, pyproj; print(pyproj.CRS('EPSG:3035').to_epsg())"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "3035", done.stderr


def test_real_forecast_of_arpege(tmp_path, shared_data):
    path = shared_data / "arpege_2m_SE_20180501000000.grib"
    report = ingest([path], tmp_path / "s.zarr", ITALY, static=None)
    assert report.hours == 25
    assert report.predictors == ("t2m", "d2m")
    store = Store.open(tmp_path / "s.zarr")
    assert "French Weather Service" in store.attrs["source"]
    assert "acknowledgement" not in store.attrs
    # The same forecast as NetCDF, interpolated by SciPy.
    with xr.open_dataset(shared_data / "arpege_0.1deg_SE_20180501_hourly.nc") as source:
        np.testing.assert_array_equal(store.hours, source["valid_time"].values)
        latitude, longitude = source["latitude"].values[::-1], source["longitude"].values
        original = {name: source[name].values[:, ::-1] for name in ("t2m", "d2m")}
    coarse = store.read_coarse()
    place = ITALY.coarse.latitude, ITALY.coarse.longitude
    for name, values in original.items():
        for hour in (0, 24):
            oracle = RegularGridInterpolator((latitude, longitude), values[hour], bounds_error=False)
            true = oracle(place)
            found = coarse[name].values[hour]
            np.testing.assert_array_equal(np.isnan(found), np.isnan(true))
            np.testing.assert_allclose(found, true, atol=0.02)
    assert np.isfinite(coarse["t2m"][0].values).sum() > 500
