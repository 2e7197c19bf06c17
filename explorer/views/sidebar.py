"""The controls: store, hour, downscalers, what is shown and in which colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui

from explorer.batch import adding, together
from explorer.player import SPEEDS, Player
from explorer.session import Session
from explorer.snapshot import show_hour
from explorer.style import SEQUENTIAL, block, text
from explorer.views.layers import LayerControls
from explorer.views.models import Models
from explorer.views.sampling import SamplingControls
from explorer.views.swipe import PairControls
from explorer.words import DIFFERENCE, FIELDS, SWIPE

WIDTH = 300
INNER = {"sizing_mode": "stretch_width", "margin": (4, 16)}
SEASON_NAMES = {
    "All year": "all",
    "Winter": "winter",
    "Spring": "spring",
    "Summer": "summer",
    "Autumn": "autumn",
}
SPLIT_NAMES = {
    "All hours": "all",
    "Training weeks": "train",
    "Validation weeks": "validation",
    "Test weeks": "test",
}
DAYTIME_NAMES = {"Any time": "all", "06–17 UTC": "day", "18–05 UTC": "night"}


class Sidebar(pn.viewable.Viewer):
    """Widgets in both directions with a session: they change it, and follow it."""

    def __init__(self, session: Session, player: Player, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self.player = player
        self._following = False

        self.store = pmui.Select(label="Store", size="small", **INNER)
        self.about = block(margin=(0, 16, 4, 16))

        self.now = block(margin=(2, 16, 0, 16))
        self.slider = pmui.IntSlider(
            label="", show_value=False, tooltips=False, size="small", start=0, end=1,
            sizing_mode="stretch_width", margin=(8, 6, 0, 6),
        )  # fmt: skip
        self.previous = _arrow("‹", "Previous hour (← key; press ? for all keys)")
        self.next = _arrow("›", "Next hour (→ key; press ? for all keys)")
        self.play = pmui.Button(label="▶ Play", variant="outlined", size="small", **_half(left=True))
        self.speed = pmui.Select(
            label="Speed", options=SPEEDS, value=player.pause, size="small", **_half(left=False),
            description="Shortest time that each hour is shown while playing: slow 2 s, normal 1 s, fast ½ s.",
        )  # fmt: skip
        self.date = pmui.DatePicker(label="Date", size="small", width=None, **INNER)
        self.season = pmui.Select(label="Season", options=SEASON_NAMES, size="small", **_half(left=True))
        self.daytime = pmui.Select(
            label="Time of day", options=DAYTIME_NAMES, size="small", **_half(left=False)
        )

        self.split = pmui.Select(
            label="Split", options=SPLIT_NAMES, size="small", **INNER,
            description="Of each 20 weeks, 14 are for training, 3 for validation and 3 for the test of a model. "
            "Scores of training weeks flatter.",
        )  # fmt: skip

        self.models = pn.Column(sizing_mode="stretch_width", margin=(0, 16))
        self._boxes: dict[str, pmui.Checkbox] = {}
        self._listed: list[Any] = []  # choices that the boxes are for

        self.files = Models(session)
        self.sampling = SamplingControls(session)

        self.variable = pmui.Select(label="Variable", size="small", **INNER)
        self.region = pmui.Select(label="Region", size="small", **INNER)
        self.mode = pmui.RadioButtonGroup(
            label="",
            options={"Fields": FIELDS, "Difference": DIFFERENCE, "Swipe": SWIPE},
            size="small",
            **INNER,
        )
        self.reference = pmui.Select(label="Difference from", size="small", **INNER)
        self.no_truth = block(margin=(0, 16))
        self.pair = PairControls(session)
        self.layers = LayerControls(session)
        self.palette = pmui.Select(label="Colour map", size="small", **INNER)
        self.automatic = pmui.Checkbox(label="Colour range fits each hour", size="small", **INNER)
        self.low = pmui.FloatInput(label="From", size="small", **_half(left=True))
        self.high = pmui.FloatInput(label="To", size="small", **_half(left=False))
        self.limits = pn.Row(self.low, self.high, sizing_mode="stretch_width", margin=0)

        top = [
            _title("Data"), self.store, self.about,
            _title("Hour"), self.now,
            pn.Row(
                self.previous, self.slider, self.next,
                sizing_mode="stretch_width", margin=(2, 8, 10, 8), styles={"align-items": "center"},
            ),
            pn.Row(
                self.play, self.speed, sizing_mode="stretch_width", margin=0, styles={"align-items": "center"}
            ),
            self.date, pn.Row(self.season, self.daytime, sizing_mode="stretch_width", margin=(0, 0)),
            self.split,
            pn.Row(_title("Downscalers"), self.files.button, sizing_mode="stretch_width", margin=0),
            self.models,
        ]  # fmt: skip
        sampling = self.sampling.__panel__()
        # Places of their own, so that what comes later leaves alone what is there: a menu may be open.
        self._middle = _place(*([sampling] if sampling.visible else []))
        self._end = _place()
        self._middle_objects = [self.files, sampling]
        self._end_objects = [
            self.mode, self.reference, self.no_truth, self.pair, self.layers,
            _title("Colours"), self.palette, self.automatic, self.limits,
        ]  # fmt: skip
        self._layout = pn.Column(
            *top, self._middle, _title("Show"), self.variable, self.region, self._end,
            sizing_mode="stretch_width", margin=(0, 0, 20, 0),
        )  # fmt: skip
        self._follow_session()
        self._listen()
        self.play.on_click(lambda _: player.toggle())
        self.speed.param.watch(lambda event: player.param.update(pause=event.new), "value")
        player.param.watch(self._update_play, "playing")
        session.param.watch(self._update_play, "hours")
        self._update_play()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def complete(self) -> None:
        """Add what is below the edge of the window at first, or hidden.

        A browser takes some 50 ms for each of these controls, so they come when the maps are there.
        """
        with together(), adding():
            self._middle.objects = self._middle_objects
            self._end.objects = self._end_objects

    # ---------------------------------------------------------------- session -> widgets

    def _follow_session(self) -> None:
        session = self.session
        for update, names in (
            (self._update_stores, ["stores", "store", "opened", "hours"]),
            (self._update_hours, ["hours", "hour"]),
            (self._update_filters, ["season", "daytime", "split"]),
            (self._update_models, ["choices", "models", "opened"]),
            (self._update_show, ["quantities", "variable", "windows", "region", "mode", "reference", "opened",
                                 "choices", "models"]),
            (self._update_colours, ["palette", "limits", "variable", "mode", "snapshot"]),
        ):  # fmt: skip
            session.param.watch(self._quietly(update), names)
            self._quietly(update)()

    def _quietly(self, update: Callable[[], None]) -> Callable[..., None]:
        """An update of widgets that does not come back as a choice of the person."""

        def run(*_: object) -> None:
            following, self._following = self._following, True
            try:
                update()
            finally:
                self._following = following

        return run

    def _update_stores(self) -> None:
        session = self.session
        self.store.options = list(
            dict.fromkeys([*session.stores, *([session.store] if session.store else [])])
        )
        self.store.value = session.store or None
        opened = session.opened
        if opened is None:
            self.about.object = "<div class='caption'>No store is open.</div>"
            return
        count = opened.store.hours.size
        self.about.object = (
            f"<div class='caption' title='{text(opened.path)}'>{text(opened.store.attrs.get('title', ''))} · "
            f"{count} hour{'' if count == 1 else 's'}</div>"
        )

    def _update_hours(self) -> None:
        session, hours = self.session, self.session.hours
        several = hours.size > 1
        self.slider.param.update(
            start=0, end=max(hours.size - 1, 1), value=session.position(), disabled=not several
        )
        self.previous.disabled = not several or session.position() == 0
        self.next.disabled = not several or session.position() == hours.size - 1
        self._say_hour(session.position())
        days = np.unique(hours.astype("datetime64[D]")).tolist()
        if days and (self.date.start, self.date.end) != (days[0], days[-1]):
            self.date.param.update(start=days[0], end=days[-1])
        if days and self.date.enabled_dates != days:
            self.date.enabled_dates = days
        current = session.current
        self.date.value = None if current is None else current.astype("datetime64[D]").item()
        self.date.disabled = not days

    def _update_play(self, *_: object) -> None:
        playing = self.player.playing
        # The description is the name of the button for a screen reader, so it begins with the label.
        self.play.param.update(
            label="❚❚ Pause" if playing else "▶ Play",
            description="Pause at this hour (space)" if playing
            else "Play the hours on offer, one after another (space). Each is shown when it is computed; a "
            "generative model has its first member sampled for every hour, which takes its time.",
            disabled=self.session.hours.size < 2,
        )  # fmt: skip

    def _say_hour(self, index: int) -> None:
        hours = self.session.hours
        words = show_hour(hours[index]) if hours.size else "No hour"
        self.now.object = f"<div class='now' aria-live='polite'>{text(words)}</div>"

    def _update_filters(self) -> None:
        self.season.value, self.daytime.value = self.session.season, self.session.daytime
        self.split.value = self.session.split

    def _update_models(self) -> None:
        session, choices = self.session, self.session.choices
        if choices is None:
            words = "Looking for downscalers…" if session.opened is not None else "No store is open."
            self.models.objects = [block(f"<div class='caption'>{words}</div>")]
            self._boxes, self._listed = {}, []
            return
        if choices != self._listed:
            self._listed, self._boxes, rows = list(choices), {}, []
            for choice in choices:
                box = pmui.Checkbox(
                    label=choice.label, disabled=not choice.runs, size="small",
                    sizing_mode="stretch_width", margin=(1, 0),
                )  # fmt: skip
                rows.append(box)
                if choice.runs:
                    box.param.watch(lambda event, key=choice.key: self._tick(key, event.new), "value")
                else:
                    rows.append(block(f"<div class='reason'>{text(choice.reason)}</div>"))
                self._boxes[choice.key] = box
            self.models.objects = rows
        for choice in choices:
            self._boxes[choice.key].value = choice.runs and choice.key in (session.models or [])

    def _update_show(self) -> None:
        session = self.session
        self.variable.param.update(
            options={quantity.label: quantity.key for quantity in session.quantities},
            value=session.quantity.key if session.quantity in session.quantities else None,
        )
        self.region.param.update(
            options={window.name: window.key for window in session.windows},
            value=session.region if session.windows else None,
        )
        self.mode.value = session.mode
        self.reference.visible = session.mode == DIFFERENCE
        self.pair.__panel__().visible = session.mode == SWIPE
        if session.opened is not None:
            offered = session.references()
            self.reference.param.update(
                options={label: key for key, label in offered.items()}, value=session.against
            )
            lacks = session.mode == DIFFERENCE and not session.has_truth
            self.no_truth.object = (
                "<div class='caption'>This store has no fine truth; differences are taken from another field."
                "</div>" if lacks else ""
            )  # fmt: skip

    def _update_colours(self) -> None:
        session = self.session
        diverging = session.mode == DIFFERENCE or session.quantity.signed
        names = {name: key for key, (name, _) in SEQUENTIAL.items()}
        self.palette.param.update(
            options={"Blue – red, centred on zero": "balance"} if diverging else names,
            value="balance" if diverging else session.palette or session.quantity.palette,
            disabled=diverging,
        )
        self.automatic.value = session.limits is None
        self.limits.visible = session.limits is not None
        if session.limits is not None:
            self.low.value, self.high.value = session.limits

    # ---------------------------------------------------------------- widgets -> session

    def _listen(self) -> None:
        for widget, name in (
            (self.store, "store"), (self.season, "season"), (self.daytime, "daytime"),
            (self.variable, "variable"), (self.region, "region"), (self.mode, "mode"),
            (self.reference, "reference"), (self.split, "split"),
        ):  # fmt: skip
            widget.param.watch(lambda event, name=name: self._choose(name, event.new), "value")
        self.palette.param.watch(lambda event: self._choose_palette(event.new), "value")
        self.automatic.param.watch(lambda event: self._choose_automatic(event.new), "value")
        for widget in (self.low, self.high):
            widget.param.watch(self._choose_limits, "value")
        self.slider.param.watch(lambda event: self._say_hour(event.new), "value")
        self.slider.param.watch(lambda event: self._go(event.new), "value_throttled")
        self.date.param.watch(lambda event: self._go_to_day(event.new), "value")
        self.previous.on_click(lambda _: self.session.step(-1))
        self.next.on_click(lambda _: self.session.step(1))

    def _choose(self, name: str, value: Any) -> None:
        if not self._following and value is not None:
            with (
                together()
            ):  # a change of a map would overtake the map itself, where another store brings maps
                setattr(self.session, name, value)

    def _choose_palette(self, value: str | None) -> None:
        if not self._following and value in SEQUENTIAL:
            self.session.palette = value

    def _choose_automatic(self, value: bool) -> None:
        if not self._following:
            self.session.limits = None if value else self.session.automatic_limits()

    def _choose_limits(self, *_: object) -> None:
        low, high = self.low.value, self.high.value
        if not self._following and low is not None and high is not None and low < high:
            self.session.limits = [float(low), float(high)]

    def _tick(self, key: str, ticked: bool) -> None:
        if self._following:
            return
        kept = [k for k in self.session.models or [] if k != key]
        self.session.models = [*kept, key] if ticked else kept

    def _go(self, index: int) -> None:
        if not self._following and 0 <= index < self.session.hours.size:
            self.session.go(index)

    def _go_to_day(self, day: Any) -> None:
        """The hour nearest to the present time of day on another day."""
        session = self.session
        if self._following or day is None or session.current is None:
            return
        wanted = np.datetime64(day, "D")
        there = np.flatnonzero(session.hours.astype("datetime64[D]") == wanted)
        if there.size:
            moment = wanted.astype("datetime64[ns]") + (
                session.current - session.current.astype("datetime64[D]")
            )
            session.go(int(there[np.argmin(np.abs(session.hours[there] - moment))]))


def _place(*objects: Any) -> pn.Column:
    return pn.Column(*objects, sizing_mode="stretch_width", margin=0)


def _title(words: str) -> pn.pane.HTML:
    return block(f"<div class='section'>{words}</div>", margin=(14, 16, 2, 16))


def _arrow(label: str, description: str) -> pmui.Button:
    return pmui.Button(
        label=label, description=description, description_delay=1500, variant="outlined", size="small", width=34, margin=(2, 8),
        sx={"minWidth": "30px", "padding": "0 0 2px 0", "fontSize": "18px", "lineHeight": "24px"},
    )  # fmt: skip


def _half(*, left: bool) -> dict[str, Any]:
    return {
        "sizing_mode": "stretch_width",
        "margin": (4, 4, 4, 16) if left else (4, 16, 4, 4),
        "min_width": 60,
    }
