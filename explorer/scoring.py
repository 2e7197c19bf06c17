"""Scores over many hours for one visitor: computed in the background, growing, and to be stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import param

from core.regions import Window
from explorer.gradual import Gradual
from explorer.hour_scores import (
    Array,
    Hours,
    HoursTable,
    bins_of,
    columns_of,
    count_truth,
    make_row,
    prepare_truth,
    score_members,
    shares,
    summarise,
    target_of,
)
from explorer.hours import every_nth, thinned
from explorer.jobs import Draw, Piece
from explorer.jobs import sentence as plain
from explorer.library import TRUTH, OpenStore
from explorer.quantities import Quantity
from explorer.results import Fields
from explorer.sampling import Desk
from explorer.session import Session
from explorer.snapshot import ModelChoice
from explorer.words import HOURS

if TYPE_CHECKING:
    from core.evaluation.field_scores import Truth
    from core.evaluation.tally import Tally

Mark = tuple[str, str, Draw | None, int]
"""Key of a downscaler, hash of its checkpoint, how its members are drawn, and how many."""

log = logging.getLogger(__name__)

TABLE_EVERY = 1.0
"""Seconds between two tables while they grow, at least."""
MAPS_EVERY = 5.0
"""Seconds between two maps and distributions, which are more to send."""


@dataclass(frozen=True)
class Standing:
    """How far the scoring is: pairs of downscaler and hour, and seconds to go where that is known."""

    done: int
    total: int
    left: float | None = None
    running: bool = True
    stopped: bool = False

    @property
    def share(self) -> float:
        """Part that is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0


class Entry:
    """What is known of one downscaler over the hours (N,); scores are changed by the thread that scores alone.

    Attributes
    ----------
    wanted : members that an hour should have
    members : scored in every hour (N,), 0 where it is not scored
    looked : hours whose members were looked for (N,)
    whole, part : scores of the hours that have all members, and of those that lack some
    again : whether hours that lack members are to be scored anew
    """

    def __init__(self, choice: ModelChoice, count: int, wanted: int) -> None:
        self.choice = choice
        self.wanted = wanted
        self.members = np.zeros(count, np.intp)
        self.looked = np.zeros(count, bool)
        self.whole: Tally | None = None
        self.part: Tally | None = None
        self.again = False
        self.problem = ""

    @property
    def missing(self) -> int:
        """Members that are nowhere, of the hours that were looked at."""
        return int((self.wanted - self.members)[self.looked].sum())

    def forget_part(self) -> None:
        """Take the hours that lack members for neither scored nor looked at."""
        self.part, self.again = None, False
        short = self.members < self.wanted
        self.members[short], self.looked[short] = 0, False

    def tally(self, plan: Plan) -> Tally:
        """Scores of all hours."""
        if self.whole is None or self.part is None:
            return self.whole or self.part or _tally(plan)
        both = _tally(plan)
        for some in (self.whole, self.part):
            for name, values in some.scores.items():
                both.scores[name][:, some.done] = values[:, some.done]
            for name, (total,) in some.sums.items():
                if total is not None:
                    both.add_sum(both.targets[0], name, total)
        return both


@dataclass(frozen=True, eq=False)
class Plan:
    """What is scored: hours of a store, a quantity, a region; ``offered`` hours were there to choose from."""

    opened: OpenStore
    quantity: Quantity
    window: Window
    hours: Hours
    offered: int
    every: int

    def same(self, other: Plan | None) -> bool:
        """Whether scores of one are those of the other."""
        return (
            other is not None
            and self.opened is other.opened
            and (self.quantity, self.window) == (other.quantity, other.window)
            and np.array_equal(self.hours, other.hours)
        )


