"""How the fields of a session's hour come: what is there at once, the rest when it is made, the next hours ahead."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.jobs import Piece
from explorer.jobs import sentence as plain
from explorer.library import COARSE, QUADRATIC, TRUTH
from explorer.quantities import Quantity
from explorer.results import Fields
from explorer.sampling import Desk
from explorer.snapshot import Field, Snapshot, make_field, same_request

if TYPE_CHECKING:
    from explorer.session import Session

log = logging.getLogger(__name__)

INTERPOLATIONS = (QUADRATIC, "lapse_rate")
"""Keys of the downscalers that interpolate."""


def is_slow(key: str) -> bool:
    """Whether a field takes seconds rather than a moment."""
    return key not in (COARSE, TRUTH, *INTERPOLATIONS)


class Loader:
    """Fills the ``snapshot`` of a session; ``desk`` samples what generative models make.

    ``direction`` is 1 while the visitor goes forward through the hours, -1 while back.
    """

    def __init__(self, session: Session, desk: Desk) -> None:
        self._session = session
        self._desk = desk
        self._generation = 0
        self._prefetching: tuple[object, ...] = ()
        self._ahead = 1
        self.direction = 1

    def request(self) -> None:
        """Show the fields of the hour: at once what is there, and each of the rest when it is ready."""
        self.overtake()
        session, library = self._session, self._session.library
        opened, hour = session.opened, session.current
        if opened is None or hour is None or not session.holds(hour):
            return
        if not session.quantities:
            session.param.update(
                snapshot=None,
                scores=None,
                problem="This store holds none of the variables that can be shown (t2m, u10 and v10, tp).",
            )
            return
        generation, quantity = self._generation, session.quantity
        wanted = [(COARSE, "Coarse input")]
        if session.has_truth:
            wanted.append((TRUTH, "Truth"))
        wanted += [(choice.key, choice.label) for choice in session.running]
        sampled = {choice.key: session.piece(choice) for choice in session.generators}
        fields = tuple(
            self._sampled_field(key, label, quantity, sampled[key])
            if key in sampled
            else make_field(key, label, quantity, library.peek(opened, hour, key))
            for key, label in wanted
        )
        target = Snapshot(opened, hour, quantity, fields)
        self._desk.show([field.piece for field in target.computing if field.piece is not None])
        session.recall()
        computing = [field.key for field in target.computing if field.piece is None]
        if not computing:
            self._publish(target)
            return
        # What reads or interpolates comes within a moment; showing it in one piece avoids flicker.
        quick = [key for key in computing if not is_slow(key)]
        slow = [key for key in computing if is_slow(key)]
        if not quick:
            self._publish(target)

        def work(keys: Sequence[str]) -> None:
            done: dict[str, Fields | Exception] = {}
            for key in keys:
                if generation != self._generation:
                    return
                try:
                    done[key] = library.fields(opened, hour, key)
                except Exception as error:
                    log.warning("%s failed for %s", key, hour, exc_info=error)
                    done[key] = error
            session.later(lambda: self._arrived(generation, target, done))

        for keys in ([quick] if quick else []) + [[key] for key in slow]:
            library.submit(lambda keys=keys: work(keys))

    def _arrived(self, generation: int, target: Snapshot, done: dict[str, Fields | Exception]) -> None:
        if generation != self._generation:
            return
        shown = self._session.snapshot
        base = shown if same_request(shown, target) else target
        fields = []
        for field in base.fields:
            result = done.get(field.key)
            if isinstance(result, Exception):
                field = replace(field, problem=plain(result))
            elif result is not None:
                field = make_field(field.key, field.label, target.quantity, result)
            elif field.piece is not None and field.computing:  # it may have come before the others
                field = self._sampled_field(field.key, field.label, target.quantity, field.piece)
            fields.append(field)
        self._publish(replace(base, fields=tuple(fields)))

    def _publish(self, snapshot: Snapshot) -> None:
        # At once, so that nobody sees scores of something else beside these fields.
        stale = {"scores": None} if self._session.analyses.outdated(snapshot) else {}
        self._session.param.update(snapshot=snapshot, **stale)
        self._session.analyses.score()
        if not snapshot.computing:
            self._prefetch(snapshot)

    def look_ahead(self, hours: int) -> None:
        """Make so many hours beforehand from now on; several for going forward without a pause."""
        self._ahead = hours
        if hours > 1:
            self.direction = 1
            snapshot: Snapshot | None = self._session.snapshot
            if snapshot is not None and not snapshot.computing:
                self._prefetch(snapshot)

    def _prefetch(self, snapshot: Snapshot) -> None:
        """Make the next hours in the direction of travel, so that going on is instant."""
        session, library = self._session, self._session.library
        index, opened = session.position(), snapshot.opened
        # Members are sampled when an hour is looked at: they cost much, and others may be waiting.
        made = [field.key for field in snapshot.fields if field.piece is None]
        places = [index + self.direction * count for count in range(1, self._ahead + 1)]
        hours = [session.hours[place] for place in places if 0 <= place < session.hours.size]
        wanted = [(hour, key) for hour in hours for key in made if library.peek(opened, hour, key) is None]
        mark = (opened.identity, *wanted)
        if not wanted or mark == self._prefetching:
            return
        self._prefetching = mark

        def work() -> None:
            for hour, key in wanted:
                if self._prefetching is not mark:
                    return
                with suppress(Exception):  # it will be reported if somebody asks for this hour
                    library.fields(opened, hour, key)
            session.later(end)

        def end() -> None:
            if self._prefetching is mark:
                self._prefetching = ()

        library.submit(work)

    def overtake(self) -> None:
        """Something else is wanted: what is under way for this page stops after the field at work."""
        self._generation += 1
        self._prefetching = ()

    def _sampled_field(self, key: str, label: str, quantity: Quantity, piece: Piece) -> Field:
        made = self._session.library.peek_member(piece)
        field = replace(make_field(key, label, quantity, made), piece=piece)
        return field if made is not None else replace(field, problem=self._desk.problem(piece))

    def take(self, piece: Piece) -> None:
        """A member arrived, or will not come: show that where it is awaited."""
        snapshot: Snapshot | None = self._session.snapshot
        if snapshot is not None and any(f.piece == piece and f.values is None for f in snapshot.fields):
            fields = tuple(
                self._sampled_field(f.key, f.label, snapshot.quantity, piece) if f.piece == piece else f
                for f in snapshot.fields
            )
            self._publish(replace(snapshot, fields=fields))
