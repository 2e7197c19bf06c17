"""The downscalers that need no checkpoint: quadratic and lapse-rate interpolation."""

from __future__ import annotations

import numpy as np
import xarray as xr

from core import interpolation
from core.data.store import Contents
from core.domain import Domain
from core.downscale.base import DownscaleError, Downscaler, check_grid, fine_dataset, read_field
from core.variables import TARGETS, VARIABLES


class QuadraticInterpolation(Downscaler):
    """Separable quadratic spline of the coarse target, the baseline of both papers.

    Gives every target whose coarse counterpart is there. Precipitation is kept from going below zero.
    """

    key = "quadratic"
    label = "Quadratic interpolation"
    inputs = TARGETS
    targets = TARGETS

    def obstacles(self, contents: Contents, domain: Domain) -> list[str]:
        """One sentence where the store holds none of the targets among its predictors."""
        if set(self.inputs) & set(contents.predictors):
            return []
        return [f"{self.label} needs one of {', '.join(self.inputs)} among the predictors."]

    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """Targets found in ``coarse``, on the fine grid; NaN where a coarse cell is. Needs no statics."""
        check_grid(self.label, coarse, domain)
        fields = {}
        for name in self.targets:
            if name in coarse:
                values = interpolation.quadratic(read_field(self.label, coarse, name, name), domain.ratio)
                fields[name] = np.maximum(values, 0, out=values) if VARIABLES[name].accumulated else values
        if not fields:
            raise DownscaleError(f"{self.label} needs one of {', '.join(self.inputs)}.")
        return fine_dataset(fields, coarse["time"].values, domain)


class LapseRateInterpolation(Downscaler):
    """Quadratic interpolation of temperature reduced to sea level, put back on the fine orography.

    The lapse rate comes from the coarse field of each hour (:func:`core.interpolation.lapse_rate`); cells
    count by their fraction of land where the statics tell it.
    """

    key = "lapse_rate"
    label = "Lapse-rate interpolation"
    inputs = ("t2m",)
    targets = ("t2m",)

    def obstacles(self, contents: Contents, domain: Domain) -> list[str]:
        """Sentences for missing coarse temperature, coarse orography or fine orography."""
        needs = (
            ("t2m" in contents.predictors, "the coarse 2-metre temperature (t2m)"),
            (contents.coarse_orography, "the orography of the coarse model"),
            ("orography" in contents.statics, "the fine orography among the static fields"),
        )
        return [f"{self.label} needs {what}, which the store lacks." for there, what in needs if not there]

    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """``t2m`` on the fine grid; NaN where a coarse cell is NaN."""
        check_grid(self.label, coarse, domain)
        temperature = read_field(self.label, coarse, "t2m", "coarse 2-metre temperature (t2m)")
        coarse_orography = read_field(self.label, coarse, "orography", "orography of the coarse model")
        fine_orography = read_field(self.label, static, "orography", "fine orography")
        weights = None
        if static is not None and "land_fraction" in static:
            (height, width), ratio = domain.coarse.shape, domain.ratio
            land = read_field(self.label, static, "land_fraction", "fine land fraction")
            weights = land.reshape(height, ratio, width, ratio).mean(axis=(1, 3), dtype=np.float64)
        rate = interpolation.lapse_rate(
            temperature, coarse_orography, dx=domain.coarse.dx, dy=domain.coarse.dy, weights=weights
        )
        fine = interpolation.lapse_rate_corrected(
            temperature, coarse_orography, fine_orography, rate, domain.ratio
        )
        return fine_dataset({"t2m": fine}, coarse["time"].values, domain)


def interpolations() -> tuple[Downscaler, ...]:
    """The downscalers that need no checkpoint: quadratic and lapse-rate interpolation."""
    return QuadraticInterpolation(), LapseRateInterpolation()
