"""Scores of the hour over the region: a table, bars, and how the errors are distributed."""

from __future__ import annotations

import io
from typing import Any

import holoviews as hv
import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, DataRange1d, FactorRange, Span
from bokeh.plotting import figure

from explorer.scores import NAMES, WITH_UNITS, Score, best, error_distributions, to_csv
from explorer.session import Session
from explorer.snapshot import ScoreTable, show_hour
from explorer.style import NO_WRAP, SERIES, block, message, series_colours, text
from explorer.views.hour_scores import HourScores
from explorer.words import HOUR, HOURS

hv.extension("bokeh", logo=False)
hv.renderer("bokeh").webgl = False  # slower than the canvas on machines without a graphics card


class Scores(pn.viewable.Viewer):
    """Table and charts of a session's scores."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._colours: dict[str, str] = {}
        self._head = block(min_width=200)
        self._table = block(css_classes=["score-table"])
        self._source = ColumnDataSource(data={name: [] for name in ("key", "colour", *NAMES)})
        self._rows = FactorRange()
        self._charts: dict[str, figure] = {}
        self._make_bars()
        self._bars = pn.Row(
            *(pn.pane.Bokeh(plot, sizing_mode="stretch_width", margin=0) for plot in self._charts.values()),
            sizing_mode="stretch_width",
            margin=(14, 0, 10, 0),
        )
        self._errors = pn.pane.HoloViews(sizing_mode="stretch_width", margin=0, linked_axes=False)
        self._download = pmui.FileDownload(
            callback=self._csv,
            filename="scores.csv",
            label="Download CSV",
            variant="outlined",
            size="small",
            margin=(6, 0),
        )
        self._content = pn.Column(
            pn.Row(self._head, self._download, sizing_mode="stretch_width", margin=0),
            self._table,
            self._bars,
            self._errors,
            sizing_mode="stretch_width",
            margin=(0, 24, 24, 18),
            max_width=1500,
            visible=False,
        )
        self._why = block()
        self._scope = pmui.RadioButtonGroup(
            label="", options={"This hour": HOUR, "Many hours": HOURS}, value=session.scope, size="small",
            margin=(10, 0, 2, 18), css_classes=["scope"], sx=NO_WRAP,
            description="Scores of the hour that is shown, or over the hours that the sidebar offers (season, "
            "time of day, split).",
        )  # fmt: skip
        self._scope.param.watch(lambda event: self._choose_scope(event.new), "value")
        self._hours: HourScores | None = None  # made when it is first asked for
        self._loaded = False
        self._hours_box = pn.Column(
            sizing_mode="stretch_width", margin=(0, 24, 24, 18), max_width=1500, visible=False
        )
        self._layout = pn.Column(
            self._scope, self._content, self._why, self._hours_box, sizing_mode="stretch_both", margin=0,
            styles={"overflow-y": "auto"},
        )  # fmt: skip
        session.param.watch(self._update, ["scores", "snapshot", "view", "scope"])
        # Maps added to what a page is opened with, before it is loaded, would ask the internet for style sheets.
        pn.state.onload(lambda: session.later(self._on_load))
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def _on_load(self) -> None:
        self._loaded = True
        self._update()

    def _choose_scope(self, scope: str | None) -> None:
        if scope is not None:
            self.session.scope = scope

    def _update(self, *_: object) -> None:
        session = self.session
        if session.view != "scores":
            return  # hidden; drawn when it is looked at
        self._scope.value = session.scope
        many = session.scope == HOURS
        if many and self._hours is None and self._loaded:
            self._hours = HourScores(session)
            self._hours_box.append(self._hours)
        self._hours_box.visible = many
        if many:
            self._content.visible = self._why.visible = False
            return
        table: ScoreTable | None = session.scores
        snapshot = session.snapshot
        if session.scoring and self._content.visible:
            return  # they come in a moment: until then those that are there, which say what they are of
        self._content.visible = bool(table and table.rows)
        self._why.visible = not self._content.visible
        if snapshot is None:
            return
        if not session.has_truth:
            self._why.object = message(
                "No scores for this store",
                f"It holds no fine truth of {snapshot.quantity.label.lower()}, so there is nothing to compare "
                "with. The maps work all the same.",
            )
            return
        if table is None or not table.rows:
            self._why.object = message(
                "Scores of this hour",
                "They are being computed."
                if table is None
                else "Tick a downscaler that can run on this store.",
            )
            return
        self._head.object = (
            f"<div class='head'><h2>Scores against the truth</h2><span class='when'>"
            f"{text(table.quantity.label)} · {text(show_hour(table.hour))} · {text(table.window.name)}</span></div>"
        )
        keys = [choice.key for choice in session.choices or () if choice.runs]
        self._colours = {row.key: SERIES[-1] for row in table.rows} | series_colours(keys)
        self._table.object = self._html(table)
        self._update_bars(table)
        self._errors.object = self._make_errors(table)

    def _html(self, table: ScoreTable) -> str:
        units = table.quantity.difference_units
        heads = "".join(
            f"<th scope='col'>{name}{f' <small>[{text(units)}]</small>' if key in WITH_UNITS else ''}</th>"
            for key, name in NAMES.items()
        )
        winners = {metric: best(table.rows, metric) for metric in NAMES}
        rows = "".join(
            f"<tr><td><span class='dot' style='background:{self._colours[row.key]}'></span>{text(row.label)}</td>"
            + "".join(
                f"<td{' class=best' if row.key in winners[metric] else ''}>{_number(row, metric)}</td>"
                for metric in NAMES
            )
            + "</tr>"
            for row in table.rows
        )
        return f"<table><thead><tr><th scope='col'>Downscaler</th>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    def _make_bars(self) -> None:
        """One small bar chart per metric; colours and order are those of the table."""
        for metric in NAMES:
            plot = figure(
                name=f"bars-{metric}",
                y_range=self._rows,
                x_range=DataRange1d(range_padding=0.12),
                height=120,
                sizing_mode="stretch_width",
                min_width=90,
                min_border_left=6,
                min_border_right=10,
                toolbar_location=None,
                tools="",
                title=NAMES[metric],
                outline_line_color=None,
                output_backend="canvas",
            )
            plot.hbar(y="key", left=0, right=metric, height=0.7, color="colour", source=self._source)
            plot.add_layout(Span(location=0, dimension="height", line_color="#888888", line_width=1))
            plot.yaxis.visible = False
            plot.ygrid.visible = False
            plot.xaxis.ticker.desired_num_ticks = 4
            plot.xaxis.ticker.num_minor_ticks = 0
            self._charts[metric] = plot

    def _update_bars(self, table: ScoreTable) -> None:
        units = table.quantity.difference_units
        keys = [row.key for row in table.rows]
        self._rows.factors = keys[::-1]
        self._source.data = {
            "key": keys,
            "colour": [self._colours[key] for key in keys],
            **{metric: [getattr(row, metric) for row in table.rows] for metric in NAMES},
        }
        for metric, plot in self._charts.items():
            plot.title.text = f"{NAMES[metric]} [{units}]" if metric in WITH_UNITS else NAMES[metric]
            plot.height = 66 + 26 * len(keys)

    def _make_errors(self, table: ScoreTable) -> hv.Overlay:
        """How often an error of which size occurs, a curve per downscaler."""
        session, snapshot = self.session, self.session.snapshot
        units = table.quantity.difference_units
        found = [(key, v, truth) for key, v, truth in session.scored_fields() if table.get(key) is not None]
        domain = snapshot.opened.domain
        curves = []
        for key, centres, density in error_distributions(found, table.window, domain):
            axes = ("error", f"forecast − truth [{units}]"), ("density", f"share of cells [% per {units}]")
            curve = hv.Curve((centres, density), *axes)
            curves.append(curve.opts(color=self._colours[key], line_width=2))
        curves.append(hv.VLine(0).opts(color="gray", line_width=1))
        return hv.Overlay(curves).opts(
            title="Distribution of errors",
            responsive=True,
            height=320,
            toolbar=None,
            default_tools=[],
            show_grid=True,
            show_legend=False,
        )

    def _csv(self) -> io.StringIO:
        table: ScoreTable | None = self.session.scores
        if table is None:
            return io.StringIO("no scores\n")
        return io.StringIO(
            to_csv(
                table.rows,
                store=self.session.store,
                hour=str(np.datetime_as_string(table.hour, unit="m")),
                region=table.window.name,
                variable=table.quantity.label,
                units=table.quantity.difference_units,
            )
        )


def _number(row: Score, metric: str) -> str:
    value = getattr(row, metric)
    if not np.isfinite(value):
        return "–"
    sign = "+" if metric == "bias" and value > 0 else ""
    return f"{sign}{value:.{3 if metric in ('r2', 'pearson') else 2}f}".replace("-", "−")
