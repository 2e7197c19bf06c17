"""A chosen point: the cells that hold it, and what every field says there over the hours around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.places import find_places, to_lonlat
from explorer.library import OpenStore
from explorer.quantities import Quantity
from explorer.results import Fields

Hours = NDArray[np.datetime64]
Values = NDArray[np.floating]

SPANS: dict[str, int] = {"day": 0, "days": 1, "week": 3}
"""Length of the time series: key -> days before and after that of the hour shown."""

MOST_HOURS = 168

TOWNS: tuple[tuple[str, float, float], ...] = (
    ("Bolzano", 11.35, 46.50), ("Aosta", 7.32, 45.74), ("Torino", 7.69, 45.07), ("Milano", 9.19, 45.46),
    ("Verona", 10.99, 45.44), ("Venezia", 12.33, 45.44), ("Trieste", 13.77, 45.65), ("Genova", 8.93, 44.41),
    ("Bologna", 11.34, 44.49), ("Firenze", 11.26, 43.77), ("Ancona", 13.52, 43.62), ("Perugia", 12.39, 43.11),
    ("L'Aquila", 13.40, 42.35), ("Roma", 12.50, 41.90), ("Napoli", 14.27, 40.85), ("Bari", 16.87, 41.12),
    ("Potenza", 15.81, 40.64), ("Cosenza", 16.25, 39.30), ("Palermo", 13.36, 38.12), ("Catania", 15.09, 37.50),
    ("Sassari", 8.56, 40.73), ("Cagliari", 9.11, 39.22),
)  # fmt: skip
"""Places to start from: name, longitude [degree_east] and latitude [degree_north] of the town."""


@dataclass(frozen=True)
class Place:
    """A point on the domain of a store.

    Attributes
    ----------
    longitude, latitude : degrees east and north
    x, y : in the plane of the domain [m]
    fine, coarse : (row, column) of the cells that hold it
    distance, coarse_distance : to their centres [m]
    height, coarse_height : of their surface [m]; NaN where the store does not say
    centre : longitude and latitude of the centre of the fine cell [degrees]
    """

    longitude: float
    latitude: float
    x: float
    y: float
    fine: tuple[int, int]
    coarse: tuple[int, int]
    distance: float
    coarse_distance: float
    height: float
    coarse_height: float
    centre: tuple[float, float]


@dataclass(frozen=True)
class Line:
    """What one field says at the point: ``values`` (T,) in display units, NaN where there are none.

    ``problem`` says why hours are missing for good.
    """

    key: str
    label: str
    values: Values
    problem: str = ""


@dataclass(frozen=True)
class Band:
    """Members of a generative model at the point: ``members`` (M, T) in display units, NaN where not there."""

    key: str
    label: str
    members: Values

    @property
    def counts(self) -> NDArray[np.intp]:
        """How many members there are of each hour, (T,)."""
        return np.isfinite(self.members).sum(0)

    def summary(self) -> dict[str, Values]:
        """``low``, ``high`` (least and highest member), ``p10``, ``p90`` and ``mean``, each (T,).

        The percentiles are interpolated linearly between members; NaN where an hour has none.
        """
        rows = {
            name: np.full(self.members.shape[1], np.nan) for name in ("low", "p10", "mean", "p90", "high")
        }
        there = self.counts > 0
        if there.any():
            known = self.members[:, there]
            low, p10, p90, high = np.nanquantile(known, (0, 0.1, 0.9, 1), axis=0)
            found = {"low": low, "p10": p10, "mean": np.nanmean(known, 0), "p90": p90, "high": high}
            for name, values in found.items():
                rows[name][there] = values
        return rows

    def at(self, index: int) -> Values:
        """The members that are there of an hour."""
        values = self.members[:, index]
        found: Values = values[np.isfinite(values)]
        return found


@dataclass(frozen=True)
class PointSeries:
    """Everything that is known at a point over some hours.

    ``pending`` counts the fields that are still to come, ``corrected`` the height [m] that all values were
    brought to (None where they are those of the cells), ``observed`` what the nearest station says.
    """

    place: Place
    quantity: Quantity
    hours: Hours
    lines: tuple[Line, ...]
    bands: tuple[Band, ...]
    observed: Line | None
    corrected: float | None
    pending: int

    def get(self, key: str) -> Line | None:
        """The line with this key."""
        return next((line for line in self.lines if line.key == key), None)

    def index(self, hour: np.datetime64 | None) -> int | None:
        """Where an hour is in the series."""
        found = np.flatnonzero(self.hours == hour) if hour is not None else np.empty(0)
        return int(found[0]) if found.size else None


def is_point(value: object) -> bool:
    """Whether this is a list of a longitude and a latitude [degrees]."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    numbers = all(isinstance(v, int | float) and np.isfinite(v) for v in value)
    return numbers and abs(value[0]) <= 180 and abs(value[1]) <= 90


