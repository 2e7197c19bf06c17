"""Samplers: from noise to a latent without noise, step by step.

``ddim``
    Song, Meng and Ermon, arXiv 2010.02502, eq. 12 and 16; eta from 0 (deterministic) to 1 (as much noise in
    each step as DDPM). First order, one network evaluation for each step.
``dpmpp_2m``
    DPM-Solver++ (2M), Lu et al., arXiv 2211.01095, algorithm 2. Second order from the estimates of two steps,
    one network evaluation for each.
``heun``
    Heun's method in sigma, Karras et al., arXiv 2206.00364, algorithm 1. Second order, two network
    evaluations for each step but one that ends at sigma = 0.

All are generators with one signature that yield a :class:`Step` after each of their n steps, so that a
caller can show, time or stop them. The first state is unit normal noise; nothing is differentiated; the state
is kept in float32 (float64 where it comes so), whatever the network computes in.

Where the steps lie (``timesteps``):

``"published"``
    as the published sampler has it: t = 1, 1 + c, 1 + 2c, ... below 1000 with c = 1000 // steps, and the last
    step leads to t = 0, where 0.01 of noise is left. So it starts at t = 901 for 10 steps and at 751 for 4,
    though given pure noise, and takes 31 steps where 30 are asked for.
``"trailing"``
    evenly spaced downwards from the noisiest t, where hardly any signal is left (Lin et al., arXiv
    2305.08891, table 2).
``"karras"``
    sigma**(1/7) evenly spaced from the noisiest t to t = 0 (Karras et al., eq. 5 with rho = 7).
``"logsnr"``
    log(sigma) evenly spaced from the noisiest t to t = 0 (Lu et al., arXiv 2206.00927).
a sequence of numbers
    these t, falling, whole or fractional.

All but ``"published"`` end with a step to sigma = 0, which gives the last estimate of z0 itself. ``"karras"``
and ``"logsnr"`` visit fractional t: the time embedding of the network is continuous, and
:meth:`core.diffusion.schedule.Schedule.time` says which t has a given sigma.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import expm1, log
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.diffusion.schedule import Parameterization, Schedule, signal_and_spread

Spacing = Literal["published", "trailing", "karras", "logsnr"]
Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[int], Tensor]

KARRAS_RHO = 7.0


class Step(NamedTuple):
    """State of a sampler after one step.

    Attributes
    ----------
    step : number of this step, from 1
    steps : number of all steps, so that ``step / steps`` is the progress
    t : time at which the network was asked
    z : (N, ...) the state after the step; the sample where ``step == steps``
    z0 : (N, ...) the estimate of the latent without noise that the step was made with
    """

    step: int
    steps: int
    t: float
    z: Tensor
    z0: Tensor


Steps = Generator[Step, None, None]


class Sampler(Protocol):
    """The signature that all samplers share.

    Parameters
    ----------
    denoise : gives the network's output (N, ...) from a state (N, ...) and times (N,), which are
        floating-point numbers from 0 to ``schedule.steps`` - 1
    z : (N, ...) unit normal noise, on any device; it is left as it is
    steps : how many to take; ``"published"`` may take more, a sequence of ``timesteps`` decides itself
    eta : noise of each step, from 0 to 1; only ``ddim`` has it
    timesteps : where the steps lie, see the module
    noise : gives the unit normal noise (N, ...) of step 1, 2, ...; needed where eta is not 0, and asked for
        only where a step is random
    parameterization : what the network predicts

    Raises ValueError at once, before anything is computed, for options that can't be; and in the first step
    where the network's output has another shape than its input.
    """

    def __call__(
        self,
        denoise: Denoise,
        z: Tensor,
        schedule: Schedule,
        *,
        steps: int,
        eta: float = ...,
        timesteps: Spacing | Sequence[float] = ...,
        noise: Noise | None = ...,
        parameterization: Parameterization = ...,
    ) -> Steps: ...


def time_steps(schedule: Schedule, steps: int, spacing: Spacing | Sequence[float]) -> NDArray[np.float64]:
    """The falling times (n,) at which a sampler asks the network; see the module for the spacings.

    Raises ValueError for an unknown spacing, for times that don't fall or leave the schedule, and for more
    steps than the schedule has.
    """
    if not isinstance(spacing, str):
        times = np.asarray(spacing, dtype=np.float64)
        if times.ndim != 1 or not len(times) or np.any(np.diff(times) >= 0):
            raise ValueError(f"Times of a sampler fall from step to step; got {spacing}.")
        schedule.sigma(times)
        return times
    if not 1 <= steps <= schedule.steps:
        raise ValueError(f"A sampler takes 1 to {schedule.steps} steps; got {steps}.")
    last = schedule.steps - 1
    if spacing == "published":
        return np.arange(1, schedule.steps, schedule.steps // steps, dtype=np.float64)[::-1]
    if spacing == "trailing":
        return schedule.steps - 1 - np.round(np.arange(steps) * (schedule.steps / steps))
    low, high = schedule.sigma([0, last])
    ramp = np.linspace(0.0, 1.0, steps)
    if spacing == "karras":
        sigmas = (high ** (1 / KARRAS_RHO) * (1 - ramp) + low ** (1 / KARRAS_RHO) * ramp) ** KARRAS_RHO
    elif spacing == "logsnr":
        sigmas = np.exp(np.log(high) * (1 - ramp) + np.log(low) * ramp)
    else:
        raise ValueError(f"Steps are spaced published, trailing, karras or logsnr, not {spacing}.")
    times = schedule.time(sigmas)
    # Not almost 0 and almost the last, as the logarithm has it.
    times[-1], times[0] = 0.0, last
    return times


@dataclass(frozen=True)
class _Run:
    """What all samplers prepare alike.

    ``times`` (n,), ``sigmas`` (n + 1,) before the first and after each step, ``z`` the state in its own type.
    """

    denoise: Denoise
    schedule: Schedule
    parameterization: Parameterization
    times: list[float]
    sigmas: list[float]
    z: Tensor

    def predict(self, z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The network's estimates of z0 and of the noise in ``z`` at time ``t``."""
        output = self.denoise(z, torch.full(z.shape[:1], t, dtype=z.dtype, device=z.device))
        if output.shape != z.shape:
            raise ValueError(
                f"The network made {tuple(output.shape)} of latents {tuple(z.shape)}; both must be the same."
            )
        output = output.to(z.dtype)
        return (
            self.schedule.to_z0(output, z, t, self.parameterization),
            self.schedule.to_eps(output, z, t, self.parameterization),
        )


