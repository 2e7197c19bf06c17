"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

# Read when PyTorch is imported, here and in every process that a test starts. The networks are tiny, and two
# test processes share the cores: threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Folder of the numeric reference fixtures, part of the repository."""
    return ROOT / "tests" / "fixtures"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of small real data sets that may not be redistributed.

    Skips where the folder is absent, so that a clone alone can run everything else; with
    ``TRAMONTANA_REQUIRE_SHARED_DATA=1``, as in continuous integration, its absence is an error.
    """
    folder = Path(os.environ.get("TRAMONTANA_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if (folder / "era5_t2m_italy_3h_2022-05_06.nc").exists():
        return folder
    reason = (
        f"the small real data sets are not at {folder}; they may not be redistributed. "
        "Set TRAMONTANA_SHARED_DATA to a folder that holds them."
    )
    if os.environ.get("TRAMONTANA_REQUIRE_SHARED_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
