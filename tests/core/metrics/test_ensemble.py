"""Ensemble scores against recorded values, against the libraries that made them, and by hand."""

import json

import numpy as np
import properscoring
import pytest
import scores.probability
import xarray as xr
import xskillscore
from hypothesis import given, settings
from hypothesis import strategies as st

from core.metrics.deterministic import mae, rmse
from core.metrics.ensemble import (
    brier,
    crps,
    ensemble_rmse,
    rank_histogram,
    reliability,
    spread,
    spread_error,
    spread_skill_ratio,
)
from core.metrics.metric import MetricError

CASES = ["calibrated_M16", "underdispersed_biased_M10", "precip_ties_M5", "M2"]


@pytest.fixture(scope="module", params=CASES)
def case(request, fixtures):
    """Ensemble, observation, everything recorded about them."""
    name = request.param
    with np.load(fixtures / "metrics_prob.npz") as data:
        arrays = {key.split("/")[1]: data[key] for key in data.files if key.startswith(f"{name}/")}
    expected = json.loads((fixtures / "metrics_expected.json").read_text())[f"prob/{name}"]
    ens = xr.DataArray(arrays["ens"].astype(float), dims=("member", "y", "x"), attrs={"units": "K"})
    obs = xr.DataArray(arrays["obs"].astype(float), dims=("y", "x"), attrs={"units": "K"})
    return ens, obs, {**arrays, **expected}


