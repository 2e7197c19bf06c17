"""What the explorer is started with: stores, checkpoints, where results are kept, and what visitors may do."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from core.assets import shipped_checkpoints
from explorer.jobs import MOST_MEMBERS, MOST_STEPS

STORES_VARIABLE = "TRAMONTANA_STORES"
CHECKPOINTS_VARIABLE = "TRAMONTANA_CHECKPOINTS"
STATIONS_VARIABLE = "TRAMONTANA_STATIONS"
DEFAULT_STORES = "data/*.zarr"
CHECKPOINT_SUFFIX = ".safetensors"
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
GB = 10**9


class SettingsError(ValueError):
    """Arguments that can't be understood; the message says which."""


@dataclass(frozen=True)
class Settings:
    """What was asked for at the start.

    Attributes
    ----------
    stores : the stores named, or none for all of ``data/*.zarr``
    checkpoints : the folder of checkpoints
    folder : what relative defaults are looked up in
    stations : a file of observations, or None
    files : further checkpoint files that were named
    own : a second folder of checkpoints, the user's own, where none was named; uploads go there
    cache : folder of the results that are kept; None keeps none
    cache_gb : its size [10^9 bytes]; 0 keeps none
    read_only : nothing is sampled, uploaded or imported
    most_members, most_steps : of what one visitor samples
    most_jobs : models whose sampling may wait or run for one visitor
    most_fields : members that may wait or run for one visitor, beside those of the maps
    most_upload_mb : size of an uploaded checkpoint [10^6 bytes]
    local : the page is served to this machine alone
    allow_upload : visitors may upload although it is served to others
    """

    stores: tuple[Path, ...]
    checkpoints: Path
    folder: Path
    stations: Path | None = None
    files: tuple[Path, ...] = ()
    own: Path | None = None
    cache: Path | None = None
    cache_gb: float = 5.0
    read_only: bool = False
    most_members: int = MOST_MEMBERS
    most_steps: int = MOST_STEPS
    most_jobs: int = 12
    most_fields: int = 3000
    most_upload_mb: int = 500
    local: bool = False
    allow_upload: bool = False

    def find_stores(self) -> dict[str, Path]:
        """Stores on offer by short name; looked up anew each time, so that new ones appear.

        A store named at the start is listed even where it does not exist, so that the page can say so.
        """
        paths = self.stores or tuple(sorted(self.folder.glob(DEFAULT_STORES)))
        stems = [path.stem for path in paths]
        return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths}

    @property
    def checkpoint_folders(self) -> tuple[Path, ...]:
        """Where checkpoints are looked for."""
        return tuple(dict.fromkeys([self.checkpoints, *([self.own] if self.own is not None else [])]))

    @property
    def uploads(self) -> Path:
        """Where checkpoints go that were uploaded or imported."""
        return self.own or self.checkpoints

    @property
    def no_sampling(self) -> str:
        """Why nothing is sampled; empty where that is possible."""
        return (
            "This page is read-only: it shows what was sampled before, and this was not."
            if self.read_only
            else ""
        )

    @property
    def no_upload(self) -> str:
        """Why no checkpoint can be uploaded; empty where that is possible."""
        if self.read_only:
            return "This page is read-only, so no model can be added."
        if self.most_upload_mb == 0:
            return "Uploads are switched off on this page (--most-upload-mb 0)."
        if not (self.local or self.allow_upload):
            return (
                "Uploads are off because this page may be served to other machines. Whoever runs it can allow "
                "them with --allow-upload."
            )
        return ""

    @property
    def no_import(self) -> str:
        """Why no published checkpoint can be imported by its path; empty where that is possible."""
        if self.read_only:
            return "This page is read-only, so no model can be added."
        if not self.local:
            return (
                "Importing reads files of the server's machine by their path, so it works only where the page "
                "listens on localhost. Use `tramontana checkpoint import` on that machine."
            )
        return ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"The explorer does not understand its arguments: {message}.")


NUMBERS: dict[str, tuple[type, float, float]] = {
    "cache_gb": (float, 0, 1e6),
    "most_members": (int, 1, 256),
    "most_steps": (int, 1, MOST_STEPS),
    "most_jobs": (int, 1, 1000),
    "most_fields": (int, 1, 1_000_000),
    "most_upload_mb": (int, 0, 100_000),
}
"""Options that are numbers: type, smallest, largest."""
SWITCHES = ("read_only", "allow_upload", "local")
"""Options that are on or off."""


def option(name: str) -> str:
    """The option of a setting on the command line."""
    return f"--{name.replace('_', '-')}"


def parse(
    arguments: Sequence[str], environment: Mapping[str, str] = os.environ, folder: Path | None = None
) -> Settings:
    """Settings from ``STORE... [MODEL.safetensors...] [options]``, then environment variables, then defaults.

    Every option has a variable: ``--cache-gb`` has ``TRAMONTANA_CACHE_GB``. ``TRAMONTANA_STORES`` holds what
    would be named without an option, separated as in ``PATH``. Raises SettingsError for an option that does not
    exist or a number out of its range.
    """
    folder = folder or Path.cwd()
    parser = _Parser(prog="explorer", add_help=False, allow_abbrev=False)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--checkpoints")
    parser.add_argument("--stations")
    parser.add_argument("--cache")
    for name in NUMBERS:
        parser.add_argument(option(name))
    for name in SWITCHES:
        parser.add_argument(option(name), action="store_true", default=None)
    known = parser.parse_args(list(arguments))
    named = known.files or [
        item for item in environment.get(STORES_VARIABLE, "").split(os.pathsep) if item.strip()
    ]
    paths = tuple(dict.fromkeys((folder / item).resolve() for item in named))
    checkpoints = known.checkpoints or environment.get(CHECKPOINTS_VARIABLE)
    stations = known.stations or environment.get(STATIONS_VARIABLE)
    given: dict[str, Any] = {}
    for name in (*NUMBERS, *SWITCHES):
        word = getattr(known, name)
        word = environment.get(f"TRAMONTANA_{name.upper()}") if word is None else word
        if word is not None and word != "":
            given[name] = _number(name, word) if name in NUMBERS else _switch(name, word)
    cache = known.cache or environment.get("TRAMONTANA_CACHE")
    return Settings(
        tuple(path for path in paths if path.suffix != CHECKPOINT_SUFFIX),
        (folder / checkpoints).resolve() if checkpoints else shipped_checkpoints(),
        folder,
        stations=(folder / stations).resolve() if stations else None,
        files=tuple(path for path in paths if path.suffix == CHECKPOINT_SUFFIX),
        own=None if checkpoints else _home(environment, "XDG_DATA_HOME", ".local/share", "checkpoints"),
        cache=(folder / cache).resolve()
        if cache
        else _home(environment, "XDG_CACHE_HOME", ".cache", "results"),
        **given,
    )


def _home(environment: Mapping[str, str], variable: str, usual: str, name: str) -> Path | None:
    """A folder of the user for files of one kind; None for a user without a home."""
    named = environment.get(variable, "")
    try:
        place = Path(named) if Path(named).is_absolute() else Path.home() / usual
    except RuntimeError:
        return None
    return place / "tramontana" / name


def _number(name: str, word: str) -> float:
    kind, low, high = NUMBERS[name]
    try:
        value: float = kind(word)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        whole = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{option(name)} must be {whole} from {low:g} to {high:g}, not {word!r}.")
    return value


def _switch(name: str, word: bool | str) -> bool:
    text = str(word).strip().lower()
    if text not in (*YES, *NO):
        raise SettingsError(f"TRAMONTANA_{name.upper()} must be 1 or 0, not {word!r}.")
    return text in YES
