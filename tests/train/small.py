"""Tiny runs of every stage on the synthetic store, shared by the tests of training."""

import torch

from core.checkpoint import load
from train.config import (
    GANTrainConfig,
    LDMPDETrainConfig,
    LDMTrainConfig,
    UNetTrainConfig,
    VAETrainConfig,
    load_config,
)

HERE = ["threads=1", "device=cpu"]


class Killed(Exception):
    """Stands for a kill: nothing of the run gets to clean up."""


def kill_at(step, stage="Training"):
    """A report that kills a run when ``step`` of ``stage`` is reached."""

    def kill(status):
        if status.stage == stage and status.done == step:
            raise Killed

    return kill


def unet_config(*overrides):
    return load_config(
        "unet-tiny",
        ["steps=4", "validate_every=4", "features=[4, 8]", "crop=32", *HERE, *overrides],
        UNetTrainConfig,
    )


def vae_config(*overrides):
    return load_config(
        "vae-tiny", ["steps=4", "validate_every=2", "crop=32", *HERE, *overrides], VAETrainConfig
    )


def ldm_config(*overrides):
    return load_config(
        "ldm-tiny", ["steps=6", "validate_every=2", "multipliers=[1]", *HERE, *overrides], LDMTrainConfig
    )


def pde_config(*overrides):
    return load_config(
        "ldm-pde-tiny",
        ["steps=4", "validate_every=2", "sample_every=null", *HERE, *overrides],
        LDMPDETrainConfig,
    )


def gan_config(*overrides):
    return load_config(
        "gan-tiny",
        [
            "steps=6",
            "validate_every=2",
            "adversarial_start=3",
            "features=[4, 8]",
            "crop=32",
            *HERE,
            *overrides,
        ],
        GANTrainConfig,
    )


def same_state(one, two):
    """Whether two runs ended with the same weights and averages, bit for bit, and kept the same."""
    for name in ("last.ckpt", "best.ckpt"):
        states = [torch.load(folder / name, weights_only=True) for folder in (one, two)]
        if not _equal(states[0]["state_dict"], states[1]["state_dict"]):
            return False
        if not _equal(states[0]["run"]["extra"], states[1]["run"]["extra"]):
            return False
    return True


def _equal(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            _equal(value, second[key]) for key, value in first.items()
        )
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def same_file(one, two):
    """Whether two checkpoint files hold the same weights."""
    files = [load(path).tensors for path in (one, two)]
    return files[0].keys() == files[1].keys() and all(torch.equal(files[0][k], files[1][k]) for k in files[0])
