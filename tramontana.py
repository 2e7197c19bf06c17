"""The command line. Every command is a thin call of a function that can also be called from Python.

Modules are imported inside the commands, so that `tramontana --help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from csv import reader as csv_reader
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import xarray as xr

    from core.checkpoint import Header
    from core.data.remote import Client, Plan, Progress, Wanted
    from core.data.store import Store
    from core.domain import Domain
    from core.downscale import Downscaler, RunProgress

# Threads of PyTorch that spin while they wait for each other take the cores from what they wait for where the
# machine has other work. Read when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="Tramontana: explore generative downscaling of near-surface weather.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ingest = typer.Typer(help="Bring your own data into a store.", no_args_is_help=True)
fetch = typer.Typer(
    help="Single files out of the published archives; see docs/published-data.md.", no_args_is_help=True
)
train = typer.Typer(help="Train models.", no_args_is_help=True)
checkpoint = typer.Typer(help="Look at model files, import and verify them.", no_args_is_help=True)
app.add_typer(ingest, name="ingest")
app.add_typer(fetch, name="fetch")
app.add_typer(train, name="train")
app.add_typer(checkpoint, name="checkpoint")

out = Console()
err = Console(stderr=True)


def say(text: str, console: Console = out) -> None:
    """Print text as it is: names of files and stores may hold brackets, which are no markup.

    Letters that steer a terminal are left out; titles of stores may come from anybody.
    """
    text = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    console.print(text, markup=False, highlight=False, soft_wrap=True)


PrecisionOption = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(
        help="bfloat16 lets denoisers multiply in half precision: faster on GPUs, and on processors that "
        "have instructions for it."
    ),
]
DomainOption = Annotated[
    str, typer.Option(help="`italy`, a YAML file of a domain of yours, or a store that lies on it.")
]
StaticOption = Annotated[
    Path | None,
    typer.Option(help="Static fields from `tramontana statics`; Italy has some that ship."),
]
DEMO_STORE = Path("data/demo.zarr")
DEMO_START = datetime(2016, 1, 4)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that shows what was really done: call it with (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("hours"))
    bar = Progress(*columns, TimeRemainingColumn(), console=err)
    task = bar.add_task(label, total=None)
    bar.start()
    try:
        yield lambda done, total: bar.update(task, completed=done, total=total)
    finally:
        if bar.tasks[task].total is None:
            # Nothing was to be done, or it came to nothing before it began: nothing stays on the screen.
            bar.live.transient = True
            bar.live.stop()
        else:
            bar.stop()


def check_folder(checkpoints: Path | None) -> None:
    """Raise ValueError where a folder of checkpoints was named that is not there."""
    if checkpoints is not None and not checkpoints.is_dir():
        raise ValueError(f"There is no folder {checkpoints} with checkpoints.")


def open_store(path: Path) -> Store:
    """Open a store for reading; StoreError says what else a file is for that was given in its place."""
    from core.checkpoint import SUFFIX, published_advice
    from core.data.store import Store, StoreError
    from core.file_kind import file_kind

    if path.is_file():
        if file_kind(path) == "zip" and path.suffix != ".zip":
            raise StoreError(f"{path} is no store. {published_advice(path)}")
        if path.suffix == SUFFIX:
            raise StoreError(f"{path} is no store. See a model file with `tramontana checkpoint show`.")
    return Store.open(path)


def all_downscalers(checkpoints: Path | None, **options: Any) -> tuple[list[Any], list[tuple[Path, str]]]:
    """The interpolations, then the models of a folder (those that ship by default); unusable files."""
    from core.assets import shipped_checkpoints
    from core.downscale import find_downscalers, interpolations

    check_folder(checkpoints)
    models, unusable = find_downscalers(checkpoints or shipped_checkpoints(), **options)
    return [*interpolations(), *models], unusable


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


def place_and_static(domain: str, static: Path | None) -> tuple[Domain, xr.Dataset]:
    """A domain and its static fields: those of the file, else those that ship for Italy."""
    from core.data.statics import load_italy_static, load_static
    from core.domain import ITALY
    from core.domain_file import find_domain

    place = ITALY if domain == "italy" else find_domain(domain)
    if static is not None:
        return place, load_static(static, place)
    if place != ITALY:
        raise ValueError(
            f"The domain {place.name} needs static fields of its own: make them with `tramontana statics "
            f"--domain "
            f"{domain}` and give them with --static."
        )
    return place, load_italy_static()


@app.command()
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
        err.print(f"Stopped. What is done is kept in {out_path}; the same command continues it.")
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
    say(f"Go on with: tramontana ingest era5 {folder}/era5-* --out data/era5.zarr")


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
        err.print(f"Stopped. What is done is kept in {out_path}; the same command continues it.")
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


def read_classes(path: Path) -> dict[int, int]:
    """Land-cover numbers and the classes they belong to, from a CSV file with two columns."""
    try:
        with path.open(newline="") as file:
            return {int(number): int(target) for number, target in csv_reader(file)}
    except ValueError as error:
        raise ValueError(
            f"{path} must have two whole numbers in every line, number and class, without a header: {error}."
        ) from error


@app.command()
def statics(
    elevation: Annotated[Path, typer.Option(help="Elevation model, GeoTIFF or NetCDF, metres.")],
    out_path: Annotated[Path, typer.Option("--out", help="NetCDF file to write.")],
    land_cover: Annotated[Path | None, typer.Option(help="Land-cover classes, GeoTIFF or NetCDF.")] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="CSV of `number,class` (1-16 IGBP, 0 water) for land cover with other numbers."),
    ] = None,
    land_mask: Annotated[Path | None, typer.Option(help="Land fraction or mask, GeoTIFF or NetCDF.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Take the domain of this store instead of Italy.")
    ] = None,
    domain: DomainOption = "italy",
) -> None:
    """Average an elevation model and a land-cover map of yours to the fine grid."""
    from core.data.statics import build_static, save_static
    from core.domain_file import find_domain

    static = build_static(
        find_domain(domain if store is None else str(store)),
        elevation=elevation,
        land_cover=land_cover,
        land_mask=land_mask,
        classes=None if classes is None else read_classes(classes),
    )
    save_static(static, out_path)
    say(f"Wrote {out_path}: {', '.join(map(str, static.data_vars))}.")
    say(static.attrs["coverage"])


PUBLISHED = Path("data/published")
LISTED = 40
"""Files that are listed one by one before they are fetched."""
FetchFolder = Annotated[Path, typer.Option("--out", help="Folder that the files land in.")]
MirrorOption = Annotated[
    str | None,
    typer.Option(
        envvar="TRAMONTANA_MIRROR", help="Another server with the archives, or address with {file}."
    ),
]
CatalogueOption = Annotated[
    Path | None, typer.Option(envvar="TRAMONTANA_CATALOGUE", help="Catalogue of other archives (YAML).")
]
ProxyOption = Annotated[str | None, typer.Option(help="Proxy; by default what HTTPS_PROXY says.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Fetch without asking.")]
WholeOption = Annotated[
    bool, typer.Option("--whole", help="Fetch whole archives where the server sends no parts of them.")
]
VerifyOption = Annotated[
    bool, typer.Option("--verify", help="Compare what is there with the archives' checksums.")
]
RestartOption = Annotated[bool, typer.Option("--restart", help="Throw away what is incomplete first.")]
ParallelOption = Annotated[int, typer.Option(min=1, max=16, help="Requests at a time.")]


@fetch.command("list")
def fetch_list(
    archive: Annotated[str | None, typer.Argument(help="Look into this archive.")] = None,
    out_path: FetchFolder = PUBLISHED,
    mirror: MirrorOption = None,
    catalogue: CatalogueOption = None,
    proxy: ProxyOption = None,
) -> None:
    """What can be fetched: archives, networks and targets, or the days and files of one archive."""
    from core.addresses import without_credentials
    from core.data.remote import Client, days_in, look_into, read_catalogue, size_in_words, words_of
    from core.plural import counted

    entries = read_catalogue(catalogue)
    if mirror is not None:
        entries = entries.with_mirror(mirror)
    if archive is None:
        say(f"{entries.title}. {entries.citation}. Licence: {entries.licence}.")
        for name, entry in entries.archives.items():
            address = without_credentials(entries.address(name))
            say(f"{name}: {entry.title}, about {size_in_words(entry.size)}, {address}")
        say(f"Networks: {', '.join(entries.layout.weights)}.")
        say(f"Targets of days: {', '.join(entries.layout.targets)}.")
        say("`tramontana fetch list sample` looks into an archive.")
        return
    with Client(proxy=proxy) as client, err.status("Looking into the archive"):
        source = look_into(entries, archive, out_path, client, note=lambda text: say(text, err))
    say(f"{source.url}, {size_in_words(source.size)}")
    days = days_in(source, entries)
    if days:
        say(f"{counted(len(days), 'day')}: {' '.join(words_of(days))}")
    others = [name for name in source.directory.names() if not name.endswith(".pt.zst")]
    for name in others[:LISTED]:
        say(f"  {name}")
    if len(others) > LISTED:
        say(f"  and {len(others) - LISTED} further files")


@fetch.command("days")
def fetch_days(
    days: Annotated[list[str], typer.Argument(help="2016-05-02, or 2016-05-02..2016-05-08 for several.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Fine fields: 2mT (default), UV, TP; none for coarse ones only.")
    ] = None,
    out_path: FetchFolder = PUBLISHED,
    mirror: MirrorOption = None,
    catalogue: CatalogueOption = None,
    proxy: ProxyOption = None,
    yes: YesOption = False,
    whole: WholeOption = False,
    verify: VerifyOption = False,
    restart: RestartOption = False,
    parallel: ParallelOption = 4,
) -> None:
    """All hours of days: coarse and fine fields, the list of hours and the normalisation."""
    from core.data.remote import Wanted, days_from

    targets = tuple(name for name in target or ["2mT"] if name != "none")
    wanted = Wanted(days=days_from(days), targets=targets)
    _fetch(wanted, out_path, mirror, catalogue, proxy, yes, whole, verify, restart, parallel)
    say(f"Make a store of it with `tramontana ingest published {out_path}`.")


@fetch.command("weights")
def fetch_weights(
    names: Annotated[list[str], typer.Argument(help="ldm-2mT, unet-UV and so on; see `fetch list`.")],
    out_path: FetchFolder = PUBLISHED,
    mirror: MirrorOption = None,
    catalogue: CatalogueOption = None,
    proxy: ProxyOption = None,
    yes: YesOption = False,
    whole: WholeOption = False,
    verify: VerifyOption = False,
    restart: RestartOption = False,
    parallel: ParallelOption = 4,
) -> None:
    """Trained networks and the normalisation that they need."""
    from core.data.remote import Wanted

    wanted = Wanted(weights=tuple(names))
    _fetch(wanted, out_path, mirror, catalogue, proxy, yes, whole, verify, restart, parallel)
    say("Make model files of ours of them with `tramontana checkpoint import`.")


@fetch.command("statics")
def fetch_statics(
    out_path: FetchFolder = PUBLISHED,
    mirror: MirrorOption = None,
    catalogue: CatalogueOption = None,
    proxy: ProxyOption = None,
    yes: YesOption = False,
    whole: WholeOption = False,
    verify: VerifyOption = False,
    restart: RestartOption = False,
    parallel: ParallelOption = 4,
) -> None:
    """Orography, land cover, latitude and outlines."""
    from core.data.remote import Wanted

    _fetch(Wanted(statics=True), out_path, mirror, catalogue, proxy, yes, whole, verify, restart, parallel)


@fetch.command("normalization")
def fetch_normalization(
    out_path: FetchFolder = PUBLISHED,
    mirror: MirrorOption = None,
    catalogue: CatalogueOption = None,
    proxy: ProxyOption = None,
    yes: YesOption = False,
    whole: WholeOption = False,
    verify: VerifyOption = False,
    restart: RestartOption = False,
    parallel: ParallelOption = 4,
) -> None:
    """Means and standard deviations with which the published fields are normalised."""
    from core.data.remote import Wanted

    wanted = Wanted(normalization=True)
    _fetch(wanted, out_path, mirror, catalogue, proxy, yes, whole, verify, restart, parallel)


@fetch.command("outputs")
def fetch_outputs(
    out_path: FetchFolder = PUBLISHED,
    mirror: MirrorOption = None,
    catalogue: CatalogueOption = None,
    proxy: ProxyOption = None,
    yes: YesOption = False,
    whole: WholeOption = False,
    verify: VerifyOption = False,
    restart: RestartOption = False,
    parallel: ParallelOption = 4,
) -> None:
    """The authors' tables of results."""
    from core.data.remote import Wanted

    _fetch(Wanted(outputs=True), out_path, mirror, catalogue, proxy, yes, whole, verify, restart, parallel)


