"""Checks of a checkpoint file from end to end: ``tramontana checkpoint verify``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from core.checkpoint import Checkpoint, CheckpointError, file_hash, load, printable
from core.domain import Domain
from core.models.conditioner import Conditioner, ConditionerConfig
from core.models.denoiser import Denoiser, DenoiserConfig
from core.models.unet import UNet, UNetConfig
from core.models.vae import VAE, VAEConfig
from core.plural import counted
from core.variables import STATIC_CHANNELS

PARTS: dict[str, tuple[type[BaseModel], type[nn.Module]]] = {
    "unet": (UNetConfig, UNet),
    "vae": (VAEConfig, VAE),
    "conditioner": (ConditionerConfig, Conditioner),
    "denoiser": (DenoiserConfig, Denoiser),
}
KINDS: dict[str, tuple[str, ...]] = {
    "unet": ("unet",),
    "gan": ("unet",),
    "vae": ("unet", "vae"),
    "ldm_res": tuple(PARTS),
    "ldm_pde": tuple(PARTS),
}


MOST_PARENTS = 8
MOST_CELLS = 2**20
"""Fine cells of the field that the networks are tried on; published ones need 32 x 32."""


@dataclass(frozen=True)
class Finding:
    """Something that was checked. ``holds`` is None where it could not be checked."""

    what: str
    holds: bool | None
    sentence: str


def verify(path: str | Path) -> Iterator[Finding]:
    """Check a checkpoint, one thing after another; what depends on a failed check is left out.

    Checked are: the header, that all weights are finite and belong to a part (as when loading), the hash of
    the weights, their names and shapes against the configurations, that the networks run on a small input
    and give finite fields of the right shape, the hashes of the files that the provenance names and that
    lie in the same folder, and whether there are a model card and the ranges of the training data.
    """
    path = Path(path)
    try:
        checkpoint = load(path)
    except CheckpointError as error:
        yield Finding("file", False, str(error))
        return
    yield Finding("file", True, f"The header of {path} is sound and all its weights are finite.")
    yield _hash(checkpoint)
    try:
        modules = build(checkpoint)
    except CheckpointError as error:
        yield Finding("weights", False, str(error))
    else:
        yield Finding("weights", True, "Weights and configurations agree in names and shapes.")
        yield _run(checkpoint, modules)
    yield from _description(checkpoint)
    yield from _parents(checkpoint)


def build(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    """The modules of all parts with their weights, in evaluation mode.

    Raises CheckpointError where kind, parts, configurations and weights do not agree.
    """
    header, path = checkpoint.header, checkpoint.path
    if header.kind not in KINDS:
        raise CheckpointError(f"{path} is of the kind {header.kind}; known are {', '.join(KINDS)}.")
    if set(header.models) != set(KINDS[header.kind]):
        raise CheckpointError(
            f"{path} has the parts {', '.join(header.models)}; the kind {header.kind} has "
            f"{', '.join(KINDS[header.kind])}."
        )
    modules = {}
    for part in KINDS[header.kind]:
        config, module = PARTS[part]
        try:
            settings = config.model_validate(header.models[part])
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "the whole"
            raise CheckpointError(
                f"{path} has a wrong configuration of the {part}: {printable(where)}: {fault['msg']}."
            ) from error
        with torch.device("meta"):
            modules[part] = module(settings)
        checkpoint.restore(part, modules[part])
        modules[part].eval().requires_grad_(False)
    return modules


def _hash(checkpoint: Checkpoint) -> Finding:
    if checkpoint.recorded_weights_hash is None:
        return Finding("hash", None, f"{checkpoint.path} records no hash of its weights.")
    try:
        checkpoint.check_weights()
    except CheckpointError as error:
        return Finding("hash", False, str(error))
    return Finding("hash", True, "The weights have the recorded SHA-256.")


def _run(checkpoint: Checkpoint, modules: dict[str, nn.Module]) -> Finding:
    header = checkpoint.header
    ratio = Domain.from_dict(header.domain).ratio
    side = _smallest_side(modules, ratio)
    if side**2 > MOST_CELLS:
        sentence = f"The networks were not run: the smallest field for them has {side} x {side} cells."
        return Finding("run", None, sentence)
    try:
        with torch.inference_mode():
            fields = _fields(modules, len(header.predictors), ratio, side)
    except (ValueError, RuntimeError) as error:
        return Finding("run", False, f"{checkpoint.path} does not run: {error}")
    for what, field in fields.items():
        if field.shape[1] != len(header.targets):
            return Finding(
                "run",
                False,
                f"{checkpoint.path}: the {what} gives {counted(field.shape[1], 'field')}; its header names "
                f"{', '.join(header.targets)}.",
            )
        if not field.isfinite().all():
            return Finding("run", False, f"{checkpoint.path}: the {what} gives values that are not finite.")
    return Finding("run", True, "The networks run and give finite fields.")


def _smallest_side(modules: dict[str, Any], ratio: int) -> int:
    """Fine cells along one side of the smallest domain that suits all networks."""
    multiples = [module.side_multiple for part, module in modules.items() if part != "denoiser"]
    if "denoiser" in modules:
        multiples.append(modules["denoiser"].side_multiple * modules["vae"].side_multiple)
    # All are powers of two but perhaps the ratio, which divides a multiple of itself.
    side: int = max(multiples) * (1 if max(multiples) % ratio == 0 else ratio)
    return side


def _fields(modules: dict[str, Any], predictors: int, ratio: int, side: int) -> dict[str, Tensor]:
    """What each part that gives fields makes of noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, predictors, side // ratio, side // ratio, generator=generator)
    static = torch.randn(1, STATIC_CHANNELS, side, side, generator=generator)
    fields: dict[str, Tensor] = {"UNet": modules["unet"](coarse, static)}
    if "vae" in modules:
        z = modules["vae"].encode(fields["UNet"]).mean
        fields["VAE"] = modules["vae"].decode(z)
    if "denoiser" in modules:
        context = modules["conditioner"](coarse, static)
        z = modules["denoiser"](z, torch.tensor([500]), context)
        fields["latent diffusion model"] = modules["vae"].decode(z)
    return fields


