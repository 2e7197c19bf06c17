"""Pairs of a fine temperature field and its coarse counterpart, some hours at a time.

From a store with truth, or from a NetCDF file with any fine field, whose coarse counterpart is then its own
average: real fields that no store holds can be put to the same questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pyproj import Geod
from torch import Tensor

from core.data.store import Store, as_times
from core.physics.supergrid import block_mean

Pair = tuple[Tensor, Tensor]
LATITUDES = ("latitude", "lat", "nav_lat")
LONGITUDES = ("longitude", "lon", "nav_lon")
NAMES = ("t2m", "2t", "T_2M", "tas")
MEMBERS = ("member", "number", "realization", "ensemble")


class PairError(ValueError):
    """A file that holds no temperature field to work with; the message says why."""


def store_pairs(store: Store, hours: ArrayLike, *, batch_hours: int = 4) -> Iterator[Pair]:
    """Truth (n, H, W) and coarse field (n, h, w) of 2-metre temperature [K], ``batch_hours`` at a time.

    Raises PairError where the store lacks either.
    """
    contents = store.contents
    if "t2m" not in contents.targets or "t2m" not in contents.predictors:
        raise PairError(
            f"{store.path} lacks the 2-metre temperature (t2m) of the fine truth or of the coarse fields."
        )
    stamps = as_times(hours)
    for start in range(0, stamps.size, batch_hours):
        batch = stamps[start : start + batch_hours]
        fine = store.read_fine(batch, ["t2m"])["t2m"].transpose("time", "y", "x")
        coarse = store.read_coarse(batch, ["t2m"])["t2m"].transpose("time", "y", "x")
        yield torch.from_numpy(fine.values), torch.from_numpy(coarse.values)


def read_temperature(path: str | Path) -> tuple[xr.DataArray, tuple[float, float]]:
    """The temperature of a NetCDF file and the spacing of its grid.

    Takes the variable t2m, 2t, T_2M or tas, or the only one whose standard name or units say temperature;
    of an ensemble, such as ``tramontana downscale`` writes, its first member. Latitude and longitude may be
    axes or two-dimensional, as on a rotated or projected grid.

    Returns
    -------
    dims (time, y, x), rows from north to south, float64 [K], and the mean distance of neighbouring rows
    and columns on the WGS 84 ellipsoid [km]

    Raises
    ------
    PairError
        if the file can't be read, holds no such field, or has gaps in it.
    """
    path = Path(path)
    try:
        with xr.open_dataset(path, engine=_engine(path)) as dataset:
            field = _one_member(_temperature(path, dataset)).load()
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, PairError):
            raise
        raise PairError(f"{path} can't be read as NetCDF: {error}") from error
    latitude, longitude = (_coordinate(path, field, names) for names in (LATITUDES, LONGITUDES))
    horizontal = latitude.dims if latitude.ndim == 2 else (*latitude.dims, *longitude.dims)
    rest = [dim for dim in field.dims if dim not in horizontal]
    if len(horizontal) != 2 or len(rest) > 1:
        raise PairError(
            f"The temperature of {path} has the dimensions {field.dims}; time, y and x are needed."
        )
    ordered = field.transpose(*rest, *horizontal)
    values = np.asarray(ordered.values, np.float64).reshape(-1, *ordered.shape[-2:])
    if latitude.ndim == 1:
        lat, lon = np.meshgrid(latitude.values, longitude.values, indexing="ij")
    else:
        lat, lon = latitude.values, longitude.transpose(*horizontal).values
    if lat[0].mean() < lat[-1].mean():
        values, lat, lon = values[:, ::-1], lat[::-1], lon[::-1]
    if not np.isfinite(values).all():
        raise PairError(f"The temperature of {path} has gaps; choose a file or a cut without any.")
    if values.min() < 150 or values.max() > 350:
        raise PairError(
            f"The temperature of {path} runs from {values.min():.4g} to {values.max():.4g}; "
            "kelvin are needed."
        )
    data = xr.DataArray(np.ascontiguousarray(values), dims=("time", "y", "x"), attrs={"units": "K"})
    return data, (_distance(lat, lon, 0), _distance(lat, lon, 1))


def averaged_pairs(field: xr.DataArray, ratio: int, *, batch_hours: int = 4) -> Iterator[Pair]:
    """A field (time, y, x) and its own block means of ``ratio`` x ``ratio`` pixels, some hours at a time.

    Rows and columns beyond the last whole block are left out. Raises PairError where no block fits.
    """
    height, width = (side // ratio * ratio for side in field.shape[-2:])
    if ratio < 2 or not height or not width:
        raise PairError(f"Blocks of {ratio} x {ratio} pixels can't be made of {field.shape[-2:]} pixels.")
    values = torch.from_numpy(np.ascontiguousarray(field.values[:, :height, :width]))
    for start in range(0, len(values), batch_hours):
        batch = values[start : start + batch_hours]
        yield batch, block_mean(batch, ratio)


def _engine(path: Path) -> str:
    """What reads a file, by its first bytes; xarray's own search ends in advice of many lines."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"\x89HDF":
        return "h5netcdf"
    if start[:3] == b"CDF":
        return "scipy"
    raise PairError(f"{path} is not a NetCDF file.")


def _temperature(path: Path, dataset: xr.Dataset) -> xr.DataArray:
    for name in NAMES:
        if name in dataset:
            return dataset[name]
    warm = [
        name
        for name, variable in dataset.data_vars.items()
        if "temperature" in str(variable.attrs.get("standard_name", ""))
        or (variable.attrs.get("units") == "K" and variable.ndim >= 2)
    ]
    if len(warm) != 1:
        if not dataset.data_vars and (groups := _groups(path)):
            raise PairError(
                f"{path} holds groups ({', '.join(groups)}) and no fields beside them; give a file of one "
                "downscaler."
            )
        raise PairError(
            f"{path} holds {', '.join(map(str, dataset.data_vars)) or 'nothing'}; a temperature called "
            f"one of {', '.join(NAMES)} is needed, or one variable alone that says it is a temperature."
        )
    return dataset[warm[0]]


def _groups(path: Path) -> list[str]:
    if _engine(path) != "h5netcdf":
        return []
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        return sorted(map(str, tree.children))


def _one_member(field: xr.DataArray) -> xr.DataArray:
    names = {*MEMBERS, *(n for n, c in field.coords.items() if c.attrs.get("standard_name") == "realization")}
    return field.isel({dim: 0 for dim in field.dims if dim in names})


def _coordinate(path: Path, field: xr.DataArray, names: tuple[str, ...]) -> xr.DataArray:
    for name in names:
        if name in field.coords:
            return field[name]
    raise PairError(f"The temperature of {path} comes without a coordinate {' or '.join(names)} [degrees].")


def _distance(lat: NDArray[np.float64], lon: NDArray[np.float64], axis: int) -> float:
    """Mean distance between neighbours along an axis [km]."""
    count = lat.shape[axis]
    ahead, behind = (
        [np.take(values, range(start, count - 1 + start), axis) for values in (lon, lat)] for start in (1, 0)
    )
    _, _, metres = Geod(ellps="WGS84").inv(behind[0], behind[1], ahead[0], ahead[1])
    return float(np.mean(metres) / 1e3)