def _fetch(
    wanted: Wanted,
    folder: Path,
    mirror: str | None,
    catalogue: Path | None,
    proxy: str | None,
    yes: bool,
    whole: bool,
    verify: bool,
    restart: bool,
    parallel: int,
) -> None:
    """Show what will come, ask, and fetch it."""
    from core.data.remote import Client, fetch_whole, make_plan, read_catalogue, size_in_words
    from core.data.remote import fetch as run
    from core.plural import counted

    entries = read_catalogue(catalogue)
    if mirror is not None:
        entries = entries.with_mirror(mirror)

    def plan_with(client: Client, restart: bool) -> Plan:
        with err.status("Looking into the archives"):
            return make_plan(
                entries,
                wanted,
                folder,
                client,
                verify=verify,
                restart=restart,
                note=lambda text: say(text, err),
            )

    with Client(proxy=proxy) as client:
        try:
            plan = plan_with(client, restart)
            while plan.whole:
                archive = plan.whole[0]
                say(
                    f"The server sends no parts of files: {archive.remote.url} would have to come as a "
                    f"whole, {'' if archive.exact else 'about '}{size_in_words(archive.size)}, "
                    f"to {archive.path}."
                )
                _agree(whole, "--whole")
                _show_transfer(fetch_whole(archive, folder, client))
                plan = plan_with(client, restart=False)
            _show_plan(plan)
            if not plan.items:
                return
            plan.check_room(parallel)
            say(f"Licence: {entries.licence}. Cite: {entries.citation}.")
            _agree(yes, "--yes")
            _show_transfer(run(plan, client, parallel=parallel))
        except KeyboardInterrupt:
            say("Stopped. What was begun is kept; the same command goes on.", err)
            raise typer.Exit(130) from None
        archives = max(plan.archive_bytes, 1)
        say(
            f"Fetched {counted(len(plan.items), 'file')} into {folder}: {size_in_words(client.transferred)} "
            f"transferred, {client.transferred / archives:.2%} of the archives."
        )


