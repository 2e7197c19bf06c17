"""Between which values the inputs of a model lay in its training.

Recorded beside the normalisation, from the same values, and kept in the description of a checkpoint, so that
inputs of another kind can be told from those a model knows (:mod:`core.downscale.applicability`).
"""

from __future__ import annotations

import math
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.variables import LAND_COVER_CLASSES, PREDICTORS

TAIL = 0.001
"""Share of the values below ``low``, and as much above ``high``."""

HOURS_PER_VARIABLE = 20
"""Hours for each variable from which on it is told how they vary together."""

RANGED_STATICS = ("orography", "latitude")
"""Static fields that have a range; land cover has shares of classes."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1.0001)]


class VariableRange(BaseModel):
    """Where the values of one variable lay, in its own SI units.

    Attributes
    ----------
    minimum, maximum : of all values
    low, high : between them lie all but the share :data:`TAIL` at either end
    mean, std : of all values, one degree of freedom removed
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum: Finite
    low: Finite
    high: Finite
    maximum: Finite
    mean: Finite
    std: float = Field(ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.minimum <= self.low <= self.high <= self.maximum:
            raise ValueError("minimum, low, high and maximum must not decrease")
        return self


class HourlyMeans(BaseModel):
    """How the means of the predictors over the domain vary together from hour to hour.

    Attributes
    ----------
    names : short names of the predictors
    mean, std : of the hourly means, in SI units
    correlation : between them, a row for each
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = Field(min_length=1, max_length=len(PREDICTORS))
    mean: tuple[Finite, ...]
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    correlation: tuple[tuple[Annotated[float, Field(ge=-1, le=1)], ...], ...]

    @model_validator(mode="after")
    def _square(self) -> Self:
        count = len(self.names)
        if {len(self.mean), len(self.std), len(self.correlation), *map(len, self.correlation)} != {count}:
            raise ValueError("means, deviations and correlations must be those of the names")
        return self


class TrainingRange(BaseModel):
    """Ranges of everything that a network was given in training.

    Attributes
    ----------
    hourly : how the hourly means vary together; None where there were too few hours to tell
    hours : how many hours they were taken over
    predictors : by short name, over all cells and hours; sst over the sea, and absent where there was none
    statics : orography [m] and latitude [degree_north] over the cells of the fine grid
    land_cover : mean share of each of the 16 classes
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hours: int = Field(ge=1)
    predictors: dict[str, VariableRange]
    statics: dict[str, VariableRange]
    land_cover: tuple[Share, ...] = Field(min_length=LAND_COVER_CLASSES, max_length=LAND_COVER_CLASSES)
    hourly: HourlyMeans | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        named = (*self.predictors, *(self.hourly.names if self.hourly is not None else ()))
        strangers = [name for name in named if name not in PREDICTORS]
        strangers += [name for name in self.statics if name not in RANGED_STATICS]
        if strangers:
            raise ValueError(f"unknown variables: {', '.join(strangers)[:200]}")
        return self


class RangeRecorder:
    """The ranges of a stream of values whose number is known beforehand.

    Exact: of each variable the smallest and the largest values are kept that the two quantiles need, so
    memory is twice :data:`TAIL` of all values, and a mean for each hour.

    Parameters
    ----------
    hours : hours that will come, of which the ranges are taken
    cells : values of a predictor in an hour
    """

    def __init__(self, hours: int, cells: int) -> None:
        self.hours = hours
        self._kept = math.ceil(TAIL * hours * cells) + 1
        self._predictors: dict[str, _Tails] = {}
        self._hourly: dict[str, list[NDArray[np.float64]]] = {}
        self._statics: dict[str, VariableRange] = {}
        self._land_cover: tuple[float, ...] = ()

    def add(self, name: str, values: NDArray[np.floating]) -> None:
        """Take values of a predictor, shape (time, ...); missing ones (NaN) do not count."""
        there = ~np.isnan(values)
        self._predictors.setdefault(name, _Tails(self._kept)).add(values[there])
        cells = tuple(range(1, values.ndim))
        with np.errstate(invalid="ignore"):
            means = np.where(there, values, 0).sum(cells, dtype=np.float64) / there.sum(cells)
        self._hourly.setdefault(name, []).append(means)

    def add_static(self, name: str, values: NDArray[np.floating]) -> None:
        """Take a whole static field: orography or latitude (y, x), or land_cover (class, y, x)."""
        if name == "land_cover":
            shares = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
            self._land_cover = tuple(float(share) for share in shares)
            return
        tails = _Tails(math.ceil(TAIL * values.size) + 1)
        tails.add(values)
        self._statics[name] = tails.range(
            float(values.mean(dtype="f8")), float(values.std(dtype="f8", ddof=1))
        )

    def result(self, mean_std: dict[str, tuple[float, float]]) -> TrainingRange:
        """The ranges of all that came; ``mean_std`` are mean and standard deviation of the predictors."""
        found = {
            name: tails.range(*mean_std[name]) for name, tails in self._predictors.items() if tails.count
        }
        return TrainingRange(
            hours=self.hours,
            predictors=found,
            statics=self._statics,
            land_cover=self._land_cover,
            hourly=self._together(),
        )

    def _together(self) -> HourlyMeans | None:
        """How the hourly means vary together, those that vary and are there at every hour."""
        means = {name: np.concatenate(parts) for name, parts in self._hourly.items()}
        means = {name: values for name, values in means.items() if values.std() > 0}  # NaN is not
        if not means or self.hours < HOURS_PER_VARIABLE * len(means):
            return None
        table = np.stack(list(means.values()))
        correlation = np.clip(np.atleast_2d(np.corrcoef(table)), -1, 1)
        return HourlyMeans(
            names=tuple(means),
            mean=tuple(table.mean(axis=1).tolist()),
            std=tuple(table.std(axis=1, ddof=1).tolist()),
            correlation=tuple(tuple(row) for row in correlation.tolist()),
        )


class _Tails:
    """The smallest and the largest values of a stream."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.count = 0
        self.smallest: NDArray[np.floating] = np.empty(0, np.float32)
        self.largest: NDArray[np.floating] = np.empty(0, np.float32)

    def add(self, values: NDArray[np.floating]) -> None:
        values = values.ravel()
        self.count += values.size
        self.smallest = self._first(np.concatenate([self.smallest, values]))
        self.largest = -self._first(-np.concatenate([self.largest, values]))

    def _first(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        if values.size <= self.kept:
            return values
        return np.partition(values, self.kept - 1)[: self.kept].copy()

    def range(self, mean: float, std: float) -> VariableRange:
        rank = int(TAIL * (self.count - 1))
        low, high = np.sort(self.smallest), np.sort(self.largest)[::-1]
        return VariableRange(
            minimum=float(low[0]),
            low=float(low[rank]),
            high=float(high[rank]),
            maximum=float(high[0]),
            mean=mean,
            std=std,
        )
