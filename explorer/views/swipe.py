"""Two fields in one map with a divider between them that can be dragged, in the browser alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, CustomJS, Span
from bokeh.plotting import figure

from explorer.session import Session
from explorer.style import text
from explorer.words import SWIPE

COMPOSE = """
// The columns left of the divider are those of one field, the others those of the other one. The divider itself may
// be anywhere; the line that is seen lies on the edge of a cell, since a cell belongs to one of them.
const d = fields.data, s = swiped.data
const [a, b] = pair.data.keys.map(key => (d[key] ?? [null])[0])
if (a == null || b == null) return
const rows = Math.max(a.shape[0], b.shape[0]), columns = Math.max(a.shape[1], b.shape[1])
const share = (divider.location - d.left[0]) / d.width[0]
const cut = Math.min(Math.max(Math.round(share * columns), 0), columns)
edge.location = d.left[0] + cut / columns * d.width[0]
const of = [a, b]
const sources = [0, 1].map(n => Int32Array.from({length: columns}, (_, j) => Math.floor(j * of[n].shape[1] / columns)))
const image = new a.constructor(rows * columns, [rows, columns])
image.shape = [rows, columns]
for (let i = 0; i < rows; i++)
  for (let n = 0; n < 2; n++) {
    const field = of[n], source = sources[n]
    const start = Math.floor(i * field.shape[0] / rows) * field.shape[1], to = i * columns
    const end = n == 0 ? cut : columns
    for (let j = n == 0 ? 0 : cut; j < end; j++)
      image[to + j] = field[start + source[j]]
  }
for (const name of ["left", "top", "width", "height"]) s[name] = d[name]
s[SWIPE] = [image]
swiped.change.emit()
""".replace("SWIPE", repr(SWIPE))


class Swipe:
    """The source and the divider of the map of two fields; ``fields`` is the source of the maps."""

    def __init__(self, fields: ColumnDataSource) -> None:
        empty = {name: [0.0] for name in ("left", "top", "width", "height")}
        self.source = ColumnDataSource(
            data=empty | {SWIPE: [np.zeros((1, 1), np.uint16)]}, name="swiped", syncable=False
        )
        self.pair = ColumnDataSource(data={"keys": ["", ""]}, name="swipe-pair")
        self.divider = Span(
            dimension="height", location=0, line_width=11, line_alpha=0.22, editable=True, syncable=False,
            name="divider", level="overlay",
        )  # fmt: skip
        self.edge = Span(
            dimension="height", location=0, line_width=2, name="divider-edge", level="overlay", syncable=False
        )
        arguments = {
            "fields": fields, "swiped": self.source, "pair": self.pair, "divider": self.divider,
            "edge": self.edge,
        }  # fmt: skip
        self._compose = compose = CustomJS(args=arguments, code=COMPOSE)
        fields.js_on_change("data", compose)
        fields.js_on_change("patching", compose)
        self.pair.js_on_change("data", compose)
        self.divider.js_on_change("location", compose)

    def draw(self, plot: figure) -> None:
        """Put the divider on a map, and both fields when the map first gets its size."""
        plot.js_on_change("inner_width", self._compose)
        plot.add_layout(self.divider)
        plot.add_layout(self.edge)

    def colour(self, colour: str) -> None:
        """Draw the divider in this colour."""
        self.divider.line_color = self.edge.line_color = colour

    def show(self, left: str, right: str) -> None:
        """Compare these two fields."""
        if list(self.pair.data["keys"]) != [left, right]:
            self.pair.data = {"keys": [left, right]}

    def centre(self, location: float) -> None:
        """Put the divider here [m]."""
        self.divider.location = location


def swipe_head(left: tuple[str, str], right: tuple[str, str]) -> str:
    """HTML of the title of the map: name and statistics of what is left and what is right of the divider."""
    return (
        "<div class='swipe-head'>"
        f"<div><span class='name'>◂ {text(left[0])}</span><span class='panel-stats'>{text(left[1])}</span></div>"
        "<span class='detail'>drag the line between them</span>"
        f"<div><span class='name'>{text(right[0])} ▸</span><span class='panel-stats'>{text(right[1])}</span></div>"
        "</div>"
    )


class PairControls(pn.viewable.Viewer):
    """Choice of two fields to compare."""

    def __init__(self, session: Session, *, inner: bool = True, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._following = False
        margin = ((4, 4, 4, 16), (4, 16, 4, 4)) if inner else ((4, 8, 4, 0), (4, 8, 4, 0))
        size: dict[str, Any] = {"sizing_mode": "stretch_width", "min_width": 60} if inner else {"width": 210}
        self.left = pmui.Select(
            label="Left" if inner else "Compare", size="small", margin=margin[0], **size,
            description="The first of the two fields that are compared.",
        )  # fmt: skip
        self.right = pmui.Select(
            label="Right" if inner else "with", size="small", margin=margin[1], **size,
            description="The second of the two fields that are compared.",
        )  # fmt: skip
        self._layout = pn.Row(
            self.left, self.right, margin=0, **({"sizing_mode": "stretch_width"} if inner else {})
        )
        for name in ("left", "right"):
            getattr(self, name).param.watch(lambda event, name=name: self._choose(name, event.new), "value")
        session.param.watch(self._follow, ["left", "right", "choices", "models", "opened", "variable"])
        self._follow()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def _follow(self, *_: object) -> None:
        session = self.session
        if session.opened is None:
            return
        following, self._following = self._following, True
        try:
            options = {label: key for key, label in session.references().items()}
            for widget, key in zip((self.left, self.right), session.pair(), strict=True):
                widget.param.update(options=options, value=key)
        finally:
            self._following = following

    def _choose(self, name: str, key: str | None) -> None:
        if self._following or key is None:
            return
        left, right = self.session.pair()
        chosen = {"left": left, "right": right} | {name: key}
        if chosen["left"] == chosen["right"]:  # who takes the other's field gives it its own
            chosen = {"left": right, "right": left}
        self.session.param.update(**chosen)
