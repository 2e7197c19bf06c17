"""What a training run tells about itself while it runs, and a terminal display of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from train.parallel import process_number

STEPS_TO_AVERAGE = 50
STEPS_BEFORE_ESTIMATE = 3


@dataclass(frozen=True)
class Status:
    """One report of a run.

    Attributes
    ----------
    stage : what is being done, for people
    done, total : how much of it, in ``unit`` ("hours" of data or "steps" of training)
    train_loss : mean squared error of the latest steps, standardised units
    validation_loss : the same on validation hours, after the last complete round
    best_loss : smallest validation loss so far
    rmse : validation RMSE per target, in its own units
    seconds_left : time to the last step, from the speed measured so far; None before anything is
        measured. Early stopping can only shorten it.
    """

    stage: str
    done: int
    total: int
    unit: str
    train_loss: float | None = None
    validation_loss: float | None = None
    best_loss: float | None = None
    rmse: dict[str, float] = field(default_factory=dict)
    seconds_left: float | None = None


Report = Callable[[Status], None]


class Pace:
    """Time left, from the durations of the latest steps and of the last validation."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=STEPS_TO_AVERAGE)
        self.validation_seconds = 0.0

    def add_step(self, seconds: float) -> None:
        """One training step took so long."""
        self._steps.append(seconds)

    def seconds_left(self, steps: int, validations: int, budget: float | None = None) -> float | None:
        """For so many steps and validations, at most ``budget`` [s]; None before enough is measured."""
        if len(self._steps) < STEPS_BEFORE_ESTIMATE:
            return None
        left = steps * sum(self._steps) / len(self._steps) + validations * self.validation_seconds
        return left if budget is None else max(0.0, min(left, budget))


def describe(status: Status) -> str:
    """Losses and scores of a report in one short line, for people."""
    parts = []
    if status.train_loss is not None:
        parts.append(f"loss {status.train_loss:.4f}")
    if status.validation_loss is not None:
        parts.append(f"validation {status.validation_loss:.4f}")
    if status.best_loss is not None:
        parts.append(f"best {status.best_loss:.4f}")
    parts += [f"RMSE of {name} {value:.3g}" for name, value in status.rmse.items()]
    return ", ".join(parts)


@contextmanager
def terminal_progress(console: Any = None) -> Iterator[Report]:
    """A display in the terminal that follows a run: a bar per stage with its time left, then the scores.

    Of several processes only the first shows one.
    """
    if process_number() > 0:
        yield lambda status: None
        return
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[left]}"),
        console=console,
    )
    scores = Text()
    tasks: dict[str, Any] = {}

    def report(status: Status) -> None:
        if status.stage not in tasks:
            tasks[status.stage] = bars.add_task(status.stage, total=status.total, unit=status.unit, left="")
        running = status.seconds_left is not None and status.done < status.total
        left = f"{_clock(status.seconds_left or 0)} left" if running else ""
        bars.update(tasks[status.stage], completed=status.done, total=status.total, left=left)
        if text := describe(status):
            scores.plain = text

    with Live(Group(bars, scores), console=console, refresh_per_second=4):
        yield report


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
