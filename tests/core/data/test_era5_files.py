"""What single files may look like, and what is said about files that can't be used."""

import gzip
import io
import zipfile

import numpy as np
import pytest
import xarray as xr

from core.data.era5_files import Era5Error, Series, open_files
from tests.era5_like import (
    LATITUDE,
    LONGITUDE,
    WRITERS,
    fields,
    level_of,
    linear,
    stamps,
    write_new,
    write_old,
)

WHOLE = slice(0, LATITUDE.size), (slice(0, LONGITUDE.size),)


def read_all(path, **options):
    """{predictor: (times, fields)} and the contents of a file."""
    with open_files([path], **options) as contents:
        found = {
            series.predictor: (series.times, series.read(np.arange(series.times.size), *WHOLE))
            for content in contents
            for series in content.series
        }
        return found, contents


def on_source(name, times):
    return linear(name, times, LATITUDE[:, None], LONGITUDE)


@pytest.mark.parametrize("generation", ["old", "new"])
def test_both_generations_of_all_surface_variables(tmp_path, generation):
    names = ["t2m", "msl", "u10", "v10", "d2m", "sst", "sd", "tp", "ssrd"]
    times = stamps(hours=3)
    path = WRITERS[generation](fields(names, times), tmp_path / "surface.nc")
    found, contents = read_all(path)
    assert list(found) == names
    assert contents[0].ignored == contents[0].notes == ()
    for name, (stamped, values) in found.items():
        np.testing.assert_array_equal(stamped, times)
        true = on_source(name, times)
        # Half a packing step, or float32.
        np.testing.assert_allclose(values, true, atol=np.ptp(true) / 1e5, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("generation", ["old", "new"])
@pytest.mark.parametrize(
    ("axis", "units", "scale"),
    [
        ("level", "millibars", 1),
        ("pressure_level", "hPa", 1),
        ("isobaricInhPa", "hPa", 1),
        ("isobaricInPa", "Pa", 100),
        ("plev", "Pa", 100),
        ("plev", None, 100),
        ("lev", None, 1),
    ],
)
def test_850_hpa_is_taken_from_any_pressure_axis(tmp_path, generation, axis, units, scale):
    times = stamps(hours=2)
    levels = [1000.0, 850.0, 500.0]
    dataset = xr.concat(
        [fields(["q", "t", "u", "v", "w"], times) + (0 if level == 850 else 1e-4) for level in levels], axis
    )
    dataset = dataset.transpose("time", axis, ...).assign_coords({axis: np.array(levels) * scale})
    if units:
        dataset[axis].attrs["units"] = units
    found, _ = read_all(WRITERS[generation](dataset, tmp_path / "levels.nc"))
    assert list(found) == ["q850", "t850", "u850", "v850", "w850"]
    for name in "qtuvw":
        true = on_source(name, times)
        np.testing.assert_allclose(found[level_of(name)][1], true, atol=np.ptp(true) / 5e4, rtol=1e-6)


def test_other_levels_are_not_taken_for_850(tmp_path):
    dataset = fields(["t", "t2m"], stamps(hours=2))
    dataset["t"] = dataset["t"].expand_dims(level=[700.0, 500.0], axis=1)
    found, contents = read_all(write_new(dataset, tmp_path / "mixed.nc"))
    assert list(found) == ["t2m"]
    assert "t is on 700, 500 hPa, not on 850 hPa; it is not used." in contents[0].notes[0]
    with pytest.raises(Era5Error, match=r"only\.nc holds none of .*: t is on 700, 500 hPa"):
        read_all(write_new(dataset[["t"]], tmp_path / "only.nc"))


def test_a_missing_level_must_be_stated(tmp_path):
    dataset = fields(["t", "u"], stamps(hours=2))
    path = write_old(dataset, tmp_path / "one_level.nc")
    with pytest.raises(Era5Error, match=r"t, u have no pressure level .* say so with assume_850"):
        read_all(path)
    found, _ = read_all(path, assume_850=True)
    assert list(found) == ["t850", "u850"]


@pytest.mark.parametrize(
    ("given", "predictor"),
    [
        ("2t", "t2m"),
        ("VAR_2T", "t2m"),
        ("var167", "t2m"),
        ("2m_temperature", "t2m"),
        ("10u", "u10"),
        ("VAR_10V", "v10"),
        ("SSTK", "sst"),
        ("mean_sea_level_pressure", "msl"),
        ("total_precipitation", "tp"),
        ("surface_solar_radiation_downwards", "ssrd"),
        ("t850", "t850"),
    ],
)
def test_other_names(tmp_path, given, predictor):
    source = "t" if predictor == "t850" else predictor
    dataset = fields([source], stamps(hours=1)).rename({source: given})
    found, _ = read_all(write_new(dataset, tmp_path / "named.nc"))
    assert list(found) == [predictor]


@pytest.mark.parametrize(
    ("long_name", "source", "predictor"),
    [
        ("2 metre dewpoint temperature", "d2m", "d2m"),
        ("10 metre U wind component", "u10", "u10"),
        ("Surface short-wave (solar) radiation downwards", "ssrd", "ssrd"),
    ],
)
def test_long_names(tmp_path, long_name, source, predictor):
    dataset = fields([source], stamps(hours=1)).rename({source: "unnamed"})
    dataset["unnamed"].attrs["long_name"] = long_name
    found, _ = read_all(write_new(dataset, tmp_path / "named.nc"))
    assert list(found) == [predictor]


@pytest.mark.parametrize(
    ("name", "units", "factor", "offset"),
    [
        ("t2m", "degC", 1, -273.15),
        ("t2m", "°C", 1, -273.15),
        ("t2m", None, 1, 0),
        ("msl", "hPa", 0.01, 0),
        ("tp", "mm", 1000, 0),
        ("tp", "kg m**-2", 1000, 0),
        ("sd", "kg m-2", 1000, 0),
        ("ssrd", "kJ m-2", 1e-3, 0),
        ("u10", "m/s", 1, 0),
    ],
)
def test_units_are_converted(tmp_path, name, units, factor, offset):
    times = stamps(hours=2)
    dataset = fields([name], times) * factor + offset
    dataset[name].attrs = {} if units is None else {"units": units}
    found, _ = read_all(write_new(dataset, tmp_path / "units.nc"))
    np.testing.assert_allclose(found[name][1], on_source(name, times), rtol=1e-5)


def test_final_and_preliminary_data_side_by_side(tmp_path):
    times = stamps(hours=4)
    whole = fields(["t2m"], times)
    final = whole.where(whole.time < times[2])
    preliminary = (whole + 1).where(whole.time >= times[1])
    # Preliminary first, to see that the order in the file does not matter.
    both = xr.concat([preliminary, final], xr.Variable("expver", np.array([5, 1], np.int32)))
    both["t2m"].attrs = whole["t2m"].attrs
    path = write_old(both.transpose("time", "expver", ...), tmp_path / "both.nc")
    found, contents = read_all(path)
    true = on_source("t2m", times)
    np.testing.assert_allclose(found["t2m"][1][:2], true[:2], atol=1e-3)
    np.testing.assert_allclose(found["t2m"][1][2:], true[2:] + 1, atol=1e-3)
    assert "preliminary data (ERA5T" in contents[0].notes[0]


def test_preliminary_hours_marked_by_a_coordinate_are_reported(tmp_path):
    dataset = fields(["t2m"], stamps(hours=2)).assign_coords(expver=("time", ["0001", "0005"]))
    found, contents = read_all(write_new(dataset, tmp_path / "t.nc"))
    assert found["t2m"][1].shape[0] == 2
    assert "preliminary data (ERA5T" in contents[0].notes[0]


def test_one_member_is_read_and_many_are_refused(tmp_path):
    dataset = fields(["t2m"], stamps(hours=2))
    one = dataset.expand_dims(number=[0], axis=1)
    one.to_netcdf(tmp_path / "one.nc")
    assert read_all(tmp_path / "one.nc")[0]["t2m"][1].shape == (2, LATITUDE.size, LONGITUDE.size)
    xr.concat([one, one.assign_coords(number=[1])], "number").to_netcdf(tmp_path / "ten.nc")
    with pytest.raises(Era5Error, match=r"ten\.nc has 2 ensemble members \(number 0, 1\)"):
        read_all(tmp_path / "ten.nc")


def test_one_hour_without_a_time_dimension(tmp_path):
    times = stamps(hours=1)
    fields(["t2m"], times).isel(time=0).to_netcdf(tmp_path / "hour.nc")
    stamped, values = read_all(tmp_path / "hour.nc")[0]["t2m"]
    np.testing.assert_array_equal(stamped, times)
    np.testing.assert_allclose(values, on_source("t2m", times))


def test_forecast_times_and_steps_as_cfgrib_writes_them(tmp_path):
    # Accumulated fields belong to forecasts from 06 and 18 UTC; the table begins and ends half empty.
    starts = np.array(["2020-02-29T18", "2020-03-01T06"], "datetime64[ns]")
    steps = np.arange(1, 13) * np.timedelta64(1, "h").astype("timedelta64[ns]")
    valid = starts[:, None] + steps
    values = linear("tp", valid.ravel(), LATITUDE[:, None], LONGITUDE).reshape(2, 12, *WHOLE_SHAPE)
    values[0, :6] = np.nan
    values[1, 10:] = np.nan
    xr.Dataset(
        {"tp": (("time", "step", "latitude", "longitude"), values, {"units": "m"})},
        coords={
            "time": starts,
            "step": steps,
            "valid_time": (("time", "step"), valid),
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
        },
    ).to_netcdf(tmp_path / "cfgrib.nc")
    with open_files([tmp_path / "cfgrib.nc"]) as contents:
        series = contents[0].series[0]
        given = np.flatnonzero(~np.isnat(series.times))
        np.testing.assert_array_equal(series.times[given], stamps("2020-03-01T01", 16))
        np.testing.assert_allclose(
            series.read(given, *WHOLE), on_source("tp", series.times[given]), rtol=1e-6
        )


WHOLE_SHAPE = (LATITUDE.size, LONGITUDE.size)


def test_stamps_in_fractions_of_days_are_rounded(tmp_path):
    times = stamps(hours=24)
    dataset = fields(["t2m"], times)
    dataset["time"] = np.arange(24, dtype=np.float32) / 24 + 0.0001 * (-1) ** np.arange(24)
    dataset["time"].attrs["units"] = "days since 2020-03-01"
    dataset.to_netcdf(tmp_path / "days.nc")
    np.testing.assert_array_equal(read_all(tmp_path / "days.nc")[0]["t2m"][0], times)


def test_packing_below_zero_is_zero(tmp_path):
    dataset = fields(["tp"], stamps(hours=1))
    dataset["tp"][:] = -1e-9
    found, _ = read_all(write_new(dataset, tmp_path / "dry.nc"))
    assert found["tp"][1].min() == 0


def test_zip_as_delivered_is_read_member_by_member(tmp_path):
    times = stamps(hours=2)
    instant = write_new(fields(["t2m", "u10"], times), tmp_path / "instant.nc")
    accumulated = write_new(fields(["tp"], times), tmp_path / "accum.nc")
    # The store names it .nc even where it is an archive.
    path = tmp_path / "download.nc"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(instant, "data_stream-oper_stepType-instant.nc")
        archive.write(accumulated, "data_stream-oper_stepType-accum.nc")
        archive.writestr("readme.txt", "about")
    found, contents = read_all(path)
    assert set(found) == {"t2m", "u10", "tp"}
    assert contents[1].label == f"{path} (data_stream-oper_stepType-accum.nc)"


def test_names_in_an_archive_never_become_paths(tmp_path, monkeypatch):
    scratch = tmp_path / "outer" / "scratch"
    scratch.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    source = write_new(fields(["t2m"], stamps(hours=1)), tmp_path / "t.nc")
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../escaped.nc", "../../escaped.nc", str(tmp_path / "absolute.nc")):
            archive.writestr(zipfile.ZipInfo(name), source.read_bytes())
    before = sorted(tmp_path.rglob("*"))
    with open_files([path]) as contents:
        assert len(contents) == 3
        made = set(tmp_path.rglob("*")) - set(before)
        assert len(made) == 4
        assert {file.suffix for file in made if file.parent != scratch} == {".nc"}
        assert all(file.parent == scratch or file.parent.parent == scratch for file in made)
    assert sorted(tmp_path.rglob("*")) == before


def test_archives_that_are_damaged_or_empty_or_hold_something_else(tmp_path):
    source = write_new(fields(["t2m"], stamps(hours=1)), tmp_path / "t.nc")
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.write(source, "t.nc")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.getvalue()[:-200])
    with pytest.raises(Era5Error, match=r"cut\.zip can't be read, it is damaged or incomplete"):
        read_all(cut)
    spoilt = bytearray(whole.getvalue())
    spoilt[len(spoilt) // 2] ^= 0xFF
    (tmp_path / "spoilt.zip").write_bytes(spoilt)
    with pytest.raises(Era5Error, match=r"spoilt\.zip can't be read.*CRC"):
        read_all(tmp_path / "spoilt.zip")
    for name, content, message in [
        (
            "text.zip",
            {"readme.txt": b"hello"},
            r"archive without NetCDF or GRIB files \(it holds readme.txt\)",
        ),
        ("page.zip", {"t.nc": b"<html>"}, r"page\.zip \(t\.nc\) is a web page"),
    ]:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, data in content.items():
                archive.writestr(member, data)
        with pytest.raises(Era5Error, match=message):
            read_all(tmp_path / name)


def test_an_archive_larger_than_the_disk_is_refused_before_unpacking(tmp_path, monkeypatch):
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.nc", b"x" * 1000)
    monkeypatch.setattr("core.data.era5_files.shutil.disk_usage", lambda _: type("Usage", (), {"free": 999}))
    with pytest.raises(Era5Error, match=r"needs 0\.0 GB unpacked.*set TMPDIR"):
        read_all(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"GRIB\0\0\0\2 rest", "can't be read, it is damaged or incomplete"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page or an error message"),
        (b'  {"message": "request failed"}', "is a web page or an error message"),
        (gzip.compress(b"CDF\x01", mtime=0), "is compressed; unpack it first"),
        (b"some text", "is not a NetCDF or GRIB file"),
        (b"CDF\x02" + b"\0" * 20, "can't be read, it is damaged"),
        (b"CDF\x05" + b"\xff" * 40, "can't be read, it is damaged"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 40, "can't be read, it is damaged"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    path = tmp_path / "data.nc"
    path.write_bytes(content)
    with pytest.raises(Era5Error, match=rf"data\.nc.* {message}"):
        read_all(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(Era5Error, match="There is no file"):
        read_all(tmp_path / "absent.nc")
    with pytest.raises(Era5Error, match="is a folder"):
        read_all(tmp_path)
    with pytest.raises(Era5Error, match="No files were given"), open_files([]):
        pass


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.98])
@pytest.mark.parametrize("generation", ["old", "new"])
def test_truncated_files(tmp_path, generation, kept):
    path = WRITERS[generation](fields(["t2m", "u10"], stamps(hours=48)), tmp_path / "cut.nc")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(Era5Error, match=r"cut\.nc.*damaged or incomplete.*download it again"):
        read_all(path)


def test_truncated_64_bit_data_format(tmp_path):
    path = tmp_path / "cut.nc"
    fields(["t2m"], stamps(hours=48)).to_netcdf(path, format="NETCDF3_64BIT_DATA", engine="netcdf4")
    assert path.read_bytes()[:4] == b"CDF\x05"
    assert read_all(path)[0]["t2m"][1].shape[0] == 48
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(Era5Error, match=r"cut\.nc is incomplete"):
        read_all(path)


def test_a_damaged_chunk_is_noticed(tmp_path):
    generator = np.random.default_rng(0)
    dataset = fields(["t2m"], stamps(hours=48))
    dataset["t2m"] = dataset["t2m"] + generator.normal(size=dataset["t2m"].shape)
    path = write_new(dataset, tmp_path / "spoilt.nc", chunk=8)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = generator.bytes(400)
    path.write_bytes(content)
    with pytest.raises(Era5Error, match=r"spoilt\.nc can't be read, it is damaged"):
        read_all(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d * 0 + 20,
            r"t2m ranges from 20 to 20 K, but possible values are 180 to 340; .*wrong unit",
        ),
        (lambda d: d * np.inf, "t2m ranges from inf to inf K"),
        (lambda d: d.assign_attrs(units="furlong"), "t2m is in 'furlong', .* convert it to K"),
        (lambda d: d.assign_attrs(GRIB_stepType="avgua"), "holds averages over many hours"),
        (lambda d: d.expand_dims(forecast_hour=[1, 2]), "has the dimension forecast_hour of size 2"),
        (lambda d: d.drop_vars("time"), "t2m has no time stamps"),
        (lambda d: d.isel(time=0, drop=True), "t2m has no time stamps"),
        (lambda d: d.drop_vars("latitude"), "t2m has no latitude coordinate"),
        (lambda d: d.drop_vars("longitude"), "t2m has no longitude coordinate"),
        (lambda d: d.assign_coords(time=[0, 1]), "its time stamps can't be read as dates"),
        (
            lambda d: d.assign_coords(
                time=xr.date_range("2020-01-01", periods=2, calendar="360_day", use_cftime=True)
            ),
            "its time stamps can't be read as dates of the common calendar.*360_day",
        ),
        (
            lambda d: d.assign_coords(time=np.array(["2020-01-01", "NaT"], "datetime64[ns]")),
            "some of its time stamps are missing",
        ),
    ],
)
def test_variables_that_can_not_be_used(tmp_path, change, message):
    dataset = fields(["t2m"], stamps(hours=2))
    attrs = dataset["t2m"].attrs
    changed = change(dataset["t2m"])
    changed.attrs = attrs | changed.attrs
    changed.to_dataset(name="t2m").to_netcdf(tmp_path / "odd.nc")
    with pytest.raises(Era5Error, match=rf"odd\.nc.*{message}"):
        read_all(tmp_path / "odd.nc")


