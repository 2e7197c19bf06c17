"""Only the last request counts."""

from collections.abc import Callable

from explorer.background import Latest


class Queue:
    """Work that waits until the test runs it."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], None]) -> None:
        self.work.append(work)

    def run(self) -> None:
        while self.work:
            self.work.pop(0)()


def test_every_result_arrives_in_order():
    queue, got = Queue(), []
    Latest(queue, lambda work: work()).ask(lambda: iter("ab"), got.append, got.append)
    assert got == []
    queue.run()
    assert got == ["a", "b"]


def test_an_older_request_is_not_even_begun():
    queue, got, begun = Queue(), [], []
    latest = Latest(queue, lambda work: work())
    for name in ("old", "new"):
        latest.ask(lambda name=name: begun.append(name) or [name], got.append, got.append)
    queue.run()
    assert begun == got == ["new"]


def test_a_result_on_its_way_is_dropped_when_something_else_is_asked_for():
    work, on_the_way, got = Queue(), Queue(), []
    latest = Latest(work, on_the_way)
    latest.ask(lambda: ["old"], got.append, got.append)
    work.run()
    latest.ask(lambda: ["new"], got.append, got.append)
    work.run()
    on_the_way.run()
    assert got == ["new"]


def test_a_request_that_was_dropped_gives_nothing():
    queue, got = Queue(), []
    latest = Latest(queue, lambda work: work())
    latest.ask(lambda: ["x"], got.append, got.append)
    latest.drop()
    queue.run()
    assert got == []


def test_a_failure_arrives_as_the_exception_after_what_came_before_it():
    def work():
        yield 1
        raise ValueError("no good")

    got, failures = [], []
    Latest(lambda run: run(), lambda give: give()).ask(work, got.append, failures.append)
    assert got == [1]
    assert [str(failure) for failure in failures] == ["no good"]
