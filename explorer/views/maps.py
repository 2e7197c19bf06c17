"""Maps side by side: one source, one colour scale, one pointer.

All fields are columns of one ``ColumnDataSource`` with a single row, coded to 16 bits; a new hour is one
assignment to it. Pan, zoom, crosshair and hover are linked by shared models and run in the browser alone.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import panel as pn
from bokeh.events import DoubleTap
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CrosshairTool,
    CustomJS,
    CustomJSHover,
    HoverTool,
    LinearColorMapper,
    PanTool,
    Range1d,
    Span,
    WheelZoomTool,
)
from bokeh.plotting import figure
from numpy.typing import NDArray

from core.domain import Domain
from core.plural import counted
from explorer.batch import adding, together
from explorer.display import Display
from explorer.encoding import Scale, nice_ticks
from explorer.jobs import Progress
from explorer.library import COARSE, TRUTH, OpenStore
from explorer.region_statistics import region_statistics, show_statistics
from explorer.session import Session
from explorer.snapshot import Field, Snapshot, show_hour
from explorer.style import DIVERGING, INK, PALETTES, block, template_text, text
from explorer.views.layers import Layers
from explorer.views.marks import Marks, Shown
from explorer.views.swipe import Swipe, swipe_head
from explorer.words import DIFFERENCE, STATISTICS, SWIPE

CELL = {
    "min-height": "0", "min-width": "0",
    # Panel would give the map the height of the cell, and the title on top of that.
    "display": "grid", "grid-template-rows": "max-content minmax(0, 1fr)",
    "grid-template-columns": "minmax(0, 1fr)",
}  # fmt: skip
NOTHING = np.zeros((1, 1), np.uint16)
FARTHEST = 4
"""How far out maps can be seen, in sides of the domain; wide and flat maps of it need about three."""
HEAD, HEAD_WITH_STATISTICS = 24, 42
"""Height of the title of a map [pixels]."""

FIT = """
// Show at least the wanted window, at the same metres per pixel along x and y.
if (frame != null && frame.inner_width > 20 && frame.inner_height > 20)
  target.frame = {w: frame.inner_width, h: frame.inner_height}
if (target.frame == null) return
const {w, h} = target.frame
const [l, r, b, t] = ['left', 'right', 'bottom', 'top'].map(name => target.data[name][0])
let k = 1.02 * Math.max((r - l) / w, (t - b) / h)
let cx = (l + r) / 2, cy = (b + t) / 2
const last = target.fitted
if (resized && last != null) {
  // A window that was panned or zoomed keeps its centre and scale when the page changes size.
  const mx = (xr.start + xr.end) / 2, my = (yr.start + yr.end) / 2, m = (xr.end - xr.start) / last.w
  if (Math.abs(mx - last.cx) > 0.01 * w * k || Math.abs(my - last.cy) > 0.01 * w * k || Math.abs(m / last.k - 1) > 0.01) {
    cx = mx; cy = my; k = m
  }
}
target.fitted = {w, k: 1.02 * Math.max((r - l) / w, (t - b) / h), cx: (l + r) / 2, cy: (b + t) / 2}
xr.setv({start: cx - k * w / 2, end: cx + k * w / 2})
yr.setv({start: cy - k * h / 2, end: cy + k * h / 2})
"""
"""Keeps the scale equal in both directions; a ``Range1d`` shared by several figures can't by itself."""

