"""The list of metrics, and the page of the documentation that shows it."""

from pathlib import Path

import pytest

from core.metrics.metric import MetricError
from core.metrics.registry import METRICS, find_metric, markdown

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_metrics_are_found_by_their_own_name():
    assert all(metric.name == name and find_metric(name) is metric for name, metric in METRICS.items())
    with pytest.raises(MetricError, match="choose one of rmse"):
        find_metric("skill")


def test_the_documentation_shows_every_metric_as_it_is():
    assert markdown() in (DOCS / "metrics.md").read_text()
