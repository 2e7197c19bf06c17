"""Scores of ensembles: is the truth one of the members, and does the spread say how far off they are?

The forecast has a dimension ``member``, which is always used up; a forecast without it is an ensemble of one.
A point counts where the reference and all members are there, so that every point is scored with the same
number of members M. ``x_i`` are members, ``y`` the reference.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from core.metrics.binning import Array, bin_coords, bin_index, binned_sum, checked_edges
from core.metrics.metric import (
    FIELD,
    MEMBER,
    Metric,
    MetricError,
    PointMetric,
    aligned,
    means,
    point_weights,
    reduced_dims,
    units_of,
)

CRPSKind = Literal["fair", "ecdf"]
Comparison = Literal[">", ">=", "<", "<="]
Ties = Literal["even", "average"]

COMPARE: dict[str, Callable[[xr.DataArray, float], xr.DataArray]] = {
    ">": lambda field, threshold: field > threshold,
    ">=": lambda field, threshold: field >= threshold,
    "<": lambda field, threshold: field < threshold,
    "<=": lambda field, threshold: field <= threshold,
}


def member_pair(forecast: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Members and reference in float64, NaN at the points where any of them is NaN.

    A forecast without members gets one. MetricError where the reference has members or lies elsewhere.
    """
    if MEMBER in reference.dims:
        raise MetricError("The reference of an ensemble has no dimension member; choose one member of it.")
    if MEMBER not in forecast.dims:
        forecast = forecast.expand_dims(MEMBER)
    forecast, reference = aligned(forecast, reference)
    valid = forecast.notnull().all(MEMBER) & reference.notnull()
    return forecast.astype("f8").where(valid), reference.astype("f8").where(valid)