def approx(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


# Recorded


@pytest.mark.parametrize("kind", ["ecdf", "fair"])
def test_crps_equals_recorded(case, kind):
    ens, obs, expected = case
    assert float(crps(ens, obs, kind=kind)) == approx(expected[f"crps_scores_{kind}"])
    points = crps(ens.expand_dims("time"), obs.expand_dims("time"), kind=kind, reduce="time")
    np.testing.assert_allclose(points, expected[f"crps_map_{kind}"], rtol=1e-9, atol=1e-12)


def test_weighted_crps_equals_recorded(case):
    ens, obs, expected = case
    weights = xr.DataArray(np.cos(np.deg2rad(np.linspace(36, 47, obs.sizes["y"]))), dims="y")
    found = crps(ens, obs, kind="ecdf", weights=weights)
    assert float(found) == approx(expected["crps_coslat36_47_weighted"])


def test_spread_and_skill_equal_recorded(case):
    ens, obs, expected = case
    assert float(ensemble_rmse(ens, obs)) == approx(expected["ens_mean_rmse"])
    assert float(spread(ens, obs)) == approx(expected["spread_sqrt_mean_var_ddof1"])
    assert float(spread_skill_ratio(ens, obs)) == approx(expected["ssr_fortin"])
    assert float(spread_skill_ratio(ens, obs, corrected=False)) == approx(expected["ssr"])


def test_rank_histogram_equals_recorded(case):
    ens, obs, expected = case
    even = rank_histogram(ens, obs)
    np.testing.assert_allclose(even, expected["rank_hist_scores_relfreq"], rtol=1e-9, atol=1e-12)
    assert even["rank"].values.tolist() == list(range(expected["members"] + 1))
    counts = rank_histogram(ens, obs, ties="average") * obs.size
    np.testing.assert_allclose(counts, expected["rank_hist_xskillscore"], rtol=1e-9, atol=1e-9)


def test_error_given_spread_equals_recorded(case):
    ens, obs, expected = case
    known = expected["spread_error_10_quantile_bins"]
    # Quantiles of a field with many ties coincide; bins without width hold nothing.
    edges = np.unique(known["edges"])
    if edges.size < 2:
        edges = np.array([edges[0] - 1e-9, edges[0] + 1e-9])
    curve = spread_error(ens, obs, edges=edges)
    wide = [n for n, (a, b) in enumerate(zip(known["edges"], known["edges"][1:], strict=False)) if b > a]
    for name, values in (("spread", curve["spread"]), ("rmse", curve)):
        kept = [known[name][n] for n in wide] or known[name][-1:]
        np.testing.assert_allclose(values, kept, rtol=1e-9)
    assert float(curve["samples"].sum()) == obs.size


def test_brier_equals_recorded(case):
    ens, obs, expected = case
    for threshold, known in expected["brier"].items():
        event = {"threshold": float(threshold)}
        assert float(brier(ens, obs, fair=False, **event)) == approx(known["xs"])
        event["comparison"] = ">="
        assert float(brier(ens, obs, fair=False, **event)) == approx(known["scores_plain"])
        assert float(brier(ens, obs, **event)) == approx(known["scores_fair"])


# The libraries themselves, on fields with several hours


@pytest.fixture(scope="module")
def hours():
    generator = np.random.default_rng(3)
    coords = {"time": np.arange(4), "y": np.arange(7), "x": np.arange(9)}
    obs = xr.DataArray(np.round(generator.normal(size=(4, 7, 9)), 1), coords)
    ens = xr.DataArray(
        np.round(obs.values + generator.normal(0.2, 1, (6, 4, 7, 9)), 1),
        {"member": np.arange(6), **coords},
    )
    return ens, obs


def test_crps_equals_the_libraries(hours):
    ens, obs = hours
    fields = crps(ens, obs)
    known = scores.probability.crps_for_ensemble(
        ens, obs, "member", method="fair", reduce_dims=["y", "x"], include_components=False
    )
    np.testing.assert_allclose(fields, known, rtol=1e-12)
    ecdf = crps(ens, obs, kind="ecdf", reduce=("time", "y", "x"))
    assert float(ecdf) == approx(float(xskillscore.crps_ensemble(obs, ens)))
    assert float(ecdf) == approx(properscoring.crps_ensemble(obs.values, ens.values, axis=0).mean())


def test_rank_histogram_equals_the_libraries(hours):
    ens, obs = hours
    assert int((ens == obs).sum()) > 20
    known = scores.probability.rank_histogram(ens, obs, "member", preserve_dims=["time"])
    np.testing.assert_allclose(rank_histogram(ens, obs), known.transpose("time", "rank"), atol=1e-12)
    counts = xskillscore.rank_histogram(obs, ens, dim=["time", "y", "x"], random_for_tied=False)
    found = rank_histogram(ens, obs, ties="average", reduce=("time", "y", "x")) * obs.size
    np.testing.assert_allclose(found, counts, atol=1e-9)


def test_brier_equals_the_libraries(hours):
    ens, obs = hours
    known = scores.probability.brier_score_for_ensemble(ens, obs, "member", 0.3, preserve_dims=["time"])
    found = brier(ens, obs, threshold=0.3, comparison=">=")
    np.testing.assert_allclose(found, known.squeeze(drop=True), rtol=1e-9)


@pytest.mark.parametrize("edges", [np.linspace(0, 1, 6), np.array([0, 0.1, 0.5, 0.55, 1.0])])
def test_reliability_equals_xskillscore(hours, edges):
    ens, obs = hours
    found = reliability(ens, obs, threshold=0.3, edges=edges, reduce=("time", "y", "x"))
    known = xskillscore.reliability(obs > 0.3, (ens > 0.3).mean("member"), probability_bin_edges=edges)
    np.testing.assert_allclose(found, known, rtol=1e-12)
    np.testing.assert_array_equal(found["samples"], known["samples"])


def test_spread_equals_xskillscore_and_numpy(hours):
    ens, obs = hours
    assert float(ensemble_rmse(ens, obs, reduce=("time", "y", "x"))) == approx(
        float(xskillscore.rmse(ens.mean("member"), obs))
    )
    np.testing.assert_allclose(spread(ens, obs), np.sqrt(ens.values.var(axis=0, ddof=1).mean(axis=(1, 2))))


# By hand, and what must hold


def test_by_hand():
    ens = xr.DataArray([[[0.0]], [[2.0]], [[4.0]]], dims=("member", "y", "x"))
    obs = xr.DataArray([[3.0]], dims=("y", "x"))
    assert float(crps(ens, obs, kind="ecdf")) == pytest.approx(5 / 3 - 16 / 18)
    assert float(crps(ens, obs)) == pytest.approx(5 / 3 - 16 / 12)
    assert float(spread(ens, obs)) == pytest.approx(2.0)
    assert float(ensemble_rmse(ens, obs)) == pytest.approx(1.0)
    assert float(spread_skill_ratio(ens, obs)) == pytest.approx(2 * np.sqrt(4 / 3))
    assert rank_histogram(ens, obs).values.tolist() == [0, 0, 1, 0]
    assert float(brier(ens, obs, threshold=1.0, fair=False)) == pytest.approx(1 / 9)
    assert float(brier(ens, obs, threshold=1.0)) == pytest.approx(1 / 9 - 2 / 9 / 2)


def test_reliability_by_default_has_a_bin_for_every_probability():
    ens = xr.DataArray([[[0.0, 1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0, 1.0]]], dims=("member", "y", "x"))
    obs = xr.DataArray([[0.0, 1.0, 0.0, 1.0]], dims=("y", "x"))
    curve = reliability(ens, obs, threshold=0.5)
    assert curve["probability_bin"].values.tolist() == [0, 0.5, 1]
    assert curve["forecast_probability"].values.tolist() == [0, 0.5, 1]
    assert curve.values.tolist() == [0, 0.5, 1]
    assert curve["samples"].values.tolist() == [1, 2, 1]
    assert np.isnan(reliability(ens, obs, threshold=2.0)[1:]).all()


def test_one_forecast_is_an_ensemble_of_one(hours):
    ens, obs = hours
    alone = ens.isel(member=0, drop=True)
    for kind in ("fair", "ecdf"):
        np.testing.assert_allclose(crps(alone, obs, kind=kind), mae(alone, obs))
    np.testing.assert_allclose(ensemble_rmse(alone, obs), rmse(alone, obs))
    assert np.isnan(spread(alone, obs)).all()
    assert np.isnan(spread_skill_ratio(alone, obs)).all()
    assert rank_histogram(alone, obs).sizes["rank"] == 2
    np.testing.assert_allclose(brier(alone, obs, threshold=0.0), ((alone > 0) != (obs > 0)).mean(["y", "x"]))


def test_points_count_where_all_members_and_the_reference_are(hours):
    ens, obs = hours[0].copy(), hours[1].copy()
    ens[2, 0, 1, 1] = np.nan
    obs[0, 2, 2] = np.nan
    hole = xr.ones_like(obs[0], dtype=bool)
    hole[1, 1] = hole[2, 2] = False
    for metric, options in (
        (crps, {}),
        (spread, {}),
        (ensemble_rmse, {}),
        (rank_histogram, {}),
        (brier, {"threshold": 0.0}),
    ):
        whole = metric(hours[0][:, 0], hours[1][0], weights=hole.astype(float), **options)
        np.testing.assert_allclose(metric(ens[:, 0], obs[0], **options), whole, rtol=1e-12)
        assert np.isnan(metric(ens, obs * np.nan, **options)).all()


def test_member_may_be_named_in_reduce(hours):
    ens, obs = hours
    np.testing.assert_array_equal(crps(ens, obs, reduce=("member", "y", "x")), crps(ens, obs))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.integers(2, 6), st.floats(-5, 5))
