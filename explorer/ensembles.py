"""The ensemble of a generative model for one hour: its mean, its spread, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.domain import Domain
from core.metrics import ensemble as metrics
from core.metrics.metric import MEMBER, Metric
from core.regions import Window
from explorer.cut import cut
from explorer.quantities import FloatField, Quantity
from explorer.results import Fields

SCORES: tuple[Metric, ...] = (
    metrics.crps,
    metrics.ensemble_rmse,
    metrics.spread,
    metrics.spread_skill_ratio,
)
"""What the table says, in its order."""


@dataclass(frozen=True)
class EnsembleScore:
    """One number of the table; ``units`` is empty where it has none."""

    name: str
    title: str
    formula: str
    value: float
    units: str


@dataclass(frozen=True)
class Ensemble:
    """Members of one hour.

    Attributes
    ----------
    fields : the members (H, W) in display units, by number
    mean, spread : (H, W), the mean of the members in display units, their standard deviation (ddof 1) in units
        of differences
    scores, ranks : over the region against the truth; none without truth. ``ranks`` (M + 1,) are relative
        frequencies.
    """

    key: str
    label: str
    hour: np.datetime64
    quantity: Quantity
    window: Window
    fields: dict[int, FloatField]
    mean: FloatField
    spread: FloatField
    scores: tuple[EnsembleScore, ...]
    ranks: FloatField | None

    @property
    def size(self) -> int:
        """How many members there are."""
        return len(self.fields)

    def score(self, name: str) -> float:
        """The score with this name; NaN where there is none."""
        return next((score.value for score in self.scores if score.name == name), float("nan"))


def compute_ensemble(
    domain: Domain,
    hour: np.datetime64,
    key: str,
    label: str,
    quantity: Quantity,
    members: Mapping[int, Fields],
    truth: FloatField | None,
    window: Window,
) -> Ensemble:
    """Put members together, SI units by number, at least two; scores where there is a ``truth`` (H, W) in
    display units."""
    fields = {number: quantity.compute(made) for number, made in members.items()}
    stack = np.stack(list(fields.values()))
    scores, ranks = (), None
    if truth is not None:
        forecast = cut(stack, domain.fine, window, MEMBER)
        reference = cut(truth, domain.fine, window)
        units = {"field": quantity.difference_units}
        scores = tuple(
            EnsembleScore(
                metric.name, metric.title, metric.formula, float(metric(forecast, reference)),
                units.get(metric.units, ""),
            )
            for metric in SCORES
        )  # fmt: skip
        ranks = metrics.rank_histogram(forecast, reference).values
    return Ensemble(
        key, label, hour, quantity, window, fields, stack.mean(0), stack.std(0, ddof=1), scores, ranks
    )
