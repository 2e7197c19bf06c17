"""Every metric by name, for command lines, tables and menus.

An entry is the metric itself: it can be called, and says its title, units, which values are best, formula and
source (see :class:`core.metrics.metric.Metric`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from core.metrics import deterministic, distribution, ensemble, flux, spectra
from core.metrics.metric import Metric, MetricError

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        **deterministic.METRICS,
        **distribution.METRICS,
        **spectra.METRICS,
        **ensemble.METRICS,
        **flux.METRICS,
    }
)
"""Name -> metric, in the order in which tables show them."""


BAR = r"\|"
"""A bar inside a cell of a Markdown table."""


def find_metric(name: str) -> Metric:
    """The metric of that name; MetricError that lists the names where there is none."""
    if name not in METRICS:
        raise MetricError(f"There is no metric {name!r}; choose one of {', '.join(METRICS)}.")
    return METRICS[name]


def of_one_field(metric: Metric) -> bool:
    """Whether it gives one number for one field without further options, as `evaluate --metric` needs."""
    return metric.result == "score" and not metric.required and not metric.ensemble


def markdown() -> str:
    """Every metric with its formula, as a Markdown table (``docs/metrics.md`` holds it)."""
    best = {"lower": "low", "higher": "high", "zero": "near 0", "one": "near 1", "none": "-"}
    lines = ["| name | what | formula | good is | `--metric` | source |", "|---|---|---|---|---|---|"]
    lines += [
        f"| `{name}` | {metric.title}: {metric.long_name} | `{metric.formula.replace('|', BAR)}` "
        f"| {best[metric.best]} | {'yes' if of_one_field(metric) else '-'} | {metric.source} |"
        for name, metric in METRICS.items()
    ]
    taken = ", ".join(f"`{name}`" for name, metric in METRICS.items() if of_one_field(metric))
    lines += [
        "",
        "`tramontana evaluate STORE --metric NAME` takes those with yes, which give one number for "
        f"one field: {taken}.",
    ]
    return "\n".join(lines)