def _agree(agreed: bool, option: str) -> None:
    """Ask for consent unless it was given; refuse where nobody can be asked."""
    if agreed:
        return
    if not sys.stdin.isatty():
        raise ValueError(f"Nothing was fetched, because nobody can be asked here. Add {option} to agree.")
    if not typer.confirm("Fetch it?"):
        say("Nothing was fetched.")
        raise typer.Exit(1)


def _show_plan(plan: Plan) -> None:
    """Say which members will come, how many bytes, from where and to where."""
    from core.data.remote import free_space, size_in_words
    from core.plural import counted

    for remark in plan.remarks:
        say(remark, err)
    if plan.present:
        say(f"Already in {plan.folder}: {counted(len(plan.present), 'file')}.")
    if not plan.items:
        say("Nothing is missing.")
        return
    source = None
    for item in plan.items[:LISTED]:
        if item.source is not source:
            source = item.source
            say(f"From {source.local or source.url} ({size_in_words(source.size)}):")
        say(f"  {item.member.name}, {size_in_words(item.packed)}, to {plan.folder / item.path}")
    if len(plan.items) > LISTED:
        say(f"  and {len(plan.items) - LISTED} further files")
    begun = sum(item.had for item in plan.items)
    say(
        f"In all {counted(len(plan.items), 'file')}: {size_in_words(plan.to_transfer)} to transfer"
        f"{f' ({size_in_words(begun)} are here from before)' if begun else ''}, "
        f"{size_in_words(plan.to_write)} on the disk, "
        f"of which {size_in_words(free_space(plan.folder))} are free."
    )


