"""train.vae: the file, the floor it states, the scaled latent, resuming, and refusing in plain words."""

import numpy as np
import pytest
import torch

from core.checkpoint import load, save
from core.data.samples import split
from core.models.unet import UNet, UNetConfig
from core.models.vae import VAE, VAEConfig, vae_loss
from tests.synthetic_store import make_store
from tests.train import small
from train.data import draw
from train.residuals import ResidualDataset, window
from train.run_folder import TrainError
from train.unet import train_unet
from train.vae import Moments, standardise_latents, train_vae


def networks(path):
    checkpoint = load(path)
    unet = UNet(UNetConfig.model_validate(checkpoint.header.models["unet"]))
    vae = VAE(VAEConfig.model_validate(checkpoint.header.models["vae"]))
    checkpoint.restore("unet", unet)
    checkpoint.restore("vae", vae)
    return checkpoint, unet.eval(), vae.eval()


def residuals(store, checkpoint, unet, hours):
    normalization = checkpoint.header.normalization
    with torch.no_grad():
        mean = unet(
            normalization.predictors_to_tensor(store.read_coarse(hours)),
            normalization.statics_to_tensor(store.read_static())[None],
        )
    return normalization.targets_to_tensor(store.read_fine(hours), ("t2m",)) - mean


def test_the_file_says_what_it_is(weather, unet_file, vae_file):
    header = load(vae_file).header
    assert (header.kind, header.label, set(header.models)) == ("vae", "VAE (tiny)", {"unet", "vae"})
    assert header.normalization == load(unet_file).header.normalization
    parent = header.provenance["parents"]["unet"]
    assert (parent["kind"], parent["sha256"]) == ("unet", load(unet_file).file_hash)


