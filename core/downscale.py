"""Downscalers: anything that maps coarse and static fields to fine ones, behind one interface.

Two interpolations that always come along, and networks from checkpoints. A downscaler says from the contents
of a store why it can't run there, before anything is computed.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from core import interpolation
from core.checkpoint import SUFFIX, Checkpoint, CheckpointError, Header, load
from core.data.samples import SampleError
from core.data.store import Contents, Store, as_times
from core.domain import Domain
from core.models.unet import UNet, UNetConfig
from core.variables import STATIC_CHANNELS, TARGETS, VARIABLES

GIB = 2**30
NETWORK_STATICS = ("orography", "land_cover", "latitude")


class DownscaleError(ValueError):
    """Fields that a downscaler can't take; the message says which and why."""


class Downscaler(ABC):
    """Maps coarse and static fields to fine ones.

    Attributes
    ----------
    key : stable id, fit for file names and URLs
    label : name for people
    inputs : coarse variables it uses
    targets : fine variables it can give
    """

    key: str
    label: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]

    @abstractmethod
    def obstacles(self, contents: Contents, domain: Domain) -> list[str]:
        """Why it can't run on a store, a sentence each; empty where it can."""

    @abstractmethod
    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """Fine fields of all hours in ``coarse``.

        Parameters
        ----------
        coarse : variables (time, y, x) on ``domain.coarse`` in SI units, as ``Store.read_coarse`` gives
        static : fields of the fine grid, as ``Store.read_static`` gives; None where there are none

        Returns
        -------
        float32 (time, y, x) on ``domain.fine`` with CF attributes; K, m s-1, m

        Raises DownscaleError where a field is missing, incomplete or on another grid.
        """


def _fine_dataset(fields: dict[str, NDArray[np.float32]], coarse: xr.Dataset, domain: Domain) -> xr.Dataset:
    return xr.Dataset(
        {name: (("time", "y", "x"), values, VARIABLES[name].attrs) for name, values in fields.items()},
        coords={"time": coarse["time"].values, "y": domain.fine.y, "x": domain.fine.x},
    )


def _check_grid(label: str, coarse: xr.Dataset, domain: Domain) -> None:
    if not domain.coarse.matches(coarse["x"].values, coarse["y"].values):
        raise DownscaleError(
            f"{label}: the coarse fields ({coarse.sizes['y']} x {coarse.sizes['x']} cells) do not lie on the "
            f"coarse grid of {domain.name} ({domain.coarse.shape[0]} x {domain.coarse.shape[1]} cells)."
        )


def _read(label: str, data: xr.Dataset | None, name: str, what: str) -> NDArray[Any]:
    if data is None or name not in data:
        raise DownscaleError(f"{label} needs the {what}, which is missing.")
    dims = [dim for dim in ("time", "y", "x") if dim in data[name].dims]
    values: NDArray[Any] = data[name].transpose(*dims).values
    return values


# --- interpolations ---------------------------------------------------------------------------------


class QuadraticInterpolation(Downscaler):
    """Separable quadratic spline of the coarse target, the baseline of both papers.

    Gives every target whose coarse counterpart is there. Precipitation is kept from going below zero.
    """

    key = "quadratic"
    label = "Quadratic interpolation"
    inputs = TARGETS
    targets = TARGETS

    def obstacles(self, contents: Contents, domain: Domain) -> list[str]:
        """One sentence where the store holds none of the targets among its predictors."""
        if set(self.inputs) & set(contents.predictors):
            return []
        return [f"{self.label} needs one of {', '.join(self.inputs)} among the predictors."]

    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """Targets found in ``coarse``, on the fine grid; NaN where a coarse cell is. Needs no statics."""
        _check_grid(self.label, coarse, domain)
        fields = {}
        for name in self.targets:
            if name in coarse:
                values = interpolation.quadratic(_read(self.label, coarse, name, name), domain.ratio)
                fields[name] = np.maximum(values, 0, out=values) if VARIABLES[name].accumulated else values
        if not fields:
            raise DownscaleError(f"{self.label} needs one of {', '.join(self.inputs)}.")
        return _fine_dataset(fields, coarse, domain)


