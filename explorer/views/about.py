"""What the data is, where it comes from, what is missing, and which downscalers can run."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn

from core.variables import VARIABLES
from explorer.session import Session
from explorer.snapshot import show_hour
from explorer.style import block, text

SHOWN_ATTRIBUTES = ("institution", "references", "licence", "license", "history")


class About(pn.viewable.Viewer):
    """Provenance of the store and state of the downscalers."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._pane = block(css_classes=["about-page"])
        self._layout = pn.Column(
            self._pane, sizing_mode="stretch_both", margin=(14, 24, 0, 18), styles={"overflow-y": "auto"}
        )
        session.param.watch(self._update, ["opened", "choices", "hours", "view"])
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def _update(self, *_: object) -> None:
        session = self.session
        if session.view != "about" or session.opened is None:
            return
        cards = [self._data(), self._downscalers(), self._domain(), self._contents(), _program()]
        if session.opened.synthetic:
            cards.insert(0, _synthetic())
        self._pane.object = f"<div class='about'>{''.join(cards)}</div>"

    def _data(self) -> str:
        opened = self.session.opened
        attrs = opened.store.attrs
        rows = [("Title", attrs.get("title", "–")), ("Source", attrs.get("source", "–"))]
        rows += [(name.capitalize(), attrs[name]) for name in SHOWN_ATTRIBUTES if attrs.get(name)]
        rows += [("Kind", "synthetic" if opened.synthetic else "not synthetic")]
        rows += [("Fingerprint", attrs.get("fingerprint", "–")), ("Path", opened.path)]
        return _card("Data", _list(rows))

    def _contents(self) -> str:
        store = self.session.opened.store
        contents = store.contents
        items = []
        if contents.first is not None and contents.last is not None:
            first, last = (
                show_hour(np.datetime64(t, "ns"), weekday=False) for t in (contents.first, contents.last)
            )
            items.append(f"{contents.hours} hours, {first} to {last} UTC")
        else:
            items.append("No hour is complete yet")
        if contents.pending:
            items.append(f"{contents.pending} more hours are planned and not written yet")
        items.append(f"Coarse input: {_names(contents.predictors)}")
        items.append(
            f"Fine truth: {_names(contents.targets)}"
            if contents.targets
            else "No fine truth: no scores, and no differences against the truth"
        )
        items.append(f"Static fields: {_names(contents.statics)}" if contents.statics else "No static fields")
        if contents.missing_predictors:
            items.append(f"Missing predictors: {_names(contents.missing_predictors)}")
        if not contents.coarse_orography:
            items.append("Missing: orography of the coarse model")
        if contents.unknown:
            items.append(f"Unknown variables, ignored: {', '.join(contents.unknown)}")
        return _card("What is in it", "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>")

    def _downscalers(self) -> str:
        choices = self.session.choices
        if choices is None:
            return _card("Downscalers", "<p>They are being looked for.</p>")
        rows = "".join(
            f"<li>{text(choice.label)}</li>"
            if choice.runs
            else f"<li class='no'>{text(choice.label)}: {text(choice.reason)}</li>"
            for choice in choices
        )
        folders = " and ".join(map(str, self.session.library.settings.checkpoint_folders))
        return _card(
            "Downscalers", f"<ul>{rows}</ul><p class='no'>Checkpoints are looked for in {text(folders)}.</p>"
        )

    def _domain(self) -> str:
        domain = self.session.opened.domain
        (height, width), (h, w) = domain.fine.shape, domain.coarse.shape
        return _card(
            "Domain",
            _list(
                [
                    ("Name", domain.name),
                    ("Fine grid", f"{width} × {height} cells of {domain.fine.dx / 1000:g} km"),
                    ("Coarse grid", f"{w} × {h} cells of {domain.coarse.dx / 1000:g} km"),
                    ("Projection", domain.crs),
                ]
            ),
        )


def _synthetic() -> str:
    return (
        "<div class='card warn wide'><h3>Synthetic weather</h3><p>The hours of this store were made by a small "
        "numerical model over the real map. They are a demonstration and a test bed: no measurement, "
        "no analysis, no forecast. Scores on them say how well a downscaler reproduces this model.</p></div>"
    )


def _program() -> str:
    return _card(
        "Tramontana",
        "<p>Downscales near-surface weather and lets a person see, compare and question the result. "
        "Temperatures are shown in °C and computed in K; times are UTC; bias is forecast minus truth.</p>"
        "<p class='no'>Coastlines, borders and lakes: Natural Earth (public domain).</p>",
    )


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(VARIABLES[name].long_name for name in names) or "none"


def _card(title: str, content: str) -> str:
    return f"<div class='card'><h3>{text(title)}</h3>{content}</div>"


def _list(rows: list[tuple[str, object]]) -> str:
    return "<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in rows) + "</dl>"
