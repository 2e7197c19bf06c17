"""Sentences: right numbers, and none where their models are absent."""

import numpy as np
import pytest

from core.report.findings import findings
from tests.core.report.synthetic_evaluation import evaluation as make_evaluation


def put(evaluation, name, model, value, low=None, high=None):
    estimate = [value, value if low is None else low, value if high is None else high]
    evaluation["summary"].loc[{"model": model, "target": "t2m", "score": name}] = estimate


def find(evaluation, *words):
    return [s for s in findings(evaluation, "t2m") if all(word in s for word in words)]


def test_the_lowest_rmse_with_its_paired_difference(evaluation):
    for model, value in (("quadratic", 2.0), ("unet", 0.8), ("ldm_res", 1.0)):
        put(evaluation, "rmse", model, value, value - 0.1, value + 0.1)
    where = {"model": "ldm_res", "other": "unet", "target": "t2m", "score": "rmse"}
    evaluation["difference"].loc[where] = [0.2, 0.15, 0.25]
    (sentence,) = find(evaluation, "lowest RMSE")
    assert sentence == (
        "UNet has the lowest RMSE, 0.800 K (95 % interval 0.700 to 0.900 K); LDM_res follows with 1.00 K, "
        "0.200 K (95 % interval 0.150 to 0.250 K) more (paired over hours): the difference is clear."
    )
    evaluation["difference"].loc[where] = [0.2, -0.05, 0.45]
    assert "do not tell the two apart" in find(evaluation, "lowest RMSE")[0]


def test_unet_as_a_share_of_interpolation(evaluation):
    put(evaluation, "rmse", "quadratic", 2.0)
    put(evaluation, "rmse", "unet", 0.8)
    assert find(evaluation, "is 40.0 % of that of Quadratic interpolation", "0.800 K and 2.00 K")


def test_the_mean_is_corrected_for_its_members(evaluation):
    put(evaluation, "ensemble_rmse", "ldm_res", np.sqrt(1.25))
    put(evaluation, "rmse", "unet", 0.8)
    # sqrt(1 + 1/4) is the whole of it, so 1 K remains: 25 % above 0.8 K.
    assert find(evaluation, "1.00 K, 25.0 % above that of UNet")


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.0, "within 0.8 to 1.2"), (0.5, "too sure of itself"), (1.5, "above 1.2")],
)
def test_spread_and_skill(evaluation, ratio, verdict):
    put(evaluation, "spread_skill_ratio", "ldm_res", ratio)
    assert find(evaluation, "spread-skill ratio of LDM_res", verdict)


def test_crps_against_the_mean_absolute_error(evaluation):
    put(evaluation, "crps", "ldm_res", 0.4)
    put(evaluation, "mae", "unet", 0.5)
    assert find(evaluation, "0.400 K, is below the MAE of UNet, 0.500 K")
    put(evaluation, "crps", "ldm_res", 0.6)
    assert find(evaluation, "0.600 K, is not below the MAE")


def test_slope_losses(evaluation):
    put(evaluation, "spectral_slope_loss", "ldm_res", 0.1)
    put(evaluation, "spectral_slope_loss", "unet", 0.4)
    assert find(evaluation, "slope loss of LDM_res is 25.0 % of that of UNet")


def test_what_the_physics_changed():
    evaluation = make_evaluation(hours=3, keys=("ldm_res", "ldm_pde"), snapshots=1)
    put(evaluation, "flux_error", "ldm_res", 0.05)
    where = {"model": "ldm_pde", "other": "ldm_res", "target": "t2m", "score": "flux_error"}
    evaluation["difference"].loc[where] = [-0.01, -0.015, -0.005]
    (sentence,) = find(evaluation, "LDM_PDE against LDM_res")
    assert "flux error, against coarse −20 % (−30 to −10 %)" in sentence
    assert not find(evaluation, "UNet")


def test_nothing_is_said_of_models_that_are_not_there(evaluation):
    alone = evaluation.sel(model=["quadratic"], other=["quadratic"])
    assert findings(alone, "t2m") == []
    bare = evaluation[["label", "kind", "members"]]
    assert findings(bare.assign_coords(target=["t2m"]), "t2m") == []