def _parents(checkpoint: Checkpoint) -> Iterator[Finding]:
    """The files that the weights come from, where they lie beside the checkpoint."""
    parents = checkpoint.header.provenance.get("parents", [])
    parents = list(parents.values()) if isinstance(parents, dict) else parents
    # The header is not to be trusted: every entry may name the same large file.
    for parent in parents[:MOST_PARENTS] if isinstance(parents, list) else []:
        name, expected = (parent.get(k) for k in ("file", "sha256")) if isinstance(parent, dict) else ("", "")
        # It may name files of this folder and no others.
        if (
            not isinstance(name, str)
            or not name.isprintable()
            or not re.fullmatch(r"(?!\.)[^/\\]{1,255}", name)
        ):
            yield Finding("parent", False, f"{checkpoint.path} names a parent file in no proper way.")
            continue
        path = checkpoint.path.parent / name
        if not path.is_file():
            yield Finding("parent", None, f"{name}, which it was made from, is not beside it.")
            continue
        try:
            found = file_hash(path)
        except CheckpointError:  # published files, which are no checkpoints of ours
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == expected:
            yield Finding("parent", True, f"{name}, which it was made from, has the recorded SHA-256.")
        else:
            yield Finding(
                "parent",
                False,
                f"{path} is not the file that {checkpoint.path} was made from: it has changed.",
            )


def _description(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Whether people are told what they should know; files that were written before that was kept lack it."""
    description = checkpoint.header.description
    if description.card is None:
        advice = f"{checkpoint.path} has no model card; give it one with `tramontana checkpoint describe`."
        yield Finding("card", None, advice)
    else:
        licence = description.card.licence
        yield Finding("card", True, f"It has a model card; licence: {licence}.")
    if description.ranges is None:
        sentence = (
            f"{checkpoint.path} does not say between which values its inputs lay in training; unusual "
            f"inputs are "
            "told by their mean and standard deviation alone."
        )
        yield Finding("ranges", None, sentence)
        return
    missing = set(checkpoint.header.predictors) - description.ranges.predictors.keys() - {"sst"}
    if missing:
        yield Finding(
            "ranges",
            False,
            f"{checkpoint.path} has no range of the training data for {', '.join(sorted(missing))}.",
        )
    else:
        yield Finding("ranges", True, "It has the ranges of its training data.")