def test_the_unet_stands_still(unet_file, vae_file):
    before, after = load(unet_file).tensors, load(vae_file).tensors
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_the_floor_and_the_moments_are_those_of_the_file(weather, vae_file):
    checkpoint, unet, vae = networks(vae_file)
    said = checkpoint.header.provenance
    parts = split(weather.hours)
    field = residuals(weather, checkpoint, unet, draw(parts.validation, 4, seed=0))
    with torch.no_grad():
        error = (vae(field)[0] - field) * checkpoint.header.normalization.targets["t2m"].std
        latents = vae.encode(residuals(weather, checkpoint, unet, parts.train)).mean
    # Residuals are kept as float16.
    assert said["validation_rmse"]["t2m"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-3)
    np.testing.assert_allclose(latents.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(latents.std((0, 2, 3), correction=0), said["latent_std"], rtol=1e-3)
    assert max(said["latent_std"]) == pytest.approx(1)
    assert said["latent_std_trained"] != said["latent_std"]


def test_unscaled_latents_are_those_that_were_trained(weather, unet_file, tmp_path):
    settings = small.vae_config("scale_latents=false", "steps=2")
    said = load(train_vae(settings, weather.path, unet_file, tmp_path / "run")).header.provenance
    assert "latent_std_trained" not in said
    assert max(said["latent_std"]) != pytest.approx(1)


def test_scaling_the_latent_changes_no_field():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent_channels=3, features=(4, 4, 4))).double()
    field = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    noise = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        before, mean_before = vae(field, noise)[0], vae.encode(field).mean
        moments = Moments(3)
        moments.add(mean_before)
        mean, std = moments.mean_std()
        standardise_latents(vae, mean, std)
        after, mean_after = vae(field, noise)[0], vae.encode(field).mean
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(mean_after, (mean_before - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(std, mean_before.transpose(0, 1).flatten(1).std(1, correction=0))


def test_training_lowers_the_loss(weather, unet_file, tmp_path):
    settings = small.vae_config("steps=60", "validate_every=20", "learning_rate=1e-2", "kl_weight=1e-3")
    losses = load(train_vae(settings, weather.path, unet_file, tmp_path / "run")).header.provenance[
        "validation_losses"
    ]
    assert losses["60"] < 0.95 * losses["20"]


def test_a_stopped_run_ends_with_the_same_weights(weather, unet_file, vae_file, tmp_path):
    with pytest.raises(small.Killed):
        train_vae(small.vae_config(), weather.path, unet_file, tmp_path / "run", progress=small.kill_at(3))
    path = train_vae(small.vae_config(), weather.path, unet_file, tmp_path / "run")
    assert small.same_state(tmp_path / "run", vae_file.parent)
    assert small.same_file(path, vae_file)


def test_residuals_made_in_each_step_when_memory_is_short(weather, unet_file, tmp_path):
    settings = small.vae_config("cache_gb=0", "crop=null")
    path = train_vae(settings, weather.path, unet_file, tmp_path / "run")
    kept = train_vae(small.vae_config("crop=null"), weather.path, unet_file, tmp_path / "kept")
    losses = [load(file).header.provenance["validation_loss"] for file in (path, kept)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_windows_are_a_function_of_their_key_and_lie_inside():
    found = {window(8, 6, 3, (0, 1, n)) for n in range(200)}
    assert window(8, 6, 3, (0, 1, 5)) == window(8, 6, 3, (0, 1, 5))
    assert {row for row, _ in found} == set(range(6))
    assert {column for _, column in found} == set(range(4))


def test_crops_are_aligned_on_the_coarse_grid():
    field = torch.arange(64 * 64, dtype=torch.float32).view(1, 1, 64, 64)
    dataset = ResidualDataset(field, 8, crop=16, seed=1)
    for epoch in range(20):
        first = int(dataset[(epoch, 0)]["residual"][0, 0, 0])
        assert (first // 64) % 8 == 0
        assert first % 64 % 8 == 0


def test_the_loss_is_the_published_one():
    # By hand: mean absolute error 2, divergence of mean 1 and unit variance 0.5.
    from core.models.vae import Posterior

    posterior = Posterior(torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2))
    loss = vae_loss(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 2.0), posterior, kl_weight=0.01)
    assert float(loss.total) == pytest.approx(2 + 0.01 * 0.5)


# --- bad input --------------------------------------------------------------------------------------


def refused(store, parent, folder, message, settings=None):
    with pytest.raises(ValueError, match=message):
        train_vae(settings or small.vae_config(), store.path, parent, folder)
    assert not folder.exists()


def test_parents_that_do_not_fit_are_refused(weather, unet_file, vae_file, tmp_path):
    folder = tmp_path / "run"
    refused(weather, vae_file, folder, "holds a model of kind vae; a VAE is trained on one of kind unet")
    refused(weather, tmp_path / "absent.safetensors", folder, "There is no checkpoint")
    refused(
        weather,
        unet_file,
        folder,
        "16 times coarser .* 8 times larger",
        small.vae_config("features=[2, 2, 2, 2]"),
    )
    refused(
        weather,
        unet_file,
        folder,
        "trained on the blocked split .* Set split=blocked",
        small.vae_config("split=random"),
    )
    checkpoint = load(unet_file)
    elsewhere = checkpoint.header.domain | {"left": checkpoint.header.domain["left"] + 2000}
    moved = tmp_path / "moved.safetensors"
    save(moved, checkpoint.header.model_copy(update={"domain": elsewhere}), checkpoint.tensors)
    refused(weather, moved, folder, "lie on another")


def test_another_parent_is_another_run(weather, vae_file, unet_file, tmp_path):
    other = train_unet(small.unet_config("seed=1"), weather.path, tmp_path / "unet")
    with pytest.raises(TrainError, match="run on other data"):
        train_vae(small.vae_config(), weather.path, other, vae_file.parent)


def test_a_store_without_truth_is_refused(unet_file, tmp_path):
    store = make_store(tmp_path / "coarse.zarr", fine=())
    refused(store, unet_file, tmp_path / "run", "can't train this VAE; it lacks the fine truth t2m")
