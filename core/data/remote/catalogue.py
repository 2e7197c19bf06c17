"""The catalogue: which public archives hold which files of the published data set.

It is a YAML file (``assets/catalogue.yaml``) that becomes a typed model here; unknown keys are refused.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from core.addresses import without_credentials
from core.assets import asset
from core.data.remote.words import CatalogueError
from core.typed_yaml import read_yaml

Kind = Literal["days", "statics", "normalization", "weights", "outputs"]
RECORD_PATH = "/records/{record}/files/{file}?download=1"
"""Where a server of Zenodo's kind keeps the file of a record."""


def _safe_path(text: str) -> str:
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts or "\\" in text or ":" in text:
        raise ValueError(f"{text!r} must be a relative path with slashes and without `..`")
    return text


def _safe_name(text: str) -> str:
    if "/" in _safe_path(text) or text.startswith("."):
        raise ValueError(f"{text!r} must be the name of a file, without folders")
    return text


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid:
        shown = without_credentials(text if "://" in text else f"https://{text}").removeprefix("https://")
        login = "; in a user's name and password write / as %2F, # as %23, ? as %3F" if "@" in text else ""
        raise ValueError(f"{shown!r} must begin with https:// or http:// and name a server{login}")
    return text


RelativePath = Annotated[str, AfterValidator(_safe_path)]
FileName = Annotated[str, AfterValidator(_safe_name)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(_Strict):
    """One zip file on the server.

    Attributes
    ----------
    title : what it is, for people
    record, file : number of the record and name of the file, from which the address is made
    size : about how many bytes it has; what really comes is learned from the server
    holds : which kinds of things are looked for in it
    years : first and last year of its days; None where it holds some days of any year
    metadata : name under which its list of hours is kept, so that those of several archives do not collide
    """

    title: str
    record: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    file: FileName
    size: Annotated[int, Field(gt=0)]
    holds: Annotated[tuple[Kind, ...], Field(min_length=1)]
    years: tuple[int, int] | None = None
    metadata: FileName = "metadata.csv"

    def may_hold(self, day: date) -> bool:
        """Whether a day is worth looking for in it."""
        return "days" in self.holds and (self.years is None or self.years[0] <= day.year <= self.years[1])


class Layout(_Strict):
    """How files are called, in the archives (below any folder) and on the disk.

    ``YYYY``, ``MM``, ``DD`` and ``TARGET`` stand for year, month, day and target.
    """

    metadata: FileName
    low: RelativePath
    high: RelativePath
    targets: tuple[str, ...]
    normalization: RelativePath
    statics: tuple[RelativePath, ...]
    borders: tuple[RelativePath, ...] = ()
    weights: dict[str, FileName]
    weights_folder: RelativePath
    outputs: RelativePath

    def low_of(self, day: date) -> str:
        """Path of the coarse fields of a day."""
        return _dated(self.low, day)

    def high_of(self, day: date, target: str) -> str:
        """Path of the fine fields of a day."""
        return _dated(self.high, day).replace("TARGET", target)


def _dated(pattern: str, day: date) -> str:
    return (
        pattern.replace("YYYY", f"{day.year:04}")
        .replace("MM", f"{day.month:02}")
        .replace("DD", f"{day.day:02}")
    )


class Catalogue(_Strict):
    """All archives, the server that has them and how files are called in them.

    ``server`` is the address of an archive with ``{record}`` and ``{file}`` in the places of both.
    """

    title: str
    licence: str
    citation: str
    server: Annotated[str, AfterValidator(_web_address)]
    layout: Layout
    archives: Annotated[dict[str, Archive], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_the_file(self) -> Catalogue:
        if "{file}" not in self.server:
            raise ValueError("`server` must hold {file}, the place of the archive's name")
        return self

    def address(self, archive: str) -> str:
        """Address of an archive, with the user and the password that the server's may hold."""
        entry = self.archives[archive]
        return self.server.replace("{record}", quote(entry.record)).replace("{file}", quote(entry.file))

    def with_mirror(self, mirror: str) -> Catalogue:
        """The same archives on another server.

        ``mirror`` is an address under which they lie as on Zenodo
        (``records/12934521/files/sample_data.zip``), or one that
        holds ``{file}`` (and ``{record}``) where the names belong. Raises CatalogueError.
        """
        server = mirror if "{file}" in mirror else mirror.rstrip("/") + RECORD_PATH
        try:
            return self.model_copy(update={"server": _web_address(server)})
        except ValueError as error:
            raise CatalogueError(f"The mirror {error}.") from error

    def holding(self, kind: Kind) -> tuple[str, ...]:
        """Names of the archives in which a kind of thing is looked for, in this order."""
        return tuple(name for name, archive in self.archives.items() if kind in archive.holds)

    def holding_day(self, day: date) -> tuple[str, ...]:
        """Names of the archives that may hold a day; those that say which years they hold come first."""
        found = [name for name, archive in self.archives.items() if archive.may_hold(day)]
        return tuple(sorted(found, key=lambda name: self.archives[name].years is None))


def read_catalogue(path: str | Path | None = None) -> Catalogue:
    """The catalogue in a YAML file; by default the one that ships.

    Raises CatalogueError, which names the file and every key that is wrong.
    """
    source = asset("catalogue.yaml") if path is None else path
    return read_yaml(source, Catalogue, "a catalogue", CatalogueError)
