"""Averaging rasters of any projection and size to the cells of a grid.

A raster is read tile by tile, so that its size does not matter for memory. GeoTIFF, NetCDF
(``netcdf:FILE:VARIABLE`` names one variable of several) and whatever else GDAL reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
import rasterio.warp
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from core.domain import Grid

FloatArray = NDArray[np.float64]

TILE_PIXELS = 3000
"""Longest side of the part of a raster that is held in memory at once [pixels]."""
TILE_CELLS = 128
"""Longest side of a tile of the grid [cells]."""
FEWEST_SAMPLES, MOST_SAMPLES = 8, 64
"""Points along one side of a cell at which categories are counted."""
PADDING = 3
"""Pixels read around a tile: bilinear interpolation needs one, approximate transformations another."""


class RasterError(ValueError):
    """A raster that can't be read or averaged; the message names the file, the fault and the way out."""


@dataclass(frozen=True)
class CellMeans:
    """Means of a raster over the cells of a grid, all (H, W).

    mean : mean of the valid pixels, NaN where there are none
    mean_above_zero : the same of ``max(value, 0)``
    above_zero : share of the cell with valid values above 0
    valid : share of the cell with valid values
    """

    mean: FloatArray
    mean_above_zero: FloatArray
    above_zero: FloatArray
    valid: FloatArray


def cell_means(path: str | Path, grid: Grid) -> CellMeans:
    """Average a raster of numbers over every cell of ``grid``.

    Pixels smaller than a cell are averaged, weighted by their area in it (conservative); larger ones are
    interpolated bilinearly, because the mean of the few pixels that touch a cell would show as steps. Packed
    values are decoded.

    Raises RasterError where the file is absent, unreadable, without georeference or has no value in the grid.
    """
    means = {name: np.zeros(grid.shape) for name in ("above_zero", "valid")}
    means |= {name: np.full(grid.shape, np.nan) for name in ("mean", "mean_above_zero")}
    with _opened(path) as source:
        pixels = _pixels_per_cell(source, grid)
        states = Resampling.average if pixels >= 1 else Resampling.bilinear
        for tile in _tiles(grid, pixels):
            values = source.read(tile, grid)
            if values is None:
                continue
            values.array[~np.isfinite(values.array)] = np.nan
            valid = np.isfinite(values.array)
            for name, array, method in (
                ("mean", values.array, states),
                ("mean_above_zero", np.maximum(values.array, 0.0), states),
                ("above_zero", (values.array > 0).astype(np.float32), Resampling.average),
                ("valid", valid.astype(np.float32), Resampling.average),
            ):
                means[name][tile.slices] = _warp(array, values.transform, source.crs, tile, method)
    if not np.isfinite(means["mean"]).any():
        raise RasterError(f"{path} does not cover any of the grid; is it the right region?")
    means["above_zero"] = np.nan_to_num(means["above_zero"])
    means["valid"] = np.where(np.isfinite(means["mean"]), np.nan_to_num(means["valid"]), 0.0)
    return CellMeans(**means)


def class_fractions(path: str | Path, grid: Grid, classes: Mapping[int, int], count: int) -> FloatArray:
    """Share of every cell in each class, (count, H, W); what is in no class is in none of them.

    Counted at 8 x 8 points a cell or more, as many as there are pixels.

    Parameters
    ----------
    classes : number in the file -> class from 1 to ``count``; 0 for a number that is in no class
    count : number of classes

    Raises RasterError as :func:`cell_means`, and for numbers that are not whole or that ``classes`` lacks.
    """
    for number, target in classes.items():
        if not 0 <= target <= count:
            raise RasterError(f"Class {number} is mapped to {target}; classes are 1 to {count}, 0 is none.")
    numbers = np.array(sorted(classes))
    targets = np.array([classes[number] for number in sorted(classes)], np.uint8)
    fractions = np.zeros((count, *grid.shape))
    seen = False
    unknown: set[int] = set()
    with _opened(path) as source:
        pixels = _pixels_per_cell(source, grid)
        samples = int(np.clip(np.ceil(pixels), FEWEST_SAMPLES, MOST_SAMPLES))
        for tile in _tiles(grid, max(pixels, samples)):
            values = source.read(tile, grid)
            if values is None:
                continue
            seen = True
            valid = np.isfinite(values.array)
            present = np.where(valid, values.array, 0)
            codes = present.astype(np.int64)
            if not np.array_equal(codes, present):
                raise RasterError(f"{path} holds fractional numbers; land cover must be whole class numbers.")
            unknown |= set(np.unique(codes[valid]).tolist()) - classes.keys()
            position = np.clip(np.searchsorted(numbers, codes), 0, numbers.size - 1)
            known = valid & (numbers[position] == codes)
            mapped = np.where(known, targets[position], 0).astype(np.uint8)
            sampled = _warp(mapped, values.transform, source.crs, tile, Resampling.nearest, samples)
            height, width = tile.shape
            blocks = sampled.reshape(height, samples, width, samples)
            for number in np.unique(targets[targets > 0]):
                fractions[(number - 1, *tile.slices)] = (blocks == number).mean(axis=(1, 3))
    if unknown:
        listed = ", ".join(map(str, sorted(unknown)[:8])) + (", ..." if len(unknown) > 8 else "")
        raise RasterError(
            f"{path} holds the class numbers {listed}, which the legend does not know; "
            "give a mapping of its numbers to classes."
        )
    if not seen:
        raise RasterError(f"{path} does not cover any of the grid; is it the right region?")
    return fractions


