"""Fine fields of models, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from commands.console import err, say, show_run
from commands.inputs import PrecisionOption, open_store

if TYPE_CHECKING:
    from core.data.store import Store
    from core.downscale import Downscaler


def downscale(
    stores: Annotated[
        list[Path],
        typer.Argument(help="Store with the predictors; several for the coarse members of a forecast."),
    ],
    models: Annotated[
        list[str],
        typer.Option("--model", help="A model file, or quadratic or lapse_rate; several are allowed."),
    ],
    out_path: Annotated[Path, typer.Option("--out", help="File to write: name.zarr or name.nc.")],
    members: Annotated[
        int, typer.Option(min=1, max=10_000, help="Members of the ensemble, for models with several.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Decides, with hour and member, the noise.")] = 0,
    sampler: Annotated[Literal["dpmpp_2m", "ddim", "heun"], typer.Option()] = "dpmpp_2m",
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Steps of the sampler.")] = 15,
    eta: Annotated[float, typer.Option(min=0, max=1, help="Noise added in each step of ddim.")] = 0.0,
    timesteps: Annotated[
        Literal["published", "trailing", "karras", "logsnr"] | None,
        typer.Option(help="Where the steps lie; by default what suits the sampler (ddim: published)."),
    ] = None,
    hours: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="FIRST LAST",
            help="First and last hour (UTC), 2016-05-01 or 2016-05-01T06; a last day whole.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test (blocked weeks), or all.")] = "all",
    noise: Annotated[
        Path | None,
        typer.Option(help="NetCDF with the variable noise (time, member, channel, y, x) to start from."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Fields computed together; by default what fits into memory.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(min=0, help="Memory for the fields of a batch [GiB]; 2 by default on the CPU."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads on the CPU, of each worker.")
    ] = None,
    precision: PrecisionOption = "float32",
    packed: Annotated[
        bool, typer.Option("--packed", help="16 bits a value: temperature to 0.00125 K, half the size.")
    ] = False,
    per_month: Annotated[
        bool, typer.Option("--per-month", help="A file for every month: name-2016-01.nc.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes of this machine that share the work.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask scheduler, tcp://host:8786, whose workers share the work.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not continue an interrupted run.")] = False,
) -> None:
    """Fine fields of models over hours and members, as CF files (NetCDF or Zarr).

    The same command continues a run that was stopped or killed. See docs/downscaling.md for clusters.
    """
    from core.data.samples import split_hours
    from core.data.time_span import time_span
    from core.downscale import (
        NoiseFile,
        Sampling,
        Workers,
        downscale_to_file,
        from_checkpoint,
        interpolations,
    )
    from core.plural import counted

    opened = [open_store(store) for store in stores]
    times = split_hours(opened[0].hours, split)
    if hours is not None:
        first, last = time_span(*hours)
        times = times[(times >= first) & (times <= last)]
        if not times.size:
            raise ValueError(f"{stores[0]} has no hour from {hours[0]} to {hours[1]} in the split {split}.")
    sampling = Sampling.checked(sampler=sampler, steps=steps, seed=seed, eta=eta, timesteps=timesteps)
    simple = {downscaler.key: downscaler for downscaler in interpolations()}
    many = None
    if workers is not None or scheduler is not None:
        many = Workers(count=workers, scheduler=scheduler, device=device, threads=threads)
    # Workers read the weights themselves.
    options: dict[str, Any] = {
        "device": device if many is None else "cpu",
        "lazy": many is not None,
        "memory_gib": memory,
        "threads": threads,
        "precision": precision,
    }
    downscalers = [simple.get(name) or from_checkpoint(name, **options) for name in models]
    start = None if noise is None else NoiseFile(noise, seed=seed)
    for downscaler in downscalers:
        if members > 1 and not downscaler.stochastic:
            say(f"{downscaler.label} gives one field an hour: member 0.", err)
    _warn_of_inputs(opened, times, downscalers)
    run = downscale_to_file(
        opened,
        downscalers,
        out_path,
        times,
        members=range(members),
        sampling=sampling,
        noise=start,
        batch=batch,
        packed=packed,
        per_month=per_month,
        overwrite=overwrite,
        fresh=fresh,
        workers=many,
    )
    try:
        show_run(run)
    except KeyboardInterrupt:
        say("Stopped. The same command goes on with what is done.", err)
        raise typer.Exit(130) from None
    made = ", ".join(
        f"{d.label} ({members} members)" if d.stochastic and members > 1 else d.label for d in downscalers
    )
    name = f"{out_path.stem}-YEAR-MONTH{out_path.suffix}" if per_month else out_path.name
    of = f", {counted(len(stores), 'coarse member')}" if len(stores) > 1 else ""
    say(f"Wrote {out_path.with_name(name)}: {counted(times.size, 'hour')} of {made}{of}.")


def _warn_of_inputs(stores: list[Store], hours: Any, downscalers: list[Downscaler]) -> None:
    """Say which inputs lie outside what the models were trained on."""
    import numpy as np

    from core.downscale import NetworkDownscaler
    from core.downscale.applicability import warnings

    models = [(d.label, d.header) for d in downscalers if isinstance(d, NetworkDownscaler)]
    for store in stores:
        # Whatever can't run is refused by the run itself, in its own words.
        if any(d.obstacles(store.contents, store.domain) for d in downscalers):
            continue
        if np.setdiff1d(hours, store.hours).size:
            continue
        of = f"{store.path}: " if len(stores) > 1 else ""
        for sentence in warnings(store, hours, models):
            say(f"Warning: {of}{sentence}", err)
