"""core.data.ranges: exact quantiles of a stream, whatever its pieces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.data.ranges import RangeRecorder, TrainingRange, VariableRange
from core.data.samples import SampleError, compute_normalization, compute_statistics
from core.variables import PREDICTORS
from tests.synthetic_store import hours_of_weeks, make_store


@settings(max_examples=20, deadline=None)
@given(pieces=st.integers(1, 40), seed=st.integers(0, 1000))
def test_quantiles_are_those_of_all_values_at_once(pieces, seed):
    values = np.random.default_rng(seed).gamma(0.5, 3.0, 24_000).astype("f4")
    recorder = RangeRecorder(240, 100)
    for part in np.array_split(values, pieces):
        recorder.add("tp", part[None])
    recorder.add_static("land_cover", np.zeros((16, 2, 2), "f4"))
    found = recorder.result({"tp": (1.5, 2.0)}).predictors["tp"]
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.low == np.quantile(values, 0.001, method="lower")
    assert found.high == np.quantile(values, 0.999, method="higher")
    assert (found.mean, found.std) == (1.5, 2.0)


def test_memory_is_bounded_by_the_tails():
    recorder = RangeRecorder(1000, 100)
    for _ in range(1000):
        recorder.add("t2m", np.random.default_rng(0).standard_normal((1, 100)).astype("f4"))
    tails = recorder._predictors["t2m"]
    assert tails.count == 100_000
    assert tails.smallest.size == tails.largest.size == 101


def test_ranges_of_a_store_come_with_its_normalisation(tmp_path):
    store = make_store(tmp_path / "a.zarr", hours_of_weeks(2, 3), fine=("t2m",))
    normalization, ranges = compute_statistics(store, store.hours)
    assert normalization == compute_normalization(store, store.hours)
    coarse, static = store.read_coarse(), store.read_static()
    assert tuple(ranges.predictors) == PREDICTORS
    assert ranges.hours == store.hours.size
    for name, found in ranges.predictors.items():
        values = coarse[name].values
        assert (found.minimum, found.maximum) == (np.nanmin(values), np.nanmax(values))
        assert found.mean == normalization.predictors[name].mean
    assert ranges.statics["orography"].maximum == static["orography"].values.max()
    shares = static["land_cover"].values.mean(axis=(1, 2), dtype="f8")
    assert ranges.land_cover == pytest.approx(shares)
    assert TrainingRange.model_validate_json(ranges.model_dump_json()) == ranges


def test_how_hourly_means_vary_together():
    generator = np.random.default_rng(0)
    t2m = 280 + generator.standard_normal((60, 4, 5)).astype("f4")
    sst = t2m + generator.standard_normal((60, 1, 1)).astype("f4")
    sst[:, :2] = np.nan
    recorder = RangeRecorder(60, 20)
    recorder.add_static("land_cover", np.zeros((16, 2, 2), "f4"))
    for part in (slice(0, 7), slice(7, 60)):
        recorder.add("t2m", t2m[part])
        recorder.add("sst", sst[part])
        recorder.add("sd", np.zeros_like(t2m[part]))  # what never varies says nothing
    found = recorder.result(dict.fromkeys(("t2m", "sst", "sd"), (0.0, 1.0))).hourly
    means = np.stack([t2m.mean((1, 2), dtype="f8"), np.nanmean(sst, (1, 2), dtype="f8")])
    assert found.names == ("t2m", "sst")
    assert found.mean == pytest.approx(means.mean(1))
    assert found.std == pytest.approx(means.std(1, ddof=1))
    assert np.array(found.correlation) == pytest.approx(np.corrcoef(means))


def test_few_hours_do_not_tell_what_goes_together(tmp_path):
    store = make_store(tmp_path / "a.zarr", hours_of_weeks(2, 3), fine=("t2m",))
    assert compute_statistics(store, store.hours)[1].hourly is None


def test_incomplete_fields_are_refused(tmp_path):
    store = make_store(tmp_path / "a.zarr", hours_of_weeks(1, 1), fine=("t2m",))
    with pytest.raises(SampleError, match="no hours"):
        compute_statistics(store, [])


def test_bad_ranges_are_refused():
    good = {"minimum": 0, "low": 1, "high": 2, "maximum": 3, "mean": 1.5, "std": 1}
    assert VariableRange(**good).high == 2
    with pytest.raises(ValidationError, match="must not decrease"):
        VariableRange(**good | {"low": 5})
    with pytest.raises(ValidationError):
        VariableRange(**good | {"std": float("nan")})
    whole = {"hours": 1, "predictors": {"t2m": good}, "statics": {}, "land_cover": [0.0] * 16}
    with pytest.raises(ValidationError, match="unknown variables: nonsense"):
        TrainingRange.model_validate(whole | {"predictors": {"nonsense": good}})
