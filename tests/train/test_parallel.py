"""Several processes and several batches a step give what one process and one batch would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.checkpoint import load
from core.data.samples import RoundSampler
from tests.train import small
from train.config import ConfigError
from train.gan import train_gan
from train.ldm import train_ldm
from train.ldm_pde import train_ldm_pde
from train.parallel import ShareSampler, environment_kept, process_number, started_together
from train.run import StageRun
from train.run_folder import TrainError
from train.vae import train_vae
from train.zoo import train_zoo

SHARED = [
    "batch=4",
    "sample_every=1",
    "times=stratified",
    "steps=2",
    "keep=last",
    "physics.energy={weight: 1e-4}",
]
TOGETHER = """
import sys
from tests.train import small
from train.ldm_pde import train_ldm_pde

if __name__ == "__main__":
    store, parent, out = sys.argv[1:]
    print(train_ldm_pde(small.pde_config({settings}), store, parent, out))
"""


def history(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)["run"]["history"]


def assert_same_scores(one, other):
    """Two runs that differ by rounding alone; Adam may turn that into other single weights."""
    for first, second in zip(history(one.parent), history(other.parent), strict=True):
        assert {**first, "seconds": 0} == pytest.approx({**second, "seconds": 0}, rel=1e-4)


# --- several processes ------------------------------------------------------------------------------


def test_two_processes_do_what_one_does(weather, ldm_file, tmp_path):
    alone = train_ldm_pde(small.pde_config(*SHARED), weather.path, ldm_file, tmp_path / "alone")
    script = tmp_path / "together.py"
    settings = ", ".join(repr(one) for one in [*SHARED, "devices=2", "pictures=true"])
    script.write_text(TOGETHER.format(settings=settings))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, script, str(weather.path), str(ldm_file), str(tmp_path / "together")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    together = tmp_path / "together" / "ldm-pde-tiny.safetensors"
    assert done.stdout.split() == [str(together)]
    assert_same_scores(together, alone)
    weights = [load(path).tensors for path in (together, alone)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=1e-4)
    assert not list((tmp_path / "together").glob("cache"))
    assert list((tmp_path / "together" / "logs").glob("*/pictures/*.png"))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_every_batch(monkeypatch, processes):
    whole = RoundSampler(7, 24, seed=3)
    parts = [ShareSampler(RoundSampler(7, 24, seed=3), 4, processes) for _ in range(processes)]
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    found = []
    for rank, part in enumerate(parts):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        part.set_epoch(2)
        found.append(list(part))
        assert len(found[-1]) == len(part) == 24 // processes
    whole.set_epoch(2)
    size, expected = 4 // processes, list(whole)
    for number in range(6):
        batch = [key for keys in found for key in keys[number * size : (number + 1) * size]]
        assert batch == expected[4 * number : 4 * number + 4]


@pytest.mark.parametrize(
    ("variables", "number", "together"),
    [
        ({}, 0, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, 0, False),
        ({"LOCAL_RANK": "3", "NODE_RANK": "0"}, 3, False),
        ({"NODE_RANK": "2"}, 2000, True),
        ({"RANK": "5", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "none"}, 5, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, 0, False),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "8"}, 1, True),
    ],
)
def test_a_process_knows_its_number(monkeypatch, variables, number, together):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (process_number(), started_together()) == (number, together)


def test_processes_that_start_together_keep_out_of_each_others_way(monkeypatch, weather, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    run = StageRun.find(small.unet_config(), {}, tmp_path / "run", resume=True)
    assert run.cache == tmp_path / "run" / "cache" / "process-1"
    run.begin(None)
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        TrainError, match=r"can't agree on when to start over. Remove .*run and leave --fresh"
    ):
        StageRun.find(small.unet_config(), {}, tmp_path / "run", resume=False)
    with pytest.raises(TrainError, match="train one stage at a time"):
        train_zoo("tiny", weather.path, tmp_path / "zoo")


def test_variables_of_a_training_do_not_outlive_it(monkeypatch):
    monkeypatch.setenv("NODE_RANK", "0")
    with environment_kept():
        os.environ["LOCAL_RANK"] = "0"
    assert "LOCAL_RANK" not in os.environ
    assert os.environ["NODE_RANK"] == "0"


def test_batches_that_can_not_be_shared_are_refused():
    with pytest.raises(ConfigError, match=r"batch \(2\) must be a multiple of the 6 processes .* example 6"):
        small.vae_config("devices=3", "num_nodes=2")


def test_the_number_of_processes_is_no_other_run(weather, unet_file, vae_file):
    settings = small.vae_config("devices=2", "strategy=ddp")
    assert train_vae(settings, weather.path, unet_file, vae_file.parent, progress=pytest.fail) == vae_file


# --- several batches a step -------------------------------------------------------------------------


def test_accumulated_batches_are_one_batch(weather, unet_file, vae_file, tmp_path):
    steps = ["steps=4", "validate_every=2"]
    one = train_vae(small.vae_config(*steps, "batch=4"), weather.path, unet_file, tmp_path / "one")
    two = train_vae(
        small.vae_config(*steps, "batch=2", "accumulate=2"), weather.path, unet_file, tmp_path / "two"
    )
    assert_same_scores(two, one)
    assert load(one).header.provenance["epochs"] == load(two).header.provenance["epochs"] == 16 / 28
    settings = small.ldm_config("sample_every=null", "steps=2", "batch=4")
    one = train_ldm(settings, weather.path, vae_file, tmp_path / "three")
    settings = small.ldm_config("sample_every=null", "steps=2", "batch=1", "accumulate=4")
    two = train_ldm(settings, weather.path, vae_file, tmp_path / "four")
    assert_same_scores(two, one)


def test_a_stopped_gan_with_accumulated_batches_ends_with_the_same_weights(weather, tmp_path):
    settings = small.gan_config("accumulate=2", "steps=4", "adversarial_start=1")
    reports = []
    whole = train_gan(settings, weather.path, tmp_path / "whole", progress=reports.append)
    assert [entry["steps"] for entry in history(whole.parent)] == [2, 4]
    assert load(whole).header.provenance["epochs"] == 16 / 28
    assert sum(report.stage == "Training" for report in reports) == 8 + 2
    with pytest.raises(small.Killed):
        train_gan(settings, weather.path, tmp_path / "run", progress=small.kill_at(3))
    path = train_gan(settings, weather.path, tmp_path / "run")
    assert small.same_state(path.parent, whole.parent)
