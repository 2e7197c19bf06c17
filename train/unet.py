"""Training the UNet: mean squared error of standardised targets (Tomasi et al., arXiv 2406.13627)."""

from __future__ import annotations

import hashlib
import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core.checkpoint import Header, save
from core.data.samples import (
    HourDataset,
    Hours,
    Normalization,
    RoundSampler,
    Split,
    compute_normalization,
    split,
)
from core.data.store import Store
from core.models.unet import UNet, UNetConfig
from core.variables import PREDICTORS, STATIC_CHANNELS
from train.config import MACHINE_KEYS, UNetTrainConfig
from train.progress import Pace, Report, Status
from train.run_folder import BEST, LAST, LOGS, TrainError, begin_run, code_version, find_run
from train.schedule import learning_rate

STATICS_NEEDED = ("orography", "land_cover", "latitude")


class UNetTask(LightningModule):
    """The UNet with its loss, optimiser and scores. A Lightning epoch is a round of training.

    ``history`` has one entry per round: steps so far, seconds so far, mean loss of the round, learning
    rate, validation loss (mean squared error, standardised), and ``rmse_<target>`` in the target's units.
    """

    def __init__(self, config: UNetTrainConfig, normalization: Normalization) -> None:
        super().__init__()
        self.config = config
        self.normalization = normalization
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
        self.history: list[dict[str, float]] = []
        self.finished = False
        self.pace = Pace()
        self._losses: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._seconds_before = 0.0
        self._started = self._validation_started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of training and validation, over all starts of the run, without what a kill lost."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def best(self) -> dict[str, float] | None:
        """The entry of ``history`` with the smallest validation loss."""
        return min(self.history, key=lambda entry: entry["validation_loss"], default=None)

    def budget_left(self) -> float | None:
        """Seconds of ``max_minutes`` that remain for training when one validation is set aside."""
        if self.config.max_minutes is None:
            return None
        return 60 * self.config.max_minutes - self.seconds - self.pace.validation_seconds

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.unet.parameters(), lr=self.config.learning_rate)

    def on_train_start(self) -> None:
        self._started = time.monotonic()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._fix_statistics()
        progress = self.global_step / self.config.steps
        left = self.budget_left()
        if left is not None:
            progress = max(progress, 1 - max(left, 0.0) / (max(left, 0.0) + self.seconds))
        rate = learning_rate(
            self.config.learning_rate,
            self.config.schedule,
            step=self.global_step,
            progress=progress,
            losses=[entry["validation_loss"] for entry in self.history],
            warmup_steps=self.config.warmup_steps,
        )
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def _fix_statistics(self) -> None:
        """From ``batchnorm_steps`` on, normalise as the finished model will.

        The mean over a small batch takes the temperature level of its hours away, and no later layer can
        bring it back: with batch statistics to the end, a few hours a step leave errors of kelvins.
        """
        if self.config.batchnorm_steps is None or self.global_step < self.config.batchnorm_steps:
            return
        for module in self.unet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.mse_loss(self.unet(batch["coarse"], batch["static"]), batch["target"])
        if not torch.isfinite(loss):
            raise TrainError(
                f"The loss is no longer a number after {self.global_step} steps; "
                "start over with a smaller learning_rate."
            )
        self._losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        left = self.budget_left()
        if left is not None and left <= 0:
            self.trainer.should_stop = True

    def on_validation_start(self) -> None:
        self._squares = []
        self._validation_started = time.monotonic()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        error = self.unet(batch["coarse"], batch["static"]) - batch["target"]
        self._squares.append(error.square().mean(dim=(2, 3)))

    def on_validation_epoch_end(self) -> None:
        squares = torch.cat(self._squares).double().cpu().mean(dim=0)
        scores = {"validation_loss": float(squares.mean())}
        for name, square in zip(self.config.targets, squares.tolist(), strict=True):
            scores[f"rmse_{name}"] = square**0.5 * self.normalization.targets[name].std
        self.pace.validation_seconds = time.monotonic() - self._validation_started
        entry = {
            "steps": self.global_step,
            "seconds": self.seconds,
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": float(torch.stack(self._losses).double().cpu().mean()),
            **scores,
        }
        self._losses = []
        self.history.append(entry)
        self.log_dict({key: value for key, value in entry.items() if key != "steps"})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = {
            "history": self.history,
            "finished": self.finished,
            "seconds": self.seconds,
            "validation_seconds": self.pace.validation_seconds,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        run = checkpoint["run"]
        self.history = list(run["history"])
        self._seconds_before = run["seconds"]
        self.pace.validation_seconds = run["validation_seconds"]


class KeepBestAndLast(Checkpoint):
    """After every round: the weights if they are the best so far, then the state to continue from.

    Lightning writes each under a temporary name and renames it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, UNetTask)
        last_round = pl_module.global_step >= pl_module.config.steps
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
        loss = float(outputs["loss"])
        self._loss = loss if self._loss is None else 0.9 * self._loss + 0.1 * loss
        pl_module.pace.add_step(time.monotonic() - self._step_started)
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

    def _send(self, task: UNetTask) -> None:
        config, best = task.config, task.best
        latest = task.history[-1] if task.history else None
        left = config.steps - task.global_step
        # The validation of the present round is behind us only if it was the latest thing done.
        validations = config.steps // config.validate_every - len(task.history)
        self.report(
            Status(
                "Training",
                task.global_step,
                config.steps,
                "steps",
                train_loss=self._loss,
                validation_loss=latest["validation_loss"] if latest else None,
                best_loss=best["validation_loss"] if best else None,
                rmse={name: latest[f"rmse_{name}"] for name in config.targets} if latest else {},
                seconds_left=task.pace.seconds_left(left, validations, _budget(task)),
            )
        )


def _budget(task: UNetTask) -> float | None:
    minutes = task.config.max_minutes
    return None if minutes is None else 60 * minutes - task.seconds


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
    folder = Path(out_dir)
    report: Report = progress or (lambda status: None)
    store = Store.open(store_path)
    parts = _usable_parts(config, store)
    validation = _draw(parts.validation, config.validation_hours, config.seed)
    accelerator = _accelerator(config.device)
    identity = {
        "config": config.model_dump(mode="json", exclude=set(MACHINE_KEYS)),
        "data": {
            "fingerprint": store.attrs.get("fingerprint"),
            "domain": store.domain.to_dict(),
            "train": _hours_hash(parts.train),
            "validation": _hours_hash(validation),
        },
    }
    record = find_run(folder, identity, fresh=not resume)
    result = folder / f"{config.name}.safetensors"
    if record is not None and result.exists():
        return result
    if record is None:
        normalization = compute_normalization(
            store,
            parts.train,
            targets=config.targets,
            progress=lambda done, total: report(Status("Normalisation", done, total, "hours")),
        )
    else:
        normalization = Normalization.model_validate(record["normalization"])
    loaders = _loaders(config, store, parts.train, validation, normalization, accelerator, report)
    if record is None:
        begin_run(folder, {**identity, "normalization": normalization.model_dump(mode="json")})

    task = UNetTask(config, normalization)
    with _threads(config.threads), _quiet_lightning():
        _fit(task, loaders, folder, accelerator, report)
    header = _header(folder, config, store, parts, validation, normalization, task.model_config)
    best = torch.load(folder / BEST, weights_only=True, map_location="cpu")
    weights = {name.removeprefix("net."): tensor.contiguous() for name, tensor in best["state_dict"].items()}
    save(result, header, weights, dtype=getattr(torch, config.storage))
    return result


def _usable_parts(config: UNetTrainConfig, store: Store) -> Split:
    """The split of the store's hours, once nothing that training needs is missing."""
    contents = store.contents
    lacks = [
        *(f"the predictor {name}" for name in contents.missing_predictors),
        *(f"the fine truth {name}" for name in config.targets if name not in contents.targets),
        *(f"the static field {name}" for name in STATICS_NEEDED if name not in contents.statics),
    ]
    if lacks:
        raise TrainError(
            f"{store.path} can't train this UNet; it lacks {', '.join(lacks)}. Use a store that has them, "
            "for example one made with `tramontana demo`."
        )
    multiple = 1 << len(config.features)
    height, width = store.domain.fine.shape
    if height % multiple or width % multiple:
        raise TrainError(
            f"The domain {store.domain.name} has {height} x {width} fine cells; a UNet with "
            f"{len(config.features)} features needs sides that are multiples of {multiple}."
        )
    parts = split(store.hours, config.split)
    if parts.train.size == 0 or parts.validation.size == 0:
        raise TrainError(
            f"{store.path} has too few hours to train on. {parts.describe()} Add hours of other weeks; "
            "with the blocked split, 20 weeks in a row have all parts."
        )
    return parts


def _draw(hours: Hours, count: int | None, seed: int) -> Hours:
    """``count`` of the hours, ascending. Drawn, because every n-th hour might be the same time of day."""
    if count is None or count >= hours.size:
        return hours
    chosen: Hours = np.sort(np.random.default_rng(seed).choice(hours, count, replace=False))
    return chosen


def _accelerator(device: str) -> str:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if (device == "cuda" and not cuda) or (device == "mps" and not mps):
        raise TrainError(
            f"The config asks for device {device}, and torch finds none here. Use device=cpu or device=auto."
        )
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    return device


def _hours_hash(hours: Hours) -> str:
    seconds = hours.astype("datetime64[s]").astype("<i8")
    return f"{hours.size} hours, sha256 {hashlib.sha256(seconds.tobytes()).hexdigest()[:16]}"


Batches = DataLoader[dict[str, Tensor]]


def _loaders(
    config: UNetTrainConfig,
    store: Store,
    train: Hours,
    validation: Hours,
    normalization: Normalization,
    accelerator: str,
    report: Report,
) -> tuple[Batches, Batches]:
    """Batches to train on (crops) and to validate with (whole fields, one hour at a time)."""

    def reading(what: str) -> Callable[[int, int], None]:
        return lambda done, total: report(Status(f"Reading {what} hours", done, total, "hours"))

    budget = 1e9 * config.cache_gb
    to_train = HourDataset(
        store,
        train,
        normalization,
        config.targets,
        config.crop,
        config.seed,
        cache_bytes=budget,
        progress=reading("training"),
    )
    to_validate = HourDataset(
        store,
        validation,
        normalization,
        config.targets,
        cache_bytes=budget - to_train.cached_bytes,
        progress=reading("validation"),
    )
    sampler = RoundSampler(len(to_train), config.batch * config.validate_every, config.seed)
    workers: dict[str, Any] = {
        "num_workers": config.workers,
        "persistent_workers": config.workers > 0,
        "pin_memory": accelerator == "cuda",
    }
    return (
        DataLoader(to_train, batch_size=config.batch, sampler=sampler, **workers),
        DataLoader(to_validate, batch_size=1, **workers),
    )


def _fit(
    task: UNetTask, loaders: tuple[Batches, Batches], folder: Path, accelerator: str, report: Report
) -> None:
    """Train until done, from the last complete round where there is one."""
    config = task.config
    last = folder / LAST
    if last.exists():
        state = torch.load(last, weights_only=True, map_location="cpu")["run"]
        if state["finished"]:
            return
        # Worker processes fetch the first batches before Lightning tells the sampler the round.
        sampler = loaders[0].sampler
        assert isinstance(sampler, RoundSampler)
        sampler.set_epoch(len(state["history"]))
    loggers: list[Logger] = [CSVLogger(folder, name=LOGS)]
    if config.tensorboard:
        try:
            loggers.append(TensorBoardLogger(folder, name=LOGS))
        except ModuleNotFoundError as error:
            raise TrainError(
                "tensorboard=true needs the package tensorboard; install it, or leave it off."
            ) from error
    callbacks: list[Callback] = [Reporter(report), KeepBestAndLast(folder)]
    if config.patience is not None:
        callbacks.append(EarlyStopping("validation_loss", patience=config.patience, mode="min"))
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        precision=config.precision,
        max_epochs=config.steps // config.validate_every,
        callbacks=callbacks,
        logger=loggers,
        log_every_n_steps=config.validate_every,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, *loaders, ckpt_path=last if last.exists() else None, weights_only=True)
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit and goes on ignoring the signal; callers want the exception.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from error


