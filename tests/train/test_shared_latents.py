"""Latents that several runs share: never stale, never encoded twice, whole after kills and races."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from core.checkpoint import load
from tests.synthetic_store import make_store
from tests.train import small
from train.latents import contents, shared_hours
from train.ldm import build_network, train_ldm
from train.ldm_pde import train_ldm_pde
from train.locks import lock_if_free, locked
from train.residuals import Means, frozen_unet
from train.run_folder import TrainError

HOLD = """
import sys, time
from pathlib import Path
from train.locks import lock_if_free
with lock_if_free(Path(sys.argv[1])) as held:
    print(held, flush=True)
    time.sleep(60)
"""


def nothing(done, total):
    pass


@pytest.fixture
def parts(weather, vae_file):
    """Means of the UNet, and the VAE."""
    checkpoint = load(vae_file)
    network = build_network(small.ldm_config(), checkpoint)
    means = Means(frozen_unet(checkpoint), weather, checkpoint.header.normalization, ("t2m",), "cpu")
    return means, network.vae


def shared(folder, hours, parts, progress=nothing, waiting=pytest.fail, **options):
    return shared_hours(folder, hours, *parts, progress, waiting, **options)


# --- one encoding for many runs ---------------------------------------------------------------------


def test_runs_share_one_encoding_and_train_the_same(weather, vae_file, ldm_file, tmp_path):
    folder, reports = tmp_path / "latents", []
    setting = f"latents={folder}"
    path = train_ldm(small.ldm_config(setting), weather.path, vae_file, tmp_path / "one")
    assert small.same_state(path.parent, ldm_file.parent)
    assert small.same_file(path, ldm_file)
    assert not (path.parent / "cache").exists()
    assert "latents" not in load(path).header.provenance["config"]
    kept = sorted(file for file in folder.rglob("*") if file.is_file())
    times = [file.stat().st_mtime_ns for file in kept]
    assert len(list(folder.iterdir())) == 2
    settings = small.ldm_config(setting, "seed=1", "steps=2", "width=16", "learning_rate=1e-4")
    settings = settings.model_copy(update={"validation_hours": None})
    train_ldm(settings, weather.path, vae_file, tmp_path / "two", progress=reports.append)
    stages = {report.stage for report in reports}
    assert "Latents of training hours" not in stages
    assert [file.stat().st_mtime_ns for file in kept] == times


def test_fields_for_physical_terms_are_kept_apart(weather, ldm_file, tmp_path):
    folder = tmp_path / "latents"
    setting = f"latents={folder}"
    own = train_ldm_pde(small.pde_config("steps=2"), weather.path, ldm_file, tmp_path / "own")
    one = train_ldm_pde(small.pde_config("steps=2", setting), weather.path, ldm_file, tmp_path / "one")
    assert small.same_file(one, own)
    again = small.pde_config("steps=2", setting, "physics.flux.share=1")
    reports = []
    train_ldm_pde(again, weather.path, ldm_file, tmp_path / "two", progress=reports.append)
    assert not any(report.stage.startswith("Latents") for report in reports)
    assert sorted(json.loads(file.read_text())["fine"] for file in folder.glob("*/contents.json")) == [
        False,
        True,
    ]


def test_where_latents_are_is_not_what_a_run_is(weather, vae_file, ldm_file, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(small.Killed):
        train_ldm(small.ldm_config(), weather.path, vae_file, folder, progress=small.kill_at(3))
    path = train_ldm(small.ldm_config(f"latents={tmp_path / 'shared'}"), weather.path, vae_file, folder)
    assert small.same_file(path, ldm_file)
    assert not (folder / "cache").exists()
    assert (tmp_path / "shared").is_dir()


def test_other_contents_have_another_name(weather, parts, tmp_path):
    means, vae = parts
    hours = weather.hours[:2]
    before = contents(hours, means, vae, False)
    assert contents(hours, means, vae, False) == before
    assert json.loads(json.dumps(before)) == before
    found = [before, contents(hours, means, vae, True), contents(weather.hours[1:3], means, vae, False)]
    found.append(contents(hours[::-1], means, vae, False))
    statistics = means.normalization
    means.normalization = statistics.model_copy(
        update={"targets": {"t2m": statistics.targets["t2m"].model_copy(update={"mean": 1.0})}}
    )
    found.append(contents(hours, means, vae, False))
    means.normalization = statistics
    for module in (means.unet, vae.encoder, vae.to_moments):
        weight = next(iter(module.parameters()))
        with torch.no_grad():
            weight[(0,) * weight.ndim] += 1e-3
        found.append(contents(hours, means, vae, False))
    buffer = next(b for name, b in means.unet.named_buffers() if name.endswith("running_var"))
    buffer += 1
    found.append(contents(hours, means, vae, False))
    means.store = make_store(tmp_path / "other.zarr", seed=1)
    found.append(contents(hours, means, vae, False))
    texts = [json.dumps(one, sort_keys=True) for one in found]
    assert len(set(texts)) == len(texts)
    with torch.no_grad():
        next(iter(vae.decoder.parameters())).zero_()
        vae.to_decoder.weight.zero_()
    assert contents(hours, means, vae, False) == found[-1]


def test_data_without_a_fingerprint_are_not_shared(weather, parts, tmp_path):
    means, vae = parts
    means.store = make_store(tmp_path / "a.zarr")
    means.store.attrs.pop("fingerprint")
    with pytest.raises(TrainError, match=r"has no fingerprint, .*; leave latents out"):
        shared(tmp_path / "latents", weather.hours[:2], (means, vae))
    assert not (tmp_path / "latents").exists()


# --- kills, damage, and races -----------------------------------------------------------------------


def test_a_kill_keeps_what_is_done(weather, parts, tmp_path, monkeypatch):
    monkeypatch.setattr("train.latents.HOURS_READ", 3)
    folder, hours = tmp_path / "latents", weather.hours[:7]

    def kill(done, total):
        if done == 5:
            raise small.Killed

    with pytest.raises(small.Killed):
        shared(folder, hours, parts, kill)
    (own,) = folder.iterdir()
    (own / ".hours-latents.npy.partial").write_bytes(b"half")
    seen = []
    found = shared(folder, hours, parts, lambda done, total: seen.append(done))
    assert seen == [4, 5, 6, 7]
    assert not list(own.glob("*.partial"))
    whole = shared(tmp_path / "other", hours, parts)
    np.testing.assert_array_equal(found.latents, whole.latents)
    np.testing.assert_array_equal(found.coarse, whole.coarse)


@pytest.mark.parametrize(
    ("name", "content"),
    [("hours.json", b"{"), ("hours-latents.npy", b"half"), ("hours-coarse.npy", None)],
)
def test_damage_is_a_sentence(weather, parts, tmp_path, name, content):
    folder, hours = tmp_path / "latents", weather.hours[:2]
    shared(folder, hours, parts)
    (own,) = folder.iterdir()
    if content is None:
        np.save(own / name, np.zeros(3))
    else:
        (own / name).write_bytes(content)
    with pytest.raises(TrainError, match=f"{name} is damaged; remove the folder .*{own.name}, and"):
        shared(folder, hours, parts)


def test_a_file_in_place_of_the_folder_is_refused(weather, vae_file, tmp_path):
    (tmp_path / "file").write_text("")
    settings = small.ldm_config(f"latents={tmp_path / 'file'}")
    with pytest.raises(TrainError, match="file is a file; set latents to a folder"):
        train_ldm(settings, weather.path, vae_file, tmp_path / "run")


@pytest.fixture
def holder(tmp_path):
    """A process that holds a lock, with its path."""
    path = tmp_path / "locks" / "one"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "True\n"
    yield path, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_is_held_by_one_and_freed_by_a_kill(holder, monkeypatch):
    path, process = holder
    with lock_if_free(path) as held:
        assert not held
    monkeypatch.setattr("train.locks.SECONDS_BETWEEN_TRIES", 0.01)
    waited = []

    def waiting():
        waited.append(1)
        if len(waited) == 3:
            process.kill()
            process.wait()

    with locked(path, waiting), lock_if_free(path) as held:
        assert not held
    assert len(waited) >= 3
    with lock_if_free(path) as held:
        assert held


def test_the_second_of_two_runs_waits_and_uses_what_the_first_made(weather, parts, tmp_path, monkeypatch):
    """While the first encodes, the second sees how far it is; then it reads without encoding."""
    monkeypatch.setattr("train.locks.SECONDS_BETWEEN_TRIES", 0.01)
    monkeypatch.setattr("train.latents.HOURS_READ", 1)
    folder, hours = tmp_path / "latents", weather.hours[:3]
    seen = []

    class Tried(Exception):
        pass

    def waiting(done, total):
        seen.append((done, total))
        raise Tried

    def second(done, total):
        with pytest.raises(Tried):
            shared(folder, hours, parts, pytest.fail, waiting)

    shared(folder, hours, parts, second)
    assert seen == [(0, 3), (1, 3), (2, 3)]
    found = shared(folder, hours, parts, pytest.fail)
    assert np.abs(np.asarray(found.latents)).max() > 0
