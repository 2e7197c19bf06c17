"""Training by several processes at once: which one this is, and its part of every batch.

Lightning starts one process per device and node, or finds those that torchrun or SLURM started. All of them
run the same program: each prepares what it needs, the first one alone writes the folder of the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed
from torch.utils.data import Sampler

from core.data.samples import RoundSampler


def process_number() -> int:
    """Number of this process among those of the run, known before they are connected; 0 for the first."""
    environment = os.environ
    if "RANK" in environment:
        return int(environment["RANK"])
    if "LOCAL_RANK" in environment or "NODE_RANK" in environment:
        # Large enough a factor for the numbers to differ; only the first must be known.
        return 1000 * int(environment.get("NODE_RANK", 0)) + int(environment.get("LOCAL_RANK", 0))
    return int(environment.get("SLURM_PROCID", 0))


def device_number() -> int:
    """Which of this machine's devices is this process's."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))


def started_together() -> bool:
    """Whether all processes were started at once, so that none can rely on what the first has prepared.

    By torchrun, by SLURM, or by hand on every machine; Lightning starts its own when training begins.
    """
    environment = os.environ
    return (
        "TORCHELASTIC_RUN_ID" in environment
        or int(environment.get("SLURM_NTASKS", 1)) > 1
        or int(environment.get("NODE_RANK", 0)) > 0
    )


@contextmanager
def environment_kept() -> Iterator[None]:
    """Take away, at the end, the variables with which Lightning tells its processes of each other.

    With them a second training in the same program would wait for processes that nobody starts.
    """
    before = set(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - before:
            del os.environ[name]


class ShareSampler(Sampler[tuple[int, int]]):
    """This process's part of every batch of a :class:`RoundSampler`.

    A batch of ``batch`` samples is cut into ``processes`` equal parts in the order of the processes, so that
    together they take the samples that a single process would.
    """

    def __init__(self, sampler: RoundSampler, batch: int, processes: int) -> None:
        self.sampler = sampler
        self.part = batch // processes
        self.batch = batch
        self.processes = processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the round, counted from 0."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler) // self.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Asked only now, since the processes are connected after the sampler is made.
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        for place, key in enumerate(self.sampler):
            if place % self.batch // self.part == rank:
                yield key