class LapseRateInterpolation(Downscaler):
    """Quadratic interpolation of temperature reduced to sea level, put back on the fine orography.

    The lapse rate comes from the coarse field of each hour (:func:`core.interpolation.lapse_rate`); cells
    count by their fraction of land where the statics tell it.
    """

    key = "lapse_rate"
    label = "Lapse-rate interpolation"
    inputs = ("t2m",)
    targets = ("t2m",)

    def obstacles(self, contents: Contents, domain: Domain) -> list[str]:
        """Sentences for missing coarse temperature, coarse orography or fine orography."""
        needs = (
            ("t2m" in contents.predictors, "the coarse 2-metre temperature (t2m)"),
            (contents.coarse_orography, "the orography of the coarse model"),
            ("orography" in contents.statics, "the fine orography among the static fields"),
        )
        return [f"{self.label} needs {what}, which the store lacks." for there, what in needs if not there]

    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """``t2m`` on the fine grid; NaN where a coarse cell is NaN."""
        _check_grid(self.label, coarse, domain)
        temperature = _read(self.label, coarse, "t2m", "coarse 2-metre temperature (t2m)")
        coarse_orography = _read(self.label, coarse, "orography", "orography of the coarse model")
        fine_orography = _read(self.label, static, "orography", "fine orography")
        weights = None
        if static is not None and "land_fraction" in static:
            (height, width), ratio = domain.coarse.shape, domain.ratio
            land = _read(self.label, static, "land_fraction", "fine land fraction")
            weights = land.reshape(height, ratio, width, ratio).mean(axis=(1, 3), dtype=np.float64)
        rate = interpolation.lapse_rate(
            temperature, coarse_orography, dx=domain.coarse.dx, dy=domain.coarse.dy, weights=weights
        )
        fine = interpolation.lapse_rate_corrected(
            temperature, coarse_orography, fine_orography, rate, domain.ratio
        )
        return _fine_dataset({"t2m": fine}, coarse, domain)


def interpolations() -> tuple[Downscaler, ...]:
    """The downscalers that need no checkpoint: quadratic and lapse-rate interpolation."""
    return QuadraticInterpolation(), LapseRateInterpolation()


# --- networks ---------------------------------------------------------------------------------------


def choose_device(device: str = "auto") -> torch.device:
    """The device that ``device`` names; ``"auto"`` takes the first of CUDA, Apple's MPS and the CPU there is.

    Raises DownscaleError where the named one is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise DownscaleError(f"The device {device!r} is not available here; use 'auto' or 'cpu'.") from error
    return chosen


def default_threads() -> int | None:
    """Threads for networks on the CPU, from the environment variable TRAMONTANA_THREADS; None if unset.

    Raises DownscaleError where the variable is no positive whole number.
    """
    text = os.environ.get("TRAMONTANA_THREADS", "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise DownscaleError(f"TRAMONTANA_THREADS must be a positive whole number; it is {text!r}.")
    return int(text)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)


class UNetDownscaler(Downscaler):
    """The UNet of a checkpoint, hour by hour or many hours at once.

    Parameters
    ----------
    checkpoint : of kind ``"unet"``
    device : ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``
    memory_gib : memory for the fields of one batch; None takes 2 GiB, on CUDA half of what is free. At least
        one hour is always computed.
    threads : of PyTorch on the CPU while this runs; None takes TRAMONTANA_THREADS, else PyTorch's own

    Raises CheckpointError where the checkpoint is of another kind or contradicts itself.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "auto",
        memory_gib: float | None = None,
        threads: int | None = None,
    ) -> None:
        header = checkpoint.header
        config = _unet_config(checkpoint)
        with torch.device("meta"):
            model = UNet(config)
        checkpoint.restore("unet", model)
        self.header: Header = header
        self.key = f"unet-{checkpoint.file_hash[:8]}"
        self.label = header.label
        self.inputs = header.predictors
        self.targets = header.targets
        self.domain = Domain.from_dict(header.domain)
        self.device = choose_device(device)
        self.memory_gib = memory_gib
        self.threads = default_threads() if threads is None else threads
        self._model = model.eval().requires_grad_(False).to(self.device)
        if self.device.type == "cpu":
            # Convolutions of a CPU are 1.3 to 1.5 times faster in this layout, at demo and published width
            # (`python -m benchmarks` has the row).
            self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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

    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """The targets on the fine grid.

        A predictor other than sst with a missing value is refused with a sentence that names it and the hour:
        the network would spread it over the whole field.
        """
        _check_grid(self.label, coarse, domain)
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
        result = torch.empty(len(inputs), len(self.targets), *domain.fine.shape)
        with torch.inference_mode(), _threads(self.threads):
            statics = statics.to(self.device)
            size = self._batch_hours(domain)
            for start in range(0, len(inputs), size):
                fine = self._model(inputs[start : start + size].to(self.device), statics)
                result[start : start + size] = normalization.targets_from_tensor(fine, self.targets)
        fields = {name: result[:, channel].numpy() for channel, name in enumerate(self.targets)}
        return _fine_dataset(fields, coarse, domain)

    def _batch_hours(self, domain: Domain) -> int:
        if self.memory_gib is not None:
            budget: float = self.memory_gib * GIB
        elif self.device.type == "cuda":
            budget = torch.cuda.mem_get_info(self.device)[0] / 2
        else:
            budget = 2 * GIB
        return max(1, int(budget / unet_bytes_per_hour(self._model.config, domain)))


def unet_bytes_per_hour(config: UNetConfig, domain: Domain) -> int:
    """Memory that the fields of one hour take inside a UNet at its peak, in inference [bytes].

    The peak is the last level of the decoder: the skip, the upsampled field, both concatenated, and the
    results of two layers of the finest width, while the deeper skips still wait.
    """
    waiting = sum(width * 0.25**level for level, width in enumerate(config.features))
    channels = config.in_channels + 6 * config.features[0] + waiting
    height, width = domain.fine.shape
    return 4 * height * width * math.ceil(channels)


