"""Groups beside the hours of a store."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from core.data.groups import put_group
from core.data.store import Store
from tests.synthetic_store import make_store

HOURS = np.array(["2020-01-01T00"], "datetime64[ns]")


def dataset(value: float) -> xr.Dataset:
    return xr.Dataset({"x": ("n", np.full(3, value))})


def held(store: Store) -> list[float]:
    with xr.open_zarr(store.path, group="extra", consolidated=False, chunks=None) as found:
        return list(found["x"].values)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "a.zarr", HOURS, coarse=("t2m",), fine=(), static=False)


def test_a_group_takes_the_place_of_one_of_its_name(store: Store):
    put_group(store, "extra", dataset(1.0))
    put_group(store, "extra", dataset(2.0))
    assert held(store) == [2.0] * 3
    assert [path.name for path in store.path.parent.iterdir()] == ["a.zarr"]


def test_a_group_that_can_not_be_moved_in_leaves_the_former_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    put_group(store, "extra", dataset(1.0))
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == ".a.zarr.extra":
            raise PermissionError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        put_group(store, "extra", dataset(2.0))
    assert held(store) == [1.0] * 3
    assert [path.name for path in store.path.parent.iterdir()] == ["a.zarr"]
