"""The run of an evaluation: models over hours, with what is done kept on disk."""

from __future__ import annotations

import hashlib
import platform
import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from core.data.pairs import store_pairs
from core.data.store import Store, as_times
from core.downscale import GenerativeDownscaler, NetworkDownscaler, Sampling, SamplingStep
from core.downscale.base import Downscaler
from core.downscale.run import RunProgress
from core.downscale.stores import inputs_held, refuse_obstacles
from core.evaluation.field_scores import Truth, score_hour
from core.evaluation.tally import EvaluationError, Tally, Times
from core.file_lock import claimed
from core.physics.audit import Scorer
from core.physics.flux_error import fit_smoothing

VERSION = 1
"""Of the numbers: it changes where a score is computed in another way."""

PARTS = "parts"
TRUTH = "truth"
HOURS_TO_FIT = 12
READ_HOURS = 24
SAVE_SECONDS = 60.0
WAIT_SECONDS = 2.0
SAID = (
    "data_title",
    "split_method",
    "train_hours",
    "train_period",
    "steps",
    "minutes_in_all",
    "code_version",
)
"""Of a model's provenance, in the result."""


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated and how; see :func:`evaluate_models` for the parameters."""

    store: Store
    downscalers: tuple[Downscaler, ...]
    hours: Times
    members: int
    sampling: Sampling
    batch: int | None
    smoothing: float
    targets: tuple[str, ...]
    snapshot_hours: Times
    land: NDArray[np.bool_]

    @classmethod
    def plan(
        cls,
        store: Store,
        downscalers: Sequence[Downscaler],
        hours: ArrayLike,
        *,
        members: int = 10,
        sampling: Sampling | None = None,
        batch: int | None = None,
        smoothing: float | None = None,
    ) -> Evaluation:
        """Check what is asked for, and measure what the flux error needs to know of the coarse field.

        Raises EvaluationError where there is nothing to compare, DownscaleError where a model can't run.
        """
        times = np.unique(as_times(hours))
        contents = store.contents
        if not contents.targets:
            raise EvaluationError(f"{store.path} holds no fine truth, so nothing can be scored against it.")
        if not times.size or not downscalers:
            raise EvaluationError("An evaluation needs at least one hour and one model that can run.")
        if members < 1:
            raise EvaluationError(f"An ensemble has at least one member; {members} were asked for.")
        if len({downscaler.key for downscaler in downscalers}) < len(downscalers):
            raise EvaluationError("A model was named twice.")
        refuse_obstacles(store, downscalers)
        targets = contents.targets
        if not any(name in d.targets for name in targets for d in downscalers):
            raise EvaluationError(
                f"{store.path} holds the truth of {', '.join(contents.targets)}; no model makes any of them."
            )
        if smoothing is None:
            smoothing = _smoothing(store, times)
        return cls(
            store,
            tuple(downscalers),
            times,
            members,
            sampling or Sampling(),
            batch,
            smoothing,
            targets,
            _extreme_hours(store, times, targets[0]),
            land_mask(store),
        )

    def identity(self, downscaler: Downscaler | None) -> dict[str, Any]:
        """What the numbers of a model depend on; of the truth itself where there is none."""
        seconds = self.hours.astype("datetime64[s]").astype("<i8")
        digest = hashlib.sha256(seconds.tobytes()).hexdigest()[:16]
        said: dict[str, Any] = {
            "version": VERSION,
            "data": str(self.store.attrs.get("fingerprint", "")),
            "hours": f"{self.hours.size}, sha256 {digest}",
            "targets": list(self.targets),
            "smoothing": self.smoothing,
        }
        if downscaler is not None:
            said["model"] = downscaler.key
        if isinstance(downscaler, GenerativeDownscaler):
            said |= {
                "members": self.members,
                "sampling": self.sampling.model_dump(mode="json"),
                "precision": downscaler.precision,
            }
        return said

    def members_of(self, downscaler: Downscaler) -> int:
        """How many members a model gives."""
        return self.members if downscaler.stochastic else 1


def evaluate_models(
    store: Store,
    downscalers: Sequence[Downscaler],
    hours: ArrayLike,
    folder: str | Path,
    *,
    members: int = 10,
    sampling: Sampling | None = None,
    batch: int | None = None,
    smoothing: float | None = None,
    block_hours: int = 24,
    resamples: int = 2000,
    fresh: bool = False,
    result: bool = True,
    command: str = "",
) -> Generator[RunProgress, None, Path]:
    """Evaluate models on hours with truth, telling how it goes; the result is ``folder / "evaluation.nc"``.

    What is done is kept in ``folder / "parts"`` model by model: a run that was stopped goes on, a model that
    is added later is the only one that is computed, and several processes may share a folder, each with
    another model. The numbers do not depend on ``batch`` but for rounding.

    Parameters
    ----------
    downscalers : that can run on the store, with different keys
    hours : of the store, with truth
    members : of the models that are stochastic
    sampling, batch : as in :meth:`core.downscale.generative.GenerativeDownscaler.sample`
    smoothing : of the coarse temperature [coarse pixels], see :func:`core.physics.flux_error.observe`; None
        fits it to :data:`HOURS_TO_FIT` of the hours
    block_hours, resamples : of the bootstrap (:mod:`core.evaluation.bootstrap`)
    fresh : start over
    result : whether to write the file; without, only the parts that it is made of
    command : what was typed, for the record

    Raises
    ------
    EvaluationError
        where there is nothing to compare, or the folder holds another evaluation.
    DownscaleError
        where a model can't run.
    """
    from core.evaluation.result import write_result

    plan = Evaluation.plan(
        store,
        downscalers,
        hours,
        members=members,
        sampling=sampling,
        batch=batch,
        smoothing=smoothing,
    )
    folder = Path(folder)
    parts = folder / PARTS
    if fresh:
        for path in parts.glob("*.nc"):
            path.unlink()
    yield from _truth(plan, parts)
    total = sum(plan.members_of(d) for d in plan.downscalers) * plan.hours.size
    waiting = list(plan.downscalers)
    done = 0
    while waiting:
        busy = []
        for downscaler in waiting:
            fields = plan.members_of(downscaler) * plan.hours.size
            with claimed(parts / f".{downscaler.key}.lock") as free:
                if not free:
                    busy.append(downscaler)
                    continue
                for hour, step, steps, part in _model(plan, downscaler, parts):
                    yield RunProgress(downscaler.label, hour, step, steps, done + part, total)
                done += fields
        if len(busy) == len(waiting):
            # Another process is at work on what is left.
            yield RunProgress(f"{busy[0].label} (in another process)", plan.hours[0], 1, 1, done, total)
            time.sleep(WAIT_SECONDS)
        waiting = busy
    if not result:
        return parts
    return write_result(plan, folder, block_hours=block_hours, resamples=resamples, command=command)


def part_of(folder: Path, downscaler: Downscaler | None) -> Path:
    """The file with what is known of a model, or of the truth."""
    return folder / f"{TRUTH if downscaler is None else downscaler.key}.nc"


def _truth(plan: Evaluation, parts: Path) -> Iterator[RunProgress]:
    """Spectra, slopes, distribution and snapshots of the truth."""
    total = plan.hours.size
    path = part_of(parts, None)
    tally = Tally.resume(path, plan.identity(None), plan.targets, plan.hours)
    if tally.done.all():
        return
    for position in np.flatnonzero(~tally.done).tolist():
        hour = plan.hours[position]
        for target, truth in _truths(plan, hour, plan.targets).items():
            tally.scores["spectral_slope"][plan.targets.index(target), position] = truth.slope
            tally.add_spectrum(target, position, truth.spectrum)
            tally.add_sum(target, "histogram", truth.counts)
            for place in np.flatnonzero(plan.snapshot_hours == hour).tolist():
                tally.add_snapshot("snapshot", place, plan.snapshot_hours.size, target, truth.field.values)
        tally.finish_hour(position, 0.0)
        yield RunProgress("Truth", hour, 1, 1, int(tally.done.sum()), total)
    # Two processes that begin at once both come here, with the same numbers.
    tally.save(path)


def _truths(plan: Evaluation, hour: np.datetime64, targets: Sequence[str]) -> dict[str, Truth]:
    store = plan.store
    fine = store.read_fine(hour, targets).isel(time=0)
    names = [name for name in targets if name in store.contents.predictors]
    coarse = store.read_coarse(hour, names).isel(time=0) if names else xr.Dataset()
    return {
        name: Truth.of(name, fine[name], coarse.get(name), plan.land, store.domain.ratio) for name in targets
    }


def land_mask(store: Store) -> NDArray[np.bool_]:
    """Where at least half of a fine cell is land (y, x); nowhere where the store does not say."""
    if "land_fraction" not in store.contents.statics:
        return np.zeros(store.domain.fine.shape, bool)
    land: NDArray[np.bool_] = store.read_static()["land_fraction"].values >= 0.5
    return land


def _model(
    plan: Evaluation, downscaler: Downscaler, parts: Path
) -> Iterator[tuple[np.datetime64, int, int, float]]:
    """Evaluate one model; yields hour, step, steps, and fields done."""
    path = part_of(parts, downscaler)
    tally = Tally.resume(path, plan.identity(downscaler), plan.targets, plan.hours)
    positions = np.flatnonzero(~tally.done)
    begun = int(tally.done.sum())
    members = plan.members_of(downscaler)
    reached = float(begun * members)
    yield plan.hours[0], 1, 1, reached
    if not positions.size:
        return
    downscaler.load()
    fluxes = _scorer(plan)
    memory = PeakMemory()
    saved = time.monotonic()
    for fields, position, seconds in _fields(plan, downscaler, positions):
        if isinstance(fields, SamplingStep):
            reached = begun * members + position + fields.done
            yield fields.hours[0], fields.step, fields.steps, reached
            continue
        hour = plan.hours[position]
        made = [target for target in plan.targets if target in fields]
        for target, truth in _truths(plan, hour, made).items():
            field = fields[target].isel(time=0)
            tally.add(target, position, score_hour(field, truth, fluxes))
            for place in np.flatnonzero(plan.snapshot_hours == hour).tolist():
                _keep(tally, place, plan.snapshot_hours.size, target, field)
        tally.finish_hour(position, seconds)
        tally.peak_memory = np.fmax(tally.peak_memory, memory.mebibytes())
        if time.monotonic() - saved > SAVE_SECONDS:
            tally.save(path)
            saved = time.monotonic()
        # Of hours that were sampled together, all are counted when the first one is scored.
        reached = max(reached, float(tally.done.sum() * members))
        yield hour, 1, 1, reached
    tally.save(path)


def _keep(tally: Tally, place: int, places: int, target: str, field: xr.DataArray) -> None:
    tally.add_snapshot("snapshot", place, places, target, field.values[0])
    if len(field) > 1:
        tally.add_snapshot("snapshot_mean", place, places, target, field.values.mean(axis=0))
        tally.add_snapshot("snapshot_spread", place, places, target, field.values.std(axis=0, ddof=1))


def _fields(
    plan: Evaluation, downscaler: Downscaler, positions: NDArray[np.intp]
) -> Iterator[tuple[xr.Dataset | SamplingStep, int, float]]:
    """Fields (member, time, y, x) of one hour after the other with its position and seconds of computing.

    Between them steps of the sampler, with the number of fields before those that they count. Where several
    hours are computed together, the time is that since the hour before.
    """
    store = plan.store
    static = store.read_static() if store.contents.statics else None
    names = inputs_held(store, [downscaler])
    if not isinstance(downscaler, GenerativeDownscaler):
        for position in positions:
            coarse = store.read_coarse(plan.hours[position], names)
            start = time.perf_counter()
            fields = downscaler.downscale(coarse, static, store.domain).expand_dims(member=[0])
            yield fields, int(position), time.perf_counter() - start
        return
    for first in range(0, positions.size, READ_HOURS):
        some = positions[first : first + READ_HOURS]
        coarse = store.read_coarse(plan.hours[some], names)
        events = downscaler.sample(
            coarse, static, store.domain, range(plan.members), plan.sampling, batch=plan.batch
        )
        seconds = 0.0
        waiting = iter(some)
        while True:
            start = time.perf_counter()
            event = next(events, None)
            seconds += time.perf_counter() - start
            if event is None:
                break
            if isinstance(event, SamplingStep):
                yield event, first * plan.members, 0.0
            else:
                yield event, int(next(waiting)), seconds
                seconds = 0.0


def _scorer(plan: Evaluation) -> Scorer:
    fine = plan.store.domain.fine
    mean, deviation = 285.0, 8.0
    if "t2m" in plan.store.contents.predictors:
        values = plan.store.read_coarse(_spread(plan.hours, HOURS_TO_FIT), ["t2m"])["t2m"].values
        mean, deviation = float(np.nanmean(values)), float(np.nanstd(values)) or 1.0
    return Scorer((fine.dy / 1e3, fine.dx / 1e3), plan.smoothing, mean, deviation)


def _smoothing(store: Store, hours: Times) -> float:
    """Smoothing of the coarse temperature, fitted; 0 where the store lacks one of both fields."""
    contents = store.contents
    if "t2m" not in contents.targets or "t2m" not in contents.predictors:
        return 0.0
    pairs = [
        pair
        for pair in store_pairs(store, _spread(hours, HOURS_TO_FIT))
        if not any(bool(torch.isnan(f).any()) for f in pair)
    ]
    fine = store.domain.fine
    return fit_smoothing(pairs, spacing=(fine.dy / 1e3, fine.dx / 1e3)) if pairs else 0.0


def _spread(hours: Times, count: int) -> Times:
    chosen = np.unique(np.linspace(0, hours.size - 1, min(count, hours.size)).round().astype(int))
    some: Times = hours[chosen]
    return some


def _extreme_hours(store: Store, hours: Times, target: str) -> Times:
    """The hours with the lowest and the highest mean of a coarse field, to be shown as maps."""
    first: Times = hours[:1]
    if target not in store.contents.predictors or hours.size < 2:
        return first
    means = np.concatenate(
        [
            store.read_coarse(hours[start : start + 48], [target])[target].mean(("y", "x")).values
            for start in range(0, hours.size, 48)
        ]
    )
    if not np.isfinite(means).any():
        return first
    extremes: Times = hours[np.unique([np.nanargmin(means), np.nanargmax(means)])]
    return extremes


class PeakMemory:
    """The largest resident memory of this process since it was made, where the system tells (Linux)."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.known = True
        except OSError:
            self.known = False

    def mebibytes(self) -> float:
        """The peak so far [MiB]; NaN where it is not known."""
        if not self.known:
            return float("nan")
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) / 1024 if found else float("nan")


