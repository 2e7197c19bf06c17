"""Weighted counts in bins over some dimensions of an array, in one pass, lazily where the array is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from core.metrics.metric import MetricError

Array = NDArray[np.float64]


def checked_edges(edges: ArrayLike) -> Array:
    """Bin edges as an array; MetricError unless they are at least two finite, increasing numbers."""
    values = np.asarray(edges, np.float64)
    if (
        values.ndim != 1
        or values.size < 2
        or not (np.diff(values) > 0).all()
        or not np.isfinite(values).all()
    ):
        raise MetricError("The edges of bins have to be at least two finite numbers that increase.")
    return values


def bin_index(values: xr.DataArray, edges: Array) -> xr.DataArray:
    """Number of the bin of every value, -1 outside of all and for NaN.

    A bin holds its lower edge; the last one holds its upper edge too, as with ``numpy.histogram``.
    """

    def find(block: Array) -> NDArray[np.intp]:
        index: NDArray[np.intp] = np.searchsorted(edges, block, side="right") - 1
        index[block == edges[-1]] = edges.size - 2
        index[(index >= edges.size - 1) | np.isnan(block)] = -1
        return index

    found: xr.DataArray = xr.apply_ufunc(find, values, dask="parallelized", output_dtypes=[np.intp])
    return found


def binned_sum(
    index: xr.DataArray, weight: xr.DataArray, size: int, dims: Sequence[Hashable], dim: str
) -> xr.DataArray:
    """Sum of the weights of every bin over ``dims``, dims (those left, ``dim`` of length ``size``).

    ``index`` is as :func:`bin_index` gives it; weights must not be NaN where the index is not -1.
    """
    index, weight = xr.broadcast(index, weight)
    kept = [d for d in index.dims if d not in dims]
    index, weight = (array.transpose(*kept, *dims) for array in (index, weight))
    reduced = tuple(range(len(kept), len(kept) + len(dims)))

    def count(index: NDArray[np.intp], weight: Array) -> Array:
        shape = index.shape[: len(kept)]
        rows = math.prod(shape)
        index, weight = index.reshape(rows, -1), weight.reshape(rows, -1)
        inside = index >= 0
        place = (index + size * np.arange(rows)[:, None])[inside]
        sums: Array = np.bincount(place, weights=weight[inside], minlength=rows * size).astype(np.float64)
        return sums.reshape(*shape, *(1 for _ in dims), size)

    data: Any
    if index.chunks is None and weight.chunks is None:
        data = count(index.values, weight.values)
    else:
        index, weight = xr.unify_chunks(index, weight.chunk())
        chunks = index.data.chunks
        import dask.array  # takes a second that a page without lazy fields need not wait for

        data = dask.array.map_blocks(  # type: ignore[no-untyped-call]
            count,
            index.data,
            weight.data,
            dtype=np.float64,
            meta=np.empty((0,) * (index.ndim + 1)),
            chunks=(
                *chunks[: len(kept)],
                *((1,) * len(sizes) for sizes in chunks[len(kept) :]),
                (size,),
            ),
            new_axis=index.ndim,
        )
    coords = {name: c for name, c in index.coords.items() if not set(dims) & set(c.dims)}
    return xr.DataArray(data.sum(axis=reduced), dims=(*kept, dim), coords=coords)


def bin_coords(edges: Array, dim: str, units: str | None = None) -> dict[str, Any]:
    """Coordinates of bins: their centres (the index), lower and upper edges."""
    attrs = {"units": units} if units else {}
    return {
        dim: (dim, (edges[:-1] + edges[1:]) / 2, attrs),
        f"{dim}_lower": (dim, edges[:-1], attrs),
        f"{dim}_upper": (dim, edges[1:], attrs),
    }
