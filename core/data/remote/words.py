"""Errors of fetching, and numbers of bytes in words."""

from __future__ import annotations


class FetchError(ValueError):
    """Something can't be fetched; the message says what, why and what to do."""


class CatalogueError(FetchError):
    """A catalogue that is no valid one, or something that it does not name."""


class OfflineError(FetchError):
    """The server can't be reached at all."""


class ServerError(FetchError):
    """The server answered, but not with what was asked for."""


class NotThereError(ServerError):
    """The server has no such file."""


class ChangedArchiveError(FetchError):
    """The archive is not the one that was begun: its length or its ETag changed."""


class MemberError(FetchError):
    """A member of an archive is damaged, or has a name or a kind that is not let onto the disk."""


class DiskSpaceError(FetchError):
    """The disk has no room for what was asked for."""


def size_in_words(count: float) -> str:
    """A number of bytes for people: ``"812 kB"``, ``"31.2 MB"``, ``"45.0 GB"`` (powers of ten)."""
    if count < 999.5:
        return f"{count:.0f} bytes"
    if count < 999_500:
        return f"{count / 1e3:.0f} kB"
    if count < 999_950_000:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e9:.1f} GB"
