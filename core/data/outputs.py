"""Fields of others in a store: what the authors' models gave for hours of it, beside its truth.

    /outputs/<name>   targets (time, y, x) on the fine grid, for hours of its own

A group says in its attributes which model made the fields and which file they come from. Readers of the
store need not know of it; :mod:`core.downscale.stored` gives the fields again as a downscaler.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from core.data.groups import put_group
from core.data.store import Store, StoreError, grid_mapping_attrs
from core.plural import are, counted
from core.published_outputs import OutputField, OutputsError, read_outputs
from core.variables import TARGETS, VARIABLES

GROUP = "outputs"
FORMAT_ATTRIBUTE = "tramontana_output"
FORMAT = 1

COARSE_MODEL, TRUTH_MODEL = "ERA5", "COSMO-CLM"
"""What the tables call the input and the truth, which a store has from the days themselves."""

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
"""What zarr and its codecs raise on groups that are damaged or incomplete."""

_OURS = {VARIABLES[name].published_name: name for name in TARGETS}


@dataclass(frozen=True)
class OutputsReport:
    """What :func:`ingest_outputs` wrote: groups by name with (label, hours), and sentences."""

    store: Path
    groups: Mapping[str, tuple[str, int]]
    notes: tuple[str, ...]

    def sentences(self) -> list[str]:
        """The report for people, a sentence each."""
        lines = [f"{label}: {counted(hours, 'hour')}." for label, hours in self.groups.values()]
        return [*lines, *self.notes]


def ingest_outputs(file: str | Path, store: str | Path) -> OutputsReport:
    """Write the fields of a published table of outputs into a store, a group for each model and target.

    A group of the same model from before is replaced. The table's input (ERA5) is left out; its truth
    (COSMO-CLM) is compared with that of the store where both have it: do the two belong together?

    Raises
    ------
    OutputsError
        where the table can't be used, lies on another grid, has a row twice, or holds impossible values.
    StoreError
        where there is no store.
    """
    file, opened = Path(file), Store.open(store)
    rows = read_outputs(file)
    notes: list[str] = []
    models: dict[tuple[str, str], dict[np.datetime64, dict[str, OutputField]]] = {}
    skipped: dict[str, None] = {}
    for row in rows:
        if row.variable not in _OURS:
            skipped[row.variable] = None
        elif row.model != COARSE_MODEL:
            _check(row, opened, file)
            fields = models.setdefault((row.model, row.target_var), {}).setdefault(row.time, {})
            if fields.setdefault(_OURS[row.variable], row) is not row:
                raise OutputsError(f"{file} has {row.variable} of {row.model} at {_show(row.time)} twice.")
    if skipped:
        notes.append(
            f"{', '.join(skipped)} left out: it follows from the other variables or is not known here."
        )
    truths = [times for (model, _), times in models.items() if model == TRUTH_MODEL]
    models = {key: times for key, times in models.items() if key[0] != TRUTH_MODEL}
    if not models:
        raise OutputsError(f"{file} holds no field of a model, only input or truth.")
    notes += _compare(
        [row for times in truths for fields in times.values() for row in fields.values()], opened
    )
    hours = {time for times in models.values() for time in times}
    if strange := [time for time in sorted(hours) if time not in opened.hours]:
        notes.append(
            f"{counted(len(strange), 'hour')} {are(len(strange))} not in {opened.path}, for example "
            f"{_show(strange[0])}; ingest their days to see them."
        )
    content = file.read_bytes()
    named: dict[str, tuple[str, str]] = {}
    # All of it is looked through before the first group is written.
    for (model, network), times in models.items():
        name = re.sub(r"[^a-z0-9]+", "-", f"{model} {network}".lower()).strip("-")
        if not name or name in named:
            raise OutputsError(f"{file} has a model called {model!r}, which can't be told from others.")
        named[name] = model, network
        _check_complete(times, model, file)
    made = {}
    for name, (model, network) in named.items():
        times = models[model, network]
        label = f"Published {model} {network} (authors' output)"
        digest = hashlib.sha256(f"{model}\n{network}\n".encode() + content).hexdigest()
        _write(opened, name, _dataset(opened, times, label, model, file, digest))
        made[name] = (label, len(times))
    return OutputsReport(opened.path, made, tuple(notes))


def output_names(store: Store) -> tuple[str, ...]:
    """The groups of outputs that a store has."""
    folder = store.path / GROUP
    found = [place.parent for place in folder.glob("*/zarr.json")] if folder.is_dir() else []
    return tuple(sorted(place.name for place in found if _attrs(place).get(FORMAT_ATTRIBUTE) == FORMAT))


def output_attrs(store: Store, name: str) -> dict[str, Any]:
    """The attributes of a group: ``label``, ``model``, ``source_file``, ``content_sha256``, ``references``.

    Raises StoreError where there is no such group.
    """
    attrs = _attrs(store.path / GROUP / name)
    if attrs.get(FORMAT_ATTRIBUTE) != FORMAT:
        raise StoreError(f"{store.path} holds no outputs called {name}.")
    return attrs


def open_output(store: Store, name: str) -> xr.Dataset:
    """Targets (time, y, x) of a group, read when they are needed. Raises StoreError where it is not there."""
    output_attrs(store, name)
    try:
        dataset: xr.Dataset = xr.open_zarr(
            str(store.path), group=f"{GROUP}/{name}", consolidated=False, chunks=None
        )
        fits = store.domain.fine.matches(dataset["x"].values, dataset["y"].values)
        whole = "time" in dataset.coords and any(target in dataset for target in TARGETS)
    except _UNREADABLE as error:
        raise StoreError(f"/{GROUP}/{name} of {store.path} can't be read: {error}") from error
    if not whole:
        raise StoreError(f"/{GROUP}/{name} of {store.path} lacks fields or their hours; ingest it again.")
    if not fits:
        raise StoreError(f"/{GROUP}/{name} of {store.path} does not lie on its fine grid; ingest it again.")
    return dataset


def _attrs(place: Path) -> dict[str, Any]:
    try:
        return dict(zarr.open_group(str(place), mode="r", use_consolidated=False).attrs)
    except _UNREADABLE:  # it went while we looked, or is something else
        return {}


# ---------------------------------------------------------------- writing


def _check(row: OutputField, store: Store, file: Path) -> None:
    """Raise OutputsError where a field does not fit the store or can't be what it says."""
    what = f"{file}: {row.variable} of {row.model} at {_show(row.time)}"
    if row.values.shape != store.domain.fine.shape:
        height, width = store.domain.fine.shape
        raise OutputsError(
            f"{what} has {row.values.shape[0]} x {row.values.shape[1]} cells; {store.path} has {height} x "
            f"{width}."
        )
    variable = VARIABLES[_OURS[row.variable]]
    low, high = variable.valid_range
    valid = row.values[~np.isnan(row.values)]
    if valid.size and not (valid.min() >= low and valid.max() <= high):
        raise OutputsError(
            f"{what} ranges from {valid.min():g} to {valid.max():g}; possible values are {low:g} to {high:g} "
            f"{variable.units}."
        )


