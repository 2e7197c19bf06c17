"""What commands say, and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from core.downscale import RunProgress

out = Console()
err = Console(stderr=True)


def say(text: str, console: Console = out) -> None:
    """Print text as it is: names of files and stores may hold brackets, which are no markup.

    Letters that steer a terminal are left out; titles of stores may come from anybody.
    """
    text = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that shows what was really done: call it with (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("hours"))
    bar = Progress(*columns, TimeRemainingColumn(), console=err)
    task = bar.add_task(label, total=None)
    bar.start()
    try:
        yield lambda done, total: bar.update(task, completed=done, total=total)
    finally:
        if bar.tasks[task].total is None:
            # Nothing was to be done, or it came to nothing before it began: nothing stays on the screen.
            bar.live.transient = True
            bar.live.stop()
        else:
            bar.stop()


def show_run(run: Generator[RunProgress, None, None]) -> None:
    """Go through a run with a bar that shows the fields done and the step of the sampler."""
    from contextlib import closing

    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with closing(run), Progress(*columns, TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task("Starting", total=None)
        for at in run:
            hour = str(at.hour)[:13].replace("T", " ")
            step = f", step {at.step} of {at.steps}" if at.steps > 1 else ""
            bar.update(task, description=f"{at.label}, {hour} UTC{step}", completed=at.done, total=at.total)
