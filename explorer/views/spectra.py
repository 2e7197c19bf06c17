"""Spectra of the fields of the hour: power against wavelength, slopes and what is lost of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import (
    BoxAnnotation,
    BoxZoomTool,
    ColumnDataSource,
    CustomJSTickFormatter,
    FixedTicker,
    HoverTool,
    Label,
    PanTool,
    Range1d,
    ResetTool,
    WheelZoomTool,
)
from bokeh.plotting import figure

from explorer.batch import together
from explorer.library import COARSE, TRUTH
from explorer.session import Session
from explorer.snapshot import Snapshot, show_hour
from explorer.spectra import Spectra, Spectrum
from explorer.style import COARSE_COLOUR, SERIES, TRUTH_COLOUR, block, message, series_colours, text

LENGTHS = (
    4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 100, 125, 160, 200, 250, 320, 400, 500, 640, 800, 1000,
)  # fmt: skip
"""Wavelengths at which the slope fit may begin and end [km]."""
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
REFERENCES = {"−8/3": 8 / 3, "−4": 4.0}
"""Slopes that powers averaged over waves of one length have where energy spectra have −5/3 and −3."""
"""Slopes drawn for comparison, by what is written beside them: powers of the wavelength."""
DECADES = 9
"""Decades of power shown below the highest; what lies below is an artefact of smooth interpolation."""
TABLE_WIDTH = 372


class SpectraView(pn.viewable.Viewer):
    """The spectra of a session's snapshot, drawn while they are looked at."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._following = False
        self._lines: dict[str, tuple[ColumnDataSource, Any]] = {}
        self._references: dict[str, ColumnDataSource] = {}
        self._labels: dict[str, Label] = {}
        self._head = block(min_width=200)
        self._table = block(css_classes=["spectra-table"])
        self._range = block(margin=(14, 0, 0, 0))
        self.slider = pmui.IntRangeSlider(
            label="", start=0, end=len(LENGTHS) - 1, value=(0, 1), show_value=False, tooltips=False, size="small",
            sizing_mode="stretch_width", margin=(6, 10, 2, 10), css_classes=["fit-slider"],
        )  # fmt: skip
        self._notes = block(margin=(10, 0, 0, 0))
        self._make_plot()
        side = pn.Column(
            self._table, self._range, self.slider, self._notes,
            width=TABLE_WIDTH, sizing_mode="stretch_height", margin=(4, 0, 0, 18),
            styles={"overflow-y": "auto"},
        )  # fmt: skip
        self._content = pn.Column(
            self._head,
            pn.Row(
                pn.pane.Bokeh(self.plot, sizing_mode="stretch_both", margin=0), side,
                sizing_mode="stretch_both", margin=0, styles={"min-height": "0"},
            ),
            sizing_mode="stretch_both", margin=(0, 18, 10, 14), styles={"min-height": "0"},
        )  # fmt: skip
        self._why = block()
        self._layout = pn.Column(self._content, self._why, sizing_mode="stretch_both", margin=0)
        self.slider.param.watch(lambda event: self._say_range(event.new), "value")
        self.slider.param.watch(lambda event: self._choose(event.new), "value_throttled")
        session.param.watch(self._update, ["spectra", "snapshot", "view", "theme"])
        session.param.watch(self._update_slider, "fit")
        self._update_slider()
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    # ---------------------------------------------------------------- the range of the fit

    def _update_slider(self, *_: object) -> None:
        logarithms = np.log(LENGTHS)
        ends = tuple(int(np.argmin(np.abs(logarithms - np.log(length)))) for length in self.session.fit)
        self._following = True
        self.slider.value = ends
        self._following = False
        self._range.object = _range_words(*self.session.fit)
        self._band.update(left=self.session.fit[0], right=self.session.fit[1])

    def _say_range(self, ends: tuple[int, int]) -> None:
        if not self._following:
            self._range.object = _range_words(*(LENGTHS[end] for end in ends))

    def _choose(self, ends: tuple[int, int]) -> None:
        first, last = ends
        if first == last:  # a fit needs some room
            first, last = (first - 1, last) if last == len(LENGTHS) - 1 else (first, last + 1)
        self.session.fit = [float(LENGTHS[first]), float(LENGTHS[last])]

    # ---------------------------------------------------------------- the chart

    def _make_plot(self) -> None:
        pan, wheel = PanTool(), WheelZoomTool(zoom_on_axis=False)
        self.plot = figure(
            name="spectra",
            x_axis_type="log",
            y_axis_type="log",
            x_range=Range1d(1000, 4),
            y_range=Range1d(1e-6, 1e4),
            x_axis_label="Wavelength [km]",
            toolbar_location=None,
            tools=[pan, wheel, BoxZoomTool(), ResetTool()],
            active_drag=pan,
            active_scroll=wheel,
            output_backend="canvas",
            sizing_mode="stretch_both",
            min_width=240,
            min_height=260,
            min_border_right=12,
            outline_line_color=None,
        )
        self.plot.xaxis.ticker = FixedTicker(ticks=list(TICKS))
        self.plot.xaxis.formatter = CustomJSTickFormatter(code="return tick.toString()")
        self.plot.xgrid.ticker = self.plot.xaxis[0].ticker
        self.plot.grid.grid_line_alpha = 0.35
        self._band = BoxAnnotation(
            fill_color="#808080", fill_alpha=0.09, line_color=None, level="underlay", name="fit-band"
        )
        self.plot.add_layout(self._band)
        for name in REFERENCES:
            source = ColumnDataSource(data={"wavelength": [], "power": []})
            self.plot.line(
                "wavelength", "power", source=source, line_color="#808080", line_width=1.2, line_dash="dashed",
                line_alpha=0.75,
            )  # fmt: skip
            label = Label(
                x=10, y=1, text=f"slope {name}", text_font_size="12px", text_color="#808080", x_offset=4,
                y_offset=1, visible=False,
            )  # fmt: skip
            self.plot.add_layout(label)
            self._references[name], self._labels[name] = source, label

    def _line(self, key: str) -> tuple[ColumnDataSource, Any]:
        """Source and renderer of the curve of a field; made when it is first wanted."""
        if key not in self._lines:
            source = ColumnDataSource(
                data={"wavelength": [], "power": [], "label": [], "units": []}, name=f"spectrum-{key}"
            )
            curve = self.plot.line(
                "wavelength", "power", source=source, line_width=2.6 if key == TRUTH else 2,
                line_dash="dashed" if key == COARSE else "solid", name=f"curve-{key}",
            )  # fmt: skip
            hover = HoverTool(
                renderers=[curve], tooltips=TOOLTIP, formatters={"@power": "printf"}, line_policy="nearest",
                show_arrow=False, attachment="horizontal",
            )  # fmt: skip
            self.plot.add_tools(hover)
            self._lines[key] = source, curve
        return self._lines[key]

    def _update(self, *_: object) -> None:
        session = self.session
        if session.view != "spectra":
            return  # hidden; drawn when it is looked at
        snapshot: Snapshot | None = session.snapshot
        spectra: Spectra | None = session.spectra
        if snapshot is None:
            return
        with together():
            drawn = spectra is not None and any(np.isfinite(row.power).any() for row in spectra.rows)
            self._content.visible, self._why.visible = drawn, not drawn
            if spectra is None or not drawn:
                self._why.object = _no_spectra(spectra)
                return
            self._head.object = _heading(spectra, snapshot)
            self._draw(spectra)
            self._table.object = _table(spectra, snapshot, self._colours())
            self._notes.object = _notes(spectra, snapshot)

    def _colours(self) -> dict[str, str]:
        session = self.session
        keys = [choice.key for choice in session.choices or () if choice.runs]
        return {COARSE: COARSE_COLOUR, TRUTH: TRUTH_COLOUR[session.theme]} | series_colours(keys)

    def _draw(self, spectra: Spectra) -> None:
        colours = self._colours()
        units = _units(spectra)
        drawn = {row.key: row for row in spectra.rows if np.isfinite(row.power).any()}
        for key in {*self._lines, *drawn}:
            source, curve = self._line(key)
            curve.visible = key in drawn
            if key in drawn:
                row = drawn[key]
                count = row.wavelength.size
                source.data = {
                    "wavelength": row.wavelength / 1e3,
                    "power": _comparable(row),
                    "label": [row.label] * count,
                    "units": [units] * count,
                }
                curve.glyph.line_color = colours.get(key, SERIES[-1])
        self.plot.yaxis.axis_label = f"Power spectral density [{units}]"
        rows = list(drawn.values())
        powers = np.concatenate([_comparable(row) for row in rows]) if rows else np.empty(0)
        powers = powers[np.isfinite(powers)]
        if not powers.size:
            return
        lengths = np.concatenate([row.wavelength for row in rows]) / 1e3
        high, low = 3 * powers.max(), max(powers.min() / 2, powers.max() / 10**DECADES)
        self.plot.x_range.update(start=1.08 * lengths.max(), end=lengths.min() / 1.04)
        self.plot.y_range.update(start=low, end=high)
        for axis, begin, end in (
            (self.plot.x_range, 1.08 * lengths.max(), lengths.min() / 1.04),
            (self.plot.y_range, low, high),
        ):
            axis.update(reset_start=begin, reset_end=end)
        self._draw_references(spectra, rows, low)

    def _draw_references(self, spectra: Spectra, rows: list[Spectrum], low: float) -> None:
        """Straight lines from one point above the curves, at the long end of the fit."""
        fine = next((row for row in rows if row.key == TRUTH), None)
        fine = fine or next((row for row in rows if row.key != COARSE), rows[0])
        start = min(spectra.fit[1], fine.wavelength.max() / 1e3)
        inside = fine.wavelength / 1e3 <= start * 1.001
        top = 10 * float(np.nan_to_num(_comparable(fine)[inside][:1]).max(initial=0))
        for name, power in REFERENCES.items():
            lengths = np.geomspace(start, fine.wavelength.min() / 1e3, 60)
            values = top * (lengths / start) ** power
            seen = values > low
            self._references[name].data = {"wavelength": lengths[seen], "power": values[seen]}
            self._labels[name].visible = bool(seen.any())
            if seen.any():
                at = int(0.6 * (seen.sum() - 1))
                self._labels[name].update(x=float(lengths[at]), y=float(values[at]))