def _prepare(
    denoise: Denoise,
    z: Tensor,
    schedule: Schedule,
    steps: int,
    timesteps: Spacing | Sequence[float],
    parameterization: Parameterization,
) -> _Run:
    times = time_steps(schedule, steps, timesteps)
    end = float(schedule.sigma(0)) if isinstance(timesteps, str) and timesteps == "published" else 0.0
    return _Run(
        denoise,
        schedule,
        parameterization,
        times.tolist(),
        [*schedule.sigma(times).tolist(), end],
        z.detach().to(torch.promote_types(z.dtype, torch.float32)),
    )


def _refuse_noise(name: str, eta: float) -> None:
    if eta != 0.0:
        raise ValueError(f"{name} has no random steps, so eta must be 0; got {eta}. Use ddim for others.")


def ddim(
    denoise: Denoise,
    z: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    eta: float = 0.0,
    timesteps: Spacing | Sequence[float] = "published",
    noise: Noise | None = None,
    parameterization: Parameterization = "v",
) -> Steps:
    """DDIM, first order. See :class:`Sampler` for the parameters and the module for the source."""
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta lies between 0 and 1; got {eta}.")
    if eta and noise is None:
        raise ValueError("With eta above 0 every step is random: give the noise of the steps as well.")
    run = _prepare(denoise, z, schedule, steps, timesteps, parameterization)
    return _ddim(run, eta, noise)


