"""Downscalers over the hours of a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from core.data.store import Store, as_times
from core.downscale.base import DownscaleError, Downscaler


def downscale_store(
    store: Store,
    downscalers: Sequence[Downscaler],
    hours: ArrayLike | None = None,
    *,
    batch_hours: int = 8,
) -> Iterator[tuple[NDArray[np.datetime64], dict[str, xr.Dataset]]]:
    """Run downscalers over hours of a store (default all), yielding after every ``batch_hours``.

    Yields the hours and, by key of the downscaler, their fine fields. The coarse fields are read once
    for all downscalers. Raises DownscaleError, before anything is computed, where one of them can't run.
    """
    refuse_obstacles(store, downscalers)
    names = inputs_held(store, downscalers)
    static = store.read_static() if store.contents.statics else None
    stamps = store.hours if hours is None else as_times(hours)
    for start in range(0, stamps.size, batch_hours):
        batch = stamps[start : start + batch_hours]
        coarse = store.read_coarse(batch, names)
        yield batch, {d.key: d.downscale(coarse, static, store.domain) for d in downscalers}


def refuse_obstacles(store: Store, downscalers: Sequence[Downscaler]) -> None:
    """Raise DownscaleError where one of the downscalers can't run on a store."""
    obstacles = [sentence for d in downscalers for sentence in d.obstacles(store.contents, store.domain)]
    if obstacles:
        raise DownscaleError(" ".join(obstacles))


def refuse_gaps(
    store: Store, names: Sequence[str], hours: NDArray[np.datetime64], *, batch_hours: int = 24
) -> Iterator[np.datetime64]:
    """Read predictors for networks over hours of a store, in order, and stop at the first gap in them.

    Yields the first hour of every batch before reading it. Raises DownscaleError that names the first hour
    with a missing or infinite value, and the predictors that have it. Missing sst is no gap: land has none.
    """
    for start in range(0, hours.size, batch_hours):
        batch = hours[start : start + batch_hours]
        yield batch[0]
        coarse = store.read_coarse(batch, names)
        bad = {}
        for name in names:
            values = coarse[name].transpose("time", "y", "x").values
            broken = np.isinf(values) if name == "sst" else ~np.isfinite(values)
            bad[name] = broken.sum(axis=(1, 2))
        cells = coarse.sizes["y"] * coarse.sizes["x"]
        for row, hour in enumerate(batch):
            found = [f"{name} ({count[row]} of {cells} cells)" for name, count in bad.items() if count[row]]
            if found:
                stamp = np.datetime_as_string(hour, unit="m").replace("T", " ")
                raise DownscaleError(
                    f"{store.path} has missing values at {stamp} UTC in {', '.join(found)}; networks need "
                    "complete fields. Leave out such hours, or use data that covers the whole domain."
                )


def inputs_held(store: Store, downscalers: Sequence[Downscaler]) -> list[str]:
    """The predictors of a store that at least one of the downscalers uses."""
    wanted = {name for d in downscalers for name in d.inputs}
    return [name for name in store.contents.predictors if name in wanted]
