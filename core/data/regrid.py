"""Regridding from a regular longitude/latitude grid to a projected :class:`core.domain.Grid`.

The longitudes and latitudes of the source may be rotated ones (:class:`core.data.rotated.RotatedPole`).

Both methods are linear, so each is computed once as a sparse matrix and applied to any number of hours:

* :func:`bilinear` for states: the value at the centre of every target cell. Constants and linear functions
  of longitude and latitude are reproduced, and nothing is extrapolated.
* :func:`conservative` for fluxes and sums: the mean over the area of every target cell, first order
  (Jones 1999, doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2, with constant values inside source cells).
  Areas are those of the WGS84 ellipsoid, for rotated sources those of the sphere, so the integral over the
  target equals that over the source.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pyproj import Transformer
from scipy import sparse

from core.data.rotated import RotatedPole
from core.domain import Grid

FloatArray = NDArray[np.float64]
Indices = NDArray[np.intp]

MINIMUM_VALID = 0.5
"""Least share of a target cell's weight that must lie on valid source values; below it the cell is NaN."""

_POSITION_TOLERANCE = 1e-3
# In source cells; coordinates stored as float32 are off by up to 1.5e-5 degrees.

_EDGE_SEGMENTS = 4
# Straight edges of the target are curved in longitude and latitude; 4 chords leave 2e-5 of a 16-km cell.

_PAIRS_AT_ONCE = 250_000
# Overlaps of cells are shapes of some hundred bytes; the fine grid of Italy has two million.


class RegridError(ValueError):
    """Coordinates that are not a regular longitude/latitude grid, or a target that contains a pole."""