def _show_transfer(run: Generator[Progress, None, None]) -> None:
    """Go through a transfer with a bar of its bytes; reasons to wait are said above it."""
    from contextlib import closing

    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    with closing(run), Bar(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task("Starting", total=None)
        for at in run:
            bar.update(task, description=at.label, completed=at.done, total=at.total)
            if at.note:
                say(at.note, err)


@app.command()
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


ConfigOption = Annotated[str, typer.Option(help="Name of a shipped config, or a YAML file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change one value: key=value.")]
RunFolder = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Do not continue an interrupted run.")]
TrainStore = Annotated[Path, typer.Argument(help="Store with fine truth.")]


def follow_training(run: Callable[[Any], Any], out_path: Path) -> Any:
    """Show the progress of a training run, which is called with the report to send it to."""
    from train.progress import terminal_progress

    try:
        with terminal_progress(err) as progress:
            return run(progress)
    except KeyboardInterrupt:
        say(f"Stopped. The same command continues the run in {out_path}.", err)
        raise typer.Exit(130) from None


def run_training(run: Callable[[Any], Path], out_path: Path) -> None:
    """Follow the training of one model and say where it is."""
    path = follow_training(run, out_path)
    say(f"Wrote {path}. See it with `tramontana explore --checkpoints` and its folder.")


@train.command("unet")
def train_unet(
    store: TrainStore,
    config: ConfigOption = "unet-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/unet"),
    fresh: FreshOption = False,
) -> None:
    """Train a UNet; the same command continues a run that was stopped."""
    from train.config import load_config
    from train.unet import train_unet as run

    settings = load_config(config, set_ or [])
    run_training(lambda report: run(settings, store, out_path, resume=not fresh, progress=report), out_path)


