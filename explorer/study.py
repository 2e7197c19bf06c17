"""What one visitor looks at in a point and at stations, gathered hour by hour in the background.

A :class:`PointStudy` follows a session: it knows the chosen point, the stations that were loaded, and collects
what the fields of the hours around say there. Fields come from the library's threads, one at a time, so that
other visitors get their turns; those of generative models are only looked up, never sampled without being asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import param
from numpy.typing import NDArray

from core.data.stations import StationError, Stations, parse_stations, read_stations
from explorer.background import Latest
from explorer.display import COARSE
from explorer.jobs import Piece
from explorer.jobs import sentence as plain
from explorer.library import QUADRATIC, TRUTH
from explorer.points import (
    MOST_HOURS,
    Band,
    Line,
    Place,
    PointSeries,
    find_place,
    flat,
    hours_around,
    is_point,
    nearest_first,
    pick,
)
from explorer.quantities import Quantity
from explorer.results import Fields
from explorer.stations import (
    NEAR,
    QUANTITY,
    Sited,
    StationTable,
    at_height,
    compute_scores,
    site,
)

if TYPE_CHECKING:
    from explorer.library import OpenStore
    from explorer.session import Session

log = logging.getLogger(__name__)

POINT = "point"
"""Key of the view."""
STATION_HEIGHT = "station"
"""The height that values are brought to where it is not that of the cells."""
QUICK = (COARSE, TRUTH, QUADRATIC, "lapse_rate")
"""Fields that are read or interpolated within a moment."""
PUBLISH_EVERY = 0.3
"""Seconds between two states of a series that is being gathered."""
MEMBERS = "members"
"""Stands for the members of an hour that may be kept on disk, among keys of fields."""
KEPT_HOURS = 24
"""Hours whose fields stay in memory for the next point; those of a week push out what others look at."""
MOST_VALUES = 4_000_000
"""Values at stations that are remembered, of 4 bytes each: those of 2000 stations and 5 fields for 400 hours."""
MOST_KNOWN = 10_000
"""Members whose values at the point are remembered beyond those of the hours shown."""
LOOK_SECONDS = 2.0
"""Time to look through what was computed before."""

Values = NDArray[np.floating]
Known = dict[str, dict[int, Values]]
"""Field -> hour (nanoseconds since 1970) -> values."""


@dataclass(frozen=True)
class Request:
    """What the series is about; what was found for one request does for another that differs in hours only."""

    opened: OpenStore
    identity: tuple[str, str]
    place: Place
    quantity: Quantity
    sited: Sited | None


@dataclass(frozen=True)
class Picked:
    """What one field says at the point and, for temperature, in the cells of the stations."""

    key: str
    stamp: int
    point: float | None
    stations: Values | None


class PointStudy(param.Parameterized):
    """The point and the stations of a session."""

    place = param.Parameter(default=None, doc="The chosen Place on the open store, or None.")
    sited = param.Parameter(default=None, doc="Sited: the stations on the domain of the store, or None.")
    series = param.Parameter(default=None, doc="PointSeries around the hour, or None; follows its view.")
    errors = param.Parameter(default=None, doc="StationTable, or None.")
    reading = param.Boolean(default=False, doc="Whether a file of stations is being read.")

    def __init__(self, session: Session, later: Callable[[Callable[[], None]], None]) -> None:
        super().__init__()
        self._session = session
        self._later = later
        self._stations: Stations | None = None
        self._request: Request | None = None
        self._plan: tuple[object, ...] = ()
        self._hours = np.empty(0, "datetime64[ns]")
        self._points: Known = {}
        self._members: dict[Piece, float] = {}
        self._cells: Known = {}  # of the stations; outlives a change of the point
        self._problems: dict[str, str] = {}
        self._pending = 0
        self._count = 0
        self._published = 0.0
        self._publishing = False
        self._scores = Latest(session.library.submit, later)

    def start(self) -> None:
        """Follow the session; call once, when it has opened its store, which clears messages."""
        session = self._session
        session.param.watch(self._place_all, ["opened", "point"])
        session.param.watch(self._on_snapshot, "snapshot")
        session.param.watch(
            self.refresh,
            ["snapshot", "view", "point", "span", "models", "choices", "members", "sampler", "steps", "seed"],
            precedence=1,  # after the place was found, where an address changes view and point at once
        )
        session.param.watch(self._publish, "height")
        self._place_all()
        self.refresh()
        path = session.library.settings.stations
        if path is not None:
            self._read(lambda: read_stations(path))

    def close(self) -> None:
        """The visitor left."""
        self._count += 1

    # ---------------------------------------------------------------- stations

    def load(self, content: bytes, name: str) -> None:
        """Read the content of a CSV file of stations; what is wrong with it becomes a message."""
        self._read(lambda: parse_stations(content, name))

    def forget_stations(self) -> None:
        """Show no stations any more."""
        self._stations = None
        self._site()

    def _read(self, work: Any) -> None:
        session = self._session
        self.reading = True

        def run() -> None:
            try:
                found, problem = work(), ""
            except StationError as error:
                found, problem = None, str(error)
            self._later(lambda: self._on_read(found, problem))

        session.library.submit(run)

    def _on_read(self, stations: Stations | None, problem: str) -> None:
        self.reading = False
        if stations is None:
            self._session.error = problem
            return
        self._stations = stations
        self._site()

    def _site(self) -> None:
        opened = self._session.opened
        self._cells = {}
        self.errors = None
        known = (
            opened is not None and self._stations is not None and self._session.library.warm(opened).done()
        )
        self.sited = site(self._stations, opened) if known else None
        self._on_snapshot()
        self.refresh()

    # ---------------------------------------------------------------- what the session says

    def _place_all(self, *events: Any) -> None:
        opened, point = self._session.opened, self._session.point
        warmed = self._session.library.warm(opened) if opened is not None else None
        if warmed is not None and not warmed.done():
            # Heights are being read from the store, which the page should not wait for.
            self.param.update(place=None, sited=None)
            warmed.add_done_callback(lambda _: self._later(self._on_warm))
            return
        # The word of an address may be no point at all before the session has checked it.
        known = opened is not None and is_point(point)
        self.place = find_place(opened, *point) if known else None
        if any(event.name == "opened" for event in events):
            self._site()

    def _on_warm(self) -> None:
        self._place_all()
        self._site()

    def _on_snapshot(self, *_: object) -> None:
        """Remember what the fields on the maps say at the stations."""
        snapshot, sited = self._session.snapshot, self.sited
        if snapshot is None or sited is None or snapshot.quantity != QUANTITY:
            return
        stamp = _stamp(snapshot.hour)
        for field in snapshot.fields:
            if field.values is not None and field.piece is None:
                index = sited.coarse if field.key == COARSE else sited.fine
                self._remember(field.key, stamp, field.values.ravel()[index])

    def _remember(self, key: str, stamp: int, values: Values) -> None:
        """Keep what a field says at the stations, and forget what was kept first where that is too much."""
        self._cells.setdefault(key, {})[stamp] = values
        most = max(MOST_HOURS, MOST_VALUES // max(1, values.size * len(self._cells)))
        for found in self._cells.values():
            while len(found) > most:
                del found[next(iter(found))]

    def refresh(self, *_: object) -> None:
        """Gather what the view in front shows; what is hidden waits until it is looked at."""
        session = self._session
        snapshot = session.snapshot
        if session.view != POINT or snapshot is None or self.place is None or session.current is None:
            if session.view != POINT:
                self._count += 1  # what is under way stops after the field at work
                self._plan = ()
            else:
                self._drop()
            return
        opened, quantity = snapshot.opened, snapshot.quantity
        sited = self.sited if quantity == QUANTITY else None
        request = Request(opened, opened.identity, self.place, quantity, sited)
        if not _same(request, self._request):
            self._request, self._points, self._members, self._problems = request, {}, {}, {}
            self.series = None
        hours = hours_around(opened.store.hours, session.current, session.span)
        keys = self._keys()
        pieces = tuple(self._wanted(hours))
        plan = (request.place, quantity.key, hours.tobytes(), keys, pieces, id(sited))
        if plan == self._plan:
            self._publish()
            return
        self._plan, self._hours = plan, hours
        self._count += 1
        if len(self._members) > MOST_KNOWN:
            self._members = {piece: self._members[piece] for piece in pieces if piece in self._members}
        self._gather(request, keys, pieces)

    def _drop(self) -> None:
        self._count += 1
        self._plan, self._request = (), None
        self.param.update(series=None, errors=None)

    def _keys(self) -> tuple[str, ...]:
        session = self._session
        truth = (TRUTH,) if session.has_truth else ()
        return (COARSE, *truth, *(choice.key for choice in session.running if not choice.generative))

    def _wanted(self, hours: NDArray[np.datetime64]) -> Iterator[Piece]:
        """The members of all ticked generative models over these hours."""
        session = self._session
        for choice in session.generators:
            for hour in hours:
                for member in session.member_numbers():
                    yield Piece(session.opened, hour, choice.key, choice.checkpoint, session.draw, member)

    # ---------------------------------------------------------------- gathering

    def _gather(self, request: Request, keys: tuple[str, ...], pieces: tuple[Piece, ...]) -> None:
        """Collect what is there at once, then field by field what has to be read or computed."""
        session, count = self._session, self._count
        library = session.library
        hours = nearest_first(self._hours, session.current)
        known = {(key, stamp) for key, found in self._points.items() for stamp in found}
        missing = [(hour, key) for hour in hours for key in keys if (key, _stamp(hour)) not in known]
        wanted = [piece for piece in pieces if piece not in self._members]
        get = library.fields if len(hours) <= KEPT_HOURS else library.fields_once
        self._pending = len(missing)
        self._publish()

        def look() -> None:
            found, there = [], []
            kept: dict[np.datetime64, list[Piece]] = {}
            for hour, key in missing:
                fields = library.peek(request.opened, hour, key)
                if fields is not None:
                    found.append(_pick(fields, request, key, hour))
            for piece in wanted:
                fields = library.peek_member(piece)
                if fields is not None:
                    there.append((piece, _value(fields, request)))
                elif library.keeps_on_disk:
                    kept.setdefault(piece.hour, []).append(piece)
            done = {(picked.key, picked.stamp) for picked in found}
            rest = [(hour, key) for hour, key in missing if (key, _stamp(hour)) not in done]
            rest += [(hour, MEMBERS) for hour in hours if hour in kept]
            # What reads or interpolates is quick; a network takes a second or more each.
            rest.sort(key=lambda item: (item[1] not in QUICK, item[1] != MEMBERS))
            self._later(lambda: self._arrive(count, found, len(rest), members=there))
            earlier = self._look_back(request, keys, count) if request.sited is not None else []
            if earlier:
                self._later(lambda: self._arrive(count, earlier, None))
            take(rest, kept, {})

        def take(
            rest: list[tuple[np.datetime64, str]],
            kept: dict[np.datetime64, list[Piece]],
            failed: dict[str, str],
        ) -> None:
            """One field, or the members of one hour that are on disk; the next one queues behind what others want."""
            while rest and rest[0][1] in failed:
                rest = rest[1:]
            if not rest or count != self._count:
                self._later(lambda: self._arrive(count, [], 0, problems=failed))
                return
            (hour, key), *after = rest

            def work() -> None:
                if count != self._count:
                    return
                found: list[Picked] = []
                there: list[tuple[Piece, float]] = []
                try:
                    if key == MEMBERS:
                        for piece in kept[hour]:
                            made = library.member_once(piece)
                            if made is not None:
                                there.append((piece, _value(made, request)))
                    else:
                        found = [_pick(get(request.opened, hour, key), request, key, hour)]
                except Exception as error:
                    log.warning("%s failed for %s", key, hour, exc_info=error)
                    failed[key] = plain(error)
                self._later(lambda: self._arrive(count, found, len(after), members=there))
                take(after, kept, failed)

            library.submit(work)

        library.submit(look)

    def _look_back(self, request: Request, keys: tuple[str, ...], count: int) -> list[Picked]:
        """What was computed before at hours with observations, as far as it is found within two seconds."""
        sited, library = request.sited, self._session.library
        begun, found = time.monotonic(), []
        hours = np.intersect1d(request.opened.store.hours, sited.stations.times)
        for hour in hours:
            if time.monotonic() - begun > LOOK_SECONDS or count != self._count:
                break
            for key in keys:
                if _stamp(hour) not in self._cells.get(key, {}):
                    fields = library.peek(request.opened, hour, key)
                    if fields is not None:
                        found.append(_pick(fields, request, key, hour, point=False))
        return found

    def _arrive(
        self,
        count: int,
        found: Iterable[Picked],
        pending: int | None,
        *,
        members: Iterable[tuple[Piece, float]] = (),
        problems: dict[str, str] | None = None,
    ) -> None:
        if count != self._count:
            return
        for picked in found:
            if picked.point is not None:
                self._points.setdefault(picked.key, {})[picked.stamp] = np.array([picked.point])
            if picked.stations is not None:
                self._remember(picked.key, picked.stamp, picked.stations)
        self._members.update(members)
        if problems:
            self._problems.update(problems)
        if pending is not None:
            self._pending = pending
        if not self._pending or time.monotonic() - self._published > PUBLISH_EVERY:
            self._publish()

    def on_member(self, piece: Piece) -> None:
        """A member arrived, or will not come."""
        request = self._request
        if request is None or piece.opened is not request.opened or self._session.view != POINT:
            return
        fields = self._session.library.peek_member(piece)
        if fields is not None and request.quantity.available(fields):
            self._members[piece] = _value(fields, request)
            if not self._publishing:  # many arrive together, and are drawn together
                self._publishing = True
                self._later(self._publish_members)

    def _publish_members(self) -> None:
        self._publishing = False
        self._publish()

    # ---------------------------------------------------------------- results

    def _publish(self, *_: object) -> None:
        session, request = self._session, self._request
        if request is None or session.view != POINT:
            return
        self._published = time.monotonic()
        self.series = self._series(request)
        if request.sited is not None and request.sited.size:
            self._score(request.sited)

    def _series(self, request: Request) -> PointSeries:
        session, hours = self._session, self._hours
        near = self.near
        station = near[0] if near is not None else None
        wanted = None
        if station is not None and session.height == STATION_HEIGHT and request.sited.corrects:
            wanted = float(request.sited.elevation[station])

        def lifted(key: str, values: Values) -> Values:
            if wanted is None:
                return values
            height = request.place.coarse_height if key == COARSE else request.place.height
            return np.asarray(at_height(values, height, wanted))

        labels = {COARSE: "Coarse input", TRUTH: "Truth"}
        labels |= {choice.key: choice.label for choice in session.choices or ()}
        stamps = hours.astype(np.int64).tolist()
        nothing = np.full(1, np.nan)
        lines = tuple(
            Line(
                key,
                labels.get(key, key),
                lifted(key, np.array([self._points.get(key, {}).get(t, nothing)[0] for t in stamps])),
                self._problems.get(key, ""),
            )
            for key in self._keys()
        )
        bands = tuple(
            Band(choice.key, choice.label, lifted(choice.key, self._band(choice, hours)))
            for choice in session.generators
        )
        observed = None
        if station is not None:
            values = request.sited.observed(hours)[:, station]
            observed = Line("observed", request.sited.names[station], values)
        return PointSeries(
            request.place, request.quantity, hours, lines, bands, observed, wanted, self._pending
        )

    def _band(self, choice: Any, hours: NDArray[np.datetime64]) -> Values:
        session = self._session
        numbers = session.member_numbers()
        values = np.full((len(numbers), hours.size), np.nan)
        for column, hour in enumerate(hours):
            for row, member in enumerate(numbers):
                piece = Piece(session.opened, hour, choice.key, choice.checkpoint, session.draw, member)
                values[row, column] = self._members.get(piece, np.nan)
        return values

    @property
    def near(self) -> tuple[int, float] | None:
        """The station beside the point and its distance [m]; None where none is near enough."""
        if self.place is None or self.sited is None or self._session.quantity != QUANTITY:
            return None
        found = self.sited.nearest(self.place)
        return found if found is not None and found[1] <= NEAR else None

    def _score(self, sited: Sited) -> None:
        hours = self._hours
        corrected = self._session.height == STATION_HEIGHT and sited.corrects
        cells = {key: dict(found) for key, found in self._cells.items()}
        labels = {line.key: line.label for line in self.series.lines}
        stamps = sorted({stamp for key in labels for stamp in cells.get(key, {})})
        everything = np.intersect1d(np.array(stamps, "datetime64[ns]"), sited.stations.times)

        def work() -> Iterator[StationTable]:
            yield StationTable(
                sited,
                corrected,
                compute_scores(sited, hours, cells, labels, corrected=corrected, each=True),
                compute_scores(sited, everything, cells, labels, corrected=corrected, each=True),
            )

        self._scores.ask(work, lambda table: self.param.update(errors=table), self._session.fail)

    # ---------------------------------------------------------------- sampling

    def missing_members(self) -> list[Piece]:
        """Members of the generative model in question that are not there for these hours, nearest first."""
        session = self._session
        choice, request = session.generating, self._request
        if choice is None or request is None or session.current is None or not self._hours.size:
            return []
        return [
            piece
            for hour in nearest_first(self._hours, session.current)
            for member in session.member_numbers()
            if (piece := Piece(session.opened, hour, choice.key, choice.checkpoint, session.draw, member))
            not in self._members
        ]

    def sample(self) -> None:
        """Have the missing members of these hours sampled; ``session.progress`` tells how it goes."""
        pieces = self.missing_members()
        if pieces:
            self._session.sample_pieces(pieces)


def _same(one: Request, other: Request | None) -> bool:
    # Values at the point do not depend on the stations, which may be loaded later.
    return (
        other is not None
        and one.opened is other.opened
        and (one.identity, one.place, one.quantity) == (other.identity, other.place, other.quantity)
        and one.sited is other.sited
    )


def _stamp(hour: np.datetime64) -> int:
    return int(hour.astype("datetime64[ns]").astype(np.int64))


def _pick(fields: Fields, request: Request, key: str, hour: np.datetime64, *, point: bool = True) -> Picked:
    coarse = key == COARSE
    domain, place, sited = request.opened.domain, request.place, request.sited
    grid = domain.coarse if coarse else domain.fine
    value = None
    if point:
        index = flat([place.coarse if coarse else place.fine], grid.shape)
        value = float(pick(fields, request.quantity, index)[0])
    stations = None
    if sited is not None:
        stations = pick(fields, request.quantity, sited.coarse if coarse else sited.fine)
    return Picked(key, _stamp(hour), value, stations)


def _value(fields: Fields, request: Request) -> float:
    index = flat([request.place.fine], request.opened.domain.fine.shape)
    return float(pick(fields, request.quantity, index)[0])