def describe_machine(downscalers: Sequence[Downscaler]) -> str:
    """Where the models ran, in words."""
    devices = sorted({str(d.device) for d in downscalers if isinstance(d, NetworkDownscaler)})
    threads = torch.get_num_threads()
    return (
        f"{platform.system()} {platform.machine()}, {processor_name()}, {threads} threads; "
        f"networks on {', '.join(devices) or 'the CPU'}; PyTorch {torch.__version__}"
    )


def processor_name() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown processor"


def kind_of(downscaler: Downscaler) -> str:
    """Kind of a model: that of its checkpoint, or "interpolation"."""
    return downscaler.header.kind if isinstance(downscaler, NetworkDownscaler) else "interpolation"


def facts(downscaler: Downscaler) -> Mapping[str, Any]:
    """Where a model comes from, plain JSON values."""
    said: dict[str, Any] = {"label": downscaler.label, "kind": kind_of(downscaler)}
    if isinstance(downscaler, NetworkDownscaler):
        provenance = downscaler.header.provenance
        said |= {
            "file": downscaler.path.name,
            "sha256": downscaler.file_hash,
            "parameters": downscaler.parameters,
            "bytes": downscaler.path.stat().st_size,
            "provenance": {
                key: provenance[key]
                for key in SAID
                if key in provenance
            },
        }  # fmt: skip
    return said
