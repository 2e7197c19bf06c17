"""Long work in the library's threads, a step at a time, so that others have their turn between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

Deliver = Callable[[Callable[[], None]], None]


class Gradual:
    """One piece of work at a time; a newer one replaces it, and what the older one gives is void.

    ``submit`` runs a step in a thread, ``deliver`` brings what it gives to the thread that owns the page. A
    step under way when the work is stopped is finished, and nothing follows.
    """

    def __init__(self, submit: Callable[[Callable[[], None]], Any], deliver: Deliver) -> None:
        self._submit = submit
        self._deliver = deliver
        self._count = 0
        self._lock = Lock()
        self._paused = False
        self._next: Callable[[], None] | None = None  # the step that waits while the work is paused
        self.running = False
        """Whether work is under way; for the thread that owns the page."""

    def start(
        self,
        steps: Iterator[Any],
        took: Callable[[Any], None],
        ended: Callable[[Exception | None], None],
    ) -> None:
        """Do ``steps`` one after the other; ``took`` gets what they give but None, ``ended`` the error if any."""
        self.stop()
        mine = self._count
        self.running = True

        def give(take: Callable[[Any], None], result: Any) -> None:
            self._deliver(lambda: take(result) if mine == self._count else None)

        def end(error: Exception | None) -> None:
            self.running = False
            ended(error)

        def step() -> None:
            if mine != self._count:
                return
            try:
                result = next(steps)
            except StopIteration:
                give(end, None)
                return
            except Exception as error:
                give(end, error)
                return
            if result is not None:
                give(took, result)
            with self._lock:
                if mine != self._count:
                    return
                if self._paused:
                    self._next = step
                    return
            self._submit(step)

        self._submit(step)

    def pause(self) -> None:
        """Do no further step before :meth:`resume`; the one under way is finished, and what it gives arrives."""
        with self._lock:
            self._paused = True

    def resume(self) -> None:
        """Go on with work that was paused."""
        with self._lock:
            self._paused = False
            step, self._next = self._next, None
        if step is not None:
            self._submit(step)

    def stop(self) -> None:
        """Forget the work; what it gives from now on will not arrive."""
        with self._lock:
            self._count += 1
            self._paused, self._next = False, None
        self.running = False
