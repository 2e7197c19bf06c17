"""A small store of invented weather, quick to make and with something to learn in it."""

import numpy as np
import xarray as xr

from core.data.store import Store
from core.domain import Domain
from core.variables import LAND_COVER_CLASSES, PREDICTORS

DOMAIN = Domain.regular("Small", left=4_000_000.0, top=2_500_000.0, shape=(64, 64), spacing=2000.0, ratio=8)
LAPSE_RATE = 0.0065
MEANS = {"t2m": 285.0, "msl": 101_500.0, "d2m": 280.0, "sst": 290.0, "q850": 5e-3, "t850": 275.0, "ssrd": 5e5}
SPREADS = {"msl": 900.0, "q850": 1e-3, "ssrd": 1e5, "tp": 1e-4, "sd": 0.01}


def hours_of_weeks(weeks=20, per_week=2, start="2016-01-06T00"):
    """The first ``per_week`` hours of a Wednesday, week after week."""
    days = np.datetime64(start, "ns") + np.arange(weeks) * np.timedelta64(7, "D")
    return (days[:, None] + np.arange(per_week) * np.timedelta64(1, "h")).ravel()


def block_means(values, ratio):
    """Means over blocks of ``ratio`` x ``ratio`` of the last two axes."""
    height, width = values.shape[-2:]
    return values.reshape(*values.shape[:-2], height // ratio, ratio, width // ratio, ratio).mean((-3, -1))


def static_dataset(domain=DOMAIN, seed=0, orography=None):
    """Land everywhere; random heights unless they are given, random forest."""
    generator = np.random.default_rng(seed)
    shape = domain.fine.shape
    land_cover = np.zeros((LAND_COVER_CLASSES, *shape), np.float32)
    land_cover[3] = generator.random(shape) < 0.5
    orography = generator.uniform(0, 1500, shape) if orography is None else orography
    return xr.Dataset(
        {
            "orography": (("y", "x"), orography.astype(np.float32)),
            "land_cover": (("class", "y", "x"), land_cover),
            "latitude": (("y", "x"), domain.fine.latitude.astype(np.float32)),
            "land_fraction": (("y", "x"), np.ones(shape, np.float32)),
        },
        coords={"y": domain.fine.y, "x": domain.fine.x},
    )


def create_store(path, domain, times, statics, **options):
    """A store without any hour yet; its coarse orography is the mean of the fine one."""
    known = {
        "title": "Invented weather for tests",
        "source": "tests",
        "synthetic": True,
        "static": statics,
        "coarse_orography": block_means(statics["orography"].values, domain.ratio),
    }
    return Store.create(path, domain, times=times, **known | options)


def make_store(path, times=None, *, coarse=PREDICTORS, fine=("t2m",), domain=DOMAIN, static=True, seed=0):
    """Coarse noise; fine t2m is the coarse one of its cell, lowered with height above the cell's mean.

    The left half of sst is missing (land).
    """
    times = hours_of_weeks() if times is None else np.asarray(times, "datetime64[ns]")
    ratio = domain.ratio
    statics = static_dataset(domain, seed)
    orography = statics["orography"].values
    excess = orography - block_means(orography, ratio).repeat(ratio, 0).repeat(ratio, 1)
    options = {"coarse": coarse, "fine": fine, "fingerprint": f"tests-{seed}"}
    if not static:
        options["static"] = None
    store = create_store(path, domain, times, statics, **options)
    fields, truth = {}, {}
    for number, name in enumerate(PREDICTORS):
        generator = np.random.default_rng((seed, number))
        noise = generator.standard_normal((times.size, *domain.coarse.shape), dtype=np.float32)
        fields[name] = np.float32(MEANS.get(name, 0.0)) + np.float32(SPREADS.get(name, 5.0)) * noise
    fields["sst"][..., : domain.coarse.shape[1] // 2] = np.nan
    for name in ("t2m", "u10", "v10", "tp"):
        truth[name] = fields[name].repeat(ratio, 1).repeat(ratio, 2)
    truth["t2m"] = truth["t2m"] - np.float32(LAPSE_RATE) * excess
    store.write(times, {name: fields[name] for name in coarse}, {name: truth[name] for name in fine})
    return store
