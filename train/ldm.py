"""Training latent diffusion on the residuals of a frozen UNet, in the latents of a frozen VAE (LDM_res).

Tomasi, Franch and Cristoforetti, arXiv 2406.13627, section 3: the denoiser and the conditioner are trained
together to predict v; what samples is the moving average of the denoiser's weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from core.checkpoint import Checkpoint
from core.data.samples import Hours, Normalization, Progress
from core.data.store import Store
from core.diffusion.ema import EMA
from core.diffusion.losses import Denoising, diffusion_loss
from core.diffusion.noise import member_noise
from core.diffusion.samplers import SAMPLERS
from core.diffusion.schedule import Schedule
from core.domain import Domain
from core.downscale.devices import torch_threads
from core.models.conditioner import ConditionerConfig
from core.models.denoiser import DenoiserConfig
from core.models.latent_diffusion import PARTS, LatentDiffusion, LatentDiffusionConfig
from core.models.unet import UNetConfig
from core.models.vae import VAEConfig
from core.variables import STATIC_CHANNELS
from train.config import LDMTrainConfig
from train.data import data_identity, draw, loaders, usable_hours
from train.latents import LatentDataset, encode_hours
from train.progress import Report, Status
from train.residuals import Means, window
from train.run import StageRun, load_parent, make_header
from train.run_folder import TrainError
from train.scores import field_scores
from train.task import StageTask, keyed_generator

SPACING = "logsnr"
"""Where the steps of the sampler lie in validation, as in use."""

GOLDEN = (5**0.5 - 1) / 2
PREFIX = "model."


@dataclass(frozen=True)
class SampledHours:
    """Validation hours that are sampled whole: standardised predictors (n, P, h, w), truth and the UNet's
    mean (n, T, H, W), on the CPU."""

    hours: Hours
    coarse: Tensor
    truth: Tensor
    mean: Tensor


class LDMTask(StageTask):
    """Conditioner and denoiser with their loss, optimiser, averages and scores; UNet and VAE stand still.

    ``validation_loss`` is the diffusion loss of whole hours at fixed noise and fixed time steps, with the
    averaged weights. In some rounds hours are sampled: ``sample_rmse_<target>`` is the error of one member in
    the target's units (``mean_rmse_<target>`` that of the UNet for the same hours), ``sample_slope_<target>``
    and ``mean_slope_<target>`` the spectral-slope losses.

    Parameters
    ----------
    network : with the weights of UNet and VAE
    static : standardised statics of the whole domain (1, 18, H, W)
    hours : of validation, by their position in the data set
    """

    config: LDMTrainConfig

    def __init__(
        self,
        config: LDMTrainConfig,
        network: LatentDiffusion,
        static: Tensor,
        hours: Hours,
        sampled: SampledHours | None,
        normalization: Normalization,
        targets: tuple[str, ...],
        domain: Domain,
    ) -> None:
        super().__init__(config)
        self.model = network
        self.model.unet.requires_grad_(False)
        self.model.vae.requires_grad_(False)
        self.register_buffer("static", static, persistent=False)
        self.static: Tensor
        self.hours = hours
        self.sampled = sampled
        self.normalization = normalization
        self.targets = targets
        self.domain = domain
        self.diffusion = Schedule()
        averaged = ["denoiser", "conditioner"] if config.ema_conditioner else ["denoiser"]
        self.averages = {part: EMA(network.get_submodule(part), config.ema_decay) for part in averaged}
        self._validation = ExitStack()
        self._encoded_static: Tensor | None = None
        self._errors: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        for part, average in self.averages.items():
            average.update(self.model.get_submodule(part))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        number = self.batch_number(batch_idx)
        z0, coarse, static = self._cut(batch["latent"], batch["coarse"], number)
        generator = keyed_generator(self.config.seed, number)
        t = self._times(len(z0), generator).to(z0.device)
        noise = torch.randn(z0.shape, generator=generator).to(z0)
        return self.checked(self._denoised(z0, noise, t, self.model.condition(coarse, static)).losses.mean())

    def _cut(self, latent: Tensor, coarse: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Windows of latents, predictors and statics, at places that follow from seed and batch number."""
        crop = self.config.crop
        if crop is None:
            return latent, coarse, self.static
        ratio = self.model.latent_ratio
        cells, (height, width) = crop // ratio, latent.shape[-2:]
        count = 1 if self.config.shared_window else len(latent)
        corners = [
            window(height, width, cells, (self.config.seed, number, sample)) for sample in range(count)
        ]
        every = corners if count > 1 else corners * len(latent)
        return (
            _windows(latent, every, cells),
            _windows(coarse, every, cells),
            _windows(
                self.static.expand(count, -1, -1, -1),
                [(ratio * row, ratio * column) for row, column in corners],
                crop,
            ),
        )

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        """Time steps of a batch (count,)."""
        share = torch.rand(count, generator=generator)
        if self.config.times == "stratified":
            share = (share + torch.arange(count)) / count
        return (share * self.diffusion.steps).long().clamp(max=self.diffusion.steps - 1)

    def _denoised(self, z0: Tensor, noise: Tensor, t: Tensor, context: tuple[Tensor, ...]) -> Denoising:
        return diffusion_loss(
            lambda z, at: self.model.denoise(z, at, context),
            z0,
            noise,
            t,
            self.diffusion,
            parameterization=self.config.parameterization,
            norm=self.config.norm,
        )

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self._errors = []
        for part, average in self.averages.items():
            self._validation.enter_context(average.applied(self.model.get_submodule(part)))
        self._encoded_static = self.model.conditioner.encode_static(self.static)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        latent, coarse = batch["latent"], batch["coarse"]
        context = self.model.condition(coarse, self.static, encoded_static=self._encoded_static)
        for position, z0 in zip(batch["position"].tolist(), latent.split(1), strict=True):
            for place in range(self.config.validation_times):
                # Equally spaced for each hour, shifted from hour to hour, so that together they are dense.
                share = (place + position * GOLDEN % 1) / self.config.validation_times
                t = torch.tensor([int(share * self.diffusion.steps)], device=z0.device)
                noise = member_noise(
                    z0.shape[1:], seed=self.config.seed, hour=self.hours[position], member=place
                )
                losses = self._denoised(z0, noise[None].to(z0), t, context).losses
                self._errors.append(losses)

    def validation_scores(self) -> dict[str, float]:
        scores = {"validation_loss": float(torch.cat(self._errors).double().mean())}
        every = self.config.sample_every
        rounds = len(self.history) + 1
        last = self.steps_done >= self.config.steps
        if self.sampled is not None and every is not None and (rounds % every == 0 or last):
            scores |= self.sample_scores(self.sampled)
        return scores

    def on_validation_end(self) -> None:
        self._validation.close()
        self._encoded_static = None

    @torch.no_grad()
    def sample_scores(self, sampled: SampledHours) -> dict[str, float]:
        """Scores of one member of some hours, made with the weights as they are, and of the UNet's mean."""
        model, steps = self.model, self.config.sample_steps
        encoded = model.conditioner.encode_static(self.static)
        members = []
        for hour, coarse in zip(sampled.hours, sampled.coarse.split(1), strict=True):
            coarse = coarse.to(self.static)
            context = model.condition(coarse, self.static, encoded_static=encoded)
            noise = member_noise(model.latent_shape(self.static), seed=self.config.seed, hour=hour, member=0)
            *_, end = SAMPLERS["dpmpp_2m"](
                lambda z, t, context=context: model.denoise(z, t, context),
                noise[None].to(coarse),
                self.diffusion,
                steps=steps,
                eta=0.0,
                timesteps=SPACING,
                noise=None,
                parameterization=self.config.parameterization,
            )
            members.append(model.decode(end.z).float().cpu())
        fields = {"sample": sampled.mean + torch.cat(members), "mean": sampled.mean}
        return {
            f"{name}_{score}": value
            for name, field in fields.items()
            for score, value in field_scores(
                field, sampled.truth, self.normalization, self.targets, self.domain
            ).items()
        }

    def extra_state(self) -> dict[str, Any]:
        return {part: average.state_dict() for part, average in self.averages.items()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        for part, average in self.averages.items():
            average.load_state_dict(state[part])


def _windows(fields: Tensor, corners: list[tuple[int, int]], side: int) -> Tensor:
    return torch.stack(
        [
            field[:, row : row + side, column : column + side]
            for field, (row, column) in zip(fields, corners, strict=True)
        ]
    )


def network_config(config: LDMTrainConfig, parent: Checkpoint) -> LatentDiffusionConfig:
    """The sizes of the whole model, from the config and the VAE's file.

    Raises TrainError where they do not fit together.
    """
    models = parent.header.models
    vae = VAEConfig.model_validate(models["vae"])
    try:
        conditioner = ConditionerConfig(
            coarse_channels=len(parent.header.predictors),
            static_channels=STATIC_CHANNELS,
            static_features=config.static_features,
            static_latent_channels=config.static_latent_channels,
            static_embedding=config.static_embedding,
            coarse_embedding=config.coarse_embedding,
            static_depth=config.analysis_depth,
            coarse_depth=config.analysis_depth,
            width=config.context_width,
            levels=len(config.multipliers),
        )
        return LatentDiffusionConfig(
            unet=UNetConfig.model_validate(models["unet"]),
            vae=vae,
            conditioner=conditioner,
            denoiser=DenoiserConfig(
                in_channels=vae.latent_channels,
                out_channels=vae.latent_channels,
                width=config.width,
                multipliers=config.multipliers,
                residual_blocks=config.residual_blocks,
                attention_levels=max(1, len(config.multipliers) - 1),
                context_channels=conditioner.context_channels,
            ),
            parameterization=config.parameterization,
        )
    except ValidationError as error:
        faults = " ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())
        raise TrainError(
            f"This config and {parent.path} make no model that fits together. {faults}"
        ) from error


def build_network(config: LDMTrainConfig, parent: Checkpoint) -> LatentDiffusion:
    """The model with the parent's UNet and VAE, and new conditioner and denoiser."""
    sizes = network_config(config, parent)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            network = LatentDiffusion(sizes)
        except ValueError as error:
            raise TrainError(f"This config makes no model: {error}") from error
    for part in ("unet", "vae"):
        parent.restore(part, network.get_submodule(part))
    for part in PARTS:
        if part != "denoiser":
            network.get_submodule(part).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def train_ldm(
    config: LDMTrainConfig,
    store_path: str | Path,
    vae: str | Path,
    out_dir: str | Path,
    *,
    resume: bool = True,
    progress: Report | None = None,
) -> Path:
    """Train latent diffusion and write the whole model as a checkpoint file of kind ``"ldm_res"``.

    Parameters
    ----------
    store_path : store with all predictors, the VAE's targets as fine truth, and statics
    vae : checkpoint of a VAE, which holds its UNet, for the same domain
    out_dir, resume, progress : as in :func:`train.unet.train_unet`

    Returns
    -------
    ``out_dir / "<name>.safetensors"``: UNet and VAE as they were, conditioner and averaged denoiser of the
    round with the smallest validation loss.

    Raises
    ------
    TrainError, SampleError, StoreError, CheckpointError
        as in :func:`train.unet.train_unet`, and where the VAE does not fit the store or the config.
    """
    report: Report = progress or (lambda status: None)
    store = Store.open(store_path)
    parent = load_parent(vae, ("vae",), store, config)
    targets, normalization = parent.header.targets, parent.header.normalization
    network = build_network(config, parent)
    parts = usable_hours(config, store, targets, network.side_multiple, "this model")
    height, width = store.domain.fine.shape
    if config.crop is not None and config.crop > min(height, width):
        raise TrainError(
            f"Crops of {config.crop} fine pixels don't fit into the domain of {height} x {width}; choose a "
            f"multiple of {network.side_multiple} up to {min(height, width)}."
        )
    train = draw(parts.train, config.train_hours, config.seed)
    validation = draw(parts.validation, config.validation_hours, config.seed)
    data = {**data_identity(store, train, validation), "vae": parent.file_hash}
    run = StageRun.find(config, data, out_dir, resume=resume)
    if run.done:
        return run.result
    run.begin(normalization)
    means = Means(network.unet, store, normalization, targets, run.torch_device)
    network.vae.to(run.torch_device)
    with torch_threads(config.threads):
        encoded = [
            encode_hours(run.cache, name, hours, means, network.vae, _telling(report, what))
            for name, what, hours in (
                ("train", "training", train),
                ("validation", "validation", validation),
            )
        ]
        sampled = _sampled_hours(means, draw(validation, config.sample_hours, config.seed))

    static = means.static.cpu()
    task = LDMTask(config, network, static, validation, sampled, normalization, targets, store.domain)
    train_set, validation_set = (LatentDataset(hours) for hours in encoded)
    run.fit(task, loaders(config, train_set, validation_set, run.where), report)

    state = run.best()
    weights = {k.removeprefix(PREFIX): w for k, w in state["state_dict"].items()}
    for part, average in state["run"]["extra"].items():
        weights |= {f"{part}.{name}": w for name, w in average["average"].items()}
    network.load_state_dict(weights)
    network.to(run.torch_device)
    task.to(run.torch_device)
    with torch_threads(config.threads):
        scores = task.eval().sample_scores(sampled)
    provenance = {
        **run.provenance(store, parts, train, validation, {"vae": parent}),
        "sampled_hours": [np.datetime_as_string(hour, unit="h") for hour in sampled.hours],
        "sampled_scores": scores,
    }
    models = {part: getattr(network.config, part) for part in PARTS}
    header = make_header("ldm_res", config, store, targets, normalization, models, provenance)
    path = run.save(header, weights)
    shutil.rmtree(run.cache, ignore_errors=True)
    return path


def _telling(report: Report, what: str) -> Progress:
    return lambda done, total: report(Status(f"Latents of {what} hours", done, total, "hours"))


def _sampled_hours(means: Means, hours: Hours) -> SampledHours:
    found = [tuple(tensor.cpu() for tensor in tensors) for tensors in means.hours(hours)]
    coarse, truth, mean = (torch.cat(tensors).clone() for tensors in zip(*found, strict=True))
    return SampledHours(hours, coarse, truth, mean)
