"""The checkpoint files that the page knows: which can run, what each is, and names that tell them apart."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # they import torch, which takes seconds
    from core.checkpoint import Header
    from core.downscale import Downscaler
    from core.downscale.network import NetworkDownscaler

KINDS = {
    "unet": "UNet",
    "gan": "GAN",
    "vae": "VAE of residuals",
    "ldm_res": "Latent diffusion (LDM_res)",
    "ldm_pde": "Latent diffusion with PDE loss (LDM_PDE)",
}
"""Kinds of models for people."""

RESERVED = ("Coarse input", "Truth")
"""Names on the page that no checkpoint may pass for."""

COUNTED = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of names of numbers that were measured, not learned."""

LONGEST = 300
"""Letters shown of a value from a header."""

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CheckpointFile:
    """What a checkpoint file is.

    Attributes
    ----------
    key : of the downscaler it makes; empty where it makes none
    size : bytes on disk
    label, kind, targets, domain, hash : from the header; empty where it can't be read. ``hash`` is the SHA-256
        that stands for the content (:func:`core.checkpoint.identity`).
    parameters : how many numbers were learned; None where that can't be told
    provenance : (what, value) of how it was made
    card : (what, value) of the model card; empty where there is none
    header : (what, value) of the whole header
    problem : why it can't be used at all; empty where it can on a store that suits it
    """

    path: Path
    size: int
    key: str = ""
    label: str = ""
    kind: str = ""
    targets: tuple[str, ...] = ()
    domain: str = ""
    hash: str = ""
    parameters: int | None = None
    provenance: Lines = ()
    card: Lines = ()
    header: Lines = ()
    problem: str = ""

    @property
    def kind_name(self) -> str:
        """The kind for people."""
        return KINDS.get(self.kind, self.kind)


def find(
    folders: Sequence[Path], files: Sequence[Path] = ()
) -> tuple[list[NetworkDownscaler], list[tuple[Path, str]]]:
    """The downscalers of all folders and of further files, and (file, reason) for what can't be used.

    Ordered as :func:`core.downscale.find_downscalers` does. A file that is named although it lies in one of the
    folders counts once; of files with the same content the first counts, and the others are reported.
    """
    from core.checkpoint import CheckpointError
    from core.downscale import find_downscalers, from_checkpoint

    found: list[NetworkDownscaler] = []
    refused: list[tuple[Path, str]] = []
    for folder in folders:
        usable, others = find_downscalers(folder)
        found += usable
        refused += others
    listed = {path.resolve() for path in (*(item.path for item in found), *(path for path, _ in refused))}
    for file in dict.fromkeys(files):
        if file.resolve() in listed:
            continue
        try:
            found.append(from_checkpoint(file, lazy=True))
        except (CheckpointError, OSError, RuntimeError) as error:
            refused.append((file, str(error)))
    unique: dict[str, NetworkDownscaler] = {}
    for item in found:
        if item.key in unique:
            refused.append((item.path, f"{item.path} is a copy of {unique[item.key].path}."))
        else:
            unique[item.key] = item
    kinds = list(KINDS)
    return sorted(
        unique.values(), key=lambda item: (*kinds, item.header.kind).index(item.header.kind)
    ), refused


def distinct_labels(downscalers: Iterable[Downscaler]) -> dict[str, str]:
    """A label for each downscaler by key, no two alike.

    Where labels are equal, those of checkpoints also say the name of the file, and where this is equal too the
    beginning of the hash.
    """
    downscalers = list(downscalers)
    labels = {item.key: item.label for item in downscalers}
    for more in (lambda item: item.path.stem, lambda item: item.identity[:8]):
        counts = Counter([*labels.values(), *RESERVED])
        for item in downscalers:
            if counts[labels[item.key]] > 1 and hasattr(item, "path"):
                labels[item.key] = f"{labels[item.key]} · {more(item)}"
    return labels


