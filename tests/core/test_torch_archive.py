"""Archives of tensors: equal to what PyTorch reads, and no forged one gets further than a sentence."""

import gc
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from core.torch_archive import MAX_DIRECTORY_BYTES, ArchiveError, TorchArchive
from tests.reference_weights import reference_weights

base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
TENSORS = {
    **{
        str(dtype): torch.tensor([[1, 0, 1], [0, 1, 1]], dtype=dtype)
        for dtype in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
            torch.int16, torch.int8, torch.uint8, torch.bool,
        )
    },
    "transposed": base.T,
    "columns": base[:, 1::2],
    "row": base[2],
    "single number": torch.tensor(3.5),
    "no number": torch.empty(3, 0, 2),
    "last": base.contiguous(memory_format=torch.contiguous_format)[3, 5],
    "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "parameter": nn.Parameter(torch.randn(3)),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_those_that_pytorch_reads(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": OrderedDict(a=TENSORS[name])}, tmp_path / "a.ckpt")
    expected = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]["a"]
    archive = TorchArchive(tmp_path / "a.ckpt")
    value = archive.value["state_dict"]["a"]
    assert archive.is_tensor(value)
    tensor = archive.tensor(value)
    assert tensor.dtype == expected.dtype
    assert tensor.shape == expected.shape
    assert tensor.stride() == expected.stride()
    assert torch.equal(tensor, expected)


def test_tensors_outlive_the_archive(tmp_path: Path) -> None:
    torch.save([base], tmp_path / "a.pt")
    archive = TorchArchive(tmp_path / "a.pt")
    tensor = archive.tensor(archive.value[0])
    archive.release()
    del archive
    gc.collect()
    (tmp_path / "a.pt").unlink()
    assert torch.equal(tensor, base)


def test_tensors_that_share_numbers_share_them_here(tmp_path: Path) -> None:
    torch.save([base, base.T], tmp_path / "a.pt")
    archive = TorchArchive(tmp_path / "a.pt")
    first, second = (archive.tensor(value) for value in archive.value)
    assert first.data_ptr() == second.data_ptr()


@pytest.mark.parametrize(
    ("file", "rules", "prefix"),
    [
        ("UNET_2mT", "ldm_tiny_2mT", "autoencoder.unet_regr."),
        ("GAN_2mT", "gan_tiny", ""),
        ("VAE_residual_2mT", "ldm_tiny_2mT", "autoencoder."),
        ("LDM_residual_2mT", "ldm_tiny_2mT", ""),
    ],
)
def test_published_files_hold_the_reference_weights(
    file: str, rules: str, prefix: str, fixtures: Path
) -> None:
    """These files hold whole classes of modules that are not installed here."""
    expected = reference_weights(fixtures / f"{rules}.weight_rules.json")
    archive = TorchArchive(fixtures / "checkpoints" / f"{file}.ckpt")
    compared = 0
    for key, value in archive.value["state_dict"].items():
        if prefix + key in expected and not key.endswith("num_batches_tracked"):
            assert torch.equal(archive.tensor(value, key), expected[prefix + key]), key
            compared += 1
    assert compared >= 100
    assert archive.value["pytorch-lightning_version"] == "2.0.5"


# --- forged tensors


class Stored:
    """Stands for a storage in a forged pickle."""

    def __init__(self, *identifier: Any) -> None:
        self.identifier = identifier if len(identifier) != 1 else identifier[0]


