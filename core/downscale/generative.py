"""Latent diffusion: ensembles of fine fields, step by step.

The order of work follows what each part depends on. The statics are encoded once per run, the UNet's mean
and the context once per hour, and only the denoiser runs for every member and step. Hours and members are
computed together, as many as the memory budget allows; since the noise of a member depends on seed, hour,
member, step and coarse member alone, fields do not depend on how they were put together, but for rounding.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import xarray as xr
from pydantic import ValidationError
from torch import Tensor, nn

from core.checkpoint import Checkpoint, CheckpointError
from core.diffusion.samplers import SAMPLERS, Step, time_steps
from core.diffusion.schedule import Schedule
from core.domain import Domain
from core.downscale.base import DownscaleError, fine_dataset
from core.downscale.devices import batch_size, torch_threads
from core.downscale.memory import decoder_bytes_per_field, denoiser_bytes_per_field
from core.downscale.network import NetworkDownscaler
from core.downscale.regression import check_unet_config
from core.downscale.sampling import Sampling, SamplingStep
from core.downscale.start_noise import Noise, seeded
from core.models.conditioner import ConditionerConfig
from core.models.denoiser import DenoiserConfig
from core.models.latent_diffusion import PARTS, LatentDiffusion, LatentDiffusionConfig
from core.models.vae import VAEConfig
from core.variables import STATIC_CHANNELS, VARIABLES

Precision = Literal["float32", "bfloat16"]

HALF_PRECISION = ("cuda", "cpu")
KEPT_HOURS = 8
MOST_MEMBERS = 2**32
MEMBER_ATTRS = {"standard_name": "realization", "long_name": "member of the ensemble", "units": "1"}


@dataclass(frozen=True)
class _Condition:
    """What all members and steps of an hour share: the UNet's mean (1, targets, H, W), and the context, a
    tensor (1, C, h, w) per level."""

    mean: Tensor
    context: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Field:
    """One field to compute: an hour, with its row among the inputs, and a member."""

    row: int
    hour: np.datetime64
    member: int


@dataclass(frozen=True)
class _Run:
    """What was asked for: standardised inputs (hours, predictors, h, w) and statics (1, 18, H, W) on the CPU,
    the fields hour by hour, how many members each hour has and how many fields are computed together."""

    inputs: Tensor
    statics: Tensor
    domain: Domain
    fields: list[_Field]
    members: int
    sampling: Sampling
    noise: Noise
    batch: int


class GenerativeDownscaler(NetworkDownscaler):
    """The latent diffusion model of a checkpoint, LDM_res or LDM_PDE.

    A field is the UNet's mean plus the decoded latent that the denoiser makes of noise (Tomasi, Franch and
    Cristoforetti, arXiv 2406.13627, section 3). :meth:`sample` gives ensembles and can be followed and
    stopped after every step, :meth:`downscale` gives member 0 with the default :class:`Sampling`.

    Parameters
    ----------
    precision : ``"bfloat16"`` lets the denoiser multiply in half precision, on CUDA and on the CPU, where it
        pays only on processors with instructions for it. The UNet's mean, the decoder, the sampler's state
        and the Fourier transforms stay in float32.

    Further parameters and errors as of :class:`core.downscale.network.NetworkDownscaler`; DownscaleError for
    bfloat16 on another device.
    """

    kinds = ("ldm_res", "ldm_pde")
    noun = "a latent diffusion model"
    stochastic = True

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "auto",
        memory_gib: float | None = None,
        threads: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(path, device=device, memory_gib=memory_gib, threads=threads)
        if precision == "bfloat16" and self.device.type not in HALF_PRECISION:
            raise DownscaleError(
                f"bfloat16 is for {' and '.join(HALF_PRECISION)} devices; {self.label} runs on "
                f"{self.device.type}."
            )
        self.precision = precision
        self._kept: OrderedDict[bytes, _Condition] = OrderedDict()
        self._kept_static: tuple[bytes, Tensor] | None = None
        self._kept_lock = threading.Lock()

    def _check_header(self) -> None:
        self.check_parts(PARTS)
        unet = check_unet_config(self)
        vae = self.part_config("vae", VAEConfig)
        conditioner = self.part_config("conditioner", ConditionerConfig)
        denoiser = self.part_config("denoiser", DenoiserConfig)
        try:
            self._config = LatentDiffusionConfig(
                unet=unet,
                vae=vae,
                conditioner=conditioner,
                denoiser=denoiser,
                parameterization=self.header.parameterization,
            )
        except ValidationError as error:
            fault = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise CheckpointError(f"{self.path} has parts that do not belong together: {fault}") from error
        with torch.device("meta"):
            self.side_multiple = LatentDiffusion(self._config).side_multiple
        self.check_sides(self.side_multiple)
        header = self.header
        if conditioner.coarse_channels != len(header.predictors):
            raise CheckpointError(
                f"{self.path} has a conditioner for {conditioner.coarse_channels} predictors, but names "
                f"{len(header.predictors)}."
            )
        if conditioner.static_channels != STATIC_CHANNELS:
            raise CheckpointError(
                f"{self.path} has a conditioner for {conditioner.static_channels} static channels; stores "
                f"give {STATIC_CHANNELS}."
            )
        if self.domain.ratio != self._latent_ratio:
            raise CheckpointError(
                f"{self.path} has latents {self._latent_ratio} times coarser than the fine grid, but its "
                f"domain has coarse cells {self.domain.ratio} times larger; both must agree."
            )

    @property
    def _latent_ratio(self) -> int:
        return 1 << self._config.vae.levels

    def _build(self, checkpoint: Checkpoint) -> nn.Module:
        with torch.device("meta"):
            model = LatentDiffusion(self._config)
        for part in PARTS:
            checkpoint.restore(part, model.get_submodule(part))
        return model

    def _arrange(self, network: nn.Module) -> None:
        # At published width on the Italy domain the statics' encoder, the UNet and the decoder take 1.4 to 2
        # times less CPU time with channels last, and the denoiser 7 % more (one thread). In half precision
        # the denoiser takes 20 % less.
        for part in PARTS:
            if part != "denoiser" or self.precision == "bfloat16":
                module = network.get_submodule(part)
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def fields_at_once(self, domain: Domain) -> int:
        """How many fields (hours x members) are computed together under the memory budget."""
        each = denoiser_bytes_per_field(self._config.denoiser, domain, self._latent_ratio)
        return batch_size(each, self.device, self.memory_gib)

    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """Member 0 of the targets on the fine grid, with the default :class:`Sampling`."""
        hours = [event for event in self.sample(coarse, static, domain) if isinstance(event, xr.Dataset)]
        height, width = domain.fine.shape
        empty = np.empty((0, height, width), np.float32)
        fields = {
            name: np.concatenate([empty, *(hour[name].values[0] for hour in hours)]) for name in self.targets
        }
        return fine_dataset(fields, coarse["time"].values, domain)

    def sample(
        self,
        coarse: xr.Dataset,
        static: xr.Dataset | None,
        domain: Domain,
        members: Sequence[int] = (0,),
        sampling: Sampling | None = None,
        *,
        noise: Noise | None = None,
        batch: int | None = None,
    ) -> Iterator[SamplingStep | xr.Dataset]:
        """Members of the ensemble for all hours in ``coarse``, to be followed and stopped at any step.

        Parameters
        ----------
        coarse, static, domain : as in :meth:`downscale`; both fine sides must be multiples of
            ``side_multiple`` (32 at published depth)
        members : different whole numbers from 0; a member is the same whichever others are asked for
        sampling : by default ``Sampling()``
        noise : the noise to use in place of that of ``sampling.seed`` and, for ensemble forecasts, of the
            scalar coordinate ``number`` of ``coarse``
        batch : fields computed together, by default :meth:`fields_at_once`

        Yields
        ------
        a :class:`SamplingStep` after each step, and whenever an hour is done a Dataset of it, in order:
        targets as in :meth:`downscale` with dims (member, time, y, x) and one hour each

        Closing the iterator stops the work. Fields agree to rounding however they are batched, and bit for
        bit with the same batches, threads and machine.

        Raises DownscaleError, at once, where an input is missing, incomplete or on another grid.
        """
        sampling = sampling or Sampling()
        chosen = _check_members(members)
        if batch is not None and batch < 1:
            raise DownscaleError(f"At least one field is computed at once; a batch of {batch} is none.")
        height, width = domain.fine.shape
        if height % self.side_multiple or width % self.side_multiple:
            raise DownscaleError(
                f"{self.label} needs fine sides that are multiples of {self.side_multiple}; "
                f"{domain.name} has {height} x {width} cells."
            )
        if domain.ratio != self._latent_ratio:
            raise DownscaleError(
                f"{self.label} needs coarse cells of {self._latent_ratio} x {self._latent_ratio} fine cells; "
                f"those of {domain.name} are {domain.ratio} x {domain.ratio}."
            )
        inputs, statics = self._tensors(coarse, static, domain)
        hours = coarse["time"].values
        fields = [_Field(row, hours[row], member) for row in range(len(inputs)) for member in chosen]
        number = int(coarse["number"]) if "number" in coarse.coords else 0
        run = _Run(
            inputs, statics, domain, fields, len(chosen), sampling, noise or seeded(sampling.seed, number),
            batch or self.fields_at_once(domain),
        )  # fmt: skip
        return self._events(run)

    def _events(self, run: _Run) -> Iterator[SamplingStep | xr.Dataset]:
        model = cast(LatentDiffusion, self._loaded())
        total = len(run.fields)
        made: list[Tensor] = []  # (1, targets, H, W) of the hours that are not complete
        for start in range(0, total, run.batch):
            fields = run.fields[start : start + run.batch]
            by_row = {
                row: self._condition(model, run, row) for row in dict.fromkeys(field.row for field in fields)
            }
            conditions = [by_row[field.row] for field in fields]
            for step in self._steps(model, run, fields, conditions):
                latents = step.z
                yield SamplingStep(
                    hours=tuple(field.hour for field in fields),
                    members=tuple(field.member for field in fields),
                    step=step.step,
                    steps=step.steps,
                    t=step.t,
                    done=start + len(fields) * step.step / step.steps,
                    total=total,
                    preview=partial(self._preview, model, run.domain, fields, conditions, step),
                )
            at_once = batch_size(
                decoder_bytes_per_field(self._config.vae, run.domain), self.device, self.memory_gib
            )
            for first in range(0, len(fields), at_once):
                some = slice(first, first + at_once)
                made += list(self._decode(model, latents[some], conditions[some]).unsqueeze(1))
            while len(made) >= run.members:
                # Fields are ordered by hour, so the first ones belong to one.
                of_hour = run.fields[start + len(fields) - len(made) :][: run.members]
                yield self._dataset(torch.cat(made[: run.members]), of_hour, run.domain)
                del made[: run.members]

    def _steps(
        self, model: LatentDiffusion, run: _Run, fields: list[_Field], conditions: list[_Condition]
    ) -> Iterator[Step]:
        """Steps of the sampler for some fields, led by a step 0 whose state is the noise."""
        sampling = run.sampling
        shape = model.latent_shape(run.statics)

        def noise(step: int) -> Tensor:
            drawn = [run.noise(shape, field.hour, field.member, step) for field in fields]
            return torch.stack(drawn).to(self.device)

        schedule = Schedule()
        start = noise(0)
        total = len(time_steps(schedule, sampling.steps, sampling.spacing))
        yield Step(0, total, math.nan, start, start)
        context = _side_by_side(conditions)
        steps = SAMPLERS[sampling.sampler](
            lambda z, t: model.denoise(z, t, context),
            start,
            schedule,
            steps=sampling.steps,
            eta=sampling.eta,
            timesteps=sampling.spacing,
            noise=noise,
            parameterization=self._config.parameterization,
        )
        # One step at a time: threads and modes of PyTorch must not reach the caller, who goes on in between.
        while True:
            with self._running(half=self.precision == "bfloat16"):
                step = next(steps, None)
            if step is None:
                return
            yield step

    @contextmanager
    def _running(self, *, half: bool = False) -> Iterator[None]:
        with (
            torch.inference_mode(),
            torch_threads(self.threads),
            torch.autocast(self.device.type, torch.bfloat16, enabled=half),
        ):
            yield

    def _condition(self, model: LatentDiffusion, run: _Run, row: int) -> _Condition:
        """What the members of an hour share; kept for the last hours, which a screen may ask for again."""
        coarse = run.inputs[row : row + 1]
        with self._kept_lock:
            static_key = _digest(run.statics)
            key = static_key + _digest(coarse)
            if key not in self._kept:
                with self._running():
                    coarse, static = coarse.to(self.device), run.statics.to(self.device)
                    if self._kept_static is None or self._kept_static[0] != static_key:
                        self._kept_static = static_key, model.conditioner.encode_static(static)
                    context = model.condition(coarse, static, encoded_static=self._kept_static[1])
                    self._kept[key] = _Condition(model.mean(coarse, static).float(), context)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT_HOURS:
                self._kept.popitem(last=False)
            return self._kept[key]

    def _decode(self, model: LatentDiffusion, latents: Tensor, conditions: list[_Condition]) -> Tensor:
        """Fields in physical units on the CPU, (N, targets, H, W)."""
        with self._running():
            mean = torch.cat([condition.mean for condition in conditions])
            fine = mean + model.decode(latents).float()
            return self.header.normalization.targets_from_tensor(fine, self.targets).cpu()

    def _preview(
        self,
        model: LatentDiffusion,
        domain: Domain,
        fields: list[_Field],
        conditions: list[_Condition],
        step: Step,
        position: int,
    ) -> xr.Dataset:
        one = slice(position, position + 1)
        if not fields[one]:
            raise IndexError(f"There are {len(fields)} fields; there is none at position {position}.")
        if step.step:
            values = self._decode(model, step.z0[one], conditions[one])
        else:
            values = self.header.normalization.targets_from_tensor(conditions[position].mean, self.targets)
        return self._dataset(values.cpu(), fields[one], domain)

    def _dataset(self, values: Tensor, fields: list[_Field], domain: Domain) -> xr.Dataset:
        """Fields (member, targets, H, W) of one hour with names, units and coordinates."""
        arrays = values[:, None].numpy()
        return xr.Dataset(
            {
                name: (("member", "time", "y", "x"), arrays[:, :, channel], VARIABLES[name].attrs)
                for channel, name in enumerate(self.targets)
            },
            coords={
                "member": ("member", [field.member for field in fields], MEMBER_ATTRS),
                "time": np.array([fields[0].hour]),
                "y": domain.fine.y,
                "x": domain.fine.x,
            },
        )


def _check_members(members: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(int(member) for member in members)
    if not chosen or len(set(chosen)) < len(chosen) or not 0 <= min(chosen) <= max(chosen) < MOST_MEMBERS:
        raise DownscaleError(
            f"Members are different whole numbers from 0; got {', '.join(map(str, chosen)) or 'none'}."
        )
    return chosen


def _side_by_side(conditions: list[_Condition]) -> tuple[Tensor, ...]:
    """The contexts of several fields as one batch; a single hour serves all of them as it is."""
    first = conditions[0]
    if all(condition is first for condition in conditions):
        return first.context
    return tuple(torch.cat(levels) for levels in zip(*(c.context for c in conditions), strict=True))


def _digest(tensor: Tensor) -> bytes:
    return hashlib.blake2b(tensor.contiguous().numpy().data, digest_size=16).digest()
