"""Checkpoints: what comes back is what was saved, and every damaged or foreign file is named as such."""

import hashlib
import json
import pickle
import struct
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from core.checkpoint import (
    MAX_HEADER_BYTES,
    CheckpointError,
    Header,
    describe,
    identity,
    load,
    read_header,
    save,
)
from core.data.samples import MeanStd, Normalization
from core.domain import Domain

DOMAIN = Domain.regular("Small", left=4e6, top=2.5e6, shape=(32, 32), spacing=2000.0, ratio=8)
ONE = MeanStd(mean=280.0, std=8.0)


def header(**changes: Any) -> Header:
    values: dict[str, Any] = {
        "kind": "unet",
        "label": "UNet (test)",
        "models": {"unet": {"features": [4]}},
        "predictors": ("t2m", "sst"),
        "statics": ("orography", "land_cover", "latitude"),
        "targets": ("t2m",),
        "normalization": Normalization(
            predictors={"t2m": ONE, "sst": ONE}, targets={"t2m": ONE}, orography=ONE, latitude=ONE
        ),
        "domain": DOMAIN.to_dict(),
        "provenance": {"steps": 12, "losses": {"validation": 0.25}},
    }
    return Header(**(values | changes))


def weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "unet.conv.weight": torch.randn(4, 2, 3, 3, generator=generator),
        "unet.conv.bias": torch.randn(4, generator=generator),
        "unet.norm.num_batches_tracked": torch.tensor(7),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(tmp_path / "model.safetensors", header(), weights())
    return tmp_path / "model.safetensors"


