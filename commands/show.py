"""What a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.console import out, say
from commands.inputs import all_downscalers, open_store


def show_store(path: Path) -> None:
    """Print what a store holds and which downscalers can run on it."""
    store = open_store(path)
    synthetic = " (synthetic)" if store.attrs.get("synthetic") else ""
    say(f"{path}: {store.attrs.get('title', 'untitled')}{synthetic}")
    for line in store.contents.sentences():
        say(f"  {line}")
    downscalers, _ = all_downscalers(None)
    from core.downscale import stored_outputs

    for downscaler in (*downscalers, *stored_outputs(store)):
        obstacles = downscaler.obstacles(store.contents, store.domain)
        verdict = "can run" if not obstacles else f"can't run: {' '.join(obstacles)}"
        say(f"  {downscaler.label}: {verdict}")


def show(
    store: Annotated[Path, typer.Argument(help="A store.")],
    validate: Annotated[
        bool, typer.Option("--validate", help="Read every hour and check its values.")
    ] = False,
) -> None:
    """What a store holds, what is missing, and which downscalers can run."""
    show_store(store)
    if validate:
        problems = open_store(store).validate()
        for problem in problems:
            say(f"Problem: {problem}")
        if problems:
            raise typer.Exit(1)
        out.print("  Every hour was read and is sound.")
