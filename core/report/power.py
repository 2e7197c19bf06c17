"""Spectra: mean RALSD curves, and the distribution over hours of the power at chosen wavelengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from core.metrics.metric import MetricError
from core.metrics.spectra import WAVELENGTHS_OF_POWER, power_at
from core.report.boxes import READING
from core.report.contents import TRUTH, Model, basis, target_name, target_units, variable, with_values
from core.report.style import TRUTH_LINE, box_plot, dress, legend, line_of, new_figure
from core.text import units_text

BAND = (0.1, 0.9)
TICKS = (1000, 500, 200, 100, 50, 20, 10, 5, 2, 1)


def spectra(evaluation: xr.Dataset, target: str) -> Figure:
    """RALSD of truth (black, with a band over hours) and models, and the power at some wavelengths."""
    density = variable(evaluation, "ralsd", target)
    models = with_values(evaluation, density, "source")
    shown = powers(density)
    columns = -(-len(shown) // 2)
    figure = new_figure(4.3)
    if shown:
        # Figures and subfigures are typed apart, but both have subplots.
        parts: Any = figure.subfigures(1, 2, width_ratios=(1.25, 0.5 * columns + 0.15))
    else:
        parts = [figure]
    axis = parts[0].subplots()
    wavelength = np.asarray(density["wavelength"].values, np.float64) / 1e3
    entries: list[tuple[str, Artist]] = []
    if has_truth(density):
        truth = density.sel(source=TRUTH)
        low, high = (truth.quantile(share, "time").values for share in BAND)
        band = axis.fill_between(wavelength, low, high, color="black", alpha=0.13, linewidth=0)
        axis.plot(wavelength, mean_over_hours(truth), color="black", linewidth=1.8, zorder=3)
        entries += [("truth", TRUTH_LINE), ("truth, 10 to 90 % of hours", band)]
    for model in models:
        axis.plot(
            wavelength,
            mean_over_hours(density.sel(source=model.key)),
            color=model.colour,
            linestyle=model.dash,
            linewidth=1.3,
            zorder=model.height,
        )
        entries.append((model.label, line_of(model)))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(wavelength.max(), wavelength.min())
    axis.set_xticks([tick for tick in TICKS if wavelength.min() <= tick <= wavelength.max()])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    dress(axis, x="wavelength [km]", y=f"power spectral density [{_units(target)}]")
    legend(axis, entries, loc="lower left")
    for power in shown.values():
        length = float(power["wanted"]) / 1e3
        axis.axvline(length, color="#7c858b", linewidth=0.9, linestyle=":", zorder=0.5)
    if shown:
        _power_boxes(parts[1].subplots(2, columns, squeeze=False), shown, models, target)
    return figure


def spectra_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`spectra` shows."""
    density = variable(evaluation, "ralsd", target)
    lengths = [f"{float(power['wanted']) / 1e3:g}" for power in powers(density).values()]
    beside = (
        "Beside it, the distribution over hours of the logarithm of the power nearest to "
        f"{', '.join(lengths)} km "
        "(dotted lines in the left panel), truth first, then the models in the order of the legend. "
        f"{READING} "
        if lengths
        else "The field is too small or too coarse for the wavelengths at which power is compared. "
    )
    return (
        f"Radially averaged power spectral density of {target_name(target)} [{_units(target)}] against "
        "wavelength "
        "[km], on logarithmic axes: mean over hours of the logarithm, of each member by itself and not of "
        "the "
        "ensemble mean. Below the black line, variance is missing at that scale; above it, there is too "
        "much. "
        f"{beside}{basis(evaluation)}"
    )


def powers(density: xr.DataArray) -> dict[float, xr.DataArray]:
    """Power at those of the papers' wavelengths that the spectrum reaches, by wavelength [m]."""
    result = {}
    for wavelength in WAVELENGTHS_OF_POWER:
        try:
            result[wavelength] = power_at(density, [wavelength]).isel(wavelength=0)
        except (MetricError, ValueError):
            continue
    return result


def has_truth(values: xr.DataArray) -> bool:
    """Whether an array by source has a value for the truth."""
    return TRUTH in values["source"].values and bool(np.isfinite(values.sel(source=TRUTH).values).any())


def mean_over_hours(density: xr.DataArray) -> np.ndarray:
    """Mean over hours of the logarithm, as a density (wavelength)."""
    with np.errstate(divide="ignore"):
        logarithm: xr.DataArray = np.log(density.where(density > 0))  # type: ignore[assignment]
    return np.asarray(np.exp(logarithm.mean("time").values))


def _power_boxes(
    axes: np.ndarray, shown: dict[float, xr.DataArray], models: list[Model], target: str
) -> None:
    panels: list[Axes] = list(axes.flat)
    for axis, (wanted, power) in zip(panels, shown.items(), strict=False):
        first = [(TRUTH, "black")] if has_truth(power) else []
        rows = [*first, *((model.key, model.colour) for model in models)]
        positive = power.where(power > 0)
        box_plot(
            axis,
            [np.log10(positive.sel(source=key).values) for key, _ in rows],
            [colour for _, colour in rows],
            vertical=True,
        )
        dress(axis, title=f"{wanted / 1e3:g} km", y=f"log₁₀ power [{_units(target)}]", grid="y")
        axis.set_xticks([])
    for axis in panels[len(shown) :]:
        axis.set_visible(False)


def _units(target: str) -> str:
    units = target_units(target)
    if units is None:
        return "units squared"
    return units_text(f"{units}2" if " " not in units else f"({units})2")
