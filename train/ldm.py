"""Training latent diffusion on the residuals of a frozen UNet, in the latents of a frozen VAE (LDM_res)."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError

from core.checkpoint import Checkpoint
from core.data.store import Store
from core.models.conditioner import ConditionerConfig
from core.models.denoiser import DenoiserConfig
from core.models.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from core.models.unet import UNetConfig
from core.models.vae import VAEConfig
from core.variables import STATIC_CHANNELS
from train.config import LDMTrainConfig
from train.diffusion import arrange, train_diffusion
from train.progress import Report
from train.run import load_parent
from train.run_folder import TrainError


def network_config(config: LDMTrainConfig, parent: Checkpoint) -> LatentDiffusionConfig:
    """The sizes of the whole model, from the config and the VAE's file.

    Raises TrainError where they do not fit together.
    """
    models = parent.header.models
    vae = VAEConfig.model_validate(models["vae"])
    try:
        conditioner = ConditionerConfig(
            coarse_channels=len(parent.header.predictors),
            static_channels=STATIC_CHANNELS,
            static_features=config.static_features,
            static_latent_channels=config.static_latent_channels,
            static_embedding=config.static_embedding,
            coarse_embedding=config.coarse_embedding,
            static_depth=config.analysis_depth,
            coarse_depth=config.analysis_depth,
            width=config.context_width,
            levels=len(config.multipliers),
        )
        return LatentDiffusionConfig(
            unet=UNetConfig.model_validate(models["unet"]),
            vae=vae,
            conditioner=conditioner,
            denoiser=DenoiserConfig(
                in_channels=vae.latent_channels,
                out_channels=vae.latent_channels,
                width=config.width,
                multipliers=config.multipliers,
                residual_blocks=config.residual_blocks,
                attention_levels=max(1, len(config.multipliers) - 1),
                context_channels=conditioner.context_channels,
            ),
            parameterization=config.parameterization,
        )
    except ValidationError as error:
        faults = " ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())
        raise TrainError(
            f"This config and {parent.path} make no model that fits together. {faults}"
        ) from error


def build_network(config: LDMTrainConfig, parent: Checkpoint) -> LatentDiffusion:
    """The model with the parent's UNet and VAE, and new conditioner and denoiser."""
    sizes = network_config(config, parent)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            network = LatentDiffusion(sizes)
        except ValueError as error:
            raise TrainError(f"This config makes no model: {error}") from error
    for part in ("unet", "vae"):
        parent.restore(part, network.get_submodule(part))
    return arrange(network)


def train_ldm(
    config: LDMTrainConfig,
    store_path: str | Path,
    vae: str | Path,
    out_dir: str | Path,
    *,
    resume: bool = True,
    progress: Report | None = None,
) -> Path:
    """Train latent diffusion and write the whole model as a checkpoint file of kind ``"ldm_res"``.

    Parameters
    ----------
    store_path : store with all predictors, the VAE's targets as fine truth, and statics
    vae : checkpoint of a VAE, which holds its UNet, for the same domain
    out_dir, resume, progress : as in :func:`train.unet.train_unet`

    Returns
    -------
    ``out_dir / "<name>.safetensors"``: UNet and VAE as they were, conditioner and averaged denoiser of the
    round with the smallest validation loss.

    Raises
    ------
    TrainError, SampleError, StoreError, CheckpointError
        as in :func:`train.unet.train_unet`, and where the VAE does not fit the store or the config.
    """
    store = Store.open(store_path)
    parent = load_parent(vae, ("vae",), store, config)
    network = build_network(config, parent)
    return train_diffusion(
        config, store, {"vae": parent}, network, "ldm_res", out_dir, resume=resume, progress=progress
    )
