"""Tables: Markdown, CSV."""

import csv
import io

import numpy as np
import pytest

from core.report.tables import csv_files, markdown_page, markdown_table


def rows_of(content):
    return list(csv.DictReader(io.StringIO(content)))


def test_markdown_has_values_intervals_units_and_bold(evaluation):
    evaluation["summary"].loc[{"score": "rmse"}] = np.array(
        [[[2.0, 1.9, 2.1]], [[0.8, 0.75, 0.85]], [[1.0, 0.95, 1.05]]]
    )
    where = {"model": "unet", "other": "ldm_res", "target": "t2m", "score": "rmse"}
    evaluation["difference"].loc[where] = [-0.2, -0.3, -0.1]
    assert markdown_table(evaluation, "t2m", ["rmse"]) == "\n".join(
        [
            "| model | members | RMSE [K] |",
            "|---|---:|---:|",
            "| Quadratic interpolation | 1 | 2.000 [1.900, 2.100] |",
            "| UNet | 1 | **0.800** [0.750, 0.850] |",
            "| LDM_res | 4 | 1.000 [0.950, 1.050] |",
        ]
    )
    evaluation["difference"].loc[where] = [-0.2, -0.5, 0.1]
    assert "**" not in markdown_table(evaluation, "t2m", ["rmse"])


def test_markdown_leaves_out_scores_without_a_value(evaluation):
    table = markdown_table(evaluation, "t2m", ["rmse", "nothing"])
    assert "nothing" not in table
    assert "RMSE" in table
    without = evaluation.drop_vars(["summary", "difference"])
    assert "[" not in markdown_table(without, "t2m", ["r2"])


def test_labels_do_not_break_the_table(evaluation):
    evaluation = evaluation.assign_coords(label=("model", ["a|b", "<script>x</script>", "c\nd"]))
    lines = markdown_table(evaluation, "t2m", ["rmse"]).splitlines()
    assert len(lines) == 5
    assert "<script" not in "".join(lines)
    assert r"a\|b" in lines[2]


def test_the_page_explains_brackets_and_bold(evaluation):
    page = markdown_page(evaluation)
    assert "95 % intervals (bootstrap over blocks of 24 hours)" in page
    evaluation.attrs["blocks"] = 10
    assert "over 10 blocks of up to 24 hours" in markdown_page(evaluation)
    assert "The data is synthetic." in page


def test_csv_holds_the_numbers_of_the_summary(evaluation):
    files = csv_files(evaluation)
    row = next(r for r in rows_of(files["scores.csv"]) if (r["model"], r["score"]) == ("unet", "rmse"))
    expected = evaluation["summary"].sel(model="unet", target="t2m", score="rmse").values
    assert [float(row[part]) for part in ("value", "low", "high")] == pytest.approx(list(expected))
    assert (row["units"], row["members"], row["hours"]) == ("K", "1", "24")
    gap = next(
        r
        for r in rows_of(files["differences.csv"])
        if (r["model"], r["other"], r["score"]) == ("unet", "quadratic", "rmse")
    )
    known = evaluation["difference"].sel(model="unet", other="quadratic", target="t2m", score="rmse")
    assert float(gap["value"]) == pytest.approx(float(known.sel(estimate="value")))


def test_csv_holds_every_hour(evaluation):
    rows = rows_of(csv_files(evaluation)["hours.csv"])
    assert len(rows) == 3 * 24
    unet = next(row for row in rows if row["model"] == "unet" and row["time"] == "2018-04-16T00:00")
    assert float(unet["mae"]) == pytest.approx(float(evaluation["mae"].sel(model="unet", target="t2m")[0]))
    assert unet["ensemble_variance"] == ""


def test_scores_of_sources_may_be_in_the_summary(evaluation):
    names = [name.replace("perkins", "spectral_slope") for name in evaluation["score"].values]
    files = csv_files(evaluation.assign_coords(score=names))
    assert any(row["score"] == "spectral_slope" for row in rows_of(files["scores.csv"]))
    assert "spectral_slope" not in files["hours.csv"].splitlines()[0].split(",")


def test_csv_holds_no_formula(evaluation):
    evaluation = evaluation.assign_coords(label=("model", ["=HYPERLINK(1)", "b", "c"]))
    assert {row["label"] for row in rows_of(csv_files(evaluation)["cost.csv"])} == {
        "'=HYPERLINK(1)",
        "b",
        "c",
    }


def test_tables_without_rows_are_left_out(evaluation):
    assert "power.csv" in csv_files(evaluation)
    files = csv_files(evaluation.drop_vars(["ralsd", "difference", "seconds", "peak_memory"]))
    assert set(files) == {"scores.csv", "hours.csv"}
