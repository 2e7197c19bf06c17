"""Mean, extremes and standard deviation of a field over a region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.domain import Domain
from core.regions import Window
from explorer.cut import inside
from explorer.quantities import FloatField


@dataclass(frozen=True)
class Statistics:
    """Over the cells of a region, in the units of the field; every cell counts alike."""

    mean: float
    low: float
    high: float
    deviation: float


def region_statistics(field: FloatField, window: Window, domain: Domain) -> Statistics | None:
    """Statistics of a coarse (h, w) or fine (H, W) field, cells without a value left out; None without any."""
    values = inside(field, domain, window)
    if not np.isfinite(values.sum()):
        values = values[np.isfinite(values)]
    if not values.size:
        return None
    # Sums of 400 000 numbers in float32 would be off in the third decimal.
    mean = float(values.mean(dtype=np.float64))
    deviation = float(values.std(dtype=np.float64))
    return Statistics(mean, float(values.min()), float(values.max()), deviation)


def show_statistics(statistics: Statistics, decimals: int, units: str, *, signed: bool) -> str:
    """One short line for people; a plus sign before positive numbers where ``signed``."""

    def number(value: float) -> str:
        return f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")

    return (
        f"mean {number(statistics.mean)} · {number(statistics.low)} to {number(statistics.high)} · "
        f"sd {statistics.deviation:.{decimals}f} {units}"
    )
