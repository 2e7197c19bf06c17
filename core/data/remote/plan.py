"""What is to come: which members of which archives, how many bytes, and where they will lie."""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from core.addresses import without_credentials
from core.data.remote.archive import Directory, Member, RemoteArchive, open_local
from core.data.remote.catalogue import Catalogue
from core.data.remote.client import Client, Note, RemoteFile
from core.data.remote.parts import WORK, Part
from core.data.remote.words import (
    CatalogueError,
    DiskSpaceError,
    FetchError,
    NotThereError,
    OfflineError,
    size_in_words,
)
from core.file_lock import LOCK, claimed, clear
from core.plural import counted

ARCHIVES = "archives"
"""Folder for archives that are there as a whole, in the same folder."""
SPARE = 1 << 26
"""Bytes that are to stay free on the disk."""


@dataclass(frozen=True)
class Wanted:
    """What somebody would like to have.

    Attributes
    ----------
    days : days (UTC), each with all its hours, the list of hours and the normalisation
    targets : fine fields that come with the days, as the catalogue calls them (2mT, UV, TP); may be empty
    statics : orography, land cover, latitude, and the outlines
    normalization : means and standard deviations with which the published fields are normalised
    weights : trained networks, as the catalogue calls them (ldm-2mT); the normalisation comes along
    outputs : the authors' own tables of results
    """

    days: tuple[date, ...] = ()
    targets: tuple[str, ...] = ("2mT",)
    statics: bool = False
    normalization: bool = False
    weights: tuple[str, ...] = ()
    outputs: bool = False


@dataclass(frozen=True)
class Source:
    """An archive that was looked into.

    Attributes
    ----------
    name : its key in the catalogue
    url : its address, without user and password
    size : its length in bytes
    directory : what it holds
    remote : where it is on a server; None where it lies on this disk
    local : where it lies on this disk
    """

    name: str
    url: str
    size: int
    directory: Directory
    remote: RemoteArchive | None = None
    local: Path | None = None


@dataclass(frozen=True)
class Item:
    """A file to come.

    Attributes
    ----------
    path : where it will lie below the plan's folder, with slashes
    source, member : the archive that holds it, and where
    had : bytes of it that an earlier call transferred
    of_day : whether it holds fields of a day
    """

    path: str
    source: Source
    member: Member
    had: int = 0
    of_day: bool = False

    @property
    def packed(self) -> int:
        """Bytes of the archive that hold it and have to come; none where the archive is on this disk."""
        return 0 if self.source.remote is None else self.member.packed


@dataclass(frozen=True)
class WholeArchive:
    """An archive whose server sends no parts of files, so that all of it has to come.

    Attributes
    ----------
    name : its key in the catalogue
    remote : where it is
    size : its length in bytes as the server says, or about that as the catalogue does
    path : where it will lie
    """

    name: str
    remote: RemoteFile
    size: int
    path: Path

    @property
    def exact(self) -> bool:
        """Whether the server said how long it is."""
        return self.remote.size is not None

    @property
    def most(self) -> int:
        """Bytes that may come at most."""
        return self.size if self.exact else self.size + self.size // 4


