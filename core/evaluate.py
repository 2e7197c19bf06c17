"""Scores of downscalers over many hours, a few hours in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from core.metrics.deterministic import METRICS
from core.variables import VARIABLES

if TYPE_CHECKING:
    from core.data.store import Store
    from core.downscale import Downscaler


class EvaluationError(ValueError):
    """Downscalers, hours or a store that can't be compared; the message says why."""


def evaluate_hours(
    store: Store,
    downscalers: Sequence[Downscaler],
    hours: ArrayLike,
    *,
    batch_hours: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Every deterministic score of every downscaler against the fine truth, for every hour.

    Parameters
    ----------
    downscalers : that can run on this store (see ``Downscaler.obstacles``)
    hours : hours of the store; scores are of one hour's field each
    progress : called with (hours done, hours in all)

    Returns
    -------
    Dataset of ``rmse``, ``mae``, ``bias`` (units of the target), ``r2``, ``pearson`` (1), float64, dims
    (downscaler, target, time); ``downscaler`` holds keys, with ``label`` beside it. NaN where a downscaler
    does not make a target. All are compared on the same points: those that every one of them has.

    Raises EvaluationError where there is nothing to compare, StoreError for hours that are not there.
    """
    times = np.atleast_1d(np.asarray(hours, dtype="datetime64[ns]"))
    contents = store.contents
    if not contents.targets:
        raise EvaluationError(f"{store.path} holds no fine truth, so nothing can be scored against it.")
    if times.size == 0 or not downscalers:
        raise EvaluationError("Scores need at least one hour and one downscaler that can run on the store.")
    targets = [name for name in contents.targets if any(name in d.targets for d in downscalers)]
    if not targets:
        raise EvaluationError(
            f"{store.path} holds the truth of {', '.join(contents.targets)}; no downscaler makes any of them."
        )
    static = store.read_static() if contents.statics else None
    shape = (len(downscalers), len(targets), times.size)
    dims = ("downscaler", "target", "time")
    scores = {name: np.full(shape, np.nan) for name in METRICS}
    for start in range(0, times.size, batch_hours):
        batch = times[start : start + batch_hours]
        coarse, truth = store.read_coarse(batch), store.read_fine(batch, targets)
        fields = [downscaler.downscale(coarse, static, store.domain) for downscaler in downscalers]
        for column, target in enumerate(targets):
            made = {row: field[target] for row, field in enumerate(fields) if target in field}
            reference = truth[target]
            for forecast in made.values():
                reference = reference.where(forecast.notnull())
            for row, forecast in made.items():
                for name, metric in METRICS.items():
                    scores[name][row, column, start : start + batch.size] = metric(forecast, reference).values
        if progress is not None:
            progress(start + batch.size, times.size)
    return xr.Dataset(
        {name: (dims, values) for name, values in scores.items()},
        coords={
            "downscaler": [downscaler.key for downscaler in downscalers],
            "target": targets,
            "time": times,
            "label": ("downscaler", [downscaler.label for downscaler in downscalers]),
        },
        attrs={
            "title": f"Scores on {store.attrs.get('title', store.path)}",
            "data_fingerprint": str(store.attrs.get("fingerprint", "")),
            "synthetic": int(bool(store.attrs.get("synthetic"))),
        },
    )


def markdown_table(scores: xr.Dataset) -> str:
    """Means over the hours of :func:`evaluate_hours`, a row per downscaler and target, as Markdown."""
    lines = [
        "| target | downscaler | RMSE | MAE | bias | R² | Pearson |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    means = scores.mean("time")
    for column, target in enumerate(scores["target"].values):
        units = VARIABLES[str(target)].units
        for number, label in enumerate(scores["label"].values):
            row = means.isel(downscaler=number, target=column)
            if np.isnan(row["rmse"]):
                continue
            errors = [f"{float(row[name]):.3g} {units}" for name in ("rmse", "mae")]
            errors.append(f"{float(row['bias']):+.2g} {units}")
            ratios = [f"{float(row[name]):.3f}" for name in ("r2", "pearson")]
            lines.append(f"| {target} | {' | '.join([str(label), *errors, *ratios])} |")
    return "\n".join(lines)
