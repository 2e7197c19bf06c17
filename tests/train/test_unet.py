"""train.unet from a store to a checkpoint file: resuming, choosing the best, and refusing in plain words."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from core.checkpoint import load
from core.data.samples import Normalization, split
from core.downscale import find_downscalers
from core.evaluate import evaluate_hours
from core.models.unet import UNet, UNetConfig
from core.variables import PREDICTORS
from tests.synthetic_store import hours_of_weeks, make_store
from train.config import load_config
from train.data import draw
from train.run_folder import TrainError, code_version
from train.schedule import cosine_factor
from train.unet import train_unet

SMALL = ["steps=12", "validate_every=4", "features=[4, 8]", "crop=32", "threads=1", "device=cpu"]


class Killed(Exception):
    """Stands for a kill: nothing of the run gets to clean up."""


def config(*overrides):
    return load_config("unet-tiny", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def store(weather):
    return weather


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    """An uninterrupted run: (folder, reports)."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    reports = []
    train_unet(config(), store.path, folder, progress=reports.append)
    return folder, reports


def same(one, two):
    """Whether two runs ended with the same weights, bit for bit, and chose the same."""
    for name in ("last.ckpt", "best.ckpt"):
        states = [torch.load(folder / name, weights_only=True)["state_dict"] for folder in (one, two)]
        if not all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items()):
            return False
    files = [load(folder / "unet-tiny.safetensors").tensors for folder in (one, two)]
    return all(torch.equal(tensor, files[1][key]) for key, tensor in files[0].items())


# --- the result -------------------------------------------------------------------------------------


def test_the_file_says_what_it_is(store, whole):
    folder, _ = whole
    checkpoint = load(folder / "unet-tiny.safetensors")
    header = checkpoint.header
    assert (header.kind, header.label, tuple(header.targets)) == ("unet", "UNet (tiny)", ("t2m",))
    assert tuple(header.predictors) == PREDICTORS
    assert header.domain == store.domain.to_dict()
    assert header.models["unet"]["features"] == [4, 8]
    said = header.provenance
    assert said["data_fingerprint"] == "tests-0"
    assert said["data_title"] == "Invented weather for tests"
    assert said["synthetic"] is True
    assert said["split"] == split(store.hours).describe()
    assert (said["train_hours"], said["validation_hours"]) == (28, 4)
    assert said["torch_version"] == torch.__version__
    assert said["code_version"] == code_version()
    assert said["config"]["learning_rate"] == 3e-3
    assert said["steps"] in (4, 8, 12)
    assert said["epochs"] == said["steps"] * 2 / 28
    assert said["steps_in_all"] == 12


def test_the_losses_in_the_file_are_those_of_its_weights(store, whole):
    folder, _ = whole
    checkpoint = load(folder / "unet-tiny.safetensors")
    net = UNet(UNetConfig.model_validate(checkpoint.header.models["unet"]))
    checkpoint.restore("unet", net)
    net.eval()
    normalization = checkpoint.header.normalization
    hours = draw(split(store.hours).validation, 4, seed=0)
    static = normalization.statics_to_tensor(store.read_static())[None]
    with torch.no_grad():
        result = net(normalization.predictors_to_tensor(store.read_coarse(hours)), static)
    kelvin = normalization.targets_from_tensor(result, ("t2m",))[:, 0].double().numpy()
    rmse = np.sqrt(np.mean((kelvin - store.read_fine(hours)["t2m"].values) ** 2))
    assert checkpoint.header.provenance["validation_rmse"]["t2m"] == pytest.approx(rmse, rel=1e-4)


def test_training_lowers_the_loss(store, tmp_path):
    # The fine fields are the coarse ones and a term linear in the orography: quickly learnt.
    settings = config("steps=150", "validate_every=50", "batch=4", "learning_rate=1e-2", "features=[8, 16]")
    said = load(train_unet(settings, store.path, tmp_path / "run")).header.provenance
    losses = list(said["validation_losses"].values())
    assert losses[-1] < 0.5 * losses[0]
    assert said["validation_loss"] < 0.3


def test_the_file_holds_the_best_round(store, tmp_path):
    # The first round is the best: the statistics of the normalisation can't follow this learning rate.
    settings = config("learning_rate=0.03", "schedule=constant", "validate_every=2")
    said = load(train_unet(settings, store.path, tmp_path / "run")).header.provenance
    losses = list(said["validation_losses"].values())
    best = int(np.argmin(losses))
    assert best != len(losses) - 1
    assert said["validation_loss"] == losses[best]
    assert said["steps"] == (best + 1) * 2