def with_entry(path: Path, change: Any, key: str = "tramontana") -> Path:
    """The same file with another JSON entry in its header."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    outer = json.loads(data[8 : 8 + length])
    entry = json.loads(outer["__metadata__"].pop("tramontana"))
    outer["__metadata__"][key] = change(entry) if callable(change) else change
    text = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


def test_what_was_saved_comes_back(saved: Path) -> None:
    checkpoint = load(saved)
    assert checkpoint.header == header() == read_header(saved)
    assert checkpoint.file_hash == hashlib.sha256(saved.read_bytes()).hexdigest()
    expected = weights()
    assert checkpoint.tensors.keys() == expected.keys()
    for key, tensor in expected.items():
        assert checkpoint.tensors[key].dtype == tensor.dtype
        assert torch.equal(checkpoint.tensors[key], tensor)


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    hashes = {save(tmp_path / f"{number}.safetensors", header(), weights()) for number in range(3)}
    assert hashes == {load(tmp_path / "1.safetensors").file_hash}
    assert save(tmp_path / "3.safetensors", header(), weights(seed=1)) not in hashes


def test_identity_tells_contents_apart_without_reading_weights(saved: Path, tmp_path: Path) -> None:
    save(tmp_path / "same.safetensors", header(), weights())
    save(tmp_path / "weights.safetensors", header(), weights(seed=1))
    save(tmp_path / "header.safetensors", header(label="Another"), weights())
    one, *others = (identity(tmp_path / f"{name}.safetensors") for name in ("same", "weights", "header"))
    assert one == identity(saved)
    assert len({one, *others}) == 3
    with saved.open("r+b") as file:  # the last byte of the weights
        file.seek(-1, 2)
        file.write(b"\x01")
    assert identity(saved) == one
    plain = json.loads(saved.read_bytes()[8 : 8 + struct.unpack("<Q", saved.read_bytes()[:8])[0]])
    del plain["__metadata__"]["weights_sha256"]
    text = json.dumps(plain).encode()
    weights_only = saved.read_bytes()[8 + struct.unpack("<Q", saved.read_bytes()[:8])[0] :]
    saved.write_bytes(struct.pack("<Q", len(text)) + text + weights_only)
    assert identity(saved) == hashlib.sha256(saved.read_bytes()).hexdigest()


def test_a_file_written_over_in_place_is_refused_and_not_read(saved: Path, tmp_path: Path) -> None:
    """Reading behind the end of a mapped file would kill the process."""
    checkpoint = load(saved)
    with saved.open("r+b") as file:
        file.truncate(100)
    module = nn.Module()
    module.conv = nn.Conv2d(2, 4, 3)
    module.norm = nn.Module()
    module.norm.register_buffer("num_batches_tracked", torch.tensor(0))
    for use in (
        lambda: checkpoint.tensors["unet.conv.weight"],
        lambda: checkpoint.file_hash,
        lambda: checkpoint.restore("unet", module),
    ):
        with pytest.raises(CheckpointError, match=r"model\.safetensors was cut short .* open it again"):
            use()


@pytest.mark.parametrize("change", ["rename", "delete"])
def test_a_file_that_is_replaced_or_deleted_can_be_used_on(saved: Path, tmp_path: Path, change: str) -> None:
    checkpoint = load(saved)
    if change == "rename":
        (tmp_path / "short").write_bytes(b"short")
        (tmp_path / "short").replace(saved)
    else:
        saved.unlink()
    assert torch.equal(checkpoint.tensors["unet.conv.weight"], weights()["unet.conv.weight"])


def test_the_order_of_predictors_is_kept(tmp_path: Path) -> None:
    reverse = header(
        predictors=("sst", "t2m"),
        normalization=Normalization(
            predictors={"sst": ONE, "t2m": ONE}, targets={"t2m": ONE}, orography=ONE, latitude=ONE
        ),
    )
    save(tmp_path / "a.safetensors", reverse, weights())
    back = read_header(tmp_path / "a.safetensors")
    assert back.predictors == tuple(back.normalization.predictors) == ("sst", "t2m")


def test_half_precision_halves_matrices_only(tmp_path: Path, saved: Path) -> None:
    many = weights() | {"unet.big.weight": torch.randn(64, 64)}
    save(tmp_path / "full.safetensors", header(), many)
    save(tmp_path / "half.safetensors", header(), many, dtype=torch.float16)
    saving = (tmp_path / "full.safetensors").stat().st_size - (tmp_path / "half.safetensors").stat().st_size
    assert saving == pytest.approx(2 * (64 * 64 + 4 * 2 * 9), abs=16)
    tensors = load(tmp_path / "half.safetensors").tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}
    assert torch.equal(tensors["unet.big.weight"], many["unet.big.weight"].half().float())
    assert torch.equal(tensors["unet.conv.bias"], many["unet.conv.bias"])


def test_any_layout_can_be_saved(tmp_path: Path) -> None:
    kernel = torch.randn(4, 2, 3, 3)
    last = kernel.to(memory_format=torch.channels_last).requires_grad_()
    save(tmp_path / "a.safetensors", header(), {"unet.a": last, "unet.b": last})
    tensors = load(tmp_path / "a.safetensors").tensors
    assert torch.equal(tensors["unet.a"], kernel)
    assert torch.equal(tensors["unet.b"], kernel)


def test_a_failed_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(saved, header(label="Other"), weights(1))
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("state", "options", "sentence"),
    [
        ({"unet.a": torch.tensor([1.0, float("nan")])}, {}, "not finite.*unet.a"),
        ({"unet.a": torch.full((1, 1), 1e6)}, {"dtype": torch.float16}, "not finite.*unet.a"),
        ({"vae.a": torch.ones(1)}, {}, r"weights of no part \(unet\).*vae.a"),
        ({"a": torch.ones(1)}, {}, "weights of no part"),
        ({}, {}, "no weights for the part unet"),
        ({"unet.a": torch.ones(1)}, {"dtype": torch.bfloat16}, "float32 or float16"),
    ],
)
def test_what_can_not_be_saved_is_refused(
    tmp_path: Path, state: dict[str, Tensor], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        save(tmp_path / "a.safetensors", header(), state, **options)
    assert not list(tmp_path.iterdir())


def test_a_header_that_json_can_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="JSON"):
        save(tmp_path / "a.safetensors", header(provenance={"loss": float("nan")}), weights())


# --- the format


def test_the_library_of_the_format_reads_our_files(tmp_path: Path) -> None:
    many = weights() | {
        "unet.half": torch.randn(3, 5).half(),
        "unet.flags": torch.tensor([True, False, True]),
        "unet.bytes": torch.arange(5, dtype=torch.uint8),
        "unet.nothing": torch.empty(0, 4),
    }
    save(tmp_path / "a.safetensors", header(), many, dtype=torch.float16)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(many)
        assert set(file.metadata()) == {"tramontana", "weights_sha256"}
        for key, tensor in many.items():
            stored = file.get_tensor(key)
            assert torch.equal(stored.double(), tensor.to(stored.dtype).double()), key
    checkpoint = load(tmp_path / "a.safetensors")
    for key, tensor in many.items():
        assert checkpoint.tensors[key].shape == tensor.shape


def test_we_read_files_of_that_library(tmp_path: Path) -> None:
    many = weights() | {"unet.wide": torch.randn(3, dtype=torch.float64), "unet.b": torch.ones(3).bfloat16()}
    entry = json.dumps(header().model_dump(mode="json"))
    save_file(many, tmp_path / "a.safetensors", metadata={"tramontana": entry})
    checkpoint = load(tmp_path / "a.safetensors")
    assert checkpoint.recorded_weights_hash is None
    for key, tensor in many.items():
        assert torch.equal(checkpoint.tensors[key], tensor.float() if tensor.is_floating_point() else tensor)


def test_tensors_start_where_their_type_wants_them(saved: Path) -> None:
    data = saved.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    assert length % 8 == 0
    sizes = {"F32": 4, "I64": 8}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % sizes[entry["dtype"]] == 0


def test_the_hash_of_the_weights_is_recorded(saved: Path) -> None:
    checkpoint = load(saved)
    data = saved.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    expected = hashlib.sha256(data[8 + length :]).hexdigest()
    assert checkpoint.recorded_weights_hash == checkpoint.weights_hash == expected
    save(saved, header(label="Another header"), weights())
    assert load(saved).recorded_weights_hash == expected
    assert load(saved).file_hash != checkpoint.file_hash


class OnDemand(Mapping[str, Tensor]):
    """Weights that are made when they are asked for, and counted."""

    def __init__(self) -> None:
        self.live = 0
        self.most = 0

    def __getitem__(self, key: str) -> Tensor:
        if key not in set(self):
            raise KeyError(key)
        tensor = torch.full((8, 8), float(len(key)))
        self.live += 1
        self.most = max(self.most, self.live)
        weakref.finalize(tensor, self._gone)
        return tensor

    def _gone(self) -> None:
        self.live -= 1

    def __iter__(self) -> Iterator[str]:
        return iter([f"unet.{'x' * number}" for number in range(1, 30)])

    def __len__(self) -> int:
        return 29


def test_weights_are_written_one_at_a_time(tmp_path: Path) -> None:
    source, steps = OnDemand(), []
    save(
        tmp_path / "a.safetensors", header(), source, progress=lambda done, total: steps.append((done, total))
    )
    assert source.most <= 2
    assert steps == [(256 * (n + 1), 2 * 29 * 256) for n in range(2 * 29)]
    assert load(tmp_path / "a.safetensors").tensors["unet.xxx"][0, 0] == 8.0


def test_errors_name_where_weights_come_from(tmp_path: Path) -> None:
    broken = {"unet.a": torch.tensor([float("nan")])}
    with pytest.raises(CheckpointError, match=r"^source\.ckpt has weights that are not finite"):
        save(tmp_path / "a.safetensors", header(), broken, origin="source.ckpt")


def test_a_type_that_can_not_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"can't hold weights of these types: unet\.a \(torch\.complex64\)"
    ):
        save(tmp_path / "a.safetensors", header(), {"unet.a": torch.ones(1, dtype=torch.complex64)})


def test_a_checkpoint_outlives_its_file(saved: Path) -> None:
    checkpoint = load(saved)
    saved.unlink()
    assert torch.equal(checkpoint.tensors["unet.conv.bias"], weights()["unet.conv.bias"])


def with_outer(path: Path, change: Any) -> Path:
    """The same file with another description of its tensors."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    outer = json.loads(data[8 : 8 + length])
    change(outer)
    text = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda o: o["unet.conv.bias"].update(dtype="F1000"), "conv.bias is not described as a tensor"),
        (lambda o: o["unet.conv.bias"].pop("dtype"), "not described as a tensor"),
        (lambda o: o["unet.conv.bias"].update(dtype="F64"), "should take 32 bytes and takes 16"),
        (lambda o: o["unet.conv.bias"].update(shape=[5]), "should take 20 bytes and takes 16"),
        (lambda o: o["unet.conv.bias"].update(shape=[-4]), "impossible shape"),
        (lambda o: o["unet.conv.bias"].update(shape=[4.0]), "impossible shape"),
        (lambda o: o["unet.conv.bias"].update(shape=[1] * 50), "impossible shape"),
        (lambda o: o["unet.conv.bias"].update(shape=[2**60]), "impossible shape"),
        (lambda o: o["unet.conv.bias"].update(shape=4), "not described as a tensor"),
        (lambda o: o["unet.conv.bias"].update(data_offsets=[12, 28]), "conv.bias does not begin where"),
        (lambda o: o["unet.conv.bias"].update(data_offsets=[0, 16]), "does not begin where"),
        (lambda o: o["unet.conv.bias"].update(data_offsets=[-8, 8]), "impossible shape"),
        (lambda o: o["unet.conv.bias"].update(data_offsets=[0, 1, 2]), "not described as a tensor"),
        (lambda o: o.pop("unet.norm.num_batches_tracked"), "conv.bias does not begin where"),
        (lambda o: o.pop("unet.conv.weight"), "bytes too many lie behind the last tensor"),
    ],
)
def test_layouts_are_checked(saved: Path, change: Any, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=f"is damaged: .*{sentence}"):
        load(with_outer(saved, change))


