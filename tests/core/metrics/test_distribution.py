"""Distributions against numpy's histogram and percentiles, and by hand."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from core.metrics.distribution import (
    bin_edges,
    histogram,
    p01_error,
    p99_error,
    percentile_error,
    perkins,
)
from core.metrics.metric import MetricError


def field(values, *dims):
    return xr.DataArray(np.asarray(values, float), dims=dims or ("y", "x"), attrs={"units": "K"})


@pytest.fixture
def pair():
    generator = np.random.default_rng(0)
    forecast, reference = generator.normal(281, 4, (3, 20, 30)), generator.normal(280, 5, (3, 20, 30))
    forecast[1, 4, 5] = reference[2, 0, 0] = np.nan
    return field(forecast, "time", "y", "x"), field(reference, "time", "y", "x")


def test_histogram_is_numpys_density_of_the_common_points(pair):
    forecast, reference = pair
    edges = bin_edges(*pair, width=1.5)
    result = histogram(*pair, edges=edges, reduce=("time", "y", "x"))
    assert result.dims == ("field", "bin")
    valid = np.isfinite(forecast.values) & np.isfinite(reference.values)
    for name, values in (("forecast", forecast.values), ("reference", reference.values)):
        expected, _ = np.histogram(values[valid], edges, density=True)
        np.testing.assert_allclose(result.sel(field=name), expected, rtol=1e-12)
    np.testing.assert_array_equal(result["bin_lower"], edges[:-1])
    np.testing.assert_array_equal(result["bin_upper"], edges[1:])
    np.testing.assert_array_equal(result["bin"], (edges[:-1] + edges[1:]) / 2)
    assert result["bin"].attrs["units"] == "K"


def test_values_on_edges_and_outside():
    values = field([[0.0, 1.0, 2.0, 3.0, -0.1, 3.1]])
    density = histogram(values, values, edges=[0, 1, 2, 3]).sel(field="forecast")
    # The last bin holds its upper edge; two of six values lie outside.
    np.testing.assert_allclose(density, np.array([1, 1, 2]) / 6)


def test_uneven_bins_and_land_alone():
    values = field([[0.5, 1.5, 2.5, 7.0], [0.5, 0.6, 0.7, 0.8]])
    land = xr.DataArray([1.0, 0.0], dims="y")
    density = histogram(values, values, edges=[0, 1, 3, 9], weights=land).sel(field="reference")
    np.testing.assert_allclose(density, [1 / 4, 2 / 4 / 2, 1 / 4 / 6])


def test_histograms_of_every_hour_and_member():
    generator = np.random.default_rng(1)
    forecast = field(generator.normal(size=(2, 3, 8, 9)), "member", "time", "y", "x")
    reference = field(generator.normal(size=(3, 8, 9)), "time", "y", "x")
    edges = np.linspace(-5, 5, 11)
    result = histogram(forecast, reference, edges=edges)
    assert result.sizes == {"field": 2, "member": 2, "time": 3, "bin": 10}
    for name, values in (("forecast", forecast[1, 2]), ("reference", reference[2])):
        expected, _ = np.histogram(values, edges, density=True)
        np.testing.assert_allclose(result.sel(field=name, member=1, time=2), expected)


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20).map(np.array),
    st.sampled_from([0.1, 0.5, 1.0, 3.0]),
)
def test_bin_edges_enclose_all_values(values, width):
    edges = bin_edges(field(values, "x"), width=width)
    assert edges[0] <= values.min() + 1e-9
    assert edges[-1] >= values.max() - 1e-9
    np.testing.assert_allclose(np.diff(edges), width)
    np.testing.assert_allclose(edges / width, np.round(edges / width), atol=1e-9)


def test_perkins_score_by_hand():
    forecast, reference = field([[0.5, 0.5, 1.5, 2.5]]), field([[0.5, 1.5, 1.5, 1.5]])
    edges = [0, 1, 2, 3]
    assert float(perkins(forecast, reference, edges=edges)) == pytest.approx(0.5)
    assert float(perkins(reference, reference, edges=edges)) == pytest.approx(1.0)
    assert float(perkins(reference + 5, reference, edges=[0, 2, 9])) == pytest.approx(0.0)
    assert np.isnan(perkins(reference * np.nan, reference, edges=edges))


def test_percentiles_of_hours_are_numpys(pair):
    forecast, reference = pair
    valid = forecast.notnull() & reference.notnull()
    for metric, q in ((p01_error, 1), (p99_error, 99), (percentile_error.configured(percentile=90), 90)):
        expected = [
            np.percentile(f[v], q) - np.percentile(r[v], q)
            for f, r, v in zip(forecast.values, reference.values, valid.values, strict=True)
        ]
        np.testing.assert_allclose(metric(forecast, reference), expected)
        together = metric(forecast, reference, reduce=("time", "y", "x"))
        assert float(together) == pytest.approx(np.mean(expected))
        assert together.attrs["percentile"] == q


def test_percentiles_over_hours_give_a_map(pair):
    forecast, reference = (f.fillna(280.0) for f in pair)
    expected = np.percentile(forecast.values, 99, axis=0) - np.percentile(reference.values, 99, axis=0)
    np.testing.assert_allclose(p99_error(forecast, reference, reduce="time"), expected)


def test_percentiles_where_the_mask_is_true(pair):
    forecast, reference = (f.fillna(280.0) for f in pair)
    land = xr.DataArray(np.arange(30) < 7, dims="x")
    expected = p99_error(forecast.isel(x=slice(7)), reference.isel(x=slice(7)))
    np.testing.assert_allclose(p99_error(forecast, reference, mask=land), expected)
    assert np.isnan(p99_error(forecast, reference, mask=land & False)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: histogram(f, f, edges=[0]), "at least two finite numbers"),
        (lambda f: histogram(f, f, edges=[0, 2, 1]), "that increase"),
        (lambda f: histogram(f, f), "needs the option edges"),
        (lambda f: percentile_error(f, f, percentile=101), "between 0 and 100"),
        (lambda f: bin_edges(f, width=0), "positive"),
        (lambda f: bin_edges(f * np.nan, width=1), "no value"),
        (lambda f: bin_edges(f, width=1e-9), "choose wider ones"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(MetricError, match=message):
        call(field([[0.0, 1.0], [2.0, 3.0]]))
