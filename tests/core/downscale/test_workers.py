"""Runs on several processes: equal to the serial one, whatever happens to them."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from core.data.store import Store
from core.downscale import (
    DownscaleError,
    Downscaler,
    NoiseFile,
    RunProgress,
    Sampling,
    Workers,
    downscale_to_file,
    from_checkpoint,
    interpolations,
)
from core.downscale import pieces as cutting
from core.downscale.partial import partial_folder
from core.downscale.workers import worker_device
from tests.synthetic_store import DOMAIN, make_store

SaveModel = Callable[..., Path]
FEW = Sampling(steps=2, seed=3)
MEMBERS = (0, 2)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Fourteen hours to come, without truth."""
    times = np.datetime64("2031-03-01T00", "ns") + np.arange(14) * np.timedelta64(1, "h")
    return make_store(tmp_path_factory.mktemp("stores") / "day.zarr", times, fine=())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with LocalCluster(
        n_workers=3, threads_per_worker=1, host="127.0.0.1", memory_limit=0,
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    ) as made:  # fmt: skip
        yield made


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours of two members each."""
    monkeypatch.setattr(cutting, "PIECE_FIELDS", 4)


def downscalers(save_ldm: SaveModel) -> list[Downscaler]:
    return [from_checkpoint(save_ldm(), device="cpu", threads=1), interpolations()[1]]


def run(
    store: Store, models: list[Downscaler], path: Path, each: Callable[[RunProgress], object], **options: Any
) -> None:
    for event in downscale_to_file(store, models, path, members=MEMBERS, sampling=FEW, **options):
        each(event)


def equal(path: Path, other: Path) -> None:
    """Every value, bit for bit."""
    with xr.open_datatree(path) as one, xr.open_datatree(other) as two:
        assert set(one.children) == set(two.children)
        for group in one.children:
            values = one[group]["t2m"].values
            assert np.isfinite(values).all()
            np.testing.assert_array_equal(values, two[group]["t2m"].values)


def test_three_workers_one_killed_in_the_middle(
    day: Store, cluster: Any, tmp_path: Path, save_ldm: SaveModel
) -> None:
    models = downscalers(save_ldm)
    run(day, models, tmp_path / "serial.zarr", lambda _: None)
    killed: list[int] = []
    done: list[float] = []
    with Client(cluster, set_as_default=False) as client:
        processes = client.run(os.getpid)

        def kill(event: RunProgress) -> None:
            done.append(event.done)
            if event.done >= 8 and not killed:
                busy = [worker for worker, tasks in client.processing().items() if tasks]
                killed.append(processes[busy[0]])
                os.kill(killed[0], signal.SIGKILL)

        workers = Workers(scheduler=cluster.scheduler_address, device="cpu", threads=1)
        run(day, models, tmp_path / "many.zarr", kill, workers=workers)
    assert killed
    assert killed[0] not in [worker.pid for worker in cluster.workers.values()]
    # Each piece counts once.
    assert done == sorted(done)
    assert done[-1] == 14 * 2 + 14
    equal(tmp_path / "serial.zarr", tmp_path / "many.zarr")
    assert not partial_folder(tmp_path / "many.zarr").exists()
    assert not list((tmp_path / "many.zarr").rglob("*.partial"))


def test_what_workers_began_this_process_finishes(
    day: Store, cluster: Any, tmp_path: Path, save_ldm: SaveModel
) -> None:
    models = downscalers(save_ldm)
    path = tmp_path / "a.nc"
    workers = Workers(scheduler=cluster.scheduler_address, device="cpu", threads=1)
    started = downscale_to_file(day, models, path, members=MEMBERS, sampling=FEW, workers=workers)
    for event in started:
        if event.done >= 12:
            break
    started.close()
    assert not path.exists()
    first: list[float] = []
    run(day, models, path, lambda event: first.append(event.done))
    assert max(done for done in first if done < 42) > 12
    run(day, models, tmp_path / "serial.nc", lambda _: None)
    equal(path, tmp_path / "serial.nc")


def test_workers_of_its_own(day: Store, tmp_path: Path) -> None:
    """Two processes that are started for the run and end with it."""
    labels: list[str] = []
    models = list(interpolations())
    run(day, models, tmp_path / "a.zarr", lambda e: labels.append(e.label), workers=Workers(count=2))
    assert labels[0] == "Waiting for workers"
    run(day, models, tmp_path / "b.zarr", lambda _: None)
    equal(tmp_path / "a.zarr", tmp_path / "b.zarr")


def test_a_worker_that_does_not_see_the_files(
    day: Store, cluster: Any, tmp_path: Path, save_ldm: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(scheduler=cluster.scheduler_address, device="cpu", threads=1)
    model = from_checkpoint(save_ldm(), device="cpu", lazy=True)
    path = tmp_path / "a.zarr"

    def fails(sentence: str, **options: Any) -> None:
        with pytest.raises(DownscaleError, match=f"can't take part: .*{sentence}.* under the same paths"):
            run(day, [model], path, lambda _: None, workers=workers, **options)
        assert not partial_folder(path).exists()

    absent = tmp_path / "absent.safetensors"
    assert model.file_hash  # from now on kept
    with monkeypatch.context() as patch:
        patch.setattr(model, "path", absent)
        fails(f"no checkpoint at {absent}")
    with monkeypatch.context() as patch:
        patch.setattr(model, "identity", "other")
        fails("is another model here")
    with monkeypatch.context() as patch:
        patch.setitem(day.attrs, "fingerprint", "other")
        fails("holds other data here")


def test_start_noise_from_a_file_reaches_the_workers(
    day: Store, cluster: Any, tmp_path: Path, save_ldm: SaveModel
) -> None:
    values = np.random.default_rng(1).standard_normal((2, 1, 4, 8, 8), np.float32)
    noise = xr.Dataset(
        {"noise": (("time", "member", "channel", "y", "x"), values)},
        coords={"time": day.hours[:2], "member": [0]},
    )
    noise.to_netcdf(tmp_path / "noise.nc")
    model = from_checkpoint(save_ldm(), device="cpu", threads=1)
    results = []
    for workers in (None, Workers(scheduler=cluster.scheduler_address, device="cpu", threads=1)):
        path = tmp_path / f"{workers is None}.zarr"
        for _ in downscale_to_file(
            day,
            [model],
            path,
            day.hours[:2],
            sampling=FEW,
            noise=NoiseFile(tmp_path / "noise.nc"),
            workers=workers,
        ):
            pass
        results.append(xr.load_dataset(path)["t2m"].values)
    np.testing.assert_array_equal(*results)
    with pytest.raises(DownscaleError, match="for one store that is no member"):
        downscale_to_file([day, day], [model], tmp_path / "b.nc", noise=NoiseFile(tmp_path / "noise.nc"))


def test_a_sentence_of_a_worker_reaches_the_caller(cluster: Any, tmp_path: Path) -> None:
    times = np.datetime64("2031-03-01T00", "ns") + np.arange(4) * np.timedelta64(1, "h")
    hot = make_store(tmp_path / "hot.zarr", times, coarse=("t2m",), fine=())
    hot.write(times[3:], {"t2m": np.full((1, *DOMAIN.coarse.shape), 350.0)})
    workers = Workers(scheduler=cluster.scheduler_address)
    with pytest.raises(DownscaleError, match=r"03:00 UTC: .* reaches 350 K"):
        run(
            hot, list(interpolations()[:1]), tmp_path / "a.zarr", lambda _: None, workers=workers, packed=True
        )


def test_no_scheduler_there(day: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.downscale.workers.TIMEOUT", "1s")
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        with pytest.raises(DownscaleError, match=f"no Dask scheduler at {address}"):
            run(
                day,
                [interpolations()[0]],
                tmp_path / "a.zarr",
                lambda _: None,
                workers=Workers(scheduler=address),
            )
    assert not list(tmp_path.glob(".*"))


def test_workers_are_counted_or_found() -> None:
    for options, sentence in (
        ({}, "either a number of workers or the address"),
        ({"count": 2, "scheduler": "tcp://a:1"}, "either a number of workers or the address"),
        ({"count": 0}, "At least one worker"),
    ):
        with pytest.raises(DownscaleError, match=sentence):
            Workers(**options)


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("TRAMONTANA_THREADS", raising=False)
    assert [Workers(count=count).threads_each for count in (1, 3, 20)] == [8, 2, 1]
    assert Workers(count=3, threads=5).threads_each == 5
    assert Workers(scheduler="tcp://a:1").threads_each is None
    monkeypatch.setenv("TRAMONTANA_THREADS", "3")
    assert Workers(count=3).threads_each == 3


@pytest.mark.parametrize(
    ("device", "name", "gpus", "expected"),
    [
        ("auto", "2", 0, "auto"),
        ("auto", "2", 1, "auto"),
        ("auto", "2", 2, "cuda:0"),
        ("cuda", "gpu-3", 2, "cuda:1"),
        ("cuda", "SLURMCluster-0", 4, "cuda:0"),
        ("auto", "tcp://host:40123/a", 4, "cuda:0"),
        ("cuda:1", "2", 4, "cuda:1"),
        ("cpu", "3", 4, "cpu"),
    ],
)
def test_workers_of_a_machine_share_its_gpus(device: str, name: str, gpus: int, expected: str) -> None:
    assert worker_device(device, name, gpus) == expected
