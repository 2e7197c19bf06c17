"""Grids and domains: where the fields live.

A :class:`Grid` carries its coordinates, spacing and coordinate reference system; a :class:`Domain`
joins a fine grid with the coarse grid that averages it and with the supergrid over which fluxes are
taken. Everything else in the program asks these objects for sizes and spacings, so another region
needs other coordinates and nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS, Transformer

FloatArray = NDArray[np.float64]

MOST_CELLS = 100_000
"""Rows or columns beyond which a description is taken for corrupt."""


class DomainError(ValueError):
    """A grid or domain that contradicts itself; the message says what and how to mend it."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of cell centres in a projected coordinate system.

    Attributes
    ----------
    x : array (W,), metres, increasing (west to east)
    y : array (H,), metres, decreasing (north first)
    crs : anything that ``pyproj.CRS.from_user_input`` reads, for example ``"EPSG:3035"``

    Raises
    ------
    DomainError
        if coordinates are not one-dimensional, not evenly spaced, run the wrong way, or if the
        coordinate reference system is unknown or not in metres.
    """

    x: FloatArray
    y: FloatArray
    crs: str = "EPSG:3035"

    def __post_init__(self) -> None:
        for name, sign in (("x", 1.0), ("y", -1.0)):
            values = np.array(getattr(self, name), dtype=np.float64)
            if values.ndim != 1 or values.size < 2:
                raise DomainError(
                    f"Grid coordinate {name} must be a list of at least two numbers; "
                    f"it has shape {values.shape}."
                )
            steps = np.diff(values) * sign
            if not np.isfinite(values).all() or steps.min() <= 0:
                order = "increase from west to east" if name == "x" else "decrease from north to south"
                raise DomainError(f"Grid coordinate {name} must {order}; reverse or sort it.")
            if np.ptp(steps) > 1e-3 * steps.mean():
                raise DomainError(
                    f"Grid coordinate {name} must be evenly spaced; its steps range from "
                    f"{steps.min():g} to {steps.max():g} m. Regrid the data to an even spacing first."
                )
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        try:
            crs = CRS.from_user_input(self.crs)
        except Exception as error:
            raise DomainError(f"Unknown coordinate reference system {self.crs!r}.") from error
        if not crs.is_projected or any(axis.unit_name != "metre" for axis in crs.axis_info):
            raise DomainError(
                f"The grid needs a projected coordinate reference system in metres; {self.crs!r} "
                "is not one. Use for example EPSG:3035 for Europe or a UTM zone."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W): number of rows and columns."""
        return self.y.size, self.x.size

    @property
    def dx(self) -> float:
        """Spacing along x [m], positive."""
        return float((self.x[-1] - self.x[0]) / (self.x.size - 1))

    @property
    def dy(self) -> float:
        """Spacing along y [m], positive although y decreases with the row index."""
        return float((self.y[0] - self.y[-1]) / (self.y.size - 1))

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) outer cell edges [m]."""
        return (
            float(self.x[0]) - self.dx / 2,
            float(self.x[-1]) + self.dx / 2,
            float(self.y[-1]) - self.dy / 2,
            float(self.y[0]) + self.dy / 2,
        )

    @cached_property
    def _lonlat(self) -> tuple[FloatArray, FloatArray]:
        to_lonlat = Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        lon, lat = to_lonlat.transform(*np.meshgrid(self.x, self.y))
        lon.setflags(write=False)
        lat.setflags(write=False)
        return lon, lat

    @property
    def longitude(self) -> FloatArray:
        """Longitude of every cell centre [degree_east], shape (H, W)."""
        return self._lonlat[0]

    @property
    def latitude(self) -> FloatArray:
        """Latitude of every cell centre [degree_north], shape (H, W)."""
        return self._lonlat[1]

    @cached_property
    def rotation(self) -> FloatArray:
        """Angle from grid east to true east [radian, anticlockwise positive], shape (H, W).

        A vector with components (u, v) towards true east and north has the components
        ``u cos a - v sin a`` and ``u sin a + v cos a`` along the grid's x and y.
        """
        from_lonlat = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)
        lon, lat = self._lonlat
        step = 1e-4
        x0, y0 = from_lonlat.transform(lon, lat - step)
        x1, y1 = from_lonlat.transform(lon, lat + step)
        # True north seen from the grid points at angle pi/2 + a.
        angle: FloatArray = np.arctan2(y1 - y0, x1 - x0) - np.pi / 2
        return angle

    def coarsen(self, ratio: int) -> Grid:
        """The grid whose cells are ``ratio`` x ``ratio`` cells of this one.

        Raises DomainError where the sides are not multiples of ``ratio``.
        """
        height, width = self.shape
        if ratio < 1 or height % ratio or width % ratio:
            raise DomainError(
                f"A grid of {height} x {width} cells can't be averaged in blocks of {ratio} x {ratio}; "
                "choose a ratio that divides both sides."
            )
        return Grid(self.x.reshape(-1, ratio).mean(axis=1), self.y.reshape(-1, ratio).mean(axis=1), self.crs)

    def matches(self, x: ArrayLike, y: ArrayLike, *, tolerance: float = 1e-3) -> bool:
        """Whether coordinates [m] equal this grid's within ``tolerance`` cells."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return (
            x.shape == self.x.shape
            and y.shape == self.y.shape
            and bool(np.abs(x - self.x).max() <= tolerance * self.dx)
            and bool(np.abs(y - self.y).max() <= tolerance * self.dy)
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return self.matches(other.x, other.y) and CRS.from_user_input(self.crs) == CRS.from_user_input(
            other.crs
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.extent))


