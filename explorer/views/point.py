"""One point: every field over the hours around, how members are spread at the hour, and stations."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, CustomJS, FactorRange, HoverTool, Span
from bokeh.plotting import figure

from core.plural import counted
from explorer.batch import together
from explorer.library import COARSE, TRUTH
from explorer.points import PointSeries, is_point, middle, towns, with_gaps
from explorer.quantities import Quantity
from explorer.session import Session
from explorer.snapshot import show_hour
from explorer.stations import QUANTITY
from explorer.style import (
    COARSE_COLOUR,
    SERIES,
    TRUTH_COLOUR,
    block,
    message,
    series_colours,
    text,
)
from explorer.views.sampling import describe
from explorer.views.station_table import StationSection

SPAN_NAMES = {"The day": "day", "Three days": "days", "A week": "week"}
OBSERVED = "observed"
OBSERVED_COLOUR = "#c2185b"
"""Of observations, in charts and tables."""
SIDE = 330
CONTROL = {"size": "small", "margin": (6, 10, 6, 0)}
NO_SCROLL = [".scroll-button { display: none !important; }"]


class PointView(pn.viewable.Viewer):
    """Charts and tables of a session's point, or how to choose one."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self.study = session.points
        self._following = False
        self._lines: dict[str, tuple[ColumnDataSource, Any]] = {}
        self._bands: dict[str, tuple[ColumnDataSource, list[Any]]] = {}
        self._make_controls()
        self._make_series()
        self._make_strip()
        self._head = block(min_width=200)
        self._values = block(css_classes=["point-values"], width=SIDE, sizing_mode=None)
        self._facts = block(css_classes=["point-facts"], width=SIDE, sizing_mode=None)
        self._notes = block(margin=(6, 0, 0, 0))
        self._stations = StationSection(session)
        self._content = pn.Column(
            pn.Row(
                pn.pane.Bokeh(self.plot, sizing_mode="stretch_width", margin=0), self._values,
                sizing_mode="stretch_width", margin=0,
            ),
            pn.Row(
                pn.pane.Bokeh(self.strip, sizing_mode="stretch_width", margin=0), self._facts,
                sizing_mode="stretch_width", margin=(8, 0, 0, 0),
            ),
            self._notes, self._stations,
            sizing_mode="stretch_width", margin=0, stylesheets=NO_SCROLL,
        )  # fmt: skip
        self._why = block()
        self._towns = pn.FlexBox(
            justify_content="center", gap="8px", sizing_mode="stretch_width", margin=(14, 60, 0, 60)
        )
        self._empty = pn.Column(self._why, self._towns, sizing_mode="stretch_width", margin=0)
        self._layout = pn.Column(
            self._head, self._controls, self._content, self._empty,
            sizing_mode="stretch_both", margin=(0, 4, 0, 14), styles={"overflow-y": "auto"},
            stylesheets=NO_SCROLL,
        )  # fmt: skip
        session.param.watch(
            self._update,
            ["view", "hour", "snapshot", "theme", "progress", "opened", "choices", "point", "span", "members",
             "generator", "models"],
        )  # fmt: skip
        self.study.param.watch(self._update, ["place", "series"])
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    # ---------------------------------------------------------------- controls

    def _make_controls(self) -> None:
        self.town = pmui.Select(
            label="Town", options=[""], width=130, **CONTROL,
            description="Go to a town that lies on the domain of this store.",
        )  # fmt: skip
        self.latitude = pmui.FloatInput(
            label="Latitude [°N]", value=None, width=118, step=0.1, format="0.0000", **CONTROL,
            description="Latitude of the point in degrees north; negative in the south.",
        )  # fmt: skip
        self.longitude = pmui.FloatInput(
            label="Longitude [°E]", value=None, width=118, step=0.1, format="0.0000", **CONTROL,
            description="Longitude of the point in degrees east; negative in the west.",
        )  # fmt: skip
        self.span = pmui.Select(
            label="Hours", options=SPAN_NAMES, width=128, **CONTROL,
            description="Length of the time series: the day (UTC) of the hour shown, with one day before and after "
            "it, or with three.",
        )  # fmt: skip
        self.button = pmui.Button(label="Sample", variant="outlined", size="small", margin=(10, 10, 6, 6))
        self.bar = pmui.LinearProgress(
            value=0, variant="determinate", width=90, sizing_mode=None, margin=(24, 8, 0, 0)
        )
        self.status = block(margin=(15, 0, 0, 0), css_classes=["point-status"])
        self._controls = pn.Row(
            self.town, self.latitude, self.longitude, self.span, self.button, self.bar, self.status,
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip
        self.town.param.watch(lambda event: self._go_to_town(event.new), "value")
        for widget in (self.latitude, self.longitude):
            widget.param.watch(lambda _: self._go_to_numbers(), "value")
        self.span.param.watch(lambda event: self._choose_span(event.new), "value")
        self.button.on_click(lambda _: self._press())

    def _go_to_town(self, name: str | None) -> None:
        opened = self.session.opened
        if self._following or not name or opened is None:
            return
        self.session.point = list(towns(opened)[name])

    def _go_to_numbers(self) -> None:
        point = [self.longitude.value, self.latitude.value]
        if not self._following and is_point(point):
            self.session.point = [float(number) for number in point]

    def _choose_span(self, span: str | None) -> None:
        if not self._following and span:
            self.session.span = span

    def _press(self) -> None:
        progress = self.session.progress
        if progress is not None and progress.active:
            self.session.cancel_sampling()
        else:
            self.study.sample()

    def _update_controls(self) -> None:
        session = self.session
        self._following = True
        try:
            offered = towns(session.opened) if session.opened is not None else {}
            point = session.point
            here = next((name for name, where in offered.items() if list(where) == point), "")
            self.town.param.update(options=["", *offered], value=here, disabled=not offered)
            if point is None and session.opened is not None:
                point = middle(session.opened)  # where typing one number leads to a place on the maps
            if point is not None:
                self.longitude.value, self.latitude.value = point
            self.span.value = session.span
            if [button.label for button in self._towns.objects] != list(offered):
                self._towns.objects = [self._town_button(name) for name in offered]
        finally:
            self._following = False
        progress = session.progress
        active = progress is not None and progress.active
        many = len(self.study.missing_members()) if session.generators else 0
        may = not session.library.settings.no_sampling
        offer = may and bool(session.generators) and self.study.series is not None and (active or many > 0)
        self.button.visible = offer
        self.bar.visible = offer and active
        self.bar.value = round(100 * progress.share) if active else 0
        self.button.param.update(
            label="Cancel" if active else f"Sample {counted(many, 'field')}",
            description="Cancel: stop after the step at work; finished members are kept." if active
            else f"Sample {counted(many, 'field')}: the members of these hours that are not there yet, of the model "
            "and with the settings under Sampling in the sidebar.",
        )  # fmt: skip
        self.status.object = (
            f"<div class='caption' aria-live='polite'>{text(describe(session))}</div>"
            if offer and active
            else ""
        )

    def _town_button(self, name: str) -> pmui.Button:
        button = pmui.Button(
            label=name, variant="outlined", size="small", margin=0, description=f"{name}: show this town."
        )
        button.on_click(lambda _: self._go_to_town(name))
        return button

    # ---------------------------------------------------------------- what the session says

    def _update(self, *_: object) -> None:
        session, study = self.session, self.study
        if session.view != "point":
            return  # hidden; drawn when it is looked at
        series: PointSeries | None = study.series
        with together():
            self._update_controls()
            drawn = study.place is not None and series is not None
            self._content.visible, self._empty.visible = drawn, not drawn
            self._head.object = _heading(session, series)
            if series is None or not drawn:
                title, sentence, offer = _why_none(session)
                self._why.object = message(title, sentence)
                self._towns.visible = offer
                return
            colours = self._colours()
            self._draw_series(series, colours)
            self._draw_strip(series, colours)
            index = series.index(session.current)
            self._values.object = _values(series, index, colours, session)
            self._facts.object = _facts(series, session)
            self._notes.object = _notes(series)

    def _colours(self) -> dict[str, str]:
        session = self.session
        keys = [choice.key for choice in session.choices or () if choice.runs]
        own = {COARSE: COARSE_COLOUR, TRUTH: TRUTH_COLOUR[session.theme], OBSERVED: OBSERVED_COLOUR}
        return own | series_colours(keys)

    # ---------------------------------------------------------------- the time series

    def _make_series(self) -> None:
        self._clicked = ColumnDataSource(data={"x": []}, name="point-clicked")
        self.plot = figure(
            name="point-series",
            x_axis_type="datetime",
            height=300,
            sizing_mode="stretch_width",
            toolbar_location=None,
            tools="",
            output_backend="canvas",
            outline_line_color=None,
            min_width=240,
            min_border_right=14,
        )
        self.plot.xaxis.axis_label = "UTC"
        self.plot.xaxis.ticker.desired_num_ticks = 5
        self.plot.grid.grid_line_alpha = 0.35
        self._now = Span(
            location=0, dimension="height", line_color="#808080", line_dash="dashed", line_width=1.4
        )
        self.plot.add_layout(self._now)
        code = "clicked.data = {x: [cb_obj.x]}"
        self.plot.js_on_event(Tap, CustomJS(args={"clicked": self._clicked}, code=code))
        self._clicked.on_change("data", lambda attr, old, new: self._on_click())

    def _on_click(self) -> None:
        """Go to the hour nearest to the click."""
        series = self.study.series
        if series is None or not len(self._clicked.data["x"]):
            return
        moment = np.datetime64(int(self._clicked.data["x"][0]), "ms").astype("datetime64[ns]")
        hour = series.hours[int(np.argmin(np.abs(series.hours - moment)))]
        with together():
            self.session.hour = str(np.datetime_as_string(hour, unit="m"))

    def _line(self, key: str) -> tuple[ColumnDataSource, Any]:
        """Source and renderers of a line; made when it is first wanted."""
        if key not in self._lines:
            source = ColumnDataSource(
                data={"time": [], "value": [], "label": [], "units": []}, name=f"point-line-{key}"
            )
            observed = key == OBSERVED
            line = self.plot.line(
                "time", "value", source=source, line_width=1 if observed else 2.6 if key == TRUTH else 1.9,
                line_dash="dashed" if key == COARSE else "solid", name=f"point-curve-{key}",
            )  # fmt: skip
            dots = self.plot.scatter(
                "time", "value", source=source, size=7 if observed else 4, line_color=None,
                marker="diamond" if observed else "circle",
            )  # fmt: skip
            self._add_hover(dots, "@label", [("@time{%F %H:%M} UTC", "@value{0.00} @units")])
            self._lines[key] = source, (line, dots)
        return self._lines[key]

    def _band(self, key: str) -> tuple[ColumnDataSource, list[Any]]:
        """Source and renderers of a generative model's members."""
        if key not in self._bands:
            names = ("time", "width", "low", "p10", "mean", "p90", "high", "count", "label", "units")
            source = ColumnDataSource(data={name: [] for name in names}, name=f"point-band-{key}")
            wide = self.plot.vbar(
                "time",
                "width",
                "high",
                "low",
                source=source,
                fill_alpha=0.16,
                line_color=None,
                level="underlay",
            )
            narrow = self.plot.vbar(
                "time",
                "width",
                "p90",
                "p10",
                source=source,
                fill_alpha=0.26,
                line_color=None,
                level="underlay",
            )
            line = self.plot.line("time", "mean", source=source, line_width=1.9)
            dots = self.plot.scatter("time", "mean", source=source, size=4, line_color=None)
            self._add_hover(
                dots, "@label: @count{0} members",
                [("@time{%F %H:%M} UTC", ""), ("mean", "@mean{0.00} @units"),
                 ("10–90 %", "@p10{0.00} to @p90{0.00} @units"), ("least, most", "@low{0.00} to @high{0.00} @units")],
            )  # fmt: skip
            self._bands[key] = source, [wide, narrow, line, dots]
        return self._bands[key]

    def _add_hover(self, renderer: Any, title: str, rows: list[tuple[str, str]]) -> None:
        body = "".join(
            f"<div style='display:flex;justify-content:space-between;gap:18px'><span>{a}</span><span>{b}</span></div>"
            for a, b in rows
        )
        self.plot.add_tools(
            HoverTool(
                renderers=[renderer], formatters={"@time": "datetime"}, show_arrow=False, attachment="horizontal",
                tooltips="<div class='point-hover' style='margin:-5px;padding:7px 11px;font:12.5px/19px Roboto,Arial,"
                "sans-serif;font-variant-numeric:tabular-nums;color:var(--mui-palette-text-primary);"
                f"background:var(--mui-palette-background-paper)'><b>{title}</b>{body}</div>",
            )
        )  # fmt: skip

    def _draw_series(self, series: PointSeries, colours: dict[str, str]) -> None:
        units = series.quantity.units
        lines = {line.key: line for line in series.lines}
        if series.observed is not None:
            lines[OBSERVED] = series.observed
        for key in {*self._lines, *lines}:
            source, renderers = self._line(key)
            for renderer in renderers:
                renderer.visible = key in lines
            if key in lines:
                hours, (values,) = with_gaps(series.hours, lines[key].values)
                source.data = {
                    "time": hours, "value": values, "label": [lines[key].label] * hours.size,
                    "units": [units] * hours.size,
                }  # fmt: skip
                colour = colours.get(key, SERIES[-1])
                renderers[0].glyph.line_color = renderers[1].glyph.fill_color = colour
        bands = {band.key: band for band in series.bands}
        step = (
            float(np.diff(series.hours).min() / np.timedelta64(1, "ms")) if series.hours.size > 1 else 3.6e6
        )
        for key in {*self._bands, *bands}:
            source, renderers = self._band(key)
            for renderer in renderers:
                renderer.visible = key in bands
            if key in bands:
                band, count = bands[key], series.hours.size
                source.data = {
                    "time": series.hours, "count": band.counts, "label": [band.label] * count,
                    "width": [step] * count, "units": [units] * count, **band.summary(),
                }  # fmt: skip
                colour = colours.get(key, SERIES[-1])
                for renderer in (renderers[0], renderers[1], renderers[3]):
                    renderer.glyph.fill_color = colour
                renderers[2].glyph.line_color = colour
        self.plot.yaxis.axis_label = f"{series.quantity.label} [{units}]"
        current = self.session.current
        if current is not None:
            self._now.location = float(current.astype("datetime64[ms]").astype(np.int64))

    # ---------------------------------------------------------------- the hour

    def _make_strip(self) -> None:
        self._rows = FactorRange()
        self._ones = ColumnDataSource(data={"row": [], "value": [], "colour": []}, name="point-values")
        self._dots = ColumnDataSource(data={"row": [], "value": [], "colour": []}, name="point-members")
        names = ("row", "low", "p10", "mean", "p90", "high", "colour")
        self._boxes = ColumnDataSource(data={name: [] for name in names}, name="point-boxes")
        self.strip = figure(
            name="point-strip", y_range=self._rows, height=160, sizing_mode="stretch_width", toolbar_location=None,
            tools="hover", tooltips=[("", "@row"), ("value", "@value{0.00}")], output_backend="canvas",
            outline_line_color=None, min_width=240, min_border_right=14, title="At the hour",
        )  # fmt: skip
        self.strip.hbar(
            y="row", left="low", right="high", height=0.5, source=self._boxes, fill_color="colour", fill_alpha=0.16,
            line_color=None,
        )  # fmt: skip
        self.strip.hbar(
            y="row", left="p10", right="p90", height=0.5, source=self._boxes, fill_color="colour", fill_alpha=0.26,
            line_color=None,
        )  # fmt: skip
        members = self.strip.scatter(
            "value",
            "row",
            source=self._dots,
            size=9,
            fill_color="colour",
            fill_alpha=0.55,
            line_color="colour",
        )
        self.strip.scatter(
            "mean", "row", source=self._boxes, marker="dash", angle=np.pi / 2, size=24, line_width=2.4,
            line_color="colour",
        )  # fmt: skip
        ones = self.strip.scatter(
            "value",
            "row",
            source=self._ones,
            size=11,
            marker="diamond",
            fill_color="colour",
            line_color="colour",
        )
        self.strip.hover.renderers = [members, ones]
        self._marks = {
            key: Span(dimension="height", line_width=1.4, line_dash=dash, level="underlay", visible=False)
            for key, dash in ((TRUTH, "solid"), (OBSERVED, "dotted"))
        }
        for span in self._marks.values():
            self.strip.add_layout(span)
        self.strip.grid.grid_line_alpha = 0.35

    def _draw_strip(self, series: PointSeries, colours: dict[str, str]) -> None:
        index = series.index(self.session.current)
        names: list[str] = []
        ones: dict[str, list[Any]] = {"row": [], "value": [], "colour": []}
        dots: dict[str, list[Any]] = {"row": [], "value": [], "colour": []}
        boxes: dict[str, list[Any]] = {name: [] for name in self._boxes.data}
        lines = [*([series.observed] if series.observed is not None else []), *series.lines]
        for line in lines if index is not None else ():
            name = _row_name(f"Observed at {line.label}" if line.key == OBSERVED else line.label, names)
            names.append(name)
            if np.isfinite(line.values[index]):
                for column, entry in zip(
                    ones, (name, line.values[index], colours.get(line.key, SERIES[-1])), strict=True
                ):
                    ones[column].append(entry)
        for band in series.bands if index is not None else ():
            members = band.at(index)
            name = _row_name(band.label, names)
            names.append(name)
            colour = colours.get(band.key, SERIES[-1])
            for value in members:
                for column, entry in zip(dots, (name, value, colour), strict=True):
                    dots[column].append(entry)
            if members.size > 1:
                summary = {key: values[index] for key, values in band.summary().items()}
                for column, entry in ({"row": name, "colour": colour} | summary).items():
                    boxes[column].append(entry)
        self._rows.factors = names[::-1]
        self._ones.data, self._dots.data, self._boxes.data = ones, dots, boxes
        for key, span in self._marks.items():
            line = series.observed if key == OBSERVED else series.get(key)
            value = line.values[index] if line is not None and index is not None else np.nan
            span.visible = bool(np.isfinite(value))
            if span.visible:
                span.update(location=float(value), line_color=colours[key])
        self.strip.height = 78 + 26 * max(len(names), 2)
        self.strip.xaxis.axis_label = f"{series.quantity.label} [{series.quantity.units}]"
        hour = self.session.current
        self.strip.title.text = f"At {show_hour(hour)}" if hour is not None else ""


# ---------------------------------------------------------------- words


def _row_name(label: str, taken: list[str]) -> str:
    """A name of its own for each row; labels come from files and may be the same."""
    label = label if len(label) <= 34 else f"{label[:33]}…"
    name, number = label, 2
    while name in taken:
        name, number = f"{label} ({number})", number + 1
    return name


def show_place(longitude: float, latitude: float, decimals: int = 2) -> str:
    """Coordinates for people."""
    north, east = ("N", "S")[latitude < 0], ("E", "W")[longitude < 0]
    return f"{abs(latitude):.{decimals}f}° {north}  {abs(longitude):.{decimals}f}° {east}"


def _heading(session: Session, series: PointSeries | None) -> str:
    place = session.points.place
    where = f"{show_place(place.longitude, place.latitude)}" if place is not None else ""
    hour = session.current
    when = show_hour(hour) if hour is not None else ""
    busy = ""
    if series is not None and series.pending:
        busy = f"reading and computing {counted(series.pending, 'more field')}…"
    return (
        f"<div class='head'><h2>Point</h2><span class='when'>{text(' · '.join(filter(None, (where, when))))}</span>"
        + (f"<span class='busy'>{text(busy)}</span>" if busy else "")
        + "</div>"
    )


def _why_none(session: Session) -> tuple[str, str, bool]:
    """Why there is nothing to show: a title, what to do, and whether towns are offered."""
    if session.point is None:
        offered = bool(session.opened is not None and towns(session.opened))
        return (
            "Choose a point",
            "Click on any map, type a latitude and a longitude above, or take one of these towns. You then see what "
            "every field says there, hour by hour."
            if offered
            else "Click on any map, or type a latitude and a longitude above. You then see what every field says "
            "there, hour by hour.",
            offered,
        )
    if session.opened is not None and session.points.place is None:
        return (
            "This point lies outside",
            f"{show_place(session.point[0], session.point[1])} does not lie on the domain of this store "
            f"({session.opened.domain.name}). Click on a map or type another place.",
            bool(towns(session.opened)),
        )
    return "Point", "What the fields say here is being gathered.", False


def _values(series: PointSeries, index: int | None, colours: dict[str, str], session: Session) -> str:
    """The table of the hour, which is the legend of the charts as well."""
    quantity = series.quantity
    truth = series.get(TRUTH)
    reference = truth if truth is not None else series.observed
    known = reference.values[index] if reference is not None and index is not None else np.nan
    entries: list[tuple[str, str, float, str]] = []
    if series.observed is not None:
        value = series.observed.values[index] if index is not None else np.nan
        entries.append((OBSERVED, f"Observed at {series.observed.label}", value, ""))
    for line in series.lines:
        value = line.values[index] if index is not None else np.nan
        label = "Coarse input (its cell)" if line.key == COARSE else line.label
        entries.append((line.key, label, value, line.problem))
    for band in series.bands:
        members = band.at(index) if index is not None else np.empty(0)
        what = f", mean of {members.size}" if members.size > 1 else ", member 0" if members.size else ""
        value = float(members.mean()) if members.size else np.nan
        entries.append((band.key, band.label + what, value, ""))
    rows = ""
    for key, label, value, problem in entries:
        away = _signed(value - known, quantity) if reference is None or key != reference.key else ""
        shown = f"<span title='{text(problem)}'>failed</span>" if problem else _show(value, quantity)
        rows += (
            f"<tr><td><span class='dot' style='background:{colours.get(key, SERIES[-1])}'></span>{text(label)}</td>"
            f"<td>{shown}</td><td>{away}</td></tr>"
        )
    name = "truth" if truth is not None else "observed" if reference is not None else ""
    hour = show_hour(session.current, weekday=False) if session.current is not None else ""
    return (
        f"<table class='compact'><caption>{text(quantity.label)} at {text(hour)} UTC</caption><thead><tr><th>Field</th>"
        f"<th>{text(quantity.units)}</th><th>{f'− {name}' if name else ''} <small>"
        f"{f'[{text(quantity.difference_units)}]' if name else ''}</small></th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _facts(series: PointSeries, session: Session) -> str:
    place = series.place
    spacing = session.opened.domain
    rows = [
        ("Point", show_place(place.longitude, place.latitude, 4)),
        ("Fine cell", f"centre {show_place(*place.centre, 3)}, {place.distance / 1e3:.1f} km away"),
        ("Fine surface", _metres(place.height)),
        (
            "Coarse cell",
            f"{spacing.coarse.dx / 1e3:g} km wide, centre {place.coarse_distance / 1e3:.1f} km away",
        ),
        ("Coarse surface", _metres(place.coarse_height)),
    ]
    near, sited = session.points.near, session.points.sited
    if near is not None and sited is not None:
        number, distance = near
        rows.append(
            (
                "Station",
                f"{sited.names[number]}, {sited.elevation[number]:.0f} m, {distance / 1e3:.1f} km away",
            )
        )
    elif sited is not None and sited.size and series.quantity == QUANTITY:
        rows.append(("Station", "none within 30 km"))
    return (
        "<div class='card'><dl>"
        + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in rows)
        + "</dl></div>"
    )


def _notes(series: PointSeries) -> str:
    found = [
        "Fine fields are those of the fine cell that holds the point, the coarse input that of its coarse cell; "
        "neither is interpolated. Click in the time series to go to that hour."
    ]
    if series.bands:
        found.append(
            "Members: shaded from the least to the highest and, darker, from the 10th to the 90th percentile; the line "
            "is their mean. Nothing is sampled here by itself."
        )
    if series.corrected is not None:
        found.append(
            f"All temperatures are brought from their cells to the {series.corrected:.0f} m of the station with 6.5 K "
            "per km."
        )
    found += [f"{line.label}: {line.problem}" for line in series.lines if line.problem]
    return "<div class='notes'>" + "".join(f"<p>{text(one)}</p>" for one in found) + "</div>"


def _show(value: float, quantity: Quantity) -> str:
    return f"{value:.{quantity.decimals + 1}f}".replace("-", "−") if np.isfinite(value) else "–"


def _signed(value: float, quantity: Quantity) -> str:
    return f"{value:+.{quantity.decimals + 1}f}".replace("-", "−") if np.isfinite(value) else "–"


def _metres(height: float) -> str:
    return f"{height:.0f} m above the sea" if np.isfinite(height) else "height not in this store"
