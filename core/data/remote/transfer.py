"""Carrying out a plan: several requests at a time, resumed, checked, and renamed when complete."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from core.data.remote.archive import open_local, unpack
from core.data.remote.client import Cancelled, Client
from core.data.remote.parts import WORK, Part, length
from core.data.remote.plan import Item, Plan, WholeArchive, check_room
from core.data.remote.words import DiskSpaceError, FetchError, MemberError
from core.file_lock import LOCK, claimed
from core.plural import counted

PARALLEL = 4
"""Requests at a time; public servers of research data slow down or shut out those who send many more."""


@dataclass(frozen=True)
class Progress:
    """How far a transfer is.

    Attributes
    ----------
    done, total : bytes of the archives that are here, those of earlier calls included, and that are needed
    files, of_files : files that are complete, of how many
    label : the file that was last worked on
    note : why it waits, if it does
    """

    done: int
    total: int
    files: int
    of_files: int
    label: str
    note: str = ""


@dataclass
class _Job:
    """An item under way; ``left`` counts its requests that are not done."""

    item: Item
    part: Part
    left: int


class _Workers:
    """Threads that work off the requests of jobs and tell of it in a queue."""

    def __init__(self, plan: Plan, client: Client, parallel: int) -> None:
        self.events: queue.SimpleQueue[tuple[str, str, int]] = queue.SimpleQueue()
        self.cancelled = threading.Event()
        self.failure: BaseException | None = None
        self.damaged: list[MemberError] = []
        self._plan = plan
        self._client = client
        self._lock = threading.Lock()
        self._requests = self._all_requests()
        self._threads = [
            threading.Thread(target=self._run, name="fetch", daemon=True) for _ in range(parallel)
        ]

    def _all_requests(self) -> Iterator[tuple[_Job, int, int, Path]]:
        for item in self._plan.items:
            if item.source.remote is not None:
                part = Part(self._plan.folder, item.path, item.source.remote, item.member)
                part.begin()
                pieces = part.pieces()
                job = _Job(item, part, len(pieces))
                for start, stop, file in pieces:
                    yield job, start, stop, file

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End the threads; one that hears nothing of the server ends when its patience does."""
        self.cancelled.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            while not self.cancelled.is_set():
                with self._lock:
                    request = next(self._requests, None)
                if request is None:
                    return
                self._work_off(*request)
        except Cancelled:
            pass
        except BaseException as error:
            with self._lock:
                self.failure = self.failure or error
            self.cancelled.set()

    def _work_off(self, job: _Job, start: int, stop: int, file: Path) -> None:
        path = job.item.path
        have = length(file)
        if have > stop - start:
            file.unlink()
            have = 0
        remote = job.part.archive.remote
        with file.open("ab") as piece:
            for chunk in self._client.chunks(
                remote,
                start + have,
                stop,
                cancelled=self.cancelled,
                note=lambda text: self.events.put((path, text, 0)),
            ):
                piece.write(chunk)
                self.events.put((path, "", len(chunk)))
        with self._lock:
            job.left -= 1
            complete = job.left == 0
        if complete:
            try:
                job.part.unpack(self._plan.folder / path)
            except MemberError as error:
                with self._lock:
                    self.damaged.append(error)
            else:
                self.events.put((path, "complete", 0))


def fetch(plan: Plan, client: Client, *, parallel: int = PARALLEL) -> Generator[Progress, None, None]:
    """Carry out a plan and yield how far it is; closing the generator stops it.

    Every file has its name only when it is complete and its CRC was compared. What was begun is kept when the
    transfer ends early, and the next call of :func:`make_plan` and of this goes on from there.

    Raises the FetchErrors of :meth:`Client.chunks`; DiskSpaceError before or while the disk gets full;
    MemberError at the end where members are damaged (the others are complete then); FetchError where another
    process fetches into the same folder.
    """
    if plan.whole:
        raise FetchError(
            "The plan is not complete: fetch the whole archives first, then make the plan again."
        )
    plan.check_room(parallel)
    work = plan.folder / WORK
    with _disk_errors(plan.folder), claimed(work / LOCK) as alone:
        if not alone:
            raise FetchError(f"Another process fetches into {plan.folder}; wait for it.")
        damaged = yield from _transfer(plan, client, parallel)
        if damaged:
            others = f" {counted(len(damaged) - 1, 'further member')} likewise." if len(damaged) > 1 else ""
            raise MemberError(f"{damaged[0]}{others} It was not kept; the rest was.")
        with suppress(OSError):
            # While it is still locked, so that whoever comes next makes one anew and locks that.
            (work / LOCK).unlink()
            work.rmdir()


def _transfer(plan: Plan, client: Client, parallel: int) -> Generator[Progress, None, list[MemberError]]:
    total = sum(item.packed for item in plan.items)
    done = sum(item.had for item in plan.items)
    files = 0
    damaged = []
    for item in plan.items:
        if item.source.local is not None:
            yield Progress(done, total, files, len(plan.items), item.path)
            try:
                _unpack_local(item, item.source.local, plan.folder)
            except MemberError as error:
                damaged.append(error)
            else:
                files += 1
    workers = _Workers(plan, client, parallel)
    workers.start()
    label = ""
    try:
        while workers.alive() or not workers.events.empty():
            try:
                label, note, received = workers.events.get(timeout=0.1)
            except queue.Empty:
                continue
            done += received
            files += note == "complete"
            yield Progress(done, total, files, len(plan.items), label, "" if note == "complete" else note)
    finally:
        workers.stop()
    if workers.failure is not None:
        raise workers.failure
    yield Progress(done, total, files, len(plan.items), label)
    return damaged + workers.damaged


def _unpack_local(item: Item, archive: Path, folder: Path) -> None:
    unpacked = folder / WORK / "unpacked"
    try:
        with archive.open("rb") as source:
            unpack(source, item.member, unpacked, str(archive))
        target = folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        unpacked.replace(target)
    finally:
        unpacked.unlink(missing_ok=True)


def fetch_whole(archive: WholeArchive, folder: Path, client: Client) -> Generator[Progress, None, None]:
    """Fetch an archive as a whole from a server that sends no parts, to where :func:`make_plan` looks for it.

    It can't be resumed: such a server begins anew. Raises the errors of :func:`fetch`; ServerError where far
    more comes than was said.
    """
    check_room(folder, archive.most)
    temporary = archive.path.with_name(f".{archive.path.name}.partial")
    notes: list[str] = []
    with _disk_errors(folder):
        archive.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                for chunk in client.whole(archive.remote, archive.most, note=notes.append):
                    if chunk is None:
                        file.seek(0)
                        file.truncate()
                    else:
                        file.write(chunk)
                    note = notes.pop() if notes else ""
                    yield Progress(file.tell(), archive.size, 0, 1, archive.path.name, note)
            # A page to sign in, say, must not be taken for the archive from now on.
            open_local(temporary, f"What came from {archive.remote.url}")
            temporary.replace(archive.path)
        finally:
            temporary.unlink(missing_ok=True)
    yield Progress(archive.size, archive.size, 1, 1, archive.path.name)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Say of a full disk what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskSpaceError(
            f"The disk of {folder} is full. What is complete is kept, and what was begun; free some "
            "space and the same command goes on."
        ) from error
