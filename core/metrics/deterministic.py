"""Deterministic scores of one field against another.

Points where either field is NaN are left out of all means, so forecasts are compared on the same points as
the reference. A forecast with a dimension ``member`` gets a score for each member, or their average where
``member`` is among ``reduce``. ``reduce="time"`` gives maps. Formulas: Wilks, Statistical Methods in the
Atmospheric Sciences (4th ed., 2019), chapter 9.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import xarray as xr

from core.metrics.metric import (
    FIELD,
    Metric,
    PointMetric,
    means,
    pair,
    point_weights,
    reduced_dims,
    sums_of_values,
    units_of,
)
from core.metrics.metric import MetricError as MetricError

WILKS = "Wilks (2019), chapter 9"


class Bias(PointMetric):
    """Mean error, ``mean(f - r)``, in the units of the fields; positive where the forecast is too high.

    ``reduce`` names the dimensions averaged over; the others remain. Raises MetricError where the fields do
    not share coordinates or lack a dimension. Reference: Wilks (2019), chapter 9.
    """

    name = "bias"
    title = "Bias"
    long_name = "mean error"
    units = "field"
    best = "zero"
    formula = "mean(f - r)"
    source = WILKS

    def statistics(self, forecast: xr.DataArray, reference: xr.DataArray) -> dict[str, xr.DataArray]:
        """The error."""
        return {"error": forecast - reference}

    def score(self, means: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """Its mean."""
        return means["error"]


class MAE(PointMetric):
    """Mean absolute error, ``mean(|f - r|)``, in the units of the fields.

    Dimensions and errors as in :class:`Bias`. Reference: Wilks (2019), chapter 9.
    """

    name = "mae"
    title = "MAE"
    long_name = "mean absolute error"
    units = "field"
    best = "lower"
    formula = "mean(|f - r|)"
    source = WILKS

    def statistics(self, forecast: xr.DataArray, reference: xr.DataArray) -> dict[str, xr.DataArray]:
        """The absolute error."""
        return {"absolute_error": abs(forecast - reference)}

    def score(self, means: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """Its mean."""
        return means["absolute_error"]


class RMSE(PointMetric):
    """Root-mean-square error, ``sqrt(mean((f - r)^2))``, in the units of the fields.

    Over hours and fields at once (``reduce=("time", "y", "x")``) the mean is taken before the root, which is
    not the average of hourly values. Dimensions and errors as in :class:`Bias`. Reference: Wilks (2019),
    chapter 9.
    """

    name = "rmse"
    title = "RMSE"
    long_name = "root-mean-square error"
    units = "field"
    best = "lower"
    formula = "sqrt(mean((f - r)^2))"
    source = WILKS

    def statistics(self, forecast: xr.DataArray, reference: xr.DataArray) -> dict[str, xr.DataArray]:
        """The squared error."""
        return {"squared_error": (forecast - reference) ** 2}

    def score(self, means: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """The root of its mean."""
        return means["squared_error"] ** 0.5


@dataclass(frozen=True, eq=False)
class MomentMetric(Metric):
    """A score made of the variances and the covariance of both fields.

    Where ``reduce`` holds y and x, the moments are those of each hour's field and the scores are averaged
    over what else is in ``reduce``; hours in which the score is undefined are left out. Otherwise, as with
    ``reduce="time"``, they are moments over all dimensions of ``reduce``: a map of the score over hours.

    ``weights`` (option): as in :class:`~core.metrics.metric.PointMetric`.
    """

    weights: xr.DataArray | None = None

    @abstractmethod
    def of(self, moments: xr.Dataset) -> xr.DataArray:
        """The score of moments as :func:`_moments` gives them."""

    def partial(
        self, forecast: xr.DataArray, reference: xr.DataArray, *, reduce: str | Iterable[str] = FIELD
    ) -> xr.Dataset:
        """Sum and number of the scores of fields, or moments."""
        dims = reduced_dims(reduce, forecast, reference)
        f, r = pair(forecast, reference)
        weight = point_weights(self.weights, f, r)
        if set(FIELD) <= set(dims):
            return sums_of_values(self.of(_moments(f, r, weight, list(FIELD))), dims, units_of(reference))
        return _moments(f, r, weight, dims).assign_attrs(units_of(reference))

    def merge(self, one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
        """Sums add up; moments about two means become moments about the common one (Chan et al. 1979)."""
        if "f" not in one:
            return super().merge(one, other)
        one, other = self._aligned(one, other)
        weight = one["weight"] + other["weight"]
        known = weight.where(weight > 0)
        step = {name: other[name] - one[name] for name in ("f", "r")}
        shared = (one["weight"] * other["weight"] / known).fillna(0)
        return xr.Dataset(
            {
                "weight": weight,
                **{name: one[name] + (step[name] * other["weight"] / known).fillna(0) for name in step},
                "ff": one["ff"] + other["ff"] + shared * step["f"] ** 2,
                "rr": one["rr"] + other["rr"] + shared * step["r"] ** 2,
                "fr": one["fr"] + other["fr"] + shared * step["f"] * step["r"],
                "squared_error": one["squared_error"] + other["squared_error"],
            },
            attrs=one.attrs,
        )

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """The average of the fields' scores, or the score of the moments."""
        score = self.of(partial) if "f" in partial else means(partial)["value"]
        return self._labelled(score, partial)


