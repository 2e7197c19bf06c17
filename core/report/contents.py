"""What an evaluation holds, read with tolerance: any variable may be missing or without a value.

The functions take the Dataset of an evaluation: per-hour scores with dims (model, target, time), maps,
spectra, distributions and snapshots, and ``summary`` and ``difference`` with the confidence intervals.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from core.metrics.registry import METRICS
from core.text import joined, plain
from core.variables import VARIABLES

TRUTH = "truth"

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6ff0", "#8c8c8c")
"""Colours of the models in their order (Okabe and Ito, plus two); those of the explorer."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

Dash = Literal["solid"] | tuple[float, tuple[float, ...]]
DASHES: tuple[Dash, ...] = ("solid", (0, (4, 1.2)))
"""Line styles of curves, in turn, so that a curve shows below another that it equals."""

TITLES = {
    "spectral_slope": "Spectral slope",
    "flux_error": "Flux error, against coarse",
    "flux_error_truth": "Flux error, against truth",
    "flux_loss_paper": "Flux-ratio loss, paper",
    "flux_loss_published_training": "Flux-ratio loss, published training",
    "flux_loss_published_metric": "Flux-ratio loss, published metric",
    "flux_loss_centred": "Flux-ratio loss, centred",
    "ensemble_mse": "Squared error of the mean",
    "ensemble_variance": "Variance of the members",
    "brier_frost": "Brier score of frost",
    "seconds": "Computing time",
}
"""Titles for where the evaluation has none and the registry of metrics does not know the score."""

SQUARES = ("ensemble_mse", "ensemble_variance")
LOWER = ("ensemble_mse", "brier_frost", "seconds")


class Absent(LookupError):
    """Something that the evaluation does not hold; the message is a sentence for the reader."""


@dataclass(frozen=True)
class Model:
    """A model of the evaluation and how it is drawn; ``label`` is one line, but not escaped."""

    key: str
    label: str
    kind: str
    members: int
    colour: str
    marker: str
    dash: Dash

    @property
    def height(self) -> float:
        """Order of drawing of its curve: dashed ones lie over solid ones, so that both show."""
        return 3.0 if self.dash == "solid" else 3.5


@dataclass(frozen=True)
class Score:
    """A score of an evaluation: its words, units (None where unknown) and which values are best."""

    name: str
    title: str
    long_name: str
    units: str | None
    best: str

    def penalty(self, value: float) -> float:
        """How far a value is from the best one; NaN for scores that do not rank."""
        match self.best:
            case "lower":
                return value
            case "higher":
                return -value
            case "zero":
                return abs(value)
            case "one":
                return abs(value - 1)
        return math.nan


class Estimate(NamedTuple):
    """A value and its confidence interval, whose bounds are NaN where they are not known."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known and lies on one side of zero."""
        return self.low > 0 or self.high < 0

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def targets_of(evaluation: xr.Dataset) -> tuple[str, ...]:
    """Names of the targets in their order; none where the evaluation has no targets."""
    return (
        tuple(str(name) for name in np.atleast_1d(evaluation["target"].values))
        if ("target" in evaluation.coords)
        else ()
    )


def models_of(evaluation: xr.Dataset) -> tuple[Model, ...]:
    """The models in their order, each with its colour and marker."""
    if "model" not in evaluation.coords:
        return ()
    keys = [str(key) for key in evaluation["model"].values]

    def column(name: str, default: list[Any]) -> list[Any]:
        if name in evaluation.variables and evaluation[name].dims == ("model",):
            return list(evaluation[name].values)
        return default

    rows = zip(
        keys,
        column("label", keys),
        column("kind", [""] * len(keys)),
        column("members", [1] * len(keys)),
        strict=True,
    )
    return tuple(
        Model(
            key,
            plain(label) or plain(key) or f"model {place + 1}",
            str(kind),
            _count(members),
            PALETTE[place % len(PALETTE)],
            MARKERS[place % len(MARKERS)],
            DASHES[place % len(DASHES)],
        )
        for place, (key, label, kind, members) in enumerate(rows)
    )


