"""Rotated longitude/latitude grids, as regional models use them (CF: ``rotated_latitude_longitude``).

Models rotate on the sphere: geographic longitude and latitude are taken as angles on it, whatever the figure
of the Earth. Formulas are written with unit vectors, so that no point is special (CF-1.11, appendix F).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_TOLERANCE = 0.02
# In grid spacings: how far two-dimensional coordinates, often stored as float32, may lie off the found grid.


class RotatedPoleError(ValueError):
    """A grid mapping that is incomplete, or coordinates that are not those of a rotated grid."""


@dataclass(frozen=True)
class RotatedPole:
    """Where the north pole of a rotated grid lies.

    Attributes
    ----------
    latitude, longitude : of the grid's north pole [degree_north, degree_east]
    grid_longitude : longitude of the true north pole in the rotated grid [degree]
    """

    latitude: float
    longitude: float
    grid_longitude: float = 0.0

    @classmethod
    def from_cf(cls, attrs: Mapping[str, Any]) -> RotatedPole:
        """From the attributes of a CF grid mapping. Raises RotatedPoleError where they are incomplete."""
        try:
            return cls(
                float(attrs["grid_north_pole_latitude"]),
                float(attrs["grid_north_pole_longitude"]),
                float(attrs.get("north_pole_grid_longitude", 0.0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RotatedPoleError(
                "its rotated grid mapping lacks a readable grid_north_pole_latitude or "
                "grid_north_pole_longitude"
            ) from error

    @property
    def _axes(self) -> FloatArray:
        """Unit vectors of the rotated frame in the geographic one, rows x, y, z."""
        z = _vectors(self.longitude, self.latitude)
        x = _vectors(self.longitude + 180.0, 90.0 - self.latitude)
        return np.stack([x, np.cross(z, x), z])

    def rotate(self, longitude: ArrayLike, latitude: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Geographic to rotated (longitude, latitude) [degree]; longitudes from -180 to 180."""
        x, y, z = np.moveaxis(_vectors(longitude, latitude) @ self._axes.T, -1, 0)
        turned = np.degrees(np.arctan2(y, x)) + self.grid_longitude
        return (turned + 180) % 360 - 180, np.degrees(np.arctan2(z, np.hypot(x, y)))

    def to_earth(self, longitude: ArrayLike, latitude: ArrayLike) -> FloatArray:
        """Matrices (..., 2, 2) that turn (along rotated longitude, latitude) into (eastward, northward).

        At geographic positions; they are rotations, the columns being the grid's directions seen from Earth.
        """
        lon = np.radians(np.asarray(longitude, np.float64))
        position = _vectors(longitude, latitude)
        east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)], axis=-1)
        north = np.cross(position, east)
        grid_east = np.cross(self._axes[2], position)
        grid_east /= np.linalg.norm(grid_east, axis=-1, keepdims=True)
        grid_north = np.cross(position, grid_east)
        rows = [
            np.stack([(side * axis).sum(-1) for side in (grid_east, grid_north)], axis=-1)
            for axis in (east, north)
        ]
        return np.stack(rows, axis=-2)


def find_pole(
    longitude: ArrayLike, latitude: ArrayLike
) -> tuple[RotatedPole, NDArray[np.float64], NDArray[np.float64]]:
    """The rotated grid behind two-dimensional coordinates: (pole, rotated longitudes, rotated latitudes).

    Points of one row have one rotated latitude, so all steps along rows are perpendicular to the axis of the
    rotated frame; the axis is the direction in which these steps vary least. Of the frame's two ends the
    northern one is taken; on it rotated longitude 0 is the meridian through the true pole.

    Parameters
    ----------
    longitude, latitude : [degree], shape (rows, columns)

    Raises RotatedPoleError where the points are not a regular grid in any rotated frame.
    """
    points = _vectors(longitude, latitude)
    if points.ndim != 3 or min(points.shape[:2]) < 3 or not np.isfinite(points).all():
        raise RotatedPoleError("its two-dimensional coordinates have gaps or fewer than 3 rows or columns")
    steps = np.diff(points, axis=1).reshape(-1, 3)
    axis = np.linalg.eigh(steps.T @ steps)[1][:, 0]
    axis = axis if axis[2] >= 0 else -axis
    pole = RotatedPole(
        float(np.degrees(np.arcsin(np.clip(axis[2], -1, 1)))), float(np.degrees(np.arctan2(axis[1], axis[0])))
    )
    turned, rotated_latitude = pole.rotate(longitude, latitude)
    middle = turned[turned.shape[0] // 2, turned.shape[1] // 2]
    turned = (turned - middle + 180) % 360 - 180 + middle
    columns, rows = turned.mean(axis=0), rotated_latitude.mean(axis=1)
    for values, means in ((turned, columns[None, :]), (rotated_latitude, rows[:, None])):
        spacing = abs(float(means.ravel()[-1] - means.ravel()[0])) / (means.size - 1)
        if np.abs(values - means).max() > _TOLERANCE * spacing:
            raise RotatedPoleError("its points are not a regular grid in any rotated longitude and latitude")
    return pole, columns, rows


def _vectors(longitude: ArrayLike, latitude: ArrayLike) -> FloatArray:
    """Unit vectors of positions [degree], shape (..., 3)."""
    lon, lat = np.broadcast_arrays(
        np.radians(np.asarray(longitude, np.float64)), np.radians(np.asarray(latitude, np.float64))
    )
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