def test_curvilinear_grids_are_refused(tmp_path):
    longitude, latitude = np.meshgrid(LONGITUDE, LATITUDE)
    xr.Dataset(
        {"t2m": (("time", "y", "x"), np.full((1, *longitude.shape), 280.0))},
        coords={
            "time": stamps(hours=1),
            "latitude": (("y", "x"), latitude, {"units": "degrees_north"}),
            "longitude": (("y", "x"), longitude, {"units": "degrees_east"}),
        },
    ).to_netcdf(tmp_path / "curved.nc")
    with pytest.raises(Era5Error, match=r"curved\.nc: t2m is not on a regular longitude/latitude grid"):
        read_all(tmp_path / "curved.nc")


def test_strangers_are_named(tmp_path):
    dataset = fields(["t2m"], stamps(hours=1))
    dataset["blh"] = dataset["t2m"]
    found, contents = read_all(write_new(dataset, tmp_path / "more.nc"))
    assert list(found) == ["t2m"]
    assert contents[0].ignored == ("blh",)
    with pytest.raises(Era5Error, match=r"blh\.nc holds none of t2m, .*; it has blh\."):
        read_all(write_new(dataset[["blh"]], tmp_path / "blh.nc"))


def test_a_predictor_twice_in_one_file(tmp_path):
    dataset = fields(["t2m"], stamps(hours=1))
    dataset["2t"] = dataset["t2m"] + 1
    _, contents = read_all(write_new(dataset, tmp_path / "twice.nc"))
    assert len(contents[0].series) == 1
    assert "once more" in contents[0].notes[0]


