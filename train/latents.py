"""Latents of whole hours, encoded once and kept on disk for all rounds of training."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from core.data.samples import Hours, Progress
from core.models.vae import VAE
from train.memory import whole_hours_fit
from train.residuals import HOURS_READ, Means
from train.run_folder import replacing, writing


@dataclass(frozen=True)
class EncodedHours:
    """Hours as latent diffusion sees them.

    Attributes
    ----------
    hours : (n,)
    latents : (n, C, h, w), float16, means of the posterior of the residuals; mapped from a file
    coarse : (n, P, h, w), float32, standardised predictors; mapped from a file
    mean, truth : (n, T, H, W), float32, the UNet's mean and the truth, standardised; None where they are not
        asked for
    """

    hours: Hours
    latents: NDArray[np.float16]
    coarse: NDArray[np.float32]
    mean: NDArray[np.float32] | None = None
    truth: NDArray[np.float32] | None = None


@torch.inference_mode()
def encode_hours(
    folder: Path,
    name: str,
    hours: Hours,
    means: Means,
    vae: VAE,
    progress: Progress,
    *,
    fine: bool = False,
) -> EncodedHours:
    """The latents of ``hours`` from the files ``name-*.npy`` of ``folder``, made where they are not there.

    What an earlier start has encoded is kept. The residual of the whole domain is encoded, as the UNet's mean
    and the latent's edges depend on all of it. With ``fine``, mean and truth are kept as well.
    """
    with writing(folder):
        return _encoded(folder, name, hours, means, vae, progress, fine)


def _encoded(
    folder: Path, name: str, hours: Hours, means: Means, vae: VAE, progress: Progress, fine: bool
) -> EncodedHours:
    folder.mkdir(parents=True, exist_ok=True)
    height, width = means.store.domain.fine.shape
    grid = (height // vae.side_multiple, width // vae.side_multiple)
    latents = _mapped(
        folder / f"{name}-latents.npy", (hours.size, vae.config.latent_channels, *grid), np.float16
    )
    coarse = _mapped(
        folder / f"{name}-coarse.npy",
        (hours.size, len(means.normalization.predictors), *means.store.domain.coarse.shape),
        np.float32,
    )
    shape = (hours.size, len(means.targets), *means.store.domain.fine.shape)
    fields = [_mapped(folder / f"{name}-{what}.npy", shape, np.float32) for what in ("mean", "truth") if fine]
    count = folder / f"{name}.json"
    done = int(json.loads(count.read_text())["done"]) if count.exists() else 0
    for start in range(done, hours.size, HOURS_READ):
        some = hours[start : start + HOURS_READ]
        for place, (predictors, truth, mean) in enumerate(means.hours(some), start):
            with whole_hours_fit(means.device):
                latents[place] = vae.encode(truth - mean).mean[0].cpu().numpy()
            coarse[place] = predictors[0].cpu().numpy()
            for kept, field in zip(fields, (mean, truth), strict=False):
                kept[place] = field[0].cpu().numpy()
            progress(place + 1, hours.size)
        for kept in (latents, coarse, *fields):
            kept.flush()
        # Only after the numbers are on disk, so that a kill at any time leaves a true count.
        _write(count, start + some.size)
    return EncodedHours(hours, latents, coarse, *fields)


def _mapped(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.memmap[Any, Any]:
    if path.exists():
        return open_memmap(path, mode="r+")
    # Under another name first: a kill must not leave a file without its length.
    with replacing(path) as temporary:
        open_memmap(temporary, mode="w+", dtype=dtype, shape=shape).flush()
        _reserve(temporary)
    return open_memmap(path, mode="r+")


def _reserve(path: Path) -> None:
    """Take the room of a file for good: where a mapped file finds none later, the process is killed."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _write(path: Path, done: int) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"done": done}), encoding="utf-8")


class LatentDataset(Dataset[Mapping[str, Tensor]]):
    """Encoded hours {"latent": (C, h, w), "coarse": (P, h, w), "position": ()}, float32 on the whole domain.

    With "mean" and "truth" (T, H, W) where they were kept. An item is asked for by its position, or by
    (epoch, position). Windows are cut by who has the statics.
    """

    def __init__(self, encoded: EncodedHours) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return int(self.encoded.hours.size)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        position = key[1] if isinstance(key, tuple) else key
        encoded = self.encoded
        fine = {"mean": encoded.mean, "truth": encoded.truth}
        return {
            "latent": torch.from_numpy(encoded.latents[position].astype(np.float32)),
            "coarse": torch.from_numpy(np.array(encoded.coarse[position])),
            "position": torch.tensor(position),
            **{
                name: torch.from_numpy(np.array(field[position]))
                for name, field in fine.items()
                if field is not None
            },
        }
