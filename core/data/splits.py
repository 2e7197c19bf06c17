"""Which hours train, validate and test: a function of their date alone.

Here is what needs no PyTorch; :mod:`core.data.samples` has the published random split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.plural import counted

Hours = NDArray[np.datetime64]
SplitMethod = Literal["blocked", "random"]
Part = Literal["train", "validation", "test"]

_MONDAY = np.datetime64("1970-01-05", "D")
_CYCLE = 20
FIRST_WEEK: Mapping[Part, int] = {"train": 0, "validation": 14, "test": 17}
"""First week of each part in a cycle."""
RANDOM_SEED = 42


@dataclass(frozen=True, eq=False)
class Split:
    """Hours for training, for choosing among models, and for the final test.

    ``method`` says how they were chosen, ``left_out`` holds the hours that belong to none of the three.
    """

    method: SplitMethod
    train: Hours
    validation: Hours
    test: Hours
    left_out: Hours

    def describe(self) -> str:
        """One sentence for reports and provenance."""
        how = (
            "whole ISO weeks by week number (14 train, 3 validation, 3 test of each 20)"
            if self.method == "blocked"
            else f"random hours (0.7, 0.15, 0.15; seed {RANDOM_SEED})"
        )
        left_out = f", {self.left_out.size} left out" if self.left_out.size else ""
        return (
            f"Split by {how}: {counted(self.train.size, 'hour')} to train, "
            f"{self.validation.size} to validate, {self.test.size} to test{left_out}."
        )


def week_number(times: ArrayLike) -> NDArray[np.int64]:
    """ISO weeks (Monday 00 UTC to Sunday) counted from that of Monday 1970-01-05, which is week 0.

    Counted through, not anew each year: the number depends on the date alone and no season always falls
    into the same part of a split.
    """
    days = np.asarray(times).astype("datetime64[D]") - _MONDAY
    weeks: NDArray[np.int64] = np.floor_divide(days.astype(np.int64), 7)
    return weeks


def blocked_split(times: ArrayLike) -> Split:
    """Whole weeks by :func:`week_number`: of each 20, weeks 0-13 train, 14-16 validate, 17-19 test.

    The first day (Monday) of a week that follows a week of another part is left out, so that parts are at
    least a day apart. Each hour's part is a function of its date alone: a growing store moves no hour.
    """
    hours = np.atleast_1d(np.asarray(times, dtype="datetime64[ns]"))
    position = week_number(hours) % _CYCLE
    starts = np.array(sorted(FIRST_WEEK.values()))
    part = np.searchsorted(starts, position, side="right") - 1
    monday = ((hours.astype("datetime64[D]") - _MONDAY).astype(np.int64) % 7) == 0
    left_out = monday & np.isin(position, starts)
    train, validation, test = (hours[(part == number) & ~left_out] for number in range(3))
    return Split("blocked", train, validation, test, hours[left_out])
