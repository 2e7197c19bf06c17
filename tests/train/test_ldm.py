"""train.ldm: the file, its loss, averages, latents on disk, resuming, and refusing in plain words."""

import json

import numpy as np
import pytest
import torch

from core.checkpoint import load
from core.data.samples import split
from core.diffusion.losses import diffusion_loss
from core.diffusion.noise import member_noise
from core.diffusion.schedule import Schedule
from core.downscale import find_downscalers
from core.models.latent_diffusion import PARTS, LatentDiffusion, LatentDiffusionConfig
from tests.train import small
from train.data import draw
from train.diffusion import GOLDEN, DiffusionTask
from train.latents import LatentDataset, encode_hours
from train.ldm import build_network, train_ldm
from train.residuals import Means, frozen_unet
from train.run_folder import TrainError


@pytest.fixture
def whole(ldm_run):
    """An uninterrupted run: its file, and the reports."""
    return ldm_run


def model_of(path):
    checkpoint = load(path)
    config = LatentDiffusionConfig.model_validate(checkpoint.header.models)
    model = LatentDiffusion(config)
    for part in PARTS:
        checkpoint.restore(part, model.get_submodule(part))
    return checkpoint, model.eval()


def task(weather, vae_file, *overrides):
    settings = small.ldm_config(*overrides)
    parent = load(vae_file)
    network = build_network(settings, parent)
    static = parent.header.normalization.statics_to_tensor(weather.read_static())[None]
    return DiffusionTask(
        settings,
        network,
        static,
        weather.hours[:2],
        None,
        parent.header.normalization,
        ("t2m",),
        weather.domain,
    )


def test_the_file_says_what_it_is(whole, vae_file, weather):
    path, _ = whole
    header = load(path).header
    assert (header.kind, header.label, tuple(header.models)) == ("ldm_res", "LDM_res (tiny)", PARTS)
    assert header.provenance["parents"]["vae"]["sha256"] == load(vae_file).file_hash
    assert "unet" in header.provenance["parents"]["vae"]["parents"]
    scores = header.provenance["sampled_scores"]
    assert set(scores) == {"sample_rmse_t2m", "sample_slope_t2m", "mean_rmse_t2m", "mean_slope_t2m"}
    (downscaler,), unreadable = find_downscalers(path.parent)
    assert unreadable == []
    assert downscaler.obstacles(weather.contents, weather.domain) == []


def test_unet_and_vae_stand_still(whole, vae_file):
    before, after = load(vae_file).tensors, load(whole[0]).tensors
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_the_file_holds_the_averages_of_the_best_round(whole):
    path, _ = whole
    state = torch.load(path.parent / "best.ckpt", weights_only=True)
    tensors = load(path).tensors
    average = state["run"]["extra"]["averages"]["denoiser"]
    assert average["updates"] == state["run"]["history"][-1]["steps"]
    for name, tensor in average["average"].items():
        assert torch.equal(tensors[f"denoiser.{name}"], tensor)
    raw = {k: w for k, w in state["state_dict"].items() if k.startswith("model.denoiser.")}
    assert any(not torch.equal(tensors[k.removeprefix("model.")], w) for k, w in raw.items())


