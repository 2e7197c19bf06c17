"""Static fields of a fine grid: orography, land cover, latitude, land fraction.

:func:`build_static` averages any elevation model and land-cover raster to the fine grid;
:func:`load_italy_static` returns the ones that ship for Italy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from core.assets import asset
from core.data.rasters import RasterError, cell_means, class_fractions
from core.data.store import grid_mapping_attrs
from core.domain import ITALY, Domain
from core.plural import are, counted
from core.variables import LAND_COVER_CLASSES, STATICS, VARIABLES

FloatArray = NDArray[np.float64]

IGBP_LEGEND: dict[int, str] = {
    1: "evergreen needleleaf forest",
    2: "evergreen broadleaf forest",
    3: "deciduous needleleaf forest",
    4: "deciduous broadleaf forest",
    5: "mixed forest",
    6: "closed shrubland",
    7: "open shrubland",
    8: "woody savanna",
    9: "savanna",
    10: "grassland",
    11: "permanent wetland",
    12: "cropland",
    13: "urban and built-up",
    14: "cropland and natural vegetation mosaic",
    15: "snow and ice",
    16: "barren",
}
"""Land classes of the International Geosphere-Biosphere Programme; water is none of them."""

IGBP_NUMBERS = {number: number if number in IGBP_LEGEND else 0 for number in (*range(18), 254, 255)}
"""Numbers of IGBP rasters: water is 0 (MCD12C1) or 17 (MCD12Q1), 254 and 255 are unclassified."""

LONGEST_VOID = 3
"""Distance over which missing heights on land are filled from the nearest cell [cells]."""
WHOLE = 1.0 - 1e-6
"""Land fraction from which a cell counts as all land."""


class StaticError(ValueError):
    """A raster that can't become a static field; the message names the file, the fault and the way out."""


def static_dataset(
    domain: Domain,
    *,
    orography: ArrayLike,
    land_fraction: ArrayLike,
    land_cover: ArrayLike | None = None,
    legend: Mapping[int, str] = IGBP_LEGEND,
) -> xr.Dataset:
    """Arrays on the fine grid as the dataset that a store's /static group holds.

    Parameters
    ----------
    orography : (H, W) [m]; land_fraction : (H, W) in 0-1; land_cover : (16, H, W) fractions in 0-1

    Returns
    -------
    float32 variables with CF attributes, coordinates x, y [m] and class, and ``spatial_ref``.

    Raises
    ------
    StaticError
        for wrong shapes, missing values, fractions outside 0-1 or an orography outside -500 to 9000 m.
    """
    shape = domain.fine.shape
    fields: dict[str, tuple[tuple[str, ...], ArrayLike]] = {
        "orography": (("y", "x"), orography),
        "latitude": (("y", "x"), domain.fine.latitude),
        "land_fraction": (("y", "x"), land_fraction),
    }
    if land_cover is not None:
        fields["land_cover"] = (("class", "y", "x"), land_cover)
    data = {}
    for name in (name for name in STATICS if name in fields):
        dims, given = fields[name]
        values = np.asarray(given, np.float32)
        expected = (LAND_COVER_CLASSES, *shape) if "class" in dims else shape
        if values.shape != expected:
            raise StaticError(f"{name} has the shape {values.shape}; {domain.name} needs {expected}.")
        low, high = VARIABLES[name].valid_range
        if not (np.isfinite(values).all() and values.min() >= low - 1e-3 and values.max() <= high + 1e-3):
            missing = int(np.isnan(values).sum())
            raise StaticError(
                f"{name} must be complete and between {low:g} and {high:g} {VARIABLES[name].units}; "
                f"{counted(missing, 'cell')} {are(missing)} missing, the others range from "
                f"{np.min(values, where=~np.isnan(values), initial=np.inf):g} to "
                f"{np.max(values, where=~np.isnan(values), initial=-np.inf):g}."
            )
        data[name] = (dims, values, {**VARIABLES[name].attrs, "grid_mapping": "spatial_ref"})
    dataset = xr.Dataset(data, coords={"y": domain.fine.y, "x": domain.fine.x})
    for axis in ("x", "y"):
        dataset[axis].attrs = {
            "standard_name": f"projection_{axis}_coordinate",
            "units": "m",
            "axis": axis.upper(),
        }
    dataset.coords["spatial_ref"] = ((), 0, grid_mapping_attrs(domain.fine))
    if land_cover is not None:
        dataset.coords["class"] = ("class", np.arange(1, LAND_COVER_CLASSES + 1, dtype=np.int16))
        dataset["land_cover"].attrs |= {
            "flag_values": list(legend),
            "flag_meanings": " ".join(name.replace(" ", "_") for name in legend.values()),
        }
    dataset.attrs["Conventions"] = "CF-1.11"
    return dataset