@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_does_more_than_be_refused(changes: list[tuple[int, int]], tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", header(), weights())
    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    for position, byte in changes:
        data[position % len(data)] = byte
    (tmp_path / "a.safetensors").write_bytes(data)
    with suppress(CheckpointError):
        checkpoint = load(tmp_path / "a.safetensors")
        assert all(text.isprintable() for line in describe(checkpoint.header) for text in line)


# --- files that are no checkpoints


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": list(range(1000))}))


def foreign(path: Path) -> None:
    """A safetensors file of another program."""
    save_file({"a": torch.ones(2)}, path, metadata={"format": "pt"})


def without_metadata(path: Path) -> None:
    save_file({"a": torch.ones(2)}, path)


def deep(path: Path) -> None:
    text = b"[" * 100_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_bytes(b""), "not a Tramontana checkpoint"),
        (lambda path: path.write_bytes(b"abc"), "not a Tramontana checkpoint"),
        (lambda path: path.write_bytes(bytes(100)), "not a Tramontana checkpoint"),
        (lambda path: path.write_bytes(struct.pack("<Q", 40) + b"x" * 40), "not a Tramontana checkpoint"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "not a Tramontana checkpoint"),
        (pickled, "not a Tramontana checkpoint"),
        (
            lambda path: torch.save({"a": torch.ones(1)}, path),
            "checkpoint of PyTorch.* `tramontana checkpoint import`",
        ),
        (lambda path: path.write_text("Dear reader, good day."), r"not a Tramontana .* `tramontana train`"),
        (foreign, "not a Tramontana checkpoint"),
        (without_metadata, "not a Tramontana checkpoint"),
        (deep, "not a Tramontana checkpoint"),
        (
            lambda path: path.write_bytes(
                struct.pack("<Q", MAX_HEADER_BYTES + 1) + bytes(MAX_HEADER_BYTES + 1)
            ),
            f"header would have {MAX_HEADER_BYTES + 1} bytes, and at most",
        ),
        (lambda path: path.mkdir(), "There is no checkpoint"),
        (lambda path: None, "There is no checkpoint"),
    ],
)
def test_other_files_are_named_as_such(tmp_path: Path, make: Any, sentence: str) -> None:
    path = tmp_path / "file.safetensors"
    make(path)
    for read in (load, read_header):
        with pytest.raises(CheckpointError, match=sentence) as error:
            read(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("missing", [1, 100, 300])
def test_truncated_files_are_named_as_such(saved: Path, missing: int) -> None:
    saved.write_bytes(saved.read_bytes()[:-missing])
    for read in (load, read_header):
        with pytest.raises(CheckpointError, match="is truncated"):
            read(saved)


def test_nothing_follows_the_weights(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"more")
    with pytest.raises(CheckpointError, match="is damaged"):
        load(saved)


def test_non_finite_weights_are_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    start = json.loads(data[8 : 8 + length])["unet.conv.weight"]["data_offsets"][0]
    data[8 + length + start : 12 + length + start] = struct.pack("<f", float("inf"))
    saved.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"not finite.*unet\.conv\.weight"):
        load(saved)


