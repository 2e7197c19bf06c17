"""ERA5 files into a store: merged, regridded, appended, or refused without a trace."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from core.data.era5 import Era5Error, ingest, inspect
from core.data.regrid import conservative
from core.data.store import Store
from core.domain import ITALY, Domain
from core.variables import PREDICTORS, VARIABLES
from tests.era5_like import (
    DOMAIN,
    GRID,
    LATITUDE,
    LONGITUDE,
    UNITS,
    WRITERS,
    expected,
    fields,
    level_of,
    linear,
    stamps,
    write_new,
    write_old,
)
from tests.synthetic_store import static_dataset

HOUR = np.timedelta64(1, "h")


def put(files, out, **options):
    return ingest(files, out, options.pop("domain", DOMAIN), static=options.pop("static", None), **options)


def on_grid(amounts):
    """Amounts of :func:`rain` on the coarse grid."""
    regridder = conservative(LONGITUDE, LATITUDE, GRID)
    return regridder(regridder.window(np.asarray(amounts)))


def traces(folder):
    """Everything in the folder, hidden names too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("generation", ["old", "new"])
def test_all_predictors_from_a_surface_and_a_pressure_level_file(tmp_path, generation):
    times = stamps(hours=30)
    surface = fields(["t2m", "msl", "u10", "v10", "d2m", "sst", "sd", "tp", "ssrd"], times)
    level = fields(["q", "t", "u", "v", "w"], times)
    level = xr.concat([level, level - 1e-4], xr.Variable("level", [850.0, 500.0])).transpose("time", ...)
    files = [
        WRITERS[generation](surface, tmp_path / "surface.nc"),
        WRITERS[generation](level, tmp_path / "levels.nc"),
    ]
    done = []
    report = put(files, tmp_path / "s.zarr", progress=lambda *at: done.append(at))
    assert done == [(24, 30), (30, 30)]
    assert report.hours == 30
    assert report.predictors == PREDICTORS
    assert report.missing_predictors == ()
    assert set(report.coverage.values()) == {1.0}
    store = Store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.hours, times)
    assert store.pending.size == 0
    assert store.attrs["synthetic"] is False
    assert "surface.nc, levels.nc" in store.attrs["source"]
    assert store.validate() == []
    coarse = store.read_coarse()
    for name in UNITS:
        true = expected(name, times)
        values = coarse[level_of(name)]
        if VARIABLES[level_of(name)].accumulated:
            true = on_grid(linear(name, times, LATITUDE[:, None], LONGITUDE))
        np.testing.assert_allclose(values, true, atol=np.ptp(true) / 2e4, rtol=1e-6, err_msg=name)
    assert traces(tmp_path) == ["levels.nc", "s.zarr", "surface.nc"]


@pytest.mark.parametrize("south_first", [False, True])
@pytest.mark.parametrize("turns", [0, 360, -360])
@pytest.mark.parametrize("globe", [False, True])
def test_orders_of_latitude_and_longitude(tmp_path, south_first, turns, globe):
    # Across the prime meridian, where a file of the whole globe begins.
    domain = Domain.regular("West", left=3.4e6, top=2.7e6, shape=(32, 48), spacing=8_000.0, ratio=8)
    assert domain.coarse.longitude.min() < -1 < 1 < domain.coarse.longitude.max()
    latitude = np.arange(49.0, 42.9, -0.5)[:: -1 if south_first else 1]
    longitude = np.arange(-180, 180, 0.5) if globe else np.arange(-5.0, 5.1, 0.5)
    if turns:
        longitude = np.sort(longitude % 360) if globe else longitude + turns
    times = stamps(hours=2)
    near = (longitude + 180) % 360 - 180
    dataset = fields(["t2m"], times, latitude=latitude, longitude=longitude)
    dataset["t2m"] = (
        dataset["t2m"].dims,
        280 + np.abs(near) * 0 + near + 0 * latitude[:, None] + np.zeros((2, 1, 1)),
        dataset["t2m"].attrs,
    )
    put([write_new(dataset, tmp_path / "t.nc")], tmp_path / "s.zarr", domain=domain)
    coarse = Store.open(tmp_path / "s.zarr").read_coarse()
    np.testing.assert_allclose(coarse["t2m"][0], 280 + domain.coarse.longitude, atol=1e-3)


