"""Spectra and fluxes: what is drawn and written is what core computes of the stored fields."""

import re
from pathlib import Path

import pytest
import xarray as xr

from core.data.store import Store
from core.metrics.flux import FluxLoss, flux_error
from core.metrics.spectra import ralsd, spectral_slope, spectral_slope_loss
from explorer.library import QUADRATIC
from tests.browser.helpers import Explorer
from tests.explorer.small_store import DOMAIN, HOURS

TITLES = ["Coarse input", "Truth", "Quadratic interpolation", "UNet (untrained)"]


def stored(place: Path, hour: int) -> dict[str, xr.DataArray]:
    """Coarse field, truth and quadratic interpolation of an hour [K] by the names on the page."""
    from core.downscale import interpolations

    store = Store.open(place / "full.zarr")
    made = next(one for one in interpolations() if one.key == QUADRATIC)
    coarse = store.read_coarse(HOURS[hour])
    fields = {
        "Coarse input": coarse,
        "Truth": store.read_fine(HOURS[hour]),
        "Quadratic interpolation": made.downscale(coarse, store.read_static(), DOMAIN),
    }
    return {name: data["t2m"].isel(time=0, drop=True) for name, data in fields.items()}


def table(explorer: Explorer, name: str) -> dict[str, list[str]]:
    """Cells of a table by the first one of each row."""
    rows = explorer.page.locator(f".{name} tbody tr")
    rows.first.wait_for()
    cells = [[cell.strip() for cell in row.split("\t")] for row in rows.all_inner_texts()]
    return {first: rest for first, *rest in cells}


def number(words: str) -> float:
    return float(re.sub(r" × 10", "e", words).replace("−", "-"))


def test_spectra_are_drawn_and_their_slopes_are_those_of_core(explorer: Explorer, place: Path):
    explorer.open("view=spectra", wait=False)
    explorer.page.locator(".spectra-table", has_text="UNet (untrained)").wait_for()
    shown, fields = table(explorer, "spectra-table"), stored(place, 12)
    assert list(shown) == TITLES
    for name, field in fields.items():
        slope = float(spectral_slope(ralsd(field)))
        assert number(shown[name][0]) == pytest.approx(slope, abs=0.006), name
    loss = float(spectral_slope_loss(fields["Quadratic interpolation"], fields["Truth"]))
    assert number(shown["Quadratic interpolation"][1]) == pytest.approx(loss, abs=0.006)
    assert shown["Truth"][1] == "–"

    for key, name in (
        ("coarse", "Coarse input"),
        ("truth", "Truth"),
        ("quadratic", "Quadratic interpolation"),
    ):
        known = ralsd(fields[name])
        factor = 64 if key == "coarse" else 1
        lengths = explorer.model(f"spectrum-{key}", "Array.from(m.data.wavelength)")
        powers = explorer.model(f"spectrum-{key}", "Array.from(m.data.power)")
        assert lengths == pytest.approx(list(known["wavelength"].values / 1e3))
        assert powers[:5] == pytest.approx(list(factor * known.values[:5]), rel=1e-3)
        assert explorer.model(f"curve-{key}", "m.visible")
    assert explorer.model("curve-truth", "m.glyph.line_color.value") == "#000000"
    start, end = explorer.model("spectra", "[m.x_range.start, m.x_range.end]")
    assert start > 128 > 4 > end > 0  # falls to the right


def test_moving_the_range_of_the_fit_changes_slopes_and_address(explorer: Explorer, place: Path):
    explorer.open("view=spectra", wait=False)
    before = table(explorer, "spectra-table")["Truth"]
    explorer.page.locator(".fit-slider input").last.press("ArrowLeft")
    explorer.wait_for("() => location.search.includes('fit=10,160')")
    explorer.page.locator(".fit-slider input").last.press("ArrowLeft")
    explorer.wait_for("() => location.search.includes('fit=10,125')")
    explorer.page.get_by_text("10 to 125 km").wait_for()
    slope = float(spectral_slope(ralsd(stored(place, 12)["Truth"]), wavelengths=(10e3, 125e3)))
    explorer.page.locator(".spectra-table tr", has_text="Truth").get_by_text("11–64").wait_for()
    after = table(explorer, "spectra-table")["Truth"]
    assert number(after[0]) == pytest.approx(slope, abs=0.006)
    assert after != before
    assert explorer.model("fit-band", "m.right") == 125


