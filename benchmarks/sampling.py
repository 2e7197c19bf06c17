"""Sampling one hour of Italy at published width: as the published code does it, and as the downscaler does.

The published sampler runs the conditioner again in every step, statics and all, and for the moving averages
stores all weights of the denoiser, copies the averages over them and copies the stored ones back. The
reference here does the same with our networks, so that only the way of running differs; its memory layout is
PyTorch's own, as in the published code. Both make a field in kelvin from the same inputs and the same noise;
reading the file is not counted. What the published code does beyond that once for each hour, a second run of
the UNet and encoding the truth, is left out.

Every case runs in a process of its own, which gives its peak memory:
``python -m benchmarks.sampling few 2 cpu model.safetensors field.npy`` runs one, for two steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from benchmarks import random_model
from benchmarks.comparison import Comparison, Outcome
from benchmarks.peak_memory import GIB, peak_memory
from core.checkpoint import load
from core.diffusion.ema import EMA
from core.diffusion.noise import member_noise
from core.diffusion.samplers import ddim
from core.diffusion.schedule import Schedule
from core.domain import ITALY, Domain
from core.downscale import GenerativeDownscaler, Sampling
from core.downscale.sampling import SamplerName
from core.models.latent_diffusion import PARTS, LatentDiffusion, LatentDiffusionConfig

MEMBERS = 4
QUICK_STEPS = 2


@dataclass(frozen=True)
class Case:
    """How one hour is sampled: ``batch`` members at once, the published way or ours."""

    sampler: SamplerName
    steps: int
    members: int = 1
    batch: int = 1
    published: bool = False


CASES = {
    "published": Case("ddim", 100, published=True),
    "equal": Case("ddim", 100),
    "few": Case("dpmpp_2m", 15),
    "together": Case("dpmpp_2m", 15, MEMBERS, MEMBERS),
    "apart": Case("dpmpp_2m", 15, MEMBERS, 1),
}

Marks = Generator[bool, None, np.ndarray]
"""Yields when everything is loaded, then True after each step and False after whatever else; returns the
field (member, y, x) [K]."""


def published_way(path: Path, domain: Domain, steps: int, device: str) -> Marks:
    """Member 0 by DDIM; the conditioner and the exchange of weights come with every step."""
    checkpoint = load(path)
    header = checkpoint.header
    sizes = {part: header.models[part] for part in PARTS}
    model = LatentDiffusion(LatentDiffusionConfig.model_validate(sizes)).eval()
    for part in PARTS:
        checkpoint.restore(part, model.get_submodule(part))
    model.to(device)
    averages = EMA(model.denoiser)
    with torch.no_grad():
        for weight in model.denoiser.parameters():
            # As in training the weights are others than their averages, so a missing exchange would show.
            weight.mul_(0.9)
    coarse, static = random_model.inputs(domain)
    yield False
    normalization = header.normalization
    low = normalization.predictors_to_tensor(coarse).to(device)
    high = normalization.statics_to_tensor(static)[None].to(device)

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        context = model.condition(low, high)
        with averages.applied(model.denoiser):
            return model.denoise(z, t, context)

    noise = member_noise(model.latent_shape(high), seed=0, hour=random_model.HOUR, member=0)
    state = noise[None].to(device)
    for step in ddim(denoise, state, Schedule(), steps=steps):
        state = step.z
        yield True
    with torch.no_grad():
        fine = model.mean(low, high) + model.decode(state)
    return normalization.targets_from_tensor(fine, header.targets)[:, 0].cpu().numpy()


def our_way(path: Path, domain: Domain, case: Case, steps: int, device: str) -> Marks:
    """The members of a case by the downscaler."""
    downscaler = GenerativeDownscaler(path, device=device)
    downscaler.load()
    coarse, static = random_model.inputs(domain)
    yield False
    sampling = Sampling(sampler=case.sampler, steps=steps)
    events = downscaler.sample(coarse, static, domain, range(case.members), sampling, batch=case.batch)
    fields = []
    for event in events:
        if isinstance(event, xr.Dataset):
            fields.append(event["t2m"].values[:, 0])
        else:
            yield event.step > 0
    return np.concatenate(fields)


@dataclass(frozen=True)
class Measurement:
    """Time of each step and of all the rest [s], peak memory [GiB], field (member, y, x) [K]."""

    steps: list[float]
    rest: float
    memory: float
    field: np.ndarray

    def seconds(self, longer: float = 1.0, per_step: Callable[[np.ndarray], float] | None = None) -> float:
        """Time of a run with ``longer`` times as many steps [s], each like the measured ones.

        The first, slower step then does not count. ``per_step`` makes one number of parts of the steps,
        by default their mean.
        """
        steps = np.array(self.steps)
        if longer > 1 and len(steps) > 1:
            steps = steps[1:]
        parts = np.array([part.mean() for part in np.array_split(steps, min(5, len(steps)))])
        each = steps.mean() if per_step is None else per_step(parts)
        return self.rest + float(each) * len(self.steps) * longer


def take_time(marks: Marks, clock: Callable[[], float]) -> tuple[list[float], float, np.ndarray]:
    """Times between marks [s]: of the steps, and the sum of all others; and the field."""
    next(marks)
    steps: list[float] = []
    rest = 0.0
    before = clock()
    while True:
        try:
            is_step = next(marks)
        except StopIteration as end:
            return steps, rest + clock() - before, end.value
        now = clock()
        if is_step:
            steps.append(now - before)
        else:
            rest += now - before
        before = now


def _clock(device: str) -> float:
    """Processor time of all threads, or time on the clock where a GPU does the work [s]."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def run_case(case: Case, steps: int, device: str, path: Path, domain: Domain) -> Measurement:
    """Run a case in this process."""

    def marks() -> Marks:
        if case.published:
            return published_way(path, domain, steps, device)
        return our_way(path, domain, case, steps, device)

    if device == "cuda":
        # The first run loads and chooses kernels.
        take_time(marks(), lambda: _clock(device))
        torch.cuda.reset_peak_memory_stats()
    times, rest, field = take_time(marks(), lambda: _clock(device))
    memory = torch.cuda.max_memory_allocated() / GIB if device == "cuda" else peak_memory()
    return Measurement(times, rest, memory, field)


