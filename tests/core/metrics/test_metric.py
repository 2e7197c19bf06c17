"""What all metrics share: documentation, batches of hours, dask, weights, options and refusals."""

import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from core.metrics import deterministic, distribution, ensemble, flux, spectra
from core.metrics.deterministic import bias, mae, pearson, r2, rmse
from core.metrics.distribution import p99_error
from core.metrics.metric import Accumulator, FieldMetric, Metric, MetricError
from core.metrics.registry import METRICS, find_metric

HOURS, HEIGHT, WIDTH, MEMBERS = 6, 16, 24, 4
OPTIONS = {
    "histogram": {"edges": np.arange(270, 301, 2.0)},
    "perkins": {"edges": np.arange(270, 301, 2.0)},
    "brier": {"threshold": 286.0},
    "reliability": {"threshold": 286.0},
    "spread_error": {"edges": [0.0, 0.5, 1.0, 1.5, 4.0]},
    "spectral_slope_loss": {"wavelengths": (5e3, 50e3), "missing": "mean"},
    "flux_loss": {"cells": 8},
    "flux_error": {"cell": 16.0},
}
OF_FIELDS = ("spectral_slope_loss", "flux_loss", "flux_error")


def coordinates(members=False):
    coords = {
        "time": np.datetime64("2020-01-01", "ns") + np.arange(HOURS) * np.timedelta64(1, "h"),
        "y": 2.7e6 - 2e3 * np.arange(HEIGHT),
        "x": 3.9e6 + 2e3 * np.arange(WIDTH),
    }
    return {"member": np.arange(MEMBERS), **coords} if members else coords


def hours(members=False, gaps=True):
    """A forecast and a reference that it resembles, in kelvin, with gaps that differ."""
    generator = np.random.default_rng(5)
    signal = 285 + 3 * generator.standard_normal((HOURS, HEIGHT, WIDTH)).cumsum(axis=0)
    shape = (MEMBERS, *signal.shape) if members else signal.shape
    pair = [signal + generator.standard_normal(shape) + 0.3, signal + generator.standard_normal(signal.shape)]
    if gaps:
        pair[0][..., 3, 5, 7] = np.nan
        pair[1][0, 2, :2] = np.nan
        pair[1][:, 9, 9] = np.nan
    return tuple(xr.DataArray(values, coordinates(values.ndim == 4), attrs={"units": "K"}) for values in pair)


def cases():
    return [
        (found, reduce)
        for name, found in METRICS.items()
        for reduce in (("time", "y", "x"), ("time",))
        if not (name in OF_FIELDS and reduce == ("time",))
    ]


def chunked(field, sizes):
    return field.chunk({dim: size for dim, size in sizes.items() if dim in field.dims})


def assert_same(one, other):
    """Equal values and coordinates up to the order of summation."""
    assert one.dims == other.dims
    xr.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)


# Documentation


def public_metrics():
    """Every metric class of the package that can be called."""
    found, waiting = set(), [Metric]
    while waiting:
        children = waiting.pop().__subclasses__()
        waiting += children
        found |= {c for c in children if not c.__abstractmethods__ and not c.__name__.startswith("_")}
    return sorted((c for c in found if c.__module__.startswith("core.")), key=lambda c: c.__name__)


def undocumented(kind):
    """What the documentation of a metric lacks."""
    text = " ".join((kind.__dict__.get("__doc__") or "").split())
    stated = {name: getattr(kind, name, "") for name in ("title", "long_name", "formula", "source")}
    lacks = [name for name, value in stated.items() if not value]
    if f"``{stated['formula']}``" not in text:
        lacks.append("formula in the docstring")
    if "Reference" not in text or stated["source"] not in text.split("Reference")[-1]:
        lacks.append("source in the docstring")
    return lacks


@pytest.mark.parametrize("kind", public_metrics(), ids=lambda kind: kind.__name__)
def test_every_metric_documents_its_formula_and_reference(kind):
    assert undocumented(kind) == []


def test_a_metric_without_documentation_is_seen():
    class Silent(FieldMetric):
        formula, source = "a + b", "Nobody (1900)"

        def values(self, forecast, reference):
            return forecast

    class Spoken(Silent):
        """A sum, ``a + b``. Reference: Nobody (1900)."""

        title, long_name = "Sum", "sum of two"

    assert undocumented(Silent) == [
        "title",
        "long_name",
        "formula in the docstring",
        "source in the docstring",
    ]
    assert undocumented(Spoken) == []


