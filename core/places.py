"""Which cells of a domain lie at given longitudes and latitudes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import Transformer

from core.domain import Domain, Grid

Float64 = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a grid that hold n points; rows and columns mean nothing where a point lies outside.

    Attributes
    ----------
    rows, columns : (n,) of the cell whose centre is nearest
    distance : (n,) from the point to that centre [m], in the plane of the grid
    """

    rows: Index
    columns: Index
    distance: Float64


@dataclass(frozen=True, eq=False)
class Places:
    """Points on a domain.

    Attributes
    ----------
    x, y : (n,) in the plane of the domain [m]
    inside : (n,) whether the point lies within the outer edges of the cells
    fine, coarse : the cells of both grids
    """

    x: Float64
    y: Float64
    inside: NDArray[np.bool_]
    fine: Cells
    coarse: Cells


def find_places(domain: Domain, longitude: ArrayLike, latitude: ArrayLike) -> Places:
    """Where points [degree_east, degree_north] lie on a domain."""
    lon, lat = (np.atleast_1d(np.asarray(values, np.float64)) for values in (longitude, latitude))
    x, y = (
        np.asarray(values, np.float64) for values in _transformer("EPSG:4326", domain.crs).transform(lon, lat)
    )
    left, right, bottom, top = domain.fine.extent
    # Points that the projection can't show come out infinite.
    inside = np.isfinite(x) & np.isfinite(y) & (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    x, y = np.where(inside, x, left), np.where(inside, y, top)
    return Places(x, y, inside, _cells(domain.fine, x, y), _cells(domain.coarse, x, y))


def to_lonlat(domain: Domain, x: float, y: float) -> tuple[float, float]:
    """Longitude and latitude [degrees] of a point in the plane of the domain [m]."""
    lon, lat = _transformer(domain.crs, "EPSG:4326").transform(x, y)
    return float(lon), float(lat)


@cache
def _transformer(source: str, target: str) -> Transformer:
    # Its first use in a thread takes 20 ms or more.
    return Transformer.from_crs(source, target, always_xy=True)


def _cells(grid: Grid, x: Float64, y: Float64) -> Cells:
    left, _, _, top = grid.extent
    height, width = grid.shape
    columns = np.clip(np.floor((x - left) / grid.dx).astype(np.intp), 0, width - 1)
    rows = np.clip(np.floor((top - y) / grid.dy).astype(np.intp), 0, height - 1)
    return Cells(rows, columns, np.hypot(x - grid.x[columns], y - grid.y[rows]))
