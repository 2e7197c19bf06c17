"""Panels of maps: one frame, one colour scale and one coastline for several fields on projected axes [km]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from core.report.contents import Absent, variable
from core.report.style import INK, NORMAL, QUIET, SMALL, WIDTH, new_figure

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]
"""left, right, bottom, top [m]."""

COLOUR_BAR = 0.75
"""Room for a colour bar [inch]."""


@dataclass(frozen=True)
class Panel:
    """A field (y, x) in the units of the colour bar, with its titles as they are drawn."""

    field: xr.DataArray
    title: str
    detail: str = ""


def columns_for(count: int) -> int:
    """Panels side by side: rows as full as they can be with at most four."""
    if count <= 4:
        return max(count, 1)
    return 3 if count in (5, 6, 9) else 4


def map_grid(
    panels: Sequence[Panel],
    *,
    box: Box,
    colours: Colormap,
    norm: Normalize,
    bar: str,
    coast: Sequence[Array],
    extend: str = "both",
) -> Figure:
    """Maps side by side with one colour bar, cut to ``box``."""
    columns = columns_for(len(panels))
    rows = -(-len(panels) // columns)
    left, right, bottom, top = box
    width = min((WIDTH - COLOUR_BAR - 0.5) / columns, 3.4)
    height = rows * (width * (top - bottom) / (right - left) + 0.45) + 0.45
    figure = new_figure(height, width=columns * width + COLOUR_BAR + 0.5, layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    image = None
    for number, axis in enumerate(axes.flat):
        if number >= len(panels):
            axis.set_visible(False)
            continue
        image = draw_map(axis, panels[number], box, colours, norm, coast)
        label_edges(axis, left=number % columns == 0, bottom=number // columns == rows - 1)
    if image is not None:
        colour_bar(figure, image, list(axes.flat), bar, extend)
    return figure


def draw_map(
    axis: Axes, panel: Panel, box: Box, colours: Colormap, norm: Normalize, coast: Sequence[Array]
) -> AxesImage:
    """One field with its coastline."""
    image = axis.imshow(
        panel.field.values,
        extent=tuple(edge / 1e3 for edge in extent_of(panel.field)),  # type: ignore[arg-type]
        origin="upper" if falls(panel.field[panel.field.dims[0]]) else "lower",
        cmap=colours,
        norm=norm,
        interpolation_stage="data",
    )
    axis.set_facecolor("#eceeef")
    if coast:
        axis.add_collection(
            LineCollection([line / 1e3 for line in coast], colors=INK, linewidths=0.45), autolim=False
        )
    left, right, bottom, top = (edge / 1e3 for edge in box)
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)
    axis.set_aspect("equal")
    axis.set_title(panel.title, fontsize=NORMAL, color=INK, loc="left", pad=12 if panel.detail else 4)
    if panel.detail:
        axis.text(
            0, 1.012, panel.detail, transform=axis.transAxes, fontsize=SMALL - 0.8, color=QUIET, va="bottom"
        )
    for spine in axis.spines.values():
        spine.set(linewidth=0.5, color=QUIET)
    return image


def label_edges(axis: Axes, *, left: bool, bottom: bool) -> None:
    """Kilometres at the outer edges of a grid of maps, ticks everywhere."""
    for along in (axis.xaxis, axis.yaxis):
        low, high = along.get_view_interval()
        step = _step((high - low) / 3.2)
        along.set_ticks(np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step)
    axis.tick_params(
        labelsize=SMALL - 0.8, width=0.5, length=2.5, colors=QUIET, labelbottom=bottom, labelleft=left
    )
    if bottom:
        axis.set_xlabel("easting [km]", fontsize=SMALL - 0.5, color=QUIET)
    if left:
        axis.set_ylabel("northing [km]", fontsize=SMALL - 0.5, color=QUIET)


def colour_bar(
    figure: Figure, image: AxesImage, axes: list[Axes], label: str, extend: str = "neither"
) -> None:
    """A colour bar to the right of all the panels it belongs to."""
    bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=32, pad=0.015, extend=extend, extendfrac=0.025)
    bar.set_label(label, fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL, width=0.5, length=2.5, colors=INK)
    bar.outline.set_linewidth(0.4)


def coastline(evaluation: xr.Dataset) -> list[Array]:
    """Lines (n, 2) [m] where the land fraction is one half; none where it is not known."""
    try:
        land = variable(evaluation, "land_fraction")
    except Absent:
        return []
    if set(land.dims) != {"y", "x"} or min(land.shape) < 2:
        return []
    land = land.transpose("y", "x")
    lines = contour_generator(land["x"].values, land["y"].values, land.values).lines(0.5)
    return [np.asarray(line, np.float64) for line in lines]


def extent_of(field: xr.DataArray) -> Box:
    """Outer edges of the cells of a (y, x) field [m]; its coordinates are named as its dimensions."""
    edges = []
    for dim in (field.dims[1], field.dims[0]):
        values = np.sort(np.asarray(field[dim].values, np.float64))
        half = (values[-1] - values[0]) / max(values.size - 1, 1) / 2 or 0.5
        edges += [float(values[0] - half), float(values[-1] + half)]
    return edges[0], edges[1], edges[2], edges[3]


def falls(coordinate: xr.DataArray) -> bool:
    """Whether a coordinate decreases, as y does where north comes first."""
    return coordinate.size < 2 or bool(coordinate[0] > coordinate[-1])


def _step(wanted: float) -> float:
    size = 10 ** math.floor(math.log10(wanted))
    return float(min((size, 2 * size, 5 * size, 10 * size), key=lambda step: abs(step - wanted)))
