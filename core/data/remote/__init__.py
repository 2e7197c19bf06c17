"""Single files out of published zip archives, over HTTP, without the archives.

``make_plan`` finds out what has to come and how many bytes that is; ``fetch`` is a generator that does it::

    catalogue = read_catalogue()                       # or .with_mirror("http://127.0.0.1:8000")
    with Client() as client:
        wanted = Wanted(days=(date(2016, 5, 2),), statics=True, weights=("ldm-2mT",))
        plan = make_plan(catalogue, wanted, "data/published", client)
        for progress in fetch(plan, client):
            ...
        client.transferred                             # bytes, directories of the archives included

A server that sends no parts of files leaves archives in ``plan.whole``: ``fetch_whole`` brings each, then the
plan is made again.
"""

from core.data.remote.catalogue import Catalogue, read_catalogue
from core.data.remote.client import Client
from core.data.remote.plan import (
    Plan,
    Source,
    Wanted,
    WholeArchive,
    days_from,
    days_in,
    free_space,
    look_into,
    make_plan,
    words_of,
)
from core.data.remote.transfer import PARALLEL, Progress, fetch, fetch_whole
from core.data.remote.words import (
    CatalogueError,
    ChangedArchiveError,
    DiskSpaceError,
    FetchError,
    MemberError,
    NotThereError,
    OfflineError,
    ServerError,
    size_in_words,
)

__all__ = [
    "PARALLEL",
    "Catalogue",
    "CatalogueError",
    "ChangedArchiveError",
    "Client",
    "DiskSpaceError",
    "FetchError",
    "MemberError",
    "NotThereError",
    "OfflineError",
    "Plan",
    "Progress",
    "ServerError",
    "Source",
    "Wanted",
    "WholeArchive",
    "days_from",
    "days_in",
    "fetch",
    "fetch_whole",
    "free_space",
    "look_into",
    "make_plan",
    "read_catalogue",
    "size_in_words",
    "words_of",
]
