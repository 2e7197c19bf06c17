"""Spectra of the fields of an hour over a region, through :mod:`core.metrics.spectra`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.domain import Domain, Grid
from core.metrics.metric import MetricError
from core.metrics.spectra import WAVELENGTHS, ralsd, spectral_slope
from core.regions import Window
from explorer.cut import cut
from explorer.digest import digest
from explorer.display import COARSE
from explorer.quantities import FloatField, Quantity
from explorer.results import Results

TRUTH = "truth"
FIT = (WAVELENGTHS[0] / 1e3, WAVELENGTHS[1] / 1e3)
"""Default range of the slope fit: shortest and longest wavelength [km]."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one field.

    Attributes
    ----------
    wavelength, power : (n,) from the longest wavelength [m] on, and the power there [display units squared];
        both empty where there is no spectrum
    slope : of its logarithm against that of the wavenumber, NaN where there is none
    fitted : shortest and longest wavelength that the fit used [km], None where there is no slope
    loss : spectral-slope loss against the reference; NaN for the reference itself or without slopes
    problem : why there is no spectrum or no slope, as a sentence
    factor : fine cells in a cell of its grid; so much larger is the power of the same waves on the fine grid,
        since the power of a field is given per cell
    """

    key: str
    label: str
    wavelength: Array
    power: Array
    slope: float = np.nan
    fitted: tuple[float, float] | None = None
    loss: float = np.nan
    problem: str = ""
    factor: float = 1.0


@dataclass(frozen=True)
class Spectra:
    """Spectra of one hour over one region; ``fit`` in km, ``against`` is the key of the losses' reference."""

    quantity: Quantity
    hour: np.datetime64
    window: Window
    fit: tuple[float, float]
    against: str
    rows: tuple[Spectrum, ...]

    def get(self, key: str) -> Spectrum | None:
        """The spectrum of one field."""
        return next((row for row in self.rows if row.key == key), None)


def compute_spectra(
    fields: Sequence[tuple[str, str, FloatField]],
    domain: Domain,
    window: Window,
    fit: tuple[float, float],
    results: Results,
) -> tuple[str, tuple[Spectrum, ...]]:
    """The reference of the losses, and the spectrum of every field in order.

    Parameters
    ----------
    fields : (key, label, values), (h, w) for the coarse one and (H, W) for the others
    window : over which the spectra are taken
    fit : shortest and longest wavelength of the slope fit [km]
    results : where spectra are kept; slopes take no time

    Losses are taken against the truth, where that is missing against the coarse field. Each slope is fitted
    to the rings of its own grid, as :class:`core.metrics.spectra.SpectralSlopeLoss` does.
    """
    rows = [_spectrum(*field, domain, window, fit, results) for field in fields]
    slopes = {row.key: row.slope for row in rows}
    against = TRUTH if TRUTH in slopes else COARSE
    reference = slopes.get(against, np.nan)
    return against, tuple(
        row if row.key == against else replace(row, loss=abs(row.slope - reference)) for row in rows
    )


def _spectrum(
    key: str,
    label: str,
    values: FloatField,
    domain: Domain,
    window: Window,
    fit: tuple[float, float],
    results: Results,
) -> Spectrum:
    grid: Grid = domain.coarse if key == COARSE else domain.fine

    def compute() -> dict[str, Array]:
        spectrum = ralsd(cut(values, grid, window))
        return {"wavelength": spectrum["wavelength"].values.copy(), "power": spectrum.values.copy()}

    try:
        found = results.get(("ralsd", digest(values), grid.dx, grid.dy, window), compute)
    except MetricError as error:
        nothing = np.empty(0)
        return Spectrum(key, label, nothing, nothing, problem=str(error))
    wavelength, power = found["wavelength"], found["power"]
    factor = grid.dx * grid.dy / (domain.fine.dx * domain.fine.dy)
    spectrum = Spectrum(key, label, wavelength, power, factor=factor)
    if not np.isfinite(power).all():
        return replace(
            spectrum, problem="The field has gaps here, so it has no spectrum; choose a region without any."
        )
    density = xr.DataArray(power, {"wavelength": wavelength}, ("wavelength",))
    shortest, longest = (1e3 * length for length in fit)
    try:
        slope = float(spectral_slope(density, wavelengths=(shortest, longest)))
    except MetricError as error:
        return replace(spectrum, problem=str(error))
    if not np.isfinite(slope):
        return replace(spectrum, problem="The field does not vary at some of these wavelengths.")
    used = wavelength[(wavelength >= shortest * (1 - 1e-9)) & (wavelength <= longest * (1 + 1e-9))]
    return replace(spectrum, slope=slope, fitted=(float(used.min()) / 1e3, float(used.max()) / 1e3))
