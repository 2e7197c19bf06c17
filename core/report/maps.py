"""Maps over hours: bias and RMSE of every model, spread and error of ensembles."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from core.report.contents import basis, ensemble_variable, target_name, variable, with_values
from core.report.panels import Panel, coastline, extent_of, map_grid
from core.report.quantities import bracketed, difference_units, shown_difference
from core.report.style import DIVERGING, INTENSITY
from core.text import decimals_for, fixed, for_figure, number

SHARE = 0.98
"""Share of the values that the colours tell apart; the rest gets the colour of the end."""

SCALE = f"All panels share one scale, which holds {100 * SHARE:g} % of the values."
OUTLINE = "Thin lines: coast (land fraction 0.5). Axes: easting and northing [km] of the projection."


def bias_maps(evaluation: xr.Dataset, target: str) -> Figure:
    """Mean error over hours at every point, a panel per model, one scale centred on zero."""
    values = shown_difference(variable(evaluation, "bias_map", target), target)
    units = difference_units(target)
    panels = []
    for model in with_values(evaluation, values):
        field = values.sel(model=model.key).transpose("y", "x")
        mean, size = float(field.mean()), float(np.sqrt((field.astype("f8") ** 2).mean()))
        mean_text = fixed(mean, decimals_for([mean], [size / 10]), sign=True)
        detail = f"mean {mean_text}, root mean square {number(size, 2)} {units}".rstrip()
        panels.append(Panel(field, for_figure(model.label, 30), detail))
    limit = float(abs(values).quantile(SHARE)) or 1.0
    return map_grid(
        panels,
        box=extent_of(panels[0].field),
        colours=DIVERGING,
        norm=Normalize(-limit, limit),
        bar=bracketed("bias", units),
        coast=coastline(evaluation),
    )


def bias_maps_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`bias_maps` shows."""
    return (
        f"Bias of {target_name(target)}, model minus truth, averaged over hours and members at every "
        f"point{_units(target)}; red where the model is too high. {SCALE} {OUTLINE} {basis(evaluation)}"
    )


def rmse_maps(evaluation: xr.Dataset, target: str) -> Figure:
    """Root-mean-square error over hours at every point, a panel per model, one scale from zero."""
    values = shown_difference(variable(evaluation, "rmse_map", target), target)
    units = difference_units(target)
    panels = []
    for model in with_values(evaluation, values):
        field = values.sel(model=model.key).transpose("y", "x")
        detail = f"mean {number(float(field.mean()))} {units}".rstrip()
        panels.append(Panel(field, for_figure(model.label, 30), detail))
    return map_grid(
        panels,
        box=extent_of(panels[0].field),
        colours=INTENSITY,
        norm=Normalize(0, float(values.quantile(SHARE)) or 1.0),
        bar=bracketed("RMSE", units),
        coast=coastline(evaluation),
        extend="max",
    )


def rmse_maps_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`rmse_maps` shows."""
    return (
        f"Root-mean-square error of {target_name(target)} over hours, and members each by itself, at every "
        f"point{_units(target)}. {SCALE} {OUTLINE} {basis(evaluation)}"
    )


def spread_maps(evaluation: xr.Dataset, target: str) -> Figure:
    """RMSE of the ensemble mean and ensemble spread at every point, a pair of panels per ensemble."""
    spread = shown_difference(ensemble_variable(evaluation, "spread_map", target), target)
    error = shown_difference(variable(evaluation, "ensemble_rmse_map", target), target)
    units = difference_units(target)
    panels = []
    for model in with_values(evaluation, spread):
        for values, name in ((error, "RMSE of the mean"), (spread, "spread")):
            field = values.sel(model=model.key).transpose("y", "x")
            detail = f"{name}, on average {number(float(field.mean()))} {units}".rstrip()
            panels.append(Panel(field, for_figure(model.label, 30), detail))
    shown = np.concatenate([panel.field.values.ravel() for panel in panels])
    return map_grid(
        panels,
        box=extent_of(panels[0].field),
        colours=INTENSITY,
        norm=Normalize(0, float(np.nanquantile(shown, SHARE)) or 1.0),
        bar=bracketed("RMSE of the mean, spread", units),
        coast=coastline(evaluation),
        extend="max",
    )


def spread_maps_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`spread_maps` shows."""
    return (
        f"Root-mean-square error of the ensemble mean of {target_name(target)} and ensemble spread over "
        f"hours{_units(target)}, in pairs on one scale: where the spread is paler than the error, the "
        "ensemble "
        f"is too sure of itself. {SCALE} {OUTLINE} {basis(evaluation)}"
    )


def _units(target: str) -> str:
    return bracketed("", difference_units(target))
