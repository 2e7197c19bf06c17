"""train.pictures: what is drawn, its size, where it goes, and that training is the same without."""

import io

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.checkpoint import load
from tests.train import small
from train.config import load_config, shipped_configs
from train.fit import Pictures
from train.gan import train_gan
from train.ldm import train_ldm
from train.pictures import as_png, draw_scene
from train.scene import Scene
from train.unet import train_unet
from train.vae import train_vae
from train.zoo import STAGES


def scene(truth, made, given=None, target="t2m"):
    given = truth[::8, ::8] if given is None else given
    hour = np.datetime64("2018-04-16T12", "ns")
    return Scene(hour, target, given, truth, made, "Coarse field", "UNet")


def drawn(folder, version=0):
    return sorted(path.name for path in (folder / "logs" / f"version_{version}" / "pictures").iterdir())


def test_the_worst_weather_makes_a_small_file():
    truth = np.random.default_rng(0).normal(285, 8, (672, 576))
    file = as_png(draw_scene(scene(truth, truth[::-1]), 500))
    assert len(file) < 300_000
    with Image.open(io.BytesIO(file)) as image:
        assert image.format == "PNG"
        assert image.size == (1100, 470)


def test_all_fields_have_one_colour_scale():
    """Equal values have equal colours in all panels; another one has another colour."""
    truth = np.full((64, 64), 280.0)
    truth[:, 32:] = 290.0
    pixels = draw_scene(scene(truth, np.where(truth == 280, 290.0, 300.0)), 1)
    middle = pixels[len(pixels) // 2]
    changes = np.flatnonzero(np.any(np.diff(middle.astype(int), axis=0), axis=1))
    runs = np.split(middle, changes + 1)
    wide = [tuple(run[0]) for run in runs if len(run) > 60 and tuple(run[0]) != (255, 255, 255)]
    # Coarse field and truth, cold and warm; then warm, and hotter than the scale, which ends there.
    assert len(wide) == 5
    assert wide[:2] == wide[2:4]
    assert wide[4] == wide[1] != wide[0]


def test_titles_say_hour_step_error_and_degrees(monkeypatch):
    said = []
    set_text = Text.set_text
    monkeypatch.setattr(Text, "set_text", lambda self, words: said.append(words) or set_text(self, words))
    truth = np.linspace(270, 290, 64).reshape(8, 8)
    draw_scene(scene(truth, truth + 0.25), 500)
    assert "2 metre temperature, 2018-04-16 12 UTC, step 500: RMSE 0.25 K" in said
    assert "t2m [°C]" in said
    assert {"Coarse field", "Truth", "UNet"} <= set(said)
    draw_scene(scene(truth, truth, target="u10"), 500)
    assert "u10 [m s-1]" in said


def test_every_shipped_run_but_the_tiny_ones_draws():
    for name in shipped_configs():
        stage, _, size = name.rpartition("-")
        assert load_config(name, kind=STAGES[stage]).pictures is (size != "tiny")


# --- in training ------------------------------------------------------------------------------------


@pytest.fixture
def scenes(monkeypatch):
    """What is drawn, in order."""
    seen = []
    monkeypatch.setattr(
        "train.pictures.draw_scene", lambda scene, steps: seen.append(scene) or draw_scene(scene, steps)
    )
    return seen


def test_a_picture_after_every_validation_of_the_unet(weather, unet_file, scenes, tmp_path):
    settings = small.unet_config("pictures=true", "validate_every=2", "validation_hours=1")
    path = train_unet(settings, weather.path, tmp_path / "run")
    assert drawn(tmp_path / "run") == ["step-000002.png", "step-000004.png"]
    with Image.open(tmp_path / "run/logs/version_0/pictures/step-000004.png") as image:
        assert image.size == (1100, 470)
    # One validation hour, so the score of the validation is that of the picture.
    said = load(path).header.provenance
    stated = said["validation_rmse"]["t2m"]
    assert stated == pytest.approx(scenes[[2, 4].index(said["steps"])].rmse, rel=1e-5)
    hour = scenes[0].hour
    np.testing.assert_allclose(scenes[0].truth, weather.read_fine(hour)["t2m"].values[0], atol=1e-3)
    np.testing.assert_allclose(scenes[0].given, weather.read_coarse(hour)["t2m"].values[0], atol=1e-3)
    settings = small.unet_config("validate_every=2", "validation_hours=1")
    assert small.same_file(path, train_unet(settings, weather.path, tmp_path / "without"))
    assert not (tmp_path / "without/logs/version_0/pictures").exists()


def test_gan_and_vae_show_what_they_make(weather, unet_file, vae_file, scenes, tmp_path):
    settings = ("pictures=true", "steps=2", "validation_hours=1")
    path = train_gan(small.gan_config(*settings), weather.path, tmp_path / "gan")
    history = load(path).header.provenance["validation_rmse"]
    assert scenes[-1].rmse == pytest.approx(history["t2m"], rel=1e-5)
    assert drawn(path.parent) == ["step-000002.png"]
    path = train_vae(small.vae_config(*settings), weather.path, unet_file, tmp_path / "vae")
    assert scenes[-1].rmse == pytest.approx(load(path).header.provenance["validation_rmse"]["t2m"], rel=1e-3)
    assert scenes[-1].given_title == "Mean of the UNet"
    assert drawn(path.parent) == ["step-000002.png"]


def test_pictures_change_nothing_of_a_vae(weather, unet_file, vae_file, tmp_path):
    path = train_vae(small.vae_config("pictures=true"), weather.path, unet_file, tmp_path / "run")
    assert small.same_state(path.parent, vae_file.parent)
    assert small.same_file(path, vae_file)
    assert load(path).header.provenance["config"]["pictures"]


def test_latent_diffusion_shows_samples_and_trains_the_same(weather, vae_file, ldm_file, scenes, tmp_path):
    path = train_ldm(small.ldm_config("pictures=true"), weather.path, vae_file, tmp_path / "run")
    assert small.same_state(path.parent, ldm_file.parent)
    assert small.same_file(path, ldm_file)
    assert drawn(path.parent) == [f"step-{steps:06d}.png" for steps in (2, 4, 6)]
    history = torch.load(path.parent / "last.ckpt", weights_only=True)["run"]["history"]
    for seen, entry in zip(scenes, history, strict=True):
        assert seen.rmse == pytest.approx(entry["sample_rmse_t2m"], rel=1e-6)


def test_rounds_without_samples_have_no_picture(weather, vae_file, tmp_path):
    settings = small.ldm_config("pictures=true", "sample_every=2", "steps=4", "validate_every=1")
    path = train_ldm(settings, weather.path, vae_file, tmp_path / "run")
    assert drawn(path.parent) == ["step-000002.png", "step-000004.png"]


def test_a_resumed_run_may_begin_to_draw(weather, unet_file, vae_file, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(small.Killed):
        train_vae(small.vae_config(), weather.path, unet_file, folder, progress=small.kill_at(3))
    path = train_vae(small.vae_config("pictures=true"), weather.path, unet_file, folder)
    assert drawn(folder, version=1) == ["step-000004.png"]
    assert small.same_file(path, vae_file)


def test_tensorboard_gets_the_picture(weather, tmp_path):
    train_unet(
        small.unet_config("pictures=true", "tensorboard=true", "steps=2", "validate_every=2"),
        weather.path,
        tmp_path / "run",
    )
    (file,) = (tmp_path / "run" / "logs").glob("version_*/events*")
    events = EventAccumulator(str(file))
    events.Reload()
    (image,) = events.Images("pictures")
    assert (image.step, image.width, image.height) == (2, 1100, 470)


def test_only_the_first_process_draws(tmp_path):
    class Task:
        scene = scene(np.ones((8, 8)), np.ones((8, 8)))
        steps_done = 1

    class Trainer:
        is_global_zero = False
        log_dir = str(tmp_path / "logs")
        loggers = ()

    Pictures().on_validation_end(Trainer(), Task())
    assert not (tmp_path / "logs").exists()
    Trainer.is_global_zero = True
    Task.scene = scene(np.eye(8), np.ones((8, 8)))
    Pictures().on_validation_end(Trainer(), Task())
    assert [path.name for path in (tmp_path / "logs" / "pictures").iterdir()] == ["step-000001.png"]
