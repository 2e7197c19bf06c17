"""Box plots over hours: scores of single fields, and spectral slopes with their loss."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from core.report.contents import (
    TRUTH,
    Absent,
    Model,
    basis,
    score_of,
    target_name,
    variable,
    with_values,
)
from core.report.style import QUIET, box_plot, dress, new_figure, tick_label
from core.text import joined, with_units

PANELS = ("rmse", "r2", "bias", "pearson", "flux_error")
"""Scores of the figure, one panel each."""

READING = (
    "Boxes hold the middle half of the hours, the line is the median, the diamond the mean, whiskers reach "
    "from "
    "the 5th to the 95th percentile, dots are hours beyond."
)


def score_boxes(evaluation: xr.Dataset, target: str) -> Figure:
    """RMSE, R2, bias, Pearson correlation and flux error over hours, one panel each; Absent without any."""
    found = _scores(evaluation, target)
    models = _models(evaluation, found)
    columns = min(len(found), 3)
    rows = -(-len(found) // columns)
    figure = new_figure(rows * (0.75 + 0.3 * len(models)))
    axes = figure.subplots(rows, columns, squeeze=False)
    for number, (name, values) in enumerate(found.items()):
        axis: Axes = axes.flat[number]
        box_plot(axis, [values.sel(model=model.key).values for model in models], [m.colour for m in models])
        score = score_of(evaluation, name, target)
        dress(axis, title=with_units(score.title, score.units), grid="x")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        if score.best == "zero":
            axis.axvline(0, color=QUIET, linewidth=0.8, zorder=0.5)
        _name(axis, models, shown=number % columns == 0)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    return figure


def score_boxes_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`score_boxes` shows."""
    titles = []
    for name in _scores(evaluation, target):
        score = score_of(evaluation, name, target)
        titles.append(with_units(score.title, score.units) + ("" if score.units != "1" else " (no unit)"))
    return (
        f"Scores of {target_name(target)}, one value for each hour's field (mean over its members): "
        f"{joined(titles)}. {READING} {basis(evaluation)}"
    )


def slope_boxes(evaluation: xr.Dataset, target: str) -> Figure:
    """Spectral slopes of truth and models, and the models' loss, over hours; Absent without the loss."""
    loss = variable(evaluation, "spectral_slope_loss", target)
    models = with_values(evaluation, loss)
    try:
        slope = variable(evaluation, "spectral_slope", target)
    except Absent:
        slope = None
    rows = len(models) + (slope is not None)
    figure = new_figure(0.8 + 0.3 * rows)
    axes = figure.subplots(1, 1 if slope is None else 2, squeeze=False).ravel()
    if slope is not None:
        known = [key for key in (TRUTH, *(m.key for m in models)) if key in slope["source"].values]
        colours = {TRUTH: "black", **{m.key: m.colour for m in models}}
        box_plot(axes[0], [slope.sel(source=key).values for key in known], [colours[key] for key in known])
        labels = {TRUTH: "truth", **{m.key: m.label for m in models}}
        dress(axes[0], title="Spectral slope", grid="x")
        axes[0].set_yticks(range(len(known)), [tick_label(labels[key]) for key in known])
        axes[0].tick_params(axis="y", length=0)
        axes[0].xaxis.set_major_locator(MaxNLocator(6))
        if TRUTH in known:
            median = float(slope.sel(source=TRUTH).median())
            if np.isfinite(median):
                axes[0].axvline(median, color="black", linewidth=0.8, linestyle=":")
    columns = [loss.sel(model=model.key).values for model in models]
    box_plot(axes[-1], columns, [model.colour for model in models])
    dress(axes[-1], title="Spectral slope loss", grid="x")
    _name(axes[-1], models, shown=True)
    if _wide(columns):
        axes[-1].set_xscale("log")
        axes[-1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[-1].xaxis.set_minor_formatter(NullFormatter())
        axes[-1].grid(axis="x", which="minor", color="#eceef0", linewidth=0.4)
    else:
        axes[-1].set_xlim(left=0)
    return figure


def slope_boxes_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`slope_boxes` shows."""
    loss = variable(evaluation, "spectral_slope_loss", target)
    columns = [loss.sel(model=model.key).values for model in with_values(evaluation, loss)]
    return (
        f"Slope of the power spectrum of {target_name(target)} (log power against log wavenumber) and its "
        "absolute difference from that of the truth, the slope loss, for each hour; both without "
        "unit. "
        + ("The axis of the loss is logarithmic. " if _wide(columns) else "")
        + f"{READING} {basis(evaluation)}"
    )


def _wide(columns: list[np.ndarray]) -> bool:
    """Whether typical values differ so much that a linear axis would hide the small ones."""
    medians = [float(np.nanmedian(column)) for column in columns]
    return min(medians) > 0 and max(medians) > 8 * min(medians)


def _scores(evaluation: xr.Dataset, target: str) -> dict[str, xr.DataArray]:
    found = {}
    for name in PANELS:
        try:
            found[name] = variable(evaluation, name, target)
        except Absent:
            continue
    if not found:
        raise Absent(f"The evaluation holds none of the scores {joined(PANELS)} of {target}.")
    return found


def _models(evaluation: xr.Dataset, found: dict[str, xr.DataArray]) -> list[Model]:
    known = {model.key: model for values in found.values() for model in with_values(evaluation, values)}
    return [known[key] for key in (str(k) for k in evaluation["model"].values) if key in known]


def _name(axis: Axes, models: list[Model], *, shown: bool) -> None:
    axis.set_yticks(range(len(models)), [tick_label(model.label) for model in models] if shown else [])
    axis.tick_params(axis="y", length=0)
