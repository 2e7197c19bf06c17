"""The noise that members start from: drawn from seeds, or given in a file to repeat a published result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from core.diffusion.noise import member_noise
from core.downscale.base import DownscaleError

Shape = tuple[int, int, int]
Noise = Callable[[Shape, np.datetime64, int, int], Tensor]
"""Called with the shape (channel, y, x) of a latent, the hour (UTC), the member and the step (0 at the
start), gives unit normal noise of that shape, float32, on the CPU."""

DIMS = ("time", "member", "channel", "y", "x")


def seeded(seed: int, number: int = 0) -> Noise:
    """Noise as :func:`core.diffusion.noise.member_noise` draws it for the coarse member ``number``."""

    def noise(shape: Shape, hour: np.datetime64, member: int, step: int) -> Tensor:
        return member_noise(shape, seed=seed, hour=hour, member=member, step=step, number=number)

    return noise


class NoiseFile:
    """Start noise from a NetCDF file with the variable ``noise`` (time, member, channel, y, x).

    ``time`` (UTC) and ``member`` are coordinates; y and x are the rows and columns of the latent grid. The
    noise of later steps, which only stochastic samplers take, is drawn from ``seed``.

    Raises DownscaleError where the file can't be read or holds no such variable.
    """

    def __init__(self, path: str | Path, *, seed: int = 0) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DownscaleError(f"There is no noise file at {self.path}.")
        try:
            with xr.open_dataset(self.path) as dataset:
                if "noise" not in dataset:
                    raise DownscaleError(f"{self.path} holds no variable `noise`.")
                noise = dataset["noise"].load()
        except (OSError, ValueError) as error:
            if isinstance(error, DownscaleError):
                raise
            # Some of these messages go on for many lines about packages to install.
            fault = str(error).partition("\n")[0].rstrip(".:")
            raise DownscaleError(f"{self.path} can't be read as NetCDF: {fault}.") from error
        if set(noise.dims) != set(DIMS):
            raise DownscaleError(
                f"The noise in {self.path} has the dimensions ({', '.join(map(str, noise.dims))}); it needs "
                f"({', '.join(DIMS)})."
            )
        if not {"time", "member"} <= set(noise.coords):
            raise DownscaleError(f"The noise in {self.path} needs coordinates for its hours and members.")
        if not np.issubdtype(noise["time"].dtype, np.datetime64):
            raise DownscaleError(f"The hours of the noise in {self.path} must be CF times.")
        if noise.dtype.kind != "f":
            raise DownscaleError(f"The noise in {self.path} has values of type {noise.dtype}, not floats.")
        if not all(noise.indexes[dim].is_unique for dim in ("time", "member")):
            raise DownscaleError(f"The noise in {self.path} has an hour or a member twice.")
        self._noise = noise.transpose(*DIMS)
        if not np.isfinite(self._noise.values).all():
            raise DownscaleError(f"The noise in {self.path} has missing values.")
        self.file_hash = hashlib.sha256(self.path.read_bytes()).hexdigest()
        self._later = seeded(seed)

    def __call__(self, shape: Shape, hour: np.datetime64, member: int, step: int) -> Tensor:
        """Noise of one member of one hour; DownscaleError where the file does not hold it."""
        if step:
            return self._later(shape, hour, member, step)
        if self._noise.shape[2:] != shape:
            raise DownscaleError(
                f"The noise in {self.path} has {' x '.join(map(str, self._noise.shape[2:]))} values per "
                f"member (channel, y, x); this model and domain need {' x '.join(map(str, shape))}."
            )
        try:
            values = self._noise.sel(time=hour.astype("datetime64[ns]"), member=member).values
        except KeyError:
            when = np.datetime_as_string(hour, unit="h")
            raise DownscaleError(f"{self.path} holds no noise for member {member} of {when}.") from None
        return torch.from_numpy(np.array(values, dtype=np.float32))
