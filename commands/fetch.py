"""Single files out of the published archives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.console import err, say

if TYPE_CHECKING:
    from core.data.remote import Client, Plan, Progress, Wanted

fetch = typer.Typer(
    help="Single files out of the published archives; see docs/published-data.md.", no_args_is_help=True
)
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


@dataclass(frozen=True)
class Transfer:
    """How files are fetched: the options that all commands but `list` share."""

    out_path: FetchFolder = PUBLISHED
    mirror: MirrorOption = None
    catalogue: CatalogueOption = None
    proxy: ProxyOption = None
    yes: YesOption = False
    whole: WholeOption = False
    verify: VerifyOption = False
    restart: RestartOption = False
    parallel: ParallelOption = 4


def with_transfer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Transfer` after its own; it is called with them as ``how``."""
    own, shared = (signature(of, eval_str=True).parameters for of in (command, Transfer))

    @wraps(command)
    def call(**given: Any) -> None:
        how = Transfer(**{name: given.pop(name) for name in shared})
        command(**given, how=how)

    parameters = [*(own[name] for name in own if name != "how"), *shared.values()]
    seen = Signature([parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters])
    call.__signature__ = seen  # type: ignore[attr-defined]
    return call


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
@with_transfer_options
def fetch_days(
    days: Annotated[list[str], typer.Argument(help="2016-05-02, or 2016-05-02..2016-05-08 for several.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Fine fields: 2mT (default), UV, TP; none for coarse ones only.")
    ] = None,
    *,
    how: Transfer,
) -> None:
    """All hours of days: coarse and fine fields, the list of hours and the normalisation."""
    from core.data.remote import Wanted, days_from

    targets = tuple(name for name in target or ["2mT"] if name != "none")
    _fetch(Wanted(days=days_from(days), targets=targets), how)
    say(f"Make a store of it with `tramontana ingest published {how.out_path}`.")


@fetch.command("weights")
@with_transfer_options
def fetch_weights(
    names: Annotated[list[str], typer.Argument(help="ldm-2mT, unet-UV and so on; see `fetch list`.")],
    how: Transfer,
) -> None:
    """Trained networks and the normalisation that they need."""
    from core.data.remote import Wanted

    _fetch(Wanted(weights=tuple(names)), how)
    say("Make model files of ours of them with `tramontana checkpoint import`.")


@fetch.command("statics")
@with_transfer_options
def fetch_statics(how: Transfer) -> None:
    """Orography, land cover, latitude and outlines."""
    from core.data.remote import Wanted

    _fetch(Wanted(statics=True), how)


@fetch.command("normalization")
@with_transfer_options
def fetch_normalization(how: Transfer) -> None:
    """Means and standard deviations with which the published fields are normalised."""
    from core.data.remote import Wanted

    _fetch(Wanted(normalization=True), how)


@fetch.command("outputs")
@with_transfer_options
def fetch_outputs(how: Transfer) -> None:
    """The authors' tables of results."""
    from core.data.remote import Wanted

    _fetch(Wanted(outputs=True), how)


def _fetch(wanted: Wanted, how: Transfer) -> None:
    """Show what will come, ask, and fetch it."""
    from core.data.remote import Client, fetch_whole, make_plan, read_catalogue, size_in_words
    from core.data.remote import fetch as run
    from core.plural import counted

    entries = read_catalogue(how.catalogue)
    if how.mirror is not None:
        entries = entries.with_mirror(how.mirror)

    def plan_with(client: Client, restart: bool) -> Plan:
        with err.status("Looking into the archives"):
            return make_plan(
                entries,
                wanted,
                how.out_path,
                client,
                verify=how.verify,
                restart=restart,
                note=lambda text: say(text, err),
            )

    with Client(proxy=how.proxy) as client:
        try:
            plan = plan_with(client, how.restart)
            while plan.whole:
                archive = plan.whole[0]
                say(
                    f"The server sends no parts of files: {archive.remote.url} would have to come as a "
                    f"whole, {'' if archive.exact else 'about '}{size_in_words(archive.size)}, "
                    f"to {archive.path}."
                )
                _agree(how.whole, "--whole")
                _show_transfer(fetch_whole(archive, how.out_path, client))
                plan = plan_with(client, restart=False)
            _show_plan(plan)
            if not plan.items:
                return
            plan.check_room(how.parallel)
            say(f"Licence: {entries.licence}. Cite: {entries.citation}.")
            _agree(how.yes, "--yes")
            _show_transfer(run(plan, client, parallel=how.parallel))
        except KeyboardInterrupt:
            say("Stopped. What was begun is kept; the same command goes on.", err)
            raise typer.Exit(130) from None
        archives = max(plan.archive_bytes, 1)
        say(
            f"Fetched {counted(len(plan.items), 'file')} into {how.out_path}: "
            f"{size_in_words(client.transferred)} transferred, "
            f"{client.transferred / archives:.2%} of the archives."
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
