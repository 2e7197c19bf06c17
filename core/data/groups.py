"""Groups that are put into a store whole, beside its hours."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import xarray as xr
import zarr

from core.data.store import Store


def put_group(
    store: Store, group: str, dataset: xr.Dataset, encoding: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write a dataset beside a store and move it in as a group, in the place of one of that name.

    Raises OSError where it can't be written or moved; the store is as it was then. A program that is killed
    between the two moves leaves the former group beside the store, in ``.STORE.GROUP.former``.
    """
    staged = store.path.with_name(f".{store.path.name}.{group.rpartition('/')[2]}")
    former = staged.with_name(f"{staged.name}.former")
    place = store.path / group
    shutil.rmtree(staged, ignore_errors=True)
    try:
        dataset.to_zarr(
            str(staged), mode="w", consolidated=False, zarr_format=3, encoding=dict(encoding or {})
        )
        if "/" in group:
            root = zarr.open_group(str(store.path), mode="r+", use_consolidated=False)
            root.require_group(group.rpartition("/")[0])
        if place.exists():
            shutil.rmtree(former, ignore_errors=True)
            place.rename(former)
        try:
            staged.rename(place)
        except OSError:
            if former.exists():
                former.rename(place)
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
