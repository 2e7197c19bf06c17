"""Tables of scores with confidence intervals: Markdown for a README, CSV for a spreadsheet or a program."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from core.report.contents import (
    Absent,
    clear_winner,
    confidence,
    difference,
    estimates,
    hours_text,
    is_synthetic,
    models_of,
    score_of,
    scores_of,
    targets_of,
    variable,
)
from core.report.power import powers
from core.text import MISSING, decimals_for, fixed, for_csv, for_markdown, with_units

MAIN_SCORES = (
    "rmse",
    "bias",
    "r2",
    "pearson",
    "crps",
    "ensemble_rmse",
    "spread_skill_ratio",
    "spectral_slope_loss",
    "flux_error",
)
"""Scores of the main table."""


def score_columns(
    evaluation: xr.Dataset, target: str, scores: Sequence[str] = MAIN_SCORES
) -> dict[str, dict[str, tuple[str, str]]]:
    """Value and interval of every score and model as text; the interval is empty where it is not known.

    Scores without any value are left out. All numbers of a column have the same decimals.
    """
    columns = {}
    for name in scores:
        found = estimates(evaluation, name, target)
        if not found:
            continue
        sign = score_of(evaluation, name, target).best == "zero"
        decimals = decimals_for((e.value for e in found.values()), (e.half_width for e in found.values()))
        columns[name] = {
            key: (
                fixed(e.value, decimals, sign=sign),
                f"{fixed(e.low, decimals, sign=sign)}, {fixed(e.high, decimals, sign=sign)}"
                if math.isfinite(e.half_width)
                else "",
            )
            for key, e in found.items()
        }
    return columns


def markdown_table(evaluation: xr.Dataset, target: str, scores: Sequence[str] = MAIN_SCORES) -> str:
    """A row per model: each score with its interval, the best one bold where it is clearly the best.

    Clearly: the interval of the paired difference to the second best excludes zero. Units are in the header.
    Models and scores without a value are left out; the text ends without a line break.
    """
    columns = score_columns(evaluation, target, scores)
    models = [
        model for model in models_of(evaluation) if any(model.key in column for column in columns.values())
    ]
    heads, winners = [], {}
    for name in columns:
        score = score_of(evaluation, name, target)
        heads.append(
            for_markdown(with_units(score.title, score.units)).replace("\\[", "[").replace("\\]", "]")
        )
        winners[name] = clear_winner(evaluation, score, target)
    lines = ["| " + " | ".join(["model", "members", *heads]) + " |", "|---|" + "---:|" * (len(heads) + 1)]
    for model in models:
        cells = []
        for name, column in columns.items():
            value, interval = column.get(model.key, (MISSING, ""))
            value = f"**{value}**" if winners[name] == model.key else value
            cells.append(f"{value} [{interval}]" if interval else value)
        lines.append("| " + " | ".join([for_markdown(model.label), str(model.members), *cells]) + " |")
    return "\n".join(lines)


def explanation(evaluation: xr.Dataset) -> str:
    """What the brackets and the bold numbers of :func:`markdown_table` mean, and what the scores rest on."""
    block, count = (evaluation.attrs.get(name) for name in ("block_hours", "blocks"))
    blocks = f"{count} blocks of up to {block} hours" if count else f"blocks of {block} hours"
    return (
        f"Mean over {hours_text(evaluation)}, with {confidence(evaluation)} intervals"
        f"{f' (bootstrap over {blocks})' if block else ''}. Scores of ensembles are the mean over their "
        "members, "
        "except CRPS, RMSE of the mean and spread-skill ratio; of a single field, the CRPS is the MAE and "
        "the "
        "RMSE of the mean is the RMSE. Bold: best, and the interval of the paired difference to the second "
        "best "
        "excludes zero; of bias and spread-skill ratio, also that of the second best from the perfect value. "
        "Every score is the mean of the hours' scores."
        + (" The data is synthetic." if is_synthetic(evaluation) else "")
    )


def markdown_page(evaluation: xr.Dataset) -> str:
    """The main tables of all targets with their explanation."""
    parts = []
    for target in targets_of(evaluation):
        if len(targets_of(evaluation)) > 1:
            parts.append(f"**{for_markdown(target)}**")
        parts.append(markdown_table(evaluation, target))
    parts.append(for_markdown(explanation(evaluation), 1000))
    return "\n\n".join(parts) + "\n"


def csv_files(evaluation: xr.Dataset) -> dict[str, str]:
    """File name -> content of every table: scores, paired differences, scores by hour, power, cost."""
    made = {
        "scores.csv": _scores(evaluation),
        "differences.csv": _differences(evaluation),
        "hours.csv": _hours(evaluation),
        "power.csv": _power(evaluation),
        "cost.csv": _cost(evaluation),
    }
    return {name: _csv(rows) for name, rows in made.items() if len(rows) > 1}


Row = Sequence[str | float | int]


def _scores(evaluation: xr.Dataset) -> list[Row]:
    rows: list[Row] = [
        (
            "target",
            "score",
            "title",
            "units",
            "best",
            "model",
            "label",
            "members",
            "value",
            "low",
            "high",
            "hours",
        )
    ]
    for target in targets_of(evaluation):
        for name in scores_of(evaluation):
            score = score_of(evaluation, name, target)
            found = estimates(evaluation, name, target)
            for model in models_of(evaluation):
                if model.key in found:
                    rows.append(
                        (
                            target,
                            name,
                            score.title,
                            score.units or "",
                            score.best,
                            model.key,
                            model.label,
                            model.members,
                            *found[model.key],
                            _hours_of(evaluation, name, target, model.key),
                        )
                    )
    return rows


def _hours_of(evaluation: xr.Dataset, name: str, target: str, model: str) -> int | str:
    if name not in evaluation.data_vars or not {"model", "time"} <= set(evaluation[name].dims):
        return ""
    values = _of_model(evaluation[name], model)
    values = values.sel(target=target) if "target" in values.dims else values
    return int(np.isfinite(values.values).sum())


def _of_model(values: xr.DataArray, model: str) -> xr.DataArray:
    # Spectral slopes are known of the truth, too.
    return values.sel({"source" if "source" in values.dims else "model": model})


def _differences(evaluation: xr.Dataset) -> list[Row]:
    rows: list[Row] = [("target", "score", "units", "model", "other", "value", "low", "high")]
    keys = [model.key for model in models_of(evaluation)]
    for target in targets_of(evaluation):
        for name in scores_of(evaluation):
            units = score_of(evaluation, name, target).units or ""
            for model in keys:
                for other in keys:
                    gap = difference(evaluation, name, target, model, other)
                    if model != other and math.isfinite(gap.value):
                        rows.append((target, name, units, model, other, *gap))
    return rows


def _hours(evaluation: xr.Dataset) -> list[Row]:
    names = [
        name
        for name in scores_of(evaluation)
        if name in evaluation.data_vars and set(evaluation[name].dims) == {"model", "target", "time"}
    ]
    rows: list[Row] = [("target", "model", "time", *names)]
    if not names or "time" not in evaluation.coords:
        return rows
    times = [str(time) for time in np.atleast_1d(evaluation["time"].values)]
    if np.issubdtype(evaluation["time"].dtype, np.datetime64):
        times = [str(np.datetime_as_string(time, unit="m")) for time in evaluation["time"].values]
    for target in targets_of(evaluation):
        for model in models_of(evaluation):
            own = [_of_model(evaluation[name], model.key).sel(target=target).values for name in names]
            values = np.stack(own)
            rows += [
                (target, model.key, time, *values[:, number])
                for number, time in enumerate(times)
                if np.isfinite(values[:, number]).any()
            ]
    return rows


def _power(evaluation: xr.Dataset) -> list[Row]:
    rows: list[Row] = [
        ("target", "source", "wavelength_km", "ring_km", "p05", "p25", "median", "p75", "p95", "mean_log10")
    ]
    for target in targets_of(evaluation):
        try:
            density = variable(evaluation, "ralsd", target)
        except Absent:
            continue
        for wanted, power in powers(density).items():
            for source in density["source"].values:
                values = power.sel(source=source).values
                values = values[np.isfinite(values) & (values > 0)]
                if values.size:
                    shares = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
                    ring = float(power["wavelength"]) / 1e3
                    rows.append(
                        (
                            target,
                            str(source),
                            wanted / 1e3,
                            ring,
                            *map(float, shares),
                            float(np.log10(values).mean()),
                        )
                    )
    return rows


def cost(evaluation: xr.Dataset) -> dict[str, tuple[float, float]]:
    """Mean time of an hour with all members [s] and peak memory [MiB] by key; NaN where unknown.

    The mean, since the first of several hours that are computed together carries the time of all.
    """
    result = {}
    for model in models_of(evaluation):
        values = [math.nan, math.nan]
        for place, name in enumerate(("seconds", "peak_memory")):
            try:
                known = variable(evaluation, name).sel(model=model.key).values
            except Absent:
                continue
            if np.isfinite(known).any():
                values[place] = float(np.nanmean(known))
        if any(map(math.isfinite, values)):
            result[model.key] = (values[0], values[1])
    return result


def _cost(evaluation: xr.Dataset) -> list[Row]:
    rows: list[Row] = [("model", "label", "members", "seconds_per_hour", "evaluation_peak_memory_MiB")]
    found = cost(evaluation)
    rows += [
        (model.key, model.label, model.members, *found[model.key])
        for model in models_of(evaluation)
        if model.key in found
    ]
    return rows


def _csv(rows: Iterable[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow(
            for_csv(cell)
            if isinstance(cell, str)
            else ""
            if isinstance(cell, float) and math.isnan(cell)
            else f"{cell:.8g}"
            if isinstance(cell, float)
            else cell
            for cell in row
        )
    return buffer.getvalue()
