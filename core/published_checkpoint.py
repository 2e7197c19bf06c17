"""Import of published checkpoints (Lightning's ``.ckpt``) into our own files.

The published models (Tomasi, Franch and Cristoforetti, arXiv 2406.13627) are pickled together with their
optimiser and whole classes. :mod:`core.torch_archive` reads such a file without running it; here the kind of
model is recognised, its weights are renamed, its sizes follow from their shapes, and everything is checked
against the module that is to hold it before a file is written. Weights go from the mapped file to the new one
a piece at a time, so neither the file nor the model needs to fit into memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from core import __version__
from core.checkpoint import CheckpointError, Description, Header, check_names, printable, save
from core.data.samples import Normalization
from core.domain import Domain
from core.file_kind import file_kind
from core.model_card import published_card
from core.models import latent_diffusion, unet, vae
from core.models.denoiser import Averages
from core.models.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from core.models.unet import UNet, UNetConfig
from core.models.vae import VAE, VAEConfig
from core.plural import counted
from core.torch_archive import ArchiveError, TorchArchive
from core.unpickle import Inert
from core.variables import PREDICTORS, STATIC_CHANNELS, TARGETS, VARIABLES

PublishedKind = Literal["unet", "gan", "vae", "ldm_res"]
Kind = Literal["unet", "gan", "vae", "ldm_res", "ldm_pde"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done and (bytes done, bytes in all)."""

STATICS = ("orography", "land_cover", "latitude")
LABELS = {
    "unet": "UNet",
    "gan": "GAN",
    "vae": "VAE of the residual",
    "ldm_res": "LDM_res",
    "ldm_pde": "LDM_PDE",
}
SINGLE_TARGET = ("t2m",)
TWO_TARGETS = ("u10", "v10")
PIECE = 32 * 2**20
KEY = r"[\w.]{1,200}"


@dataclass(frozen=True)
class Variables:
    """Our names of what a network takes and gives, in channel order."""

    predictors: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class _Model:
    """Weights under our names, parts joined with a dot, and the configuration of every part."""

    weights: dict[str, Tensor]
    configs: dict[str, Any]
    modules: dict[str, torch.nn.Module]
    side_multiple: int


