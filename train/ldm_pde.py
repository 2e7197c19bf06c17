"""Fine-tuning latent diffusion with the PDE loss and other terms (Rosu et al., arXiv 2510.23866)."""

from __future__ import annotations

from pathlib import Path

from core.checkpoint import Checkpoint
from core.data.store import Store
from core.models.latent_diffusion import PARTS, LatentDiffusion, LatentDiffusionConfig
from train.config import LDMPDETrainConfig
from train.diffusion import arrange, train_diffusion
from train.progress import Report
from train.run import load_parent


def restored(parent: Checkpoint) -> LatentDiffusion:
    """The model of a file, ready to be trained on."""
    network = LatentDiffusion(LatentDiffusionConfig.model_validate(parent.header.models))
    for part in PARTS:
        parent.restore(part, network.get_submodule(part))
    return arrange(network)


def train_ldm_pde(
    config: LDMPDETrainConfig,
    store_path: str | Path,
    ldm: str | Path,
    out_dir: str | Path,
    *,
    resume: bool = True,
    progress: Report | None = None,
) -> Path:
    """Fine-tune latent diffusion with physical terms; the result is a file of kind ``"ldm_pde"``.

    Parameters
    ----------
    store_path : store with all predictors, the model's targets as fine truth, and statics
    ldm : checkpoint of a latent diffusion model for the same domain
    out_dir, resume, progress : as in :func:`train.unet.train_unet`

    Raises
    ------
    TrainError, SampleError, StoreError, CheckpointError
        as in :func:`train.ldm.train_ldm`, and where a physical term does not fit the model's variables or its
        supergrid the windows.
    """
    store = Store.open(store_path)
    parent = load_parent(ldm, ("ldm_res", "ldm_pde"), store, config)
    return train_diffusion(
        config, store, {"ldm": parent}, restored(parent), "ldm_pde", out_dir, resume=resume, progress=progress
    )
