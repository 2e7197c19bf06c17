"""core.downscale.applicability: numbers by hand, silence on training data, alarms on foreign input."""

import numpy as np
import pytest

from core.checkpoint import Description, Header, read_header
from core.data.ranges import HourlyMeans, TrainingRange, VariableRange
from core.data.samples import compute_statistics
from core.downscale.applicability import (
    MOST_HOURS,
    check_predictors,
    check_statics,
    check_store,
    spread,
    warnings,
)
from core.variables import PREDICTORS
from tests.synthetic_store import DOMAIN, hours_of_weeks, make_store, static_dataset

KNOWN = VariableRange(minimum=270, low=275, high=295, maximum=300, mean=285, std=5)
SHARES = (1.0,) + 15 * (0.0,)


@pytest.fixture
def header(save_unet) -> Header:
    """A UNet that recorded ranges of t2m alone."""
    ranges = TrainingRange(
        hours=9, predictors={"t2m": KNOWN}, statics={"orography": KNOWN}, land_cover=SHARES
    )
    return read_header(save_unet(description=Description(ranges=ranges)))


def test_share_distance_and_shift_by_hand(header):
    # Two of eight cells outside: 5 K below the lower end, 10 K above the upper one; the ends themselves are
    # inside.
    values = np.array([[270, 300, 285, 285], [265, 310, np.nan, 285], [280, 290, 285, np.nan]], "f4")
    (check,) = check_predictors(header, {"t2m": values}).checks
    assert check.outside == pytest.approx(2 / 10)
    assert check.distance == pytest.approx(10 / 5)
    assert check.shift == pytest.approx((np.nanmean(values, dtype="f8") - 285) / 5)
    assert (check.lowest, check.highest) == (265, 310)
    assert check.unusual


def test_the_sentence_names_variable_hour_share_and_distance(header):
    values = np.full(100, 285, "f4")
    values[:12] = 300 + 5 * 3.14
    found = check_predictors(header, {"t2m": values})
    assert found.recorded
    assert found.sentence("LDM_res", "2016-05-02 12:00") == (
        "2 metre temperature of 2016-05-02 12:00 lies outside what LDM_res was trained on in 12 % of the "
        "cells, up to "
        "3.1 standard deviations."
    )
    assert check_predictors(header, {"t2m": np.full(9, 285.0)}).sentence("LDM_res") == ""


def test_a_little_outside_is_usual(header):
    values = np.full(100, 285, "f4")
    values[:10] = 329  # neither more than 10 % of the cells nor farther out than the range is wide
    (check,) = check_predictors(header, {"t2m": values}).checks
    assert check.outside == 0.1
    assert not check.unusual
    values[0] = 331
    assert check_predictors(header, {"t2m": values}).unusual[0].widths == pytest.approx(31 / 30)


def test_without_ranges_mean_and_deviation_stand_for_them(save_unet, store):
    header = read_header(save_unet())
    coarse = store.read_coarse()
    found = check_predictors(header, coarse)
    assert not found.recorded
    assert not found.unusual
    assert len(found.checks) == len(PREDICTORS)
    celsius = check_predictors(header, {"t2m": coarse["t2m"].values - 273.15})
    assert [check.outside for check in celsius.unusual] == [1.0]


def test_training_data_are_usual_and_a_shift_is_not(save_unet, store):
    _, ranges = compute_statistics(store, store.hours)
    header = read_header(save_unet(description=Description(ranges=ranges)))
    coarse = store.read_coarse()
    assert check_predictors(header, coarse).unusual == ()
    shifted = coarse.copy()
    shifted["t2m"] = coarse["t2m"] + 40
    assert [check.name for check in check_predictors(header, shifted).unusual] == ["t2m"]
    assert check_statics(header, store.read_static()).unusual == ()
    higher = static_dataset(DOMAIN) + 3000
    assert "orography" in [check.name for check in check_statics(header, higher).unusual]


