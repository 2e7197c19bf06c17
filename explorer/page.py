"""The page of one visitor, put together from a session and its views."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import panel as pn
import panel_material_ui as pmui
from panel.io.resources import LOCAL_DIST
from panel.util import edit_readonly

from explorer.address import connect, from_query
from explorer.batch import Delivery, adding, together
from explorer.library import Library
from explorer.player import After, Player
from explorer.session import Session
from explorer.settings import SettingsError, parse
from explorer.style import HEADER, LOGO, THEME_CONFIG, block, message, text
from explorer.views.about import About
from explorer.views.ensemble import EnsembleView
from explorer.views.export import ExportDialog
from explorer.views.flux import FluxView
from explorer.views.keys import Keys
from explorer.views.maps import Maps
from explorer.views.point import PointView
from explorer.views.sidebar import WIDTH, Sidebar
from explorer.views.spectra import SpectraView
from explorer.views.window import come_back, follow_steps

log = logging.getLogger(__name__)

TITLE = "Tramontana"
SWITCH = {
    "& .MuiToggleButton-root, & .MuiButton-root": {
        "color": "rgba(255, 255, 255, 0.8) !important",
        "borderColor": "rgba(255, 255, 255, 0.3) !important",
        "backgroundColor": "transparent !important",
        "padding": "4px 16px !important",
        "fontSize": "14px",
        "@media (max-width: 1200px)": {"padding": "4px 7px !important", "fontSize": "13px"},
    },
    "& .Mui-selected, & .MuiButton-contained": {
        "color": "#fff !important",
        "backgroundColor": "rgba(255, 255, 255, 0.2) !important",
    },
}
"""Looks of the view switch on the dark header."""
MAPS_TIME = 1.0
"""Seconds that a browser takes to put up the maps; what is added sooner would keep them waiting."""
LOOK_EVERY = 4000
"""Milliseconds between looks at the disk for new hours."""


@cache
def library(arguments: tuple[str, ...]) -> Library:
    """The library of this process; made before the first visitor comes, or by that visitor."""
    made = Library(parse(arguments, os.environ))
    made.prepare()
    return made


class Explorer:
    """Header, sidebar and views of one visitor; the views and the rest of the sidebar once :meth:`complete` is called.

    A browser takes seconds to put up a page with all controls and maps, and shows nothing before. So it gets the
    header and the first controls at once, and the rest when it has those.
    """

    def __init__(self, session: Session, after: After) -> None:
        self.session = session
        self._after = after
        self._complete = False
        self.player = Player(session, after)
        self.export = ExportDialog(session)
        self.sidebar = Sidebar(session, self.player)
        self._views: dict[str, pn.viewable.Viewer] = {}
        self._problem = block(sizing_mode="stretch_both", css_classes=["problem"])
        self._error = _alert("error")
        self._note = _alert("info")
        self._body = pn.Column(
            block("<div class='caption'>Drawing…</div>", margin=(14, 14)),
            sizing_mode="stretch_both", margin=0, styles={"min-height": "0"},
        )  # fmt: skip
        self._badge = block(sizing_mode="fixed", width=104, height=22, margin=(0, 12), align="center")
        self._switch = pmui.RadioButtonGroup(
            label="",
            options={
                "Maps": "maps",
                "Spectra": "spectra",
                "Flux": "flux",
                "Scores": "scores",
                "Hours": "hours",
                "Ensemble": "ensemble",
                "Point": "point",
                "About": "about",
            },
            value=session.view,
            size="small",
            margin=(0, 12),
            sx=SWITCH,
            align="center",
            css_classes=["view-switch"],
        )
        self._switch.param.watch(lambda event: self._choose_view(event.new), "value")
        self.keys = Keys(session, self.player, lambda: self._switch.options)
        self._place_of_dialog = pn.Row(width=0, height=0, margin=0, sizing_mode="fixed")
        self.page = pmui.Page(
            title=TITLE,
            logo=LOGO,
            favicon=LOGO,
            header=[
                pn.Row(
                    pn.HSpacer(), self._badge, self._switch, self.export.button,
                    sizing_mode="stretch_width", margin=0, styles={"align-items": "center"},
                )
            ],
            sidebar=[self.sidebar],
            main=[
                pn.Column(
                    self._error, self._note, self._body, self._place_of_dialog, self.keys,
                    sizing_mode="stretch_both", margin=0, styles={"min-height": "0"},
                )
            ],
            busy_indicator=None,
            sidebar_width=WIDTH,
            sidebar_resizable=False,
            dark_theme=session.theme == "dark",
            theme_config=THEME_CONFIG,
            site_url="#",
            sx={
                ".MuiAppBar-root": {"boxShadow": "none", "backgroundImage": "none"},
                "&.mui-light .MuiAppBar-root": {"backgroundColor": HEADER["light"], "color": "#fff"},
                "&.mui-dark .MuiAppBar-root": {"backgroundColor": HEADER["dark"], "color": "#fff"},
                ".title": {"fontSize": "20px", "fontWeight": 500, "letterSpacing": "0.3px"},
                ".MuiToolbar-root": {"minHeight": "52px !important", "margin": "0 !important"},
                ".logo": {"height": "30px !important"},
            },
        )  # fmt: skip
        with edit_readonly(self.page):
            # It follows the whole process otherwise: every page would hear of whatever anybody's page does.
            self.page.busy = False
        self.page.param.watch(lambda event: self._choose_theme(event.new), "dark_theme")
        session.param.watch(self._update_theme, "theme")
        session.param.watch(self._update_body, ["view", "problem", "opened"])
        session.param.watch(self._update_badge, "opened")
        session.param.watch(lambda event: _say(self._error, event.new), "error")
        session.param.watch(lambda event: _say(self._note, event.new), "note")
        self._error.param.watch(lambda event: self._closed("error", event.new), "closed")
        self._note.param.watch(lambda event: self._closed("note", event.new), "closed")
        _say(self._error, session.error)
        _say(self._note, session.note)
        self._update_badge()
        self._update_body()

    def complete(self) -> None:
        """Add what the page begins without: the view, and once that can be seen what can't be seen at first."""
        self._complete = True
        try:
            self._update_body()
        finally:  # without the view there are still other hours and views to choose
            self._after(MAPS_TIME, self._add_rest)

    def _add_rest(self) -> None:
        self.sidebar.complete()
        with together(), adding():
            self._place_of_dialog.append(self.export)

    def close(self) -> None:
        """The visitor left."""
        self.player.stop()
        self.export.close()
        self.session.close()

    def _choose_view(self, view: str | None) -> None:
        if view:
            self.session.view = view

    def _choose_theme(self, dark: bool) -> None:
        self.session.theme = "dark" if dark else "light"

    def _update_theme(self, *_: object) -> None:
        dark = self.session.theme == "dark"
        if self.page.dark_theme != dark:
            self.page.dark_theme = dark

    def _closed(self, name: str, closed: bool) -> None:
        if closed:
            setattr(self.session, name, "")

    def _update_badge(self, *_: object) -> None:
        opened = self.session.opened
        synthetic = opened is not None and opened.synthetic
        self._badge.visible = synthetic
        self._badge.object = (
            "<span class='badge' title='This weather was made by a program; it was never observed.'>"
            "SYNTHETIC</span>" if synthetic else ""
        )  # fmt: skip

    def _update_body(self, *_: object) -> None:
        """The chosen view, or why there is none.

        Views are made when they are first looked at, and stay, hidden while another shows.
        """
        if not self._complete and not self.session.problem:
            return
        new = not self.session.problem and self.session.view not in self._views
        # In one message: a change of a new view may otherwise overtake the view itself.
        with together(), adding() if new else nullcontext():
            self._place_body()

    def _place_body(self) -> None:
        session = self.session
        self._switch.value = session.view
        problem = session.problem
        self._problem.visible = bool(problem)
        if problem:
            self._problem.object = _explain(session, problem)
        elif session.view not in self._views:
            self._views[session.view] = self._make(session.view)
        for name, view in self._views.items():
            _layout(view).visible = not problem and name == session.view
        wanted = [self._problem, *map(_layout, self._views.values())]
        if self._body.objects != wanted:
            self._body.objects = wanted

    def _make(self, view: str) -> pn.viewable.Viewer:
        if view == "maps":
            return Maps(self.session)
        if view == "about":
            return About(self.session)
        if view == "spectra":
            return SpectraView(self.session)
        if view == "flux":
            return FluxView(self.session)
        if view == "ensemble":
            return EnsembleView(self.session)
        if view == "point":
            return PointView(self.session)
        if view == "hours":
            from explorer.views.hours import HoursView

            return HoursView(self.session)
        from explorer.views.scores import Scores  # brings HoloViews, which only this view needs

        return Scores(self.session)


