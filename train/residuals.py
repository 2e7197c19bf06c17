"""Residuals of whole fields, truth minus the frozen UNet's mean, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from core.checkpoint import Checkpoint
from core.data.samples import Hours, Normalization, Progress
from core.data.store import Store
from core.models.unet import UNet, UNetConfig
from train.memory import whole_hours_fit

HOURS_READ = 24
"""Hours read at once: a shard of a store."""


def frozen_unet(checkpoint: Checkpoint) -> UNet:
    """The UNet of a checkpoint with statistics and weights that stand still."""
    network = UNet(UNetConfig.model_validate(checkpoint.header.models["unet"]))
    checkpoint.restore("unet", network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def hour_tensors(
    store: Store, hours: Hours, normalization: Normalization, targets: tuple[str, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Standardised coarse predictors (1, P, h, w) and truth (1, T, H, W) of one hour after the other."""
    for start in range(0, hours.size, HOURS_READ):
        some = hours[start : start + HOURS_READ]
        coarse = normalization.predictors_to_tensor(store.read_coarse(some, tuple(normalization.predictors)))
        fine = normalization.targets_to_tensor(store.read_fine(some, targets), targets)
        yield from zip(coarse.split(1), fine.split(1), strict=True)


@dataclass(frozen=True)
class WholeHours:
    """Hours of the whole domain, kept on the CPU: standardised predictors (n, P, h, w), truth and the UNet's
    mean (n, T, H, W)."""

    hours: Hours
    coarse: Tensor
    truth: Tensor
    mean: Tensor


class Means:
    """The frozen UNet over whole fields of a store.

    Parameters
    ----------
    unet : as :func:`frozen_unet` gives it; it is moved to ``device``
    """

    def __init__(
        self,
        unet: nn.Module,
        store: Store,
        normalization: Normalization,
        targets: tuple[str, ...],
        device: str,
    ) -> None:
        self.unet = unet.to(device)
        self.store = store
        self.normalization = normalization
        self.targets = targets
        self.device = device
        self.static = normalization.statics_to_tensor(store.read_static())[None].to(device)

    def hours(self, hours: Hours) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Coarse predictors (1, P, h, w), truth and mean (1, T, H, W) of one hour after the other."""
        for coarse, truth in hour_tensors(self.store, hours, self.normalization, self.targets):
            coarse, truth = coarse.to(self.device), truth.to(self.device)
            with torch.inference_mode(), whole_hours_fit(self.device):
                mean = self.unet(coarse, self.static)
            yield coarse, truth, mean

    def whole(self, hours: Hours) -> WholeHours:
        """The same of a few hours, kept together."""
        found = [tuple(tensor.cpu() for tensor in tensors) for tensors in self.hours(hours)]
        # Clones, since what inference mode makes can't take part in training.
        coarse, truth, mean = (torch.cat(tensors).clone() for tensors in zip(*found, strict=True))
        return WholeHours(hours, coarse, truth, mean)

    def residuals(self, hours: Hours, progress: Progress) -> Tensor:
        """All residuals, float16 (hours, T, H, W) on the CPU, standardised."""
        shape = (hours.size, len(self.targets), *self.store.domain.fine.shape)
        result = torch.empty(shape, dtype=torch.float16)
        for number, (_, truth, mean) in enumerate(self.hours(hours)):
            result[number] = (truth - mean)[0].to("cpu", torch.float16)
            progress(number + 1, hours.size)
        return result


class ResidualDataset(Dataset[Mapping[str, Tensor]]):
    """Residuals {"residual": (T, H, W)}, float32, asked for by position or by (epoch, position).

    With ``crop`` (fine pixels) a square window, aligned on the coarse grid, whose place is a pure function of
    (seed, epoch, position).
    """

    def __init__(self, residuals: Tensor, ratio: int, crop: int | None = None, seed: int = 0) -> None:
        self.residuals = residuals
        self.ratio = ratio
        self.crop = crop
        self.seed = seed

    def __len__(self) -> int:
        return len(self.residuals)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        field = self.residuals[position]
        if self.crop is not None:
            height, width = (side // self.ratio for side in field.shape[-2:])
            cells = self.crop // self.ratio
            row, column = window(height, width, cells, (self.seed, epoch, position))
            rows = slice(row * self.ratio, row * self.ratio + self.crop)
            columns = slice(column * self.ratio, column * self.ratio + self.crop)
            field = field[:, rows, columns]
        return {"residual": field.float()}


def window(height: int, width: int, cells: int, key: tuple[int, ...]) -> tuple[int, int]:
    """First row and column of a square of ``cells`` in a grid, a pure function of ``key``."""
    generator = np.random.default_rng(key)
    return int(generator.integers(height - cells + 1)), int(generator.integers(width - cells + 1))
