"""Ensembles: rank histograms, spread against error, reliability."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.report.contents import (
    Absent,
    Model,
    basis,
    confidence,
    ensemble_variable,
    estimates,
    target_name,
    target_units,
    variable,
    with_values,
)
from core.report.panels import columns_for
from core.report.style import INK, QUIET, SMALL, WIDTH, dress, legend, line_of, new_figure
from core.text import for_figure, number, units_text

EVENT = "2 metre temperature below 273.15 K (0 °C)"


def rank_histograms(evaluation: xr.Dataset, target: str) -> Figure:
    """How often the truth has each rank among the members, a panel per ensemble; a flat line is ideal."""
    frequency = ensemble_variable(evaluation, "rank_histogram", target)
    models = with_values(evaluation, frequency)
    columns = columns_for(len(models))
    rows = -(-len(models) // columns)
    figure = new_figure(0.3 + 2.3 * rows, width=WIDTH if columns > 1 else 5.5)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for number_, axis in enumerate(axes.flat):
        if number_ >= len(models):
            axis.set_visible(False)
            continue
        model = models[number_]
        share = frequency.sel(model=model.key).values
        share = share[np.isfinite(share)]
        axis.bar(np.arange(share.size), share, width=0.86, color=model.colour, alpha=0.75)
        axis.axhline(1 / share.size, color=INK, linewidth=1, linestyle="--")
        axis.set_xlim(-0.6, share.size - 0.4)
        dress(
            axis,
            title=for_figure(model.label, 32),
            x="members below the truth",
            y="relative frequency" if number_ % columns == 0 else "",
            grid="y",
        )
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def rank_histograms_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`rank_histograms` shows."""
    return (
        f"Rank of the true {target_name(target)} among the members, all points and hours together (relative "
        "frequency, no unit). Of a reliable ensemble all ranks are equally frequent (dashed line); a U "
        "says that "
        "the truth falls outside of the members too often, a slope that the members are biased. "
        f"{basis(evaluation)}"
    )


def spread_and_reliability(evaluation: xr.Dataset, target: str) -> Figure:
    """Binned spread against the error of the mean, and reliability of frost; either may be missing."""
    curves = _curves(evaluation, target)
    figure = new_figure(4.3 if len(curves) == 2 else 4.6, width=WIDTH if len(curves) == 2 else 4.8)
    axes = figure.subplots(1, len(curves), squeeze=False).ravel()
    for axis, name in zip(axes, curves, strict=True):
        _spread(axis, evaluation, target) if name == "spread" else _reliability(axis, evaluation, target)
    return figure


def spread_and_reliability_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`spread_and_reliability` shows."""
    curves = _curves(evaluation, target)
    units = units_text(target_units(target))
    parts = []
    if "spread" in curves:
        ratios = estimates(evaluation, "spread_skill_ratio", target)
        parts.append(
            f"Spread of the members of {target_name(target)} in bins against the root-mean-square error of "
            "the "
            f"ensemble mean in each bin{f' [{units}]' if units else ''}: on the diagonal the spread says "
            "how large "
            "the error is, above it the ensemble is too sure of itself."
            + (
                f" In brackets the spread-skill ratio over all points and hours ({confidence(evaluation)} "
                "interval)."
                if ratios
                else ""
            )
        )
    if "reliability" in curves:
        parts.append(
            f"Reliability: how often {EVENT} occurred, given the share of members that forecast it; a "
            "reliable "
            "ensemble lies on the diagonal (relative frequencies, no unit)."
        )
    return f"{' '.join(parts)} {basis(evaluation)}"


def _curves(evaluation: xr.Dataset, target: str) -> list[str]:
    found = []
    for name, needed in (
        ("spread", ("spread_of_bin", "error_of_bin")),
        ("reliability", ("reliability_forecast", "reliability_observed")),
    ):
        try:
            for variable_name in needed:
                variable(evaluation, variable_name, target)
        except Absent:
            continue
        found.append(name)
    if not found:
        raise Absent(f"The evaluation holds neither spread against error nor reliability of {target}.")
    return found


def _spread(axis: Axes, evaluation: xr.Dataset, target: str) -> None:
    spread = variable(evaluation, "spread_of_bin", target)
    error = variable(evaluation, "error_of_bin", target)
    ratios = estimates(evaluation, "spread_skill_ratio", target)
    entries = []
    models = with_values(evaluation, error)
    for model in models:
        _curve(axis, spread.sel(model=model.key), error.sel(model=model.key), model)
        label = model.label
        if model.key in ratios:
            value, low, high = ratios[model.key]
            interval = f"; {number(low)} to {number(high)}" if np.isfinite(low) else ""
            label = f"{label} [{number(value)}{interval}]"
        entries.append((label, line_of(model, marker=True)))
    limit = 1.06 * float(np.nanmax([spread.max(), error.max()]))
    units = units_text(target_units(target))
    unit = f" [{units}]" if units else ""
    dress(axis, title="spread against error", x=f"spread{unit}", y=f"RMSE of the ensemble mean{unit}")
    _diagonal(axis, limit)
    legend(axis, [(label[:60], handle) for label, handle in entries], loc="upper left")


def _reliability(axis: Axes, evaluation: xr.Dataset, target: str) -> None:
    forecast = variable(evaluation, "reliability_forecast", target)
    observed = variable(evaluation, "reliability_observed", target)
    models = with_values(evaluation, observed)
    for model in models:
        _curve(axis, forecast.sel(model=model.key), observed.sel(model=model.key), model)
    dress(axis, title="reliability of frost", x="forecast probability", y="observed relative frequency")
    _diagonal(axis, 1.0)
    legend(axis, [(model.label, line_of(model, marker=True)) for model in models], loc="upper left")


def _curve(axis: Axes, x: xr.DataArray, y: xr.DataArray, model: Model) -> None:
    known = np.isfinite(x.values) & np.isfinite(y.values)
    axis.plot(
        x.values[known],
        y.values[known],
        color=model.colour,
        marker=model.marker,
        markersize=4,
        linewidth=1.4,
        markeredgewidth=0,
        clip_on=False,
        zorder=3,
    )


def _diagonal(axis: Axes, limit: float) -> None:
    axis.plot([0, limit], [0, limit], color=QUIET, linewidth=1, linestyle="--", zorder=1.5)
    axis.set_xlim(0, limit)
    axis.set_ylim(0, limit)
    axis.set_aspect("equal")
    axis.xaxis.label.set_fontsize(SMALL)
