"""Long work in the library's threads, a step at a time, so that others have their turn between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        self.running = False
        """Whether work is under way; for the thread that owns the page."""

    def start(
        self,
        steps: Iterator[Any],
        took: Callable[[Any], None],
        ended: Callable[[Exception | None], None],
    ) -> None:
        """Do ``steps`` one after the other; ``took`` gets what they give but None, ``ended`` the error if any."""
        self._count += 1
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
            if mine == self._count:
                self._submit(step)

        self._submit(step)

    def stop(self) -> None:
        """Forget the work; what it gives from now on will not arrive."""
        self._count += 1
        self.running = False