class Call:
    """Stands for the call of a function of PyTorch in a forged pickle."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class ForgingPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.identifier if isinstance(value, Stored) else None


GOOD = ("storage", torch.FloatStorage, "0", "cpu", 6)


def description(value: Any) -> bytes:
    file = io.BytesIO()
    ForgingPickler(file, protocol=2).dump(value)
    return file.getvalue()


def forged(path: Path, value: Any, members: dict[str, bytes] | None = None, **options: Any) -> Path:
    """An archive with a storage 0 of six float32 numbers."""
    content = {
        "data.pkl": description(value),
        "byteorder": b"little",
        "data/0": struct.pack("<6f", *range(6)),
    }
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in (content | (members or {})).items():
            archive.writestr(name if "/" in name and not name.startswith("data/") else f"a/{name}", data)
    return path


def tensor_of(storage: Any, *rest: Any) -> Call:
    return Call(
        torch._utils._rebuild_tensor_v2, storage, *(rest or (0, (2, 3), (3, 1))), False, OrderedDict()
    )


def test_a_forged_archive_without_malice_is_read(tmp_path: Path) -> None:
    path = forged(tmp_path / "a.ckpt", [tensor_of(Stored(*GOOD))])
    archive = TorchArchive(path)
    assert torch.equal(archive.tensor(archive.value[0]), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (tensor_of(Stored(*GOOD), 1, (2, 3), (3, 1)), r"more numbers than its storage 0 has \(6\)"),
        (tensor_of(Stored(*GOOD), 0, (2, 3), (4, 1)), "more numbers than its storage"),
        (tensor_of(Stored(*GOOD), 0, (1000, 1000), (0, 0)), "more numbers than its storage"),
        (tensor_of(Stored(*GOOD), 0, (2**40, 2**40), (0, 0)), "more numbers than its storage"),
        (tensor_of(Stored(*GOOD), 0, (0, 2**40, 2**40), (0, 0, 0)), "more numbers than its storage"),
        (tensor_of(Stored(*GOOD), -1, (2, 3), (3, 1)), "impossible size, stride or offset"),
        (tensor_of(Stored(*GOOD), 3, (2, 3), (-3, 1)), "impossible size"),
        (tensor_of(Stored(*GOOD), 0, (2, -3), (3, 1)), "impossible size"),
        (tensor_of(Stored(*GOOD), 0, (2, 3), (1,)), "impossible size"),
        (tensor_of(Stored(*GOOD), 0, (2**70,), (1,)), "impossible size"),
        (tensor_of(Stored(*GOOD), True, (2, 3), (3, 1)), "impossible size"),
        (tensor_of(Stored(*GOOD), 0, (2.0, 3), (3, 1)), "impossible size"),
        (tensor_of(Stored(*GOOD), 0, (1,) * 40, (1,) * 40), "impossible size"),
        (tensor_of(Stored(*GOOD), 0, None, None), "impossible size"),
        (tensor_of(Stored("storage", torch.DoubleStorage, "0", "cpu", 6)), "should have 48 bytes.* has 24"),
        (tensor_of(Stored("storage", torch.FloatStorage, "0", "cpu", 7)), "should have 28 bytes"),
        (tensor_of(Stored("storage", torch.FloatStorage, "1", "cpu", 6)), "storage 1, which the file lacks"),
        (tensor_of(Stored("storage", torch.FloatStorage, "../0", "cpu", 6)), "without a proper number"),
        (tensor_of(Stored("storage", torch.FloatStorage, 0, "cpu", 6)), "without a proper number"),
        (tensor_of(Stored("storage", torch.FloatStorage, "0", "cpu", -6)), "without a proper number"),
        (tensor_of(Stored("storage", torch.FloatStorage, "0", "cpu", "6")), "without a proper number"),
        (tensor_of(Stored("storage", os.system, "0", "cpu", 6)), "unknown type <posix.system>"),
        (tensor_of(Stored("storage", "FloatStorage", "0", "cpu", 6)), "unknown type a str"),
        (tensor_of(Stored("storage", torch.ComplexFloatStorage, "0", "cpu", 6)), "unknown type"),
        (tensor_of(Stored("module", torch.FloatStorage, "0", "cpu", 6)), "no storage of the known form"),
        (tensor_of(Stored("storage", torch.FloatStorage, "0")), "no storage of the known form"),
        (tensor_of(Stored("text")), "no storage of the known form"),
        (tensor_of("0"), "no storage of the known form"),
        (tensor_of(None), "no storage of the known form"),
        (Call(torch._utils._rebuild_tensor_v2), "described incompletely"),
        (Call(torch._utils._rebuild_tensor_v2, *range(20)), "described incompletely"),
        (Call(torch._utils._rebuild_parameter, None), "is a NoneType, not a tensor"),
        (
            Call(torch._utils._rebuild_parameter, Call(torch._utils._rebuild_parameter, tensor_of(None))),
            "a parameter within a parameter",
        ),
        (torch._utils._rebuild_tensor_v2, "not a tensor"),
        (Call(os.system, "echo run > ran"), r"is <posix.system\(...\)>, not a tensor"),
        (Stored(*GOOD), "not a tensor"),
        ([1.0], "is a list, not a tensor"),
    ],
)
def test_forged_tensors_are_explained(value: Any, sentence: str, tmp_path: Path) -> None:
    path = forged(tmp_path / "a.ckpt", {"w": value})
    archive = TorchArchive(path)
    with pytest.raises(ArchiveError, match=f"the weight w.*{sentence}") as error:
        archive.tensor(archive.value["w"], "the weight w")
    assert str(path) in str(error.value)
    assert not (Path.cwd() / "ran").exists()


# --- forged archives


def rewritten(path: Path, names: dict[str, str]) -> Path:
    """The archive with members under other names."""
    with zipfile.ZipFile(path) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(names.get(name, name), data)
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return forged(tmp_path / "a.ckpt", [tensor_of(Stored(*GOOD))])


@pytest.mark.parametrize(
    "name", ["../../etc/cron.d/x", "/etc/passwd", "a/../../x", "..", "C:/x", "a\\..\\x", "\\\\host\\x"]
)
def test_names_that_lead_out_are_refused(sound: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match="leads out of it"):
        TorchArchive(rewritten(sound, {"a/data/0": name}))
    assert [path.name for path in sound.parent.iterdir()] == ["a.ckpt"]


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    """So there is no zip bomb: nothing is ever larger than in the file."""
    bomb = forged(
        tmp_path / "bomb.ckpt",
        [tensor_of(Stored("storage", torch.ByteStorage, "1", "cpu", 2**28), 0, (2**28,), (1,))],
        {"data/1": bytes(2**28)},
        compression=zipfile.ZIP_DEFLATED,
    )
    assert bomb.stat().st_size < 2**20
    with pytest.raises(ArchiveError, match="is compressed, which PyTorch never does"):
        TorchArchive(bomb)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_stand_twice_are_refused(sound: Path) -> None:
    with zipfile.ZipFile(sound, "a") as archive:
        archive.writestr("a/data/0", bytes(24))
    with pytest.raises(ArchiveError, match="two members named 'a/data/0'"):
        TorchArchive(sound)


def directory(data: bytearray) -> int:
    """Where the first entry of the central directory lies."""
    return data.index(b"PK\x01\x02")


def patched(path: Path, change: Any) -> Path:
    data = bytearray(path.read_bytes())
    change(data, directory(data))
    path.write_bytes(data)
    return path


def encrypt(data: bytearray, at: int) -> None:
    data[at + 8] |= 1


def overlap(data: bytearray, at: int) -> None:
    """The second member begins where the first does, behind a header of its own size."""
    second = data.index(b"PK\x01\x02", at + 4)
    data[second + 42 : second + 46] = data[at + 42 : at + 46]


def reach_out(data: bytearray, at: int) -> None:
    """The first member claims to be as long as a gigabyte."""
    data[at + 20 : at + 28] = struct.pack("<II", 2**30, 2**30)


def misplace(data: bytearray, at: int) -> None:
    data[at + 42 : at + 46] = struct.pack("<I", 5)


def far(data: bytearray, at: int) -> None:
    data[at + 42 : at + 46] = struct.pack("<I", 2**31)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (encrypt, "is encrypted"),
        (overlap, "overlap"),
        (reach_out, "overlap|truncated"),
        (misplace, "is damaged"),
        (far, "is damaged"),
    ],
)
def test_forged_directories_are_refused(sound: Path, change: Any, sentence: str) -> None:
    with pytest.raises(ArchiveError, match=sentence):
        TorchArchive(patched(sound, change))


def test_huge_directories_are_not_read(sound: Path) -> None:
    def grow(data: bytearray, at: int) -> None:
        data[at:at] = bytes(2 * MAX_DIRECTORY_BYTES)
        end = data.rindex(b"PK\x05\x06")
        size = struct.unpack("<I", data[end + 12 : end + 16])[0]
        data[end + 12 : end + 16] = struct.pack("<I", size + 2 * MAX_DIRECTORY_BYTES)

    with pytest.raises(ArchiveError, match="directory is too large"):
        TorchArchive(patched(sound, grow))


def test_truncated_archives_are_refused(fixtures: Path, tmp_path: Path) -> None:
    whole = (fixtures / "checkpoints" / "UNET_2mT.ckpt").read_bytes()
    for length in (3, 30, 1000, len(whole) // 2, len(whole) - 1000, len(whole) - 1):
        (tmp_path / "cut.ckpt").write_bytes(whole[:length])
        with pytest.raises(ArchiveError, match=r"cut\.ckpt is truncated or damaged"):
            TorchArchive(tmp_path / "cut.ckpt")


def write_empty(path: Path) -> None:
    path.write_bytes(b"")


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": {}}))


def write_legacy(path: Path) -> None:
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def write_two(path: Path) -> None:
    forged(path, [1], {"b/data.pkl": b"N."})


def write_other_order(path: Path) -> None:
    forged(path, [1], {"byteorder": b"big"})


def write_endless(path: Path) -> None:
    forged(path, [1], {"data.pkl": b"N0" * 1_000_001})


def write_broken(path: Path) -> None:
    forged(path, [1], {"data.pkl": b"(NN"})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "There is no file"),
        (lambda path: path.mkdir(), "There is no file"),
        (write_empty, "is empty"),
        (write_pickle, "not a checkpoint in the zip form"),
        (write_legacy, "Write an older one again"),
        (write_zip, "not one that PyTorch wrote"),
        (write_two, "not one that PyTorch wrote"),
        (write_other_order, "another byte order"),
        (write_endless, "more than 1000000 instructions"),
        (write_broken, r"\(data.pkl\) in .* can't be used: the pickle is damaged"),
    ],
)
def test_other_files_are_named_as_such(make: Any, sentence: str, tmp_path: Path) -> None:
    make(tmp_path / "other.ckpt")
    with pytest.raises(ArchiveError, match=sentence) as error:
        TorchArchive(tmp_path / "other.ckpt")
    assert "other.ckpt" in str(error.value)


def test_a_storage_may_begin_anywhere(tmp_path: Path) -> None:
    for length in range(8):
        path = forged(tmp_path / "a.ckpt", [tensor_of(Stored(*GOOD)), "x" * length])
        archive = TorchArchive(path)
        assert torch.equal(archive.tensor(archive.value[0]), torch.arange(6.0).reshape(2, 3))


@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_does_more_than_be_refused(changes: list[tuple[int, int]], tmp_path: Path) -> None:
    path = forged(
        tmp_path / "a.ckpt", {"w": tensor_of(Stored(*GOOD)), "p": Call(os.system, "echo run > ran")}
    )
    data = bytearray(path.read_bytes())
    for position, byte in changes:
        data[position % len(data)] = byte
    path.write_bytes(data)
    with suppress(ArchiveError):
        archive = TorchArchive(path)
        if isinstance(archive.value, dict):
            for value in archive.value.values():
                archive.tensor(value)
