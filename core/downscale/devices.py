"""Where networks run: device, threads, memory budget."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.downscale.base import DownscaleError

GIB = 2**30
DEVICES = ("cuda", "mps", "cpu")
MOST_THREADS = 1024
MOST_AT_ONCE = 2**31
CPU_BUDGET_GIB = 2.0
"""Memory for the fields of one batch on the CPU unless told otherwise [GiB]."""


def choose_device(device: str = "auto") -> torch.device:
    """The device that ``device`` names; ``"auto"`` takes the first of CUDA, Apple's MPS and the CPU there is.

    Raises DownscaleError where the named one is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        if chosen.type not in DEVICES:
            raise RuntimeError(f"{chosen.type} is none of {', '.join(DEVICES)}")
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise DownscaleError(f"The device {device!r} is not available here; use 'auto' or 'cpu'.") from error
    return chosen


def default_threads() -> int | None:
    """Threads for networks on the CPU, from the environment variable TRAMONTANA_THREADS; None if unset.

    Raises DownscaleError where the variable is no whole number from 1 to MOST_THREADS.
    """
    text = os.environ.get("TRAMONTANA_THREADS", "").strip()
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MOST_THREADS:
        raise DownscaleError(
            f"TRAMONTANA_THREADS must be a whole number from 1 to {MOST_THREADS}; it is {text[:80]!r}."
        )
    return int(text)


@contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """PyTorch with ``number`` threads while the block runs; None leaves them as they are."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)


def batch_size(bytes_each: float, device: torch.device, memory_gib: float | None) -> int:
    """How many items of ``bytes_each`` fit at once; at least one.

    The budget is ``memory_gib``; without, 2 GiB, on CUDA half of what is free.
    """
    if memory_gib is not None:
        budget = memory_gib * GIB
    elif device.type == "cuda":
        budget = torch.cuda.mem_get_info(device)[0] / 2
    else:
        budget = CPU_BUDGET_GIB * GIB
    return max(1, int(min(budget / bytes_each, MOST_AT_ONCE)))