def test_winds_stay_earth_relative(tmp_path):
    dataset = fields(["u10", "v10"], stamps(hours=1)) * 0
    dataset["v10"] = dataset["v10"] + 10
    put([write_new(dataset, tmp_path / "wind.nc")], tmp_path / "s.zarr")
    coarse = Store.open(tmp_path / "s.zarr").read_coarse()
    np.testing.assert_array_equal(coarse["u10"], 0)
    np.testing.assert_allclose(coarse["v10"], 10)
    assert np.abs(GRID.rotation).max() > 0.005


def test_sea_surface_temperature_ends_at_the_coast(tmp_path):
    times = stamps(hours=1)
    dataset = fields(["sst"], times)
    sea = LONGITUDE < 12.0
    dataset["sst"] = dataset["sst"].where(xr.DataArray(sea, dims="longitude"))
    put([write_old(dataset, tmp_path / "sst.nc")], tmp_path / "s.zarr")
    sst = Store.open(tmp_path / "s.zarr").read_coarse()["sst"].values[0]
    # Between the last sea point (11.5) and the first land point (12) half of the weight is at 11.75.
    np.testing.assert_array_equal(np.isfinite(sst), GRID.longitude <= 11.75)
    true = expected("sst", times)[0]
    np.testing.assert_allclose(sst[GRID.longitude < 11.5], true[GRID.longitude < 11.5], atol=1e-3)


def test_cells_outside_the_files_are_empty_and_counted(tmp_path):
    longitude = np.arange(8.0, 12.1, 0.5)
    times = stamps(hours=2)
    path = write_new(fields(["t2m"], times, longitude=longitude), tmp_path / "west.nc")
    report = put([path], tmp_path / "s.zarr")
    inside = GRID.longitude <= 12
    assert report.coverage["t2m"] == pytest.approx(inside.mean())
    assert 0.2 < report.coverage["t2m"] < 0.8
    assert any("of the coarse cells are covered" in line for line in report.sentences())
    values = Store.open(tmp_path / "s.zarr").read_coarse()["t2m"].values
    np.testing.assert_array_equal(np.isfinite(values), np.broadcast_to(inside, values.shape))
    far = write_new(fields(["t2m"], times, longitude=longitude + 60), tmp_path / "far.nc")
    with pytest.raises(
        Era5Error, match=r"far\.nc covers 68 to 72 degrees east .* leaves out the domain Small"
    ):
        put([far], tmp_path / "far.zarr")
    assert "far.zarr" not in traces(tmp_path)


def test_tiles_fill_each_other_and_the_first_file_counts(tmp_path):
    times = stamps(hours=2)
    whole = fields(["t2m"], times)
    west = write_new(whole.sel(longitude=slice(None, 12)) + 1, tmp_path / "west.nc")
    rest = write_new(whole, tmp_path / "whole.nc")
    report = put([west, rest], tmp_path / "s.zarr")
    values = Store.open(tmp_path / "s.zarr").read_coarse()["t2m"].values
    np.testing.assert_allclose(values, expected("t2m", times) + (GRID.longitude <= 12), rtol=1e-6)
    assert report.coverage["t2m"] == 1
    assert any("t2m is given more than once for 2 hours" in note for note in report.notes)


# ---------------------------------------------------------------- hours


def test_files_by_day_in_any_order_become_one_axis(tmp_path):
    times = stamps(hours=60)
    whole = fields(["t2m"], times)
    parts = [whole.isel(time=slice(at, at + 12)) for at in (36, 0, 48, 12, 24)]
    parts[1] = parts[1].isel(time=slice(None, None, -1))  # an unsorted file
    files = [write_new(part, tmp_path / f"{number}.nc") for number, part in enumerate(parts)]
    put(files, tmp_path / "s.zarr")
    store = Store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.hours, times)
    np.testing.assert_allclose(store.read_coarse()["t2m"], expected("t2m", times), rtol=1e-6)


