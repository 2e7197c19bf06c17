"""What goes wrong outside of the program: full disks, little memory, broken data. Nothing is lost."""

import os
import resource

import numpy as np
import pytest
import torch

from core.checkpoint import load
from core.data.samples import split
from tests.synthetic_store import make_store
from tests.train import small
from train.gan import train_gan
from train.latents import encode_hours
from train.ldm import build_network, train_ldm
from train.memory import out_of_memory
from train.residuals import Means, frozen_unet
from train.run_folder import TrainError, replacing
from train.task import StageTask
from train.unet import train_unet
from train.vae import VAETask, train_vae


class Room:
    """Files can't grow beyond some bytes from a certain step on, as on a full disk."""

    def __init__(self, step, size):
        self.step = step
        self.size = size

    def __call__(self, status):
        if status.stage == "Training" and status.done == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


# --- full disks -------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_last_state_and_the_run_resumes(weather, unet_file, vae_file, tmp_path):
    folder = tmp_path / "run"
    with Room(step=3, size=10_000) as room, pytest.raises(TrainError, match="There is no room to write to"):
        train_vae(small.vae_config(), weather.path, unet_file, folder, progress=room)
    assert torch.load(folder / "last.ckpt", weights_only=True)["run"]["history"][-1]["steps"] == 2
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    path = train_vae(small.vae_config(), weather.path, unet_file, folder)
    assert small.same_state(folder, vae_file.parent)
    assert small.same_file(path, vae_file)


def test_a_full_disk_when_the_result_is_written(weather, vae_file, unet_file, tmp_path):
    class Late(Room):
        def __call__(self, status):
            if status.stage == "Moments of the latent":
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))

    folder = tmp_path / "run"
    with Late(0, 0) as room, pytest.raises(TrainError, match=r"no room to write to .*run \(.*\)\. What was"):
        train_vae(small.vae_config(), weather.path, unet_file, folder, progress=room)
    assert not list(folder.glob("*.safetensors")) + list(folder.glob(".*"))
    assert small.same_file(train_vae(small.vae_config(), weather.path, unet_file, folder), vae_file)


