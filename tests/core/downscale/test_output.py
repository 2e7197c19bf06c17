"""Files of fine fields: layout, attributes, and nothing half-written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
from pyproj import Transformer

from core.data.pairs import PairError, read_temperature
from core.downscale import DownscaleError
from core.downscale.layout import NetCDFBackend, Source
from core.downscale.output import FieldFile, put_in_place
from core.variables import VARIABLES
from tests.synthetic_store import DOMAIN

HOURS = np.array(["2020-01-01T00", "2020-01-01T03", "2021-01-01T00"], "datetime64[ns]")
ATTRS = {"title": "Test", "synthetic": 1}


def fields(members: list[int], hours: np.ndarray, offset: float = 0.0) -> xr.Dataset:
    """t2m that tells members and hours apart."""
    values = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) / 1000 + offset
    labels = np.array([[m * 100 + np.searchsorted(HOURS, h) for h in hours] for m in members], np.float32)
    return xr.Dataset(
        {"t2m": (("member", "time", "y", "x"), labels[..., None, None] + values)},
        coords={"member": members, "time": hours},
    )


@pytest.mark.filterwarnings("error")
def test_one_source_lies_at_the_root(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.nc"
    source = Source(("t2m",), (0, 5), {"seed": "7", "sampler_eta": 0.5})
    with FieldFile(path, DOMAIN, HOURS, {"ldm": source}, attrs=ATTRS) as file:
        # In any order, some at a time.
        file.write("ldm", fields([5], HOURS[[2, 0]]).transpose("y", "x", "time", "member"))
        file.write("ldm", fields([0], HOURS))
        file.write("ldm", fields([5], HOURS[1:2]))
        assert not path.exists()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with xr.open_dataset(path, decode_coords="all") as dataset:
        result = dataset.load()
    expected = fields([0, 5], HOURS)
    assert result["t2m"].dims == ("member", "time", "y", "x")
    assert result["t2m"].dtype == np.float32
    np.testing.assert_array_equal(result["t2m"].values, expected["t2m"].values)
    np.testing.assert_array_equal(result["time"].values, HOURS)
    assert result["member"].values.tolist() == [0, 5]
    assert result["member"].attrs["standard_name"] == "realization"
    assert DOMAIN.fine.matches(result["x"].values, result["y"].values)
    assert result["t2m"].attrs.items() >= VARIABLES["t2m"].attrs.items()
    assert result.rio.crs.to_epsg() == 3035
    assert result.rio.bounds() == pytest.approx(
        (DOMAIN.fine.extent[0], DOMAIN.fine.extent[2], DOMAIN.fine.extent[1], DOMAIN.fine.extent[3])
    )
    assert result.attrs["Conventions"] == "CF-1.11"
    assert (result.attrs["title"], result.attrs["synthetic"]) == ("Test", 1)
    assert (result.attrs["seed"], result.attrs["sampler_eta"]) == ("7", 0.5)


def test_latitude_and_longitude_lie_beside_the_projected_axes(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    with FieldFile(path, DOMAIN, HOURS[:1], {"a": Source(("t2m",), (0,))}, attrs=ATTRS) as file:
        file.write("a", fields([0], HOURS[:1]))
    with xr.open_dataset(path, decode_coords=False) as raw:
        assert raw["t2m"].attrs["coordinates"].split() == ["latitude", "longitude"]
        assert raw["t2m"].attrs["grid_mapping"] == "spatial_ref"
        for name, units in (("latitude", "degrees_north"), ("longitude", "degrees_east")):
            assert raw[name].dims == ("y", "x")
            assert raw[name].attrs["standard_name"] == name
            assert raw[name].attrs["units"] == units
    to_projected = Transformer.from_crs("EPSG:4326", "EPSG:3035", always_xy=True)
    with xr.open_dataset(path) as dataset:
        field = dataset["t2m"].load()
    x, y = to_projected.transform(field["longitude"].values, field["latitude"].values)
    np.testing.assert_allclose(x, np.broadcast_to(field["x"], x.shape), rtol=0, atol=0.6)
    np.testing.assert_allclose(y, np.broadcast_to(field["y"].values[:, None], y.shape), rtol=0, atol=0.6)


def test_programs_with_gdal_see_the_projection(tmp_path: Path) -> None:
    """Two-dimensional latitude and longitude must not take its place."""
    path = tmp_path / "a.nc"
    write_one(path, lambda: None)
    left, _, _, top = DOMAIN.fine.extent
    with rasterio.open(f"netcdf:{path}:t2m") as raster:
        assert raster.crs.to_epsg() == 3035
        assert (raster.transform.c, raster.transform.f) == (left, top)
        assert (raster.transform.a, raster.transform.e) == (2000.0, -2000.0)
        np.testing.assert_array_equal(raster.read(1), fields([0], HOURS[:1])["t2m"].values[0, 0])


def test_the_temperature_can_be_read_back_for_the_audit(tmp_path: Path) -> None:
    def filled(name: str, sources: dict[str, Source]) -> Path:
        with FieldFile(tmp_path / name, DOMAIN, HOURS, sources, attrs=ATTRS) as file:
            for key, source in sources.items():
                file.write(key, fields(list(source.members), HOURS, offset=280.0))
        return tmp_path / name

    data, spacing = read_temperature(filled("one.nc", {"a": Source(("t2m",), (0, 1))}))
    np.testing.assert_array_equal(data.values, fields([0], HOURS, offset=280.0)["t2m"].values[0])
    # Lengths are true along neither axis of an equal-area projection, but their product is.
    assert spacing[0] * spacing[1] == pytest.approx(4.0, rel=1e-3)
    both = filled("both.nc", {"a": Source(("t2m",), (0,)), "b": Source(("t2m",), (0,))})
    with pytest.raises(PairError, match=r"groups \(a, b\) and no fields beside them"):
        read_temperature(both)


def test_several_sources_have_a_group_each(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    sources = {"one": Source(("t2m",), (0,), {"seed": "1"}), "two": Source(("t2m",), (0, 1))}
    with FieldFile(path, DOMAIN, HOURS[:1], sources, attrs=ATTRS) as file:
        file.write("one", fields([0], HOURS[:1]))
        file.write("two", fields([0, 1], HOURS[:1], offset=7.0))
    with xr.open_datatree(path) as tree:
        assert tree.attrs["title"] == "Test"
        assert tree["one"].attrs["seed"] == "1"
        assert tree["one/t2m"].shape == (1, 1, 64, 64)
        np.testing.assert_array_equal(
            tree["two/t2m"].values, fields([0, 1], HOURS[:1], offset=7.0)["t2m"].values
        )


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"

    def write(offset: float, *, fail: bool, overwrite: bool = False) -> None:
        source = Source(("t2m",), (0,))
        with FieldFile(path, DOMAIN, HOURS[:1], {"a": source}, attrs=ATTRS, overwrite=overwrite) as file:
            file.write("a", fields([0], HOURS[:1], offset))
            if fail:
                raise KeyboardInterrupt

    def value() -> float:
        with xr.open_dataset(path) as dataset:
            return float(dataset["t2m"][0, 0, 0, 0])

    with pytest.raises(KeyboardInterrupt):
        write(1.0, fail=True)
    assert list(tmp_path.iterdir()) == []
    write(2.0, fail=False)
    with pytest.raises(DownscaleError, match="exists already"):
        write(3.0, fail=False)
    with pytest.raises(KeyboardInterrupt):
        write(3.0, fail=True, overwrite=True)
    assert value() == 2.0
    write(3.0, fail=False, overwrite=True)
    assert value() == 3.0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_was_not_announced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DownscaleError, match=r"must end in \.nc\."):
        FieldFile(tmp_path / "a.grib", DOMAIN, HOURS, {}, attrs=ATTRS)
    with FieldFile(tmp_path / "a.nc", DOMAIN, HOURS[:1], {"a": Source(("t2m",), (0,))}, attrs=ATTRS) as file:
        for given, sentence in (
            (fields([1], HOURS[:1]), "was not made for"),
            (fields([0], HOURS[1:2]), "was not made for"),
            (fields([0], HOURS[:1]).rename(t2m="u10"), "takes t2m of a"),
        ):
            with pytest.raises(DownscaleError, match=sentence):
                file.write("a", given)


def write_one(path: Path, meanwhile: Callable[[], object], *, overwrite: bool = False) -> None:
    """A file with one field; something happens before that is written."""
    source = {"a": Source(("t2m",), (0,))}
    with FieldFile(path, DOMAIN, HOURS[:1], source, attrs=ATTRS, overwrite=overwrite) as file:
        meanwhile()
        file.write("a", fields([0], HOURS[:1]))


def test_of_two_runs_with_one_name_the_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    with pytest.raises(DownscaleError, match="exists already"):
        write_one(path, lambda: path.write_text("of another run"))
    assert path.read_text() == "of another run"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_is_kept_until_the_new_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, new = tmp_path / "a.zarr", tmp_path / "new"
    for folder in (path, new):
        folder.mkdir()
    (path / "old").touch()
    plain = Path.replace

    def stopped(self: Path, target: Path) -> Path:
        if target == path:
            raise KeyboardInterrupt
        return plain(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            put_in_place(new, path)
    assert [p.name for p in path.iterdir()] == ["old"]
    put_in_place(new, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    assert list(path.iterdir()) == []


def test_packed_fields_are_half_as_large_and_near(tmp_path: Path) -> None:
    source = Source(("t2m",), (0,), numbers=(3, 7))
    given = xr.concat([fields([0], HOURS, 270.0), fields([0], HOURS, 290.0)], "number")
    given = given.assign_coords(number=[3, 7])
    given["t2m"][0, 0, 0, 0, 0] = np.nan
    with FieldFile(tmp_path / "a.nc", DOMAIN, HOURS, {"a": source}, attrs=ATTRS, packed=True) as file:
        file.write("a", given)
    with xr.open_dataset(tmp_path / "a.nc", mask_and_scale=False) as raw:
        assert raw["t2m"].dtype == np.int16
        assert raw["t2m"].values[0, 0, 0, 0, 0] == raw["t2m"].attrs["_FillValue"]
        # 270.001 K in steps of 0.0025 K from 260 K.
        assert raw["t2m"].values[0, 0, 0, 0, 1] == 4000
    with xr.open_dataset(tmp_path / "a.nc") as dataset:
        assert dataset["t2m"].dims == ("number", "member", "time", "y", "x")
        assert dataset["number"].values.tolist() == [3, 7]
        assert "standard_name" not in dataset["number"].attrs
        np.testing.assert_allclose(dataset["t2m"].values, given["t2m"].values, rtol=0, atol=0.00128)
        assert np.isnan(dataset["t2m"].values).sum() == 1


@pytest.mark.parametrize("when", ["put", "close"])
def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """The NetCDF library raises RuntimeError then, and again when the file is closed."""

    def full(*given: object) -> None:
        raise RuntimeError("HDF error")

    with pytest.raises(DownscaleError, match=r"can't be written .*Is there room"):
        write_one(tmp_path / "a.nc", lambda: monkeypatch.setattr(NetCDFBackend, when, full))
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownscaleError, match="can't be written"):
        write_one(tmp_path / "file" / "a.nc", lambda: None)