def _layout(view: pn.viewable.Viewer) -> Any:
    return view.__panel__()


def _alert(severity: str) -> pmui.Alert:
    return pmui.Alert(
        block(), severity=severity, closeable=True, closed=True, visible=False, margin=(8, 14, 0, 14),
        sizing_mode="stretch_width",
    )  # fmt: skip


def _say(alert: pmui.Alert, words: str) -> None:
    # The text goes into a pane that escapes it: the alert's own `object` would run what a file name holds.
    alert.objects[0].object = f"<span style='font-size:14px;line-height:22px'>{text(words)}</span>"
    alert.param.update(visible=bool(words), closed=not words)


def _explain(session: Session, problem: str) -> str:
    if session.opened is not None:
        return message("Nothing to show yet", problem)
    commands = ("tramontana demo", "tramontana ingest era5 FILES --out data/era5.zarr")
    if session.stores:
        return message("This store can't be opened", problem, *commands)
    return message(
        "No data yet",
        "The explorer shows stores of weather data, and found none. Make one with the first command (synthetic "
        "weather over the real map, under a minute), or from your own ERA5 files with the second. It appears "
        "here by itself.",
        *commands,
    )


def build(arguments: list[str]) -> pmui.Page:
    """The page of a new visitor, connected to the document being served."""
    location = pn.state.location
    state = from_query(location.search) if location is not None else {}
    document = pn.state.curdoc
    deliver = Delivery(document)
    session = Session(library(tuple(arguments)), deliver=deliver, **state)
    pn.config.exception_handler = session.fail
    # A page is made for whoever asks, also for a program that will never show it; and a server of several
    # processes makes it twice, in the one that is asked first and in the one that the browser then talks to.
    session.hold_sampling()
    pn.state.onload(session.begin_sampling)
    session.start()

    def after(seconds: float, work: Callable[[], None]) -> None:
        document.add_timeout_callback(lambda: deliver(work), max(1, round(1000 * seconds)))

    explorer = Explorer(session, after)
    pn.state.onload(explorer.complete)
    if location is not None:
        pn.state.onload(lambda: connect(session, location))
    pn.state.add_periodic_callback(session.look, period=LOOK_EVERY)
    pn.state.on_session_destroyed(lambda _: explorer.close())
    return explorer.page


def build_safely(arguments: list[str]) -> pmui.Page:
    """Like :func:`build`, and where that fails a page that says why."""
    try:
        return build(arguments)
    except SettingsError as error:
        sentence = str(error)
    except Exception as error:
        log.exception("The page could not be built.")
        sentence = f"{type(error).__name__}: {error}. The log of the server says more."
    return pmui.Page(title=TITLE, main=[block(message("The explorer could not start", sentence))])


def show() -> None:
    """Serve the page; for the script that ``panel serve`` opens."""
    pn.extension(raw_css=[":root { color-scheme: light dark; }"])
    # Panel learns where its style sheets lie when it writes the page. A session that a websocket begins, in
    # another process or after a restart, never sees that and would ask the internet for them.
    pn.state.curdoc.template_variables.setdefault("dist_url", LOCAL_DIST)
    come_back(pn.state.curdoc)
    follow_steps(pn.state.curdoc)
    with adding():
        build_safely(sys.argv[1:]).servable(title=TITLE)
