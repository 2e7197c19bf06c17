"""core.metrics.deterministic against xskillscore's recorded values, by hand, and as properties."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.metrics.deterministic import METRICS, MetricError, bias, mae, pearson, r2, rmse


def field(values, **coords):
    return xr.DataArray(np.asarray(values, float), dims=("y", "x"), coords=coords, attrs={"units": "K"})


def test_by_hand():
    reference = field([[0.0, 2.0], [4.0, 6.0]])
    forecast = field([[1.0, 1.0], [5.0, 9.0]])
    assert bias(forecast, reference).item() == pytest.approx(1.0)
    assert mae(forecast, reference).item() == pytest.approx(1.5)
    assert rmse(forecast, reference).item() == pytest.approx(np.sqrt(3.0))
    assert r2(forecast, reference).item() == pytest.approx(1 - 3.0 / 5.0)
    assert pearson(forecast, reference).item() == pytest.approx(np.corrcoef([1, 1, 5, 9], [0, 2, 4, 6])[0, 1])
    assert rmse(forecast, reference).attrs == {"long_name": "root-mean-square error", "units": "K"}


def test_missing_points_are_left_out_of_both_fields():
    reference = field([[0.0, 2.0], [np.nan, 6.0]])
    forecast = field([[1.0, np.nan], [5.0, 9.0]])
    for metric in (bias, mae):
        assert metric(forecast, reference).item() == pytest.approx(2.0)
    constant = field(np.ones((2, 2)))
    assert np.isnan(r2(forecast, constant).item())
    assert np.isnan(pearson(constant, reference).item())


def test_dimensions_left_over_remain():
    reference = xr.DataArray(np.zeros((3, 4, 5)), dims=("time", "y", "x"))
    assert rmse(reference + 1, reference).dims == ("time",)
    assert rmse(reference + 1, reference, reduce=("time",)).shape == (4, 5)


def test_fields_that_can_not_be_compared():
    one, other = field(np.zeros((2, 2)), x=[0, 1]), field(np.zeros((2, 2)), x=[5, 6])
    with pytest.raises(MetricError, match="same coordinates"):
        rmse(one, other)
    with pytest.raises(MetricError, match="can't be reduced over \\['time'\\]"):
        rmse(one, one, reduce=("time",))


@settings(deadline=None, max_examples=30)
@given(arrays(float, (4, 5), elements=st.floats(-50, 50)), st.floats(-20, 20))
def test_shift_invariants(values, shift):
    reference = field(values + np.arange(20).reshape(4, 5))
    forecast = reference + shift
    assert bias(forecast, reference).item() == pytest.approx(shift, abs=1e-9)
    assert rmse(forecast, reference).item() == pytest.approx(abs(shift), abs=1e-9)
    assert mae(forecast, reference).item() <= rmse(forecast, reference).item() + 1e-12


@pytest.mark.parametrize("case", ["T2m_672x576", "U10_128x128", "with_nan_96x80"])
def test_equal_to_xskillscore_and_scores(fixtures, case):
    with np.load(fixtures / "metrics_det.npz") as data:
        forecast, reference = field(data[f"{case}/pred"]), field(data[f"{case}/obs"])
    expected = json.loads((fixtures / "metrics_expected.json").read_text())[f"det/{case}"]
    names = {"rmse": "rmse", "mae": "mae", "bias": "me", "r2": "r2_obs_first", "pearson": "pearson"}
    for name, key in names.items():
        assert METRICS[name](forecast, reference).item() == pytest.approx(expected[key], rel=1e-9, abs=1e-12)