def build_static(
    domain: Domain,
    *,
    elevation: str | Path,
    land_cover: str | Path | None = None,
    land_mask: str | Path | None = None,
    classes: Mapping[int, int] | None = None,
    legend: Mapping[int, str] = IGBP_LEGEND,
) -> xr.Dataset:
    """Static fields of ``domain`` from rasters in any projection (GeoTIFF, NetCDF, what GDAL reads).

    Parameters
    ----------
    elevation : height above sea level [m]; averaged over each fine cell. Missing values and depths below
        sea level count as 0 m, except in cells that are all land.
    land_cover : class numbers; ``classes`` maps them to 1-16, and to 0 those in no class, water among them.
        By default they are IGBP numbers with water 0 or 17. ``legend`` names the 16.
    land_mask : 1 or True on land, or the fraction of land; without it the sum of the land-cover classes, and
        without those wherever the elevation is above 0 m, is land.

    Returns
    -------
    As :func:`static_dataset`; orography is 0 m over sea, and the classes of a cell sum to its land fraction.
    ``attrs["coverage"]`` says in sentences what the rasters did not cover.

    Raises
    ------
    StaticError
        if a file is absent, damaged, without georeference, does not touch the domain, or holds impossible
        values or class numbers that the legend lacks.
    """
    grid, notes = domain.fine, []
    try:
        heights = cell_means(elevation, grid)
        cover = (
            None
            if land_cover is None
            else class_fractions(land_cover, grid, classes or IGBP_NUMBERS, LAND_COVER_CLASSES)
        )
        mask = None if land_mask is None else cell_means(land_mask, grid)
    except RasterError as error:
        raise StaticError(str(error)) from error
    if cover is not None and not cover.any():
        raise StaticError(
            f"{land_cover} has none of the classes 1 to {LAND_COVER_CLASSES} in {domain.name}; "
            "pass a mapping of its numbers to them."
        )
    if mask is not None:
        low, high = np.nanmin(mask.mean), np.nanmax(mask.mean)
        if low < 0 or high > 1:
            raise StaticError(
                f"{land_mask} ranges from {low:g} to {high:g}; a land mask has values in 0-1, 1 on land."
            )
        if (mask.valid == 0).any():
            notes.append(
                f"The land mask covers {(mask.valid > 0).mean():.0%} of {domain.name}; "
                "the rest is taken for sea."
            )
        land = np.nan_to_num(mask.mean) * np.minimum(mask.valid, 1.0)
    else:
        land = heights.above_zero if cover is None else cover.sum(axis=0)
    land = np.clip(land, 0.0, 1.0)

    # Voids of a few cells on land take the nearest height; land without any height for longer can't be kept.
    known = heights.valid > 0
    distance, nearest = ndimage.distance_transform_edt(~known, return_indices=True)
    reachable = distance <= LONGEST_VOID
    mean, above = heights.mean[tuple(nearest)], heights.mean_above_zero[tuple(nearest)]
    land = np.where(reachable, land, 0.0)
    filled = int(((land > 0) & ~known).sum())
    if filled:
        notes.append(
            f"{counted(filled, 'cell')} of land without elevation got the height of the nearest cell."
        )
    if not known.all():
        notes.append(
            f"The elevation model covers {known.mean():.0%} of {domain.name}; "
            "the rest is taken for sea at 0 m."
        )
    # Where it is known what is land, pixels without height are sea at 0 m beyond the share of land.
    share = 1.0 if mask is None and cover is None else np.maximum(np.minimum(heights.valid, 1.0), land)
    height = np.where(land >= WHOLE, mean, above * np.where(known, share, land))
    height = np.where(land > 0, height, 0.0)
    if cover is not None:
        cover, without = _fill_cover(cover, land)
        if without:
            notes.append(
                f"{counted(without, 'cell')} of land without a land-cover class got that of the nearest cell."
            )
    dataset = static_dataset(domain, orography=height, land_cover=cover, land_fraction=land, legend=legend)
    dataset.attrs["title"] = f"Static fields of {domain.name}"
    files = [elevation, land_cover, land_mask]
    dataset.attrs["source"] = ", ".join(Path(file).name for file in files if file is not None)
    dataset.attrs["coverage"] = " ".join(notes) or f"The rasters cover all of {domain.name}."
    return dataset


