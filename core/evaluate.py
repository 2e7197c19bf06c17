"""Scores of downscalers over many hours, a few hours in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from core.metrics.metric import Metric
from core.metrics.registry import METRICS, find_metric, of_one_field
from core.variables import VARIABLES

if TYPE_CHECKING:
    from core.data.store import Store
    from core.downscale import Downscaler


USUAL = ("rmse", "mae", "bias", "r2", "pearson")
"""Metrics that are shown unless others are asked for."""

TEMPERATURE_ONLY = ("flux_error", "flux_loss")


class EvaluationError(ValueError):
    """Downscalers, hours or a store that can't be compared; the message says why."""


def evaluate_hours(
    store: Store,
    downscalers: Sequence[Downscaler],
    hours: ArrayLike,
    *,
    metrics: Sequence[str] = USUAL,
    batch_hours: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Scores of every downscaler against the fine truth, for every hour.

    Parameters
    ----------
    downscalers : that can run on this store (see ``Downscaler.obstacles``)
    hours : hours of the store; scores are of one hour's field each
    metrics : names of :data:`core.metrics.registry.METRICS` that give one number for one field
    progress : called with (hours done, hours in all)

    Returns
    -------
    Dataset of the metrics, float64, dims (downscaler, target, time); ``downscaler`` holds keys, with
    ``label`` beside it. NaN where a downscaler does not make a target, and for metrics of temperature with
    other targets. All are compared on the same points: those that every one of them has.

    Raises EvaluationError where there is nothing to compare or a metric needs more than one field,
    MetricError for one that is not there, StoreError for hours that are not there.
    """
    chosen = {name: _field_metric(name) for name in metrics}
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
    scores = {name: np.full(shape, np.nan) for name in chosen}
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
                for name, metric in chosen.items():
                    if name in TEMPERATURE_ONLY and target != "t2m":
                        continue
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


def _field_metric(name: str) -> Metric:
    metric = find_metric(name)
    if not of_one_field(metric):
        fit = ", ".join(key for key, other in METRICS.items() if of_one_field(other))
        raise EvaluationError(
            f"{metric.title} ({name}) needs more than one field of an hour, or options; choose metrics that "
            f"give one number for one field: {fit}."
        )
    return metric


def markdown_table(scores: xr.Dataset) -> str:
    """Means over the hours of :func:`evaluate_hours`, a row per downscaler and target, as Markdown."""
    chosen = {str(name): find_metric(str(name)) for name in scores.data_vars}
    lines = [
        f"| target | downscaler | {' | '.join(metric.title for metric in chosen.values())} |",
        "|---|---|" + "---:|" * len(chosen),
    ]
    means = scores.mean("time")
    for column, target in enumerate(scores["target"].values):
        for number, label in enumerate(scores["label"].values):
            row = means.isel(downscaler=number, target=column)
            if all(np.isnan(row[name]) for name in chosen):
                continue
            cells = [_cell(float(row[name]), metric, str(target)) for name, metric in chosen.items()]
            lines.append(f"| {target} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float, metric: Metric, target: str) -> str:
    if np.isnan(value):
        return "-"
    units = metric.units_for(VARIABLES[target].units)
    if units in (None, "1"):
        return f"{value:.3f}"
    return f"{value:+.2g} {units}" if metric.best == "zero" else f"{value:.3g} {units}"
