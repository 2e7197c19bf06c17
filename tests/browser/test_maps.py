"""The maps: hours, hover, zoom, differences."""

import re
from pathlib import Path

import numpy as np
import pytest

from core.data.store import Store
from tests.browser.helpers import Explorer
from tests.explorer.small_store import DOMAIN, HOURS

TITLES = ["Coarse input", "Truth", "Quadratic interpolation", "UNet (untrained)"]
ROW, COLUMN = 41, 30
X, Y = DOMAIN.fine.x[COLUMN], DOMAIN.fine.y[ROW]


def truth(place: Path, hour: np.datetime64) -> float:
    """The true temperature of the probed cell [degree C]."""
    return float(Store.open(place / "full.zarr").read_fine(hour)["t2m"].values[0, ROW, COLUMN]) - 273.15


def coarse(place: Path, hour: np.datetime64) -> float:
    """The coarse temperature over the probed cell [degree C]."""
    data = Store.open(place / "full.zarr").read_coarse(hour)["t2m"]
    return float(data.values[0, ROW // 8, COLUMN // 8]) - 273.15


def read(text: str, label: str) -> float:
    """The first number after a label in the hover."""
    return float(re.search(re.escape(label) + r"\s*\+?([−\d.]+)", text)[1].replace("−", "-"))


def test_opens_with_coarse_truth_and_downscalers_at_noon(explorer: Explorer):
    explorer.open()
    assert explorer.maps == TITLES
    assert explorer.hour == "Tue 16 Mar 2021, 12:00 UTC"
    assert explorer.page.title() == "Tramontana"
    assert explorer.page.get_by_text("SYNTHETIC").is_visible()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_fits_on_the_screen_without_scrolling(new_explorer, address: str, width: int, height: int):
    explorer = new_explorer(address, width, height).open()
    boxes = [explorer.box(title) for title in TITLES[:3]]
    assert all(box["y"] + box["height"] <= height and box["x"] + box["width"] <= width for box in boxes)
    assert min(box["height"] for box in boxes) > 0.3 * height
    assert explorer.page.evaluate("document.documentElement.scrollHeight") <= height


def test_hover_reads_every_field_as_the_store_has_it(explorer: Explorer, place: Path):
    text = explorer.open().hover("Quadratic interpolation", X, Y)
    assert read(text, "Truth") == pytest.approx(truth(place, HOURS[12]), abs=0.01)
    assert read(text, "Coarse input") == pytest.approx(coarse(place, HOURS[12]), abs=0.01)
    assert all(title in text for title in TITLES)
    assert text.count("°C") == 4
    height = 10 * np.hypot(ROW, COLUMN)
    assert f"{height:.0f} m" in text
    assert f"{DOMAIN.fine.latitude[ROW, COLUMN]:.2f}° N" in text
    assert f"{DOMAIN.fine.longitude[ROW, COLUMN]:.2f}° E" in text


def test_next_hour_brings_its_fields(explorer: Explorer, place: Path):
    explorer.open().next_hour()
    assert explorer.hour == "Tue 16 Mar 2021, 13:00 UTC"
    text = explorer.hover("Truth", X, Y)
    assert read(text, "Truth") == pytest.approx(truth(place, HOURS[13]), abs=0.01)


def test_slider_goes_to_an_hour(explorer: Explorer):
    explorer.open()
    before = explorer.hour
    explorer.page.get_by_role("slider").first.press("ArrowLeft")
    explorer.wait_for_new_hour(before)
    assert explorer.hour == "Tue 16 Mar 2021, 11:00 UTC"


def test_zooming_one_map_moves_all_and_a_double_click_comes_back(explorer: Explorer):
    explorer.open()
    before = explorer.window()
    # Every map has the same ranges and draws with them, so one zoom is a zoom of all.
    drawn = """() => [...new Set(Bokeh.documents[0].roots().flatMap(root => [...root.references()])
        .filter(m => m.type == 'Figure' && (m.name ?? '').startsWith('map-'))
        .map(m => [m.x_range.id, m.y_range.id].join()))]"""
    assert len(explorer.page.evaluate(drawn)) == 1
    far_before = explorer.point("Quadratic interpolation", X, Y)
    unzoomed = explorer.point("Quadratic interpolation", X + 10_000, Y)[0] - far_before[0]
    explorer.page.mouse.move(*explorer.point("Truth", X, Y))
    explorer.page.mouse.wheel(0, -240)
    explorer.wait_for("end => Bokeh.documents[0].get_model_by_name('x').end < end - 1000", before[1])
    left, right, bottom, top = explorer.window()
    assert right - left < 0.9 * (before[1] - before[0])
    assert (right - left) / (top - bottom) == pytest.approx((before[1] - before[0]) / (before[3] - before[2]))
    # The wheel was turned over (X, Y), which stays where it was, in the other maps too.
    assert explorer.point("Quadratic interpolation", X, Y) == pytest.approx(far_before, abs=3)
    zoomed = explorer.point("Quadratic interpolation", X + 10_000, Y)[0] - far_before[0]
    assert zoomed > 1.1 * unzoomed
    explorer.page.mouse.dblclick(*explorer.point("Truth", X, Y))
    explorer.wait_for("end => Math.abs(Bokeh.documents[0].get_model_by_name('x').end - end) < 1", before[1])
    assert explorer.window() == pytest.approx(before)


def test_metres_are_as_long_in_both_directions(explorer: Explorer):
    explorer.open()
    x0, y0 = explorer.point("Truth", X, Y)
    x1, y1 = explorer.point("Truth", X + 20_000, Y - 20_000)
    assert x1 - x0 == pytest.approx(y1 - y0, abs=0.5)


def test_difference_is_taken_from_the_truth(explorer: Explorer, place: Path):
    explorer.open().mode("Difference")
    explorer.page.get_by_text("difference from truth").wait_for()
    assert explorer.maps == [title for title in TITLES if title != "Truth"]
    text = explorer.hover("Coarse input", X, Y)
    expected = coarse(place, HOURS[12]) - truth(place, HOURS[12])
    assert read(text, "Coarse input") == pytest.approx(expected, abs=0.01)
    assert read(text, "Truth") == pytest.approx(truth(place, HOURS[12]), abs=0.01)
    assert text.count(" K") == 3
    ticks = explorer.page.locator(".bar .tick").all_inner_texts()
    assert ticks[0].replace("−", "-") == f"-{ticks[-1]}"
    explorer.mode("Fields")
    explorer.page.get_by_text("difference from truth").wait_for(state="hidden")
    assert explorer.maps == TITLES


def test_ticking_a_downscaler_adds_its_map(explorer: Explorer):
    explorer.open()
    explorer.page.get_by_label("Lapse-rate interpolation").check()
    explorer.page.locator(".panel-head", has_text="Lapse-rate interpolation").wait_for()
    assert "Lapse-rate interpolation" in explorer.maps
    explorer.page.get_by_label("Lapse-rate interpolation").uncheck()
    explorer.page.locator(".panel-head", has_text="Lapse-rate interpolation").wait_for(state="hidden")
    assert explorer.maps == TITLES


def test_theme_restyles_page_and_maps(explorer: Explorer):
    explorer.open()
    explorer.page.get_by_role("button", name="Toggle theme").click()
    explorer.wait_for("() => getComputedStyle(document.body).backgroundColor == 'rgb(18, 24, 29)'")
    explorer.wait_for(
        "() => Bokeh.documents[0].get_model_by_name('map-truth').border_fill_color.includes('12181d')"
    )
    explorer.wait_for("() => location.search.includes('theme=dark')")


def test_maps_that_are_not_wanted_take_no_room(explorer: Explorer):
    explorer.open()
    all_maps = explorer.drawn
    assert sorted(name.partition("-")[0] for name in all_maps) == ["coarse", "quadratic", "truth", "unet"]
    explorer.mode("Difference")
    explorer.page.get_by_text("difference from truth").wait_for()
    explorer.wait_for_text_to_go("computing")
    assert set(explorer.drawn) == set(all_maps) - {"truth"}
    explorer.mode("Swipe")
    explorer.page.locator(".swipe-head:visible").wait_for()
    assert list(explorer.drawn) == ["swipe"]
    explorer.mode("Fields")
    explorer.page.locator(".panel-head:visible", has_text="Truth").wait_for()
    assert explorer.drawn == all_maps
    explorer.page.get_by_label("Quadratic interpolation").uncheck()
    explorer.page.locator(".panel-head", has_text="Quadratic").wait_for(state="hidden")
    assert set(explorer.drawn) == set(all_maps) - {"quadratic"}
