"""Snapshots: what coarse field, truth and models look like in a single hour, whole and enlarged."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from core.metrics.deterministic import rmse
from core.report.contents import (
    TRUTH,
    Absent,
    ensemble_variable,
    is_synthetic,
    target_name,
    variable,
    with_values,
)
from core.report.maps import OUTLINE
from core.report.panels import (
    COLOUR_BAR,
    Box,
    Panel,
    coastline,
    colour_bar,
    draw_map,
    extent_of,
    label_edges,
    map_grid,
)
from core.report.quantities import bracketed, difference_units, shown_difference, shown_value, value_units
from core.report.style import DIVERGING, INTENSITY, SEQUENTIAL, WIDTH, new_figure
from core.text import for_figure, number

TYRRHENIAN: Box = (4.25e6, 4.65e6, 1.75e6, 2.15e6)
"""The enlarged part, the Tyrrhenian Sea and its coast, in EPSG:3035 [m]."""
SMALLEST_ZOOM = 0.02
"""Smallest share of the enlarged box that has to lie in the domain."""

SIGNED = ("u10", "v10")


def hours_shown(evaluation: xr.Dataset) -> list[np.datetime64]:
    """Hours of the snapshots in their order; none where the evaluation has no snapshots."""
    if "snapshot" not in evaluation.variables or "snapshot_time" not in evaluation["snapshot"].dims:
        return []
    return list(np.atleast_1d(evaluation["snapshot_time"].values))


def snapshots(evaluation: xr.Dataset, target: str, *, hour: int = 0, zoom: bool = False) -> Figure:
    """Coarse field, truth and every model's first member in one hour, one colour scale.

    Parameters
    ----------
    hour : number of the snapshot
    zoom : only :data:`TYRRHENIAN`, clipped to the domain

    Absent where there is no such snapshot, or where the domain has next to nothing of the enlarged part.
    """
    fields = _fields(evaluation, target, hour)
    models = with_values(evaluation, fields, "source")
    frame = fields.isel(source=0, drop=True)
    box = _zoomed(extent_of(frame)) if zoom else extent_of(frame)
    truth = fields.sel(source=TRUTH) if TRUTH in fields["source"].values else None
    panels = []
    coarse = _coarse(evaluation, target, hour)
    if coarse is not None:
        panels.append(Panel(shown_value(coarse, target), "coarse input", " "))
    if truth is not None:
        panels.append(Panel(shown_value(truth, target), "truth", " "))
    units = difference_units(target)
    for model in models:
        field = fields.sel(source=model.key)
        detail = " "
        if truth is not None:
            error = float(shown_difference(rmse(_cut(field, box), _cut(truth, box)), target))
            detail = f"RMSE {number(error)} {units}".rstrip()
        panels.append(Panel(shown_value(field, target), for_figure(model.label, 26), detail))
    colours, norm = _scale([_cut(panel.field, box) for panel in panels], target)
    return map_grid(
        panels,
        box=box,
        colours=colours,
        norm=norm,
        bar=bracketed(target_name(target), value_units(target)),
        coast=coastline(evaluation),
    )


def snapshots_caption(evaluation: xr.Dataset, target: str, *, hour: int = 0, zoom: bool = False) -> str:
    """What :func:`snapshots` shows."""
    where = ", enlarged: the Tyrrhenian Sea and its coast" if zoom else ""
    return (
        f"{_capital(target_name(target))}{_units(target)} at {time_text(evaluation, hour)}{where}. Of "
        "ensembles the "
        "first member is shown; the RMSE is that of the part shown, of this one hour and field. All "
        "panels share "
        f"one scale. {OUTLINE} {_one_hour(evaluation)}"
    )


def ensemble_snapshots(evaluation: xr.Dataset, target: str, *, hour: int = 0) -> Figure:
    """One member, mean, spread and absolute error of the mean in one hour, a row per ensemble."""
    mean = _hour(ensemble_variable(evaluation, "snapshot_mean", target), hour)
    spread = _hour(variable(evaluation, "snapshot_spread", target), hour)
    fields = _fields(evaluation, target, hour)
    models = [model for model in with_values(evaluation, mean) if model.key in fields["source"].values]
    if not models:
        raise Absent("No ensemble has a mean in this snapshot.")
    truth = fields.sel(source=TRUTH) if TRUTH in fields["source"].values else None
    rows = []
    for model in models:
        middle = mean.sel(model=model.key).transpose("y", "x")
        label = for_figure(model.label, 22)
        row = [
            Panel(shown_value(fields.sel(source=model.key), target), label, "first member"),
            Panel(shown_value(middle, target), label, "ensemble mean"),
            Panel(shown_difference(spread.sel(model=model.key).transpose("y", "x"), target), label, "spread"),
        ]
        if truth is not None:
            row.append(
                Panel(shown_difference(abs(middle - truth), target), label, "absolute error of the mean")
            )
        rows.append(row)
    box = extent_of(rows[0][0].field)
    columns = len(rows[0])
    width = (WIDTH - 2 * COLOUR_BAR - 0.5) / columns
    left, right, bottom, top = box
    figure = new_figure(
        len(rows) * (width * (top - bottom) / (right - left) + 0.45) + 0.45, layout="compressed"
    )
    axes = figure.subplots(len(rows), columns, squeeze=False)
    value_scale = _scale([panel.field for row in rows for panel in row[:2]], target)
    differences = np.concatenate([panel.field.values.ravel() for row in rows for panel in row[2:]])
    spread_scale = INTENSITY, Normalize(0, float(np.nanquantile(differences, 0.99)) or 1.0)
    coast = coastline(evaluation)
    images = {}
    for line, row in enumerate(rows):
        for column, panel in enumerate(row):
            colours, norm = value_scale if column < 2 else spread_scale
            images[column] = draw_map(axes[line, column], panel, box, colours, norm, coast)
            label_edges(axes[line, column], left=column == 0, bottom=line == len(rows) - 1)
    colour_bar(
        figure, images[0], list(axes[:, :2].flat), bracketed(target_name(target), value_units(target)), "both"
    )
    colour_bar(
        figure,
        images[2],
        list(axes[:, 2:].flat),
        bracketed("spread, error", difference_units(target)),
        "max",
    )
    return figure


def ensemble_snapshots_caption(evaluation: xr.Dataset, target: str, *, hour: int = 0) -> str:
    """What :func:`ensemble_snapshots` shows."""
    mean = _hour(ensemble_variable(evaluation, "snapshot_mean", target), hour)
    counts = ", ".join(f"{m.label}: {m.members} members" for m in with_values(evaluation, mean))
    return (
        f"{_capital(target_name(target))} of the ensembles at {time_text(evaluation, hour)} ({counts}): "
        "first member "
        f"and ensemble mean{_units(target)}, spread of the members and absolute error of the mean on one "
        "scale. "
        f"{OUTLINE} {_one_hour(evaluation)}"
    )


def time_text(evaluation: xr.Dataset, hour: int) -> str:
    """The hour of a snapshot, in UTC."""
    text = str(np.datetime_as_string(hours_shown(evaluation)[hour].astype("datetime64[m]")))
    return text.replace("T", " ") + " UTC"


def _fields(evaluation: xr.Dataset, target: str, hour: int) -> xr.DataArray:
    return _hour(variable(evaluation, "snapshot", target), hour).transpose("source", "y", "x")


def _hour(values: xr.DataArray, hour: int) -> xr.DataArray:
    if hour >= values.sizes.get("snapshot_time", 0):
        raise Absent(f"The evaluation holds no snapshot {hour + 1}.")
    chosen = values.isel(snapshot_time=hour)
    if not np.isfinite(chosen.values).any():
        raise Absent(f"Snapshot {hour + 1} has no value.")
    return chosen


def _coarse(evaluation: xr.Dataset, target: str, hour: int) -> xr.DataArray | None:
    try:
        field = _hour(variable(evaluation, "snapshot_coarse", target), hour)
    except Absent:
        return None
    if not {"y_coarse", "x_coarse"} <= set(field.coords):
        return None
    return field.transpose("y_coarse", "x_coarse")


def _zoomed(extent: Box) -> Box:
    left, right = max(TYRRHENIAN[0], extent[0]), min(TYRRHENIAN[1], extent[1])
    bottom, top = max(TYRRHENIAN[2], extent[2]), min(TYRRHENIAN[3], extent[3])
    whole = (TYRRHENIAN[1] - TYRRHENIAN[0]) * (TYRRHENIAN[3] - TYRRHENIAN[2])
    if right <= left or top <= bottom or (right - left) * (top - bottom) < SMALLEST_ZOOM * whole:
        raise Absent(
            "The domain holds next to nothing of the Tyrrhenian Sea and its coast, which is enlarged here."
        )
    return left, right, bottom, top


def _cut(field: xr.DataArray, box: Box) -> xr.DataArray:
    y, x = (np.asarray(field[dim].values) for dim in field.dims)
    left, right, bottom, top = box
    rows = np.flatnonzero((y >= bottom) & (y <= top))
    columns = np.flatnonzero((x >= left) & (x <= right))
    return field.isel({field.dims[0]: rows, field.dims[1]: columns})


def _scale(fields: list[xr.DataArray], target: str) -> tuple[Colormap, Normalize]:
    values = np.concatenate([field.values.ravel() for field in fields])
    low, high = (float(edge) for edge in np.nanquantile(values, (0.002, 0.998)))
    if target in SIGNED:
        limit = max(abs(low), abs(high)) or 1.0
        return DIVERGING, Normalize(-limit, limit)
    if target == "tp":
        return INTENSITY, Normalize(0, high if high > 0 else 1.0)
    return SEQUENTIAL, Normalize(low, high if high > low else low + 1.0)


def _units(target: str) -> str:
    return bracketed("", value_units(target))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _one_hour(evaluation: xr.Dataset) -> str:
    return "One hour." + (" The data is synthetic." if is_synthetic(evaluation) else "")
