"""From hours of a store to tensors: normalisation, splits, and samples with aligned crops.

Channel orders are those of the published weights (Tomasi et al., arXiv 2406.13627): the 14 predictors
as in :data:`core.variables.PREDICTORS`; orography, 16 land-cover classes and latitude as statics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.data import Dataset, Sampler, random_split

from core.variables import LAND_COVER_CLASSES, PREDICTORS, VARIABLES

if TYPE_CHECKING:
    from core.data.store import Store

Hours = NDArray[np.datetime64]
FloatArray = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (hours done, hours in all)."""

SST_FILL = -10.0
"""What the published networks see, after normalisation, where there is no sea surface."""


class SampleError(ValueError):
    """Data that can't become samples; the message says which variable or hour and how to mend it."""


# --- normalisation ----------------------------------------------------------------------------------


class MeanStd(BaseModel):
    """Mean and standard deviation of one variable, in its own units; the deviation is positive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float = Field(allow_inf_nan=False)
    std: float = Field(gt=0, allow_inf_nan=False)


class Normalization(BaseModel):
    """Statistics that standardise variables, and the tensors made with them.

    ``predictors`` and ``targets`` map short names to statistics over the training hours; the order of
    ``predictors`` is the channel order of a network's coarse input. ``orography`` [m] and ``latitude``
    [degree_north] are statistics over the whole domain (torch default, one degree of freedom removed).
    Land cover is used as it is. ``sst_fill`` replaces a missing sea surface temperature after
    standardisation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictors: dict[str, MeanStd]
    targets: dict[str, MeanStd]
    orography: MeanStd
    latitude: MeanStd
    sst_fill: float = Field(default=SST_FILL, allow_inf_nan=False)

    def predictors_to_tensor(self, coarse: xr.Dataset) -> Tensor:
        """Standardised predictors, float32 (time, predictor, h, w), in the order of ``predictors``.

        ``coarse`` has dims (time, y, x). Raises SampleError if a predictor is absent, or holds missing
        values anywhere but in sst.
        """
        fields = []
        for name, statistics in self.predictors.items():
            values = _standardise(_values(coarse, name, ("time", "y", "x")), statistics)
            if name == "sst":
                values = np.where(np.isnan(values), np.float32(self.sst_fill), values)
            _refuse_missing(values, name, coarse)
            fields.append(values)
        return torch.from_numpy(np.stack(fields, axis=1))

    def statics_to_tensor(self, static: xr.Dataset) -> Tensor:
        """Static channels, float32 (18, H, W): orography, 16 land-cover classes, latitude.

        Raises SampleError if a variable is absent, incomplete, or has another number of classes.
        """
        land_cover = _values(static, "land_cover", ("class", "y", "x"))
        if len(land_cover) != LAND_COVER_CLASSES:
            raise SampleError(
                f"land_cover has {len(land_cover)} classes; the networks take {LAND_COVER_CLASSES}."
            )
        channels = np.concatenate(
            [
                _standardise(_values(static, "orography", ("y", "x")), self.orography)[None],
                land_cover,
                _standardise(_values(static, "latitude", ("y", "x")), self.latitude)[None],
            ]
        )
        for name, part in (
            ("orography", channels[:1]),
            ("land_cover", land_cover),
            ("latitude", channels[-1:]),
        ):
            _refuse_missing(part, name, static)
        return torch.from_numpy(channels)

    def targets_to_tensor(self, fine: xr.Dataset, names: Sequence[str]) -> Tensor:
        """Standardised targets, float32 (time, target, H, W), in the order of ``names``.

        Raises SampleError if a target is absent, incomplete, or has no statistics.
        """
        fields = []
        for name in names:
            values = _standardise(_values(fine, name, ("time", "y", "x")), self._target(name))
            _refuse_missing(values, name, fine)
            fields.append(values)
        return torch.from_numpy(np.stack(fields, axis=1))

    def targets_from_tensor(self, tensor: Tensor, names: Sequence[str]) -> Tensor:
        """Targets in physical units (K, m s-1, m) from standardised ones; shape (..., target, H, W)."""
        if tensor.ndim < 3 or tensor.shape[-3] != len(names):
            raise SampleError(
                f"A tensor of shape {tuple(tensor.shape)} doesn't hold the targets {', '.join(names)}; "
                f"its third axis from the end must be {len(names)} long."
            )
        statistics = [self._target(name) for name in names]
        shape = (len(names), 1, 1)
        mean = tensor.new_tensor([s.mean for s in statistics]).view(shape)
        std = tensor.new_tensor([s.std for s in statistics]).view(shape)
        return tensor * std + mean

    def _target(self, name: str) -> MeanStd:
        if name not in self.targets:
            known = ", ".join(self.targets) or "none"
            raise SampleError(f"There are no statistics for the target {name}; there are for: {known}.")
        return self.targets[name]


