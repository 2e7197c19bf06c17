"""Sampling one hour of Italy at the published width, as the published code does it and as we do.

The published sampler runs the conditioner again in every step and, for the moving averages, stores all
weights of the denoiser, copies the averages over them and copies the stored ones back. Ours runs the
conditioner once and has the averages loaded. Both ways are run here with the same networks and random
weights, so that nothing else differs.

Every case runs in a process of its own, which gives its peak memory:
``python -m benchmarks.sampling published 2`` runs one case for two steps and prints what it measured.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.comparison import Comparison, Outcome
from core.diffusion.noise import member_noise
from core.diffusion.samplers import Step, ddim, dpmpp_2m
from core.diffusion.schedule import Schedule
from core.domain import ITALY
from core.models.latent_diffusion import LatentDiffusion
from core.variables import PREDICTORS, STATIC_CHANNELS

MEMBERS = 4
STEPS, FEW_STEPS = 100, 15
QUICK_STEPS = 2
HOUR = np.datetime64("2016-01-04T12")
Context = tuple[Tensor, ...]


def build(device: torch.device) -> LatentDiffusion:
    """The published network with random weights that keep fields of order one."""
    with torch.device("meta"):
        model = LatentDiffusion()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            tensor.zero_()
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.fill_(1.0)
        elif tensor.ndim == 1:
            tensor.zero_()
        else:
            tensor.normal_(std=0.5 / tensor[0].numel() ** 0.5, generator=generator)
    return model.eval().requires_grad_(False).to(device)


@dataclass
class Case:
    """The networks and inputs of one hour, and how its noise is denoised."""

    model: LatentDiffusion
    coarse: Tensor
    static: Tensor

    @classmethod
    def make(cls) -> Case:
        """On the GPU where there is one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        generator = torch.Generator().manual_seed(1)
        coarse = torch.randn(1, len(PREDICTORS), *ITALY.coarse.shape, generator=generator)
        static = torch.randn(1, STATIC_CHANNELS, *ITALY.fine.shape, generator=generator)
        return cls(build(device), coarse.to(device), static.to(device))

    def noise(self, members: Sequence[int]) -> Tensor:
        """Start noise of some members."""
        shape = self.model.latent_shape(self.static)
        drawn = [member_noise(shape, seed=0, hour=HOUR, member=member) for member in members]
        return torch.stack(drawn).to(self.coarse.device)

    def ours(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The conditioner runs here, once."""
        context = self.model.condition(self.coarse, self.static)
        return lambda z, t: self.model.denoise(z, t, context)

    def published(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The conditioner and the exchange of weights come with every step."""
        weights = list(self.model.denoiser.parameters())
        averages = [weight.clone() for weight in weights]

        def denoise(z: Tensor, t: Tensor) -> Tensor:
            stored = [weight.clone() for weight in weights]
            for weight, average in zip(weights, averages, strict=True):
                weight.copy_(average)
            output = self.model.denoise(z, t, self.model.condition(self.coarse, self.static))
            for weight, own in zip(weights, stored, strict=True):
                weight.copy_(own)
            return output

        return denoise


def _clock() -> float:
    """Processor time of all threads, or time on the clock where a GPU does the work [s]."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _timed(steps: Iterator[Step]) -> tuple[Tensor, list[float]]:
    """The last state, and the time of each step."""
    times, last = [], None
    before = _clock()
    for step in steps:
        now = _clock()
        times.append(now - before)
        last, before = step.z, now
    if last is None:
        raise ValueError("A case needs at least one step.")
    return last, times


CASES = ("published", "ours", "few", "together", "apart")


def run_case(name: str, count: int) -> dict[str, object]:
    """Run one case for ``count`` steps: time before the first step and of every step, peak memory, state.

    ``published`` and ``ours``: one member, 100 DDIM steps. ``few``: 15 steps of DPM-Solver++ (2M).
    ``together``, ``apart``: some members in one batch or one after the other, 100 DDIM steps.
    """
    case = Case.make()
    schedule = Schedule()
    with torch.inference_mode():
        case.ours()(case.noise([0]), torch.tensor([500.0], device=case.coarse.device))  # warm up
        before = _clock()
        denoise = case.published() if name == "published" else case.ours()
        once = 0.0 if name == "published" else _clock() - before
        sampler, steps = (dpmpp_2m, FEW_STEPS) if name == "few" else (ddim, STEPS)
        groups = [[0]]
        if name == "together":
            groups = [list(range(MEMBERS))]
        elif name == "apart":
            groups = [[member] for member in range(MEMBERS)]
        states, times = [], []
        for members in groups:
            state, of_group = _timed(
                islice(sampler(denoise, case.noise(members), schedule, steps=steps), count)
            )
            states.append(state.cpu())
            times.append(of_group)
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with tempfile.NamedTemporaryFile(suffix=".npy", delete=False) as file:
        np.save(file, torch.cat(states).numpy())
    return {"once": once, "steps": np.sum(times, axis=0).tolist(), "memory": memory, "state": file.name}


@dataclass(frozen=True)
class Measurement:
    """What a case took for all its steps [s], from the shortest to the longest step, and its peak memory."""

    seconds: float
    spread: tuple[float, float]
    memory: int
    state: np.ndarray


def measure_case(name: str, count: int, total: int) -> Measurement:
    """A case in a process of its own, scaled from ``count`` steps to ``total``."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sampling", name, str(count)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    path = Path(found["state"])
    state = np.load(path)
    path.unlink()
    steps, once = np.array(found["steps"]), found["once"]
    return Measurement(
        seconds=once + total * float(steps.mean()),
        spread=(once + total * float(steps.min()), once + total * float(steps.max())),
        memory=found["memory"],
        state=state,
    )


def _outcome(
    what: str,
    reference_name: str,
    ours: Measurement,
    reference: Measurement,
    *,
    required: float,
    tolerance: float | None,
) -> Outcome:
    difference = 0.0 if tolerance is None else float(np.abs(ours.state - reference.state).max())
    comparison = Comparison(
        what,
        reference_name,
        ours=lambda: None,
        reference=lambda: None,
        tolerance=tolerance if tolerance is not None else float("inf"),
        required=required,
    )
    ratio = reference.seconds / ours.seconds
    spread = (reference.spread[0] / ours.spread[1], reference.spread[1] / ours.spread[0])
    memory = (ours.memory / 2**30, reference.memory / 2**30)
    return Outcome(comparison, ratio, spread, ours.seconds, difference, memory)


def outcomes(*, quick: bool) -> list[Outcome]:
    """The rows of the table; ``quick`` measures two steps of each case and scales them up."""
    few = QUICK_STEPS
    scaled = f" (scaled from {few} steps)" if quick else ""
    counts = {
        "published": few if quick else STEPS,
        "ours": few if quick else STEPS,
        "few": few if quick else FEW_STEPS,
        "together": few,
        "apart": few,
    }
    totals = {"published": STEPS, "ours": STEPS, "few": FEW_STEPS, "together": few, "apart": few}
    found = {name: measure_case(name, counts[name], totals[name]) for name in CASES}
    place = "GPU" if torch.cuda.is_available() else f"threads: {torch.get_num_threads()}"
    hour = f"one member of one hour of Italy, published width, {place}{scaled}"
    published = "100 DDIM steps, conditioner and exchange of weights in every step"
    return [
        _outcome(
            f"100 DDIM steps, {hour}", published, found["ours"], found["published"],
            required=1.5, tolerance=1e-3,
        ),
        _outcome(
            f"15 steps of dpmpp_2m, {hour}", published, found["few"], found["published"],
            required=10, tolerance=None,
        ),
        _outcome(
            f"{MEMBERS} members of one hour in one batch, {few} steps, {place}", "one after the other",
            found["together"], found["apart"],
            required=1.3 if torch.cuda.is_available() else 1.05, tolerance=1e-3,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(run_case(sys.argv[1], int(sys.argv[2]))))
