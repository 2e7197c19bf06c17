"""Flux ratios on the supergrid: maps of every field, and what each way of comparing them says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, CustomJS, CustomJSHover, HoverTool, LinearColorMapper, Range1d
from bokeh.plotting import figure
from numpy.typing import NDArray

from explorer.batch import together
from explorer.encoding import robust_range
from explorer.fluxes import (
    COLUMNS,
    FLUX_ERROR,
    FLUX_ERROR_TRUTH,
    LOSS_UNITS,
    RATIO_UNITS,
    RESIZABLE,
    VARIANTS,
    Fluxes,
    FluxMap,
    FluxRow,
    cell_sizes,
)
from explorer.library import COARSE, TRUTH, OpenStore
from explorer.session import Session
from explorer.snapshot import Snapshot, show_hour
from explorer.style import DIVERGING, INK, block, message, template_text, text
from explorer.views.maps import (
    CELL,
    FIT,
    grid_styles,
    join_outlines,
    place_cell,
    window_columns,
)
from explorer.views.marks import Marks
from explorer.words import DIFFERENCE

NOTHING = np.full((1, 1), np.nan)
WIDTH, LOWEST, HIGHEST = 860, 190, 330
"""Room for the maps side by side on a small screen, and bounds of the height of a row [pixels]."""
OUTLIERS = 0.02
"""Share of cells that the colour range leaves out at most; R grows without bound where a field is flat."""

READ = """
// The value of a column, whatever it is called, in the cell under the pointer.
const d = source.data
const {x, y} = special_vars
const image = d[format] == null ? null : d[format][0]
if (image == null) return "–"
const [rows, columns] = image.shape
const i = Math.floor((d.top[0] - y) / d.height[0] * rows)
const j = Math.floor((x - d.left[0]) / d.width[0] * columns)
const v = i < 0 || j < 0 || i >= rows || j >= columns ? NaN : image[i * columns + j]
if (isNaN(v)) return "–"
const size = Math.abs(v)
const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2
return v.toFixed(digits).replace("-", "\\u2212") + " " + d.units[0]
"""


class FluxView(pn.viewable.Viewer):
    """The flux ratios of a session's snapshot, drawn while they are looked at."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._following = False
        self._opened: OpenStore | None = None
        self._cells: dict[str, pn.Column] = {}
        self._heads: dict[str, pn.pane.HTML] = {}
        self._hovers: dict[str, HoverTool] = {}
        self._glyphs: list[tuple[str, Any]] = []
        self.source = ColumnDataSource(data=_empty_columns(), name="fluxes")
        self.outlines = ColumnDataSource(data={"x": [], "y": []})
        self.target = ColumnDataSource(data=window_columns(0, 1, 0, 1))
        self.x_range, self.y_range = Range1d(0, 1, syncable=False), Range1d(0, 1, syncable=False)
        self._frame = {"target": self.target, "xr": self.x_range, "yr": self.y_range}
        refit = CustomJS(args={**self._frame, "frame": None}, code="const resized = false\n" + FIT)
        self.target.js_on_change("data", refit)
        self.mapper = LinearColorMapper(
            palette=list(DIVERGING), low=-1, high=1, nan_color="rgba(0, 0, 0, 0)", name="flux-colours"
        )
        self._reader = CustomJSHover(args={"source": self.source}, code=READ)
        self._marks = Marks(session, "flux-")

        self._head = block(min_width=200)
        self.variant = pmui.Select(
            label="Flux ratio", options={name: key for key, name in VARIANTS.items()}, size="small", width=210,
            margin=(4, 12, 8, 0),
        )  # fmt: skip
        self.size = pmui.Select(label="Supergrid cells", size="small", width=210, margin=(4, 12, 8, 0))
        self._says = block(margin=(6, 0, 0, 6))
        self._grid = pn.Column(
            sizing_mode="stretch_width",
            margin=0,
            css_classes=["flux-grid"],
            # Panel adds this button to every column; here it would take the place of a map.
            stylesheets=[".scroll-button { display: none !important; }"],
        )
        self._bar = block(width=84, sizing_mode="stretch_height", css_classes=["colour-bar"])
        self._maps = pn.Row(self._grid, self._bar, sizing_mode="stretch_width", margin=0)
        self._problem = block(css_classes=["flux-problem"], margin=(6, 0, 10, 0))
        self._table = block(css_classes=["flux-table"], margin=(10, 0, 8, 0))
        self._notes = block()
        self._content = pn.Column(
            self._head,
            pn.Row(self.variant, self.size, self._says, sizing_mode="stretch_width", margin=0),
            self._maps, self._problem, self._table, self._notes,
            sizing_mode="stretch_width", margin=(0, 18, 18, 14), styles={"flex-shrink": "0"},
        )  # fmt: skip
        self._why = block()
        self._layout = pn.Column(
            self._content, self._why, sizing_mode="stretch_both", margin=0, styles={"overflow-y": "auto"}
        )
        self.variant.param.watch(lambda event: self._choose("variant", event.new), "value")
        self.size.param.watch(lambda event: self._choose("cells", event.new), "value")
        session.param.watch(self._update, ["fluxes", "snapshot", "view", "mode", "reference"])
        session.param.watch(self._update_controls, ["variant", "cells", "opened", "region"])
        session.param.watch(self._update_theme, "theme")
        self._update_controls()
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    # ---------------------------------------------------------------- controls

    def _choose(self, name: str, value: Any) -> None:
        if not self._following and value is not None:
            setattr(self.session, name, value)

    def _update_controls(self, *_: object) -> None:
        session, window = self.session, self.session.window
        if window is None:
            return
        self._following = True
        self.variant.value = session.variant
        free = session.variant in RESIZABLE
        own = "Those of the variant"
        sizes = cell_sizes(session.opened.domain, window) if free else []
        spacing = session.opened.domain.coarse.dx / 1e3
        options = {own: 0} | {f"{size} coarse pixels ({size * spacing:g} km)": size for size in sizes}
        if free and session.cells and session.cells not in sizes:
            options[f"{session.cells} coarse pixels"] = session.cells
        self.size.param.update(options=options, value=session.cells if free else 0, disabled=not free)
        self._following = False

    # ---------------------------------------------------------------- what the session says

    def _update(self, *_: object) -> None:
        session = self.session
        if session.view != "flux":
            return  # hidden; drawn when it is looked at
        snapshot: Snapshot | None = session.snapshot
        fluxes: Fluxes | None = session.fluxes
        if snapshot is None:
            return
        with together():
            temperature = snapshot.quantity.key == "t2m"
            self._content.visible = temperature and fluxes is not None
            self._why.visible = not self._content.visible
            if not temperature:
                self._why.object = message(
                    "Fluxes are those of temperature",
                    "The flux ratio is defined for the 2-metre temperature only; choose it under Variable to see "
                    "it. The other views show every variable.",
                )
                return
            if fluxes is None:
                self._why.object = message("Fluxes of this hour", "They are being computed.")
                return
            if snapshot.opened is not self._opened:
                self._use(snapshot.opened)
            self._draw(fluxes, snapshot)
            self._table.object = _table(fluxes)
            self._notes.object = _notes(fluxes)

    def _use(self, opened: OpenStore) -> None:
        self._opened = opened
        lines = self.session.library.outlines(opened)
        self.outlines.data = join_outlines(lines, ("coastline", "lake"), opened.domain)

    def _draw(self, fluxes: Fluxes, snapshot: Snapshot) -> None:
        session = self.session
        against = fluxes.get(session.against) if session.mode == DIFFERENCE else None
        shown = [one for one in fluxes.maps if one is not against]
        values = {
            one.key: one.values if against is None else one.values - against.values for one in shown
        }  # fmt: skip
        units = RATIO_UNITS[fluxes.variant]
        bound = robust_range(values.values(), signed=True, share=OUTLIERS)[1]
        self._head.object = _heading(fluxes, snapshot, _name(against) if against is not None else "")
        self._says.object = _cells_words(fluxes)
        self._maps.visible = bool(shown)
        self._problem.visible = not shown
        if not shown:
            self._problem.object = message("This flux ratio can't be mapped here", fluxes.problem)
            return
        left, right, bottom, top = fluxes.extent
        columns = _empty_columns()
        columns |= {"left": [left], "top": [top], "width": [right - left], "height": [top - bottom]}
        columns |= {"units": [units]} | {key: [np.asarray(field)] for key, field in values.items()}
        for key in self._cells:
            columns.setdefault(key, [NOTHING])
        for one in shown:
            columns.setdefault(one.key, [NOTHING])
        linear = linear_part(values.values(), bound)
        self.mapper.update(low=-bound, high=bound, palette=signed_log_palette(bound, linear))
        self.source.data = columns
        for one in shown:
            if one.key not in self._cells:
                self._make(one.key)
            self._heads[
                one.key
            ].object = f"<div class='panel-head'><span class='name' title='{text(one.label)}'>{text(one.label)}</span></div>"
            self._hovers[one.key].tooltips = _tooltip([(o.key, o.label) for o in shown], one.key)
        window = fluxes.window
        self._arrange([one.key for one in shown], (window.top - window.bottom) / (window.right - window.left))
        self._bar.object = ratio_bar(bound, linear, units)
        if self.x_range.start == 0 and self.x_range.end == 1:
            self.x_range.update(start=window.left, end=window.right)
            self.y_range.update(start=window.bottom, end=window.top)
        target = window_columns(window.left, window.right, window.bottom, window.top)
        if [target[name] for name in ("left", "right", "bottom", "top")] != [
            self.target.data[name] for name in ("left", "right", "bottom", "top")
        ]:
            self.target.data = target

    def _arrange(self, keys: list[str], aspect: float) -> None:
        """The maps in one row up to six, else in two or more; ``aspect`` is the height over the width of one."""
        columns = len(keys) if len(keys) <= 6 else -(-len(keys) // 2) if len(keys) <= 12 else 6
        rows = -(-len(keys) // columns)
        height = rows * int(np.clip(WIDTH / columns * aspect + 32, LOWEST, HIGHEST))
        # The least as well: where the view is longer than the window, what can shrink would, under the table.
        for part in (self._grid, self._maps):
            part.param.update(height=height, min_height=height)
        self._grid.styles = {**grid_styles(columns, rows), "height": f"{height}px"}
        for key, cell in self._cells.items():
            cell.visible = key in keys
            cell.styles = place_cell(keys.index(key) if key in keys else None)
        if len(self._grid.objects) != len(self._cells):
            self._grid.objects = list(self._cells.values())

    def _make(self, key: str) -> None:
        ink = INK[self.session.theme]
        plot = figure(
            name=f"flux-{key}", x_range=self.x_range, y_range=self.y_range, x_axis_location=None,
            y_axis_location=None, toolbar_location=None, tools="", output_backend="canvas",
            sizing_mode="stretch_both", min_border=0, outline_line_color=None, min_width=60, min_height=60,
        )  # fmt: skip
        plot.grid.visible = False
        image = plot.image(
            image=key, x="left", y="top", dw="width", dh="height", source=self.source, color_mapper=self.mapper,
            anchor="top_left", origin="top_left", level="image",
        )  # fmt: skip
        for kind, width, alpha in (("halo", 2.4, 0.45), ("coast", 0.9, 0.95)):
            line = plot.line(
                "x", "y", source=self.outlines, line_color=ink[kind], line_width=width, line_alpha=alpha
            )
            self._glyphs.append((kind, line.glyph))
        hover = HoverTool(
            renderers=[image], tooltips="", formatters={"@{left}": self._reader}, show_arrow=False,
            attachment="horizontal",
        )  # fmt: skip
        plot.add_tools(hover)
        self._marks.draw_on(plot)
        arguments = {**self._frame, "frame": plot}
        resized = CustomJS(args=arguments, code="const resized = true\n" + FIT)
        plot.js_on_change("inner_width", resized)
        plot.js_on_change("inner_height", resized)
        self._hovers[key] = hover
        self._heads[key] = block(height=24)
        self._cells[key] = pn.Column(
            self._heads[key],
            pn.pane.Bokeh(plot, sizing_mode="stretch_both", margin=0),
            sizing_mode="stretch_both",
            margin=0,
            styles=CELL,
        )

    def _update_theme(self, *_: object) -> None:
        ink = INK[self.session.theme]
        with together():
            for kind, glyph in self._glyphs:
                glyph.line_color = ink[kind]


# ---------------------------------------------------------------- colours


def linear_part(fields: Iterable[NDArray[np.floating[Any]]], bound: float) -> float:
    """Size up to which colours are about proportional to values: half of those of the field with the least are below.

    Flux ratios of smooth fields are tens of times those of rough ones; in proportional colours all but the
    smoothest would look blank. Between a thousandth and a half of ``bound``.
    """
    middles = [float(np.nanmedian(np.abs(field))) for field in fields if np.isfinite(field).any()]
    return float(np.clip(min(middles, default=0), bound / 1000, bound / 2))


def signed_log_palette(bound: float, linear: float, count: int = 2048) -> list[str]:
    """Diverging colours for values from -bound to bound in equal steps, logarithmic beyond ``linear``."""
    values = np.linspace(-bound, bound, count)
    share = np.arcsinh(values / linear) / np.arcsinh(bound / linear)
    return [DIVERGING[i] for i in np.round((share + 1) / 2 * (len(DIVERGING) - 1)).astype(int)]


def ratio_bar(bound: float, linear: float, units: str) -> str:
    """HTML of the colour bar: powers of ten of both signs, where the colours have them."""
    top = math.floor(math.log10(bound) + 1e-9)
    powers = [10.0**power for power in range(top, top - 4, -1) if 10.0**power >= linear]
    ticks = [0.0, *powers, *(-power for power in powers)]
    places = {tick: 50 * (1 + np.arcsinh(tick / linear) / np.arcsinh(bound / linear)) for tick in ticks}
    marks = "".join(
        f"<span class='tick' style='bottom:{place:.3f}%'>{f'{tick:g}'.replace('-', '−')}</span>"
        for tick, place in places.items()
    )
    stops = ", ".join(DIVERGING[round(i * (len(DIVERGING) - 1) / 63)] for i in range(64))
    return (
        f"<div class='bar' role='img' aria-label='Logarithmic colour scale from {-bound:g} to {bound:g} {text(units)}'>"
        f"<div class='units'>{text(units)}</div><div class='scale'>"
        f"<div class='colours' style='background:linear-gradient(to top, {stops})'></div>{marks}</div></div>"
    )


# ---------------------------------------------------------------- words


def _empty_columns() -> dict[str, list[Any]]:
    return {"left": [0.0], "top": [1.0], "width": [1.0], "height": [1.0], "units": [""]}


def _heading(fluxes: Fluxes, snapshot: Snapshot, against: str) -> str:
    title = f"Flux ratio R: difference from {against}" if against else "Flux ratio R"
    missing = [field.label for field in snapshot.computing if fluxes.get(field.key) is None]
    current = fluxes.hour == snapshot.hour
    busy = f"computing {', '.join(missing)}…" if missing else "" if current else "computing…"
    return (
        f"<div class='head'><h2>{text(title)}</h2><span class='when'>{text(show_hour(fluxes.hour))} · "
        f"{text(fluxes.window.name)}</span>"
        + (f"<span class='busy'>{text(busy)}</span>" if busy else "")
        + "</div>"
    )


def _name(one: FluxMap) -> str:
    """The label inside a sentence."""
    return one.label.lower() if one.key in (TRUTH, COARSE) else one.label


def _cells_words(fluxes: Fluxes) -> str:
    """How many cells there are, and how large."""
    if not fluxes.maps:
        return ""
    rows, columns = fluxes.maps[0].values.shape
    left, right, bottom, top = fluxes.extent
    height, width = (top - bottom) / rows / 1e3, (right - left) / columns / 1e3
    return (
        f"<div class='caption'>{rows} × {columns} cells of {height:g} × {width:g} km. R is the advective over the "
        "diffusive flux of temperature through the boundary of a cell; colours are logarithmic. "
        f"{text(fluxes.remark)}</div>"
    )


def _table(fluxes: Fluxes) -> str:
    heads = {
        FLUX_ERROR_TRUTH: ("Flux error", "vs truth"),
        FLUX_ERROR: ("Flux error", "vs coarse"),
        **{name: (label, f"[{LOSS_UNITS[name]}]") for name, label in VARIANTS.items()},
    }
    top = (
        "<tr class='groups'><th></th><th colspan=2 scope='colgroup'>Passes the audit</th>"
        f"<th colspan={len(VARIANTS)} scope='colgroup'>Loss on the flux ratio, vs coarse</th></tr>"
    )
    second = "".join(
        f"<th scope='col'>{text(name)} <small>{text(unit)}</small></th>" for name, unit in heads.values()
    )
    # Without its smoothing the flux error against the coarse field prefers interpolations.
    trusted = (FLUX_ERROR_TRUTH, FLUX_ERROR) if fluxes.constants.fitted else (FLUX_ERROR_TRUTH,)
    best = {name: _best(fluxes.rows, name) for name in trusted}
    rows = "".join(
        f"<tr{' class=reference' if row.key == TRUTH else ''}><td>{text(row.label)}</td>"
        + "".join(
            f"<td class='{'best' if row.key in best.get(name, ()) else ''}' "
            f"title='{text(fluxes.reasons.get(name, ''))}'>"
            f"{'…' if name in fluxes.pending else _number(row.losses.get(name, np.nan))}</td>"
            for name in COLUMNS
        )
        + "</tr>"
        for row in fluxes.rows
    )
    return (
        f"<table class='compact'><thead>{top}<tr><th scope='col'>Field</th>{second}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _best(rows: tuple[FluxRow, ...], name: str) -> set[str]:
    """Keys of the downscaled fields with the lowest flux error; none where one is alone."""
    values = {row.key: row.losses[name] for row in rows if row.key != TRUTH and name in row.losses}
    values = {key: value for key, value in values.items() if np.isfinite(value)}
    return (
        {key for key, value in values.items() if value == min(values.values())} if len(values) > 1 else set()
    )


def _notes(fluxes: Fluxes) -> str:
    constants = fluxes.constants
    found = [
        "<b>Why the maps differ:</b> R divides by the mean steepness of temperature along the boundary of a cell. A "
        "field with much small-scale detail, such as the truth or a sharp model, is steep everywhere and has a small R; "
        "a smooth one, such as an interpolation, has a large R.",
        "<b>Flux error:</b> how far both fluxes are from those of the truth or the coarse field, in shares of their "
        "size: 0 for equal fluxes, 1 for a constant field. <b>Paper:</b> the formula of arXiv 2510.23866. "
        "<b>Published training</b> and <b>metric:</b> as the published code computes it. <b>Centred:</b> of temperature "
        "minus the mean of its cell.",
        "<b>Only the flux error passes the audit</b> of docs/physics.md. A low loss on the flux ratio does not mean "
        "a good field: it depends on the zero of the temperature scale, on the resolution and on a few flat cells, "
        "and noise or a constant can lower it.",
    ]
    if constants.smoothing is None:
        found.append(
            "The smoothing of the coarse field is being fitted to hours with truth; this is done once."
        )
    elif constants.fitted:
        found.append(
            f"The flux error against the coarse field sees each field through block means and a smoothing of "
            f"{constants.smoothing:g} coarse pixels, fitted to hours of this store with truth. It is a constraint "
            "that a good field keeps; to rank fields, take the flux error against the truth."
        )
    else:
        found.append(
            "This store has no truth to which the smoothing of its coarse field could be fitted, so none is "
            "applied. The flux error against the coarse field then favours interpolated and blurred fields."
        )
    found.append(
        "Published training: the published code applies it to the output of its network; here it is applied to "
        f"temperature standardised with {constants.mean:.1f} K and {constants.deviation:.1f} K, those of the "
        "coarse input."
    )
    if fluxes.cells:
        found.append(f"The loss of {VARIANTS[fluxes.variant].lower()} is that of the cells in the maps.")
    for name, why in fluxes.reasons.items():
        if why == fluxes.problem:
            continue  # it stands in place of the maps
        label = {FLUX_ERROR: "Flux error", FLUX_ERROR_TRUTH: "Flux error against the truth"}.get(name)
        found.append(f"<b>{text(label or VARIANTS[name])}:</b> {text(why)}")
    return "<div class='notes'>" + "".join(f"<p>{one}</p>" for one in found) + "</div>"


def _tooltip(rows: list[tuple[str, str]], key: str) -> str:
    body = "".join(
        f"<div style='display:flex;justify-content:space-between;gap:18px;"
        f"font-weight:{600 if name == key else 400}'>"
        f"<span>{template_text(label)}</span><span>@{{left}}{{{name}}}</span></div>"
        for name, label in rows
    )
    return (
        "<div class='flux-hover' style='margin:-5px;padding:7px 11px;font:12.5px/19px Roboto,Arial,sans-serif;"
        "font-variant-numeric:tabular-nums;color:var(--mui-palette-text-primary);"
        f"background:var(--mui-palette-background-paper)'>{body}</div>"
    )


def _number(value: float) -> str:
    """Three significant digits, with a power of ten where the number is long."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(2 - int(np.floor(np.log10(abs(value)))), 0)
        return f"{value:.{digits}f}".replace("-", "−")
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa} × 10<sup>{int(exponent)}</sup>".replace("-", "−")
