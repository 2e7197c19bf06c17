"""A Lightning trainer that keeps the best and the last state, reports, resumes and stays quiet."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor
from torch.utils.data import DataLoader

from core.downscale.devices import torch_threads
from train.config import StageConfig
from train.memory import MemoryAdvice
from train.parallel import ShareSampler, environment_kept
from train.pictures import Pictures
from train.progress import Report, Status
from train.run_folder import BEST, LAST, LOGS, TrainError, replacing, writing
from train.task import StageTask

Batches = DataLoader[dict[str, Tensor]]


class StatesOnDisk(TorchCheckpointIO):
    """States that are whole at any time: a kill or a full disk leaves the one before.

    Lightning's own way writes to the system's folder for temporary files, and from there to another disk the
    step into place is a copy that can be cut short.
    """

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # Torch closes its archive after a failed write, and tells of that failing.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


class KeepBestAndLast(Checkpoint):
    """After every round: the weights if they are the best so far, then the state to continue from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, StageTask)
        last_round = pl_module.steps_done >= pl_module.config.steps
        pl_module.finished = trainer.should_stop or last_round
        if pl_module.history[-1] is pl_module.best:
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        trainer.save_checkpoint(self.folder / LAST)


class Reporter(Callback):
    """Sends a :class:`train.progress.Status` after every step and every validation hour."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._step_started = time.monotonic()
        self._loss: float | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._step_started = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(pl_module.latest_loss)
        self._loss = loss if self._loss is None else 0.9 * self._loss + 0.1 * loss
        pl_module.pace.add_step(pl_module.config.accumulate * (time.monotonic() - self._step_started))
        self._send(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        total = sum(trainer.num_val_batches)
        self.report(Status("Validation", batch_idx + 1, int(total), "hours"))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._send(pl_module)

    def _send(self, task: StageTask) -> None:
        config, best = task.config, task.best
        latest = task.history[-1] if task.history else {}
        left = config.steps - task.steps_done
        # The validation of the present round is behind us only if it was the latest thing done.
        validations = config.steps // config.validate_every - len(task.history)
        self.report(
            Status(
                "Training",
                task.steps_done,
                config.steps,
                "steps",
                train_loss=self._loss,
                validation_loss=latest.get("validation_loss"),
                best_loss=best["validation_loss"] if best else None,
                rmse={
                    name.removeprefix("rmse_"): value
                    for name, value in latest.items()
                    if name.startswith("rmse_")
                },
                seconds_left=task.pace.seconds_left(left, validations, task.time_left()),
            )
        )


def accelerator(device: str) -> str:
    """Lightning's word for a device of a config. Raises TrainError where torch finds none."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if (device == "cuda" and not cuda) or (device == "mps" and not mps):
        raise TrainError(
            f"The config asks for device {device}, and torch finds none here. Use device=cpu or device=auto."
        )
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    return device


def fit(task: StageTask, batches: tuple[Batches, Batches], folder: Path, where: str, report: Report) -> None:
    """Train until done, from the last complete round where there is one.

    ``batches`` are those of :func:`train.data.loaders`, to train on and to validate with; ``where`` is of
    :func:`accelerator`. Raises TrainError where memory or disk are too small.
    """
    config = task.config
    last = folder / LAST
    if last.exists():
        state = torch.load(last, weights_only=True, map_location="cpu", mmap=True)["run"]
        if state["finished"]:
            return
        # Worker processes fetch the first batches before Lightning tells the sampler the round.
        sampler = batches[0].sampler
        assert isinstance(sampler, ShareSampler)
        sampler.set_epoch(len(state["history"]))
    advice = MemoryAdvice()
    callbacks: list[Callback] = [Reporter(report), KeepBestAndLast(folder), advice]
    if config.pictures:
        callbacks.append(Pictures())
    if config.patience is not None:
        callbacks.append(EarlyStopping("validation_loss", patience=config.patience, mode="min"))
    with torch_threads(config.threads), _quiet_lightning(), writing(folder), environment_kept():
        trainer = Trainer(
            accelerator=where,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=_strategy(config, task),
            # Small batches are spread over processes, so their statistics must be those of all.
            sync_batchnorm=config.processes > 1 and where == "cuda",
            accumulate_grad_batches=config.accumulate if task.automatic_optimization else 1,
            plugins=[StatesOnDisk()],
            precision=config.precision,
            max_epochs=config.steps // config.validate_every,
            callbacks=callbacks,
            logger=_loggers(folder, config.tensorboard),
            log_every_n_steps=config.validate_every,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            # Lightning clips only where it calls the optimiser itself.
            gradient_clip_val=config.gradient_clip if task.automatic_optimization else None,
        )
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(task, *batches, ckpt_path=last if last.exists() else None, weights_only=True)
        except SystemExit as error:
            # Lightning turns Ctrl-C into an exit and goes on ignoring the signal; callers want the exception.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from error
        except (RuntimeError, MemoryError) as error:
            if advice.advice is None:
                raise
            raise TrainError(advice.advice) from error
        except ValueError as error:
            if (plain := _without_trace(error)) is None:
                raise
            raise plain from error


def _strategy(config: StageConfig, task: StageTask) -> Strategy | str:
    if config.processes == 1:
        return "auto"
    return DDPStrategy(
        find_unused_parameters=task.loss_varies,
        start_method="fork" if config.strategy == "ddp_fork" else "popen",
    )


def _without_trace(error: ValueError) -> ValueError | None:
    """An error of a process that reads data, as it was raised there: torch puts the whole trace into it."""
    text = str(error)
    if not text.startswith("Caught "):
        return None
    return type(error)(text.strip().splitlines()[-1].partition(": ")[2])


def _loggers(folder: Path, tensorboard: bool) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(folder, name=LOGS)]
    if tensorboard:
        try:
            loggers.append(TensorBoardLogger(folder, name=LOGS))
        except ModuleNotFoundError as error:
            raise TrainError(
                "tensorboard=true needs the package tensorboard; install it, or leave it off."
            ) from error
    return loggers


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """No advertisements and no advice that does not apply to data kept in memory."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            # Frozen parts are in evaluation mode on purpose.
            warnings.filterwarnings("ignore", message=".*module.s. in eval mode at the start of training.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
