"""What the Lightning modules of all stages share: the pace, the learning rate, the history and resuming."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from train.config import StageConfig
from train.progress import Pace
from train.run_folder import TrainError
from train.scene import Scene
from train.schedule import learning_rate


class StageTask(LightningModule):
    """A stage with its networks, loss, optimiser and scores. A Lightning epoch is a round of training.

    A subclass makes its networks, gives ``training_step``, which passes every loss through :meth:`checked`,
    ``validation_step``, and :meth:`validation_scores`.

    Attributes
    ----------
    history : one entry per round: steps so far, seconds so far, mean loss of the round, learning rate, and
        the scores of the validation, among them ``validation_loss``
    finished : whether the latest round was the last one
    pace : how long steps and validations take
    latest_loss : of the latest batch of this process
    scene : what the latest validation has made of one hour; None where it made nothing to show
    loss_varies : whether some steps leave parameters without a gradient, which several processes must know
    """

    loss_varies = False

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        self.config = config
        self.history: list[dict[str, float]] = []
        self.finished = False
        self.pace = Pace()
        self.latest_loss: Tensor | None = None
        self.scene: Scene | None = None
        self._losses: list[Tensor] = []
        self._seconds_before = 0.0
        self._started = self._validation_started = time.monotonic()

    def validation_scores(self) -> Mapping[str, float]:
        """The scores of the validation that has just ended, ``validation_loss`` first."""
        raise NotImplementedError

    def extra_state(self) -> dict[str, Any]:
        """What, beside weights and optimiser, a resumed run needs: plain values and tensors."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take :meth:`extra_state` back."""

    @property
    def seconds(self) -> float:
        """Wall time of training and validation, over all starts of the run, without what a kill lost."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def best(self) -> dict[str, float] | None:
        """The entry of ``history`` with the smallest validation loss."""
        return min(self.history, key=lambda entry: entry["validation_loss"], default=None)

    @property
    def steps_done(self) -> int:
        """Steps so far."""
        return int(self.global_step)

    def sample_numbers(self, batch_idx: int, count: int) -> range:
        """Places of the ``count`` samples of a batch in the endless sequence of all samples.

        Random draws are keyed with them, so that they depend neither on how many samples make a batch, nor
        on how many processes share it.
        """
        per_round: int = self.trainer.num_training_batches  # type: ignore[assignment]
        batch = self.current_epoch * per_round + batch_idx
        start = batch * self.config.batch + self.global_rank * count
        return range(start, start + count)

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return 1 if self._trainer is None else self.trainer.world_size

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes."""
        if self.processes == 1:
            return values
        result: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")  # type: ignore[assignment]
        return result

    def time_left(self) -> float | None:
        """Seconds of ``max_minutes`` that remain; None where there is no limit."""
        minutes = self.config.max_minutes
        return None if minutes is None else 60 * minutes - self.seconds

    def _training_time_left(self) -> float | None:
        """The same when one validation is set aside."""
        left = self.time_left()
        if left is None:
            return None
        # Clocks differ, and all processes must stop at the same step and learn at the same rate.
        return float(self.trainer.strategy.broadcast(left - self.pace.validation_seconds))

    def checked(self, loss: Tensor) -> Tensor:
        """``loss`` itself, noted for the mean of the round; TrainError where it is not a number."""
        if not torch.isfinite(loss):
            raise TrainError(
                f"The loss is no longer a number after {self.steps_done} steps; "
                "start over with a smaller learning_rate."
            )
        self.latest_loss = loss.detach()
        self._losses.append(self.latest_loss)
        return loss

    def on_train_start(self) -> None:
        self._started = time.monotonic()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        progress = self.steps_done / self.config.steps
        left = self._training_time_left()
        if left is not None:
            over = self.trainer.strategy.broadcast(self.seconds)
            progress = max(progress, 1 - max(left, 0.0) / (max(left, 0.0) + over))
        rate = learning_rate(
            self.config.learning_rate,
            self.config.schedule,
            step=self.steps_done,
            progress=progress,
            losses=[entry["validation_loss"] for entry in self.history],
            warmup_steps=self.config.warmup_steps,
        )
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        left = self._training_time_left()
        if left is not None and left <= 0:
            self.trainer.should_stop = True

    def on_validation_start(self) -> None:
        self._validation_started = time.monotonic()

    def on_validation_epoch_end(self) -> None:
        scores = self.validation_scores()
        self.pace.validation_seconds = time.monotonic() - self._validation_started
        train_loss = float(self.total(torch.stack(self._losses).mean())) / self.processes
        entry = {
            "steps": self.steps_done,
            "seconds": self.seconds,
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": train_loss,
            **scores,
        }
        # What is kept and when to stop follows from the history, so all processes must have the same.
        entry = self.trainer.strategy.broadcast(entry)
        self._losses = []
        self.history.append(entry)
        self.log_dict({key: value for key, value in entry.items() if key != "steps"})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = {
            "history": self.history,
            "finished": self.finished,
            "seconds": self.seconds,
            "validation_seconds": self.pace.validation_seconds,
            "extra": self.extra_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        run = checkpoint["run"]
        self.history = list(run["history"])
        self._seconds_before = run["seconds"]
        self.pace.validation_seconds = run["validation_seconds"]
        self.load_extra_state(run.get("extra", {}))


def keyed_generator(*key: int) -> torch.Generator:
    """A generator on the CPU that is a pure function of ``key``, so that a resumed run draws the same."""
    words = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
