"""Reading an evaluation with tolerance."""

import numpy as np
import pytest

from core.report import contents
from core.report.contents import Absent


def test_models_come_in_the_order_of_the_dataset(evaluation):
    models = contents.models_of(evaluation)
    assert [model.label for model in models] == ["Quadratic interpolation", "UNet", "LDM_res"]
    assert [model.members for model in models] == [1, 1, 4]
    assert len({model.colour for model in models}) == 3


def test_models_without_labels_have_their_keys(evaluation):
    models = contents.models_of(evaluation.drop_vars(["label", "kind", "members"]))
    assert [(model.label, model.kind, model.members) for model in models] == [
        ("quadratic", "", 1),
        ("unet", "", 1),
        ("ldm_res", "", 1),
    ]


def test_a_missing_variable_is_absent(evaluation):
    with pytest.raises(Absent, match="holds no rmse"):
        contents.variable(evaluation.drop_vars("rmse"), "rmse", "t2m")


def test_a_variable_without_a_value_is_absent(evaluation):
    evaluation["rmse"][:] = np.nan
    with pytest.raises(Absent, match="rmse of t2m has no value"):
        contents.variable(evaluation, "rmse", "t2m")


def test_a_target_that_is_not_there_is_absent(evaluation):
    with pytest.raises(Absent, match="no rmse of u10"):
        contents.variable(evaluation, "rmse", "u10")


def test_estimates_are_those_of_the_summary(evaluation):
    evaluation["summary"].loc[{"model": "unet", "target": "t2m", "score": "rmse"}] = [1.0, 0.9, 1.2]
    assert contents.estimates(evaluation, "rmse", "t2m")["unet"] == (1.0, 0.9, 1.2)


def test_estimates_without_summary_are_means_without_interval(evaluation):
    found = contents.estimates(evaluation.drop_vars("summary"), "rmse", "t2m")["unet"]
    assert found.value == pytest.approx(float(evaluation["rmse"].sel(model="unet").mean()))
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_units_are_those_of_the_target(evaluation):
    assert contents.score_of(evaluation, "rmse", "u10").units == "m s-1"
    assert contents.score_of(evaluation, "flux_loss_paper", "t2m").units == "km2"
    assert contents.score_of(evaluation, "ensemble_mse", "u10").units == "(m s-1)2"
    assert contents.score_of(evaluation, "spread_skill_ratio", "t2m").best == "one"


def test_ensemble_figures_say_that_there_is_no_ensemble(evaluation):
    alone = evaluation.assign_coords(members=("model", [1, 1, 1]))
    with pytest.raises(Absent, match="No model has more than one member"):
        contents.ensemble_variable(alone, "rank_histogram", "t2m")


def set_pair(evaluation, name, first, second, gap):
    """Two models' estimates of a score and their paired difference (first minus second), no others."""
    keys = ["unet", "ldm_res"]
    evaluation["summary"].loc[{"score": name}] = np.nan
    evaluation[name][:] = np.nan
    for key, estimate in zip(keys, (first, second), strict=True):
        evaluation["summary"].loc[{"model": key, "target": "t2m", "score": name}] = list(estimate)
    value, low, high = gap
    where = {"target": "t2m", "score": name}
    evaluation["difference"].loc[{"model": "unet", "other": "ldm_res", **where}] = list(gap)
    evaluation["difference"].loc[{"model": "ldm_res", "other": "unet", **where}] = [-value, -high, -low]
    return contents.clear_winner(evaluation, contents.score_of(evaluation, name, "t2m"), "t2m")


def test_the_winner_is_clear_where_the_paired_difference_excludes_zero(evaluation):
    # The intervals of both overlap; the paired difference decides.
    assert set_pair(evaluation, "rmse", (1.0, 0.8, 1.2), (1.1, 0.9, 1.3), (-0.1, -0.15, -0.05)) == "unet"
    assert set_pair(evaluation, "rmse", (1.0, 0.8, 1.2), (1.1, 0.9, 1.3), (-0.1, -0.25, 0.05)) is None
    assert set_pair(evaluation, "r2", (0.9, 0.8, 1), (0.95, 0.9, 1), (-0.05, -0.06, -0.04)) == "ldm_res"


def test_biases_of_both_signs_differ_without_one_being_better(evaluation):
    assert set_pair(evaluation, "bias", (0.1, 0.05, 0.15), (-0.11, -0.15, -0.07), (0.21, 0.15, 0.27)) is None
    assert set_pair(evaluation, "bias", (0.1, 0.05, 0.15), (-0.5, -0.6, -0.4), (0.6, 0.5, 0.7)) == "unet"
    # The paired difference is clear, but the second may have no bias at all.
    assert set_pair(evaluation, "bias", (0.01, -0.1, 0.1), (0.06, -0.05, 0.16), (-0.05, -0.06, -0.04)) is None
    assert set_pair(evaluation, "bias", (0.01, -0.1, 0.1), (0.2, 0.1, 0.3), (-0.19, -0.2, -0.1)) == "unet"


def test_no_winner_without_differences(evaluation):
    score = contents.score_of(evaluation, "rmse", "t2m")
    assert contents.clear_winner(evaluation.drop_vars("difference"), score, "t2m") is None


def test_no_winner_between_equals(evaluation):
    assert set_pair(evaluation, "rmse", (1.0, 0.9, 1.1), (1.0, 0.9, 1.1), (0.0, 0.0, 0.0)) is None


def test_captions_say_hours_members_and_synthetic(evaluation):
    assert contents.basis(evaluation) == (
        "From 24 hours, 2018-04-16 to 2020-03-29; 4 members of LDM_res, one of the others. "
        "The data is synthetic."
    )
    evaluation.attrs["synthetic"] = 0
    del evaluation.attrs["hours"]
    assert contents.basis(evaluation).startswith("From 24 hours, 2018-04-16 to ")
    assert "synthetic" not in contents.basis(evaluation)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"unet": 3}'])
def test_model_attributes_that_cannot_be_read_are_nothing(evaluation, content):
    evaluation.attrs["models"] = content
    assert contents.model_attrs(evaluation) == {}
