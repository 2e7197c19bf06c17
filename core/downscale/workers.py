"""Pieces of a run made by many processes, on this machine or on a cluster, with dask.distributed.

Workers are told where the files are, not what is in them: stores, models and output must have the same paths
for all. Each opens them once and keeps its models. It hands nothing back but the number of a piece whose
fields it has written. Pieces of a worker that dies are given to others; a shard that was half-written
then was never more than a temporary file.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from core.data.store import Store
from core.downscale.base import DownscaleError, Downscaler
from core.downscale.catalogue import from_checkpoint
from core.downscale.devices import default_threads
from core.downscale.generative import GenerativeDownscaler, Precision
from core.downscale.interpolations import interpolations
from core.downscale.layout import Source
from core.downscale.network import NetworkDownscaler
from core.downscale.sampling import Sampling
from core.downscale.start_noise import NoiseFile
from core.downscale.work import Tools, Work

PIECES_PER_WORKER = 2
"""One to make and one to wait, so that no worker is idle while the next is sent."""
TIMEOUT = "30s"


@dataclass(frozen=True)
class Workers:
    """Who makes the pieces.

    Attributes
    ----------
    count : processes to start on this machine
    scheduler : address of a Dask scheduler (``tcp://host:8786``) whose workers are there already or will come
    device : for networks; with ``"auto"`` and ``"cuda"`` workers of one machine share its GPUs out among each
        other by the number that their name ends in
    threads : of PyTorch in each worker on the CPU; None takes TRAMONTANA_THREADS, else on this machine an
        equal share of its cores, and elsewhere what the workers were started with (Dask says 1)

    Raises DownscaleError unless exactly one of ``count`` and ``scheduler`` is given.
    """

    count: int | None = None
    scheduler: str | None = None
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if (self.count is None) == (self.scheduler is None):
            raise DownscaleError("Give either a number of workers or the address of a scheduler.")
        if self.count is not None and self.count < 1:
            raise DownscaleError(f"At least one worker is needed, not {self.count}.")

    @property
    def threads_each(self) -> int | None:
        """Threads of PyTorch in each worker; None where the worker decides."""
        if self.threads is not None or self.count is None:
            return self.threads
        return default_threads() or max(1, (os.cpu_count() or 1) // self.count)


@dataclass(frozen=True)
class Model:
    """How a worker gets a downscaler: the key of an interpolation, or a checkpoint and how it runs."""

    key: str
    path: str | None = None
    identity: str = ""
    memory_gib: float | None = None
    precision: Precision = "float32"

    @classmethod
    def of(cls, downscaler: Downscaler) -> Model:
        """Of one that was made here."""
        if not isinstance(downscaler, NetworkDownscaler):
            return cls(downscaler.key)
        precision = downscaler.precision if isinstance(downscaler, GenerativeDownscaler) else "float32"
        path = str(downscaler.path.resolve())
        return cls(downscaler.key, path, downscaler.identity, downscaler.memory_gib, precision)


@dataclass(frozen=True)
class Job:
    """All that a worker must know of a run; small, since it comes with every piece.

    ``stores`` are paths with the fingerprints of the data, ``noise`` a path with the hash of the file.
    """

    stores: tuple[tuple[str, str], ...]
    models: tuple[Model, ...]
    sources: Mapping[str, Source]
    sampling: Sampling
    noise: tuple[str, str] | None
    batch: int | None
    packed: bool
    data: str
    device: str
    threads: int | None

    @classmethod
    def of(cls, tools: Tools, workers: Workers) -> Job:
        """The run that ``tools`` were made for here."""
        noise = tools.noise
        # How a file says where it comes from is of no use to who fills it.
        plain = {
            key: Source(source.targets, source.members, numbers=source.numbers)
            for key, source in tools.sources.items()
        }
        return cls(
            tuple((str(store.path.resolve()), _fingerprint(store)) for store in tools.stores),
            tuple(Model.of(downscaler) for downscaler in tools.downscalers.values()),
            plain,
            tools.sampling,
            None if noise is None else (str(noise.path.resolve()), noise.file_hash),
            tools.batch,
            tools.packed,
            str(tools.data.resolve()),
            workers.device,
            workers.threads_each,
        )


def run_on_workers(workers: Workers, job: Job, works: Iterator[Work]) -> Iterator[int | None]:
    """Have pieces made; yields the number of each when its fields are written, in any order.

    A few pieces per worker are on their way at once, so a run of any length takes no more memory. Yields None
    first, and again where no worker is there yet. Closing the iterator takes back the pieces that wait; local
    workers are ended, those of a scheduler finish the piece they are at, which does no harm.

    Raises DownscaleError where the scheduler can't be reached, and where a worker fails: its sentence.
    """
    from distributed import as_completed

    with ExitStack() as stack:
        client = _client(workers, stack)
        name = uuid.uuid4().hex[:12]
        flying: set[Any] = set()
        arriving = as_completed([], loop=client.loop)  # type: ignore[no-untyped-call]
        try:
            yield None
            while True:
                # Workers come and go.
                room = PIECES_PER_WORKER * max(1, len(client.ncores()))
                for work in islice(works, max(0, room - len(flying))):
                    key = f"tramontana-{name}-{work.piece.index}"
                    future = client.submit(make_piece, job, work, key=key, pure=False)
                    flying.add(future)
                    arriving.add(future)  # type: ignore[no-untyped-call]
                if not flying:
                    return
                if not client.ncores():
                    yield None
                future = next(arriving)
                flying.discard(future)
                yield _number(future)
        finally:
            _cancel(client, flying)


def _client(workers: Workers, stack: ExitStack) -> Any:
    import logging

    from distributed import Client, LocalCluster

    if workers.scheduler is not None:
        try:
            client = Client(workers.scheduler, timeout=TIMEOUT, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise DownscaleError(
                f"There is no Dask scheduler at {workers.scheduler}: {str(error).rstrip('.') or 'no answer'}."
            ) from error
        return stack.enter_context(client)
    cluster = stack.enter_context(
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers.count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            # No page, and any free port for what Dask serves nevertheless, seen by this machine alone.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            # Memory is that of PyTorch, which Dask does not manage; --memory bounds it.
            memory_limit=0,
            preload=["core.downscale.local_worker"],
            silence_logs=logging.CRITICAL,
        )
    )
    return stack.enter_context(Client(cluster, set_as_default=False))  # type: ignore[no-untyped-call]


def _cancel(client: Any, futures: set[Any]) -> None:
    if futures and client.status == "running":
        client.cancel(list(futures), force=True)


def _number(future: Any) -> int:
    from distributed import KilledWorker

    try:
        return int(future.result())
    except DownscaleError:
        raise
    except KilledWorker as error:
        raise DownscaleError(
            "A piece ended several workers, one after the other, perhaps for lack of memory. Use fewer "
            "workers or a smaller --memory; the same command goes on with what is done."
        ) from error
    except ImportError as error:
        raise DownscaleError(
            f"A worker can't import the program ({error}). Install the same version of it for all workers."
        ) from error
    except Exception as error:
        if type(error).__name__ not in ("CancelledError", "FutureCancelledError"):
            raise
        raise DownscaleError(
            "The scheduler was lost or took the pieces back. The same command goes on with what is done."
        ) from error


_one_at_a_time = threading.Lock()


def make_piece(job: Job, work: Work) -> int:
    """Make one piece in a worker, and write it; gives its number.

    Raises DownscaleError where this worker does not see the files of the run, and where fields can't be made.
    """
    # A worker with several threads would share its model, its cores and its memory among pieces.
    with _one_at_a_time:
        try:
            tools = _tools(job)
        except (ValueError, OSError) as error:
            raise DownscaleError(
                f"The worker on {socket.gethostname()} can't take part: {error} Every worker must see "
                "stores, models and output under the same paths."
            ) from None
        for _ in tools.make(work):
            pass
    return work.piece.index


def _tools(job: Job) -> Tools:
    if not Path(job.data).is_dir():
        raise DownscaleError(f"There is no folder {job.data}.")
    device = worker_device(job.device, _worker_name(), _gpus())
    downscalers = {model.key: _downscaler(model, device, job.threads) for model in job.models}
    return Tools(
        [_store(path, fingerprint, job.data) for path, fingerprint in job.stores],
        downscalers,
        job.sources,
        job.sampling,
        None if job.noise is None else _noise(*job.noise, job.sampling.seed),
        job.batch,
        job.packed,
        Path(job.data),
    )


def worker_device(device: str, name: str, gpus: int) -> str:
    """The device of a worker: one of several GPUs by the number that its name ends in, the first without."""
    if device not in ("auto", "cuda") or gpus < 2:
        return device
    number = re.search(r"([0-9]+)$", name)
    return f"cuda:{int(number[1]) % gpus if number else 0}"


def _worker_name() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().name)
    except ValueError:
        return ""


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


@lru_cache(maxsize=16)
def _downscaler(model: Model, device: str, threads: int | None) -> Downscaler:
    if model.path is None:
        return next(downscaler for downscaler in interpolations() if downscaler.key == model.key)
    made = from_checkpoint(
        model.path, device=device, memory_gib=model.memory_gib, threads=threads, precision=model.precision
    )
    if made.identity != model.identity:
        raise DownscaleError(f"{model.path} is another model here.")
    return made


@lru_cache(maxsize=256)
def _store(path: str, fingerprint: str, run: str) -> Store:
    """Opened anew for every run, since stores grow."""
    store = Store.open(path)
    if _fingerprint(store) != fingerprint:
        raise DownscaleError(f"{path} holds other data here.")
    return store


@lru_cache(maxsize=1)
def _noise(path: str, file_hash: str, seed: int) -> NoiseFile:
    noise = NoiseFile(path, seed=seed)
    if noise.file_hash != file_hash:
        raise DownscaleError(f"{path} is another file here.")
    return noise


def _fingerprint(store: Store) -> str:
    return str(store.attrs.get("fingerprint", ""))
