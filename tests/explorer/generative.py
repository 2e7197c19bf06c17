"""A store and a small untrained generative model that runs on it."""

from pathlib import Path

import numpy as np

from core.data.store import Store
from tests.synthetic_store import DOMAIN, hours_of_weeks, make_store

HOURS = hours_of_weeks(weeks=1, per_week=4)
LABEL = "LDM (untrained)"


def make_square_store(path: Path, *, truth: bool = True) -> Store:
    """Four hours of 64 x 64 cells with every predictor."""
    return make_store(path, HOURS, fine=("t2m",) if truth else ())


def make_ldm(path: Path, store: Store, label: str = LABEL, seed: int = 0) -> Path:
    """The smallest latent diffusion model for ``store``, as a checkpoint file."""
    import torch

    from core.checkpoint import Header, save
    from core.data.samples import compute_normalization
    from core.models.latent_diffusion import PARTS, LatentDiffusion
    from core.variables import PREDICTORS
    from tests.core.downscale.conftest import STATICS, liven
    from tests.small_models import small_latent_diffusion

    torch.manual_seed(seed)
    config = small_latent_diffusion()
    model = LatentDiffusion(config)
    liven(model)
    header = Header(
        kind="ldm_res",
        label=label,
        models={part: getattr(config, part).model_dump(mode="json") for part in PARTS},
        predictors=PREDICTORS,
        statics=STATICS,
        targets=("t2m",),
        normalization=compute_normalization(store, store.hours),
        domain=DOMAIN.to_dict(),
    )
    save(path, header, model.state_dict())
    return path


def iso(hour: np.datetime64) -> str:
    """An hour as the session writes it."""
    return str(np.datetime_as_string(hour, unit="m"))