def test_room_for_latents_is_taken_before_they_are_made(weather, vae_file, tmp_path):
    checkpoint = load(vae_file)
    model = build_network(small.ldm_config(), checkpoint)
    means = Means(frozen_unet(checkpoint), weather, checkpoint.header.normalization, ("t2m",), "cpu")
    with Room(0, 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        with pytest.raises(TrainError, match="There is no room"):
            encode_hours(tmp_path / "cache", "train", weather.hours, means, model.vae, pytest.fail)
    assert not list((tmp_path / "cache").iterdir())
    encode_hours(tmp_path / "cache", "train", weather.hours[:2], means, model.vae, lambda done, total: None)
    latents = tmp_path / "cache" / "train-latents.npy"
    assert latents.stat().st_blocks * 512 >= latents.stat().st_size


def test_a_file_is_replaced_by_a_whole_one_or_not_at_all(tmp_path):
    path = tmp_path / "state"
    path.write_text("old")

    def stopped():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["state"]


def test_a_kill_in_the_middle_of_a_file_leaves_nothing_behind(weather, unet_file, vae_file, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".run.json.partial").write_text('{"con')
    with pytest.raises(small.Killed):
        train_vae(small.vae_config(), weather.path, unet_file, folder, progress=small.kill_at(3))
    half = (folder / "last.ckpt").read_bytes()[:1000]
    for name in (".last.ckpt.partial", ".best.ckpt.partial", ".vae-tiny.safetensors.77.partial"):
        (folder / name).write_bytes(half)
    assert small.same_file(train_vae(small.vae_config(), weather.path, unet_file, folder), vae_file)
    assert small.same_state(folder, vae_file.parent)
    assert not list(folder.glob(".*"))


# --- little memory ----------------------------------------------------------------------------------


def memory_for(monkeypatch, task, samples):
    """A device on which steps with more than so many samples run out of memory."""
    step = task.training_step

    def training_step(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        if len(next(iter(batch.values()))) > samples:
            raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB.")
        return loss

    monkeypatch.setattr(task, "training_step", training_step)


def test_the_batch_that_fits_is_found_and_named(weather, unet_file, tmp_path, monkeypatch):
    memory_for(monkeypatch, VAETask, 3)
    settings = small.vae_config("batch=8")
    with pytest.raises(TrainError, match=r"ran out on cpu with batch=8\. With batch=2 .*accumulate=4 keeps"):
        train_vae(settings, weather.path, unet_file, tmp_path / "run")
    settings = small.vae_config("batch=2", "accumulate=4")
    train_vae(settings, weather.path, unet_file, tmp_path / "run", resume=False)


def test_a_gan_tries_a_smaller_batch_as_well(weather, tmp_path, monkeypatch):
    from train.gan import GANTask

    memory_for(monkeypatch, GANTask, 1)
    with pytest.raises(TrainError, match=r"with batch=2\. With batch=1 a step fits"):
        train_gan(small.gan_config("adversarial_start=0"), weather.path, tmp_path / "run")


def test_when_not_even_one_sample_fits(weather, unet_file, tmp_path, monkeypatch):
    memory_for(monkeypatch, VAETask, 0)
    with pytest.raises(TrainError, match=r"not even one sample fits\. Use a smaller crop"):
        train_vae(small.vae_config(), weather.path, unet_file, tmp_path / "run")


def test_memory_that_runs_out_in_validation(weather, unet_file, tmp_path, monkeypatch):
    def full(self, batch, batch_idx):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(VAETask, "validation_step", full)
    with pytest.raises(TrainError, match="in validation, which takes whole hours"):
        train_vae(small.vae_config(), weather.path, unet_file, tmp_path / "run")


def test_memory_that_runs_out_before_training(weather, unet_file, tmp_path, monkeypatch):
    monkeypatch.setattr("core.models.unet.UNet.forward", lambda *given: torch.empty(2**60))
    with pytest.raises(TrainError, match="One hour of the whole domain does not fit"):
        train_vae(small.vae_config(), weather.path, unet_file, tmp_path / "run")


def test_other_errors_are_left_alone(weather, unet_file, tmp_path, monkeypatch):
    def broken(self, batch, batch_idx):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(VAETask, "training_step", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train_vae(small.vae_config(), weather.path, unet_file, tmp_path / "run")
    assert not out_of_memory(ValueError("can't allocate memory"))
    with pytest.raises(NotImplementedError):
        StageTask(small.vae_config()).validation_scores()


# --- data -------------------------------------------------------------------------------------------


def spoiled(path, name, value, hour=None, group="coarse"):
    """A store in which a variable has one value, in all hours or in one."""
    store = make_store(path)
    hours = store.hours if hour is None else hour(store)
    coarse, fine = store.read_coarse(hours).drop_vars("orography"), store.read_fine(hours)
    chosen = coarse if group == "coarse" else fine
    if hour is None:
        chosen[name][:] = value
    else:
        chosen[name][0, 2, 3] = value
    store.write(hours, coarse, fine)
    return store


def test_a_constant_predictor_is_refused(tmp_path):
    store = spoiled(tmp_path / "a.zarr", "q850", 0.004)
    with pytest.raises(ValueError, match=r"q850 has the same value everywhere and always \(0\.004\)"):
        train_unet(small.unet_config(), store.path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("group", "workers"), [("coarse", 0), ("fine", 1)])
def test_missing_values_that_are_found_late_are_a_sentence(tmp_path, group, workers):
    # Hours to validate with are not read before training when memory is short.
    store = spoiled(
        tmp_path / "a.zarr", "t2m", np.nan, lambda store: split(store.hours).validation[1:2], group=group
    )
    settings = small.unet_config("cache_gb=0", f"workers={workers}", "validate_every=2")
    with pytest.raises(
        ValueError, match=r"^t2m has missing values in .* at 20..-..-..T..; networks"
    ) as caught:
        train_unet(settings, store.path, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_missing_values_are_found_while_latents_are_made(weather, vae_file, tmp_path):
    store = spoiled(tmp_path / "a.zarr", "msl", np.nan, lambda store: split(store.hours).train[:1])
    with pytest.raises(ValueError, match="msl has missing values"):
        train_ldm(small.ldm_config(), store.path, vae_file, tmp_path / "run")
    assert not list(tmp_path.glob("run/*.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_that_is_not_there_is_refused_by_every_stage(weather, unet_file, vae_file, tmp_path):
    message = "asks for device cuda, and torch finds none here. Use device=cpu or device=auto"
    with pytest.raises(TrainError, match=message):
        train_vae(small.vae_config("device=cuda"), weather.path, unet_file, tmp_path / "run")
    with pytest.raises(TrainError, match=message):
        train_ldm(small.ldm_config("device=cuda"), weather.path, vae_file, tmp_path / "run")
    assert not (tmp_path / "run").exists()