def test_only_common_hours_unless_all_are_wanted(tmp_path):
    files = [
        write_new(fields(["t2m"], stamps(hours=12, step=3)), tmp_path / "three_hourly.nc"),
        write_new(fields(["u10"], stamps("2020-03-01T06", 24)), tmp_path / "hourly.nc"),
    ]
    report = put(files, tmp_path / "common.zarr")
    np.testing.assert_array_equal(Store.open(tmp_path / "common.zarr").hours, stamps("2020-03-01T06", 8, 3))
    # 12 + 24 - 8 in all; t2m lacks 16 of them, u10 4.
    assert "20 of 28 hours are left out" in " ".join(report.notes)
    assert "t2m lacks 16, u10 lacks 4" in " ".join(report.notes)

    report = put(files, tmp_path / "all.zarr", hours="all")
    assert report.hours == 28
    assert any(note == "t2m has no value at 16 of 28 hours." for note in report.notes)
    u10 = Store.open(tmp_path / "all.zarr").read_coarse(stamps(hours=2, step=3))["u10"]
    assert np.isnan(u10).all()


def test_files_without_a_common_hour(tmp_path):
    files = [
        write_new(fields(["t2m"], stamps("2020-03-01")), tmp_path / "a.nc"),
        write_new(fields(["u10"], stamps("2021-03-01")), tmp_path / "b.nc"),
    ]
    with pytest.raises(
        Era5Error, match=r"no hour in common \(t2m has 2020-03-01 00:00 UTC to 2020-03-01 23:00 UTC; u10 has"
    ):
        put(files, tmp_path / "s.zarr")
    assert traces(tmp_path) == ["a.nc", "b.nc"]


# ---------------------------------------------------------------- accumulations


def rain(times, seed=0, name="tp"):
    """Hourly amounts: showers, or for ssrd a sun from 6 to 18 UTC."""
    generator = np.random.default_rng(seed)
    shape = (times.size, LATITUDE.size, LONGITUDE.size)
    if name == "tp":
        amounts = generator.gamma(0.3, 1e-3, shape)
    else:
        hour = (times - times.astype("datetime64[D]")) / HOUR
        amounts = 2e6 * np.maximum(np.sin((hour - 6) / 12 * np.pi), 0)[:, None, None] * np.ones(shape)
    return xr.Dataset(
        {name: (("time", "latitude", "longitude"), amounts, {"units": UNITS[name]})},
        coords={"time": times, "latitude": LATITUDE, "longitude": LONGITUDE},
    )


def since_midnight(amounts):
    """What ERA5-Land gives: sums from 00 UTC, the whole day's at 00 UTC of the next day."""
    day = (amounts["time"].values - HOUR).astype("datetime64[D]")
    return amounts.groupby(xr.DataArray(day, dims="time", name="day")).cumsum().assign_coords(amounts.coords)


@pytest.mark.parametrize("name", ["tp", "ssrd"])
@pytest.mark.parametrize("generation", ["old", "new"])
def test_accumulation_since_midnight_is_noticed_and_undone(tmp_path, name, generation):
    times = stamps("2020-03-01T01", 72)
    amounts = rain(times, name=name)
    totals = since_midnight(amounts)
    np.testing.assert_allclose(totals[name][23], amounts[name][:24].sum("time"))
    totals[name].attrs = amounts[name].attrs
    # One file a day from 00 to 23 UTC, so that the hour before lies in another file.
    day = totals["time"].dt.floor("D")
    files = [
        WRITERS[generation](part, tmp_path / f"{number}.nc")
        for number, (_, part) in enumerate(totals.groupby(day))
    ]
    report = put(files, tmp_path / "s.zarr")
    assert any(f"{name} accumulates since 00 UTC" in note for note in report.notes)
    assert report.hours == 72
    values = Store.open(tmp_path / "s.zarr").read_coarse()[name].values
    # Twice half a packing step of the daily total.
    np.testing.assert_allclose(
        values, on_grid(amounts[name]), atol=float(totals[name].max()) / 3e4, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["tp", "ssrd"])
@pytest.mark.parametrize("step", [1, 3])
def test_hourly_sums_are_left_alone(tmp_path, name, step):
    amounts = rain(stamps("2020-03-01T00", 72), name=name).isel(time=slice(None, None, step))
    report = put([write_new(amounts, tmp_path / "sums.nc")], tmp_path / "s.zarr")
    values = Store.open(tmp_path / "s.zarr").read_coarse()[name].values
    np.testing.assert_allclose(values, on_grid(amounts[name]), rtol=1e-5, atol=1e-12)
    assert not any("accumulates since" in note for note in report.notes)
    assert any(f"{name} comes every 3 hours" in note for note in report.notes) is (step == 3)


