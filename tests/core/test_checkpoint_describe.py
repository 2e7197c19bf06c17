"""Describing checkpoints anew: weights and hashes stay, ranges come from the training data alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from core.assets import shipped_checkpoints
from core.checkpoint import (
    CheckpointError,
    Description,
    file_hash,
    identity,
    load,
    read_header,
    rewrite_description,
    save,
)
from core.checkpoint_describe import describe_checkpoints
from core.checkpoint_verify import verify
from core.data.samples import compute_statistics, split_hours
from core.data.store import Store
from core.model_card import CardTexts, make_card
from core.variables import PREDICTORS
from tests.core.test_checkpoint import header, weights
from tests.synthetic_store import DOMAIN, hours_of_weeks, make_store

CARD = make_card("unet", ("t2m",), "Small", {}, version="1", texts=CardTexts(licence="CC0-1.0"))


def raw_weights(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(tmp_path / "model.safetensors", header(), weights())
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("describe") / "a.zarr", hours_of_weeks(20, 2))


def trained_on(store: Store, path: Path, **changes: Any) -> Path:
    """A file that says it was trained on the store."""
    normalization, _ = compute_statistics(store, split_hours(store.hours, "train"))
    told = {
        "predictors": PREDICTORS,
        "normalization": normalization,
        "domain": DOMAIN.to_dict(),
        "provenance": {"data_fingerprint": store.attrs["fingerprint"], "split_method": "blocked"},
    }
    save(path, header(**(told | changes)), weights())
    return path


def test_a_new_description_leaves_weights_and_hashes(saved: Path) -> None:
    before = saved.read_bytes()
    known = identity(saved), file_hash(saved), load(saved).file_hash, raw_weights(saved)
    assert known[1] == known[2] == hashlib.sha256(before).hexdigest()
    rewrite_description(saved, Description(card=CARD))
    assert saved.read_bytes() != before
    assert (identity(saved), file_hash(saved), load(saved).file_hash, raw_weights(saved)) == known
    assert read_header(saved).description.card == CARD
    assert read_header(saved).model_copy(update={"description": Description()}) == header()
    load(saved).check_weights()
    rewrite_description(saved, Description())
    assert saved.read_bytes() == before


def test_what_is_saved_with_a_description_has_the_hash_without_it(saved: Path, tmp_path: Path) -> None:
    described = tmp_path / "described.safetensors"
    given = save(described, header(description=Description(card=CARD)), weights())
    assert given == file_hash(described) == file_hash(saved) == load(described).file_hash
    assert identity(described) == identity(saved)
    assert given != hashlib.sha256(described.read_bytes()).hexdigest()


def test_a_file_without_weights_hash_keeps_its_identity_too(saved: Path) -> None:
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    outer = json.loads(data[8 : 8 + length])
    del outer["__metadata__"]["weights_sha256"]
    text = json.dumps(outer, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    saved.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    before = identity(saved)
    rewrite_description(saved, Description(card=CARD))
    assert identity(saved) == before == file_hash(saved)


def test_a_header_of_another_program_is_left_alone(saved: Path) -> None:
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + length]), indent=1).encode()
    saved.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    before = saved.read_bytes()
    with pytest.raises(CheckpointError, match="another program"):
        rewrite_description(saved, Description(card=CARD))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("said", ["{", "[1]", '{"cards": 1}', '{"card": {"licence": "x"}}', '{"card": NaN}'])
def test_a_hostile_description_is_refused(said: str, saved: Path) -> None:
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    outer = json.loads(data[8 : 8 + length])
    outer["__metadata__"]["description"] = said
    text = json.dumps(outer).encode()
    saved.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_header(saved)


def test_ranges_come_from_the_training_hours(store: Store, tmp_path: Path) -> None:
    path = trained_on(store, tmp_path / "a.safetensors")
    hours = split_hours(store.hours, "train")
    ((_, found),) = describe_checkpoints([path], store=store)
    assert found.ranges is not None
    assert found.ranges.hours == hours.size < store.hours.size
    assert found.ranges.predictors["t2m"].maximum == store.read_coarse(hours)["t2m"].values.max()
    assert read_header(path).description == found
    sound = {finding.what: finding.holds for finding in verify(path)}
    assert (sound["card"], sound["ranges"]) == (True, True)


def test_ranges_stay_where_only_the_card_changes(store: Store, tmp_path: Path) -> None:
    path = trained_on(store, tmp_path / "a.safetensors")
    list(describe_checkpoints([path], store=store))
    ranges = read_header(path).description.ranges
    ((_, found),) = describe_checkpoints([path], texts=CardTexts(licence="CC0-1.0"))
    assert found.ranges == ranges
    assert found.card is not None
    assert found.card.licence == "CC0-1.0"
    ((_, again),) = describe_checkpoints([path], texts=CardTexts(limits="Plains only."))
    assert again.card is not None
    assert (again.card.licence, again.card.limits) == ("CC0-1.0", "Plains only.")


def test_another_store_or_other_hours_are_refused(store: Store, tmp_path: Path) -> None:
    foreign = trained_on(
        store, tmp_path / "a.safetensors", provenance={"data_fingerprint": "other", "split_method": "blocked"}
    )
    with pytest.raises(CheckpointError, match="fingerprint other"):
        list(describe_checkpoints([foreign], store=store))
    normalization, _ = compute_statistics(store, store.hours[:3])
    fewer = trained_on(store, tmp_path / "b.safetensors", normalization=normalization)
    with pytest.raises(CheckpointError, match="not trained on the training hours"):
        list(describe_checkpoints([fewer], store=store))
    assert read_header(fewer).description == Description()


def test_imported_weights_cite_their_authors(saved: Path) -> None:
    told = header(provenance={"imported_from": "a published Lightning checkpoint"})
    save(saved, told, weights())
    ((_, found),) = describe_checkpoints([saved])
    assert found.card is not None
    assert "2406.13627" in found.card.citation[0]


def test_models_that_ship_are_described_and_know_their_parents() -> None:
    files = {path.name: path for path in shipped_checkpoints().glob("*.safetensors")}
    for path in files.values():
        description = read_header(path).description
        assert description.card is not None
        assert description.card.licence == "Apache-2.0"
        assert "ynthetic" in description.card.training_data
        assert description.ranges is not None
        assert description.ranges.predictors.keys() == set(PREDICTORS)
        assert file_hash(path) != hashlib.sha256(path.read_bytes()).hexdigest()
    parents = read_header(files["ldm-pde-demo.safetensors"]).provenance["parents"]
    assert parents["ldm"]["sha256"] == file_hash(files["ldm-demo.safetensors"])
    assert load(files["ldm-demo.safetensors"]).weights_hash == (
        "61dbf1df4ced51b5459838f5afe73e5e74bede06eee1e1fc8b704813aff31cd9"
    )
