"""What an evaluation computes of one hour and one target: scores, spectra, and terms of sums over hours.

The scores are those of :mod:`core.metrics`; point scores of all members are computed here in one pass, which
is several times faster than metric by metric (the tests compare both).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from core.metrics.binning import bin_index
from core.metrics.ensemble import RankHistogram, Reliability, SpreadError
from core.metrics.metric import MEMBER, Metric
from core.metrics.registry import METRICS
from core.metrics.spectra import ralsd, spectral_slope
from core.physics.audit import FORMULATIONS, UNITS, Scorer
from core.physics.flux_ratio import VARIANTS
from core.physics.gradients import PhysicsError
from core.variables import VARIABLES

Array = NDArray[np.float64]

FREEZING = 273.15
"""Threshold of the event of Brier score and reliability: 2-metre temperature below it [K]."""

BINS = 240
SPREAD_BINS = 30
PROBABILITY_BINS = 11
SURFACES = ("sea", "land")
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"t2m": (223.15, 323.15), "u10": (-40.0, 40.0), "v10": (-40.0, 40.0), "tp": (0.0, 0.06)}
)
"""Range of the frequency distribution of every target, in its units; what lies outside is left out."""
WIDEST_SPREAD: Mapping[str, float] = MappingProxyType({"t2m": 6.0, "u10": 6.0, "v10": 6.0, "tp": 0.01})

FLUX_LOSSES = tuple(f"flux_loss_{name}" for name in VARIANTS)
POINT_SCORES = ("rmse", "mae", "bias", "r2", "pearson", "p01_error", "p99_error", "perkins")
ENSEMBLE_SCORES = ("crps", "ensemble_rmse")
SINGLE_SCORES = (*POINT_SCORES, "spectral_slope_loss", "flux_error", "flux_error_truth", *FLUX_LOSSES)
PARTS_OF_SCORES = ("ensemble_mse", "ensemble_variance", "spectral_slope")
SCORES = (*SINGLE_SCORES, *ENSEMBLE_SCORES, "brier_frost", *PARTS_OF_SCORES)
"""Everything that is one number per hour."""


def score_attrs(name: str, target: str = "t2m") -> dict[str, str]:
    """Title, long name, units and what is best ("lower", "higher", "zero", "one", "none") of a score."""
    units = VARIABLES[target].units
    if name in METRICS:
        metric: Metric = METRICS[name]
        said = {"title": metric.title, "long_name": metric.long_name, "best": metric.best}
        return said | {"units": metric.units_for(units) or ""}
    if name in FLUX_LOSSES:
        variant = name.removeprefix("flux_loss_")
        return {
            "title": f"Flux-ratio loss ({variant.replace('_', ' ')})",
            "long_name": f"difference of flux ratios from those of the coarse field, variant {variant}",
            "best": "lower",
            "units": UNITS[variant],
        }
    square = f"({units})2"
    title, long_name, best, unit = {
        "flux_error_truth": ("Flux error (truth)", "relative error of the truth's fluxes", "lower", "1"),
        "ensemble_mse": ("MSE of the mean", "mean squared error of the ensemble mean", "lower", square),
        "ensemble_variance": ("Variance", "mean variance of the members (ddof 1)", "none", square),
        "brier_frost": ("Brier score (frost)", "Brier score of temperatures below 0 degC", "lower", "1"),
        "spectral_slope": ("Spectral slope", "slope of the radially averaged spectrum", "none", "1"),
    }[name]
    return {"title": title, "long_name": long_name, "best": best, "units": unit}


def bin_edges(target: str) -> Array:
    """Edges of the frequency distribution of a target, in its units."""
    low, high = RANGES[target]
    return np.linspace(low, high, BINS + 1)


def spread_edges(target: str) -> Array:
    """Edges of the bins of spread, in the target's units."""
    return np.linspace(0.0, WIDEST_SPREAD[target], SPREAD_BINS + 1)