def test_steady_growth_is_not_taken_for_accumulation(tmp_path):
    times = stamps(hours=48)
    report = put([write_new(fields(["tp"], times), tmp_path / "growing.nc")], tmp_path / "s.zarr")
    assert report.hours == 48
    assert not any("accumulates since" in note for note in report.notes)


def test_first_hour_without_the_one_before_is_lost(tmp_path):
    totals = since_midnight(rain(stamps("2020-03-01T01", 48))).isel(time=slice(4, None))
    report = put([write_new(totals, tmp_path / "land.nc")], tmp_path / "s.zarr")
    assert report.hours == 43
    assert report.first == np.datetime64("2020-03-01T06")
    assert any("1 lack the hour before and are lost" in note for note in report.notes)


def test_accumulation_can_be_stated(tmp_path):
    # Too short to tell from the values.
    totals = since_midnight(rain(stamps("2020-03-01T01", 4)))
    path = write_new(totals, tmp_path / "short.nc")
    put([path], tmp_path / "detected.zarr")
    put([path], tmp_path / "stated.zarr", accumulation="since_midnight")
    taken, made = (
        Store.open(tmp_path / f"{name}.zarr").read_coarse()["tp"].values for name in ("detected", "stated")
    )
    np.testing.assert_allclose(taken, on_grid(totals["tp"]), rtol=1e-5)
    np.testing.assert_allclose(made[1:], np.diff(taken, axis=0), rtol=1e-4, atol=1e-9)
    # The file may say it, too.
    land = write_new(totals.assign_attrs(title="ERA5-Land hourly"), tmp_path / "land.nc")
    put([land], tmp_path / "titled.zarr")
    np.testing.assert_array_equal(Store.open(tmp_path / "titled.zarr").read_coarse()["tp"], made)
    later = write_new(rain(stamps("2020-03-02T01", 4)), tmp_path / "other.nc")
    with pytest.raises(Era5Error, match=r"from ERA5-Land in .*land\.nc, but not in .*other\.nc"):
        put([land, later], tmp_path / "mixed.zarr")


def test_gaps_in_accumulations_are_refused(tmp_path):
    totals = since_midnight(rain(stamps("2020-03-01T01", 96))).isel(time=slice(2, None, 3))
    path = write_new(totals, tmp_path / "gaps.nc")
    with pytest.raises(Era5Error, match="hours in between are missing"):
        put([path], tmp_path / "s.zarr")
    assert traces(tmp_path) == ["gaps.nc"]


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    start=st.integers(0, 30),
    length=st.integers(2, 50),
)
def test_sums_of_an_hour_add_up_to_the_accumulation(tmp_path_factory, seed, start, length):
    folder = tmp_path_factory.mktemp("sums")
    totals = since_midnight(rain(stamps("2020-03-01T01", 96), seed)).isel(time=slice(start, start + length))
    report = put(
        [write_new(totals, folder / "t.nc", chunk=7)], folder / "s.zarr", accumulation="since_midnight"
    )
    coarse = Store.open(folder / "s.zarr").read_coarse()["tp"]
    assert report.hours == length - (totals["time"].values[0].astype("datetime64[h]").astype(int) % 24 != 1)
    day = (coarse["time"].values - HOUR).astype("datetime64[D]")
    for this_day in np.unique(day):
        hours = coarse["time"].values[day == this_day]
        whole = on_grid(totals["tp"].sel(time=hours[-1]))
        before = hours[0] - HOUR
        if before > this_day:
            whole = whole - on_grid(totals["tp"].sel(time=before))
        np.testing.assert_allclose(coarse.sel(time=hours).sum("time"), whole, rtol=1e-3, atol=1e-7)


# ---------------------------------------------------------------- constants and statics