def test_a_newer_format_asks_for_an_update(saved: Path) -> None:
    def newer(entry: dict[str, Any]) -> str:
        return json.dumps(entry | {"format_version": 2, "wonders": True})

    with pytest.raises(CheckpointError, match=r"format 2; this version reads up to 1\. Update"):
        load(with_entry(saved, newer))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"wonders": True}, "wonders: Extra inputs"),
        ({"kind": "../unet"}, "kind: String should match"),
        ({"label": "<script>"}, "label: .*one line of 1 to 80 letters"),
        ({"label": "UNet\x9b31m"}, "label: .*one line"),
        ({"label": "UNet\u202egpj"}, "label: .*one line"),
        ({"label": "a" * 81}, "label: .*one line"),
        ({"\x1b[2Jwonders": True}, r"wrong: \?\[2Jwonders"),
        ({"predictors": ["\x1b[2J"] * 10_000}, r"unknown: \?\[2J, .{,1000}$"),
        ({"format_version": "\x1b[2J"}, r"format \?\[2J;"),
        ({"models": {f"p{number}": {} for number in range(17)}}, "models: .*at most 16"),
        ({"domain": DOMAIN.to_dict() | {"name": "a\nb"}}, "domain: .*one line"),
        ({"predictors": ["t2m", "warmth"]}, "predictors: .*unknown: warmth"),
        ({"predictors": ["sst", "t2m"]}, "normalisation is not for the predictors"),
        ({"predictors": ["t2m", "t2m"]}, "stands twice"),
        ({"targets": ["t2m", "u10"]}, "lacks the target u10"),
        ({"targets": ["msl"]}, "targets: .*unknown: msl"),
        ({"domain": {}}, "domain: .*height"),
        ({"domain": DOMAIN.to_dict() | {"width": 10**12}}, "domain: .*width must be"),
        ({"domain": DOMAIN.to_dict() | {"ratio": 5}}, "domain: .*blocks of 5 x 5"),
        ({"domain": DOMAIN.to_dict() | {"crs": "EPSG:0"}}, "domain: .*Unknown coordinate"),
        ({"models": {}}, "models: "),
        ({"format_version": "new"}, "format new"),
    ],
)
def test_wrong_headers_are_explained(saved: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        load(with_entry(saved, lambda entry: json.dumps(entry | change)))


@pytest.mark.parametrize("entry", ["", "[]", "{}", '{"format_version": NaN}', "{", "3"])
def test_broken_entries_are_explained(saved: Path, entry: str) -> None:
    with pytest.raises(CheckpointError, match="not a Tramontana checkpoint"):
        load(with_entry(saved, entry))


def test_headers_are_checked_before_saving() -> None:
    with pytest.raises(ValidationError, match="warmth"):
        header(targets=("warmth",))


# --- weights into modules


class Module(nn.Module):
    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, channels, 3)
        self.norm = nn.BatchNorm2d(channels)


