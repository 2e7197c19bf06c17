"""Members of generative downscalers, sampled in the background for everybody who looks at the page.

One thread samples; visitors take turns, one batch of members each, so that somebody who asks for sixteen does
not keep others waiting for long. What one visitor had sampled is there for the next one at once; a second
thread brings back what is kept on disk, so that nobody waits for a turn who needs none. This module knows no
network: a :class:`Source` samples, and keeps what was made.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from threading import Condition, Event, RLock, Thread
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xarray as xr

from explorer.results import Fields

if TYPE_CHECKING:  # these import torch, which takes seconds that the first page should not wait for
    from core.downscale.sampling import SamplingStep
    from explorer.library import OpenStore

log = logging.getLogger(__name__)

SAMPLERS = {"dpmpp_2m": "DPM++ 2M", "ddim": "DDIM", "heun": "Heun"}
"""Samplers on offer: key -> name for people."""

MOST_MEMBERS = 16
MOST_STEPS = 1000
MOST_SEED = 999_999_999

TELL_EVERY = 0.25
"""Seconds between two reports of progress."""
PREVIEW_EVERY = 1.0
"""Seconds between two previews of an emerging field, at least."""
PREVIEW_SHARE = 0.25
"""Part of the time that previews may take where decoding one is slow."""

LOOK_SECONDS = 0.05
"""Time that looking for what is kept gives to one job before it is another's turn."""

TOO_MANY = "Too many models of yours wait to be sampled; ask again when some are done"

WAITING, RUNNING, DONE, CANCELLED, FAILED = "waiting", "running", "done", "cancelled", "failed"


@dataclass(frozen=True)
class Draw:
    """How members are drawn; see :class:`core.downscale.sampling.Sampling`, which it becomes."""

    sampler: str = "dpmpp_2m"
    steps: int = 15
    seed: int = 0


@dataclass(frozen=True)
class Piece:
    """One field to sample: a member of the downscaler ``key`` for an hour of a store.

    ``checkpoint`` is the hash of what the downscaler's file holds.
    """

    opened: OpenStore
    hour: np.datetime64
    key: str
    checkpoint: str
    draw: Draw
    member: int = 0

    def belongs_with(self, other: Piece) -> bool:
        """Whether both differ in the member alone, so that one run can make both."""
        return (self.hour, self.key, self.checkpoint, self.draw, self.opened) == (
            other.hour, other.key, other.checkpoint, other.draw, other.opened
        )  # fmt: skip


class Source(Protocol):
    """Where members come from and where they are kept; called from the threads of :class:`Jobs`, and
    ``peek_member`` from any.

    ``keeps_on_disk`` says whether ``find_member`` can find more than ``peek_member``.
    """

    keeps_on_disk: bool

    def peek_member(self, piece: Piece) -> Fields | None:
        """The member if it is in memory."""

    def find_member(self, piece: Piece) -> Fields | None:
        """The member if it is there already, in memory or on disk; may take a moment."""

    def keep_member(self, piece: Piece, fields: Fields) -> None:
        """Remember a member for everybody."""

    def members_at_once(self, piece: Piece) -> int:
        """How many members are computed together."""

    def sample(self, pieces: Sequence[Piece]) -> Iterator[SamplingStep | xr.Dataset]:
        """Steps and then one Dataset of all members; the pieces belong together."""


@dataclass(frozen=True)
class Preview:
    """An emerging field as it is after ``step`` of ``steps``, in SI units."""

    piece: Piece
    step: int
    steps: int
    fields: Fields


