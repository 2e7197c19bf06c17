"""train.progress: time left from what was measured, and the display in a terminal."""

import io

from rich.console import Console

from train.progress import Pace, Status, describe, terminal_progress


def test_no_estimate_before_anything_is_measured():
    pace = Pace()
    pace.add_step(2.0)
    assert pace.seconds_left(10, 1) is None


def test_time_left_is_steps_and_validations_at_the_measured_pace():
    pace = Pace()
    for seconds in (1.0, 2.0, 3.0):
        pace.add_step(seconds)
    pace.validation_seconds = 30.0
    assert pace.seconds_left(10, 2) == 10 * 2.0 + 2 * 30.0
    assert pace.seconds_left(10, 2, budget=15.0) == 15.0
    assert pace.seconds_left(10, 2, budget=-1.0) == 0.0


def test_only_recent_steps_count():
    pace = Pace()
    for seconds in [100.0] * 50 + [1.0] * 50:
        pace.add_step(seconds)
    assert pace.seconds_left(7, 0) == 7.0


def test_a_line_for_people():
    status = Status("Training", 1, 2, "steps", 0.5, 0.25, 0.125, {"t2m": 1.5})
    assert describe(status) == "loss 0.5000, validation 0.2500, best 0.1250, RMSE of t2m 1.5"
    assert describe(Status("Reading", 1, 2, "hours")) == ""


def test_the_display_shows_stage_progress_and_scores():
    stream = io.StringIO()
    with terminal_progress(Console(file=stream, width=80)) as report:
        report(Status("Reading training hours", 24, 24, "hours"))
        report(Status("Training", 3, 10, "steps", 0.5, seconds_left=83.0))
    shown = stream.getvalue()
    for part in ("Reading training hours", "24/24", "3/10", "1:23 left", "loss 0.5000"):
        assert part in shown