def _moments(f: xr.DataArray, r: xr.DataArray, weight: xr.DataArray, dims: list[str]) -> xr.Dataset:
    """Weighted means f, r (0 where nothing counts), sums of squares and products about them, and errors.

    About the means and not about 0, so that fields of some 300 K keep their digits.
    """
    total = weight.sum(dims)
    known = total.where(total > 0)
    mean_f, mean_r = (((weight * field).sum(dims) / known).fillna(0) for field in (f, r))
    f_away, r_away = f - mean_f, r - mean_r
    return xr.Dataset(
        {
            "weight": total,
            "f": mean_f,
            "r": mean_r,
            "ff": (weight * f_away**2).sum(dims),
            "rr": (weight * r_away**2).sum(dims),
            "fr": (weight * f_away * r_away).sum(dims),
            "squared_error": (weight * (f - r) ** 2).sum(dims),
        }
    )


class R2(MomentMetric):
    """Coefficient of determination, ``1 - mean((f - r)^2) / mean((r - mean r)^2)``, dimensionless.

    The reference provides the variance (the textbook form; the published notebooks swap the two
    arguments). Of each hour's field, averaged over hours where ``reduce`` holds y, x and time; of the hours
    at each point with ``reduce="time"``. NaN where the reference does not vary. Dimensions and errors as in
    :class:`Bias`. Reference: Wilks (2019), chapter 9.
    """

    name = "r2"
    title = "R²"
    long_name = "coefficient of determination"
    units = "1"
    best = "higher"
    formula = "1 - mean((f - r)^2) / mean((r - mean r)^2)"
    source = WILKS

    def of(self, moments: xr.Dataset) -> xr.DataArray:
        """One minus the ratio of the sums of squares."""
        return 1 - moments["squared_error"] / moments["rr"].where(moments["rr"] > 0)


class Pearson(MomentMetric):
    """Pearson correlation, ``cov(f, r) / (sd(f) sd(r))``, dimensionless.

    Of each hour's field, averaged over hours where ``reduce`` holds y, x and time; of the hours at each
    point with ``reduce="time"``. NaN where either field does not vary. Dimensions and errors as in
    :class:`Bias`. Reference: Wilks (2019), chapter 9.
    """

    name = "pearson"
    title = "Pearson r"
    long_name = "Pearson correlation"
    units = "1"
    best = "higher"
    formula = "cov(f, r) / (sd(f) sd(r))"
    source = WILKS

    def of(self, moments: xr.Dataset) -> xr.DataArray:
        """The covariance over the standard deviations."""
        variances = moments["ff"] * moments["rr"]
        return moments["fr"] / variances.where(variances > 0) ** 0.5


rmse, mae, bias, r2, pearson = RMSE(), MAE(), Bias(), R2(), Pearson()

METRICS: dict[str, Metric] = {"rmse": rmse, "mae": mae, "bias": bias, "r2": r2, "pearson": pearson}
"""The deterministic scores by name, in the order in which tables show them."""
