"""Deterministic scores of one field against another.

Every score has the signature ``metric(forecast, reference, *, reduce=("y", "x"))`` and follows the
same three steps: a statistic per grid point, its mean over ``reduce``, and the score made of those means.
Points where either field is NaN are left out of all means, so forecasts are compared on the same points as
the reference. Formulas: Wilks, Statistical Methods in the Atmospheric Sciences (4th ed., 2019), chapter 9.
"""

from __future__ import annotations

from collections.abc import Iterable

import xarray as xr

FIELD = ("y", "x")


class MetricError(ValueError):
    """Fields that can't be compared; the message says why."""


def _pair(
    forecast: xr.DataArray, reference: xr.DataArray, reduce: Iterable[str]
) -> tuple[xr.DataArray, xr.DataArray, list[str]]:
    """Both fields in float64 on the same points, NaN where either is."""
    dims = list(reduce)
    for name, field in (("forecast", forecast), ("reference", reference)):
        missing = [dim for dim in dims if dim not in field.dims]
        if missing:
            raise MetricError(
                f"The {name} has the dimensions {list(field.dims)}; it can't be reduced over {missing}."
            )
    try:
        forecast, reference = xr.align(forecast, reference, join="exact")
    except ValueError as error:
        raise MetricError(f"Forecast and reference do not lie on the same coordinates: {error}") from error
    valid = forecast.notnull() & reference.notnull()
    return forecast.astype("f8").where(valid), reference.astype("f8").where(valid), dims


def _score(values: xr.DataArray, name: str, long_name: str, units: str | None) -> xr.DataArray:
    values = values.rename(name)
    values.attrs = {"long_name": long_name}
    if units is not None:
        values.attrs["units"] = units
    return values


def bias(forecast: xr.DataArray, reference: xr.DataArray, *, reduce: Iterable[str] = FIELD) -> xr.DataArray:
    """Mean error, ``mean(f - r)``, in the units of the fields; positive where the forecast is too high.

    ``reduce`` names the dimensions averaged over; the others remain. Raises MetricError where the fields do
    not share coordinates or lack a dimension.
    """
    f, r, dims = _pair(forecast, reference, reduce)
    return _score((f - r).mean(dims), "bias", "mean error", reference.attrs.get("units"))


def mae(forecast: xr.DataArray, reference: xr.DataArray, *, reduce: Iterable[str] = FIELD) -> xr.DataArray:
    """Mean absolute error, ``mean(|f - r|)``, in the units of the fields.

    Dimensions and errors as in :func:`bias`.
    """
    f, r, dims = _pair(forecast, reference, reduce)
    return _score(abs(f - r).mean(dims), "mae", "mean absolute error", reference.attrs.get("units"))


def rmse(forecast: xr.DataArray, reference: xr.DataArray, *, reduce: Iterable[str] = FIELD) -> xr.DataArray:
    """Root-mean-square error, ``sqrt(mean((f - r)^2))``, in the units of the fields.

    Dimensions and errors as in :func:`bias`.
    """
    f, r, dims = _pair(forecast, reference, reduce)
    root = ((f - r) ** 2).mean(dims) ** 0.5
    return _score(root, "rmse", "root-mean-square error", reference.attrs.get("units"))


def r2(forecast: xr.DataArray, reference: xr.DataArray, *, reduce: Iterable[str] = FIELD) -> xr.DataArray:
    """Coefficient of determination, ``1 - mean((f - r)^2) / mean((r - mean r)^2)``, dimensionless.

    The reference provides the variance (the textbook form; the published notebooks swap the two
    arguments). NaN where the reference does not vary. Dimensions and errors as in :func:`bias`.
    """
    f, r, dims = _pair(forecast, reference, reduce)
    variance = ((r - r.mean(dims)) ** 2).mean(dims)
    ratio = ((f - r) ** 2).mean(dims) / variance.where(variance > 0)
    return _score(1 - ratio, "r2", "coefficient of determination", "1")


def pearson(
    forecast: xr.DataArray, reference: xr.DataArray, *, reduce: Iterable[str] = FIELD
) -> xr.DataArray:
    """Pearson correlation, ``cov(f, r) / (sd(f) sd(r))``, dimensionless.

    NaN where either field does not vary. Dimensions and errors as in :func:`bias`.
    """
    f, r, dims = _pair(forecast, reference, reduce)
    f, r = f - f.mean(dims), r - r.mean(dims)
    variances = (f**2).mean(dims) * (r**2).mean(dims)
    correlation = (f * r).mean(dims) / variances.where(variances > 0) ** 0.5
    return _score(correlation, "pearson", "Pearson correlation", "1")


METRICS = {"rmse": rmse, "mae": mae, "bias": bias, "r2": r2, "pearson": pearson}
"""The deterministic scores by name, in the order in which tables show them."""