def find_place(opened: OpenStore, longitude: float, latitude: float) -> Place | None:
    """The point of a store at a longitude and latitude [degrees]; None where it lies outside."""
    domain = opened.domain
    found = find_places(domain, longitude, latitude)
    if not found.inside[0]:
        return None
    fine = int(found.fine.rows[0]), int(found.fine.columns[0])
    coarse = int(found.coarse.rows[0]), int(found.coarse.columns[0])
    heights, coarse_heights = surface(opened), opened.coarse_surface
    grid = domain.fine
    return Place(
        float(longitude), float(latitude), float(found.x[0]), float(found.y[0]), fine, coarse,
        float(found.fine.distance[0]), float(found.coarse.distance[0]),
        float(heights[fine]) if heights is not None else np.nan,
        float(coarse_heights[coarse]) if coarse_heights is not None else np.nan,
        (float(grid.longitude[fine]), float(grid.latitude[fine])),
    )  # fmt: skip


def surface(opened: OpenStore) -> Values | None:
    """Height of the fine cells [m], (H, W); None where the store does not say."""
    static = opened.static
    return static["orography"].values if static is not None and "orography" in static else None


def towns(opened: OpenStore) -> dict[str, tuple[float, float]]:
    """Towns on the domain of a store: name -> (longitude, latitude)."""
    names, lon, lat = zip(*TOWNS, strict=True)
    inside = find_places(opened.domain, lon, lat).inside
    return {name: (x, y) for name, x, y, there in zip(names, lon, lat, inside, strict=True) if there}


def middle(opened: OpenStore) -> list[float]:
    """Longitude and latitude [degrees, to a tenth] of the middle of a store's domain."""
    left, right, bottom, top = opened.domain.fine.extent
    return [round(number, 1) for number in to_lonlat(opened.domain, (left + right) / 2, (bottom + top) / 2)]


def hours_around(hours: Hours, hour: np.datetime64, span: str) -> Hours:
    """Those of ``hours`` on the day (UTC) of ``hour``, and on the days around that belong to ``span``.

    Whole days, so that going from hour to hour of a day leaves the series as it is.
    """
    day = hour.astype("datetime64[D]")
    days = SPANS[span]
    begin = day - np.timedelta64(days, "D")
    end = day + np.timedelta64(days + 1, "D")
    found: Hours = hours[(hours >= begin) & (hours < end)]
    return found[:MOST_HOURS]


def nearest_first(hours: Hours, hour: np.datetime64) -> list[np.datetime64]:
    """The hours in the order of their distance from one of them."""
    return list(hours[np.argsort(np.abs(hours - hour), kind="stable")])


def with_gaps(hours: Hours, *columns: Values) -> tuple[Hours, list[Values]]:
    """The same series with a missing value where hours are missing, so that lines break there."""
    if hours.size < 3:
        return hours, list(columns)
    steps = np.diff(hours)
    gaps = np.flatnonzero(steps > 1.5 * steps.min().astype(np.int64).astype("timedelta64[ns]"))
    filled = np.insert(hours, gaps + 1, hours[gaps] + steps.min())
    return filled, [np.insert(np.asarray(column, np.float64), gaps + 1, np.nan) for column in columns]


def pick(fields: Fields, quantity: Quantity, index: NDArray[np.intp]) -> Values:
    """The quantity at flat positions ``index`` of the fields of an hour (SI units), in display units."""
    picked: Mapping[str, Values] = {name: fields[name].ravel()[index] for name in quantity.needs}
    return quantity.compute(picked)


def flat(cells: Sequence[tuple[int, int]], shape: tuple[int, int]) -> NDArray[np.intp]:
    """Flat positions of (row, column) pairs in a field of this shape."""
    rows, columns = (np.array(values, np.intp) for values in zip(*cells, strict=True))
    return np.asarray(np.ravel_multi_index((rows, columns), shape), np.intp)