def test_orography_comes_from_the_surface_geopotential(tmp_path):
    times = stamps(hours=2)
    height = 500 + 10 * (LATITUDE[:, None] - 43) + 5 * (LONGITUDE - 11)
    constants = xr.Dataset(
        {
            "z": (("time", "latitude", "longitude"), 9.80665 * height[None], {"units": "m**2 s**-2"}),
            "lsm": (("time", "latitude", "longitude"), np.ones((1, *height.shape))),
        },
        coords={"time": stamps("2016-01-01", 1), "latitude": LATITUDE, "longitude": LONGITUDE},
    )
    files = [
        write_old(fields(["t2m"], times), tmp_path / "t2m.nc"),
        write_old(constants, tmp_path / "constants.nc"),
    ]
    static = static_dataset(DOMAIN)
    report = put(files, tmp_path / "s.zarr", static=static)
    store = Store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.hours, times)
    assert report.orography
    assert store.contents.coarse_orography
    np.testing.assert_allclose(
        store.read_coarse()["orography"],
        500 + 10 * (GRID.latitude - 43) + 5 * (GRID.longitude - 11),
        atol=0.01,
    )
    np.testing.assert_array_equal(store.read_static()["orography"], static["orography"])
    assert any("constants.nc: lsm not needed" in note for note in report.notes)
    assert not any("height of the surface" in note for note in report.notes)
    with pytest.raises(Era5Error, match=r"constants\.nc holds constant fields only"):
        put(files[1:], tmp_path / "none.zarr")


def test_a_surface_of_another_spacing_is_named(tmp_path):
    constants = xr.Dataset(
        {
            "z": (
                ("latitude", "longitude"),
                np.zeros((LATITUDE[::2].size, LONGITUDE.size)),
                {"units": "m**2 s**-2"},
            )
        },
        coords={"latitude": LATITUDE[::2], "longitude": LONGITUDE},
    )
    constants["z"].attrs["units"] = "m**2 s**-2"
    files = [
        write_old(fields(["t2m"], stamps(hours=1)), tmp_path / "t2m.nc"),
        write_old(constants, tmp_path / "constants.nc"),
    ]
    (note,) = (note for note in put(files, tmp_path / "s.zarr").notes if "height of the surface" in note)
    step = abs(LATITUDE[1] - LATITUDE[0])
    assert f"constants.nc: the height of the surface has a spacing of {2 * step:.3g} degrees" in note
    assert f"one of {step:.3g}, so" in note


def test_without_a_geopotential_the_report_says_what_is_lost(tmp_path):
    report = put([write_new(fields(["t2m"], stamps(hours=1)), tmp_path / "t.nc")], tmp_path / "s.zarr")
    assert not report.orography
    assert any("add a file with the surface geopotential" in line for line in report.sentences())
    assert any(line.startswith("Not in the files: msl, u10") for line in report.sentences())


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("fault", ["range", "chunk", "stranger", "missing"])
def test_a_bad_file_among_good_ones_leaves_nothing(tmp_path, fault):
    good = write_new(fields(["t2m"], stamps(hours=48)), tmp_path / "good.nc")
    bad = tmp_path / "bad.nc"
    dataset = fields(["t2m"], stamps("2020-03-03", 48))
    if fault == "range":
        dataset["t2m"][40] = 20.0  # found after the first day is written
        write_new(dataset, bad)
    elif fault == "chunk":
        dataset["t2m"] += np.random.default_rng(0).normal(size=dataset["t2m"].shape)
        content = bytearray(write_new(dataset, bad, chunk=8).read_bytes())
        content[len(content) // 2 :][:400] = b""
        content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
        bad.write_bytes(content)
    elif fault == "stranger":
        bad.write_bytes(b"<html>Service unavailable</html>")
    before = traces(tmp_path)
    with pytest.raises(Era5Error, match=r"bad\.nc") as caught:
        put([good, bad], tmp_path / "s.zarr")
    assert "\n" not in str(caught.value)
    assert traces(tmp_path) == before


def test_an_interrupted_run_leaves_nothing(tmp_path):
    path = write_new(fields(["t2m"], stamps(hours=48)), tmp_path / "t.nc")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put([path], tmp_path / "s.zarr", progress=stop)
    assert traces(tmp_path) == ["t.nc"]


def test_leftovers_of_a_killed_run_are_replaced(tmp_path):
    path = write_new(fields(["t2m"], stamps(hours=2)), tmp_path / "t.nc")
    (tmp_path / ".s.zarr.ingest" / "coarse").mkdir(parents=True)
    assert put([path], tmp_path / "s.zarr").hours == 2
    assert traces(tmp_path) == ["s.zarr", "t.nc"]


def test_two_commands_for_one_store_at_once_are_refused(tmp_path):
    path = write_new(fields(["t2m"], stamps(hours=48)), tmp_path / "t.nc")
    out = tmp_path / "s.zarr"
    refused = []

    def meanwhile(done, total):
        with pytest.raises(Era5Error, match=r"Another command is writing .*s\.zarr"):
            put([path], out)
        refused.append(done)

    put([path], out, progress=meanwhile)
    assert refused == [24, 48]
    assert Store.open(out).hours.size == 48
    assert Store.open(out).validate() == []
    assert traces(tmp_path) == ["s.zarr", "t.nc"]


def test_hours_that_another_command_appended_meanwhile(tmp_path):
    first, second = (
        write_new(fields(["t2m"], stamps(day, hours=2)), tmp_path / f"{day}.nc")
        for day in ("2020-03-02", "2020-03-03")
    )
    start = write_new(fields(["t2m"], stamps("2020-03-01", hours=2)), tmp_path / "t.nc")
    out = tmp_path / "s.zarr"
    put([start], out)

    def meanwhile(done, total):
        # As a command does that began when this one had opened the store.
        other = Store.open(out, mode="a")
        other.plan(stamps("2020-03-02", hours=1))

    with pytest.raises(Era5Error, match=r"Hours were added to .* meanwhile; repeat the command"):
        put([second], out, append=True, progress=meanwhile)
    assert put([first], out, append=True).hours == 2
    assert Store.open(out).hours.size == 4


def test_irregular_grids_are_refused(tmp_path):
    dataset = fields(["t2m"], stamps(hours=1)).isel(longitude=[0, 1, 2, 5, 6, 7])
    path = write_new(dataset, tmp_path / "holes.nc")
    with pytest.raises(Era5Error, match=r"holes\.nc: The longitudes are not evenly spaced"):
        put([path], tmp_path / "s.zarr")


def test_a_disk_that_can_not_be_written(tmp_path):
    path = write_new(fields(["t2m"], stamps(hours=1)), tmp_path / "t.nc")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Era5Error, match=r"s\.zarr can't be written"):
        put([path], tmp_path / "file" / "s.zarr")


