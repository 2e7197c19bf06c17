"""Results that are computed once and shared by everybody who looks at the page."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from threading import Lock

import numpy as np
from numpy.typing import NDArray

Fields = Mapping[str, NDArray[np.float32]]


class Results:
    """A thread-safe cache of fields that forgets the least recently used beyond ``limit`` bytes.

    Callers who ask for the same key at the same time wait for one computation. A computation that
    fails raises in every caller that waited and is not remembered, so that the next one tries again.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._lock = Lock()
        self._done: OrderedDict[Hashable, Fields] = OrderedDict()
        self._running: dict[Hashable, Future[Fields]] = {}

    def peek(self, key: Hashable, *, used: bool = True) -> Fields | None:
        """The result if it is there; never computes nor waits. Without ``used`` it is forgotten no later."""
        with self._lock:
            found = self._done.get(key)
            if found is not None and used:
                self._done.move_to_end(key)
            return found

    def get(self, key: Hashable, compute: Callable[[], Fields]) -> Fields:
        """The result under ``key``, computed by ``compute`` where it is not there yet."""
        with self._lock:
            if key in self._done:
                self._done.move_to_end(key)
                return self._done[key]
            running = self._running.get(key)
            mine = running is None
            if running is None:
                running = self._running[key] = Future()
        if not mine:
            return running.result()
        try:
            result = compute()
        except BaseException as error:
            with self._lock:
                del self._running[key]
            running.set_exception(error)
            raise
        self._remember(key, result)
        running.set_result(result)
        return result

    def keep(self, key: Hashable, result: Fields) -> None:
        """Remember a result that was computed elsewhere; one that is there stays."""
        if self.peek(key) is None:
            self._remember(key, result)

    def _remember(self, key: Hashable, result: Fields) -> None:
        for field in result.values():
            field.setflags(write=False)
        with self._lock:
            self._running.pop(key, None)
            # Two who kept the same at the same time count once.
            self.size += _bytes(result) - _bytes(self._done.pop(key, {}))
            self._done[key] = result
            while self.size > self.limit and len(self._done) > 1:
                self.size -= _bytes(self._done.popitem(last=False)[1])


def _bytes(fields: Fields) -> int:
    return sum(field.nbytes for field in fields.values())
