"""Checkpoints: one safe file per runnable model.

A ``.safetensors`` file whose header carries the entry ``tramontana``: a JSON object with everything needed
to run the weights (:class:`Header`). A weight is named ``<part>.<name in the module's state dict>``, where
the parts are the keys of ``Header.models``, so one file may hold a UNet, a VAE, a conditioner and a denoiser.
A second entry, ``weights_sha256``, is the hash of all that follows the header. A third one, ``description``,
holds what changes nothing about the results (:class:`Description`): the ranges of the training data and the
model card. Every hash of a file that is written down anywhere is that of the file without this entry, so
describing a model anew (:func:`rewrite_description`) leaves all of them true.

Nothing here unpickles: the file is a length, a JSON header and raw numbers, checked before they are used.
Files are mapped when they are read and written tensor by tensor, so that neither needs memory for a second
copy of the weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor, nn

from core.data.ranges import TAIL, TrainingRange
from core.data.samples import Normalization
from core.diffusion.schedule import Parameterization
from core.domain import Domain
from core.file_kind import file_kind
from core.mapped_memory import map_file, mapped_tensor, release, shrunk
from core.model_card import ModelCard
from core.plural import counted
from core.variables import PREDICTORS, STATICS, TARGETS, VARIABLES

FORMAT_VERSION = 1
ENTRY = "tramontana"
HASH_ENTRY = "weights_sha256"
DESCRIPTION_ENTRY = "description"
SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 16 * 2**20
MAX_SIDE = 100_000
MAX_DIMENSIONS = 16
MAX_NESTING = 20
MAX_PARTS = 16
MAX_LABEL = 80
MAX_DOMAIN_NAME = 200
ALIGNMENT = 8
PIECE = 32 * 2**20
"""Bytes read before the memory they took is given back."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class CheckpointError(ValueError):
    """A checkpoint that can't be read, written or used; the message names the file and the fault."""


