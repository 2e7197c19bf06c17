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
import rasterio
import rasterio.warp
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_origin

from core.assets import asset
from core.data.store import grid_mapping_attrs
from core.domain import ITALY, Domain, Grid
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

SAMPLES_PER_SIDE = 8
"""Points along one side of a fine cell at which categories are counted."""


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
            raise StaticError(
                f"{name} must be complete and between {low:g} and {high:g} {VARIABLES[name].units}; "
                f"{np.isnan(values).sum()} cells are missing, the others range from "
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
    elevation : height above sea level [m]; averaged over each fine cell. Missing values count as sea (0 m).
    land_cover : class numbers; ``classes`` maps them to 1-16 (others, water among them, belong to no class),
        by default they are IGBP numbers. ``legend`` names the 16.
    land_mask : 1 or True on land; without it the sum of the land-cover classes, and without those everywhere
        above 0 m, is land.

    Returns
    -------
    As :func:`static_dataset`; ``attrs["coverage"]`` says in a sentence what the rasters did not cover.

    Raises
    ------
    StaticError
        if a file is absent, unreadable, without georeference, does not touch the domain, or holds impossible
        values.
    """
    height, covered = _average(Path(elevation), domain.fine)
    notes = (
        []
        if covered.all()
        else [
            f"The elevation model covers {covered.mean():.0%} of {domain.name}; "
            "the rest is taken for sea at 0 m."
        ]
    )
    height = np.where(covered, height, 0.0)
    cover = None
    if land_cover is not None:
        cover = _class_fractions(Path(land_cover), domain.fine, classes)
        if not cover.any():
            raise StaticError(
                f"{land_cover} has none of the classes 1 to {LAND_COVER_CLASSES} in {domain.name}; "
                "pass a mapping of its numbers to them."
            )
    if land_mask is not None:
        land, seen = _average(Path(land_mask), domain.fine)
        if land[seen].min() < 0 or land[seen].max() > 1:
            raise StaticError(
                f"{land_mask} ranges from {land[seen].min():g} to {land[seen].max():g}; "
                "a land mask has values in 0-1."
            )
        land = np.where(seen, land, 0.0)
        if not seen.all():
            notes.append(
                f"The land mask covers {seen.mean():.0%} of {domain.name}; the rest is taken for sea."
            )
    elif cover is not None:
        land = cover.sum(axis=0)
    else:
        land = (covered & (height > 0)).astype(np.float64)
    dataset = static_dataset(
        domain, orography=height, land_cover=cover, land_fraction=np.clip(land, 0, 1), legend=legend
    )
    dataset.attrs["title"] = f"Static fields of {domain.name}"
    files = [elevation, land_cover, land_mask]
    dataset.attrs["source"] = ", ".join(Path(file).name for file in files if file is not None)
    dataset.attrs["coverage"] = " ".join(notes) or f"The rasters cover all of {domain.name}."
    return dataset


def save_static(static: xr.Dataset, path: str | Path) -> Path:
    """Write static fields as NetCDF, under a temporary name first. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        static.to_netcdf(
            temporary,
            engine="h5netcdf",
            encoding={name: {"zlib": True, "complevel": 9, "shuffle": True} for name in static.data_vars},
        )
        os.replace(temporary, path)
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
    )
    rebuilt.attrs |= static.attrs
    return rebuilt


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


def _open(path: Path) -> Any:
    # GDAL names one variable of a NetCDF file like this: netcdf:FILE:VARIABLE.
    if not str(path).lower().startswith("netcdf:") and not path.exists():
        raise StaticError(f"There is no file {path}.")
    try:
        source = rasterio.open(path)
    except rasterio.errors.RasterioIOError as error:
        raise StaticError(f"{path} is not a raster that can be read (GeoTIFF or NetCDF): {error}") from error
    if source.count == 0:
        names = ", ".join(source.subdatasets) or "none"
        source.close()
        raise StaticError(f"{path} holds several variables; name one of them instead of the file: {names}.")
    if source.crs is None:
        crs = _guess_crs(source)
        if crs is None:
            source.close()
            raise StaticError(
                f"{path} has no coordinate reference system; add one, for example with `gdal_edit.py -a_srs`."
            )
    return source


