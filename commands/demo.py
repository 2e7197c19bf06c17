"""Synthetic weather."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from commands.console import err, out, progress_bar, say
from commands.inputs import DomainOption, StaticOption, place_and_static
from commands.show import show_store

DEMO_STORE = Path("data/demo.zarr")
DEMO_START = datetime(2016, 1, 4)


def demo(
    out_path: Annotated[Path, typer.Option("--out", help="Store to make or to continue.")] = DEMO_STORE,
    start: Annotated[datetime, typer.Option(help="First hour (UTC).", formats=["%Y-%m-%d"])] = DEMO_START,
    hours: Annotated[int, typer.Option(min=1, max=168, help="Hours to keep from each start.")] = 24,
    starts: Annotated[int, typer.Option(min=1, help="How many starts, so many weeks apart:")] = 1,
    weeks_apart: Annotated[int, typer.Option(min=1, help="Weeks from one start to the next.")] = 3,
    seed: Annotated[int, typer.Option(help="Another seed is another weather.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that make weeks at the same time.")] = 1,
    report: Annotated[bool, typer.Option("--report", help="Check the properties of the nature run.")] = False,
    era5: Annotated[
        Path | None, typer.Option(help="With --report: ERA5 2-m temperature (NetCDF) to compare with.")
    ] = None,
    domain: DomainOption = "italy",
    static: StaticOption = None,
) -> None:
    """Make a store of synthetic weather over a real map, that of Italy by default (the nature run)."""
    import numpy as np

    from core.data.nature_run import NatureRunConfig, write_nature_run

    config = NatureRunConfig(seed=seed)
    if report:
        _demo_report(config, era5)
        return
    first = np.datetime64(start, "h") + np.arange(starts) * np.timedelta64(7 * 24 * weeks_apart, "h")
    chosen = (first[:, None] + np.arange(hours)).ravel()
    place, fields = place_and_static(domain, static)
    try:
        with progress_bar("Synthetic weather") as progress:
            write_nature_run(out_path, place, fields, config, chosen, workers=workers, progress=progress)
    except KeyboardInterrupt:
        say(f"Stopped. What is done is kept in {out_path}; the same command continues it.", err)
        raise typer.Exit(130) from None
    show_store(out_path)


def _demo_report(config: Any, era5: Path | None) -> None:
    from core.data.nature_report import plot_report, report
    from core.data.statics import load_italy_static
    from core.domain import ITALY

    with out.status("Simulating") as line:
        result = report(
            ITALY,
            load_italy_static(),
            config,
            era5_sample=era5,
            progress=lambda done, total: line.update(f"Simulated {done} of {total} days"),
        )
    table = Table("property", "value", "band", "holds", title="Nature run (synthetic weather)")
    for row in result.rows:
        table.add_row(row.name, row.formatted_value, row.formatted_band, "yes" if row.holds else "NO")
    out.print(table)
    for line in result.skipped:
        say(line)
    picture = Path("data/nature-run-report.png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot_report(result, picture)
    out.print(f"Picture: {picture}")
    if not result.holds:
        raise typer.Exit(1)