@dataclass(frozen=True)
class Domain:
    """A region: fine grid, the coarse grid made of blocks of it, and the supergrid.

    Attributes
    ----------
    name : what people call it
    fine : Grid, shape (H, W)
    ratio : fine cells along one side of a coarse cell
    supergrid_cell : coarse cells along one side of a supergrid cell; by default the greatest
        common divisor of the coarse sides (Rosu et al., arXiv 2510.23866, section 3.3)
    """

    name: str
    fine: Grid
    ratio: int
    supergrid_cell: int = 0

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise DomainError("A domain needs a name.")
        height, width = self.coarse.shape
        if self.supergrid_cell == 0:
            object.__setattr__(self, "supergrid_cell", math.gcd(height, width))
        if not 1 <= self.supergrid_cell <= min(height, width):
            raise DomainError(
                f"Supergrid cells of {self.supergrid_cell} coarse cells do not fit a coarse grid of "
                f"{height} x {width}; choose between 1 and {min(height, width)}."
            )

    @cached_property
    def coarse(self) -> Grid:
        """The coarse grid, shape (H / ratio, W / ratio)."""
        return self.fine.coarsen(self.ratio)

    @property
    def supergrid_shape(self) -> tuple[int, int]:
        """Whole supergrid cells that fit (rows, columns), from the first row and column."""
        height, width = self.coarse.shape
        return height // self.supergrid_cell, width // self.supergrid_cell

    @property
    def crs(self) -> str:
        """Coordinate reference system shared by both grids."""
        return self.fine.crs

    @classmethod
    def regular(
        cls,
        name: str,
        *,
        left: float,
        top: float,
        shape: tuple[int, int],
        spacing: float,
        ratio: int,
        crs: str = "EPSG:3035",
        supergrid_cell: int = 0,
    ) -> Domain:
        """A domain from the centre of its north-western fine cell.

        ``left`` and ``top`` are that centre's coordinates [m], ``shape`` the fine (H, W) and
        ``spacing`` the fine cell size [m].
        """
        height, width = shape
        grid = Grid(
            left + spacing * np.arange(width, dtype=np.float64),
            top - spacing * np.arange(height, dtype=np.float64),
            crs,
        )
        return cls(name, grid, ratio, supergrid_cell)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that :meth:`from_dict` reads back; used in store and checkpoint headers."""
        height, width = self.fine.shape
        return {
            "name": self.name,
            "left": float(self.fine.x[0]),
            "top": float(self.fine.y[0]),
            "dx": self.fine.dx,
            "dy": self.fine.dy,
            "height": height,
            "width": width,
            "ratio": self.ratio,
            "supergrid_cell": self.supergrid_cell,
            "crs": self.crs,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Domain:
        """The domain that :meth:`to_dict` described. Raises DomainError if a value is missing or wrong."""
        try:
            # Descriptions come from files, which must not make a program ask for all memory.
            if max(int(values["height"]), int(values["width"])) > MOST_CELLS:
                raise DomainError(f"A domain may have at most {MOST_CELLS} rows and columns.")
            grid = Grid(
                float(values["left"])
                + float(values["dx"]) * np.arange(int(values["width"]), dtype=np.float64),
                float(values["top"])
                - float(values["dy"]) * np.arange(int(values["height"]), dtype=np.float64),
                str(values["crs"]),
            )
            return cls(str(values["name"]), grid, int(values["ratio"]), int(values["supergrid_cell"]))
        except (KeyError, TypeError, OverflowError) as error:
            raise DomainError(
                f"The description of the domain is incomplete or malformed: {error}."
            ) from error


ITALY = Domain.regular("Italy", left=3_911_000.0, top=2_697_000.0, shape=(672, 576), spacing=2_000.0, ratio=8)
"""The domain of both papers: 672 x 576 cells of 2 km in EPSG:3035, coarse cells of 16 km."""