def test_hover_of_a_spectrum_says_which_wave_and_whose(explorer: Explorer, place: Path):
    explorer.open("view=spectra", wait=False)
    explorer.page.locator(".spectra-table", has_text="UNet (untrained)").wait_for()
    known = ralsd(stored(place, 12)["Truth"])
    x, y = float(known["wavelength"][1]) / 1e3, float(known[1])
    tip = explorer.page.locator(".spectrum-hover:visible", has_text="Truth").first
    for _ in range(40):  # the chart may still be settling into its size
        left, top = explorer.page.evaluate(
            """([x, y]) => {
                const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name('spectra'))
                const box = view.el.getBoundingClientRect(), frame = view.frame ?? view.plot_view.frame
                const [sx] = frame.x_scale.v_compute([x]), [sy] = frame.y_scale.v_compute([y])
                return [box.left + sx, box.top + sy]
            }""",
            [x, y],
        )
        explorer.page.mouse.move(left - 3, top)
        explorer.page.mouse.move(left, top)
        explorer.page.wait_for_timeout(250)
        if tip.is_visible():
            break
    assert "64.0 km" in tip.inner_text()
    assert f"{y:.3g} K²" in tip.inner_text()


def test_fluxes_are_mapped_and_the_variant_changes_the_maps(explorer: Explorer, place: Path):
    explorer.open("view=flux", wait=False)
    explorer.page.locator(".flux-table", has_text="UNet (untrained)").wait_for()
    explorer.page.locator(".flux-table").get_by_text("…").first.wait_for(state="hidden")
    shown, fields = table(explorer, "flux-table"), stored(place, 12)
    assert list(shown) == TITLES[1:]
    quadratic, coarse = fields["Quadratic interpolation"], fields["Coarse input"]
    error = float(flux_error(quadratic, fields["Truth"]))
    assert number(shown["Quadratic interpolation"][0]) == pytest.approx(error, rel=0.01)
    for column, variant in ((2, "paper"), (4, "published_metric"), (5, "centred")):
        loss = float(FluxLoss(variant=variant)(quadratic, coarse))
        assert number(shown["Quadratic interpolation"][column]) == pytest.approx(loss, rel=0.01), variant
    heads = explorer.page.locator(".flux-grid .panel-head:visible .name").all_inner_texts()
    assert heads == TITLES

    image = "Array.from(m.data.truth[0])"
    before, high = explorer.model("fluxes", image), explorer.model("flux-colours", "[m.low, m.high]")
    assert len(before) == 12
    assert high[0] == -high[1]
    explorer.choose("Flux ratio", "Centred")
    explorer.wait_for("() => location.search.includes('variant=centred')")
    explorer.wait_for(
        "before => Bokeh.documents[0].get_model_by_name('fluxes').data.truth[0][0] != before", before[0]
    )
    assert explorer.model("fluxes", image) != before
    assert "Only the flux error passes the audit" in explorer.page.locator(".notes:visible").inner_text()

    explorer.choose("Supergrid cells", "3 coarse pixels (48 km)")
    explorer.wait_for("() => Bokeh.documents[0].get_model_by_name('fluxes').data.truth[0].length == 4")
    explorer.choose("Flux ratio", "Published training")
    explorer.page.get_by_text("This flux ratio can't be mapped here").wait_for()
    assert explorer.page.locator(".flux-table tbody tr").count() == 3


def test_differences_of_the_flux_ratio_and_other_variables(explorer: Explorer):
    explorer.open("view=flux&mode=difference&reference=coarse", wait=False)
    explorer.page.get_by_text("Flux ratio R: difference from coarse input").wait_for()
    assert explorer.page.locator(".flux-grid .panel-head:visible .name").all_inner_texts() == TITLES[1:]
    explorer.choose("Variable", "10 metre wind speed")
    explorer.page.get_by_text("Fluxes are those of temperature").wait_for()
    explorer.view("Spectra")
    explorer.page.locator(".head:visible", has_text="10 metre wind speed").wait_for()
    assert table(explorer, "spectra-table").keys() >= {"Coarse input"}
