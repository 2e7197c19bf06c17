"""Throughput of ``tramontana downscale`` on one and two workers, and its memory over ten times the length.

``python -m benchmarks.downscale`` makes a small model with random weights and a store of 128 x 128 cells in a
temporary folder, and prints

- fields (hours x members) per minute of one worker and of two, each with one thread, and their ratio. The
  time of starting the workers does not count: it runs from the first pieces that are done to the last.
- the peak memory of a serial run over some hours and over ten times as many, in processes of their own.

``speed`` and ``memory`` measure one of the two.

``python -m benchmarks.downscale month`` downscales a month of a 64 x 64 domain on three workers, kills one of
them in the middle, and compares all values with those of the serial run. The exit status is 1 where they
differ, or where the memory grows by more than a tenth.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks import random_model
from benchmarks.peak_memory import peak_memory
from core.data.store import Store
from core.domain import Domain
from core.downscale import Sampling, Workers, downscale_to_file, from_checkpoint
from core.variables import PREDICTORS
from tests.small_models import small_latent_diffusion
from tests.synthetic_store import DOMAIN, create_store, static_dataset

LARGE = Domain.regular("Large", left=4e6, top=2.5e6, shape=(128, 128), spacing=2000.0, ratio=8)
SAMPLING = Sampling(steps=4)
MEMBERS = range(2)
GROWTH = 1.1
SMALL = small_latent_diffusion(8, unet_features=(8, 16), denoiser_width=32)


def make(folder: Path, hours: int, domain: Domain, name: str = "store") -> tuple[Store, Path]:
    """A store of so many hours of random numbers without truth, and a model for it."""
    times = np.datetime64("2031-01-01T00", "ns") + np.arange(hours) * np.timedelta64(1, "h")
    path = folder / f"{name}.zarr"
    store = create_store(path, domain, times, static_dataset(domain), coarse=PREDICTORS, fingerprint=name)
    generator = np.random.default_rng(0)
    shape = (hours, *domain.coarse.shape)
    store.write(times, {key: generator.standard_normal(shape, np.float32) for key in PREDICTORS})
    model = folder / "ldm.safetensors"
    random_model.write(model, domain, SMALL)
    return store, model


def throughput(folder: Path, count: int, hours: int) -> float:
    """Fields per minute of ``count`` workers with one thread each."""
    store, model = make(folder, hours, LARGE, f"for-{count}")
    downscaler = from_checkpoint(model, device="cpu", lazy=True)
    workers = Workers(count=count, device="cpu", threads=1)
    stamps = []
    run = downscale_to_file(
        store, [downscaler], folder / f"{count}.zarr", members=MEMBERS, sampling=SAMPLING, workers=workers
    )
    for event in run:
        # Once every worker has read the model.
        if event.label == downscaler.label and event.done >= 2 * count * 24:
            stamps.append((time.perf_counter(), event.done))
    (start, first), (end, last) = stamps[0], stamps[-1]
    return 60 * (last - first) / (end - start)


def peak(folder: Path, hours: int) -> float:
    """Peak memory of a process of its own that downscales so many hours, one after the other [GiB]."""
    command = [sys.executable, "-m", "benchmarks.downscale", "--peak", str(folder), str(hours)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def run_once(folder: Path, hours: int) -> None:
    """Downscale the first ``hours`` of the store in ``folder``, and print the peak memory."""
    store = Store.open(folder / "store.zarr")
    downscaler = from_checkpoint(folder / "ldm.safetensors", device="cpu", threads=1)
    for _ in downscale_to_file(
        store, [downscaler], folder / f"{hours}.zarr", store.hours[:hours], members=MEMBERS, sampling=SAMPLING
    ):
        pass
    print(peak_memory())


def month(folder: Path) -> bool:
    """Whether a month on three workers, one of which is killed, equals the serial run."""
    from distributed import Client, LocalCluster

    store, model = make(folder, 31 * 24, DOMAIN)
    downscaler = from_checkpoint(model, device="cpu", threads=1)
    for _ in downscale_to_file(store, [downscaler], folder / "serial.zarr", sampling=SAMPLING):
        pass
    killed = None
    with (
        LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            host="127.0.0.1",
            memory_limit=0,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        Client(cluster) as client,
    ):
        processes = client.run(os.getpid)
        workers = Workers(scheduler=cluster.scheduler_address, device="cpu", threads=1)
        for event in downscale_to_file(
            store, [downscaler], folder / "workers.zarr", sampling=SAMPLING, workers=workers
        ):
            if killed is None and event.done >= event.total / 3:
                busy = [address for address, tasks in client.processing().items() if tasks]
                killed = processes[busy[0]]
                os.kill(killed, signal.SIGKILL)
    with xr.open_zarr(folder / "serial.zarr") as one, xr.open_zarr(folder / "workers.zarr") as two:
        difference = float(np.abs(one["t2m"] - two["t2m"]).max())
        gaps = int(two["t2m"].isnull().sum())
        hours = two.sizes["time"]
    print(
        f"{hours} hours on 3 workers, process {killed} killed: largest difference {difference:g} K, "
        f"{gaps} gaps"
    )
    return killed is not None and difference == 0 and gaps == 0


def main() -> int:
    """Measure, report, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "speed", "memory", "month"), default="all")
    parser.add_argument("--hours", type=int, default=480, help="of the runs on workers")
    parser.add_argument(
        "--memory-hours", type=int, default=48, help="of the shorter run whose memory is measured"
    )
    parser.add_argument("--peak", nargs=2, metavar=("FOLDER", "HOURS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        run_once(Path(options.peak[0]), int(options.peak[1]))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.what == "month":
            return 0 if month(folder) else 1
        if options.what in ("all", "speed"):
            one, two = (throughput(folder, count, options.hours) for count in (1, 2))
            print(
                f"fields per minute: {one:.0f} on one worker, {two:.0f} on two, ratio {two / one:.2f}",
                flush=True,
            )
        if options.what == "speed":
            return 0
        make(folder, 10 * options.memory_hours, LARGE)
        short, long = (peak(folder, hours) for hours in (options.memory_hours, 10 * options.memory_hours))
        print(
            f"peak memory: {short:.3f} GiB over {options.memory_hours} hours, {long:.3f} GiB over ten "
            f"times as many, ratio {long / short:.3f}"
        )
        return 0 if long <= GROWTH * short else 1


if __name__ == "__main__":
    sys.exit(main())