def _in_own_process(name: str, steps: int, device: str, path: Path) -> Measurement:
    field = path.with_name("field.npy")
    command = [sys.executable, "-m", "benchmarks.sampling", name, str(steps), device, str(path), str(field)]
    # Threads that wait for others must sleep: if they turned round, that would count as processor time.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    measured = Measurement(**json.loads(done.stdout.splitlines()[-1]), field=np.load(field))
    print(
        f"sampling on {device}, {name}: {len(measured.steps)} steps of {np.mean(measured.steps):.3g} s, "
        f"and {measured.rest:.3g} s",
        file=sys.stderr,
        flush=True,
    )
    return measured


def _outcome(
    names: tuple[str, str],
    found: dict[str, Measurement],
    quick: bool,
    comparison: Comparison,
) -> Outcome:
    """The row of a comparison between the cases of two names, ours first."""
    ours, reference = (found[name] for name in names)

    def longer(name: str) -> float:
        return CASES[name].steps / QUICK_STEPS if quick else 1.0

    def seconds(name: str, per_step: Callable[[np.ndarray], float] | None = None) -> float:
        return found[name].seconds(longer(name), per_step)

    spread = (
        seconds(names[1], np.min) / seconds(names[0], np.max),
        seconds(names[1], np.max) / seconds(names[0], np.min),
    )
    comparable = np.isfinite(comparison.tolerance)
    return Outcome(
        comparison,
        seconds(names[1]) / seconds(names[0]),
        spread,
        seconds(names[0]),
        float(np.abs(ours.field - reference.field).max()) if comparable else 0.0,
        (ours.memory, reference.memory),
    )


def _rows(device: str, found: dict[str, Measurement], quick: bool) -> list[Outcome]:
    gpu = device == "cuda"
    place = torch.cuda.get_device_name() if gpu else f"threads: {torch.get_num_threads()}"
    scaled = f" (scaled up from {QUICK_STEPS} steps)" if quick else ""
    hour = f"1 hour of Italy, published width, {place}{scaled}"
    published = "DDIM, 100 steps, conditioner and exchange of weights in each"
    rows = [
        (("equal", "published"), "DDIM, 100 steps", published, 1e-3, None if gpu else 1.5),
        (("few", "published"), "dpmpp_2m, 15 steps", published, np.inf, None if gpu else 10),
        (
            ("together", "apart"),
            f"dpmpp_2m, 15 steps, {MEMBERS} members at once",
            "one after the other",
            # Kernels of a GPU round inputs of convolutions, and others serve larger batches.
            5e-2 if gpu else 1e-3,
            1.3 if gpu else 1.05,
        ),
    ]
    return [
        _outcome(
            names,
            found,
            quick,
            Comparison(f"{what}, {hour}", other, lambda: None, lambda: None, tolerance, required),
        )
        for names, what, other, tolerance, required in rows
    ]


def outcomes(*, quick: bool) -> list[Outcome]:
    """The rows of the table, for the CPU and for a GPU where there is one.

    ``quick`` measures two steps of each case and scales them up.
    """
    result = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        random_model.write(path, ITALY)
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            found = {
                name: _in_own_process(name, QUICK_STEPS if quick else case.steps, device, path)
                for name, case in CASES.items()
            }
            result += _rows(device, found, quick)
    return result


if __name__ == "__main__":
    _, chosen, count, where, model, target = sys.argv
    measured = run_case(CASES[chosen], int(count), where, Path(model), ITALY)
    np.save(target, measured.field)
    print(json.dumps({"steps": measured.steps, "rest": measured.rest, "memory": measured.memory}))