READ = """
const d = source.data
const {x, y} = special_vars
const cell = (image) => {
  const [rows, columns] = image.shape
  const i = Math.floor((d.top[0] - y) / d.height[0] * rows)
  const j = Math.floor((x - d.left[0]) / d.width[0] * columns)
  return i < 0 || j < 0 || i >= rows || j >= columns ? 0 : image[i * columns + j]
}
if (format == "place") {
  const s = place.data
  const [rows, columns] = s.lon[0].shape
  const fi = Math.min(Math.max((d.top[0] - y) / d.height[0] * (rows - 1), 0), rows - 1.001)
  const fj = Math.min(Math.max((x - d.left[0]) / d.width[0] * (columns - 1), 0), columns - 1.001)
  const i = Math.floor(fi), j = Math.floor(fj), a = fi - i, b = fj - j
  const mix = (g) => {
    const at = (p, q) => g[p * columns + q]
    return (1 - a) * ((1 - b) * at(i, j) + b * at(i, j + 1)) + a * ((1 - b) * at(i + 1, j) + b * at(i + 1, j + 1))
  }
  const lat = mix(s.lat[0]), lon = mix(s.lon[0])
  const degrees = (v, plus, minus) => Math.abs(v).toFixed(2) + "\\u00b0 " + (v < 0 ? minus : plus)
  const where = degrees(lat, "N", "S") + "  " + degrees(lon, "E", "W")
  const [height_rows] = s.orography[0].shape
  return height_rows > 1 ? where + "  \\u00b7  " + cell(s.orography[0]).toFixed(0) + " m" : where
}
const name = format
const decode = (key, low, step) => {
  const code = d[key] == null ? 0 : cell(d[key][0])
  return code == 0 ? NaN : low + (code - 1) * step
}
// A map may have a scale and units of its own.
const of = (what) => (d[what + "_" + name] ?? d[what])[0]
const shown = (v, unit, sign) => (sign && v > 0 ? "+" : "") + v.toFixed(d.decimals[0]).replace("-", "\\u2212") + " " + unit
const against = d.against[0]
if (against == "") {
  const v = decode(name, of("low"), of("step"))
  return isNaN(v) ? "no data" : shown(v, of("units"), false)
}
const r = decode(against, d.reference_low[0], d.reference_step[0])
if (name == against)
  return isNaN(r) ? "no data" : shown(r, d.units[0], false)
const v = decode(name, d.low[0], d.step[0])
return isNaN(v) || isNaN(r) ? "no data" : shown(v, d.difference_units[0], true) + "  (" + shown(r + v, d.units[0], false) + ")"
"""
"""Reads a column under the pointer whatever its shape, and says it in the units people use."""


