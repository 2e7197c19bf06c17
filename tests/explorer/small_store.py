"""Small stores for the tests of the explorer."""

from pathlib import Path
from typing import Any

import numpy as np

from core.data.store import Store
from core.domain import Domain
from core.variables import PREDICTORS
from tests.synthetic_store import block_means, create_store, static_dataset

DOMAIN = Domain.regular(
    "Test land", left=4_500_000.0, top=2_500_000.0, shape=(64, 48), spacing=2000.0, ratio=8
)
HOURS = np.arange("2021-03-16", "2021-03-17", dtype="datetime64[h]").astype("datetime64[ns]")


def fields(hour: int) -> tuple[np.ndarray, np.ndarray]:
    """(fine, coarse) temperature [K] of an hour: a slope, a wave and an offset that tells hours apart."""
    y, x = np.mgrid[:64, :48]
    fine = 280 + 0.1 * y + 2 * np.sin(x / 5.0) + hour
    return fine.astype("f4"), block_means(fine, 8).astype("f4")


def make_store(
    path: Path, hours: np.ndarray = HOURS, *, truth: bool = True, written: int | None = None, **options: Any
) -> Store:
    """A store of t2m with or without truth; only the first ``written`` hours are complete."""
    known = {
        "title": "Test weather",
        "source": "a formula",
        "synthetic": truth,
        "fingerprint": path.stem,
        "coarse": PREDICTORS if truth else ("t2m",),
        "fine": ("t2m",) if truth else (),
    }
    statics = static_dataset(DOMAIN, orography=np.hypot(*np.mgrid[:64, :48]) * 10)
    store = create_store(path, DOMAIN, hours, statics, **known | options)
    fill(store, hours[:written])
    return store


def fill(store: Store, hours: np.ndarray) -> None:
    """Write the fields of these hours."""
    if not hours.size:
        return
    pairs = [fields(int(hour.astype("datetime64[h]").astype(int)) % 24) for hour in hours]
    fine, coarse = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    others = {name: np.ones_like(coarse) for name in store.contents.predictors if name != "t2m"}
    truth = {"t2m": fine} if store.contents.targets else None
    store.write(hours, {"t2m": coarse, **others}, truth)


def make_unet(path: Path, domain: Domain, label: str) -> None:
    """An untrained UNet of the smallest size for ``domain``, as a checkpoint file."""
    import torch

    from core.checkpoint import Header, save
    from core.data.samples import MeanStd, Normalization
    from core.models.unet import UNet, UNetConfig

    torch.manual_seed(1)
    config = UNetConfig(features=(4, 4))
    one = MeanStd(mean=0.0, std=1.0)
    header = Header(
        kind="unet",
        label=label,
        models={"unet": config.model_dump(mode="json")},
        predictors=PREDICTORS,
        statics=("orography", "land_cover", "latitude"),
        targets=("t2m",),
        normalization=Normalization(
            predictors={name: one for name in PREDICTORS} | {"t2m": MeanStd(mean=290, std=8)},
            targets={"t2m": MeanStd(mean=290, std=2)},
            orography=one,
            latitude=one,
        ),
        domain=domain.to_dict(),
    )
    weights = {f"unet.{key}": tensor for key, tensor in UNet(config).state_dict().items()}
    save(path, header, weights)
