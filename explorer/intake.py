"""New checkpoints for the page: files that are sent to it, and published ones that lie on its machine.

A file is checked whole before it is there under a name that the page looks at, and none is ever replaced.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # they import torch, which takes seconds
    import xarray as xr

    from core.domain import Domain

SUFFIX = ".safetensors"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()+-]{0,99}\.safetensors")
PARTIAL = ".partial"
LEFTOVER = re.compile(r"\..+\.safetensors\.[0-9]+-[0-9a-f]{8}\.partial")
LEFTOVER_AGE = 3600.0
"""Seconds after which nobody writes to a partial file any more."""
MB = 10**6
NONE_KNOWN: Mapping[str, str] = MappingProxyType({})

Progress = Callable[[str, int, int], None]


class IntakeError(ValueError):
    """A file that is not taken; the message says why."""


class Upload:
    """A file that arrives piece by piece and is kept once all of it is there and sound.

    ``limit`` is its largest size [bytes]. Raises IntakeError for a name that is not one of a checkpoint, or taken.
    """

    def __init__(self, folder: Path, name: str, limit: int) -> None:
        self.name = checked_name(name)
        self.folder = folder
        self.limit = limit
        self.size = 0
        _refuse_taken(folder / self.name)
        self._temporary = _temporary(folder, self.name)

    def add(self, piece: bytes) -> None:
        """The next piece. Raises IntakeError where the file gets too large or can't be written."""
        self.size += len(piece)
        if self.size > self.limit:
            self.drop()
            raise IntakeError(
                f"{self.name} is larger than the {self.limit / MB:g} MB that may be uploaded here "
                "(--most-upload-mb)."
            )
        try:
            with self._temporary.open("ab") as file:
                file.write(piece)
        except OSError as error:
            self.drop()
            raise IntakeError(f"{self.name} can't be kept: {error.strerror or error}.") from error

    def keep(self, known: Mapping[str, str] = NONE_KNOWN) -> Path:
        """Check what arrived and give it its name; ``known`` as of :func:`admit`, and errors too."""
        return admit(self._temporary, self.folder / self.name, known)

    def drop(self) -> None:
        """Remove what arrived."""
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def checked_name(name: str) -> str:
    """The name of a file without folders. Raises IntakeError where it is not that of a checkpoint."""
    bare = name.replace("\\", "/").rpartition("/")[2]
    if not NAME.fullmatch(bare):
        raise IntakeError(
            f"{bare[:100]!r} is no name for a checkpoint: use letters, digits, spaces and . _ - + ( ), and end it "
            f"with {SUFFIX}."
        )
    return bare


def admit(temporary: Path, path: Path, known: Mapping[str, str] = NONE_KNOWN) -> Path:
    """Give a written file its name, once the model in it was loaded and found sound.

    ``known`` names the models that are there, key -> label. Raises IntakeError, and removes the file, where it
    can't run, is a copy of one of them, or the name is taken.
    """
    from core.checkpoint import CheckpointError
    from core.downscale import from_checkpoint

    try:
        try:
            made = from_checkpoint(temporary, device="cpu", lazy=False)
        except (CheckpointError, RuntimeError, MemoryError) as error:
            fault = str(error).replace(str(temporary), path.name)
            raise IntakeError(f"{path.name} was not kept. {fault}") from error
        if made.key in known:
            raise IntakeError(
                f"{path.name} was not kept: it is the same model as {known[made.key]}, which is here."
            )
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces a file
        except FileExistsError as error:
            raise _taken(path) from error
        except OSError:  # a file system without links
            _refuse_taken(path)
            temporary.replace(path)
    except OSError as error:
        raise IntakeError(f"{path.name} can't be kept: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def import_published(
    file: Path,
    normalization: Path,
    folder: Path,
    *,
    domain: Domain,
    static: xr.Dataset | None,
    kind: Literal["ldm_pde"] | None = None,
    raw_weights: bool = False,
    label: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make a checkpoint in ``folder`` from a published ``.ckpt``, as ``tramontana checkpoint import`` does.

    Parameters
    ----------
    normalization : the published ``normalization_data.pkl``, or JSON
    domain, static : where the model was trained, with the static fields of it
    kind : for a latent diffusion model that was fine-tuned with the PDE loss, which its weights do not show
    raw_weights : the denoiser's weights as trained in place of their moving averages

    Raises CheckpointError, NormalizationError or IntakeError with a sentence. Nothing the file holds is executed.
    """
    from core.published_checkpoint import PublishedCheckpoint
    from core.published_normalization import read_normalization

    path = folder / checked_name(f"{file.stem}{SUFFIX}")
    _refuse_taken(path)
    averages: Any = False if raw_weights else "partial" if kind == "ldm_pde" else True
    published = PublishedCheckpoint(file, averages=averages)
    variables = published.variables(None)
    statistics = read_normalization(
        normalization, targets=variables.targets, predictors=variables.predictors, static=static
    )
    temporary = _temporary(folder, path.name)
    try:
        published.write(
            temporary,
            normalization=statistics,
            domain=domain,
            targets=variables.targets,
            kind=kind,
            label=label or None,
            provenance={"normalization_file": normalization.name},
            progress=progress,
        )
    except OSError as error:
        raise IntakeError(f"{path.name} can't be written: {error.strerror or error}.") from error
    return admit(temporary, path)


def _temporary(folder: Path, name: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IntakeError(f"{folder} can't be written to: {error.strerror or error}.") from error
    return folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"


def remove_leftovers(folder: Path) -> None:
    """Remove what arrived in part, or was not checked before its process ended, over an hour ago."""
    with suppress(OSError):
        for path in folder.glob(f".*{PARTIAL}"):
            with suppress(OSError):
                if LEFTOVER.fullmatch(path.name) and time.time() - path.stat().st_mtime > LEFTOVER_AGE:
                    path.unlink()


def _refuse_taken(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise _taken(path)


def _taken(path: Path) -> IntakeError:
    return IntakeError(f"There is a file {path.name} in {path.parent} already; give yours another name.")
