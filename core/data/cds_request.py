"""Requests to the Climate Data Store for the predictors over a domain, written for the user or sent.

A month is one request per data set (single levels, pressure levels), which keeps requests small. One more
asks for a single hour of the surface geopotential, from which the coarse orography is made. Keys are those of
the Climate Data Store since September 2024 (``data_format``, ``download_format``).

Sending needs the package cdsapi and an account, whose key cdsapi reads from ``~/.cdsapirc``.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from core.data.input_error import InputError
from core.data.time_span import time_span
from core.domain import Domain

DataFormat = Literal["netcdf", "grib"]

SINGLE_LEVELS = "reanalysis-era5-single-levels"
PRESSURE_LEVELS = "reanalysis-era5-pressure-levels"

_SURFACE = (
    "2m_temperature",
    "mean_sea_level_pressure",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "2m_dewpoint_temperature",
    "sea_surface_temperature",
    "snow_depth",
    "total_precipitation",
    "surface_solar_radiation_downwards",
)
_AT_850_HPA = (
    "specific_humidity",
    "temperature",
    "u_component_of_wind",
    "v_component_of_wind",
    "vertical_velocity",
)
_SPACING = 0.25
_FIRST_DAY = np.datetime64("1940-01-01")


@dataclass(frozen=True)
class CdsRequest:
    """One request: the data set, what of it, and the name of the file that it becomes."""

    dataset: str
    request: dict[str, Any]
    file: str


@dataclass(frozen=True)
class Delivered:
    """A file that :func:`send` has fetched; ``kept`` where it was there before."""

    path: Path
    kept: bool


class Client(Protocol):
    """What :func:`send` needs of ``cdsapi.Client``."""

    def retrieve(self, name: str, request: dict[str, Any], target: str) -> Any:
        """Wait for a request and write its file to ``target``."""


def era5_area(domain: Domain, margin: float = 0.5) -> list[float]:
    """[north, west, south, east] of the coarse cells with ``margin`` around them, on ERA5's grid [degree].

    Raises ValueError where the margin is smaller than ERA5's spacing: cells at the edge would be lost.
    """
    if margin < _SPACING:
        raise ValueError(f"The margin must be at least ERA5's spacing, {_SPACING:g} degrees.")
    grid = domain.coarse
    # Half a cell reaches beyond its centre, which sums are averaged over.
    half_lat = grid.dy / 2 / 111e3
    half_lon = grid.dx / 2 / (111e3 * math.cos(math.radians(float(np.abs(grid.latitude).max()))))

    def outward(value: float, sign: int) -> float:
        return sign * math.ceil(sign * value / _SPACING - 1e-9) * _SPACING

    return [
        outward(float(grid.latitude.max()) + half_lat + margin, 1),
        outward(float(grid.longitude.min()) - half_lon - margin, -1),
        outward(float(grid.latitude.min()) - half_lat - margin, -1),
        outward(float(grid.longitude.max()) + half_lon + margin, 1),
    ]


def era5_requests(
    domain: Domain, start: str, end: str, *, data_format: DataFormat = "netcdf", margin: float = 0.5
) -> list[CdsRequest]:
    """The requests for all predictors from the day ``start`` to the day ``end``, and for the orography.

    Raises ValueError where the days are no dates, in the wrong order, or before ERA5 begins.
    """
    first, last = time_span(start, end)
    assert first is not None
    assert last is not None
    days = np.arange(first.astype("datetime64[D]"), last.astype("datetime64[D]") + 1)
    if days[0] < _FIRST_DAY:
        raise ValueError(f"ERA5 begins on {_FIRST_DAY}; {days[0]} is before.")
    area = era5_area(domain, margin)
    ending = "nc" if data_format == "netcdf" else "grib"
    requests = [
        CdsRequest(
            SINGLE_LEVELS,
            _request(["geopotential"], days[:1], ["00:00"], area, data_format),
            f"era5-orography.{ending}",
        )
    ]
    hours = [f"{hour:02d}:00" for hour in range(24)]
    months = days.astype("datetime64[M]")
    for month in np.unique(months):
        within = days[months == month]
        whole = within.size == (month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")
        span = str(month) if whole else f"{within[0]}-to-{str(within[-1])[-2:]}"
        requests.append(
            CdsRequest(
                SINGLE_LEVELS,
                _request(_SURFACE, within, hours, area, data_format),
                f"era5-single-levels-{span}.{ending}",
            )
        )
        levels = _request(_AT_850_HPA, within, hours, area, data_format)
        requests.append(
            CdsRequest(
                PRESSURE_LEVELS,
                {**levels, "pressure_level": ["850"]},
                f"era5-850-hpa-{span}.{ending}",
            )
        )
    return requests


def _request(
    variables: Sequence[str], days: Any, hours: Sequence[str], area: list[float], data_format: DataFormat
) -> dict[str, Any]:
    year, month, _ = str(days[0]).split("-")
    return {
        "product_type": ["reanalysis"],
        "variable": list(variables),
        "year": [year],
        "month": [month],
        "day": [str(day)[-2:] for day in days],
        "time": list(hours),
        "area": area,
        "data_format": data_format,
        "download_format": "unarchived",
    }


def as_json(requests: Sequence[CdsRequest]) -> str:
    """The requests as JSON, a list of objects with ``dataset``, ``request`` and ``file``."""
    return json.dumps([vars(request) for request in requests], indent=2)


def as_python(requests: Sequence[CdsRequest], folder: Path = Path("data/era5")) -> str:
    """The requests as a Python program that needs nothing but cdsapi and an account."""
    calls = [
        f"client.retrieve(\n    {json.dumps(one.dataset)},\n"
        f"    {json.dumps(one.request)},\n    {json.dumps(str(folder / one.file))},\n)"
        for one in requests
    ]
    head = (
        "import os\n\nimport cdsapi\n\n"
        f"os.makedirs({json.dumps(str(folder))}, exist_ok=True)\nclient = cdsapi.Client()"
    )
    return "\n".join([head, *calls])


def send(
    requests: Sequence[CdsRequest], folder: str | Path, client: Client | None = None
) -> Iterator[Delivered]:
    """Send requests one by one and yield each file when it is there; files that are there are not asked for.

    A file gets its name when it is complete, so the same call goes on where it was stopped. Two calls at
    once for the same files disturb each other no more than that both ask.

    Raises InputError where cdsapi is missing or not configured, or where a request fails.
    """
    folder = Path(folder)
    missing = [one for one in requests if not (folder / one.file).exists()]
    if missing and client is None:
        client = _client()
    folder.mkdir(parents=True, exist_ok=True)
    for one in requests:
        path = folder / one.file
        if path.exists():
            yield Delivered(path, kept=True)
            continue
        assert client is not None
        partial = folder / f".{one.file}.{os.getpid()}-{secrets.token_hex(4)}.partial"
        try:
            client.retrieve(one.dataset, one.request, str(partial))
            partial.replace(path)
        except Exception as error:
            # cdsapi raises plain exceptions, requests' and its own.
            detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"The Climate Data Store did not deliver {one.file} ({detail[:200]}). What came before is "
                "kept; the same command asks for the rest."
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        yield Delivered(path, kept=False)


def _client() -> Client:
    try:
        import cdsapi
    except ImportError as error:
        raise InputError(
            "Sending requests needs cdsapi: pip install 'tramontana[cds]'. Without --send they are printed."
        ) from error
    try:
        client: Client = cdsapi.Client()
    except Exception as error:
        # Without a configuration cdsapi raises a plain exception.
        raise InputError(
            "cdsapi is not configured: it needs ~/.cdsapirc with the address and the key of an account at "
            "the Climate Data Store (its page 'How to API' shows both). Without --send the requests are "
            "printed."
        ) from error
    return client
