"""Downscalers over the hours of a store."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from core.data.store import Store
from core.downscale import DownscaleError, downscale_store, from_checkpoint, interpolations
from tests.core.downscale.form import by_key
from tests.synthetic_store import DOMAIN, make_store

SaveModel = Callable[..., Path]


def test_a_store_is_downscaled_batch_by_batch(times: np.ndarray, store: Store, save_unet: SaveModel) -> None:
    downscalers = [*interpolations(), from_checkpoint(save_unet(), device="cpu")]
    batches = list(downscale_store(store, downscalers, batch_hours=2))
    assert [hours.size for hours, _ in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([hours for hours, _ in batches]), times)
    for downscaler in downscalers:
        whole = downscaler.downscale(store.read_coarse(), store.read_static(), DOMAIN)
        parts = xr.concat([results[downscaler.key] for _, results in batches], "time")
        xr.testing.assert_allclose(parts, whole, atol=1e-3)
    ((hours, results),) = downscale_store(store, downscalers[:1], times[3])
    assert hours == times[3]
    assert list(results) == ["quadratic"]


def test_obstacles_stop_before_any_work(times: np.ndarray, tmp_path: Path, save_unet: SaveModel) -> None:
    store = make_store(tmp_path / "poor.zarr", times, coarse=("t2m",), fine=(), static=False)
    with pytest.raises(DownscaleError, match=r"fine orography.*predictors that the store lacks: msl"):
        next(downscale_store(store, [by_key("lapse_rate"), from_checkpoint(save_unet(), device="cpu")]))
    ((_, results),) = downscale_store(store, [by_key("quadratic")])
    assert set(results["quadratic"]) == {"t2m"}
