"""One server for all tests of the page; each test has a browser page of its own that must stay quiet."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from core.domain import Domain
from tests.browser.helpers import Explorer, Watcher, launch_arguments, served
from tests.explorer.small_store import DOMAIN, HOURS, make_store, make_unet

ELSEWHERE = Domain.regular("Elsewhere", left=4.2e6, top=2.5e6, shape=(64, 64), spacing=2000.0, ratio=8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    """Skips where there is no Chromium; with TRAMONTANA_REQUIRE_BROWSER=1 its absence is an error."""
    if shutil.which("chromium") is None:
        reason = "Chromium is not installed; on Debian: apt-get install chromium."
        if os.environ.get("TRAMONTANA_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return launch_arguments()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stores and checkpoints, good and bad."""
    folder = tmp_path_factory.mktemp("explorer")
    make_store(folder / "full.zarr")
    make_store(folder / "bare.zarr", HOURS[::3], truth=False)
    make_store(folder / "grows.zarr", written=3)
    (folder / "photos.zarr").mkdir()
    make_unet(folder / "checkpoints" / "small.safetensors", DOMAIN, "UNet (untrained)")
    make_unet(folder / "checkpoints" / "elsewhere.safetensors", ELSEWHERE, "UNet (elsewhere)")
    (folder / "checkpoints" / "broken.safetensors").write_bytes(b"not a checkpoint")
    return folder


@pytest.fixture(scope="session")
def address(place: Path) -> Iterator[str]:
    """Where the page is served over the stores of ``place`` and one that does not exist."""
    names = ("full", "bare", "grows", "photos", "absent")
    with served([place / f"{name}.zarr" for name in names], place / "checkpoints", folder=place) as address:
        yield address


@pytest.fixture
def new_explorer(browser: Browser) -> Iterator[Callable[..., Explorer]]:
    """Makes pages of different visitors; afterwards none may have complained or asked a stranger."""
    opened: list[tuple[Page, Watcher]] = []

    def make(address: str, width: int = 1280, height: int = 800) -> Explorer:
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        opened.append((page, Watcher(page)))
        return Explorer(page, address)

    yield make
    for page, watcher in opened:
        page.context.close()
        assert watcher.complaints == []
        assert watcher.strangers == []
        assert any(url.startswith("ws://localhost") for url in watcher.requests)


@pytest.fixture
def explorer(new_explorer: Callable[..., Explorer], address: str) -> Explorer:
    """The page of one visitor."""
    return new_explorer(address)