class Maps(pn.viewable.Viewer):
    """The maps of a session's snapshot."""

    prefix = ""  # of the names of Bokeh models, which are found by name
    scrolls = True  # whether the wheel zooms; where a page is longer than the window it moves the page
    follows = (
        "snapshot", "mode", "reference", "palette", "limits", "region", "layers", "left", "right",
    )  # fmt: skip

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._domain: Domain | None = None
        self._opened: OpenStore | None = None
        self._figures: dict[str, figure] = {}
        self._cells: dict[str, pn.Column] = {}
        self._heads: dict[str, pn.pane.HTML] = {}
        self._hovers: dict[str, HoverTool] = {}
        self._shown: tuple[str, ...] = ()
        self._filled: Snapshot | None = None
        self._tooltip_rows: tuple[tuple[str, str], ...] = ()
        self._layers: Layers | None = None
        self._swipe: Swipe | None = None
        self._drawn: Display | None = None
        self._statistics: dict[str, str] = {}

        self.source = ColumnDataSource(data=empty_columns(), name=f"{self.prefix}fields")
        self.place = ColumnDataSource(
            data={"lon": [np.zeros((2, 2), np.float32)], "lat": [np.zeros((2, 2), np.float32)],
                  "orography": [np.zeros((1, 1), np.int16)]},
            name=f"{self.prefix}place",
        )  # fmt: skip
        self.outlines = ColumnDataSource(data={"x": [], "y": []})
        self.borders = ColumnDataSource(data={"x": [], "y": []})
        self.target = ColumnDataSource(data=window_columns(0, 1, 0, 1), name=f"{self.prefix}window")
        self.x_range, self.y_range = (
            Range1d(0, 1, name=f"{self.prefix}{name}", syncable=False) for name in "xy"
        )  # moving about is the browser's affair; nothing here asks where
        self._view = {"target": self.target, "xr": self.x_range, "yr": self.y_range}
        refit = CustomJS(args={**self._view, "frame": None}, code="const resized = false\n" + FIT)
        self.target.js_on_change("data", refit)
        self.mapper = LinearColorMapper(
            palette=list(PALETTES["thermal"]), low=0.5, high=65535.5, low_color="rgba(0, 0, 0, 0)"
        )
        self._spans = [
            Span(dimension=dimension, line_width=1, syncable=False) for dimension in ("width", "height")
        ]
        self._reader = CustomJSHover(args={"source": self.source, "place": self.place}, code=READ)
        self._outline_glyphs: list[Any] = []
        self._scale = Scale(0.0, 1.0)
        self.marks = Marks(session, self.prefix)

        self._head = block(min_width=200)
        self._bar = block(width=74, sizing_mode="stretch_height", css_classes=["colour-bar"])
        self._grid = pn.Column(
            sizing_mode="stretch_both",
            margin=0,
            css_classes=["map-grid"],
            # Panel adds this button to every column; here it would take the place of a map.
            stylesheets=[".scroll-button { display: none !important; }"],
        )
        self._layout = pn.Column(
            pn.Row(self._head, sizing_mode="stretch_width", margin=0),
            pn.Row(self._grid, self._bar, sizing_mode="stretch_both", margin=0, styles={"min-height": "0"}),
            sizing_mode="stretch_both",
            margin=(0, 10, 6, 14),
            styles={"min-height": "0"},
        )
        session.param.watch(self._update, list(self.follows))
        session.param.watch(self._update_theme, "theme")
        self._follow()
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    # ---------------------------------------------------------------- what the session says

    def _follow(self) -> None:
        """Watch what changes less than all maps, and add what only the maps of hours have."""
        self._layers = Layers(self.session, self.x_range)
        self._swipe = Swipe(self.source)
        self.session.param.watch(self._update_heads, ["scores", "progress", "remarks"])
        self.session.points.param.watch(self._update_heads, ["place", "sited"])
        self.session.param.watch(self._update_preview, "preview")

    def _update(self, *events: Any) -> None:
        snapshot = self.session.snapshot
        if snapshot is None:
            return
        with together():
            if any(event.name == "region" for event in events):
                self._update_window()
            if snapshot.opened is not self._opened:
                self._use(snapshot.opened)
            self._fill(snapshot)
            self._filled = snapshot
            self._arrange(snapshot)
            if self._layers is not None:
                self._layers.update(snapshot)
            self._describe_fields(snapshot)
            self._update_heads()

    def _use(self, opened: OpenStore) -> None:
        """Another store: its place, outlines and window."""
        self._opened = opened
        warmed = self.session.library.warm(opened)
        if warmed.done():
            self._draw_ground(opened)
        else:
            warmed.add_done_callback(lambda _: self.session.later(lambda: self._draw_ground(opened)))
        if opened.domain != self._domain:
            self._domain = opened.domain
            self._update_window()

    def _draw_ground(self, opened: OpenStore) -> None:
        """Outlines, and what the readout says of a place; reading them for the first time takes a second."""
        if opened is not self._opened:
            return
        longitude, latitude = opened.graticule
        orography = np.zeros((1, 1), np.int16)
        if opened.static is not None and "orography" in opened.static:
            heights = np.nan_to_num(opened.static["orography"].values)
            orography = np.rint(heights).astype(np.int16)
        lines = self.session.library.outlines(opened)
        with together():
            self.place.data = {"lon": [longitude], "lat": [latitude], "orography": [orography]}
            self.outlines.data = join_outlines(lines, ("coastline", "lake"), opened.domain)
            self.borders.data = join_outlines(lines, ("border",), opened.domain)

    def _update_window(self, *_: object) -> None:
        window = self.session.window
        if window is not None:
            self.fit(window.left, window.right, window.bottom, window.top)
            if self._swipe is not None:
                self._swipe.centre((window.left + window.right) / 2)

    def fit(self, left: float, right: float, bottom: float, top: float) -> None:
        """Show at least this window of the plane [m] in all maps."""
        if (
            self.x_range.start == 0 and self.x_range.end == 1
        ):  # before the browser knows the size of the frames
            self.x_range.update(start=left, end=right)
            self.y_range.update(start=bottom, end=top)
        if self.session.opened is not None:  # farther out there is nothing, and no way back to be seen
            edges = self.session.opened.domain.fine.extent
            self.x_range.max_interval = FARTHEST * (edges[1] - edges[0])
            self.y_range.max_interval = FARTHEST * (edges[3] - edges[2])
        columns = window_columns(left, right, bottom, top)
        columns["count"] = [self.target.data["count"][0] + 1]  # so that the same window is fitted again
        self.target.data = columns

    def _fill(self, snapshot: Snapshot) -> None:
        """All fields into the source, in one assignment, and the colours that fit them."""
        session, quantity = self.session, snapshot.quantity
        shown = session.shown()
        against = session.against if session.mode == DIFFERENCE else ""
        columns = empty_columns()
        left, right, bottom, top = snapshot.opened.domain.fine.extent
        columns |= {"left": [left], "right": [right], "bottom": [bottom], "top": [top]}
        columns |= {"width": [right - left], "height": [top - bottom]}
        columns |= {
            "units": [quantity.units],
            "difference_units": [quantity.difference_units],
            "decimals": [quantity.decimals + 1],
            "against": [against],
        }
        self._drawn = shown
        low, high = session.limits or shown.limits
        self._scale = scale = Scale.around(low, high, shown.values.values())
        columns |= {"low": [scale.low], "step": [scale.step]}
        columns |= {key: [scale.encode(values)] for key, values in shown.values.items()}
        if shown.reference is not None:
            own = Scale.spanning([shown.reference])
            columns |= {"reference_low": [own.low], "reference_step": [own.step]}
            columns[against] = [own.encode(shown.reference)]
        for key in (*self._figures, *(field.key for field in snapshot.fields)):
            columns.setdefault(key, [NOTHING])  # what is hidden or still computed; an image needs its column
        name = session.palette if session.palette in PALETTES else quantity.palette
        colours = DIVERGING if shown.signed else PALETTES[name]
        self.mapper.palette = scale.palette(colours, low, high)
        self.source.data = columns
        self._bar.object = colour_bar(colours, low, high, shown.units)
        fields = {field.key: field.values for field in snapshot.fields if field.values is not None}
        labels = {field.key: field.label for field in snapshot.fields}
        self.marks.show(Shown(quantity, snapshot.hour, fields, labels, scale, bool(against)))

    def _arrange(self, snapshot: Snapshot) -> None:
        """The maps that are wanted, in order, in a grid that suits their number."""
        difference = self.session.mode == DIFFERENCE
        against = self.session.against if difference else ""
        rows = tuple((field.key, field.label) for field in snapshot.fields)
        if self.session.mode == SWIPE and self._swipe is not None:
            self._swipe.show(*self.session.pair())
            self._place_maps(rows, (SWIPE,))
            return
        self._place_maps(rows, tuple(key for key, _ in rows if key != against))

    def _place_maps(self, rows: tuple[tuple[str, str], ...], keys: tuple[str, ...]) -> None:
        """Show the maps ``keys``; the hover reads ``rows``, (key, label) each."""
        new = [key for key in keys if key not in self._figures]
        with adding() if new else nullcontext():
            for key in new:
                self._make(key)
            self._lay_out(rows, keys)

    def _lay_out(self, rows: tuple[tuple[str, str], ...], keys: tuple[str, ...]) -> None:
        for key, hover in self._hovers.items():
            template = _tooltip(rows, key)
            if hover.tooltips != template:
                hover.tooltips = template
        if keys != self._shown:
            self._shown = keys
            count = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4}.get(
                len(keys), math.ceil(len(keys) ** 0.5)
            )
            self._grid.styles = grid_styles(count, math.ceil(len(keys) / max(count, 1)))
            # Maps that are not wanted are hidden, not removed, so that they come back at once.
            for key, cell in self._cells.items():
                cell.visible = key in keys
                cell.styles = place_cell(keys.index(key) if key in keys else None)
            if len(self._grid.objects) != len(self._cells):
                self._grid.objects = list(self._cells.values())

    def _describe_fields(self, snapshot: Snapshot) -> None:
        """Statistics over the region of what the maps show, where they are wanted."""
        self._statistics = {}
        window, shown = self.session.window, self._drawn
        if STATISTICS not in self.session.layers or window is None or shown is None:
            return
        quantity, signed = snapshot.quantity, shown.reference is not None
        units = quantity.difference_units if signed else quantity.units
        for key, values in shown.values.items():
            found = region_statistics(values, window, snapshot.opened.domain)
            if found is not None:
                self._statistics[key] = show_statistics(found, quantity.decimals, units, signed=signed)

    def _update_preview(self, *_: object) -> None:
        """The emerging field of one map, in the colours that are there."""
        session, snapshot, preview = self.session, self.session.snapshot, self.session.preview
        if preview is None or snapshot is None or snapshot is not self._filled or session.view != "maps":
            return
        key = preview.piece.key
        shown = session.shown()
        if key in self.source.data and key in shown.values and snapshot.get(key).values is None:
            with together():
                self.source.patch({key: [(0, self._scale.encode(shown.values[key]))]})
                self._update_heads()

    def _update_heads(self, *_: object) -> None:
        snapshot = self.session.snapshot
        if snapshot is not None:
            with together():
                self._write_heads(snapshot)

    def _write_heads(self, snapshot: Snapshot) -> None:
        session = self.session
        difference = session.mode == DIFFERENCE
        against = snapshot.get(session.against) if difference else None
        title = snapshot.quantity.label
        if difference and against is not None:
            title += f": difference from {against.label.lower() if against.key in (TRUTH, COARSE) else against.label}"
        busy = ", ".join(field.label for field in snapshot.computing)
        self._head.object = (
            f"<div class='head'><h2>{text(title)}</h2><span class='when'>{text(show_hour(snapshot.hour))}</span>"
            + (f"<span class='busy'>computing {text(busy)}…</span>" if busy else "")
            + _marked(session, snapshot)
            + (f"<span class='layer'>{text(self._layers.describe())}</span>" if self._layers else "")
            + "</div>"
        )
        if SWIPE in self._heads:
            names = session.references()
            sides = [(names[key], self._statistics.get(key, "")) for key in session.pair()]
            self._heads[SWIPE].object = swipe_head(*sides)
        table = session.scores
        for field in snapshot.fields:
            head = self._heads.get(field.key)
            if head is None:
                continue
            parts = [f"<span class='name'>{text(field.label)}</span>"]
            detail = _spacing(field, snapshot.opened.domain)
            parts.append(f"<span class='detail'>{text(detail)}</span>")
            row = table.get(field.key) if table is not None else None
            if field.problem:
                parts.append(
                    f"<span class='failed' title='{text(field.problem)}'>{text(field.problem)}</span>"
                )
            elif field.computing:
                parts.append(f"<span class='busy'>{_stage(field, session.progress)}</span>")
            elif row is not None and field.key != COARSE and np.isfinite(row.rmse):
                units = snapshot.quantity.difference_units
                parts.append(f"<span class='score'>RMSE <b>{row.rmse:.2f} {text(units)}</b></span>")
            remark = session.remarks.get(field.key)
            if remark is not None:
                more = "\n".join((remark.sentence, *remark.details))
                parts.append(f"<span class='unusual' title='{text(more)}'>{text(remark.short)}</span>")
            numbers = self._statistics.get(field.key, "")
            tall = HEAD_WITH_STATISTICS if STATISTICS in session.layers else HEAD
            if head.height != tall:
                head.height = tall
            head.object = (
                f"<div class='panel-head'>{''.join(parts)}</div><div class='panel-stats' "
                f"title='Over the cells of the region: mean, lowest to highest value, standard deviation'>"
                f"{text(numbers)}</div>"
            )

    def _update_theme(self, *_: object) -> None:
        ink = INK[self.session.theme]
        with together():
            for span in self._spans:
                span.update(line_color=ink["cross"], line_alpha=0.55)
            for kind, glyph in self._outline_glyphs:
                if kind == "domain":
                    glyph.update(fill_color=ink["empty"], hatch_color=ink["hatch"])
                else:
                    glyph.line_color = ink["halo"] if kind == "halo" else ink["coast"]
            if self._swipe is not None:
                self._swipe.colour(ink["cross"])

    # ---------------------------------------------------------------- one map

    def _mapper_of(self, key: str) -> LinearColorMapper:
        """The colours of a map."""
        return self.mapper

    def _make(self, key: str) -> None:
        ink = INK[self.session.theme]
        pan, wheel = PanTool(), WheelZoomTool(zoom_on_axis=False)
        plot = figure(
            name=f"{self.prefix}map-{key}",
            x_range=self.x_range,
            y_range=self.y_range,
            x_axis_location=None,
            y_axis_location=None,
            toolbar_location=None,
            tools=[pan, wheel, BoxZoomTool(match_aspect=True)] if self.scrolls else [pan],
            active_drag=pan,
            active_scroll=wheel if self.scrolls else None,
            output_backend="canvas",
            sizing_mode="stretch_both",
            min_border=0,
            outline_line_color=None,
            min_width=60,
            min_height=60,
        )
        plot.grid.visible = False
        domain = plot.quad(
            left="left",
            top="top",
            right="right",
            bottom="bottom",
            source=self.source,
            line_color=None,
            fill_color=ink["empty"],
            hatch_pattern="right_diagonal_line",
            hatch_color=ink["hatch"],
            hatch_scale=9,
            hatch_weight=0.6,
            level="image",
        )
        image = plot.image(
            image=key,
            x="left",
            y="top",
            dw="width",
            dh="height",
            source=self._swipe.source if key == SWIPE and self._swipe is not None else self.source,
            color_mapper=self._mapper_of(key),
            anchor="top_left",
            origin="top_left",
            level="image",
        )
        self._outline_glyphs.append(("domain", domain.glyph))
        for kind, source, width, alpha in (
            ("halo", self.outlines, 2.4, 0.45),
            ("coast", self.outlines, 0.9, 0.95),
            ("border", self.borders, 0.8, 0.6),
        ):
            colour = ink["halo"] if kind == "halo" else ink["coast"]
            line = plot.line(
                "x", "y", source=source, line_color=colour, line_width=width, line_alpha=alpha, level="glyph"
            )
            self._outline_glyphs.append((kind, line.glyph))
        if self._layers is not None:
            self._outline_glyphs += self._layers.draw(plot, key)
        if self._swipe is not None and key == SWIPE:
            self._swipe.draw(plot)
            self._swipe.colour(ink["cross"])
        hover = HoverTool(
            renderers=[image],
            tooltips="",
            formatters={"@{left}": self._reader},  # any column: the reader takes what its format names
            show_arrow=False,
            attachment="horizontal",
        )
        plot.add_tools(hover, CrosshairTool(overlay=self._spans))
        for span in self._spans:
            span.update(line_color=ink["cross"], line_alpha=0.55)
        arguments = {**self._view, "frame": plot}
        resized = CustomJS(args=arguments, code="const resized = true\n" + FIT)
        plot.js_on_change("inner_width", resized)
        plot.js_on_change("inner_height", resized)
        plot.js_on_event(DoubleTap, CustomJS(args=arguments, code="const resized = false\n" + FIT))
        own = self._mapper_of(key)
        self.marks.draw_on(plot, key, own if own is self.mapper else None)
        for drawn in plot.renderers:  # nothing is selected or muted here; each would be a model more to send
            drawn.update(nonselection_glyph=None, selection_glyph=None, muted_glyph=None)
        self._figures[key] = plot
        self._hovers[key] = hover
        self._heads[key] = block(height=HEAD if key != SWIPE else HEAD_WITH_STATISTICS)
        self._cells[key] = pn.Column(
            self._heads[key],
            pn.pane.Bokeh(plot, sizing_mode="stretch_both", margin=0),
            sizing_mode="stretch_both",
            margin=0,
            styles=CELL,
        )


