"""Many hours side by side for one visitor: small multiples, and the story of the hours that differ most."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import param

from core.regions import Window
from explorer.cut import inside
from explorer.display import COARSE, difference
from explorer.encoding import robust_range
from explorer.gradual import Gradual
from explorer.hours import Hours, every_nth, of_day, spread_out, thinned
from explorer.jobs import Piece
from explorer.jobs import sentence as plain
from explorer.library import OpenStore
from explorer.quantities import FloatField, Quantity
from explorer.session import Session
from explorer.story import Story, find_story
from explorer.style import DIVERGING, PALETTES
from explorer.thumbnails import thumbnail
from explorer.words import DIFFERENCE, STORY

log = logging.getLogger(__name__)

COLUMNS = 8
"""Hours of the small multiples at most."""
STEPS = {"day3": 3, "day6": 6}
"""Hours between two of them, by the name of the selection."""


@dataclass(frozen=True)
class Cell:
    """One small map: a picture as ``data:`` address, or why there is none."""

    picture: str = ""
    words: str = ""


@dataclass(frozen=True)
class Multiples:
    """Small maps: ``rows`` are (key, label) of fields, ``cells`` by (key, hour); what is missing is to come."""

    hours: Hours
    rows: tuple[tuple[str, str], ...]
    quantity: Quantity
    window: Window
    against: str
    limits: tuple[float, float]
    colours: tuple[str, ...]
    units: str
    cells: Mapping[tuple[str, np.datetime64], Cell]

    @property
    def complete(self) -> bool:
        """Whether every cell is there."""
        return len(self.cells) == len(self.rows) * self.hours.size


@dataclass(frozen=True)
class Card:
    """An hour of the story: pictures of both fields and of the difference left - right, with its RMS."""

    hour: np.datetime64
    difference: float
    left: str
    right: str
    between: str


@dataclass(frozen=True)
class Cards:
    """The story with pictures.

    Attributes
    ----------
    offered, every : of how many hours every n-th was looked at
    limits, spread : colour ranges of fields and differences
    """

    story: Story
    cards: tuple[Card, ...]
    quantity: Quantity
    window: Window
    left: str
    right: str
    offered: int
    every: int
    limits: tuple[float, float]
    spread: tuple[float, float]
    colours: tuple[str, ...]


class Comparison(param.Parameterized):
    """What the view of many hours shows of a session while it is looked at."""

    multiples = param.Parameter(default=None, doc="Multiples so far, or None.")
    cards = param.Parameter(default=None, doc="Cards so far, or None.")
    running = param.Boolean(default=False, doc="Whether something is being computed.")
    stopped = param.Boolean(default=False, doc="Whether a person stopped it.")

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._library = session.library
        self._gradual = Gradual(session.library.submit, session.later)
        self._mark: tuple[object, ...] = ()
        self._absent: set[Piece] = set()  # members that were looked for and not found
        session.closing.append(self._gradual.stop)
        session.param.watch(
            self._follow,
            ["view", "selection", "hour", "hours", "most", "models", "choices", "variable", "region", "opened",
             "mode", "reference", "left", "right", "palette", "sampler", "steps", "seed", "snapshot"],
        )  # fmt: skip
        self._follow()

    def stop(self) -> None:
        """Stop looking; what was found stays."""
        self._gradual.stop()
        self.param.update(running=False, stopped=True)

    def go_on(self) -> None:
        """Look again after a stop."""
        self._mark = ()
        self._follow()

    # ---------------------------------------------------------------- what is wanted

    def _follow(self, *_: object) -> None:
        session = self.session
        if session.view != "hours":
            self._gradual.pause()
            return
        window, opened = session.window, session.opened
        if opened is None or window is None or not session.hours.size or session.choices is None:
            self._gradual.stop()
            self._mark = ()
            self.param.update(multiples=None, cards=None, running=False)
            return
        if session.selection == STORY:
            self._tell(opened, window)
        else:
            self._show(opened, window)

    def hours(self) -> Hours:
        """The hours of the small multiples."""
        session = self.session
        if session.selection in STEPS and session.current is not None:
            return of_day(session.hours, session.current, STEPS[session.selection])
        return spread_out(session.hours, COLUMNS)

    def _reader(
        self, opened: OpenStore, quantity: Quantity
    ) -> Callable[[str, np.datetime64], FloatField | None]:
        """Gives a field in display units by key and hour, None for members that are not there."""
        pieces: dict[str, Piece] = {
            choice.key: self.session.piece(choice) for choice in self.session.generators
        }
        library = self._library
        absent = self._absent = set()

        def read(key: str, hour: np.datetime64) -> FloatField | None:
            if key not in pieces:
                return quantity.compute(library.fields_once(opened, hour, key))
            piece = replace(pieces[key], hour=hour)
            made = library.member_once(piece)
            if made is None:
                absent.add(piece)
                return None
            return quantity.compute(made)

        return read

    def _shown(self, mark: tuple[object, ...]) -> bool:
        """Whether what is wanted is there or on its way already; else it is begun anew.

        It is not where members were missing that somebody has sampled since.
        """
        found = any(self._library.peek_member(piece) is not None for piece in tuple(self._absent))
        if mark == self._mark and not found:
            self._gradual.resume()
            return True
        self._mark = mark
        return False

    def _outlines(self, opened: OpenStore) -> dict[str, Any]:
        lines = self._library.outlines(opened)
        return {kind: lines[kind] for kind in ("coastline", "lake") if kind in lines}

    def _fields_palette(self, quantity: Quantity) -> tuple[str, ...]:
        name = self.session.palette if self.session.palette in PALETTES else quantity.palette
        return tuple(DIVERGING if quantity.signed else PALETTES[name])

    # ---------------------------------------------------------------- small multiples

    def _show(self, opened: OpenStore, window: Window) -> None:
        session, quantity = self.session, self.session.quantity
        hours = self.hours()
        against = session.against if session.mode == DIFFERENCE else ""
        names = session.references()
        order = [COARSE, *(key for key in names if key != COARSE)]
        rows = tuple((key, names[key]) for key in order if key != against)
        colours = tuple(DIVERGING) if against else self._fields_palette(quantity)
        mark = (
            "multiples", opened, quantity.key, window, hours.tobytes(), rows, against, session.draw, colours,
        )  # fmt: skip
        if self._shown(mark):
            return
        read = self._reader(opened, quantity)
        self.param.update(running=True, stopped=False)
        steps = self._multiples(opened, window, quantity, hours, rows, against, colours, read)
        self._gradual.start(steps, lambda made: self.param.update(multiples=made), self._ended)

    def _multiples(
        self,
        opened: OpenStore,
        window: Window,
        quantity: Quantity,
        hours: Hours,
        rows: tuple[tuple[str, str], ...],
        against: str,
        colours: tuple[str, ...],
        read: Callable[[str, np.datetime64], FloatField | None],
    ) -> Iterator[Multiples | None]:
        """First what is quick to read, which gives the colour range, then the rest hour by hour."""
        domain, outlines = opened.domain, self._outlines(opened)
        slow = [key for key, _ in rows if Session.is_slow(key)]
        units = quantity.difference_units if against else quantity.units
        made = Multiples(hours, rows, quantity, window, against, (0.0, 1.0), colours, units, {})
        cells: dict[tuple[str, np.datetime64], Cell] = {}
        found: dict[tuple[str, np.datetime64], FloatField] = {}

        def look(keys: Iterable[str], hour: np.datetime64) -> None:
            """Put the fields of an hour into ``found``, or why there are none into ``cells``."""
            reference = None
            for key in keys:
                try:
                    if against and reference is None:
                        reference = read(against, hour)
                    field = read(key, hour)
                    if field is None or (against and reference is None):
                        cells[key, hour] = Cell(words="not sampled")
                    else:
                        found[key, hour] = field if reference is None else difference(field, reference)
                except Exception as error:
                    log.warning("%s failed for %s", key, hour, exc_info=error)
                    cells[key, hour] = Cell(words=plain(error))

        def draw(limits: tuple[float, float]) -> None:
            for place in list(found):
                picture = thumbnail(found.pop(place), limits, colours, domain, window, outlines)
                cells[place] = Cell(picture)

        quick = [key for key, _ in rows if key not in slow]
        for hour in hours:
            look(quick, hour)
            yield None
        # The coarse cells differ most from a field, by their size alone.
        telling = {key for key, _ in found} - ({COARSE} if against else set())
        seen = [inside(field, opened.domain, window) for (key, _), field in found.items() if key in telling]
        if not seen and slow and hours.size:
            look(slow, hours[0])
            seen = [inside(field, opened.domain, window) for field in found.values()]
        signed = bool(against) or quantity.signed
        limits = robust_range(seen, signed=signed, floor=None if against else quantity.floor)
        made = replace(made, limits=limits)
        draw(limits)
        yield replace(made, cells=dict(cells))
        for hour in hours:
            if slow:
                look([key for key in slow if (key, hour) not in cells], hour)
                draw(limits)
                yield replace(made, cells=dict(cells))

    # ---------------------------------------------------------------- the story

    def _tell(self, opened: OpenStore, window: Window) -> None:
        session, quantity = self.session, self.session.quantity
        left, right = session.pair()
        hours = thinned(session.hours, session.most)
        colours = self._fields_palette(quantity)
        mark = (
            "story", opened, quantity.key, window, hours.tobytes(), left, right, session.draw, colours,
        )  # fmt: skip
        if self._shown(mark):
            return
        names, read = session.references(), self._reader(opened, quantity)
        blank = Cards(
            Story((), 0, hours.size, 0, float("nan")), (), quantity, window, names[left], names[right],
            session.hours.size, every_nth(session.hours.size, session.most), (0.0, 1.0), (-1.0, 1.0), colours,
        )  # fmt: skip
        self.param.update(running=True, stopped=False, cards=blank)

        def fields(hour: np.datetime64) -> tuple[FloatField, FloatField] | None:
            one, other = read(left, hour), read(right, hour)
            return None if one is None or other is None else (one, other)

        outlines = self._outlines(opened)

        def work() -> Iterator[Cards | None]:
            for story in find_story(hours, fields, window, opened.domain):
                yield None if story is None else _with_pictures(blank, story, opened, outlines)

        self._gradual.start(work(), lambda made: self.param.update(cards=made), self._ended)

    def _ended(self, error: Exception | None) -> None:
        self.running = False
        if error is not None:
            self.session.fail(error)


def _with_pictures(blank: Cards, story: Story, opened: OpenStore, outlines: Mapping[str, Any]) -> Cards:
    """Pictures of the hours found, all in the same colours."""
    domain, window, quantity = opened.domain, blank.window, blank.quantity
    pairs = [(chapter.left, chapter.right) for chapter in story.chapters]
    between = [difference(*pair) for pair in pairs]
    seen = [inside(field, opened.domain, window) for pair in pairs for field in pair]
    limits = robust_range(seen, signed=quantity.signed, floor=quantity.floor)
    wide = robust_range([inside(field, opened.domain, window) for field in between], signed=True)

    def picture(field: FloatField, limits: tuple[float, float], colours: Any) -> str:
        return thumbnail(field, limits, colours, domain, window, outlines)

    cards = tuple(
        Card(
            chapter.hour, chapter.difference, picture(chapter.left, limits, blank.colours),
            picture(chapter.right, limits, blank.colours), picture(gap, wide, DIVERGING),
        )
        for chapter, gap in zip(story.chapters, between, strict=True)
    )  # fmt: skip
    return replace(blank, story=story, cards=cards, limits=limits, spread=wide)
