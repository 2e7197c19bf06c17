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


def find_metric(name: str) -> Metric:
    """The metric of that name; MetricError that lists the names where there is none."""
    if name not in METRICS:
        raise MetricError(f"There is no metric {name!r}; choose one of {', '.join(METRICS)}.")
    return METRICS[name]
