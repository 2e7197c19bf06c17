"""The authors' fields in a store: written beside the truth, given again as by a downscaler."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from core.data.outputs import OutputsError, ingest_outputs, output_names
from core.data.store import Store, StoreError
from core.downscale import DownscaleError, StoredOutput, downscale_store, stored_outputs
from core.metrics.deterministic import rmse
from tests.published_layout import HOURS, output_rows
from tests.synthetic_store import make_store

MODELS = {"ERA5": 0.0, "COSMO-CLM": 0.0, "UNET": 0.5, "LDM_res": -0.25}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "days.zarr"
    make_store(path, HOURS, fine=("t2m", "u10", "v10", "tp"))
    return path


@pytest.fixture
def store(made_once: Path, tmp_path: Path) -> Store:
    return Store.open(shutil.copytree(made_once, tmp_path / "days.zarr"))


def save(table: pd.DataFrame, tmp_path: Path) -> Path:
    table.to_pickle(tmp_path / "results_trained_models_2mT.pkl")
    return tmp_path / "results_trained_models_2mT.pkl"


def test_fields_come_back_as_of_a_downscaler(store: Store, tmp_path: Path) -> None:
    report = ingest_outputs(save(output_rows(store, MODELS), tmp_path), store.path)
    assert report.sentences() == [
        "Published UNET 2mT (authors' output): 4 hours.",
        "Published LDM_res 2mT (authors' output): 4 hours.",
        "The truth in the table (COSMO-CLM) and that of the store differ by at most 0 (in the units of the "
        "variable) in 4 fields.",
    ]
    ldm, unet = stored_outputs(store)
    assert (ldm.label, unet.targets) == ("Published LDM_res 2mT (authors' output)", ("t2m",))
    assert not unet.stochastic
    assert unet.obstacles(store.contents, store.domain) == []
    for hours, fields in downscale_store(store, [ldm, unet], HOURS[1:], batch_hours=2):
        truth = store.read_fine(hours, ["t2m"])["t2m"]
        for item, offset in ((ldm, 0.25), (unet, 0.5)):
            assert float(rmse(fields[item.key]["t2m"], truth).mean()) == pytest.approx(offset, abs=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["days.zarr", "results_trained_models_2mT.pkl"]


def test_the_store_is_as_before_for_others(store: Store, made_once: Path, tmp_path: Path) -> None:
    ingest_outputs(save(output_rows(store, MODELS), tmp_path), store.path)
    found, before = Store.open(store.path), Store.open(made_once)
    assert found.contents == before.contents
    assert found.attrs == before.attrs
    assert found.validate() == before.validate()
    with xr.open_datatree(store.path, engine="zarr", consolidated=False) as tree:
        unet = tree["outputs/unet-2mt"]
        assert unet["t2m"].attrs["standard_name"] == "air_temperature"
        assert unet["t2m"].attrs["units"] == "K"
        assert unet.attrs["source_file"] == "results_trained_models_2mT.pkl"
        np.testing.assert_array_equal(unet["time"].values, HOURS)


def test_winds_beside_temperature_and_a_newer_table(store: Store, tmp_path: Path) -> None:
    ingest_outputs(save(output_rows(store, MODELS), tmp_path), store.path)
    report = ingest_outputs(save(output_rows(store, MODELS, "UV"), tmp_path), store.path)
    assert "WS10 left out: it follows from the other variables or is not known here." in report.notes
    assert output_names(store) == ("ldm-res-2mt", "ldm-res-uv", "unet-2mt", "unet-uv")
    before = {item.label: item.key for item in stored_outputs(store)}
    assert StoredOutput(store, "unet-uv").targets == ("u10", "v10")
    ingest_outputs(save(output_rows(store, {"UNET": 1.0}), tmp_path), store.path)
    after = {item.label: item.key for item in stored_outputs(store)}
    # What was kept of the old fields under their key is not mistaken for the new ones.
    assert {label for label in before if before[label] != after[label]} == {
        "Published UNET 2mT (authors' output)"
    }


def test_hours_that_it_does_not_have(store: Store, tmp_path: Path) -> None:
    table = output_rows(store, {"UNET": 0.0})
    ingest_outputs(save(table[table["time_step"] > "2016"], tmp_path), store.path)
    (unet,) = stored_outputs(store)
    coarse = store.read_coarse(HOURS[:1], [])
    with pytest.raises(
        DownscaleError, match=r"no field of 2014-12-28 03:00 UTC; it has 2016-05-02 11:00 UTC, "
    ):
        unet.downscale(coarse, None, store.domain)
    late = table.assign(time_step=table["time_step"] + pd.Timedelta("1D"))
    report = ingest_outputs(save(late, tmp_path), store.path)
    assert report.notes[0].startswith("4 hours are not in ")


def test_other_grids_and_values_are_refused(store: Store, tmp_path: Path) -> None:
    def refused(table: pd.DataFrame, sentence: str) -> None:
        with pytest.raises(OutputsError, match=sentence):
            ingest_outputs(save(table, tmp_path), store.path)
        assert not (store.path / "outputs").exists()

    table = output_rows(store, {"UNET": 0.0})
    small = table.assign(spat_distr=[torch.zeros(3, 4)] * len(table))
    refused(small, "UNET at 2014-12-28 03:00 UTC has 3 x 4 cells; .* has 64 x 64")
    refused(output_rows(store, {"UNET": -270.0}), "ranges from .* possible values are 180 to 340 K")
    refused(pd.concat([table, table]), "has 2mT of UNET at 2014-12-28 03:00 UTC twice")
    refused(output_rows(store, {"ERA5": 0.0, "COSMO-CLM": 0.0}), "no field of a model")
    wind = output_rows(store, {"UNET": 0.0}, "UV")
    refused(wind.drop(wind.index[1]), "has no v10 of UNET at 2014-12-28 03:00 UTC")
    two = output_rows(store, {"UNET": 0.0, "LDM_res": 0.0}, "UV")
    refused(two.drop(two.index[-3]), "has no u10 of LDM_res at 2016-05-02 12:00 UTC")
    refused(output_rows(store, {"UNET": 0.0, "unet": 0.0}), "model called 'unet', which can't be told")
    with pytest.raises(StoreError, match="no store"):
        ingest_outputs(save(table, tmp_path), tmp_path / "absent.zarr")


def test_a_group_of_something_else_is_left_out(store: Store, tmp_path: Path) -> None:
    ingest_outputs(save(output_rows(store, MODELS), tmp_path), store.path)
    (store.path / "outputs" / "unet-2mt" / "zarr.json").write_text("{}")
    assert [item.label for item in stored_outputs(store)] == ["Published LDM_res 2mT (authors' output)"]
    with pytest.raises(StoreError, match="holds no outputs called unet-2mt"):
        StoredOutput(store, "unet-2mt")


@pytest.mark.parametrize("damage", ["group", "x", "time", "t2m", "chunks"])
def test_a_damaged_group_does_not_keep_the_others_away(store: Store, tmp_path: Path, damage: str) -> None:
    ingest_outputs(save(output_rows(store, MODELS), tmp_path), store.path)
    place = store.path / "outputs" / "unet-2mt"
    if damage == "group":
        (place / "zarr.json").write_text("[]")
    elif damage == "chunks":
        for path in (place / "x" / "c").rglob("*"):
            path.write_bytes(b"junk")
    else:
        shutil.rmtree(place / damage)
    assert [item.label for item in stored_outputs(store)] == ["Published LDM_res 2mT (authors' output)"]