def describe_files(
    found: Iterable[NetworkDownscaler], refused: Iterable[tuple[Path, str]]
) -> tuple[CheckpointFile, ...]:
    """What every file is, usable ones first. Weights are not read."""
    usable = [describe_file(item.path, key=item.key) for item in found]
    return (*usable, *(describe_file(path, problem=reason) for path, reason in refused))


def describe_file(path: Path, *, key: str = "", problem: str = "") -> CheckpointFile:
    """What a file is, as far as it can be read; never raises."""
    from core.checkpoint import CheckpointError, describe, identity, printable, read_header
    from core.domain import Domain

    size = 0
    try:
        size = path.stat().st_size
        header = read_header(path)
        domain = Domain.from_dict(header.domain)
        content = identity(path)
    except (CheckpointError, OSError) as error:
        return CheckpointFile(path, size, key=key, problem=problem or str(error))
    height, width = domain.fine.shape
    return CheckpointFile(
        path,
        size,
        key=key,
        label=header.label,
        kind=header.kind,
        targets=header.targets,
        domain=f"{printable(domain.name)}, {width} × {height} cells of {domain.fine.dx / 1000:g} km",
        hash=content,
        parameters=count_parameters(path),
        provenance=provenance(header),
        card=() if header.description.card is None else tuple(header.description.card.lines()),
        header=tuple((what, value[: 4 * LONGEST]) for what, value in describe(header)),
        problem=problem,
    )


def count_parameters(path: Path) -> int | None:
    """How many numbers of a checkpoint were learned, from the shapes that its first bytes name."""
    from core.checkpoint import MAX_HEADER_BYTES

    try:
        with path.open("rb") as file:
            outer = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER_BYTES)))
        shapes = [
            entry["shape"]
            for name, entry in outer.items()
            if name != "__metadata__" and not name.endswith(COUNTED)
        ]
        return sum(math.prod(shape) for shape in shapes)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def provenance(header: Header) -> Lines:
    """How a model was made, in the words of a person: (what, value), without what the header does not say."""
    told: Mapping[str, Any] = header.provenance
    data = _words(told.get("data_title"))
    if told.get("data_fingerprint"):
        data += f" (fingerprint {_words(told['data_fingerprint'])[:16]})"
    if told.get("synthetic") is True and "synthetic" not in data.lower():
        data += ", synthetic"
    hours = _joined(told.get("train_hours"), " hours")
    if told.get("train_period"):
        hours += f", {re.sub('(?<=[0-9])T(?=[0-9])', ' ', _words(told['train_period']))}"
    steps = _joined(told.get("steps_in_all", told.get("steps")))
    if isinstance(told.get("minutes_in_all"), int | float):
        steps += f" in {told['minutes_in_all']:.0f} minutes"
    losses = [
        f"{name} {told[key]:.4g}"
        for name, key in (("training", "train_loss"), ("validation", "validation_loss"))
        if isinstance(told.get(key), int | float)
    ]
    parents = told.get("parents")
    named = list(parents.values()) if isinstance(parents, dict) else parents
    files = (
        [_words(one.get("file")) for one in named if isinstance(one, dict)] if isinstance(named, list) else []
    )
    rows = [
        ("Training data", data.strip(" ,")),
        ("Training hours", hours.strip(" ,")),
        ("Split", _words(told.get("split_method"))),
        ("Steps", steps.strip()),
        ("Loss", ", ".join(losses)),
        ("Made from", ", ".join(file for file in files if file)),
        ("Imported from", _words(told.get("imported_from"))),
        ("Code version", _words(told.get("code_version"))),
    ]
    return tuple((what, value) for what, value in rows if value)


def _joined(value: object, unit: str = "") -> str:
    return f"{value:,}{unit}".replace(",", "\u202f") if isinstance(value, int) else ""


def _words(value: object) -> str:
    """A plain value from a header, which may hold anything, as one line."""
    from core.checkpoint import printable

    return printable(value)[:LONGEST] if isinstance(value, str | int | float) else ""
