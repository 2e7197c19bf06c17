"""The point and the stations in the browser: click, series, circles, upload, download."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.helpers import Explorer, served
from tests.explorer.observations import CELLS, observations
from tests.explorer.small_store import DOMAIN, fields

ROW, COLUMN = CELLS["Beta"]
X, Y = float(DOMAIN.fine.x[COLUMN]), float(DOMAIN.fine.y[ROW])


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """Where the page is served with observations 1.5 K above the truth."""
    (place / "obs.csv").write_bytes(observations(excess=1.5))
    named = {"TRAMONTANA_STATIONS": str(place / "obs.csv")}
    with served([place / "full.zarr"], place / "checkpoints", folder=place, environment=named) as address:
        yield address


def truth(hour: int) -> float:
    """Truth in the cell of the station [degree C]."""
    return float(fields(hour)[0][ROW, COLUMN]) - 273.15


def wait_until_ready(explorer: Explorer) -> None:
    """Wait until the page has told the server that it is there; what comes before may be lost."""
    explorer.wait_for(
        "() => [null, 'none'].includes(document.getElementById('loader')?.style.display ?? null)"
    )


def row(explorer: Explorer, table: str, first: str) -> list[str]:
    """Cells of the row of a table that begins with ``first``."""
    named = explorer.page.locator(f"td:text-is('{first}')")
    found = explorer.page.locator(f".{table} tbody tr").filter(has=named)
    return [cell.strip().replace("−", "-") for cell in found.first.inner_text().split("\t")]


def test_a_click_on_a_map_leads_to_the_series_and_the_series_to_an_hour(explorer: Explorer):
    page = explorer.open("models=quadratic").page
    page.locator(".marked", has_text="circles: 3 stations, observed").wait_for()
    left, top = explorer.point("Quadratic interpolation", X, Y)
    page.mouse.click(left + 3, top - 3)  # beside the circle of a station, which attracts the click
    explorer.wait_for("() => location.search.includes('point=')")
    assert explorer.model("marker", "Array.from(m.data.x)") == pytest.approx([X], abs=10)

    explorer.view("Point")
    page.locator(".point-values td", has_text=f"{truth(12):.2f}").first.wait_for()
    page.locator(".point-values caption", has_text="12:00").wait_for()
    explorer.wait_for_text_to_go("more field")
    assert float(row(explorer, "point-values", "Truth")[1]) == pytest.approx(truth(12), abs=0.006)
    assert float(row(explorer, "point-values", "Observed at Beta")[2]) == pytest.approx(1.5, abs=0.006)
    assert explorer.model("point-line-truth", "Array.from(m.data.value)") == pytest.approx(
        [truth(hour) for hour in range(24)], abs=1e-3
    )
    assert "500 m above the sea" in page.locator(".point-facts dl").inner_text()

    hour = "Date.UTC(2021, 2, 16, 5, 10)"
    place = page.evaluate(
        f"""() => {{
            const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name('point-series'))
            const box = view.el.getBoundingClientRect(), frame = view.frame ?? view.plot_view.frame
            const [sx] = frame.x_scale.v_compute([{hour}])
            return [box.left + sx, box.top + box.height / 3]
        }}"""
    )
    page.mouse.click(*place)
    explorer.wait_for("() => location.search.includes('hour=2021-03-16T05:00')")
    page.locator(".point-values caption", has_text="05:00").wait_for()
    assert float(row(explorer, "point-values", "Truth")[1]) == pytest.approx(truth(5), abs=0.006)


def test_before_a_point_is_chosen_towns_are_offered(explorer: Explorer):
    page = explorer.open("view=point&models=quadratic", wait=False).page
    page.get_by_text("Choose a point").wait_for()
    wait_until_ready(explorer)
    page.get_by_role("button", name="Venezia").click()
    page.locator(".point-values table").wait_for()
    explorer.wait_for("() => location.search.includes('point=12.33,45.44')")
    assert page.get_by_label("Latitude [°N]").input_value().startswith("45.44")


def test_a_double_click_chooses_no_point(explorer: Explorer):
    page = explorer.open("models=quadratic").page
    page.mouse.dblclick(*explorer.point("Truth", X, Y))
    explorer.next_hour()
    assert "point=" not in page.url


def test_circles_say_what_stations_observed_and_how_far_fields_are(explorer: Explorer):
    page = explorer.open("models=quadratic").page
    page.locator(".marked").wait_for()
    page.mouse.move(*explorer.point("Truth", X, Y))
    tip = page.locator(".station-hover:visible").first
    tip.wait_for()
    words = tip.inner_text().replace("−", "-")
    assert "Beta" in words
    assert "500 m" in words
    assert float(re.search(r"Observed\s+(-?[\d.]+)", words)[1]) == pytest.approx(truth(12) + 1.5, abs=0.051)
    assert re.search(r"Truth\s+-?[\d.]+ °C\s+\(-1\.5 K\)", words)


def test_stations_are_uploaded_scored_and_downloaded(explorer: Explorer, tmp_path: Path):
    page = explorer.open("view=point&models=quadratic&point=12.6,45.0", wait=False).page
    page.locator(".station-file", has_text="obs.csv: 3 stations on this domain, 72 observations.").wait_for()
    wait_until_ready(explorer)
    (tmp_path / "mine.csv").write_bytes(observations(excess=-2.0, higher=100.0))
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.csv")
    page.locator(".station-file", has_text="mine.csv: 3 stations").wait_for()
    page.locator(".station-errors td", has_text="+2.00").first.wait_for()
    explorer.wait_for_text_to_go("more field")
    assert row(explorer, "station-errors", "Truth")[1:4] == ["+2.00", "2.00", "72"]
    page.get_by_role("checkbox", name="Bring cells to the station's height").check()
    page.locator(".station-errors td", has_text="+1.35").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").last.click()
    download.value.save_as(tmp_path / "stations.csv")
    with (tmp_path / "stations.csv").open() as file:
        rows = [one for one in csv.DictReader(file) if one["downscaler"] == "Truth"]
    assert float(rows[0]["bias [K]"]) == pytest.approx(1.35, abs=1e-3)
    assert {one["name"] for one in rows} == {"all stations", *CELLS}

    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    page.locator("input[type=file]").set_input_files(tmp_path / "bad.csv")
    page.get_by_text("bad.csv lacks the columns time").wait_for()
    assert page.locator(".station-file", has_text="mine.csv").is_visible()
