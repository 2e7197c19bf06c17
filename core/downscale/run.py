"""A run: downscalers over hours and members of one or more stores, into files.

The fields are made in pieces (:mod:`core.downscale.pieces`), by this process or by workers, and gathered in a
folder beside the output (:mod:`core.downscale.partial`), so a run that was stopped or killed goes on where it
was. Memory does not grow with the number of hours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr
import zarr
from numpy.typing import ArrayLike

from core import __version__
from core.data.store import Store, as_times
from core.downscale import pieces as cutting
from core.downscale.base import DownscaleError, Downscaler
from core.downscale.generative import GenerativeDownscaler
from core.downscale.layout import Source, Times, ZarrBackend, consolidate, define, group_names
from core.downscale.network import NetworkDownscaler
from core.downscale.output import WRITE_ERRORS, FieldFile, check_output, put_in_place, unwritten
from core.downscale.packing import PACKINGS
from core.downscale.partial import PartialOutput, Request, check_request, clear_leftovers, partial_folder
from core.downscale.pieces import Piece, Pieces
from core.downscale.sampling import Sampling
from core.downscale.start_noise import NoiseFile
from core.downscale.stores import inputs_held, refuse_gaps, refuse_obstacles
from core.downscale.work import Tools, Work
from core.downscale.workers import Job, Workers, run_on_workers
from core.plural import counted

READ_HOURS = 24
"""Hours whose coarse fields are in memory at once while gaps are looked for."""

CHECKING = "Looking for gaps"
WAITING = "Waiting for workers"
WRITING = "Writing the file"
REQUEST = "request_sha256"
"""Attribute of a file: hash of all that its fields depend on."""


@dataclass(frozen=True)
class RunProgress:
    """Where a run stands.

    Attributes
    ----------
    label : of the downscaler at work, or :data:`CHECKING`, :data:`WAITING` or :data:`WRITING`
    hour : the first of those computed now; of several workers, the last one that was done
    step, steps : of the sampler; 1 of 1 for downscalers without one
    done, total : fields (coarse members x hours x members of all downscalers); ``done`` counts parts of them,
        and begins with what an interrupted run has left
    """

    label: str
    hour: np.datetime64
    step: int
    steps: int
    done: float
    total: int


@dataclass(frozen=True)
class _File:
    """One output of a run and its hours."""

    path: Path
    times: Times
    request: Request
    made: bool
    """Whether it is there already."""


def downscale_to_file(
    stores: Store | Sequence[Store],
    downscalers: Sequence[Downscaler],
    path: str | Path,
    hours: ArrayLike | None = None,
    *,
    members: Sequence[int] = (0,),
    sampling: Sampling | None = None,
    noise: NoiseFile | None = None,
    batch: int | None = None,
    packed: bool = False,
    per_month: bool = False,
    overwrite: bool = False,
    fresh: bool = False,
    workers: Workers | None = None,
) -> Generator[RunProgress, None, None]:
    """Write the fields of downscalers to NetCDF or Zarr, piece by piece, telling how it goes.

    The file holds every target ([number,] member, time, y, x) with CF attributes, CRS and where it comes
    from: data, model file and its hash, sampler, seed. Downscalers that give one field have member 0
    alone. The predictors of all hours are read once before the first field is computed, so that a gap in a
    late hour costs no more than that.

    A run that is closed early, fails or is killed leaves what it has done in a hidden folder beside ``path``;
    the same request goes on with it. The output has its name only when it is complete. Noise depends on seed,
    hour, member and coarse member alone; fields agree to rounding however they are batched and whoever
    makes them, and bit for bit with the same ``batch``, threads and machine.

    Parameters
    ----------
    stores : one, or the coarse members of an ensemble forecast, each in a store of its own. Then, and where
        one store says which coarse member it holds, fields have the dimension ``number``
        (:attr:`core.data.store.Store.coarse_member`; without, the stores are counted from 0).
    path : ends in ``.nc`` or ``.zarr``
    hours : that all stores have, by default all of the first
    members : of downscalers that are ``stochastic``, for each coarse member
    sampling, noise, batch : as in :meth:`core.downscale.generative.GenerativeDownscaler.sample`
    packed : 16 bits a value, see :mod:`core.downscale.packing`
    per_month : a file for every month, ``name-2016-01.nc``; those that are there from the same request stay
    overwrite : replace files of that name, when the new one is complete
    fresh : do not go on with an interrupted run, remove it
    workers : other processes that make the pieces; the downscalers given here then serve as descriptions, and
        need not be loaded

    Raises DownscaleError, before anything is computed, where a downscaler can't run, the name is taken or
    another request was begun under it, and from the generator where predictors of a network have gaps, values
    can't be packed, another run is at work, or workers fail.
    """
    stores = [stores] if isinstance(stores, Store) else list(stores)
    sampling = sampling or Sampling()
    if not stores or not downscalers:
        raise DownscaleError("A run needs at least one hour and one downscaler.")
    times = stores[0].hours if hours is None else as_times(hours)
    if not times.size:
        raise DownscaleError("A run needs at least one hour and one downscaler.")
    if len(np.unique(times)) < times.size:
        raise DownscaleError("Every hour can be in a file once only.")
    if len({downscaler.key for downscaler in downscalers}) < len(downscalers):
        raise DownscaleError("A downscaler was named twice.")
    numbers = _numbers(stores)
    if noise is not None and numbers is not None:
        raise DownscaleError("A noise file is for one store that is no member of an ensemble.")
    for store in stores:
        refuse_obstacles(store, downscalers)
        _check_hours(store, times)
    _check_place(Path(path), stores)
    sources = _sources(stores, downscalers, members, sampling, noise, numbers)
    if packed and (strangers := {n for s in sources.values() for n in s.targets} - set(PACKINGS)):
        raise DownscaleError(f"There is no packing for {', '.join(sorted(strangers))}.")
    run = _Run(stores, list(downscalers), sources, sampling, noise, batch, packed, overwrite, fresh, workers)
    return run.events(_files(run, Path(path), times, per_month=per_month))


def _numbers(stores: Sequence[Store]) -> tuple[int, ...] | None:
    """The coarse members of stores; None for one store that is none."""
    told = [store.coarse_member for store in stores]
    if all(number is None for number in told):
        return None if len(stores) == 1 else tuple(range(len(stores)))
    for store, number in zip(stores, told, strict=True):
        if number is None:
            raise DownscaleError(
                f"{store.path} does not say which coarse member it holds, but other stores do. Ingest it "
                "with a number."
            )
    known = [number for number in told if number is not None]
    twice = next((number for number in known if known.count(number) > 1), None)
    if twice is not None:
        places = " and ".join(str(s.path) for s in stores if s.coarse_member == twice)
        raise DownscaleError(f"{places} hold the same coarse member, {twice}.")
    return tuple(known)


def _check_hours(store: Store, times: Times) -> None:
    absent = np.setdiff1d(times, store.hours)
    if absent.size:
        first = np.datetime_as_string(absent[0], unit="m").replace("T", " ")
        raise DownscaleError(
            f"{store.path} lacks {counted(absent.size, 'hour')} of those to downscale, the first at {first} "
            "UTC. Choose hours that every store has."
        )


def _check_place(path: Path, stores: Sequence[Store]) -> None:
    # Whether the name is taken is asked of each file of the run.
    check_output(path, overwrite=True)
    place = path.resolve()
    for store in stores:
        taken = store.path.resolve()
        if place == taken or place in taken.parents or taken in place.parents:
            raise DownscaleError(f"{path} and the store {store.path} lie in each other; give another name.")


def _sources(
    stores: Sequence[Store],
    downscalers: Sequence[Downscaler],
    members: Sequence[int],
    sampling: Sampling,
    noise: NoiseFile | None,
    numbers: tuple[int, ...] | None,
) -> dict[str, Source]:
    """What each downscaler gives, the same on all stores."""
    sources = {}
    first = stores[0]
    for store in stores[1:]:
        if store.domain.fine != first.domain.fine or store.domain.ratio != first.domain.ratio:
            raise DownscaleError(f"{first.path} and {store.path} have different domains.")
    for downscaler in downscalers:
        source = describe_source(first, downscaler, members, sampling, noise)
        for store in stores[1:]:
            targets = describe_source(store, downscaler, members, sampling, noise).targets
            if targets != source.targets:
                raise DownscaleError(
                    f"{downscaler.label} gives {', '.join(source.targets)} on {first.path}, but "
                    f"{', '.join(targets)} on {store.path}."
                )
        sources[downscaler.key] = replace(source, numbers=numbers)
    return sources


@dataclass(frozen=True)
class _Run:
    """What was asked for."""

    stores: list[Store]
    downscalers: list[Downscaler]
    sources: dict[str, Source]
    sampling: Sampling
    noise: NoiseFile | None
    batch: int | None
    packed: bool
    overwrite: bool
    fresh: bool
    workers: Workers | None

    def request(self, times: Times) -> Request:
        """All that the fields depend on, in words; not how they are batched or who makes them."""
        digest = hashlib.sha256(times.astype("datetime64[s]").astype("<i8").tobytes()).hexdigest()
        span = [np.datetime_as_string(time, unit="m").replace("T", " ") for time in (times[0], times[-1])]
        words = {
            "version": __version__,
            "data": ", ".join(str(store.attrs.get("fingerprint", "")) for store in self.stores),
            "hours": f"{counted(times.size, 'hour')} from {span[0]} to {span[1]} UTC ({digest[:12]})",
            "packed": "yes" if self.packed else "no",
            "downscalers": ", ".join(self.sources),
        }
        for downscaler in self.downscalers:
            source = self.sources[downscaler.key]
            answers = {**source.attrs, "targets": ", ".join(source.targets)}
            answers |= {"members": _listed(source.members), "coarse members": _listed(source.numbers)}
            if isinstance(downscaler, GenerativeDownscaler):
                answers["precision"] = downscaler.precision
            words |= {f"{what} of {downscaler.label}": str(value) for what, value in answers.items()}
        return words

    def events(self, files: Sequence[_File]) -> Generator[RunProgress, None, None]:
        per_hour = len(self.stores) * sum(len(source.members) for source in self.sources.values())
        total = per_hour * sum(file.times.size for file in files)
        done = sum(per_hour * file.times.size for file in files if file.made)
        for file in files:
            if file.made:
                clear_leftovers(file.path, file.request)
                continue
            # Before the folder of the output is made, so that a run that is refused leaves nothing behind.
            yield from self._look_for_gaps(file, done, total)
            for event in self._fill(file):
                yield replace(event, done=done + event.done, total=total)
            done += per_hour * file.times.size

    def _look_for_gaps(self, file: _File, done: float, total: int) -> Iterator[RunProgress]:
        networks = [d for d in self.downscalers if isinstance(d, NetworkDownscaler)]
        for store in self.stores:
            if needed := inputs_held(store, networks):
                for hour in refuse_gaps(store, needed, file.times, batch_hours=READ_HOURS):
                    yield RunProgress(CHECKING, hour, 1, 1, done, total)

    def _fill(self, file: _File) -> Iterator[RunProgress]:
        """Make what is not done of a file, and give it its name."""
        with PartialOutput(file.path, file.request, cutting.PIECE_FIELDS, fresh=self.fresh) as output:
            counts = {key: len(source.members) for key, source in self.sources.items()}
            pieces = Pieces(len(self.stores), file.times.size, counts, max(output.fields, 1))
            output.prepare(len(pieces), partial(self._make, pieces, file))
            tools = Tools(
                self.stores,
                {downscaler.key: downscaler for downscaler in self.downscalers},
                self.sources,
                self.sampling,
                self.noise,
                self.batch,
                self.packed,
                output.data,
            )
            make = self._serially if self.workers is None else partial(self._on_workers, self.workers)
            yield from make(tools, pieces, file.times, output)
            yield from self._finish(file, pieces, output)

    def _make(self, pieces: Pieces, file: _File, data: Path) -> None:
        """The Zarr hierarchy that pieces are written to."""
        attrs = self._attrs(file)
        backend = ZarrBackend(data)
        define(
            backend, self.stores[0].domain, file.times, self.sources,
            attrs=attrs, packed=self.packed, blocks=pieces.blocks,
        )  # fmt: skip

    def _attrs(self, file: _File) -> dict[str, str | int | float]:
        names = ", ".join(downscaler.label for downscaler in self.downscalers)
        fingerprints = ", ".join(str(store.attrs.get("fingerprint", "")) for store in self.stores)
        return {
            **describe_data(self.stores[0], names),
            "data_fingerprint": fingerprints,
            REQUEST: _hash(file.request),
        }

    def _works(self, pieces: Pieces, times: Times, output: PartialOutput) -> Iterator[Work]:
        """The pieces that are not done."""
        for index in np.flatnonzero(~output.done):
            piece = pieces[int(index)]
            yield Work(piece, times[piece.hours], self.sources[piece.key].members[piece.members])

    def _progress(self, label: str, hour: np.datetime64, done: float, pieces: Pieces) -> RunProgress:
        return RunProgress(label, hour, 1, 1, done, pieces.fields)

    def _serially(
        self, tools: Tools, pieces: Pieces, times: Times, output: PartialOutput
    ) -> Iterator[RunProgress]:
        done = _fields_done(pieces, output)
        for work in self._works(pieces, times, output):
            label = tools.downscalers[work.piece.key].label
            for at in tools.make(work):
                yield RunProgress(label, at.hour, at.step, at.steps, done + at.done, pieces.fields)
            output.mark(work.piece.index)
            done += work.piece.size

    def _on_workers(
        self, workers: Workers, tools: Tools, pieces: Pieces, times: Times, output: PartialOutput
    ) -> Iterator[RunProgress]:
        done = _fields_done(pieces, output)
        hour = times[0]
        if output.done.all():
            return
        works = self._works(pieces, times, output)
        for index in run_on_workers(workers, Job.of(tools, workers), works):
            if index is None:
                yield self._progress(WAITING, hour, done, pieces)
                continue
            output.mark(index)
            piece = pieces[index]
            done += piece.size
            hour = times[piece.hours][0]
            yield self._progress(tools.downscalers[piece.key].label, hour, done, pieces)

    def _finish(self, file: _File, pieces: Pieces, output: PartialOutput) -> Iterator[RunProgress]:
        """Turn what was gathered into the complete output."""
        if file.path.suffix == ".nc":
            yield from self._write_netcdf(file, pieces, output)
        else:
            yield self._progress(WRITING, file.times[-1], pieces.fields, pieces)
            try:
                output.sweep()
                consolidate(zarr.open_group(str(output.data), mode="r+", use_consolidated=False))
                # Another run may have taken the name since this one began.
                check_output(file.path, overwrite=self.overwrite)
                put_in_place(output.data, file.path)
            except WRITE_ERRORS as error:
                raise unwritten(file.path, error) from error
        output.discard()

    def _write_netcdf(self, file: _File, pieces: Pieces, output: PartialOutput) -> Iterator[RunProgress]:
        groups = group_names(self.sources)
        with FieldFile(
            file.path, self.stores[0].domain, file.times, self.sources,
            attrs=self._attrs(file), packed=self.packed, overwrite=self.overwrite,
            temporary=output.netcdf,
        ) as netcdf:  # fmt: skip
            for piece in pieces:
                yield self._progress(WRITING, file.times[piece.hours][0], pieces.fields, pieces)
                netcdf.write(piece.key, self._read(output.data, groups[piece.key], piece))

    def _read(self, data: Path, group: str, piece: Piece) -> xr.Dataset:
        """The fields of a piece as they were written."""
        source = self.sources[piece.key]
        place: dict[str, slice] = {"member": piece.members, "time": piece.hours}
        if source.numbers is not None:
            place["number"] = slice(piece.store, piece.store + 1)
        with xr.open_zarr(str(data), group=group or None, consolidated=False, chunks=None) as dataset:
            fields: xr.Dataset = dataset[list(source.targets)].isel(place).load()
        return fields.drop_vars([name for name in fields.coords if name not in fields.dims])


def _files(run: _Run, path: Path, times: Times, *, per_month: bool) -> list[_File]:
    """The outputs of a run; refuses those that can't be made."""
    files = []
    months = times.astype("datetime64[M]")
    parts = [(path, times)]
    if per_month:
        parts = [
            (path.with_name(f"{path.stem}-{month}{path.suffix}"), times[months == month])
            for month in np.unique(months)
        ]
    for part, some in parts:
        request = run.request(some)
        # A run that was killed between naming a file and removing what it was made from has finished it.
        asked = per_month or (not run.overwrite and partial_folder(part).is_dir())
        made = asked and not run.fresh and _request_of(part) == _hash(request)
        if not made:
            check_output(part, overwrite=run.overwrite)
            if not run.fresh:
                check_request(part, request)
        files.append(_File(part, some, request, made))
    return files


def _hash(request: Request) -> str:
    return hashlib.sha256(json.dumps(dict(request), sort_keys=True).encode()).hexdigest()


def _request_of(path: Path) -> str | None:
    """The hash of the request that a complete output was made for; None where there is none of ours."""
    try:
        if path.suffix == ".nc":
            with netCDF4.Dataset(str(path)) as file:
                return str(file.getncattr(REQUEST))
        return str(zarr.open_group(str(path), mode="r").attrs[REQUEST])
    except (OSError, AttributeError, KeyError, ValueError):
        return None


def _fields_done(pieces: Pieces, output: PartialOutput) -> int:
    return sum(pieces[int(index)].size for index in np.flatnonzero(output.done))


def _listed(values: Sequence[int] | None) -> str:
    """Numbers in words: ``0 to 7``, ``0, 3, 5``."""
    if values is None:
        return "none"
    if len(values) > 2 and list(values) == list(range(values[0], values[0] + len(values))):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values))


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
