"""The bands of the nature run on a short run over a part of Italy, and the report's own arithmetic."""

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import interp1d

from core.data.nature_report import (
    Report,
    Row,
    Scenes,
    block_average,
    era5_properties,
    load_era5,
    plot_report,
    quadratic,
    report,
    simulate_day,
)
from core.data.nature_run import NatureRunConfig
from core.data.nature_run.run import prepare
from core.data.statics import load_italy_static
from core.domain import Domain

ROW, COLUMN, SIZE = 120, 200, 192


@pytest.fixture(scope="module")
def static() -> xr.Dataset:
    """384 km of northern and central Italy: Po valley, Apennines, both seas."""
    return load_italy_static().isel(y=slice(ROW, ROW + SIZE), x=slice(COLUMN, COLUMN + SIZE))


@pytest.fixture(scope="module")
def domain(static: xr.Dataset) -> Domain:
    return Domain.regular(
        "Apennines",
        left=float(static.x[0]),
        top=float(static.y[0]),
        shape=(SIZE, SIZE),
        spacing=2000.0,
        ratio=8,
    )


@pytest.fixture(scope="module")
def short(domain, static) -> tuple[Report, list[tuple[int, int]]]:
    steps: list[tuple[int, int]] = []
    result = report(
        domain,
        static,
        NatureRunConfig(spin_up=8),
        days=("2016-01-04", "2016-07-11"),
        every=6,
        progress=lambda done, total: steps.append((done, total)),
    )
    return result, steps


def test_all_bands_hold_on_a_short_run(short):
    result, _ = short
    assert [f"{row.name}: {row.formatted_value}" for row in result.rows if not row.holds] == []
    assert result.holds
    assert result.sampled_hours == 8


def test_the_report_measures_what_the_design_demands(short):
    names = " | ".join(row.name for row in short[0].rows)
    for demanded in ("RMSE", "R2", "bias", "slope", "fine grid", "16 km", "land", "sea", "dew point"):
        assert demanded in names


def test_progress_counts_simulated_days(short):
    assert short[1] == [(1, 3), (2, 3), (3, 3)]


def test_without_a_sample_the_comparison_is_named_as_skipped(short):
    assert "ERA5" in short[0].skipped[0]


def test_comparable_with_real_era5(domain, static, shared_data):
    with xr.open_dataset(shared_data / "era5_t2m_italy_3h_2022-05_06.nc") as dataset:
        sample = dataset["t2m"].load()
    config = NatureRunConfig(spin_up=8)
    terrain = prepare(domain, static, config)
    day, _ = simulate_day(terrain, config, "2022-05-23", 3)
    rows = {row.name: row for row in era5_properties(day, sample, terrain)}
    assert len(rows) == 5
    # The range of two real months is that of synoptic changes too, which one day can't have.
    wide = rows.pop("ERA5 sample: range, 1st to 99th percentile")
    assert 0.3 < wide.value < 1.5
    assert [f"{row.name}: {row.formatted_value}" for row in rows.values() if not row.holds] == []


def test_a_sample_elsewhere_is_skipped(domain, static, tmp_path):
    axes = {"latitude": np.linspace(5.0, 0.0, 4), "longitude": np.linspace(0.0, 5.0, 4)}
    coords = {"time": np.datetime64("2022-05-01", "ns") + np.arange(8) * np.timedelta64(3, "h"), **axes}
    far = xr.DataArray(np.full((8, 4, 4), 300.0), coords, ("time", "latitude", "longitude"), name="t2m")
    far.to_netcdf(tmp_path / "far.nc")
    sample, skipped = load_era5(tmp_path / "far.nc", domain)
    assert sample is None
    assert "too little" in skipped[0]


def test_picture(short, tmp_path):
    path = tmp_path / "deep" / "report.png"
    plot_report(short[0], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["report.png"]


@pytest.mark.parametrize(
    ("value", "low", "high", "holds"),
    [(1.0, 1.0, 2.0, True), (2.0, 1.0, 2.0, True), (2.1, 1.0, 2.0, False), (np.nan, -np.inf, 2.0, False)],
)
def test_a_band_holds_both_its_bounds(value, low, high, holds):
    assert Row("x", value, low, high, "K").holds is holds


def test_rows_for_people():
    row = Row("x", 1.2345, 0.5, 2.5, "K")
    assert (row.formatted_value, row.formatted_band) == ("1.23 K", "0.5 to 2.5 K")
    assert Row("x", 1.0, -np.inf, 0.0, "1").formatted_band == "at most 0"
    assert not Report("d", 1, (row, Row("y", 3, 0, 1, "1")), (), Scenes()).holds


def test_quadratic_interpolation_equals_scipy(domain):
    coarse = domain.coarse
    values = np.random.default_rng(0).normal(size=(1, *coarse.shape))
    field = xr.DataArray(values, dims=("time", "y", "x"), coords={"time": [0], "y": coarse.y, "x": coarse.x})
    options = {"kind": "quadratic", "fill_value": "extrapolate"}
    rows = interp1d(coarse.y[::-1], values[0, ::-1], axis=0, **options)(domain.fine.y)
    expected = interp1d(coarse.x, rows, axis=1, **options)(domain.fine.x)
    np.testing.assert_allclose(quadratic(field, domain)[0], expected, atol=1e-8)


def test_block_average():
    values = np.arange(32.0).reshape(1, 4, 8)
    np.testing.assert_array_equal(block_average(values, 4), [[[13.5, 17.5]]])
