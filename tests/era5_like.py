"""Small files as the Climate Data Store lays them out, with fields that bilinear regridding reproduces."""

import numpy as np
import xarray as xr

from core.domain import Domain

DOMAIN = Domain.regular("Small", left=4_400_000.0, top=2_400_000.0, shape=(48, 40), spacing=4_000.0, ratio=8)
GRID = DOMAIN.coarse  # 6 x 5 cells of 32 km, 11.1-12.8 degrees east, 43.1-44.6 degrees north
LATITUDE = np.arange(46.0, 39.9, -0.5)
LONGITUDE = np.arange(8.0, 14.1, 0.5)

UNITS = {
    "t2m": "K",
    "msl": "Pa",
    "u10": "m s**-1",
    "v10": "m s**-1",
    "d2m": "K",
    "sst": "K",
    "sd": "m of water equivalent",
    "tp": "m",
    "ssrd": "J m**-2",
    "q": "kg kg**-1",
    "t": "K",
    "u": "m s**-1",
    "v": "m s**-1",
    "w": "Pa s**-1",
}
MEANS = {
    "t2m": 285,
    "msl": 1e5,
    "d2m": 280,
    "sst": 290,
    "sd": 0.2,
    "tp": 1e-3,
    "ssrd": 1e6,
    "q": 5e-3,
    "t": 275,
}
SLOPES = {"msl": 50, "sd": 0.01, "tp": 1e-5, "ssrd": 1e4, "q": 1e-4}


def stamps(start="2020-03-01T00", hours=24, step=1):
    return np.datetime64(start, "ns") + np.arange(hours) * np.timedelta64(step, "h")


def level_of(name):
    """The predictor that an upper-air name becomes."""
    return f"{name}850" if name in ("q", "t", "u", "v", "w") else name


def linear(name, times, latitude, longitude):
    """A field that is linear in longitude and latitude and changes with the hour, (time, ...)."""
    hour = (np.asarray(times, "datetime64[ns]") - np.datetime64("2020-03-01T00", "ns")) / np.timedelta64(
        1, "h"
    )
    hour = hour.reshape(-1, *[1] * np.ndim(latitude + longitude))
    shape = (np.asarray(latitude) - 43) + 0.5 * (np.asarray(longitude) - 11)
    return MEANS.get(name, 0) + SLOPES.get(name, 1) * (shape + 0.01 * hour)


def expected(name, times):
    """:func:`linear` on the coarse grid of DOMAIN."""
    return linear(name, times, GRID.latitude, GRID.longitude)


def fields(names, times, *, latitude=LATITUDE, longitude=LONGITUDE, time="time"):
    """A dataset of linear fields with the attributes of both generations."""
    return xr.Dataset(
        {
            name: (
                (time, "latitude", "longitude"),
                linear(name, times, latitude[:, None], longitude),
                {"units": UNITS[name], "long_name": "as in the Climate Data Store"},
            )
            for name in names
        },
        coords={
            time: times,
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
    )


def write_old(dataset, path):
    """As before September 2024: classic NetCDF, ``time`` in hours since 1900, packed shorts."""
    encoding = (
        {"time": {"units": "hours since 1900-01-01", "dtype": "int32"}} if "time" in dataset.dims else {}
    )
    for name, variable in dataset.data_vars.items():
        low, high = float(variable.min()), float(variable.max())
        encoding[name] = {
            "dtype": "int16",
            "scale_factor": max(high - low, 1e-9) / 65000,
            "add_offset": (high + low) / 2,
            "_FillValue": np.int16(-32767),
        }
    dataset.assign_coords(
        latitude=dataset.latitude.astype(np.float32), longitude=dataset.longitude.astype(np.float32)
    ).to_netcdf(path, format="NETCDF3_64BIT", engine="scipy", encoding=encoding)
    return path


def write_new(dataset, path, *, chunk=None):
    """As since then: NetCDF-4, ``valid_time``, ``number`` and ``expver`` beside it, compressed floats."""
    if "time" in dataset.dims:
        dataset = dataset.rename(time="valid_time")
    dataset = dataset.assign_coords(number=0)
    if "valid_time" in dataset.dims and "expver" not in dataset.coords:
        dataset = dataset.assign_coords(expver=("valid_time", np.full(dataset.sizes["valid_time"], "0001")))
    encoding = {}
    for name, variable in dataset.data_vars.items():
        sizes = [
            min(chunk or size, size) if dim == "valid_time" else size for dim, size in variable.sizes.items()
        ]
        encoding[name] = {"dtype": "float32", "zlib": True, "chunksizes": tuple(sizes)}
    if "valid_time" in dataset.dims:
        encoding["valid_time"] = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


WRITERS = {"old": write_old, "new": write_new}
