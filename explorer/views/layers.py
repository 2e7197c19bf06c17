"""What maps show beside their fields: wind arrows and the edges of coarse cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, CustomJS, Range1d
from bokeh.plotting import figure

from core.domain import Domain
from explorer.session import Session
from explorer.snapshot import Snapshot
from explorer.style import INK
from explorer.winds import grid_winds, longest
from explorer.words import ARROWS, CELLS, STATISTICS, SWIPE

LAYER_NAMES = {"Wind": ARROWS, "Cells": CELLS, "Statistics": STATISTICS}

DRAW_ARROWS = """
// Arrows on every n-th coarse cell, so that they keep a gap that an eye can part; anew when n or the winds change.
const d = winds.data
const u = (d["x_" + key] ?? [null])[0], v = (d["y_" + key] ?? [null])[0]
const width = frame.properties.inner_width.is_unset ? 0 : frame.inner_width
if (u == null || u.shape[0] < 2) {
  if (line.data.x.length) { line.data.x = []; line.data.y = []; line.drawn = null; line.change.emit() }
  return
}
if (!(width > 20) || !(xr.end - xr.start > 1)) return
const [rows, columns] = u.shape
const [left, top, dx, dy, most] = ["left", "top", "dx", "dy", "longest"].map(name => d[name][0])
const stride = Math.max(1, Math.ceil(24 * (xr.end - xr.start) / width / dx))
if (line.drawn === u && line.stride == stride) return
line.drawn = u
line.stride = stride
const xs = [], ys = []
const gap = stride * dx
for (let i = Math.floor((stride - 1) / 2); i < rows; i += stride)
  for (let j = Math.floor((stride - 1) / 2); j < columns; j += stride) {
    const wx = u[i * columns + j], wy = v[i * columns + j], speed = Math.hypot(wx, wy)
    if (!(speed > 0)) continue
    const length = Math.min(speed / most, 1.4) * gap
    const [ex, ey] = [wx / speed * length, wy / speed * length]
    const [cx, cy] = [left + (j + 0.5) * dx, top - (i + 0.5) * dy]
    const [tx, ty] = [cx + ex / 2, cy + ey / 2]
    const [bx, by] = [0.34 * ex, 0.34 * ey]
    xs.push(cx - ex / 2, tx, tx - bx - 0.6 * by, tx, tx - bx + 0.6 * by, NaN)
    ys.push(cy - ey / 2, ty, ty - by + 0.6 * bx, ty, ty - by - 0.6 * bx, NaN)
  }