def test_every_metric_is_registered_under_its_name():
    kinds = {type(found) for found in METRICS.values()}
    assert kinds == set(public_metrics())
    assert all(found.name == name for name, found in METRICS.items())
    names = [n for module in (deterministic, distribution, ensemble, flux, spectra) for n in module.METRICS]
    assert sorted(names) == sorted(METRICS)
    assert find_metric("rmse") is rmse
    with pytest.raises(MetricError, match="no metric 'mse'; choose one of rmse, mae"):
        find_metric("mse")


# One result, however it is made


@pytest.mark.parametrize(
    ("found", "reduce"), cases(), ids=lambda v: v.name if isinstance(v, Metric) else "-".join(v)
)
def test_lazy_in_lazy_out_and_chunks_do_not_matter(found, reduce):
    forecast, reference = hours(found.ensemble)
    options = OPTIONS.get(found.name, {})
    expected = found(forecast, reference, reduce=reduce, **options)
    assert np.isfinite(expected).any()
    sizes = {"time": 4, "y": 9, "x": 13, "member": 3}
    result = found(chunked(forecast, sizes), chunked(reference, sizes), reduce=reduce, **options)
    assert isinstance(result.data, dask.array.Array)
    assert result.attrs == expected.attrs
    assert_same(result.compute(scheduler="synchronous"), expected)


@pytest.mark.parametrize("name", METRICS)
def test_batches_of_hours_give_the_metric_of_all(name):
    found, options = METRICS[name], OPTIONS.get(name, {})
    forecast, reference = hours(found.ensemble)
    total = Accumulator(found, **options)
    for batch in np.split(np.arange(HOURS), (1, 4)):
        total.add(forecast.isel(time=batch), reference.isel(time=batch))
    expected = found(forecast, reference, reduce=("time", "y", "x"), **options)
    assert_same(total.result(), expected)
    assert total.result().attrs == expected.attrs


@pytest.mark.parametrize("found", [bias, mae, rmse, r2, pearson], ids=lambda found: found.name)
def test_maps_over_hours_from_batches_and_workers(found):
    forecast, reference = hours()
    workers = [Accumulator(found, reduce="time") for _ in range(3)]
    for worker, batch in zip(workers, ([0, 1], [2], [3, 4, 5]), strict=True):
        worker.add(forecast.isel(time=batch), reference.isel(time=batch))
    result = Accumulator(found, reduce="time").merge(workers[2]).merge(workers[0]).merge(workers[1]).result()
    expected = found(forecast, reference, reduce="time")
    assert expected.dims == ("y", "x")
    assert np.isnan(expected[9, 9])
    assert_same(result, expected)


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.integers(1, HOURS - 1), unique=True).map(sorted), st.sampled_from(["r2", "pearson", "rmse"])
)
def test_any_split_of_hours_gives_the_same(splits, name):
    forecast, reference = hours()
    total = Accumulator(METRICS[name], reduce=("time", "x"))
    for batch in np.split(np.arange(HOURS), splits):
        total.add(forecast.isel(time=batch), reference.isel(time=batch))
    assert_same(total.result(), METRICS[name](forecast, reference, reduce=("time", "x")))


def test_r2_is_of_each_hours_field_and_then_averaged():
    forecast, reference = hours(gaps=False)
    hourly = [
        1 - ((f - r) ** 2).sum() / ((r - r.mean()) ** 2).sum()
        for f, r in zip(forecast, reference, strict=True)
    ]
    score = r2(forecast, reference, reduce=("time", "y", "x"))
    assert float(score) == pytest.approx(float(np.mean(hourly)))
    # An hour without variance has no R2 and does not spoil the others.
    reference[2], forecast[2] = 280.0, 281.0
    score = r2(forecast, reference, reduce=("time", "y", "x"))
    assert float(score) == pytest.approx(np.mean([float(h) for n, h in enumerate(hourly) if n != 2]))


def test_moments_of_warm_fields_keep_their_digits():
    generator = np.random.default_rng(1)
    small = 1e-3 * generator.standard_normal((12, 2))
    forecast, reference = (xr.DataArray(v, dims=("time",)) for v in (300 + small).T)
    total = Accumulator(pearson, reduce="time")
    for batch in range(12):
        total.add(forecast[batch : batch + 1], reference[batch : batch + 1])
    expected = np.corrcoef(*small.T)[0, 1]
    assert float(total.result()) == pytest.approx(expected, rel=1e-8)


def test_a_reference_without_variance_has_no_r2_also_in_batches():
    constant = xr.DataArray(np.full((4, 3), 299.1), dims=("time", "x"))
    forecast = constant + np.arange(4).reshape(4, 1)
    total = Accumulator(r2, reduce="time")
    for batch in range(4):
        total.add(forecast[batch : batch + 1], constant[batch : batch + 1])
    assert np.isnan(total.result()).all()


