"""Stores and a library over them."""

import shutil
from pathlib import Path

import pytest

from explorer.library import Library
from explorer.settings import Settings
from tests.explorer.prompt import PromptLibrary
from tests.explorer.small_store import HOURS, make_store


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores that most tests start from."""
    folder = tmp_path_factory.mktemp("stores")
    make_store(folder / "full.zarr")
    make_store(folder / "bare.zarr", HOURS[::3], truth=False)
    return folder


@pytest.fixture
def folder(made_once: Path, tmp_path: Path) -> Path:
    """A folder with the stores ``full`` (with truth) and ``bare`` (t2m alone)."""
    for name in ("full.zarr", "bare.zarr"):
        shutil.copytree(made_once / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def library(folder: Path) -> Library:
    """A prompt library over both stores, without checkpoints."""
    made = PromptLibrary(
        Settings((folder / "full.zarr", folder / "bare.zarr"), folder / "checkpoints", folder)
    )
    made.catalogue.result()
    return made
