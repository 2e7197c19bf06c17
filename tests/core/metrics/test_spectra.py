"""Spectra against pysteps' recorded values, Parseval's theorem and fields of known slope."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from core.metrics.deterministic import MetricError
from core.metrics.spectra import power_at, ralsd, spectral_slope, spectral_slope_loss

CASES = ["672x576_beta3", "256sq_beta2.5", "101sq_odd_beta3", "90x135_odd_wide", "64sq_single_mode"]
RANGES = ["all_nonzero", "r4_to_quarter", "r8_to_third"]
SPACING = 2000.0


def as_field(values: np.ndarray, spacing: float = SPACING) -> xr.DataArray:
    height, width = values.shape[-2:]
    dims = ("time", "y", "x")[-values.ndim :]
    coords = {"y": -spacing * np.arange(height), "x": spacing * np.arange(width)}
    return xr.DataArray(values, dims=dims, coords=coords, attrs={"units": "K"})


@pytest.fixture(scope="module")
def recorded(fixtures: Path) -> dict[str, np.ndarray]:
    with np.load(fixtures / "metrics_rapsd.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def expected(fixtures: Path) -> dict[str, dict]:
    return json.loads((fixtures / "metrics_expected.json").read_text())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("rings", "key"), [("physical", "psd_physical_k"), ("pysteps", "psd")])
def test_density_equals_recorded(recorded, case, rings, key):
    spectrum = ralsd(as_field(recorded[f"{case}/field"]), rings=rings)
    np.testing.assert_allclose(spectrum, recorded[f"{case}/{key}"][1:], rtol=1e-10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fit", RANGES)
@pytest.mark.parametrize(("rings", "key"), [("physical", "slope_physical_k"), ("pysteps", "slope")])
def test_slope_equals_recorded(recorded, expected, case, fit, rings, key):
    field = recorded[f"{case}/field"]
    known = expected[f"rapsd/{case}"]["slopes"][fit]
    longest = max(field.shape) * SPACING
    spectrum = ralsd(as_field(field), rings=rings)
    slope = spectral_slope(spectrum, wavelengths=(longest / known["r_hi"], longest / known["r_lo"]))
    assert float(slope) == pytest.approx(known[key], rel=1e-9)


def test_wavelengths_are_in_metres_and_units_squared():
    spectrum = ralsd(as_field(np.random.default_rng(0).normal(size=(64, 48))))
    assert spectrum["wavelength"].values[0] == 64 * SPACING
    assert spectrum["wavelength"].values[-1] == pytest.approx(64 * SPACING / 31)
    assert spectrum.attrs["units"] == "(K)2"


def test_single_wave_lands_in_its_ring():
    x = np.arange(64)
    field = as_field(np.broadcast_to(np.sin(2 * np.pi * 5 * x / 64), (64, 64)).copy())
    spectrum = ralsd(field)
    assert float(spectrum["wavelength"][spectrum.argmax("wavelength")]) == pytest.approx(64 * SPACING / 5)


def test_time_is_kept_and_rows_are_independent():
    values = np.random.default_rng(1).normal(size=(3, 32, 40))
    together = ralsd(as_field(values))
    assert together.dims == ("time", "wavelength")
    np.testing.assert_allclose(together[1], ralsd(as_field(values[1])))


@settings(deadline=None, max_examples=20)
@given(factor=st.floats(0.1, 50), height=st.integers(16, 40), width=st.integers(16, 40))
def test_slope_ignores_amplitude_and_spacing_scales_wavelength(factor, height, width):
    values = np.random.default_rng(height * 100 + width).normal(size=(height, width))
    longest = max(height, width) * SPACING
    bounds = (longest / 7, longest)
    slope = spectral_slope(ralsd(as_field(values)), wavelengths=bounds)
    scaled = spectral_slope(ralsd(as_field(factor * values)), wavelengths=bounds)
    assert float(scaled) == pytest.approx(float(slope), abs=1e-9)
    other = spectral_slope(ralsd(as_field(values, 2 * SPACING)), wavelengths=(2 * bounds[0], 2 * bounds[1]))
    assert float(other) == pytest.approx(float(slope), abs=1e-9)


def test_detrending_removes_a_plane_and_its_leakage():
    rows, columns = np.indices((60, 80))
    plane = 3.0 + 0.2 * rows - 0.1 * columns
    assert float(ralsd(as_field(plane), detrend="linear").max()) < 1e-18
    assert float(ralsd(as_field(plane)).max()) > 1.0


def test_window_keeps_the_variance_of_noise():
    noise = as_field(np.random.default_rng(2).normal(size=(128, 128)))
    ratio = ralsd(noise, window="hann").mean() / ralsd(noise).mean()
    assert float(ratio) == pytest.approx(1.0, abs=0.1)


def test_gaps_give_nan_unless_filled():
    values = np.random.default_rng(3).normal(size=(2, 32, 32))
    values[0, 4, 5] = np.nan
    spectrum = ralsd(as_field(values))
    assert np.isnan(spectrum[0]).all()
    assert np.isfinite(spectrum[1]).all()
    filled = ralsd(as_field(values), missing="mean")
    values[0, 4, 5] = np.nanmean(values[0])
    np.testing.assert_allclose(filled, ralsd(as_field(values)))


def test_slope_loss_compares_grids():
    values = np.random.default_rng(4).normal(size=(64, 64))
    smooth = values + np.roll(values, 1, 0) + np.roll(values, 1, 1)
    bounds = (10e3, 100e3)
    loss = spectral_slope_loss(as_field(smooth), as_field(values), wavelengths=bounds)
    slopes = [float(spectral_slope(ralsd(as_field(f)), wavelengths=bounds)) for f in (smooth, values)]
    assert float(loss) == pytest.approx(abs(slopes[0] - slopes[1]))
    assert slopes[0] < slopes[1]


def test_a_field_without_any_value_has_no_spectrum():
    spectrum = ralsd(as_field(np.full((16, 16), np.nan)), missing="mean")
    assert np.isnan(spectrum).all()


def test_lazy_fields_give_lazy_spectra():
    field = as_field(np.random.default_rng(7).normal(size=(4, 32, 48)))
    lazy = field.chunk(time=3, y=10, x=20)
    options = {"window": "hann", "detrend": "linear"}
    spectrum = ralsd(lazy, **options)
    assert spectrum.chunks is not None
    xr.testing.assert_allclose(spectrum.compute(), ralsd(field, **options))
    slope = spectral_slope(spectrum, wavelengths=(5e3, 60e3))
    assert slope.chunks is not None
    xr.testing.assert_allclose(
        slope.compute(), spectral_slope(ralsd(field, **options), wavelengths=(5e3, 60e3))
    )


def test_power_at_wavelengths_over_hours():
    field = as_field(np.random.default_rng(8).normal(size=(5, 64, 64)))
    spectrum = ralsd(field)
    power = power_at(spectrum, [64e3, 20e3, 4.3e3])
    assert power.dims == ("time", "wavelength")
    assert power["wanted"].values.tolist() == [64e3, 20e3, 4.3e3]
    # Rings are at 128 km / n; the nearest by wavenumber are n = 2, 6 and 30.
    np.testing.assert_allclose(power["wavelength"], 128e3 / np.array([2, 6, 30]))
    np.testing.assert_array_equal(power, spectrum.isel(wavelength=[1, 5, 29]))
    for outside in (500e3, 3.5e3):
        with pytest.raises(MetricError, match="spectrum reaches from"):
            power_at(spectrum, outside)


def test_slope_loss_is_averaged_over_hours_that_have_one():
    fields = [np.random.default_rng(n).normal(size=(3, 64, 64)).cumsum(-1) for n in (1, 2)]
    fields[0][1, 3, 3] = np.nan
    pair = [as_field(values) for values in fields]
    each = spectral_slope_loss(*pair, wavelengths=(10e3, 100e3))
    assert np.isnan(each[1])
    assert np.isfinite(each[[0, 2]]).all()
    mean = spectral_slope_loss(*pair, wavelengths=(10e3, 100e3), reduce=("time", "y", "x"))
    assert float(mean) == pytest.approx(float(each.mean()))
    with pytest.raises(MetricError, match="same coordinates"):
        spectral_slope_loss(pair[0], pair[1][:2])


@pytest.mark.parametrize(
    ("field", "options", "message"),
    [
        (as_field(np.zeros((16, 16))).drop_vars("x"), {}, "x is missing"),
        (as_field(np.zeros((16, 16))).assign_coords(x=np.arange(16) ** 2.0), {}, "evenly spaced"),
        (as_field(np.zeros((16, 16))), {"rings": "square"}, "physical, pysteps"),
    ],
)
def test_unusable_fields_are_refused(field, options, message):
    with pytest.raises(MetricError, match=message):
        ralsd(field, **options)


def test_a_slope_needs_three_rings():
    with pytest.raises(MetricError, match="three"):
        spectral_slope(ralsd(as_field(np.zeros((16, 16)))), wavelengths=(1.0, 10.0))
