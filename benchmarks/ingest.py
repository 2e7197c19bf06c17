"""ERA5 files into a store against the script that one would write with xarray.

Both read the same files, bring all 14 predictors to the coarse grid of Italy and write Zarr. The script
interpolates everything linearly, also sums, and checks nothing, so states are compared.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.comparison import Comparison
from core.data.era5 import ingest
from core.data.store import Store
from core.domain import ITALY

HOURS = 168
AREA = np.arange(48.0, 34.2, -0.25), np.arange(4.0, 20.3, 0.25)
SURFACE = {
    "t2m": (285.0, 8.0, "K"),
    "msl": (101_300.0, 800.0, "Pa"),
    "u10": (0.0, 5.0, "m s**-1"),
    "v10": (0.0, 5.0, "m s**-1"),
    "d2m": (278.0, 6.0, "K"),
    "sst": (290.0, 3.0, "K"),
    "sd": (0.1, 0.01, "m of water equivalent"),
    "tp": (1e-3, 1e-4, "m"),
    "ssrd": (1e6, 1e5, "J m**-2"),
}
LEVEL = {
    "q": (5e-3, 5e-4, "kg kg**-1"),
    "t": (278.0, 6.0, "K"),
    "u": (5.0, 5.0, "m s**-1"),
    "v": (0.0, 5.0, "m s**-1"),
    "w": (0.0, 0.3, "Pa s**-1"),
}
COMPARED = ("t2m", "u10", "v10", "d2m")


def _write(path: Path, variables: dict[str, tuple[float, float, str]]) -> Path:
    """A week of noise over Italy, laid out as the Climate Data Store delivers it."""
    generator = np.random.default_rng(len(variables))
    latitude, longitude = AREA
    shape = (HOURS, latitude.size, longitude.size)
    times = np.datetime64("2020-01-06", "ns") + np.arange(HOURS) * np.timedelta64(1, "h")
    dataset = xr.Dataset(
        {
            name: (
                ("valid_time", "latitude", "longitude"),
                (mean + spread * generator.standard_normal(shape)).astype(np.float32),
                {"units": units},
            )
            for name, (mean, spread, units) in variables.items()
        },
        coords={
            "valid_time": times,
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
    )
    if variables is LEVEL:
        dataset = dataset.assign_coords(pressure_level=850.0)
    chunks = (HOURS // 2, latitude.size // 2 + 1, longitude.size // 2 + 1)
    encoding = {name: {"zlib": True, "complevel": 1, "chunksizes": chunks} for name in variables}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


def _script(files: list[Path], out: Path) -> np.ndarray:
    with xr.open_mfdataset(files, compat="override", join="exact") as dataset:
        place = {
            "latitude": xr.DataArray(ITALY.coarse.latitude, dims=("y", "x")),
            "longitude": xr.DataArray(ITALY.coarse.longitude, dims=("y", "x")),
        }
        regridded = dataset.interp(place).astype(np.float32)
        for variable in regridded.variables.values():
            variable.encoding.clear()
        regridded.to_zarr(out, mode="w", consolidated=False)
    with xr.open_zarr(out, consolidated=False, chunks=None) as found:
        return np.stack([found[name].values for name in COMPARED])


def _ours(files: list[Path], out: Path) -> np.ndarray:
    shutil.rmtree(out, ignore_errors=True)
    ingest(files, out, ITALY, static=None)
    found = Store.open(out).read_coarse(variables=COMPARED)
    return np.stack([found[name].values for name in COMPARED])


def comparisons() -> list[Comparison]:
    """A week of hours, all 14 predictors."""
    folder = Path(tempfile.mkdtemp(prefix="tramontana-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    files = [_write(folder / "surface.nc", SURFACE), _write(folder / "level.nc", LEVEL)]
    return [
        Comparison(
            f"ingest of {HOURS} hours of ERA5, 14 predictors, NetCDF to Zarr",
            "xarray open_mfdataset, interp, to_zarr",
            lambda: _ours(files, folder / "ours.zarr"),
            lambda: _script(files, folder / "script.zarr"),
            tolerance=1e-3,
        )
    ]