# ---------------------------------------------------------------- appending


def test_an_existing_store_is_not_touched_without_append(tmp_path):
    path = write_new(fields(["t2m"], stamps(hours=2)), tmp_path / "t.nc")
    put([path], tmp_path / "s.zarr")
    with pytest.raises(Era5Error, match=r"s\.zarr exists already; append to it"):
        put([path], tmp_path / "s.zarr")


def test_append_later_hours_and_skip_those_that_are_there(tmp_path):
    times = stamps(hours=40)
    whole = fields(["t2m", "u10"], times)
    first = write_new(whole.isel(time=slice(0, 10)), tmp_path / "a.nc")
    second = write_new(whole.isel(time=slice(8, 40)), tmp_path / "b.nc")
    store = tmp_path / "s.zarr"
    assert put([first], store, append=True).hours == 10  # a new store
    report = put([second], store, append=True)
    assert report.hours == 30
    assert report.first == times[10]
    assert any("2 hours are in" in note for note in report.notes)
    coarse = Store.open(store).read_coarse()
    np.testing.assert_array_equal(coarse["time"], times)
    np.testing.assert_allclose(coarse["t2m"], expected("t2m", times), rtol=1e-6)
    report = put([first, second], store, append=True)
    assert report.hours == 0
    assert report.first is None
    assert report.sentences()[0].startswith("0 hours from 2 files")
    assert traces(tmp_path) == ["a.nc", "b.nc", "s.zarr"]


def test_append_completes_planned_hours(tmp_path):
    times = stamps(hours=30)
    path = write_new(fields(["t2m"], times), tmp_path / "t.nc")
    put([path], tmp_path / "s.zarr")
    store = Store.open(tmp_path / "s.zarr", mode="a")
    later = stamps("2020-03-02T06", 6)
    store.plan(later)  # as an append does that is killed before it writes
    more = write_new(fields(["t2m"], later), tmp_path / "u.nc")
    report = put([path, more], tmp_path / "s.zarr", append=True)
    assert report.hours == 6
    store = Store.open(tmp_path / "s.zarr")
    assert store.pending.size == 0
    np.testing.assert_allclose(store.read_coarse(later)["t2m"], expected("t2m", later), rtol=1e-6)