class Scoring(param.Parameterized):
    """The scores of a session over many hours while its view looks at them."""

    table = param.Parameter(default=None, doc="HoursTable so far, or None.")
    standing = param.Parameter(default=None, doc="Standing, or None before the start.")
    sampling = param.Parameter(default=None, doc="Progress of the members being sampled, or None.")
    problems = param.Dict(default={}, doc="Why a downscaler is not scored, by its label.")
    common = param.Boolean(default=False, doc="Means over the hours that all downscalers have.")

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._library = session.library
        self._gradual = Gradual(session.library.submit, session.later)
        self._desk = Desk(session.library.jobs, session.later, self._on_member, self._on_sampling, session)
        self._lock = Lock()  # a step that was overtaken may still be at work when the next plan begins
        self._plan: Plan | None = None
        self._entries: dict[tuple[object, ...], Entry] = {}
        self._truth: Tally | None = None
        self._awaited: dict[tuple[str, np.datetime64], set[Piece]] = {}  # hours being sampled: what lacks
        self._stopped = False
        self._again = False
        session.closing.append(self.close)
        session.param.watch(
            self._follow,
            ["view", "scope", "hours", "most", "models", "choices", "variable", "region", "opened", "sampler",
             "steps", "seed", "members"],
        )  # fmt: skip
        self.param.watch(lambda _: self._start() if self._plan is not None else None, "common")
        self._follow()

    def close(self) -> None:
        """The visitor left."""
        self._gradual.stop()
        self._desk.close()

    # ---------------------------------------------------------------- what is wanted

    @property
    def looked_at(self) -> bool:
        """Whether the session's view shows scores over many hours."""
        return self.session.view == "scores" and self.session.scope == HOURS

    def _follow(self, *_: object) -> None:
        if not self.looked_at:
            return  # what was begun goes on
        session = self.session
        if session.choices is None:
            return  # downscalers are still looked for
        if (
            session.opened is None
            or session.window is None
            or not session.has_truth
            or not session.hours.size
        ):
            self._gradual.stop()
            self._plan = None
            self.param.update(table=None, standing=None)
            return
        plan = Plan(
            session.opened, session.quantity, session.window, thinned(session.hours, session.most),
            session.hours.size, every_nth(session.hours.size, session.most),
        )  # fmt: skip
        if not plan.same(self._plan):
            self._gradual.stop()
            self._desk.cancel()
            self._plan, self._entries, self._truth = plan, {}, None
            self._stopped = False
            self.param.update(table=None, standing=None, problems={})
        self._start()

    def go_on(self) -> None:
        """Compute what is missing after a stop."""
        self._stopped = False
        self._start()

    def stop(self) -> None:
        """Stop after the hour at work; what is there stays."""
        self._stopped = True
        self._gradual.stop()
        self._desk.cancel()
        if self.standing is not None:
            self.standing = replace(self.standing, running=False, stopped=True, left=None)

    def sample_missing(self) -> None:
        """Sample members of the hours that generative models lack, and score the hours as they get complete."""
        plan, session = self._plan, self.session
        if plan is None:
            return
        entries = [(choice, self._entry(plan, choice)) for choice in session.generators]
        missing = [
            piece
            for position, hour in enumerate(plan.hours)
            for choice, entry in entries
            if entry.members[position] < entry.wanted
            for piece in self._pieces(choice, hour)
            if self._library.peek_member(piece) is None
        ][: self._library.settings.most_fields]  # more than may wait takes several presses of the button
        for _, entry in entries:
            entry.again = True  # hours that have some members are scored anew when they have all
        self._awaited = {}
        for piece in missing:
            self._awaited.setdefault((piece.key, piece.hour), set()).add(piece)
        self._stopped = False
        if missing:
            self._desk.ask(missing)
        self._start()

    def _entry(self, plan: Plan, choice: ModelChoice) -> Entry:
        """What is known of a downscaler as it is drawn now."""
        mark = self._mark(choice)
        if mark not in self._entries:
            self._entries[mark] = Entry(choice, plan.hours.size, mark[-1])
        return self._entries[mark]

    def _mark(self, choice: ModelChoice) -> Mark:
        """What the scores of a downscaler depend on beside the plan."""
        if not choice.generative:
            return choice.key, "", None, 1
        session = self.session
        return choice.key, choice.checkpoint, session.draw, len(session.member_numbers())

    def _pieces(self, choice: ModelChoice, hour: np.datetime64) -> list[Piece]:
        numbers = self.session.member_numbers()
        return [replace(self.session.piece(choice, number), hour=hour) for number in numbers]

    # ---------------------------------------------------------------- members

    def _on_member(self, piece: Piece) -> None:
        plan, place = self._plan, (piece.key, piece.hour)
        if plan is None:
            return
        if place in self._awaited:
            self._awaited[place].discard(piece)
            if self._awaited[place]:
                return
            del self._awaited[place]
        for entry in self._entries.values():
            if entry.choice.key == piece.key:
                entry.looked[plan.hours == piece.hour] = False
        self._start(soon=True)

    def _on_sampling(self) -> None:
        active = self._desk.active
        self.sampling = self._desk.progress
        if not active and self._awaited:
            self._awaited.clear()
            self._start(soon=True)

    # ---------------------------------------------------------------- the work

    def _start(self, *, soon: bool = False) -> None:
        """Score what is wanted and not scored yet; with ``soon``, when what is under way has ended."""
        plan, session = self._plan, self.session
        if plan is None or self._stopped or session.opened is not plan.opened:
            return
        if soon and self._gradual.running:
            self._again = True
            return
        self._again = False
        # Those that are unticked are kept, those of other seeds or numbers of members are not: each holds maps.
        current = {self._mark(choice) for choice in session.choices or ()}
        self._entries = {mark: entry for mark, entry in self._entries.items() if mark in current}
        entries = [self._entry(plan, choice) for choice in session.running]
        draws = {choice.key: self._pieces(choice, plan.hours[0]) for choice in session.generators}
        steps = self._steps(plan, entries, draws, frozenset(self._awaited), self.common)
        self._gradual.start(steps, self._take, self._ended)

    def _take(self, report: tuple[Standing, HoursTable | None, dict[str, str]]) -> None:
        standing, table, problems = report
        if table is not None:
            before: HoursTable | None = self.table
            if before is not None and table.truth_shares is None:
                table = _with_old_maps(table, before)
            self.param.update(standing=standing, table=table, problems=problems)
        else:
            self.standing = standing

    def _ended(self, error: Exception | None) -> None:
        if self.standing is not None:
            self.standing = replace(self.standing, running=False, left=None)
        if error is not None:
            self.session.fail(error)
        elif self._again:
            self._start()

    def _steps(
        self,
        plan: Plan,
        entries: list[Entry],
        draws: dict[str, list[Piece]],
        awaited: frozenset[tuple[str, np.datetime64]],
        common: bool,
    ) -> Iterator[tuple[Standing, HoursTable | None, dict[str, str]] | None]:
        """One pair of downscaler and hour after the other; in threads of the library."""
        with self._lock:
            for entry in entries:
                if entry.again:
                    entry.forget_part()
            if self._truth is None:
                self._truth = _tally(plan)
            counted, land = self._truth, _land(plan.opened)

        def may_be_there(key: str, looked: bool, hour: np.datetime64) -> bool:
            """Whether an hour has members; what a disk has is found when it is the hour's turn."""
            if (key, hour) in awaited:
                return False
            found = (self._library.peek_member(replace(piece, hour=hour)) for piece in draws[key])
            return not looked or any(fields is not None for fields in found)

        ready = [
            (position, [
                e for e in entries
                if not e.members[position] and not e.problem
                and (not e.choice.generative or may_be_there(e.choice.key, e.looked[position], hour))
            ])
            for position, hour in enumerate(plan.hours)
        ]  # fmt: skip
        before = sum(int((e.members > 0).sum()) for e in entries)
        total, done = before + sum(len(some) for _, some in ready), 0
        begun = told = drawn = time.monotonic()

        def report(*, maps: bool, left: float | None) -> tuple[Standing, HoursTable, dict[str, str]]:
            with self._lock:
                table = _table(plan, entries, counted, common=common, maps=maps)
            problems = {entry.choice.label: entry.problem for entry in entries if entry.problem}
            return Standing(before + done, total, left), table, problems

        yield Standing(before, total), None, {}
        if before:
            yield report(maps=True, left=None)
        for position, some in ready:
            truth = None
            for entry in some:
                made = self._made(plan, entry, position, draws.get(entry.choice.key))
                if made:
                    truth = truth or self._prepared(plan, position, counted, land)
                    self._score(plan, entry, position, truth, made)
                done += 1
                now = time.monotonic()
                left = (now - begun) / done * (total - before - done)
                if now - told < TABLE_EVERY:
                    yield None
                    continue
                maps = now - drawn >= MAPS_EVERY
                told, drawn = now, now if maps else drawn
                yield report(maps=maps, left=left)
        yield report(maps=True, left=None)

    def _made(self, plan: Plan, entry: Entry, position: int, pieces: list[Piece] | None) -> list[Fields]:
        """What a downscaler made of an hour; what goes wrong ends the scoring of this downscaler."""
        if entry.problem:
            return []
        hour = plan.hours[position]
        entry.looked[position] = True
        try:
            if pieces is None:
                return [self._library.fields_once(plan.opened, hour, entry.choice.key)]
            found = (self._library.member_once(replace(piece, hour=hour)) for piece in pieces)
            return [fields for fields in found if fields is not None]
        except Exception as error:
            self._gives_up(entry, hour, error)
            return []

    def _prepared(self, plan: Plan, position: int, counted: Tally, land: Any) -> Truth:
        """The truth of an hour, which is counted as well."""
        fields = self._library.fields_once(plan.opened, plan.hours[position], TRUTH)
        truth = prepare_truth(fields, plan.quantity, plan.window, plan.opened.domain, land)
        with self._lock:
            if not counted.done[position]:
                count_truth(counted, position, truth)
        return truth

    def _score(self, plan: Plan, entry: Entry, position: int, truth: Truth, made: list[Fields]) -> None:
        """One downscaler and hour into its tally; what goes wrong ends the scoring of this downscaler."""
        try:
            with self._lock:
                if entry.members[position]:
                    return  # a run that was overtaken did it
                if len(made) == entry.wanted:
                    tally = entry.whole = entry.whole or _tally(plan)
                else:
                    tally = entry.part = entry.part or _tally(plan)
                score_members(tally, position, made, truth, plan.quantity, plan.window, plan.opened.domain)
                entry.members[position] = len(made)
        except Exception as error:
            self._gives_up(entry, plan.hours[position], error)

    @staticmethod
    def _gives_up(entry: Entry, hour: np.datetime64, error: Exception) -> None:
        log.warning("%s can't be scored at %s", entry.choice.key, hour, exc_info=error)
        entry.problem = plain(error)


