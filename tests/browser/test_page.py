"""The page around the maps: address, scores, other views, bad input, several visitors."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.data.store import Store
from tests.browser.helpers import Explorer, served
from tests.explorer.small_store import HOURS, fill, make_store

NewExplorer = Callable[..., Explorer]


def test_reload_restores_everything(explorer: Explorer, new_explorer: NewExplorer):
    explorer.open()
    explorer.next_hour()
    explorer.page.get_by_label("Quadratic interpolation").uncheck()
    explorer.page.locator(".panel-head", has_text="Quadratic").wait_for(state="hidden")
    explorer.mode("Difference")
    explorer.page.get_by_text("difference from truth").wait_for()
    explorer.choose("Difference from", "Coarse input")
    explorer.page.get_by_text("difference from coarse input").wait_for()
    explorer.page.get_by_role("button", name="Toggle theme").click()
    explorer.wait_for("() => location.search.includes('theme=dark')")
    maps, hour, address = explorer.maps, explorer.hour, explorer.page.url

    again = new_explorer(address)
    again.page.goto(address)
    again.page.get_by_text("difference from coarse input").wait_for()
    again.wait_for_text_to_go("computing")
    assert again.maps == maps == ["Truth", "UNet (untrained)"]
    assert again.hour == hour == "Tue 16 Mar 2021, 13:00 UTC"
    assert not again.page.get_by_label("Quadratic interpolation").is_checked()
    assert again.page.get_by_label("UNet (untrained)").is_checked()
    assert again.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 24, 29)"


def test_back_and_forward_lead_through_what_was_seen(explorer: Explorer):
    page = explorer.page
    explorer.open("models=quadratic")
    explorer.next_hour()
    explorer.wait_for("() => location.search.includes('13:00')")
    explorer.view("About")
    page.locator(".about:visible").wait_for()
    explorer.wait_for("() => location.search.includes('view=about')")
    page.go_back()
    page.locator(".map-grid:visible").wait_for()
    assert explorer.hour.endswith("13:00 UTC")
    page.go_back()
    page.locator(".head .when", has_text="12:00 UTC").first.wait_for()
    page.go_forward()
    page.locator(".head .when", has_text="13:00 UTC").first.wait_for()
    page.go_forward()
    page.locator(".about:visible").wait_for()


def test_scores_as_table_bars_and_file(explorer: Explorer, tmp_path: Path):
    explorer.open("view=scores", wait=False)
    rows = explorer.page.locator(".score-table tbody tr")
    rows.first.wait_for()
    names = [row.split("\t")[0].strip() for row in rows.all_inner_texts()]
    assert names == ["Quadratic interpolation (= coarse input)", "UNet (untrained)"]
    explorer.wait_for("() => Bokeh.documents[0].get_model_by_name('bars-rmse') != null")
    with explorer.page.expect_download() as download:
        explorer.page.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "scores.csv")
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0].startswith("store,hour (UTC),region,variable,downscaler,RMSE [K]")
    assert len(lines) == 3
    first = float(rows.first.inner_text().split("\t")[1])
    assert float(lines[1].split(",")[5]) == pytest.approx(first, abs=0.005)


def test_about_says_what_the_data_is_and_what_can_not_run(explorer: Explorer):
    explorer.open("view=about", wait=False)
    about = explorer.page.locator(".about")
    about.get_by_text("Synthetic weather").wait_for()
    text = about.inner_text()
    assert "Test weather" in text
    assert "a formula" in text
    assert "UNet (elsewhere):" in text
    assert "broken.safetensors:" in text


def test_checkpoints_that_can_not_run_are_greyed_out_with_the_reason(explorer: Explorer):
    explorer.open()
    for label in ("UNet (elsewhere)", "broken.safetensors"):
        assert explorer.page.get_by_label(label).is_disabled()
    reasons = explorer.page.locator(".reason").all_inner_texts()
    assert len(reasons) == 2
    assert any("Elsewhere" in reason for reason in reasons)


def test_store_without_truth_has_maps_but_no_scores(explorer: Explorer):
    explorer.open("store=bare")
    assert explorer.maps == ["Coarse input", "Quadratic interpolation", "Lapse-rate interpolation"]
    assert not explorer.page.get_by_text("SYNTHETIC").is_visible()
    assert explorer.page.get_by_label("UNet (untrained)").is_disabled()
    explorer.mode("Difference")
    explorer.page.get_by_text("This store has no fine truth").wait_for()
    explorer.view("Scores")
    explorer.page.get_by_text("No scores for this store").wait_for()


@pytest.mark.parametrize(
    ("name", "words"),
    [("absent", "There is no store at"), ("photos", "is not a store"), ("x", "no store called")],
)
def test_a_store_that_can_not_be_opened_says_so_and_the_page_lives_on(
    explorer: Explorer, name: str, words: str
):
    explorer.open(f"store={name}", wait=False)
    explorer.page.locator(".message").get_by_text(words).wait_for()
    assert "Traceback" not in explorer.page.content()
    explorer.choose("Store", "full")
    explorer.wait_for_maps()
    assert "Truth" in explorer.maps


def test_no_store_at_all_tells_how_to_make_one_and_shows_it_when_it_is_there(
    new_explorer: NewExplorer, tmp_path: Path
):
    with served([], tmp_path / "none", folder=tmp_path) as address:
        explorer = new_explorer(address)
        explorer.open(wait=False)
        explorer.page.get_by_text("tramontana demo").wait_for()
        assert "tramontana ingest era5" in explorer.page.locator(".message").inner_text()
        (tmp_path / "data").mkdir()
        make_store(tmp_path / "data" / "demo.zarr", HOURS[:2])
        explorer.wait_for_maps()
        assert explorer.hour == "Tue 16 Mar 2021, 00:00 UTC"
        explorer.page.context.close()  # before the server, of which it would complain


def test_a_store_that_grows_while_open_offers_its_new_hours(explorer: Explorer, place: Path):
    explorer.open("store=grows")
    assert explorer.hour == "Tue 16 Mar 2021, 00:00 UTC"
    explorer.page.get_by_text("3 hours").wait_for()
    fill(Store.open(place / "grows.zarr", mode="a"), HOURS[3:5])
    explorer.page.get_by_text("2 new hours in this store since you opened it.").wait_for()
    explorer.page.get_by_text("5 hours").wait_for()
    for _ in range(4):
        explorer.next_hour()
    assert explorer.hour == "Tue 16 Mar 2021, 04:00 UTC"


def test_two_visitors_do_not_disturb_each_other(new_explorer: NewExplorer, address: str):
    first, second = new_explorer(address).open(), new_explorer(address).open("hour=2021-03-16T03:00")
    first.next_hour()
    second.mode("Difference")
    second.page.get_by_text("difference from truth").wait_for()
    assert first.hour == "Tue 16 Mar 2021, 13:00 UTC"
    assert second.hour == "Tue 16 Mar 2021, 03:00 UTC"
    assert "Truth" in first.maps
    assert "Truth" not in second.maps
