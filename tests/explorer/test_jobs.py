"""The queue of sampling: progress, cancelling, failure, turns, what is kept, memory."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import xarray as xr

from core.diffusion import samplers
from core.downscale.sampling import Sampling, SamplingStep
from explorer.jobs import (
    CANCELLED,
    DONE,
    FAILED,
    MOST_MEMBERS,
    MOST_SEED,
    MOST_STEPS,
    SAMPLERS,
    Draw,
    Job,
    Jobs,
    Piece,
    Progress,
    sentence,
)
from explorer.sampling import Desk

HOUR = np.datetime64("2021-03-16T12", "ns")
STEPS = 4
PATIENCE = 20.0


def piece(member: int = 0, key: str = "ldm") -> Piece:
    return Piece(None, HOUR, key, "hash", Draw(steps=STEPS), member)


def field(member: int) -> xr.Dataset:
    return xr.Dataset({"t2m": (("member", "time", "y", "x"), np.full((1, 1, 2, 2), member, "f4"))})


class Source:
    """Gives fields that hold the number of their member; ``at_step`` is called before each step."""

    def __init__(self, at_step: Callable[[Piece, int], None] = lambda *_: None, at_once: int = 1) -> None:
        self.keeps_on_disk = False
        self.kept: dict[Piece, dict[str, np.ndarray]] = {}
        self.steps: list[tuple[str, int, int]] = []
        self.batches: list[int] = []
        self.previews = 0
        self.closed = 0
        self.looked: list[Piece] = []
        self.look_seconds = 0.0
        self._at_step = at_step
        self._at_once = at_once

    def peek_member(self, wanted: Piece):
        return self.kept.get(wanted)

    def find_member(self, wanted: Piece):
        self.looked.append(wanted)
        time.sleep(self.look_seconds)
        return self.kept.get(wanted)

    def keep_member(self, made: Piece, fields) -> None:
        self.kept[made] = fields

    def members_at_once(self, wanted: Piece) -> int:
        return self._at_once

    def sample(self, pieces: Sequence[Piece]) -> Iterator[SamplingStep | xr.Dataset]:
        self.batches.append(len(pieces))
        try:
            for step in range(STEPS + 1):
                self._at_step(pieces[0], step)
                self.steps.append((pieces[0].key, pieces[0].member, step))
                numbers = tuple(p.member for p in pieces)
                yield SamplingStep(
                    (HOUR,) * len(pieces), numbers, step, STEPS, 0.0, step / STEPS, len(pieces), self._preview
                )
            yield xr.concat([field(p.member) for p in pieces], "member")
        finally:
            self.closed += 1

    def _preview(self, position: int) -> xr.Dataset:
        self.previews += 1
        return field(-1)


class Told:
    """Everything a job reported."""

    def __init__(self) -> None:
        self.all: list[Progress] = []
        self.active_again = threading.Event()

    def __call__(self, job: Job, progress: Progress) -> None:
        self.all.append(progress)

    @property
    def last(self) -> Progress:
        return self.all[-1]


class Clock:
    """A second passes whenever somebody looks."""

    def __init__(self, tick: float = 1.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def run(jobs: Jobs, *wanted: Job) -> None:
    for job in wanted:
        jobs.submit(job)
    assert jobs.wait(PATIENCE)


def test_members_are_made_and_kept_and_every_step_counts():
    source, told = Source(), Told()
    run(Jobs(source, Clock()), Job("me", [piece(n) for n in range(3)], told))
    assert [p.member for p in source.kept] == [0, 1, 2]
    np.testing.assert_array_equal(source.kept[piece(2)]["t2m"], np.full((2, 2), 2.0))
    assert told.last.state == DONE
    assert (told.last.done, told.last.total, told.last.share) == (12, 12, 1.0)
    counted = [p.done for p in told.all]
    assert counted == sorted(counted)
    assert {1, 4, 5, 8, 11, 12} <= set(counted)
    assert [p.member for p in told.last.made] == [0, 1, 2]


def test_time_left_follows_from_the_steps_that_were_made():
    times = iter(range(0, 1000, 10))
    told = Told()
    run(Jobs(Source(), lambda: float(next(times))), Job("me", [piece()], told))
    known = [(p.step, p.left) for p in told.all if p.left is not None]
    assert known[0][0] == 1
    assert known[0][1] > known[-1][1] == 0
    assert all(p.left is None for p in told.all if p.step == 0)


def test_previews_come_once_a_second_at_most_and_never_of_a_field_that_is_done():
    source, told = Source(), Told()
    run(Jobs(source, Clock(0.2)), Job("me", [piece()], told))
    shown = {p.preview.step: p.preview for p in told.all if p.preview is not None}
    assert 0 in shown
    assert STEPS not in shown
    assert source.previews < STEPS
    np.testing.assert_array_equal(shown[0].fields["t2m"], np.full((2, 2), -1.0))
    assert told.last.preview is None


def test_cancelling_stops_before_the_next_step_and_keeps_what_is_made():
    source, told = Source(), Told()
    jobs = Jobs(source)

    def cancel(at: Piece, step: int) -> None:
        if (at.member, step) == (1, 2):
            jobs.cancel(job)

    source._at_step = cancel
    job = Job("me", [piece(n) for n in range(3)], told)
    run(jobs, job)
    assert told.last.state == CANCELLED
    assert source.steps[-1] == ("ldm", 1, 2)  # the one at work was finished, no other begun
    assert list(source.kept) == [piece(0)]
    assert source.closed == 2


def test_a_job_that_waits_is_cancelled_at_once():
    reached, go = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        reached.set()
        assert go.wait(PATIENCE)

    source, told = Source(hold), Told()
    jobs = Jobs(source)
    jobs.submit(Job("other", [piece()], Told()))
    assert reached.wait(PATIENCE)
    mine = Job("me", [piece(5)], told)
    jobs.submit(mine)
    assert mine.progress.ahead == 1
    jobs.cancel(mine)
    assert told.last.state == CANCELLED
    go.set()
    assert jobs.wait(PATIENCE)
    assert list(source.kept) == [piece()]


def test_a_failure_is_a_sentence_and_the_next_job_runs():
    def fail(at: Piece, step: int) -> None:
        if at.key == "bad" and step == 1:
            raise ValueError("The hour has a gap in sst.")

    source, bad, good = Source(fail), Told(), Told()
    jobs = Jobs(source)
    run(jobs, Job("me", [piece(key="bad")], bad), Job("you", [piece()], good))
    assert (bad.last.state, bad.last.problem) == (FAILED, "The hour has a gap in sst.")
    assert good.last.state == DONE
    run(jobs, Job("me", [piece(1)], again := Told()))
    assert again.last.state == DONE


def test_an_unexpected_failure_names_its_kind():
    assert sentence(ZeroDivisionError("by zero")) == "It failed (ZeroDivisionError: by zero)."


def test_two_visitors_take_turns_member_by_member():
    begun, both = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        begun.set()
        assert both.wait(PATIENCE)

    source = Source(hold)
    jobs = Jobs(source)
    jobs.submit(Job("first", [piece(n, "a") for n in range(3)], Told()))
    assert begun.wait(PATIENCE)
    jobs.submit(Job("second", [piece(n, "b") for n in range(2)], Told()))
    both.set()
    assert jobs.wait(PATIENCE)
    assert [(p.key, p.member) for p in source.kept] == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]


def test_what_is_urgent_for_a_visitor_comes_before_what_else_they_asked_for():
    begun, both = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        begun.set()
        assert both.wait(PATIENCE)

    source = Source(hold)
    jobs = Jobs(source)
    jobs.submit(Job("me", [piece(n, "many") for n in range(2)], Told()))
    assert begun.wait(PATIENCE)
    jobs.submit(Job("me", [piece(0, "map")], Told(), urgent=True))
    both.set()
    assert jobs.wait(PATIENCE)
    assert [(p.key, p.member) for p in source.kept] == [("many", 0), ("map", 0), ("many", 1)]


def test_members_that_are_there_are_not_sampled_again():
    source, told = Source(), Told()
    jobs = Jobs(source)
    run(jobs, Job("first", [piece(n) for n in range(2)], Told()))
    before = len(source.steps)
    run(jobs, Job("second", [piece(n) for n in range(3)], told))
    assert {member for _, member, _ in source.steps[before:]} == {2}
    assert told.last.state == DONE
    assert [p.member for p in told.last.made] == [0, 1, 2]


def held(**options: object) -> tuple[Source, Jobs, threading.Event]:
    """A source at work on a field of somebody else until the event."""
    reached, go = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        reached.set()
        assert go.wait(PATIENCE)

    source = Source(hold)
    jobs = Jobs(source, **options)
    jobs.submit(Job("other", [piece(99)], Told()))
    assert reached.wait(PATIENCE)
    return source, jobs, go


def test_who_has_much_on_disk_does_not_keep_others_waiting():
    source, told = Source(), Told()
    source.keeps_on_disk, source.look_seconds = True, 0.002
    source.kept = {piece(n): {} for n in range(1000)}
    jobs = Jobs(source)
    many, one = Job("much", [piece(n) for n in range(999)], Told()), Job("little", [piece(999)], told)
    jobs.submit(many)
    while not source.looked:
        time.sleep(0.001)
    jobs.submit(one)
    end = time.monotonic() + PATIENCE
    while one.progress.state != DONE:
        assert time.monotonic() < end
        time.sleep(0.001)
    assert len(source.looked) < 300
    jobs.cancel(many)
    assert jobs.wait(PATIENCE)


def test_what_is_brought_back_is_reported_together():
    source, told = Source(), Told()
    source.kept = {piece(n): {} for n in range(384)}
    run(Jobs(source), Job("me", [piece(n) for n in range(384)], told, only_kept=True))
    assert told.last.state == DONE
    assert [p.member for p in told.last.made] == list(range(384))
    assert len(told.all) < 10


def test_a_turn_looks_for_no_more_than_it_would_make():
    source = Source(at_once=2)
    run(Jobs(source), Job("me", [piece(n) for n in range(20)], Told()))
    assert len(source.looked) == 20


def test_a_member_that_somebody_else_made_meanwhile_is_not_made_again():
    source, jobs, go = held()
    jobs.submit(Job("me", [piece(n) for n in range(3)], told := Told()))
    source.kept[piece(1)] = {}
    go.set()
    assert jobs.wait(PATIENCE)
    assert {member for _, member, _ in source.steps} == {99, 0, 2}
    assert told.last.state == DONE
    assert told.last.done == told.last.total


def test_a_job_of_many_thousand_members_costs_little_beside_them():
    source = Source()
    source.kept = {piece(n): {} for n in range(9999)}
    begun = time.monotonic()
    run(Jobs(source), Job("me", [piece(n) for n in range(9999)], told := Told(), only_kept=True))
    assert told.last.state == DONE
    assert time.monotonic() - begun < 10


def test_no_more_fields_of_one_visitor_wait_than_allowed():
    _, jobs, go = held(most_fields=3)
    told, urgent, you = Told(), Told(), Told()
    first = Job("me", [piece(n) for n in range(2)], Told())
    jobs.submit(first)
    jobs.submit(Job("me", [piece(n) for n in range(2, 4)], told))
    jobs.submit(Job("me", [piece(5)], urgent, urgent=True))
    jobs.submit(Job("you", [piece(n) for n in range(6, 9)], you))
    jobs.submit(Job("her", [piece(n) for n in range(6, 10)], much := Told()))
    end = time.monotonic() + PATIENCE
    while not (told.all and much.all):
        assert time.monotonic() < end
        time.sleep(0.001)
    jobs.cancel(first)
    jobs.submit(Job("me", [piece(n) for n in range(2, 5)], again := Told()))
    go.set()
    assert jobs.wait(PATIENCE)
    assert told.last.state == much.last.state == FAILED
    assert told.last.problem.startswith("These are 2 fields to sample beside 2 that wait already")
    assert much.last.problem.startswith("These are 4 fields to sample, and one visitor may have 3 waiting")
    assert urgent.last.state == you.last.state == again.last.state == DONE


def desk(jobs: Jobs, owner: str) -> Desk:
    return Desk(jobs, lambda work: work(), lambda _: None, lambda: None, owner)


def test_a_visitor_with_two_desks_has_one_turn():
    source, jobs, go = held()
    for key in "ab":
        desk(jobs, "me").ask([piece(n, key) for n in range(2)])
    desk(jobs, "you").ask([piece(n, "c") for n in range(2)])
    go.set()
    assert jobs.wait(PATIENCE)
    order = [(p.key, p.member) for p in source.kept][1:]
    assert order == [("a", 0), ("c", 0), ("a", 1), ("c", 1), ("b", 0), ("b", 1)]


def test_what_was_to_be_brought_back_is_dropped_for_what_is_now():
    source, done = Source(), []
    source.look_seconds = 0.002
    source.kept = {piece(n): {} for n in range(1000)}
    jobs = Jobs(source)
    mine = desk(jobs, "me")
    mine.recall([piece(n) for n in range(999)], lambda: done.append("old"))
    mine.recall([piece(999)], lambda: done.append("new"))
    assert jobs.wait(PATIENCE)
    assert done == ["new"]
    assert len(source.looked) < 300


def test_all_that_a_visitor_asked_for_ends_when_they_leave():
    reached, go = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        reached.set()
        assert go.wait(PATIENCE)

    source = Source(hold)
    jobs = Jobs(source)
    for key in "ab":
        jobs.submit(Job("me", [piece(key=key)], Told()))
    assert reached.wait(PATIENCE)
    jobs.leave("me")
    go.set()
    assert jobs.wait(PATIENCE)
    assert source.kept == {}


def test_members_that_fit_are_made_together():
    source = Source(at_once=2)
    run(Jobs(source), Job("me", [piece(n) for n in range(3)], told := Told()))
    assert source.batches == [2, 1]
    assert told.last.done == told.last.total == 12


class OutOfMemoryError(RuntimeError):
    """Named as that of torch."""


def test_too_little_memory_makes_batches_smaller_until_one_field_does_not_fit():
    def crowded(most: int) -> tuple[Source, Told]:
        source, told = Source(at_once=4), Told()

        def check(*_: object) -> None:
            if source.batches[-1] > most:
                raise OutOfMemoryError("CUDA out of memory.")

        source._at_step = check
        run(Jobs(source), Job("me", [piece(n) for n in range(4)], told))
        return source, told

    source, told = crowded(2)
    assert source.batches == [4, 2, 2]
    assert told.last.state == DONE
    source, told = crowded(0)
    assert source.batches == [4, 2, 1]
    assert told.last.state == FAILED
    assert told.last.problem == "There is not enough memory for one field of this model."


def test_a_page_that_is_gone_does_not_stop_the_others():
    def broken(*_: object) -> None:
        raise RuntimeError("The document is gone.")

    source = Source()
    run(Jobs(source), Job("gone", [piece(0, "a")], broken), Job("here", [piece(0, "b")], told := Told()))
    assert told.last.state == DONE


def test_samplers_and_limits_are_those_of_core():
    assert set(SAMPLERS) == set(samplers.SAMPLERS)
    assert Draw() == Draw(Sampling().sampler, Sampling().steps, Sampling().seed)
    Sampling(steps=MOST_STEPS, seed=MOST_SEED)
    with pytest.raises(ValueError, match="steps"):
        Sampling(steps=MOST_STEPS + 1)
    assert MOST_MEMBERS == 16