def test_order_of_members_and_shifts_do_not_matter(seed, count, shift):
    generator = np.random.default_rng(seed)
    ens = xr.DataArray(generator.integers(0, 4, (count, 3, 4)).astype(float), dims=("member", "y", "x"))
    obs = xr.DataArray(generator.integers(0, 4, (3, 4)).astype(float), dims=("y", "x"))
    order = generator.permutation(count)
    for metric in (crps, spread, ensemble_rmse):
        value = metric(ens, obs)
        np.testing.assert_allclose(metric(ens[order] + shift, obs + shift), value, atol=1e-9)
    np.testing.assert_allclose(rank_histogram(ens[order], obs), rank_histogram(ens, obs), atol=1e-12)
    assert float(rank_histogram(ens, obs).sum()) == pytest.approx(1)
    assert float(crps(ens, obs, kind="ecdf")) >= float(crps(ens, obs)) - 1e-12


def test_an_ensemble_drawn_like_the_truth_is_reliable():
    generator = np.random.default_rng(8)
    centre = generator.standard_normal((200, 300))
    ens = xr.DataArray(centre + generator.standard_normal((5, 200, 300)), dims=("member", "y", "x"))
    obs = xr.DataArray(centre + generator.standard_normal((200, 300)), dims=("y", "x"))
    assert float(spread_skill_ratio(ens, obs)) == pytest.approx(1, abs=0.01)
    assert float(spread_skill_ratio(ens, obs, corrected=False)) < 0.93
    np.testing.assert_allclose(rank_histogram(ens, obs), 1 / 6, atol=0.006)
    # Fair: the expectation does not depend on the number of members.
    fair = [float(crps(ens[:count], obs)) for count in (2, 5)]
    assert fair[0] == pytest.approx(fair[1], rel=0.02)
    plain = [float(crps(ens[:count], obs, kind="ecdf")) for count in (2, 5)]
    assert plain[0] > 1.15 * plain[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, r: crps(f, r, kind="best"), "choose one of fair, ecdf"),
        (lambda f, r: crps(f, f), "reference of an ensemble has no dimension member"),
        (lambda f, r: rank_histogram(f, r, ties="random"), "choose one of even, average"),
        (lambda f, r: brier(f, r, threshold=1, comparison="="), "choose one of >, >="),
        (lambda f, r: crps(f, r.isel(y=slice(1))), "same coordinates"),
        (lambda f, r: crps(f, r, reduce="time"), "can't be reduced over"),
    ],
)
def test_refusals(call, message):
    forecast = xr.DataArray(np.zeros((2, 3, 3)), dims=("member", "y", "x"))
    with pytest.raises(MetricError, match=message):
        call(forecast, forecast[0])
