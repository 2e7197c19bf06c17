"""The interface of every downscaler, and the checks that all of them make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.data.store import Contents
from core.domain import Domain
from core.variables import VARIABLES


class DownscaleError(ValueError):
    """Fields that a downscaler can't take; the message says which and why."""


class Downscaler(ABC):
    """Maps coarse and static fields to fine ones.

    Attributes
    ----------
    key : stable id, fit for file names and URLs
    label : name for people
    inputs : coarse variables it uses
    targets : fine variables it can give
    stochastic : whether it can give several members of an ensemble (then it has ``sample``)
    """

    key: str
    label: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    stochastic: ClassVar[bool] = False

    def load(self) -> None:  # noqa: B027  (most need nothing)
        """Read now what it would read when it is first used; CheckpointError where that can't be used."""

    @abstractmethod
    def obstacles(self, contents: Contents, domain: Domain) -> list[str]:
        """Why it can't run on a store, a sentence each; empty where it can."""

    @abstractmethod
    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """Fine fields of all hours in ``coarse``.

        Parameters
        ----------
        coarse : variables (time, y, x) on ``domain.coarse`` in SI units, as ``Store.read_coarse`` gives
        static : fields of the fine grid, as ``Store.read_static`` gives; None where there are none

        Returns
        -------
        float32 (time, y, x) on ``domain.fine`` with CF attributes; K, m s-1, m

        Raises DownscaleError where a field is missing, incomplete or on another grid.
        """


def fine_dataset(
    fields: Mapping[str, NDArray[np.float32]], times: NDArray[np.datetime64], domain: Domain
) -> xr.Dataset:
    """Arrays (time, y, x) by short name as a dataset on the fine grid with CF attributes."""
    return xr.Dataset(
        {name: (("time", "y", "x"), values, VARIABLES[name].attrs) for name, values in fields.items()},
        coords={"time": times, "y": domain.fine.y, "x": domain.fine.x},
    )


def check_grid(label: str, coarse: xr.Dataset, domain: Domain) -> None:
    """Raise DownscaleError where the coarse fields do not lie on the coarse grid of ``domain``."""
    if not domain.coarse.matches(coarse["x"].values, coarse["y"].values):
        raise DownscaleError(
            f"{label}: the coarse fields ({coarse.sizes['y']} x {coarse.sizes['x']} cells) do not lie on the "
            f"coarse grid of {domain.name} ({domain.coarse.shape[0]} x {domain.coarse.shape[1]} cells)."
        )


def read_field(label: str, data: xr.Dataset | None, name: str, what: str) -> NDArray[Any]:
    """A field as an array ([time,] y, x); DownscaleError where it is missing."""
    if data is None or name not in data:
        raise DownscaleError(f"{label} needs the {what}, which is missing.")
    dims = [dim for dim in ("time", "y", "x") if dim in data[name].dims]
    values: NDArray[Any] = data[name].transpose(*dims).values
    return values