def _count(members: Any) -> int:
    return int(members) if math.isfinite(float(members)) and members >= 1 else 1


def variable(evaluation: xr.Dataset, name: str, target: str | None = None) -> xr.DataArray:
    """A variable of the evaluation, of one target; Absent where it is missing or has no value at all."""
    if name not in evaluation.variables:
        raise Absent(f"The evaluation holds no {name}.")
    values = evaluation[name]
    if target is not None and "target" in values.dims:
        if target not in values["target"].values:
            raise Absent(f"The evaluation holds no {name} of {target}.")
        values = values.sel(target=target)
    if values.size == 0 or not np.isfinite(np.asarray(values.values, np.float64)).any():
        of_target = f" of {target}" if target is not None else ""
        raise Absent(f"{name}{of_target} has no value in this evaluation.")
    return values


def ensemble_variable(evaluation: xr.Dataset, name: str, target: str) -> xr.DataArray:
    """As :func:`variable`, of something that only ensembles have."""
    if all(model.members == 1 for model in models_of(evaluation)):
        raise Absent("No model has more than one member.")
    return variable(evaluation, name, target)


def with_values(evaluation: xr.Dataset, values: xr.DataArray, dim: str = "model") -> list[Model]:
    """Models for which an array has at least one value along ``dim``."""
    keys = {str(key) for key in values[dim].values}
    return [
        model
        for model in models_of(evaluation)
        if model.key in keys and bool(np.isfinite(values.sel({dim: model.key}).values).any())
    ]


def target_units(target: str) -> str | None:
    """Units of a target, None where it is not a known variable."""
    return VARIABLES[target].units if target in VARIABLES else None


def target_name(target: str) -> str:
    """A target in words."""
    return VARIABLES[target].long_name if target in VARIABLES else plain(target)


def score_of(evaluation: xr.Dataset, name: str, target: str) -> Score:
    """The words of a score, from the evaluation's attributes or the registry of metrics.

    Units of the registry come first, as a variable of several targets can't have the units of each.
    """
    attrs: Mapping[str, Any] = evaluation[name].attrs if name in evaluation.variables else {}
    metric = METRICS.get(name)
    units = metric.units_for(target_units(target)) if metric is not None and metric.units != "own" else None
    if name in SQUARES and target_units(target) is not None:
        units = f"({target_units(target)})2"
    title = TITLES.get(name) or (metric.title if metric is not None else None) or attrs.get("title") or name
    return Score(
        name,
        plain(title),
        plain(attrs.get("long_name") or (metric.long_name if metric is not None else title), 200),
        units or (str(attrs["units"]) if "units" in attrs else None),
        str(attrs.get("best") or (metric.best if metric else "lower" if name in LOWER else "none")),
    )


def scores_of(evaluation: xr.Dataset) -> tuple[str, ...]:
    """Names of the scores: every variable with dims (model, target, time), and those of ``summary``."""
    names = [
        str(name)
        for name, values in evaluation.data_vars.items()
        if set(values.dims) == {"model", "target", "time"}
    ]
    if "score" in evaluation.coords:
        names += [str(name) for name in evaluation["score"].values if str(name) not in names]
    return tuple(names)


def estimates(evaluation: xr.Dataset, name: str, target: str) -> dict[str, Estimate]:
    """A score of every model over all hours with its interval.

    From ``summary``; where that lacks the score, the mean over hours without an interval. Models without a
    value are left out.
    """
    keys = [model.key for model in models_of(evaluation)]
    result = {}
    means = None
    if name in evaluation.variables and {"model", "time"} <= set(evaluation[name].dims):
        values = evaluation[name]
        if "target" in values.dims:
            values = values.sel(target=target)
        means = values.mean("time")
    for key in keys:
        found = _estimate(evaluation, "summary", model=key, target=target, score=name)
        if not math.isfinite(found.value) and means is not None:
            found = Estimate(float(means.sel(model=key)), math.nan, math.nan)
        if math.isfinite(found.value):
            result[key] = found
    return result


def difference(evaluation: xr.Dataset, name: str, target: str, model: str, other: str) -> Estimate:
    """Paired difference of a score, model minus other, UNKNOWN where the evaluation does not hold it."""
    return _estimate(evaluation, "difference", model=model, other=other, target=target, score=name)