@dataclass(frozen=True)
class _Tile:
    """Rows and columns of a grid, with the corner and size of its cells."""

    rows: slice
    columns: slice
    transform: Affine
    crs: str

    @property
    def slices(self) -> tuple[slice, slice]:
        return self.rows, self.columns

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True)
class _Part:
    """Pixels of a raster (float32, NaN where missing) and where they lie."""

    array: NDArray[np.float32]
    transform: Affine


@dataclass(frozen=True)
class _Source:
    """An open raster: one band, north and south either way up."""

    path: str
    dataset: Any
    crs: Any

    def read(self, tile: _Tile, grid: Grid) -> _Part | None:
        """What lies under a tile and a few pixels around, NaN beyond the raster; None if nothing does.

        Rasters around the whole globe go on at their edge, and longitudes may count from 0 or from -180.
        """
        window = self._window(tile)
        if window is None:
            return None
        rows, columns = window
        transform, height, width = self.dataset.transform, self.dataset.height, self.dataset.width
        period = 360.0 / transform.a if self.crs.is_geographic else np.inf
        array = np.full((rows[1] - rows[0], columns[1] - columns[0]), np.nan, np.float32)
        found = False
        first_row, last_row = max(rows[0], 0), min(rows[1], height)
        for turn in (-1, 0, 1) if np.isfinite(period) else (0,):
            # Copies of the raster one turn around the globe to the west and to the east.
            shift = round(turn * period) if turn else 0
            first, last = max(columns[0], shift), min(columns[1], shift + width)
            if last <= first or last_row <= first_row:
                continue
            pixels = self._pixels(Window(first - shift, first_row, last - first, last_row - first_row))
            array[first_row - rows[0] : last_row - rows[0], first - columns[0] : last - columns[0]] = pixels
            found = True
        if not found:
            return None
        west, north = _point(transform, columns[0], rows[0])
        return _Part(array, Affine(transform.a, 0.0, west, 0.0, transform.e, north))

    def _window(self, tile: _Tile) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """First and last row and column under a tile, beyond the raster too; None out of its projection."""
        height, width = tile.shape
        left, top = _point(tile.transform, 0, 0)
        right, bottom = _point(tile.transform, width, height)
        bounds = rasterio.warp.transform_bounds(tile.crs, self.crs, left, bottom, right, top, densify_pts=21)
        if not np.isfinite(bounds).all():
            return None
        inverse = ~self.dataset.transform
        corners = [_point(inverse, x, y) for x in (bounds[0], bounds[2]) for y in (bounds[1], bounds[3])]
        low = np.floor(np.min(corners, axis=0)).astype(int) - PADDING
        high = np.ceil(np.max(corners, axis=0)).astype(int) + PADDING
        return (int(low[1]), int(high[1])), (int(low[0]), int(high[0]))

    def _pixels(self, window: Window) -> NDArray[np.float32]:
        try:
            band = self.dataset.read(1, window=window, masked=True)
        except rasterio.errors.RasterioError as error:
            raise RasterError(
                f"{self.path} is damaged: its values can't be read to the end. Download or copy it again."
            ) from error
        scaled = band.astype(np.float64) * self.dataset.scales[0] + self.dataset.offsets[0]
        return np.asarray(scaled.filled(np.nan), np.float32)


