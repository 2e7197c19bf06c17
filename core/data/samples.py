"""From hours of a store to tensors: normalisation, splits, and samples with aligned crops.

Channel orders are those of the published weights (Tomasi et al., arXiv 2406.13627): the 14 predictors
as in :data:`core.variables.PREDICTORS`; orography, 16 land-cover classes and latitude as statics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.data import Dataset, Sampler, random_split

from core.data.ranges import RangeRecorder, TrainingRange
from core.data.splits import FIRST_WEEK, RANDOM_SEED, Split, SplitMethod, blocked_split
from core.plural import counted
from core.variables import LAND_COVER_CLASSES, PREDICTORS

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
    record: RangeRecorder | None = None,
) -> Normalization:
    """Statistics of a store over ``hours`` (use the training hours only), read ``batch_hours`` at a time.

    ``record`` is given every value of predictors and statics that they are made from.
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
                if name != "sst":
                    _refuse_missing(values, name, data)
                if record is not None and group == "coarse":
                    record.add(name, values)
                moments[group, name].add(values[~np.isnan(values)] if name == "sst" else values)
        if progress is not None:
            progress(min(start + batch_hours, times.size), times.size)

    static = store.read_static()
    for name in ("orography", "latitude"):
        values = _values(static, name, ("y", "x"))
        _refuse_missing(values, name, static)
        moments["static", name] = _Moments()
        moments["static", name].add(values)
        if record is not None:
            record.add_static(name, values)
    if record is not None:
        land_cover = _values(static, "land_cover", ("class", "y", "x"))
        _refuse_missing(land_cover, "land_cover", static)
        record.add_static("land_cover", land_cover)

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


def compute_statistics(
    store: Store,
    hours: ArrayLike,
    *,
    targets: Sequence[str] = ("t2m",),
    predictors: Sequence[str] = PREDICTORS,
    progress: Progress | None = None,
) -> tuple[Normalization, TrainingRange]:
    """Normalisation and ranges of a store over ``hours``, in one pass; see :func:`compute_normalization`."""
    times = np.atleast_1d(np.asarray(hours, dtype="datetime64[ns]"))
    record = RangeRecorder(times.size, math.prod(store.domain.coarse.shape))
    normalization = compute_normalization(
        store, times, targets=targets, predictors=predictors, progress=progress, record=record
    )
    moments = {name: (found.mean, found.std) for name, found in normalization.predictors.items()}
    return normalization, record.result(moments)


# --- splits -----------------------------------------------------------------------------------------

RANDOM_FRACTIONS = (0.7, 0.15, 0.15)


def random_split_hours(times: ArrayLike) -> Split:
    """The published split: fractions 0.7, 0.15 and 0.15 of a permutation by ``torch.Generator`` seed 42.

    Neighbouring hours fall into different parts, so validation and test flatter a model; and hours change
    their part when the store grows. For comparison with published scores only.
    """
    hours = np.atleast_1d(np.asarray(times, dtype="datetime64[ns]"))
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    positions = cast("Dataset[int]", range(hours.size))
    parts = random_split(positions, RANDOM_FRACTIONS, generator=generator)
    train, validation, test = (hours[np.sort(np.asarray(part.indices, dtype=np.intp))] for part in parts)
    return Split("random", train, validation, test, hours[:0])


def split(times: ArrayLike, method: SplitMethod = "blocked") -> Split:
    """Hours divided by the named method, see :func:`blocked_split` and :func:`random_split_hours`."""
    if method not in ("blocked", "random"):
        raise SampleError(f"There is no split named {method!r}; use blocked or random.")
    return blocked_split(times) if method == "blocked" else random_split_hours(times)


def split_hours(times: ArrayLike, part: str, method: SplitMethod = "blocked") -> Hours:
    """Hours of one part: "train", "validation" or "test"; "all" gives every hour.

    Raises SampleError for another word, or where no hour falls into the part.
    """
    hours: Hours = np.atleast_1d(np.asarray(times, dtype="datetime64[ns]"))
    if part == "all":
        return hours
    if part not in FIRST_WEEK:
        raise SampleError(f"A split has the parts train, validation, test, or all of them; not {part!r}.")
    chosen: Hours = getattr(split(hours, method), part)
    if chosen.size == 0:
        raise SampleError(
            f"Of {counted(hours.size, 'hour')} none falls into the {part} part of the {method} split. "
            "Use more weeks, or choose another part."
        )
    return chosen


# --- samples ----------------------------------------------------------------------------------------


