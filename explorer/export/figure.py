"""The maps as a figure for paper: projected axes with a graticule, one colour bar, fonts that can be read.

Drawn with matplotlib's objects and the outlines of the store or the program, so no display and no network are
needed. All sizes are millimetres on paper; the figure is as wide as two columns of a journal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from pyproj import Transformer

from core.regions import WHOLE, Window
from core.text import for_figure
from explorer.encoding import nice_ticks
from explorer.export.scene import ExportError, Panel, Scene
from explorer.library import COARSE, Line
from explorer.snapshot import show_hour

WIDTH = 180.0
HIGHEST = 225.0
"""Two columns of a journal, and the most that a page holds [mm]."""
DPI = 300
LEFT, RIGHT, TOP, BOTTOM = 10.5, 20.0, 7.0, 13.5
"""Room around the maps for latitudes, colour bar, title, longitudes and the source [mm]."""
HEAD, GAP = 5.5, 3.0
"""Room above each map for its title and between columns [mm]."""
WIDEST_MAP = 120.0
TITLE, NORMAL, SMALL = 9.0, 8.0, 7.0
"""Sizes of type [pt]; journals ask for 6 or more."""
INK, QUIET, EMPTY = "#111111", "#555555", "#eceeef"
STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Degrees between lines of the graticule."""

_lock = Lock()  # matplotlib's caches of type are not made for several threads


@dataclass(frozen=True)
class Layout:
    """Columns and rows of maps and the size of one [mm]."""

    columns: int
    rows: int
    width: float
    height: float

    @property
    def total(self) -> float:
        """Height of the figure [mm]."""
        return TOP + self.rows * (HEAD + self.height) + BOTTOM


def arrange(count: int, aspect: float) -> Layout:
    """The grid for ``count`` maps of height / width ``aspect``: the lowest of those with large maps.

    Large means at least four fifths of the width that maps can have on a page at most.
    """
    layouts = []
    for columns in range(1, count + 1):
        rows = -(-count // columns)
        room = (WIDTH - LEFT - RIGHT - (columns - 1) * GAP) / columns
        highest = (HIGHEST - TOP - BOTTOM) / rows - HEAD
        width = min(room, highest / aspect, WIDEST_MAP)
        if width > 0:
            layouts.append(Layout(columns, rows, width, width * aspect))
    widest = max(layout.width for layout in layouts)
    return min((one for one in layouts if one.width >= 0.8 * widest), key=lambda one: one.total)


def write_figure(scene: Scene, outlines: Mapping[str, Line], path: Path) -> None:
    """Draw the maps of a scene into a file of the format that its suffix says, ``.png`` or ``.pdf``.

    ``outlines`` as of :meth:`explorer.library.Library.outlines`. Raises ExportError where no map is shown.
    """
    with _lock:
        figure = draw(scene, outlines)
        metadata = {"Title": f"{scene.title}, {show_hour(scene.hour)}"}
        with rc_context({"pdf.fonttype": 42}):  # type that editors can edit; journals refuse type 3
            figure.savefig(path, dpi=DPI, metadata=metadata)


def draw(scene: Scene, outlines: Mapping[str, Line]) -> Figure:
    """The figure of a scene: its region, every map with one colour scale, where and when it is."""
    if not scene.panels:
        raise ExportError("No map is shown that could be drawn.")
    window = scene.window
    layout = arrange(len(scene.panels), (window.top - window.bottom) / (window.right - window.left))
    figure = Figure(figsize=(WIDTH / 25.4, layout.total / 25.4), facecolor="white")
    colours, norm = ListedColormap(list(scene.colours)), Normalize(*scene.limits)
    graticule = Graticule(window, scene.opened.domain.crs)
    used = LEFT + layout.columns * layout.width + (layout.columns - 1) * GAP
    shift = (WIDTH - RIGHT - used) / 2  # a single map stands in the middle
    errors = {score.key: score.rmse for score in scene.scores}
    image: Any = None
    for number, panel in enumerate(scene.panels):
        row, column = divmod(number, layout.columns)
        left = shift + LEFT + column * (layout.width + GAP)
        top = TOP + row * (HEAD + layout.height) + HEAD
        axes = _axes(figure, left, top, layout.width, layout.height, layout.total)
        image = _draw_map(axes, scene, panel, colours, norm, outlines, graticule)
        below = number + layout.columns >= len(scene.panels)  # nothing under it
        axes.tick_params(labelleft=column == 0, labelbottom=below)
        error = errors.get(panel.key, np.nan) if panel.key != COARSE else np.nan
        _name_map(axes, number, panel, error, scene.quantity.difference_units)
        if number == 0:
            _scale_bar(axes, window, layout.width)
    height = layout.rows * (HEAD + layout.height) - HEAD
    tall = min(height, 110.0)
    bar_top = TOP + HEAD + (height - tall) / 2
    bar_axes = _axes(figure, shift + used + 3.5, bar_top, 3.2, tall, layout.total)
    _colour_bar(figure, image, bar_axes, scene)
    _words(figure, scene, layout)
    return figure


def _axes(figure: Figure, left: float, top: float, width: float, height: float, total: float) -> Axes:
    """Axes at a place given in millimetres from the upper left corner."""
    return figure.add_axes((left / WIDTH, 1 - (top + height) / total, width / WIDTH, height / total))


def _draw_map(
    axes: Axes,
    scene: Scene,
    panel: Panel,
    colours: ListedColormap,
    norm: Normalize,
    outlines: Mapping[str, Line],
    graticule: Graticule,
) -> Any:
    window = scene.window
    image = axes.imshow(
        np.ma.masked_invalid(panel.values), extent=scene.grid(panel.values).extent, origin="upper",
        cmap=colours, norm=norm, interpolation="nearest", aspect="auto", zorder=1,
    )  # fmt: skip
    axes.set_facecolor(EMPTY)
    lines = [np.column_stack(line) for line in graticule.lines]
    axes.add_collection(
        LineCollection(lines, colors=INK, linewidths=0.25, alpha=0.45, linestyles=(0, (4, 3)), zorder=2),
        autolim=False,
    )
    for kind, width, colour in (("border", 0.4, "#333333"), ("lake", 0.35, INK), ("coastline", 0.5, INK)):
        if kind in outlines:
            axes.plot(*outlines[kind], color=colour, linewidth=width, zorder=3, solid_joinstyle="round")
    axes.set_xlim(window.left, window.right)
    axes.set_ylim(window.bottom, window.top)
    axes.set_xticks(*graticule.longitudes)
    axes.set_yticks(*graticule.latitudes)
    axes.tick_params(labelsize=SMALL, width=0.4, length=2, pad=1.5, colors=INK)
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color=INK, zorder=5)
    return image


