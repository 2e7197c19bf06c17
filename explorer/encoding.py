"""Fields as 16-bit codes for the wire, and the colour scale that reads the codes.

Code 0 is "no value"; codes 1 to 65535 lie evenly over all values of the fields that share a scale, outliers
included, and over the colour range around which a scale was made, so that a hover decodes to some 1e-5 of
what they span together. Half the bytes of float32, and a map switches in two thirds of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISSING = 0
FIRST = 1
LAST = 65535


@dataclass(frozen=True)
class Scale:
    """value = low + (code - 1) * step."""

    low: float
    step: float

    @classmethod
    def spanning(cls, fields: Iterable[NDArray[np.floating]]) -> Scale:
        """The scale from the lowest to the highest finite value of all fields."""
        bounds = [limits for field in fields if (limits := _limits(field)) is not None]
        if not bounds:
            return cls(0.0, 1.0)
        low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
        return cls(low, max((high - low) / (LAST - FIRST), 1e-9))

    @classmethod
    def around(cls, low: float, high: float, fields: Iterable[NDArray[np.floating]]) -> Scale:
        """A scale of all finite values on which the colour range ``low`` to ``high`` lies at round codes.

        The room below and above the range is a power of two of its width, at least half. The palettes of
        different hours are then mostly equal, whatever their ranges, and a browser that gets an hour paints
        each map once: not for the new codes and again for new colours.
        """
        width = max(high - low, 1e-6)
        bounds = [limits for field in fields if (limits := _limits(field)) is not None]
        below = _room(max((low - b[0] for b in bounds), default=0.0) / width)
        above = _room(max((b[1] - high for b in bounds), default=0.0) / width)
        return cls(low - below * width, (below + 1 + above) * width / (LAST - FIRST))

    def encode(self, field: NDArray[np.floating]) -> NDArray[np.uint16]:
        """Codes of a field, same shape; not finite becomes 0."""
        codes = np.rint((np.asarray(field, np.float64) - self.low) / self.step) + FIRST
        finite = np.isfinite(codes)
        return np.where(finite, np.clip(codes, FIRST, LAST), MISSING).astype(np.uint16)

    def decode(self, codes: NDArray[np.uint16]) -> NDArray[np.float64]:
        """Values of codes; 0 becomes NaN."""
        return np.where(codes == MISSING, np.nan, self.low + (codes.astype(np.float64) - FIRST) * self.step)

    def palette(self, colours: Sequence[str], low: float, high: float, size: int | None = None) -> list[str]:
        """Colours for all codes from 1 to 65535 such that ``colours`` span ``low`` to ``high``.

        There are ``size`` of them; by default 512 over ``low`` to ``high``, at most 4096 altogether.

        A colour mapper can mark only what lies outside its range; with a palette over all codes that is the
        missing value alone, while values beyond the colour range keep the end colours.
        """
        width, whole = max(high - low, 1e-12), (LAST - FIRST) * self.step
        size = size or min(max(round(512 * whole / width), 1), 4096)
        centres = self.low + (np.arange(size) + 0.5) / size * whole
        share = (centres - low) / width
        index = np.clip((share * len(colours)).astype(int), 0, len(colours) - 1)
        return [colours[i] for i in index]


def _room(share: float) -> float:
    return float(2.0 ** max(np.ceil(np.log2(share)), -1)) if share > 0 else 0.5


def _limits(field: NDArray[np.floating]) -> tuple[float, float] | None:
    with np.errstate(invalid="ignore"):
        low, high = float(np.min(field)), float(np.max(field))
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = field[np.isfinite(field)]
        if not finite.size:
            return None
        low, high = float(finite.min()), float(finite.max())
    return low, high


def robust_range(
    fields: Iterable[NDArray[np.floating]], *, signed: bool, floor: float | None = None, share: float = 0.005
) -> tuple[float, float]:
    """A colour range that leaves out ``share`` of the values at either end, rounded outwards.

    Symmetric about zero where ``signed``; starts at ``floor`` where that is given and no value lies below.
    Every 4th row and column is looked at: quantiles of a field that varies over several cells need no more.
    """
    samples = [field[::4, ::4].ravel() if field.size > 20_000 else field.ravel() for field in fields]
    values = np.concatenate(samples) if samples else np.empty(0)
    values = values[np.isfinite(values)]
    if not values.size:
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    if signed:
        bound = float(np.quantile(np.abs(values), 1 - share))
        bound = max(_round_out(bound, bound), 0.1)
        return -bound, bound
    low, high = (float(v) for v in np.quantile(values, (share, 1 - share)))
    if floor is not None:
        low = min(floor, low)
    spread = max(high - low, 0.1)
    return -_round_out(-low, spread), max(_round_out(high, spread), -_round_out(-low, spread) + 0.1)


def _round_out(value: float, spread: float) -> float:
    step = nice_step(spread, 20)
    return float(np.ceil(round(value / step, 6)) * step)


def nice_step(spread: float, count: int) -> float:
    """The 1, 2 or 5 times a power of ten that divides ``spread`` into at most about ``count`` parts."""
    raw = max(spread, 1e-9) / count
    power = 10.0 ** np.floor(np.log10(raw))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999))


def nice_ticks(low: float, high: float, count: int = 8) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count`` of them."""
    step = nice_step(high - low, count)
    first, last = int(np.ceil(low / step - 1e-6)), int(np.floor(high / step + 1e-6))
    return [round(i * step, 10) for i in range(first, last + 1)]