@torch.no_grad()
def _ddim(run: _Run, eta: float, noise: Noise | None) -> Steps:
    z, total = run.z, len(run.times)
    for step, (t, (sigma, following)) in enumerate(zip(run.times, pairwise(run.sigmas), strict=True), 1):
        z0, eps = run.predict(z, t)
        signal, spread = signal_and_spread(following)
        # Equation 16, with alpha_bar written as 1 / (1 + sigma**2).
        random = eta * following / sigma * ((sigma**2 - following**2) / (1 + following**2)) ** 0.5
        z = signal * z0 + (spread**2 - random**2) ** 0.5 * eps
        if noise is not None and random > 0.0:
            z = z + random * noise(step).to(z)
        yield Step(step, total, t, z, z0)


def dpmpp_2m(
    denoise: Denoise,
    z: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    eta: float = 0.0,
    timesteps: Spacing | Sequence[float] = "logsnr",
    noise: Noise | None = None,
    parameterization: Parameterization = "v",
) -> Steps:
    """DPM-Solver++ (2M), second order; 10 to 20 steps are enough for most uses.

    The first step and a last one to sigma = 0 are of first order; the latter makes the state the estimate.
    See :class:`Sampler` for the parameters and the module for the source.
    """
    _refuse_noise("dpmpp_2m", eta)
    return _dpmpp_2m(_prepare(denoise, z, schedule, steps, timesteps, parameterization))


@torch.no_grad()
def _dpmpp_2m(run: _Run) -> Steps:
    z, total = run.z, len(run.times)
    earlier: Tensor | None = None
    earlier_width = 0.0
    for step, (t, (sigma, following)) in enumerate(zip(run.times, pairwise(run.sigmas), strict=True), 1):
        z0, _ = run.predict(z, t)
        if following == 0.0:
            z = z0
        else:
            width = log(sigma / following)
            aim = z0
            if earlier is not None:
                aim = z0 + (0.5 * width / earlier_width) * (z0 - earlier)
            spread, (next_signal, next_spread) = signal_and_spread(sigma)[1], signal_and_spread(following)
            z = (next_spread / spread) * z - (next_signal * expm1(-width)) * aim
            earlier, earlier_width = z0, width
        yield Step(step, total, t, z, z0)


def heun(
    denoise: Denoise,
    z: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    eta: float = 0.0,
    timesteps: Spacing | Sequence[float] = "karras",
    noise: Noise | None = None,
    parameterization: Parameterization = "v",
) -> Steps:
    """Heun's method in sigma, second order, two network evaluations for each step but one to sigma = 0.

    See :class:`Sampler` for the parameters and the module for the source.
    """
    _refuse_noise("heun", eta)
    return _heun(_prepare(denoise, z, schedule, steps, timesteps, parameterization))


@torch.no_grad()
def _heun(run: _Run) -> Steps:
    z, total = run.z, len(run.times)
    following_times = [*run.times[1:], 0.0]
    for step, (t, (sigma, following)) in enumerate(zip(run.times, pairwise(run.sigmas), strict=True), 1):
        z0, slope = run.predict(z, t)
        if following == 0.0:
            z = z0
        else:
            # x = z / signal solves dx / dsigma = eps.
            signal, next_signal = signal_and_spread(sigma)[0], signal_and_spread(following)[0]
            x, width = z / signal, following - sigma
            _, next_slope = run.predict(next_signal * (x + width * slope), following_times[step - 1])
            z = next_signal * (x + (0.5 * width) * (slope + next_slope))
        yield Step(step, total, t, z, z0)


SAMPLERS: dict[str, Sampler] = {"ddim": ddim, "dpmpp_2m": dpmpp_2m, "heun": heun}
"""Samplers by name."""
