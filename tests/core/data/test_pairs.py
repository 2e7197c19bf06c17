"""Pairs of fine and coarse temperature, from stores and from NetCDF files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from core.data.pairs import PairError, averaged_pairs, read_temperature, store_pairs
from tests.synthetic_store import make_store


def write(path: Path, values: np.ndarray, *, north_first: bool = True, **attrs: str) -> Path:
    latitude = np.linspace(46, 44, values.shape[1])
    dataset = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, attrs)},
        coords={"latitude": latitude, "longitude": np.linspace(8, 11, values.shape[2])},
    )
    (dataset if north_first else dataset.isel(latitude=slice(None, None, -1))).to_netcdf(
        path, engine="h5netcdf"
    )
    return path


def field(shape: tuple[int, int, int] = (3, 9, 13)) -> np.ndarray:
    return 280 + np.random.default_rng(0).normal(size=shape)


def test_a_store_gives_truth_and_coarse_field(tmp_path: Path):
    store = make_store(tmp_path / "s.zarr")
    chosen = store.hours[:5]
    pairs = list(store_pairs(store, chosen, batch_hours=2))
    assert [len(fine) for fine, _ in pairs] == [2, 2, 1]
    np.testing.assert_array_equal(torch.cat([f for f, _ in pairs]), store.read_fine(chosen)["t2m"])
    np.testing.assert_array_equal(torch.cat([c for _, c in pairs]), store.read_coarse(chosen)["t2m"])


def test_a_store_without_truth_is_refused(tmp_path: Path):
    store = make_store(tmp_path / "s.zarr", fine=())
    with pytest.raises(PairError, match=r"s\.zarr lacks the 2-metre temperature"):
        next(store_pairs(store, store.hours[:1]))


@pytest.mark.parametrize("north_first", [True, False])
def test_rows_run_from_north_to_south_and_distances_are_those_of_the_earth(tmp_path: Path, north_first: bool):
    values = field()
    data, (rows, columns) = read_temperature(write(tmp_path / "a.nc", values, north_first=north_first))
    np.testing.assert_allclose(data, values)
    # A quarter of a degree: 27.8 km along a meridian, times the cosine of 45 degrees along the parallel.
    assert rows == pytest.approx(27.78, abs=0.03)
    assert columns == pytest.approx(27.83 * np.cos(np.radians(45)), abs=0.06)


def test_of_an_ensemble_the_first_member_is_taken(tmp_path: Path):
    values = field()
    with xr.open_dataset(write(tmp_path / "a.nc", values)) as dataset:
        members = xr.concat([dataset["t2m"], dataset["t2m"] + 1], "number").transpose("time", "number", ...)
        members.to_dataset(name="t2m").to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    np.testing.assert_allclose(read_temperature(tmp_path / "b.nc")[0], values)


def test_blocks_are_means_and_remains_are_left_out():
    data = xr.DataArray(field(), dims=("time", "y", "x"))
    (fine, coarse), (rest, _) = averaged_pairs(data, 4, batch_hours=2)
    assert (fine.shape, coarse.shape, len(rest)) == ((2, 8, 12), (2, 2, 3), 1)
    assert coarse[1, 1, 2].item() == pytest.approx(data.values[1, 4:8, 8:12].mean())
    with pytest.raises(PairError, match="Blocks of 10 x 10"):
        next(averaged_pairs(data, 10))


def test_real_rotated_grid(shared_data: Path):
    data, spacing = read_temperature(shared_data / "cosmo_i7_t2m.nc")
    assert data.sizes == {"time": 4, "y": 313, "x": 297}
    assert spacing == pytest.approx((7, 7), abs=0.4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values - 273.15, "kelvin are needed"),
        (lambda values: np.where(values > 281, np.nan, values), "has gaps"),
    ],
)
def test_fields_that_are_no_temperature_in_kelvin(tmp_path: Path, change, message: str):
    with pytest.raises(PairError, match=message):
        read_temperature(write(tmp_path / "a.nc", change(field())))


def test_files_that_hold_no_temperature(tmp_path: Path):
    (tmp_path / "text.nc").write_text("no")
    with pytest.raises(PairError, match=r"text\.nc is not a NetCDF file"):
        read_temperature(tmp_path / "text.nc")
    with pytest.raises(PairError, match="can't be read"):
        read_temperature(tmp_path / "absent.nc")
    xr.Dataset({"u": ("a", [1.0])}).to_netcdf(tmp_path / "u.nc", engine="h5netcdf")
    with pytest.raises(PairError, match="holds u;"):
        read_temperature(tmp_path / "u.nc")
    xr.Dataset({"t2m": (("y", "x"), np.full((3, 3), 280.0))}).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(PairError, match="without a coordinate latitude"):
        read_temperature(tmp_path / "b.nc")
