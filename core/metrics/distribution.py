"""Frequency distributions and their extremes.

Histograms need bins that are stated, so that those of different hours and forecasts can be added and laid
over one another; :func:`bin_edges` makes them. Distributions over land or sea come from ``weights``: the land
fraction, or one minus it. Points where either field is NaN are left out of both distributions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from core.metrics.binning import Array, bin_coords, bin_index, binned_sum, checked_edges
from core.metrics.metric import (
    FIELD,
    Metric,
    MetricError,
    means,
    pair,
    point_weights,
    reduced_dims,
    sums_of_values,
    units_of,
)

MOST_BINS = 100_000
"""More bins than this are taken for a mistake in their width."""


def bin_edges(*fields: xr.DataArray, width: float) -> Array:
    """Edges at multiples of ``width`` that enclose all finite values of the fields.

    Raises MetricError for a width that is not positive, too many bins, or fields without a value.
    """
    if not (np.isfinite(width) and width > 0):
        raise MetricError(f"The width of bins has to be a positive number; it is {width}.")
    bounds = [(float(f.min()), float(f.max())) for f in (f.where(np.isfinite(f)) for f in fields)]
    low = min((low for low, _ in bounds if np.isfinite(low)), default=math.nan)
    high = max((high for _, high in bounds if np.isfinite(high)), default=math.nan)
    if np.isnan(low):
        raise MetricError("The fields have no value, so no bins can be made from them.")
    first = math.floor(low / width)
    count = max(math.ceil(high / width) - first, 1)
    if count > MOST_BINS:
        raise MetricError(f"Bins of {width:g} would be {count} in number; choose wider ones.")
    return width * np.arange(first, first + count + 1, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Binned(Metric):
    """Counts of both fields in the same bins.

    ``edges`` (option): the bins, see :func:`bin_edges`. ``weights``: as in ``PointMetric``.
    """

    required: ClassVar[tuple[str, ...]] = ("edges",)

    edges: ArrayLike | None = None
    weights: xr.DataArray | None = None

    def partial(
        self, forecast: xr.DataArray, reference: xr.DataArray, *, reduce: str | Iterable[str] = FIELD
    ) -> xr.Dataset:
        """Sums of weights per bin for both fields, and over all values."""
        self._needs("edges", "the edges of the bins, in the units of the fields")
        edges = checked_edges(self.edges)  # type: ignore[arg-type]
        dims = reduced_dims(reduce, forecast, reference)
        f, r = pair(forecast, reference)
        weight = point_weights(self.weights, f, r)
        counts = [
            binned_sum(bin_index(field, edges), weight, edges.size - 1, dims, "bin") for field in (f, r)
        ]
        both = xr.concat(counts, xr.Variable("field", ["forecast", "reference"]))
        attrs = units_of(reference)
        both = both.assign_coords(bin_coords(edges, "bin", attrs.get("units")))
        return xr.Dataset({"counts": both, "weight": weight.sum(dims)}, attrs=attrs)


class Histogram(_Binned):
    """Frequency distributions of both fields as densities, ``n_b / (n width_b)``, in 1/units of the fields.

    Dims (field, ..., bin) with field = forecast, reference and bin the centres; ``bin_lower`` and
    ``bin_upper`` are the edges. A bin holds its lower edge, the last one its upper edge too. n counts all
    values, also those outside of the bins, so that the density integrates to the share inside. Reference:
    Wilks (2019), section 3.3.
    """

    name = "histogram"
    title = "Frequency distribution"
    long_name = "probability density of the values"
    units = "1/field"
    best = "none"
    result = "curve"
    formula = "n_b / (n width_b)"
    source = "Wilks (2019), section 3.3"

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """Counts over their total and the width of the bins."""
        share = means(partial)["counts"]
        return self._labelled(share / (share["bin_upper"] - share["bin_lower"]), partial)


class PerkinsScore(_Binned):
    """Common area of two frequency distributions, ``sum_b min(p_f, p_r)``, dimensionless, 1 is perfect.

    p are shares of the values per bin, so the score depends on the bins: state them. Places do not matter,
    only how often values occur. Reference: Perkins et al. (2007), doi:10.1175/JCLI4253.1.
    """

    name = "perkins"
    title = "Perkins score"
    long_name = "common area of two frequency distributions"
    units = "1"
    best = "higher"
    formula = "sum_b min(p_f, p_r)"
    source = "Perkins et al. (2007)"

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """The smaller of the two shares, summed over the bins."""
        share = means(partial)["counts"]
        score = share.min("field", skipna=False).sum("bin", skipna=False)
        return self._labelled(score, partial)


@dataclass(frozen=True, eq=False)
class PercentileError(Metric):
    """Difference of percentiles, ``P_q(f) - P_q(r)``, in the units of the fields.

    Percentiles (linear interpolation between ranks, NaN left out of both) are those of each hour's field
    where ``reduce`` holds y and x, averaged over what else is in ``reduce``; otherwise those over all
    dimensions of ``reduce``, as with ``reduce="time"`` for a map, which needs all hours at once.
    Reference: Hyndman and Fan (1996), definition 7, doi:10.1080/00031305.1996.10473566.

    Options: ``percentile`` q (0 to 100); ``mask``, True where points count (others are left out).
    """

    name: ClassVar[str] = "percentile_error"
    title: ClassVar[str] = "Percentile error"
    long_name: ClassVar[str] = "error of a percentile"
    units = "field"
    best = "zero"
    formula = "P_q(f) - P_q(r)"
    source = "Hyndman and Fan (1996)"

    percentile: float = 99.0
    mask: xr.DataArray | None = None

    def partial(
        self, forecast: xr.DataArray, reference: xr.DataArray, *, reduce: str | Iterable[str] = FIELD
    ) -> xr.Dataset:
        """Sum and number of the differences of fields, or the difference itself."""
        if not 0 <= self.percentile <= 100:
            raise MetricError(f"A percentile lies between 0 and 100; {self.percentile:g} does not.")
        dims = reduced_dims(reduce, forecast, reference)
        f, r = pair(forecast, reference)
        if self.mask is not None:
            counts = point_weights(self.mask.astype("f8"), f, r) > 0
            f, r = f.where(counts), r.where(counts)
        fields = set(FIELD) <= set(dims)
        inner = list(FIELD) if fields else dims
        # A field may have members that the reference lacks; it then is the same for all of them.
        error = _percentile(f, self.percentile, inner) - _percentile(r, self.percentile, inner)
        rest = [dim for dim in dims if dim not in inner]
        attrs = {**units_of(reference), "percentiles": "of fields" if fields else "of everything"}
        return sums_of_values(error, rest, attrs)

    def merge(self, one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
        """Sums add up; MetricError where percentiles were not taken of whole fields."""
        if one.attrs["percentiles"] != "of fields":
            raise MetricError("Percentiles over hours need all hours at once; they can't be merged.")
        return super().merge(one, other)

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """The average difference."""
        score = self._labelled(means(partial)["value"], partial)
        score.attrs["percentile"] = self.percentile
        return score


@dataclass(frozen=True, eq=False)
class LowPercentileError(PercentileError):
    """Error of the cold or dry extreme, ``P_1(f) - P_1(r)``, in the units of the fields.

    :class:`PercentileError` of the 1st percentile. Reference: Hyndman and Fan (1996).
    """

    name = "p01_error"
    title = "1st percentile error"
    long_name = "error of the 1st percentile"
    formula = "P_1(f) - P_1(r)"

    percentile: float = 1.0


@dataclass(frozen=True, eq=False)
class HighPercentileError(PercentileError):
    """Error of the warm or wet extreme, ``P_99(f) - P_99(r)``, in the units of the fields.

    :class:`PercentileError` of the 99th percentile. Reference: Hyndman and Fan (1996).
    """

    name = "p99_error"
    title = "99th percentile error"
    long_name = "error of the 99th percentile"
    formula = "P_99(f) - P_99(r)"

    percentile: float = 99.0


def _percentile(values: xr.DataArray, percentile: float, dims: Sequence[str]) -> xr.DataArray:
    def of(block: Array) -> Array:
        block = block.reshape(*block.shape[: block.ndim - len(dims)], -1)
        gaps = np.isnan(block)
        if not gaps.any():
            return np.asarray(np.percentile(block, percentile, axis=-1))
        empty = np.asarray(gaps.all(axis=-1))
        block = np.where(empty[..., None], 0.0, block)
        return np.where(empty, np.nan, np.nanpercentile(block, percentile, axis=-1))

    result: xr.DataArray = xr.apply_ufunc(
        of,
        values,
        input_core_dims=[list(dims)],
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[np.float64],
    )
    return result


histogram, perkins = Histogram(), PerkinsScore()
percentile_error, p01_error, p99_error = PercentileError(), LowPercentileError(), HighPercentileError()

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (p01_error, p99_error, percentile_error, perkins, histogram)
}
"""The metrics of distributions by name."""
