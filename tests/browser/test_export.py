"""Export, keys and playing in the browser: files are downloaded and opened, hours step and play."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from PIL import Image

from tests.browser.helpers import Explorer
from tests.explorer.small_store import fields

STAMP = "full-20210316T1200Z"
KEYS = "dialog.keys"


def download(explorer: Explorer, kind: str, folder: Path) -> Path:
    """Press a button of the dialog and save what it gives under its own name."""
    with explorer.page.expect_download() as caught:
        explorer.page.get_by_role("button", name=f"Download a {kind} file").click()
    path = folder / caught.value.suggested_filename
    caught.value.save_as(path)
    explorer.page.get_by_text(f"{path.name} (").wait_for()
    explorer.page.get_by_text("is in your downloads").wait_for()
    return path


def test_every_kind_of_file_is_downloaded_and_opens(explorer: Explorer, tmp_path: Path):
    page = explorer.page
    explorer.open("models=quadratic")
    page.get_by_role("button", name="Export").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("2 metre temperature · Tue 16 Mar 2021, 12:00 UTC").wait_for()
    dialog.get_by_text("The data is synthetic, and every file says so.").wait_for()
    fine, coarse = fields(12)

    path = download(explorer, "NetCDF", tmp_path)
    assert path.name == f"{STAMP}-fields.nc"
    with xr.open_datatree(path, engine="netcdf4") as tree:
        assert set(tree.children) == {"coarse", "truth", "quadratic"}
        np.testing.assert_allclose(tree["truth/t2m"].values[0, 0], fine)

    path = download(explorer, "GeoTIFF", tmp_path)
    assert path.name == f"{STAMP}-t2m.tif"
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 3035
        assert file.descriptions[1:] == ("Truth", "Quadratic interpolation")
        np.testing.assert_allclose(file.read(2), fine - 273.15, atol=1e-4)
    dialog.get_by_label("Maps", exact=True).click()
    page.get_by_role("menuitem", name="Coarse input").click()
    with rasterio.open(download(explorer, "GeoTIFF", tmp_path)) as file:
        np.testing.assert_allclose(file.read(1), coarse - 273.15, atol=1e-4)

    with Image.open(download(explorer, "PNG", tmp_path)) as picture:
        assert picture.width > 2000
    assert download(explorer, "PDF", tmp_path).read_bytes().startswith(b"%PDF-")
    lines = download(explorer, "CSV", tmp_path).read_text("utf-8-sig").splitlines()
    assert lines[0].startswith("store,synthetic,hour (UTC),region,variable,field,cells,mean [°C]")
    assert len(lines) == 4

    command = dialog.locator("pre.command").inner_text()
    assert command.startswith("tramontana downscale ")
    assert "--model quadratic" in command
    assert "--hours 2021-03-16T12:00 2021-03-16T12:00" in command
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    dialog.get_by_role("button", name="Copy").click()
    dialog.get_by_role("button", name="Copied").or_(dialog.get_by_text("Copied")).first.wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == command
    page.screenshot(path=tmp_path / "export.png")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_keys_step_hours_and_switch_views_but_not_while_one_writes(explorer: Explorer):
    page = explorer.page
    explorer.open("models=quadratic")
    page.keyboard.press("ArrowRight")
    explorer.wait_for_new_hour("12:00 UTC")
    assert explorer.hour == "Tue 16 Mar 2021, 13:00 UTC"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.locator(".head .when", has_text="11:00 UTC").first.wait_for()
    page.keyboard.press("4")
    page.locator(".score-table:visible").wait_for()
    assert "view=scores" in page.url
    page.keyboard.press("1")
    page.locator(".map-grid:visible").wait_for()

    page.keyboard.press("?")
    page.locator(KEYS).get_by_text("Play or pause the hours").wait_for()
    page.keyboard.press("4")  # nothing happens below the list
    page.keyboard.press("?")
    page.locator(KEYS).wait_for(state="hidden")
    assert page.locator(".map-grid").is_visible()

    date = page.get_by_role("group", name="Date").first
    date.click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("4")
    box = page.get_by_label("Lapse-rate interpolation")
    box.check()  # focus on a box that is ticked does not stand in the way
    page.locator(".panel-head", has_text="Lapse-rate interpolation").wait_for()
    assert page.locator(".map-grid").is_visible()
    assert explorer.hour == "Tue 16 Mar 2021, 11:00 UTC"
    page.keyboard.press("ArrowRight")
    page.locator(".head .when", has_text="12:00 UTC").first.wait_for()


def test_keys_pressed_fast_leave_one_view(explorer: Explorer):
    page = explorer.page
    explorer.open("models=quadratic")
    for _ in range(2):
        for key in "23456781":
            page.keyboard.press(key)
    page.locator(".map-grid:visible").wait_for()
    page.locator(".about").wait_for(state="hidden")
    for other in (".spectra-table", ".flux-table", ".score-table", ".point-status", ".about"):
        assert not page.locator(other).first.is_visible()
    assert page.get_by_role("alert").count() == 0 or not page.get_by_role("alert").first.is_visible()


def test_hours_play_until_somebody_stops_them(explorer: Explorer):
    page = explorer.page
    explorer.open("models=quadratic&hour=2021-03-16T22:00")
    explorer.choose("Speed", "Fast")
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for()
    for hour in ("23:00", "00:00", "01:00"):  # round the end
        page.locator(".head .when", has_text=f"{hour} UTC").first.wait_for()
    page.locator("body").click(position={"x": 640, "y": 75})
    page.keyboard.press(" ")
    page.get_by_role("button", name="Play").wait_for()
    stays = explorer.hour
    page.keyboard.press(" ")
    page.get_by_role("button", name="Pause").wait_for()
    page.locator(".head .when").filter(has_not_text=stays).first.wait_for()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="Play").wait_for()
    assert re.search(r"hour=2021-03-16T\d\d:00", page.url)


@pytest.mark.parametrize(("width", "height"), [(1000, 650)])
def test_dialog_fits_on_a_small_screen(new_explorer, address: str, width: int, height: int, tmp_path: Path):
    explorer = new_explorer(address, width, height).open("models=quadratic&theme=dark")
    explorer.page.get_by_role("button", name="Export").click()
    dialog = explorer.page.get_by_role("dialog")
    dialog.locator("pre.command").wait_for()
    box = dialog.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["y"] + box["height"] <= height
    explorer.page.screenshot(path=tmp_path / "small.png")
