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


def inputs_held(store: Store, downscalers: Sequence[Downscaler]) -> list[str]:
    """The predictors of a store that at least one of the downscalers uses."""
    wanted = {name for d in downscalers for name in d.inputs}
    return [name for name in store.contents.predictors if name in wanted]
