"""Many hours side by side: small maps of hours and fields, and the hours in which two fields differ most."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui

from core.plural import counted
from explorer.batch import together
from explorer.comparison import COLUMNS, Cards, Cell, Comparison, Multiples
from explorer.hours import MOST
from explorer.session import Session
from explorer.snapshot import show_hour
from explorer.style import DIVERGING, NO_WRAP, block, message, text
from explorer.views.clickable import Clickable
from explorer.views.maps import colour_bar
from explorer.views.swipe import PairControls
from explorer.words import STORY

SELECTION_NAMES = {
    "Every 3 h of this day": "day3",
    "Every 6 h of this day": "day6",
    f"{COLUMNS} over all": "spread",
    "Most different": STORY,
}
SELECTION_HINT = (
    "Hours of the day that is chosen in the sidebar, or hours spread over all that are on offer there, or the "
    "hours in which two fields differ most."
)
NO_CELL = Cell(words="…")


def most_options() -> dict[str, int]:
    """Names of the limits on the number of hours."""
    return {f"{most} hours": most for most in MOST} | {"All hours": 0}


class HoursView(pn.viewable.Viewer):
    """The view; what it shows comes from a :class:`Comparison`."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self.comparison = Comparison(session)
        self._following = False
        self._selection = pmui.RadioButtonGroup(
            label="", options=SELECTION_NAMES, value=session.selection, size="small", margin=(8, 16, 4, 0),
            description=SELECTION_HINT, css_classes=["hours-selection"], sx=NO_WRAP,
        )  # fmt: skip
        self._pair = PairControls(session, inner=False)
        self._most = pmui.Select(
            label="Look at", options=most_options(), value=session.most, size="small", width=120,
            margin=(4, 8, 4, 0),
            description="How many of the hours on offer are looked at, at most: every n-th of them.",
        )  # fmt: skip
        self._button = pmui.Button(
            label="Stop", variant="outlined", size="small", align="center", width=90,
            description="Stop looking; hours that were found stay.",
        )  # fmt: skip
        self._button.on_click(lambda _: self._press())
        self._tools = pn.Row(self._pair, self._most, self._button, margin=0)
        self._head = block(min_width=200)
        self._grid = Clickable(self._go, sizing_mode="stretch_width")
        self._bar = block(width=80, height=300, sizing_mode="fixed", css_classes=["colour-bar"])
        self._why = block()
        self._content = pn.Row(self._grid, self._bar, sizing_mode="stretch_width", margin=(4, 0))
        self._layout = pn.Column(
            pn.FlexBox(
                self._selection, self._tools, align_items="center", gap="4px 0px", sizing_mode="stretch_width",
                margin=0,
            ),
            self._head, self._content, self._why,
            sizing_mode="stretch_both", margin=(0, 10, 6, 18), styles={"overflow-y": "auto", "min-height": "0"},
        )  # fmt: skip
        self._selection.param.watch(lambda event: self._choose("selection", event.new), "value")
        self._most.param.watch(lambda event: self._choose("most", event.new), "value")
        session.param.watch(self._update, ["view", "selection", "most", "hour", "opened", "problem"])
        self.comparison.param.watch(self._update, ["multiples", "cards", "running", "stopped"])
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    # ---------------------------------------------------------------- what a person does

    def _choose(self, name: str, value: Any) -> None:
        if not self._following and value is not None:
            setattr(self.session, name, value)

    def _press(self) -> None:
        if self.comparison.running:
            self.comparison.stop()
        else:
            self.comparison.go_on()

    def _go(self, hour: str) -> None:
        """Show an hour on the maps; a difference that a story tells of is shown as one."""
        session = self.session
        try:
            wanted = np.datetime64(hour, "ns")
        except ValueError:
            return
        there = np.flatnonzero(session.hours == wanted)
        if not there.size:
            return
        left, right = session.pair()
        if session.selection == STORY:
            session.param.update(left=left, right=right, mode="swipe")
        session.go(int(there[0]))
        session.view = "maps"

    # ---------------------------------------------------------------- what is shown

    def _update(self, *_: object) -> None:
        session, comparison = self.session, self.comparison
        if session.view != "hours":
            return  # hidden; drawn when it is looked at
        story = session.selection == STORY
        shown = comparison.cards if story else comparison.multiples
        with together():
            self._following = True
            try:
                self._selection.value = session.selection
                self._most.value = session.most
            finally:
                self._following = False
            self._tools.visible = story
            self._button.visible = comparison.running or comparison.stopped
            self._button.label = "Stop" if comparison.running else "Look on"
            self._content.visible = shown is not None
            self._why.visible = shown is None
            if shown is None:
                self._head.object = ""
                self._why.object = message("Hours side by side", "They are being read.")
            elif story:
                self._show_cards(shown)
            else:
                self._show_multiples(shown)

    def _show_multiples(self, made: Multiples) -> None:
        session = self.session
        names = session.references()
        title = made.quantity.label
        if made.against:
            title += f": difference from {names.get(made.against, made.against)}"
        busy = "" if made.complete or not self.comparison.running else "<span class='busy'>reading…</span>"
        self._head.object = (
            f"<div class='head'><h2>{text(title)}</h2><span class='when'>{counted(made.hours.size, 'hour')} · "
            f"{text(made.window.name)} · press one to see it on the maps</span>{busy}</div>"
        )
        self._grid.content = multiples_html(made, session.current)
        self._bar.object = colour_bar(made.colours, *made.limits, made.units)

    def _show_cards(self, made: Cards) -> None:
        story, units = made.story, made.quantity.difference_units
        which = "all" if made.every == 1 else f"every {ordinal(made.every)} of"
        words = (
            f"{story.looked - story.missing} of {counted(story.total, 'hour')} compared ({which} {made.offered} on "
            "offer)"
        )
        if np.isfinite(story.median):
            words += f" · RMS difference {story.median:.2f} {units} in half of them"
        if story.missing:
            words += f" · {counted(story.missing, 'hour')} without sampled members left out"
        busy = "" if not self.comparison.running else "<span class='busy'>looking…</span>"
        self._head.object = (
            f"<div class='head'><h2>{text(made.left)} and {text(made.right)} differ most</h2>"
            f"<span class='when'>{text(made.quantity.label)} · {text(made.window.name)}</span>{busy}</div>"
            f"<div class='caption' aria-live='polite'>{text(words)}</div>"
        )
        if not made.cards and not self.comparison.running and not self.comparison.stopped:
            self._grid.content = message(
                "No hour to compare",
                "None of these hours has both fields. Members of a generative model count where they were sampled: "
                "look at hours on the maps, or sample them under Scores, over many hours.",
            )
        else:
            self._grid.content = cards_html(made)
        self._bar.object = colour_bar(made.colours, *made.limits, made.quantity.units) if made.cards else ""