@train.command("gan")
def train_gan(
    store: TrainStore,
    unet: Annotated[Path | None, typer.Option(help="UNet to start from; by default from nothing.")] = None,
    config: ConfigOption = "gan-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/gan"),
    fresh: FreshOption = False,
) -> None:
    """Train a UNet against a discriminator; the same command continues a run that was stopped."""
    from train.config import GANTrainConfig, load_config
    from train.gan import train_gan as run

    settings = load_config(config, set_ or [], GANTrainConfig)
    run_training(
        lambda report: run(settings, store, out_path, unet=unet, resume=not fresh, progress=report), out_path
    )


@train.command("vae")
def train_vae(
    store: TrainStore,
    unet: Annotated[Path, typer.Option(help="UNet whose residuals it learns.")],
    config: ConfigOption = "vae-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/vae"),
    fresh: FreshOption = False,
) -> None:
    """Train a VAE on the residuals of a UNet; the same command continues a run that was stopped."""
    from train.config import VAETrainConfig, load_config
    from train.vae import train_vae as run

    settings = load_config(config, set_ or [], VAETrainConfig)
    run_training(
        lambda report: run(settings, store, unet, out_path, resume=not fresh, progress=report), out_path
    )


@train.command("ldm")
def train_ldm(
    store: TrainStore,
    vae: Annotated[Path, typer.Option(help="VAE in whose latents it works; the file holds its UNet.")],
    config: ConfigOption = "ldm-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/ldm"),
    fresh: FreshOption = False,
) -> None:
    """Train latent diffusion (LDM_res); the same command continues a run that was stopped."""
    from train.config import LDMTrainConfig, load_config
    from train.ldm import train_ldm as run

    settings = load_config(config, set_ or [], LDMTrainConfig)
    run_training(
        lambda report: run(settings, store, vae, out_path, resume=not fresh, progress=report), out_path
    )


