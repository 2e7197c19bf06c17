"""How skill changes over the hours of the day and over the months of the year."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from core.report.contents import Absent, basis, target_name, variable, with_values
from core.report.quantities import bracketed, difference_units, shown_difference
from core.report.style import dress, legend, line_of, new_figure

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def cycles(evaluation: xr.Dataset, target: str) -> Figure:
    """Mean RMSE of every hour of the day (UTC) and of every month, a line per model."""
    values = _rmse(evaluation, target)
    models = with_values(evaluation, values)
    figure = new_figure(3.2)
    axes = figure.subplots(1, 2, sharey=True)
    parts = ((values["time"].dt.hour, range(24)), (values["time"].dt.month, range(1, 13)))
    for axis, (part, places) in zip(axes, parts, strict=True):
        means = values.groupby(part.rename("part")).mean("time").reindex(part=list(places))
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
    dress(axes[0], x="hour of the day [UTC]", y=bracketed("RMSE", difference_units(target)))
    dress(axes[1], x="month")
    axes[0].set_xticks(range(0, 24, 3))
    axes[0].set_xlim(-0.6, 23.6)
    axes[1].set_xticks(range(1, 13), MONTHS)
    axes[1].set_xlim(0.6, 12.4)
    axes[0].set_ylim(bottom=0)
    legend(figure, [(m.label, line_of(m, marker=True)) for m in models], loc="outside right upper")
    return figure


def cycles_caption(evaluation: xr.Dataset, target: str) -> str:
    """What :func:`cycles` shows."""
    months = np.unique(_rmse(evaluation, target)["time"].dt.month.values)
    return (
        f"Mean RMSE of {bracketed(target_name(target), difference_units(target))} by hour of the day (UTC) "
        "and "
        f"by month. The hours lie in {months.size} of the 12 months; the others have no point. A point "
        "rests on "
        f"few hours, so small differences between points mean little. {basis(evaluation)}"
    )


def _rmse(evaluation: xr.Dataset, target: str) -> xr.DataArray:
    values = variable(evaluation, "rmse", target)
    if not np.issubdtype(values["time"].dtype, np.datetime64):
        raise Absent("The times of the evaluation are no dates.")
    return shown_difference(values, target)
