"""Scores over many hours: means with intervals, box plots, maps of errors, distributions; growing as they come."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, HoverTool, Range1d, Span
from bokeh.plotting import figure

from core.domain import Domain
from core.plural import counted
from core.regions import Window
from explorer.batch import together
from explorer.encoding import Scale, robust_range
from explorer.hour_scores import (
    ALIKE,
    BEST,
    BLOCK_HOURS,
    CONFIDENCE,
    SURFACES,
    Array,
    Column,
    HoursTable,
    Row,
    box,
    hours_csv,
    means_csv,
)
from explorer.quantities import FloatField
from explorer.scoring import Scoring
from explorer.session import Session
from explorer.snapshot import show_hour
from explorer.style import DIVERGING, PALETTES, TRUTH_COLOUR, block, message, series_colours, text
from explorer.views.hours import most_options, ordinal
from explorer.views.maps import NOTHING, Maps, colour_bar, empty_columns
from explorer.views.sampling import show_seconds
from explorer.words import HOURS, SPLIT_WORDS

BIAS, RMSE = "bias", "rmse"
MAP_NAMES = {"Bias": BIAS, "RMSE": RMSE}
RMSE_PALETTE = "magma"
MAPS_HEIGHT = 470
CHARTS_GRID = {
    "display": "grid",
    "grid-template-columns": "repeat(auto-fill, minmax(200px, 1fr))",
    "gap": "4px 10px",
}
NAME_OF = {"sea": "Over sea", "land": "Over land"}


class ErrorMaps(Maps):
    """Maps of the bias or the RMSE over hours, one for each downscaler."""

    prefix = "scores-"
    scrolls = False
    follows = ("palette",)

    def __init__(self, session: Session, **params: Any) -> None:
        self.table: HoursTable | None = None
        self.kind = BIAS
        self._window: Window | None = None
        super().__init__(session, **params)

    def _follow(self) -> None:
        """Nothing of the session but its theme: what is shown comes with :meth:`show`."""

    def show(self, table: HoursTable, kind: str) -> None:
        """Draw the maps of a table."""
        self.table, self.kind = table, kind
        self._update()

    def _update(self, *_: object) -> None:
        table, opened = self.table, self.session.opened
        if table is None or opened is None:
            return
        fields = {row.key: field for row in table.rows if (field := getattr(row, self.kind)) is not None}
        if not fields:
            return
        with together():
            if opened is not self._opened:
                self._use(opened)
            if table.window != self._window:
                self._window = table.window
                self.fit(table.window.left, table.window.right, table.window.bottom, table.window.top)
            self._paint(table, fields, opened.domain)
            names = tuple((row.key, row.label) for row in table.rows if row.key in fields)
            self._place_maps(names, tuple(fields))
            title = "Mean error" if self.kind == BIAS else "Root-mean-square error"
            self._head.object = (
                f"<div class='head'><h2>{title} over hours</h2><span class='when'>forecast and truth, "
                f"{text(table.quantity.label)}</span></div>"
            )
            for row in table.rows:
                if row.key in fields:
                    self._heads[row.key].object = (
                        f"<div class='panel-head'><span class='name'>{text(row.label)}</span>"
                        f"<span class='detail'>{counted(row.hours, 'hour')}</span></div>"
                    )

    def _paint(self, table: HoursTable, fields: dict[str, Array], domain: Domain) -> None:
        units = table.quantity.difference_units
        left, right, bottom, top = domain.fine.extent
        whole = {key: _on_domain(field, table.window, domain) for key, field in fields.items()}
        scale = Scale.spanning(fields.values())
        columns = empty_columns()
        columns |= {"left": [left], "right": [right], "bottom": [bottom], "top": [top]}
        columns |= {"width": [right - left], "height": [top - bottom]}
        columns |= {"units": [units], "decimals": [2], "low": [scale.low], "step": [scale.step]}
        columns |= {key: [scale.encode(field)] for key, field in whole.items()}
        for key in self._figures:
            columns.setdefault(key, [NOTHING])  # maps that are hidden; an image needs its column
        signed = self.kind == BIAS
        low, high = robust_range(fields.values(), signed=signed, floor=None if signed else 0.0)
        colours = DIVERGING if signed else PALETTES[RMSE_PALETTE]
        self.mapper.palette = scale.palette(colours, low, high)
        self._bar.object = colour_bar(colours, low, high, units)
        self.source.data = columns


class HourScores(pn.viewable.Viewer):
    """The part of the view of scores that is about many hours."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self.scoring = Scoring(session)
        self._following = False
        self._colours: dict[str, str] = {}
        self._mapped: tuple[object, ...] = ()
        self._boxes: dict[str, tuple[figure, ColumnDataSource, ColumnDataSource]] = {}

        self._most = pmui.Select(
            label="Look at", options=most_options(), value=session.most, size="small", width=120,
            margin=(4, 12, 4, 0),
            description="How many of the hours on offer are scored, at most: every n-th of them. Season, time of "
            "day and split in the sidebar choose what is on offer.",
        )  # fmt: skip
        self._common = pmui.Checkbox(
            label="Only hours that all have", size="small", value=False, margin=(12, 12, 4, 0), align="center",
            description="Means and boxes over the hours in which every downscaler is scored, so that they can be "
            "compared where a generative model has fewer hours.",
        )  # fmt: skip
        self._stop = pmui.Button(
            label="Stop", variant="outlined", size="small", width=84, align="center", margin=(4, 8),
            description="Stop after the hour at work; what is computed stays.",
        )  # fmt: skip
        self._sample = pmui.Button(
            label="Sample missing members", variant="outlined", size="small", align="center", margin=(4, 8),
            description="Sample the members that ticked generative models lack in these hours, with the settings "
            "under Sampling. This can take long; Stop ends it and keeps what is made.",
        )  # fmt: skip
        files = {"variant": "outlined", "size": "small", "align": "center", "margin": (4, 4)}
        self._means_file = pmui.FileDownload(
            callback=lambda: self._file(means_csv), filename="scores-means.csv", label="Means (CSV)", **files
        )
        self._hours_file = pmui.FileDownload(
            callback=lambda: self._file(hours_csv), filename="scores-hours.csv", label="Hours (CSV)", **files
        )
        self._bar = pmui.LinearProgress(
            value=0, variant="determinate", sizing_mode="stretch_width", margin=(4, 0, 0, 0)
        )
        self._status = block(min_height=20, margin=(2, 0, 6, 0))
        self._head = block(min_width=200)
        self._table = block(css_classes=["hours-table"], styles={"overflow-x": "auto"})
        self._charts = pn.Column(
            sizing_mode="stretch_width", margin=(10, 0, 0, 0), styles=CHARTS_GRID,
            stylesheets=[".scroll-button { display: none !important; }"],
        )  # fmt: skip
        self._kind = pmui.RadioButtonGroup(
            label="", options=MAP_NAMES, value=BIAS, size="small", margin=(14, 0, 0, 0),
            description="Bias: mean of forecast minus truth over the hours. RMSE: root of the mean squared error.",
        )  # fmt: skip
        self._maps = ErrorMaps(session)
        self._maps_box = pn.Column(
            self._maps, height=MAPS_HEIGHT, sizing_mode="stretch_width", margin=0, css_classes=["error-maps"]
        )
        self._curves = {
            name: ColumnDataSource(
                data={"xs": [], "ys": [], "colour": [], "label": [], "width": []}, name=f"values-{name}"
            )
            for name in SURFACES
        }
        self._distributions = pn.Row(
            *(pn.pane.Bokeh(self._make_distribution(name), sizing_mode="stretch_width", margin=0)
              for name in SURFACES),
            sizing_mode="stretch_width", margin=(14, 0, 0, 0),
        )  # fmt: skip
        self._notes = block(margin=(12, 0, 0, 0))
        self._why = block()
        self._results = pn.Column(
            self._table, self._charts, self._kind, self._maps_box, self._distributions, self._notes,
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip
        self._controls = pn.FlexBox(
            self._most, self._common, self._stop, self._sample, self._means_file, self._hours_file,
            align_items="center", sizing_mode="stretch_width", margin=0,
        )  # fmt: skip
        self._layout = pn.Column(
            self._head, self._controls, self._bar, self._status, self._results, self._why,
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip
        self._most.param.watch(lambda event: self._choose(event.new), "value")
        self._common.param.watch(lambda event: setattr(self.scoring, "common", event.new), "value")
        self._stop.on_click(lambda _: self._press())
        self._sample.on_click(lambda _: self.scoring.sample_missing())
        self._kind.param.watch(lambda _: self._draw_maps(), "value")
        session.param.watch(
            self._update, ["view", "scope", "most", "opened", "theme", "models", "choices", "variable"]
        )
        self.scoring.param.watch(self._update, ["table", "standing", "sampling", "problems"])
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    # ---------------------------------------------------------------- what a person does

    def _choose(self, most: int | None) -> None:
        if not self._following and most is not None:
            self.session.most = most

    def _press(self) -> None:
        standing = self.scoring.standing
        if standing is not None and standing.stopped:
            self.scoring.go_on()
        else:
            self.scoring.stop()

    def _file(self, write: Any) -> io.StringIO:
        table = self.scoring.table
        return io.StringIO("no scores\n" if table is None else write(table, self.session.store))

    # ---------------------------------------------------------------- what is shown

    def _update(self, *events: Any) -> None:
        session, scoring = self.session, self.scoring
        if session.view != "scores" or session.scope != HOURS:
            return  # hidden; drawn when it is looked at
        table: HoursTable | None = scoring.table
        ready = table is not None and bool(table.rows) and bool(table.columns)
        with together():
            self._following = True
            try:
                self._most.value = session.most
            finally:
                self._following = False
            self._results.visible = ready
            self._controls.visible = session.has_truth
            self._why.visible = not ready
            self._update_status(table)
            if not ready or table is None:
                self._head.object = ""
                self._why.object = self._explain()
                return
            keys = [choice.key for choice in session.choices or () if choice.runs]
            self._colours = series_colours(keys)
            names = {event.name for event in events}
            if names and names <= {"standing", "sampling"}:
                return  # the table is that of before
            self._head.object = heading(table, session.split, session.season, session.daytime)
            self._table.object = table_html(table, self._colours)
            self._update_boxes(table)
            self._notes.object = notes_html(table, scoring.problems)
            # What is heavier is sent when it changed.
            mapped = (session.theme, *(id(row.bias) for row in table.rows), id(table.truth_shares))
            if mapped != self._mapped:
                self._mapped = mapped
                self._draw_maps()
                self._update_distributions(table)

    def _explain(self) -> str:
        session = self.session
        if not session.has_truth:
            return message(
                "No scores for this store",
                f"It holds no fine truth of {session.quantity.label.lower()}, so there is nothing to compare "
                "with. The maps work all the same.",
            )
        if session.choices is None:
            return message("Scores over hours", "Looking for downscalers.")
        if not session.running:
            return message("Scores over hours", "Tick a downscaler that can run on this store.")
        if self.scoring.problems:
            words = " ".join(f"{label}: {why}" for label, why in self.scoring.problems.items())
            return message("No scores over hours", words)
        if self.scoring.standing is not None and not self.scoring.standing.running:
            return message(
                "No scores over hours yet",
                "None of these hours has a field to score. Members of a generative model count where they were "
                "sampled; press Sample missing members.",
            )
        return message("Scores over hours", "They are being computed, hour by hour.")

    def _update_status(self, table: HoursTable | None) -> None:
        scoring = self.scoring
        standing, sampling = scoring.standing, scoring.sampling
        active = sampling is not None and sampling.active
        running = standing is not None and standing.running
        stopped = standing is not None and standing.stopped
        self._stop.visible = running or active or stopped
        self._stop.label = "Go on" if stopped and not active else "Stop"
        missing = table.missing if table is not None else 0
        may = not self.session.library.settings.no_sampling
        self._sample.visible = may and bool(self.session.generators) and missing > 0 and not active
        self._sample.label = f"Sample {counted(missing, 'missing member')}"
        self._bar.visible = running or active
        words = []
        if active:
            self._bar.value = round(100 * sampling.share)
            done = len(sampling.made)
            words.append(f"Sampling member {min(done + 1, sampling.fields)} of {sampling.fields}")
            if sampling.left is not None:
                words.append(f"{show_seconds(sampling.left)} left")
        elif standing is not None:
            self._bar.value = round(100 * standing.share)
            if running:
                words.append(f"{standing.done} of {standing.total} fields scored")
                if standing.left is not None and standing.left >= 1:
                    words.append(f"{show_seconds(standing.left)} left")
            elif stopped:
                words.append(f"Stopped; {standing.done} of {standing.total} fields are scored")
        if not words and table is not None and table.rows:
            words.append(f"Done: {table.rows[0].hours if len(table.rows) == 1 else table.used} hours scored")
        failed = sampling is not None and sampling.problem
        self._status.object = (
            f"<div class='{'failure' if failed else 'caption'}' aria-live='polite'>"
            f"{text(sampling.problem if failed else ' · '.join(words))}</div>"
        )

    # ---------------------------------------------------------------- box plots

    def _update_boxes(self, table: HoursTable) -> None:
        wanted = [column.name for column in table.columns]
        for column in table.columns:
            if column.name not in self._boxes:
                self._boxes[column.name] = _make_boxes(column)
            plot, source, dots = self._boxes[column.name]
            plot.title.text = f"{column.title} [{column.units}]" if column.units else column.title
            plot.height = 62 + 24 * len(table.rows)
            plot.y_range.update(start=len(table.rows) - 0.5, end=-0.5)
            source.data, dots.data = box_columns(table, column, self._colours)
        panes = {pane.name: pane for pane in self._charts.objects}
        if list(panes) != wanted:
            self._charts.objects = [
                panes.get(name)
                or pn.pane.Bokeh(self._boxes[name][0], name=name, margin=0, sizing_mode="stretch_width")
                for name in wanted
            ]  # fmt: skip

    # ---------------------------------------------------------------- maps and distributions

    def _draw_maps(self) -> None:
        table = self.scoring.table
        if table is not None:
            self._maps.show(table, self._kind.value)

    def _make_distribution(self, surface: str) -> figure:
        plot = figure(
            name=f"distribution-{surface}", title=NAME_OF[surface], height=260, sizing_mode="stretch_width",
            toolbar_location=None, tools="", outline_line_color=None, output_backend="canvas",
            y_axis_label="share of values [%]", min_border_right=12,
        )  # fmt: skip
        lines = plot.multi_line(
            "xs", "ys", source=self._curves[surface], line_color="colour", line_width="width"
        )
        plot.add_tools(HoverTool(renderers=[lines], tooltips=[("", "@label")]))
        plot.y_range.start = 0
        return plot

    def _update_distributions(self, table: HoursTable) -> None:
        for number, surface in enumerate(SURFACES):
            rows: list[tuple[str, str, Array | None, float]] = [
                (row.label, self._colours.get(row.key, "#888888"), row.shares, 1.6) for row in table.rows
            ]
            rows.append(("Truth", TRUTH_COLOUR[self.session.theme], table.truth_shares, 2.2))
            kept = [
                (label, colour, shares[number], width)
                for label, colour, shares, width in rows
                if shares is not None and shares.shape[1] > 1 and np.isfinite(shares[number]).any()
            ]
            seen = np.zeros(table.bins.size, bool)
            for _, _, values, _ in kept:
                seen |= values > 0.002
            places = np.flatnonzero(seen)
            span = slice(places[0], places[-1] + 1) if places.size else slice(0, 0)
            self._curves[surface].data = {
                "xs": [table.bins[span] for _ in kept],
                "ys": [values[span] for _, _, values, _ in kept],
                "colour": [colour for _, colour, _, _ in kept],
                "label": [label for label, *_ in kept],
                "width": [width for *_, width in kept],
            }
            pane = self._distributions[number]
            pane.visible = bool(kept)
            units = table.quantity.units
            pane.object.xaxis.axis_label = f"{table.quantity.label} [{units}]"
            pane.object.yaxis.axis_label = f"share of values [% per {table.quantity.difference_units}]"


def heading(table: HoursTable, split: str, season: str, daytime: str) -> str:
    """Title of the scores: of what, and over which hours."""
    every = "" if table.every == 1 else f"every {ordinal(table.every)} of "
    parts = [
        table.quantity.label,
        f"{counted(table.hours.size, 'hour')} ({every}{table.offered} on offer)",
        table.window.name,
    ]
    chosen = [word for word in (season, daytime) if word != "all"]
    if split != "all":
        chosen.append(SPLIT_WORDS[split])
    if chosen:
        parts.insert(2, ", ".join(chosen))
    return (
        "<div class='head'><h2>Scores over hours</h2>"
        f"<span class='when'>{text(' · '.join(parts))}</span></div>"
    )


def table_html(table: HoursTable, colours: dict[str, str]) -> str:
    """Means with intervals; the best in bold, others that may be as good marked."""
    heads = "".join(
        f"<th scope='col' title='{text(column.long_name)}'>{text(column.title)}"
        f"{f' <small>[{text(column.units)}]</small>' if column.units else ''}</th>"
        for column in table.columns
    )
    rows = "".join(
        f"<tr><td><span class='dot' style='background:{colours.get(row.key, '#888888')}'></span>{text(row.label)}"
        f"</td><td>{_hours(row, table)}</td>{''.join(_mean(row, column) for column in table.columns)}</tr>"
        for row in table.rows
    )
    return (
        f"<table class='compact'><caption>{show_hour(table.hours[0])} to {show_hour(table.hours[-1])}</caption>"
        "<thead><tr><th scope='col'>Downscaler</th>"
        "<th scope='col' title='Hours scored, and members in each where there are several'>Hours</th>"
        f"{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _hours(row: Row, table: HoursTable) -> str:
    members = row.members[row.members > 0]
    words = f"{row.hours}"
    if row.hours < table.hours.size:
        words += f" of {table.hours.size}"
    if members.size and members.max() > 1:
        low, high = int(members.min()), int(members.max())
        many = f"{low}" if low == high else f"{low}–{high}"
        words += f"<br><small class='interval'>{many} members</small>"
    return words


def _mean(row: Row, column: Column) -> str:
    value, low, high = row.means.get(column.name, (np.nan,) * 3)
    if not np.isfinite(value):
        return "<td>–</td>"
    mark = row.marks.get(column.name, "")
    sign = {
        BEST: "",
        ALIKE: "<span class='alike' title='Not distinguishable from the best over these hours'>≈</span>",
    }
    interval = (
        f"<br><small class='interval'>{_number(low, column)} to {_number(high, column)}</small>"
        if np.isfinite(low)
        else ""
    )
    classes = " class=best" if mark == BEST else ""
    return f"<td{classes}>{sign.get(mark, '')}{_number(value, column)}{interval}</td>"


def _number(value: float, column: Column) -> str:
    decimals = 2 if column.units or column.name == "spectral_slope_loss" else 3
    return f"{value:{'+' if column.best == 'zero' else ''}.{decimals}f}".replace("-", "−")


def notes_html(table: HoursTable, problems: dict[str, str]) -> str:
    """How the numbers are to be read."""
    notes = [
        f"Means over {'the hours that all have' if table.common else 'hours'}; below them "
        f"{CONFIDENCE:.0%} intervals of a bootstrap of {counted(table.blocks, 'block')} of {BLOCK_HOURS} hours. "
        "Bold: the best. ≈: its difference from the best, hour by hour, may be chance."
        if table.blocks > 1
        else "Means over hours. Hours of a single day say nothing about other days, so there are no intervals.",
        "Boxes hold the middle half of the hours, the line is the median, the diamond the mean; whiskers reach from "
        "the 5th to the 95th percentile, dots are hours beyond. Scores of a model with several members are means over "
        "members, but CRPS, which is of the ensemble (the mean absolute error for a single field).",
    ]
    if any(row.hours < table.used for row in table.rows) and not table.common:
        notes.append(
            "Downscalers with fewer hours are not ranked, since other hours are easier or harder. Tick Only hours that "
            "all have to compare them."
        )
    notes += [f"{label} is not scored: {why}" for label, why in problems.items()]
    return "<div class='notes'>" + "".join(f"<p>{text(note)}</p>" for note in notes) + "</div>"


def box_columns(
    table: HoursTable, column: Column, colours: dict[str, str]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Columns of the boxes of one score, and of the dots beyond them."""
    names = ("y", "colour", "label", "low", "first", "median", "third", "high", "mean")
    boxes: dict[str, list[Any]] = {name: [] for name in names}
    dots: dict[str, list[Any]] = {"x": [], "y": [], "colour": []}
    shared = np.logical_and.reduce([row.members > 0 for row in table.rows])
    for place, row in enumerate(table.rows):
        values = (
            np.where(shared, row.values[column.name], np.nan) if table.common else row.values[column.name]
        )
        found = box(values)
        if found is None:
            continue
        colour = colours.get(row.key, "#888888")
        for name, value in zip(names, (place, colour, row.label, *found.quantiles, found.mean), strict=True):
            boxes[name].append(value)
        dots["x"] += found.beyond
        dots["y"] += [place] * len(found.beyond)
        dots["colour"] += [colour] * len(found.beyond)
    return boxes, dots


def _make_boxes(column: Column) -> tuple[figure, ColumnDataSource, ColumnDataSource]:
    names = ("y", "colour", "label", "low", "first", "median", "third", "high", "mean")
    source = ColumnDataSource(data={name: [] for name in names}, name=f"boxes-{column.name}")
    dots = ColumnDataSource(data={"x": [], "y": [], "colour": []})
    plot = figure(
        name=f"box-{column.name}", y_range=Range1d(0.5, -0.5), height=100, sizing_mode="stretch_width", toolbar_location=None,
        tools="", outline_line_color=None, output_backend="canvas", min_border_left=8, min_border_right=10,
    )  # fmt: skip
    plot.segment(x0="low", x1="high", y0="y", y1="y", source=source, line_color="colour", line_width=1.2)
    boxes = plot.hbar(
        y="y", left="first", right="third", height=0.62, source=source, fill_color="colour", fill_alpha=0.5,
        line_color="colour",
    )  # fmt: skip
    plot.scatter("x", "y", source=dots, size=3, fill_color="colour", line_color=None, fill_alpha=0.6)
    plot.scatter(
        "median", "y", source=source, marker="dash", angle=np.pi / 2, size=13, line_color="colour", line_width=2.4,
    )  # fmt: skip
    plot.scatter(
        "mean", "y", source=source, marker="diamond", size=7, fill_color="white", line_color="colour"
    )
    if column.best == "zero":
        plot.add_layout(Span(location=0, dimension="height", line_color="#888888", line_width=1))
    plot.add_tools(
        HoverTool(
            renderers=[boxes],
            tooltips=[
                ("", "@label"), ("median", "@median{0.000}"), ("mean", "@mean{0.000}"),
                ("middle half", "@first{0.000} to @third{0.000}"),
            ],
        )
    )  # fmt: skip
    plot.yaxis.visible = False
    plot.ygrid.visible = False
    plot.xaxis.ticker.desired_num_ticks = 4
    plot.xaxis.ticker.num_minor_ticks = 0
    return plot, source, dots


def _on_domain(field: Array, window: Window, domain: Domain) -> FloatField:
    """A field of the window in its place on the whole domain, NaN elsewhere."""
    whole = np.full(domain.fine.shape, np.nan, np.float32)
    whole[window.slices(domain.fine)] = field
    return whole
