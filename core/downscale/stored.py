"""Fields that a store holds from elsewhere, offered like those of a downscaler."""

from __future__ import annotations

import numpy as np
import xarray as xr

from core.data.outputs import open_output, output_attrs, output_names
from core.data.store import Contents, Store, StoreError
from core.domain import Domain
from core.downscale.base import DownscaleError, Downscaler, fine_dataset
from core.variables import TARGETS

_MOST_NAMED = 4


class StoredOutput(Downscaler):
    """Reads what the authors' model gave, for the hours that were published; computes nothing.

    Attributes
    ----------
    hours : time stamps that it has fields of, ascending
    provenance : attributes that say where the fields come from

    Raises StoreError where the store has no such group or it can't be read.
    """

    inputs = ()

    def __init__(self, store: Store, name: str) -> None:
        attrs = output_attrs(store, name)
        self.label = str(attrs.get("label", name))
        self.key = f"output-{name}-{str(attrs.get('content_sha256', ''))[:8]}"
        self.provenance = {
            f"output_{what}": str(attrs.get(what, ""))
            for what in ("model", "source_file", "content_sha256", "references")
        }
        self._store = store
        self._data = open_output(store, name)
        self.targets = tuple(name for name in TARGETS if name in self._data)
        self.hours = np.sort(self._data["time"].values.astype("datetime64[ns]"))

    def obstacles(self, contents: Contents, domain: Domain) -> list[str]:
        """One sentence for another domain than that of the store which holds the fields."""
        if domain.fine == self._store.domain.fine:
            return []
        return [f"{self.label} lies on the grid of {self._store.domain.name}, not on that of {domain.name}."]

    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """The stored fields at the hours of ``coarse``, of which nothing else is used."""
        if problems := self.obstacles(self._store.contents, domain):
            raise DownscaleError(" ".join(problems))
        times = coarse["time"].values.astype("datetime64[ns]")
        if missing := [time for time in times if time not in self.hours]:
            there = ", ".join(map(_show, self.hours[:_MOST_NAMED]))
            more = f" and {self.hours.size - _MOST_NAMED} more" if self.hours.size > _MOST_NAMED else ""
            raise DownscaleError(f"{self.label} has no field of {_show(missing[0])}; it has {there}{more}.")
        found = self._data.sel(time=times)
        fields = {name: found[name].values.astype(np.float32) for name in self.targets}
        return fine_dataset(fields, times, domain)


def stored_outputs(store: Store) -> tuple[StoredOutput, ...]:
    """All of a store, in the order of their names; those that can't be read are left out."""
    found = []
    for name in output_names(store):
        try:
            found.append(StoredOutput(store, name))
        except StoreError:
            continue
    return tuple(found)


def _show(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='m').replace('T', ' ')} UTC"
