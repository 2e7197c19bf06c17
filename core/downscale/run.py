"""A run: downscalers over hours and members of a store, into one file."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.data.store import Store, as_times
from core.downscale.base import DownscaleError, Downscaler
from core.downscale.generative import GenerativeDownscaler
from core.downscale.network import NetworkDownscaler
from core.downscale.output import FieldFile, Source, check_output
from core.downscale.sampling import Sampling, SamplingStep
from core.downscale.start_noise import NoiseFile
from core.downscale.stores import inputs_held, refuse_gaps, refuse_obstacles

READ_HOURS = 24
"""Hours whose coarse fields are in memory at once."""

CHECKING = "Looking for gaps"


@dataclass(frozen=True)
class RunProgress:
    """Where a run stands.

    Attributes
    ----------
    label : of the downscaler at work, :data:`CHECKING` before the first
    hour : the first of those computed now
    step, steps : of the sampler; 1 of 1 for downscalers without one
    done, total : fields (hours x members of all downscalers); ``done`` counts parts of them
    """

    label: str
    hour: np.datetime64
    step: int
    steps: int
    done: float
    total: int


def downscale_to_file(
    store: Store,
    downscalers: Sequence[Downscaler],
    path: str | Path,
    hours: ArrayLike | None = None,
    *,
    members: Sequence[int] = (0,),
    sampling: Sampling | None = None,
    noise: NoiseFile | None = None,
    batch: int | None = None,
    overwrite: bool = False,
) -> Generator[RunProgress, None, None]:
    """Write the fields of downscalers to a NetCDF or Zarr file, hour by hour, telling how it goes.

    The file holds every target as float32 (member, time, y, x) with CF attributes, CRS and where it comes
    from: data, model file and its hash, sampler, seed. Downscalers that give one field have member 0
    alone. Nothing is left where the run is closed early or fails. The predictors of all hours are read once
    before the first field is computed, so that a gap in a late hour costs no more than that.

    Parameters
    ----------
    path : ends in ``.nc`` or ``.zarr``; see :class:`core.downscale.output.FieldFile`
    hours : of the store, by default all
    members : of downscalers that are ``stochastic``
    sampling, noise, batch : as in :meth:`core.downscale.generative.GenerativeDownscaler.sample`

    Raises DownscaleError, before anything is computed, where a downscaler can't run or the name is taken, and
    from the generator where predictors of a network have gaps.
    """
    sampling = sampling or Sampling()
    times = store.hours if hours is None else as_times(hours)
    if not times.size or not downscalers:
        raise DownscaleError("A run needs at least one hour and one downscaler.")
    if len(np.unique(times)) < times.size:
        raise DownscaleError("Every hour can be in a file once only.")
    if len({downscaler.key for downscaler in downscalers}) < len(downscalers):
        raise DownscaleError("A downscaler was named twice.")
    refuse_obstacles(store, downscalers)
    check_output(path, overwrite=overwrite)
    place, taken = Path(path).resolve(), store.path.resolve()
    if place == taken or place in taken.parents or taken in place.parents:
        raise DownscaleError(f"{path} and the store {store.path} lie in each other; give another name.")
    sources = {d.key: describe_source(store, d, members, sampling, noise) for d in downscalers}
    names = ", ".join(downscaler.label for downscaler in downscalers)
    attrs = describe_data(store, names)

    def events() -> Generator[RunProgress, None, None]:
        total = sum(len(source.members) for source in sources.values()) * times.size
        needed = inputs_held(store, [d for d in downscalers if isinstance(d, NetworkDownscaler)])
        if needed:
            for hour in refuse_gaps(store, needed, times, batch_hours=READ_HOURS):
                yield RunProgress(CHECKING, hour, 1, 1, 0.0, total)
        # Made here, so that a run that is never begun leaves nothing behind.
        with FieldFile(path, store.domain, times, sources, attrs=attrs, overwrite=overwrite) as file:
            done = 0
            for downscaler in downscalers:
                given = sources[downscaler.key].members
                for hour, step, steps, part in _fields(
                    store, downscaler, file, times, given, sampling, noise, batch
                ):
                    yield RunProgress(downscaler.label, hour, step, steps, done + part, total)
                done += len(given) * times.size

    return events()


def _fields(
    store: Store,
    downscaler: Downscaler,
    file: FieldFile,
    times: NDArray[np.datetime64],
    members: Sequence[int],
    sampling: Sampling,
    noise: NoiseFile | None,
    batch: int | None,
) -> Iterator[tuple[np.datetime64, int, int, float]]:
    """Write the fields of one downscaler; yields hour, step, steps, and fields done."""
    static = store.read_static() if store.contents.statics else None
    names = inputs_held(store, [downscaler])
    if not isinstance(downscaler, GenerativeDownscaler):
        for number, hour in enumerate(times, 1):
            fields = downscaler.downscale(store.read_coarse(hour, names), static, store.domain)
            file.write(downscaler.key, fields.expand_dims(member=[0]))
            yield hour, 1, 1, float(number)
        return
    for start in range(0, times.size, READ_HOURS):
        coarse = store.read_coarse(times[start : start + READ_HOURS], names)
        for event in downscaler.sample(
            coarse, static, store.domain, members, sampling, noise=noise, batch=batch
        ):
            if isinstance(event, SamplingStep):
                yield event.hours[0], event.step, event.steps, start * len(members) + event.done
            else:
                file.write(downscaler.key, event)


def describe_data(store: Store, names: str) -> dict[str, str | int | float]:
    """Global attributes of a file with fields called ``names``: which data they belong to."""
    return {
        "title": f"{names} on {store.attrs.get('title', store.path.name)}",
        "data_source": str(store.attrs.get("source", "")),
        "data_fingerprint": str(store.attrs.get("fingerprint", "")),
        "synthetic": int(bool(store.attrs.get("synthetic"))),
    }


def describe_source(
    store: Store,
    downscaler: Downscaler,
    members: Sequence[int],
    sampling: Sampling,
    noise: NoiseFile | None = None,
) -> Source:
    """What a downscaler gives on a store, with attributes that say how: model and its hash, sampler, seed."""
    targets = downscaler.targets
    attrs: dict[str, str | int | float] = {"downscaler": downscaler.label}
    if isinstance(downscaler, NetworkDownscaler):
        attrs |= {
            "model_kind": downscaler.header.kind,
            "model_file": downscaler.path.name,
            "model_sha256": downscaler.file_hash,
        }
    else:
        # Interpolations give what the store has.
        targets = tuple(name for name in targets if name in store.contents.predictors)
    if not isinstance(downscaler, GenerativeDownscaler):
        return Source(targets, (0,), attrs)
    attrs |= {
        "sampler": sampling.sampler,
        "sampler_steps": sampling.steps,
        "sampler_timesteps": sampling.spacing,
        "sampler_eta": sampling.eta,
        # Text, since a seed may be larger than the whole numbers of NetCDF attributes.
        "seed": str(sampling.seed),
    }
    if noise is not None:
        attrs |= {"start_noise_file": noise.path.name, "start_noise_sha256": noise.file_hash}
    return Source(targets, tuple(members), attrs)
