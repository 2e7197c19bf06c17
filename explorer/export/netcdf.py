"""Every field of an hour in one NetCDF file: coarse input, truth and downscalers, each a group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.data.store import StoreError
from core.text import plain
from core.variables import VARIABLES
from explorer.export.scene import ExportError, Scene
from explorer.library import COARSE, TRUTH, Library
from explorer.results import Fields

Members = Mapping[int, Fields]


def write_netcdf(scene: Scene, library: Library, path: Path) -> None:
    """Write all variables of what a scene shows, in SI units, as the command line writes its fields.

    Groups ``coarse``, ``truth`` and one of each downscaler (root variables where there is one alone), with
    dims (member, time, y, x), CF-1.11 attributes and the CRS; coarse fields on their own grid. The attributes
    name data, model files with their hashes, sampler, steps and seed. Generative models have the members
    that are there. Runs in any thread; may compute. Raises ExportError or StoreError in plain words.
    """
    from core.downscale.layout import Source
    from core.downscale.output import FieldFile
    from core.downscale.run import describe_data
    from core.downscale.sampling import Sampling

    store, domain = scene.opened.store, scene.opened.domain
    made = gather(scene, library)
    sampling = Sampling(sampler=scene.draw.sampler, steps=scene.draw.steps, seed=scene.draw.seed)
    sources: dict[str, Source] = {}
    for key, members in made.items():
        first = next(iter(members.values()))
        targets = tuple(name for name in first if name in VARIABLES)
        if key in (COARSE, TRUTH):
            words = "coarse input" if key == COARSE else "truth"
            grid = domain.coarse if key == COARSE else domain.fine
            attrs = {"description": f"{words} of the store", "synthetic": int(scene.opened.synthetic)}
            sources[key] = Source(targets, (0,), attrs, grid)
        else:
            attrs = describe(scene, library, key, tuple(members), sampling)
            sources[key] = Source(targets, tuple(members), attrs)
    labels = ", ".join(plain(field.label) for field in scene.fields)
    times = np.array([scene.hour], "datetime64[ns]")
    with FieldFile(path, domain, times, sources, attrs=describe_data(store, labels)) as file:
        for key, source in sources.items():
            file.write(key, _dataset(made[key], source.targets, times))


def gather(scene: Scene, library: Library) -> dict[str, Members]:
    """Fields in SI units of everything a scene shows, by key and number of the member."""
    made: dict[str, Members] = {}
    for field in scene.fields:
        if field.key not in scene.members:
            made[field.key] = {0: library.fields(scene.opened, scene.hour, field.key)}
            continue
        first = scene.members[field.key][0]
        found = {n: library.member_once(replace(first, member=n)) for n in scene.numbers}
        members = {number: fields for number, fields in found.items() if fields is not None}
        if not members:
            raise ExportError(f"The members of {field.label} are not there any more; sample them again.")
        made[field.key] = members
    return made


def describe(
    scene: Scene, library: Library, key: str, members: tuple[int, ...], sampling: object
) -> dict[str, str | int | float]:
    """Attributes of a downscaler's fields: model, hash of its file, and how members were drawn."""
    from core.downscale.run import describe_source

    downscaler = library.downscaler(scene.opened, key)
    if downscaler is None:
        raise StoreError(f"The downscaler {key!r} is not there any more.")
    made = describe_source(scene.opened.store, downscaler, members, sampling).attrs
    # Fields that nobody computed here say where they come from.
    return {**made, **getattr(downscaler, "provenance", {})}


def _dataset(members: Members, targets: tuple[str, ...], times: NDArray[np.datetime64]) -> xr.Dataset:
    """Fields (member, time, y, x) of one hour."""
    return xr.Dataset(
        {
            name: (("member", "time", "y", "x"), np.stack([f[name] for f in members.values()])[:, None])
            for name in targets
        },
        coords={"member": list(members), "time": times},
    )