def test_what_can_not_be_appended(tmp_path):
    store = tmp_path / "s.zarr"
    put([write_new(fields(["t2m"], stamps("2020-03-02")), tmp_path / "t.nc")], store)
    before = Store.open(store).hours
    earlier = write_new(fields(["t2m"], stamps("2020-03-01")), tmp_path / "early.nc")
    with pytest.raises(
        Era5Error, match="can only be continued with later hours, but the files also have 2020-03-01"
    ):
        put([earlier], store, append=True)
    other = write_new(fields(["t2m", "u10"], stamps("2020-03-03")), tmp_path / "u.nc")
    with pytest.raises(Era5Error, match="holds t2m, but the files hold t2m, u10"):
        put([other], store, append=True)
    bad = fields(["t2m"], stamps("2020-03-03", 30))
    bad["t2m"][28] = 0
    with pytest.raises(Era5Error, match=r"bad\.nc: t2m ranges"):
        put([write_new(bad, tmp_path / "bad.nc")], store, append=True)
    elsewhere = Domain.regular("Else", left=4.4e6, top=2.4e6, shape=(64, 40), spacing=4_000.0, ratio=8)
    with pytest.raises(Era5Error, match="is for the domain Small, not Else"):
        put([earlier], store, append=True, domain=elsewhere)
    opened = Store.open(store)
    np.testing.assert_array_equal(opened.hours, before)
    assert opened.pending.size == 0


def test_real_weather_is_not_appended_to_invented_weather(tmp_path):
    path = write_new(fields(["t2m"], stamps("2020-03-03")), tmp_path / "t.nc")
    for name, fine, synthetic, message in (
        ("invented", (), True, "holds synthetic weather"),
        ("truth", ("t2m",), False, "holds fine truth"),
    ):
        Store.create(
            tmp_path / name,
            DOMAIN,
            title="t",
            source="s",
            times=stamps(),
            coarse=["t2m"],
            fine=fine,
            synthetic=synthetic,
            fingerprint="f",
        )
        with pytest.raises(Era5Error, match=message):
            put([path], tmp_path / name, append=True)


def test_the_fingerprint_follows_content_and_options(tmp_path):
    paths = [
        write_new(fields(["tp"], stamps(hours=2)) * factor, tmp_path / f"{factor}.nc") for factor in (1, 2)
    ]
    renamed = tmp_path / "renamed.nc"
    renamed.write_bytes(paths[0].read_bytes())
    prints = []
    for number, (path, options) in enumerate(
        [(paths[0], {}), (renamed, {}), (paths[1], {}), (paths[0], {"accumulation": "hourly"})]
    ):
        put([path], tmp_path / f"{number}.zarr", **options)
        prints.append(Store.open(tmp_path / f"{number}.zarr").attrs["fingerprint"])
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


# ---------------------------------------------------------------- looking first


def test_inspect_reads_names_hours_and_area(tmp_path):
    times = stamps(hours=5)
    dataset = fields(["t2m", "tp"], times).assign(blh=fields(["t2m"], times)["t2m"])
    (summary,) = inspect([write_new(dataset.rename(t2m="2t"), tmp_path / "a.nc")])
    assert summary.variables == {"t2m": "2t", "tp": "tp"}
    assert summary.ignored == ("blh",)
    assert (summary.hours, summary.first, summary.last) == (5, times[0], times[-1])
    assert summary.area == (8, 14, 40, 46)
    assert not summary.orography


# ---------------------------------------------------------------- real files


def test_real_temperature_of_italy(tmp_path, shared_data):
    files = [shared_data / "era5_t2m_italy_3h_2022-05_06.nc", shared_data / "ERA5_const_sfc_variables.nc"]
    report = put(files, tmp_path / "s.zarr", domain=ITALY)
    assert report.hours == 488
    assert report.predictors == ("t2m",)
    store = Store.open(tmp_path / "s.zarr")
    assert store.validate() == []
    coarse = store.read_coarse([np.datetime64("2022-05-01T00"), np.datetime64("2022-06-13T12")])
    with xr.open_dataset(files[0], engine="scipy") as source:
        # Whole quarters of a degree lie between the points; undo the rounding of float32.
        latitude, longitude = (
            np.round(source[name].values.astype(float), 2) for name in ("latitude", "longitude")
        )
        original = source["t2m"].sel(time=coarse["time"]).values
    grid = ITALY.coarse
    for values, field in zip(coarse["t2m"].values, original, strict=True):
        oracle = RegularGridInterpolator((latitude[::-1], longitude), field[::-1], bounds_error=False)
        true = oracle((grid.latitude, grid.longitude))
        # One cell centre lies 0.0002 degrees outside and is taken for inside.
        differs = np.isnan(values) != np.isnan(true)
        assert differs.sum() <= 1
        assert report.coverage["t2m"] == pytest.approx(np.isfinite(values).mean())
        np.testing.assert_allclose(values[~differs], true[~differs], atol=1e-3)
    orography = coarse["orography"].values
    assert np.isfinite(orography).all()
    assert orography.max() > 2000
    # Where the surface is higher it is colder, by about 6.5 K/km.
    inside = np.isfinite(values) & (orography > 50)
    slope = np.polyfit(orography[inside], values[inside], 1)[0]
    assert -0.010 < slope < -0.003


