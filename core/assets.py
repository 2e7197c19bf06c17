"""Where the files are that ship with the project: maps, static fields, demo checkpoints."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def asset(name: str) -> Path:
    """Path of a shipped file or folder, for example ``"italy/static.nc"``.

    Looks in the folder that the environment variable TRAMONTANA_ASSETS names, in the checkout, and where an
    installed package keeps its data. Raises FileNotFoundError with the places tried.
    """
    named = os.environ.get("TRAMONTANA_ASSETS")
    folders = (
        [Path(named)]
        if named
        else [
            Path(__file__).resolve().parent.parent / "assets",
            Path(sys.prefix) / "share" / "tramontana" / "assets",
        ]
    )
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(
        f"The shipped file {name} is not in {' nor in '.join(map(str, folders))}. Reinstall Tramontana, "
        "or set TRAMONTANA_ASSETS to the folder `assets` of a checkout."
    )


def shipped_checkpoints() -> Path:
    """Folder of the demo checkpoints; it need not exist."""
    try:
        return asset("checkpoints")
    except FileNotFoundError:
        return Path("assets", "checkpoints")
