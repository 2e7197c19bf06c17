"""Coastlines, borders and lakes, ready to draw over the maps of a domain."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from core.assets import asset
from core.domain import Grid

KINDS = ("coastline", "border", "lake")


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


def load_outlines(grid: Grid) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Outlines by kind (:data:`KINDS`) as (x, y) in the grid's coordinates [m].

    Each array is one-dimensional with NaN between lines, so that a kind is one glyph instead of hundreds. The
    shipped file covers Italy and 100 km around it (Natural Earth 10 m, public domain); grids elsewhere
    get lines that lie outside their extent, or none.
    """
    crs, lines = _shipped()
    result = {}
    for kind in KINDS:
        x, y = lines[kind].T
        if CRS.from_user_input(crs) != CRS.from_user_input(grid.crs):
            gap = np.isnan(x)
            x, y = Transformer.from_crs(crs, grid.crs, always_xy=True).transform(x, y)
            x, y = np.where(gap | ~np.isfinite(x), np.nan, x), np.where(gap | ~np.isfinite(y), np.nan, y)
        result[kind] = (np.asarray(x), np.asarray(y))
    return result