# ---------------------------------------------------------------- small helpers


def empty_columns() -> dict[str, list[Any]]:
    """One row of everything the glyphs and the hover need."""
    numbers = ("left", "right", "bottom", "top", "width", "height", "reference_low")
    return {name: [0.0] for name in numbers} | {
        "low": [0.0], "step": [1.0], "reference_step": [1.0], "decimals": [1],
        "units": [""], "difference_units": [""], "against": [""],
    }  # fmt: skip


def window_columns(left: float, right: float, bottom: float, top: float) -> dict[str, list[float]]:
    return {"left": [left], "right": [right], "bottom": [bottom], "top": [top], "count": [0]}


def join_outlines(
    lines: dict[str, Any], kinds: tuple[str, ...], domain: Domain
) -> dict[str, NDArray[np.float32]]:
    """Several kinds of outline as one line with gaps, where they lie in the domain."""
    parts = [np.column_stack([*lines[kind]]) for kind in kinds if kind in lines]
    gap = np.full((1, 2), np.nan)
    points = np.concatenate([gap, *(piece for part in parts for piece in (part, gap))])
    left, right, bottom, top = domain.fine.extent
    x, y = points.T
    points[(x < left) | (x > right) | (y < bottom) | (y > top)] = np.nan
    return {"x": points[:, 0].astype(np.float32), "y": points[:, 1].astype(np.float32)}


