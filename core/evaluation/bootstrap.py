"""Confidence intervals of means over hours, from a block bootstrap.

Scores of neighbouring hours are alike, so hours are not drawn one by one but in blocks of consecutive ones
(Künsch 1989, doi:10.1214/aos/1176347265); all models get the same draws, so that their differences are those
of the same hours. The interval is that of the percentiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Times = NDArray[np.datetime64]


def blocks_of(hours: Times, block_hours: int) -> list[NDArray[np.intp]]:
    """Positions of the hours of every block; a block spans less than ``block_hours`` from its first hour.

    ``hours`` are in ascending order; days that are farther apart than a block are different blocks.
    """
    starts: list[int] = []
    for position, hour in enumerate(hours):
        if not starts or hour - hours[starts[-1]] >= np.timedelta64(block_hours, "h"):
            starts.append(position)
    ends = [*starts[1:], hours.size]
    return [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]


def weights(blocks: list[NDArray[np.intp]], hours: int, resamples: int, seed: int = 0) -> Array:
    """How often every hour counts in every draw of as many blocks as there are, (resamples, hours).

    The first row is no draw: every hour counts once.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(blocks), size=(resamples, len(blocks)))
    often = np.stack([np.bincount(row, minlength=len(blocks)) for row in drawn])
    block_of = np.empty(hours, np.intp)
    for number, block in enumerate(blocks):
        block_of[block] = number
    return np.concatenate([np.ones((1, hours)), often[:, block_of]]).astype(np.float64)


def weighted_means(values: Array, counts: Array) -> Array:
    """Means over the last axis, hours that are NaN left out: (..., hours), (draws, hours) -> (..., draws)."""
    valid = np.isfinite(values)
    total = valid.astype(np.float64) @ counts.T
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = (np.where(valid, values, 0.0) @ counts.T) / total
    return means


def interval(draws: Array, confidence: float = 0.95) -> Array:
    """(..., 3): the value of all hours (first draw) and the bounds, from (..., draws)."""
    tail = (1 - confidence) / 2
    lost = np.isnan(draws).all(axis=-1, keepdims=True)
    filled = np.where(lost, 0.0, draws)
    low, high = np.nanquantile(filled[..., 1:], (tail, 1 - tail), axis=-1)
    found: Array = np.where(lost, np.nan, np.stack([filled[..., 0], low, high], axis=-1))
    return found
