"""Checkpoint files as downscalers: one file, or a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.checkpoint import SUFFIX, CheckpointError, read_header
from core.downscale.generative import GenerativeDownscaler, Precision
from core.downscale.network import NetworkDownscaler
from core.downscale.regression import UNetDownscaler

_CLASSES: tuple[type[NetworkDownscaler], ...] = (UNetDownscaler, GenerativeDownscaler)
_KINDS = {kind: runner for runner in _CLASSES for kind in runner.kinds}


def from_checkpoint(
    path: str | Path,
    *,
    device: str = "auto",
    memory_gib: float | None = None,
    threads: int | None = None,
    precision: Precision = "float32",
    lazy: bool = False,
) -> NetworkDownscaler:
    """The downscaler of a checkpoint file.

    With ``lazy`` the weights are read when they are first needed, so that faults in them show then.
    ``precision`` is for generative models, see :class:`core.downscale.generative.GenerativeDownscaler`.

    Raises CheckpointError where the file can't be read or is of a kind that this version does not run.
    """
    kind = read_header(path).kind
    if kind == "vae":
        raise CheckpointError(
            f"{path} holds a VAE of residuals, a part of latent diffusion models, which can't run alone."
        )
    if kind not in _KINDS:
        raise CheckpointError(f"{path} holds a model of kind {kind}; this version runs {', '.join(_KINDS)}.")
    runner = _KINDS[kind]
    given: dict[str, Any] = {"device": device, "memory_gib": memory_gib, "threads": threads}
    if issubclass(runner, GenerativeDownscaler):
        given["precision"] = precision
    downscaler = runner(path, **given)
    if not lazy:
        downscaler.load()
    return downscaler


def find_downscalers(
    folder: str | Path,
    *,
    device: str = "auto",
    memory_gib: float | None = None,
    threads: int | None = None,
    precision: Precision = "float32",
) -> tuple[list[NetworkDownscaler], list[tuple[Path, str]]]:
    """Every checkpoint of a folder as a downscaler; no weights are read yet.

    UNets come first, then GANs, LDM_res and LDM_PDE, each in the order of file names.

    Comes with (file, reason) for those that can't be used. A folder that is not there holds none. The
    second of two equal files is reported, not used twice.
    """
    found: dict[str, NetworkDownscaler] = {}
    refused: list[tuple[Path, str]] = []
    for path in sorted(Path(folder).glob(f"[!.]*{SUFFIX}")):
        try:
            downscaler = from_checkpoint(
                path,
                device=device,
                memory_gib=memory_gib,
                threads=threads,
                precision=precision,
                lazy=True,
            )
        except (CheckpointError, OSError, RuntimeError) as error:
            # Files come and go while a folder is read, and networks of strange sizes can't be made.
            refused.append((path, str(error)))
            continue
        if downscaler.key in found:
            refused.append((path, f"{path} is a copy of another checkpoint of this folder."))
        else:
            found[downscaler.key] = downscaler
    kinds = list(_KINDS)
    return sorted(found.values(), key=lambda d: kinds.index(d.header.kind)), refused
