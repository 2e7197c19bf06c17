"""Checkpoint files of a folder as downscalers."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.checkpoint import CheckpointError, identity, load
from core.data.store import Store
from core.downscale import find_downscalers, from_checkpoint
from core.downscale import network as networks
from tests.synthetic_store import DOMAIN

SaveModel = Callable[..., Path]


def test_a_folder_gives_what_it_can(save_unet: SaveModel) -> None:
    first, second = save_unet("b"), save_unet("a", seed=1)
    folder = first.parent
    (folder / "copy.safetensors").write_bytes(first.read_bytes())
    (folder / "broken.safetensors").write_bytes(first.read_bytes()[:-7])
    (folder / ".b.safetensors.1.partial").write_bytes(b"half")
    (folder / ".hidden.safetensors").write_bytes(b"half")
    (folder / "notes.txt").write_text("no checkpoint")
    save_unet("later", kind="ldm")
    save_unet("part", kind="vae")
    found, refused = find_downscalers(folder, device="cpu")
    assert [d.label for d in found] == ["UNet (a)", "UNet (b)"]
    assert [d.key for d in found] == [f"unet-{identity(path)[:8]}" for path in (second, first)]
    assert {path.name: reason.split(str(path))[1].split(".")[0] for path, reason in refused} == {
        "broken.safetensors": " is truncated: it should have at least "
        f"{first.stat().st_size} bytes and has {first.stat().st_size - 7}",
        "copy.safetensors": " is a copy of another checkpoint of this folder",
        "part.safetensors": " holds a VAE of residuals, a part of latent diffusion models, which can't run "
        "alone",
        "later.safetensors": " holds a model of kind ldm; this version runs unet, gan, ldm_res, ldm_pde",
    }


def test_no_folder_holds_nothing(tmp_path: Path) -> None:
    assert find_downscalers(tmp_path / "absent") == ([], [])


def test_weights_are_read_when_they_are_needed(
    store: Store, save_unet: SaveModel, save_ldm: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_unet().parent
    save_ldm()
    read: list[Path] = []
    monkeypatch.setattr(networks, "load", lambda path: read.append(path) or load(path))
    found, refused = find_downscalers(folder, device="cpu")
    assert [d.key.split("-")[0] for d in found] == ["unet", "ldm_res"]
    assert (refused, read) == ([], [])
    for _ in range(2):
        found[0].downscale(store.read_coarse(), store.read_static(), DOMAIN)
    assert read == [folder / "unet.safetensors"]
    from_checkpoint(folder / "unet.safetensors", device="cpu")
    assert len(read) == 2


def test_faults_in_the_weights_show_when_they_are_read(save_unet: SaveModel) -> None:
    path = save_unet(models={"unet": {"features": [4]}})
    downscaler = from_checkpoint(path, device="cpu", lazy=True)
    with pytest.raises(CheckpointError, match="does not know"):
        downscaler.load()


def test_a_file_that_changed_is_refused(save_unet: SaveModel) -> None:
    downscaler = from_checkpoint(save_unet(), device="cpu", lazy=True)
    save_unet(seed=1)
    with pytest.raises(CheckpointError, match="has changed since it was opened"):
        downscaler.load()


def test_weights_that_are_not_the_recorded_ones_are_refused(save_unet: SaveModel) -> None:
    path = save_unet()
    before = identity(path)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:start] + (-np.frombuffer(data[start:], "<f4")).tobytes())
    assert identity(path) == before  # under which the results of the genuine file are kept
    with pytest.raises(CheckpointError, match=re.escape(f"The weights of {path} were changed")):
        from_checkpoint(path, device="cpu", lazy=True).load()