def _name_map(axes: Axes, number: int, panel: Panel, error: float, units: str) -> None:
    letter = chr(ord("a") + number) if number < 26 else str(number + 1)
    room = int(axes.get_position().width * WIDTH / 1.6)  # letters that fit, of about 1.6 mm
    label = for_figure(panel.label, max(room - 4, 6))
    axes.set_title(f"({letter}) {label}", fontsize=NORMAL, color=INK, loc="left", pad=3)
    if np.isfinite(error):
        axes.text(
            0.975, 0.025, f"RMSE {error:.2f} {units}", transform=axes.transAxes, fontsize=SMALL, color=INK,
            ha="right", va="bottom", zorder=6, path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )  # fmt: skip


def _scale_bar(axes: Axes, window: Window, width: float) -> None:
    """A bar of a round length of about a quarter of the map, in its lower left corner."""
    span = window.right - window.left
    size = 10 ** math.floor(math.log10(span / 4))
    length = max(step * size for step in (1, 2, 5) if step * size <= span / 4)
    metres = span / width  # per millimetre on paper
    x, y = window.left + 3 * metres, window.bottom + 3 * metres
    halo = [withStroke(linewidth=2.2, foreground="white")]
    axes.plot(
        [x, x + length], [y, y], color=INK, linewidth=1.6, solid_capstyle="butt", zorder=6,
        path_effects=[withStroke(linewidth=3.2, foreground="white")],
    )  # fmt: skip
    axes.text(
        x + length / 2, y + 1.0 * metres, f"{length / 1000:g} km", fontsize=SMALL, color=INK, ha="center",
        va="bottom", zorder=6, path_effects=halo,
    )  # fmt: skip