class PublishedCheckpoint:
    """A published checkpoint, recognised and checked. The file stays mapped for as long as this is in use.

    Parameters
    ----------
    path : a ``.ckpt`` of a UNet, a GAN, a VAE of residuals or a latent diffusion model
    averages : which weights of the denoiser are wanted (:data:`core.models.denoiser.Averages`): their moving
        averages (EMA), with which the published models sample, by default; the weights as trained if False.
        ``"partial"`` is for models that were fine-tuned in parts. Other models have no averages.

    Attributes
    ----------
    kind : ``"unet"``, ``"gan"``, ``"vae"`` or ``"ldm_res"`` (which an LDM_PDE looks like)

    Raises CheckpointError where the file is absent, damaged, no checkpoint of these models, without averages,
    or has weights that are missing, left over or of the wrong shape or type, naming them.
    """

    kind: PublishedKind

    def __init__(self, path: str | Path, *, averages: Averages = True) -> None:
        self.path = Path(path)
        self.averages = averages
        try:
            self._archive = TorchArchive(self.path)
        except ArchiveError as error:
            raise CheckpointError(_other_file(self.path) or str(error)) from error
        try:
            self._published = self._state_dict()
            self.kind = _recognise(self.path, self._published)
            self._model = self._take()
            self._check()
        except (ArchiveError, ValueError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> CheckpointError:
        if isinstance(error, CheckpointError):
            return error
        if isinstance(error, ValidationError):
            fault = error.errors()[0]
            return CheckpointError(f"{self.path} has weights of impossible sizes: {fault['msg']}.")
        text = str(error)
        return CheckpointError(text if str(self.path) in text else f"{self.path} can't be imported: {text}")

    # --- reading

    def _state_dict(self) -> dict[str, Tensor]:
        root = self._archive.value
        state = root.get("state_dict") if isinstance(root, dict) else None
        if not isinstance(state, dict) or not state:
            raise CheckpointError(
                f"{self.path} has no state_dict, so it is not a checkpoint that Lightning wrote."
            )
        # Names come back in errors, and so on a terminal.
        if not all(isinstance(key, str) and re.fullmatch(KEY, key, re.ASCII) for key in state):
            raise CheckpointError(f"{self.path} has weights whose names are no names of weights.")
        return {key: self._archive.tensor(value, key) for key, value in state.items()}

    def _take(self) -> _Model:
        state = self._published
        if self.kind == "ldm_res":
            if self.averages and not any(key.startswith("denoiser_ema.") for key in state):
                raise CheckpointError(
                    f"{self.path} has no moving averages (EMA) of the denoiser's weights, with which the "
                    "published models sample. Import its raw weights if that is what you want "
                    "(--raw-weights)."
                )
            weights = latent_diffusion.from_published_names(state, ema=self.averages)
            config = LatentDiffusionConfig.from_weights(weights, truncate_modes="published")
            with torch.device("meta"):
                model = LatentDiffusion(config)
            return _Model(
                weights,
                {part: getattr(config, part) for part in latent_diffusion.PARTS},
                {part: model.get_submodule(part) for part in latent_diffusion.PARTS},
                model.side_multiple,
            )
        if self.kind == "vae":
            parts = {
                "unet": unet.from_published_names(state, "unet_regr.net."),
                "vae": vae.from_published_names(state),
            }
        else:
            others = [k for k in state if not k.startswith(("net.", "loss."))]
            if others:
                raise CheckpointError(f"{self.path}: {others[0]} is no part of a published {self.kind}.")
            parts = {"unet": unet.from_published_names(state, "net.")}
        configs: dict[str, Any] = {"unet": UNetConfig.from_weights(parts["unet"])}
        with torch.device("meta"):
            net = UNet(configs["unet"])
            modules: dict[str, torch.nn.Module] = {"unet": net}
            if "vae" in parts:
                configs["vae"] = VAEConfig.from_weights(parts["vae"])
                modules["vae"] = VAE(configs["vae"])
        weights = {f"{part}.{name}": tensor for part, own in parts.items() for name, tensor in own.items()}
        return _Model(weights, configs, modules, net.side_multiple)

    def _check(self) -> None:
        weights = self._model.weights
        for part, module in self._model.modules.items():
            prefix = f"{part}."
            given = {k.removeprefix(prefix): t for k, t in weights.items() if k.startswith(prefix)}
            expected = module.state_dict()
            check_names(f"The {part} of {self.path}", expected, given)
            for name, tensor in expected.items():
                if tensor.is_floating_point() != given[name].is_floating_point():
                    raise CheckpointError(
                        f"{self.path} has the weight {part}.{name} as {given[name].dtype}; "
                        f"{tensor.dtype} was expected."
                    )
        # Storages can be shared and are mapped, so a small file could ask for a huge one.
        if sum(tensor.nbytes for tensor in weights.values()) > self.path.stat().st_size:
            raise CheckpointError(f"{self.path} describes more weights than it holds numbers for.")
        net = self._model.configs["unet"]
        vae_config = self._model.configs.get("vae")
        if vae_config is not None and vae_config.in_channels != net.out_channels:
            raise CheckpointError(
                f"{self.path} has a VAE for {counted(vae_config.in_channels, 'target')} and a UNet for "
                f"{net.out_channels}."
            )

    # --- what it says

    @property
    def recorded_variables(self) -> Variables | None:
        """What the file names as its variables, under our names; None where it names none that we know."""
        settings = _unwrapped(self._archive.value.get("datamodule_hyper_parameters"))
        named = _unwrapped(settings.get("target_vars")) if isinstance(settings, dict) else None
        if not isinstance(named, dict):
            return None
        predictors, targets = (_names(named.get(key)) for key in ("low_res", "high_res"))
        if predictors and targets and set(predictors) <= set(PREDICTORS) and set(targets) <= set(TARGETS):
            return Variables(predictors, targets)
        return None

    def variables(self, targets: Sequence[str] | None = None) -> Variables:
        """Predictors and targets in channel order.

        ``targets`` overrides what the file records. Where it records nothing, one target is t2m, two are u10
        and v10, and predictors have the published order. Raises CheckpointError where names and channels do
        not agree.
        """
        net = self._model.configs["unet"]
        recorded = self.recorded_variables
        predictors = recorded.predictors if recorded else PREDICTORS
        if targets is None:
            by_count = {1: SINGLE_TARGET, 2: TWO_TARGETS}
            targets = recorded.targets if recorded else by_count.get(net.out_channels)
            if targets is None:
                raise CheckpointError(f"{self.path} has {net.out_channels} targets; name them in order.")
        if unknown := [name for name in targets if name not in TARGETS]:
            raise CheckpointError(f"Unknown targets: {', '.join(unknown)}; known are {', '.join(TARGETS)}.")
        if len(set(targets)) != len(targets) or len(targets) != net.out_channels:
            raise CheckpointError(
                f"{self.path} gives {counted(net.out_channels, 'field')}, but the targets are "
                f"{', '.join(targets)}."
            )
        if net.in_channels != len(predictors) + STATIC_CHANNELS:
            raise CheckpointError(
                f"{self.path} takes {counted(net.in_channels, 'field')}; "
                f"{counted(len(predictors), 'predictor')} and "
                f"{STATIC_CHANNELS} static channels are {len(predictors) + STATIC_CHANNELS}."
            )
        return Variables(tuple(predictors), tuple(targets))

    # --- writing

    def write(
        self,
        destination: str | Path,
        *,
        normalization: Normalization,
        domain: Domain,
        targets: Sequence[str] | None = None,
        kind: Kind | None = None,
        label: str | None = None,
        provenance: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Header:
        """Write our checkpoint and return its header; a file of that name is replaced when all is written.

        Parameters
        ----------
        normalization : statistics of the predictors and targets of :meth:`variables`, in their order
        kind : ``"ldm_pde"`` for a latent diffusion model that was trained further with the PDE loss, which
            its weights do not show
        provenance : further plain values to record

        Raises CheckpointError where the domain does not suit the networks, weights are not finite, or label,
        normalisation or kind do not fit.
        """
        kind = kind or self.kind
        if kind != self.kind and not (self.kind == "ldm_res" and kind == "ldm_pde"):
            raise CheckpointError(f"{self.path} holds a model of kind {self.kind}, which is no {kind}.")
        if Path(destination).exists() and Path(destination).samefile(self.path):
            raise CheckpointError(f"{destination} is the file to import; write to another one.")
        multiple = self._model.side_multiple
        height, width = domain.fine.shape
        if height % multiple or width % multiple:
            raise CheckpointError(
                f"{self.path} needs fine sides that are multiples of {multiple}; {domain.name} has "
                f"{height} x {width} cells."
            )
        report = progress or (lambda what, done, total: None)
        variables = self.variables(targets)
        try:
            header = Header(
                kind=kind,
                label=label or f"{LABELS[kind]} ({', '.join(variables.targets)}, published)",
                models={part: c.model_dump(mode="json") for part, c in self._model.configs.items()},
                predictors=variables.predictors,
                statics=STATICS,
                targets=variables.targets,
                normalization=normalization,
                domain=domain.to_dict(),
                provenance={
                    **self._provenance(),
                    "parents": [{"file": self.path.name, "sha256": self._hash(report)}],
                    **(provenance or {}),
                },
                description=Description(
                    card=published_card(kind, variables.targets, domain.name, version=__version__)
                ),
            )
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "the whole"
            raise CheckpointError(
                f"The checkpoint from {self.path} can't be described: {where}: {fault['msg']}."
            ) from error
        released = 0

        def advance(done: int, total: int) -> None:
            nonlocal released
            if done - released >= PIECE:
                self._archive.release()
                released = done
            report("Writing", done, total)

        save(destination, header, self._model.weights, progress=advance, origin=self.path)
        return header

    def _provenance(self) -> dict[str, Any]:
        root = self._archive.value
        values: dict[str, Any] = {"imported_from": "a published Lightning checkpoint"}
        for ours, theirs in (("epoch", "epoch"), ("steps", "global_step")):
            if type(root.get(theirs)) is int:
                values[ours] = root[theirs]
        version = root.get("pytorch-lightning_version")
        if isinstance(version, str) and re.fullmatch(r"[\w.+-]{1,40}", version, re.ASCII):
            values["lightning_version"] = version
        if self.kind == "ldm_res":
            updates = self._published.get("denoiser_ema.num_updates")
            values["denoiser_weights"] = "moving averages (EMA)" if self.averages else "as trained"
            if self.averages and updates is not None and updates.numel() == 1 and updates.isfinite().all():
                values["average_updates"] = int(updates)
        return values | {"code_version": __version__}

    def _hash(self, report: Progress) -> str:
        digest, done, total = hashlib.sha256(), 0, self.path.stat().st_size
        with self.path.open("rb") as file:
            while piece := file.read(2**22):
                digest.update(piece)
                done += len(piece)
                report("Reading", done, total)
        return digest.hexdigest()


def _other_file(path: Path) -> str | None:
    """A sentence about a file of a kind that was given by mistake; None for all others."""
    kind = file_kind(path)
    if kind == "safetensors":
        return (
            f"{path} is a safetensors file, and as such no published checkpoint. If it is one of ours, "
            "nothing needs to be imported: see it with `tramontana checkpoint show`."
        )
    if kind == "text":
        with path.open("rb") as file:
            begin = printable(file.read(40).decode(errors="replace").strip())
        return (
            f"{path} is a text file (it begins with {begin!r}), not a checkpoint. A download may have left a "
            "page or a pointer in its place; give the .ckpt file itself."
        )
    return None


def _recognise(path: Path, state: Mapping[str, Tensor]) -> PublishedKind:
    marks: tuple[tuple[str, PublishedKind], ...] = (
        ("denoiser.", "ldm_res"),
        ("to_moments.", "vae"),
        ("loss.discriminator.", "gan"),
        ("net.", "unet"),
    )
    for prefix, kind in marks:
        if any(key.startswith(prefix) for key in state):
            return kind
    raise CheckpointError(
        f"{path} is none of the published models (UNet, GAN, VAE, LDM): its first weight is "
        f"{next(iter(state))[:80]}."
    )


def _unwrapped(value: Any) -> Any:
    """What a configuration object, pickled by the package omegaconf, holds; anything else as it is."""
    if isinstance(value, Inert) and isinstance(value.state, dict):
        return value.state.get("_content", value.state.get("_val"))
    return value


def _names(value: Any) -> tuple[str, ...] | None:
    """Our names of a list of published variables; None unless it is one."""
    items = _unwrapped(value)
    if not isinstance(items, list) or not 1 <= len(items) <= len(VARIABLES):
        return None
    ours = {variable.published_name: name for name, variable in VARIABLES.items()}
    published = [_unwrapped(item) for item in items]
    if not all(isinstance(name, str) and name in ours for name in published):
        return None
    return tuple(ours[name] for name in published)
