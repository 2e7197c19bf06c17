"""A store and parents of the later stages, trained once for a few steps."""

from contextlib import contextmanager

import numpy as np
import pytest

from core.data.store import Store
from tests.synthetic_store import make_store
from tests.train import small
from train.ldm import train_ldm
from train.unet import train_unet
from train.vae import train_vae

READ, WRITE = Store._read, Store.write
KEPT = {}


@contextmanager
def fields_read_once():
    """Most of a tiny run is reading its store, and hundreds read the same hours of the same store."""

    def read_once(store, group, grid, hours, variables):
        times = store.hours if hours is None else np.asarray(hours, "datetime64[ns]")
        names = None if variables is None else tuple(variables)
        key = (store.path, group, times.tobytes(), names)
        if key not in KEPT:
            KEPT[key] = READ(store, group, grid, hours, names)
        return KEPT[key].copy(deep=True)

    def write_anew(store, *given, **options):
        KEPT.clear()
        return WRITE(store, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "_read", read_once)
        patch.setattr(Store, "write", write_anew)
        yield


# Not for the session: tests elsewhere, which share the process, change the files of stores they read.
@pytest.fixture(scope="module", autouse=True)
def quick_reading():
    with fields_read_once():
        yield
    KEPT.clear()


@pytest.fixture(scope="session")
def weather(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("train") / "weather.zarr")


@pytest.fixture(scope="session")
def unet_file(weather, tmp_path_factory):
    with fields_read_once():
        return train_unet(small.unet_config(), weather.path, tmp_path_factory.mktemp("unet") / "run")


@pytest.fixture(scope="session")
def vae_file(weather, unet_file, tmp_path_factory):
    with fields_read_once():
        return train_vae(small.vae_config(), weather.path, unet_file, tmp_path_factory.mktemp("vae") / "run")


@pytest.fixture(scope="session")
def ldm_run(weather, vae_file, tmp_path_factory):
    """An uninterrupted run: its file, and the reports."""
    reports = []
    folder = tmp_path_factory.mktemp("ldm") / "run"
    with fields_read_once():
        path = train_ldm(small.ldm_config(), weather.path, vae_file, folder, progress=reports.append)
    return path, reports


@pytest.fixture(scope="session")
def ldm_file(ldm_run):
    return ldm_run[0]