@dataclass(frozen=True)
class Progress:
    """Where a job stands.

    Attributes
    ----------
    state : waiting, running, done, cancelled or failed
    made : the pieces that are there, the last one made last
    fields : how many pieces the job has
    done, total : steps of the sampler over all fields, those of fields that were there already included
    piece, step, steps : the field being sampled (the first of a batch), and its own steps
    left : seconds to go, None while nothing is known
    ahead : other visitors whose sampling takes turns with this one
    preview : the last preview of the field being sampled
    problem : a sentence where it failed
    """

    state: str
    made: tuple[Piece, ...]
    fields: int
    done: float = 0.0
    total: float = 0.0
    piece: Piece | None = None
    step: int = 0
    steps: int = 0
    left: float | None = None
    ahead: int = 0
    preview: Preview | None = None
    problem: str = ""

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (WAITING, RUNNING)

    @property
    def share(self) -> float:
        """Part of the steps that is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0


Tell = Callable[["Job", Progress], None]


class Job:
    """Members that one visitor wants.

    ``tell`` is called with every report of ``progress``, mostly from the threads of :class:`Jobs`. An
    ``urgent`` job comes before the others of the same owner, from the next batch on. One with ``only_kept``
    brings back what was made before, and is done without the rest.
    """

    def __init__(
        self,
        owner: Hashable,
        pieces: Sequence[Piece],
        tell: Tell,
        *,
        urgent: bool = False,
        only_kept: bool = False,
    ) -> None:
        self.owner = owner
        self.pieces = tuple(pieces)
        self.urgent = urgent
        self.only_kept = only_kept
        self.cancelled = Event()
        self._lock = RLock()
        self.progress = Progress(
            WAITING, (), len(self.pieces), total=float(sum(piece.draw.steps for piece in self.pieces))
        )
        self._missing = dict.fromkeys(self.pieces)
        self._tell = tell
        self._told = -np.inf
        self._begun: float | None = None  # when the first step of the first field that had to be made began
        self._computed = 0.0  # steps since then
        self._previewed = -np.inf
        self._preview_seconds = 0.0

    @property
    def missing(self) -> list[Piece]:
        """Pieces that are not made yet."""
        with self._lock:
            return list(self._missing)

    def change(self, now: float, *, urgent: bool = True, **values: object) -> None:
        """Another state of progress; reported now where ``urgent``, else unless that was just done."""
        with self._lock:
            self.progress = replace(self.progress, **values)
        if urgent or now - self._told >= TELL_EVERY:
            self._told = now
            try:
                self._tell(self, self.progress)
            except Exception:  # a page that has gone must not stop the sampling of others
                log.exception("Progress could not be told.")

    def count(self, now: float, piece: Piece, batch: int, step: int, steps: int) -> None:
        """A step of ``batch`` fields is done."""
        each = float(steps)
        made = len(self.progress.made)
        done, total = each * made + batch * step, each * len(self.pieces)
        if self._begun is None:
            self._begun = now
        elif step:
            self._computed += batch
        left = None
        if self._computed:
            left = (now - self._begun) / self._computed * (total - done)
        self.change(
            now, urgent=step == 0, state=RUNNING, piece=piece, step=step, steps=steps, done=done, total=total,
            left=left,
        )  # fmt: skip

    def have(self, now: float, pieces: Sequence[Piece], *, urgent: bool = True) -> None:
        """These pieces are there; reported as :meth:`change` does."""
        with self._lock:
            new = tuple(piece for piece in dict.fromkeys(pieces) if piece in self._missing)
            for piece in new:
                del self._missing[piece]
            made = (*self.progress.made, *new)
            done = self.progress.total * len(made) / len(self.pieces)
            self.progress = replace(self.progress, made=made, done=done, preview=None)
        self.change(now, urgent=urgent)

    def due(self, now: float) -> bool:
        """Whether it is time for a preview."""
        pause = max(PREVIEW_EVERY, self._preview_seconds / PREVIEW_SHARE)
        return now - self._previewed >= pause

    def show(self, before: float, now: float, preview: Preview) -> None:
        """Report a preview, which was begun at ``before``."""
        self._preview_seconds = now - before
        self._previewed = now
        self.change(now, preview=preview)


class Turns:
    """Jobs that wait for one thread: owners one after another, urgent jobs of an owner first.

    Not safe for several threads; :class:`Jobs` has the lock.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, list[Job]] = {}
        self._order: deque[Hashable] = deque()
        self._last: Hashable = None

    @property
    def owners(self) -> int:
        """How many take turns."""
        return len(self._order)

    def of(self, owner: Hashable) -> tuple[Job, ...]:
        """The jobs of an owner."""
        return tuple(self._queues.get(owner, ()))

    def add(self, job: Job) -> None:
        """A job more."""
        if job.owner not in self._queues:
            self._queues[job.owner] = []
            self._order.append(job.owner)
        self._queues[job.owner].append(job)

    def remove(self, job: Job) -> None:
        """A job less, where it is there."""
        jobs = self._queues.get(job.owner, [])
        if job in jobs:
            jobs.remove(job)
            if not jobs:
                del self._queues[job.owner]
                self._order.remove(job.owner)

    def next(self) -> Job | None:
        """The job whose turn it is; whose turn it was before is the last to have another."""
        if self._last in self._queues:
            self._order.remove(self._last)
            self._order.append(self._last)
        if not self._order:
            self._last = None
            return None
        self._last = self._order[0]
        jobs = self._queues[self._last]
        return next((job for job in jobs if job.urgent), jobs[0])


