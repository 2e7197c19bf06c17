"""Training the UNet: mean squared error of standardised targets (Tomasi et al., arXiv 2406.13627)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.data.samples import Normalization
from core.data.store import Store
from core.models.unet import UNet, UNetConfig
from core.variables import STATIC_CHANNELS
from train.config import UNetTrainConfig
from train.data import data_identity, draw, hour_datasets, loaders, usable_hours
from train.progress import Report
from train.run import StageRun, make_header
from train.scene import from_coarse
from train.task import StageTask


class UNetTask(StageTask):
    """The UNet with its loss, optimiser and scores.

    The validation loss is the mean squared error, standardised; ``rmse_<target>`` is in the target's units.
    ``pictured`` is the first hour of validation where it is to be shown after every round.
    """

    config: UNetTrainConfig

    def __init__(
        self, config: UNetTrainConfig, normalization: Normalization, pictured: np.datetime64 | None = None
    ) -> None:
        super().__init__(config)
        self.normalization = normalization
        self.pictured = pictured
        self.model_config = UNetConfig(
            in_channels=len(normalization.predictors) + STATIC_CHANNELS,
            out_channels=len(config.targets),
            features=config.features,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.unet = UNet(self.model_config)
        for module in self.unet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = config.batchnorm_momentum
        # Measured 1.1 to 1.6 times faster on CPU.
        self.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._squares: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.unet.parameters(), lr=self.config.learning_rate)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        fix_statistics(self.unet, self.config.batchnorm_steps, self.steps_done)
        super().on_train_batch_start(batch, batch_idx)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.checked(
            nn.functional.mse_loss(self.unet(batch["coarse"], batch["static"]), batch["target"])
        )

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self._squares = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        field = self.unet(batch["coarse"], batch["static"])
        error = field - batch["target"]
        self._squares.append(error.square().mean(dim=(2, 3)))
        if batch_idx == 0 and self.pictured is not None:
            self.scene = from_coarse(
                self.pictured,
                batch["coarse"],
                batch["target"],
                field,
                "UNet",
                self.normalization,
                self.config.targets,
            )

    def validation_scores(self) -> dict[str, float]:
        squares = torch.cat(self._squares).double().cpu().mean(dim=0)
        scores = {"validation_loss": float(squares.mean())}
        for name, square in zip(self.config.targets, squares.tolist(), strict=True):
            scores[f"rmse_{name}"] = square**0.5 * self.normalization.targets[name].std
        return scores


def fix_statistics(network: nn.Module, after: int | None, step: int) -> None:
    """From step ``after`` on, normalise as the finished model will.

    The mean over a small batch takes the temperature level of its hours away, and no later layer can bring it
    back: with batch statistics to the end, a few hours a step leave errors of kelvins.
    """
    if after is None or step < after:
        return
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def train_unet(
    config: UNetTrainConfig,
    store_path: str | Path,
    out_dir: str | Path,
    *,
    resume: bool = True,
    progress: Report | None = None,
) -> Path:
    """Train a UNet on the hours of a store and write the best one as a checkpoint file.

    Parameters
    ----------
    store_path : store with all predictors, the targets of the config as fine truth, and statics
    out_dir : folder of the run. A run that was stopped there goes on from its last complete round with
        the same result as if it had never been stopped (on the same machine and threads); a finished one
        is not repeated.
    resume : False removes a run that is there and starts over
    progress : called with a :class:`train.progress.Status` again and again

    Returns
    -------
    ``out_dir / "<name>.safetensors"``: the weights with the smallest validation loss, on hours that were
    never trained on, with everything needed to run them and their provenance.

    Raises
    ------
    TrainError, SampleError, StoreError
        where the data lacks something, the folder holds another run, the device is absent, or the loss
        diverges. Nothing is written before the data was read once and found complete.
    """
    report: Report = progress or (lambda status: None)
    store = Store.open(store_path)
    depth = len(config.features)
    parts = usable_hours(config, store, config.targets, 1 << depth, f"a UNet with {depth} features")
    validation = draw(parts.validation, config.validation_hours, config.seed)
    train = draw(parts.train, config.train_hours, config.seed)
    run = StageRun.find(config, data_identity(store, train, validation), out_dir, resume=resume)
    if run.done:
        return run.result
    normalization, ranges = run.statistics(store, train, config.targets, report)
    datasets = hour_datasets(config, store, train, validation, normalization, config.targets, report)
    run.begin(normalization, ranges)

    task = UNetTask(config, normalization, validation[0] if config.pictures else None)
    run.fit(task, loaders(config, *datasets, run.where), report)
    best = run.best()
    provenance = run.provenance(best, store, parts, train, validation, {})
    models = {"unet": task.model_config}
    header = make_header("unet", config, store, config.targets, normalization, models, provenance, ranges)
    return run.save(header, best["state_dict"])