def probability_edges() -> Array:
    """Edges of the bins of forecast probability, centred on 0, 0.1, ... 1."""
    half = 0.5 / (PROBABILITY_BINS - 1)
    return np.linspace(-half, 1 + half, PROBABILITY_BINS + 1)


@dataclass(frozen=True)
class HourScores:
    """One hour of one target.

    Attributes
    ----------
    scores : name -> number, of :data:`SCORES`; NaN where undefined
    spectrum : (wavelength,) power, mean over members
    sums : name -> array, to be added over hours
    """

    scores: dict[str, float]
    spectrum: Array
    sums: dict[str, Array]


@dataclass(frozen=True)
class Truth:
    """The truth of one hour with what all models are compared with, computed once.

    Attributes
    ----------
    field : (y, x) with coordinates in metres
    coarse : the coarse field of the target (y, x) on its own grid; None where there is none
    land : (y, x) bool
    ratio : fine pixels along one side of a coarse one
    slope, spectrum, counts, percentiles : spectral slope, power (wavelength,), values per bin (2, bin), 1st
        and 99th percentile
    """

    target: str
    field: xr.DataArray
    coarse: xr.DataArray | None
    land: NDArray[np.bool_]
    ratio: int
    slope: float
    spectrum: Array
    counts: Array
    percentiles: Array

    @classmethod
    def of(
        cls,
        target: str,
        field: xr.DataArray,
        coarse: xr.DataArray | None,
        land: NDArray[np.bool_],
        ratio: int,
    ) -> Truth:
        """Prepare the truth (y, x) of one hour."""
        spectrum = ralsd(field)
        return cls(
            target,
            field,
            coarse,
            land,
            ratio,
            float(spectral_slope(spectrum)),
            spectrum.values,
            _counts(field, target, land),
            np.nanpercentile(field.values.astype(np.float64), (1, 99)),
        )


def score_hour(members: xr.DataArray, truth: Truth, fluxes: Scorer) -> HourScores:
    """Everything of one hour.

    Parameters
    ----------
    members : (member, y, x) in the units of the truth; a field with gaps is scored where it and the truth
        have values, its spectrum and fluxes are NaN
    fluxes : scorer for temperature; other targets have no flux scores
    """
    y, x = truth.field, members.astype(np.float64)
    values, reference = x.values, y.values.astype(np.float64)
    count = len(values)
    several = count > 1
    error = values - reference
    mean_error = error.mean(axis=0)
    scores = dict.fromkeys(SCORES, np.nan)
    scores |= _point_scores(values, error, reference)
    # Distributions, as errors, are of the points that both have.
    compared, known, expected = x, truth.percentiles[:, None], truth.counts
    gaps = x.copy(data=np.isnan(error))
    if gaps.any():
        compared, others = x.where(~gaps), [y.where(~gap) for gap in gaps]
        known = np.stack([np.nanpercentile(other, (1, 99)) for other in others], axis=1)
        expected = np.stack([_counts(other, truth.target, truth.land) for other in others])
    extremes = np.nanpercentile(compared.values, (1, 99), axis=(1, 2)) - known
    scores["p01_error"], scores["p99_error"] = (float(e) for e in extremes.mean(axis=1))
    spectra = ralsd(members)
    slopes = spectral_slope(spectra).values
    scores["spectral_slope"] = float(slopes.mean())
    scores["spectral_slope_loss"] = float(np.abs(slopes - truth.slope).mean())
    counts = np.stack([_counts(field, truth.target, truth.land) for field in compared])
    with np.errstate(invalid="ignore"):
        own, other = (c.sum(axis=-2) / c.sum(axis=(-2, -1))[..., None] for c in (counts, expected))
    scores["perkins"] = float(np.minimum(own, other).sum(axis=-1).mean())
    scores |= _flux_scores(values, truth, fluxes)
    scores["crps"] = float(METRICS["crps"](x, y)) if several else scores["mae"]
    square = mean_error**2
    scores["ensemble_mse"] = float(np.nanmean(square))
    scores["ensemble_rmse"] = scores["ensemble_mse"] ** 0.5
    valid = np.isfinite(mean_error)
    sums: dict[str, Array] = {
        "count": valid.astype(np.float64),
        "error": np.where(valid, mean_error, 0.0),
        "square": np.where(valid, (error**2).mean(axis=0), 0.0),
        "histogram": counts.sum(axis=0) / count,
    }
    if truth.target == "t2m":
        event = {"threshold": FREEZING, "comparison": "<"}
        scores["brier_frost"] = float(METRICS["brier"].configured(**event)(x, y))
        curve = Reliability(edges=probability_edges(), **event).partial(x, y)  # type: ignore[arg-type]
        sums |= {f"reliability_{name}": curve[name].values for name in ("weight", "forecast", "observed")}
    if several:
        variance = compared.values.var(axis=0, ddof=1)
        scores["ensemble_variance"] = float(np.nanmean(variance))
        sums["mean_square"] = np.where(valid, square, 0.0)
        sums["variance"] = np.where(valid, variance, 0.0)
        sums["ranks"] = RankHistogram().partial(x, y)["counts"].values
        curve = SpreadError(edges=spread_edges(truth.target)).partial(x, y)
        sums |= {f"spread_{name}": curve[name].values for name in ("weight", "variance", "squared_error")}
    return HourScores(scores, spectra.mean(MEMBER).values, sums)


