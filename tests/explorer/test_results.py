"""The cache of results."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from explorer.results import Results


def block(size: int) -> dict[str, np.ndarray]:
    return {"t2m": np.zeros(size, np.uint8)}


def test_computes_once_and_remembers():
    results, calls = Results(100), []
    for _ in range(3):
        results.get("a", lambda: calls.append(1) or block(10))
    assert len(calls) == 1
    assert results.peek("a") is not None
    assert results.peek("b") is None


def test_forgets_the_least_recently_used_beyond_its_limit():
    results = Results(30)
    for key in "abc":
        results.get(key, lambda: block(10))
    results.peek("a")
    results.get("d", lambda: block(10))
    assert [key for key in "abcd" if results.peek(key) is not None] == ["a", "c", "d"]
    assert results.size == 30


def test_keeps_one_result_larger_than_the_limit():
    results = Results(5)
    results.get("a", lambda: block(10))
    assert results.peek("a") is not None


def test_callers_at_the_same_time_share_one_computation():
    results, calls = Results(100), []
    started, release = threading.Event(), threading.Event()

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        started.set()
        assert release.wait(5)
        return block(10)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(results.get, "a", compute)
        assert started.wait(5)
        others = [pool.submit(results.get, "a", compute) for _ in range(3)]
        release.set()
        assert all(other.result(5) is first.result(5) for other in others)
    assert len(calls) == 1


def test_a_failure_is_raised_and_not_remembered():
    results = Results(100)

    def fail() -> dict[str, np.ndarray]:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        results.get("a", fail)
    assert results.get("a", lambda: block(3))["t2m"].size == 3


def test_results_can_not_be_changed():
    results = Results(100)
    field = results.get("a", lambda: block(3))["t2m"]
    with pytest.raises(ValueError, match="read-only"):
        field[0] = 1


def test_a_result_made_elsewhere_is_kept_once():
    results = Results(30)
    results.keep("a", block(10))
    first = results.peek("a")
    results.keep("a", block(10))
    assert results.peek("a") is first
    assert results.size == 10
    assert results.get("a", lambda: block(20)) is first


def test_a_result_that_two_kept_at_once_counts_once():
    results = Results(100)
    for size in (40, 40, 30):
        results._remember("a", block(size))  # as two threads do that both found nothing
    assert results.size == 30


def test_looking_at_a_result_without_using_it_does_not_make_it_stay():
    results = Results(20)
    for key in "ab":
        results.keep(key, block(10))
    assert results.peek("a", used=False) is not None
    results.keep("c", block(10))
    assert results.peek("a") is None
