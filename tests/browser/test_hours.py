"""Swipe, layers, many hours: small maps, the hours that differ most, scores over hours."""

import csv
from pathlib import Path

import pytest

from core.data.store import Store
from core.metrics.deterministic import rmse
from tests.browser.helpers import Explorer
from tests.explorer.small_store import DOMAIN, HOURS

DIVIDER = "Bokeh.documents[0].get_model_by_name('divider')"
SWIPED = "Bokeh.documents[0].get_model_by_name('swiped').data.swipe[0]"


def quadratic(place: Path):
    """Quadratic interpolation of all hours and the truth (time, y, x) [K]."""
    from core.downscale import interpolations

    store = Store.open(place / "full.zarr")
    made = interpolations()[0].downscale(store.read_coarse(HOURS), store.read_static(), DOMAIN)
    return made["t2m"], store.read_fine(HOURS)["t2m"]


def test_swipe_shows_two_fields_and_the_divider_moves_without_the_server(explorer: Explorer):
    sent: list[object] = []
    explorer.page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    explorer.open()
    explorer.mode("Swipe")
    explorer.page.locator(".swipe-head:visible", has_text="Truth").wait_for()
    explorer.wait_for(f"() => {SWIPED}.shape.join() == '64,48'")
    head = explorer.page.locator(".swipe-head").inner_text()
    assert head.index("UNet (untrained)") < head.index("Truth")
    assert "mean" in head
    explorer.wait_for("() => Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name('map-swipe')) != null")
    place = """location => {
        const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name('map-swipe'))
        const box = view.el.getBoundingClientRect(), frame = view.frame ?? view.plot_view.frame
        const [sx] = frame.x_scale.v_compute([location])
        return [box.left + sx, box.top + box.height / 2]
    }"""
    left, right = explorer.window()[:2]
    middle = explorer.page.evaluate(f"() => {DIVIDER}.location")
    assert left < middle < right

    def parts() -> list[bool]:
        """Whether the first row is that of the left field, column by column."""
        return explorer.page.evaluate(
            f"""() => {{
                const d = Bokeh.documents[0].get_model_by_name('fields').data
                const keys = Bokeh.documents[0].get_model_by_name('swipe-pair').data.keys
                const s = {SWIPED}, a = d[keys[0]][0]
                return Array.from({{length: 48}}, (_, j) => s[j] == a[j])
            }}"""
        )

    assert parts().count(True) == pytest.approx(24, abs=1)
    x, y = explorer.page.evaluate(place, middle)
    to, _ = explorer.page.evaluate(place, middle - 24_000)
    explorer.page.mouse.move(x, y)
    explorer.wait_for("() => true")
    sent.clear()
    explorer.page.mouse.down()
    for share in (0.3, 0.6, 1.0):
        explorer.page.mouse.move(x + share * (to - x), y + 2)
    explorer.page.mouse.up()
    explorer.wait_for(f"before => {DIVIDER}.location < before - 16000", middle)
    assert parts().count(True) == pytest.approx(12, abs=2)
    assert not any(b"divider" in frame.encode() if isinstance(frame, str) else False for frame in sent)
    explorer.mode("Fields")
    explorer.page.locator(".panel-head:visible", has_text="Quadratic").wait_for()
    assert "Truth" in explorer.maps


def test_layers_arrows_cells_and_statistics(explorer: Explorer, place: Path):
    explorer.open()
    _, truth = quadratic(place)
    mean = float(truth[12].mean()) - 273.15
    cell = explorer.page.locator(".panel-stats:visible").nth(1)
    assert f"mean {mean:.1f}".replace("-", "−") in cell.inner_text()
    explorer.page.get_by_role("button", name="Wind", exact=True).click()
    explorer.page.get_by_text("an arrow as long as the gap to the next").wait_for()
    explorer.wait_for("() => Bokeh.documents[0].get_model_by_name('arrows-coarse').data.x.length > 0")
    explorer.wait_for("() => location.search.includes('layers=arrows,statistics')")
    assert explorer.model("arrows-truth", "m.data.x.length") == 0  # the truth has no wind
    explorer.page.get_by_role("button", name="Cells", exact=True).click()
    explorer.wait_for("() => Bokeh.documents[0].get_model_by_name('coarse-cells').data.x.length == 3 * 16")
    explorer.page.get_by_role("button", name="Statistics", exact=True).click()
    explorer.wait_for("() => location.search.includes('layers=arrows,cells')")
    explorer.wait_for("() => !location.search.includes('statistics')")


