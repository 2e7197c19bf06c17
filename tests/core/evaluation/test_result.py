"""Intervals of scores: pairs over common hours, too few blocks, models that lack a target."""

import numpy as np
import pytest
import xarray as xr

from core.downscale import from_checkpoint, interpolations
from core.evaluation.field_scores import SCORES
from core.evaluation.result import OWN, intervals, open_evaluation
from core.evaluation.run import evaluate_models
from tests.core.evaluation.test_run import FEW, OPTIONS
from tests.synthetic_store import make_store


def scores(**values) -> xr.Dataset:
    """Two models (of 2 members, of 1) with scores of hours that are a day apart; others are 0."""
    hours = len(next(iter(values.values()))[0])
    given = {name: np.array(values.get(name, np.zeros((2, hours))), float)[:, None] for name in OWN}
    dims = ("model", "target", "time")
    data = xr.Dataset({name: (dims, array) for name, array in given.items()})
    data["spectral_slope"] = ("source", "target", "time"), np.zeros((3, 1, hours))
    first = np.datetime64("2018-01-01", "ns")
    return data.assign_coords(
        model=["a", "b"],
        target=["t2m"],
        time=first + np.arange(hours) * np.timedelta64(1, "D"),
        members=("model", [2, 1]),
    )


def test_differences_are_of_the_hours_that_both_have() -> None:
    found = intervals(scores(rmse=[[1, 2, np.nan], [1, 2, 9]]), resamples=100).sel(target="t2m", score="rmse")
    assert found["summary"].sel(estimate="value").values.tolist() == [1.5, 4.0]
    assert (found["difference"] == 0).all()


def test_models_without_a_common_hour_have_no_difference() -> None:
    found = intervals(scores(rmse=[[1, np.nan], [np.nan, 3]]), resamples=100).sel(target="t2m", score="rmse")
    difference = found["difference"]
    assert difference.sel(model="a", other="b").isnull().all()
    assert difference.sel(model="a", other="a", estimate="value") == 0


def test_the_ratio_of_spread_and_skill_is_that_of_means() -> None:
    data = scores(
        ensemble_variance=[[1, 3], [np.nan, np.nan]],
        ensemble_mse=[[2, 4], [1, 1]],
        ensemble_rmse=[[1, 1]] * 2,
    )
    found = intervals(data, resamples=100)["summary"].sel(score="spread_skill_ratio", target="t2m")
    # sqrt((M + 1) / M * 2 / 3) with M = 2
    assert float(found.sel(model="a", estimate="value")) == pytest.approx(1.0)
    assert found.sel(model="b").isnull().all()


def test_one_block_says_nothing_about_other_hours() -> None:
    data = scores(rmse=[[1, 2, 3], [2, 3, 4]])
    for block_hours, known in ((24, True), (96, False)):
        found = intervals(data, block_hours=block_hours, resamples=100).sel(target="t2m", score="rmse")
        assert found["summary"].sel(estimate="value").values.tolist() == [2, 3]
        for name in ("summary", "difference"):
            assert (found[name].sel(estimate=["low", "high"]).notnull() == known).all()


def test_a_model_of_no_target_of_the_store_has_no_scores(tmp_path, save_unet) -> None:
    store = make_store(tmp_path / "winds.zarr", fine=("u10",))
    models = [interpolations()[0], from_checkpoint(save_unet(), device="cpu")]
    list(evaluate_models(store, models, store.hours[:1], tmp_path / "out", **OPTIONS))
    found = open_evaluation(tmp_path / "out")
    unet = found.sel(model=models[1].key)
    assert all(unet[name].isnull().all() for name in SCORES if name != "spectral_slope")
    assert found["ralsd"].sel(source=models[1].key).isnull().all()
    assert found["rmse"].sel(model=models[0].key).notnull().all()


def test_the_precision_is_said(store, tmp_path, save_ldm) -> None:
    ldm = from_checkpoint(save_ldm(), device="cpu", precision="bfloat16")
    list(evaluate_models(store, [ldm], store.hours[:1], tmp_path, members=1, sampling=FEW))
    sampling = open_evaluation(tmp_path).attrs["sampling"]
    assert sampling.endswith("seed 3; denoiser in bfloat16")