line.data.x = xs
line.data.y = ys
line.change.emit()  // of what is drawn alone: the server need not know
"""


class Layers:
    """Sources and glyphs of the layers of linked maps, on or off as the session says."""

    def __init__(self, session: Session, x_range: Range1d) -> None:
        self.session = session
        self.winds = ColumnDataSource(data=_no_winds(), name="winds")
        self.edges = ColumnDataSource(data={"x": [], "y": []}, name="coarse-cells")
        self.longest = 0.0
        """Speed of an arrow as long as the gap between arrows [m/s]; 0 where no arrow is drawn."""
        self._x_range = x_range
        self._cells: list[Any] = []
        self._domain: Domain | None = None

    def draw(self, plot: figure, key: str) -> list[tuple[str, Any]]:
        """Glyphs of one map; gives the lines with the kind of their colour."""
        ink = INK[self.session.theme]
        line = ColumnDataSource(data={"x": [], "y": []}, name=f"arrows-{key}", syncable=False)
        glyphs = []
        for kind, width, alpha in (("halo", 2.6, 0.55), ("coast", 1.0, 0.95)):
            colour = ink["halo"] if kind == "halo" else ink["coast"]
            arrows = plot.line("x", "y", source=line, line_color=colour, line_width=width, line_alpha=alpha)
            glyphs.append((kind, arrows.glyph))
        edges = plot.line(
            "x", "y", source=self.edges, line_color=ink["coast"], line_width=0.5, line_alpha=0.38,
            name=f"cells-{key}", visible=CELLS in self.session.layers,
        )  # fmt: skip
        self._cells.append(edges)
        glyphs.append(("coast", edges.glyph))
        arguments = {
            "winds": self.winds, "line": line, "xr": self._x_range, "frame": plot, "key": key,
        }  # fmt: skip
        redraw = CustomJS(args=arguments, code=DRAW_ARROWS)
        self.winds.js_on_change("data", redraw)
        self._x_range.js_on_change("end", redraw)
        plot.js_on_change("inner_width", redraw)
        return glyphs

    def update(self, snapshot: Snapshot) -> None:
        """The layers of the hour."""
        opened, domain, layers = snapshot.opened, snapshot.opened.domain, self.session.layers
        if CELLS in layers and domain != self._domain:
            self._domain = domain
            self.edges.data = cell_edges(domain)
        for edges in self._cells:
            edges.visible = CELLS in layers
        found = {}
        if ARROWS in layers:
            library = self.session.library
            for field in snapshot.fields:
                made = (
                    library.peek(opened, snapshot.hour, field.key)
                    if field.piece is None
                    else library.peek_member(field.piece)
                )
                winds = grid_winds(made, domain) if made is not None else None
                if winds is not None:
                    found[field.key] = winds
        self.longest = longest(found.values()) if found else 0.0
        if not found and len(self.winds.data) == len(_no_winds()):
            return
        columns = _no_winds()
        left, _, _, top = domain.coarse.extent
        columns |= {"left": [left], "top": [top], "dx": [domain.coarse.dx], "dy": [domain.coarse.dy]}
        columns["longest"] = [self.longest]
        for key, (x, y) in found.items():
            columns |= {f"x_{key}": [np.ascontiguousarray(x)], f"y_{key}": [np.ascontiguousarray(y)]}
        self.winds.data = columns

    def describe(self) -> str:
        """What the arrows mean, for the heading; empty where there are none."""
        if ARROWS not in self.session.layers or self.session.mode == SWIPE:
            return ""  # two fields in one map have no arrows: they would lie on each other
        if not self.longest:
            return "no winds here"
        return f"an arrow as long as the gap to the next: {self.longest:g} m/s"


class LayerControls(pn.viewable.Viewer):
    """Switches of the layers."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self.switches = pmui.CheckButtonGroup(
            label="", options=LAYER_NAMES, value=list(session.layers), size="small",
            sizing_mode="stretch_width", margin=(4, 16),
            description="What the maps show beside the field. Wind: arrows of the 10 metre wind on the maps that have "
            "one, means over coarse cells. Cells: edges of the coarse cells. Statistics: mean, lowest to highest value "
            "and standard deviation over the region.",
        )  # fmt: skip
        self.switches.param.watch(self._choose, "value")
        session.param.watch(self._follow, "layers")

    def __panel__(self) -> pn.viewable.Viewable:
        return self.switches

    def _choose(self, event: Any) -> None:
        if set(event.new) != set(self.session.layers):
            self.session.layers = [layer for layer in LAYER_NAMES.values() if layer in event.new]

    def _follow(self, *_: object) -> None:
        if set(self.switches.value) != set(self.session.layers):
            self.switches.value = list(self.session.layers)


def cell_edges(domain: Domain) -> dict[str, np.ndarray]:
    """The edges of all coarse cells as one line with gaps, {x, y} in the plane [m]."""
    left, right, bottom, top = domain.coarse.extent
    rows, columns = domain.coarse.shape
    x, y = np.linspace(left, right, columns + 1), np.linspace(top, bottom, rows + 1)
    gap = np.nan
    across = [(np.array([left, right, gap]), np.array([v, v, gap])) for v in y]
    down = [(np.array([v, v, gap]), np.array([top, bottom, gap])) for v in x]
    xs, ys = zip(*across, *down, strict=True)
    return {"x": np.concatenate(xs).astype(np.float32), "y": np.concatenate(ys).astype(np.float32)}


def _no_winds() -> dict[str, list[Any]]:
    return {name: [0.0] for name in ("left", "top", "dx", "dy", "longest")}
