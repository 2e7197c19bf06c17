"""Write a latent diffusion model of published width for Italy, with random weights.

    python -m tests.published_width random-ldm.safetensors

329 million parameters, 1.3 GB. The fields it makes mean nothing; it shows what time and memory they take.
"""

import sys
from pathlib import Path

import torch

from core.checkpoint import Header, save
from core.data.samples import MeanStd, Normalization
from core.domain import ITALY
from core.models.latent_diffusion import PARTS, LatentDiffusion
from core.variables import PREDICTORS


def main(path: Path) -> None:
    torch.manual_seed(0)
    model = LatentDiffusion()
    with torch.no_grad():
        for parameter in model.parameters():
            # The last layers of a new denoiser are zero.
            if not parameter.any():
                parameter.normal_(std=1e-3)
    temperatures = ("t2m", "d2m", "sst", "t850")
    one, kelvin = MeanStd(mean=0, std=1), MeanStd(mean=285, std=8)
    header = Header(
        kind="ldm_res",
        label="Random weights of published width",
        models={part: getattr(model.config, part).model_dump(mode="json") for part in PARTS},
        predictors=PREDICTORS,
        statics=("orography", "land_cover", "latitude"),
        targets=("t2m",),
        normalization=Normalization(
            predictors={name: kelvin if name in temperatures else one for name in PREDICTORS},
            targets={"t2m": kelvin},
            orography=MeanStd(mean=300, std=400),
            latitude=MeanStd(mean=42, std=3),
        ),
        domain=ITALY.to_dict(),
    )
    print(save(path, header, model.state_dict()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
