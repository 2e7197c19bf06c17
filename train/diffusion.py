"""What all training of latent diffusion shares: the Lightning module and the run around it.

Tomasi, Franch and Cristoforetti, arXiv 2406.13627, section 3: the denoiser predicts v of noisy latents, told
of the hour by the conditioner; what samples is the moving average of the denoiser's weights. Physical terms
(:mod:`train.physics`) may stand beside that loss.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.checkpoint import Checkpoint
from core.data.pairs import store_pairs
from core.data.samples import Hours, Normalization, Progress
from core.data.store import Store
from core.diffusion.ema import EMA
from core.diffusion.losses import Denoising, diffusion_loss
from core.diffusion.noise import member_noise
from core.diffusion.samplers import SAMPLERS
from core.diffusion.schedule import Schedule
from core.domain import Domain
from core.downscale.devices import torch_threads
from core.models.latent_diffusion import PARTS, LatentDiffusion
from core.models.vae import VAE
from train.config import FLUX_ERROR, DiffusionConfig
from train.data import data_identity, draw, loaders, usable_hours
from train.latents import EncodedHours, LatentDataset, encode_hours, shared_hours
from train.physics import (
    HOURS_TO_FIT,
    Balance,
    Fields,
    PhysicsTerms,
    fitted_smoothing,
    gradient_norm,
)
from train.progress import Report, Status
from train.residuals import Means, WholeHours, window
from train.run import StageRun, make_header
from train.run_folder import TrainError
from train.scene import from_mean
from train.scores import field_scores
from train.task import StageTask, keyed_generator

SPACING = "logsnr"
"""Where the steps of the sampler lie in validation, as in use."""

GOLDEN = (5**0.5 - 1) / 2
PREFIX = "model."


class DiffusionTask(StageTask):
    """Conditioner and denoiser with their loss, optimiser, averages and scores; UNet and VAE stand still.

    ``validation_loss`` is the diffusion loss of whole hours at fixed noise and fixed time steps, with the
    averaged weights. In some rounds hours are sampled: ``sample_rmse_<target>`` is the error of one member in
    the target's units (``mean_rmse_<target>`` that of the UNet for the same hours), ``sample_slope_<target>``
    and ``mean_slope_<target>`` the spectral-slope losses.

    Parameters
    ----------
    network : with the weights of all parts that do not learn
    static : standardised statics of the whole domain (1, 18, H, W)
    hours : of validation, by their position in the data set
    sampled : hours to sample in some rounds
    physics : terms beside the diffusion loss; None for none
    """

    config: DiffusionConfig

    def __init__(
        self,
        config: DiffusionConfig,
        network: LatentDiffusion,
        static: Tensor,
        hours: Hours,
        sampled: WholeHours | None,
        normalization: Normalization,
        targets: tuple[str, ...],
        domain: Domain,
        physics: PhysicsTerms | None = None,
    ) -> None:
        super().__init__(config)
        self.model = network
        choose_trainable(network, config.trainable)
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
        self.physics = physics
        self.balance = None if config.physics is None else Balance(config.physics)
        self._physical_losses: dict[str, list[float]] = {}
        # The decoder has a gradient only in steps that look at physical terms.
        self.loss_varies = any(name.startswith("vae.") for name in config.trainable)
        # They do not change, and sending them to other processes at every step would take long.
        self._ddp_params_and_buffers_to_ignore = ["static", "rotation"]
        self.register_buffer("rotation", None, persistent=False)
        self.rotation: Tensor | None
        if config.physics is not None and config.physics.divergence is not None:
            self.rotation = torch.from_numpy(domain.fine.rotation).to(static)[None, None]
        self._validation = ExitStack()
        self._encoded_static: Tensor | None = None
        self._errors: list[Tensor] = []

    @property
    def best(self) -> dict[str, float] | None:
        if self.config.keep == "last":
            return self.history[-1] if self.history else None
        return super().best

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
        numbers = self.sample_numbers(batch_idx, len(batch["latent"]))
        cut = self._cut(batch, numbers)
        z0 = cut["latent"]
        t, noise = (draw.to(z0.device) for draw in self._draws(numbers, z0.shape[1:]))
        made = self._denoised(z0, noise, t, self.model.condition(cut["coarse"], cut["static"]))
        loss = made.losses.mean()
        if self.physics is not None and self.steps_done % self.physics.config.every == 0:
            loss = self._with_physics(loss, made, t, cut)
        if not loss.requires_grad:
            # The denoiser does not learn and no term was due: a step of the optimiser all the same.
            loss = loss + 0.0 * sum(p.sum() for p in self.parameters() if p.requires_grad)
        return self.checked(loss)

    def _with_physics(self, loss: Tensor, made: Denoising, t: Tensor, cut: Mapping[str, Tensor]) -> Tensor:
        """The diffusion loss plus the physical terms of the samples that are clean enough."""
        physics, balance = self.physics, self.balance
        assert physics is not None
        assert balance is not None
        largest = physics.config.largest_time
        chosen = torch.nonzero(t <= (self.diffusion.steps if largest is None else largest))[:, 0]
        if not int(self.total(torch.tensor(len(chosen), device=t.device))):
            return loss
        means = self._physical_means(made, t, chosen, cut) if len(chosen) else {}
        names = list(balance.terms)
        norms = [gradient_norm(term, made.output) for term in (loss, *(means.get(name) for name in names))]
        values = [float(means[name].detach()) if name in means else 0.0 for name in names]
        # Of the mean over all processes, each of which has its own samples.
        squares = torch.tensor([norm**2 for norm in norms], device=t.device)
        whole = (self.total(squares).sqrt() / self.processes).tolist()
        balance.measure(dict(zip(("diffusion", *names), whole, strict=True)))
        found = (self.total(torch.tensor(values, device=t.device)) / self.processes).tolist()
        for name, value in zip(names, found, strict=True):
            self._physical_losses.setdefault(name, []).append(value)
        for name, mean in means.items():
            loss = loss + balance.weight(name) * mean
        return loss

    def _physical_means(
        self, made: Denoising, t: Tensor, chosen: Tensor, cut: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Every term of the ``chosen`` samples, divided by the number of all."""
        physics = self.physics
        assert physics is not None
        parameterization = self.model.config.parameterization
        # Differences of neighbouring temperatures need more digits than half precision has.
        with torch.autocast(t.device.type, enabled=False):
            output = made.output[chosen].float()
            z0_hat = self.diffusion.to_z0(output, made.z[chosen].float(), t[chosen], parameterization)
            asked = {
                "output": self.model.decode(output) if physics.needs_output else None,
                "reconstructed": self.model.decode(cut["latent"][chosen])
                if physics.config.reconstruction is not None
                else None,
                "rotation": cut["rotation"][chosen, 0] if "rotation" in cut else None,
            }
            terms = physics.losses(
                Fields(
                    decoded=self.model.decode(z0_hat),
                    mean=cut["mean"][chosen],
                    truth=cut["truth"][chosen],
                    coarse=cut["coarse"][chosen],
                    **asked,
                )
            )
            if physics.config.noise_weighting == "signal":
                signal = torch.from_numpy(self.diffusion.alpha_bar.copy()).to(z0_hat)[t[chosen]]
                terms = {
                    name: losses if name == "reconstruction" else signal * losses
                    for name, losses in terms.items()
                }
            return {name: losses.sum() / len(t) for name, losses in terms.items()}

    def _cut(self, batch: Mapping[str, Tensor], numbers: range) -> dict[str, Tensor]:
        """Windows of all fields of a batch, at places that follow from the seed and the samples' numbers.

        The statics are (1, 18, H, W) where all samples share a window.
        """
        crop = self.config.crop
        fields = {name: field for name, field in batch.items() if name != "position"}
        count = len(fields["latent"])
        if self.rotation is not None:
            fields["rotation"] = self.rotation.expand(count, -1, -1, -1)
        if crop is None:
            return {**fields, "static": self.static}
        ratio = self.model.latent_ratio
        cells, (height, width) = crop // ratio, fields["latent"].shape[-2:]
        shared = self.config.shared_window
        different = 1 if shared else count
        keys = [numbers[0] // self.config.batch] if shared else list(numbers)
        corners = [window(height, width, cells, (self.config.seed, key)) for key in keys]
        fine = [(ratio * row, ratio * column) for row, column in corners]
        cut = {"static": _windows(self.static.expand(different, -1, -1, -1), fine, crop)}
        for name, field in fields.items():
            coarse = name in ("latent", "coarse")
            places = (corners if coarse else fine) * (count // different)
            cut[name] = _windows(field, places, cells if coarse else crop)
        return cut

    def _draws(self, numbers: range, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Time steps (N,) and noise (N, ...) of the samples with these numbers."""
        batch = self.config.batch
        generators = [keyed_generator(self.config.seed, number) for number in numbers]
        share = torch.cat([torch.rand(1, generator=generator) for generator in generators])
        if self.config.times == "stratified":
            share = (share + torch.tensor([number % batch for number in numbers])) / batch
        t = (share * self.diffusion.steps).long().clamp(max=self.diffusion.steps - 1)
        return t, torch.stack([torch.randn(shape, generator=generator) for generator in generators])

    def _denoised(self, z0: Tensor, noise: Tensor, t: Tensor, context: tuple[Tensor, ...]) -> Denoising:
        return diffusion_loss(
            lambda z, at: self.model.denoise(z, at, context),
            z0,
            noise,
            t,
            self.diffusion,
            parameterization=self.model.config.parameterization,
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
        scores |= {
            f"physics_{name}": sum(losses) / len(losses) for name, losses in self._physical_losses.items()
        }
        self._physical_losses = {}
        if self.balance is not None:
            scores |= self.balance.scores()
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
    def sample_scores(self, sampled: WholeHours) -> dict[str, float]:
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
                parameterization=self.model.config.parameterization,
            )
            members.append(model.decode(end.z).float().cpu())
        fields = {"sample": sampled.mean + torch.cat(members), "mean": sampled.mean}
        if self.config.pictures:
            self.scene = from_mean(
                sampled.hours[0],
                sampled.mean,
                sampled.truth,
                fields["sample"],
                "Sample",
                self.normalization,
                self.targets,
            )
        return {
            f"{name}_{score}": value
            for name, field in fields.items()
            for score, value in field_scores(
                field, sampled.truth, self.normalization, self.targets, self.domain
            ).items()
        }

    def extra_state(self) -> dict[str, Any]:
        return {
            "averages": {part: average.state_dict() for part, average in self.averages.items()},
            "norms": {} if self.balance is None else dict(self.balance.norms),
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        for part, average in self.averages.items():
            average.load_state_dict(state["averages"][part])
        if self.balance is not None:
            self.balance.norms = dict(state["norms"])


def _windows(fields: Tensor, corners: list[tuple[int, int]], side: int) -> Tensor:
    return torch.stack(
        [
            field[:, row : row + side, column : column + side]
            for field, (row, column) in zip(fields, corners, strict=True)
        ]
    )


def choose_trainable(network: LatentDiffusion, names: tuple[str, ...]) -> None:
    """Let only the named parts learn, and of them what could before.

    Raises TrainError for a name of no part, or of one on which the latents depend.
    """
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    network.requires_grad_(False)
    for name in names:
        try:
            part = network.get_submodule(name)
        except AttributeError as error:
            near = get_close_matches(name, [n for n, _ in network.named_modules() if n.count(".") < 2], n=1)
            advice = (
                f"did you mean {near[0]}?" if near else f"known are {', '.join(PARTS)} and parts of them."
            )
            raise TrainError(f"trainable names {name}, which is no part of the network; {advice}") from error
        if name.partition(".")[0] == "unet" or name.startswith("vae.encoder") or name == "vae":
            raise TrainError(
                f"trainable names {name}, but latents are encoded once, before training, from what the UNet "
                "leaves; of the VAE only vae.decoder and vae.to_decoder can learn here."
            )
        for inner, parameter in part.named_parameters():
            parameter.requires_grad_(f"{name}.{inner}" in learning)


def arrange(network: LatentDiffusion) -> LatentDiffusion:
    """The network in the memory layout that is fastest on a CPU."""
    for part in PARTS:
        if part != "denoiser":
            network.get_submodule(part).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def train_diffusion(
    config: DiffusionConfig,
    store: Store,
    parents: Mapping[str, Checkpoint],
    network: LatentDiffusion,
    kind: str,
    out_dir: str | Path,
    *,
    resume: bool,
    progress: Report | None,
) -> Path:
    """Train ``network``, whose frozen parts have their weights, and write it as a file of ``kind``.

    ``parents`` is the file that it comes from, by its name in the provenance. For the rest see
    :func:`train.ldm.train_ldm`.
    """
    report: Report = progress or (lambda status: None)
    header = next(iter(parents.values())).header
    targets, normalization = header.targets, header.normalization
    parts = usable_hours(config, store, targets, network.side_multiple, "this model")
    windows = _window_shape(config, store, network)
    train = draw(parts.train, config.train_hours, config.seed)
    validation = draw(parts.validation, config.validation_hours, config.seed)
    files = {name: parent.file_hash for name, parent in parents.items()}
    run = StageRun.find(config, {**data_identity(store, train, validation), **files}, out_dir, resume=resume)
    if run.done:
        return run.result
    physics = None
    if config.physics is not None:
        _check_shares(config)
        PhysicsTerms(config.physics, normalization, targets, store.domain, windows)
        smoothing = _smoothing(config, store, train)
        physics = PhysicsTerms(config.physics, normalization, targets, store.domain, windows, smoothing)
    means = Means(network.unet, store, normalization, targets, run.torch_device)
    network.vae.to(run.torch_device)
    sampled = means.whole(draw(validation, config.sample_hours, config.seed))
    # Its own random draws and errors about sizes come before anything is written.
    task = DiffusionTask(
        config,
        network,
        means.static.cpu(),
        validation,
        sampled,
        normalization,
        targets,
        store.domain,
        physics,
    )
    run.begin(normalization)
    with torch_threads(config.threads):
        train_set, validation_set = (
            LatentDataset(_encode(run, means, network.vae, name, hours, fine, report))
            for name, hours, fine in (
                ("train", train, physics is not None),
                ("validation", validation, False),
            )
        )
    run.fit(task, loaders(config, train_set, validation_set, run.where), report)

    state = run.best()
    weights = {k.removeprefix(PREFIX): w for k, w in state["state_dict"].items()}
    for part, average in state["run"]["extra"]["averages"].items():
        weights |= {f"{part}.{name}": w for name, w in average["average"].items()}
    network.load_state_dict(weights)
    task.to(run.torch_device)
    with torch_threads(config.threads):
        scores = task.eval().sample_scores(sampled)
    provenance = {
        **run.provenance(state, store, parts, train, validation, parents),
        "sampled_hours": [np.datetime_as_string(hour, unit="h") for hour in sampled.hours],
        "sampled_scores": scores,
    }
    if physics is not None:
        said = state["run"]["history"][-1]
        provenance["physics"] = {
            name: value
            for name, value in said.items()
            if name.startswith(("physics_", "gradient_", "lambda_"))
        } | {"smoothing": physics.smoothing}
    models = {part: getattr(network.config, part) for part in PARTS}
    # As the normalisation: the parent's, since most of what this model is was learned there.
    ranges = header.description.ranges
    result = make_header(kind, config, store, targets, normalization, models, provenance, ranges)
    path = run.save(result, weights)
    shutil.rmtree(run.cache, ignore_errors=True)
    return path


def _window_shape(config: DiffusionConfig, store: Store, network: LatentDiffusion) -> tuple[int, int]:
    """Sides of the training windows [fine pixels]. Raises TrainError where they do not fit."""
    height, width = store.domain.fine.shape
    crop, multiple = config.crop, network.side_multiple
    if crop is None:
        return height, width
    if crop > min(height, width) or crop % multiple:
        raise TrainError(
            f"Crops of {crop} fine pixels don't fit this model on a domain of {height} x {width}; choose a "
            f"multiple of {multiple} up to {min(height, width)}."
        )
    return crop, crop


def _check_shares(config: DiffusionConfig) -> None:
    """Raise TrainError for shares of a gradient that is nowhere."""
    assert config.physics is not None
    shares = [name for name, term in config.physics.terms.items() if term.share is not None]
    if shares and all(part.startswith("vae.") for part in config.trainable):
        raise TrainError(
            f"With trainable: {', '.join(config.trainable)} the diffusion loss has no gradient of which "
            f"{', '.join(shares)} could have a share; give physics.{shares[0]}.weight instead."
        )
    if "reconstruction" in shares:
        raise TrainError(
            "The reconstruction does not depend on the denoiser, so it can't have a share of its gradient; "
            "give physics.reconstruction.weight."
        )


def _smoothing(config: DiffusionConfig, store: Store, train: Hours) -> float:
    """How much smoother than an average the coarse field is, where a term needs to know."""
    flux = None if config.physics is None else config.physics.flux
    if flux is None or flux.formula != FLUX_ERROR or flux.reference != "coarse":
        return 0.0
    if flux.smoothing != "fit":
        return flux.smoothing
    return fitted_smoothing(store_pairs(store, draw(train, HOURS_TO_FIT, config.seed)), store.domain)


def _encode(
    run: StageRun, means: Means, vae: VAE, part: str, hours: Hours, fine: bool, report: Report
) -> EncodedHours:
    """Latents of a ``part`` of the split, from the run's own folder or from the one that is shared."""
    what = {"train": "training"}.get(part, part)

    def telling(stage: str) -> Progress:
        return lambda done, total: report(Status(stage, done, total, "hours"))

    assert isinstance(run.config, DiffusionConfig)
    shared, progress = run.config.latents, telling(f"Latents of {what} hours")
    if shared is None:
        return encode_hours(run.cache, part, hours, means, vae, progress, fine=fine)
    waiting = telling(f"Waiting for another run that encodes {what} hours")
    return shared_hours(shared, hours, means, vae, progress, waiting, fine=fine)
