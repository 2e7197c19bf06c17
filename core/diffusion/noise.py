"""Noise of an ensemble member: a pure function of seed, hour, member, step and number of the coarse member.

No generator is carried along. Every draw starts the counter-based Philox 4x64-10 (Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011; NumPy's implementation) at its own place, so the numbers do not
depend on batches, on their order, on the device, or on which members were drawn before.

Layout, fixed for ever since stored results depend on it:

    key     word 0: seed          word 1: hour (upper 32 bits), member (lower 32 bits)
    counter words 0 and 1: run through by the draw        word 2: number        word 3: step

where number is that of the coarse member that an ensemble forecast gives (0 for anything else): different
numbers draw from different places of one stream, so their noise is independent, and a draw would have to take
2**128 blocks to reach that of the next. The hour counts from 1970-01-01 00 UTC, in two's complement, and word
0 of the counter is 1 at the first block of four outputs. Each pair of 64-bit outputs (a, b) makes two normal
numbers by the transform of Box and Muller (Ann. Math. Statist. 29, 1958) in float64:

    r = sqrt(-2 log((a // 2**11 + 1) / 2**53))      angle = 2 pi (b // 2**11) / 2**53      r cos, r sin

rounded to float32 and laid out in C order. NumPy promises the outputs of Philox but not its own normal
numbers, and those come from rejections, where one rounding that differs would move all that follows. Here a
platform whose logarithm or cosine rounds otherwise can change the last bit of single numbers and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def member_noise(
    shape: Sequence[int],
    *,
    seed: int,
    hour: np.datetime64,
    member: int,
    step: int = 0,
    number: int = 0,
) -> Tensor:
    """Unit normal numbers of ``shape``, float32, on the CPU.

    Parameters
    ----------
    seed : from 0 to 2**64 - 1
    hour : UTC, on the hour
    member : from 0 to 2**32 - 1
    step : 0 for the start of a sample, then 1, 2, ... for the steps of a sampler; up to 2**64 - 1
    number : of the coarse member, from 0 to 2**32 - 1

    A larger draw begins with the smaller one of the same key. Raises ValueError outside these ranges.
    """
    key = [
        _whole(seed, 64, "seed"),
        (_epoch_hour(hour) % 2**32) << 32 | _whole(member, 32, "member"),
    ]
    counter = [0, 0, _whole(number, 32, "number"), _whole(step, 64, "step")]
    size = prod(shape)
    philox = np.random.Philox(
        key=np.array(key, dtype=np.uint64),
        counter=np.array(counter, dtype=np.uint64),
    )
    raw: NDArray[np.uint64] = philox.random_raw(size + size % 2).reshape(-1, 2)
    a, b = (raw >> np.uint64(11)).astype(np.float64).T / 2.0**53
    radius = np.sqrt(-2.0 * np.log(a + 2.0**-53))
    angle = 2.0 * np.pi * b
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).astype(np.float32)
    return torch.from_numpy(normal.reshape(-1)[:size].reshape(tuple(shape)))


def _epoch_hour(hour: np.datetime64) -> int:
    if not isinstance(hour, np.datetime64) or np.isnat(hour):
        raise ValueError(f"The hour of the noise must be a numpy.datetime64 in UTC; got {hour!r}.")
    whole = hour.astype("datetime64[h]")
    if whole != hour:
        raise ValueError(f"Noise is drawn for whole hours; {hour} is none.")
    count = int(whole.astype(np.int64))
    if not -(2**31) <= count < 2**31:
        raise ValueError(f"Noise can't be drawn for {hour}: it is too far from 1970.")
    return count


def _whole(value: int, bits: int, name: str) -> int:
    # numpy's whole numbers come from coordinates of data sets; True does not count as 1.
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**bits:
        raise ValueError(
            f"The {name} of the noise must be a whole number from 0 to 2**{bits} - 1; got {value!r}."
        )
    return int(value)