def test_small_maps_of_hours_lead_to_the_hour(explorer: Explorer):
    explorer.open("view=hours", wait=False)
    pictures = explorer.page.locator(".multiples img")
    explorer.wait_for_text_to_go("reading…")
    explorer.page.get_by_role("rowheader", name="UNet (untrained)").wait_for()
    pictures.nth(8 * 4 - 1).wait_for()
    assert pictures.count() == 8 * 4
    heads = explorer.page.locator(".multiples thead th").all_inner_texts()
    assert heads[1:] == ["00:00", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00"]
    explorer.page.get_by_role("button", name="Truth, Tue 16 Mar 2021, 18:00 UTC").click()
    explorer.page.locator(".panel-head:visible", has_text="Truth").wait_for()
    explorer.page.locator(".head .when:visible", has_text="Tue 16 Mar 2021, 18:00 UTC").wait_for()
    assert explorer.maps[:2] == ["Coarse input", "Truth"]


def test_the_most_different_hour_is_found_and_shown(explorer: Explorer, place: Path):
    explorer.open("view=hours&selection=story&left=quadratic&right=truth", wait=False)
    card = explorer.page.locator(".story-card")
    card.first.wait_for()
    explorer.wait_for_text_to_go("looking…")
    explorer.page.get_by_text("24 of 24 hours compared").wait_for()
    forecast, truth = quadratic(place)
    differences = rmse(forecast, truth)
    assert card.count() == 1  # of a single day
    assert f"{float(differences.max()):.2f} K" in card.inner_text()
    assert card.locator("img").count() == 3
    card.click()
    explorer.page.locator(".swipe-head:visible", has_text="Quadratic interpolation").wait_for()
    explorer.wait_for("() => location.search.includes('mode=swipe')")


def test_scores_over_hours_as_table_boxes_maps_and_files(explorer: Explorer, place: Path, tmp_path: Path):
    explorer.open("view=scores&models=quadratic,lapse_rate", wait=False)
    explorer.page.get_by_role("button", name="Many hours").click()
    explorer.page.get_by_text("Done: 24 hours scored").wait_for()
    explorer.wait_for("() => location.search.includes('scope=hours')")
    rows = explorer.page.locator(".hours-table tbody tr")
    assert rows.count() == 2
    forecast, truth = quadratic(place)
    scores = rmse(forecast, truth)
    assert float(rows.first.locator("td").nth(2).inner_text()) == pytest.approx(
        float(scores.mean()), abs=0.006
    )
    assert explorer.model("boxes-rmse", "m.data.mean[0]") == pytest.approx(float(scores.mean()), rel=1e-4)
    assert explorer.model("scores-fields", "m.data.quadratic[0].shape.join()") == "64,48"
    assert explorer.model("values-land", "m.data.label.join()").endswith("Truth")
    explorer.page.get_by_role("button", name="RMSE", exact=True).click()
    explorer.page.get_by_text("Root-mean-square error over hours").wait_for()
    with explorer.page.expect_download() as download:
        explorer.page.get_by_role("button", name="Hours (CSV)").click()
    download.value.save_as(tmp_path / "hours.csv")
    with (tmp_path / "hours.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 48
    assert float(lines[5]["RMSE [K]"]) == pytest.approx(float(scores[5]), rel=1e-4)
    explorer.page.get_by_role("button", name="This hour").click()
    explorer.page.locator(".score-table tbody tr").first.wait_for()