def _values(data: xr.Dataset, name: str, dims: tuple[str, ...]) -> FloatArray:
    if name not in data:
        there = ", ".join(str(variable) for variable in data.data_vars) or "nothing"
        raise SampleError(f"The variable {name} is missing; the data holds {there}.")
    if set(data[name].dims) != set(dims):
        found = ", ".join(str(dim) for dim in data[name].dims)
        raise SampleError(f"The variable {name} has the dimensions ({found}); it needs ({', '.join(dims)}).")
    values: FloatArray = data[name].transpose(*dims).values.astype(np.float32, copy=False)
    return values


def _standardise(values: FloatArray, statistics: MeanStd) -> FloatArray:
    standardised: FloatArray = (values - np.float32(statistics.mean)) / np.float32(statistics.std)
    return standardised


def _refuse_missing(values: FloatArray, name: str, data: xr.Dataset) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    where = ""
    if "time" in data[name].dims:
        hour = data["time"].values[int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))]
        where = f" at {np.datetime_as_string(hour, unit='h')}"
    raise SampleError(
        f"{name} has missing values in {np.mean(~finite):.1%} of its cells{where}; networks need complete "
        "fields. Leave out those hours, or use data that covers the whole domain."
    )


class _Moments:
    """Mean and squared deviations of a stream of arrays, merged pairwise in float64.

    Chan, Golub and LeVeque, "Algorithms for computing the sample variance", The American Statistician
    37 (1983), equation 2.1: free of the cancellation of sums of squares.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, values: NDArray[np.floating]) -> None:
        if values.size == 0:
            return
        wide = values.astype(np.float64)
        mean = float(wide.mean())
        squares = float(np.square(wide - mean).sum())
        total = self.count + wide.size
        shift = mean - self.mean
        self.squares += squares + shift * shift * self.count * wide.size / total
        self.mean += shift * wide.size / total
        self.count = total

    def mean_std(self, name: str) -> MeanStd:
        std = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        # Rounding leaves a constant field a deviation far below anything that float32 can resolve.
        if std <= 1e-7 * abs(self.mean):
            raise SampleError(
                f"{name} has the same value everywhere and always ({self.mean:g}), so it can't be "
                "standardised. Check the data, or train on hours in which it varies."
            )
        return MeanStd(mean=self.mean, std=std)


def compute_normalization(
    store: Store,
    hours: ArrayLike,
    *,
    targets: Sequence[str] = ("t2m",),
    predictors: Sequence[str] = PREDICTORS,
    batch_hours: int = 24,
    progress: Progress | None = None,
) -> Normalization:
    """Statistics of a store over ``hours`` (use the training hours only), read ``batch_hours`` at a time.

    sst is averaged over the sea. Where a domain has no sea at all, its statistics are 0 and 1: every
    value is then ``sst_fill``. Raises SampleError if a variable is absent, has missing values (sst
    excepted) or is constant.
    """
    times = np.atleast_1d(np.asarray(hours, dtype="datetime64[ns]"))
    if times.size == 0:
        raise SampleError("There are no hours to compute the normalisation from.")
    moments = {("coarse", name): _Moments() for name in predictors} | {
        ("fine", name): _Moments() for name in targets
    }
    for start in range(0, times.size, batch_hours):
        batch = times[start : start + batch_hours]
        for group, read, names in (
            ("coarse", store.read_coarse, tuple(predictors)),
            ("fine", store.read_fine, tuple(targets)),
        ):
            data = read(batch, names) if names else xr.Dataset()
            for name in names:
                values = _values(data, name, ("time", "y", "x"))
                if name == "sst":
                    values = values[~np.isnan(values)]
                else:
                    _refuse_missing(values, name, data)
                moments[group, name].add(values)
        if progress is not None:
            progress(min(start + batch_hours, times.size), times.size)

    static = store.read_static()
    for name in ("orography", "latitude"):
        values = _values(static, name, ("y", "x"))
        _refuse_missing(values, name, static)
        moments["static", name] = _Moments()
        moments["static", name].add(values)

    if ("coarse", "sst") in moments and moments["coarse", "sst"].count == 0:
        statistics = {"sst": MeanStd(mean=0.0, std=1.0)}
    else:
        statistics = {}
    return Normalization(
        predictors={
            name: statistics.get(name) or moments["coarse", name].mean_std(name) for name in predictors
        },
        targets={name: moments["fine", name].mean_std(name) for name in targets},
        orography=moments["static", "orography"].mean_std("orography"),
        latitude=moments["static", "latitude"].mean_std("latitude"),
    )
