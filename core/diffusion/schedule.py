"""The noise schedule of the diffusion models and the conversions between what a network may predict.

Forward process, with a latent z0, unit normal noise eps and ``alpha_bar`` falling from 1 to about 0:

    z_t = sqrt(alpha_bar) z0 + sqrt(1 - alpha_bar) eps                    (Ho et al., arXiv 2006.11239, eq. 4)
    v   = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z0              (Salimans and Ho, arXiv 2202.00512)

The schedule is the published one (Tomasi, Franch and Cristoforetti, arXiv 2406.13627): 1000 steps whose betas
are linear in their square root. A network is trained at whole t only; between them the schedule is continued
with the logarithm of the noise level sigma = sqrt((1 - alpha_bar) / alpha_bar) linear in t, so that a sampler
may choose any sigma and knows the t that belongs to it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

Parameterization = Literal["v", "eps", "x0"]


class Schedule(BaseModel):
    """Noise levels of ``steps`` diffusion steps; the defaults are the published ones.

    In every method z, z0, noise and network output are tensors (N, ...) of one shape. ``t`` is a tensor (N,)
    of whole numbers from 0 to ``steps`` - 1, one for each sample, or a single number for all of them, which
    may be fractional.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=1000, ge=2, le=100_000)
    beta_start: float = Field(default=1e-4, gt=0.0, lt=1.0)
    beta_end: float = Field(default=2e-2, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.beta_end < self.beta_start:
            raise ValueError("beta_end must not be smaller than beta_start")
        return self

    @property
    def betas(self) -> NDArray[np.float64]:
        """Variance of the noise that each step adds, (steps,), read-only."""
        return _series(self.steps, self.beta_start, self.beta_end)[0]

    @property
    def alpha_bar(self) -> NDArray[np.float64]:
        """Share of z0 in the variance of z_t, (steps,), falling, read-only."""
        return _series(self.steps, self.beta_start, self.beta_end)[1]

    @property
    def _log_sigmas(self) -> NDArray[np.float64]:
        return _series(self.steps, self.beta_start, self.beta_end)[2]

    def sigma(self, t: ArrayLike) -> NDArray[np.float64]:
        """Noise level sqrt((1 - alpha_bar) / alpha_bar), of the shape of ``t``.

        It is the sigma of Karras et al. (arXiv 2206.00364): z_t / sqrt(alpha_bar) = z0 + sigma eps. Raises
        ValueError where ``t`` lies outside 0 ... ``steps`` - 1.
        """
        times = np.asarray(t, dtype=np.float64)
        if not np.all((times >= 0) & (times <= self.steps - 1)):
            raise ValueError(f"This schedule has the times 0 to {self.steps - 1}; got {times}.")
        return np.exp(np.interp(times, np.arange(self.steps), self._log_sigmas))

    def time(self, sigma: ArrayLike) -> NDArray[np.float64]:
        """The t, mostly fractional, of a noise level, of the shape of ``sigma``: inverse of :meth:`sigma`.

        Raises ValueError where the level lies outside the schedule by more than rounding.
        """
        levels = np.asarray(sigma, dtype=np.float64)
        low, high = np.exp(self._log_sigmas[[0, -1]])
        if not np.all((levels >= low * (1 - 1e-9)) & (levels <= high * (1 + 1e-9))):
            raise ValueError(f"This schedule has noise levels from {low:.4g} to {high:.4g}; got {levels}.")
        return np.interp(np.log(levels), self._log_sigmas, np.arange(self.steps, dtype=np.float64))

    def add_noise(self, z0: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
        """z_t from z0 and unit normal noise."""
        signal, spread = self._factors(z0, t)
        return signal * z0 + spread * noise

    def target(
        self, z0: Tensor, noise: Tensor, t: Tensor | float, parameterization: Parameterization
    ) -> Tensor:
        """What a network of this parameterization should predict."""
        _check(parameterization)
        if parameterization == "eps":
            return noise
        if parameterization == "x0":
            return z0
        signal, spread = self._factors(z0, t)
        return signal * noise - spread * z0

    def to_z0(
        self, output: Tensor, z: Tensor, t: Tensor | float, parameterization: Parameterization = "v"
    ) -> Tensor:
        """Estimate of z0 from a network's output at the state ``z``."""
        _check(parameterization)
        if parameterization == "x0":
            return output
        signal, spread = self._factors(z, t)
        return signal * z - spread * output if parameterization == "v" else (z - spread * output) / signal

    def to_eps(
        self, output: Tensor, z: Tensor, t: Tensor | float, parameterization: Parameterization = "v"
    ) -> Tensor:
        """Estimate of the noise from a network's output at the state ``z``."""
        _check(parameterization)
        if parameterization == "eps":
            return output
        signal, spread = self._factors(z, t)
        return signal * output + spread * z if parameterization == "v" else (z - signal * output) / spread

    def to_v(
        self, output: Tensor, z: Tensor, t: Tensor | float, parameterization: Parameterization = "v"
    ) -> Tensor:
        """Estimate of v from a network's output at the state ``z``."""
        _check(parameterization)
        if parameterization == "v":
            return output
        signal, spread = self._factors(z, t)
        return (output - spread * z) / signal if parameterization == "eps" else (signal * z - output) / spread

    def _factors(self, like: Tensor, t: Tensor | float) -> tuple[Tensor | float, Tensor | float]:
        """sqrt(alpha_bar) and sqrt(1 - alpha_bar), ready to multiply ``like``."""
        if isinstance(t, Tensor):
            if t.is_floating_point() or t.shape != like.shape[:1]:
                raise ValueError(
                    f"t must hold one whole number for each of {len(like)} samples; got {t.dtype} of shape "
                    f"{tuple(t.shape)}. A fractional time is given as a single number."
                )
            dtype = torch.promote_types(like.dtype, torch.float32)
            # Unlike an index, gather refuses negative times.
            columns = _tables(self, like.device, dtype).gather(1, t.long().to(like.device).expand(2, -1))
            signal, spread = columns.view(2, -1, *(1,) * (like.ndim - 1))
            return signal, spread
        return signal_and_spread(float(self.sigma(t)))


def signal_and_spread(sigma: float) -> tuple[float, float]:
    """Factors sqrt(alpha_bar) of z0 and sqrt(1 - alpha_bar) of the noise at the noise level ``sigma``."""
    signal = (1.0 + sigma * sigma) ** -0.5
    return signal, sigma * signal


def _check(parameterization: str) -> None:
    if parameterization not in ("v", "eps", "x0"):
        raise ValueError(f"A network predicts v, eps or x0, not {parameterization}.")


# Not kept in the schedule itself, where arrays would break the comparison of two schedules.
@lru_cache(maxsize=16)
def _series(steps: int, beta_start: float, beta_end: float) -> tuple[NDArray[np.float64], ...]:
    """Betas, alpha_bar and log(sigma) of every step, (steps,) each."""
    betas: NDArray[np.float64] = np.square(np.linspace(beta_start**0.5, beta_end**0.5, steps))
    alpha_bar = np.cumprod(1.0 - betas, dtype=np.float64)
    log_sigmas = 0.5 * (np.log1p(-alpha_bar) - np.log(alpha_bar))
    for values in (betas, alpha_bar, log_sigmas):
        values.flags.writeable = False
    return betas, alpha_bar, log_sigmas


@lru_cache(maxsize=16)
def _tables(schedule: Schedule, device: torch.device, dtype: torch.dtype) -> Tensor:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar) of every step, (2, steps)."""
    factors = np.sqrt(np.stack([schedule.alpha_bar, 1.0 - schedule.alpha_bar]))
    return torch.from_numpy(factors).to(dtype).to(device)