def _tally(plan: Plan) -> Tally:
    from core.evaluation.tally import Tally  # brings torch, which whoever never asks should not wait for

    return Tally({}, (target_of(plan.quantity),), plan.hours)


def _table(plan: Plan, entries: list[Entry], counted: Tally, *, common: bool, maps: bool) -> HoursTable:
    rows = [
        make_row(
            e.choice.key, e.choice.label, e.tally(plan), e.members, plan.quantity, e.choice.generative,
            maps=maps,
        )
        for e in entries
    ]  # fmt: skip
    columns = [
        column
        for column in columns_of(plan.quantity)
        if any(np.isfinite(row.values[column.name]).any() for row in rows)
    ]
    done, used, blocks = summarise(rows, columns, plan.hours, common=common)
    return HoursTable(
        plan.quantity, plan.window, plan.hours, plan.offered, plan.every, tuple(columns), done, common, used,
        blocks, bins_of(plan.quantity), _with_values(shares(counted, plan.quantity)) if maps else None,
        sum(e.missing for e in entries if e.choice.generative),
    )  # fmt: skip


def _with_values(values: Array | None) -> Array:
    return np.full((2, 1), np.nan) if values is None else values


def _with_old_maps(table: HoursTable, before: HoursTable) -> HoursTable:
    """A table without maps gets those of the one before, so that they do not vanish between two updates."""
    rows = []
    for row in table.rows:
        old = before.get(row.key)
        if old is not None:
            row = replace(row, bias=old.bias, rmse=old.rmse, shares=old.shares)
        rows.append(row)
    return replace(table, rows=tuple(rows), truth_shares=before.truth_shares)


def _land(opened: OpenStore) -> Any:
    """Where at least half of a fine cell is land, (H, W); everywhere where the store does not say."""
    static = opened.static
    if static is None or "land_fraction" not in static:
        return np.ones(opened.domain.fine.shape, bool)
    return static["land_fraction"].values >= 0.5
