"""The state of one visitor: what is chosen, what that means for this store, and the fields to show.

A :class:`Session` knows nothing of widgets. Its first group of parameters is what a person chooses and
what the address of the page holds; the second is what follows, and what views watch. Work that takes time runs
in the library's threads and comes back through ``deliver``, which the page sets to its event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import param
from numpy.typing import NDArray

from core.data.store import StoreError
from core.regions import WHOLE, Window, whole_window
from explorer.background import Latest
from explorer.checkpoints import CheckpointFile
from explorer.display import Display, display
from explorer.following import Analyses
from explorer.hours import in_part
from explorer.jobs import Draw, Piece, Preview
from explorer.library import COARSE, TRUTH, Catalogue, Library, OpenStore
from explorer.loading import INTERPOLATIONS, Loader, is_slow
from explorer.quantities import QUANTITIES, FloatField, Quantity
from explorer.remarks import Remarks
from explorer.results import Fields
from explorer.sampling import Desk
from explorer.snapshot import ModelChoice, Snapshot
from explorer.spectra import FIT
from explorer.study import PointStudy
from explorer.words import (
    DAYTIMES,
    DIFFERENCE,
    FIELDS,
    HOUR,
    SEASONS,
    STATE,
    STATISTICS,
    mended,
    read_hour,
    write_hour,
)

log = logging.getLogger(__name__)

Hours = NDArray[np.datetime64]
NO_HOURS: Hours = np.empty(0, "datetime64[ns]")


class Session(param.Parameterized):
    """What one visitor looks at. See the module for the two groups of parameters."""

    store = param.String(default="", doc="Name of the store.")
    hour = param.String(default="", doc="Hour shown, ISO 8601 in UTC.")
    season = param.String(default="all", doc="Season the hour slider is limited to.")
    daytime = param.String(default="all", doc="Part of the day the hour slider is limited to.")
    models = param.List(default=None, allow_None=True, item_type=str, doc="Keys of ticked downscalers.")
    variable = param.String(default="t2m", doc="Key of the quantity shown.")
    region = param.String(default=WHOLE, doc="Key of the region.")
    mode = param.String(default=FIELDS, doc="Fields, or differences against the reference.")
    reference = param.String(default=TRUTH, doc="Key of the field differences are taken against.")
    palette = param.String(default="", doc="Colour map; empty for that of the variable.")
    limits = param.List(default=None, allow_None=True, doc="Colour range [low, high], or None for automatic.")
    members = param.Integer(default=4, doc="Members of the ensemble of a generative model.")
    sampler = param.String(default=Draw.sampler, doc="Key of the sampler.")
    steps = param.Integer(default=Draw.steps, doc="Steps of the sampler.")
    seed = param.Integer(default=Draw.seed, doc="Seed of the noise.")
    generator = param.String(default="", doc="Key of the generative model whose ensemble is looked at.")
    theme = param.String(default="light")
    view = param.String(default="maps")
    fit = param.List(default=list(FIT), doc="Shortest and longest wavelength of the slope fit [km].")
    variant = param.String(default="paper", doc="Name of the flux ratio that is mapped.")
    cells = param.Integer(
        default=0, doc="Side of its supergrid cells [coarse pixels]; 0 for the variant's own."
    )
    point = param.List(default=None, allow_None=True, doc="Chosen longitude and latitude [degrees], or None.")
    span = param.String(default="day", doc="Key of the length of the time series at the point.")
    height = param.String(
        default="cell", doc="Height that temperatures at stations are compared at: cell or station."
    )

    split = param.String(default="all", doc="Part of the split the hour slider is limited to.")
    scope = param.String(default=HOUR, doc="Scores of the hour shown, or over the hours on offer.")
    most = param.Integer(default=48, doc="Hours that scores and the story look at, at most; 0 for all.")
    left = param.String(default="", doc="Key of the first of two fields compared; empty for automatic.")
    right = param.String(default="", doc="Key of the second of two fields compared; empty for automatic.")
    layers = param.List(default=[STATISTICS], item_type=str, doc="What the maps show beside fields.")
    selection = param.String(default="day3", doc="Hours that are shown side by side, or the story of them.")

    stores = param.List(default=[], doc="Names of the stores on offer.")
    opened = param.Parameter(default=None, doc="The open store, or None.")
    problem = param.String(default="", doc="Why nothing can be shown; empty where all is well.")
    error = param.String(default="", doc="Something that went wrong while the page goes on.")
    note = param.String(default="", doc="News, such as hours that arrived.")
    hours = param.Parameter(default=NO_HOURS, doc="Hours on offer: complete, and of the chosen season.")
    choices = param.List(default=None, allow_None=True, doc="Downscalers; None while they are looked for.")
    quantities = param.List(default=[], doc="Quantities the store can show.")
    windows = param.List(default=[], doc="Regions on offer.")
    snapshot = param.Parameter(default=None, doc="Fields of the hour, or None.")
    scores = param.Parameter(default=None, doc="ScoreTable of the hour and region, or None.")
    remarks = param.Dict(default={}, doc="Remark on a model at the hour shown, by its key.")
    progress = param.Parameter(default=None, doc="Progress of what is sampled for this visitor, or None.")
    preview = param.Parameter(default=None, doc="Preview of the field being sampled, or None.")
    ensemble = param.Parameter(
        default=None, doc="Ensemble of the hour and region, or None; follows its view."
    )
    spectra = param.Parameter(default=None, doc="Spectra of the hour and region, or None; follows its view.")
    fluxes = param.Parameter(default=None, doc="Fluxes of the hour and region, or None; follows its view.")

    def __init__(
        self, library: Library, *, deliver: Callable[[Callable[[], None]], None] | None = None, **params: Any
    ) -> None:
        super().__init__(**params)
        self.library = library
        self._deliver = deliver or (lambda work: work())
        self._catalogue: Catalogue | None = None
        self._searched: Future[Catalogue] | None = None
        self._hours_seen = 0
        self._identity: tuple[str, str] = ("", "")
        self._closed = False
        self._correcting = False
        self.closing: list[Callable[[], None]] = []
        """What to call when the visitor leaves."""
        self._desk = Desk(library.jobs, self._later, self._on_member, self._on_progress, self)
        self._loader = Loader(self, self._desk)
        self.analyses = Analyses(self)
        self.points = PointStudy(self, self._later)
        self._recalled: frozenset[Piece] = frozenset()
        self._remarks = Remarks(self, self.background())

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Open the store and look for downscalers; call once, after the state was restored."""
        self._list_stores()
        self._check_words()
        # Before all others: what follows from the state is not made of numbers beyond their bounds.
        self.param.watch(self._check_words, list(STATE))
        self.param.watch(self._on_store, "store")
        self.param.watch(self._on_filter, ["season", "daytime", "split"])
        self.param.watch(self._on_request, ["hour", "models", "variable", "sampler", "steps", "seed"])
        self.param.watch(
            self.analyses.gather, ["snapshot", "view", "members", "generator", "region", "models"]
        )
        self.param.watch(self.recall, ["members", "generator"])
        self.param.watch(self.analyses.on_region, "region")
        self.param.watch(self.analyses.analyse, ["snapshot", "region", "view", "fit", "variant", "cells"])
        self.param.watch(self._on_other_scale, ["mode", "variable", "limits"])
        self.param.watch(self._remarks.update, "snapshot")
        self._open()
        self._await_catalogue()
        self.points.start()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to another state, such as that of an address; what it leaves out goes to its default."""
        values = {name: state.get(name, self.param[name].default) for name in STATE}
        for name in ("store", "hour", "models"):  # their defaults are found, not known
            values[name] = state.get(name, getattr(self, name))
        self.param.update(**self._mended(values))
        self._update_choices()

    def close(self) -> None:
        """Stop what runs for this visitor; results already under way are kept for others."""
        self._closed = True
        self._loader.overtake()
        self._desk.close()
        self.points.close()
        for work in self.closing:
            work()

    def on_close(self, work: Callable[[], None]) -> None:
        """Have ``work`` done when the visitor leaves."""
        self.closing.append(work)

    def background(self) -> Latest:
        """For work of a view that takes time, of which only what was asked for last counts."""
        latest = Latest(self.library.submit, self._later)
        self.on_close(latest.drop)
        return latest

    @property
    def checkpoint_files(self) -> tuple[CheckpointFile, ...] | None:
        """All checkpoint files, usable or not; None while they are looked for."""
        return None if self._catalogue is None else self._catalogue.files

    def later(self, work: Callable[[], None]) -> None:
        """Bring work from any thread to the page's own; for what works in the background on its behalf."""
        self._later(work)

    def fail(self, error: BaseException) -> None:
        """Turn an exception into a message on the page."""
        if isinstance(error, StoreError):
            self.error = str(error)
            return
        log.error("The page could not do what was asked.", exc_info=error)
        self.error = f"That did not work ({type(error).__name__}: {error}). The log of the server says more."

    def _later(self, work: Callable[[], None]) -> None:
        """Hand ``work`` from any thread to the page's own; errors become messages."""

        def guarded() -> None:
            if self._closed:
                return
            try:
                work()
            except Exception as error:
                self.fail(error)

        if not self._closed:
            self._deliver(guarded)

    # ---------------------------------------------------------------- choosing

    @property
    def quantity(self) -> Quantity:
        """The quantity shown."""
        return QUANTITIES.get(self.variable, QUANTITIES["t2m"])

    @property
    def window(self) -> Window | None:
        """The region shown."""
        if self.opened is None:
            return None
        found = (window for window in self.opened.windows if window.key == self.region)
        return next(found, whole_window(self.opened.domain))

    @property
    def current(self) -> np.datetime64 | None:
        """The hour shown."""
        return read_hour(self.hour)

    @property
    def has_truth(self) -> bool:
        """Whether the store holds the fine truth of the quantity."""
        return self.opened is not None and self.quantity.available(self.opened.store.contents.targets)

    @property
    def running(self) -> tuple[ModelChoice, ...]:
        """Ticked downscalers that can run, in the order of the list."""
        return tuple(c for c in self.choices or () if c.runs and c.key in (self.models or ()))

    def references(self) -> dict[str, str]:
        """Fields that differences can be taken against: key -> label."""
        names = {TRUTH: "Truth"} if self.has_truth else {}
        return names | {choice.key: choice.label for choice in self.running} | {COARSE: "Coarse input"}

    @property
    def against(self) -> str:
        """Key of the field that differences are taken against: the one asked for, or the first there is."""
        offered = self.references()
        return self.reference if self.reference in offered else next(iter(offered))

    def pair(self) -> tuple[str, str]:
        """Keys of two fields compared: those asked for, else a downscaler and what it is to come near."""
        offered = list(self.references())
        right = self.right if self.right in offered else offered[0]
        others = [key for key in offered if key != right]
        # The last one is mostly the most elaborate downscaler, after the coarse input.
        downscaled = [choice.key for choice in self.running if choice.key != right]
        left = self.left if self.left in others else next(iter([*downscaled[-1:], *others]), right)
        return left, right

    def automatic_limits(self) -> list[float] | None:
        """The colour range that fits what is shown, or None while nothing is."""
        shown = self.shown()
        return None if shown is None else list(shown.limits)

    def shown(self) -> Display | None:
        """What the maps draw of the snapshot in the chosen mode; None while there is nothing."""
        if self.snapshot is None:
            return None
        ready = {field.key: field.values for field in self.snapshot.fields if field.values is not None}
        ready |= self._emerging(self.snapshot)
        against = self.against if self.mode == DIFFERENCE else ""
        return display(ready, self.snapshot.quantity, self.snapshot.opened.domain, self.window, against)

    def _emerging(self, snapshot: Snapshot) -> dict[str, FloatField]:
        """The preview of the field of a snapshot that is being sampled, by key."""
        preview: Preview | None = self.preview
        if preview is None or not snapshot.quantity.available(preview.fields):
            return {}
        field = snapshot.get(preview.piece.key)
        if field is None or field.values is not None or field.piece != preview.piece:
            return {}
        return {field.key: snapshot.quantity.compute(preview.fields)}

    def step(self, count: int) -> None:
        """Go ``count`` hours forward or back among those on offer; stays at the ends."""
        if self.hours.size:
            index = int(np.clip(self.position() + count, 0, self.hours.size - 1))
            self._loader.direction = 1 if count > 0 else -1
            self.go(index)

    def go(self, index: int) -> None:
        """Show the hour at this position among those on offer."""
        self.hour = write_hour(self.hours[index])

    def position(self) -> int:
        """Where the hour shown is among those on offer (the nearest, where the filter leaves it out)."""
        current = self.current
        if current is None or not self.hours.size:
            return 0
        return int(np.argmin(np.abs(self.hours - current)))

    def _check_words(self, *_: object) -> None:
        """Put right what an address or a browser may have spelled wrongly, all at once."""
        state = {name: getattr(self, name) for name in STATE}
        changed = {name: value for name, value in self._mended(state).items() if value != state[name]}
        if changed:
            self.param.update(**changed)

    def _mended(self, state: Mapping[str, Any]) -> dict[str, Any]:
        settings = self.library.settings
        return {n: mended(n, value, self.param[n].default, settings) for n, value in state.items()}

    # ---------------------------------------------------------------- stores and hours

    def _list_stores(self) -> None:
        self.stores = list(self.library.settings.find_stores())
        if not self.store and self.stores:
            self.store = self.stores[0]

    def _on_store(self, *_: object) -> None:
        self._open()

    def _open(self) -> None:
        self._loader.overtake()
        if not self.store:
            self._empty("")
            return
        try:
            opened = self.library.open(self.store)
        except StoreError as error:
            self._empty(str(error))
            return
        if self.opened is not None and self.current not in opened.store.hours:
            with param.parameterized.discard_events(self):
                self.hour = ""  # another store has other hours; that needs no remark
        self._identity = opened.identity
        self.library.warm(opened)
        self.param.update(problem="", error="", note="", snapshot=None, scores=None, opened=opened)
        self._update_choices()
        self._update_hours()

    def _empty(self, problem: str) -> None:
        self.param.update(
            opened=None, snapshot=None, scores=None, hours=NO_HOURS, quantities=[], windows=[], choices=None,
            problem=problem or "There is no store to show.",
        )  # fmt: skip

    def _on_filter(self, *_: object) -> None:
        self._update_hours()

    def _update_hours(self) -> None:
        """Hours on offer, and one of them shown: the one asked for, else the nearest, else the first noon."""
        if self.opened is None:
            return
        hours = self.opened.store.hours
        self._hours_seen = hours.size
        stamps = hours.astype("datetime64[s]").tolist()
        months, times = SEASONS[self.season], DAYTIMES[self.daytime]
        kept = np.array([s.month in months and s.hour in times for s in stamps], bool)
        kept &= in_part(hours, self.split)
        offered = hours[kept] if hours.size else hours
        if self.hours.size != offered.size or not np.array_equal(self.hours, offered):
            self.hours = offered
        asked, current = self.hour, self.current
        if not offered.size:
            self._loader.overtake()
            pending = self.opened.store.pending.size
            self.param.update(
                snapshot=None,
                scores=None,
                problem=(
                    "No hour of this store matches the season, time of day and split; choose others."
                    if hours.size
                    else f"No hour of this store is written yet ({pending} planned). It will appear here by itself."
                ),
            )
            return
        self.problem = ""
        if current is None:
            noons = [i for i, s in enumerate(offered.astype("datetime64[s]").tolist()) if s.hour == 12]
            chosen = offered[noons[0] if noons else 0]
        else:
            chosen = offered[int(np.argmin(np.abs(offered - current)))]
            if not (hours == current).any():
                self.note = f"{asked.replace('T', ' ')} is not on offer here; the nearest hour is shown."
        if write_hour(chosen) != asked:
            self.hour = write_hour(chosen)  # requests the fields
        else:
            self._loader.request()

    def look(self) -> None:
        """Look on the disk for new stores and hours, in the background; for a timer to call."""
        opened = self.opened

        def work() -> None:
            try:
                if opened is not None:
                    opened.look_again()
                self.library.look_for_checkpoints()
                failure = None
            except (StoreError, OSError) as error:
                failure = str(error)
            self._later(lambda: self._on_look(opened, failure))

        self.library.submit(work)

    def _on_look(self, opened: OpenStore | None, failure: str | None) -> None:
        self._list_stores()
        if self.library.search is not self._searched:
            self._await_catalogue()
        if opened is not self.opened:
            return
        if opened is None:
            if self.store:
                problem = self.problem
                self._open()
                if self.problem == problem:
                    return
            return
        if failure is not None:
            self.library.forget(opened)
            self._empty(failure)
            return
        if opened.identity != self._identity:
            self.library.forget(opened)
            self._open()
            self.note = "This store was replaced; its new content is shown."
            return
        before, now = self._hours_seen, opened.store.hours.size
        if now != before:
            self._update_choices()
            self._update_hours()
            if now > before:
                many = now - before
                self.note = f"{many} new hour{'s' if many > 1 else ''} in this store since you opened it."

    # ---------------------------------------------------------------- downscalers

    def _await_catalogue(self) -> None:
        self._searched = search = self.library.search
        if search.done():  # a page that begins with its models is not laid out twice
            self._on_catalogue(search)
        else:
            search.add_done_callback(lambda future: self._later(lambda: self._on_catalogue(future)))

    def _on_catalogue(self, future: Future[Catalogue]) -> None:
        try:
            self._catalogue = future.result()
        except Exception as error:
            self._catalogue = self._catalogue or Catalogue((), ())
            self.fail(error)
        self._update_choices()
        self._loader.request()

    def _update_choices(self) -> None:
        """What the open store offers: quantities, regions, downscalers and why others can't run."""
        opened = self.opened
        if opened is None:
            return
        contents = opened.store.contents
        self.quantities = [q for q in QUANTITIES.values() if q.available(contents.predictors)]
        self.windows = list(opened.windows)
        if self.quantities and self.quantity not in self.quantities:
            self.variable = self.quantities[0].key
        if self.region not in [window.key for window in self.windows]:
            self.region = WHOLE
        if self._catalogue is None:
            return
        choices = []
        for downscaler in (*self._catalogue.downscalers, *opened.outputs):
            reasons = downscaler.obstacles(contents, opened.domain)
            if not reasons and not self.quantity.available(downscaler.targets):
                reasons = [f"It does not make {self.quantity.label.lower()}."]
            checkpoint = getattr(downscaler, "identity", "") if downscaler.stochastic else ""
            label = self._catalogue.label(downscaler)
            choices.append(ModelChoice(downscaler.key, label, " ".join(reasons), checkpoint))
        choices += [ModelChoice(f"file:{path}", path.name, why) for path, why in self._catalogue.failures]
        if choices != self.choices:
            self.choices = choices
        if self.models is None:
            self.models = _default_models(choices)

    # ---------------------------------------------------------------- fields

    def _on_request(self, *events: Any) -> None:
        names = [event.name for event in events]
        if "variable" in names:
            self._update_choices()
        self._desk.forgive()
        if "hour" in names and self.opened is not None and not self.holds(self.current):
            self._update_hours()  # the nearest hour there is
        else:
            self._loader.request()

    def holds(self, hour: np.datetime64 | None) -> bool:
        """Whether the open store has this hour."""
        return self.opened is not None and hour is not None and hour in self.opened.store.hours

    def _on_other_scale(self, *events: Any) -> None:
        """A colour range that was set for a field means nothing for a difference or another variable."""
        if "limits" not in [event.name for event in events]:
            self.limits = None

    is_slow = staticmethod(is_slow)

    def look_ahead(self, hours: int) -> None:
        """Make so many hours beforehand from now on; several for going forward without a pause."""
        self._loader.look_ahead(hours)

    @property
    def scoring(self) -> bool:
        """Whether scores of what is shown are on their way."""
        return self.analyses.scoring

    def scored_fields(self) -> list[tuple[str, FloatField, FloatField]]:
        """See :meth:`explorer.following.Analyses.scored_fields`."""
        return self.analyses.scored_fields()

    # ---------------------------------------------------------------- members

    @property
    def draw(self) -> Draw:
        """How members are drawn."""
        return Draw(self.sampler, self.steps, self.seed)

    @property
    def generators(self) -> tuple[ModelChoice, ...]:
        """Ticked generative models that can run."""
        return tuple(choice for choice in self.running if choice.generative)

    @property
    def generating(self) -> ModelChoice | None:
        """The generative model whose ensemble is looked at: the one asked for, or the first that is ticked."""
        ticked = self.generators
        return next((choice for choice in ticked if choice.key == self.generator), next(iter(ticked), None))

    def piece(self, choice: ModelChoice, member: int = 0) -> Piece:
        """A member of a generative model for the hour shown, as it is drawn now."""
        assert self.opened is not None
        assert self.current is not None
        return Piece(self.opened, self.current, choice.key, choice.checkpoint, self.draw, member)

    def sample(self) -> None:
        """Sample what is missing of the ensemble of the hour shown; ``progress`` tells how it goes."""
        choice = self.generating
        if choice is None or not self.holds(self.current):
            return
        self._desk.ask([self.piece(choice, member) for member in self.member_numbers()])
        self._loader.request()

    def sample_pieces(self, pieces: Sequence[Piece]) -> None:
        """Sample these members, of whichever hours; ``progress`` tells how it goes."""
        self._desk.ask(pieces)
        self._loader.request()

    def recall(self, *_: object) -> None:
        """Bring back the members of the ensemble that somebody had sampled before this process began."""
        choice = self.generating
        if choice is None or self.current is None or self.opened is None or not self.library.keeps_on_disk:
            return
        pieces = [self.piece(choice, member) for member in self.member_numbers()]
        absent = frozenset(piece for piece in pieces if self.library.peek_member(piece) is None)
        if absent and absent != self._recalled:
            self._recalled = absent
            self._desk.recall(sorted(absent, key=lambda piece: piece.member), self._tell_recalled)

    def _tell_recalled(self) -> None:
        self.analyses.gather()
        self.param.trigger("progress")  # how many members there are

    def hold_sampling(self) -> None:
        """Have nothing sampled before :meth:`begin_sampling`, for a page that nobody has seen yet."""
        self._desk.hold()

    def begin_sampling(self) -> None:
        """Somebody looks at the page."""
        self._desk.release()

    def cancel_sampling(self) -> None:
        """Stop after the step at work; members that are made stay."""
        self._desk.cancel()

    def member_numbers(self) -> list[int]:
        """Numbers of the members of an ensemble, never more than this page samples."""
        # Bounded here as well: what follows the state may look before it is checked.
        return list(range(min(self.members, self.library.settings.most_members)))

    def ready_members(self) -> tuple[int, ...]:
        """Members of the ensemble looked at that are there."""
        return tuple(self.members_there())

    def members_there(self) -> dict[int, Fields]:
        """Members of the ensemble looked at that are there, by number."""
        choice = self.generating
        if choice is None or self.opened is None or self.current is None:
            return {}
        found = {n: self.library.peek_member(self.piece(choice, n)) for n in self.member_numbers()}
        return {member: fields for member, fields in found.items() if fields is not None}

    def _on_member(self, piece: Piece) -> None:
        """A member arrived, or will not come."""
        self._loader.take(piece)
        self.analyses.gather()
        self.points.on_member(piece)

    def _on_progress(self) -> None:
        self.param.update(progress=self._desk.progress, preview=self._desk.preview)


def _default_models(choices: Sequence[ModelChoice]) -> list[str]:
    """The plain interpolation and the first checkpoint that runs, else both interpolations."""
    running = [choice.key for choice in choices if choice.runs]
    plain = [key for key in running if key in INTERPOLATIONS]
    trained = [key for key in running if key not in INTERPOLATIONS]
    return plain[:1] + trained[:1] if trained else plain