class Description(BaseModel):
    """What people should know of a model, and nothing that its results depend on.

    Attributes
    ----------
    ranges : of the inputs in training; None where they are not known
    card : the model card; None where nobody wrote one
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranges: TrainingRange | None = None
    card: ModelCard | None = None


class Header(BaseModel):
    """Everything about a model but its weights.

    Attributes
    ----------
    format_version : of this layout
    kind : what runs it, for example ``"unet"``
    label : its name for people
    models : configuration of each part, by the part's name
    predictors, statics, targets : short names in channel order
    normalization : statistics of exactly these predictors and at least these targets
    domain : the domain it was trained on, as :meth:`core.domain.Domain.to_dict` gives it
    parameterization : what the denoiser of a latent diffusion model predicts; no meaning for other models
    provenance : plain values: data fingerprint, steps, losses, hashes of parent files, code version
    description : ranges of the training data and the model card, in an entry of their own; files written
        before there was such a thing have an empty one
    """

    # NaN must reach the JSON writer, which refuses it, and not become null on the way.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    format_version: int = Field(default=FORMAT_VERSION, ge=1, le=FORMAT_VERSION)
    kind: Name
    label: str
    models: dict[Name, dict[str, Any]] = Field(min_length=1, max_length=MAX_PARTS)
    predictors: tuple[str, ...] = Field(min_length=1)
    statics: tuple[str, ...]
    targets: tuple[str, ...] = Field(min_length=1)
    normalization: Normalization
    domain: dict[str, Any]
    parameterization: Parameterization = "v"
    provenance: dict[str, Any] = Field(default_factory=dict)
    description: Description = Description()

    @field_validator("label")
    @classmethod
    def _readable(cls, label: str) -> str:
        if not 1 <= len(label) <= MAX_LABEL or not label.isprintable() or set(label) & set("<>"):
            raise ValueError(f"must be one line of 1 to {MAX_LABEL} letters, none of them < or >")
        return label

    @field_validator("predictors", "statics", "targets")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: Any) -> tuple[str, ...]:
        known = {"predictors": PREDICTORS, "statics": STATICS, "targets": TARGETS}[info.field_name]
        strangers = [name for name in names if name not in known]
        if strangers:
            raise ValueError(f"unknown: {', '.join(strangers)}; known are {', '.join(known)}")
        if len(set(names)) < len(names):
            raise ValueError("a name stands twice")
        return names

    @field_validator("domain")
    @classmethod
    def _domain(cls, values: dict[str, Any]) -> dict[str, Any]:
        for side in ("height", "width"):
            # Before coordinates of that length are made.
            if not isinstance(values.get(side), int) or not 2 <= values[side] <= MAX_SIDE:
                raise ValueError(f"{side} must be a whole number from 2 to {MAX_SIDE}")
        name = values.get("name")
        if not isinstance(name, str) or len(name) > MAX_DOMAIN_NAME or not name.isprintable():
            raise ValueError(f"name must be one line of at most {MAX_DOMAIN_NAME} letters")
        Domain.from_dict(values)
        return values

    @model_validator(mode="after")
    def _normalised(self) -> Self:
        if tuple(self.normalization.predictors) != self.predictors:
            raise ValueError("the normalisation is not for the predictors, or in another order")
        missing = [name for name in self.targets if name not in self.normalization.targets]
        if missing:
            raise ValueError(f"the normalisation lacks the target {', '.join(missing)}")
        return self


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies in a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


class _Weights(Mapping[str, Tensor]):
    """The tensors of a mapped file by name, made when they are asked for."""

    def __init__(self, path: Path, memory: mmap.mmap, entries: Mapping[str, _Entry]) -> None:
        self.path = path
        self.memory = memory
        self.entries = entries

    def stored(self, key: str) -> Tensor:
        """A tensor in the type of the file."""
        entry = self.entries[key]
        _refuse_shrunk(self.path, self.memory)
        return mapped_tensor(self.memory, entry.start, entry.count, entry.dtype).view(entry.shape)

    def __getitem__(self, key: str) -> Tensor:
        tensor = self.stored(key)
        return tensor.to(torch.float32) if tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Its file stays mapped and may be deleted, or replaced by a rename, but not be written over in place: where
    it has become shorter, reading a weight raises CheckpointError, and reading one that was handed out before
    ends the process.

    Attributes
    ----------
    tensors : every weight as float32 (whole numbers as they are) on the CPU. Those that the file holds as
        float32 lie in the mapped file: treat them as read-only.
    recorded_weights_hash : what the file says is the SHA-256 of its weights; None where it does not say
    """

    path: Path
    header: Header
    tensors: Mapping[str, Tensor]
    recorded_weights_hash: str | None
    _memory: mmap.mmap = field(repr=False, compare=False)
    _start: int = field(repr=False, compare=False)
    _first: bytes = field(repr=False, compare=False)

    @cached_property
    def file_hash(self) -> str:
        """See :func:`file_hash`; computed when it is first asked for."""
        return self._hash_from(self._start, self._first)

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of all that follows the header, computed when it is first asked for."""
        return self._hash_from(self._start)

    def check_weights(self) -> None:
        """Raise CheckpointError where the weights are not those whose hash the file records."""
        if self.recorded_weights_hash not in (None, self.weights_hash):
            raise CheckpointError(
                f"The weights of {self.path} were changed after they were written: their SHA-256 is not the "
                "recorded one. Copy or make it again."
            )

    def _hash_from(self, start: int, first: bytes = b"") -> str:
        digest = hashlib.sha256(first)
        with memoryview(self._memory) as view:
            for at in range(start, len(view), PIECE):
                _refuse_shrunk(self.path, self._memory)
                digest.update(view[at : at + PIECE])
                release(self._memory)
        return digest.hexdigest()

    def restore(self, part: str, module: nn.Module) -> None:
        """Put the weights of ``part`` into ``module``, which may have been made on the meta device.

        The module has its own copy, so it may be trained, and the file may go. Raises CheckpointError
        naming missing or extra weights and wrong shapes.
        """
        prefix = f"{part}."
        expected = module.state_dict()
        given = {k.removeprefix(prefix): e for k, e in self._entries().items() if k.startswith(prefix)}
        check_names(f"The part {part} of {self.path}", expected, given)
        wrong = [
            key
            for key, tensor in expected.items()
            if tensor.is_floating_point() != given[key].dtype.is_floating_point
        ]
        if wrong:
            raise CheckpointError(
                f"The part {part} of {self.path} has weights of the wrong type: {_some(wrong)}."
            )
        copies, read = {}, 0
        for key in expected:
            tensor = self.tensors[prefix + key]
            # Half precision has been copied when it was made wider.
            copies[key] = tensor.clone() if self._in_file(prefix + key) else tensor
            read += tensor.nbytes
            if read >= PIECE:
                release(self._memory)
                read = 0
        module.load_state_dict(copies, assign=True)
        release(self._memory)

    def _entries(self) -> Mapping[str, _Entry]:
        assert isinstance(self.tensors, _Weights)
        return self.tensors.entries

    def _in_file(self, key: str) -> bool:
        dtype = self._entries()[key].dtype
        return dtype == torch.float32 or not dtype.is_floating_point


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_names(where: str, expected: Mapping[str, Tensor], given: Mapping[str, _Shaped]) -> None:
    """Whether weights are those that a module expects, by name and shape.

    Raises CheckpointError that starts with ``where`` and names what is missing, extra or of the wrong shape.
    """
    if missing := expected.keys() - given.keys():
        raise CheckpointError(f"{where} lacks weights that its configuration asks for: {_some(missing)}.")
    if extra := given.keys() - expected.keys():
        raise CheckpointError(f"{where} has weights that its configuration does not know: {_some(extra)}.")
    wrong = [
        f"{key} is {_shape(given[key].shape)} and should be {_shape(tensor.shape)}"
        for key, tensor in expected.items()
        if tuple(given[key].shape) != tuple(tensor.shape)
    ]
    if wrong:
        raise CheckpointError(f"{where} has weights of the wrong shape: {_some(wrong, sep='; ')}.")


def _some(items: Iterable[str], *, sep: str = ", ", most: int = 5) -> str:
    names = [printable(item[:200]) for item in sorted(items)]
    rest = f"{sep}and {len(names) - most} more" if len(names) > most else ""
    return sep.join(names[:most]) + rest


def _shape(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _check_parts(path: Path, header: Header, names: Iterable[str]) -> None:
    names = list(names)
    strangers = [key for key in names if key.partition(".")[0] not in header.models]
    if strangers:
        parts = ", ".join(header.models)
        raise CheckpointError(f"{path} has weights of no part ({parts}) of its header: {_some(strangers)}.")
    bare = [part for part in header.models if not any(key.startswith(f"{part}.") for key in names)]
    if bare:
        raise CheckpointError(f"{path} has no weights for the part {', '.join(bare)} of its header.")


def _refuse_shrunk(path: Path, memory: mmap.mmap) -> None:
    if shrunk(memory):
        raise CheckpointError(f"{path} was cut short or written over while it was in use; open it again.")


def _refuse_broken(path: Path, broken: list[str]) -> None:
    if broken:
        raise CheckpointError(
            f"{path} has weights that are not finite (NaN or infinite), so the training went wrong or "
            f"the numbers do not fit their type: {_some(broken)}."
        )


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _prepared(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight as it is stored."""
    return tensor.detach().to("cpu", _stored_dtype(tensor, dtype)).contiguous()


