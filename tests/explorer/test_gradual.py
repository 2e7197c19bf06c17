"""Long work a step at a time."""

from collections import deque

from explorer.gradual import Gradual


class Queue:
    """Runs submitted steps when told."""

    def __init__(self) -> None:
        self.waiting: deque = deque()

    def submit(self, step) -> None:
        self.waiting.append(step)

    def run(self, count: int) -> None:
        for _ in range(min(count, len(self.waiting)) if count < 99 else count):
            if not self.waiting:
                return
            self.waiting.popleft()()


def started(queue: Queue, numbers, seen: list) -> Gradual:
    gradual = Gradual(queue.submit, lambda work: work())
    gradual.start(iter(numbers), seen.append, lambda error: seen.append(f"end {error}"))
    return gradual


def test_steps_come_one_at_a_time_and_others_in_between():
    queue, seen = Queue(), []
    gradual = started(queue, [1, None, 2], seen)
    assert (seen, len(queue.waiting)) == ([], 1)
    queue.submit(lambda: seen.append("other"))
    queue.run(2)
    assert seen == [1, "other"]
    assert gradual.running
    queue.run(99)
    assert seen == [1, "other", 2, "end None"]
    assert not gradual.running


def test_what_is_stopped_or_replaced_gives_nothing_more():
    queue, seen = Queue(), []
    gradual = started(queue, range(10), seen)
    queue.run(1)
    gradual.start(iter("ab"), seen.append, lambda error: seen.append("end"))
    queue.run(99)
    assert seen == [0, "a", "b", "end"]
    gradual.start(iter("cd"), seen.append, lambda error: seen.append("end"))
    gradual.stop()
    queue.run(99)
    assert seen == [0, "a", "b", "end"]
    assert not gradual.running


def test_an_error_ends_the_work_and_is_told():
    def broken():
        yield 1
        raise ValueError("no")

    queue, seen = Queue(), []
    gradual = started(queue, broken(), seen)
    queue.run(99)
    assert seen == [1, "end no"]
    assert not gradual.running


def test_what_is_paused_goes_on_where_it_was():
    queue, seen = Queue(), []
    gradual = started(queue, range(3), seen)
    queue.run(1)
    gradual.pause()
    queue.run(99)
    assert seen == [0, 1]  # the step that had been asked for already
    assert gradual.running
    gradual.resume()
    gradual.resume()
    queue.run(99)
    assert seen == [0, 1, 2, "end None"]
    gradual.start(iter("ab"), seen.append, lambda error: None)
    gradual.pause()
    queue.run(1)
    gradual.stop()
    gradual.resume()
    assert not queue.waiting
