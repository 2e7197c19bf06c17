"""The whole family with one call: UNet, GAN, VAE, latent diffusion, and that with the PDE loss."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from train.config import (
    ConfigError,
    GANTrainConfig,
    LDMPDETrainConfig,
    LDMTrainConfig,
    StageConfig,
    UNetTrainConfig,
    VAETrainConfig,
    load_config,
)
from train.gan import train_gan
from train.ldm import train_ldm
from train.ldm_pde import train_ldm_pde
from train.parallel import started_together
from train.progress import Report, Status
from train.run_folder import TrainError, replacing, writing
from train.unet import train_unet
from train.vae import train_vae

STAGES: Mapping[str, type[StageConfig]] = {
    kind.stage: kind
    for kind in (UNetTrainConfig, GANTrainConfig, VAETrainConfig, LDMTrainConfig, LDMPDETrainConfig)
}
"""The stages in the order of their training, and their configs."""

SIZES = ("tiny", "demo", "published")

GAN_FROM_THE_UNET = frozenset({"tiny", "demo"})
"""Sizes whose GAN starts from the UNet; that of the papers starts from nothing."""

MODELS = "models"
"""Folder of the results that run by themselves: all but the VAE, which is in the latent diffusion models."""


@dataclass(frozen=True)
class Zoo:
    """The files that come out, by stage; ``models`` is a folder with those that run by themselves."""

    files: Mapping[str, Path]
    models: Path


def zoo_configs(size: str, overrides: Sequence[str] = ()) -> dict[str, StageConfig]:
    """The shipped configs of all stages in one of the :data:`SIZES`.

    ``overrides`` are texts ``key=value``: for one stage with its name in front, as in ``ldm.steps=100``,
    otherwise for all stages. Raises ConfigError where a size, stage or key is not known.
    """
    if size not in SIZES:
        raise ConfigError(f"There is no zoo of the size {size!r}; the sizes are {', '.join(SIZES)}.")
    own: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for override in overrides:
        first, dot, rest = override.partition(".")
        if dot and first in STAGES:
            own[first].append(rest)
        else:
            for settings in own.values():
                settings.append(override)
    return {
        stage: load_config(f"{stage}-{size}", own[stage], kind)  # type: ignore[type-var]
        for stage, kind in STAGES.items()
    }


def train_zoo(
    size: str,
    store_path: str | Path,
    out_dir: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = True,
    progress: Report | None = None,
) -> Zoo:
    """Train all five stages, each on the results of those before it.

    Every stage has its folder in ``out_dir``, named like the stage. A zoo that was stopped goes on where it
    was: finished stages are not repeated, and the one that was stopped resumes.

    Parameters
    ----------
    size, overrides : as in :func:`zoo_configs`
    store_path : store with all predictors, the targets as fine truth, and statics
    resume : False starts all stages over
    progress : called with a :class:`train.progress.Status` whose stage begins with the stage's name

    Raises
    ------
    ConfigError, TrainError, SampleError, StoreError, CheckpointError
        as the stages do. All configs are read before the first stage begins.
    """
    configs = zoo_configs(size, overrides)
    if started_together():
        raise TrainError(
            "Processes that torchrun or SLURM starts together train one stage at a time; give the commands "
            "of the stages one after the other."
        )
    folder = Path(out_dir)
    if folder.exists() and not folder.is_dir():
        raise TrainError(f"{folder} is a file; choose another folder with --out.")
    report: Report = progress or (lambda status: None)
    files: dict[str, Path] = {}
    for stage, config in configs.items():
        made = _stages(size, files)[stage](
            config,
            store_path,
            out_dir=folder / stage,
            resume=resume,
            progress=_named(report, stage),
        )
        files[stage] = made
    return Zoo(files, _collect(folder, files))


def _stages(size: str, files: Mapping[str, Path]) -> dict[str, Callable[..., Path]]:
    """The entry points of the stages, with the results that they build on."""

    def gan(config: Any, store: Any, **given: Any) -> Path:
        return train_gan(config, store, unet=files["unet"] if size in GAN_FROM_THE_UNET else None, **given)

    return {
        "unet": train_unet,
        "gan": gan,
        "vae": lambda config, store, **given: train_vae(config, store, files["unet"], **given),
        "ldm": lambda config, store, **given: train_ldm(config, store, files["vae"], **given),
        "ldm-pde": lambda config, store, **given: train_ldm_pde(config, store, files["ldm"], **given),
    }


def _named(report: Report, stage: str) -> Report:
    def told(status: Status) -> None:
        report(replace(status, stage=f"{stage}: {status.stage[:1].lower()}{status.stage[1:]}"))

    return told


def _collect(folder: Path, files: Mapping[str, Path]) -> Path:
    """Put the results that run by themselves into one folder."""
    models = folder / MODELS
    with writing(folder):
        models.mkdir(exist_ok=True)
        for stage, path in files.items():
            copy = models / path.name
            if stage == "vae" or (copy.exists() and copy.stat().st_mtime_ns == path.stat().st_mtime_ns):
                continue
            with replacing(copy) as temporary:
                shutil.copyfile(path, temporary)
                times = path.stat()
                os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
    return models
