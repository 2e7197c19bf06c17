"""Maps over hours: bias and RMSE of every model, spread and error of ensembles."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from core.report.contents import basis, members_text, target_name, target_units, variable, with_values
from core.report.panels import Panel, coastline, extent_of, map_grid
from core.report.style import DIVERGING, INTENSITY
from core.report.text import for_figure, number, units_text

SHARE = 0.99
"""Share of the values that the colours tell apart; the rest gets the colour of the end."""

OUTLINE = (
    "The thin line is the coast (land fraction 0.5); axes are easting and northing [km] of the projection."
)


def bias_maps(evaluation: xr.Dataset, target: str) -> Figure:
    """Mean error over hours at every point, a panel per model, one scale centred on zero."""
    values = variable(evaluation, "bias_map", target)
    models = with_values(evaluation, values)
    units = units_text(target_units(target))
    panels = []
    for model in models:
        field = values.sel(model=model.key).transpose("y", "x")
        mean, size = float(field.mean()), float(np.sqrt((field.astype("f8") ** 2).mean()))
        detail = f"mean {number(mean, 2, sign=True)}, root mean square {number(size, 2)} {units}".rstrip()
        panels.append(Panel(field, for_figure(model.label, 30), detail))
    limit = float(abs(values).quantile(SHARE)) or 1.0
    return map_grid(
        panels,
        box=extent_of(panels[0].field),
        colours=DIVERGING,
        norm=Normalize(-limit, limit),
        bar=_bar("bias", units),
        coast=coastline(evaluation),
    )


def bias_maps_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`bias_maps` shows."""
    return (
        f"Bias of {target_name(target)}, model minus truth, averaged over hours and members at every point"
        f"{_in(target)}; red where the model is too high. {_colours()} {OUTLINE} {basis(evaluation)}"
    )


def rmse_maps(evaluation: xr.Dataset, target: str) -> Figure:
    """Root-mean-square error over hours at every point, a panel per model, one scale from zero."""
    values = variable(evaluation, "rmse_map", target)
    models = with_values(evaluation, values)
    units = units_text(target_units(target))
    panels = []
    for model in models:
        field = values.sel(model=model.key).transpose("y", "x")
        panels.append(
            Panel(field, for_figure(model.label, 30), f"mean {number(float(field.mean()))} {units}".rstrip())
        )
    return map_grid(
        panels,
        box=extent_of(panels[0].field),
        colours=INTENSITY,
        norm=Normalize(0, float(values.quantile(SHARE)) or 1.0),
        bar=_bar("RMSE", units),
        coast=coastline(evaluation),
        extend="max",
    )


def rmse_maps_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`rmse_maps` shows."""
    return (
        f"Root-mean-square error of {target_name(target)} over hours (and members, each by itself) at every point"
        f"{_in(target)}. {_colours()} {OUTLINE} {basis(evaluation)}"
    )


def spread_maps(evaluation: xr.Dataset, target: str) -> Figure:
    """RMSE of the ensemble mean and ensemble spread at every point, a pair of panels per ensemble."""
    spread = variable(evaluation, "spread_map", target)
    error = variable(evaluation, "ensemble_rmse_map", target)
    units = units_text(target_units(target))
    panels = []
    for model in with_values(evaluation, spread):
        for values, name in ((error, "RMSE of the mean"), (spread, "spread")):
            field = values.sel(model=model.key).transpose("y", "x")
            detail = f"{name}, mean {number(float(field.mean()))} {units}".rstrip()
            panels.append(Panel(field, for_figure(model.label, 30), detail))
    shown = np.concatenate([panel.field.values.ravel() for panel in panels])
    return map_grid(
        panels,
        box=extent_of(panels[0].field),
        colours=INTENSITY,
        norm=Normalize(0, float(np.nanquantile(shown, SHARE)) or 1.0),
        bar=_bar("RMSE of the mean, spread", units),
        coast=coastline(evaluation),
        extend="max",
    )


def spread_maps_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`spread_maps` shows."""
    return (
        f"Root-mean-square error of the ensemble mean of {target_name(target)} and ensemble spread over hours"
        f"{_in(target)}, in pairs on one scale: where the spread is paler than the error, the ensemble is too sure "
        f"of itself ({members_text(evaluation)}). {_colours()} {OUTLINE} {basis(evaluation)}"
    )


def _bar(name: str, units: str) -> str:
    return f"{name} [{units}]" if units else name


def _in(target: str) -> str:
    units = units_text(target_units(target))
    return f" [{units}]" if units else ""


def _colours() -> str:
    return f"All panels share one scale that holds {100 * SHARE:g} % of the values."