def _size(domain: Domain) -> str:
    height, width = domain.fine.shape
    left, _, _, top = domain.fine.extent
    return (
        f"the domain {domain.name} ({height} x {width} cells of {domain.fine.dx:g} m, corner at "
        f"{left:.0f}, {top:.0f} m in {domain.crs}, ratio {domain.ratio})"
    )


def _unet_config(checkpoint: Checkpoint) -> UNetConfig:
    """The configuration of a UNet checkpoint, agreeing with its variables."""
    header, path = checkpoint.header, checkpoint.path
    if header.kind != "unet" or set(header.models) != {"unet"}:
        parts = ", ".join(header.models)
        raise CheckpointError(f"{path} holds a model of kind {header.kind} ({parts}), not a UNet.")
    try:
        config = UNetConfig.model_validate(header.models["unet"])
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise CheckpointError(
            f"{path} has a wrong configuration of the UNet: {where}: {fault['msg']}."
        ) from error
    if header.statics != NETWORK_STATICS:
        raise CheckpointError(
            f"{path} names the static fields {', '.join(header.statics) or 'none'}; a UNet takes "
            f"{', '.join(NETWORK_STATICS)}."
        )
    multiple = 1 << len(config.features)
    height, width = Domain.from_dict(header.domain).fine.shape
    if height % multiple or width % multiple:
        raise CheckpointError(
            f"{path} has a UNet for sides that are multiples of {multiple}, but its domain has "
            f"{height} x {width} cells."
        )
    channels = len(header.predictors) + STATIC_CHANNELS
    if config.in_channels != channels or config.out_channels != len(header.targets):
        raise CheckpointError(
            f"{path} has a UNet of {config.in_channels} inputs and {config.out_channels} outputs, but names "
            f"variables for {channels} and {len(header.targets)}."
        )
    return config


_KINDS: dict[str, Callable[..., Downscaler]] = {"unet": UNetDownscaler}


def from_checkpoint(
    path: str | Path, *, device: str = "auto", memory_gib: float | None = None, threads: int | None = None
) -> Downscaler:
    """The downscaler of a checkpoint file.

    Raises CheckpointError where the file can't be read or is of a kind that this version does not run.
    """
    checkpoint = load(path)
    kind = checkpoint.header.kind
    if kind not in _KINDS:
        raise CheckpointError(
            f"{path} holds a model of kind {kind}; this version runs {', '.join(sorted(_KINDS))}. "
            "Update Tramontana."
        )
    return _KINDS[kind](checkpoint, device=device, memory_gib=memory_gib, threads=threads)


def find_downscalers(
    folder: str | Path, *, device: str = "auto", memory_gib: float | None = None, threads: int | None = None
) -> tuple[list[Downscaler], list[tuple[Path, str]]]:
    """Every checkpoint of a folder as a downscaler, in the order of file names.

    Comes with (file, reason) for those that can't be used. A folder that is not there holds none. The
    second of two equal files is reported, not used twice.
    """
    found: dict[str, Downscaler] = {}
    refused: list[tuple[Path, str]] = []
    for path in sorted(Path(folder).glob(f"[!.]*{SUFFIX}")):
        try:
            downscaler = from_checkpoint(path, device=device, memory_gib=memory_gib, threads=threads)
        except CheckpointError as error:
            refused.append((path, str(error)))
            continue
        if downscaler.key in found:
            refused.append((path, f"{path} is a copy of another checkpoint of this folder."))
        else:
            found[downscaler.key] = downscaler
    return list(found.values()), refused


# --- running over a store ---------------------------------------------------------------------------


def downscale_store(
    store: Store,
    downscalers: Sequence[Downscaler],
    hours: ArrayLike | None = None,
    *,
    batch_hours: int = 8,
) -> Iterator[tuple[NDArray[np.datetime64], dict[str, xr.Dataset]]]:
    """Run downscalers over hours of a store (default all), yielding after every ``batch_hours``.

    Yields the hours and, by key of the downscaler, their fine fields. The coarse fields are read once
    for all downscalers. Raises DownscaleError, before anything is computed, where one of them can't run.
    """
    contents = store.contents
    obstacles = [sentence for d in downscalers for sentence in d.obstacles(contents, store.domain)]
    if obstacles:
        raise DownscaleError(" ".join(obstacles))
    wanted = {name for d in downscalers for name in d.inputs}
    names = [name for name in contents.predictors if name in wanted]
    static = store.read_static() if contents.statics else None
    stamps = store.hours if hours is None else as_times(hours)
    for start in range(0, stamps.size, batch_hours):
        batch = stamps[start : start + batch_hours]
        coarse = store.read_coarse(batch, names)
        yield batch, {d.key: d.downscale(coarse, static, store.domain) for d in downscalers}
