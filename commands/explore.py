"""The explorer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.console import err, say
from commands.demo import DEMO_STORE, demo
from commands.inputs import check_folder, open_store


def explore(
    stores: Annotated[
        list[Path] | None,
        typer.Argument(help="Stores, by default data/*.zarr; further model files (.safetensors)."),
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints; by default those that ship.")
    ] = None,
    stations: Annotated[
        Path | None, typer.Option(help="CSV of station observations to compare with; see docs/stations.md.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5006,
    address: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "localhost",
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")] = True,
    demo_store: Annotated[
        bool, typer.Option("--demo", help="First make (or finish) the demo store if none is named.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder where results are kept; by default ~/.cache/tramontana/results."),
    ] = None,
    cache_gb: Annotated[
        float | None, typer.Option(min=0, help="Its size [10^9 bytes], 5 by default; 0 keeps nothing.")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show what was sampled before; sample and upload nothing.")
    ] = False,
    most_members: Annotated[
        int | None, typer.Option(min=1, max=256, help="Members that a visitor may sample, 16 by default.")
    ] = None,
    most_steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Steps of the sampler that a visitor may ask for.")
    ] = None,
    most_jobs: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Models that wait to be sampled, per visitor; 12."),
    ] = None,
    most_fields: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Members that wait to be sampled, per visitor; 3000."),
    ] = None,
    most_upload_mb: Annotated[
        int | None,
        typer.Option(min=0, help="Largest model to upload [10^6 bytes], 500; 0 for none."),
    ] = None,
    allow_upload: Annotated[
        bool, typer.Option("--allow-upload", help="Let visitors of other machines upload models.")
    ] = False,
) -> None:
    """Open the explorer in a browser (the same as `panel serve explorer/app.py`; see docs/serving.md)."""
    if demo_store and not any(path.suffix != ".safetensors" for path in stores or []):
        from core.data.store import Store

        if not DEMO_STORE.exists() or not Store.open(DEMO_STORE).hours.size:
            say(f"Making a day of synthetic weather in {DEMO_STORE}, once, in about a minute.")
            demo()
    check_folder(checkpoints)
    for path in stores or []:
        if path.suffix == ".safetensors":
            from core.checkpoint import read_header

            read_header(path)
        elif not path.is_dir():
            open_store(path)
    if stations is not None:
        from core.data.stations import read_stations

        found = read_stations(stations)  # what is wrong with it is better said here than on the page
        for remark in found.remarks:
            say(f"{stations}: {remark}", err)
    from explorer.serve import serve

    settings = {
        "stations": stations,
        "cache": cache,
        "cache_gb": cache_gb,
        "read_only": read_only or None,
        "most_members": most_members,
        "most_steps": most_steps,
        "most_jobs": most_jobs,
        "most_fields": most_fields,
        "most_upload_mb": most_upload_mb,
        "allow_upload": allow_upload or None,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    serve(stores or [], checkpoints, port=port, address=address, open_browser=open_browser, **given)