def _bytes(tensor: Tensor) -> memoryview:
    numbers: NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    return numbers.data


def save(
    path: str | Path,
    header: Header,
    state_dict: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
    origin: str | Path | None = None,
) -> str:
    """Write a checkpoint and return its hash; a file of that name is replaced only when all is written.

    One weight at a time is converted, checked and written, so ``state_dict`` may be larger than memory
    (mapped, or made when asked for). Every weight is asked for twice: to check and to hash it before
    anything is written, and to write it.

    Parameters
    ----------
    state_dict : weights named ``<part>.<name>``, as the state dict of a module that holds the parts has them
    dtype : ``torch.float16`` halves the file. Weights of one dimension (biases, normalisation) stay
        float32, since running variances may leave the range of float16 and take next to no room.
    progress : called with (bytes done, bytes in all) after each weight, in both passes
    origin : file that the weights come from, which errors then name

    Raises CheckpointError where a weight belongs to no part or is not finite after conversion.
    """
    path = Path(path)
    if dtype not in (torch.float16, torch.float32):
        raise CheckpointError(f"Weights are stored as float32 or float16, not as {dtype}.")
    _check_parts(path, header, state_dict)
    try:
        text = json.dumps(header.model_dump(mode="json", exclude={"description"}), allow_nan=False)
    except ValueError as error:
        raise CheckpointError(f"The header for {path} holds a value that JSON can't: {error}.") from error

    entries = _planned(path, state_dict, dtype)
    end = sum(entry.size for entry in entries.values())
    done = 0

    def advance(entry: _Entry) -> None:
        nonlocal done
        done += entry.size
        if progress is not None:
            progress(done, 2 * end)

    digest, broken = hashlib.sha256(), []
    for key, entry in entries.items():
        tensor = _prepared(state_dict[key], dtype)
        if not _finite(tensor):
            broken.append(key)
        digest.update(_bytes(tensor))
        advance(entry)
    _refuse_broken(Path(origin or path), broken)

    metadata = {ENTRY: text, HASH_ENTRY: digest.hexdigest()}
    digest = hashlib.sha256(_first_bytes(entries, metadata))
    start = _first_bytes(entries, _described(metadata, header.description))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as file:
        file.write(start)
        for key, entry in entries.items():
            numbers = _bytes(_prepared(state_dict[key], dtype))
            digest.update(numbers)
            file.write(numbers)
            advance(entry)
    return digest.hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets the name ``path`` when all is written; otherwise nothing stays behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def rewrite_description(path: str | Path, description: Description) -> None:
    """Give a checkpoint another description; weights and the rest of its header stay, byte for byte.

    The file is replaced when the new one is complete. Its identity and hash remain. Raises CheckpointError as
    :func:`load` does, and where another program wrote the header, so that it can't be kept as it is.
    """
    path = Path(path)
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        data = file.read(_header_length(path, first, size))
        outer = _parse_header(path, data, size)[1]
        outer["__metadata__"].pop(DESCRIPTION_ENTRY, None)
        bare = _header_bytes(outer)
        if bare != _undescribed(data):
            raise CheckpointError(f"{path} has a header that another program wrote; it can't be described.")
        outer["__metadata__"] = _described(outer["__metadata__"], description)
        start = _header_bytes(outer)
        if len(start) - 8 > MAX_HEADER_BYTES:
            raise CheckpointError(f"The description for {path} is too long.")
        with _replacing(path) as target:
            target.write(start)
            shutil.copyfileobj(file, target, PIECE)


