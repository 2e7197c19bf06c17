"""Coastlines, borders and lakes, ready to draw over the maps of a domain: those that ship, or a store's own.

A store may hold outlines in a group of its own (``/outlines``, variables ``x`` and ``y`` along ``point``, in
the coordinates of its grids [m], NaN between lines). Readers of its fields need not know of it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from core.assets import asset
from core.data.groups import put_group
from core.data.store import Store, StoreError
from core.domain import Grid
from core.geojson import GeoJsonError, read_lines

KINDS = ("coastline", "border", "lake")
GROUP = "outlines"
MOST_POINTS = 500_000
"""Points of a store's own outlines beyond which they are refused; those that ship have some 8000."""

Line = tuple[NDArray[np.float64], NDArray[np.float64]]


@cache
def _shipped() -> tuple[str, dict[str, NDArray[np.float64]]]:
    content = json.loads(asset("italy/outlines.json").read_text())
    gap = np.full((1, 2), np.nan)
    return content["crs"], {
        kind: np.concatenate([part for line in lines for part in (np.array(line, np.float64), gap)])
        if lines
        else np.empty((0, 2))
        for kind, lines in content["lines"].items()
    }


def load_outlines(grid: Grid) -> dict[str, Line]:
    """Outlines by kind (:data:`KINDS`) as (x, y) in the grid's coordinates [m].

    Each array is one-dimensional with NaN between lines, so that a kind is one glyph instead of hundreds. The
    shipped file covers Italy and 100 km around it (Natural Earth 10 m, public domain); grids elsewhere
    get lines that lie outside their extent, or none.
    """
    crs, lines = _shipped()
    return {kind: _onto(grid, crs, lines[kind]) for kind in KINDS}


def add_outlines(store: Store, file: str | Path) -> None:
    """Put the lines of a GeoJSON file into a store, to be drawn over its maps instead of those that ship.

    What the file says of its coordinate system holds. Where it says nothing, numbers that can be longitudes
    and latitudes are, and others are metres in ETRS89-LAEA (EPSG:3035), as in the published file. Lines are
    thinned to a quarter of a fine cell.

    Raises GeoJsonError where the file can't be used or nothing of it lies in the store's domain; OSError
    where the store can't be written.
    """
    crs, points = read_lines(file)
    if crs is None:
        degrees = bool((np.nanmax(np.abs(points), axis=0) <= (360.0, 90.0)).all())
        crs = "EPSG:4326" if degrees else "EPSG:3035"
    grid = store.domain.fine
    try:
        x, y = _thinned(*_onto(grid, crs, points), step=grid.dx / 4)
    except CRSError as error:
        raise GeoJsonError(f"{file} is in {crs}, which is unknown here.") from error
    left, right, bottom, top = grid.extent
    if not ((x >= left) & (x <= right) & (y >= bottom) & (y <= top)).any():
        raise GeoJsonError(f"{file} has no line in the domain {store.domain.name}.")
    if x.size > MOST_POINTS:
        raise GeoJsonError(f"{file} has {x.size} points, more than the {MOST_POINTS} that can be drawn.")
    dataset = xr.Dataset({"x": ("point", x), "y": ("point", y)}, attrs={"source_file": Path(file).name})
    for axis in ("x", "y"):
        dataset[axis].attrs = {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
    put_group(store, GROUP, dataset)


def has_outlines(store: Store) -> bool:
    """Whether a store holds outlines of its own."""
    return (store.path / GROUP / "zarr.json").is_file()


def stored_outlines(store: Store) -> dict[str, Line] | None:
    """A store's own outlines by kind as of :func:`load_outlines`; None where it has none.

    All are coastlines, which maps draw most clearly, since the file that they come from does not tell coasts
    from borders. Raises StoreError where they can't be read.
    """
    if not has_outlines(store):
        return None
    try:
        with xr.open_zarr(str(store.path), group=GROUP, consolidated=False, chunks=None) as dataset:
            if not 0 < dataset.sizes["point"] <= MOST_POINTS:
                raise ValueError(f"{dataset.sizes['point']} points")
            if not dataset["x"].dims == dataset["y"].dims == ("point",):  # before memory is taken for them
                raise ValueError("x and y have other shapes")
            x, y = (dataset[axis].values.astype(np.float64, casting="same_kind") for axis in ("x", "y"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise StoreError(f"/{GROUP} of {store.path} can't be read: {error}") from error
    none = np.empty(0)
    return {"coastline": (x, y), "border": (none, none), "lake": (none, none)}


def _onto(grid: Grid, crs: str, points: NDArray[np.float64]) -> Line:
    """Points (n, 2) with gaps of NaN in the coordinates of a grid."""
    x, y = points.T
    if CRS.from_user_input(crs) != CRS.from_user_input(grid.crs):
        gap = np.isnan(x)
        x, y = Transformer.from_crs(crs, grid.crs, always_xy=True).transform(x, y)
        x, y = np.where(gap | ~np.isfinite(x), np.nan, x), np.where(gap | ~np.isfinite(y), np.nan, y)
    return np.asarray(x), np.asarray(y)


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64], step: float) -> Line:
    """Without points that lie in the same square of side ``step`` as the one before; ends of lines stay."""
    # Gaps differ from everything, also from gaps.
    moved = (np.diff(np.floor(x / step)) != 0) | (np.diff(np.floor(y / step)) != 0)
    kept = np.r_[True, moved] | np.r_[np.isnan(x[1:]), True]
    return x[kept], y[kept]
