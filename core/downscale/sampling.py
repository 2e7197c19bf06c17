"""How members are sampled, and what a screen can follow while they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.diffusion.samplers import Spacing
from core.downscale.base import DownscaleError

SamplerName = Literal["ddim", "dpmpp_2m", "heun"]

DEFAULT_SPACING: Mapping[SamplerName, Spacing] = {
    "ddim": "published",
    "dpmpp_2m": "logsnr",
    "heun": "karras",
}


class Sampling(BaseModel):
    """How a generative downscaler samples its members.

    Attributes
    ----------
    sampler : of :data:`core.diffusion.samplers.SAMPLERS`
    steps : network evaluations, twice as many with ``heun``
    seed : with hour and member it decides the noise (:mod:`core.diffusion.noise`)
    eta : noise added in each step of ``ddim``, from 0 (none) to 1
    timesteps : where the steps lie; None takes what suits the sampler: ``"published"`` for ``ddim``,
        ``"logsnr"`` for ``dpmpp_2m``, ``"karras"`` for ``heun``
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampler: SamplerName = "dpmpp_2m"
    steps: int = Field(default=15, ge=1, le=1000)
    seed: int = Field(default=0, ge=0, lt=2**64)
    eta: float = Field(default=0.0, ge=0.0, le=1.0)
    timesteps: Spacing | None = None

    @model_validator(mode="after")
    def _random_steps(self) -> Self:
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"{self.sampler} has no random steps, so eta must be 0; use ddim for others")
        return self

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The same from values that a person typed: what is wrong with them is a DownscaleError."""
        try:
            return cls(**values)
        except ValidationError as error:
            fault = error.errors()[0]
            what = ".".join(map(str, fault["loc"]))
            message = fault["msg"].removeprefix("Value error, ")
            raise DownscaleError(f"{what}: {message}." if what else f"{message}.") from error

    @property
    def spacing(self) -> Spacing:
        """``timesteps``, or what suits the sampler."""
        return self.timesteps or DEFAULT_SPACING[self.sampler]


@dataclass(frozen=True)
class SamplingStep:
    """Where a run over hours and members stands; several fields are computed at once.

    Attributes
    ----------
    hours, members : of the fields computed now, one each
    step, steps : of the sampler, for these fields; step 0 comes when the hours are conditioned and the noise
        is drawn
    t : time step at which the denoiser was asked; NaN at step 0
    done, total : fields (hours x members) of the whole run; ``done`` counts parts of them
    preview : called with the position of a field among ``hours``, decodes what is known of it now, a
        Dataset as the result (one hour, one member); at step 0 the UNet's mean. Nothing is
        decoded unless it is called, and it stays valid.
    """

    hours: tuple[np.datetime64, ...]
    members: tuple[int, ...]
    step: int
    steps: int
    t: float
    done: float
    total: int
    preview: Callable[[int], xr.Dataset]


def collect(events: Iterable[SamplingStep | xr.Dataset]) -> xr.Dataset:
    """All fields (member, time, y, x) of a run of ``sample``, which is run to its end.

    Raises ValueError where there are none.
    """
    return xr.concat([event for event in events if isinstance(event, xr.Dataset)], "time")
