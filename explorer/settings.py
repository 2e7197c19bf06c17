"""What the explorer is started with: which stores, and where the checkpoints are."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from core.assets import shipped_checkpoints

STORES_VARIABLE = "TRAMONTANA_STORES"
CHECKPOINTS_VARIABLE = "TRAMONTANA_CHECKPOINTS"
STATIONS_VARIABLE = "TRAMONTANA_STATIONS"
DEFAULT_STORES = "data/*.zarr"


class SettingsError(ValueError):
    """Arguments that can't be understood; the message says which."""


@dataclass(frozen=True)
class Settings:
    """The stores named at the start, or none for all of ``data/*.zarr``, and the checkpoint folder.

    ``folder`` is what relative defaults are looked up in, ``stations`` a file of observations or None.
    """

    stores: tuple[Path, ...]
    checkpoints: Path
    folder: Path
    stations: Path | None = None

    def find_stores(self) -> dict[str, Path]:
        """Stores on offer by short name; looked up anew each time, so that new ones appear.

        A store named at the start is listed even where it does not exist, so that the page can say so.
        """
        paths = self.stores or tuple(sorted(self.folder.glob(DEFAULT_STORES)))
        stems = [path.stem for path in paths]
        return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"The explorer does not understand its arguments: {message}.")


def parse(
    arguments: Sequence[str], environment: Mapping[str, str] = os.environ, folder: Path | None = None
) -> Settings:
    """Settings from ``STORE... [--checkpoints DIR] [--stations FILE]``, then environment variables, then defaults.

    ``TRAMONTANA_STORES`` holds paths separated as in ``PATH``, ``TRAMONTANA_CHECKPOINTS`` a folder,
    ``TRAMONTANA_STATIONS`` a file. Raises SettingsError for an option that does not exist.
    """
    folder = folder or Path.cwd()
    parser = _Parser(prog="explorer", add_help=False, allow_abbrev=False)
    parser.add_argument("stores", nargs="*")
    parser.add_argument("--checkpoints")
    parser.add_argument("--stations")
    known = parser.parse_args(list(arguments))
    stores = known.stores or [
        item for item in environment.get(STORES_VARIABLE, "").split(os.pathsep) if item.strip()
    ]
    checkpoints = known.checkpoints or environment.get(CHECKPOINTS_VARIABLE)
    stations = known.stations or environment.get(STATIONS_VARIABLE)
    return Settings(
        tuple(dict.fromkeys((folder / store).resolve() for store in stores)),
        (folder / checkpoints).resolve() if checkpoints else shipped_checkpoints(),
        folder,
        (folder / stations).resolve() if stations else None,
    )