def multiples_html(made: Multiples, current: np.datetime64 | None) -> str:
    """A table of small maps: a row per field, a column per hour, each a button."""
    stamps = [hour.astype("datetime64[s]").item() for hour in made.hours]
    one_day = len({stamp.date() for stamp in stamps}) == 1
    heads = "".join(
        f"<th scope='col'{' class=now-hour' if hour == current else ''}>{stamp:%H:%M}"
        f"{'' if one_day else f'<small>{stamp:%-d %b %Y}</small>'}</th>"
        for hour, stamp in zip(made.hours, stamps, strict=True)
    )
    body = []
    for key, label in made.rows:
        cells = []
        for hour in made.hours:
            cell = made.cells.get((key, hour), NO_CELL)
            inside = (
                f"<img src='{cell.picture}' alt=''>"
                if cell.picture
                else f"<span class='blank' title='{text(cell.words)}'>{text(cell.words)}</span>"
            )
            title = text(f"{label}, {show_hour(hour)}")
            cells.append(
                f"<td><button data-pick='{_iso(hour)}' title='{title}' aria-label='{title}'>{inside}</button></td>"
            )
        body.append(f"<tr><th scope='row'>{text(label)}</th>{''.join(cells)}</tr>")
    day = f"{stamps[0]:%a %-d %b %Y} (UTC)" if one_day and stamps else "UTC"
    return (
        f"<table class='multiples'><thead><tr><th class='day'>{day}</th>{heads}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def cards_html(made: Cards) -> str:
    """The hours of a story, each a button with both fields and their difference."""
    units = made.quantity.difference_units
    widest = f"±{made.spread[1]:g} {units}"
    items = []
    for number, card in enumerate(made.cards, 1):
        pictures = "".join(
            f"<figure><img src='{picture}' alt=''><figcaption>{text(name)}</figcaption></figure>"
            for name, picture in (
                (made.left, card.left),
                (made.right, card.right),
                (f"difference {widest}", card.between),
            )
        )
        when = show_hour(card.hour)
        title = text(f"Show {when} on the maps")
        items.append(
            f"<button class='story-card' data-pick='{_iso(card.hour)}' title='{title}' aria-label='{title}'>"
            f"<span class='line'><b>{number}</b><span>{text(when)}</span>"
            f"<span class='number'>{card.difference:.2f} {text(units)}</span></span>"
            f"<span class='pictures'>{pictures}</span></button>"
        )
    colours = [DIVERGING[round(i * (len(DIVERGING) - 1) / 16)] for i in range(17)]
    legend = (
        f"<div class='caption story-legend'>Difference: {text(made.left)} minus {text(made.right)}, "
        f"−{made.spread[1]:g} <span class='strip' style='background:linear-gradient(to right,{','.join(colours)})'>"
        f"</span> +{made.spread[1]:g} {text(units)}. The number is the root mean square over the region; hours shown "
        "are at least a day apart.</div>"
        if items
        else ""
    )
    return f"<div class='story'>{''.join(items)}</div>{legend}"


def ordinal(number: int) -> str:
    """``5th``."""
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if 10 <= number % 100 <= 20 else ends.get(number % 10, 'th')}"


def _iso(hour: np.datetime64) -> str:
    return str(np.datetime_as_string(hour, unit="m"))
