"""Checkpoint files of a folder as downscalers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.checkpoint import CheckpointError, load
from core.data.store import Store
from core.downscale import DownscaleError, find_downscalers, from_checkpoint
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
    found, refused = find_downscalers(folder, device="cpu")
    assert [d.label for d in found] == ["UNet (a)", "UNet (b)"]
    assert [d.key for d in found] == [f"unet-{load(path).file_hash[:8]}" for path in (second, first)]
    assert {path.name: reason.split(str(path))[1].split(".")[0] for path, reason in refused} == {
        "broken.safetensors": " is truncated: it should have at least "
        f"{first.stat().st_size} bytes and has {first.stat().st_size - 7}",
        "copy.safetensors": " is a copy of another checkpoint of this folder",
        "later.safetensors": " holds a model of kind ldm; this version runs unet",
    }


def test_no_folder_holds_nothing(tmp_path: Path) -> None:
    assert find_downscalers(tmp_path / "absent") == ([], [])