@train.command("ldm-pde")
def train_ldm_pde(
    store: TrainStore,
    ldm: Annotated[Path, typer.Option(help="Latent diffusion model to fine-tune.")],
    config: ConfigOption = "ldm-pde-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/ldm-pde"),
    fresh: FreshOption = False,
) -> None:
    """Fine-tune latent diffusion with the PDE loss (LDM_PDE); the same command continues a stopped run."""
    from train.config import LDMPDETrainConfig, load_config
    from train.ldm_pde import train_ldm_pde as run

    settings = load_config(config, set_ or [], LDMPDETrainConfig)
    run_training(
        lambda report: run(settings, store, ldm, out_path, resume=not fresh, progress=report), out_path
    )


@train.command("zoo")
def train_zoo(
    store: TrainStore,
    config: Annotated[str, typer.Option(help="Size of all models: tiny, demo or published.")] = "demo",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one value of a stage, as in ldm.steps=100, or of all: key=value."),
    ] = None,
    out_path: Annotated[Path, typer.Option("--out", help="Folder of all runs.")] = Path("runs/zoo"),
    fresh: FreshOption = False,
) -> None:
    """Train UNet, GAN, VAE, LDM_res and LDM_PDE; the same command continues what was stopped."""
    from train.zoo import train_zoo as run

    zoo = follow_training(
        lambda report: run(config, store, out_path, overrides=set_ or [], resume=not fresh, progress=report),
        out_path,
    )
    say(f"Wrote {zoo.models}. See them with: tramontana explore {store} --checkpoints {zoo.models}")


def _audit(path: Path, split: str, count: int, draws: int, ratio: int, csv: Path | None) -> None:
    """Print what the flux formulations make of fields of known quality."""
    import numpy as np
    import torch

    from core.data.pairs import averaged_pairs, read_temperature, store_pairs
    from core.data.samples import SampleError, split_hours
    from core.data.store import Store
    from core.physics.audit import audit, markdown
    from core.physics.flux_error import fit_smoothing
    from core.plural import counted

    def spread(length: int) -> np.ndarray:
        return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int))

    if path.is_dir():
        store = Store.open(path)
        hours = split_hours(store.hours, split)
        try:
            known = split_hours(store.hours, "train")
        except SampleError:  # there are no others to fit the smoothing to
            known = hours
        chosen, known = hours[spread(hours.size)], known[spread(known.size)]
        fine = store.domain.fine
        spacing = (fine.dy / 1e3, fine.dx / 1e3)
        pairs, fitted = store_pairs(store, chosen), list(store_pairs(store, known))
        total = chosen.size
        what = f"{counted(total, 'hour')} of the {split} split of {path}"
    else:
        field, spacing = read_temperature(path)
        field = field.isel(time=spread(field.sizes["time"]))
        pairs, fitted = averaged_pairs(field, ratio), list(averaged_pairs(field, ratio))
        total = field.sizes["time"]
        what = f"{total} hours of {path}, the coarse field is its average over {ratio} x {ratio} pixels"
    coarse = torch.cat([coarse.double() for _, coarse in fitted])
    with progress_bar("Audit") as progress:
        progress(0, total)
        smoothing = fit_smoothing(fitted, spacing=spacing)
        scores = audit(
            pairs,
            spacing=spacing,
            smoothing=smoothing,
            standard=(float(coarse.mean()), float(coarse.std()) or 1.0),
            seeds=draws,
            progress=lambda done: progress(done, total),
        )
    say(
        f"{what}; spacing {spacing[0]:.3g} x {spacing[1]:.3g} km; "
        f"smoothing of the coarse field {smoothing:g} coarse pixels (fitted).\n"
    )
    say(markdown(scores))
    if csv is not None:
        scores.to_dataframe().to_csv(csv)


@app.command()
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
        _audit(store, split, audit_hours, draws, ratio, csv)
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


@app.command()
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


def show_run(run: Generator[RunProgress, None, None]) -> None:
    """Go through a run with a bar that shows the fields done and the step of the sampler."""
    from contextlib import closing

    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with closing(run), Progress(*columns, TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task("Starting", total=None)
        for at in run:
            hour = str(at.hour)[:13].replace("T", " ")
            step = f", step {at.step} of {at.steps}" if at.steps > 1 else ""
            bar.update(task, description=f"{at.label}, {hour} UTC{step}", completed=at.done, total=at.total)


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


@app.command()
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
