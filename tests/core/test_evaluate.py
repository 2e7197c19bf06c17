"""core.evaluate: scores by hour and downscaler, on the same points for all."""

import numpy as np
import pytest
import xarray as xr

from core.evaluate import EvaluationError, evaluate_hours, markdown_table
from core.metrics.flux import flux_error
from tests.synthetic_store import hours_of_weeks, make_store

HOURS = hours_of_weeks(2, 3)


class Shifted:
    """The coarse value of each cell plus a constant, missing in the first ``missing`` rows."""

    def __init__(self, shift, targets=("t2m",), missing=0):
        self.key = f"shifted-{shift}"
        self.label = f"Shifted by {shift}"
        self.shift, self.targets, self.missing = shift, targets, missing
        self.batches = []

    def downscale(self, coarse, static, domain):
        self.batches.append(coarse.sizes["time"])
        made = {}
        for name in self.targets:
            values = coarse[name].values.repeat(domain.ratio, 1).repeat(domain.ratio, 2) + self.shift
            values[:, : self.missing] = np.nan
            made[name] = (("time", "y", "x"), values.astype(np.float32))
        return xr.Dataset(made, coords={"time": coarse["time"], "y": domain.fine.y, "x": domain.fine.x})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("evaluate") / "a.zarr", HOURS, fine=("t2m", "u10"))


def test_scores_are_those_of_each_hour(store):
    seen = []
    downscalers = [Shifted(0.5), Shifted(-2, ("t2m", "u10"))]
    scores = evaluate_hours(
        store, downscalers, HOURS, batch_hours=4, progress=lambda *step: seen.append(step)
    )
    assert scores["rmse"].dims == ("downscaler", "target", "time")
    assert seen == [(4, 6), (6, 6)]
    assert downscalers[0].batches == [4, 2]
    truth = store.read_fine()["t2m"].values.astype("f8")
    forecast = downscalers[1].downscale(store.read_coarse(), None, store.domain)["t2m"].values.astype("f8")
    one = scores.sel(downscaler="shifted--2", target="t2m")
    error = (forecast - truth).reshape(6, -1)
    np.testing.assert_allclose(one["rmse"], np.sqrt((error**2).mean(axis=1)))
    np.testing.assert_allclose(one["mae"], np.abs(error).mean(axis=1))
    np.testing.assert_allclose(one["bias"], error.mean(axis=1))
    variance = truth.reshape(6, -1).var(axis=1)
    np.testing.assert_allclose(one["r2"], 1 - (error**2).mean(axis=1) / variance)
    pearson = [np.corrcoef(f.ravel(), t.ravel())[0, 1] for f, t in zip(forecast, truth, strict=True)]
    np.testing.assert_allclose(one["pearson"], pearson)


def test_what_a_downscaler_does_not_make_is_missing(store):
    scores = evaluate_hours(store, [Shifted(0.5), Shifted(-2, ("t2m", "u10"))], HOURS)
    winds = scores["rmse"].sel(target="u10")
    assert winds.sel(downscaler="shifted-0.5").isnull().all()
    np.testing.assert_allclose(winds.sel(downscaler="shifted--2"), 2, rtol=1e-5)
    table = markdown_table(scores)
    assert table.count("\n") == 4
    assert "| u10 | Shifted by -2 | 2 m s-1 | 2 m s-1 | -2 m s-1 |" in table
    assert "| t2m | Shifted by 0.5 |" in table


def test_all_are_compared_where_all_have_values(store):
    alone = evaluate_hours(store, [Shifted(0)], HOURS)
    beside = evaluate_hours(store, [Shifted(0), Shifted(1, missing=32)], HOURS)
    southern = store.read_fine()["t2m"].values[:, 32:]
    forecast = Shifted(0).downscale(store.read_coarse(), None, store.domain)["t2m"].values[:, 32:]
    expected = np.abs(forecast.astype("f8") - southern).mean(axis=(1, 2))
    np.testing.assert_allclose(beside["mae"][0, 0], expected)
    assert not np.allclose(alone["mae"][0, 0], expected)


def test_nothing_to_compare_is_a_sentence(store, tmp_path):
    with pytest.raises(EvaluationError, match="at least one hour and one downscaler"):
        evaluate_hours(store, [], HOURS)
    with pytest.raises(EvaluationError, match="at least one hour"):
        evaluate_hours(store, [Shifted(0)], [])
    with pytest.raises(EvaluationError, match="holds the truth of t2m, u10; no downscaler makes any"):
        evaluate_hours(store, [Shifted(0, ("tp",))], HOURS)
    bare = make_store(tmp_path / "bare.zarr", HOURS, fine=())
    with pytest.raises(EvaluationError, match="no fine truth"):
        evaluate_hours(bare, [Shifted(0)], HOURS)


def test_other_metrics_of_the_registry(store):
    scores = evaluate_hours(
        store, [Shifted(0.5, ("t2m", "u10"))], HOURS, metrics=["spectral_slope_loss", "flux_error"]
    )
    truth = store.read_fine(HOURS, ["t2m"])["t2m"]
    forecast = truth.copy(data=store.read_coarse()["t2m"].values.repeat(8, 1).repeat(8, 2) + 0.5)
    row = scores.isel(downscaler=0)
    np.testing.assert_allclose(row["flux_error"].sel(target="t2m"), flux_error(forecast, truth))
    assert row["flux_error"].sel(target="u10").isnull().all()
    assert row["spectral_slope_loss"].notnull().all()
    table = markdown_table(scores)
    assert "| target | downscaler | Spectral slope loss | Flux error |" in table
    assert table.splitlines()[-1].endswith("| - |")


@pytest.mark.parametrize("name", ["crps", "histogram", "rank_histogram"])
def test_metrics_that_one_field_can_not_give_are_refused(store, name):
    with pytest.raises(EvaluationError, match="more than one field of an hour, or options"):
        evaluate_hours(store, [Shifted(0)], HOURS, metrics=[name])