class EnsembleMetric(PointMetric):
    """A metric of an ensemble made of means of statistics per grid point."""

    ensemble = True

    def pair(self, forecast: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
        """Members and reference, see :func:`member_pair`."""
        return member_pair(forecast, reference)


@dataclass(frozen=True, eq=False)
class CRPS(EnsembleMetric):
    """Continuous ranked probability score, ``mean|x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1))``.

    In the units of the fields; 0 is perfect. ``kind="fair"`` (default) is the formula above, whose
    expectation does not depend on M and which can be negative; ``kind="ecdf"`` divides by 2 M^2 and is the
    score of the ensemble's step function. For one member both are the absolute error. References: Gneiting
    and Raftery (2007), doi:10.1198/016214506000001437; Ferro (2014), doi:10.1002/qj.2270 (fair).
    """

    name = "crps"
    title = "CRPS"
    long_name = "continuous ranked probability score"
    units = "field"
    best = "lower"
    formula = "mean|x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1))"
    source = "Ferro (2014)"

    kind: CRPSKind = "fair"

    def statistics(self, forecast: xr.DataArray, reference: xr.DataArray) -> dict[str, xr.DataArray]:
        """The score of every point."""
        _check("kind", self.kind, ("fair", "ecdf"))

        def score(members: Array, y: Array) -> Array:
            count = members.shape[-1]
            error = np.abs(members - y[..., None]).mean(axis=-1)
            if count == 1:
                return np.asarray(error)
            # The sum over all pairs of |x_i - x_j| is linear in the sorted members.
            order = 2 * np.arange(1, count + 1) - count - 1
            pairs = np.sort(members, axis=-1) @ order.astype(np.float64)
            return np.asarray(error - pairs / (count * (count - 1 if self.kind == "fair" else count)))

        values = xr.apply_ufunc(
            score,
            forecast,
            reference,
            input_core_dims=[[MEMBER], []],
            dask="parallelized",
            dask_gufunc_kwargs={"allow_rechunk": True},
            output_dtypes=[np.float64],
        )
        return {"crps": values}

    def score(self, means: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """Its mean."""
        return means["crps"]


class EnsembleMeanRMSE(EnsembleMetric):
    """RMSE of the ensemble mean (the skill), ``sqrt(mean((mean_i x_i - y)^2))``, in the units of the fields.

    For one member the RMSE. Reference: Fortin et al. (2014), doi:10.1175/JHM-D-14-0008.1.
    """

    name = "ensemble_rmse"
    title = "RMSE of the mean"
    long_name = "root-mean-square error of the ensemble mean"
    units = "field"
    best = "lower"
    formula = "sqrt(mean((mean_i x_i - y)^2))"
    source = "Fortin et al. (2014)"

    def statistics(self, forecast: xr.DataArray, reference: xr.DataArray) -> dict[str, xr.DataArray]:
        """The squared error of the mean of the members."""
        return {"squared_error": (forecast.mean(MEMBER) - reference) ** 2}

    def score(self, means: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """The root of its mean."""
        return means["squared_error"] ** 0.5


def _variance(forecast: xr.DataArray) -> xr.DataArray:
    """Unbiased variance of the members (ddof 1); NaN for one member, which has none."""
    if forecast.sizes[MEMBER] == 1:
        return forecast.isel({MEMBER: 0}, drop=True) * np.nan
    return forecast.var(MEMBER, ddof=1, skipna=False)


class Spread(EnsembleMetric):
    """Ensemble spread, ``sqrt(mean(var_i x_i))`` with the unbiased variance (ddof 1), in units of the fields.

    The mean is taken before the root. NaN for one member. Reference: Fortin et al. (2014),
    doi:10.1175/JHM-D-14-0008.1.
    """

    name = "spread"
    title = "Spread"
    long_name = "ensemble spread"
    units = "field"
    best = "none"
    formula = "sqrt(mean(var_i x_i))"
    source = "Fortin et al. (2014)"

    def statistics(self, forecast: xr.DataArray, reference: xr.DataArray) -> dict[str, xr.DataArray]:
        """The variance of the members."""
        return {"variance": _variance(forecast)}

    def score(self, means: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """The root of its mean."""
        return means["variance"] ** 0.5


@dataclass(frozen=True, eq=False)
class SpreadSkillRatio(EnsembleMetric):
    """Spread over skill, ``sqrt((M + 1) / M) spread / rmse(mean_i x_i)``, dimensionless, 1 is perfect.

    Below 1 the ensemble is too sure of itself. ``corrected=False`` leaves out the factor for the finite
    ensemble, without which a perfect one falls short of 1. NaN for one member and where the error is 0.
    Reference: Fortin et al. (2014), doi:10.1175/JHM-D-14-0008.1.
    """

    name = "spread_skill_ratio"
    title = "Spread-skill ratio"
    long_name = "ratio of ensemble spread and error of the ensemble mean"
    units = "1"
    best = "one"
    formula = "sqrt((M + 1) / M) spread / rmse(mean_i x_i)"
    source = "Fortin et al. (2014)"

    corrected: bool = True

    def statistics(self, forecast: xr.DataArray, reference: xr.DataArray) -> dict[str, xr.DataArray]:
        """Variance of the members, with the factor, and squared error of their mean."""
        count = forecast.sizes[MEMBER]
        factor = (count + 1) / count if self.corrected else 1.0
        return {
            "variance": factor * _variance(forecast),
            "squared_error": (forecast.mean(MEMBER) - reference) ** 2,
        }

    def score(self, means: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """The ratio of the roots of both means."""
        error = means["squared_error"]
        return (means["variance"] / error.where(error > 0)) ** 0.5


@dataclass(frozen=True, eq=False)
class Brier(EnsembleMetric):
    """Brier score of an event, ``mean((p - o)^2 - p (1 - p) / (M - 1))``, dimensionless, 0 is perfect.

    p is the share of the members in which the event happens, o is 1 where it happened. Options:
    ``threshold`` (required) and ``comparison`` say what the event is (default: value > threshold);
    ``fair=False`` leaves out the last term, the correction for the finite ensemble, which is also left out
    for one member. References: Wilks (2019), section 9.4; Ferro (2014), doi:10.1002/qj.2270 (fair).
    """

    name = "brier"
    title = "Brier score"
    long_name = "Brier score"
    units = "1"
    best = "lower"
    formula = "mean((p - o)^2 - p (1 - p) / (M - 1))"
    source = "Ferro (2014)"
    required = ("threshold",)

    threshold: float | None = None
    comparison: Comparison = ">"
    fair: bool = True

    def statistics(self, forecast: xr.DataArray, reference: xr.DataArray) -> dict[str, xr.DataArray]:
        """The score of every point."""
        self._needs("threshold", "the value that makes the event")
        probability, happened = _event(forecast, reference, self.threshold, self.comparison)
        count = forecast.sizes[MEMBER]
        score = (probability - happened) ** 2
        if self.fair and count > 1:
            score = score - probability * (1 - probability) / (count - 1)
        return {"brier": score}

    def score(self, means: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """Its mean."""
        return means["brier"]


def _event(
    forecast: xr.DataArray, reference: xr.DataArray, threshold: float | None, comparison: str
) -> tuple[xr.DataArray, xr.DataArray]:
    """Forecast probability of an event and whether it happened (1 or 0), NaN where the reference is."""
    _check("comparison", comparison, tuple(COMPARE))
    compare, valid = COMPARE[comparison], reference.notnull()
    assert threshold is not None
    probability = compare(forecast, threshold).mean(MEMBER).where(valid)
    return probability, compare(reference, threshold).astype("f8").where(valid)


@dataclass(frozen=True, eq=False)
class _EnsembleCurve(Metric):
    """A curve made of sums in bins.

    ``weights`` (option): as in :class:`~core.metrics.metric.PointMetric`.
    """

    result: ClassVar[Literal["score", "curve"]] = "curve"
    ensemble: ClassVar[bool] = True

    weights: xr.DataArray | None = None

    @abstractmethod
    def sums(
        self, forecast: xr.DataArray, reference: xr.DataArray, weight: xr.DataArray, dims: list[str]
    ) -> dict[str, xr.DataArray]:
        """Sums over ``dims`` per bin; ``weight`` among them where shares are of a bin and not of all."""

    def partial(
        self, forecast: xr.DataArray, reference: xr.DataArray, *, reduce: str | Iterable[str] = FIELD
    ) -> xr.Dataset:
        """Sums per bin over ``reduce``."""
        dims = reduced_dims(reduce, forecast, reference, used_up=True)
        f, r = member_pair(forecast, reference)
        # As in a point metric, a point of any dimension of the members counts alone.
        weight = point_weights(self.weights, f.isel({MEMBER: 0}, drop=True))
        return xr.Dataset(
            {"weight": weight.sum(dims), **self.sums(f, r, weight, dims)}, attrs=units_of(reference)
        )


@dataclass(frozen=True, eq=False)
class RankHistogram(_EnsembleCurve):
    """Relative frequency of the rank of the reference among the members, ``n_k / n``, dims (..., rank).

    rank k = number of members below the reference, 0 to M; flat (1 / (M + 1)) for a reliable ensemble,
    U-shaped for too little spread. Where the reference ties with e members, ``ties="even"`` (default) splits
    the point evenly between its e + 1 possible ranks, so that a reliable ensemble stays flat;
    ``ties="average"`` counts it at the average rank, halves rounded up. References: Hamill (2001),
    doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2; Wilks (2019), section 9.7.
    """

    name = "rank_histogram"
    title = "Rank histogram"
    long_name = "relative frequency of the rank of the reference among the members"
    units = "1"
    best = "none"
    formula = "n_k / n"
    source = "Hamill (2001)"

    ties: Ties = "even"

    def sums(
        self, forecast: xr.DataArray, reference: xr.DataArray, weight: xr.DataArray, dims: list[str]
    ) -> dict[str, xr.DataArray]:
        """Sums of weights per rank."""
        _check("ties", self.ties, ("even", "average"))
        ranks = forecast.sizes[MEMBER] + 1
        below, equal = (forecast < reference).sum(MEMBER), (forecast == reference).sum(MEMBER)
        # Every (below, equal) pair has its own bin, which its possible ranks then share.
        index = (below * ranks + equal).where(weight > 0, -1).astype(np.intp)
        pairs = binned_sum(index, weight, ranks**2, dims, "pair")
        shares = xr.DataArray(_rank_shares(ranks, self.ties), dims=("pair", "rank"))
        counts = xr.dot(pairs, shares, dim="pair").assign_coords(rank=np.arange(ranks))
        return {"counts": counts}

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """Counts over their total."""
        return self._labelled(means(partial)["counts"], partial)


def _rank_shares(ranks: int, ties: str) -> Array:
    """Share of every rank in a point with ``below`` members below and ``equal`` ties, (pairs, ranks)."""
    below, equal = (part.ravel()[:, None] for part in np.indices((ranks, ranks)))
    rank = np.arange(ranks)[None, :]
    if ties == "average":
        return np.asarray((rank == (2 * below + equal + 1) // 2).astype(np.float64))
    return np.asarray(((rank >= below) & (rank <= below + equal)) / (equal + 1))


@dataclass(frozen=True, eq=False)
class Reliability(_EnsembleCurve):
    """How often an event happened when it was forecast with probability p, ``mean(o | p)``, dimensionless.

    Dims (..., probability_bin). Coordinates: ``forecast_probability``, the mean forecast probability of the
    bin, against which the result is drawn (a reliable ensemble lies on the diagonal), and ``samples``, the
    sum of weights in the bin. NaN for empty bins. Options: ``threshold`` (required), ``comparison`` as in
    :class:`Brier`; ``edges`` of the bins of probability, by default one bin for each possible k / M.
    Reference: Wilks (2019), section 9.4.
    """

    name = "reliability"
    title = "Reliability"
    long_name = "observed relative frequency given the forecast probability"
    units = "1"
    best = "none"
    formula = "mean(o | p)"
    source = "Wilks (2019), section 9.4"
    required = ("threshold",)

    threshold: float | None = None
    comparison: Comparison = ">"
    edges: ArrayLike | None = None

    def sums(
        self, forecast: xr.DataArray, reference: xr.DataArray, weight: xr.DataArray, dims: list[str]
    ) -> dict[str, xr.DataArray]:
        """Sums of weight, probability and event per bin of probability."""
        self._needs("threshold", "the value that makes the event")
        probability, happened = _event(forecast, reference, self.threshold, self.comparison)
        count = forecast.sizes[MEMBER]
        edges = np.arange(-0.5, count + 1) / count if self.edges is None else checked_edges(self.edges)
        return _sums_in_bins(
            probability,
            {"forecast": probability, "observed": happened},
            edges,
            weight,
            dims,
            "probability_bin",
        )

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """Means per bin."""
        mean = means(partial)
        curve = self._labelled(mean["observed"], partial)
        return curve.assign_coords(forecast_probability=mean["forecast"], samples=partial["weight"])


@dataclass(frozen=True, eq=False)
class SpreadError(_EnsembleCurve):
    """Error of the ensemble mean given the spread, ``sqrt(mean((mean_i x_i - y)^2 | sd_i x_i))``.

    In the units of the fields, dims (..., spread_bin). Coordinates: ``spread``, the root of the mean
    variance (ddof 1) in the bin, against which the result is drawn (on the diagonal the spread says how
    large the error is), and ``samples``, the sum of weights in the bin. ``edges`` (required option): the
    bins of the standard deviation of the members. NaN for empty bins. Reference: Leutbecher and Palmer
    (2008), doi:10.1016/j.jcp.2007.02.014.
    """

    name = "spread_error"
    title = "Error given spread"
    long_name = "root-mean-square error of the ensemble mean given the spread"
    units = "field"
    best = "none"
    formula = "sqrt(mean((mean_i x_i - y)^2 | sd_i x_i))"
    source = "Leutbecher and Palmer (2008)"
    required = ("edges",)

    edges: ArrayLike | None = None

    def sums(
        self, forecast: xr.DataArray, reference: xr.DataArray, weight: xr.DataArray, dims: list[str]
    ) -> dict[str, xr.DataArray]:
        """Sums of weight, variance and squared error per bin of spread."""
        self._needs("edges", "the edges of the bins of spread, in the units of the fields")
        variance = _variance(forecast)
        squared_error = (forecast.mean(MEMBER) - reference) ** 2
        values = {"variance": variance, "squared_error": squared_error}
        edges = checked_edges(self.edges)  # type: ignore[arg-type]
        return _sums_in_bins(variance**0.5, values, edges, weight, dims, "spread_bin", units_of(reference))

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """Roots of the means per bin."""
        mean = means(partial)
        curve = self._labelled(mean["squared_error"] ** 0.5, partial)
        return curve.assign_coords(spread=mean["variance"] ** 0.5, samples=partial["weight"])


def _sums_in_bins(
    by: xr.DataArray,
    values: Mapping[str, xr.DataArray],
    edges: Array,
    weight: xr.DataArray,
    dims: list[str],
    dim: str,
    attrs: Mapping[str, str] | None = None,
) -> dict[str, xr.DataArray]:
    """Sum of the weight and of the weighted values in bins of ``by``."""
    index = bin_index(by, edges).where(weight > 0, -1).astype(np.intp)
    terms = {"weight": weight, **{name: weight * field.fillna(0) for name, field in values.items()}}
    coords = bin_coords(edges, dim, (attrs or {}).get("units"))
    return {
        name: binned_sum(index, term, edges.size - 1, dims, dim).assign_coords(coords)
        for name, term in terms.items()
    }


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise MetricError(f"Unknown {name} {value!r}; choose one of {', '.join(allowed)}.")


crps, brier = CRPS(), Brier()
ensemble_rmse, spread, spread_skill_ratio = EnsembleMeanRMSE(), Spread(), SpreadSkillRatio()
rank_histogram, reliability, spread_error = RankHistogram(), Reliability(), SpreadError()

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        crps,
        ensemble_rmse,
        spread,
        spread_skill_ratio,
        brier,
        rank_histogram,
        reliability,
        spread_error,
    )
}
"""The scores of ensembles by name."""