def _marked(session: Session, snapshot: Snapshot) -> str:
    """What lies over the maps: the chosen point, and what the colours of stations mean."""
    place, sited = session.points.place, session.points.sited
    words = []
    if sited is not None and sited.size and snapshot.quantity.key == "t2m":
        what = "field minus observed" if session.mode == DIFFERENCE else "observed"
        words.append(f"circles: {counted(sited.size, 'station')}, {what}")
    if place is not None:
        words.append("ring: chosen point, see Point")
    return f"<span class='when marked'>{text(' · '.join(words))}</span>" if words else ""


def _stage(field: Field, progress: Progress | None) -> str:
    """How far a field is that is not ready."""
    if progress is None or field.piece is None or progress.piece != field.piece or not progress.steps:
        return "computing…"
    return f"step {progress.step} of {progress.steps}"


def _spacing(field: Field, domain: Domain) -> str:
    spacing = (domain.coarse if field.key == COARSE else domain.fine).dx / 1000
    return f"{spacing:g} km"


def _tooltip(rows: tuple[tuple[str, str], ...], key: str) -> str:
    """HTML of the hover: where, and every field's value, this map's in bold."""
    body = "".join(
        f"<div style='display:flex;justify-content:space-between;gap:18px;"
        f"font-weight:{600 if name == key else 400}'>"
        f"<span>{template_text(label)}</span><span>@{{left}}{{{name}}}</span></div>"
        for name, label in rows
    )
    return (
        "<div class='map-hover' style='margin:-5px;padding:7px 11px;font:12.5px/19px Roboto,Arial,sans-serif;"
        "font-variant-numeric:tabular-nums;color:var(--mui-palette-text-primary);"
        "background:var(--mui-palette-background-paper)'>"
        f"<div style='opacity:0.72;margin-bottom:2px'>@{{left}}{{place}}</div>{body}</div>"
    )