@contextmanager
def _opened(path: str | Path) -> Iterator[_Source]:
    # GDAL names one variable of a NetCDF file like this: netcdf:FILE:VARIABLE.
    name = str(path)
    if not name.lower().startswith("netcdf:") and not Path(path).exists():
        raise RasterError(f"There is no file {path}.")
    try:
        dataset = rasterio.open(name)
    except rasterio.errors.RasterioIOError as error:
        raise RasterError(f"{path} is not a raster that can be read (GeoTIFF or NetCDF): {error}") from error
    with dataset:
        if dataset.count == 0:
            names = ", ".join(dataset.subdatasets) or "none"
            raise RasterError(
                f"{path} holds several variables; name one of them instead of the file: {names}."
            )
        crs = dataset.crs or _guess_crs(dataset)
        if crs is None:
            raise RasterError(
                f"{path} has no coordinate reference system; add one, for example with `gdal_edit.py -a_srs`."
            )
        if dataset.transform.b or dataset.transform.d or dataset.transform.a <= 0:
            raise RasterError(f"{path} is rotated or mirrored; bring it upright first, with `gdalwarp`.")
        yield _Source(name, dataset, crs)


def _point(transform: Affine, column: float, row: float) -> tuple[float, float]:
    """Where an upright transform puts a column and row, or its inverse an x and y."""
    return transform.a * column + transform.c, transform.e * row + transform.f


def _guess_crs(dataset: Any) -> Any:
    """Longitude and latitude where bounds look like degrees: NetCDF files often leave the system out."""
    left, bottom, right, top = dataset.bounds
    bottom, top = sorted((bottom, top))
    degrees = -180.5 <= left < right <= 360.5 and -90.5 <= bottom < top <= 90.5
    return rasterio.CRS.from_epsg(4326) if degrees and not dataset.transform.is_identity else None


def _pixels_per_cell(source: _Source, grid: Grid) -> float:
    """Pixels of the raster along one side of a cell, in the middle of the grid."""
    row, column = (size // 2 for size in grid.shape)
    tile = _tile(grid, row, row + 1, column, column + 1)
    x, y = _point(tile.transform, 0, 0)
    right, bottom = _point(tile.transform, 1, 1)
    xs, ys = rasterio.warp.transform(grid.crs, source.crs, [x, right, x], [y, y, bottom])
    inverse = ~source.dataset.transform
    (c0, r0), (c1, r1), (c2, r2) = (_point(inverse, *point) for point in zip(xs, ys, strict=True))
    # Square root of the cell's area in pixels.
    return float(np.sqrt(abs((c1 - c0) * (r2 - r0) - (c2 - c0) * (r1 - r0))))


def _tile(grid: Grid, top: int, bottom: int, left: int, right: int) -> _Tile:
    west, _, _, north = grid.extent
    corner = Affine(grid.dx, 0.0, west + left * grid.dx, 0.0, -grid.dy, north - top * grid.dy)
    return _Tile(slice(top, bottom), slice(left, right), corner, grid.crs)


def _tiles(grid: Grid, pixels: float) -> Iterator[_Tile]:
    size = int(np.clip(TILE_PIXELS / pixels, 1, TILE_CELLS))
    height, width = grid.shape
    for top in range(0, height, size):
        for left in range(0, width, size):
            yield _tile(grid, top, min(top + size, height), left, min(left + size, width))


def _warp(
    array: NDArray[Any],
    transform: Affine,
    crs: Any,
    tile: _Tile,
    method: Resampling,
    samples: int = 1,
) -> NDArray[Any]:
    """An array on a tile, ``samples`` x ``samples`` values a cell; NaN where a float array has no value."""
    height, width = tile.shape
    missing = np.nan if np.issubdtype(array.dtype, np.floating) else None
    target = np.zeros((height * samples, width * samples), array.dtype)
    cell = tile.transform
    rasterio.warp.reproject(
        array,
        target,
        src_transform=transform,
        src_crs=crs,
        src_nodata=missing,
        dst_transform=Affine(cell.a / samples, 0.0, cell.c, 0.0, cell.e / samples, cell.f),
        dst_crs=tile.crs,
        dst_nodata=missing,
        resampling=method,
    )
    return target
