"""Files are told apart by their first bytes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.file_kind import LOOKED_AT, file_kind


def test_checkpoints_are_recognised(tmp_path: Path, fixtures: Path) -> None:
    assert file_kind(fixtures / "checkpoints" / "UNET_2mT.ckpt") == "zip"
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    assert file_kind(tmp_path / "a.safetensors") == "safetensors"
    torch.save({"a": torch.zeros(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert file_kind(tmp_path / "old.pt") == "other"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"Dear reader,\r\n\tgood day.\n", "text"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "text"),
        # A letter of two bytes that the look cuts in half.
        (b"a" * (LOOKED_AT - 1) + "è".encode() + b"b", "text"),
        (b"\x80\x02}q\x00.", "other"),
        (b"Dear \xff reader", "other"),
        (b"", "other"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert file_kind(path) == kind


def test_what_can_not_be_read_is_something_else(tmp_path: Path) -> None:
    assert file_kind(tmp_path) == "other"
    assert file_kind(tmp_path / "absent") == "other"
