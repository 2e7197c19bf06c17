"""What is sampled for one visitor: member 0 of every generative model on the maps, and more when asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from explorer.jobs import CANCELLED, DONE, FAILED, RUNNING, Job, Jobs, Piece, Preview, Progress

Later = Callable[[Callable[[], None]], None]


class Desk:
    """The sampling of one visitor.

    ``later`` brings work to the thread of the page. There ``on_member`` is called with every piece that
    arrived, failed or was stopped, and ``on_progress`` whenever :attr:`progress` or :attr:`preview` changed.
    ``owner`` is the visitor, who has one turn and one limit whatever the number of desks.
    """

    def __init__(
        self,
        jobs: Jobs,
        later: Later,
        on_member: Callable[[Piece], None],
        on_progress: Callable[[], None],
        owner: Hashable,
    ) -> None:
        self._jobs = jobs
        self._later = later
        self._on_member = on_member
        self._on_progress = on_progress
        self._owner = owner
        self._shown: list[Job] = []  # a job for each map that is to come
        self._asked: Job | None = None  # what was asked for by pressing the button
        self._recalled: Job | None = None  # what is brought back from disk
        self._seen: dict[Job, int] = {}  # members of a job that were passed on
        self._problems: dict[Piece, str] = {}
        self._held: list[Job] | None = None
        self.progress: Progress | None = None
        """Of what is sampled or waits, else of what failed or was stopped last; None where all is well."""
        self.preview: Preview | None = None
        """The emerging field, None while there is none."""

    @property
    def active(self) -> bool:
        """Whether anything waits or runs."""
        return any(job.progress.active for job in self._jobs_of_visitor())

    def problem(self, piece: Piece) -> str:
        """Why a piece is neither there nor on its way; empty where it may come."""
        return self._problems.get(piece, "")

    def show(self, pieces: Sequence[Piece]) -> None:
        """Have these sampled for the maps, before anything else; what maps needed before is dropped."""
        kept = [job for job in self._shown if job.progress.active and set(job.missing) & set(pieces)]
        for job in self._shown:
            if job not in kept:
                self._drop(job)
        asked = [self._asked] if self._asked is not None and self._asked.progress.active else []
        on_way = {piece for job in (*kept, *asked) for piece in job.missing}
        new = [
            Job(self._owner, [piece], self._tell, urgent=True)
            for piece in pieces
            if piece not in on_way and piece not in self._problems
        ]
        self._shown = kept + new
        if self.preview is not None and self.preview.piece not in pieces:
            self.preview = None
        for job in new:
            self._submit(job)
        self._report()

    def ask(self, pieces: Sequence[Piece]) -> None:
        """Have these sampled in place of what was asked for before."""
        if self._asked is not None:
            self._drop(self._asked)
        self.forgive()
        self._asked = Job(self._owner, pieces, self._tell)
        self._submit(self._asked)
        self._report()

    def recall(self, pieces: Sequence[Piece], done: Callable[[], None]) -> None:
        """Bring back those that were sampled before and are kept on disk; then ``done`` is called.

        In place of what was to be brought back before.
        """
        if self._recalled is not None:
            self._jobs.cancel(self._recalled)

        def hear(progress: Progress) -> None:
            if progress.state == DONE and progress.made:
                for piece in progress.made:
                    self._on_member(piece)
                done()

        self._recalled = Job(
            self._owner, pieces, lambda _, told: self._later(lambda: hear(told)), only_kept=True
        )
        self._jobs.submit(self._recalled)

    def hold(self) -> None:
        """Have nothing sampled before :meth:`release`: nobody may be looking yet."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Have sampled what was held back, and all that comes."""
        held, self._held = self._held or [], None
        for job in held:
            if job.progress.active:
                self._jobs.submit(job)

    def _submit(self, job: Job) -> None:
        if self._held is None:
            self._jobs.submit(job)
        else:
            self._held.append(job)

    def forgive(self) -> None:
        """Forget what failed or was stopped, so that it is tried anew."""
        self._problems.clear()

    def cancel(self) -> None:
        """Stop everything; members that are made stay."""
        for job in self._jobs_of_visitor():
            self._jobs.cancel(job)

    def close(self) -> None:
        """The visitor left."""
        self._shown, self._asked, self._held, self._recalled = [], None, None, None
        self._jobs.leave(self._owner)

    def _jobs_of_visitor(self) -> list[Job]:
        return [*self._shown, *([self._asked] if self._asked is not None else [])]

    def _drop(self, job: Job) -> None:
        """Stop a job whose outcome nobody waits for."""
        if job in self._shown:
            self._shown.remove(job)
        if job is self._asked:
            self._asked = None
        self._seen.pop(job, None)
        self._jobs.cancel(job)

    def _tell(self, job: Job, progress: Progress) -> None:
        self._later(lambda: self._hear(job, progress))

    def _hear(self, job: Job, progress: Progress) -> None:
        if job not in self._jobs_of_visitor():
            return
        self.preview = progress.preview
        arrived = progress.made[self._seen.get(job, 0) :]
        self._seen[job] = len(progress.made)
        lost: list[Piece] = []
        if progress.state in (FAILED, CANCELLED):
            lost = [piece for piece in job.pieces if piece not in progress.made]
            words = progress.problem
            if progress.state == CANCELLED:
                at = f" after step {progress.step} of {progress.steps}" if progress.step else ""
                words = f"Stopped{at}. Press Sample to go on."
            self._problems |= dict.fromkeys(lost, words)
        self._report()
        for piece in (*arrived, *lost):
            self._on_member(piece)

    def _report(self) -> None:
        jobs = self._jobs_of_visitor()
        # What runs comes before what waits, and what was asked for before what the maps need.
        order = sorted(jobs, key=lambda job: (job.progress.state != RUNNING, job is not self._asked))
        active = [job.progress for job in order if job.progress.active]
        lost = [job.progress for job in order if job.progress.state in (FAILED, CANCELLED)]
        self.progress = next(iter(active + lost), None)
        self._on_progress()