def test_each_member_is_scored_alone_unless_members_are_averaged():
    forecast, reference = hours(members=True)
    each = rmse(forecast, reference)
    assert set(each.dims) == {"member", "time"}
    np.testing.assert_allclose(each.isel(member=1), rmse(forecast.isel(member=1), reference))
    together = mae(forecast, reference, reduce=("member", "time", "y", "x"))
    assert float(together) == pytest.approx(float(abs(forecast - reference).mean()))
    error = p99_error(forecast, reference, reduce=("member", "time", "y", "x"))
    assert float(error) == pytest.approx(float(p99_error(forecast, reference).mean()))


# Weights, options, refusals


@pytest.mark.parametrize("name", ["rmse", "r2", "pearson", "crps", "rank_histogram", "histogram", "brier"])
def test_whole_weights_count_points_that_often(name):
    found, options = METRICS[name], OPTIONS.get(name, {})
    forecast, reference = hours(found.ensemble)
    times = np.random.default_rng(2).integers(0, 3, WIDTH)
    weights = xr.DataArray(times.astype(float), {"x": reference["x"].values}, ("x",))
    weights = weights.where(weights > 0)
    columns = np.repeat(np.arange(WIDTH), times)
    repeated = [field.isel(x=columns).drop_vars("x") for field in (forecast, reference)]
    assert_same(
        found(forecast, reference, weights=weights, **options).drop_vars("x", errors="ignore"),
        found(*repeated, **options),
    )


def test_weights_that_do_not_fit():
    forecast, reference = hours()
    with pytest.raises(MetricError, match="dimension level that the fields lack"):
        rmse(forecast, reference, weights=xr.DataArray(np.ones(3), dims=("level",)))
    with pytest.raises(MetricError, match="weights do not lie on the coordinates"):
        rmse(forecast, reference, weights=xr.DataArray(np.ones(WIDTH), {"x": np.arange(WIDTH)}, ("x",)))


def test_unknown_options_and_missing_ones():
    forecast, reference = hours()
    with pytest.raises(MetricError, match="rmse has no option weight; it has weights"):
        rmse(forecast, reference, weight=1)
    with pytest.raises(MetricError, match="Brier score needs the option threshold"):
        METRICS["brier"](forecast, reference)
    for name, found in METRICS.items():
        if found.required:
            with pytest.raises(MetricError, match=found.required[0]):
                found(forecast, reference)
        assert set(found.required) <= set(OPTIONS.get(name, {}))


def test_metrics_of_fields_need_whole_fields():
    forecast, reference = hours()
    with pytest.raises(MetricError, match="has to hold y and x"):
        METRICS["spectral_slope_loss"](forecast, reference, reduce=("time", "x"))


def test_batches_that_do_not_fit_together():
    forecast, reference = hours()
    with pytest.raises(MetricError, match="only where time is reduced"):
        Accumulator(rmse, reduce=("y", "x"))
    total = Accumulator(rmse, reduce="time")
    with pytest.raises(MetricError, match="no RMSE yet"):
        total.result()
    total.add(forecast[:2], reference[:2])
    with pytest.raises(MetricError, match="more than their hours"):
        total.add(forecast[2:, 1:], reference[2:, 1:])
    percentiles = Accumulator(p99_error, reduce="time").add(forecast[:2], reference[:2])
    with pytest.raises(MetricError, match="need all hours at once"):
        percentiles.add(forecast[2:], reference[2:])


def test_penalty_puts_the_best_score_lowest():
    scores = xr.DataArray([-2.0, 0.5, 1.5], dims="x")
    assert int(rmse.penalty(scores).argmin("x")) == 0
    assert int(r2.penalty(scores).argmin("x")) == 2
    assert int(bias.penalty(scores).argmin("x")) == 1
    assert METRICS["spread_skill_ratio"].penalty(scores).values.tolist() == [3.0, 0.5, 0.5]
    with pytest.raises(MetricError, match="does not rank"):
        METRICS["spread"].penalty(scores)


def test_units_follow_the_rule():
    forecast, reference = hours()
    edges = OPTIONS["histogram"]["edges"]
    assert METRICS["histogram"](forecast, reference, edges=edges).attrs["units"] == "(K)-1"
    assert r2(forecast, reference).attrs["units"] == "1"
    assert "units" not in rmse(forecast.drop_attrs(), reference.drop_attrs()).attrs
