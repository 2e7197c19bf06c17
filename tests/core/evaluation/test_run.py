"""Runs over models and hours: what comes out, going on after a stop, several processes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from core.data.store import Store
from core.downscale import GenerativeDownscaler, Sampling, collect, from_checkpoint, interpolations
from core.evaluation import run as runs
from core.evaluation.result import open_evaluation
from core.evaluation.run import evaluate_models
from core.evaluation.tally import EvaluationError
from core.file_lock import claimed
from core.metrics.registry import METRICS
from tests.synthetic_store import DOMAIN, make_store

SaveModel = Callable[..., Path]
FEW = Sampling(sampler="ddim", steps=2, seed=3)
OPTIONS = {"members": 3, "sampling": FEW, "block_hours": 2, "resamples": 50}


@pytest.fixture
def models(save_ldm: SaveModel, save_unet: SaveModel) -> list:
    return [
        interpolations()[0],
        from_checkpoint(save_unet(), device="cpu"),
        from_checkpoint(save_ldm(), device="cpu"),
    ]


def run(store: Store, models: list, folder: Path, **options) -> xr.Dataset:
    list(evaluate_models(store, models, store.hours, folder, **OPTIONS | options))
    return open_evaluation(folder)


def test_scores_are_those_of_the_fields(store: Store, models: list, tmp_path: Path) -> None:
    found = run(store, models, tmp_path, command="tramontana evaluate ...")
    ldm = models[2]
    coarse, static = store.read_coarse(), store.read_static()
    members = collect(ldm.sample(coarse, static, DOMAIN, range(3), FEW))["t2m"].transpose("time", ...)
    truth = store.read_fine()["t2m"]
    own = found.sel(model=ldm.key, target="t2m")
    for name in ("crps", "ensemble_rmse"):
        np.testing.assert_allclose(own[name], METRICS[name](members, truth), rtol=1e-5)
    for name in ("rmse", "bias", "r2"):
        np.testing.assert_allclose(own[name], METRICS[name](members, truth).mean("member"), rtol=1e-4)
    bias = (members - truth).mean(("time", "member"))
    np.testing.assert_allclose(own["bias_map"], bias, atol=1e-4)
    spread = members.astype("f8").var("member", ddof=1).mean("time") ** 0.5
    np.testing.assert_allclose(own["spread_map"], spread, rtol=1e-4)
    histogram = METRICS["rank_histogram"](members, truth, reduce=("time", "y", "x"))
    np.testing.assert_allclose(own["rank_histogram"], histogram, atol=1e-3)
    ratio = METRICS["spread_skill_ratio"](members, truth, reduce=("time", "y", "x"))
    value, low, high = own["summary"].sel(score="spread_skill_ratio").values
    assert value == pytest.approx(float(ratio), rel=1e-4)
    assert low <= value <= high
    assert found["kind"].values.tolist() == ["interpolation", "unet", "ldm_res"]
    assert found["members"].values.tolist() == [1, 1, 3]
    np.testing.assert_allclose(found["histogram"].sum("bin").sel(surface="land"), 1)
    assert (found["seconds"] > 0).all()
    facts = json.loads(found.attrs["models"])[ldm.key]
    assert facts["file"] == "ldm.safetensors"
    assert facts["parameters"] > 0
    assert found.attrs["synthetic"] == 1
    assert found.attrs["command"] == "tramontana evaluate ..."
    snapshot = found["snapshot"].sel(source=ldm.key, target="t2m")
    expected = members.sel(member=0, time=found["snapshot_time"].values)
    np.testing.assert_allclose(snapshot, expected, atol=1e-3)


def test_differences_are_of_the_same_hours(store: Store, models: list, tmp_path: Path) -> None:
    found = run(store, models, tmp_path)
    quadratic, unet = (model.key for model in models[:2])
    value = found["difference"].sel(model=unet, other=quadratic, target="t2m", score="mae")
    errors = found["mae"].sel(target="t2m").mean("time")
    assert float(value.sel(estimate="value")) == pytest.approx(
        float(errors.sel(model=unet) - errors.sel(model=quadratic))
    )
    itself = found["difference"].sel(model=unet, other=unet, target="t2m", score="mae")
    assert (itself == 0).all()


def test_numbers_do_not_depend_on_the_batch(store: Store, models: list, tmp_path: Path) -> None:
    one, other = (run(store, models[2:], tmp_path / str(batch), batch=batch) for batch in (1, 7))
    for name in ("rmse", "crps", "flux_error", "spectral_slope_loss", "rmse_map", "ralsd"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_a_stopped_run_goes_on(
    store: Store, models: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SAVE_SECONDS", 0.0)
    whole = run(store, models, tmp_path / "whole")
    sampled: list[int] = []
    original = GenerativeDownscaler.sample

    def counting(self, coarse, *arguments, **options):
        sampled.append(coarse.sizes["time"])
        return original(self, coarse, *arguments, **options)

    monkeypatch.setattr(GenerativeDownscaler, "sample", counting)
    stopped = evaluate_models(store, models, store.hours, tmp_path / "parted", **OPTIONS, batch=3)
    for event in stopped:
        if event.label.startswith("LDM") and (tmp_path / "parted" / "parts" / f"{models[2].key}.nc").exists():
            break
    stopped.close()
    assert not (tmp_path / "parted" / "evaluation.nc").exists()
    parted = run(store, models, tmp_path / "parted", batch=3)
    assert sampled == [5, 4]
    for name in ("rmse", "crps", "rmse_map", "histogram", "rank_histogram", "summary"):
        np.testing.assert_allclose(parted[name], whole[name], rtol=1e-5, atol=1e-7)


def test_a_model_more_is_the_only_one_computed(
    store: Store, models: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(store, models[2:], tmp_path)
    monkeypatch.setattr(GenerativeDownscaler, "sample", None)
    found = run(store, models, tmp_path)
    assert found.sizes["model"] == 3


def test_progress_rises_to_its_end(store: Store, models: list, tmp_path: Path) -> None:
    events = list(evaluate_models(store, models, store.hours, tmp_path, **OPTIONS))
    own = [event.done for event in events if event.label != "Truth"]
    assert own == sorted(own)
    assert own[-1] == events[-1].total == 5 + 5 + 15


def test_another_evaluation_is_refused(store: Store, models: list, tmp_path: Path) -> None:
    run(store, models[:1], tmp_path)
    with pytest.raises(EvaluationError, match="another evaluation; it differs in: hours"):
        list(evaluate_models(store, models[:1], store.hours[:2], tmp_path))
    list(evaluate_models(store, models[:1], store.hours[:2], tmp_path, fresh=True))
    (tmp_path / "parts" / "quadratic.nc").write_bytes(b"broken")
    with pytest.raises(EvaluationError, match=r"quadratic\.nc can't be read"):
        list(evaluate_models(store, models[:1], store.hours[:2], tmp_path))


def test_a_model_that_another_process_works_on_is_waited_for(
    store: Store, models: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "WAIT_SECONDS", 0.0)
    events = evaluate_models(store, models[:2], store.hours, tmp_path, **OPTIONS)
    with claimed(tmp_path / "parts" / ".quadratic.lock") as free:
        assert free
        labels = []
        for event in events:
            labels.append(event.label)
            if "another process" in event.label:
                break
    assert "UNet (unet)" in labels
    list(events)
    assert open_evaluation(tmp_path).sizes["model"] == 2


def test_what_can_not_be_evaluated_is_said(store: Store, models: list, tmp_path: Path) -> None:
    for downscalers, hours, sentence in (
        ([], store.hours, "at least one hour"),
        (models, [], "at least one hour"),
        (models[:1] * 2, store.hours, "named twice"),
    ):
        with pytest.raises(EvaluationError, match=sentence):
            list(evaluate_models(store, downscalers, hours, tmp_path / "a"))
    bare = make_store(tmp_path / "bare.zarr", store.hours, fine=())
    with pytest.raises(EvaluationError, match="no fine truth"):
        list(evaluate_models(bare, models[:1], store.hours, tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    with pytest.raises(EvaluationError, match=r"evaluate STORE --out"):
        open_evaluation(tmp_path)


def test_models_of_other_targets_may_be_added(tmp_path: Path, save_unet: SaveModel) -> None:
    store = make_store(tmp_path / "winds.zarr", fine=("t2m", "u10"))
    hours = store.hours[:2]
    unet = from_checkpoint(save_unet(), device="cpu")
    list(evaluate_models(store, [unet], hours, tmp_path / "out"))
    assert open_evaluation(tmp_path / "out")["target"].values.tolist() == ["t2m"]
    list(evaluate_models(store, [unet, interpolations()[0]], hours, tmp_path / "out"))
    found = open_evaluation(tmp_path / "out")
    assert found["target"].values.tolist() == ["t2m", "u10"]
    assert found["rmse"].sel(model=unet.key, target="u10").isnull().all()
