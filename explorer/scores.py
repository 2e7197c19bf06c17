"""Scores of one downscaled field over a region, through :mod:`core.metrics`."""

from __future__ import annotations

import csv
import io
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import xarray as xr

from core.domain import Domain
from core.metrics import deterministic
from core.regions import Window
from core.text import for_csv
from explorer.cut import cut
from explorer.quantities import FloatField
from explorer.results import Results


@dataclass(frozen=True)
class Score:
    """A row of the table; errors in display units, R² and r dimensionless, NaN where undefined.

    The scores are called as in :data:`core.metrics.deterministic.METRICS`.
    """

    key: str
    label: str
    rmse: float
    mae: float
    bias: float
    r2: float
    pearson: float


METRICS = {
    field.name: deterministic.METRICS[field.name]
    for field in fields(Score)
    if field.name not in ("key", "label")
}
"""Name -> metric, in the order of the table's columns."""

NAMES = {name: metric.title for name, metric in METRICS.items()}
WITH_UNITS = tuple(name for name, metric in METRICS.items() if metric.units == "field")


def compute_score(
    key: str,
    label: str,
    forecast: FloatField,
    truth: FloatField,
    window: Window,
    domain: Domain,
    results: Results,
    address: Hashable,
) -> Score:
    """All metrics of ``forecast`` against ``truth``, both (H, W), over ``window``; kept in ``results``."""

    def compute() -> dict[str, np.ndarray]:
        pair = [cut(field, domain.fine, window) for field in (forecast, truth)]
        return {"values": np.array([float(metric(*pair)) for metric in METRICS.values()])}

    return Score(key, label, *(float(v) for v in results.get(address, compute)["values"]))


def best(rows: Iterable[Score], metric: str) -> set[str]:
    """Keys of the rows with the best value of a metric, as the metric ranks them; none where one row is alone."""
    values = {row.key: value for row in rows if np.isfinite(value := getattr(row, metric))}
    penalties = METRICS[metric].penalty(xr.DataArray(list(values.values()), dims="row")).values
    lowest = np.flatnonzero(penalties == penalties.min(initial=np.inf))
    return {list(values)[index] for index in lowest} if len(values) > 1 else set()


def to_csv(rows: Iterable[Score], *, store: str, hour: str, region: str, variable: str, units: str) -> str:
    """The table as comma-separated values, with what it is about in every row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [f"{name} [{units}]" if key in WITH_UNITS else name for key, name in NAMES.items()]
    writer.writerow(["store", "hour (UTC)", "region", "variable", "downscaler", *heads])
    for row in rows:
        _, label, *values = astuple(row)
        about = (for_csv(word) for word in (store, hour, region, variable, label))
        writer.writerow([*about, *(f"{v:.6g}" for v in values)])
    return text.getvalue()


def error_distributions(
    fields: Sequence[tuple[str, FloatField, FloatField]], window: Window, domain: Domain, bins: int = 81
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(key, bin centres [display units], density [percent of cells per unit]) of forecast - truth.

    ``fields`` are (key, forecast, truth), each (H, W). All share the bins, which span the central 99.8 % of
    the widest errors, symmetric about zero.
    """
    region = window.slices(domain.fine)
    errors = [(key, (forecast[region] - truth[region]).ravel()) for key, forecast, truth in fields]
    errors = [(key, values[np.isfinite(values)]) for key, values in errors]
    errors = [(key, values) for key, values in errors if values.size]
    if not errors:
        return []
    bound = max(1e-3, *(float(np.quantile(np.abs(values), 0.998)) for _, values in errors))
    edges = np.linspace(-bound, bound, bins + 1)
    centres, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    return [
        (key, centres, 100 * np.histogram(values, edges)[0] / values.size / width) for key, values in errors
    ]
