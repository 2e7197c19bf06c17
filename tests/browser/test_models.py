"""The dialog of models in the browser: what it lists, an upload, and a page that takes none."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.helpers import Explorer, served
from tests.explorer.generative import LABEL, make_ldm, make_square_store

NewExplorer = Callable[..., Explorer]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, one generative model beside a file that is none, and another model to send."""
    folder = tmp_path_factory.mktemp("models")
    store = make_square_store(folder / "square.zarr")
    make_ldm(folder / "checkpoints" / "ldm.safetensors", store)
    (folder / "checkpoints" / "broken.safetensors").write_bytes(b"not a checkpoint")
    make_ldm(folder / "sent" / "second.safetensors", store, seed=4)
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with served([place / "square.zarr"], place / "checkpoints", folder=place) as address:
        yield address


@pytest.fixture(scope="module")
def demo(place: Path) -> Iterator[str]:
    """The same page for a demonstration: read-only."""
    with served(
        [place / "square.zarr"], place / "checkpoints", folder=place,
        environment={"TRAMONTANA_READ_ONLY": "1"},
    ) as address:  # fmt: skip
        yield address


def test_models_are_listed_and_an_uploaded_one_can_be_compared(
    explorer: Explorer, place: Path, tmp_path: Path
):
    page = explorer.page
    explorer.open("models=quadratic&steps=3")
    page.get_by_role("button", name="Models").click()
    page.locator(".model").nth(1).wait_for()
    assert page.locator(".model").count() == 2
    assert page.locator(".model", has_text="ldm.safetensors").get_by_text("runs on this store").is_visible()
    assert page.locator(".model", has_text="broken.safetensors").get_by_text("can't be used").is_visible()
    page.get_by_text("Whole header").click()
    page.get_by_text("format version").wait_for()
    page.screenshot(path=tmp_path / "models.png")

    files = page.locator("input[type=file]")
    files.set_input_files(place / "checkpoints" / "broken.safetensors")
    page.get_by_text("There is a file broken.safetensors").wait_for()
    files.set_input_files(place / "sent" / "second.safetensors")
    page.get_by_text("second.safetensors is there; tick it under Downscalers.").wait_for()
    page.locator(".model").nth(2).wait_for()
    page.get_by_role("button", name="close", exact=True).click()
    page.locator(".model").first.wait_for(state="hidden")
    for name in ("ldm", "second"):
        page.get_by_label(f"{LABEL} · {name}").check()
    for name in ("ldm", "second"):  # sampled, drawn and scored
        page.locator(".panel-head", has_text=f"{LABEL} · {name}").get_by_text("RMSE").wait_for()


def test_a_read_only_page_takes_nothing_and_says_so(new_explorer: NewExplorer, demo: str):
    explorer = new_explorer(demo)
    page = explorer.page
    explorer.open("models=quadratic&steps=4")
    page.get_by_role("checkbox", name=LABEL).first.check()
    page.locator(".panel-head .failed", has_text="This page is read-only").first.wait_for()
    assert page.get_by_role("button", name="Sample 4 members").is_disabled()
    page.get_by_role("button", name="Models").click()
    page.get_by_text("This page is read-only, so no model can be added.").first.wait_for()
    assert page.locator("input[type=file]").count() == 0
