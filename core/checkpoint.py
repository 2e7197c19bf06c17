"""Checkpoints: one safe file per runnable model.

A ``.safetensors`` file whose header carries one entry, ``tramontana``: a JSON object with everything needed
to run the weights (:class:`Header`). A weight is named ``<part>.<name in the module's state dict>``, where
the parts are the keys of ``Header.models``, so one file may hold a UNet, a VAE, a conditioner and a denoiser.

Nothing here unpickles: the file is a length, a JSON header and raw numbers, checked before they are used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from core.data.samples import Normalization
from core.domain import Domain
from core.variables import PREDICTORS, STATICS, TARGETS

FORMAT_VERSION = 1
ENTRY = "tramontana"
SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 16 * 2**20
MAX_SIDE = 100_000

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class CheckpointError(ValueError):
    """A checkpoint that can't be read, written or used; the message names the file and the fault."""


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
    provenance : plain values: data fingerprint, steps, losses, hashes of parent files, code version
    """

    # NaN must reach the JSON writer, which refuses it, and not become null on the way.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    format_version: int = Field(default=FORMAT_VERSION, ge=1, le=FORMAT_VERSION)
    kind: Name
    label: str = Field(pattern=r"^[^\x00-\x1f\x7f<>]{1,80}$")
    models: dict[Name, dict[str, Any]] = Field(min_length=1)
    predictors: tuple[str, ...] = Field(min_length=1)
    statics: tuple[str, ...]
    targets: tuple[str, ...] = Field(min_length=1)
    normalization: Normalization
    domain: dict[str, Any]
    provenance: dict[str, Any] = Field(default_factory=dict)

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
class Checkpoint:
    """A checkpoint in memory.

    ``tensors`` holds every weight as float32 (whole numbers as they are) on the CPU, ``file_hash`` is the
    SHA-256 of the file.
    """

    path: Path
    header: Header
    tensors: Mapping[str, Tensor]
    file_hash: str

    def restore(self, part: str, module: nn.Module) -> None:
        """Put the weights of ``part`` into ``module``, which may have been made on the meta device.

        So a network is never larger than the file that holds it. Raises CheckpointError naming missing
        or extra weights and wrong shapes.
        """
        prefix = f"{part}."
        given = {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}
        expected = module.state_dict()
        where = f"The part {part} of {self.path}"
        if missing := expected.keys() - given.keys():
            raise CheckpointError(f"{where} lacks weights that its configuration asks for: {_some(missing)}.")
        if extra := given.keys() - expected.keys():
            raise CheckpointError(
                f"{where} has weights that its configuration does not know: {_some(extra)}."
            )
        wrong = [
            f"{key} is {_shape(given[key])} and should be {_shape(tensor)}"
            for key, tensor in expected.items()
            if given[key].shape != tensor.shape
        ]
        if wrong:
            raise CheckpointError(f"{where} has weights of the wrong shape: {_some(wrong, sep='; ')}.")
        module.load_state_dict({key: tensor.clone() for key, tensor in given.items()}, assign=True)


def _some(items: Iterable[str], *, sep: str = ", ", most: int = 5) -> str:
    names = sorted(items)
    rest = f"{sep}and {len(names) - most} more" if len(names) > most else ""
    return sep.join(names[:most]) + rest


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def _check_weights(path: Path, header: Header, tensors: Mapping[str, Tensor]) -> None:
    strangers = [key for key in tensors if key.partition(".")[0] not in header.models]
    if strangers:
        parts = ", ".join(header.models)
        raise CheckpointError(f"{path} has weights of no part ({parts}) of its header: {_some(strangers)}.")
    bare = [part for part in header.models if not any(key.startswith(f"{part}.") for key in tensors)]
    if bare:
        raise CheckpointError(f"{path} has no weights for the part {', '.join(bare)} of its header.")
    broken = [
        key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        raise CheckpointError(
            f"{path} has weights that are not finite (NaN or infinite), so the training went wrong or "
            f"the numbers do not fit their type: {_some(broken)}."
        )


def save(
    path: str | Path,
    header: Header,
    state_dict: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a checkpoint and return its hash; a file of that name is replaced only when all is written.

    Parameters
    ----------
    state_dict : weights named ``<part>.<name>``, as the state dict of a module that holds the parts has them
    dtype : ``torch.float16`` halves the file. Weights of one dimension (biases, normalisation) stay
        float32, since running variances may leave the range of float16 and take next to no room.

    Raises CheckpointError where a weight belongs to no part or is not finite after conversion.
    """
    path = Path(path)
    if dtype not in (torch.float16, torch.float32):
        raise CheckpointError(f"Weights are stored as float32 or float16, not as {dtype}.")
    stored = {}
    for key, tensor in state_dict.items():
        kept = tensor.detach().to("cpu", copy=True).contiguous()
        if kept.is_floating_point():
            kept = kept.to(dtype if kept.ndim > 1 else torch.float32)
        stored[key] = kept
    _check_weights(path, header, stored)
    try:
        text = json.dumps(header.model_dump(mode="json"), allow_nan=False)
    except ValueError as error:
        raise CheckpointError(f"The header for {path} holds a value that JSON can't: {error}.") from error
    data = tensors_to_bytes(stored, metadata={ENTRY: text})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return hashlib.sha256(data).hexdigest()