# ---------------------------------------------------------------- words


TOOLTIP = (
    "<div class='spectrum-hover' style='margin:-5px;padding:7px 11px;font:12.5px/19px Roboto,Arial,sans-serif;"
    "font-variant-numeric:tabular-nums;color:var(--mui-palette-text-primary);"
    "background:var(--mui-palette-background-paper)'><b>@label</b>"
    "<div>@wavelength{0.0} km</div><div>@power{%.3g} @units</div></div>"
)


def _no_spectra(spectra: Spectra | None) -> str:
    if spectra is None:
        return message("Spectra of this hour", "They are being computed.")
    problems = dict.fromkeys(row.problem for row in spectra.rows)
    return message(f"No spectra over {spectra.window.name}", " ".join(problems))


def _comparable(row: Spectrum) -> np.ndarray:
    """Power as the same waves would have it on the fine grid, NaN where a logarithmic axis can't show it."""
    return row.factor * np.where(row.power > 0, row.power, np.nan)


def _units(spectra: Spectra) -> str:
    units = spectra.quantity.difference_units
    return f"({units})²" if "/" in units else f"{units}²"


def _range_words(shortest: float, longest: float) -> str:
    return (
        "<div class='caption'>Slope fitted from "
        f"<b class='fit-range'>{shortest:g} to {longest:g} km</b> (shaded)</div>"
    )


