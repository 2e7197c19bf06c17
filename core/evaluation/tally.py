"""What an evaluation knows of one model so far: scores hour by hour, and sums over the hours that are done.

It lives in one NetCDF file, which is replaced as a whole, so that a run that is killed at any time goes on
with the hours that the file lacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.evaluation.field_scores import SCORES, Array, HourScores

Times = NDArray[np.datetime64]

SUM_DIMS: Mapping[str, tuple[str, ...]] = {
    "count": ("y", "x"),
    "error": ("y", "x"),
    "square": ("y", "x"),
    "mean_square": ("y", "x"),
    "variance": ("y", "x"),
    "histogram": ("surface", "bin"),
    "ranks": ("rank",),
    "spread_weight": ("spread_bin",),
    "spread_variance": ("spread_bin",),
    "spread_squared_error": ("spread_bin",),
    "reliability_weight": ("probability",),
    "reliability_forecast": ("probability",),
    "reliability_observed": ("probability",),
}


class EvaluationError(ValueError):
    """Models, hours, a store or a folder that an evaluation can't use; the message says why."""


class Tally:
    """Scores and sums of one model, or of the truth itself.

    Parameters
    ----------
    identity : what the numbers depend on, plain JSON values; a file with another one is refused
    targets, hours : what is evaluated, (T,) and (N,)
    """

    def __init__(self, identity: Mapping[str, Any], targets: Sequence[str], hours: Times) -> None:
        self.identity = dict(identity)
        self.targets = tuple(targets)
        self.hours = hours
        shape = (len(self.targets), hours.size)
        self.done = np.zeros(hours.size, bool)
        self.seconds = np.full(hours.size, np.nan)
        self.peak_memory = np.nan
        self.scores = {name: np.full(shape, np.nan) for name in SCORES}
        self.spectra: list[Array | None] = [None for _ in self.targets]
        self.sums: dict[str, list[Array | None]] = {name: [None for _ in self.targets] for name in SUM_DIMS}
        self.snapshots: dict[str, NDArray[np.float32]] = {}

    def add(self, target: str, position: int, hour: HourScores) -> None:
        """Take in one target of the hour at ``position``."""
        place = self.targets.index(target)
        for name, value in hour.scores.items():
            self.scores[name][place, position] = value
        self.add_spectrum(target, position, hour.spectrum)
        for name, values in hour.sums.items():
            self.add_sum(target, name, values)

    def add_spectrum(self, target: str, position: int, spectrum: Array) -> None:
        """Take in the spectrum of an hour."""
        place = self.targets.index(target)
        kept = self.spectra[place]
        if kept is None:
            kept = np.full((self.hours.size, spectrum.size), np.nan)
            self.spectra[place] = kept
        kept[position] = spectrum

    def add_sum(self, target: str, name: str, values: Array) -> None:
        """Add to a sum over hours."""
        place = self.targets.index(target)
        before = self.sums[name][place]
        self.sums[name][place] = values.copy() if before is None else before + values

    def add_snapshot(self, name: str, place: int, places: int, target: str, field: NDArray[Any]) -> None:
        """Keep a field: ``name`` is "snapshot", "snapshot_mean" or "snapshot_spread"."""
        shape = (places, len(self.targets), *field.shape)
        kept = self.snapshots.setdefault(name, np.full(shape, np.nan, np.float32))
        kept[place, self.targets.index(target)] = field

    def finish_hour(self, position: int, seconds: float) -> None:
        """All targets of an hour are there; ``seconds`` is the time it took to compute its fields."""
        self.seconds[position] = seconds
        self.done[position] = True

    def save(self, path: Path) -> None:
        """Replace the file."""
        from core.evaluation.files import replacing

        with replacing(path) as temporary:
            self._dataset().to_netcdf(temporary, engine="h5netcdf")

    @classmethod
    def resume(cls, path: Path, identity: Mapping[str, Any], targets: Sequence[str], hours: Times) -> Tally:
        """What the file holds, or nothing yet where there is none.

        Raises EvaluationError where it is of another evaluation or can't be read.
        """
        tally = cls(identity, targets, hours)
        if not path.exists():
            return tally
        try:
            with xr.open_dataset(path, engine="h5netcdf") as data:
                data.load()
            before = json.loads(data.attrs["identity"])
        except (OSError, ValueError, KeyError) as error:
            raise EvaluationError(
                f"{path} can't be read ({error}). Remove it, and its model is evaluated again."
            ) from error
        if before != tally.identity:
            differs = sorted(
                key for key in {*before, *identity} if before.get(key) != tally.identity.get(key)
            )
            raise EvaluationError(
                f"{path} holds another evaluation; it differs in: {', '.join(differs)}. Take another folder, "
                "or start over with --fresh."
            )
        tally._take(data)
        return tally

    def _dataset(self) -> xr.Dataset:
        data: dict[str, Any] = {
            "done": ("time", self.done.astype("i1")),
            "seconds": ("time", self.seconds),
            "peak_memory": ((), self.peak_memory),
            **{name: (("target", "time"), values) for name, values in self.scores.items()},
        }
        for place, target in enumerate(self.targets):
            spectrum = self.spectra[place]
            if spectrum is not None:
                data[f"spectra_{target}"] = (("time", f"wavelength_{target}"), spectrum)
            for name, dims in SUM_DIMS.items():
                values = self.sums[name][place]
                if values is not None:
                    data[f"sum_{name}_{target}"] = (dims, values)
        for name, fields in self.snapshots.items():
            data[name] = (("snapshot_time", "target", "y", "x"), fields)
        return xr.Dataset(data, attrs={"identity": json.dumps(self.identity, sort_keys=True)})

    def _take(self, data: xr.Dataset) -> None:
        self.done = data["done"].values.astype(bool)
        self.seconds = data["seconds"].values
        self.peak_memory = float(data["peak_memory"])
        self.scores = {name: data[name].values for name in SCORES}
        for place, target in enumerate(self.targets):
            if f"spectra_{target}" in data:
                self.spectra[place] = data[f"spectra_{target}"].values
            for name in SUM_DIMS:
                if f"sum_{name}_{target}" in data:
                    self.sums[name][place] = data[f"sum_{name}_{target}"].values
        for name in ("snapshot", "snapshot_mean", "snapshot_spread"):
            if name in data:
                self.snapshots[name] = data[name].values
