"""What a metric is: sums of statistics that can be merged, and a score made of them.

Every metric takes three steps: a statistic, its (weighted) mean over ``reduce``, the score made of the means.
The middle step is kept as sums, so that a year of hours needs no more memory than a few: each batch of hours
gives a small dataset of sums (``partial``), datasets of batches are merged (``merge``), and the score is made
once at the end (``finish``). Calling a metric does all three at once, with the same result:

    rmse(forecast, reference, reduce=("time", "y", "x"))

    total = Accumulator(rmse, reduce=("time", "y", "x"))
    for hours in batches:
        total.add(forecast.sel(time=hours), reference.sel(time=hours))
    total.result()

The design follows WeatherBench-X (Rasp et al. 2024, doi:10.1029/2023MS004019, and its software): statistics,
aggregation, metrics. Arrays of dask stay lazy, and results do not depend on their chunks beyond rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import xarray as xr

FIELD = ("y", "x")
MEMBER = "member"

Best = Literal["lower", "higher", "zero", "one", "none"]
Units = Literal["field", "1", "1/field", "own"]


class MetricError(ValueError):
    """Fields or options that can't be scored; the message says why."""


@dataclass(frozen=True, eq=False)
class Metric(ABC):
    """A metric with its options; call it as ``metric(forecast, reference, *, reduce=..., **options)``.

    Options are the fields of the class. ``metric.configured(name=value)`` gives the metric with other ones,
    and so does naming them in a call.

    Attributes
    ----------
    name, title, long_name : key, short label for tables, description in words
    units : "field" (those of the fields), "1/field", "1" (dimensionless) or "own", which ``units_for`` gives
    best : which values are good: the lowest, the highest, the nearest to zero or to one; "none" where the
        metric describes and does not rank
    formula, source : as in the documentation of the metric
    result : "score" gives one number per case, "curve" a dimension of its own (``own_dims``)
    required : options without a default that a call has to give
    ensemble : whether the forecast's dimension ``member`` is used up; others score every member alone
    same_grid : whether forecast and reference have to lie on the same coordinates
    """

    name: ClassVar[str]
    title: ClassVar[str]
    long_name: ClassVar[str]
    units: ClassVar[Units]
    best: ClassVar[Best]
    formula: ClassVar[str]
    source: ClassVar[str]
    result: ClassVar[Literal["score", "curve"]] = "score"
    required: ClassVar[tuple[str, ...]] = ()
    ensemble: ClassVar[bool] = False
    same_grid: ClassVar[bool] = True

    def __call__(
        self,
        forecast: xr.DataArray,
        reference: xr.DataArray,
        *,
        reduce: str | Iterable[str] = FIELD,
        **options: Any,
    ) -> xr.DataArray:
        """The score over the dimensions ``reduce``; those that are not named remain.

        Raises MetricError where the fields do not share coordinates or lack a dimension, and for options
        that the metric does not have.
        """
        metric = self.configured(**options)
        return metric.finish(metric.partial(forecast, reference, reduce=reduce))

    def configured(self, **options: Any) -> Self:
        """The same metric with other options; MetricError for options that it does not have."""
        known = [field.name for field in fields(self)]
        if strangers := sorted(set(options) - set(known)):
            raise MetricError(
                f"The metric {self.name} has no option {', '.join(strangers)}; "
                + (f"it has {', '.join(known)}." if known else "it has none.")
            )
        return replace(self, **options) if options else self

    @abstractmethod
    def partial(
        self, forecast: xr.DataArray, reference: xr.DataArray, *, reduce: str | Iterable[str] = FIELD
    ) -> xr.Dataset:
        """Sums over ``reduce`` from which the score is made; the sums of batches can be merged."""

    def merge(self, one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
        """The partial of two batches together; MetricError where their remaining coordinates differ."""
        one, other = self._aligned(one, other)
        return (one + other).assign_attrs(one.attrs)

    @abstractmethod
    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """The score made of the sums."""

    def penalty(self, score: xr.DataArray) -> xr.DataArray:
        """How far a score is from the best one, so that the lowest wins whatever the metric.

        Raises MetricError for a metric that does not rank.
        """
        match self.best:
            case "lower":
                return score
            case "higher":
                return -score
            case "zero":
                return abs(score)
            case "one":
                return abs(score - 1)
            case "none":
                raise MetricError(f"{self.title} describes a forecast and does not rank it.")

    def units_for(self, units: str | None) -> str | None:
        """Units of the score for fields in ``units``; None where those are not known."""
        if self.units == "1":
            return "1"
        if units is None or self.units == "field":
            return units
        return "1" if units == "1" else f"({units})-1"

    def _aligned(self, one: xr.Dataset, other: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        try:
            return xr.align(one, other, join="exact")
        except ValueError as error:
            raise MetricError(
                f"Batches of {self.title} can't be merged, they differ in more than their hours: {error}"
            ) from error

    def _labelled(self, score: xr.DataArray, partial: xr.Dataset) -> xr.DataArray:
        score = score.rename(self.name)
        score.attrs = {"long_name": self.long_name}
        units = self.units_for(partial.attrs.get("units"))
        if units is not None:
            score.attrs["units"] = units
        return score

    def _needs(self, option: str, meaning: str) -> None:
        if getattr(self, option) is None:
            raise MetricError(f"{self.title} needs the option {option}: {meaning}.")


@dataclass(frozen=True, eq=False)
class PointMetric(Metric):
    """A metric made of means of statistics per grid point.

    ``weights`` (option): non-negative weights, dims among those of the fields, for example the land
    fraction; NaN counts as 0, None weighs all points alike. Points with a missing statistic are left out.
    """

    weights: xr.DataArray | None = None

    @abstractmethod
    def statistics(self, forecast: xr.DataArray, reference: xr.DataArray) -> dict[str, xr.DataArray]:
        """Statistics per point from two aligned float64 fields, NaN where either is."""

    @abstractmethod
    def score(self, means: Mapping[str, xr.DataArray]) -> xr.DataArray:
        """The score made of the means of the statistics."""

    def pair(self, forecast: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
        """The two fields made comparable, see :func:`pair`."""
        return pair(forecast, reference)

    def partial(
        self, forecast: xr.DataArray, reference: xr.DataArray, *, reduce: str | Iterable[str] = FIELD
    ) -> xr.Dataset:
        """Sums of the weighted statistics and of the weights over ``reduce``."""
        dims = reduced_dims(reduce, forecast, reference, used_up=self.ensemble)
        f, r = self.pair(forecast, reference)
        statistics = self.statistics(f, r)
        weight = point_weights(self.weights, *statistics.values())
        sums = {name: (weight * values).sum(dims) for name, values in statistics.items()}
        return xr.Dataset({**sums, "weight": weight.sum(dims)}, attrs=units_of(reference))

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """The score; NaN where no point counts."""
        return self._labelled(self.score(means(partial)), partial)


@dataclass(frozen=True, eq=False)
class FieldMetric(Metric):
    """A metric of one whole (y, x) field, averaged over what else is in ``reduce``: hours, members.

    Hours without a value are left out of the average.
    """

    @abstractmethod
    def values(self, forecast: xr.DataArray, reference: xr.DataArray) -> xr.DataArray:
        """The metric of every field, dims without y and x; NaN where it is undefined."""

    def partial(
        self, forecast: xr.DataArray, reference: xr.DataArray, *, reduce: str | Iterable[str] = FIELD
    ) -> xr.Dataset:
        """Sum and number of the fields' values."""
        dims = reduced_dims(reduce, forecast, reference)
        if not set(FIELD) <= set(dims):
            raise MetricError(f"{self.title} is a property of whole fields; reduce has to hold y and x.")
        return sums_of_values(self.values(forecast, reference), dims, units_of(reference))

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """The average of the fields' values."""
        return self._labelled(means(partial)["value"], partial)


class Accumulator:
    """A metric over more hours than fit into memory: ``add`` batches, then ``result``.

    Parameters
    ----------
    metric, reduce, options : as in the call of the metric; ``over`` has to be among ``reduce``
    over : the dimension that is split into batches

    The batches must not share hours; each is summed at once, so that its fields may be dropped.
    """

    def __init__(
        self,
        metric: Metric,
        *,
        reduce: str | Iterable[str] = ("time", *FIELD),
        over: str = "time",
        **options: Any,
    ) -> None:
        self.metric = metric.configured(**options)
        self.reduce = names(reduce)
        if over not in self.reduce:
            raise MetricError(
                f"Batches of {over} can be merged only where {over} is reduced; reduce is {self.reduce}."
            )
        self._total: xr.Dataset | None = None

    def add(self, forecast: xr.DataArray, reference: xr.DataArray) -> Self:
        """Sum a batch and merge it with those before; returns itself."""
        return self._merge(self.metric.partial(forecast, reference, reduce=self.reduce).compute())

    def merge(self, other: Accumulator) -> Self:
        """Take in what another accumulator of the same metric has summed; returns itself."""
        return self if other._total is None else self._merge(other._total)

    def result(self) -> xr.DataArray:
        """The metric of all batches together; MetricError before the first one."""
        if self._total is None:
            raise MetricError(f"There is no {self.metric.title} yet: no batch was added.")
        return self.metric.finish(self._total)

    def _merge(self, partial: xr.Dataset) -> Self:
        self._total = partial if self._total is None else self.metric.merge(self._total, partial)
        return self


def names(reduce: str | Iterable[str]) -> list[str]:
    """Names of dimensions as a list, also where there is one alone."""
    return [reduce] if isinstance(reduce, str) else list(reduce)


def reduced_dims(
    reduce: str | Iterable[str],
    forecast: xr.DataArray,
    reference: xr.DataArray,
    *,
    used_up: bool = False,
) -> list[str]:
    """Dimensions to reduce over, all of them there; ``used_up`` leaves out ``member``.

    Only the forecast needs to have members. Raises MetricError that names what is missing.
    """
    dims = names(reduce)
    for name, field in (("forecast", forecast), ("reference", reference)):
        there = {*field.dims, MEMBER} if used_up or name == "reference" else set(field.dims)
        missing = [dim for dim in dims if dim not in there]
        if missing:
            raise MetricError(
                f"The {name} has the dimensions {list(field.dims)}; it can't be reduced over {missing}."
            )
    return [dim for dim in dims if not (used_up and dim == MEMBER)]


def aligned(forecast: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both fields if their coordinates are equal, else MetricError."""
    try:
        return xr.align(forecast, reference, join="exact")
    except ValueError as error:
        raise MetricError(f"Forecast and reference do not lie on the same coordinates: {error}") from error


def pair(forecast: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both fields in float64 on the same points, NaN where either is."""
    forecast, reference = aligned(forecast, reference)
    valid = forecast.notnull() & reference.notnull()
    return forecast.astype("f8").where(valid), reference.astype("f8").where(valid)


def point_weights(weights: xr.DataArray | None, *statistics: xr.DataArray) -> xr.DataArray:
    """Weight of every point, 0 where a statistic is missing; MetricError for weights that do not fit."""
    valid = statistics[0].notnull()
    for values in statistics[1:]:
        valid = valid & values.notnull()
    if weights is None:
        return valid.astype("f8")
    if strangers := [str(dim) for dim in weights.dims if dim not in valid.dims]:
        raise MetricError(f"The weights have a dimension {', '.join(strangers)} that the fields lack.")
    try:
        valid, weights = xr.align(valid, weights, join="exact")
    except ValueError as error:
        raise MetricError(f"The weights do not lie on the coordinates of the fields: {error}") from error
    return valid * weights.astype("f8").fillna(0)


def means(partial: xr.Dataset) -> dict[str, xr.DataArray]:
    """Sums over weights; NaN where the weights sum to 0."""
    weight = partial["weight"]
    weight = weight.where(weight > 0)
    return {str(name): sums / weight for name, sums in partial.items() if name != "weight"}


def sums_of_values(values: xr.DataArray, dims: Iterable[str], attrs: Mapping[str, str]) -> xr.Dataset:
    """The partial of values per field that only have to be averaged over what remains of ``dims``."""
    rest = [dim for dim in dims if dim in values.dims]
    count = values.notnull().astype("f8")
    return xr.Dataset({"value": values.fillna(0).sum(rest), "weight": count.sum(rest)}, attrs=dict(attrs))


def units_of(field: xr.DataArray) -> dict[str, str]:
    """The attribute units of a field, if it has one."""
    return {"units": field.attrs["units"]} if "units" in field.attrs else {}


def spacing(field: xr.DataArray, axis: str, what: str, *, cells: int = 2) -> float:
    """Distance between neighbouring cells along an axis, in the unit of its coordinate.

    Raises MetricError, on behalf of ``what``, unless there are at least ``cells`` evenly spaced ones.
    """
    if axis not in field.dims or axis not in field.coords:
        raise MetricError(f"{what} needs a field with coordinates y and x in metres; {axis} is missing.")
    values = np.asarray(field[axis].values, np.float64)
    steps = np.abs(np.diff(values))
    if values.size < cells or np.ptp(steps) > 1e-3 * steps.mean():
        raise MetricError(f"{what} needs at least {cells} evenly spaced cells along {axis}.")
    return float(steps.mean())
