"""train.gan: when the discriminator takes part, which round is kept, resuming, and starting from a UNet."""

import pytest
import torch

from core.checkpoint import load
from core.downscale import find_downscalers
from tests.train import small
from train.gan import GANTask, train_gan


@pytest.fixture(scope="module")
def whole(weather, tmp_path_factory):
    """An uninterrupted run: its file, and the reports."""
    reports = []
    folder = tmp_path_factory.mktemp("gan") / "run"
    path = train_gan(small.gan_config(), weather.path, folder, progress=reports.append)
    return path, reports


def test_the_file_runs_as_a_downscaler(whole, weather):
    path, _ = whole
    header = load(path).header
    assert (header.kind, tuple(header.models)) == ("gan", ("unet",))
    (downscaler,), _ = find_downscalers(path.parent)
    assert downscaler.obstacles(weather.contents, weather.domain) == []


def test_every_step_counts_once(whole):
    path, reports = whole
    training = [report.done for report in reports if report.stage == "Training"]
    assert sorted(set(training)) == [1, 2, 3, 4, 5, 6]
    history = torch.load(path.parent / "last.ckpt", weights_only=True)["run"]["history"]
    assert [entry["steps"] for entry in history] == [2, 4, 6]
    assert load(path).header.provenance["steps_in_all"] == 6


def discriminator(path, name="last.ckpt"):
    state = torch.load(path.parent / name, weights_only=True)["state_dict"]
    return {k: w for k, w in state.items() if k.startswith("discriminator.")}


def test_the_discriminator_learns_from_its_start_on(weather, tmp_path):
    untouched = train_gan(small.gan_config("adversarial_start=6"), weather.path, tmp_path / "late")
    new = GANTask(small.gan_config(), load(untouched).header.normalization, weather.domain, None).state_dict()
    assert all(torch.equal(w, new[k]) for k, w in discriminator(untouched).items())
    early = train_gan(small.gan_config("adversarial_start=0"), weather.path, tmp_path / "early")
    changed = [
        k for k, w in discriminator(early).items() if k.endswith("weight") and not torch.equal(w, new[k])
    ]
    assert changed
    assert not small.same_file(early, untouched)


def test_the_round_that_is_asked_for_is_kept(whole, weather, tmp_path):
    assert load(whole[0]).header.provenance["steps"] == 6
    path = train_gan(
        small.gan_config("keep=best", "learning_rate=0.05", "schedule=constant"),
        weather.path,
        tmp_path / "run",
    )
    said = load(path).header.provenance
    assert said["validation_loss"] == min(said["validation_losses"].values())


@pytest.mark.parametrize("step", [3, 6])
def test_a_stopped_run_ends_with_the_same_weights(weather, whole, tmp_path, step):
    with pytest.raises(small.Killed):
        train_gan(small.gan_config(), weather.path, tmp_path / "run", progress=small.kill_at(step))
    path = train_gan(small.gan_config(), weather.path, tmp_path / "run")
    assert small.same_state(path.parent, whole[0].parent)
    assert small.same_file(path, whole[0])


def test_it_starts_from_a_unet(weather, unet_file, tmp_path):
    settings = small.gan_config("learning_rate=1e-12", "batchnorm_steps=1", "steps=2")
    path = train_gan(settings, weather.path, tmp_path / "run", unet=unet_file)
    made = load(path)
    assert made.header.provenance["parents"]["unet"]["sha256"] == load(unet_file).file_hash
    assert made.header.normalization == load(unet_file).header.normalization
    for name, tensor in load(unet_file).tensors.items():
        if name.endswith("weight"):
            torch.testing.assert_close(made.tensors[name], tensor, rtol=0, atol=1e-6)


def test_another_unet_is_refused(weather, unet_file, tmp_path):
    with pytest.raises(ValueError, match=r"features \[4, 8\] for t2m; the config asks for \[4, 8, 16\]"):
        train_gan(small.gan_config("features=[4, 8, 16]"), weather.path, tmp_path / "run", unet=unet_file)
