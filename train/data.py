"""From a store to the hours of a run, and from hours to batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core.data.samples import HourDataset, Hours, Normalization, RoundSampler, split
from core.data.splits import Split
from core.data.store import Store
from train.config import StageConfig
from train.parallel import ShareSampler
from train.progress import Report, Status
from train.run_folder import TrainError

STATICS_NEEDED = ("orography", "land_cover", "latitude")


def usable_hours(
    config: StageConfig, store: Store, targets: Sequence[str], multiple: int, what: str
) -> Split:
    """The split of the store's hours, once nothing that training needs is missing.

    ``multiple`` is that of the fine sides that the network asks for, and ``what`` says why, as in "a UNet
    with 4 features". Raises TrainError naming what is missing.
    """
    contents = store.contents
    lacks = [
        *(f"the predictor {name}" for name in contents.missing_predictors),
        *(f"the fine truth {name}" for name in targets if name not in contents.targets),
        *(f"the static field {name}" for name in STATICS_NEEDED if name not in contents.statics),
    ]
    if lacks:
        raise TrainError(
            f"{store.path} can't train this {config.noun}; it lacks {', '.join(lacks)}. Use a store that has "
            "them, for example one made with `tramontana demo`."
        )
    height, width = store.domain.fine.shape
    if height % multiple or width % multiple:
        raise TrainError(
            f"The domain {store.domain.name} has {height} x {width} fine cells; {what} needs sides that are "
            f"multiples of {multiple}."
        )
    parts = split(store.hours, config.split)
    if parts.train.size == 0 or parts.validation.size == 0:
        raise TrainError(
            f"{store.path} has too few hours to train on. {parts.describe()} Add hours of other weeks; "
            "with the blocked split, 20 weeks in a row have all parts."
        )
    return parts


def draw(hours: Hours, count: int | None, seed: int) -> Hours:
    """``count`` of the hours, ascending. Drawn, because every n-th hour might be the same time of day."""
    if count is None or count >= hours.size:
        return hours
    chosen: Hours = np.sort(np.random.default_rng(seed).choice(hours, count, replace=False))
    return chosen


def data_identity(store: Store, train: Hours, validation: Hours) -> dict[str, Any]:
    """What tells one set of training data from another, plain JSON values."""
    return {
        "fingerprint": store.attrs.get("fingerprint"),
        "domain": store.domain.to_dict(),
        "train": hours_hash(train),
        "validation": hours_hash(validation),
    }


def hours_hash(hours: Hours) -> str:
    """How many hours, and a hash by which they are told from others."""
    seconds = hours.astype("datetime64[s]").astype("<i8")
    return f"{hours.size} hours, sha256 {hashlib.sha256(seconds.tobytes()).hexdigest()[:16]}"


Batches = DataLoader[dict[str, Tensor]]


def hour_datasets(
    config: StageConfig,
    store: Store,
    train: Hours,
    validation: Hours,
    normalization: Normalization,
    targets: Sequence[str],
    report: Report,
) -> tuple[HourDataset, HourDataset]:
    """Hours to train on (crops) and to validate with (whole fields)."""

    def reading(what: str) -> Callable[[int, int], None]:
        return lambda done, total: report(Status(f"Reading {what} hours", done, total, "hours"))

    budget = 1e9 * config.cache_gb
    to_train = HourDataset(
        store,
        train,
        normalization,
        targets,
        config.crop,
        config.seed,
        cache_bytes=budget,
        progress=reading("training"),
    )
    to_validate = HourDataset(
        store,
        validation,
        normalization,
        targets,
        cache_bytes=budget - to_train.cached_bytes,
        progress=reading("validation"),
    )
    return to_train, to_validate


def loaders(
    config: StageConfig, train: Dataset[dict[str, Tensor]], validation: Dataset[dict[str, Tensor]], where: str
) -> tuple[Batches, Batches]:
    """Batches to train on, in rounds, and to validate with, one hour at a time.

    Of several processes each trains on its part of every batch, and all validate with every hour.
    """
    samples = config.batch * config.accumulate * config.validate_every
    rounds = RoundSampler(len(train), samples, config.seed)  # type: ignore[arg-type]
    sampler = ShareSampler(rounds, config.batch, config.processes)
    workers: dict[str, Any] = {
        "num_workers": config.workers,
        "persistent_workers": config.workers > 0,
        "pin_memory": where == "cuda",
    }
    return (
        DataLoader(train, batch_size=sampler.part, sampler=sampler, **workers),
        DataLoader(validation, batch_size=1, **workers),
    )
