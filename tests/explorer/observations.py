"""Stations made from the truth of the small store, so that the errors of every field are known."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from core.places import to_lonlat
from tests.explorer.small_store import DOMAIN, HOURS, fields

CELLS = {"Alpha": (10, 12), "Beta": (40, 30), "Gamma": (41, 5)}
"""Row and column of the fine cell of each station."""


def observations(
    *,
    excess: float = 0.0,
    higher: float = 0.0,
    hours: np.ndarray = HOURS,
    cells: Mapping[str, tuple[int, int]] = CELLS,
    extra: Sequence[Sequence[object]] = (),
) -> bytes:
    """A CSV file of what stations in the centres of these cells observe: the truth and ``excess`` [K].

    The stations lie ``higher`` metres above the surface of their cell.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["time", "lon", "lat", "elevation", "t2m", "station", "name"])
    for number, (name, (row, column)) in enumerate(cells.items()):
        lon, lat = to_lonlat(DOMAIN, DOMAIN.fine.x[column], DOMAIN.fine.y[row])
        height = 10 * np.hypot(row, column) + higher
        for hour in hours:
            fine, _ = fields(int(hour.astype("datetime64[h]").astype(int)) % 24)
            stamp = np.datetime_as_string(hour, unit="m")
            value = float(fine[row, column]) + excess
            writer.writerow(
                [f"{stamp}Z", f"{lon:.6f}", f"{lat:.6f}", f"{height:.3f}", f"{value:.4f}", number, name]
            )
    writer.writerows(extra)
    return text.getvalue().encode()
