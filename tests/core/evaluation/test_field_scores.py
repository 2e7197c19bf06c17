"""Scores of one hour against the metrics of the registry."""

import numpy as np
import pytest
import torch
import xarray as xr

from core.evaluation.field_scores import (
    FLUX_LOSSES,
    SCORES,
    Truth,
    bin_edges,
    probability_edges,
    score_attrs,
    score_hour,
)
from core.metrics.registry import METRICS
from core.physics.audit import Scorer

SIDE, RATIO = 128, 8
SPACING = 2000.0


def field(values, spacing=SPACING):
    height, width = values.shape[-2:]
    offset = spacing / 2
    return xr.DataArray(
        values.astype(np.float32),
        dims=("member", "y", "x")[-values.ndim :],
        coords={"y": 1e6 - offset - spacing * np.arange(height), "x": offset + spacing * np.arange(width)},
        attrs={"units": "K"},
    )


@pytest.fixture(scope="module")
def case():
    generator = np.random.default_rng(1)
    waves = np.sin(np.arange(SIDE) / 9)[:, None] * 6 + np.cos(np.arange(SIDE) / 17)[None] * 5
    truth = 275 + waves + generator.normal(size=(SIDE, SIDE))
    members = truth + 0.4 + generator.normal(size=(3, SIDE, SIDE))
    coarse = truth.reshape(SIDE // RATIO, RATIO, SIDE // RATIO, RATIO).mean((1, 3))
    land = generator.random((SIDE, SIDE)) < 0.5
    coarse = field(coarse, SPACING * RATIO)
    return field(members), Truth.of("t2m", field(truth), coarse, land, RATIO)


SCORER = Scorer((2.0, 2.0), 0.0, 280.0, 5.0)


@pytest.mark.parametrize(
    "name", ["rmse", "mae", "bias", "r2", "pearson", "p01_error", "p99_error", "spectral_slope_loss"]
)
def test_scores_of_single_fields_are_means_over_members(case, name):
    members, truth = case
    expected = METRICS[name](members, truth.field).mean()
    assert score_hour(members, truth, SCORER).scores[name] == pytest.approx(float(expected), rel=1e-6)


def test_frequencies_agree_with_the_metric(case):
    members, truth = case
    expected = METRICS["perkins"](members, truth.field, edges=bin_edges("t2m")).mean()
    hour = score_hour(members, truth, SCORER)
    assert hour.scores["perkins"] == pytest.approx(float(expected), rel=1e-9)
    # The land has about half of the points, and every value lies in a bin.
    assert hour.sums["histogram"].sum() == pytest.approx(SIDE * SIDE)
    assert hour.sums["histogram"][1].sum() == truth.land.sum()


def test_fluxes_agree_with_the_metrics(case):
    members, truth = case
    scores = score_hour(members, truth, SCORER).scores
    against_coarse = METRICS["flux_error"](members, truth.field, coarse=truth.coarse).mean()
    assert scores["flux_error"] == pytest.approx(float(against_coarse), rel=1e-6)
    against_truth = METRICS["flux_error"](members, truth.field).mean()
    assert scores["flux_error_truth"] == pytest.approx(float(against_truth), rel=1e-6)
    for variant in ("paper", "centred", "published_metric"):
        expected = METRICS["flux_loss"](members, truth.field, coarse=truth.coarse, variant=variant).mean()
        assert scores[f"flux_loss_{variant}"] == pytest.approx(float(expected), rel=1e-5)
    assert np.isfinite(scores["flux_loss_published_training"])


def test_ensemble_scores_agree_with_the_metrics(case):
    members, truth = case
    hour = score_hour(members, truth, SCORER)
    for name in ("crps", "ensemble_rmse"):
        assert hour.scores[name] == pytest.approx(float(METRICS[name](members, truth.field)), rel=1e-9)
    brier = METRICS["brier"](members, truth.field, threshold=273.15, comparison="<")
    assert hour.scores["brier_frost"] == pytest.approx(float(brier), rel=1e-9)
    ratio = (4 / 3 * hour.scores["ensemble_variance"] / hour.scores["ensemble_mse"]) ** 0.5
    expected = float(METRICS["spread_skill_ratio"](members, truth.field))
    assert ratio == pytest.approx(expected, rel=1e-6)
    assert hour.sums["ranks"].sum() == pytest.approx(SIDE * SIDE)
    assert hour.sums["reliability_weight"].sum() == SIDE * SIDE
    assert hour.sums["mean_square"].mean() ** 0.5 == pytest.approx(hour.scores["ensemble_rmse"], rel=1e-9)


def test_one_member_has_no_spread(case):
    members, truth = case
    hour = score_hour(members.isel(member=[0]), truth, SCORER)
    assert hour.scores["crps"] == hour.scores["mae"]
    assert hour.scores["ensemble_rmse"] == pytest.approx(hour.scores["rmse"], rel=1e-12)
    assert np.isnan(hour.scores["ensemble_variance"])
    assert "variance" not in hour.sums


def test_the_truth_has_no_error(case):
    _, truth = case
    scores = score_hour(truth.field.expand_dims("member"), truth, SCORER).scores
    for name in ("rmse", "mae", "bias", "spectral_slope_loss", "flux_error_truth", "p99_error"):
        assert scores[name] == pytest.approx(0, abs=1e-9)
    assert scores["perkins"] == scores["r2"] == scores["pearson"] == pytest.approx(1)


def test_gaps_are_left_out(case):
    members, truth = case
    gaps = members.copy()
    gaps[:, :10] = np.nan
    hour = score_hour(gaps, truth, SCORER)
    expected = METRICS["rmse"](gaps, truth.field).mean()
    assert hour.scores["rmse"] == pytest.approx(float(expected), rel=1e-6)
    assert hour.sums["count"][:10].sum() == 0
    assert np.isnan([hour.scores[name] for name in ("flux_error", "spectral_slope_loss")]).all()


def test_points_without_truth_count_nowhere(case):
    members, truth = case
    wild = members.copy()
    wild[:, :10] += 100
    gap = truth.field.copy()
    gap[:10] = np.nan
    pairs = ((wild, gap), (members.where(gap.notnull()), truth.field))
    for forecast, reference in pairs:
        partial = Truth.of("t2m", reference, truth.coarse, truth.land, RATIO)
        hour = score_hour(forecast, partial, SCORER)
        scores = hour.scores
        for name in ("rmse", "p01_error", "p99_error"):
            expected = float(METRICS[name](forecast, reference).mean())
            assert scores[name] == pytest.approx(expected, rel=1e-6)
        expected = METRICS["perkins"](forecast, reference, edges=bin_edges("t2m")).mean()
        assert scores["perkins"] == pytest.approx(float(expected), rel=1e-9)
        ratio = (4 / 3 * scores["ensemble_variance"] / scores["ensemble_mse"]) ** 0.5
        assert ratio == pytest.approx(float(METRICS["spread_skill_ratio"](forecast, reference)), rel=1e-6)
        assert hour.sums["histogram"].sum() == pytest.approx((SIDE - 10) * SIDE)


def test_other_targets_have_no_fluxes(case):
    members, truth = case
    wind = Truth.of("u10", truth.field - 275, truth.coarse - 275, truth.land, RATIO)
    scores = score_hour(members - 275, wind, SCORER).scores
    assert np.isnan([scores[name] for name in ("flux_error", "brier_frost", *FLUX_LOSSES)]).all()
    assert np.isfinite(scores["rmse"])


def test_every_score_says_what_it_is():
    for name in SCORES:
        said = score_attrs(name)
        assert said["title"]
        assert said["best"] in ("lower", "higher", "zero", "one", "none")
    assert score_attrs("rmse", "tp")["units"] == "m"
    assert score_attrs("r2")["units"] == "1"


def test_probability_bins_are_centred_on_tenths():
    edges = probability_edges()
    np.testing.assert_allclose((edges[1:] + edges[:-1]) / 2, np.arange(11) / 10, atol=1e-12)


def test_threads_and_modes_stay_as_they_were(case):
    score_hour(*case, SCORER)
    assert torch.is_grad_enabled()
