"""Hours played one after another, and steps by days.

A :class:`Player` goes on to the next hour when everything that is shown of the present one is computed, the
browser has drawn it, it was on the screen for its time, and the next one is made as far as it is made
beforehand. So no hour is left out or shown half empty however slow a downscaler is, and hours do not pile up
on the way to a slow browser.

Generative models: the maps have their first member sampled whenever an hour is shown, and so it is while hours
play; other members are never sampled, nor the members of hours ahead. A loop that had to sample ends with the
last hour instead of beginning again, so that a page that somebody forgot does not sample for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import param

from explorer.session import Hours, Session

SPEEDS = {"Slow": 2.0, "Normal": 1.0, "Fast": 0.5}
"""Shortest time that an hour is shown [s], by name."""

AHEAD = 3
"""Hours made beforehand while playing."""

LOOK_EVERY = 0.1
"""Seconds between looks whether the next hour is made."""
LONGEST_WAIT = 10.0
"""Seconds after which the next hour is shown with what there is of it."""

After = Callable[[float, Callable[[], None]], None]

INTERRUPTS = (
    "store", "season", "daytime", "models", "variable", "sampler", "steps", "seed", "members", "view",
)  # fmt: skip
"""Choices that end playing, as another hour does; colours, region and differences may change meanwhile."""

FOLLOWERS = {"spectra": "spectra", "flux": "fluxes", "scores": "scores"}
"""View -> what it draws of the hour beside the fields, which is waited for too."""


class Player(param.Parameterized):
    """Plays the hours on offer of a session, in a loop.

    Parameters
    ----------
    after : runs work on the page's own thread after so many seconds
    clock : seconds that pass evenly

    ``frame`` counts the hours that are ready to be seen; whoever draws them answers with :meth:`drawn`.
    """

    playing = param.Boolean(default=False)
    frame = param.Integer(default=0, doc="Grows by one with every hour that is complete while playing.")
    pause = param.Number(default=1.0, doc="Shortest time that an hour is shown [s].")

    def __init__(
        self, session: Session, after: After, clock: Callable[[], float] = time.monotonic, **params: Any
    ) -> None:
        super().__init__(**params)
        self.session = session
        self._after = after
        self._clock = clock
        self._going = False
        self._complete: np.datetime64 | None = None
        self._since = -np.inf
        self._first = False
        self._sampled = False
        session.param.watch(self._on_hour, "hour")
        session.param.watch(lambda *_: self.stop(), list(INTERRUPTS))
        session.param.watch(self._on_words, ["error", "problem"])
        session.param.watch(self._look, ["snapshot", *FOLLOWERS.values()])

    def toggle(self) -> None:
        """Play, or stop."""
        if self.playing:
            self.stop()
        else:
            self.play()

    def play(self) -> None:
        """Begin with the hour shown; nothing where there is only one."""
        if self.playing or self.session.hours.size < 2 or self.session.problem:
            return
        self._complete, self._sampled, self._first = None, False, True
        self.session.look_ahead(AHEAD)
        self.playing = True
        self._look()

    def stop(self) -> None:
        """Stay at the hour shown."""
        self.session.look_ahead(1)
        self.playing = False

    def drawn(self, frame: int) -> None:
        """The hour with this number is on the screen."""
        if self.playing and frame == self.frame:
            left = self.pause - (self._clock() - self._since)
            self._after(max(left, 0.0), lambda: self._advance(frame, self._clock() + LONGEST_WAIT))

    def _on_hour(self, *_: object) -> None:
        if not self._going:
            self.stop()

    def _on_words(self, event: Any) -> None:
        if event.new:
            self.stop()

    def _look(self, *_: object) -> None:
        """Announce the hour shown once all of it is there."""
        session = self.session
        snapshot = session.snapshot
        if not self.playing or snapshot is None or snapshot.hour != session.current:
            return
        if any(field.problem for field in snapshot.fields):
            self.stop()  # the map says why
            return
        if snapshot.computing:
            self._sampled |= any(field.piece is not None for field in snapshot.computing)
            return
        follower = getattr(session, FOLLOWERS.get(session.view, ""), None)
        late = session.scoring and session.view == "scores"
        late |= follower is not None and follower.hour != snapshot.hour
        if late or self._complete == snapshot.hour:
            return
        self._complete = snapshot.hour
        # The hour on the screen when the button is pressed was looked at long enough.
        self._since = -np.inf if self._first else self._clock()
        self._first = False
        self.frame += 1

    def _advance(self, frame: int, latest: float) -> None:
        """Go on; where the next hour is not made yet, look again until ``latest`` by the clock."""
        if not self.playing or frame != self.frame:
            return
        session = self.session
        last = session.position() >= session.hours.size - 1
        if last and self._sampled:
            self.stop()
            return
        if not last and not self._made(session.hours[session.position() + 1]) and self._clock() < latest:
            self._after(LOOK_EVERY, lambda: self._advance(frame, latest))
            return
        self._going = True
        try:
            if last:
                session.go(0)
            else:
                session.step(1)
        finally:
            self._going = False

    def _made(self, hour: np.datetime64) -> bool:
        """Whether all fields of another hour are there but those that are sampled."""
        snapshot, library = self.session.snapshot, self.session.library
        return snapshot is None or all(
            library.peek(snapshot.opened, hour, field.key) is not None
            for field in snapshot.fields
            if field.piece is None
        )


def day_away(hours: Hours, position: int, days: int) -> int:
    """Position of the hour ``days`` days later among those that have hours, at the nearest time of day.

    Stays at the first and last day. ``hours`` (N,) increase; 0 where there is none.
    """
    if not hours.size:
        return 0
    dates = hours.astype("datetime64[D]")
    known = np.unique(dates)
    today = int(np.searchsorted(known, dates[position]))
    wanted = known[int(np.clip(today + days, 0, known.size - 1))]
    there = np.flatnonzero(dates == wanted)
    moment = wanted + (hours[position] - dates[position])
    return int(there[np.argmin(np.abs(hours[there] - moment))])
