"""Tables, exports and distributions of scores."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from core.regions import whole_window
from explorer.results import Results
from explorer.scores import (
    METRICS,
    NAMES,
    WITH_UNITS,
    Score,
    best,
    compute_score,
    error_distributions,
    to_csv,
)
from tests.explorer.small_store import DOMAIN

ROWS = [
    Score("a", "First, with a comma", 1.5, 1.0, -0.4, 0.8, 0.9),
    Score("b", "Second", 1.2, 1.1, 0.5, 0.7, 0.95),
    Score("c", "Undefined", *[float("nan")] * 5),
]


def test_columns_are_the_scores_of_core_and_those_with_the_unit_of_the_field_say_so():
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    assert list(NAMES.values()) == ["RMSE", "MAE", "Bias", "R²", "Pearson r"]
    assert WITH_UNITS == ("rmse", "mae", "bias")


def test_rows_that_are_equally_good_are_all_best():
    twins = [replace(ROWS[0], key="d", bias=0.4), *ROWS]
    assert best(twins, "bias") == {"a", "d"}
    assert best(ROWS[2:] * 2, "rmse") == set()


def test_known_errors_give_known_scores():
    truth = np.tile(np.array([1.0, -1.0], "f4"), (64, 24))
    forecast = truth + 2
    score = compute_score("k", "K", forecast, truth, whole_window(DOMAIN), DOMAIN, Results(10_000), "address")
    assert (score.rmse, score.mae, score.bias) == (2, 2, 2)
    assert score.r2 == pytest.approx(1 - 4 / 1)
    assert score.pearson == pytest.approx(1)


def test_best_is_the_smallest_error_and_the_highest_correlation():
    assert best(ROWS, "rmse") == {"b"}
    assert best(ROWS, "bias") == {"a"}
    assert best(ROWS, "r2") == {"a"}
    assert best(ROWS, "pearson") == {"b"}
    assert best(ROWS[:1], "rmse") == set()


def test_csv_can_be_read_back():
    written = to_csv(ROWS, store="demo", hour="2021-03-16T12:00", region="Alps", variable="t2m", units="K")
    rows = list(csv.DictReader(io.StringIO(written)))
    assert [row["downscaler"] for row in rows] == ["First, with a comma", "Second", "Undefined"]
    assert float(rows[0]["RMSE [K]"]) == 1.5
    assert float(rows[1]["Pearson r"]) == 0.95
    assert rows[2]["R²"] == "nan"


def test_error_distribution_counts_the_cells():
    truth = np.zeros((64, 48), "f4")
    narrow = np.where(np.arange(48) < 12, 1.0, -1.0).astype("f4") * np.ones((64, 1), "f4")
    wide = np.full((64, 48), 2.0, "f4")
    fields = [("narrow", narrow, truth), ("wide", wide, truth)]
    (key, centres, density), (_, other, wide_density) = error_distributions(
        fields, whole_window(DOMAIN), DOMAIN, bins=4
    )
    assert key == "narrow"
    np.testing.assert_allclose(centres, [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_array_equal(centres, other)
    np.testing.assert_allclose(density, [0, 75, 0, 25])
    np.testing.assert_allclose(wide_density, [0, 0, 0, 100])


def test_error_distribution_of_nothing_is_empty():
    nothing = np.full((64, 48), np.nan, "f4")
    assert error_distributions([("x", nothing, nothing)], whole_window(DOMAIN), DOMAIN) == []


def test_csv_holds_no_formula():
    rows = [replace(ROWS[0], label='=HYPERLINK("http://x")')]
    written = to_csv(rows, store="+demo", hour="2021-03-16T12:00", region="Alps", variable="t2m", units="K")
    (row,) = csv.DictReader(io.StringIO(written))
    assert (row["store"], row["downscaler"]) == ("'+demo", '\'=HYPERLINK("http://x")')
    assert float(row["Bias [K]"]) == -0.4