def test_real_alpine_files(tmp_path, shared_data):
    files = sorted(shared_data.glob("era5_walps_*.nc"))
    report = put(files, tmp_path / "s.zarr", domain=ITALY)
    assert report.hours == 48
    assert report.predictors == ("t2m", "u10", "v10", "d2m", "tp")
    assert any(
        "and 1 more: u100, v100, blh, sp, sshf, fsr not needed, ignored" in note for note in report.notes
    )
    assert not any("accumulates since" in note for note in report.notes)
    assert Store.open(tmp_path / "s.zarr").validate() == []


@pytest.mark.parametrize(
    ("name", "variables", "time"),
    [
        ("era5_walps_20160101_era5_surface_hourly.nc", ("t2m", "d2m", "u10", "v10"), "time"),
        ("arpege_0.1deg_SE_20180501_hourly.nc", ("t2m", "d2m", "u10", "v10", "msl"), "valid_time"),
    ],
)
def test_real_states_equal_those_of_scipy(tmp_path, shared_data, name, variables, time):
    put([shared_data / name], tmp_path / "s.zarr", domain=ITALY, source="some model")
    coarse = Store.open(tmp_path / "s.zarr").read_coarse()
    with xr.open_dataset(shared_data / name) as source:
        chosen = source.sel({time: coarse["time"].values[[0, 13]]}).load()
    # Coordinates stored as float32 are hundredths of a degree.
    latitude, longitude = (
        np.round(chosen[axis].values.astype(float), 2) for axis in ("latitude", "longitude")
    )
    place = ITALY.coarse.latitude, ITALY.coarse.longitude
    for variable in variables:
        for hour, position in enumerate((0, 13)):
            field = chosen[variable].values[hour, ::-1]
            oracle = RegularGridInterpolator((latitude[::-1], longitude), field, bounds_error=False)(place)
            found = coarse[variable].values[position]
            assert np.isfinite(oracle).sum() > 100
            np.testing.assert_array_equal(np.isnan(found), np.isnan(oracle))
            np.testing.assert_allclose(found, oracle, rtol=1e-6, atol=1e-3)


def test_real_forecast_accumulations(tmp_path, shared_data):
    # Not ERA5, but precipitation that accumulates from 00 UTC as ERA5-Land's does.
    path = shared_data / "arpege_0.1deg_SE_20180501_hourly.nc"
    report = put([path], tmp_path / "s.zarr", domain=ITALY)
    assert any("tp accumulates since 00 UTC" in note for note in report.notes)
    assert report.hours == 24
    with xr.open_dataset(path) as source:
        total = source["tp"].isel(valid_time=-1).values / 1000
        regridder = conservative(source["longitude"], source["latitude"], ITALY.coarse)
    hourly = Store.open(tmp_path / "s.zarr").read_coarse()["tp"]
    # Packing makes the accumulation fall now and then by up to 0.2 mm.
    np.testing.assert_allclose(
        hourly.sum("time", skipna=False), regridder(regridder.window(total)), atol=1e-3
    )


def test_real_files_without_a_common_hour_are_not_joined_by_chance(tmp_path, shared_data):
    files = [shared_data / "era5_t2m_italy_3h_2022-05_06.nc", *sorted(shared_data.glob("era5_walps_*.nc"))]
    report = put(files, tmp_path / "s.zarr", domain=ITALY)
    # The Alpine files hold t2m, too, so their hours are complete and those of 2022 are not.
    assert report.hours == 48
    assert report.coverage["t2m"] < 0.1
    assert any("488 of 536 hours are left out" in note for note in report.notes)
