"""Data of one's own, and published data, into stores."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from commands.console import err, progress_bar, say
from commands.inputs import DomainOption, StaticOption, open_store, place_and_static
from commands.show import show_store

ingest = typer.Typer(help="Bring your own data into a store.", no_args_is_help=True)


@ingest.command("era5")
def ingest_era5(
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="NetCDF or GRIB files (or a zip of them), or Zarr stores: folders or https://..."
        ),
    ] = None,
    out_path: Annotated[Path | None, typer.Option("--out", help="Store to make.")] = None,
    start: Annotated[str | None, typer.Option(help="First hour, 2016-05-01 or 2016-05-01T06 (UTC).")] = None,
    end: Annotated[str | None, typer.Option(help="Last hour; a day means all of it.")] = None,
    append: Annotated[bool, typer.Option("--append", help="Add later hours to an existing store.")] = False,
    hours: Annotated[
        Literal["common", "all"],
        typer.Option(help="common: hours that every variable has; all: any, missing values as NaN."),
    ] = "common",
    accumulation: Annotated[
        Literal["detect", "hourly", "since_midnight", "since_start"],
        typer.Option(help="What precipitation and radiation are sums of; since_start: of the forecast."),
    ] = "detect",
    assume_850: Annotated[
        bool, typer.Option("--assume-850", help="Take q, t, u, v, w without a pressure level for 850 hPa.")
    ] = False,
    number: Annotated[int | None, typer.Option(help="Which ensemble member to take.")] = None,
    all_members: Annotated[
        bool, typer.Option("--all-members", help="One store per ensemble member: STORE-00.zarr and so on.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="What the data are, if not ERA5; GRIB files say it themselves.")
    ] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Read s3:// and gs:// without credentials.")
    ] = False,
    static: StaticOption = None,
    domain: DomainOption = "italy",
    request: Annotated[
        bool,
        typer.Option(
            "--request",
            help="Read nothing: print the requests to the Climate Data Store that bring all predictors.",
        ),
    ] = False,
    send: Annotated[
        bool, typer.Option("--send", help="With --request: send them with cdsapi and wait for the files.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="With --request: where the files go.")] = Path("data/era5"),
    margin: Annotated[float, typer.Option(min=0.25, help="With --request: degrees around the domain.")] = 0.5,
    data_format: Annotated[
        Literal["netcdf", "grib"], typer.Option("--format", help="With --request: what to ask for.")
    ] = "netcdf",
    language: Annotated[
        Literal["python", "json"], typer.Option("--as", help="With --request: how they are printed.")
    ] = "python",
) -> None:
    """Regrid ERA5 or forecasts to the coarse grid of a domain. Any subset of the 14 predictors, any area.

    With --request --start DAY --end DAY: the requests to the Climate Data Store for such files.
    """
    from core.data.era5 import ingest as run
    from core.data.era5 import ingest_members
    from core.data.time_span import time_span

    _check_kind_of_era5(context, request)
    language_given = context.get_parameter_source("language")
    if send and language_given is not None and language_given.name == "COMMANDLINE":
        raise ValueError(
            "--as is for requests that are printed, and --send prints none; leave one of them out."
        )
    if request:
        _request_era5(domain, start, end, send, folder, margin, data_format, language)
        return
    if not files:
        raise ValueError(
            "Name the files to take the fields from. Without any, `tramontana ingest era5 --request --start "
            "2016-05-01 --end 2016-05-31` writes the requests to the Climate Data Store that bring them."
        )
    if out_path is None:
        raise ValueError("Say with --out which store to make, for example --out data/era5.zarr.")
    if all_members and number is not None:
        raise ValueError("Give either --number or --all-members.")
    first, last = time_span(start, end)
    place, fields = place_and_static(domain, static)
    with progress_bar("ERA5") as progress:
        options: dict[str, Any] = {
            "static": fields,
            "append": append,
            "hours": hours,
            "accumulation": accumulation,
            "assume_850": assume_850,
            "start": first,
            "end": last,
            "source": source,
            "anonymous": anonymous,
            "progress": progress,
        }
        if all_members:
            reports = ingest_members(files, out_path, place, **options)
        else:
            reports = (run(files, out_path, place, number=number, **options),)
    for report in reports:
        for line in report.sentences():
            say(line)
        show_store(report.store)


def _check_kind_of_era5(context: typer.Context, request: bool) -> None:
    """Raise ValueError where options of files and of requests are mixed."""
    of_requests = {"send", "folder", "margin", "data_format", "language"}
    of_both = {"request", "start", "end", "domain"}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in of_both or source is None or source.name != "COMMANDLINE":
            continue
        if request != (name in of_requests):
            what = "Files" if name == "files" else max(parameter.opts, key=len)
            raise ValueError(
                f"{what} can't be given together with --request, which reads and makes no store."
                if request
                else f"{what} is for --request only."
            )


def _request_era5(
    domain: str,
    start: str | None,
    end: str | None,
    send: bool,
    folder: Path,
    margin: float,
    data_format: Literal["netcdf", "grib"],
    language: Literal["python", "json"],
) -> None:
    from core.data.cds_request import as_json, as_python, era5_requests
    from core.data.cds_request import send as send_all
    from core.domain_file import find_domain

    if start is None or end is None:
        raise ValueError("Say which days to ask for: --request --start 2016-05-01 --end 2016-05-31.")
    requests = era5_requests(find_domain(domain), start, end, data_format=data_format, margin=margin)
    if not send:
        # Plain text for a file or another program, never wrapped.
        typer.echo(as_python(requests, folder) if language == "python" else as_json(requests))
        return
    for done in send_all(requests, folder):
        say(f"{done.path} {'was there already' if done.kept else 'has come'}.")
    say(f"Go on with: tramontana ingest era5 {shlex.quote(str(folder))}/era5-* --out data/era5.zarr")


@ingest.command("fine")
def ingest_fine(
    files: Annotated[
        list[str], typer.Argument(help="NetCDF (CF) or GRIB files of a fine model, also on a rotated grid.")
    ],
    store: Annotated[Path, typer.Option(help="Store with the coarse hours; it is not changed.")],
    out_path: Annotated[Path, typer.Option("--out", help="Store to make, with coarse and fine fields.")],
    winds: Annotated[
        Literal["stated", "grid", "earth"],
        typer.Option(help="What wind components are relative to, where the files don't say themselves."),
    ] = "stated",
    accumulation: Annotated[
        Literal["detect", "hourly", "since_midnight", "since_start"],
        typer.Option(help="What precipitation is a sum of; since_start: of the forecast."),
    ] = "detect",
    number: Annotated[int | None, typer.Option(help="Which ensemble member to take.")] = None,
    start: Annotated[str | None, typer.Option(help="First hour, 2016-05-01 or 2016-05-01T06 (UTC).")] = None,
    end: Annotated[str | None, typer.Option(help="Last hour; a day means all of it.")] = None,
    source: Annotated[str, typer.Option(help="What the fine data are.")] = "Fine model",
) -> None:
    """Add fields of a fine model (for example COSMO-CLM VHR-REA_IT) to coarse hours as truth."""
    from core.data.fine import ingest_fine as run
    from core.data.time_span import time_span

    first, last = time_span(start, end)
    with progress_bar("Fine fields") as progress:
        report = run(
            files,
            store,
            out_path,
            winds=winds,
            accumulation=accumulation,
            number=number,
            start=first,
            end=last,
            source=source,
            progress=progress,
        )
    for line in report.sentences():
        say(line)
    show_store(out_path)


@ingest.command("published")
def ingest_published(
    folder: Annotated[
        Path, typer.Argument(help="What `tramontana fetch` brought, or an unpacked archive.")
    ] = Path("data/published"),
    out_path: Annotated[Path, typer.Option("--out", help="Store to make or to continue.")] = Path(
        "data/published.zarr"
    ),
    days: Annotated[str | None, typer.Option(help="Only these: 2014-12-28,2016-05-02.")] = None,
    start: Annotated[datetime | None, typer.Option(help="First day.", formats=["%Y-%m-%d"])] = None,
    end: Annotated[datetime | None, typer.Option(help="Last day.", formats=["%Y-%m-%d"])] = None,
    targets: Annotated[
        str | None,
        typer.Option(help="Truth to take: t2m, u10,v10, none, ...; by default what every day has."),
    ] = None,
) -> None:
    """Days of the published data set, with their truth; the same command continues where it was stopped."""
    import numpy as np

    from core.data.published import ingest as run

    wanted = None if targets is None else [] if targets == "none" else targets.split(",")
    try:
        with progress_bar("Published data") as progress:
            report = run(
                folder,
                out_path,
                days=None if days is None else days.split(","),
                start=None if start is None else np.datetime64(start),
                end=None if end is None else np.datetime64(end),
                targets=wanted,
                progress=progress,
            )
    except KeyboardInterrupt:
        say(f"Stopped. What is done is kept in {out_path}; the same command continues it.", err)
        raise typer.Exit(130) from None
    for line in report.sentences():
        say(line)
    show_store(out_path)


@ingest.command("outputs")
def ingest_outputs(
    file: Annotated[Path, typer.Argument(help="A table of the authors: results_trained_models_2mT.pkl.")],
    store: Annotated[Path, typer.Option("--store", help="Store with the hours that the table is about.")],
) -> None:
    """The authors' own fields into a store, so that the explorer shows them. Nothing in FILE is executed."""
    from core.data.outputs import ingest_outputs as run

    open_store(store)
    for line in run(file, store).sentences():
        say(line)
    say(f"See them with `tramontana explore {store}`.")