def _described(metadata: Mapping[str, str], description: Description) -> dict[str, str]:
    """The entries of a header with that of the description, where this says anything."""
    if description == Description():
        return dict(metadata)
    return {**metadata, DESCRIPTION_ENTRY: json.dumps(description.model_dump(mode="json"), allow_nan=False)}


def _undescribed(data: bytes) -> bytes:
    """The first bytes of a file, length and JSON header, as they are without a description.

    ``data`` is the JSON header. One without description is given back as it is, whoever wrote it.
    """
    outer = json.loads(data)
    if outer["__metadata__"].pop(DESCRIPTION_ENTRY, None) is None:
        return len(data).to_bytes(8, "little") + data
    return _header_bytes(outer)


def _planned(path: Path, state_dict: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, _Entry]:
    """Where every weight will lie behind the header, wide types first, so that each suits its place."""
    kinds = {key: (_stored_dtype(tensor, dtype), tuple(tensor.shape)) for key, tensor in state_dict.items()}
    unknown = [f"{key} ({kind})" for key, (kind, _) in kinds.items() if kind not in _DTYPE_NAMES]
    if unknown:
        raise CheckpointError(f"{path} can't hold weights of these types: {_some(unknown)}.")
    entries: dict[str, _Entry] = {}
    end = 0
    for key in sorted(kinds, key=lambda key: (-kinds[key][0].itemsize, key)):
        entries[key] = _Entry(*kinds[key], end)
        end += entries[key].size
    return entries


