"""Runs over hours and members into one file."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from core.data.store import Store
from core.downscale import (
    DownscaleError,
    GenerativeDownscaler,
    Sampling,
    collect,
    downscale_to_file,
    from_checkpoint,
    interpolations,
)
from core.downscale import run as runs
from tests.synthetic_store import DOMAIN, make_store

SaveModel = Callable[..., Path]
FEW = Sampling(sampler="ddim", steps=2, seed=3)


def test_all_downscalers_into_one_file(
    store: Store,
    tmp_path: Path,
    save_unet: SaveModel,
    save_ldm: SaveModel,
    times: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "READ_HOURS", 2)
    ldm = GenerativeDownscaler(save_ldm(), device="cpu")
    unet = from_checkpoint(save_unet(), device="cpu")
    lapse_rate = interpolations()[1]
    path = tmp_path / "a.nc"
    chosen = times[:3]
    events = list(
        downscale_to_file(store, [ldm, unet, lapse_rate], path, chosen, members=[0, 4], sampling=FEW)
    )
    assert [event.label for event in events[:3]] == [runs.CHECKING, runs.CHECKING, ldm.label]
    assert {event.total for event in events} == {6 + 3 + 3}
    done = [event.done for event in events]
    assert done == sorted(done)
    assert done[-1] == 12
    assert [event.steps for event in events][-2:] == [1, 1]
    assert [event.label for event in events][-1] == "Lapse-rate interpolation"
    coarse, static = store.read_coarse(chosen), store.read_static()
    with xr.open_datatree(path) as tree:
        expected = collect(ldm.sample(coarse, static, DOMAIN, [0, 4], FEW))["t2m"]
        np.testing.assert_allclose(tree[ldm.key]["t2m"].values, expected.values, rtol=0, atol=1e-3)
        assert tree[ldm.key]["member"].values.tolist() == [0, 4]
        for downscaler in (unet, lapse_rate):
            given = tree[downscaler.key]["t2m"]
            assert given.shape == (1, 3, 64, 64)
            one = downscaler.downscale(coarse, static, DOMAIN)["t2m"]
            np.testing.assert_allclose(given.values[0], one.values, rtol=0, atol=1e-3)
        attrs = tree[ldm.key].attrs
        assert attrs["model_sha256"] == ldm.file_hash
        assert attrs["model_kind"] == "ldm_res"
        assert (attrs["sampler"], attrs["sampler_steps"], attrs["seed"]) == ("ddim", 2, "3")
        assert attrs["sampler_timesteps"] == "published"
        assert "seed" not in tree[unet.key].attrs
        assert tree.attrs["data_fingerprint"] == "tests-0"
        assert tree.attrs["synthetic"] == 1


def test_interpolations_write_what_the_store_has(tmp_path: Path, times: np.ndarray) -> None:
    store = make_store(tmp_path / "poor.zarr", times[:1], coarse=("t2m", "v10"), fine=())
    for _ in downscale_to_file(store, [interpolations()[0]], tmp_path / "a.zarr"):
        pass
    with xr.open_dataset(tmp_path / "a.zarr") as dataset:
        assert set(dataset.data_vars) - {"spatial_ref"} == {"t2m", "v10"}


def test_a_run_that_is_closed_leaves_nothing(
    store: Store, tmp_path: Path, save_ldm: SaveModel, times: np.ndarray
) -> None:
    ldm = from_checkpoint(save_ldm(), device="cpu")
    folder = tmp_path / "out"
    run = downscale_to_file(store, [ldm], folder / "a.zarr", times, sampling=FEW)
    assert not folder.exists()
    assert next(run).label == runs.CHECKING
    assert not folder.exists()
    next(run)
    assert len(list(folder.iterdir())) == 1
    run.close()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [("t850", np.nan), ("sst", np.inf)])
def test_a_gap_in_the_last_hour_is_found_before_anything_is_computed(
    tmp_path: Path,
    save_unet: SaveModel,
    times: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: float,
) -> None:
    monkeypatch.setattr(runs, "READ_HOURS", 2)
    gap = make_store(tmp_path / "gap.zarr", times)
    last = {key: field.values for key, field in gap.read_coarse(times[-1:]).items() if key != "orography"}
    last[name][0, :2, -4:] = value
    gap.write(times[-1:], last, gap.read_fine(times[-1:]))
    unet = from_checkpoint(save_unet(), device="cpu")
    run = downscale_to_file(gap, [unet], tmp_path / "out" / "a.nc")
    assert [(event.label, event.hour) for event in islice(run, 3)] == [
        (runs.CHECKING, hour) for hour in times[::2]
    ]
    stamp = str(times[-1])[:16].replace("T", " ")
    with pytest.raises(DownscaleError, match=rf"has missing values at {stamp} UTC in {name} \(8 of 64 cells"):
        next(run)
    assert not (tmp_path / "out").exists()
    for _ in downscale_to_file(gap, [unet], tmp_path / "a.nc", times[:-1]):
        pass
    if name == "sst":
        return
    # Interpolations have gaps where their one predictor has.
    for _ in downscale_to_file(gap, interpolations()[:1], tmp_path / "b.nc"):
        pass
    with xr.open_dataset(tmp_path / "b.nc") as dataset:
        assert dataset["t2m"].notnull().all()


def test_what_can_not_run_is_refused_at_once(
    store: Store, tmp_path: Path, save_ldm: SaveModel, times: np.ndarray
) -> None:
    ldm = from_checkpoint(save_ldm(), device="cpu")
    poor = make_store(tmp_path / "poor.zarr", times[:1], coarse=("t2m",), fine=())
    path = tmp_path / "a.nc"
    (tmp_path / "there.nc").touch()
    for given, downscalers, out, hours, sentence in (
        (poor, [ldm], path, None, "predictors that the store lacks: msl"),
        (store, [], path, None, "at least one hour and one downscaler"),
        (store, [ldm], path, [], "at least one hour"),
        (store, [ldm, ldm], path, None, "named twice"),
        (store, [ldm], path, times[[0, 0]], "once only"),
        (store, [ldm], tmp_path / "a.txt", None, "must end in"),
        (store, [ldm], tmp_path / "there.nc", None, "exists already"),
        (poor, interpolations()[:1], poor.path / "a.nc", None, "lie in each other"),
    ):
        with pytest.raises(DownscaleError, match=sentence):
            downscale_to_file(given, downscalers, out, hours)
    with pytest.raises(DownscaleError, match="lie in each other"):
        downscale_to_file(poor, interpolations()[:1], poor.path, overwrite=True)
    assert poor.path.is_dir()
    assert not path.exists()
