"""Spectra of what is shown: those of core over the region, and what a session does with them."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from core.metrics.spectra import ralsd, spectral_slope, spectral_slope_loss
from core.regions import Window, whole_window
from explorer.address import from_query, to_query
from explorer.library import COARSE, QUADRATIC, TRUTH, Library
from explorer.results import Results
from explorer.session import Session
from explorer.spectra import FIT, compute_spectra
from tests.explorer.small_store import DOMAIN, fields

WHOLE = whole_window(DOMAIN)
LEFT, RIGHT, BOTTOM, TOP = DOMAIN.fine.extent
QUARTER = Window("quarter", "Quarter", LEFT, LEFT + 64e3, TOP - 64e3, TOP)
CORNER = Window("corner", "Corner", LEFT, LEFT + 32e3, TOP - 32e3, TOP)


def noise(seed: int, shape: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def on_grid(values: np.ndarray) -> xr.DataArray:
    grid = DOMAIN.fine if values.shape == DOMAIN.fine.shape else DOMAIN.coarse
    return xr.DataArray(values, {"y": grid.y, "x": grid.x}, ("y", "x"))


def spectra(*named: tuple[str, np.ndarray], window: Window = WHOLE, fit: tuple[float, float] = FIT):
    given = [(key, key.title(), values) for key, values in named]
    against, rows = compute_spectra(given, DOMAIN, window, fit, Results(10**8))
    return against, {row.key: row for row in rows}


def started(library: Library, **state: object) -> Session:
    session = Session(library, **state)
    session.start()
    return session


# ---------------------------------------------------------------- computing


def test_numbers_are_those_of_core():
    truth, model, coarse = noise(1), noise(2).cumsum(0), noise(3, (8, 6))
    against, rows = spectra((COARSE, coarse), (TRUTH, truth), ("model", model), fit=(10, 130))
    assert against == TRUTH
    for key, values in ((COARSE, coarse), (TRUTH, truth), ("model", model)):
        known = ralsd(on_grid(values))
        np.testing.assert_array_equal(rows[key].power, known.values)
        np.testing.assert_array_equal(rows[key].wavelength, known["wavelength"].values)
        slope = spectral_slope(known, wavelengths=(10e3, 130e3))
        assert rows[key].slope == pytest.approx(float(slope), rel=1e-12)
    metric = replace(spectral_slope_loss, wavelengths=(10e3, 130e3))
    assert rows["model"].loss == pytest.approx(float(metric(on_grid(model), on_grid(truth))), rel=1e-12)
    assert rows[COARSE].loss == pytest.approx(float(metric(on_grid(coarse), on_grid(truth))), rel=1e-12)
    assert np.isnan(rows[TRUTH].loss)


def test_a_wave_has_its_power_at_its_length():
    wave = 3 * np.cos(2 * np.pi * np.arange(48) * 2 / 16) * np.ones((64, 1))
    _, rows = spectra((TRUTH, wave.astype("f4")))
    row = rows[TRUTH]
    peak = int(row.power.argmax())
    assert row.wavelength[peak] == pytest.approx(16e3)
    # Two modes of (3/2)^2 * 64 * 48 each, averaged over the modes of the ring.
    rows_, columns = np.meshgrid(np.fft.fftfreq(64) * 64, np.fft.fftfreq(48) * 64, indexing="ij")
    count = (np.rint(np.hypot(rows_, columns)) == 8).sum()
    assert row.power[peak] == pytest.approx(2 * 1.5**2 * 64 * 48 / count, rel=1e-6)
    assert np.delete(row.power, peak).max() < 1e-6 * row.power[peak]


def test_without_truth_the_loss_is_taken_against_the_coarse_field():
    against, rows = spectra((COARSE, noise(3, (8, 6))), ("model", noise(2)))
    assert against == COARSE
    assert rows["model"].loss == pytest.approx(abs(rows["model"].slope - rows[COARSE].slope))
    assert np.isnan(rows[COARSE].loss)


def test_the_range_a_slope_was_really_fitted_over_is_known():
    _, rows = spectra((COARSE, noise(3, (8, 6))), (TRUTH, noise(1)), fit=(10, 200))
    assert rows[TRUTH].fitted == (pytest.approx(128 / 12), 128)
    assert rows[COARSE].fitted == (pytest.approx(128 / 3), 128)


def test_power_of_the_coarse_field_compares_after_its_factor():
    _, rows = spectra((COARSE, noise(3, (8, 6))), (TRUTH, noise(1)))
    assert (rows[COARSE].factor, rows[TRUTH].factor) == (64, 1)
    fine = 10 * np.cos(2 * np.pi * np.arange(64) / 64)[:, None] * np.ones(48)
    _, rows = spectra(
        (COARSE, fine.reshape(8, 8, 6, 8).mean((1, 3)).astype("f4")), (TRUTH, fine.astype("f4"))
    )
    # The longest wave loses 1 % of its amplitude by averaging; its ring has as many modes on both grids.
    assert 64 * rows[COARSE].power[0] == pytest.approx(rows[TRUTH].power[0], rel=0.06)


def test_a_region_has_spectra_of_its_window():
    values = noise(1)
    _, rows = spectra((TRUTH, values), window=QUARTER)
    known = ralsd(on_grid(values).isel(y=slice(32), x=slice(32)))
    np.testing.assert_array_equal(rows[TRUTH].power, known.values)


def test_a_region_too_small_for_the_coarse_grid_says_so_and_spares_the_others():
    _, rows = spectra((COARSE, noise(3, (8, 6))), (TRUTH, noise(1)), ("model", noise(2)), window=CORNER)
    assert "at least 4 evenly spaced cells" in rows[COARSE].problem
    assert rows[COARSE].power.size == 0
    assert np.isfinite([rows["model"].slope, rows["model"].loss]).all()


def test_too_few_waves_for_a_slope_leave_the_spectrum():
    _, rows = spectra((COARSE, noise(3, (8, 6))), (TRUTH, noise(1)), fit=(10, 40))
    assert "a slope needs three" in rows[COARSE].problem
    assert rows[COARSE].power.size == 3
    assert np.isnan(rows[COARSE].slope)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "has gaps"), (7.0, "does not vary")])
def test_a_field_without_spectrum_says_why(value: float, words: str):
    _, rows = spectra((TRUTH, noise(1)), ("model", np.full((64, 48), value, "f4")))
    assert words in rows["model"].problem
    assert np.isnan(rows["model"].slope)
    assert rows[TRUTH].problem == ""


def test_spectra_are_computed_once_per_content_and_region(monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr("explorer.spectra.ralsd", lambda field: calls.append(field.shape) or ralsd(field))
    results, values = Results(10**8), noise(1)
    for fit, window in ((FIT, WHOLE), ((20, 100), WHOLE), (FIT, QUARTER)):
        compute_spectra([(TRUTH, "Truth", values.copy())], DOMAIN, window, fit, results)
    assert calls == [(64, 48), (32, 32)]
    compute_spectra([(TRUTH, "Truth", values + 1)], DOMAIN, WHOLE, FIT, results)
    assert len(calls) == 3


# ---------------------------------------------------------------- the session


def test_session_has_spectra_of_every_field_shown(library: Library):
    session = started(library, view="spectra")
    assert [row.key for row in session.spectra.rows] == [COARSE, TRUTH, QUADRATIC, "lapse_rate"]
    fine, coarse = fields(12)
    for key, field in ((TRUTH, fine), (COARSE, coarse)):
        slope = spectral_slope(ralsd(on_grid(field)))
        assert session.spectra.get(key).slope == pytest.approx(float(slope), abs=1e-3)


def test_nothing_is_computed_for_a_view_that_is_hidden(library: Library):
    session = started(library)
    assert session.spectra is None
    assert session.fluxes is None
    session.view = "spectra"
    assert session.spectra.hour == session.snapshot.hour
    assert session.fluxes is None


def test_spectra_follow_hour_models_range_and_variable(library: Library):
    session = started(library, view="spectra")
    before = session.spectra
    session.step(1)
    assert session.spectra.hour == session.snapshot.hour != before.hour
    session.models = [QUADRATIC]
    assert [row.key for row in session.spectra.rows] == [COARSE, TRUTH, QUADRATIC]
    session.fit = [20.0, 100.0]
    assert session.spectra.fit == (20, 100)
    assert session.spectra.get(TRUTH).slope != before.get(TRUTH).slope
    session.variable = "wind"
    assert session.spectra.quantity.key == "wind"
    assert session.spectra.against == COARSE


def test_store_without_truth_takes_losses_against_the_coarse_field(library: Library):
    session = started(library, store="bare", view="spectra")
    assert session.spectra.against == COARSE
    assert session.spectra.get(TRUTH) is None


def test_spectra_go_with_what_they_were_of(library: Library):
    session = started(library, view="spectra")
    session.season = "summer"
    assert session.spectra is None
    session.season = "all"
    assert session.spectra is not None


def test_an_unexpected_failure_becomes_a_message(library: Library, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("explorer.following.compute_spectra", lambda *_: 1 / 0)
    session = started(library, view="spectra")
    assert "division by zero" in session.error
    assert session.spectra is None


def test_range_of_the_fit_is_in_the_address(library: Library):
    session = started(library, view="spectra")
    assert "fit=" not in to_query(session)
    session.fit = [16.0, 125.0]
    assert "fit=16,125" in to_query(session)
    again = started(library, **from_query(to_query(session)))
    assert again.fit == [16, 125]
    assert again.spectra.fit == (16, 125)


@pytest.mark.parametrize("fit", ["100,20", "5", "0,50", "-4,50", "10,inf", "10,nan", "a,b", "1,2,3"])
def test_a_range_that_makes_no_sense_falls_back(library: Library, fit: str):
    session = started(library, **from_query(f"?view=spectra&fit={fit}"))
    assert session.fit == list(FIT)
    assert session.spectra is not None
