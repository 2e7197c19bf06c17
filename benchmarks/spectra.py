"""Spectra of a field of the Italy domain against pysteps."""

from __future__ import annotations

import numpy as np
import xarray as xr

from benchmarks.comparison import Comparison
from core.domain import ITALY
from core.metrics.spectra import ralsd


def comparisons() -> list[Comparison]:
    """One hour and a day, in pysteps' convention, whose rings are other ones than ours by default."""
    # Only this group needs it.
    from pysteps.utils.spectral import rapsd

    generator = np.random.default_rng(0)
    values = generator.standard_normal((24, *ITALY.fine.shape)).cumsum(-1).cumsum(-2)
    day = xr.DataArray(values, dims=("time", "y", "x"), coords={"y": ITALY.fine.y, "x": ITALY.fine.x})
    hour = day[:1]

    def ours(field: xr.DataArray) -> np.ndarray:
        return np.log(ralsd(field, rings="pysteps").values)

    def theirs(field: xr.DataArray) -> np.ndarray:
        return np.log([rapsd(one, fft_method=np.fft)[1:] for one in field.values])

    return [
        Comparison(
            f"RALSD, {hours.sizes['time']} h of Italy",
            "pysteps rapsd with numpy's FFT, logarithm",
            lambda hours=hours: ours(hours),
            lambda hours=hours: theirs(hours),
            tolerance=1e-9,
        )
        for hours in (hour, day)
    ]