def _point_scores(values: Array, error: Array, reference: Array) -> dict[str, float]:
    """Means over members of the scores of single fields."""
    axes = (1, 2)
    square = np.nanmean(error**2, axis=axes)
    where = np.isfinite(error)
    ours = np.where(where, values, np.nan)
    own = ours - np.nanmean(ours, axis=axes, keepdims=True)
    truth = np.where(where, reference, np.nan)
    truth = truth - np.nanmean(truth, axis=axes, keepdims=True)
    variance = np.nanmean(truth**2, axis=axes)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(variance > 0, 1 - square / variance, np.nan)
        together = np.nanmean(own**2, axis=axes) * variance
        pearson = np.where(together > 0, np.nanmean(own * truth, axis=axes) / together**0.5, np.nan)
    found = {
        "rmse": square**0.5,
        "mae": np.nanmean(np.abs(error), axis=axes),
        "bias": np.nanmean(error, axis=axes),
        "r2": r2,
        "pearson": pearson,
    }
    return {name: float(score.mean()) for name, score in found.items()}


def _counts(field: xr.DataArray, target: str, land: NDArray[np.bool_]) -> Array:
    """How many values fall into every bin over sea and land, (2, bin)."""
    edges = bin_edges(target)
    index = bin_index(field, edges).values
    place = np.where(index >= 0, index + land * BINS, 2 * BINS)
    counts: Array = np.bincount(place.ravel(), minlength=2 * BINS + 1)[: 2 * BINS].astype(np.float64)
    return counts.reshape(2, BINS)


def _flux_scores(values: Array, truth: Truth, fluxes: Scorer) -> dict[str, float]:
    """Flux scores of temperature fields, means over members."""
    if truth.target != "t2m" or np.isnan(values).any():
        return {}
    field = torch.from_numpy(values)
    found: dict[str, Any] = {}
    references = {"truth": truth.field, "coarse": truth.coarse}
    for where, reference in references.items():
        if reference is None or bool(reference.isnull().any()):
            continue
        other = torch.from_numpy(reference.values.astype(np.float64)).expand(len(values), -1, -1)
        for formulation in FORMULATIONS if where == "coarse" else ("flux_error",):
            name = "flux_error" if formulation == "flux_error" else f"flux_loss_{formulation}"
            name += "_truth" if where == "truth" else ""
            try:
                with torch.inference_mode():
                    found[name] = float(fluxes.score(formulation, field, other, truth.ratio).mean())
            except PhysicsError:
                # The supergrid of this formulation does not fit the domain: the score stays undefined.
                continue
    return found
