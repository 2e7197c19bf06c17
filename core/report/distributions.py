"""Frequency distributions over land and sea, truth and models, and how the models' differ."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from core.report.contents import TRUTH, Absent, basis, target_name, variable, with_values
from core.report.power import has_truth
from core.report.quantities import bracketed, shown_value, value_units
from core.report.style import QUIET, TRUTH_LINE, dress, legend, line_of, new_figure

RAREST = 1e-6
"""Relative frequency below which the ratio to the truth is not drawn: too few values to compare."""


def distributions(evaluation: xr.Dataset, target: str) -> Figure:
    """Relative frequencies of values over sea and over land, and below them the ratio to the truth."""
    frequency = variable(evaluation, "histogram", target)
    bins = shown_value(_bins(evaluation, target), target).values
    surfaces = [
        str(name) for name in frequency["surface"].values if bool((frequency.sel(surface=name) > 0).any())
    ]
    if not surfaces:
        raise Absent(f"histogram of {target} counts no value.")
    models = with_values(evaluation, frequency, "source")
    truth_known = has_truth(frequency)
    figure = new_figure(4.6 if truth_known else 3.2)
    axes = figure.subplots(
        2 if truth_known else 1,
        len(surfaces),
        squeeze=False,
        sharex="col",
        sharey="row",
        height_ratios=(2.6, 1) if truth_known else None,
    )
    for column, surface in enumerate(surfaces):
        axis = axes[0, column]
        values = frequency.sel(surface=surface)
        for model in models:
            axis.step(
                bins,
                _positive(values.sel(source=model.key)),
                where="mid",
                color=model.colour,
                linestyle=model.dash,
                zorder=model.height,
                linewidth=1.1,
            )
        if truth_known:
            truth = _positive(values.sel(source=TRUTH))
            axis.step(bins, truth, where="mid", color="black", linewidth=1.5, zorder=1.9)
            below = axes[1, column]
            enough = np.where(truth >= RAREST, truth, np.nan)
            for model in models:
                below.step(
                    bins,
                    _positive(values.sel(source=model.key)) / enough,
                    where="mid",
                    color=model.colour,
                    linestyle=model.dash,
                    zorder=model.height,
                    linewidth=1.0,
                )
            below.axhline(1, color="black", linewidth=1.0, zorder=1.9)
            below.set_yscale("log")
            below.set_ylim(0.2, 5)
            below.set_yticks([0.2, 0.5, 1, 2, 5])
            below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            below.yaxis.set_minor_formatter(NullFormatter())
            dress(below, y="ratio to truth" if column == 0 else "")
        axis.set_yscale("log")
        dress(axis, title=f"over {surface}", y="relative frequency" if column == 0 else "")
        axes[-1, column].set_xlabel(bracketed(target_name(target), value_units(target)), fontsize=7.5)
        seen = bins[(values > 0).any("source").values]
        margin = 0.03 * (seen.max() - seen.min()) or 1.0
        axis.set_xlim(seen.min() - margin, seen.max() + margin)
    entries = [*([("truth", TRUTH_LINE)] if truth_known else []), *((m.label, line_of(m)) for m in models)]
    legend(axes[0, 0], entries, loc="best")
    for axis in axes.flat:
        axis.title.set_color(QUIET)
    return figure


def distributions_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`distributions` shows."""
    bins = shown_value(_bins(evaluation, target), target).values
    units = value_units(target)
    width = f" in bins of {float(np.median(np.diff(bins))):.3g} {units}".rstrip() if bins.size > 1 else ""
    return (
        f"How often values of {target_name(target)} occur over sea and land{width}, all points, hours and "
        "members "
        "together, as a share of all values; the axis is logarithmic, so that rare values show. Below, the "
        "models' "
        "frequency divided by the truth's, where the truth's is at least one in a million. "
        f"{basis(evaluation)}"
    )


def _bins(evaluation: xr.Dataset, target: str) -> xr.DataArray:
    return variable(evaluation, "bin_value", target)


def _positive(values: xr.DataArray) -> np.ndarray:
    array = np.asarray(values.values, np.float64)
    return np.where(array > 0, array, np.nan)
