"""The command line. Every command is a thin call of a function that can also be called from Python.

The commands are in the package `commands`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import typer

from commands.checkpoint import checkpoint
from commands.console import err, say
from commands.demo import demo
from commands.downscale import downscale
from commands.evaluate import evaluate
from commands.explore import explore
from commands.fetch import fetch
from commands.ingest import ingest
from commands.show import show
from commands.statics import statics
from commands.training import train

# Threads of PyTorch that spin while they wait for each other take the cores from what they wait for where the
# machine has other work. Read when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="Tramontana: explore generative downscaling of near-surface weather.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, statics, show, evaluate, downscale, explore):
    app.command()(command)
app.add_typer(ingest, name="ingest")
app.add_typer(fetch, name="fetch")
app.add_typer(train, name="train")
app.add_typer(checkpoint, name="checkpoint")


def main() -> None:
    """Entry point: known errors are one sentence, never a stack trace."""
    if threading.current_thread() is threading.main_thread():
        # So that what is half-written is removed as it is after Ctrl-C.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            sys.exit(0)
        say(f"Error: {error}", err)
        sys.exit(1)


if __name__ == "__main__":
    main()
