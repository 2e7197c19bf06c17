"""The bands of the nature run on a short run over a part of Italy, and the report's own arithmetic."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from core.data.nature_report import (
    Report,
    Row,
    Scenes,
    block_average,
    diurnal_properties,
    era5_properties,
    interpolation_properties,
    load_era5,
    plot_report,
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
    skipped: list[str] = []
    rows = {row.name: row for row in era5_properties(day, sample, terrain, skipped)}
    assert (len(rows), skipped) == (5, [])
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


def days(domain: Domain, count: int = 2, hours: int = 3) -> list[tuple[xr.Dataset, xr.Dataset]]:
    """Random temperatures: coarse and fine, a pair of datasets for each day."""
    generator, made = np.random.default_rng(0), []
    for day in range(count):
        times = np.datetime64("2016-01-04", "ns") + np.timedelta64(day, "D")
        times = times + np.arange(hours) * np.timedelta64(8, "h")
        pair = []
        for grid in (domain.coarse, domain.fine):
            values = 280 + generator.normal(size=(hours, *grid.shape)).astype(np.float32)
            coords = {"time": times, "y": grid.y, "x": grid.x}
            pair.append(xr.Dataset({"t2m": (("time", "y", "x"), values)}, coords))
        made.append((pair[0], pair[1]))
    return made


def test_interpolation_is_scored_hour_by_hour(domain):
    sample, scenes = days(domain), Scenes()
    rows = interpolation_properties(sample, domain, scenes)
    scores = []
    for coarse, fine in sample:
        spline = coarse["t2m"].astype("f8")
        for axis in ({"y": domain.fine.y}, {"x": domain.fine.x}):
            spline = spline.interp(axis, method="quadratic", kwargs={"fill_value": "extrapolate"})
        error = spline - fine["t2m"]
        squared = (error**2).mean(("y", "x"))
        r2 = 1 - squared / fine["t2m"].var(("y", "x"))
        scores.append(xr.concat([squared**0.5, r2, error.mean(("y", "x"))], "score"))
    expected = xr.concat(scores, "time").mean("time")
    np.testing.assert_allclose([row.value for row in rows], expected, atol=1e-5)
    assert [curve.size for curve in scenes.hourly.values()] == [3, 3]


def test_a_domain_without_sea_says_so(domain):
    sample, scenes, skipped = days(domain), Scenes(), []
    terrain = SimpleNamespace(land=torch.ones(domain.fine.shape))
    (row,) = diurnal_properties(sample, terrain, scenes, skipped)
    expected = np.mean([np.ptp(fine["t2m"].values, axis=0).mean() for _, fine in sample])
    assert row.name == "diurnal range of fine t2m over land"
    assert row.value == pytest.approx(expected)
    assert skipped == ["Diurnal range over sea: no fine cell of the domain is sea."]
    assert list(scenes.diurnal) == ["land 2016-01-04", "land 2016-01-05"]


def test_a_missing_temperature_is_not_passed_over(domain):
    sample = days(domain)
    sample[0][1]["t2m"][0, 0, 0] = np.nan
    terrain = SimpleNamespace(land=torch.ones(domain.fine.shape))
    (row,) = diurnal_properties(sample, terrain, Scenes(), [])
    assert np.isnan(row.value)
    assert not row.holds


def test_block_average():
    values = np.arange(32.0).reshape(1, 4, 8)
    np.testing.assert_array_equal(block_average(values, 4), [[[13.5, 17.5]]])
