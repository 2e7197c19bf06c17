"""Model files."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from commands.console import out, progress_bar, say
from commands.inputs import open_store

checkpoint = typer.Typer(help="Look at model files, import and verify them.", no_args_is_help=True)


@checkpoint.command("show")
def checkpoint_show(file: Annotated[Path, typer.Argument(help="A .safetensors checkpoint.")]) -> None:
    """What a checkpoint is: model, variables, domain, provenance. Its weights are not read."""
    from core.checkpoint import describe, read_header

    for key, value in describe(read_header(file)):
        say(f"{key}: {value}")


@checkpoint.command("import")
def checkpoint_import(
    file: Annotated[Path, typer.Argument(help="A published Lightning checkpoint (.ckpt).")],
    normalization: Annotated[
        Path,
        typer.Option(help="The published normalization_data.pkl, or JSON with predictors and targets."),
    ],
    domain: Annotated[
        str, typer.Option(help="`italy`, or a store whose domain and static fields are taken.")
    ] = "italy",
    out_path: Annotated[
        Path | None, typer.Option("--out", help="File to write; by default FILE with .safetensors.")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Targets in channel order, for example u10,v10, if FILE names none.")
    ] = None,
    kind: Annotated[
        Literal["ldm_res", "ldm_pde"] | None,
        typer.Option(help="ldm_pde for a latent diffusion model fine-tuned with the PDE loss."),
    ] = None,
    raw_weights: Annotated[
        bool, typer.Option("--raw-weights", help="The denoiser's weights as trained, not their averages.")
    ] = False,
    label: Annotated[str | None, typer.Option(help="Name to show.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
) -> None:
    """Make a checkpoint of ours from a published one. Nothing that FILE holds is executed."""
    from core.checkpoint import SUFFIX, describe
    from core.data.statics import load_italy_static
    from core.domain import ITALY
    from core.published_checkpoint import PublishedCheckpoint
    from core.published_normalization import read_normalization

    if domain.lower() == "italy":
        place, static = ITALY, load_italy_static()
    elif not Path(domain).exists():
        raise ValueError(
            f"There is no domain or store {domain}. The domain known by name is italy; for another one give "
            "the folder of a store that covers it."
        )
    else:
        store = open_store(Path(domain))
        place, static = store.domain, store.read_static() if store.contents.statics else None
    destination = out_path or file.with_suffix(SUFFIX)
    averages = False if raw_weights else "partial" if kind == "ldm_pde" else True
    published = PublishedCheckpoint(file, averages=averages)
    if destination.exists() and not overwrite and not destination.samefile(file):
        raise ValueError(
            f"{destination} exists already; give another name with --out, or replace it with --overwrite."
        )
    variables = published.variables(targets.split(",") if targets else None)
    statistics = read_normalization(
        normalization, targets=variables.targets, predictors=variables.predictors, static=static
    )
    with out.status("Reading") as line:
        header = published.write(
            destination,
            normalization=statistics,
            domain=place,
            targets=variables.targets,
            kind=kind,
            label=label,
            provenance={"normalization_file": normalization.name},
            progress=lambda what, done, total: line.update(f"{what}: {done / max(total, 1):.0%}"),
        )
    for key, value in describe(header):
        say(f"{key}: {value}")
    say(f"Wrote {destination}. See it with `tramontana explore --checkpoints` and its folder.")


@checkpoint.command("verify")
def checkpoint_verify(
    files: Annotated[list[Path], typer.Argument(help="Checkpoints (.safetensors).")],
) -> None:
    """Check files from header to a run of the networks; exit status 1 if anything is wrong."""
    from core.checkpoint_verify import verify

    sound = True
    for file in files:
        say(f"{file}:")
        for finding in verify(file):
            verdict = {True: "ok", False: "WRONG", None: "not checked"}[finding.holds]
            say(f"  {verdict}: {finding.sentence}")
            sound = sound and finding.holds is not False
    if not sound:
        raise typer.Exit(1)


@checkpoint.command("describe")
def checkpoint_describe(
    files: Annotated[list[Path], typer.Argument(help="Checkpoints (.safetensors) to describe anew.")],
    card: Annotated[
        Path | None, typer.Option(help="YAML with intended_use, limits, licence, authors and other keys.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Store they were trained on, to record between which values its inputs lie."),
    ] = None,
) -> None:
    """Give checkpoints a model card and the ranges of their training data. Weights and hashes stay."""
    from core.checkpoint import file_hash
    from core.checkpoint_describe import describe_checkpoints
    from core.model_card import read_card_texts

    texts = None if card is None else read_card_texts(card)
    opened = None if store is None else open_store(store)
    with nullcontext() if opened is None else progress_bar("Ranges") as progress:
        for path, found in describe_checkpoints(files, texts=texts, store=opened, progress=progress):
            of_hours = "no ranges" if found.ranges is None else f"ranges of {found.ranges.hours} hours"
            say(f"{path}: model card and {of_hours}; SHA-256 without description {file_hash(path)}")
