"""The learning rate as a pure function of what a run has done, so that a resumed run needs no other state."""

from __future__ import annotations

import math
from collections.abc import Sequence

PLATEAU_FACTOR = 0.25
PLATEAU_PATIENCE = 3
PLATEAU_THRESHOLD = 1e-4


def cosine_factor(progress: float) -> float:
    """From 1 at ``progress`` 0 to 0 at 1 and after (Loshchilov and Hutter, arXiv 1608.03983, equation 5)."""
    return 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def plateau_factor(losses: Sequence[float]) -> float:
    """Factor after validation ``losses``: times 0.25 whenever more than 3 in a row did not improve.

    An improvement is a loss smaller than the best by a part in 10 000. The same as torch's
    ``ReduceLROnPlateau(factor=0.25, patience=3)``.
    """
    factor, best, bad = 1.0, math.inf, 0
    for loss in losses:
        if loss < best * (1 - PLATEAU_THRESHOLD):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > PLATEAU_PATIENCE:
            factor, bad = factor * PLATEAU_FACTOR, 0
    return factor


def learning_rate(
    base: float,
    schedule: str,
    *,
    step: int,
    progress: float,
    losses: Sequence[float] = (),
    warmup_steps: int = 0,
) -> float:
    """Learning rate of a step, counted from 0.

    ``schedule`` is "constant", "cosine" (follows ``progress``, the part of the run that is over) or
    "plateau" (follows the validation ``losses`` so far). All rise linearly over ``warmup_steps``.
    """
    factor = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if schedule == "cosine":
        factor *= cosine_factor(progress)
    elif schedule == "plateau":
        factor *= plateau_factor(losses)
    return base * factor