def _estimate(evaluation: xr.Dataset, table: str, **where: str) -> Estimate:
    if table not in evaluation.variables:
        return UNKNOWN
    values = evaluation.variables[table]
    if set(values.dims) != {*where, "estimate"}:
        return UNKNOWN
    # Positions instead of sel, which takes milliseconds a value, and a report asks for thousands.
    parts = []
    for part in Estimate._fields:
        try:
            places = [evaluation.indexes[dim].get_loc(where.get(str(dim), part)) for dim in values.dims]
        except KeyError:
            return UNKNOWN
        parts.append(float(values.values[tuple(places)]))
    return Estimate(*parts)


def best_first(score: Score, found: Mapping[str, Estimate]) -> list[str]:
    """Keys of models from best to worst; empty for scores that do not rank."""
    if score.best not in ("lower", "higher", "zero", "one"):
        return []
    return sorted(found, key=lambda key: score.penalty(found[key].value))


def clear_winner(evaluation: xr.Dataset, score: Score, target: str) -> str | None:
    """The best model where the paired difference to the second best excludes zero, else None.

    Where values near zero or one are best, two values differ without one being better as long as the second
    best may be perfect, too, or lie on the other side; so the second best's own interval has to exclude the
    perfect value, and on the other side the distances from it have to be apart.
    """
    found = estimates(evaluation, score.name, target)
    order = best_first(score, found)
    if len(order) < 2:
        return None
    first, second = (found[key] for key in order[:2])
    if score.penalty(first.value) == score.penalty(second.value):
        return None
    centre = {"zero": 0.0, "one": 1.0}.get(score.best)
    if centre is not None:
        if not (second.low > centre or second.high < centre):
            return None
        if (first.value - centre) * (second.value - centre) < 0:
            farthest = max(abs(first.low - centre), abs(first.high - centre))
            nearest = min(abs(second.low - centre), abs(second.high - centre))
            return order[0] if farthest < nearest else None
    return order[0] if difference(evaluation, score.name, target, *order[:2]).excludes_zero else None


def confidence(evaluation: xr.Dataset) -> str:
    """The confidence of the intervals as text, ``"95 %"``."""
    try:
        return f"{100 * float(evaluation.attrs.get('confidence', 0.95)):g} %"
    except (TypeError, ValueError):
        return "95 %"


def is_synthetic(evaluation: xr.Dataset) -> bool:
    """Whether the data is synthetic."""
    return str(evaluation.attrs.get("synthetic", 0)) not in ("0", "False", "")


def hours_text(evaluation: xr.Dataset) -> str:
    """How many hours, and from when to when."""
    if evaluation.attrs.get("hours"):
        return plain(evaluation.attrs["hours"], 200)
    if "time" not in evaluation.coords or evaluation.sizes.get("time", 0) == 0:
        return "an unknown number of hours"
    days = np.datetime_as_string(np.sort(evaluation["time"].values)[[0, -1]], unit="D")
    return f"{evaluation.sizes['time']} hours, {days[0]} to {days[1]}"


def members_text(evaluation: xr.Dataset) -> str:
    """How many members each model has."""
    models = models_of(evaluation)
    several = [model for model in models if model.members > 1]
    if not several:
        return "one member of each model"
    named = joined(f"{model.members} members of {model.label}" for model in several)
    return named if len(several) == len(models) else f"{named}, one of the others"


def basis(evaluation: xr.Dataset) -> str:
    """The end of every caption: hours, members, and that the data is synthetic where it is."""
    text = f"From {hours_text(evaluation)}; {members_text(evaluation)}."
    return text + (" The data is synthetic." if is_synthetic(evaluation) else "")


def model_attrs(evaluation: xr.Dataset) -> dict[str, dict[str, Any]]:
    """What the evaluation says of each model's file, by key; nothing where that can't be read."""
    try:
        content = json.loads(str(evaluation.attrs.get("models", "{}")))
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    return {str(key): value for key, value in content.items() if isinstance(value, dict)}
