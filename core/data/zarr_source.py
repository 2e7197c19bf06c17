"""Zarr stores of gridded weather, on disk or behind an address: HTTP, S3, Google Cloud, by fsspec.

Only metadata and coordinates are read on opening, and hours outside the wanted ones are cut off before
anything else is looked at. Values come chunk by chunk; a chunk may hold the whole globe, or all levels of it,
so the number of chunks in the works at a time is bounded by memory.

Zarr has a filter that unpickles, which would execute what a store says; stores that name it are refused.
"""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from core.addresses import without_credentials
from core.data.input_error import InputError

_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*:/{1,2}", re.IGNORECASE)
_METADATA = ("zarr.json", ".zmetadata", ".zgroup")

_BYTES_AT_ONCE = 1 << 29
# Decoded chunks in the works at a time; those of ARCO-ERA5's levels are 150 MB each.

_MOST_CHUNKS_AT_ONCE = 10

TRIES = 4
"""How often a read over a network is tried before it is given up."""

WAIT = 1.0
"""Seconds before the second try; each further wait is twice as long."""

EXTRA_HOUR = np.timedelta64(1, "h")
# Sums since midnight need the hour before the first one wanted.


def is_address(source: str | Path) -> bool:
    """Whether ``source`` is an address such as https://... or gs://..., rather than a path."""
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def is_zarr(source: str | Path) -> bool:
    """Whether ``source`` is an address, or a folder with the metadata of a Zarr store."""
    return is_address(source) or any((Path(source) / name).is_file() for name in _METADATA)


def name_of(source: str | Path) -> str:
    """A store as messages and attributes name it: its path, or its address without user and password."""
    return without_credentials(str(source)) if is_address(source) else str(source)


@contextmanager
def open_zarr(
    source: str | Path,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    *,
    anonymous: bool = False,
) -> Iterator[xr.Dataset]:
    """Open a store of format 2 or 3, cut to the hours from ``start`` to ``end`` and the hour before.

    ``anonymous`` reads S3 and Google Cloud without credentials. No error repeats a password in an address.

    Raises InputError where there is none, the address can't be reached, or no hour is wanted.
    """
    address, label = str(source), name_of(source)
    options = _storage_options(label, anonymous) if is_address(source) else None
    with warnings.catch_warnings():
        # Stores without consolidated metadata are slower to open, which is no news for the user.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            _refuse_pickles(address, label, options)
            dataset = xr.open_zarr(address, chunks=None, storage_options=options, decode_timedelta=False)
        except InputError:
            raise
        except Exception as error:
            raise InputError(_unreachable(label, error)) from error
    try:
        yield _cut(label, dataset, start, end)
    finally:
        dataset.close()


def load(label: str, part: xr.DataArray) -> xr.DataArray:
    """Read the values of a selection, with bounded memory; networks get :data:`TRIES` tries.

    Raises InputError where it can't be read.
    """
    chunk = math.prod(part.encoding.get("chunks") or part.shape) * part.dtype.itemsize
    at_once = max(1, min(_MOST_CHUNKS_AT_ONCE, _BYTES_AT_ONCE // max(chunk, 1)))
    with zarr.config.set({"async.concurrency": at_once, "threading.max_workers": at_once}):
        for attempt in range(TRIES if is_address(label) else 1):
            if attempt:
                time.sleep(WAIT * 2 ** (attempt - 1))
            try:
                return part.load()
            except Exception as error:
                # Which exceptions a failed connection raises depends on the kind of address.
                failure = error
    raise InputError(_unreachable(label, failure)) from failure


def _storage_options(label: str, anonymous: bool) -> dict[str, Any]:
    protocol = label.split(":", 1)[0].lower()
    package = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(
        protocol
    )
    try:
        import fsspec

        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        needed = f" ({package or 'a package of fsspec'} for {protocol}://)"
        raise InputError(
            f"{label} can't be opened, because what reads such addresses is not installed{needed}: "
            "pip install 'tramontana[cloud]'."
        ) from error
    if protocol in ("http", "https"):
        import aiohttp

        # Large chunks take their time; only silence ends the wait. Proxies are those of the environment.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        return {"client_kwargs": {"trust_env": True, "timeout": timeout}}
    if not anonymous:
        return {}
    known: dict[str, dict[str, Any]] = {
        "gs": {"token": "anon"},
        "gcs": {"token": "anon"},
        "s3": {"anon": True},
    }
    return known.get(protocol, {})


def _refuse_pickles(address: str, label: str, options: dict[str, Any] | None) -> None:
    group = zarr.open_group(address, mode="r", storage_options=options)
    for name, array in group.arrays():
        metadata = array.metadata
        codecs = [*(getattr(metadata, "filters", None) or ()), getattr(metadata, "compressor", None)]
        codecs += list(getattr(metadata, "codecs", ()))
        if any(
            "pickle" in f"{getattr(codec, 'codec_id', '')} {type(codec).__name__}".lower() for codec in codecs
        ):
            raise InputError(
                f"{label}: {name} is packed with pickle, which could execute anything; it is not opened."
            )


def _cut(
    label: str, dataset: xr.Dataset, start: np.datetime64 | None, end: np.datetime64 | None
) -> xr.Dataset:
    name = next((key for key in ("valid_time", "time") if key in dataset.indexes), None)
    if name is None or (start is None and end is None):
        return dataset
    stamps = dataset[name].values
    if stamps.dtype.kind != "M" or stamps.size == 0:
        return dataset
    wanted = np.ones(stamps.shape, bool)
    if start is not None:
        wanted &= stamps >= start - EXTRA_HOUR
    if end is not None:
        wanted &= stamps <= end
    found = np.flatnonzero(wanted)
    if found.size == 0:
        first, last = (np.datetime_as_string(stamp, unit="m") for stamp in (stamps.min(), stamps.max()))
        raise InputError(f"{label} has no hour of those wanted; it has {first} to {last} UTC.")
    return dataset.isel({name: slice(int(found[0]), int(found[-1]) + 1)})


def _unreachable(label: str, error: Exception) -> str:
    detail = (without_credentials(str(error)).strip().splitlines() or [""])[0] or type(error).__name__
    if not is_address(label):
        return f"{label} can't be read, it is no Zarr store or damaged ({detail[:160]})."
    return (
        f"{label} can't be read ({type(error).__name__}: {detail[:160]}). Check the address and the "
        "connection; for cloud storage, whether credentials are needed."
    )
