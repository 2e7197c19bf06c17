"""What the maps amount to over the region: a row of numbers for each field, as comma-separated values."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple

import numpy as np

from core.text import for_csv
from explorer.export.scene import Scene
from explorer.library import COARSE
from explorer.quantities import FloatField
from explorer.scores import NAMES, WITH_UNITS

STATISTICS = ("mean", "standard deviation", "lowest", "highest")


def statistics(values: FloatField) -> tuple[int, tuple[float, ...]]:
    """How many cells have a value, and :data:`STATISTICS` of them (the deviation with ddof 0), NaN where
    none has."""
    known = np.asarray(values, np.float64)[np.isfinite(values)]
    if not known.size:
        return 0, (np.nan,) * len(STATISTICS)
    return known.size, (known.mean(), known.std(), known.min(), known.max())


def to_csv(scene: Scene) -> str:
    """Statistics of every field over the region shown, and its scores against the truth where there are any.

    In display units; what a row is about stands in every row. Fields are counted on their own grid.
    """
    scores = {score.key: score for score in scene.scores}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    units, of_errors = scene.quantity.units, scene.quantity.difference_units
    widths = {"standard deviation": of_errors}
    writer.writerow(
        ["store", "synthetic", "hour (UTC)", "region", "variable", "field", "cells"]
        + [f"{name} [{widths.get(name, units)}]" for name in STATISTICS]
        + [f"{name} [{of_errors}]" if key in WITH_UNITS else name for key, name in NAMES.items()]
    )
    about = [
        for_csv(scene.opened.name), "yes" if scene.opened.synthetic else "no",
        str(np.datetime_as_string(scene.hour, unit="m")), scene.window.name, scene.quantity.label,
    ]  # fmt: skip
    for field in scene.fields:
        score = scores.get(field.key)
        count, numbers = statistics(field.values[scene.window.slices(scene.grid(field.values))])
        errors = astuple(score)[2:] if score is not None else (np.nan,) * len(NAMES)
        label = field.label
        if field.key == COARSE and score is not None:
            label += " (scored as interpolated quadratically)"
        writer.writerow([*about, for_csv(label), count, *map(_number, (*numbers, *errors))])
    return text.getvalue()


def _number(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""
