"""What all networks from checkpoints share: their file, their inputs, and where they run."""

from __future__ import annotations

import threading
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
import xarray as xr
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from core.checkpoint import (
    Checkpoint,
    CheckpointError,
    Header,
    file_hash,
    identity,
    load,
    printable,
    read_header,
)
from core.data.samples import SampleError
from core.data.store import Contents
from core.domain import Domain
from core.downscale.base import DownscaleError, Downscaler, check_grid
from core.downscale.devices import choose_device, default_threads

NETWORK_STATICS = ("orography", "land_cover", "latitude")

Config = TypeVar("Config", bound=BaseModel)


class NetworkDownscaler(Downscaler):
    """A network of a checkpoint file.

    Making one reads the header of the file and says what is wrong with it; the weights are
    read when they are first needed, or by :meth:`load`. So a folder of large files is listed at once.

    Parameters
    ----------
    path : a checkpoint of one of ``kinds``
    device : ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``
    memory_gib : memory for the fields of one batch; None takes 2 GiB, on CUDA half of what is free. At least
        one field is always computed.
    threads : of PyTorch on the CPU while this runs; None takes TRAMONTANA_THREADS, else PyTorch's own

    Raises CheckpointError where the file can't be read, is of another kind or contradicts itself.
    """

    kinds: ClassVar[tuple[str, ...]]
    noun: ClassVar[str]

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "auto",
        memory_gib: float | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.header: Header = read_header(self.path)
        if self.header.kind not in self.kinds:
            parts = ", ".join(self.header.models)
            raise CheckpointError(
                f"{self.path} holds a model of kind {self.header.kind} ({parts}), not {self.noun}."
            )
        self.label = self.header.label
        self.inputs = self.header.predictors
        self.targets = self.header.targets
        self.domain = Domain.from_dict(self.header.domain)
        self._check_header()
        self.identity = identity(self.path)
        self.key = f"{self.header.kind}-{self.identity[:8]}"
        self.device = choose_device(device)
        self.memory_gib = memory_gib
        self.threads = default_threads() if threads is None else threads
        self._network: nn.Module | None = None
        self._lock = threading.Lock()

    @cached_property
    def file_hash(self) -> str:
        """See :func:`core.checkpoint.file_hash`; computed when it is first asked for."""
        return file_hash(self.path)

    @abstractmethod
    def _check_header(self) -> None:
        """Raise CheckpointError where the header contradicts itself."""

    @abstractmethod
    def _build(self, checkpoint: Checkpoint) -> nn.Module:
        """The network with its weights, on the CPU."""

    def _arrange(self, network: nn.Module) -> None:
        """Choose the memory layout that is fastest on a CPU."""
        # Convolutions are 1.3 to 1.5 times faster with channels last, at demo and published width
        # (`python -m benchmarks` has the row).
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load(self) -> None:
        """Read the weights now; nothing where they are there already.

        Raises CheckpointError where weights are missing, of the wrong shape, not finite or not those whose
        SHA-256 the file records, or the file is not the one whose header was read.
        """
        self._loaded()

    @property
    def parameters(self) -> int:
        """How many numbers were learned; reads the weights where they are not there yet."""
        return sum(parameter.numel() for parameter in self._loaded().parameters())

    def _loaded(self) -> nn.Module:
        # Screens compute in several threads; the file is read once.
        with self._lock:
            if self._network is None:
                checkpoint = load(self.path)
                if identity(self.path) != self.identity:
                    raise CheckpointError(f"{self.path} has changed since it was opened; open it again.")
                # Results are filed under the identity, which takes the recorded hash for that of the weights.
                checkpoint.check_weights()
                network = self._build(checkpoint).eval().requires_grad_(False).to(self.device)
                if self.device.type == "cpu":
                    self._arrange(network)
                self._network = network
            return self._network

    def obstacles(self, contents: Contents, domain: Domain) -> list[str]:
        """Sentences for missing predictors and statics, by name, and for a domain it was not trained on."""
        sentences = []
        if missing := [name for name in self.inputs if name not in contents.predictors]:
            sentences.append(f"{self.label} needs predictors that the store lacks: {', '.join(missing)}.")
        if missing := [name for name in self.header.statics if name not in contents.statics]:
            sentences.append(f"{self.label} needs static fields that the store lacks: {', '.join(missing)}.")
        if domain.fine != self.domain.fine or domain.ratio != self.domain.ratio:
            sentences.append(
                f"{self.label} was trained for {_size(self.domain)}; the store holds {_size(domain)}."
            )
        return sentences

    def _tensors(
        self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain
    ) -> tuple[Tensor, Tensor]:
        """Standardised inputs on the CPU: (time, predictors, h, w) and (1, 18, H, W).

        A predictor other than sst with a missing value is refused with a sentence that names it and the hour:
        a network would spread it over the whole field.
        """
        check_grid(self.label, coarse, domain)
        if static is None:
            raise DownscaleError(f"{self.label} needs the static fields of the fine grid.")
        normalization = self.header.normalization
        try:
            inputs = normalization.predictors_to_tensor(coarse)
            statics = normalization.statics_to_tensor(static)[None]
        except SampleError as error:
            raise DownscaleError(f"{self.label} can't run: {error}") from error
        if statics.shape[-2:] != domain.fine.shape:
            raise DownscaleError(
                f"{self.label}: the static fields have {statics.shape[-2]} x {statics.shape[-1]} cells, "
                f"the domain {domain.fine.shape[0]} x {domain.fine.shape[1]}."
            )
        return inputs, statics

    def part_config(self, part: str, kind: type[Config]) -> Config:
        """The configuration of a part of the file; CheckpointError where it is not one."""
        try:
            return kind.model_validate(self.header.models[part])
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise CheckpointError(
                f"{self.path} has a wrong configuration of the {PART_NAMES[part]}: {printable(where)}: "
                f"{fault['msg']}."
            ) from error

    def check_parts(self, parts: tuple[str, ...]) -> None:
        if set(self.header.models) != set(parts):
            raise CheckpointError(
                f"{self.path} holds the parts {', '.join(self.header.models)}; {self.noun} has "
                f"{', '.join(parts)}."
            )
        if self.header.statics != NETWORK_STATICS:
            raise CheckpointError(
                f"{self.path} names the static fields {', '.join(self.header.statics) or 'none'}; "
                f"{self.noun} takes {', '.join(NETWORK_STATICS)}."
            )

    def check_sides(self, multiple: int) -> None:
        height, width = self.domain.fine.shape
        if height % multiple or width % multiple:
            raise CheckpointError(
                f"{self.path} has {self.noun} for sides that are multiples of {multiple}, but its domain has "
                f"{height} x {width} cells."
            )


PART_NAMES: dict[str, str] = {
    "unet": "UNet",
    "vae": "VAE",
    "conditioner": "conditioner",
    "denoiser": "denoiser",
}


def _size(domain: Domain) -> str:
    height, width = domain.fine.shape
    left, _, _, top = domain.fine.extent
    return (
        f"the domain {domain.name} ({height} x {width} cells of {domain.fine.dx:g} m, corner at "
        f"{left:.0f}, {top:.0f} m in {domain.crs}, ratio {domain.ratio})"
    )
