"""How skill changes over the hours of the day and over the months of the year."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from core.report.contents import Absent, basis, target_name, target_units, variable, with_values
from core.report.style import dress, legend, line_of, new_figure
from core.report.text import units_text

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def cycles(evaluation: xr.Dataset, target: str) -> Figure:
    """Mean RMSE of every hour of the day (UTC) and of every month, a line per model."""
    values = variable(evaluation, "rmse", target)
    if not np.issubdtype(values["time"].dtype, np.datetime64):
        raise Absent("The hours of the evaluation are no dates.")
    models = with_values(evaluation, values)
    figure = new_figure(3.2)
    axes = figure.subplots(1, 2, sharey=True)
    units = units_text(target_units(target))
    for axis, part, places in ((axes[0], "hour", range(24)), (axes[1], "month", range(1, 13))):
        means = (
            values.groupby(values["time"].dt.__getattribute__(part))
            .mean("time")
            .reindex({part: list(places)})
        )
        for model in models:
            axis.plot(
                list(places),
                means.sel(model=model.key).values,
                color=model.colour,
                marker=model.marker,
                markersize=3.8,
                markeredgewidth=0,
                linewidth=1.3,
            )
    dress(axes[0], x="hour of the day [UTC]", y=f"RMSE [{units}]" if units else "RMSE")
    dress(axes[1], x="month")
    axes[0].set_xticks(range(0, 24, 3))
    axes[0].set_xlim(-0.6, 23.6)
    axes[1].set_xticks(range(1, 13), MONTHS)
    axes[1].set_xlim(0.6, 12.4)
    axes[0].set_ylim(bottom=0)
    legend(figure, [(m.label, line_of(m, marker=True)) for m in models], loc="outside upper left", columns=4)
    return figure


def cycles_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`cycles` shows."""
    values = variable(evaluation, "rmse", target)
    units = units_text(target_units(target))
    months = np.unique(values["time"].dt.month.values)
    return (
        f"Mean RMSE of {target_name(target)}{f' [{units}]' if units else ''} by hour of the day (UTC) and by month. "
        f"Months without hours in the evaluation have no point; it has hours in {months.size} of 12. A point rests "
        f"on few hours, so small differences between points mean little. {basis(evaluation)}"
    )
