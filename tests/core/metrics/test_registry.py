"""The list of metrics, and the page of the documentation that shows it."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from core.metrics.metric import MetricError
from core.metrics.registry import METRICS, find_metric, markdown, of_one_field

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_metrics_are_found_by_their_own_name():
    assert all(metric.name == name and find_metric(name) is metric for name, metric in METRICS.items())
    with pytest.raises(MetricError, match="choose one of rmse"):
        find_metric("skill")


def test_the_documentation_shows_every_metric_as_it_is():
    assert markdown() in (DOCS / "metrics.md").read_text()


@pytest.mark.parametrize("name", METRICS)
def test_the_documentation_says_which_metrics_score_one_field(name):
    """What is marked gives one number for two plain fields; what is not can't, or is meant for ensembles."""
    generator = np.random.default_rng(0)
    axes = {"y": 2.5e6 - 2000.0 * np.arange(64), "x": 4e6 + 2000.0 * np.arange(64)}
    forecast, reference = (
        xr.DataArray(280 + generator.normal(size=(64, 64)).cumsum(0) / 5, axes, attrs={"units": "K"})
        for _ in range(2)
    )
    metric = METRICS[name]
    (row,) = (line for line in markdown().splitlines() if line.startswith(f"| `{name}` |"))
    assert (row.split(" | ")[-2] == "yes") is of_one_field(metric)
    assert (f"`{name}`" in markdown().splitlines()[-1]) is of_one_field(metric)
    if of_one_field(metric):
        assert np.isfinite(float(metric(forecast, reference)))
    elif not metric.ensemble:
        with pytest.raises(MetricError, match="needs the option"):
            metric(forecast, reference)
