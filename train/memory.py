"""What to do when memory runs out: say which batch would fit, found by trying."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from train.run_folder import TrainError
from train.task import StageTask


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a device or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def whole_hours_fit(device: str) -> Iterator[None]:
    """Turn an error about memory, while networks run over whole hours, into a TrainError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainError(
            f"One hour of the whole domain does not fit into the memory of {device} together with the "
            "networks. Free memory, or use a device with more of it (device=cpu is slow but often has it)."
        ) from error


class MemoryAdvice(Callback):
    """After an error about memory: the sentence to show, in ``advice``.

    Smaller batches are tried at once, each a whole step with gradients and optimiser, from half the batch
    down to a single sample. The run is over by then and what these steps learn is thrown away.
    """

    def __init__(self) -> None:
        self.advice: str | None = None
        self._batch: dict[str, Tensor] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batch = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not out_of_memory(exception):
            return
        assert isinstance(pl_module, StageTask)
        config, where = pl_module.config, pl_module.device
        if trainer.validating or self._batch is None:
            self.advice = (
                f"Memory ran out on {where} in validation, which takes whole hours one by one. Use a "
                "narrower network or a device with more memory."
            )
            return
        # The frames of the failed step still hold all that filled the memory.
        traceback.clear_frames(exception.__traceback__)
        said = f"Memory ran out on {where} with batch={config.batch}"
        if trainer.world_size > 1:
            self.advice = (
                f"{said} over {trainer.world_size} processes. Take a smaller batch and accumulate more of "
                "them for the same steps, in a new folder or with --fresh."
            )
            return
        size = config.batch // 2
        while size and not _fits(trainer, pl_module, self._batch, size):
            size //= 2
        self._batch = None
        if not size:
            self.advice = f"{said}, and not even one sample fits. Use a smaller crop or a narrower network."
            return
        steps = config.batch * config.accumulate
        same = f"accumulate={steps // size} keeps as many samples in a step; " if steps % size == 0 else ""
        self.advice = (
            f"{said}. With batch={size} a step fits, as was just tried; {same}set them with --set, in a new "
            "folder or with --fresh."
        )


def _fits(trainer: Trainer, task: StageTask, batch: dict[str, Tensor], size: int) -> bool:
    """Whether a whole step with the first ``size`` samples fits."""
    part = {name: field[:size] for name, field in batch.items()}
    try:
        with torch.enable_grad(), trainer.precision_plugin.train_step_context():
            task.zero_grad(set_to_none=True)
            _free()
            loss = task.training_step(part, 0)
            if task.automatic_optimization:
                loss.backward()
                trainer.optimizers[0].step()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    finally:
        task.zero_grad(set_to_none=True)
        _free()
    return True


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
