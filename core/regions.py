"""Named regions: longitude-latitude boxes and the windows they open on a domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyproj import Transformer

from core.domain import Domain, Grid

WHOLE = "all"
"""Key of the window that shows the whole domain; every domain has it."""


@dataclass(frozen=True)
class Region:
    """A box of longitudes [degree_east] and latitudes [degree_north] that people know by name."""

    key: str
    name: str
    west: float
    east: float
    south: float
    north: float


REGIONS: tuple[Region, ...] = (
    Region("alps", "Alps", 6.2, 14.2, 45.2, 47.6),
    Region("dolomites", "Dolomites", 10.9, 12.9, 46.0, 47.1),
    Region("po-valley", "Po valley", 7.2, 12.8, 44.2, 45.9),
    Region("liguria", "Ligurian Sea", 7.3, 10.6, 43.0, 44.7),
    Region("apennines", "Central Apennines", 11.8, 15.2, 41.2, 43.7),
    Region("latium", "Rome and Latium", 11.4, 14.1, 40.9, 42.9),
    Region("tyrrhenian", "Tyrrhenian Sea", 9.6, 16.2, 37.9, 42.7),
    Region("adriatic", "Adriatic Sea", 12.1, 18.6, 40.3, 45.9),
    Region("apulia", "Apulia", 14.8, 18.7, 39.6, 42.1),
    Region("calabria", "Calabria", 15.3, 17.4, 37.8, 40.3),
    Region("sardinia", "Sardinia", 7.9, 10.0, 38.7, 41.4),
    Region("sicily", "Sicily", 12.2, 15.9, 36.5, 38.5),
)
"""The regions on offer, from north to south."""

SMALLEST_SHARE = 0.25
"""Smallest part of a region's box that must lie in the domain for its name to be honest."""

SMALLEST_SIDE = 4
"""Smallest side of a window in coarse cells; scores over fewer mean little."""


@dataclass(frozen=True)
class Window:
    """A rectangle of the projected plane [m] inside a domain, with a name.

    Its edges lie on the edges of coarse cells, so that coarse and fine fields are cut alike.
    """

    key: str
    name: str
    left: float
    right: float
    bottom: float
    top: float

    def slices(self, grid: Grid) -> tuple[slice, slice]:
        """(rows, columns) of the cells of ``grid`` whose centres lie inside."""
        rows = np.flatnonzero((grid.y >= self.bottom) & (grid.y <= self.top))
        columns = np.flatnonzero((grid.x >= self.left) & (grid.x <= self.right))
        if not rows.size or not columns.size:
            return slice(0, 0), slice(0, 0)
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def whole_window(domain: Domain) -> Window:
    """The window that shows all of a domain."""
    left, right, bottom, top = domain.fine.extent
    return Window(WHOLE, f"{domain.name} (whole domain)", left, right, bottom, top)


def windows(domain: Domain) -> tuple[Window, ...]:
    """The windows to offer on a domain: all of it, then each region of which enough lies inside.

    A region counts where at least a quarter of its box lies in the domain and the part inside has at least
    4 x 4 coarse cells and is not the whole domain.
    """
    found = [whole_window(domain)]
    for region in REGIONS:
        window = _window(region, domain)
        if window is not None:
            found.append(window)
    return tuple(found)


def _window(region: Region, domain: Domain) -> Window | None:
    to_plane = Transformer.from_crs("EPSG:4326", domain.crs, always_xy=True)
    # The edges of the box are curves in the plane; 21 points a side bound them to a few hundred metres.
    left, bottom, right, top = to_plane.transform_bounds(
        region.west, region.south, region.east, region.north, densify_pts=21
    )
    if not np.isfinite([left, bottom, right, top]).all() or right <= left or top <= bottom:
        return None
    grid = domain.coarse
    edge_left, _, _, edge_top = grid.extent
    columns = np.clip(np.round((np.array([left, right]) - edge_left) / grid.dx), 0, grid.shape[1])
    rows = np.clip(np.round((edge_top - np.array([top, bottom])) / grid.dy), 0, grid.shape[0])
    width, height = columns[1] - columns[0], rows[1] - rows[0]
    share = width * height * grid.dx * grid.dy / ((right - left) * (top - bottom))
    if min(width, height) < SMALLEST_SIDE or share < SMALLEST_SHARE:
        return None
    if (height, width) == grid.shape:
        return None
    return Window(
        region.key,
        region.name,
        float(edge_left + columns[0] * grid.dx),
        float(edge_left + columns[1] * grid.dx),
        float(edge_top - rows[1] * grid.dy),
        float(edge_top - rows[0] * grid.dy),
    )
