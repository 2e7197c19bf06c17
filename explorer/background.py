"""Work in the background of which only what was asked for last counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class Latest:
    """One kind of result that follows its request; a newer request makes older ones void.

    ``submit`` runs work in a thread, ``deliver`` brings what it gives back to the thread that owns the page.
    """

    def __init__(
        self,
        submit: Callable[[Callable[[], None]], Any],
        deliver: Callable[[Callable[[], None]], None],
    ) -> None:
        self._submit = submit
        self._deliver = deliver
        self._count = 0

    def ask(
        self,
        work: Callable[[], Iterable[Any]],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Call ``done`` with each result of ``work``, which gives them one after the other, the best last."""
        self._count += 1
        mine = self._count

        def give(take: Callable[[Any], None], result: Any) -> None:
            self._deliver(lambda: take(result) if mine == self._count else None)

        def run() -> None:
            if mine != self._count:
                return
            try:
                for result in work():
                    give(done, result)
                    if mine != self._count:
                        return
            except Exception as error:
                give(failed, error)

        self._submit(run)

    def drop(self) -> None:
        """Forget what was asked for; results under way will not arrive."""
        self._count += 1