def _header(
    folder: Path,
    config: UNetTrainConfig,
    store: Store,
    parts: Split,
    validation: Hours,
    normalization: Normalization,
    model: UNetConfig,
) -> Header:
    """What the checkpoint file says about itself; losses are mean squared errors of standardised targets."""
    best = torch.load(folder / BEST, weights_only=True, map_location="cpu")["run"]["history"][-1]
    history = torch.load(folder / LAST, weights_only=True, map_location="cpu")["run"]["history"]
    return Header(
        kind="unet",
        label=config.label,
        models={"unet": model.model_dump(mode="json")},
        predictors=PREDICTORS,
        statics=STATICS_NEEDED,
        targets=config.targets,
        normalization=normalization,
        domain=store.domain.to_dict(),
        provenance={
            "data_title": store.attrs.get("title"),
            "data_source": store.attrs.get("source"),
            "data_fingerprint": store.attrs.get("fingerprint"),
            "synthetic": bool(store.attrs.get("synthetic")),
            "split": parts.describe(),
            "split_method": config.split,
            "train_hours": int(parts.train.size),
            "train_period": _period(parts.train),
            "validation_hours": int(validation.size),
            "steps": int(best["steps"]),
            "epochs": best["steps"] * config.batch / parts.train.size,
            "train_loss": best["train_loss"],
            "validation_loss": best["validation_loss"],
            "validation_rmse": {name: best[f"rmse_{name}"] for name in config.targets},
            "steps_in_all": int(history[-1]["steps"]),
            "minutes_in_all": history[-1]["seconds"] / 60,
            "validation_losses": {str(entry["steps"]): entry["validation_loss"] for entry in history},
            "config": config.model_dump(mode="json"),
            "code_version": code_version(),
            "torch_version": torch.__version__,
        },
    )


def _period(hours: Hours) -> str:
    first, last = np.datetime_as_string(hours[[0, -1]], unit="h")
    return f"{first} to {last} UTC"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