@dataclass(frozen=True)
class Plan:
    """What will come, from where to where; :func:`core.data.remote.fetch` carries it out.

    Attributes
    ----------
    folder : where the files will lie
    items : the files to come
    present : paths of wanted files that are there already
    whole : archives that have to be fetched as a whole (:func:`core.data.remote.fetch_whole`) before it is
        known where in them lies what is missing; empty on servers that send parts of files
    archives : the archives that were looked into
    remarks : sentences on what a person should know
    """

    folder: Path
    items: tuple[Item, ...]
    present: tuple[str, ...]
    whole: tuple[WholeArchive, ...] = ()
    archives: tuple[Source, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def to_transfer(self) -> int:
        """Bytes still to transfer for the items."""
        return sum(item.packed - item.had for item in self.items)

    @property
    def to_write(self) -> int:
        """Bytes of the items' files, unpacked."""
        return sum(item.member.size for item in self.items)

    @property
    def archive_bytes(self) -> int:
        """Bytes of all archives that were looked into."""
        return sum(source.size for source in self.archives)

    def room(self, parallel: int) -> int:
        """Bytes of disk that are needed while ``parallel`` members are under way."""
        packed = sorted((item.packed for item in self.items), reverse=True)[:parallel]
        return self.to_write + sum(packed) - min(sum(packed), sum(item.had for item in self.items))

    def check_room(self, parallel: int) -> None:
        """Raise DiskSpaceError where the disk has too little room."""
        check_room(self.folder, self.room(parallel))


def check_room(folder: Path, needed: int) -> None:
    """Raise DiskSpaceError where the disk of a folder, which need not exist, has too few bytes free."""
    free = free_space(folder)
    if needed + SPARE > free:
        raise DiskSpaceError(
            f"{size_in_words(needed)} are needed in {folder}, {size_in_words(free)} are free on that disk. "
            "Free some, ask for less, or name a folder on another disk with --out."
        )


def free_space(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


@dataclass(frozen=True)
class _Search:
    """A file to look for: its path in archives and on the disk, and the archives to look in, best first."""

    path: str
    archives: tuple[str, ...]
    target: str
    of_day: bool = False
    optional: bool = False


@dataclass
class _Library:
    """Archives, opened when they are first asked for."""

    catalogue: Catalogue
    folder: Path
    client: Client
    note: Note | None
    open: dict[str, Source | WholeArchive | None] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Source | WholeArchive | None:
        """The archive; None where the server has none of this name."""
        if name not in self.open:
            self.open[name] = self._look(name)
        return self.open[name]

    def _look(self, name: str) -> Source | WholeArchive | None:
        address = self.catalogue.address(name)
        url, path = without_credentials(address), self.folder / ARCHIVES / self.catalogue.archives[name].file
        if path.is_file():
            return Source(name, url, path.stat().st_size, open_local(path, str(path)), local=path)
        try:
            remote = self.client.look(address, note=self.note)
        except NotThereError as error:
            self.remarks.append(str(error))
            return None
        except OfflineError as error:
            raise OfflineError(
                f"{error} Check the connection; name a proxy with HTTPS_PROXY or --proxy, or a copy of the "
                f"archives with --mirror or TRAMONTANA_MIRROR; or download {url} on another machine and "
                f"put it at {path}."
            ) from error
        if not remote.ranges:
            return WholeArchive(name, remote, remote.size or self.catalogue.archives[name].size, path)
        archive = RemoteArchive(self.client, remote, url, note=self.note)
        return Source(name, url, archive.size, archive.directory, remote=archive)


def make_plan(
    catalogue: Catalogue,
    wanted: Wanted,
    folder: str | Path,
    client: Client,
    *,
    verify: bool = False,
    restart: bool = False,
    note: Note | None = None,
) -> Plan:
    """Find out what has to come so that ``folder`` holds what is wanted, in the published layout.

    Reads the directories of archives, not their members. What is already in the folder is left alone; with
    ``verify`` its length and CRC are compared with the archive's, and what differs will come again. With
    ``restart`` what earlier calls left half done is thrown away.

    Raises FetchError: CatalogueError for names that the catalogue does not know, OfflineError, ServerError,
    MemberError, ChangedArchiveError where a half-fetched member belongs to another version of its archive,
    FetchError itself where something is in none of the archives, or where what another process is fetching
    would be thrown away.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FetchError(f"{folder} is a file; name a folder for what is fetched.")
    if restart and (folder / WORK).is_dir():
        with claimed(folder / WORK / LOCK) as alone:
            if not alone:
                raise FetchError(f"Another process fetches into {folder}; wait for it.")
            clear(folder / WORK)
    library = _Library(catalogue, folder, client, note)
    items: dict[str, Item] = {}
    present: list[str] = []
    whole: dict[str, WholeArchive] = {}
    missing: list[str] = []
    sources_of_days: dict[str, Source] = {}

    def add(path: str, source: Source, member: Member, *, of_day: bool = False) -> None:
        if of_day:
            sources_of_days[source.name] = source
        if _is_present(folder / path, member, verify):
            present.append(path)
        else:
            items[path] = Item(path, source, member, _had(folder, path, source, member), of_day)

    for search in _searches(catalogue, wanted):
        if not verify and (folder / search.target).is_file():
            present.append(search.target)
            continue
        found = _find(library, search)
        if isinstance(found, WholeArchive):
            whole[found.name] = found
        elif found is not None:
            add(search.target, *found, of_day=search.of_day)
        elif not search.optional:
            missing.append(_not_found(search.path, search.archives, library))
    if wanted.outputs:
        outputs = _outputs(library)
        if isinstance(outputs, WholeArchive):
            whole[outputs.name] = outputs
        elif not outputs:
            missing.append(_not_found(catalogue.layout.outputs, catalogue.holding("outputs"), library))
        else:
            for source, member in outputs:
                add(f"{catalogue.layout.outputs}/{member.name.rpartition('/')[2]}", source, member)
    if missing:
        more = f" {counted(len(missing) - 3, 'further file')} likewise." if len(missing) > 3 else ""
        raise FetchError(" ".join([*missing[:3], *library.remarks]) + more)
    # The lists of hours first: a day that is there is not looked for again, nor is its list.
    for source in sources_of_days.values():
        listed = source.directory.find(catalogue.layout.metadata)
        if listed is None:
            library.remarks.append(f"{source.url} holds no {catalogue.layout.metadata}.")
        else:
            path = catalogue.archives[source.name].metadata
            add(path, source, listed)
            items = {path: items.pop(path), **items} if path in items else items
    return Plan(
        folder,
        tuple(items.values()),
        tuple(dict.fromkeys(present)),
        tuple(whole.values()),
        tuple(source for source in library.open.values() if isinstance(source, Source)),
        tuple(library.remarks),
    )


def look_into(
    catalogue: Catalogue, name: str, folder: str | Path, client: Client, *, note: Note | None = None
) -> Source:
    """An archive with its directory, by its name in the catalogue.

    Raises the FetchErrors of :func:`make_plan`, also where the server sends no parts of files.
    """
    if name not in catalogue.archives:
        raise CatalogueError(_unknown("archive", name, catalogue.archives))
    library = _Library(catalogue, Path(folder), client, note)
    source = library[name]
    if source is None:
        raise NotThereError(library.remarks[0])
    if isinstance(source, WholeArchive):
        raise FetchError(
            f"{source.remote.url} can't be listed: its server sends no parts of files. Fetch all of it "
            f"({size_in_words(source.size)}) and put it at {source.path}; it is listed from there."
        )
    return source


def days_from(words: Iterable[str]) -> tuple[date, ...]:
    """Days from texts: ``2016-05-02``, or ``2016-05-02..2016-05-08`` for all from one to another.

    Raises FetchError for what is no day.
    """
    days: dict[date, None] = {}
    for word in words:
        first, dots, last = word.partition("..")
        try:
            start = date.fromisoformat(first)
            stop = date.fromisoformat(last) if dots else start
        except ValueError as error:
            raise FetchError(
                f"{word!r} is no day; write 2016-05-02, or 2016-05-02..2016-05-08 for several ({error})."
            ) from error
        if stop < start:
            raise FetchError(f"{word!r} ends before it begins.")
        days |= dict.fromkeys(start + timedelta(n) for n in range((stop - start).days + 1))
    return tuple(days)


def words_of(days: Iterable[date]) -> list[str]:
    """Days in the fewest words that :func:`days_from` understands."""
    runs: list[list[date]] = []
    for day in sorted(set(days)):
        if runs and day - runs[-1][-1] == timedelta(1):
            runs[-1].append(day)
        else:
            runs.append([day])
    return [f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]


def days_in(source: Source, catalogue: Catalogue) -> list[date]:
    """Days of which an archive holds the coarse fields, in order."""
    pattern = re.escape(catalogue.layout.low.rpartition("/")[2])
    for code, digits in (("YYYY", r"(?P<y>\d{4})"), ("MM", r"(?P<m>\d{2})"), ("DD", r"(?P<d>\d{2})")):
        pattern = pattern.replace(code, digits, 1)
    found = set()
    for name in source.directory.names():
        if match := re.fullmatch(pattern, name.rpartition("/")[2]):
            with suppress(ValueError):
                found.add(date(int(match["y"]), int(match["m"]), int(match["d"])))
    return sorted(found)


def _searches(catalogue: Catalogue, wanted: Wanted) -> Iterator[_Search]:
    layout = catalogue.layout
    for name in wanted.targets:
        if name not in layout.targets:
            raise CatalogueError(_unknown("target", name, layout.targets))
    weights = {name.lower(): file for name, file in layout.weights.items()}
    for name in wanted.weights:
        if name.lower() not in weights:
            raise CatalogueError(_unknown("network", name, layout.weights))
    for day in dict.fromkeys(wanted.days):
        for path in (layout.low_of(day), *(layout.high_of(day, target) for target in wanted.targets)):
            yield _Search(path, catalogue.holding_day(day), path, of_day=True)
    if wanted.statics:
        for path in layout.statics:
            yield _Search(path, catalogue.holding("statics"), path)
        for path in layout.borders:
            yield _Search(path, catalogue.holding("statics"), path, optional=True)
    if wanted.days or wanted.weights or wanted.normalization:
        path = layout.normalization
        yield _Search(path, catalogue.holding("normalization"), path)
    for name in dict.fromkeys(name.lower() for name in wanted.weights):
        yield _Search(weights[name], catalogue.holding("weights"), f"{layout.weights_folder}/{weights[name]}")


def _find(library: _Library, search: _Search) -> tuple[Source, Member] | WholeArchive | None:
    """Where a file is; an archive that can't be looked into only if no other one has it."""
    whole = None
    for name in search.archives:
        source = library[name]
        if isinstance(source, WholeArchive):
            whole = whole or source
        elif source is not None and (member := source.directory.find(search.path)) is not None:
            return source, member
    return whole


def _outputs(library: _Library) -> list[tuple[Source, Member]] | WholeArchive:
    """The authors' tables; an archive that can't be looked into only if no other one has any."""
    catalogue, whole = library.catalogue, None
    for name in catalogue.holding("outputs"):
        source = library[name]
        if isinstance(source, WholeArchive):
            whole = whole or source
        elif source is not None and (members := source.directory.files_in(catalogue.layout.outputs)):
            return [(source, member) for member in members]
    return whole or []


def _is_present(path: Path, member: Member, verify: bool) -> bool:
    """Whether a file is there; it has its name only since its CRC was right, so that need not be checked."""
    if not path.is_file():
        return False
    return not verify or (path.stat().st_size == member.size and _crc(path) == member.crc)


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def _had(folder: Path, path: str, source: Source, member: Member) -> int:
    return 0 if source.remote is None else Part(folder, path, source.remote, member).had()


def _not_found(path: str, archives: Sequence[str], library: _Library) -> str:
    looked_into = [name for name in archives if isinstance(library.open.get(name), Source)]
    if not archives:
        return f"No archive of the catalogue is said to hold {path}."
    if not looked_into:
        return f"{path} can't be looked for: the server has none of the archives {', '.join(archives)}."
    return (
        f"{path} is not in {' nor in '.join(looked_into)}. "
        f"`tramontana fetch list {looked_into[0]}` says what is."
    )


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"The catalogue names no {what} {name!r}. There are: {', '.join(known)}."
