"""The checkpoint files that the page knows."""

import shutil
from pathlib import Path

import pytest

from core.checkpoint import identity, read_header
from core.downscale import from_checkpoint
from explorer.checkpoints import (
    KINDS,
    count_parameters,
    describe_file,
    describe_files,
    distinct_labels,
    find,
    provenance,
)
from tests.explorer.generative import make_ldm, make_square_store
from tests.explorer.small_store import DOMAIN, make_unet


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``a`` (a UNet, a file that is none) and ``b`` (two LDMs with one label)."""
    folder = tmp_path_factory.mktemp("files")
    store = make_square_store(folder / "square.zarr")
    make_unet(folder / "a" / "unet.safetensors", DOMAIN, "A network")
    (folder / "a" / "broken.safetensors").write_bytes(b"nothing")
    make_ldm(folder / "b" / "first.safetensors", store, "A network", seed=1)
    make_ldm(folder / "b" / "second.safetensors", store, "A network", seed=2)
    return folder


def test_folders_and_named_files_are_searched_and_every_file_counts_once(made: Path, tmp_path: Path):
    shutil.copy(made / "a" / "unet.safetensors", tmp_path / "copy.safetensors")
    named = [
        made / "b" / "second.safetensors",
        tmp_path / "copy.safetensors",
        tmp_path / "absent.safetensors",
    ]
    found, refused = find([made / "b", made / "a"], named)
    assert [item.path.name for item in found] == [
        "unet.safetensors",
        "first.safetensors",
        "second.safetensors",
    ]
    reasons = {path.name: reason for path, reason in refused}
    assert set(reasons) == {"broken.safetensors", "copy.safetensors", "absent.safetensors"}
    assert "is a copy of" in reasons["copy.safetensors"]
    assert "There is no checkpoint at" in reasons["absent.safetensors"]


def test_equal_labels_are_told_apart_by_file_and_then_by_hash(made: Path, tmp_path: Path):
    found, _ = find([made / "a", made / "b"])
    labels = list(distinct_labels(found).values())
    assert labels == ["A network · unet", "A network · first", "A network · second"]
    shutil.copy(made / "b" / "second.safetensors", tmp_path / "first.safetensors")
    twins = [
        from_checkpoint(path, lazy=True)
        for path in (made / "b" / "first.safetensors", tmp_path / "first.safetensors")
    ]
    labels = distinct_labels(twins)
    assert [labels[t.key] for t in twins] == [f"A network · first · {t.identity[:8]}" for t in twins]
    alone = distinct_labels(twins[:1])
    assert list(alone.values()) == ["A network"]


def test_a_checkpoint_does_not_pass_for_the_truth(tmp_path: Path):
    make_unet(tmp_path / "sly.safetensors", DOMAIN, "Truth")
    (item,), _ = find([tmp_path])
    assert distinct_labels([item]) == {item.key: "Truth · sly"}


def test_what_a_file_is(made: Path):
    path = made / "b" / "first.safetensors"
    (file, *_, last) = describe_files(*find([made / "b", made / "a"]))[1:]
    assert (file.path, file.size, file.label, file.kind) == (
        path,
        path.stat().st_size,
        "A network",
        "ldm_res",
    )
    assert file.kind_name == KINDS["ldm_res"]
    assert file.hash == identity(path)
    assert file.targets == ("t2m",)
    assert "64 × 64 cells of 2 km" in file.domain
    assert dict(file.header)["kind"] == "ldm_res"
    assert (file.problem, file.key) == ("", from_checkpoint(path, lazy=True).key)
    assert last.path.name == "broken.safetensors"
    assert "is not a Tramontana checkpoint" in last.problem
    assert (last.size, last.hash, last.parameters) == (7, "", None)


@pytest.mark.parametrize("name", ["a/unet", "b/first"])
def test_parameters_are_counted_without_reading_weights(made: Path, name: str):
    path = made / f"{name}.safetensors"
    assert count_parameters(path) == from_checkpoint(path).parameters


def test_parameters_of_what_is_no_checkpoint(made: Path, tmp_path: Path):
    assert count_parameters(made / "a" / "broken.safetensors") is None
    assert count_parameters(tmp_path / "absent") is None


def test_provenance_is_told_in_words_and_whatever_it_holds(made: Path):
    header = read_header(made / "a" / "unet.safetensors")
    told = {
        "data_title": "Weather", "data_fingerprint": "0123456789abcdef", "synthetic": True,
        "train_hours": 1104, "train_period": "2016-01-05T00 to 2017-10-17T23 UTC", "split_method": "blocked",
        "steps": 10, "steps_in_all": 1651, "minutes_in_all": 19.9,
        "train_loss": 0.0190606, "validation_loss": 0.02,
        "parents": {"unet": {"file": "unet.safetensors"}, "vae": {"file": "vae.safetensors"}},
        "code_version": "0.1.0",
    }  # fmt: skip
    assert provenance(header.model_copy(update={"provenance": told})) == (
        ("Training data", "Weather (fingerprint 0123456789abcdef), synthetic"),
        ("Training hours", "1\u202f104 hours, 2016-01-05 00 to 2017-10-17 23 UTC"),
        ("Split", "blocked"),
        ("Steps", "1\u202f651 in 20 minutes"),
        ("Loss", "training 0.01906, validation 0.02"),
        ("Made from", "unet.safetensors, vae.safetensors"),
        ("Code version", "0.1.0"),
    )
    strange = {
        "data_title": ["a"],
        "train_hours": "x",
        "parents": 5,
        "train_loss": None,
        "split_method": {"a": 1},
    }
    assert provenance(header.model_copy(update={"provenance": strange})) == ()
    assert provenance(header) == ()


def test_a_file_that_goes_while_it_is_looked_at(tmp_path: Path):
    file = describe_file(tmp_path / "gone.safetensors")
    assert file.size == 0
    assert file.problem.startswith("[Errno") or "gone.safetensors" in file.problem
