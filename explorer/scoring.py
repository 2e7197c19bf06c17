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
from explorer.jobs import Piece
from explorer.jobs import sentence as plain
from explorer.library import TRUTH, OpenStore
from explorer.quantities import Quantity
from explorer.results import Fields
from explorer.sampling import Desk
from explorer.session import HOURS, ModelChoice, Session

if TYPE_CHECKING:
    from core.evaluation.tally import Tally

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
    """What is known of one downscaler over the hours; changed by the thread that scores alone."""

    def __init__(self, choice: ModelChoice, count: int) -> None:
        self.choice = choice
        self.members = np.zeros(count, np.intp)
        self.tally: Tally | None = None
        self.problem = ""


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
        self._awaited: set[tuple[str, np.datetime64]] = set()
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

    @property
    def sampling_active(self) -> bool:
        """Whether missing members are being sampled."""
        return self._desk.active

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
        missing: list[Piece] = []
        for hour in plan.hours:
            for choice in session.generators:
                missing += [
                    piece for piece in self._pieces(choice, hour) if self._library.peek_member(piece) is None
                ]
        # More than may wait for one visitor takes several presses of the button.
        missing = missing[: self._library.settings.most_fields]
        if not missing:
            return
        # Hours that have some members are scored anew when they have all.
        wanted = len(self._pieces(session.generators[0], plan.hours[0]))
        for choice in session.generators:
            mark = self._mark(choice)
            entry = self._entries.get(mark)
            if entry is not None and ((entry.members > 0) & (entry.members < wanted)).any():
                self._entries[mark] = Entry(choice, plan.hours.size)
        self._awaited = {(piece.key, piece.hour) for piece in missing}
        self._stopped = False
        self._desk.ask(missing)
        self._start()

    def _mark(self, choice: ModelChoice) -> tuple[object, ...]:
        """What the scores of a downscaler depend on beside the plan."""
        session = self.session
        return (choice.key, choice.checkpoint, session.draw, session.members if choice.generative else 0)

    def _pieces(self, choice: ModelChoice, hour: np.datetime64) -> list[Piece]:
        numbers = range(self.session.members)
        return [replace(self.session.piece(choice, number), hour=hour) for number in numbers]

    # ---------------------------------------------------------------- members

    def _on_member(self, piece: Piece) -> None:
        plan = self._plan
        if plan is None:
            return
        if (piece.key, piece.hour) in self._awaited:
            choice = next((c for c in self.session.generators if c.key == piece.key), None)
            if choice is None or any(
                self._library.peek_member(p) is None and not self._desk.problem(p)
                for p in self._pieces(choice, piece.hour)
            ):
                return
            self._awaited.discard((piece.key, piece.hour))
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
        plan = self._plan
        if plan is None or self._stopped:
            return
        if soon and self._gradual.running:
            self._again = True
            return
        self._again = False
        entries, draws = [], {}
        for choice in self.session.running:
            mark = self._mark(choice)
            entries.append(self._entries.setdefault(mark, Entry(choice, plan.hours.size)))
            if choice.generative:
                draws[choice.key] = self._pieces(choice, plan.hours[0])
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
        from core.evaluation.tally import Tally

        with self._lock:
            domain = plan.opened.domain
            targets = (target_of(plan.quantity),)
            for entry in entries:
                if entry.tally is None:
                    entry.tally = Tally({}, targets, plan.hours)
            if self._truth is None:
                self._truth = Tally({}, targets, plan.hours)
            counted, land = self._truth, _land(plan.opened)
        members: dict[tuple[str, int], int] = {}
        missing = 0
        for key, pieces in draws.items():
            for position, hour in enumerate(plan.hours):
                there = sum(
                    self._library.peek_member(replace(piece, hour=hour)) is not None for piece in pieces
                )
                members[key, position] = 0 if (key, hour) in awaited else there
                missing += len(pieces) - there
        ready = [
            (position, [
                e for e in entries
                if not e.members[position] and not e.problem
                and (not e.choice.generative or members[e.choice.key, position])
            ])
            for position in range(plan.hours.size)
        ]  # fmt: skip
        before = sum(int((e.members > 0).sum()) for e in entries)
        total, done = before + sum(len(some) for _, some in ready), 0
        begun = told = drawn = time.monotonic()

        def report(*, maps: bool, left: float | None) -> tuple[Standing, HoursTable, dict[str, str]]:
            with self._lock:
                table = _table(plan, entries, counted, common=common, maps=maps, missing=missing)
            problems = {entry.choice.label: entry.problem for entry in entries if entry.problem}
            return Standing(before + done, total, left), table, problems

        yield Standing(before, total), None, {}
        if before:
            yield report(maps=True, left=None)
        for position, some in ready:
            if not some:
                continue
            hour = plan.hours[position]
            fields = self._library.fields_once(plan.opened, hour, TRUTH)
            truth = prepare_truth(fields, plan.quantity, plan.window, domain, land)
            with self._lock:
                if not counted.done[position]:
                    count_truth(counted, position, truth)
            for entry in some:
                if not entry.problem:
                    with self._lock:
                        self._score(plan, entry, position, truth, draws.get(entry.choice.key))
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

    def _score(self, plan: Plan, entry: Entry, position: int, truth: Any, pieces: list[Piece] | None) -> None:
        """One downscaler and hour into its tally; what goes wrong ends the scoring of this downscaler."""
        hour = plan.hours[position]
        if entry.members[position] or entry.tally is None:
            return  # a run that was overtaken did it
        try:
            made: list[Fields] = []
            if pieces is None:
                made = [self._library.fields_once(plan.opened, hour, entry.choice.key)]
            else:
                found = (self._library.peek_member(replace(piece, hour=hour)) for piece in pieces)
                made = [fields for fields in found if fields is not None]
            if made:
                domain = plan.opened.domain
                score_members(entry.tally, position, made, truth, plan.quantity, plan.window, domain)
                entry.members[position] = len(made)
        except Exception as error:
            log.warning("%s can't be scored at %s", entry.choice.key, hour, exc_info=error)
            entry.problem = plain(error)


def _table(
    plan: Plan, entries: list[Entry], counted: Tally, *, common: bool, maps: bool, missing: int
) -> HoursTable:
    rows = [
        make_row(
            e.choice.key, e.choice.label, e.tally, e.members, plan.quantity, e.choice.generative, maps=maps
        )
        for e in entries
        if e.tally is not None
    ]
    columns = [
        column
        for column in columns_of(plan.quantity)
        if any(np.isfinite(row.values[column.name]).any() for row in rows)
    ]
    done, used, blocks = summarise(rows, columns, plan.hours, common=common)
    return HoursTable(
        plan.quantity, plan.window, plan.hours, plan.offered, plan.every, tuple(columns), done, common, used,
        blocks, bins_of(plan.quantity), _with_values(shares(counted, plan.quantity)) if maps else None, missing,
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
