"""A small store and small untrained networks as checkpoint files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.checkpoint import Header, save
from core.data.samples import Normalization, compute_normalization
from core.data.store import Store
from core.models.latent_diffusion import PARTS, LatentDiffusion, LatentDiffusionConfig
from core.models.unet import UNet, UNetConfig
from core.variables import PREDICTORS
from tests.small_models import small_latent_diffusion
from tests.synthetic_store import DOMAIN, hours_of_weeks, make_store

STATICS = ("orography", "land_cover", "latitude")
SaveModel = Callable[..., Path]


def liven(model: nn.Module) -> None:
    """Weights and running statistics as after training: nothing is zero, nothing the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)


@pytest.fixture(scope="session")
def times() -> np.ndarray:
    """Five hours."""
    return hours_of_weeks(weeks=1, per_week=5)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, times: np.ndarray) -> Store:
    """Every predictor, truth and statics of 64 x 64 cells."""
    return make_store(tmp_path_factory.mktemp("stores") / "full.zarr", times)


@pytest.fixture(scope="session")
def normalization(store: Store) -> Normalization:
    return compute_normalization(store, store.hours)


@pytest.fixture
def save_unet(tmp_path: Path, normalization: Normalization) -> SaveModel:
    """Writes a small untrained UNet as a checkpoint, with any part of its header changed."""

    def write(
        name: str = "unet", *, seed: int = 0, config: dict[str, Any] | None = None, **changes: Any
    ) -> Path:
        torch.manual_seed(seed)
        chosen = UNetConfig(**(config or {"features": (4, 4)}))
        model = UNet(chosen)
        liven(model)
        values: dict[str, Any] = {
            "kind": "unet",
            "label": f"UNet ({name})",
            "models": {"unet": chosen.model_dump(mode="json")},
            "predictors": PREDICTORS,
            "statics": STATICS,
            "targets": ("t2m",),
            "normalization": normalization,
            "domain": DOMAIN.to_dict(),
        }
        path = tmp_path / "checkpoints" / f"{name}.safetensors"
        save(
            path,
            Header(**(values | changes)),
            {f"unet.{key}": tensor for key, tensor in model.state_dict().items()},
        )
        return path

    return write


@pytest.fixture
def save_ldm(tmp_path: Path, normalization: Normalization) -> SaveModel:
    """Writes a small untrained latent diffusion model; ``parts`` replaces configurations of its header."""

    def write(
        name: str = "ldm",
        *,
        seed: int = 0,
        config: LatentDiffusionConfig | None = None,
        parts: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        torch.manual_seed(seed)
        chosen = config or small_latent_diffusion()
        model = LatentDiffusion(chosen)
        liven(model)
        values: dict[str, Any] = {
            "kind": "ldm_res",
            "label": f"LDM ({name})",
            "models": {part: getattr(chosen, part).model_dump(mode="json") for part in PARTS} | (parts or {}),
            "predictors": PREDICTORS,
            "statics": STATICS,
            "targets": ("t2m",),
            "normalization": normalization,
            "domain": DOMAIN.to_dict(),
        }
        path = tmp_path / "checkpoints" / f"{name}.safetensors"
        save(path, Header(**(values | changes)), model.state_dict())
        return path

    return write
