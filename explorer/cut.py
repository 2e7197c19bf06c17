"""The part of a field that lies in a region."""

from __future__ import annotations

import xarray as xr

from core.domain import Domain, Grid
from core.regions import Window
from explorer.quantities import FloatField


def grid_of(domain: Domain, field: FloatField) -> Grid:
    """The grid that a field (..., h, w) or (..., H, W) lies on, by its shape."""
    return domain.fine if field.shape[-2:] == domain.fine.shape else domain.coarse


def inside(field: FloatField, domain: Domain, window: Window) -> FloatField:
    """The cells of a field (..., h, w) or (..., H, W) that lie in a window."""
    rows, columns = window.slices(grid_of(domain, field))
    return field[..., rows, columns]


def cut(field: FloatField, grid: Grid, window: Window, *dims: str) -> xr.DataArray:
    """The same with dims (y, x) and the coordinates of ``grid`` [m]; ``dims`` are those that come before."""
    rows, columns = window.slices(grid)
    coords = {"y": grid.y[rows], "x": grid.x[columns]}
    return xr.DataArray(field[..., rows, columns], coords, (*dims, "y", "x"))
