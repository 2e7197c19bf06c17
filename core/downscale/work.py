"""What one process needs to make pieces of a run, whether it is the only one or one of many workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from core.data.store import Store
from core.downscale.base import DownscaleError, Downscaler
from core.downscale.generative import GenerativeDownscaler
from core.downscale.layout import Source, Times, group_names
from core.downscale.output import WRITE_ERRORS, unwritten
from core.downscale.packing import pack
from core.downscale.pieces import Piece
from core.downscale.sampling import Sampling, SamplingStep
from core.downscale.start_noise import NoiseFile
from core.downscale.stores import inputs_held


@dataclass(frozen=True)
class Work:
    """A piece with the hours and members it stands for."""

    piece: Piece
    hours: Times
    members: tuple[int, ...]


@dataclass(frozen=True)
class WorkStep:
    """Where a piece stands: its first hour computed now, the step of the sampler, and fields done."""

    hour: np.datetime64
    step: int
    steps: int
    done: float


@dataclass(frozen=True)
class Tools:
    """Opened stores, downscalers by key, how to sample, and the Zarr hierarchy that takes the fields."""

    stores: Sequence[Store]
    downscalers: Mapping[str, Downscaler]
    sources: Mapping[str, Source]
    sampling: Sampling
    noise: NoiseFile | None
    batch: int | None
    packed: bool
    data: Path

    def make(self, work: Work) -> Iterator[WorkStep]:
        """Compute the fields of a piece and write them, telling how it goes.

        The piece is written at the end, a shard of each variable, so one that is stopped leaves nothing.

        Raises DownscaleError where fields can't be made, packed or written.
        """
        piece = work.piece
        source = self.sources[piece.key]
        shape = (len(work.members), len(work.hours))
        made: dict[str, NDArray[Any]] = {}
        row = 0
        for event in self._events(work):
            if isinstance(event, WorkStep):
                yield event
                continue
            for name in source.targets:
                values = event[name].transpose("member", "time", "y", "x").values
                if name not in made:
                    made[name] = np.empty(
                        (*shape, *values.shape[2:]), np.int16 if self.packed else np.float32
                    )
                made[name][:, row : row + 1] = self._packed(name, values, work.hours[row])
            row += 1
        self._write(piece, made)

    def _events(self, work: Work) -> Iterator[WorkStep | xr.Dataset]:
        """Steps, and the fields of one hour after the other."""
        store = self.stores[work.piece.store]
        downscaler = self.downscalers[work.piece.key]
        static = store.read_static() if store.contents.statics else None
        names = inputs_held(store, [downscaler])
        if not isinstance(downscaler, GenerativeDownscaler):
            for number, hour in enumerate(work.hours, 1):
                fields = downscaler.downscale(store.read_coarse(hour, names), static, store.domain)
                yield fields.expand_dims(member=[0])
                yield WorkStep(hour, 1, 1, float(number))
            return
        coarse = store.read_coarse(work.hours, names)
        numbers = self.sources[work.piece.key].numbers
        if numbers is not None:
            # The noise follows it; stores that do not say theirs are counted.
            coarse = coarse.assign_coords(number=numbers[work.piece.store])
        for event in downscaler.sample(
            coarse, static, store.domain, work.members, self.sampling, noise=self.noise, batch=self.batch
        ):
            if isinstance(event, SamplingStep):
                yield WorkStep(event.hours[0], event.step, event.steps, event.done)
            else:
                yield event

    def _packed(self, name: str, values: NDArray[np.float32], hour: np.datetime64) -> NDArray[Any]:
        if not self.packed:
            return values
        try:
            return pack(name, values)
        except DownscaleError as error:
            stamp = np.datetime_as_string(hour, unit="m").replace("T", " ")
            raise DownscaleError(f"{stamp} UTC: {error}") from error

    def _write(self, piece: Piece, made: Mapping[str, NDArray[Any]]) -> None:
        group = group_names(self.sources)[piece.key]
        numbered = self.sources[piece.key].numbers is not None
        try:
            root = zarr.open_group(str(self.data), mode="r+", use_consolidated=False)
            for name, values in made.items():
                array: Any = root[f"{group}/{name}" if group else name]
                place = (piece.members, piece.hours)
                array[(piece.store, *place) if numbered else place] = values
        except WRITE_ERRORS as error:
            raise unwritten(self.data, error) from error
