"""Runs over hours and members into one file."""

import gc
import tracemalloc
from collections.abc import Callable, Generator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import zarr

from core.data.store import Store
from core.downscale import (
    DownscaleError,
    GenerativeDownscaler,
    RunProgress,
    Sampling,
    collect,
    downscale_to_file,
    from_checkpoint,
    interpolations,
)
from core.downscale import pieces as cutting
from core.downscale import run as runs
from core.downscale.partial import PartialOutput, partial_folder
from tests.core.downscale.form import OTHER
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
    labels = list(dict.fromkeys(event.label for event in events))
    assert labels == [runs.CHECKING, ldm.label, unet.label, "Lapse-rate interpolation", runs.WRITING]
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


def test_a_run_that_is_closed_in_its_first_piece_leaves_nothing(
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


def closed_after(run: Generator[RunProgress, None, None], done: float) -> None:
    """Go through a run until so many fields are done, and stop it."""
    for event in run:
        if event.done > done:
            break
    run.close()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of at most three fields."""
    monkeypatch.setattr(cutting, "PIECE_FIELDS", 3)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_run_that_was_stopped_goes_on_where_it_was(
    store: Store, tmp_path: Path, save_ldm: SaveModel, times: np.ndarray, suffix: str
) -> None:
    ldm = from_checkpoint(save_ldm(), device="cpu", threads=1)
    options: dict[str, Any] = {"members": [0, 2], "sampling": FEW}
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"a{suffix}"
    for _ in downscale_to_file(store, [ldm], whole, **options):
        pass
    closed_after(downscale_to_file(store, [ldm], path, **options), 4)
    assert not path.exists()
    assert partial_folder(path).is_dir()
    # Two members of an hour are a piece; the two that were done are not made again.
    events = list(downscale_to_file(store, [ldm], path, **options))
    assert next(event.done for event in events if event.label == ldm.label) == 4
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".safetensors") == [
        f"a{suffix}", "checkpoints", f"whole{suffix}",
    ]  # fmt: skip
    with xr.open_dataset(path) as result, xr.open_dataset(whole) as expected:
        assert expected["t2m"].notnull().all()
        xr.testing.assert_identical(result["t2m"].load(), expected["t2m"].load())


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("per_month", [False, True])
def test_a_run_killed_when_it_has_named_its_output_has_finished_it(
    tmp_path: Path, times: np.ndarray, monkeypatch: pytest.MonkeyPatch, suffix: str, per_month: bool
) -> None:
    some = make_store(tmp_path / "store.zarr", times[:2], coarse=("t2m",), fine=())
    path = tmp_path / "out" / f"a{suffix}"
    options: dict[str, Any] = {"per_month": per_month}
    with monkeypatch.context() as patch:
        patch.setattr(PartialOutput, "discard", lambda _: None)
        for _ in downscale_to_file(some, interpolations()[:1], path, **options):
            pass
    assert len(list(path.parent.iterdir())) == 2
    made = path.with_name(f"a-2016-01{suffix}" if per_month else path.name)
    written = made.stat().st_mtime_ns
    assert list(downscale_to_file(some, interpolations()[:1], path, **options)) == []
    assert list(path.parent.iterdir()) == [made]
    assert made.stat().st_mtime_ns == written
    if not per_month:
        with pytest.raises(DownscaleError, match="exists already"):
            downscale_to_file(some, interpolations()[:1], path)


def test_netcdf_is_made_where_a_later_run_finds_it(tmp_path: Path, times: np.ndarray) -> None:
    """A killed run leaves no file of which nobody knows."""
    some = make_store(tmp_path / "store.zarr", times[:2], coarse=("t2m",), fine=())
    path = tmp_path / "out" / "a.nc"
    run = downscale_to_file(some, interpolations()[:1], path)
    assert any(event.label == runs.WRITING for event in run)
    assert list(path.parent.iterdir()) == [partial_folder(path)]
    for _ in run:
        pass
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("small_pieces")
def test_only_the_same_request_goes_on(store: Store, tmp_path: Path, save_ldm: SaveModel) -> None:
    ldm = from_checkpoint(save_ldm(), device="cpu", threads=1)
    other = from_checkpoint(save_ldm("other", seed=1, label="LDM (ldm)"), device="cpu")
    path = tmp_path / "a.zarr"
    closed_after(downscale_to_file(store, [ldm], path, members=[0, 1], sampling=FEW), 4)
    for downscaler, changes, sentence in (
        (ldm, {"sampling": Sampling(sampler="ddim", steps=2, seed=4)}, r"seed of LDM \(ldm\) was 3, now 4"),
        (ldm, {"members": [0, 2]}, r"members of LDM \(ldm\) was 0, 1, now 0, 2"),
        (ldm, {"packed": True}, "packed was no, now yes"),
        (ldm, {"hours": store.hours[1:]}, "hours was 5 hours from 2016-01-06 00:00 .*, now 4 hours"),
        (other, {}, "model_sha256 of LDM .* was"),
    ):
        options: dict[str, Any] = {"members": [0, 1], "sampling": FEW} | changes
        with pytest.raises(DownscaleError, match=f"another request .*{sentence}.*--fresh"):
            downscale_to_file(store, [downscaler], path, **options)
    # How fields are put together is no part of it.
    closed_after(downscale_to_file(store, [ldm], path, members=[0, 1], sampling=FEW, batch=1), 6)
    for _ in downscale_to_file(store, [ldm], path, members=[0, 1], packed=True, sampling=FEW, fresh=True):
        pass
    with xr.open_dataset(path, mask_and_scale=False) as dataset:
        assert dataset["t2m"].dtype == np.int16
    assert not partial_folder(path).exists()


@pytest.mark.usefixtures("small_pieces")
def test_two_runs_at_once_are_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    first = downscale_to_file(store, interpolations()[:1], path)
    next(first)
    with pytest.raises(DownscaleError, match="Another run is at work on"):
        next(downscale_to_file(store, interpolations()[:1], path))
    for _ in first:
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.filterwarnings("error")
def test_a_zarr_hierarchy_has_coordinates_shards_and_provenance(
    store: Store, tmp_path: Path, save_ldm: SaveModel, times: np.ndarray
) -> None:
    ldm = from_checkpoint(save_ldm(), device="cpu")
    path = tmp_path / "new" / "a.zarr"
    for _ in downscale_to_file(store, [ldm], path, members=[0, 5], sampling=FEW, packed=True):
        pass
    array = zarr.open_group(path, mode="r")["t2m"]
    assert (array.shards, array.chunks, array.dtype) == ((2, 1, 64, 64), (1, 1, 64, 64), np.int16)
    with xr.open_dataset(path, decode_coords="all") as dataset:
        assert dataset["t2m"].dims == ("member", "time", "y", "x")
        assert dataset["member"].values.tolist() == [0, 5]
        np.testing.assert_array_equal(dataset["time"].values, times)
        assert dataset.rio.crs.to_epsg() == 3035
        assert dataset["t2m"].encoding["scale_factor"] == 0.0025
        assert "at most 0.00125 K" in dataset["t2m"].attrs["comment"]
        assert dataset.attrs["model_sha256"] == ldm.file_hash
        assert len(dataset.attrs["request_sha256"]) == 64
        expected = collect(ldm.sample(store.read_coarse(), store.read_static(), DOMAIN, [0, 5], FEW))["t2m"]
        np.testing.assert_allclose(dataset["t2m"].values, expected.values, rtol=0, atol=1.3e-3)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_file_for_every_month(tmp_path: Path, suffix: str) -> None:
    hours = np.datetime64("2031-01-31T22", "ns") + np.arange(4) * np.timedelta64(1, "h")
    future = make_store(tmp_path / "future.zarr", hours, fine=())
    path = tmp_path / "out" / f"a{suffix}"
    closed_after(downscale_to_file(future, interpolations()[:1], path, per_month=True), 2)
    first = path.with_name(f"a-2031-01{suffix}")
    assert [p.name for p in path.parent.iterdir()] == [first.name]
    made = first.stat().st_mtime_ns
    events = list(downscale_to_file(future, interpolations()[:1], path, per_month=True))
    assert (events[0].done, events[-1].done, events[-1].total) == (3, 4, 4)
    assert first.stat().st_mtime_ns == made
    names = [f"a-2031-01{suffix}", f"a-2031-02{suffix}"]
    assert sorted(p.name for p in path.parent.iterdir()) == names
    parts = [xr.load_dataset(path.with_name(name)) for name in names]
    assert [part.sizes["time"] for part in parts] == [2, 2]
    expected = interpolations()[0].downscale(future.read_coarse(), None, DOMAIN)
    np.testing.assert_array_equal(
        np.concatenate([part["t2m"].values[0] for part in parts]), expected["t2m"].values
    )
    # Another request finds files that are not its own.
    with pytest.raises(DownscaleError, match="exists already"):
        downscale_to_file(future, interpolations()[:1], path, per_month=True, packed=True)


def test_values_that_can_not_be_packed_are_refused(tmp_path: Path, times: np.ndarray) -> None:
    hot = make_store(tmp_path / "hot.zarr", times[:2], coarse=("t2m",), fine=())
    hot.write(times[1:2], {"t2m": np.full((1, 8, 8), 350.0)})
    path = tmp_path / "out" / "a.nc"
    run = downscale_to_file(hot, interpolations()[:1], path, packed=True)
    hour = str(times[1])[:16].replace("T", " ")
    with pytest.raises(DownscaleError, match=rf"{hour} UTC: .* reaches 350 K; packed fields hold"):
        list(run)
    assert list(path.parent.iterdir()) == []


def test_coarse_members_of_a_forecast(tmp_path: Path, save_ldm: SaveModel) -> None:
    hours = np.datetime64("2031-05-01T00", "ns") + np.arange(3) * np.timedelta64(1, "h")
    stores = [make_store(tmp_path / f"{n}.zarr", hours, fine=(), seed=n) for n in range(3)]
    ldm = from_checkpoint(save_ldm(), device="cpu", threads=1)
    path = tmp_path / "a.zarr"
    for _ in downscale_to_file(stores, [ldm], path, members=[0, 1], sampling=FEW):
        pass
    with xr.open_dataset(path) as dataset:
        field = dataset["t2m"].load()
        assert dataset.attrs["data_fingerprint"] == "tests-0, tests-1, tests-2"
    assert field.dims == ("number", "member", "time", "y", "x")
    assert field["number"].values.tolist() == [0, 1, 2]
    assert field["number"].attrs["long_name"] == "member of the coarse ensemble that was downscaled"
    for number, one in enumerate(stores):
        coarse = one.read_coarse().assign_coords(number=number)
        expected = collect(ldm.sample(coarse, one.read_static(), DOMAIN, [0, 1], FEW))["t2m"]
        np.testing.assert_allclose(field.values[number], expected.values, rtol=0, atol=1e-3)
    # The first draws what a store that is no member draws, the others do not.
    plain = [collect(ldm.sample(s.read_coarse(), s.read_static(), DOMAIN, [0], FEW))["t2m"] for s in stores]
    np.testing.assert_allclose(field.values[0, :1], plain[0].values, rtol=0, atol=1e-3)
    assert np.abs(field.values[1, :1] - plain[1].values).max() > 0.1


def test_a_store_knows_its_coarse_member(tmp_path: Path, save_ldm: SaveModel, times: np.ndarray) -> None:
    stores = []
    for name, number in (("a", 7), ("b", 2), ("same", 7), ("none", None), ("wrong", "x")):
        made = make_store(tmp_path / f"{name}.zarr", times[:2], fine=())
        if number is not None:
            zarr.open_group(made.path, mode="r+").attrs["coarse_member"] = number
        stores.append(Store.open(made.path))
    ldm = from_checkpoint(save_ldm(), device="cpu", threads=1)
    together, alone = tmp_path / "together.nc", tmp_path / "alone.nc"
    for given, path in ((stores[:2], together), (stores[1], alone)):
        for _ in downscale_to_file(given, [ldm], path, sampling=FEW):
            pass
    with xr.open_dataset(together) as both, xr.open_dataset(alone) as one:
        assert both["number"].values.tolist() == [7, 2]
        assert one["number"].values.tolist() == [2]
        np.testing.assert_allclose(both["t2m"].sel(number=[2]).values, one["t2m"].values, rtol=0, atol=1e-3)
        # The same coarse fields with other noise.
        assert np.abs(np.diff(both["t2m"].values, axis=0)).max() > 0.1
    for given, sentence in (
        ([stores[0], stores[2]], "hold the same coarse member, 7"),
        ([stores[0], stores[3]], "none.zarr does not say which coarse member"),
        ([stores[4]], "coarse member 'x'; it must be a whole number"),
    ):
        with pytest.raises(ValueError, match=sentence):
            downscale_to_file(given, [ldm], tmp_path / "b.nc", sampling=FEW)


def test_stores_that_do_not_belong_together(
    store: Store, tmp_path: Path, save_unet: SaveModel, times: np.ndarray
) -> None:
    quadratic = interpolations()[:1]
    late = make_store(tmp_path / "late.zarr", times[2:], fine=())
    poor = make_store(tmp_path / "poor.zarr", times, coarse=("t2m",), fine=())
    elsewhere = make_store(tmp_path / "elsewhere.zarr", times, fine=(), domain=OTHER)
    for other, sentence in (
        (late, r"late.zarr lacks 2 hours .* the first at 2016-01-06 00:00 UTC"),
        (poor, "gives t2m, u10, v10, tp on .* but t2m on"),
        (elsewhere, "have different domains"),
    ):
        with pytest.raises(DownscaleError, match=sentence):
            downscale_to_file([store, other], quadratic, tmp_path / "a.nc")


@pytest.mark.usefixtures("small_pieces")
def test_memory_does_not_grow_with_the_number_of_hours(tmp_path: Path) -> None:
    """The most that Python and numpy hold at once, over runs of different length."""
    start = np.datetime64("2020-01-01T00", "ns")
    peaks = []
    quadratic = interpolations()[:1]
    # The first fills caches of libraries.
    for name, hours in (("first", 6), ("short", 6), ("long", 60)):
        times = start + np.arange(hours) * np.timedelta64(1, "h")
        store = make_store(tmp_path / f"{name}.zarr", times, coarse=("t2m",), fine=(), static=False)
        gc.collect()
        tracemalloc.start()
        for _ in downscale_to_file(store, quadratic, tmp_path / f"{name}-out.zarr"):
            gc.collect()  # cycles of libraries, which wait for it
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    field = 64 * 64 * 4
    assert peaks[1] > 3 * field
    assert peaks[2] < peaks[1] + 20 * field


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