def _stored_dtype(tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    if not tensor.is_floating_point():
        return tensor.dtype
    return dtype if tensor.ndim > 1 else torch.float32


def _first_bytes(entries: Mapping[str, _Entry], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON header of a file."""
    outer: dict[str, Any] = {"__metadata__": metadata}
    for key, entry in entries.items():
        outer[key] = {
            "dtype": _DTYPE_NAMES[entry.dtype],
            "shape": entry.shape,
            "data_offsets": [entry.start, entry.start + entry.size],
        }
    return _header_bytes(outer)


def _header_bytes(outer: Mapping[str, Any]) -> bytes:
    data = json.dumps(outer, separators=(",", ":")).encode()
    data += b" " * (-len(data) % ALIGNMENT)
    return len(data).to_bytes(8, "little") + data


def read_header(path: str | Path) -> Header:
    """The header of a checkpoint, without its weights. Raises CheckpointError as :func:`load` does."""
    path = Path(path)
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = _header_length(path, file.read(8), size)
        return _parse_header(path, file.read(length), size)[0]


def identity(path: str | Path) -> str:
    """A SHA-256 that stands for the content of a checkpoint, without reading its weights.

    That of the header without its description, which records the hash of the weights; where it does not,
    that of :func:`file_hash`. Whether the weights are those recorded is for :meth:`Checkpoint.check_weights`
    to say.
    Raises CheckpointError as :func:`load` does.
    """
    path = Path(path)
    with _open(path) as file:
        start, metadata = _start_of(path, file)
        if isinstance(metadata.get(HASH_ENTRY), str):
            return hashlib.sha256(start).hexdigest()
    return file_hash(path)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a checkpoint as it is without its description; of one that has none, that of the file.

    By this later models know the files that they were made from. Raises CheckpointError as :func:`load` does.
    """
    path = Path(path)
    with _open(path) as file:
        digest = hashlib.sha256(_start_of(path, file)[0])
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _start_of(path: Path, file: BinaryIO) -> tuple[bytes, Mapping[str, Any]]:
    """The first bytes without description, and the entries of the header; the weights are left to be read."""
    size = os.fstat(file.fileno()).st_size
    data = file.read(_header_length(path, file.read(8), size))
    metadata: Mapping[str, Any] = _parse_header(path, data, size)[1]["__metadata__"]
    return _undescribed(data), metadata


def load(path: str | Path) -> Checkpoint:
    """Map a checkpoint and check it whole.

    Raises CheckpointError where the file is absent, truncated or no checkpoint, has a header that is
    too large, malformed or of a newer version, or holds weights that are not finite or belong to no part.
    """
    path = Path(path)
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = _header_length(path, file.read(8), size)
        data = file.read(length)
        header, outer = _parse_header(path, data, size)
    try:
        memory = map_file(path)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}.") from error
    entries = _layout(path, outer, 8 + length, size)
    _check_parts(path, header, entries)
    weights = _Weights(path, memory, entries)
    broken, read = [], 0
    for key, entry in entries.items():
        # Numbers beyond float32 become infinite when they are used.
        if not _finite(weights[key]):
            broken.append(key)
        read += entry.size
        if read >= PIECE:
            release(memory)
            read = 0
    release(memory)
    _refuse_broken(path, broken)
    recorded = outer["__metadata__"].get(HASH_ENTRY)
    recorded = recorded if isinstance(recorded, str) else None
    return Checkpoint(path, header, weights, recorded, memory, 8 + length, _undescribed(data))


def _layout(path: Path, outer: Mapping[str, Any], start: int, size: int) -> dict[str, _Entry]:
    """Where every tensor lies; together they fill the file from ``start`` on without gap or overlap."""
    found: list[tuple[int, int, str, _Entry]] = []
    for key, value in outer.items():
        if key == "__metadata__":
            continue
        try:
            first, last = value["data_offsets"]
            shape, dtype = tuple(value["shape"]), _DTYPES[value["dtype"]]
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, f"{key} is not described as a tensor") from error
        if len(shape) > MAX_DIMENSIONS or not all(
            type(number) is int and 0 <= number < 2**48 for number in (*shape, first, last)
        ):
            raise _damaged(path, f"{key} has an impossible shape or place")
        entry = _Entry(dtype, shape, start + first)
        if last - first != entry.size:
            raise _damaged(path, f"{key} should take {entry.size} bytes and takes {last - first}")
        found.append((first, last, key, entry))
    found.sort(key=lambda item: item[:2])
    end = 0
    for first, last, key, _ in found:
        if first != end:
            raise _damaged(path, f"{key} does not begin where the tensor before it ends")
        end = last
    if start + end != size:
        raise _damaged(path, f"{counted(size - start - end, 'byte')} too many lie behind the last tensor")
    return {key: entry for _, _, key, entry in found}


def _damaged(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {printable(fault[-300:])}. Copy or make it again.")


def _open(path: Path) -> BinaryIO:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}.") from error


HOWTO = (
    "Make one with `tramontana train`, or from a published Lightning file with "
    "`tramontana checkpoint import`."
)