def test_the_stated_loss_is_that_of_the_file(whole, weather):
    path, _ = whole
    checkpoint, model = model_of(path)
    normalization = checkpoint.header.normalization
    hours = draw(split(weather.hours).validation, 2, seed=0)
    coarse = normalization.predictors_to_tensor(weather.read_coarse(hours))
    static = normalization.statics_to_tensor(weather.read_static())[None]
    truth = normalization.targets_to_tensor(weather.read_fine(hours), ("t2m",))
    losses = []
    with torch.no_grad():
        z0 = model.vae.encode(truth - model.mean(coarse, static)).mean.half().float()
        for k, hour in enumerate(hours):
            one = slice(k, k + 1)
            context = model.condition(coarse[one], static)
            for place in range(4):
                t = torch.tensor([int((place + k * GOLDEN % 1) / 4 * 1000)])
                noise = member_noise(z0.shape[1:], seed=0, hour=hour, member=place)[None]
                made = diffusion_loss(
                    lambda z, at, c=context: model.denoise(z, at, c), z0[one], noise, t, Schedule()
                )
                losses.append(float(made.losses))
    assert checkpoint.header.provenance["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-3)


def test_the_stated_sample_is_that_of_the_downscaler(whole, weather):
    from core.downscale import Sampling
    from core.downscale.sampling import collect

    path, _ = whole
    (downscaler,), _ = find_downscalers(path.parent)
    said = downscaler.header.provenance
    hours = np.array(said["sampled_hours"], "datetime64[ns]")
    made = collect(
        downscaler.sample(
            weather.read_coarse(hours), weather.read_static(), weather.domain, [0], Sampling(steps=4, seed=0)
        )
    )
    error = made["t2m"].isel(member=0).values.astype(float) - weather.read_fine(hours)["t2m"].values
    assert said["sampled_scores"]["sample_rmse_t2m"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)


def test_training_lowers_the_loss(weather, vae_file, tmp_path):
    settings = small.ldm_config(
        "steps=30", "validate_every=15", "learning_rate=1e-2", "batch=2", "sample_every=null"
    )
    said = load(train_ldm(settings, weather.path, vae_file, tmp_path / "run")).header.provenance
    losses = said["validation_losses"]
    # Latents have variance 1, so a denoiser that says nothing has a loss of about 1.
    assert losses["30"] < min(0.98, losses["15"])


def test_samples_are_drawn_in_the_rounds_that_are_asked_for(whole, weather, vae_file, tmp_path):
    settings = small.ldm_config("sample_every=2")
    path = train_ldm(settings, weather.path, vae_file, tmp_path / "run")
    history = torch.load(path.parent / "last.ckpt", weights_only=True)["run"]["history"]
    assert ["sample_rmse_t2m" in entry for entry in history] == [False, True, True]


def test_reports_follow_all_stages(whole):
    stages = list(dict.fromkeys(report.stage for report in whole[1]))
    assert stages == ["Latents of training hours", "Latents of validation hours", "Training", "Validation"]


# --- windows, times, latents ------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_windows_of_latents_predictors_and_statics_belong_together(weather, vae_file, shared):
    made = task(weather, vae_file, f"shared_window={shared}", "batch=3")
    height, width = weather.domain.fine.shape
    place = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    made.static = place
    corner = place[..., ::8, ::8].expand(3, -1, -1, -1)
    places = set()
    for number in range(20):
        cut = made._cut({"latent": corner, "coarse": corner}, range(3 * number, 3 * number + 3))
        latent, coarse, static = cut["latent"], cut["coarse"], cut["static"]
        assert latent.shape[-2:] == (4, 4)
        assert static.shape == (1 if shared else 3, 1, 32, 32)
        torch.testing.assert_close(latent, coarse)
        torch.testing.assert_close(static[..., ::8, ::8].expand_as(latent), latent)
        places |= {float(sample[0, 0, 0]) for sample in latent}
        assert len({float(sample[0, 0, 0]) for sample in latent}) == 1 or not shared
    assert len(places) > 10


def test_stratified_times_come_one_from_each_part(weather, vae_file):
    made = task(weather, vae_file, "times=stratified", "batch=8")
    for number in range(20):
        t, _ = made._draws(range(8 * number, 8 * number + 8), torch.Size([1]))
        assert (t // 125).tolist() == list(range(8))
    uniform, _ = task(weather, vae_file)._draws(range(2000), torch.Size([1]))
    assert uniform.min() < 5
    assert 995 <= uniform.max() <= 999
    assert abs(float(uniform.double().mean()) - 499.5) < 25


def test_latents_are_encoded_once_and_a_kill_keeps_what_is_done(weather, vae_file, tmp_path, monkeypatch):
    checkpoint = load(vae_file)
    model = build_network(small.ldm_config(), checkpoint)
    means = Means(frozen_unet(checkpoint), weather, checkpoint.header.normalization, ("t2m",), "cpu")
    hours = weather.hours[:7]
    monkeypatch.setattr("train.latents.HOURS_READ", 3)

    def kill(done, total):
        if done == 5:
            raise small.Killed

    seen = []
    with pytest.raises(small.Killed):
        encode_hours(tmp_path, "train", hours, means, model.vae, kill)
    encoded = encode_hours(tmp_path, "train", hours, means, model.vae, lambda done, total: seen.append(done))
    assert seen == [4, 5, 6, 7]
    encode_hours(tmp_path, "train", hours, means, model.vae, pytest.fail)
    normalization = checkpoint.header.normalization
    (fields, truth, mean), *_ = means.hours(hours[6:])
    with torch.no_grad():
        expected = model.vae.encode(truth - mean).mean[0]
    item = LatentDataset(encoded)[(3, 6)]
    torch.testing.assert_close(item["latent"], expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(item["coarse"], fields[0])
    assert item["position"] == 6
    assert tuple(normalization.predictors) == checkpoint.header.predictors


def test_latents_are_removed_when_the_file_is_written(whole):
    assert not (whole[0].parent / "cache").exists()


# --- resuming ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [False, True])
def test_a_stopped_run_ends_with_the_same_weights(weather, vae_file, whole, tmp_path, average):
    settings, expected = small.ldm_config(), whole[0]
    if average:
        settings = small.ldm_config("ema_conditioner=true", "sample_every=null")
        expected = train_ldm(settings, weather.path, vae_file, tmp_path / "whole")
    with pytest.raises(small.Killed):
        train_ldm(settings, weather.path, vae_file, tmp_path / "run", progress=small.kill_at(5))
    reports = []
    path = train_ldm(settings, weather.path, vae_file, tmp_path / "run", progress=reports.append)
    assert small.same_state(path.parent, expected.parent)
    assert small.same_file(path, expected)
    assert not any(report.stage.startswith("Latents") for report in reports)


def test_a_finished_run_is_not_repeated(weather, vae_file, whole):
    assert (
        train_ldm(small.ldm_config(), weather.path, vae_file, whole[0].parent, progress=pytest.fail)
        == whole[0]
    )


def test_the_record_names_the_parent(whole, vae_file):
    record = json.loads((whole[0].parent / "run.json").read_text())
    assert record["data"]["vae"] == load(vae_file).file_hash


# --- bad input --------------------------------------------------------------------------------------


def refused(store, parent, folder, message, *overrides):
    with pytest.raises(ValueError, match=message):
        train_ldm(small.ldm_config(*overrides), store.path, parent, folder)
    assert not folder.exists()


def test_configs_and_parents_that_do_not_fit_are_refused(weather, unet_file, vae_file, tmp_path):
    folder = tmp_path / "run"
    refused(
        weather, unet_file, folder, "of kind unet; a latent diffusion model is trained on one of kind vae"
    )
    refused(weather, vae_file, folder, "halvings .* must be the same", "static_features=[4, 4]")
    refused(weather, vae_file, folder, "cannot be cut into 8 equal blocks", "width=6")
    refused(weather, vae_file, folder, "Crops of 128 fine pixels don't fit", "crop=128")
    refused(weather, vae_file, folder, r"crop \(36\) must be a multiple of 8", "crop=36")


def test_a_diverging_loss_is_a_sentence(weather, vae_file, tmp_path):
    settings = small.ldm_config("learning_rate=1e30", "schedule=constant")
    with pytest.raises(TrainError, match="smaller learning_rate"):
        train_ldm(settings, weather.path, vae_file, tmp_path / "run")
