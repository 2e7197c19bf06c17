"""The result of an evaluation as one dataset, and its file ``evaluation.nc``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core import __version__
from core.data.store import grid_mapping_attrs
from core.downscale import GenerativeDownscaler
from core.evaluation import bootstrap
from core.evaluation.field_scores import (
    SCORES,
    SURFACES,
    Array,
    bin_edges,
    probability_edges,
    score_attrs,
    spread_edges,
)
from core.evaluation.run import PARTS, TRUTH, Evaluation, describe_machine, facts, kind_of, part_of
from core.evaluation.tally import EvaluationError, Tally
from core.metrics.spectra import ralsd
from core.variables import VARIABLES

NAME = "evaluation.nc"
CONFIDENCE = 0.95
RATIO = "spread_skill_ratio"
ESTIMATES = ("value", "low", "high")
OWN = tuple(name for name in SCORES if name != "spectral_slope")
"""Scores that belong to models alone; slopes belong to the truth as well."""


def open_evaluation(folder: str | Path) -> xr.Dataset:
    """The result in ``folder`` (or in a file of any name), read completely.

    Raises EvaluationError where there is none, or it can't be read.
    """
    path = Path(folder)
    path = path / NAME if path.is_dir() else path
    if not path.exists():
        raise EvaluationError(f"{path} is not there; `tramontana evaluate STORE --out FOLDER` makes it.")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as data:
            return data.load()
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(f"{path} can't be read as an evaluation: {error}") from error


def write_result(
    plan: Evaluation, folder: Path, *, block_hours: int = 24, resamples: int = 2000, command: str = ""
) -> Path:
    """Put what is known of all models of a plan into ``folder / "evaluation.nc"``."""
    from core.evaluation.files import replacing

    parts = folder / PARTS
    truth = Tally.resume(part_of(parts, None), plan.identity(None), plan.targets, plan.hours)
    tallies = [
        Tally.resume(part_of(parts, d), plan.identity(d), plan.targets, plan.hours) for d in plan.downscalers
    ]
    data = assemble(plan, truth, tallies)
    # All targets of the store are planned for, so that a model of other ones may be added later.
    made = [name for name in plan.targets if any(name in d.targets for d in plan.downscalers)]
    data = data.sel(target=made)
    data = data.merge(intervals(data, block_hours=block_hours, resamples=resamples))
    data.attrs |= _attrs(plan, block_hours, resamples, command)
    path = folder / NAME
    packed = {"zlib": True, "complevel": 1}
    with replacing(path) as temporary:
        data.to_netcdf(
            temporary,
            engine="h5netcdf",
            encoding={str(name): packed for name, values in data.items() if values.ndim > 2},
        )
    return path


def assemble(plan: Evaluation, truth: Tally, tallies: Sequence[Tally]) -> xr.Dataset:
    """Scores, maps, spectra and distributions of all models, without intervals."""
    models, targets, domain = plan.downscalers, plan.targets, plan.store.domain
    keys = [d.key for d in models]
    members = [plan.members_of(d) for d in models]
    fields = ("model", "target", "y", "x")
    data: dict[str, Any] = {
        name: (("model", "target", "time"), np.stack([t.scores[name] for t in tallies]), score_attrs(name))
        for name in OWN
    }
    data["spectral_slope"] = (
        ("source", "target", "time"),
        np.stack([t.scores["spectral_slope"] for t in (truth, *tallies)]),
        score_attrs("spectral_slope"),
    )
    data["seconds"] = (
        ("model", "time"),
        np.stack([t.seconds for t in tallies]),
        {"long_name": "computing time of all members of an hour", "units": "s"},
    )
    data["peak_memory"] = (
        "model",
        [t.peak_memory for t in tallies],
        {"long_name": "largest resident memory of the process while it evaluated the model", "units": "MiB"},
    )
    data |= _maps(tallies, targets, domain.fine.shape, fields)
    data |= _curves(plan, truth, tallies, members)
    data["ralsd"] = (
        ("source", "target", "time", "wavelength"),
        _spectra((truth, *tallies)),
        {"long_name": "radially averaged power spectral density, mean over members"},
    )
    data |= _snapshots(plan, truth, tallies)
    example = xr.DataArray(
        np.zeros(domain.fine.shape), dims=("y", "x"), coords={"y": domain.fine.y, "x": domain.fine.x}
    )
    static = plan.store.read_static() if plan.store.contents.statics else xr.Dataset()
    for name in ("orography", "land_fraction"):
        if name in static:
            data[name] = (("y", "x"), static[name].values, VARIABLES[name].attrs)
    labels = [d.label for d in models]
    found = xr.Dataset(
        data,
        coords={
            "model": keys,
            "label": ("model", labels),
            "kind": ("model", [kind_of(d) for d in models]),
            "members": ("model", members),
            "source": [TRUTH, *keys],
            "source_label": ("source", ["Truth", *labels]),
            "target": list(targets),
            "time": plan.hours,
            "y": ("y", domain.fine.y, {"units": "m", "standard_name": "projection_y_coordinate"}),
            "x": ("x", domain.fine.x, {"units": "m", "standard_name": "projection_x_coordinate"}),
            "wavelength": ("wavelength", ralsd(example)["wavelength"].values, {"units": "m"}),
            "surface": list(SURFACES),
            "bin_value": (
                ("target", "bin"),
                np.stack([(bin_edges(t)[1:] + bin_edges(t)[:-1]) / 2 for t in targets]),
            ),
            "probability": (probability_edges()[1:] + probability_edges()[:-1]) / 2,
            "rank": np.arange(max(members) + 1),
            "snapshot_time": plan.snapshot_hours,
            "y_coarse": ("y_coarse", domain.coarse.y, {"units": "m"}),
            "x_coarse": ("x_coarse", domain.coarse.x, {"units": "m"}),
        },
    )
    found["spatial_ref"] = ((), 0, grid_mapping_attrs(domain.fine))
    for values in found.data_vars.values():
        if {"y", "x"} <= set(values.dims):
            values.attrs["grid_mapping"] = "spatial_ref"
    return found


def _maps(
    tallies: Sequence[Tally], targets: Sequence[str], shape: tuple[int, int], dims: tuple[str, ...]
) -> dict[str, Any]:
    """Bias and errors at every point, means over hours."""

    def mean(name: str, *, root: bool) -> NDArray[np.float32]:
        result = np.full((len(tallies), len(targets), *shape), np.nan, np.float32)
        for number, tally in enumerate(tallies):
            for place in range(len(targets)):
                total, count = tally.sums[name][place], tally.sums["count"][place]
                if total is None or count is None:
                    continue
                with np.errstate(invalid="ignore", divide="ignore"):
                    value = np.where(count > 0, total / count, np.nan)
                result[number, place] = np.sqrt(value) if root else value
        return result

    said = {
        "bias_map": ("error", False, "mean error over hours and members"),
        "rmse_map": ("square", True, "root-mean-square error over hours and members"),
        "ensemble_rmse_map": ("mean_square", True, "root-mean-square error of the ensemble mean over hours"),
        "spread_map": ("variance", True, "ensemble spread: root of the mean variance over hours"),
    }
    return {
        name: (dims, mean(part, root=root), {"long_name": long_name})
        for name, (part, root, long_name) in said.items()
    }


def _curves(
    plan: Evaluation, truth: Tally, tallies: Sequence[Tally], members: Sequence[int]
) -> dict[str, Any]:
    """Frequency distributions, rank histograms, error given spread, reliability."""
    targets = plan.targets

    def stacked(name: str, size: tuple[int, ...], sources: Sequence[Tally]) -> Array:
        result = np.full((len(sources), len(targets), *size), np.nan)
        for number, tally in enumerate(sources):
            for place in range(len(targets)):
                values = tally.sums[name][place]
                if values is not None:
                    # Ranks are as many as the model has members, and one.
                    result[number, place][tuple(map(slice, values.shape))] = values
        return result

    def share(values: Array, axis: int) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: Array = values / np.nansum(values, axis=axis, keepdims=True)
        return result

    def mean(name: str, weight: str, size: int) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: Array = stacked(name, (size,), tallies) / stacked(weight, (size,), tallies)
        return result

    bins = bin_edges(targets[0]).size - 1
    spreads = spread_edges(targets[0]).size - 1
    probabilities = probability_edges().size - 1
    of_model = ("model", "target")
    return {
        "histogram": (
            ("source", "target", "surface", "bin"),
            share(stacked("histogram", (len(SURFACES), bins), [truth, *tallies]), -1),
            {"long_name": "relative frequency of values in bins, per surface", "units": "1"},
        ),
        "rank_histogram": (
            (*of_model, "rank"),
            share(stacked("ranks", (max(members) + 1,), tallies), -1),
            {"long_name": "relative frequency of the rank of the truth among the members", "units": "1"},
        ),
        "spread_of_bin": (
            (*of_model, "spread_bin"),
            mean("spread_variance", "spread_weight", spreads) ** 0.5,
        ),
        "error_of_bin": (
            (*of_model, "spread_bin"),
            mean("spread_squared_error", "spread_weight", spreads) ** 0.5,
        ),
        "points_of_bin": ((*of_model, "spread_bin"), stacked("spread_weight", (spreads,), tallies)),
        "reliability_forecast": (
            (*of_model, "probability"),
            mean("reliability_forecast", "reliability_weight", probabilities),
        ),
        "reliability_observed": (
            (*of_model, "probability"),
            mean("reliability_observed", "reliability_weight", probabilities),
        ),
        "reliability_points": (
            (*of_model, "probability"),
            stacked("reliability_weight", (probabilities,), tallies),
        ),
    }


def _spectra(tallies: Sequence[Tally]) -> Array:
    """(source, target, time, wavelength); a model may make none of the targets."""
    size = max(s.shape[1] for tally in tallies for s in tally.spectra if s is not None)
    empty = np.full((tallies[0].hours.size, size), np.nan)
    return np.stack([np.stack([empty if s is None else s for s in t.spectra]) for t in tallies])


def _snapshots(plan: Evaluation, truth: Tally, tallies: Sequence[Tally]) -> dict[str, Any]:
    shape = (plan.snapshot_hours.size, len(plan.targets), *plan.store.domain.fine.shape)
    empty = np.full(shape, np.nan, np.float32)

    def stacked(name: str, sources: Sequence[Tally]) -> NDArray[np.float32]:
        return np.stack([tally.snapshots.get(name, empty) for tally in sources], axis=1)

    dims = ("snapshot_time", "model", "target", "y", "x")
    data: dict[str, Any] = {
        "snapshot": (("snapshot_time", "source", *dims[2:]), stacked("snapshot", [truth, *tallies])),
        "snapshot_mean": (dims, stacked("snapshot_mean", tallies)),
        "snapshot_spread": (dims, stacked("snapshot_spread", tallies)),
    }
    names = [name for name in plan.targets if name in plan.store.contents.predictors]
    coarse = plan.store.read_coarse(plan.snapshot_hours, names) if names else xr.Dataset()
    missing = np.full((shape[0], *plan.store.domain.coarse.shape), np.nan, np.float32)
    data["snapshot_coarse"] = (
        ("snapshot_time", "target", "y_coarse", "x_coarse"),
        np.stack([coarse[n].values if n in coarse else missing for n in plan.targets], axis=1),
    )
    return data


def intervals(data: xr.Dataset, *, block_hours: int = 24, resamples: int = 2000) -> xr.Dataset:
    """``summary`` and ``difference``: means over hours with bootstrap intervals, and paired differences.

    ``data`` holds the scores as :func:`assemble` gives them. A difference is that over the hours for which
    both models have the score, so it need not be that of both means. A single block has no bounds (NaN).
    """
    values = {name: data[name].values for name in OWN if name in data}
    values["spectral_slope"] = data["spectral_slope"].isel(source=slice(1, None)).values
    blocks = bootstrap.blocks_of(data["time"].values, block_hours)
    counts = bootstrap.weights(blocks, data.sizes["time"], resamples)
    means = {name: bootstrap.weighted_means(of_hours, counts) for name, of_hours in values.items()}
    members = data["members"].values.astype(np.float64)[:, None, None]
    scores = [*values, RATIO]
    summary = bootstrap.interval(_with_ratio(means, members), CONFIDENCE)
    gaps = []
    for other, count in enumerate(members):
        pairs = {name: _paired(of_hours, means[name], other, counts) for name, of_hours in values.items()}
        own, its = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
        gaps.append(bootstrap.interval(_with_ratio(own, members) - _with_ratio(its, count), CONFIDENCE))
    difference = np.stack(gaps, axis=1)
    if len(blocks) < 2:
        # All draws are the same, which says nothing about other hours.
        summary[..., 1:] = difference[..., 1:] = np.nan
    said = [score_attrs(name) for name in scores]
    return xr.Dataset(
        {
            "summary": (("model", "target", "score", "estimate"), summary),
            "difference": (("model", "other", "target", "score", "estimate"), difference),
        },
        coords={
            "model": data["model"],
            "other": data["model"].values,
            "target": data["target"],
            "score": scores,
            "score_title": ("score", [one["title"] for one in said]),
            "score_best": ("score", [one["best"] for one in said]),
            "estimate": list(ESTIMATES),
        },
        attrs={"blocks": len(blocks)},
    )


def _with_ratio(means: Mapping[str, Array], members: Array) -> Array:
    """Means of all scores and the spread-skill ratio, (model, target, score, draw)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (members + 1) / members * means["ensemble_variance"] / means["ensemble_mse"]
    return np.stack([*means.values(), np.sqrt(ratio)], axis=2)