def test_restoring_fills_a_module(tmp_path: Path) -> None:
    original = Module()
    state = {f"unet.{key}": tensor for key, tensor in original.state_dict().items()}
    save(tmp_path / "a.safetensors", header(), state)
    checkpoint = load(tmp_path / "a.safetensors")
    with torch.device("meta"):
        restored = Module()
    checkpoint.restore("unet", restored)
    for key, tensor in original.state_dict().items():
        assert torch.equal(restored.state_dict()[key], tensor)
    # The module has its own copy, so training it leaves the checkpoint as it was.
    assert restored.conv.weight.requires_grad
    with torch.no_grad():
        restored.conv.weight.zero_()
    assert checkpoint.tensors["unet.conv.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "unet.conv.bias"}, r"lacks weights.*: conv\.bias\."),
        (lambda s: s | {"unet.extra": torch.ones(1)}, "does not know: extra"),
        (lambda s: s | {"unet.conv.bias": torch.ones(5)}, r"conv\.bias is 5 and should be 4"),
        (lambda s: {"unet.other": torch.ones(1)}, "and 2 more"),
        (lambda s: s | {"unet.conv.bias": torch.ones(4, dtype=torch.int64)}, r"wrong type: conv\.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, state: Any, sentence: str) -> None:
    full = {f"unet.{key}": tensor for key, tensor in Module().state_dict().items()}
    save(tmp_path / "a.safetensors", header(), state(full))
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "a.safetensors").restore("unet", Module())


def test_description_has_what_people_ask_for() -> None:
    lines = dict(describe(header()))
    assert lines["label"] == "UNet (test)"
    assert lines["domain"].startswith("Small, 32 x 32 cells of 2000 x 2000 m")
    assert lines["predictors"] == "t2m, sst"
    assert lines["model unet"] == "features 4"
    assert lines["provenance losses"] == "validation 0.25"


def test_descriptions_are_safe_to_print() -> None:
    """Values come from files: they must neither move the cursor nor exhaust Python's stack."""
    deep: Any = "end"
    for _ in range(300):
        deep = [deep]
    lines = dict(describe(header(provenance={"note\x1b[2J": "\x1b]0;title\x07", "deep": deep})))
    assert lines["provenance note?[2J"] == "?]0;title?"
    assert lines["provenance deep"] == "..."


def test_endless_places_are_damage(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="not a Tramontana checkpoint"):
        load(with_outer(saved, lambda outer: outer["unet.conv.bias"].update(data_offsets=[0, float("inf")])))