def test_means_that_do_not_go_together_are_told(header):
    """Two variables that always rise and fall together: the expected one follows from the other."""
    hourly = HourlyMeans(
        names=("t2m", "t850"), mean=(285, 275), std=(5, 4), correlation=((1, 0.98), (0.98, 1))
    )
    ranges = header.description.ranges.model_copy(update={"hourly": hourly})
    header = header.model_copy(update={"description": Description(ranges=ranges)})
    field = np.ones((3, 3), "f4")
    (usual,) = check_predictors(header, {"t2m": 295 * field, "t850": 283 * field}).checks
    assert not usual.unusual
    (check,) = check_predictors(header, {"t2m": 295 * field, "t850": 267 * field}).checks
    # By hand: conditional mean and variance of a pair of normal variables, with the ridge on both variances.
    expected = 285 + 0.98 / 1.01 * 5 / 4 * (267 - 275)
    spread_left = 5 * np.sqrt(1.01 - 0.98**2 / 1.01)
    assert check.excess == pytest.approx(295 - expected)
    assert check.surprise == pytest.approx((295 - expected) / spread_left)
    assert check.outside == 0
    assert check.unusual
    assert check_predictors(header, {"t2m": 295 * field}).unusual == ()
    said = check_predictors(header, {"t2m": 295 * field, "t850": 267 * field}).sentence("LDM_res")
    assert "on average 19.7 K above what the other inputs let expect" in said


def test_correlations_that_are_none_are_left_out(header):
    hourly = HourlyMeans(names=("t2m", "t850"), mean=(285, 275), std=(5, 4), correlation=((-1, 1), (1, -1)))
    ranges = header.description.ranges.model_copy(update={"hourly": hourly})
    header = header.model_copy(update={"description": Description(ranges=ranges)})
    assert check_predictors(header, {"t2m": np.full(4, 295.0), "t850": np.full(4, 267.0)}).unusual == ()


def test_sea_where_the_training_had_none_and_missing_fields_are_left_out(header, save_unet):
    missing = np.full((3, 3), np.nan, "f4")
    assert check_predictors(header, {"t2m": missing, "sst": missing + 290}).checks == ()
    assert check_predictors(read_header(save_unet("plain")), {"sst": missing}).checks == ()


def test_long_runs_are_looked_at_here_and_there():
    hours = np.datetime64("2000-01-01", "h") + np.arange(100_000) * np.timedelta64(1, "h")
    chosen = spread(hours)
    assert (chosen.size, chosen[0], chosen[-1]) == (MOST_HOURS, hours[0], hours[-1])
    assert len(set(chosen)) == MOST_HOURS
    assert spread(hours[:5]).size == 5


def test_warnings_of_a_run_name_models_hours_and_the_worst(save_unet, tmp_path):
    trained = make_store(tmp_path / "trained.zarr", hours_of_weeks(2, 3))
    foreign = make_store(tmp_path / "foreign.zarr", hours_of_weeks(2, 3), seed=1)
    _, ranges = compute_statistics(trained, trained.hours)
    described = {"description": Description(ranges=ranges)}
    models = [(name, read_header(save_unet(name, **described))) for name in ("one", "two")]
    assert warnings(trained, trained.hours, models) == []
    narrow = ranges.model_copy(update={"predictors": {"msl": KNOWN.model_copy(update={"low": 280.0})}})
    odd = read_header(save_unet("odd", description=Description(ranges=narrow)))
    said = warnings(foreign, foreign.hours, [("odd", odd)])
    assert len(said) == 1
    assert said[0].startswith("Mean sea level pressure of 2016-01-")
    assert "lies outside what odd was trained on in 100 % of the cells" in said[0]
    assert said[0].endswith("It is unusual in 6 of 6 hours, and most so in this one.")
    both = warnings(foreign, foreign.hours[:1], [("odd", odd), ("twin", odd)])
    assert len(both) == 1
    assert "what odd and twin were trained on" in both[0]
    assert [hour for hour, _ in check_store(odd, foreign, foreign.hours)] == list(foreign.hours)
