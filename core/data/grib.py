"""GRIB files as datasets, by cfgrib, which is an optional extra.

cfgrib keeps an index beside every file that it opens, and unpickles the index that it finds there. Here the
index lies in a temporary folder of its own: nothing is left beside the user's files, and nothing beside them
is executed.

Sums say in GRIB what they are sums of: each message has the steps of the forecast at which it starts and
ends. cfgrib keeps the end only, so the headers are read once more here.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

# Before cfgrib: where the library behind it is loaded first, pyproj no longer finds its table of projections.
import pyproj
import xarray as xr
from numpy.typing import NDArray

from core.data.input_error import InputError

Times = NDArray[np.datetime64]


@dataclass(frozen=True, eq=False)
class GribDataset:
    """One table of messages with the same levels and steps.

    ``starts`` holds for each variable when its fields began, in the order of its valid times, datetime64[ns]:
    the valid time itself for states, the start of the sum for sums, NaT where there is no message.
    """

    dataset: xr.Dataset
    starts: Mapping[str, Times]


@contextmanager
def open_grib(label: str, path: Path) -> Iterator[list[GribDataset]]:
    """Open a GRIB file of edition 1 or 2 for the duration of a ``with`` block; values are read when needed.

    Raises InputError where cfgrib is not installed or the file is damaged or incomplete.
    """
    cfgrib = _cfgrib(label)
    with tempfile.TemporaryDirectory(prefix="tramontana-grib-") as folder, warnings.catch_warnings():
        # cfgrib merges in a way that xarray announces to change; the result is the same for both.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            starts = _starts(cfgrib, path)
        except Exception as error:
            # The reader raises many kinds of exception on damaged files.
            raise InputError(
                f"{label} can't be read, it is damaged or incomplete ({_detail(error)}); download it again."
            ) from error
        try:
            datasets = cfgrib.open_datasets(
                str(path),
                backend_kwargs={"indexpath": f"{folder}/{{short_hash}}.idx", "errors": "raise"},
                cache=False,
                decode_timedelta=True,
            )
            opened = [GribDataset(dataset, _of(dataset, starts)) for dataset in datasets]
        except Exception as error:
            # And many where messages don't form tables, such as an ensemble beside a single forecast.
            raise InputError(
                f"The messages of {label} can't be put together by cfgrib ({_detail(error)}); split the "
                "file, for example by variable, level or ensemble member with grib_copy, and name all parts."
            ) from error
        try:
            yield opened
        finally:
            for one in opened:
                one.dataset.close()


def _detail(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _cfgrib(label: str) -> ModuleType:
    assert pyproj is not None
    try:
        import cfgrib
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"{label} is a GRIB file, and reading it needs cfgrib and eccodes, which are not installed or "
            f"don't work ({error}): pip install 'tramontana[grib]'. Or ask for NetCDF instead."
        ) from error
    module: ModuleType = cfgrib
    return module


def _starts(cfgrib: Any, path: Path) -> dict[tuple[int, np.datetime64, np.timedelta64], np.datetime64]:
    """When the field of (parameter, start of forecast, end of step) began, for every message."""
    found: dict[tuple[int, np.datetime64, np.timedelta64], np.datetime64] = {}
    for _, message in cfgrib.messages.FileStream(str(path), errors="raise").items():
        reference = np.datetime64(cfgrib.cfmessage.from_grib_date_time(message), "s").astype("datetime64[ns]")
        end, start = (
            _hours(cfgrib.cfmessage.from_grib_step(message, step_key=key))
            for key in ("endStep:int", "startStep:int")
        )
        # Where two sums end at one hour (GFS: 0 to 9 and 6 to 9 hours), cfgrib takes the first.
        found.setdefault((message["paramId"], reference, end), reference + start)
    return found


def _hours(hours: float) -> np.timedelta64:
    return np.timedelta64(round(hours * 3.6e12), "ns")


def _of(
    dataset: xr.Dataset, starts: Mapping[tuple[int, np.datetime64, np.timedelta64], np.datetime64]
) -> dict[str, Times]:
    """For each variable the starts in the order of its valid times."""
    if "time" not in dataset.coords or "step" not in dataset.coords or "valid_time" not in dataset.coords:
        return {}
    reference, step = xr.broadcast(dataset["time"], dataset["step"])
    order = dataset["valid_time"].dims
    pairs = [
        np.asarray(table.transpose(*order).values).ravel().astype(kind)
        for table, kind in ((reference, "datetime64[ns]"), (step, "timedelta64[ns]"))
    ]
    return {
        str(name): np.array(
            [
                starts.get((int(array.attrs.get("GRIB_paramId", -1)), time, end), np.datetime64("NaT"))
                for time, end in zip(*pairs, strict=True)
            ],
            "datetime64[ns]",
        )
        for name, array in dataset.data_vars.items()
    }
