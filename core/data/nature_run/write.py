"""Writing a nature run into a store: resumable, one shard of hours at a time, by one process or several."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from core.data.nature_run.config import MODEL_VERSION, NatureRunConfig
from core.data.nature_run.run import NatureRunError, Times, by_week, prepare, run_weeks, whole_hours
from core.data.nature_run.terrain import Terrain
from core.data.store import HOURS_PER_SHARD, Store
from core.domain import Domain
from core.variables import PREDICTORS, STATICS, TARGETS

TITLE = "Tramontana nature run: synthetic weather"
SOURCE = (
    "Synthetic weather by the nature run of Tramontana, a small numerical model over real topography; "
    "not an analysis or a forecast"
)

Arrays = dict[str, NDArray[np.float32]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Block:
    """Hours of one shard, ready to write: arrays (time, y, x) by variable name."""

    times: Times
    coarse: Arrays
    fine: Arrays


def write_nature_run(
    path: str | Path,
    domain: Domain,
    static: xr.Dataset,
    config: NatureRunConfig,
    hours: ArrayLike,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Store:
    """Make the requested hours of weather and write them into a store, new or begun earlier.

    Hours that the store holds already are skipped; an interrupted run keeps all whole shards (24 hours of
    the time axis) and continues when called again. Later hours may be appended to a finished store.

    Parameters
    ----------
    static : static fields on the fine grid, in the layout of ``/static``
    hours : UTC time stamps on whole hours, in any order
    workers : processes that simulate, a week each at a time; this process writes
    progress : called with (hours made, hours asked for), hour by hour with one worker, else block by block

    Raises
    ------
    NatureRunError
        if static fields or hours do not fit, or the store holds other weather than this config makes.
    StoreError
        if ``path`` holds something that is not a store, or hours earlier than its first are asked for.
    """
    if workers < 1:
        raise NatureRunError(f"A nature run needs at least one worker; got {workers}.")
    times = whole_hours(hours)
    if times.size == 0:
        raise NatureRunError("No hours were asked for; give a start and at least one hour.")
    terrain = prepare(domain, static, config)
    store = _open_or_create(Path(path), terrain, static, config, times)
    pending = np.intersect1d(store.pending, times)
    done = int(times.size - pending.size)
    total = int(times.size)
    if progress is not None:
        progress(done, total)

    def advance(hours: int) -> None:
        nonlocal done
        done += hours
        if progress is not None:
            progress(done, total)

    plan = _Plan.of(store, pending)
    if workers == 1 or len(plan.weeks) <= 1:
        for block in _blocks(terrain, config, plan, advance):
            store.write(block.times, block.coarse, block.fine)
    else:
        for block in _parallel_blocks(domain, static, config, plan, min(workers, len(plan.weeks))):
            store.write(block.times, block.coarse, block.fine)
            advance(int(block.times.size))
    return store


def fingerprint(domain: Domain, static: xr.Dataset, config: NatureRunConfig) -> str:
    """Hash of all that defines the weather; equal fingerprints mean equal hours."""
    fields = b"".join(
        np.ascontiguousarray(static[name].values, np.float32).tobytes()
        for name in ("orography", "land_cover", "land_fraction")
    )
    return config.fingerprint(domain.to_dict(), fields)


def _open_or_create(
    path: Path, terrain: Terrain, static: xr.Dataset, config: NatureRunConfig, times: Times
) -> Store:
    domain = terrain.domain
    expected = fingerprint(domain, static, config)
    if not path.exists():
        return Store.create(
            path,
            domain,
            title=f"{TITLE} over {domain.name}",
            source=SOURCE,
            times=times,
            coarse=PREDICTORS,
            fine=TARGETS,
            static=static[[name for name in STATICS if name in static]],
            coarse_orography=terrain.coarse_height.numpy(),
            synthetic=True,
            fingerprint=expected,
            attrs={"nature_run": config.model_dump(), "nature_run_version": MODEL_VERSION},
        )
    store = Store.open(path, mode="a")
    if store.attrs.get("fingerprint") != expected:
        raise NatureRunError(
            f"{path} holds other data than this nature run would make (another seed, domain, static fields "
            "or version of the model). Give another name, or delete it to make it anew."
        )
    planned = np.union1d(store.hours, store.pending)
    later = np.setdiff1d(times, planned)
    if later.size:
        store.plan(later)
    return store


@dataclass(frozen=True)
class _Plan:
    """Hours to make, by week, and the shard of each."""

    weeks: dict[np.datetime64, list[int]]
    shard: dict[np.datetime64, int]

    @classmethod
    def of(cls, store: Store, pending: Times) -> _Plan:
        planned = np.union1d(store.hours, store.pending)
        shards = np.searchsorted(planned, pending) // HOURS_PER_SHARD
        return cls(by_week(pending), dict(zip(pending, (int(s) for s in shards), strict=True)))

    def week(self, monday: np.datetime64) -> _Plan:
        return _Plan({monday: self.weeks[monday]}, self.shard)


def _blocks(
    terrain: Terrain, config: NatureRunConfig, plan: _Plan, advance: Callable[[int], None] | None = None
) -> Iterator[Block]:
    """Simulate and hand over hours shard by shard; ``advance`` hears of every hour made."""
    hours: list[tuple[np.datetime64, xr.Dataset, xr.Dataset]] = []
    for hour in run_weeks(terrain, config, plan.weeks):
        if hours and plan.shard[hour[0]] != plan.shard[hours[0][0]]:
            yield _block(hours)
            hours = []
        hours.append(hour)
        if advance is not None:
            advance(1)
    if hours:
        yield _block(hours)


def _block(hours: list[tuple[np.datetime64, xr.Dataset, xr.Dataset]]) -> Block:
    def stacked(datasets: list[xr.Dataset], names: tuple[str, ...]) -> Arrays:
        return {name: np.concatenate([dataset[name].values for dataset in datasets]) for name in names}

    times = np.asarray([hour[0] for hour in hours], "datetime64[ns]")
    coarse, fine = [hour[1] for hour in hours], [hour[2] for hour in hours]
    return Block(times, stacked(coarse, PREDICTORS), stacked(fine, TARGETS))


def _parallel_blocks(
    domain: Domain, static: xr.Dataset, config: NatureRunConfig, plan: _Plan, workers: int
) -> Iterator[Block]:
    """As :func:`_blocks`, weeks spread over processes, in the order in which blocks are finished."""
    context = multiprocessing.get_context("spawn")
    tasks: Any = context.Queue()
    # Bounded, so that fast workers wait for the writer and memory stays small.
    results: Any = context.Queue(maxsize=workers)
    threads = max(1, (os.cpu_count() or 1) // workers)
    for monday in plan.weeks:
        tasks.put(plan.week(monday))
    for _ in range(workers):
        tasks.put(None)
    processes = [
        context.Process(target=_work, args=(domain, static, config, threads, tasks, results), daemon=True)
        for _ in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        running = workers
        while running:
            message = _receive(results, processes)
            if message is None:
                running -= 1
            elif isinstance(message, str):
                raise NatureRunError(f"A worker of the nature run failed: {message}")
            else:
                yield message
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _receive(results: Any, processes: list[SpawnProcess]) -> Block | str | None:
    while True:
        try:
            message: Block | str | None = results.get(timeout=2)
            return message
        except queue.Empty:
            dead = [process.exitcode for process in processes if process.exitcode not in (None, 0)]
            if dead:
                return f"a process ended with code {dead[0]}, perhaps for lack of memory; use fewer workers."


def _work(
    domain: Domain, static: xr.Dataset, config: NatureRunConfig, threads: int, tasks: Any, results: Any
) -> None:
    """A worker: weeks from ``tasks``, blocks to ``results``, None at the end, a sentence on failure."""
    # Ctrl-C reaches the whole group of processes; the parent ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    doing = "before its first week"
    try:
        terrain = prepare(domain, static, config)
        while (plan := tasks.get()) is not None:
            doing = f"in the week of {np.datetime_as_string(min(plan.weeks), unit='D')}"
            for block in _blocks(terrain, config, plan):
                results.put(block)
        results.put(None)
    except Exception as error:
        why = ": ".join([type(error).__name__, *filter(None, [" ".join(str(error).split()).rstrip(".")])])
        results.put(f"{doing}, {why}. With one worker the error shows where it happens.")


__all__ = ["Block", "fingerprint", "write_nature_run"]
