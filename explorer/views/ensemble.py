"""The ensemble of one hour: mean, spread, members, and how well the spread tells the error."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, LinearColorMapper, Span
from bokeh.plotting import figure

from core.domain import Domain
from explorer.batch import together
from explorer.encoding import Scale, robust_range
from explorer.ensembles import Ensemble, EnsembleScore
from explorer.library import OpenStore
from explorer.quantities import FloatField
from explorer.session import Session
from explorer.snapshot import show_hour
from explorer.style import DIVERGING, PALETTES, SERIES, block, message, text
from explorer.views.maps import NOTHING, Maps, colour_bar, empty_columns
from explorer.views.marks import Shown
from explorer.views.sampling import describe

MEAN, SPREAD = "mean", "spread"
MOST_MAPS = 6
"""Members that have a map; the others count in mean, spread and scores."""
SPREAD_PALETTE = "magma"
SIDE = 270


def _member(number: int) -> str:
    return f"member-{number}"


class EnsembleMaps(Maps):
    """Maps of the mean, of the spread with a scale of its own, and of the first members."""

    prefix = "ensemble-"
    follows = ("ensemble", "palette", "limits", "mode", "region")

    def __init__(self, session: Session, **params: Any) -> None:
        self._spread_mapper = LinearColorMapper(
            palette=list(PALETTES[SPREAD_PALETTE]), low=0.5, high=65535.5, low_color="rgba(0, 0, 0, 0)"
        )
        self._spread_bar = block(width=74, sizing_mode="stretch_height", css_classes=["colour-bar"])
        super().__init__(session, **params)
        self._layout[1].append(self._spread_bar)

    def _follow(self) -> None:
        """Nothing changes less than all maps."""

    def _mapper_of(self, key: str) -> LinearColorMapper:
        return self._spread_mapper if key == SPREAD else self.mapper

    def _update(self, *events: Any) -> None:
        ensemble: Ensemble | None = self.session.ensemble
        if ensemble is None or self.session.opened is None:
            return
        with together():
            if any(event.name == "region" for event in events):
                self._update_window()
            if self.session.opened is not self._opened:
                self._use(self.session.opened)
            titles = {MEAN: "Mean", SPREAD: "Spread"}
            shown = list(ensemble.fields)[:MOST_MAPS]
            titles |= {_member(number): f"Member {number}" for number in shown}
            self._paint(ensemble, self.session.opened)
            self._place_maps(tuple(titles.items()), tuple(titles))
            self._name(ensemble, titles)

    def _paint(self, ensemble: Ensemble, opened: OpenStore) -> None:
        session, quantity, domain = self.session, ensemble.quantity, opened.domain
        members = {_member(n): f for n, f in list(ensemble.fields.items())[:MOST_MAPS]}
        fields = {MEAN: ensemble.mean, **members}
        left, right, bottom, top = domain.fine.extent
        columns = empty_columns()
        columns |= {"left": [left], "right": [right], "bottom": [bottom], "top": [top]}
        columns |= {"width": [right - left], "height": [top - bottom]}
        columns |= {"units": [quantity.units], "decimals": [quantity.decimals + 1]}
        low, high = session.limits if session.limits and session.mode == "fields" else robust_range(
            self._seen(fields.values(), domain), signed=quantity.signed, floor=quantity.floor
        )  # fmt: skip
        least, most = robust_range(self._seen([ensemble.spread], domain), signed=False, floor=0.0)
        scale = Scale.around(low, high, fields.values())
        own = Scale.around(least, most, [ensemble.spread])
        columns |= {"low": [scale.low], "step": [scale.step]}
        columns |= {key: [scale.encode(values)] for key, values in fields.items()}
        columns |= {
            SPREAD: [own.encode(ensemble.spread)],
            f"low_{SPREAD}": [own.low],
            f"step_{SPREAD}": [own.step],
            f"units_{SPREAD}": [quantity.difference_units],
        }
        for key in self._figures:
            columns.setdefault(key, [NOTHING])  # maps that are hidden; an image needs its column
        name = session.palette if session.palette in PALETTES else quantity.palette
        colours = DIVERGING if quantity.signed else PALETTES[name]
        self.mapper.palette = scale.palette(colours, low, high)
        self._bar.object = colour_bar(colours, low, high, quantity.units)
        self._spread_mapper.palette = own.palette(PALETTES[SPREAD_PALETTE], least, most)
        self._spread_bar.object = colour_bar(
            PALETTES[SPREAD_PALETTE], least, most, f"spread {quantity.difference_units}"
        )
        self.source.data = columns
        titles = {key: "Mean" if key == MEAN else f"Member {key.split('-')[1]}" for key in fields}
        self.marks.show(Shown(quantity, ensemble.hour, fields, titles, scale, difference=False))

    def _seen(self, fields: Any, domain: Domain) -> list[FloatField]:
        window = self.session.window
        return [field if window is None else field[window.slices(domain.fine)] for field in fields]

    def _name(self, ensemble: Ensemble, titles: dict[str, str]) -> None:
        hidden = ensemble.size - min(ensemble.size, MOST_MAPS)
        more = f" · maps of the first {MOST_MAPS}" if hidden else ""
        self._head.object = (
            f"<div class='head'><h2>{text(ensemble.label)}: {ensemble.size} members</h2><span class='when'>"
            f"{text(ensemble.quantity.label)} · {text(show_hour(ensemble.hour))}{more}</span></div>"
        )
        details = {MEAN: f"of {ensemble.size} members", SPREAD: "standard deviation"}
        for key, title in titles.items():
            self._heads[key].object = (
                f"<div class='panel-head'><span class='name'>{title}</span>"
                f"<span class='detail'>{details.get(key, '')}</span></div>"
            )


class EnsembleView(pn.viewable.Viewer):
    """Maps, scores and rank histogram of a session's ensemble, or what to do to get one."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._maps = EnsembleMaps(session)
        self._scores = block()
        self._ranks = ColumnDataSource(data={"rank": [], "share": []}, name="ensemble-ranks")
        self._even = Span(location=0, dimension="width", line_color="#888888", line_dash="dashed")
        self._histogram = self._make_histogram()
        self._histogram_pane = pn.pane.Bokeh(
            self._histogram, sizing_mode="stretch_width", margin=(8, 0, 0, 0)
        )
        self._note = block(margin=(6, 0))
        self._side = pn.Column(
            self._scores, self._histogram_pane, self._note,
            width=SIDE, sizing_mode="stretch_height", margin=(12, 18, 6, 4), styles={"overflow-y": "auto"},
        )  # fmt: skip
        self._content = pn.Row(
            self._maps, self._side, sizing_mode="stretch_both", margin=0, styles={"min-height": "0"}
        )
        self._why = block()
        self._button = pmui.Button(label="Sample", variant="contained", size="small", align="center")
        self._button.on_click(lambda _: session.sample())
        self._empty = pn.Column(self._why, self._button, sizing_mode="stretch_width", margin=0)
        self._layout = pn.Column(
            self._content, self._empty, sizing_mode="stretch_both", margin=0, styles={"min-height": "0"}
        )
        session.param.watch(
            self._update,
            ["ensemble", "progress", "view", "models", "choices", "members", "generator", "snapshot"],
        )
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def _update(self, *_: object) -> None:
        session = self.session
        if session.view != "ensemble":
            return  # hidden; drawn when it is looked at
        ensemble: Ensemble | None = session.ensemble
        with together():
            self._content.visible = ensemble is not None
            self._empty.visible = ensemble is None
            if ensemble is None:
                title, sentence, offer = why_none(session)
                self._why.object = message(title, sentence)
                self._button.visible = offer
                self._button.label = f"Sample {session.members} members"
                return
            self._update_side(ensemble)

    def _update_side(self, ensemble: Ensemble) -> None:
        session = self.session
        self._histogram_pane.visible = ensemble.ranks is not None
        notes = []
        if ensemble.ranks is None:
            self._scores.object = ""
            notes.append(
                "This store holds no fine truth of the variable, so there is nothing to score against. Mean and "
                "spread need none."
            )
        else:
            self._scores.object = _table(ensemble)
            self._ranks.data = {"rank": np.arange(ensemble.size + 1), "share": 100 * ensemble.ranks}
            self._even.location = 100 / (ensemble.size + 1)
            self._histogram.xaxis.ticker = list(range(0, ensemble.size + 1, 1 if ensemble.size < 9 else 4))
            notes.append(
                "Rank of the truth among the members, over the points of the region. Flat (dashed) where the truth "
                "could be one of them; high at both ends where they are too alike."
            )
            size = ensemble.size
            notes.append(
                "The spread-skill ratio is the spread over the RMSE of the mean times "
                f"√({size + 1}/{size}), which corrects for the number of members; 1 is right."
            )
        if session.progress is not None and session.progress.active:
            notes.insert(0, describe(session))
        self._note.object = (
            "<div class='notes'>" + "".join(f"<p>{text(note)}</p>" for note in notes) + "</div>"
        )

    def _make_histogram(self) -> figure:
        plot = figure(
            name="ensemble-histogram",
            title="Rank histogram",
            height=210,
            sizing_mode="stretch_width",
            toolbar_location=None,
            tools="hover",
            tooltips=[("rank", "@rank"), ("share of points", "@share{0.0} %")],
            x_axis_label="members below the truth",
            y_axis_label="share of points [%]",
            outline_line_color=None,
            output_backend="canvas",
        )
        plot.vbar(x="rank", top="share", width=0.86, source=self._ranks, color=SERIES[0])
        plot.add_layout(self._even)
        plot.y_range.start = 0
        plot.xgrid.visible = False
        plot.xaxis.minor_tick_line_color = None
        return plot


