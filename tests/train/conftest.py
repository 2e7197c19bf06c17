"""A store and parents of the later stages, trained once for a few steps."""

import numpy as np
import pytest

from core.data.store import Store
from tests.synthetic_store import make_store
from tests.train import small
from train.ldm import train_ldm
from train.unet import train_unet
from train.vae import train_vae


@pytest.fixture(scope="session", autouse=True)
def fields_read_once():
    """Most of a tiny run is reading its store, and hundreds read the same hours of the same store."""
    kept, read, write = {}, Store._read, Store.write

    def read_once(store, group, grid, hours, variables):
        times = store.hours if hours is None else np.asarray(hours, "datetime64[ns]")
        names = None if variables is None else tuple(variables)
        key = (store.path, group, times.tobytes(), names)
        if key not in kept:
            kept[key] = read(store, group, grid, hours, names)
        return kept[key].copy(deep=True)

    def write_anew(store, *given, **options):
        kept.clear()
        return write(store, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "_read", read_once)
        patch.setattr(Store, "write", write_anew)
        yield


@pytest.fixture(scope="session")
def weather(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("train") / "weather.zarr")


@pytest.fixture(scope="session")
def unet_file(weather, tmp_path_factory):
    return train_unet(small.unet_config(), weather.path, tmp_path_factory.mktemp("unet") / "run")


@pytest.fixture(scope="session")
def vae_file(weather, unet_file, tmp_path_factory):
    return train_vae(small.vae_config(), weather.path, unet_file, tmp_path_factory.mktemp("vae") / "run")


@pytest.fixture(scope="session")
def ldm_run(weather, vae_file, tmp_path_factory):
    """An uninterrupted run: its file, and the reports."""
    reports = []
    folder = tmp_path_factory.mktemp("ldm") / "run"
    path = train_ldm(small.ldm_config(), weather.path, vae_file, folder, progress=reports.append)
    return path, reports


@pytest.fixture(scope="session")
def ldm_file(ldm_run):
    return ldm_run[0]