def test_training_stops_early_without_improvement(store, tmp_path):
    settings = config("learning_rate=0.03", "schedule=constant", "steps=80", "validate_every=2", "patience=2")
    said = load(train_unet(settings, store.path, tmp_path / "run")).header.provenance
    losses = list(said["validation_losses"].values())
    assert said["steps_in_all"] < 80
    assert len(losses) == int(np.argmin(losses)) + 1 + 2


def test_statistics_stand_still_after_the_first_steps(store, tmp_path):
    settings = config("batchnorm_steps=4")
    with pytest.raises(Killed):
        train_unet(settings, store.path, tmp_path / "run", progress=kill_at(9))
    states = [torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]]
    train_unet(settings, store.path, tmp_path / "run")
    states.append(torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"])
    for name, tensor in states[0].items():
        still = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(tensor, states[1][name]) is still, name
        if name.endswith("num_batches_tracked"):
            assert tensor == 4
    train_unet(settings, store.path, tmp_path / "whole")
    assert same(tmp_path / "run", tmp_path / "whole")


def test_the_file_runs_as_a_downscaler(store, whole):
    (downscaler,), unreadable = find_downscalers(whole[0])
    assert unreadable == []
    assert downscaler.obstacles(store.contents, store.domain) == []
    hours = draw(split(store.hours).validation, 4, seed=0)
    scores = evaluate_hours(store, [downscaler], hours)
    pooled = float((scores["rmse"] ** 2).mean() ** 0.5)
    said = load(whole[0] / "unet-tiny.safetensors").header.provenance
    assert pooled == pytest.approx(said["validation_rmse"]["t2m"], rel=1e-4)


def test_several_targets_and_half_precision(tmp_path):
    store = make_store(tmp_path / "a.zarr", fine=("t2m", "u10", "v10"))
    settings = config("targets=[u10, v10]", "storage=float16", "steps=4")
    checkpoint = load(train_unet(settings, store.path, tmp_path / "run"))
    assert tuple(checkpoint.header.targets) == ("u10", "v10")
    assert set(checkpoint.header.provenance["validation_rmse"]) == {"u10", "v10"}
    head = next(tensor for name, tensor in checkpoint.tensors.items() if name.endswith("head.weight"))
    assert head.shape == (2, 4, 1, 1)


def test_the_time_budget_ends_training_with_a_validation(store, tmp_path, monkeypatch):
    # A clock on which a step takes one second and a validation of four hours ten.
    clock = [0.0]
    monkeypatch.setattr("train.task.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def tick(status):
        if status.stage == "Validation":
            clock[0] += 2.5
        elif status.stage == "Training" and status.done != ticked[-1]:
            ticked.append(status.done)
            clock[0] += 1

    ticked = [0]
    settings = config(f"max_minutes={55 / 60}", "steps=4000", "validate_every=10", "crop=16")
    path = train_unet(settings, store.path, tmp_path / "run", progress=tick)
    said = load(path).header.provenance
    # Rounds of 10 steps end at 20 s and 40 s; 5 more steps leave the 10 s that the validation takes.
    assert list(said["validation_losses"]) == ["10", "20", "25"]
    assert said["minutes_in_all"] * 60 == pytest.approx(55)
    # The cosine has come down with the time, although few of the steps were made.
    state = torch.load(path.parent / "last.ckpt", weights_only=True)
    expected = settings.learning_rate * cosine_factor(44 / 45)
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(expected)
    # A finished run is not begun again.
    assert train_unet(settings, store.path, tmp_path / "run", progress=pytest.fail) == path


def test_the_random_split_is_told(store, tmp_path):
    said = load(train_unet(config("split=random", "steps=4"), store.path, tmp_path / "run")).header.provenance
    assert said["split_method"] == "random"
    assert "seed 42" in said["split"]


# --- progress ---------------------------------------------------------------------------------------


def test_reports_count_what_was_done(whole):
    _, reports = whole
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages == [
        "Normalisation",
        "Reading training hours",
        "Reading validation hours",
        "Training",
        "Validation",
    ]
    training = [report for report in reports if report.stage == "Training"]
    assert next(report.done for report in training if report.train_loss is not None) == 1
    assert sorted({report.done for report in training}) == list(range(1, 13))
    assert {report.total for report in training} == {12}
    assert training[0].seconds_left is None
    assert training[-1].done == 12
    assert training[-1].seconds_left == pytest.approx(0)
    assert training[-1].validation_loss is not None
    assert training[-1].rmse["t2m"] > 0


def test_the_logs_have_a_line_a_round(whole):
    folder, _ = whole
    assert len(rounds_logged(folder)) == 3


# --- resuming ---------------------------------------------------------------------------------------


def kill_at(step):
    def kill(status):
        if status.stage == "Training" and status.done == step:
            raise Killed

    return kill


@pytest.mark.parametrize("step", [2, 5, 8])
def test_a_stopped_run_ends_with_the_same_weights(store, whole, tmp_path, step):
    with pytest.raises(Killed):
        train_unet(config(), store.path, tmp_path / "run", progress=kill_at(step))
    reports = []
    path = train_unet(config(), store.path, tmp_path / "run", progress=reports.append)
    assert same(path.parent, whole[0])
    first = next(report.done for report in reports if report.stage == "Training")
    assert first == (step - 1) // 4 * 4 + 1
    assert "Normalisation" not in {report.stage for report in reports}


def test_a_stopped_run_remembers_its_losses(store, tmp_path):
    # Patience and plateau depend on rounds before the kill.
    settings = config("schedule=plateau", "learning_rate=0.03", "steps=40", "validate_every=2", "patience=7")
    expected = train_unet(settings, store.path, tmp_path / "whole")
    said = load(expected).header.provenance
    assert said["steps_in_all"] == 16
    rates = [float(line.split(",")[1]) for line in rounds_logged(tmp_path / "whole")]
    assert rates[0] == pytest.approx(0.03)
    assert rates[-1] == pytest.approx(0.03 / 4)
    with pytest.raises(Killed):
        train_unet(settings, store.path, tmp_path / "run", progress=kill_at(13))
    path = train_unet(settings, store.path, tmp_path / "run")
    assert same(tmp_path / "run", tmp_path / "whole")
    assert load(path).header.provenance["validation_losses"] == said["validation_losses"]


def rounds_logged(folder, version=0):
    lines = (folder / "logs" / f"version_{version}" / "metrics.csv").read_text().strip().splitlines()
    assert lines[0].startswith("epoch,learning_rate,")
    return lines[1:]


def test_a_killed_process_resumes(store, whole, tmp_path):
    script = (
        "import sys, os\n"
        "from train.config import load_config\n"
        "from train.unet import train_unet\n"
        "def report(status):\n"
        "    if status.stage == 'Training' and status.done == 7:\n"
        "        print('at step 7', flush=True)\n"
        "        sys.stdin.read()\n"
        f"settings = load_config('unet-tiny', {SMALL!r})\n"
        f"train_unet(settings, {str(store.path)!r}, {str(tmp_path / 'run')!r}, progress=report)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    with process:
        assert process.stdout.readline() == "at step 7\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "run" / "unet-tiny.safetensors").exists()
    path = train_unet(config(), store.path, tmp_path / "run")
    assert same(path.parent, whole[0])


def test_an_interrupt_is_passed_on_and_the_run_resumes(store, whole, tmp_path):
    def interrupt(status):
        if status.stage == "Training" and status.done == 6:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_unet(config(), store.path, tmp_path / "run", progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    path = train_unet(config(), store.path, tmp_path / "run")
    assert same(path.parent, whole[0])


@pytest.mark.parametrize(
    "overrides", [(), ("learning_rate=0.03", "schedule=constant", "validate_every=2", "patience=2")]
)
def test_a_kill_between_training_and_the_file_costs_no_training(store, tmp_path, overrides):
    folder = tmp_path / "run"
    path = train_unet(config(*overrides), store.path, folder)
    before = path.read_bytes()
    path.unlink()
    reports = []
    assert train_unet(config(*overrides), store.path, folder, progress=reports.append) == path
    assert path.read_bytes() == before
    assert "Training" not in {report.stage for report in reports}


def test_settings_of_the_machine_may_change(store, whole, tmp_path):
    with pytest.raises(Killed):
        train_unet(config(), store.path, tmp_path / "run", progress=kill_at(5))
    path = train_unet(config("cache_gb=0", "workers=1"), store.path, tmp_path / "run")
    assert same(path.parent, whole[0])


def test_another_config_is_refused(store, whole):
    folder, _ = whole
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    with pytest.raises(
        TrainError, match=r"another config: batch was 2 and is 3; seed was 0 and is 1\. Go back"
    ):
        train_unet(config("batch=3", "seed=1"), store.path, folder)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before


def test_other_data_is_refused(whole, tmp_path):
    grown = make_store(tmp_path / "grown.zarr", hours_of_weeks(21, 2))
    with pytest.raises(TrainError, match="its hours have changed since"):
        train_unet(config(), grown.path, whole[0])


def test_starting_over_removes_the_run_that_is_there(store, tmp_path):
    folder, settings = tmp_path / "run", config("steps=4", "seed=5")
    path = train_unet(config("steps=4"), store.path, folder)
    with pytest.raises(Killed):
        train_unet(settings, store.path, folder, resume=False, progress=kill_at(2))
    assert not path.exists()
    assert train_unet(settings, store.path, folder) == path
    said = load(path).header.provenance
    assert said["config"]["seed"] == 5
    assert said["steps_in_all"] == 4


def test_a_folder_of_something_else_is_left_alone(store, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for resume in (True, False):
        with pytest.raises(TrainError, match="holds no training run"):
            train_unet(config(), store.path, tmp_path, resume=resume)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(TrainError, match="not the record of a training run"):
        train_unet(config(), store.path, tmp_path, resume=False)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


# --- bad input --------------------------------------------------------------------------------------


def refused(store, folder, message, settings=None):
    with pytest.raises(ValueError, match=message):
        train_unet(settings or config(), store.path, folder)
    assert not folder.exists()


def test_stores_that_lack_something_are_refused(tmp_path):
    few = hours_of_weeks(2, 2)
    predictors = tuple(name for name in PREDICTORS if name not in ("sst", "w850"))
    cases = {
        "the predictor sst, the predictor w850": {"coarse": predictors},
        "the fine truth t2m": {"fine": ()},
        "the static field orography, the static field land_cover": {"static": False},
        "too few hours to train on. Split by .* 4 hours to train, 0 to validate": {},
    }
    for number, (message, options) in enumerate(cases.items()):
        store = make_store(tmp_path / f"{number}.zarr", few, **options)
        refused(store, tmp_path / "run", message)


def test_missing_values_are_found_before_anything_is_written(tmp_path):
    store = make_store(tmp_path / "a.zarr")
    hour = split(store.hours).train[3:4]
    fine = store.read_fine(hour)
    fine["t2m"][0, 3, 3] = np.nan
    store.write(hour, store.read_coarse(hour).drop_vars("orography"), fine)
    refused(store, tmp_path / "run", "t2m has missing values")


def test_devices_and_crops_that_are_not_there(store, tmp_path):
    if not torch.cuda.is_available():
        refused(store, tmp_path / "run", "asks for device cuda, and torch finds none", config("device=cuda"))
    refused(store, tmp_path / "run", "Crops of 128 fine pixels don't fit", config("crop=128"))
    deep = config("features=[2, 2, 2, 2, 2, 2, 2]", "crop=null")
    refused(store, tmp_path / "run", "64 x 64 fine cells; .* multiples of 128", deep)


def test_a_diverging_loss_is_a_sentence(store, tmp_path):
    settings = config("learning_rate=1e30", "schedule=constant", "batchnorm_momentum=1")
    with pytest.raises(TrainError, match="smaller learning_rate"):
        train_unet(settings, store.path, tmp_path / "run")
    assert not (tmp_path / "run" / "unet-tiny.safetensors").exists()


def test_validation_hours_are_drawn_once_and_ascending():
    hours = hours_of_weeks(10, 24)
    drawn = draw(hours, 50, seed=3)
    np.testing.assert_array_equal(drawn, draw(hours, 50, seed=3))
    assert (np.diff(drawn) > np.timedelta64(0)).all()
    assert len({hour.astype("datetime64[h]").astype(int) % 24 for hour in drawn}) > 15
    np.testing.assert_array_equal(draw(hours, 1000, seed=3), hours)


def test_the_record_can_be_read_by_people(whole):
    record = json.loads((whole[0] / "run.json").read_text())
    assert record["config"]["features"] == [4, 8]
    assert Normalization.model_validate(record["normalization"]).sst_fill == -10
