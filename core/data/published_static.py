"""Static fields of the published data set: three GeoTIFFs, and the grid that they lie on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import xarray as xr
from numpy.typing import NDArray

from core.data.published_files import Layout, PublishedError
from core.domain import ITALY, DomainError, Grid
from core.variables import LAND_COVER_CLASSES, VARIABLES

FILES = {
    "orography": "dtm_2km_domain_trim_EPSG3035.tif",
    "land_cover": "land_cover_classes_2km_domain_trim_EPSG3035.tif",
    "latitude": "lat_2km_domain_trim_EPSG3035.tif",
}
LEGEND = "unknown: the published files do not say what the 16 classes are"
MOST_VALUES = 10**8
"""Pixels times bands; those of the published land cover are 6 million."""
_LATITUDE_TOLERANCE = 0.1
"""Degrees by which the latitudes may miss those of the grid; the published grid has steps of 0.02."""
_BARE = 1e-3
_ROUNDING = 0.05
"""By how much the rounded shares of 16 classes may sum to more than 1."""
_MOSTLY = 0.99


@dataclass(frozen=True)
class PublishedStatic:
    """Static fields as far as the files are there, and the fine grid if any is.

    ``fields`` has orography [m], land_cover (class, y, x), latitude [degree_north] and, where the land cover
    tells it, land_fraction [1]; ``notes`` are sentences about what was assumed or left out.
    """

    grid: Grid | None
    fields: xr.Dataset | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Raster:
    path: Path
    bands: NDArray[np.float32]
    grid: Grid


def read_published_static(layout: Layout) -> PublishedStatic:
    """Read the GeoTIFFs of a folder; those that are absent are named in the notes.

    The values stay as they are, since the published networks were given them so. On the shape of the Italian
    grid the published coordinates hold, which are those of :data:`core.domain.ITALY`, whatever the files say
    of their place.

    Raises PublishedError for files that are damaged, incomplete, without a place, not north up, on several
    grids, or that hold something else.
    """
    notes: list[str] = []
    rasters = {}
    for name, file in FILES.items():
        path = layout.file(file)
        if path is None:
            notes.append(f"There is no {file}, so the store has no {VARIABLES[name].long_name}.")
        else:
            rasters[name] = _read(path, LAND_COVER_CLASSES if name == "land_cover" else 1)
    if not rasters:
        return PublishedStatic(None, None, tuple(notes))
    first, *others = rasters.values()
    for other in others:
        if other.grid != first.grid:
            raise PublishedError(f"{first.path} and {other.path} do not lie on the same grid.")
    grid = first.grid
    if grid.shape == ITALY.fine.shape and grid != ITALY.fine:
        notes.append(
            f"{first.path.name} has the size of the published grid but places it elsewhere; the coordinates "
            "of "
            "the published code are used."
        )
        grid = ITALY.fine
    notes += _check(rasters, grid)
    fields = {}
    for name, raster in rasters.items():
        dims = ("class", "y", "x") if name == "land_cover" else ("y", "x")
        fields[name] = (dims, raster.bands if name == "land_cover" else raster.bands[0])
    dataset = xr.Dataset(fields, coords={"y": grid.y, "x": grid.x})
    if "land_cover" in rasters:
        cover = rasters["land_cover"].bands
        dataset.coords["class"] = ("class", np.arange(1, LAND_COVER_CLASSES + 1, dtype=np.int16))
        dataset["land_cover"].attrs["legend"] = LEGEND
        if cover.min() < 0 or cover.max() > 1 + 1e-3:
            notes.append(
                f"The land cover ranges from {cover.min():g} to {cover.max():g}, not from 0 to 1; it is "
                "kept as "
                "it is, because the published networks were trained with it."
            )
    land = _land(rasters)
    if land is None:
        notes.append(
            "The files do not tell land from sea, so the store has no land fraction: distributions over "
            "land and "
            "over sea are not told apart."
        )
    else:
        dataset["land_fraction"] = (("y", "x"), land)
        dataset["land_fraction"].attrs["comment"] = "sum of the published land-cover classes"
    return PublishedStatic(grid, dataset, tuple(notes))


def _read(path: Path, bands: int) -> _Raster:
    try:
        # No other driver: some formats are lists of other files and of addresses.
        with rasterio.open(path, driver="GTiff") as source:
            if source.count != bands:
                raise PublishedError(f"{path} has {source.count} bands instead of {bands}.")
            if source.width * source.height * bands > MOST_VALUES:
                raise PublishedError(
                    f"{path} has {source.height} x {source.width} pixels, too many for a grid."
                )
            transform, crs = source.transform, source.crs
            values = source.read(masked=True).astype(np.float32).filled(np.nan)
    except rasterio.errors.RasterioError as error:
        raise PublishedError(f"{path} is no readable GeoTIFF: {error}. Get it again.") from error
    if crs is None or transform.b or transform.d:
        raise PublishedError(f"{path} does not say where it lies, or is turned against its axes.")
    height, width = values.shape[1:]
    x = transform.c + transform.a * (np.arange(width) + 0.5)
    y = transform.f + transform.e * (np.arange(height) + 0.5)
    code = crs.to_epsg()
    try:
        grid = Grid(x, y, f"EPSG:{code}" if code else crs.to_wkt())
    except DomainError as error:
        raise PublishedError(f"{path} lies on a grid that can't be used: {error}") from error
    if missing := int((~np.isfinite(values)).sum()):
        raise PublishedError(f"{path} lacks {missing} values; static fields must be complete.")
    return _Raster(path, values, grid)


def _check(rasters: dict[str, _Raster], grid: Grid) -> list[str]:
    """Notes on latitudes that are strange. Raises PublishedError where heights are impossible."""
    if "orography" in rasters:
        raster = rasters["orography"]
        low, high = VARIABLES["orography"].valid_range
        if raster.bands.min() < low or raster.bands.max() > high:
            raise PublishedError(
                f"{raster.path} ranges from {raster.bands.min():g} to {raster.bands.max():g}; heights are "
                f"{low:g} "
                f"to {high:g} m."
            )
    if "latitude" in rasters:
        raster = rasters["latitude"]
        error = float(np.abs(raster.bands[0] - grid.latitude).max())
        if error > _LATITUDE_TOLERANCE:
            return [
                f"{raster.path.name} differs by up to {error:.2g} degrees from the latitudes of the grid; it "
                "is kept as it is, because the published networks were trained with it."
            ]
    return []


def _land(rasters: dict[str, _Raster]) -> NDArray[np.float32] | None:
    """The fraction of land, where the sum of the land-cover classes can be nothing else: else None.

    That is so if it lies between 0 and 1, is 0 somewhere but nowhere in the mountains, and if cells without
    any class lie at sea level. Where the classes sum to 1 everywhere, one of them is water, and nobody says
    which.
    """
    if not {"orography", "land_cover"} <= rasters.keys():
        return None
    height, cover = rasters["orography"].bands[0], rasters["land_cover"].bands
    total: NDArray[np.float32] = cover.sum(axis=0)
    bare = total < _BARE
    if cover.min() < 0 or total.max() > 1 + _ROUNDING or not bare.any() or bare.all():
        return None
    at_sea_level = float((np.abs(height[bare]) < 1).mean())
    covered = float((total[height > 100] > 0.5).mean()) if (height > 100).any() else 1.0
    return np.clip(total, 0, 1) if min(at_sea_level, covered) > _MOSTLY else None
