"""Training the GAN: the UNet against a discriminator of patches (Tomasi et al., arXiv 2406.13627).

The generator minimises the absolute error, and after some steps also what the discriminator makes of it, with
a weight that balances the gradients of the two (:mod:`core.models.patch_gan`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.checkpoint import Checkpoint
from core.data.samples import Normalization
from core.data.store import Store
from core.domain import Domain
from core.models.patch_gan import PatchGAN, PatchGANConfig, discriminator_loss, generator_loss
from core.models.unet import UNet, UNetConfig
from core.variables import STATIC_CHANNELS
from train.config import GANTrainConfig
from train.data import data_identity, draw, hour_datasets, loaders, usable_hours
from train.progress import Report
from train.run import StageRun, load_parent, make_header
from train.run_folder import TrainError
from train.scene import from_coarse
from train.scores import field_scores
from train.task import StageTask
from train.unet import fix_statistics


class GANTask(StageTask):
    """Generator and discriminator with their losses, optimisers and scores.

    The validation loss is the mean absolute error, standardised; ``rmse_<target>`` is in the target's units,
    ``slope_<target>`` the spectral-slope loss. ``pictured`` is as for the UNet.
    """

    config: GANTrainConfig
    loss_varies = True

    def __init__(
        self,
        config: GANTrainConfig,
        normalization: Normalization,
        domain: Domain,
        start: Checkpoint | None,
        pictured: np.datetime64 | None = None,
    ) -> None:
        super().__init__(config)
        self.automatic_optimization = False
        self.normalization = normalization
        self.domain = domain
        self.pictured = pictured
        self.model_config = UNetConfig(
            in_channels=len(normalization.predictors) + STATIC_CHANNELS,
            out_channels=len(config.targets),
            features=config.features,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.unet = UNet(self.model_config)
            self.discriminator = PatchGAN(
                PatchGANConfig(in_channels=len(config.targets), features=config.discriminator_features)
            )
        if start is not None:
            start.restore("unet", self.unet)
        for module in self.unet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = config.batchnorm_momentum
        for network in (self.unet, self.discriminator):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._scores: list[dict[str, float]] = []

    @property
    def best(self) -> dict[str, float] | None:
        if self.config.keep == "last":
            return self.history[-1] if self.history else None
        return super().best

    @property
    def steps_done(self) -> int:
        # Lightning counts both optimisers, and the discriminator's steps begin later.
        start = self.config.adversarial_start
        return int(min(self.global_step, start) + max(0, self.global_step - start) // 2)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        config = self.config
        return [
            torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=config.betas)
            for network in (self.unet, self.discriminator)
        ]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        fix_statistics(self.unet, self.config.batchnorm_steps, self.steps_done)
        super().on_train_batch_start(batch, batch_idx)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        step, config = self.steps_done, self.config
        generator, discriminator = self.optimizers()
        target = batch["target"]
        prediction = self.unet(batch["coarse"], batch["static"])
        if step < config.adversarial_start:
            loss = (target - prediction).abs().mean()
        else:
            self.toggle_optimizer(generator)
            loss = generator_loss(
                prediction,
                target,
                self.discriminator(prediction),
                self.unet.head.weight,
                step=step,
                start=config.adversarial_start,
                scale=config.adversarial_scale,
            ).total
        self.checked(loss)
        self._update(generator, loss, self.unet, batch_idx)
        if step >= config.adversarial_start:
            self.untoggle_optimizer(generator)
            self.toggle_optimizer(discriminator)
            judged = discriminator_loss(self.discriminator(target), self.discriminator(prediction.detach()))
            self._update(discriminator, judged, self.discriminator, batch_idx)
            self.untoggle_optimizer(discriminator)
        return loss.detach()

    def _update(self, optimizer: Any, loss: Tensor, network: nn.Module, batch_idx: int) -> None:
        accumulate = self.config.accumulate
        if batch_idx % accumulate == 0:
            optimizer.zero_grad()
        self.manual_backward(loss / accumulate)
        if (batch_idx + 1) % accumulate:
            return
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.config.gradient_clip)
        optimizer.step()

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self._scores = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        field, truth = self.unet(batch["coarse"], batch["static"]), batch["target"]
        scores = field_scores(field, truth, self.normalization, self.config.targets, self.domain)
        self._scores.append({"validation_loss": float((field - truth).abs().double().mean()), **scores})
        if batch_idx == 0 and self.pictured is not None:
            self.scene = from_coarse(
                self.pictured,
                batch["coarse"],
                truth,
                field,
                "GAN",
                self.normalization,
                self.config.targets,
            )

    def validation_scores(self) -> dict[str, float]:
        count = len(self._scores)
        return {
            name: (sum(s[name] ** 2 for s in self._scores) / count) ** 0.5
            if name.startswith("rmse_")
            else sum(s[name] for s in self._scores) / count
            for name in self._scores[0]
        }


def train_gan(
    config: GANTrainConfig,
    store_path: str | Path,
    out_dir: str | Path,
    *,
    unet: str | Path | None = None,
    resume: bool = True,
    progress: Report | None = None,
) -> Path:
    """Train a GAN and write its generator as a checkpoint file of kind ``"gan"``.

    Parameters
    ----------
    store_path : store with all predictors, the targets of the config as fine truth, and statics
    unet : checkpoint of a UNet to start from, whose normalisation is taken over; None starts from nothing
    out_dir, resume, progress : as in :func:`train.unet.train_unet`

    Raises
    ------
    TrainError, SampleError, StoreError, CheckpointError
        as in :func:`train.unet.train_unet`, and where the UNet does not fit store or config.
    """
    report: Report = progress or (lambda status: None)
    store = Store.open(store_path)
    start = None if unet is None else load_parent(unet, ("unet",), store, config)
    if start is not None:
        _check_start(config, start)
    depth = len(config.features)
    parts = usable_hours(config, store, config.targets, 1 << depth, f"a UNet with {depth} features")
    train = draw(parts.train, config.train_hours, config.seed)
    validation = draw(parts.validation, config.validation_hours, config.seed)
    data = {**data_identity(store, train, validation), "unet": None if start is None else start.file_hash}
    run = StageRun.find(config, data, out_dir, resume=resume)
    if run.done:
        return run.result
    if start is not None:
        normalization, ranges = start.header.normalization, start.header.description.ranges
    else:
        normalization, ranges = run.statistics(store, train, config.targets, report)
    datasets = hour_datasets(config, store, train, validation, normalization, config.targets, report)
    run.begin(normalization, ranges)

    pictured = validation[0] if config.pictures else None
    task = GANTask(config, normalization, store.domain, start, pictured)
    run.fit(task, loaders(config, *datasets, run.where), report)
    best = run.best()
    parents = {} if start is None else {"unet": start}
    provenance = run.provenance(best, store, parts, train, validation, parents)
    models = {"unet": task.model_config}
    header = make_header("gan", config, store, config.targets, normalization, models, provenance, ranges)
    weights = {k: w for k, w in best["state_dict"].items() if k.startswith("unet.")}
    return run.save(header, weights)


def _check_start(config: GANTrainConfig, start: Checkpoint) -> None:
    features = tuple(start.header.models["unet"]["features"])
    if features != config.features or start.header.targets != config.targets:
        raise TrainError(
            f"{start.path} has a UNet with features {list(features)} for {', '.join(start.header.targets)}; "
            f"the config asks for {list(config.features)} for "
            f"{', '.join(config.targets)}. Make them the same."
        )
