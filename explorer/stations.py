"""Stations on the domain of a store, and how far models are from what they observed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.data.stations import Stations
from core.interpolation import STANDARD_LAPSE_RATE
from core.metrics.deterministic import bias, rmse
from core.places import Places, find_places
from core.text import for_csv
from explorer.display import COARSE
from explorer.library import OpenStore
from explorer.points import Place, surface
from explorer.quantities import QUANTITIES

Values = NDArray[np.floating]
Index = NDArray[np.intp]

QUANTITY = QUANTITIES["t2m"]
"""What stations observe."""
NEAR = 30_000.0
"""Farthest that a station may be from a point to be shown with it [m]."""
POOLED = ("time", "station")


@dataclass(frozen=True, eq=False)
class Sited:
    """The n stations that lie on the domain of a store.

    Attributes
    ----------
    stations : all that the file held
    kept : (n,) which of them these are
    places : where they lie, (n,) each
    fine, coarse : (n,) flat positions of their cells in fields of both grids
    height, coarse_height : (n,) of the surface of these cells [m]; NaN where the store does not say
    """

    stations: Stations
    kept: Index
    places: Places
    fine: Index
    coarse: Index
    height: Values
    coarse_height: Values

    @property
    def size(self) -> int:
        """How many stations lie on the domain."""
        return int(self.kept.size)

    @property
    def outside(self) -> int:
        """How many do not."""
        return self.stations.size - self.size

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [self.stations.names[number] for number in self.kept]

    @property
    def elevation(self) -> Values:
        """Their elevation [m], (n,)."""
        return self.stations.elevation[self.kept]

    @property
    def corrects(self) -> bool:
        """Whether the heights of the cells are known, so that values can be brought to the stations."""
        return bool(np.isfinite(self.height).all())

    def observed(self, hours: NDArray[np.datetime64]) -> Values:
        """Observations [degree C] at these hours, (T, n); NaN where there are none."""
        kelvin = self.stations.at(hours)[:, self.kept]
        return QUANTITY.compute({"t2m": kelvin})

    def correction(self, key: str) -> Values:
        """What brings the values of a field from its cells to the stations [K], (n,)."""
        height = self.coarse_height if key == COARSE else self.height
        return STANDARD_LAPSE_RATE * (height - self.elevation)

    def nearest(self, place: Place) -> tuple[int, float] | None:
        """The station nearest to a point and its distance [m]; None where there is none."""
        if not self.size:
            return None
        distance = np.hypot(self.places.x - place.x, self.places.y - place.y)
        number = int(np.argmin(distance))
        return number, float(distance[number])


def site(stations: Stations, opened: OpenStore) -> Sited:
    """Find the cells of stations; those outside the domain are left out."""
    domain = opened.domain
    found = find_places(domain, stations.longitude, stations.latitude)
    kept = np.flatnonzero(found.inside)
    places = find_places(domain, stations.longitude[kept], stations.latitude[kept])
    fine = np.ravel_multi_index((places.fine.rows, places.fine.columns), domain.fine.shape)
    coarse = np.ravel_multi_index((places.coarse.rows, places.coarse.columns), domain.coarse.shape)
    unknown = np.full(kept.size, np.nan)
    heights, coarse_heights = surface(opened), opened.coarse_surface
    return Sited(
        stations, kept, places, fine, coarse,
        heights.ravel()[fine] if heights is not None else unknown,
        coarse_heights.ravel()[coarse] if coarse_heights is not None else unknown,
    )  # fmt: skip


def at_height(temperature: float | Values, height: float | Values, wanted: float | Values) -> float | Values:
    """A temperature brought from one height to another [m] with 6.5 K per km."""
    return temperature + STANDARD_LAPSE_RATE * (height - wanted)


@dataclass(frozen=True)
class StationScore:
    """Errors of one field at one station, or at all where ``station`` is -1, over some hours.

    ``bias`` is forecast minus observation, both in K, NaN without pairs; ``pairs`` counts the observations that
    were compared, ``hours`` the hours they are of.
    """

    key: str
    label: str
    station: int
    bias: float
    rmse: float
    pairs: int
    hours: int


@dataclass(frozen=True)
class StationTable:
    """Errors against stations: over the hours of the series, and over all hours that were computed."""

    sited: Sited
    corrected: bool
    shown: tuple[StationScore, ...]
    everything: tuple[StationScore, ...]

    def get(self, key: str, station: int = -1, *, everything: bool = False) -> StationScore | None:
        """The score of a field at a station, or at all."""
        rows = self.everything if everything else self.shown
        return next((row for row in rows if (row.key, row.station) == (key, station)), None)

    @property
    def labels(self) -> dict[str, str]:
        """Fields that are scored: key -> label."""
        return {row.key: row.label for row in (*self.shown, *self.everything)}


def compute_scores(
    sited: Sited,
    hours: NDArray[np.datetime64],
    values: Mapping[str, Mapping[int, Values]],
    labels: Mapping[str, str],
    *,
    corrected: bool,
    each: bool,
) -> tuple[StationScore, ...]:
    """Errors of every field over ``hours``, pooled over stations and, with ``each``, of every station.

    ``values`` holds for each field the temperatures [degree C] of its cells at the stations, (n,), by hour
    (nanoseconds since 1970).
    """
    rows: list[StationScore] = []
    observed = xr.DataArray(sited.observed(hours).astype(np.float64), dims=POOLED)
    stamps = hours.astype("datetime64[ns]").astype(np.int64).tolist()
    nothing = np.full(sited.size, np.nan)
    for key, label in labels.items():
        known = values.get(key, {})
        forecast = np.array([known.get(stamp, nothing) for stamp in stamps]).reshape(observed.shape)
        if corrected:
            forecast = forecast + sited.correction(key)
        field = xr.DataArray(forecast, dims=POOLED)
        there = np.isfinite(forecast) & np.isfinite(observed.values)
        rows.append(
            StationScore(
                key, label, -1, float(bias(field, observed, reduce=POOLED)),
                float(rmse(field, observed, reduce=POOLED)), int(there.sum()), int(there.any(1).sum()),
            )
        )  # fmt: skip
        if each and there.any():
            mean, root = (metric(field, observed, reduce="time").values for metric in (bias, rmse))
            counts = there.sum(0)
            rows += [
                StationScore(key, label, n, float(mean[n]), float(root[n]), int(counts[n]), int(counts[n]))
                for n in np.flatnonzero(counts)
            ]
    return tuple(rows)


def to_csv(table: StationTable, *, store: str, hours: str) -> str:
    """All scores as comma-separated values, a row for each field, station and period."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["store", "observations", "period", "downscaler", "station", "name", "lon", "lat", "elevation [m]",
         "cell height [m]", "lapse-rate correction", "bias [K]", "RMSE [K]", "pairs", "hours"]
    )  # fmt: skip
    sited = table.sited
    stations = sited.stations
    for period, rows in ((hours, table.shown), ("all hours computed so far", table.everything)):
        for row in rows:
            where: Sequence[object] = ["", "all stations", "", "", "", ""]
            if row.station >= 0:
                number = int(sited.kept[row.station])
                height = (sited.coarse_height if row.key == COARSE else sited.height)[row.station]
                where = [
                    for_csv(stations.keys[number]), for_csv(stations.names[number]), f"{stations.longitude[number]:.5f}",
                    f"{stations.latitude[number]:.5f}", f"{stations.elevation[number]:g}", f"{height:.1f}",
                ]  # fmt: skip
            writer.writerow(
                [for_csv(store), for_csv(stations.source), period, for_csv(row.label), *where,
                 "6.5 K/km" if table.corrected else "none", f"{row.bias:.6g}", f"{row.rmse:.6g}", row.pairs, row.hours]
            )  # fmt: skip
    return text.getvalue()
