"""Flux losses of every model under every formulation, side by side with the one that can be trusted."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from core.report.contents import (
    Absent,
    Estimate,
    basis,
    best_first,
    estimates,
    models_of,
    score_of,
    target_name,
)
from core.report.style import INK, SMALL, dress, new_figure, tick_label
from core.text import number, units_text

FORMULATIONS = (
    "flux_error",
    "flux_error_truth",
    "flux_loss_paper",
    "flux_loss_published_training",
    "flux_loss_published_metric",
    "flux_loss_centred",
)
COLUMNS = {
    "flux_error": "flux error\nagainst coarse",
    "flux_error_truth": "flux error\nagainst truth",
    "flux_loss_paper": "ratio loss\npaper",
    "flux_loss_published_training": "ratio loss\npublished training",
    "flux_loss_published_metric": "ratio loss\npublished metric",
    "flux_loss_centred": "ratio loss\ncentred",
}
SOUND = (
    "Only the flux error passes the project's audit (docs/physics.md); the losses on the flux ratio are "
    "shown for "
    "comparison, and a low value of theirs does not make a good field."
)
DARKEST = 100.0
"""Ratio to the best of a column that gets the darkest colour."""


def flux_table(evaluation: xr.Dataset, target: str) -> Figure:
    """Mean of every formulation for every model, shaded by its ratio to the best one of the column."""
    found = _found(evaluation, target)
    models = [m for m in models_of(evaluation) if any(m.key in row for row in found.values())]
    values = np.array(
        [[row[m.key].value if m.key in row else np.nan for row in found.values()] for m in models]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log10(values / np.nanmin(np.where(values > 0, values, np.nan), axis=0))
    figure = new_figure(0.85 + 0.36 * len(models))
    axis = figure.subplots()
    axis.imshow(
        np.clip(ratio, 0, np.log10(DARKEST)),
        cmap=colormaps["Blues"],
        norm=Normalize(0, 1.6 * np.log10(DARKEST)),
        aspect="auto",
    )
    for column, (name, row) in enumerate(found.items()):
        order = best_first(score_of(evaluation, name, target), row)
        for line, model in enumerate(models):
            if model.key not in row:
                continue
            best = bool(order) and model.key == order[0]
            axis.text(
                column,
                line,
                number(row[model.key].value),
                ha="center",
                va="center",
                fontsize=SMALL + 0.5,
                color=INK,
                fontweight="bold" if best else "normal",
            )
    heads = []
    for name in found:
        units = units_text(score_of(evaluation, name, target).units)
        heads.append(COLUMNS[name] + (f"\n[{units}]" if units else "\n"))
    dress(axis, grid="")
    axis.set_xticks(range(len(found)), heads)
    axis.set_yticks(range(len(models)), [tick_label(model.label, 24) for model in models])
    axis.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(1, len(found)) - 0.5, minor=True)
    axis.set_yticks(np.arange(1, len(models)) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="minor", length=0)
    return figure


def flux_table_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`flux_table` shows."""
    return (
        f"Fluxes of {target_name(target)} through supergrid cells: mean over hours of the flux error and "
        "of the loss "
        "on the flux ratio under every formulation, units at the head of each column. The darker a cell, "
        "the larger "
        f"its value beside the lowest of its column (bold). {SOUND} {preferences(evaluation, target)} "
        f"{basis(evaluation)}"
    )


def preferences(evaluation: xr.Dataset, target: str) -> str:
    """Which model each formulation prefers, as one sentence; empty where none ranks two models."""
    labels = {model.key: model.label for model in models_of(evaluation)}
    chosen: dict[str, list[str]] = {}
    for name, row in _found(evaluation, target).items():
        order = best_first(score_of(evaluation, name, target), row)
        if len(order) > 1:
            chosen.setdefault(labels[order[0]], []).append(COLUMNS[name].replace("\n", " "))
    if not chosen:
        return ""
    return (
        "Lowest flux losses: "
        + "; ".join(f"{label} by {', '.join(names)}" for label, names in chosen.items())
        + "."
    )


def _found(evaluation: xr.Dataset, target: str) -> dict[str, dict[str, Estimate]]:
    found = {name: estimates(evaluation, name, target) for name in FORMULATIONS}
    found = {name: row for name, row in found.items() if row}
    if not found:
        raise Absent(f"The evaluation holds no flux losses of {target}.")
    return found