def _guess_crs(source: Any) -> str | None:
    """Longitude and latitude where bounds look like degrees: NetCDF files often leave the system out."""
    left, bottom, right, top = source.bounds
    degrees = -180.5 <= left < right <= 360.5 and -90.5 <= bottom < top <= 90.5
    return "EPSG:4326" if degrees and not source.transform.is_identity else None


def _transform(grid: Grid) -> Affine:
    left, _, _, top = grid.extent
    return from_origin(left, top, grid.dx, grid.dy)


def _average(path: Path, grid: Grid) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Mean of the raster over each fine cell, and where it has values.

    Rasters finer than the grid are averaged by area; coarser ones interpolated bilinearly, because the
    mean of the few cells that touch a fine one would show as steps.
    """
    with _open(path) as source:
        crs = source.crs or _guess_crs(source)
        band = source.read(1, masked=True).astype(np.float64).filled(np.nan)
        band = band * source.scales[0] + source.offsets[0]
        cell = _cell_size(source, crs, grid)
        resampling = Resampling.average if cell <= 1.0 else Resampling.bilinear
        target = np.full(grid.shape, np.nan)
        rasterio.warp.reproject(
            band,
            target,
            src_transform=source.transform,
            src_crs=crs,
            src_nodata=np.nan,
            dst_transform=_transform(grid),
            dst_crs=grid.crs,
            dst_nodata=np.nan,
            resampling=resampling,
        )
    covered = np.isfinite(target)
    if not covered.any():
        raise StaticError(f"{path} does not cover any of the grid; is it the right region?")
    return target, covered


def _cell_size(source: Any, crs: Any, grid: Grid) -> float:
    """Cell size of a raster in fine cells, in the grid's projection."""
    transform, _, _ = rasterio.warp.calculate_default_transform(
        crs, grid.crs, source.width, source.height, *source.bounds
    )
    return float(abs(transform.a)) / grid.dx


def _class_fractions(path: Path, grid: Grid, classes: Mapping[int, int] | None) -> FloatArray:
    """Fraction of each fine cell in classes 1-16, counted at 8 x 8 points a cell; (16, H, W)."""
    n = SAMPLES_PER_SIDE
    height, width = grid.shape
    with _open(path) as source:
        numbers = source.read(1, masked=True)
        if not np.issubdtype(numbers.dtype, np.integer):
            if not np.array_equal(np.round(numbers), numbers):
                raise StaticError(f"{path} holds fractional numbers; land cover must be whole class numbers.")
            numbers = numbers.astype(np.int64)
        values = numbers.filled(0).astype(np.int64)
        mapped = np.zeros(values.shape, np.uint8)
        for number, target in (classes or {k: k for k in range(1, LAND_COVER_CLASSES + 1)}).items():
            if not 1 <= target <= LAND_COVER_CLASSES:
                raise StaticError(
                    f"Class {number} is mapped to {target}; classes are 1 to {LAND_COVER_CLASSES}."
                )
            mapped[values == number] = target
        sampled = np.zeros((height * n, width * n), np.uint8)
        rasterio.warp.reproject(
            mapped,
            sampled,
            src_transform=source.transform,
            src_crs=source.crs or _guess_crs(source),
            dst_transform=_transform(grid) @ Affine.scale(1 / n),
            dst_crs=grid.crs,
            resampling=Resampling.nearest,
        )
    blocks = sampled.reshape(height, n, width, n)
    return np.stack([(blocks == k).mean(axis=(1, 3)) for k in range(1, LAND_COVER_CLASSES + 1)])
