"""What lies over the maps: the chosen point, which a click sets, and the stations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.events import DoubleTap, Tap
from bokeh.models import ColorMapper, ColumnDataSource, CustomJS, HoverTool
from bokeh.plotting import figure

from core.places import to_lonlat
from explorer.batch import together
from explorer.display import COARSE
from explorer.encoding import LAST, MISSING, Scale
from explorer.points import find_place
from explorer.quantities import FloatField, Quantity
from explorer.session import Session
from explorer.stations import QUANTITY, Sited
from explorer.study import STATION_HEIGHT
from explorer.style import INK, template_text

CLICK = """
// A click waits a moment: it may be the first half of a double click, which fits the window.
clearTimeout(clicked.waiting)
const {x, y} = cb_obj
clicked.waiting = setTimeout(() => {
  const metres = (frame.x_range.end - frame.x_range.start) / Math.max(frame.inner_width, 1)
  let [px, py] = [x, y]
  let least = 9 * metres
  const d = stations.data
  for (let i = 0; i < d.x.length; i++) {
    const far = Math.hypot(d.x[i] - x, d.y[i] - y)
    if (far < least)
      [least, px, py] = [far, d.x[i], d.y[i]]
  }
  clicked.data = {x: [px], y: [py]}
}, 250)
"""
NO_STATIONS: dict[str, list[Any]] = {"x": [], "y": [], "name": [], "detail": [], "observed": []}


@dataclass(frozen=True)
class Shown:
    """What maps show: fields in display units by key, how they are called, and how values are coded."""

    quantity: Quantity
    hour: np.datetime64
    fields: Mapping[str, FloatField]
    labels: Mapping[str, str]
    scale: Scale
    difference: bool


class Marks:
    """The point and the stations over all maps of one view."""

    def __init__(self, session: Session, prefix: str = "") -> None:
        self.session = session
        self.marker = ColumnDataSource(data={"x": [], "y": []}, name=f"{prefix}marker")
        self.clicked = ColumnDataSource(data={"x": [], "y": []}, name=f"{prefix}clicked")
        self.stations = ColumnDataSource(data=dict(NO_STATIONS), name=f"{prefix}stations")
        self._hovers: list[tuple[str, HoverTool]] = []
        self._rims: list[Any] = []
        self._keys: set[str] = set()
        self._shown: Shown | None = None
        self.clicked.on_change("data", lambda attr, old, new: self._on_click())
        session.points.param.watch(lambda *_: self._update_marker(), "place")
        session.points.param.watch(lambda *_: self._update_stations(), "sited")
        session.param.watch(lambda *_: self._update_stations(), "height")
        session.param.watch(lambda *_: self._update_theme(), "theme")
        self._update_marker()

    # ---------------------------------------------------------------- the point

    def draw_on(self, plot: figure, key: str = "", mapper: ColorMapper | None = None) -> None:
        """Put the marker on a map and listen to its clicks; stations as well where the map has colours."""
        if mapper is not None:
            self._draw_stations(plot, key, mapper)
        for width, colour in ((5, "#ffffff"), (2, "#111111")):
            plot.scatter(
                "x", "y", source=self.marker, marker="circle", size=19, fill_color=None, line_color=colour,
                line_width=width,
            )  # fmt: skip
        arguments = {"clicked": self.clicked, "stations": self.stations, "frame": plot}
        plot.js_on_event(Tap, CustomJS(args=arguments, code=CLICK))
        plot.js_on_event(
            DoubleTap, CustomJS(args={"clicked": self.clicked}, code="clearTimeout(clicked.waiting)")
        )

    def _on_click(self) -> None:
        opened, data = self.session.opened, self.clicked.data
        if opened is None or not len(data["x"]):
            return
        longitude, latitude = to_lonlat(opened.domain, float(data["x"][0]), float(data["y"][0]))
        # Four decimals are 10 m, and make a short address.
        point = [round(longitude, 4), round(latitude, 4)]
        with together():
            if find_place(opened, *point) is not None:
                self.session.point = point

    def _update_marker(self) -> None:
        place = self.session.points.place
        with together():
            self.marker.data = {
                "x": [] if place is None else [place.x],
                "y": [] if place is None else [place.y],
            }

    # ---------------------------------------------------------------- stations

    def _draw_stations(self, plot: figure, key: str, mapper: ColorMapper) -> None:
        self._keys.add(key)
        if _fill(key) not in self.stations.data:
            self.stations.add([np.nan] * len(self.stations.data["x"]), _fill(key))
        circles = plot.scatter(
            "x", "y", source=self.stations, size=10, line_width=1.6, line_color=INK[self.session.theme]["cross"],
            fill_color={"field": _fill(key), "transform": mapper}, name=f"stations-{key}",
        )  # fmt: skip
        hover = HoverTool(
            renderers=[circles], tooltips=self._tooltip(key), show_arrow=False, attachment="vertical",
            point_policy="snap_to_data",
        )  # fmt: skip
        plot.add_tools(hover)
        self._hovers.append((key, hover))
        self._rims.append(circles.glyph)

    def show(self, shown: Shown) -> None:
        """Colour the stations as the maps are coloured."""
        self._shown = shown
        self._update_stations()

    def _update_stations(self) -> None:
        session, shown, sited = self.session, self._shown, self.session.points.sited
        with together():
            if shown is None or sited is None or not sited.size or shown.quantity != QUANTITY:
                if len(self.stations.data["x"]):
                    self.stations.data = NO_STATIONS | {_fill(key): [] for key in self._keys}
                return
            corrected = session.height == STATION_HEIGHT and sited.corrects
            self.stations.data = station_columns(shown, sited, self._keys, corrected=corrected)
            for key, hover in self._hovers:
                template = self._tooltip(key)
                if hover.tooltips != template:
                    hover.tooltips = template

    def _tooltip(self, key: str) -> str:
        shown = self._shown
        rows = "" if shown is None else "".join(
            _row(label, _words(name), 600 if name == key else 400) for name, label in shown.labels.items()
            if name in shown.fields
        )  # fmt: skip
        return (
            "<div class='station-hover' style='margin:-5px;padding:7px 11px;font:12.5px/19px Roboto,Arial,"
            "sans-serif;font-variant-numeric:tabular-nums;color:var(--mui-palette-text-primary);"
            "background:var(--mui-palette-background-paper)'><b>@name</b>"
            "<div style='opacity:0.72;margin-bottom:2px'>@detail</div>"
            f"{_row('Observed', 'observed', 600)}{rows}</div>"
        )

    def _update_theme(self) -> None:
        with together():
            for glyph in self._rims:
                glyph.line_color = INK[self.session.theme]["cross"]


def station_columns(shown: Shown, sited: Sited, keys: set[str], *, corrected: bool) -> dict[str, Any]:
    """What the circles and their hover need: places, codes of colours by map, and words.

    A circle has the colour of what was observed; on maps of differences, of the field minus that.
    """
    observed = sited.observed(np.array([shown.hour]))[0]
    heights = [
        f"{station:.0f} m · cell {cell:.0f} m" if np.isfinite(cell) else f"{station:.0f} m"
        for station, cell in zip(sited.elevation, sited.height, strict=True)
    ]
    columns: dict[str, Any] = {
        "x": sited.places.x, "y": sited.places.y, "name": sited.names, "detail": heights,
        "observed": [_temperature(value) if np.isfinite(value) else "not at this hour" for value in observed],
    }  # fmt: skip
    for key in keys | set(shown.fields):
        values = np.full(sited.size, np.nan)
        if key in shown.fields:
            cells = sited.coarse if key == COARSE else sited.fine
            values = shown.fields[key].ravel()[cells].astype(np.float64)
            if corrected:
                values = values + sited.correction(key)
        errors = values - observed
        columns[_fill(key)] = _codes(errors if shown.difference else observed, shown.scale)
        columns[_words(key)] = [
            f"{_temperature(value)}  {_difference(error)}"
            for value, error in zip(values, errors, strict=True)
        ]
    return columns


def _codes(values: np.ndarray, scale: Scale) -> np.ndarray:
    codes = (values - scale.low) / scale.step + 1
    return np.clip(codes, MISSING + 1, LAST)


def _fill(key: str) -> str:
    return f"fill_{key}"


def _words(key: str) -> str:
    return f"words_{key}"


def _temperature(value: float) -> str:
    return f"{value:.1f} {QUANTITY.units}".replace("-", "−") if np.isfinite(value) else "–"


def _difference(value: float) -> str:
    return f"({value:+.1f} {QUANTITY.difference_units})".replace("-", "−") if np.isfinite(value) else ""


def _row(label: str, column: str, weight: int) -> str:
    return (
        f"<div style='display:flex;justify-content:space-between;gap:18px;font-weight:{weight}'>"
        f"<span>{template_text(label)}</span><span>@{{{column}}}</span></div>"
    )