def _paired(values: Array, means: Array, other: int, counts: Array) -> tuple[Array, Array]:
    """Means of every model, and of the one at ``other``, over the hours that both have.

    ``values`` (model, target, time), ``means`` their own (model, target, draw); the result is like these.
    """
    known = np.isfinite(values)
    its_own = known[other]
    # A model without any hour has no difference, whichever means are taken.
    if ((known == its_own).all(-1) | ~known.any(-1) | ~its_own.any(-1)).all():
        return means, np.broadcast_to(means[other], means.shape)
    both = known & its_own
    own, its = (np.where(both, one, np.nan) for one in (values, values[other]))
    return bootstrap.weighted_means(own, counts), bootstrap.weighted_means(its, counts)


def _attrs(plan: Evaluation, block_hours: int, resamples: int, command: str) -> dict[str, Any]:
    store, hours = plan.store, plan.hours
    first, last = (str(np.datetime_as_string(hour, unit="D")) for hour in hours[[0, -1]])
    days = np.unique(hours.astype("datetime64[D]")).size
    sampling = plan.sampling
    precisions = sorted({d.precision for d in plan.downscalers if isinstance(d, GenerativeDownscaler)})
    models: Mapping[str, Any] = {d.key: facts(d) for d in plan.downscalers}
    return {
        "Conventions": "CF-1.11",
        "title": f"Evaluation on {store.attrs.get('title', store.path.name)}",
        "data_title": str(store.attrs.get("title", store.path.name)),
        "data_source": str(store.attrs.get("source", "")),
        "data_fingerprint": str(store.attrs.get("fingerprint", "")),
        "synthetic": int(bool(store.attrs.get("synthetic"))),
        "hours": f"{hours.size} hours of {days} days, {first} to {last}",
        "block_hours": block_hours,
        "blocks": len(bootstrap.blocks_of(hours, block_hours)),
        "resamples": resamples,
        "confidence": CONFIDENCE,
        "smoothing": plan.smoothing,
        "sampling": f"{sampling.sampler}, {sampling.steps} steps ({sampling.spacing}), seed {sampling.seed}"
        + (f"; denoiser in {' and '.join(precisions)}" if precisions else ""),
        "command": command,
        "machine": describe_machine(plan.downscalers),
        "models": json.dumps(models),
        "version": __version__,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