def read_header(path: str | Path) -> Header:
    """The header of a checkpoint, without its weights. Raises CheckpointError as :func:`load` does."""
    path = Path(path)
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = _header_length(path, file.read(8), size)
        return _parse_header(path, file.read(length), size)


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint whole and check it.

    Raises CheckpointError where the file is absent, truncated or no checkpoint, has a header that is
    too large, malformed or of a newer version, or holds weights that are not finite or belong to no part.
    """
    path = Path(path)
    with _open(path) as file:
        data = file.read()
    length = _header_length(path, data[:8], len(data))
    header = _parse_header(path, data[8 : 8 + length], len(data))
    try:
        raw = tensors_from_bytes(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Copy or make it again.") from error
    tensors = {key: t.to(torch.float32) if t.is_floating_point() else t for key, t in raw.items()}
    _check_weights(path, header, tensors)
    return Checkpoint(path, header, tensors, hashlib.sha256(data).hexdigest())


def _open(path: Path) -> BinaryIO:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}.") from error


def _not_ours(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a Tramontana checkpoint. Make one with `tramontana train`, or from a published "
        "Lightning file with `tramontana checkpoint import`."
    )


def _header_length(path: Path, first: bytes, size: int) -> int:
    """Bytes of the JSON header, from the first eight of a file of ``size`` bytes."""
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length < 2:
        raise _not_ours(path)
    if length > MAX_HEADER_BYTES:
        # Most files of another kind come here, since their first bytes make a huge number.
        raise CheckpointError(
            f"{path} is not a safetensors file, or its header is too large ({length} bytes; at most "
            f"{MAX_HEADER_BYTES} are read)."
        )
    if 8 + length > size:
        raise _truncated(path, 8 + length, size)
    return length


def _truncated(path: Path, expected: int, size: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is truncated: it should have at least {expected} bytes and has {size}. "
        "Copy or make it again."
    )


def _parse_header(path: Path, data: bytes, size: int) -> Header:
    try:
        outer = json.loads(data)
        entry = outer["__metadata__"][ENTRY]
        ends = [int(value["data_offsets"][1]) for name, value in outer.items() if name != "__metadata__"]
        values = json.loads(entry, parse_constant=_refuse_constant)
        version = values["format_version"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise _not_ours(path) from error
    if 8 + len(data) + max(ends, default=0) > size:
        raise _truncated(path, 8 + len(data) + max(ends), size)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has the checkpoint format {version}; this version reads up to {FORMAT_VERSION}. "
            "Update Tramontana."
        )
    try:
        return Header.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
            for fault in error.errors()[:5]
        )
        raise CheckpointError(f"The header of {path} is wrong: {faults}.") from error


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
            f"coarse cells {domain.ratio} times larger, {domain.crs}",
        ),
        ("predictors", ", ".join(header.predictors)),
        ("statics", ", ".join(header.statics) or "none"),
        ("targets", ", ".join(header.targets)),
    ]
    lines += [(f"model {part}", _plain(config)) for part, config in header.models.items()]
    lines += [(f"provenance {key}", _plain(value)) for key, value in header.provenance.items()]
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)
