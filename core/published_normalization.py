"""Statistics for imported weights: the published pickle, or a JSON file.

The published data set (Tomasi, Franch and Cristoforetti, arXiv 2406.13627) comes with
``normalization_data.pkl``: mean and standard deviation of every variable by its published name, under
``ERA5`` for the predictors and ``CMCC`` for the targets. It is read without being run (:mod:`core.unpickle`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pydantic import ValidationError

from core.checkpoint import printable
from core.data.samples import MeanStd, Normalization
from core.inert_values import number, table
from core.unpickle import UnpickleError, read_pickle
from core.variables import PREDICTORS, VARIABLES

MAX_BYTES = 16 * 2**20
INPUTS = "ERA5"
OUTPUTS = "CMCC"


class NormalizationError(ValueError):
    """A file of statistics that can't be used; the message names the file and the fault."""


def read_normalization(
    path: str | Path,
    *,
    targets: Sequence[str],
    static: xr.Dataset | None,
    predictors: Sequence[str] = PREDICTORS,
) -> Normalization:
    """Statistics of exactly these predictors and targets, in their order, from a file of either kind.

    Parameters
    ----------
    path : a published ``normalization_data.pkl``, or JSON as ``Normalization.model_dump_json`` writes it
    static : static fields of the domain, from which the statistics of orography and latitude are computed
        where the file has none (the published one never does); they may be None where it has them

    Raises NormalizationError where the file is absent, damaged or lacks a variable, naming it.
    """
    path = Path(path)
    data = _read(path)
    if data.lstrip()[:1] == b"{":
        values = _from_json(path, data)
    else:
        values = _from_pickle(path, data, predictors, targets)
    for group, names in (("predictors", predictors), ("targets", targets)):
        given = values.get(group)
        given = given if isinstance(given, dict) else {}
        if missing := [name for name in names if name not in given]:
            raise NormalizationError(f"{path} has no statistics for the {group} {', '.join(missing)}.")
        values[group] = {name: given[name] for name in names}
    for name in ("orography", "latitude"):
        if name not in values:
            values[name] = _static_statistics(path, static, name).model_dump()
    try:
        return Normalization.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise NormalizationError(
            f"{path} has wrong statistics: {printable(where)}: {fault['msg']}."
        ) from error


def read_published_statistics(
    path: str | Path, *, predictors: Sequence[str], targets: Sequence[str]
) -> tuple[dict[str, MeanStd], dict[str, MeanStd]]:
    """Statistics of predictors and of targets, in the units of the file, from a ``normalization_data.pkl``.

    Raises NormalizationError where the file is absent, damaged or lacks a variable, naming it.
    """
    path = Path(path)
    values = _from_pickle(path, _read(path), predictors, targets)
    try:
        inputs, outputs = (
            {name: MeanStd.model_validate(value) for name, value in values[group].items()}
            for group in ("predictors", "targets")
        )
    except ValidationError as error:
        raise NormalizationError(f"{path} has wrong statistics: {error.errors()[0]['msg']}.") from error
    return inputs, outputs


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise NormalizationError(f"{path} can't be read: {error.strerror or error}.") from error
    if len(data) > MAX_BYTES:
        raise NormalizationError(f"{path} is too large for a file of statistics (over {MAX_BYTES} bytes).")
    return data


def _from_json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NormalizationError(f"{path} is not valid JSON: {error}.") from error
    assert isinstance(values, dict)
    return values


def _from_pickle(
    path: Path, data: bytes, predictors: Sequence[str], targets: Sequence[str]
) -> dict[str, dict[str, Any]]:
    try:
        sources = table(read_pickle(data))
    except UnpickleError as error:
        raise NormalizationError(
            f"{path} is no published file of statistics: {error}. Give that file, or JSON with predictors "
            "and targets."
        ) from error
    return {
        "predictors": _statistics(path, sources, INPUTS, predictors),
        "targets": _statistics(path, sources, OUTPUTS, targets),
    }


def _statistics(
    path: Path, sources: Mapping[Any, Any], source: str, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    result = {}
    for name in names:
        published = VARIABLES[name].published_name
        found = {}
        for statistic in ("mean", "std"):
            where = f"[{source!r}][{statistic!r}][{published!r}]"
            try:
                found[statistic] = number(table(table(sources[source])[statistic])[published])
            except KeyError as error:
                raise NormalizationError(f"{path} has no {where}, the statistics of {name}.") from error
            except UnpickleError as error:
                raise NormalizationError(f"{path} can't be used at {where}: {error}.") from error
        result[name] = found
    return result


def _static_statistics(path: Path, static: xr.Dataset | None, name: str) -> MeanStd:
    """Over the whole domain, with one degree of freedom removed, as PyTorch does by default."""
    if static is None or name not in static:
        raise NormalizationError(
            f"{path} has no statistics of {name}, and there are no static fields to compute them from."
        )
    values = static[name].values.astype(np.float64)
    std = float(values.std(ddof=1))
    if not np.isfinite(std) or std <= 0:
        raise NormalizationError(
            f"The static field {name} is constant or incomplete, so it can't be standardised."
        )
    return MeanStd(mean=float(values.mean()), std=std)
