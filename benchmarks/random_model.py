"""A latent diffusion model with random weights, and random inputs: they show what time a model takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

from core.checkpoint import Header, save
from core.data.samples import MeanStd, Normalization
from core.domain import Domain
from core.models.latent_diffusion import PARTS, LatentDiffusion, LatentDiffusionConfig
from core.variables import LAND_COVER_CLASSES, PREDICTORS

HOUR = np.datetime64("2016-01-04T12", "ns")
AS_IT_IS = MeanStd(mean=0, std=1)


def write(path: Path, domain: Domain, config: LatentDiffusionConfig | None = None) -> None:
    """Write a model for ``domain``, by default of published width (329 million weights, 1.3 GB)."""
    torch.manual_seed(0)
    model = LatentDiffusion(config)
    for layer in model.modules():
        # The last layers of a new denoiser are zero, which would hide what comes before.
        if isinstance(layer, nn.Conv2d) and not layer.weight.any():
            layer.reset_parameters()
    header = Header(
        kind="ldm_res",
        label="Random weights",
        models={part: getattr(model.config, part).model_dump(mode="json") for part in PARTS},
        predictors=PREDICTORS,
        statics=("orography", "land_cover", "latitude"),
        targets=("t2m",),
        normalization=Normalization(
            predictors=dict.fromkeys(PREDICTORS, AS_IT_IS),
            targets={"t2m": MeanStd(mean=285, std=8)},
            orography=AS_IT_IS,
            latitude=AS_IT_IS,
        ),
        domain=domain.to_dict(),
    )
    save(path, header, model.state_dict())


def inputs(domain: Domain) -> tuple[xr.Dataset, xr.Dataset]:
    """Standardised predictors of one hour, and statics: random numbers."""
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, dtype=np.float32)

    coarse, fine = domain.coarse, domain.fine
    predictors = xr.Dataset(
        {name: (("time", "y", "x"), draw(1, *coarse.shape)) for name in PREDICTORS},
        coords={"time": [HOUR], "y": coarse.y, "x": coarse.x},
    )
    statics = xr.Dataset(
        {
            "orography": (("y", "x"), draw(*fine.shape)),
            "land_cover": (("class", "y", "x"), draw(LAND_COVER_CLASSES, *fine.shape)),
            "latitude": (("y", "x"), draw(*fine.shape)),
        },
        coords={"y": fine.y, "x": fine.x},
    )
    return predictors, statics