class Jobs:
    """The queues and the threads of one process.

    The threads live while there is work. ``refusal`` is why nothing new is sampled, empty where that may be;
    ``most_jobs`` are how many jobs of one owner may wait or run, ``most_fields`` how many pieces of jobs that
    are not urgent. ``clock`` is for tests.
    """

    def __init__(
        self,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
        *,
        refusal: str = "",
        most_jobs: int | None = None,
        most_fields: int | None = None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._refusal = refusal
        self._most_jobs = most_jobs
        self._most_fields = most_fields
        self._changed = Condition()
        self._looking = Turns()
        self._looker: Thread | None = None
        self._sampling = Turns()
        self._current: Job | None = None
        self._thread: Thread | None = None
        self._fitting: dict[str, int] = {}  # members at once that fit into memory, where fewer than hoped

    def submit(self, job: Job) -> None:
        """Have a job done; returns at once."""
        with self._changed:
            if self._source.keeps_on_disk or job.only_kept or self._why_not(job):
                self._looking.add(job)
                if self._looker is None:
                    self._looker = Thread(target=self._look, name="look", daemon=True)
                    self._looker.start()
            else:
                self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        self._sampling.add(job)
        job.progress = replace(job.progress, ahead=self._sampling.owners - 1)
        if self._thread is None:
            self._thread = Thread(target=self._work, name="sample", daemon=True)
            self._thread.start()

    def _why_not(self, job: Job) -> str:
        """Why what a job lacks is not sampled; empty where it may be."""
        if self._refusal:
            return self._refusal
        # One that is cancelled ends after the step at work, and is often cancelled for this one.
        others = [other for other in self._sampling.of(job.owner) if not other.cancelled.is_set()]
        if self._most_jobs is not None and len(others) >= self._most_jobs:
            return f"{TOO_MANY} ({self._most_jobs} at a time)."
        if self._most_fields is not None and not job.urgent:
            fields = len(job.missing)
            waiting = sum(len(other.missing) for other in others if not other.urgent)
            if fields + waiting > self._most_fields:
                besides = f" beside {waiting} that wait already" if waiting else ""
                return (
                    f"These are {fields} fields to sample{besides}, and one visitor may have {self._most_fields} "
                    "waiting; ask for fewer hours or members, or again when some are done."
                )
        return ""

    # ---------------------------------------------------------------- the thread that looks

    def _look(self) -> None:
        """Bring back what is kept, a few pieces of a job at a time, so that nobody waits long for others."""
        left: dict[Job, Iterator[Piece]] = {}
        while True:
            with self._changed:
                job = self._looking.next()
                if job is None:
                    self._looker = None
                    self._changed.notify_all()
                    return
            left = {other: pieces for other, pieces in left.items() if not other.cancelled.is_set()}
            pieces = left.setdefault(job, iter(job.missing))
            try:
                ended = self._look_on(job, pieces)
            except Exception as error:  # what can't be brought back is sampled, or fails there with a reason
                log.warning("A member that is kept could not be looked for.", exc_info=error)
                ended = True
            if ended:
                left.pop(job, None)
                self._looked(job)

    def _look_on(self, job: Job, pieces: Iterator[Piece]) -> bool:
        """Look for the next pieces for a moment; True when all were looked for."""
        begun = time.monotonic()
        for piece in pieces:
            if self._source.find_member(piece) is not None:
                job.have(self._clock(), [piece], urgent=False)
            if job.cancelled.is_set() or time.monotonic() - begun > LOOK_SECONDS:
                return False
        return True

    def _looked(self, job: Job) -> None:
        """Queue a job for what is not kept of it, or say why that is not done."""
        ending: dict[str, object] = {"state": DONE}
        with self._changed:
            if job not in self._looking.of(job.owner):  # it was cancelled
                return
            if job.missing and not job.only_kept:
                problem = self._why_not(job)
                ending = {"state": FAILED, "problem": problem} if problem else {}
            if not ending:
                self._looking.remove(job)
                self._enqueue(job)
        job.change(self._clock(), **ending)
        if ending:
            with self._changed:
                self._remove(job)

    def cancel(self, job: Job) -> None:
        """Stop a job: now where it waits, after the step at work where it runs. Made members are kept."""
        with self._changed:
            job.cancelled.set()
            waits = job is not self._current and job.progress.active
            if waits:
                self._remove(job)
        if waits:
            job.change(self._clock(), state=CANCELLED, preview=None)

    def leave(self, owner: Hashable) -> None:
        """Stop everything that ``owner`` asked for."""
        with self._changed:
            jobs = [*self._sampling.of(owner), *self._looking.of(owner)]
        for job in jobs:
            self.cancel(job)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is nothing to do; False where that takes longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None and self._looker is None, timeout)

    # ---------------------------------------------------------------- the thread

    def _work(self) -> None:
        while True:
            with self._changed:
                self._current = job = self._sampling.next()
                if job is None:
                    self._thread = None
                    self._changed.notify_all()
                    return
                ahead = self._sampling.owners - 1
            try:
                job.progress = replace(job.progress, ahead=ahead)
                self._take_turn(job)
            except Exception as error:
                log.warning("Sampling failed.", exc_info=error)
                self._end(job, FAILED, problem=sentence(error))

    def _take_turn(self, job: Job) -> None:
        """Make one batch of members of a job, without those that came to be while it waited."""
        missing = job.missing
        if missing and not job.cancelled.is_set():
            first = missing[0]
            most = min(self._source.members_at_once(first), self._fitting.get(first.key, MOST_MEMBERS))
            alike = list(islice((piece for piece in missing if piece.belongs_with(first)), max(1, most)))
            there = [piece for piece in alike if self._source.find_member(piece) is not None]
            if there:
                job.have(self._clock(), there, urgent=False)
            batch = [piece for piece in alike if piece not in there]
            crowded = False
            try:
                if batch:
                    self._sample(job, batch)
            except Exception as error:
                if not (_out_of_memory(error) and len(batch) > 1):
                    raise
                crowded = True
            if crowded:  # outside the handler, which would hold the memory of the attempt
                self._fitting[first.key] = len(batch) // 2
        if job.cancelled.is_set():
            self._end(job, CANCELLED)
        elif not job.missing:
            self._end(job, DONE)

    def _sample(self, job: Job, batch: Sequence[Piece]) -> None:
        first = batch[0]
        job.change(self._clock(), state=RUNNING, piece=first, step=0, steps=0, preview=None)
        events = self._source.sample(batch)
        try:
            for event in events:
                if isinstance(event, xr.Dataset):
                    for row, piece in enumerate(batch):
                        self._source.keep_member(piece, one_member(event, row))
                    job.have(self._clock(), batch)
                    continue
                if job.cancelled.is_set():
                    return
                now = self._clock()
                job.count(now, first, len(batch), event.step, event.steps)
                if event.step < event.steps and job.due(now):
                    fields = one_member(event.preview(0), 0)
                    job.show(now, self._clock(), Preview(first, event.step, event.steps, fields))
        finally:
            close = getattr(events, "close", None)  # an iterator need not have one
            if close is not None:
                close()

    def _end(self, job: Job, state: str, **values: object) -> None:
        with self._changed:
            self._remove(job)
        job.change(self._clock(), state=state, preview=None, left=None, **values)

    def _remove(self, job: Job) -> None:
        self._looking.remove(job)
        self._sampling.remove(job)
        self._changed.notify_all()


def one_member(data: xr.Dataset, row: int) -> Fields:
    """Fields (H, W) of one member of a Dataset (member, time, y, x) of one hour."""
    return {
        str(name): np.array(variable.values[row, 0], np.float32) for name, variable in data.data_vars.items()
    }


def sentence(error: BaseException) -> str:
    """What went wrong, for people: the words of an error that has some, else its kind and its words."""
    if _out_of_memory(error):
        return "There is not enough memory for one field of this model."
    text = str(error).strip()
    return text if isinstance(error, ValueError) and text else f"It failed ({type(error).__name__}: {text})."


def _out_of_memory(error: BaseException) -> bool:
    # By name, since torch, whose error it mostly is, is not imported here.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