def place_cell(position: int | None) -> dict[str, str]:
    """Styles of a map's cell at a position of the grid, or of one that is not shown.

    A style of its own overrides what Panel does to hide things, so hiding is said here too.
    """
    return {**CELL, "order": str(position)} if position is not None else {**CELL, "display": "none"}


def grid_styles(columns: int, rows: int) -> dict[str, str]:
    return {
        "display": "grid",
        "grid-template-columns": f"repeat({columns}, minmax(0, 1fr))",
        "grid-template-rows": f"repeat({rows}, minmax(0, 1fr))",
        "gap": "6px 10px",
        "min-height": "0",
    }


def colour_bar(colours: Any, low: float, high: float, units: str) -> str:
    """HTML of the vertical colour bar."""
    stops = ", ".join(colours[round(i * (len(colours) - 1) / 63)] for i in range(64))
    ticks = nice_ticks(low, high, 9)
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 1
    marks = "".join(
        f"<span class='tick' style='bottom:{100 * (tick - low) / (high - low):.3f}%'>"
        f"{f'{tick:.{decimals}f}'.replace('-', '−')}</span>"
        for tick in ticks
    )
    return (
        f"<div class='bar' role='img' aria-label='Colour scale from {low:g} to {high:g} {text(units)}'>"
        f"<div class='units'>{text(units)}</div><div class='scale'>"
        f"<div class='colours' style='background:linear-gradient(to top, {stops})'></div>{marks}</div></div>"
    )