def _table(ensemble: Ensemble) -> str:
    rows = "".join(
        f"<tr><td title='{text(score.formula)}'>{text(score.title)}</td><td>{_number(score)}</td></tr>"
        for score in ensemble.scores
    )
    return (
        f"<table class='compact'><caption>{ensemble.size} members against the truth · "
        f"{text(ensemble.window.name)}</caption><tbody>{rows}</tbody></table>"
    )


def _number(score: EnsembleScore) -> str:
    if not np.isfinite(score.value):
        return "–"
    return f"{score.value:.2f} {text(score.units)}".strip().replace("-", "−")


def why_none(session: Session) -> tuple[str, str, bool]:
    """Why there is no ensemble to show: a title, what to do, and whether sampling can be offered here."""
    able = [choice.label for choice in session.choices or () if choice.runs and choice.generative]
    progress = session.progress
    if session.choices is None:
        return "Ensemble", "Looking for generative models.", False
    if not able:
        return (
            "No generative model",
            "Only a generative model makes several members, and none of the checkpoints here can run on this store "
            "for this variable. Put a latent diffusion model into the folder of checkpoints; it appears in the "
            "sidebar by itself.",
            False,
        )
    if not session.generators:
        return (
            "No generative model is ticked",
            f"Tick one under Downscalers in the sidebar: {', '.join(able)}.",
            False,
        )
    if session.members < 2:
        return (
            "One member is no ensemble",
            "Set Members to two or more under Sampling in the sidebar, and press Sample.",
            False,
        )
    ready = len(session.ready_members())
    if progress is not None and progress.active and progress.fields > 1:
        return "Sampling", f"{describe(session)}. Mean and spread appear with the second member.", False
    if ready >= 2:
        return "Ensemble", "Mean, spread and scores are being computed.", False
    verb = "is" if ready == 1 else "are"
    return (
        "No ensemble of this hour yet",
        f"{ready or 'None'} of {session.members} members {verb} there. Sample the others to see mean, spread and "
        "scores.",
        True,
    )