class HourDataset(Dataset[dict[str, Tensor]]):
    """Standardised samples of a store: ``coarse`` (predictors, h, w), ``static`` (18, H, W) and
    ``target`` (targets, H, W), float32.

    An item is asked for by its position in ``hours``, or by (epoch, position). With ``crop`` (fine pixels)
    it is a square window whose place is a pure function of (seed, epoch, position), aligned on the coarse
    grid; without, the whole domain.

    Hours are kept standardised in memory when all fit into ``cache_bytes``, else each is read again every
    time. ``progress`` follows that first reading.

    Raises SampleError for a crop that does not fit, no hours, or (on reading) incomplete fields.
    """

    def __init__(
        self,
        store: Store,
        hours: ArrayLike,
        normalization: Normalization,
        targets: Sequence[str] = ("t2m",),
        crop: int | None = None,
        seed: int = 0,
        *,
        cache_bytes: float = 0,
        progress: Progress | None = None,
    ) -> None:
        domain = store.domain
        if crop is not None and (crop < domain.ratio or crop % domain.ratio or crop > min(domain.fine.shape)):
            height, width = domain.fine.shape
            raise SampleError(
                f"Crops of {crop} fine pixels don't fit: choose a multiple of {domain.ratio} (one coarse "
                f"cell) up to {min(height, width)}, the shorter side of the domain ({height} x {width})."
            )
        self.hours: Hours = np.atleast_1d(np.asarray(hours, dtype="datetime64[ns]"))
        if self.hours.size == 0:
            raise SampleError("There are no hours to take samples from.")
        self.targets = tuple(targets)
        self.crop = crop
        self.seed = seed
        self._store = store
        self._normalization = normalization
        self._ratio = domain.ratio
        self._static = normalization.statics_to_tensor(store.read_static())
        self._cached: tuple[Tensor, Tensor] | None = None
        shapes = (
            (self.hours.size, len(normalization.predictors), *domain.coarse.shape),
            (self.hours.size, len(self.targets), *domain.fine.shape),
        )
        if sum(4 * math.prod(shape) for shape in shapes) <= cache_bytes:
            self._cached = (torch.empty(shapes[0]), torch.empty(shapes[1]))
            for start in range(0, self.hours.size, 24):
                rows = slice(start, start + 24)
                self._cached[0][rows], self._cached[1][rows] = self._read(self.hours[rows])
                if progress is not None:
                    progress(min(start + 24, self.hours.size), self.hours.size)

    @property
    def cached_bytes(self) -> int:
        """Memory that the kept hours take; 0 where they are read anew each time."""
        return sum(tensor.nbytes for tensor in self._cached or ())

    def __len__(self) -> int:
        return int(self.hours.size)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        if not 0 <= position < len(self):
            raise IndexError(f"There are {len(self)} hours; there is no position {position}.")
        if self._cached is not None:
            coarse, target = self._cached[0][position], self._cached[1][position]
        else:
            batch = self._read(self.hours[position : position + 1])
            coarse, target = batch[0][0], batch[1][0]
        static = self._static
        if self.crop is not None:
            cells = self.crop // self._ratio
            row, column = self._corner(epoch, position, cells)
            coarse = coarse[:, row : row + cells, column : column + cells]
            fine = (
                slice(None),
                slice(row * self._ratio, row * self._ratio + self.crop),
                slice(column * self._ratio, column * self._ratio + self.crop),
            )
            static, target = static[fine], target[fine]
        return {"coarse": coarse, "static": static, "target": target}

    def _corner(self, epoch: int, position: int, cells: int) -> tuple[int, int]:
        """Northern row and western column of the crop, in coarse cells."""
        height, width = self._store.domain.coarse.shape
        generator = np.random.default_rng((self.seed, epoch, position))
        return int(generator.integers(height - cells + 1)), int(generator.integers(width - cells + 1))

    def _read(self, hours: Hours) -> tuple[Tensor, Tensor]:
        coarse = self._store.read_coarse(hours, tuple(self._normalization.predictors))
        fine = self._store.read_fine(hours, self.targets)
        return (
            self._normalization.predictors_to_tensor(coarse),
            self._normalization.targets_to_tensor(fine, self.targets),
        )


class RoundSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, position) of one round of training; a round has any number of samples.

    Training runs through one endless sequence of shuffled epochs and takes the next ``samples`` of it each
    round. The sequence is a pure function of (seed, place in it), so that a run resumed at a round repeats
    no sample and leaves none out. :meth:`set_epoch` chooses the round (the name is Lightning's).
    """

    def __init__(self, hours: int, samples: int, seed: int = 0) -> None:
        if hours < 1 or samples < 1:
            raise SampleError(f"A round needs at least one hour and one sample; got {hours} and {samples}.")
        self.hours = hours
        self.samples = samples
        self.seed = seed
        self.round = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the round, counted from 0."""
        self.round = epoch

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start = self.round * self.samples
        order, shuffled = np.empty(0, np.intp), -1
        for place in range(start, start + self.samples):
            epoch, position = divmod(place, self.hours)
            if epoch != shuffled:
                order, shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.hours), epoch
            yield epoch, int(order[position])
