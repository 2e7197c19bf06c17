"""Sampling in the browser: progress, preview, the ensemble, cancel."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.helpers import Explorer, served
from tests.explorer.generative import LABEL, make_ldm, make_square_store

NewExplorer = Callable[..., Explorer]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is served over a store and one small generative model."""
    folder = tmp_path_factory.mktemp("sampling")
    store = make_square_store(folder / "square.zarr")
    make_ldm(folder / "checkpoints" / "ldm.safetensors", store)
    with served([folder / "square.zarr"], folder / "checkpoints", folder=folder) as address:
        yield address


def test_members_are_sampled_with_progress_seen_as_an_ensemble_and_cancelled(
    explorer: Explorer, tmp_path: Path
):
    page = explorer.page
    explorer.open("models=quadratic&members=3&steps=120")
    assert not page.get_by_role("button", name="Sample 3 members").is_visible()
    page.get_by_label(LABEL).check()
    page.locator(".panel-head", has_text=LABEL).wait_for()
    page.get_by_role("button", name="Sample 3 members").wait_for()
    page.get_by_text("1 of 3 members of this hour is there.").wait_for()
    assert explorer.maps == ["Coarse input", "Truth", "Quadratic interpolation", LABEL]

    explorer.view("Ensemble")
    page.locator(".message").get_by_text("1 of 3 members is there").wait_for()
    page.get_by_role("button", name="Sample 3 members").first.click()
    page.get_by_role("button", name="Cancel").wait_for()
    page.locator(".caption", has_text="of 3 · step").wait_for()
    assert page.get_by_role("progressbar").first.is_visible()
    page.get_by_text("All 3 members of this hour are there.").wait_for()
    for title in ("Mean", "Spread", "Member 0", "Member 1", "Member 2"):
        page.locator(".panel-head:visible", has_text=title).first.wait_for()
    for score in ("CRPS", "RMSE of the mean", "Spread-skill ratio"):
        assert page.locator("table.compact").get_by_text(score).is_visible()
    assert len(explorer.model("ensemble-ranks", "Array.from(m.data.share)")) == 4
    assert sum(explorer.model("ensemble-ranks", "Array.from(m.data.share)")) == pytest.approx(100)
    page.screenshot(path=tmp_path / "ensemble.png")

    # A second run, with so many steps that it can be stopped.
    explorer.view("Maps")
    explorer.wait_for_maps()
    steps = page.get_by_label("Steps", exact=True)
    steps.fill("1000")
    steps.press("Enter")
    page.locator(".panel-head .busy", has_text="of 1000").wait_for()
    explorer.wait_for(
        """() => Object.entries(Bokeh.documents[0].get_model_by_name('fields').data)
            .some(([key, column]) => key.startsWith('ldm_res') && column[0].length > 1)"""
    )
    page.get_by_role("button", name="Cancel").click()
    page.locator(".panel-head .failed", has_text="Stopped after step").wait_for()
    page.get_by_role("button", name="Sample 3 members").wait_for()
    assert "steps=1000" in page.url
