"""Quadratic interpolation on the Italy domain against xarray."""

from __future__ import annotations

import numpy as np
import xarray as xr

from benchmarks.comparison import Comparison
from core.domain import ITALY
from core.downscale import QuadraticInterpolation
from core.interpolation import quadratic


def _xarray(field: xr.DataArray) -> np.ndarray:
    """Along one axis after the other: xarray has no quadratic interpolation along two at once."""
    for axis, centres in (("x", ITALY.fine.x), ("y", ITALY.fine.y)):
        field = field.interp({axis: centres}, method="quadratic", kwargs={"fill_value": "extrapolate"})
    return field.values


def comparisons() -> list[Comparison]:
    """One hour, through the downscaler's interface, and a day at once."""
    generator = np.random.default_rng(0)
    shape = (24, *ITALY.coarse.shape)
    values = (285 + 8 * generator.standard_normal(shape)).astype(np.float32)
    hours = np.datetime64("2020-01-01", "ns") + np.arange(24) * np.timedelta64(1, "h")
    day = xr.DataArray(
        values,
        dims=("time", "y", "x"),
        coords={"time": hours, "y": ITALY.coarse.y, "x": ITALY.coarse.x},
    )
    hour = day[:1]
    dataset = hour.to_dataset(name="t2m")
    downscaler = QuadraticInterpolation()
    reference = "xarray interp(method='quadratic')"
    return [
        Comparison(
            "quadratic interpolation, 1 hour of Italy",
            reference,
            lambda: quadratic(values[:1], ITALY.ratio),
            lambda: _xarray(hour),
            tolerance=1e-4,
            required=20,
        ),
        Comparison(
            "the same as a downscaler, labelled dataset out",
            reference,
            lambda: downscaler.downscale(dataset, None, ITALY)["t2m"].values,
            lambda: _xarray(hour),
            tolerance=1e-4,
        ),
        Comparison(
            "quadratic interpolation, 24 hours of Italy",
            reference,
            lambda: quadratic(values, ITALY.ratio),
            lambda: _xarray(day),
            tolerance=1e-4,
        ),
    ]
