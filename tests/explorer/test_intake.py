"""Checkpoints that are sent to the page or imported on its machine."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from core.checkpoint import CheckpointError, identity, read_header
from core.data.statics import load_italy_static
from core.domain import ITALY
from core.downscale import from_checkpoint
from core.variables import PREDICTORS, VARIABLES
from explorer import intake
from explorer.intake import IntakeError, Upload, import_published
from tests.explorer.small_store import DOMAIN, make_unet

PUBLISHED = Path(__file__).parent.parent / "fixtures" / "checkpoints"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "unet.safetensors"
    make_unet(path, DOMAIN, "UNet (untrained)")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def send(folder: Path, name: str, data: bytes, *, limit: int = 10**8, piece: int = 4096) -> Upload:
    upload = Upload(folder, name, limit)
    for start in range(0, len(data), piece):
        upload.add(data[start : start + piece])
    return upload


def test_a_file_arrives_in_pieces_and_has_its_name_when_it_was_checked(folder: Path, model: Path):
    upload = send(folder, "mine.safetensors", model.read_bytes())
    (begun,) = names(folder)
    assert begun.startswith(".mine.safetensors.")
    assert begun.endswith(".partial")
    assert upload.keep() == folder / "mine.safetensors"
    assert names(folder) == ["mine.safetensors"]
    assert identity(folder / "mine.safetensors") == identity(model)


def test_a_copy_of_what_is_there_is_not_kept(folder: Path, model: Path):
    key = from_checkpoint(model, device="cpu").key
    upload = send(folder, "mine.safetensors", model.read_bytes())
    with pytest.raises(IntakeError, match=r"was not kept: it is the same model as UNet \(ours\)"):
        upload.keep({key: "UNet (ours)"})
    assert names(folder) == []


@pytest.mark.parametrize("fault", ["short", "text", "pickle", "not finite", "other weights"])
def test_what_is_not_sound_is_not_kept(folder: Path, model: Path, tmp_path: Path, fault: str):
    data = model.read_bytes()
    mark = tmp_path / "was-run"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(mark),)

    sent = {
        "short": data[:-4],
        "text": b"Some words.",
        "pickle": pickle.dumps(Bomb()),
        "not finite": data[:-4] + np.float32(np.nan).tobytes(),
        "other weights": data[:-4] + (-np.frombuffer(data[-4:], "<f4") - 1).tobytes(),
    }[fault]
    upload = send(folder, "mine.safetensors", sent)
    with pytest.raises(IntakeError, match=r"^mine\.safetensors was not kept\. ") as raised:
        upload.keep()
    assert ".partial" not in str(raised.value)
    assert names(folder) == []
    assert not mark.exists()


def test_a_file_that_gets_too_large_is_dropped_at_once(folder: Path):
    upload = Upload(folder, "large.safetensors", 100)
    upload.add(b"x" * 90)
    with pytest.raises(IntakeError, match=r"larger than the 0\.0001 MB that may be uploaded here"):
        upload.add(b"x" * 20)
    assert names(folder) == []


@pytest.mark.parametrize(
    "name",
    ["", ".safetensors", "model.ckpt", "../../.bashrc", ".hidden.safetensors", "a\nb.safetensors",
     "<img src=x>.safetensors", "a" * 200 + ".safetensors", "..", "x.safetensors.py"],
)  # fmt: skip
def test_names_that_are_none_are_refused(folder: Path, name: str):
    with pytest.raises(IntakeError, match="is no name for a checkpoint"):
        Upload(folder, name, 100)
    assert names(folder) == []


@pytest.mark.parametrize("name", ["../../up.safetensors", "/etc/up.safetensors", r"C:\there\up.safetensors"])
def test_folders_in_a_name_are_left_out(folder: Path, model: Path, name: str):
    assert send(folder, name, model.read_bytes()).keep() == folder / "up.safetensors"


def test_no_file_is_replaced_not_even_one_that_comes_while_it_is_checked(folder: Path, model: Path):
    folder.mkdir()
    first = folder / "mine.safetensors"
    upload = send(folder, "mine.safetensors", model.read_bytes())
    first.write_bytes(b"precious")
    with pytest.raises(IntakeError, match=r"There is a file mine\.safetensors in .* already"):
        upload.keep()
    with pytest.raises(IntakeError, match="already"):
        Upload(folder, "mine.safetensors", 100)
    assert first.read_bytes() == b"precious"
    assert names(folder) == ["mine.safetensors"]


def test_a_file_system_without_links_is_fine(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(intake.os, "link", refuse)
    send(folder, "mine.safetensors", model.read_bytes()).keep()
    assert names(folder) == ["mine.safetensors"]


def test_a_folder_that_can_not_be_made_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IntakeError, match="can't be written to"):
        Upload(tmp_path / "file" / "checkpoints", "mine.safetensors", 100)


def test_what_was_left_in_part_long_ago_is_removed(folder: Path):
    folder.mkdir()
    old = [".a.safetensors.123-0123abcd.partial", ".note.partial", "mine.safetensors.1-0123abcd.partial"]
    new = ".b.safetensors.123-0123abcd.partial"
    for name in (*old, new, "mine.safetensors"):
        (folder / name).write_bytes(b"x")
    for name in (*old, "mine.safetensors"):
        os.utime(folder / name, (0, 0))
    intake.remove_leftovers(folder)
    assert names(folder) == sorted([*old[1:], new, "mine.safetensors"])
    intake.remove_leftovers(folder / "none")


# ---------------------------------------------------------------- import


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    """A file of statistics in the published form."""
    known = [VARIABLES[name].published_name for name in PREDICTORS]
    one = {"mean": dict.fromkeys(known, 280.0), "std": dict.fromkeys(known, np.float32(8.0))}
    path = tmp_path / "normalization_data.pkl"
    path.write_bytes(pickle.dumps({"ERA5": one, "CMCC": one}))
    return path


def bring(name: str, statistics: Path, folder: Path, **options: object) -> Path:
    return import_published(
        PUBLISHED / f"{name}.ckpt", statistics, folder, domain=ITALY, static=load_italy_static(), **options
    )


def test_a_published_file_is_imported(folder: Path, statistics: Path):
    path = bring("UNET_2mT", statistics, folder)
    assert path == folder / "UNET_2mT.safetensors"
    header = read_header(path)
    assert (header.kind, header.domain) == ("unet", ITALY.to_dict())
    assert header.provenance["normalization_file"] == "normalization_data.pkl"
    assert names(folder) == ["UNET_2mT.safetensors"]
    with pytest.raises(IntakeError, match="already"):
        bring("UNET_2mT", statistics, folder)


def test_kind_and_label_of_an_import_can_be_told(folder: Path, statistics: Path):
    header = read_header(bring("LDM_residual_2mT", statistics, folder, kind="ldm_pde", label="Mine"))
    assert (header.kind, header.label) == ("ldm_pde", "Mine")


def test_a_part_that_can_not_run_alone_is_not_kept(folder: Path, statistics: Path):
    with pytest.raises(
        IntakeError, match=r"^VAE_residual_2mT\.safetensors was not kept\. .* can't run alone"
    ):
        bring("VAE_residual_2mT", statistics, folder)
    assert names(folder) == []


def test_what_is_no_published_file_is_a_sentence(folder: Path, statistics: Path, tmp_path: Path):
    (tmp_path / "letter.ckpt").write_text("Dear reader")
    with pytest.raises(CheckpointError, match="is a text file"):
        import_published(tmp_path / "letter.ckpt", statistics, folder, domain=ITALY, static=None)
    assert names(folder) == []