def published_advice(path: str | Path) -> str:
    """What to do with a file that PyTorch wrote, as the published checkpoints are."""
    return (
        f"{path} seems to be a checkpoint of PyTorch, as the published models are. Make one of ours from it "
        "with `tramontana checkpoint import`, and see that with `tramontana checkpoint show`."
    )


def _not_ours(path: Path) -> CheckpointError:
    if file_kind(path) == "zip":
        return CheckpointError(published_advice(path))
    return CheckpointError(f"{path} is not a Tramontana checkpoint. {HOWTO}")


def _header_length(path: Path, first: bytes, size: int) -> int:
    """Bytes of the JSON header, from the first eight of a file of ``size`` bytes."""
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length < 2:
        raise _not_ours(path)
    if length > MAX_HEADER_BYTES:
        # Most files of another kind come here, since their first bytes make a huge number.
        if length > size - 8:
            raise _not_ours(path)
        raise CheckpointError(
            f"{path} is not a Tramontana checkpoint: its header would have {length} bytes, and at most "
            f"{MAX_HEADER_BYTES} are read."
        )
    if 8 + length > size:
        raise _truncated(path, 8 + length, size)
    return length


def _truncated(path: Path, expected: int, size: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is truncated: it should have at least {expected} bytes and has {size}. "
        "Copy or make it again."
    )


def _parse_header(path: Path, data: bytes, size: int) -> tuple[Header, dict[str, Any]]:
    """Our header, and the format's own that holds it."""
    try:
        outer = json.loads(data)
        entry = outer["__metadata__"][ENTRY]
        ends = [int(value["data_offsets"][1]) for name, value in outer.items() if name != "__metadata__"]
        values = json.loads(entry, parse_constant=_refuse_constant)
        version = values["format_version"]
        said = outer["__metadata__"].get(DESCRIPTION_ENTRY)
        values["description"] = {} if said is None else json.loads(said, parse_constant=_refuse_constant)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise _not_ours(path) from error
    if 8 + len(data) + max(ends, default=0) > size:
        raise _truncated(path, 8 + len(data) + max(ends), size)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has the checkpoint format {printable(version)[:80]}; this version reads up to "
            f"{FORMAT_VERSION}. Update Tramontana."
        )
    try:
        return Header.model_validate(values), outer
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
            for fault in error.errors()[:5]
        )
        raise CheckpointError(f"The header of {path} is wrong: {printable(faults)[:1000]}.") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def describe(header: Header) -> list[tuple[str, str]]:
    """A header as (what, value) lines for people."""
    domain = Domain.from_dict(header.domain)
    height, width = domain.fine.shape
    lines = [
        ("label", header.label),
        ("kind", header.kind),
        ("format version", str(header.format_version)),
        (
            "domain",
            f"{domain.name}, {height} x {width} cells of {domain.fine.dx:g} x {domain.fine.dy:g} m, "
            f"coarse cells {domain.ratio} times larger, {printable(domain.crs)}",
        ),
        ("predictors", ", ".join(header.predictors)),
        ("statics", ", ".join(header.statics) or "none"),
        ("targets", ", ".join(header.targets)),
    ]
    if header.description.card is not None:
        lines += [(what.lower(), value) for what, value in header.description.card.lines()]
    lines += [(f"model {part}", _plain(config)) for part, config in header.models.items()]
    lines += [(f"provenance {printable(key)}", _plain(value)) for key, value in header.provenance.items()]
    if header.description.ranges is not None:
        lines += _range_lines(header.description.ranges)
    return lines


def _range_lines(ranges: TrainingRange) -> list[tuple[str, str]]:
    lines = []
    for name, found in (*ranges.predictors.items(), *ranges.statics.items()):
        units = VARIABLES[name].units
        lines.append(
            (
                f"trained on {name}",
                f"{found.low:.4g} to {found.high:.4g} {units} but for {2 * TAIL:.1%} of the values, "
                f"{found.minimum:.4g} to {found.maximum:.4g} in all",
            )
        )
    return lines


def _plain(value: Any, depth: int = 0) -> str:
    """A value from a file, which may hold anything, as one line that is safe to print."""
    if depth > MAX_NESTING:
        return "..."
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(key)} {_plain(item, depth + 1)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item, depth + 1) for item in value)
    return printable(value)


def printable(value: Any) -> str:
    """Text of a value from a file, without letters that steer a terminal or reorder a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))
