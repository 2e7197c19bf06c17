"""Scores of models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from commands.audit import show_audit
from commands.console import err, progress_bar, say, show_run
from commands.inputs import PrecisionOption, all_downscalers, open_store

if TYPE_CHECKING:
    from core.checkpoint import Header
    from core.data.store import Store
    from core.downscale import Downscaler


def evaluate(
    store: Annotated[Path, typer.Argument(help="Store with fine truth.")],
    split: Annotated[str, typer.Option(help="train, validation, test (blocked weeks) or all.")] = "test",
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            help="A model file, a folder of them, quadratic or lapse_rate; by default all that ship.",
        ),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="Without --models: folder of models beside the interpolations, not those that ship."
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Without --out: metrics (docs/metrics.md) instead of the usual five."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Without --out: write scores of every hour here.")] = None,
    out_path: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of a full report: scores with intervals, ensembles, spectra, fluxes, maps. The same "
            "command goes on where it was stopped.",
        ),
    ] = None,
    members: Annotated[
        int, typer.Option(min=1, max=10_000, help="With --out: members of models with several.")
    ] = 10,
    every: Annotated[int, typer.Option(min=1, help="Take every n-th hour of the split only.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Decides, with hour and member, the noise.")] = 0,
    sampler: Annotated[Literal["dpmpp_2m", "ddim", "heun"], typer.Option()] = "dpmpp_2m",
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Steps of the sampler.")] = 15,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Fields computed together; by default what fits into memory.")
    ] = None,
    block_hours: Annotated[
        int, typer.Option(min=1, help="Consecutive hours that the bootstrap draws together.")
    ] = 24,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads on the CPU.")] = None,
    precision: PrecisionOption = "float32",
    fresh: Annotated[bool, typer.Option("--fresh", help="With --out: start over.")] = False,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Instead of models, put the flux formulations to the test with fields whose quality is "
            "known. STORE may then be a NetCDF file with 2-metre temperature; its own average is the coarse "
            "field.",
        ),
    ] = False,
    audit_hours: Annotated[
        int, typer.Option("--audit-hours", min=1, help="With --audit: hours to take, evenly spread.")
    ] = 24,
    draws: Annotated[int, typer.Option(min=1, help="With --audit: draws of the noise.")] = 3,
    ratio: Annotated[
        int, typer.Option(min=2, help="With --audit of a NetCDF file: pixels averaged along one side.")
    ] = 2,
) -> None:
    """Scores of models on the hours of one split: a quick table, or with --out a full report."""
    from core.data.samples import split_hours
    from core.downscale import Sampling
    from core.evaluate import USUAL, evaluate_hours, markdown_table
    from core.plural import counted

    if audit:
        if models or checkpoints is not None or metrics or out_path is not None:
            raise ValueError(
                "The audit scores no models; leave out --models, --checkpoints, --metric and --out."
            )
        show_audit(store, split, audit_hours, draws, ratio, csv)
        return
    if out_path is not None and (metrics or csv):
        raise ValueError("A report has all metrics and tables; leave out --metric and --csv.")
    opened = open_store(store)
    hours = split_hours(opened.hours, split)[::every]
    runnable = _runnable(
        opened, models or [], checkpoints, device=device, threads=threads, precision=precision
    )
    if out_path is None:
        with progress_bar("Evaluation") as progress:
            scores = evaluate_hours(opened, runnable, hours, metrics=metrics or USUAL, progress=progress)
        say(f"{counted(hours.size, 'hour')} of the {split} split of {store}.\n")
        say(markdown_table(scores))
        if csv is not None:
            scores.to_dataframe().to_csv(csv)
        return
    _report(
        opened,
        runnable,
        hours,
        out_path,
        members=members,
        sampling=Sampling.checked(sampler=sampler, steps=steps, seed=seed),
        batch=batch,
        block_hours=block_hours,
        fresh=fresh,
    )


def _runnable(store: Store, models: list[str], checkpoints: Path | None, **options: Any) -> list[Downscaler]:
    """The models that were named, or all that ship, without those that can't run on the store."""
    from core.checkpoint import CheckpointError
    from core.downscale import NetworkDownscaler, find_downscalers, from_checkpoint, interpolations

    simple = {downscaler.key: downscaler for downscaler in interpolations()}
    found: dict[str, Downscaler] = {}
    if not models:
        downscalers, unusable = all_downscalers(checkpoints, **options)
        found = {downscaler.key: downscaler for downscaler in downscalers}
    else:
        unusable = []
        for name in models:
            if Path(name).is_dir():
                several, refused = find_downscalers(name, **options)
                unusable += refused
            else:
                several = [simple.get(name) or from_checkpoint(name, **options)]
            found |= {downscaler.key: downscaler for downscaler in several}
    for path, reason in unusable:
        say(f"{path} left out: {reason}", err)
    runnable = []
    for downscaler in found.values():
        obstacles = downscaler.obstacles(store.contents, store.domain)
        if not obstacles:
            try:
                downscaler.load()
            except CheckpointError as error:
                obstacles = [str(error)]
        if obstacles:
            say(f"{downscaler.label} left out: {' '.join(obstacles)}", err)
            continue
        if isinstance(downscaler, NetworkDownscaler) and _may_know(downscaler.header, store):
            say(f"{downscaler.label} was trained on a random split, so it may know these hours.", err)
        runnable.append(downscaler)
    return runnable


def _may_know(header: Header, store: Store) -> bool:
    """Whether a model was trained on this data with hours drawn one by one."""
    provenance = header.provenance
    same = provenance.get("data_fingerprint") == store.attrs.get("fingerprint")
    return same and provenance.get("split_method") == "random"


def _report(store: Store, downscalers: list[Downscaler], hours: Any, folder: Path, **options: Any) -> None:
    """Evaluate, then write tables, figures and the page."""
    import shlex

    from core.evaluation.result import open_evaluation
    from core.evaluation.run import evaluate_models
    from core.report import markdown_table, write_report

    command = shlex.join(["tramontana", *sys.argv[1:]])
    run = evaluate_models(store, downscalers, hours, folder, command=command, **options)
    try:
        show_run(run)
    except KeyboardInterrupt:
        err.print("Stopped. What is done is kept; the same command goes on.")
        raise typer.Exit(130) from None
    evaluation = open_evaluation(folder)
    page = write_report(evaluation, folder)
    for target in evaluation["target"].values:
        say(markdown_table(evaluation, str(target)))
    say(f"\nWrote {page}, with figures, tables and evaluation.nc beside it.")
