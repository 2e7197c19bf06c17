"""Stations: loading observations, and how far every field is from them."""

from __future__ import annotations

import io
from typing import Any

import panel as pn
import panel_material_ui as pmui

from core.plural import are, counted
from explorer.batch import together
from explorer.session import Session
from explorer.snapshot import show_hour
from explorer.stations import QUANTITY, Sited, StationScore, StationTable, to_csv
from explorer.study import STATION_HEIGHT
from explorer.style import block, text
from explorer.views.pieces import PIECE, Content, Pieces

LARGEST = 20_000_000
"""Bytes of a file that a visitor may send; larger ones are named at the start."""
MOST_ROWS = 100
"""Stations listed one by one; the file to download holds all."""


class StationSection(pn.viewable.Viewer):
    """The lower part of the Point view."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self.study = session.points
        self._following = False
        self._content = Content(LARGEST)
        self.upload = Pieces(
            self._arrive, self._finish, self._refuse,
            label="Load stations", uploaded_label="Load others", accept=".csv,text/csv", max_file_size=LARGEST,
            chunk_size=PIECE, variant="outlined", size="small", margin=(4, 10, 4, 0), width=170,
            description="Load stations: a CSV file with the columns time (UTC), lon, lat, elevation [m] and t2m [K] or "
            "t2m_celsius [°C]; station and name are optional. At most 20 MB. Only this page sees it.",
        )  # fmt: skip
        self.height = pmui.Checkbox(
            label="Bring cells to the station's height", size="small", margin=(4, 10),
            description="Bring cells to the station's height: add 6.5 K for every kilometre that a cell lies above the "
            "station before comparing.",
        )  # fmt: skip
        self.remove = pmui.Button(
            label="Remove stations", variant="text", size="small", margin=(4, 4),
            description="Remove stations: show none on the maps and here.",
        )  # fmt: skip
        self.download = pmui.FileDownload(
            callback=self._csv, filename="stations.csv", label="Download CSV", variant="outlined", size="small",
            margin=(4, 10, 4, 0),
        )  # fmt: skip
        self._says = block(margin=(2, 0, 4, 0), css_classes=["station-file"])
        self._summary = block(margin=(6, 0, 0, 0), css_classes=["station-errors"], max_width=1000)
        self._each = block(margin=(8, 0, 24, 0), css_classes=["station-list"], max_width=1200)
        self._layout = pn.Column(
            block("<div class='section'>Stations</div>", margin=(16, 0, 2, 0)),
            self._says,
            pn.Row(self.upload, self.download, self.height, self.remove, sizing_mode="stretch_width", margin=0),
            self._summary, self._each,
            sizing_mode="stretch_width", margin=0, stylesheets=[".scroll-button { display: none !important; }"],
        )  # fmt: skip
        self.height.param.watch(lambda event: self._choose_height(event.new), "value")
        self.remove.on_click(lambda _: self.study.forget_stations())
        self.study.param.watch(self._update, ["sited", "errors", "reading"])
        session.param.watch(self._update, ["view", "variable", "height"])
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def _arrive(self, name: str, number: object, piece: bytes) -> None:
        if not self.study.reading:  # one file at a time, or any number of them would wait in memory
            self._refuse(self._content.add(name, number, piece))

    def _finish(self) -> None:
        content = self._content.take()
        if content and not self.study.reading:
            self.session.error = ""  # what was said of the file before is over
            self.study.load(content, self._content.name or "the file")

    def _refuse(self, words: str) -> None:
        if words:
            self.session.error = words

    def _choose_height(self, corrected: bool) -> None:
        if not self._following:
            self.session.height = STATION_HEIGHT if corrected else "cell"

    def _update(self, *_: object) -> None:
        session, study = self.session, self.study
        if session.view != "point":
            return
        sited: Sited | None = study.sited
        table: StationTable | None = study.errors
        with together():
            there = sited is not None
            self.upload.disabled = study.reading
            self.remove.visible = there
            self.height.visible = self.download.visible = there and sited.size > 0
            self._following = True
            self.height.param.update(
                value=session.height == STATION_HEIGHT, disabled=there and not sited.corrects
            )
            self._following = False
            compared = table is not None and session.quantity == QUANTITY
            self.download.disabled = not compared
            self._says.object = _file_words(session, sited)
            self._summary.object = _summary(table, study.near) if compared else ""
            self._each.object = _each(table) if compared else ""

    def _csv(self) -> io.StringIO:
        table, series = self.study.errors, self.study.series
        if table is None or series is None or not series.hours.size:
            return io.StringIO("no scores\n")
        first, last = (show_hour(hour, weekday=False) for hour in (series.hours[0], series.hours[-1]))
        return io.StringIO(to_csv(table, store=self.session.store, hours=f"{first} to {last} UTC"))


def _file_words(session: Session, sited: Sited | None) -> str:
    if session.points.reading:
        return "<div class='caption'>The file is being read.</div>"
    if sited is None:
        return (
            "<div class='caption'>Compare with what stations observed: load a CSV file with the columns time (UTC), "
            "lon, lat, elevation [m] and t2m [K] or t2m_celsius [°C]; station and name are optional.</div>"
        )
    stations = sited.stations
    words = [
        f"{stations.source}: {counted(sited.size, 'station')} on this domain, "
        f"{counted(int(stations.counts[sited.kept].sum()), 'observation')}."
    ]
    if sited.outside:
        words.append(f"{counted(sited.outside, 'station')} outside {are(sited.outside)} left out.")
    words += stations.remarks
    if sited.size and not sited.corrects:
        words.append(
            "This store has no heights of its cells, so nothing can be brought to the stations' height."
        )
    if session.quantity != QUANTITY:
        words.append("Stations observe the 2-metre temperature; choose it under Variable to compare.")
    return f"<div class='caption'>{text(' '.join(words))}</div>"


def _summary(table: StationTable, near: tuple[int, float] | None) -> str:
    """Errors at all stations together, and at the one beside the point."""
    name = table.sited.names[near[0]] if near is not None else ""
    groups = ["<th></th>", "<th colspan=3 scope='colgroup'>All stations, hours of the series</th>",
              "<th colspan=3 scope='colgroup'>All stations, all hours computed so far</th>"]  # fmt: skip
    names = ["Bias <small>[K]</small>", "RMSE <small>[K]</small>", "Pairs"]
    heads = names * 2
    if near is not None:
        groups.append(f"<th colspan=2 scope='colgroup'>{text(name)}, hours of the series</th>")
        heads += names[:2]
    body = ""
    for key, label in table.labels.items():
        cells = [*_cells(table.get(key)), *_cells(table.get(key, everything=True))]
        if near is not None:
            cells += _cells(table.get(key, near[0]))[:2]
        body += f"<tr><td>{text(label)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    how = "cells brought to the stations' height with 6.5 K/km" if table.corrected else "cells as they are"
    return (
        f"<table class='compact'><caption>Field minus observed 2-metre temperature; {how}. Fields are compared in the "
        "cell that holds the station.</caption>"
        f"<thead><tr class='groups'>{''.join(groups)}</tr><tr><th>Field</th>"
        f"{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cells(score: StationScore | None) -> list[str]:
    if score is None or not score.pairs:
        return ["–", "–", "–"]
    return [_signed(score.bias), f"{score.rmse:.2f}", str(score.pairs)]


def _each(table: StationTable) -> str:
    """RMSE and bias of every field at every station."""
    sited = table.sited
    heads = "".join(f"<th scope='col'>{text(label)}</th>" for label in table.labels.values())
    by_place = {(row.key, row.station): row for row in table.shown}
    body = ""
    for number, name in list(enumerate(sited.names))[:MOST_ROWS]:
        scores = [by_place.get((key, number)) for key in table.labels]
        cells = "".join(
            f"<td>{score.rmse:.2f} <small>({_signed(score.bias)})</small></td>"
            if score is not None
            else "<td>–</td>"
            for score in scores
        )
        height = f"{sited.elevation[number]:.0f} m"
        body += f"<tr><td>{text(name)}</td><td>{height}</td>{cells}</tr>"
    more = sited.size - min(sited.size, MOST_ROWS)
    note = f" The first {MOST_ROWS}; the file to download holds all." if more else ""
    return (
        "<table class='compact'><caption>RMSE and, in brackets, bias [K] at each station over the hours of the series."
        f"{note}</caption><thead><tr><th scope='col'>Station</th><th scope='col'>Elevation</th>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