def height_file(path, *, units="m**2 s**-2", **coords):
    z = 9.80665 * (500 + 10 * (LATITUDE[:, None] - 43) + 5 * (LONGITUDE - 11))
    array = xr.DataArray(z, dims=("latitude", "longitude"), attrs={"units": units}, name="z")
    array = array.assign_coords(latitude=LATITUDE, longitude=LONGITUDE)
    for dim, values in coords.items():
        array = array.expand_dims({dim: values})
    if units == "m":
        array = array / 9.80665
        array.attrs["units"] = "m"
    array.to_netcdf(path)
    return path


@pytest.mark.parametrize("coords", [{}, {"time": stamps(hours=1)}, {"valid_time": stamps(hours=3)}])
@pytest.mark.parametrize("units", ["m**2 s**-2", "m"])
def test_surface_geopotential_is_a_constant(tmp_path, coords, units):
    with open_files([height_file(tmp_path / "z.nc", units=units, **coords)]) as contents:
        assert contents[0].series == ()
        height = contents[0].orography.read_constant(*WHOLE)
    np.testing.assert_allclose(height, 500 + 10 * (LATITUDE[:, None] - 43) + 5 * (LONGITUDE - 11))


def test_other_geopotentials_are_not_taken_for_the_surface(tmp_path):
    z = xr.open_dataarray(height_file(tmp_path / "z.nc"))
    times = stamps(hours=2)
    t2m = fields(["t2m"], times)
    on_level = t2m.assign(z=z.expand_dims(level=[850.0]).assign_attrs(z.attrs))
    moving = t2m.assign(z=(z + xr.DataArray([0, 100], dims="time")).assign_attrs(z.attrs))
    marked = t2m.assign(z=z.assign_attrs(GRIB_typeOfLevel="isobaricInhPa"))
    for number, dataset in enumerate((on_level, moving, marked)):
        path = tmp_path / f"{number}.nc"
        dataset.to_netcdf(path)
        _, contents = read_all(path)
        assert contents[0].orography is None
        assert "z" in contents[0].ignored
    # Beside a temperature on an unnamed level, z is the height of that level.
    fields(["t"], times).assign(z=z).to_netcdf(tmp_path / "level.nc")
    found, contents = read_all(tmp_path / "level.nc", assume_850=True)
    assert list(found) == ["t850"]
    assert contents[0].orography is None


def test_compressed_chunks_are_read_once(tmp_path, monkeypatch):
    loads = []
    load = Series._load
    monkeypatch.setattr(
        Series, "_load", lambda self, times, *window: loads.append(times) or load(self, times, *window)
    )
    times = stamps(hours=96)
    path = write_new(fields(["t2m"], times), tmp_path / "month.nc", chunk=48)
    with open_files([path]) as contents:
        series = contents[0].series[0]
        days = [series.read(np.arange(start, start + 24), *WHOLE) for start in range(0, 96, 24)]
    assert loads == [slice(0, 48), slice(48, 96)]
    np.testing.assert_allclose(np.concatenate(days), on_source("t2m", times), rtol=1e-6)
    # Without chunks a day is a read, so that memory does not grow with the file.
    loads.clear()
    with open_files([write_old(fields(["t2m"], times), tmp_path / "old.nc")]) as contents:
        contents[0].series[0].read(np.arange(24), *WHOLE)
        assert contents[0].series[0]._slab is None
    assert loads == [slice(0, 24)]