@dataclass(frozen=True, eq=False)
class Regridder:
    """A linear map from a window of a longitude/latitude grid to a projected grid.

    Attributes
    ----------
    grid : target, shape (H, W)
    shape : (latitudes, longitudes) of the whole source
    rows, columns : the window of the source that the target needs; ``columns`` are two slices
        where the source is cut at a meridian inside the target
    weights : sparse matrix (H * W, rows * columns of the window); a row sums to the share of the target cell
        that the source covers: 0 or 1 for bilinear, anything between for conservative
    """

    grid: Grid
    shape: tuple[int, int]
    rows: slice
    columns: tuple[slice, ...]
    weights: sparse.csr_array[np.float64]

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Target cells that get a value where the source has no gaps, shape (H, W)."""
        covered: NDArray[np.bool_] = self._share >= MINIMUM_VALID - 1e-9
        return covered.reshape(self.grid.shape)

    @property
    def _share(self) -> FloatArray:
        return np.asarray(self.weights @ np.ones(self.weights.shape[1]), np.float64)

    def window(self, values: Any) -> NDArray[Any]:
        """The part of a whole source field (..., latitudes, longitudes) that :meth:`__call__` takes."""
        parts = [np.asarray(values[..., self.rows, columns]) for columns in self.columns]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def __call__(self, values: ArrayLike) -> NDArray[np.float32]:
        """Regrid windows (..., rows, columns) of the source to (..., H, W).

        NaN is missing: the weights of the valid values are scaled to a sum of one where they make up at
        least half of the cell, and the cell is NaN otherwise. So sea surface temperature ends at the coast
        instead of spreading over land or losing a cell.
        """
        window = np.asarray(values, dtype=np.float64)
        leading = window.shape[:-2]
        flat = window.reshape(-1, window.shape[-2] * window.shape[-1]).T
        missing = np.isnan(flat)
        total = np.asarray(self.weights @ np.where(missing, 0.0, flat))
        if missing.any():
            weight = np.asarray(self.weights @ (~missing).astype(np.float64))
        else:
            weight = np.broadcast_to(self._share[:, None], total.shape)
        enough = weight >= MINIMUM_VALID - 1e-9
        regridded = np.full(total.shape, np.nan)
        np.divide(total, weight, out=regridded, where=enough)
        return regridded.T.astype(np.float32).reshape(*leading, *self.grid.shape)

    def regrid(
        self, field: xr.DataArray, *, latitude: Hashable = "latitude", longitude: Hashable = "longitude"
    ) -> xr.DataArray:
        """Regrid a field with dimensions ``latitude`` and ``longitude`` to dims (..., y, x), float32.

        A field held by dask stays lazy and is computed chunk by chunk along its other dimensions.

        Raises RegridError where the field does not lie on the source grid.
        """
        if (field.sizes.get(latitude), field.sizes.get(longitude)) != self.shape:
            raise RegridError(
                f"The field has the dimensions {dict(field.sizes)}; the weights were made for "
                f"{self.shape[0]} latitudes and {self.shape[1]} longitudes."
            )
        height, width = self.grid.shape
        regridded: xr.DataArray = xr.apply_ufunc(
            lambda values: self(self.window(values)),
            field,
            input_core_dims=[[latitude, longitude]],
            output_core_dims=[["y", "x"]],
            dask="parallelized",
            dask_gufunc_kwargs={"output_sizes": {"y": height, "x": width}, "allow_rechunk": True},
            output_dtypes=[np.float32],
            keep_attrs=True,
        )
        return regridded.assign_coords(y=self.grid.y, x=self.grid.x)


def bilinear(
    longitude: ArrayLike, latitude: ArrayLike, grid: Grid, pole: RotatedPole | None = None
) -> Regridder:
    """Interpolate linearly in longitude and latitude to the centres of ``grid``.

    Parameters
    ----------
    longitude : [degree_east], evenly spaced, 0 to 360 or -180 to 180, may cross either seam
    latitude : [degree_north], evenly spaced, in either order
    pole : where longitude and latitude are rotated ones, of which grid

    Centres outside the source points get no value; a source that goes round the globe has no edge in
    longitude.

    Raises RegridError where the coordinates are not a regular grid.
    """
    source = _Source.of(longitude, latitude)
    target_longitude, target_latitude = _positions(grid, pole)
    # Counted in source cells from the first point, in the order of the axes as sorted.
    column = (target_longitude.ravel() - source.west) % 360 / source.dlon
    column = np.where(column > 360 / source.dlon - _POSITION_TOLERANCE, column - 360 / source.dlon, column)
    row = (target_latitude.ravel() - source.south) / source.dlat
    last_column = source.columns.size - (0 if source.cyclic else 1)
    inside = _within(row, source.rows.size - 1) & _within(column, last_column)
    row = np.clip(row, 0, source.rows.size - 1)
    column = np.clip(column, 0, last_column)

    j = np.minimum(row.astype(np.intp), source.rows.size - 2)
    i = np.minimum(column.astype(np.intp), last_column - 1)
    a, b = row - j, column - i
    next_i = (i + 1) % source.columns.size
    targets = np.flatnonzero(inside)
    pairs = [
        (j, i, (1 - a) * (1 - b)),
        (j, next_i, (1 - a) * b),
        (j + 1, i, a * (1 - b)),
        (j + 1, next_i, a * b),
    ]
    return _regridder(
        grid,
        source,
        np.tile(targets, 4),
        np.concatenate([rows[inside] for rows, _, _ in pairs]),
        np.concatenate([columns[inside] for _, columns, _ in pairs]),
        np.concatenate([weight[inside] for _, _, weight in pairs]),
    )


def conservative(
    longitude: ArrayLike, latitude: ArrayLike, grid: Grid, pole: RotatedPole | None = None
) -> Regridder:
    """Average over the area of the cells of ``grid``; the integral is conserved.

    Source cells reach half a spacing to each side of their point (not beyond the poles). A target cell that
    the source covers by at least half gets the mean over the covered part. Arguments and errors as
    :func:`bilinear`; RegridError also where a target cell contains a pole.
    """
    source = _Source.of(longitude, latitude)
    cylinder = _Cylinder.around(grid, pole)
    middle, x_per_degree = cylinder.middle, cylinder.x_per_degree

    cells = _target_cells(grid, cylinder)
    left, bottom, right, top = shapely.bounds(cells).T
    if float((right - left).max()) > 180 * x_per_degree:
        raise RegridError(
            "A cell of the target grid contains a pole or the far meridian, where longitude is no "
            "coordinate; choose a domain that does not contain it."
        )

    edges = source.south + source.dlat * (np.arange(source.rows.size + 1) - 0.5)
    edge_y = cylinder.heights(np.clip(edges, -90, 90))
    first = np.clip(np.searchsorted(edge_y, bottom, side="right") - 1, 0, source.rows.size)
    stop = np.clip(np.searchsorted(edge_y, top, side="left"), first, source.rows.size)

    # Columns by number, counted from the western edge of the source through as many turns as it takes.
    turn = 360 / source.dlon
    west = (source.west - source.dlon / 2 - middle) * x_per_degree
    width = source.dlon * x_per_degree
    parts = []
    for shift in (-1, 0, 1, 2):
        start = np.floor((left - west) / width + shift * turn).clip(0, source.columns.size).astype(np.intp)
        end = np.ceil((right - west) / width + shift * turn).clip(start, source.columns.size)
        target, j, i = _expand(first, stop, start, end.astype(np.intp))
        box_west = west + (i - shift * turn) * width
        overlap = np.zeros(target.size)
        for begin in range(0, target.size, _PAIRS_AT_ONCE):
            at = slice(begin, begin + _PAIRS_AT_ONCE)
            boxes = shapely.box(box_west[at], edge_y[j[at]], box_west[at] + width, edge_y[j[at] + 1])
            overlap[at] = shapely.area(shapely.intersection(cells[target[at]], boxes))
        kept = overlap > 0
        parts.append((target[kept], j[kept], i[kept], overlap[kept]))
    target, j, i, overlap = (np.concatenate(items) for items in zip(*parts, strict=True))
    return _regridder(grid, source, target, j, i, overlap / shapely.area(cells)[target])


@dataclass(frozen=True, eq=False)
class _Source:
    """A regular source grid, ordered south to north and eastward from its western edge.

    ``rows`` and ``columns`` are the positions in the file of the ordered points.
    """

    west: float
    south: float
    dlon: float
    dlat: float
    rows: Indices
    columns: Indices
    shape: tuple[int, int]

    @property
    def cyclic(self) -> bool:
        """Whether the last column touches the first."""
        return abs(self.columns.size * self.dlon - 360) < 0.01 * self.dlon

    @classmethod
    def of(cls, longitude: ArrayLike, latitude: ArrayLike) -> _Source:
        lon, lat = np.asarray(longitude, np.float64), np.asarray(latitude, np.float64)
        for name, values in (("longitudes", lon), ("latitudes", lat)):
            if values.ndim != 1 or values.size < 2:
                raise RegridError(f"The {name} must be a list of at least two numbers.")
            if not np.isfinite(values).all() or np.abs(values).max() > 720:
                raise RegridError(f"The {name} are not all numbers of degrees.")
        if np.abs(lat).max() > 90 + 1e-6:
            raise RegridError(f"The latitudes range from {lat.min():g} to {lat.max():g}, beyond the poles.")
        rows = np.argsort(lat, kind="stable")
        dlat = _spacing("latitudes", lat[rows])

        # The widest gap on the circle is outside the area; the first point after it is the western edge.
        circle = lon % 360
        order = np.argsort(circle, kind="stable")
        ordered = circle[order]
        # 0 and 360 are one meridian: the second of the two is left out.
        near = np.diff(np.r_[ordered, ordered[0] + 360]) > 1e-4
        order, ordered = order[near], ordered[near]
        if order.size < 2:
            raise RegridError("The longitudes must be at least two different meridians.")
        gaps = np.diff(ordered, prepend=ordered[-1] - 360)
        first = int(np.argmax(gaps))
        if gaps[first] < 1.01 * np.median(gaps):
            first = 0
        columns = np.roll(order, -first)
        eastward = np.unwrap(np.roll(ordered, -first), period=360)
        dlon = _spacing("longitudes", eastward)
        return cls(float(eastward[0]), float(lat[rows[0]]), dlon, dlat, rows, columns, (lat.size, lon.size))


def _spacing(name: str, values: FloatArray) -> float:
    steps = np.diff(values)
    spacing = float((values[-1] - values[0]) / (values.size - 1))
    if spacing <= 0 or np.abs(steps - spacing).max() > 0.01 * spacing:
        raise RegridError(
            f"The {name} are not evenly spaced (steps from {steps.min():g} to {steps.max():g} degrees); "
            "regrid the data to a regular longitude/latitude grid first."
        )
    return spacing


def _within(position: FloatArray, last: int) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (position >= -_POSITION_TOLERANCE) & (position <= last + _POSITION_TOLERANCE)
    return inside


def _positions(grid: Grid, pole: RotatedPole | None) -> tuple[FloatArray, FloatArray]:
    """(longitude, latitude) of the cell centres in the system of the source [degree], shape (H, W)."""
    if pole is None:
        return grid.longitude, grid.latitude
    return pole.rotate(grid.longitude, grid.latitude)


@dataclass(frozen=True, eq=False)
class _Cylinder:
    """A cylindrical equal-area projection of the source's longitude and latitude.

    In it source cells are rectangles and areas are true: on the ellipsoid, or, for rotated coordinates, which
    exist on the sphere only, there.
    """

    middle: float
    pole: RotatedPole | None

    @classmethod
    def around(cls, grid: Grid, pole: RotatedPole | None) -> _Cylinder:
        height, width = grid.shape
        return cls(float(_positions(grid, pole)[0][height // 2, width // 2]), pole)

    @property
    def crs(self) -> str:
        return f"+proj=cea +lon_0={self.middle!r} +datum=WGS84"

    @property
    def x_per_degree(self) -> float:
        if self.pole is not None:
            return 1.0
        to_cylinder = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)
        return float(to_cylinder.transform(self.middle + 1.0, 0.0)[0])

    def heights(self, latitude: FloatArray) -> FloatArray:
        """The second coordinate of parallels."""
        if self.pole is not None:
            return np.degrees(np.sin(np.radians(latitude)))
        to_cylinder = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)
        return np.asarray(to_cylinder.transform(np.full(latitude.shape, self.middle), latitude)[1])

    def project(self, x: FloatArray, y: FloatArray, crs: str) -> tuple[FloatArray, FloatArray]:
        """From the coordinates of another projection."""
        if self.pole is None:
            projected = Transformer.from_crs(crs, self.crs, always_xy=True).transform(x, y)
            return np.asarray(projected[0]), np.asarray(projected[1])
        longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
        turned, rotated_latitude = self.pole.rotate(longitude, latitude)
        return (turned - self.middle + 180) % 360 - 180, self.heights(rotated_latitude)


def _target_cells(grid: Grid, cylinder: _Cylinder) -> NDArray[np.object_]:
    """Outlines of all cells as polygons on ``cylinder``, row by row, shape (H * W,)."""
    along = np.arange(_EDGE_SEGMENTS) / _EDGE_SEGMENTS
    zero, one = np.zeros(_EDGE_SEGMENTS), np.ones(_EDGE_SEGMENTS)
    ring_x = np.concatenate([along, one, 1 - along, zero]) - 0.5
    ring_y = np.concatenate([zero, along, one, 1 - along]) - 0.5
    x, y = np.meshgrid(grid.x, grid.y)
    outline_x, outline_y = cylinder.project(
        x.ravel()[:, None] + grid.dx * ring_x, y.ravel()[:, None] + grid.dy * ring_y, grid.crs
    )
    cells: NDArray[np.object_] = np.asarray(shapely.polygons(np.stack([outline_x, outline_y], axis=-1)))
    return cells


def _expand(
    row_start: Indices, row_stop: Indices, column_start: Indices, column_stop: Indices
) -> tuple[Indices, Indices, Indices]:
    """All (target, row, column) of the rectangles row_start:row_stop x column_start:column_stop."""
    widths = column_stop - column_start
    counts = (row_stop - row_start) * widths
    target = np.repeat(np.arange(counts.size), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(within, widths[target])
    return target, row_start[target] + row, column_start[target] + column


def _regridder(
    grid: Grid, source: _Source, target: Indices, row: Indices, column: Indices, weight: FloatArray
) -> Regridder:
    """Weights over ordered source points, cut to the window of the file that they need."""
    rows, columns = source.rows[row], source.columns[column]
    row_slice, column_slices = _window(rows), _windows(columns, source.shape[1])
    position = np.full(source.shape[1], -1, np.intp)
    position[np.concatenate([np.arange(part.start, part.stop) for part in column_slices])] = np.arange(
        sum(part.stop - part.start for part in column_slices)
    )
    size = int(np.count_nonzero(position >= 0))
    flat = (rows - row_slice.start) * size + position[columns]
    shape = (grid.shape[0] * grid.shape[1], (row_slice.stop - row_slice.start) * size)
    weights = sparse.coo_array((weight, (target, flat)), shape=shape).tocsr()
    return Regridder(grid, source.shape, row_slice, column_slices, weights)


def _window(positions: Indices) -> slice:
    return slice(int(positions.min()), int(positions.max()) + 1) if positions.size else slice(0, 1)


def _windows(positions: Indices, size: int) -> tuple[slice, ...]:
    """One slice that holds all positions, or two where the middle of the axis would be read in vain."""
    if positions.size == 0:
        return (slice(0, 1),)
    used = np.unique(positions)
    gaps = np.diff(used)
    if used.size > 1 and gaps.max() > size / 4:
        cut = int(np.argmax(gaps)) + 1
        return _window(used[:cut]), _window(used[cut:])
    return (_window(used),)
