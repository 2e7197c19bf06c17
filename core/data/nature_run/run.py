"""Running the model over requested hours, and writing them into a store."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from core.data.nature_run.config import NatureRunConfig
from core.data.nature_run.episode import HOURS_OF_WEEK, Episode, monday_of, to_dataset
from core.data.nature_run.terrain import Terrain, build_terrain
from core.domain import Domain
from core.variables import PREDICTORS, TARGETS

Times = NDArray[np.datetime64]


class NatureRunError(ValueError):
    """Hours or fields the nature run can't be made for; the message says why."""


def episodes(start: str | np.datetime64, stop: str | np.datetime64) -> list[np.datetime64]:
    """Mondays (00 UTC) of the ISO weeks that touch the time from ``start`` to before ``stop``."""
    first, end = np.asarray([start, stop], "datetime64[s]")
    return list(np.arange(monday_of(first), end, np.timedelta64(7 * 86400, "s")))


def whole_hours(hours: ArrayLike) -> Times:
    """Requested hours, sorted, each once. Raises NatureRunError where one is not a whole hour."""
    times = np.unique(np.atleast_1d(np.asarray(hours, "datetime64[ns]")))
    if np.isnat(times).any() or (times != times.astype("datetime64[h]")).any():
        raise NatureRunError(
            "The nature run makes whole hours (UTC); minutes and missing times are not possible."
        )
    return times


def by_week(times: Times) -> dict[np.datetime64, list[int]]:
    """Hours of the week (0-167) by Monday."""
    weeks: dict[np.datetime64, list[int]] = {}
    for time in times:
        monday = monday_of(time)
        weeks.setdefault(monday, []).append(int((time - monday) / np.timedelta64(1, "h")))
    return weeks


def simulate(
    domain: Domain, static: xr.Dataset, config: NatureRunConfig, hours: ArrayLike
) -> Iterator[tuple[np.datetime64, xr.Dataset, xr.Dataset]]:
    """The requested hours of weather, in order: (time, coarse, fine).

    Parameters
    ----------
    static : ``orography`` [m], ``land_fraction`` (y, x), ``land_cover`` (class, y, x) on the fine grid
    hours : UTC time stamps on whole hours; each week costs its spin-up and all hours before the last asked

    Yields
    ------
    time, coarse with the 14 predictors and ``orography`` of the coarse model, fine with the targets:
    float32, SI units, dims (time of length 1, y, x), earth-relative winds.

    Raises
    ------
    NatureRunError
        for hours that are not whole or static fields that do not fit.
    """
    times = whole_hours(hours)
    terrain = prepare(domain, static, config)
    yield from run_weeks(terrain, config, by_week(times))


def prepare(domain: Domain, static: xr.Dataset, config: NatureRunConfig) -> Terrain:
    """The model's static fields. Raises NatureRunError where ``static`` does not fit."""
    try:
        return build_terrain(domain, static, config.coarse_orography_width)
    except ValueError as error:
        raise NatureRunError(str(error)) from error


def run_weeks(
    terrain: Terrain, config: NatureRunConfig, weeks: dict[np.datetime64, list[int]]
) -> Iterator[tuple[np.datetime64, xr.Dataset, xr.Dataset]]:
    """As :func:`simulate`, for hours grouped by week over a prepared terrain."""
    domain = terrain.domain
    for monday, wanted in weeks.items():
        episode = Episode(terrain, config, monday)
        run = episode.run(set(wanted))
        while True:
            # A generator must not leave its caller in inference mode, so it is entered hour by hour.
            with torch.inference_mode():
                hour, output = next(run, (HOURS_OF_WEEK, None))
            if hour == HOURS_OF_WEEK:
                break
            if output is None:
                continue
            time = episode.instant(hour).astype("datetime64[ns]")
            coarse = to_dataset([output.coarse], [time], domain.coarse, PREDICTORS)
            coarse["orography"] = (("y", "x"), terrain.coarse_height.numpy())
            yield time, coarse, to_dataset([output.fine], [time], domain.fine, TARGETS)