def _check_complete(times: Mapping[np.datetime64, Mapping[str, OutputField]], model: str, file: Path) -> None:
    """Raise OutputsError where a variable is there at some hours only."""
    names = [name for name in TARGETS if any(name in fields for fields in times.values())]
    for time in sorted(times):
        if lacking := [name for name in names if name not in times[time]]:
            raise OutputsError(f"{file} has no {', '.join(lacking)} of {model} at {_show(time)}.")


def _compare(truth: Iterable[OutputField], store: Store) -> list[str]:
    """A sentence on how far the truth of the table is from that of the store."""
    differences = []
    for row in truth:
        name = _OURS[row.variable]
        if name in store.contents.targets and row.time in store.hours:
            ours = store.read_fine([row.time], [name])[name].values[0]
            differences.append(float(np.nanmax(np.abs(ours - row.values))))
    if not differences:
        return []
    return [
        f"The truth in the table ({TRUTH_MODEL}) and that of the store differ by at most "
        f"{max(differences):.2g} (in the units of the variable) in {counted(len(differences), 'field')}."
    ]


def _dataset(
    store: Store,
    times: Mapping[np.datetime64, Mapping[str, OutputField]],
    label: str,
    model: str,
    file: Path,
    digest: str,
) -> xr.Dataset:
    grid, stamps = store.domain.fine, sorted(times)
    names = [name for name in TARGETS if name in times[stamps[0]]]
    data = {
        name: (
            ("time", "y", "x"),
            np.stack([times[time][name].values for time in stamps]),
            {**VARIABLES[name].attrs, "grid_mapping": "spatial_ref"},
        )
        for name in names
    }
    coords = {"time": np.array(stamps, "datetime64[ns]"), "y": grid.y, "x": grid.x}
    dataset = xr.Dataset(data, coords=coords)
    for axis in ("x", "y"):
        dataset[axis].attrs = {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
    dataset.coords["spatial_ref"] = ((), 0, grid_mapping_attrs(grid))
    dataset.attrs = {
        "Conventions": "CF-1.11",
        FORMAT_ATTRIBUTE: FORMAT,
        "title": label,
        "label": label,
        "model": model,
        "source": "fields that the authors of the published models computed and published",
        "source_file": file.name,
        "content_sha256": digest,
        "references": "doi:10.5194/gmd-18-2051-2025",
    }
    return dataset


def _write(store: Store, name: str, dataset: xr.Dataset) -> None:
    height, width = store.domain.fine.shape
    encoding: dict[str, dict[str, Any]] = {
        str(key): {"chunks": (1, height, width)} for key in dataset.data_vars
    }
    encoding["time"] = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    try:
        put_group(store, f"{GROUP}/{name}", dataset, encoding)
    except OSError as error:
        place = store.path / GROUP / name
        raise OutputsError(f"{place} can't be written: {error.strerror or error}.") from error


def _show(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='m').replace('T', ' ')} UTC"


__all__ = [
    "OutputsError",
    "OutputsReport",
    "ingest_outputs",
    "open_output",
    "output_attrs",
    "output_names",
]
