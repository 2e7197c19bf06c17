"""The dialog of models, without a browser."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from explorer.session import Session
from explorer.settings import Settings
from explorer.views.models import Importing, Models, Uploading, show_files
from tests.explorer.generative import LABEL, make_ldm, make_square_store
from tests.explorer.prompt import PromptLibrary
from tests.explorer.small_store import DOMAIN, make_unet

PATIENCE = 60.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    store = make_square_store(folder / "square.zarr")
    make_ldm(folder / "ldm.safetensors", store)
    make_ldm(folder / "other.safetensors", store, seed=3)
    make_unet(folder / "unet.safetensors", DOMAIN, "UNet (untrained)")
    return folder


@pytest.fixture
def checkpoints(made: Path, tmp_path: Path) -> Path:
    """A folder with a generative model, a UNet for another domain and a file that is none."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("ldm", "unet"):
        shutil.copy(made / f"{name}.safetensors", folder)
    (folder / "<img src=x onerror=alert(1)>.safetensors").write_bytes(b"nothing")
    return folder


def session(made: Path, checkpoints: Path, **settings: object) -> Session:
    library = PromptLibrary(
        Settings((made / "square.zarr",), checkpoints, made, **{"local": True, **settings})
    )
    library.catalogue.result()
    found = Session(library, models=["quadratic"], steps=3)
    found.start()
    return found


def send(view: Uploading, name: str, data: bytes, piece: int = 100_000) -> None:
    starts = range(0, len(data), piece)
    for number, start in enumerate(starts, 1):
        view.input._handle_msg(
            {"status": "upload_event", "name": name, "chunk": number, "total_chunks": len(starts),
             "data": data[start : start + piece], "mime_type": ""}
        )  # fmt: skip
    view._finish()


def test_every_file_is_listed_with_what_it_is_and_why_it_can_not_be_used(made: Path, checkpoints: Path):
    html = show_files(session(made, checkpoints))
    assert html.count("class='model'") == 3
    assert "3 checkpoint files in" in html
    assert "runs on this store" in html
    assert "can't run on this store" in html
    assert "was trained for the domain Test land" in html
    assert "can't be used" in html
    assert "is not a Tramontana checkpoint" in html
    assert "<img" not in html
    assert "million parameters" in html
    assert "SHA-256" in html


def test_an_empty_folder_says_what_to_do(made: Path, tmp_path: Path):
    assert "There is no checkpoint file in" in show_files(session(made, tmp_path / "none"))


def test_what_the_dialog_holds_is_made_when_it_is_opened(made: Path, checkpoints: Path):
    view = Models(session(made, checkpoints))
    assert view.dialog.objects == []
    view.open()
    assert view.dialog.open
    assert "class='model'" in view._list.object


def test_an_uploaded_model_is_offered_beside_one_of_the_same_kind(made: Path, checkpoints: Path):
    found = session(made, checkpoints)
    view = Uploading(found)
    send(view, "other.safetensors", (made / "other.safetensors").read_bytes())
    assert "other.safetensors is there; tick it under Downscalers." in view.status.object
    choices = wait_for_generators(found, 2)
    assert set(choices) == {f"{LABEL} · ldm", f"{LABEL} · other"}
    found.models = list(choices.values())
    assert found.library.jobs.wait(PATIENCE)
    fields = [found.snapshot.get(key) for key in choices.values()]
    assert [field.label for field in fields] == list(choices)
    assert np.abs(fields[0].values - fields[1].values).max() > 1e-3


def test_each_of_two_files_sent_in_a_row_is_kept(made: Path, checkpoints: Path):
    found = session(made, checkpoints)
    late = []
    found.library.submit = late.append  # the threads are busy
    view = Uploading(found)
    for name in ("first", "second"):
        send(view, f"{name}.safetensors", (made / "other.safetensors").read_bytes())
    for work in late[:2]:
        work()
        assert "is there" in view.status.object
    assert {"first.safetensors", "second.safetensors"} <= {path.name for path in checkpoints.iterdir()}
    assert not list(checkpoints.glob(".*"))


def wait_for_generators(found: Session, count: int) -> dict[str, str]:
    """Key by label of the generative models on offer, once there are so many."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        choices = {choice.label: choice.key for choice in found.choices if choice.generative}
        if len(choices) == count:
            return choices
        found.look()
        time.sleep(0.05)
    raise TimeoutError(f"There are {list(choices)}.")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("bad.safetensors", b"nothing at all", "bad.safetensors was not kept."),
        ("ldm.safetensors", b"x", "There is a file ldm.safetensors"),
        ("model.pt", b"x", "is no name for a checkpoint"),
        ("big.safetensors", b"x" * 1_000_001, "larger than the 1 MB"),
        ("none.safetensors", b"", "That file is empty."),
    ],
)
def test_what_is_not_taken_is_said(made: Path, checkpoints: Path, name: str, data: bytes, words: str):
    before = sorted(checkpoints.iterdir())
    view = Uploading(session(made, checkpoints, most_upload_mb=1))
    send(view, name, data)
    assert words in view.status.object
    assert "failure" in view.status.object
    assert sorted(checkpoints.iterdir()) == before


def test_pieces_out_of_order_are_refused(made: Path, checkpoints: Path):
    before = sorted(checkpoints.iterdir())
    view = Uploading(session(made, checkpoints))
    view._arrive("a.safetensors", 1, b"first")
    view._arrive("a.safetensors", 3, b"third")
    assert "did not arrive in order" in view.status.object
    view._arrive("a.safetensors", 4, b"fourth")
    view._finish()
    assert sorted(checkpoints.iterdir()) == before


def test_what_a_visitor_sent_in_part_goes_with_them(made: Path, checkpoints: Path):
    before = sorted(checkpoints.iterdir())
    found = session(made, checkpoints)
    Uploading(found)._arrive("a.safetensors", 1, b"first")
    assert sorted(checkpoints.iterdir()) != before
    found.close()
    assert sorted(checkpoints.iterdir()) == before


@pytest.mark.parametrize(
    ("settings", "upload", "imported"),
    [
        ({}, True, True),
        ({"read_only": True}, False, False),
        ({"read_only": True, "allow_upload": True}, False, False),
        ({"local": False}, False, False),
        ({"local": False, "allow_upload": True}, True, False),
        ({"most_upload_mb": 0}, False, True),
    ],
)
def test_where_nothing_may_be_added_there_is_nothing_to_send_it_to(
    made: Path, checkpoints: Path, settings: dict[str, bool], upload: bool, imported: bool
):
    found = session(made, checkpoints, **settings)
    view, other = Uploading(found), Importing(found)
    assert hasattr(view, "input") == upload
    assert hasattr(other, "button") == imported
    rules = found.library.settings
    assert [bool(rules.no_upload), bool(rules.no_import)] == [not upload, not imported]


def test_an_import_needs_both_paths_and_says_what_is_wrong(made: Path, checkpoints: Path, tmp_path: Path):
    view = Importing(session(made, checkpoints))
    view._import()
    assert "Give the paths of both files." in view.status.object
    view.file.value = view.normalization.value = str(tmp_path / "absent.ckpt")
    view._import()
    assert "absent.ckpt" in view.status.object
    assert "failure" in view.status.object
    assert not view.button.disabled
