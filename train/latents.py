"""Latents of whole hours, encoded once and kept on disk for all rounds of training."""

from __future__ import annotations

import hashlib
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
from train.data import hours_hash
from train.locks import locked
from train.memory import whole_hours_fit
from train.residuals import HOURS_READ, Means
from train.run_folder import TrainError, replacing, tidy, writing

FORMAT = 1
"""Of the kept files and of what they hold; a new number where an encoding would come out differently."""

RECORD = "contents.json"
LOCK = ".lock"
SHARED = "hours"


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

    Raises TrainError where the disk is full or a file of the folder is damaged.
    """
    with writing(folder):
        return _encoded(folder, name, hours, means, vae, progress, fine)


def shared_hours(
    folder: Path,
    hours: Hours,
    means: Means,
    vae: VAE,
    progress: Progress,
    waiting: Progress,
    *,
    fine: bool = False,
) -> EncodedHours:
    """The same from a folder that several runs share, also at the same time.

    Each encoding has a subfolder that is named by what determines it (:func:`contents`), so that another one
    is never taken for it, with the record ``contents.json``. Of several runs that ask for the same, one
    encodes and the others wait, while ``waiting`` is called with how many hours are done; where the one is
    stopped, another goes on from there.

    Raises TrainError as :func:`encode_hours`, where ``folder`` can't be used, and where the store has no
    fingerprint by which its data could be told from others.
    """
    if folder.exists() and not folder.is_dir():
        raise TrainError(f"{folder} is a file; set latents to a folder, or leave it out.")
    record = contents(hours, means, vae, fine)
    own = folder / hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:24]
    with locked(own / LOCK, lambda: waiting(_done(own / f"{SHARED}.json"), hours.size)), writing(own):
        tidy(own)
        if not (own / RECORD).exists():
            with replacing(own / RECORD) as temporary:
                temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return _encoded(own, SHARED, hours, means, vae, progress, fine)


def contents(hours: Hours, means: Means, vae: VAE, fine: bool) -> dict[str, Any]:
    """What determines the numbers that are kept, plain JSON values.

    Weights and sizes of the UNet and of the VAE's encoder, normalisation, data (by the store's fingerprint)
    and hours, in their order, and whether mean and truth are among them.
    """
    fingerprint = means.store.attrs.get("fingerprint")
    if not fingerprint:
        raise TrainError(
            f"{means.store.path} has no fingerprint, so its latents can't be told from those of other data; "
            "leave latents out."
        )
    encoder = {
        name: tensor
        for name, tensor in vae.state_dict().items()
        if name.partition(".")[0] not in ("decoder", "to_decoder")
    }
    return {
        "format": FORMAT,
        "unet": _weights_hash(means.unet.state_dict()),
        "unet_config": means.unet.config.model_dump(mode="json"),  # type: ignore[union-attr, operator]
        "vae_encoder": _weights_hash(encoder),
        "vae_config": vae.config.model_dump(mode="json"),
        "normalization": means.normalization.model_dump(mode="json"),
        "targets": list(means.targets),
        "fingerprint": fingerprint,
        "domain": means.store.domain.to_dict(),
        "hours": hours_hash(hours),
        "fine": fine,
    }


def _weights_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
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
    for start in range(_done(count), hours.size, HOURS_READ):
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


def _done(count: Path) -> int:
    """How many hours are encoded. Raises TrainError where the file does not say."""
    if not count.exists():
        return 0
    try:
        return int(json.loads(count.read_text(encoding="utf-8"))["done"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(count) from error


def _damaged(path: Path) -> TrainError:
    return TrainError(f"{path} is damaged; remove the folder {path.parent}, and it is made again.")


def _mapped(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.memmap[Any, Any]:
    if not path.exists():
        # Under another name first: a kill must not leave a file without its length.
        with replacing(path) as temporary:
            open_memmap(temporary, mode="w+", dtype=dtype, shape=shape).flush()
            _reserve(temporary)
    try:
        found = open_memmap(path, mode="r+")
    except ValueError as error:
        raise _damaged(path) from error
    if (found.shape, found.dtype) != (shape, dtype):
        raise _damaged(path)
    return found


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