def _fill_cover(cover: FloatArray, land: FloatArray) -> tuple[FloatArray, int]:
    """Class fractions that sum to ``land``, and in how many cells they come from the nearest with any."""
    total = cover.sum(axis=0)
    bare = total == 0
    nearest = ndimage.distance_transform_edt(bare, return_distances=False, return_indices=True)
    rows, columns = nearest
    return cover[:, rows, columns] * (land / total[rows, columns]), int((bare & (land > 0)).sum())


def save_static(static: xr.Dataset, path: str | Path) -> Path:
    """Write static fields as NetCDF, under a temporary name first. Returns the path.

    Raises StaticError where the file can't be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StaticError(f"{path} can't be written: {error.strerror or error}.") from error
    try:
        static.to_netcdf(
            temporary,
            engine="h5netcdf",
            encoding={name: {"zlib": True, "complevel": 9, "shuffle": True} for name in static.data_vars},
        )
        os.replace(temporary, path)
    except OSError as error:
        raise StaticError(f"{path} can't be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_static(path: str | Path, domain: Domain) -> xr.Dataset:
    """Static fields of ``domain`` from a file that :func:`save_static` wrote, float32.

    Raises StaticError where the file is unreadable, lacks a variable or lies on another grid.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            static = dataset.load()
    except (OSError, ValueError) as error:
        raise StaticError(f"{path} is not a readable NetCDF file of static fields: {error}") from error
    missing = [name for name in ("orography", "land_fraction", "x", "y") if name not in static]
    if missing:
        raise StaticError(f"{path} lacks {', '.join(missing)}; build it with `tramontana statics`.")
    if not domain.fine.matches(static["x"].values, static["y"].values):
        raise StaticError(f"{path} does not lie on the fine grid of {domain.name}; build it for that domain.")
    rebuilt = static_dataset(
        domain,
        orography=static["orography"].values,
        land_fraction=static["land_fraction"].values,
        land_cover=static["land_cover"].values if "land_cover" in static else None,
        legend=_read_legend(static["land_cover"].attrs) if "land_cover" in static else IGBP_LEGEND,
    )
    rebuilt.attrs |= static.attrs
    return rebuilt


def _read_legend(attrs: Mapping[Any, Any]) -> dict[int, str]:
    numbers = np.atleast_1d(attrs.get("flag_values", [])).tolist()
    names = str(attrs.get("flag_meanings", "")).split()
    if len(numbers) != len(names):
        raise StaticError(
            f"The legend of land_cover has {len(numbers)} numbers (flag_values) but {len(names)} names "
            "(flag_meanings); build the file again with `tramontana statics`."
        )
    return {int(number): name.replace("_", " ") for number, name in zip(numbers, names, strict=True)}


def pack_static(static: xr.Dataset, path: str | Path) -> Path:
    """Write static fields small enough to ship: whole metres, fractions in steps of 1/200; no latitude.

    Latitude is computed from the grid when :func:`load_static` reads the file.
    """
    packed = static.drop_vars("latitude")
    for name in packed.data_vars:
        scale, dtype = (1.0, "int16") if name == "orography" else (0.005, "uint8")
        field = packed[name]
        codes = np.round(field.values / scale).astype(dtype)
        packed[name] = (field.dims, codes, {**field.attrs, "scale_factor": np.float32(scale)})
    return save_static(packed, path)


def load_italy_static() -> xr.Dataset:
    """The static fields of :data:`core.domain.ITALY` that ship with the project, float32.

    Relief below about 40 km wavelength is synthetic; ``attrs`` and assets/italy/README.md say how.
    """
    return load_static(asset("italy/static.nc"), ITALY)