def _colour_bar(figure: Figure, image: Any, axes: Axes, scene: Scene) -> None:
    low, high = scene.limits
    seen = [panel.values[scene.window.slices(scene.grid(panel.values))] for panel in scene.panels]
    known = np.concatenate([values[np.isfinite(values)] for values in seen])
    under, over = bool((known < low).any()), bool((known > high).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((under, over), "neither")
    bar = figure.colorbar(image, cax=axes, extend=extend, extendfrac=0.03)
    label = scene.quantity.label if not scene.against else "Difference"
    bar.set_label(f"{label} [{scene.units}]", fontsize=NORMAL, color=INK, labelpad=3)
    ticks = nice_ticks(low, high, 8)
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 1
    bar.set_ticks(ticks, labels=[f"{tick:.{decimals}f}".replace("-", "−") for tick in ticks])
    bar.ax.tick_params(labelsize=SMALL, width=0.4, length=2, pad=1.5, colors=INK)
    bar.outline.set_linewidth(0.4)


def _words(figure: Figure, scene: Scene, layout: Layout) -> None:
    """What and when above the maps; below them the data, how members were drawn, and what is synthetic."""
    region = "" if scene.window.key == WHOLE else f" · {scene.window.name}"
    left, height = 1.5 / WIDTH, layout.total
    figure.text(
        left, 1 - 2 / height, for_figure(f"{scene.title} · {show_hour(scene.hour)}{region}", 200),
        fontsize=TITLE, color=INK, va="top",
    )  # fmt: skip
    if scene.opened.synthetic:
        figure.text(
            1 - 1.5 / WIDTH, 1 - 2 / height, "Synthetic weather", fontsize=NORMAL, color=INK, weight="bold",
            va="top", ha="right",
        )  # fmt: skip
    title = for_figure(scene.opened.store.attrs.get("title", scene.opened.name), 80)
    parts = [
        f"Data: {title}" + (" (synthetic: made by a program, not observed)" if scene.opened.synthetic else "")
    ]
    if scene.members:
        draw = scene.draw
        parts.append(
            f"Sampled: member 0, seed {draw.seed}, {draw.steps} steps of {draw.sampler}".replace("_", " ")
        )
    figure.text(left, 1.4 / height, "\n".join(parts), fontsize=SMALL - 0.5, color=QUIET, va="bottom")


class Graticule:
    """Meridians and parallels over a window of the plane.

    Attributes
    ----------
    lines : (x, y) of each line [m]
    longitudes, latitudes : where meridians cross the lower edge and parallels the left one [m], and their
        labels, as ``Axes.set_xticks`` takes them
    """

    def __init__(self, window: Window, crs: str) -> None:
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        to_plane = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        x = np.linspace(window.left, window.right, 201)
        y = np.linspace(window.bottom, window.top, 201)
        grid_lon, grid_lat = to_degrees.transform(*np.meshgrid(x[::10], y[::10]))
        west, east = float(grid_lon.min()), float(grid_lon.max())
        south, north = float(grid_lat.min()), float(grid_lat.max())
        meridians = list(_multiples(west, east))
        parallels = list(_multiples(south, north))
        self.lines: list[Line] = []
        for longitude in meridians:
            along = np.linspace(south, north, 101)
            self.lines.append(to_plane.transform(np.full(101, longitude), along))
        for latitude in parallels:
            along = np.linspace(west, east, 101)
            self.lines.append(to_plane.transform(along, np.full(101, latitude)))
        lower = to_degrees.transform(x, np.full(x.size, window.bottom))[0]
        left = to_degrees.transform(np.full(y.size, window.left), y)[1]
        self.longitudes = _crossings(meridians, lower, x, "E", "W")
        self.latitudes = _crossings(parallels, left, y, "N", "S")


def _multiples(low: float, high: float) -> Iterator[float]:
    """Round degrees between two numbers, three to six of them where there are as many."""
    step = next((step for step in reversed(STEPS) if (high - low) / step >= 3), STEPS[0])
    for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield round(number * step, 6)


def _crossings(
    values: Sequence[float], along: NDArray[np.float64], places: NDArray[np.float64], plus: str, minus: str
) -> tuple[list[float], list[str]]:
    """Where ``along``, which grows with ``places``, takes the values; and the labels of those it takes."""
    taken = [value for value in values if along[0] <= value <= along[-1]]
    labels = [f"{abs(value):g}°{plus if value > 0 else minus if value < 0 else ''}" for value in taken]
    return [float(np.interp(value, along, places)) for value in taken], labels
