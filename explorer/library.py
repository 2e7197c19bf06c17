"""What one process knows on behalf of all its visitors: stores, downscalers, results, outlines.

Everything here is slow the first time and shared afterwards, and may be called from any thread.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core import __version__
from core.data.store import Store, StoreError
from core.domain import Domain, Grid
from core.outlines import load_outlines, stored_outlines
from core.regions import Window, windows
from explorer.digest import digest
from explorer.disk import Address, Disk
from explorer.display import COARSE
from explorer.intake import remove_leftovers
from explorer.jobs import MOST_MEMBERS, Jobs, Piece
from explorer.results import Fields, Results
from explorer.settings import GB, Settings

if TYPE_CHECKING:  # it may import torch, which takes seconds that the first page should not wait for
    from core.downscale import Downscaler
    from core.downscale.applicability import Applicability
    from core.downscale.generative import GenerativeDownscaler
    from core.downscale.sampling import SamplingStep
    from core.downscale.stored import StoredOutput
    from explorer.checkpoints import CheckpointFile

TRUTH = "truth"
QUADRATIC = "quadratic"
"""Keys of the fields beside COARSE that no checkpoint makes; by the last the coarse input is scored."""

RESULTS_LIMIT = 768 * 2**20
"""Bytes of fields kept; an hour of six Italian maps takes 9 MB."""

RESULTS_VERSION = 1
"""Goes into the address of what is kept on disk; raise it where the same inputs give other fields."""

HOURS_KNOWN = 4096
"""Hours of a store whose inputs are known by their hash, or as usual to a model."""

REFRESH_EVERY = 2.0
"""Seconds within which several visitors share one look at the disk."""

Line = tuple[NDArray[np.floating], NDArray[np.floating]]
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalogue:
    """The downscalers found, and why other checkpoint files can't be used: (file, reason).

    ``labels`` tells downscalers apart whose own labels are equal; ``files`` are all checkpoint files.
    """

    downscalers: tuple[Downscaler, ...]
    failures: tuple[tuple[Path, str], ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    files: tuple[CheckpointFile, ...] = ()

    def label(self, downscaler: Downscaler) -> str:
        """What the page calls a downscaler."""
        return self.labels.get(downscaler.key, downscaler.label)

    def get(self, key: str) -> Downscaler | None:
        """The downscaler with this key."""
        return next((item for item in self.downscalers if item.key == key), None)


class OpenStore:
    """A store with what never changes about it, read once."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.store = Store.open(path)
        self._lock = RLock()
        self._looked = time.monotonic()
        self._inputs: OrderedDict[int, str] = OrderedDict()
        self._known: dict[str, Any] = {}
        self.warmed: Future[None] | None = None
        """Set by :meth:`Library.warm`."""

    def _once(self, what: str, make: Callable[[], T]) -> T:
        """What ``make`` gives, made when it is first asked for.

        The only lock is that of the store: a cached property has one of its own, and who waits for it while
        holding the other may wait for ever. What is there is given without any.
        """
        if what not in self._known:
            with self._lock:
                if what not in self._known:
                    self._known[what] = make()
        found: T = self._known[what]
        return found

    @property
    def domain(self) -> Domain:
        """Where the store's fields lie."""
        return self.store.domain

    @property
    def identity(self) -> tuple[str, str]:
        """What results of this store are filed under."""
        return str(self.path), str(self.store.attrs.get("fingerprint", ""))

    @property
    def synthetic(self) -> bool:
        """Whether the weather in it was made by a program."""
        return bool(self.store.attrs.get("synthetic", False))

    @property
    def static(self) -> xr.Dataset | None:
        """Static fields of the fine grid, or None where the store has none."""
        store = self.store
        return self._once("static", lambda: store.read_static() if store.contents.statics else None)

    @property
    def coarse_surface(self) -> NDArray[np.floating] | None:
        """Height of the coarse cells [m], (h, w); None where the store does not say."""
        store = self.store
        if not store.hours.size:
            return None

        def read() -> NDArray[np.floating] | None:
            if not store.contents.coarse_orography:
                return None
            found = store.read_coarse([store.hours[0]], store.contents.predictors[:1])
            return found["orography"].values if "orography" in found else None

        return self._once("coarse_surface", read)

    @property
    def outlines(self) -> dict[str, Line] | None:
        """Outlines that the store has itself; None where it has none that can be drawn."""
        store = self.store

        def read() -> dict[str, Line] | None:
            try:
                return stored_outlines(store)
            except StoreError as error:
                log.warning("%s Maps show the outlines that ship.", error)
                return None

        return self._once("outlines", read)

    @property
    def outputs(self) -> tuple[StoredOutput, ...]:
        """Fields of others that the store holds, as downscalers."""
        from core.downscale.stored import stored_outputs

        store = self.store
        return self._once("outputs", lambda: stored_outputs(store))

    @property
    def _static_hash(self) -> str:
        static = self.static

        def make() -> str:
            return "" if static is None else "".join(digest(static[name].values) for name in sorted(static))

        return self._once("static_hash", make)

    def inputs_hash(self, hour: np.datetime64) -> str:
        """Hash of everything a downscaler may read for an hour: coarse fields, statics and where they lie.

        It follows from the numbers, so that it holds whatever the store says of itself; 50 ms for an hour of
        the Italy domain, and nothing from the second time on.
        """
        stamp = hour.astype("datetime64[ns]").astype(np.int64).item()
        with self._lock:
            known = self._inputs.get(stamp)
        if known is not None:
            return known
        # Without the lock, which others need to read: in the worst case two make the same.
        coarse = self.read(COARSE, hour)
        fields = [f"{name}{digest(coarse[name].values)}" for name in sorted(map(str, coarse.data_vars))]
        content = "".join([str(sorted(self.domain.to_dict().items())), self._static_hash, *fields])
        made = hashlib.sha256(content.encode()).hexdigest()
        with self._lock:
            self._inputs[stamp] = made
            while len(self._inputs) > HOURS_KNOWN:
                self._inputs.popitem(last=False)
        return made

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """Regions on offer."""
        return windows(self.domain)

    @cached_property
    def graticule(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Longitude and latitude at 33 x 33 points spread over the extent, north first.

        Between them bilinear interpolation is right to about 50 m on a domain of 1300 km.
        """
        left, right, bottom, top = self.domain.fine.extent
        nodes = Grid(np.linspace(left, right, 33), np.linspace(top, bottom, 33), self.domain.crs)
        return nodes.longitude.astype(np.float32), nodes.latitude.astype(np.float32)

    def look_again(self) -> None:
        """Re-read what is written, unless somebody just did. Raises StoreError where the store is gone."""
        with self._lock:
            if time.monotonic() - self._looked < REFRESH_EVERY:
                return
            try:
                self.store.refresh()
            finally:
                self._known.pop("outputs", None)
                self._looked = time.monotonic()

    def read(self, group: str, hour: np.datetime64, variables: Sequence[str] | None = None) -> xr.Dataset:
        """One hour of /coarse or /fine."""
        with self._lock:
            reader = self.store.read_coarse if group == COARSE else self.store.read_fine
            return reader([hour], variables)


class Library:
    """Stores, downscalers and results of one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.results = Results(RESULTS_LIMIT)
        kept = settings.cache is not None and settings.cache_gb > 0
        self.disk = Disk(settings.cache, int(settings.cache_gb * GB)) if kept else None
        self.jobs = Jobs(
            self, refusal=settings.no_sampling, most_jobs=settings.most_jobs, most_fields=settings.most_fields
        )
        self._lock = Lock()
        self._stores: dict[Path, OpenStore] = {}
        self._outlines: dict[Grid, dict[str, Line]] = {}
        self._outlines_lock = Lock()
        self._catalogue: Future[Catalogue] | None = None
        self._search: Future[Catalogue] | None = None
        self._applicability: OrderedDict[tuple[object, ...], Applicability] = OrderedDict()
        self._signature: tuple[tuple[str, int, int], ...] = ()
        # Two threads: a slow network must not keep the interpolations of somebody else waiting.
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="downscale")
        # One of its own, since both others may wait for what the search finds.
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="search")
        if not (settings.no_upload and settings.no_import):
            self._pool.submit(remove_leftovers, settings.uploads)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run ``work`` in the background."""
        return self._pool.submit(work)

    def open(self, name: str) -> OpenStore:
        """The store with this name, opened once for everybody.

        Raises StoreError in plain words where it is not listed, missing or no store.
        """
        path = self.settings.find_stores().get(name)
        if path is None:
            raise StoreError(f"There is no store called {name!r} among those this page was started with.")
        with self._lock:
            known = self._stores.get(path)
        if known is not None and path.exists():
            return known
        opened = OpenStore(name, path)
        with self._lock:
            self._stores[path] = opened
        return opened

    def warm(self, opened: OpenStore) -> Future[None]:
        """Have read in the background what never changes about a store; done when that takes no time any more."""

        def read() -> None:
            try:
                grid = opened.domain.fine
                _ = opened.static, opened.coarse_surface, opened.graticule, opened.windows, grid.longitude
                self.outlines(opened)
            except Exception as error:  # who needs it is told then
                log.warning("%s could not be read in advance.", opened.path, exc_info=error)

        with self._lock:
            if opened.warmed is None:
                opened.warmed = self.submit(read)
            return opened.warmed

    def prepare(self) -> None:
        """Look for downscalers and warm the first store in the background, before anybody asks."""
        _ = self.catalogue

        def warm() -> None:
            with suppress(StoreError):  # who looks at it is told
                self.warm(self.open(next(iter(self.settings.find_stores()))))

        if self.settings.find_stores():
            self.submit(warm)

    def forget(self, opened: OpenStore) -> None:
        """Open the store anew next time; for stores that were replaced or removed."""
        with self._lock:
            if self._stores.get(opened.path) is opened:
                del self._stores[opened.path]

    def outlines(self, opened: OpenStore) -> dict[str, Line]:
        """Coastlines, borders and lakes for a store: its own, else those that ship."""
        if opened.outlines is not None:
            return opened.outlines
        grid = opened.domain.fine
        if grid not in self._outlines:
            with self._outlines_lock:
                if grid not in self._outlines:
                    self._outlines[grid] = dict(load_outlines(grid))
        return self._outlines[grid]

    @property
    def search(self) -> Future[Catalogue]:
        """The last search for downscalers, in the background; the first call starts one."""
        with self._lock:
            if self._search is None:
                self._search = self._searcher.submit(self._find_downscalers)
            return self._search

    @property
    def catalogue(self) -> Future[Catalogue]:
        """The downscalers as they were found last; while another search is under way, those of the one before."""
        search = self.search
        with self._lock:
            if self._catalogue is None or (search.done() and search.exception() is None):
                self._catalogue = search
            return self._catalogue

    def look_for_checkpoints(self) -> None:
        """Search anew where files came, went or changed in the folder of checkpoints since the last search."""
        search = self.search
        if search.done() and self._signature != self._sign_checkpoints():
            _ = self.catalogue  # what was found is used until more is
            with self._lock:
                if self._search is search:
                    self._search = self._searcher.submit(self._find_downscalers)

    def _sign_checkpoints(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        folders = self.settings.checkpoint_folders
        # Files whose names begin with a dot are being written.
        paths = [path for folder in folders for path in sorted(folder.glob("[!.]*"))]
        for path in (*paths, *self.settings.files):
            with suppress(OSError):  # it went while we looked
                state = path.stat()
                found.append((str(path), state.st_mtime_ns, state.st_size))
        return tuple(found)

    def _find_downscalers(self) -> Catalogue:
        from core.downscale import interpolations
        from explorer.checkpoints import describe_files, distinct_labels, find

        self._signature = self._sign_checkpoints()
        found, failures = find(self.settings.checkpoint_folders, self.settings.files)
        everything = (*interpolations(), *found)
        return Catalogue(
            everything, tuple(failures), distinct_labels(everything), describe_files(found, failures)
        )

    def downscaler(self, opened: OpenStore, key: str) -> Downscaler | None:
        """What makes the fields under a key, or holds them in this store; None where it is not there any more."""
        held: Downscaler | None = next((item for item in opened.outputs if item.key == key), None)
        return held or self.catalogue.result().get(key)

    def peek(self, opened: OpenStore, hour: np.datetime64, key: str) -> Fields | None:
        """Fields of :meth:`fields` if they are there already."""
        return self.results.peek(self._address(opened, hour, key))

    def fields(self, opened: OpenStore, hour: np.datetime64, key: str) -> Fields:
        """All variables of one hour in SI units: ``coarse``, ``truth``, or a downscaler's targets.

        Shapes (h, w) for coarse and (H, W) for the others. Read or computed once, then shared.
        """
        return self.results.get(self._address(opened, hour, key), lambda: self._compute(opened, hour, key))

    def fields_once(self, opened: OpenStore, hour: np.datetime64, key: str) -> Fields:
        """Like :meth:`fields`, but what has to be made is not kept.

        For passes over many hours, which would push out of memory what people look at.
        """
        made = self.peek(opened, hour, key)
        return made if made is not None else self._compute(opened, hour, key)

    @staticmethod
    def _address(opened: OpenStore, hour: np.datetime64, key: str) -> tuple[object, ...]:
        return (*opened.identity, hour.astype("datetime64[ns]").astype(np.int64).item(), key)

    def _compute(self, opened: OpenStore, hour: np.datetime64, key: str) -> Fields:
        if key == COARSE:
            contents = opened.store.contents
            names = [name for name in contents.predictors if name in ("t2m", "u10", "v10", "tp")]
            data = opened.read(COARSE, hour, names)
            return _arrays(data)
        if key == TRUTH:
            return _arrays(opened.read(TRUTH, hour))
        downscaler = self.downscaler(opened, key)
        if downscaler is None:
            raise StoreError(f"The downscaler {key!r} is not there any more.")
        if downscaler.stochastic:
            raise StoreError(f"Fields of {downscaler.label} are sampled, member by member.")

        def run() -> Fields:
            # An interpolation needs a few of the predictors, and reading all of them takes longer than it does.
            names = [name for name in downscaler.inputs if name in opened.store.contents.predictors]
            coarse = opened.read(COARSE, hour, names)
            return _arrays(downscaler.downscale(coarse, opened.static, opened.domain))

        checkpoint = getattr(downscaler, "identity", "")
        if self.disk is None or not checkpoint:  # interpolating is as quick as reading a file
            return run()
        address = self._disk_address("field", opened, hour, checkpoint)
        kept = self.disk.read(address)
        if kept is None:
            kept = run()
            self.disk.write(address, kept)
        return kept

    def peek_applicability(self, opened: OpenStore, hour: np.datetime64, key: str) -> Applicability | None:
        """How the inputs of an hour compare with the training data of a model, if that is known already."""
        with self._lock:
            return self._applicability.get(self._address(opened, hour, key))

    def applicability(self, opened: OpenStore, hour: np.datetime64, key: str) -> Applicability | None:
        """How the inputs of an hour compare with the training data of a model; None for an interpolation.

        Reads the hour where that is not known yet, so not for the event loop.
        """
        known = self.peek_applicability(opened, hour, key)
        downscaler = self.catalogue.result().get(key)
        header = getattr(downscaler, "header", None)
        if known is not None or header is None:
            return known
        from core.downscale.applicability import Applicability, check_predictors, check_statics

        names = [name for name in header.predictors if name in opened.store.contents.predictors]
        found = check_predictors(header, opened.read(COARSE, hour, names))
        if opened.static is not None:
            found = Applicability(
                (*found.checks, *check_statics(header, opened.static).checks), found.recorded
            )
        with self._lock:
            self._applicability[self._address(opened, hour, key)] = found
            while len(self._applicability) > HOURS_KNOWN:
                self._applicability.popitem(last=False)
        return found

    def _disk_address(
        self, what: str, opened: OpenStore, hour: np.datetime64, checkpoint: str, **rest: str | int
    ) -> Address:
        height, width = opened.domain.fine.shape
        return {
            "what": what, "version": __version__, "results": RESULTS_VERSION, "checkpoint": checkpoint,
            "data": str(opened.store.attrs.get("fingerprint", "")), "inputs": opened.inputs_hash(hour),
            "hour": str(hour.astype("datetime64[s]")), "height": height, "width": width, **rest,
        }  # fmt: skip

    # ---------------------------------------------------------------- members

    @property
    def keeps_on_disk(self) -> bool:
        """Whether results are kept beyond this process."""
        return self.disk is not None

    def peek_member(self, piece: Piece) -> Fields | None:
        """A member if it is in memory: all its variables in SI units, (H, W)."""
        return self.results.peek(self._member_address(piece))

    def find_member(self, piece: Piece) -> Fields | None:
        """A member if anybody had it sampled already, which a disk may have to tell; not for the event loop."""
        there = self.peek_member(piece)
        if there is None and self.disk is not None:
            there = self.disk.read(self._member_file(piece))
            if there is not None:
                self.results.keep(self._member_address(piece), there)
        return there

    def member_once(self, piece: Piece) -> Fields | None:
        """Like :meth:`find_member`, but what memory holds stays what it is.

        For passes over many hours, which would push out of memory what people look at.
        """
        there = self.results.peek(self._member_address(piece), used=False)
        if there is None and self.disk is not None:
            there = self.disk.read(self._member_file(piece))
        return there

    def keep_member(self, piece: Piece, fields: Fields) -> None:
        """Remember a member for everybody."""
        self.results.keep(self._member_address(piece), fields)
        if self.disk is not None:
            self.disk.write(self._member_file(piece), fields)

    def _member_file(self, piece: Piece) -> Address:
        draw = piece.draw
        return self._disk_address(
            "member", piece.opened, piece.hour, piece.checkpoint,
            sampler=draw.sampler, steps=draw.steps, seed=draw.seed, member=piece.member,
        )  # fmt: skip

    def members_at_once(self, piece: Piece) -> int:
        """How many members are computed together.

        One on the CPU, where more together are no faster, and where a step should soon be over for those who
        cancel or wait.
        """
        downscaler = self._generator(piece)
        if downscaler.device.type == "cpu":
            return 1
        return min(downscaler.fields_at_once(piece.opened.domain), MOST_MEMBERS)

    def sample(self, pieces: Sequence[Piece]) -> Iterator[SamplingStep | xr.Dataset]:
        """Sample members that belong together; see :meth:`GenerativeDownscaler.sample`.

        Raises StoreError or DownscaleError in plain words where that can't be done.
        """
        from core.downscale.sampling import Sampling

        first, downscaler = pieces[0], self._generator(pieces[0])
        opened, draw = first.opened, first.draw
        sampling = Sampling.checked(sampler=draw.sampler, steps=draw.steps, seed=draw.seed)
        coarse = opened.read(COARSE, first.hour, downscaler.inputs)
        members = [piece.member for piece in pieces]
        return downscaler.sample(coarse, opened.static, opened.domain, members, sampling, batch=len(members))

    def _generator(self, piece: Piece) -> GenerativeDownscaler:
        found = self.catalogue.result().get(piece.key)
        if found is None or not found.stochastic:
            raise StoreError(f"The generative model {piece.key!r} is not there any more.")
        return cast("GenerativeDownscaler", found)

    @staticmethod
    def _member_address(piece: Piece) -> tuple[object, ...]:
        hour = piece.hour.astype("datetime64[ns]").astype(np.int64).item()
        draw = piece.draw
        return (
            "member", *piece.opened.identity, hour, piece.key, piece.checkpoint, draw.sampler, draw.steps,
            draw.seed, piece.member,
        )  # fmt: skip


def _arrays(data: xr.Dataset) -> dict[str, NDArray[np.float32]]:
    """Fields of the first and only hour, by name."""
    return {
        str(name): np.ascontiguousarray(variable.isel(time=0).values, np.float32)
        for name, variable in data.data_vars.items()
        if "time" in variable.dims
    }