def _heading(spectra: Spectra, snapshot: Snapshot) -> str:
    current = spectra.hour == snapshot.hour and spectra.quantity == snapshot.quantity
    missing = [field.label for field in snapshot.computing if spectra.get(field.key) is None]
    busy = f"computing {', '.join(missing)}…" if missing else "" if current else "computing…"
    return (
        "<div class='head'><h2>Spectra</h2><span class='when'>"
        f"{text(spectra.quantity.label)} · {text(show_hour(spectra.hour))} · {text(spectra.window.name)}</span>"
        + (f"<span class='busy'>{text(busy)}</span>" if busy else "")
        + "</div>"
    )


def _table(spectra: Spectra, snapshot: Snapshot, colours: dict[str, str]) -> str:
    rows = "".join(
        f"<tr><td><span class='dot' style='background:{colours.get(row.key, SERIES[-1])}'></span>{text(row.label)}"
        f"</td><td>{_number(row.slope)}</td><td>{_number(row.loss)}</td><td>{_fitted(row)}</td></tr>"
        for row in spectra.rows
    )
    rows += "".join(
        f"<tr><td>{text(field.label)}</td><td colspan=3 class='failed'>{text(field.problem)}</td></tr>"
        for field in snapshot.fields
        if field.problem
    )
    reference = "truth" if spectra.against == TRUTH else "coarse"
    return (
        "<table class='compact'><thead><tr><th scope='col'>Field</th><th scope='col'>Slope</th>"
        f"<th scope='col'>Loss <small>vs {reference}</small></th><th scope='col'>Fitted <small>[km]</small></th>"
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )


def _notes(spectra: Spectra, snapshot: Snapshot) -> str:
    found = []
    for problem in dict.fromkeys(row.problem for row in spectra.rows if row.problem):
        names = ", ".join(row.label for row in spectra.rows if row.problem == problem)
        found.append(f"<b>{text(names)}:</b> {text(problem)}")
    longest = max((row.wavelength[0] / 1e3 for row in spectra.rows if row.wavelength.size), default=np.inf)
    if longest < spectra.fit[1]:
        found.append(
            f"{text(spectra.window.name)} is too small for waves longer than {longest:.0f} km; slopes are fitted "
            "up to there."
        )
    if spectra.against == TRUTH:
        found.append("Loss: absolute difference of the slope from that of the truth.")
    else:
        found.append(
            "There is no fine truth here, so the loss is the absolute difference of the slope from that of the "
            "coarse field, as published. That field has steeper slopes for its resolution alone: a low loss "
            "does not mean realistic detail."
        )
    coarse = spectra.get(COARSE)
    if coarse is not None and coarse.fitted is not None and coarse.fitted[0] > 1.2 * spectra.fit[0]:
        found.append(
            f"The coarse field has no waves shorter than {coarse.wavelength[-1] / 1e3:.0f} km; its slope is "
            f"fitted from there. Its curve is raised by {coarse.factor:.0f}, the fine cells in a coarse one: power is "
            "per cell."
        )
    found.append(
        "Power is averaged over all waves of one length, not summed, so slopes are steeper by 1 than those of "
        "energy spectra: the dashed lines are where those have −5/3 and −3."
    )
    return "<div class='notes'>" + "".join(f"<p>{one}</p>" for one in found) + "</div>"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−") if np.isfinite(value) else "–"


def _fitted(row: Spectrum) -> str:
    return f"{row.fitted[0]:.0f}–{row.fitted[1]:.0f}" if row.fitted is not None else "–"
