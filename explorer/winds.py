"""Winds as arrows: components along the axes of the grid, one for each coarse cell."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from core.domain import Domain
from explorer.encoding import nice_step
from explorer.results import Fields

NAMES = ("u10", "v10")


def grid_winds(fields: Fields, domain: Domain) -> NDArray[np.float32] | None:
    """Wind along the grid's x and y over the coarse cells, (2, h, w) [m/s]; None where there is none.

    ``fields`` hold u10 and v10 towards east and north, coarse (h, w) or fine (H, W). Fine winds are averaged
    over each coarse cell, so that arrows of all maps are of one scale, and turned to the grid.
    """
    if not all(name in fields for name in NAMES):
        return None
    east, north = (_block_means(np.asarray(fields[name], np.float64), domain.ratio, domain) for name in NAMES)
    angle = domain.coarse.rotation
    x = east * np.cos(angle) - north * np.sin(angle)
    y = east * np.sin(angle) + north * np.cos(angle)
    return np.stack([x, y]).astype(np.float32)


def longest(winds: Iterable[NDArray[np.floating]]) -> float:
    """A round speed [m/s] that few winds exceed, which an arrow as long as the gap between arrows stands for."""
    speeds = [np.hypot(*wind).ravel() for wind in winds]
    values = np.concatenate(speeds) if speeds else np.empty(0)
    values = values[np.isfinite(values)]
    top = float(np.quantile(values, 0.99)) if values.size else 1.0
    return nice_step(max(top, 0.5), 1)


def _block_means(field: NDArray[np.float64], ratio: int, domain: Domain) -> NDArray[np.float64]:
    if field.shape == domain.coarse.shape:
        return field
    rows, columns = domain.coarse.shape
    return field.reshape(rows, ratio, columns, ratio).mean(axis=(1, 3))
