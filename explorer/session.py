"""The state of one visitor: what is chosen, what that means for this store, and the fields to show.

A :class:`Session` knows nothing of widgets. Its first group of parameters is what a person chooses and
what the address of the page holds; the second is what follows, and what views watch. Work that takes time runs
in the library's threads and comes back through ``deliver``, which the page sets to its event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import param
from numpy.typing import NDArray

from core.data.store import StoreError
from core.regions import WHOLE, Window, whole_window
from explorer.background import Latest
from explorer.checkpoints import CheckpointFile
from explorer.display import Display, display
from explorer.ensembles import Ensemble, compute_ensemble
from explorer.fluxes import VARIANTS, compute_fluxes
from explorer.hours import MOST, PARTS, in_part
from explorer.jobs import MOST_SEED, SAMPLERS, Draw, Piece, Preview
from explorer.jobs import sentence as _plain
from explorer.library import COARSE, QUADRATIC, TRUTH, Catalogue, Library, OpenStore
from explorer.points import SPANS, is_point
from explorer.quantities import QUANTITIES, FloatField, Quantity
from explorer.results import Fields
from explorer.sampling import Desk
from explorer.scores import Score, compute_score
from explorer.spectra import FIT, Spectra, compute_spectra
from explorer.study import STATION_HEIGHT, PointStudy

log = logging.getLogger(__name__)

FIELDS = "fields"
DIFFERENCE = "difference"
SWIPE = "swipe"
MODES = (FIELDS, DIFFERENCE, SWIPE)
VIEWS = ("maps", "spectra", "flux", "scores", "hours", "ensemble", "point", "about")
HOUR, HOURS = "hour", "hours"
SCOPES = (HOUR, HOURS)
ARROWS, CELLS, STATISTICS = "arrows", "cells", "statistics"
LAYERS = (ARROWS, CELLS, STATISTICS)
SPLIT_WORDS = {"train": "training weeks", "validation": "validation weeks", "test": "test weeks"}
STORY = "story"
SELECTIONS = ("day3", "day6", "spread", STORY)
THEMES = ("light", "dark")
SEASONS: dict[str, tuple[int, ...]] = {
    "all": tuple(range(1, 13)),
    "winter": (12, 1, 2),
    "spring": (3, 4, 5),
    "summer": (6, 7, 8),
    "autumn": (9, 10, 11),
}
DAYTIMES: dict[str, tuple[int, ...]] = {
    "all": tuple(range(24)),
    "day": tuple(range(6, 18)),
    "night": (*range(6), *range(18, 24)),
}

Hours = NDArray[np.datetime64]
NO_HOURS: Hours = np.empty(0, "datetime64[ns]")


@dataclass(frozen=True)
class ModelChoice:
    """A downscaler to tick, or a checkpoint file that can't be: then ``reason`` says why.

    ``checkpoint`` is the hash of what a generative model's file holds, empty for others.
    """

    key: str
    label: str
    reason: str = ""
    checkpoint: str = ""

    @property
    def runs(self) -> bool:
        """Whether it can be ticked."""
        return not self.reason

    @property
    def generative(self) -> bool:
        """Whether it makes members, which are sampled step by step."""
        return bool(self.checkpoint)


@dataclass(frozen=True)
class Field:
    """One map: its values in display units once they are ready, (h, w) for coarse, else (H, W).

    ``piece`` is what is sampled for it, of a generative model: member 0.
    """

    key: str
    label: str
    values: FloatField | None = None
    problem: str = ""
    piece: Piece | None = None

    @property
    def computing(self) -> bool:
        """Whether values are still to come."""
        return self.values is None and not self.problem


@dataclass(frozen=True)
class Snapshot:
    """Everything the maps show of one hour."""

    opened: OpenStore
    hour: np.datetime64
    quantity: Quantity
    fields: tuple[Field, ...]

    def get(self, key: str) -> Field | None:
        """The field with this key."""
        return next((field for field in self.fields if field.key == key), None)

    @property
    def computing(self) -> tuple[Field, ...]:
        """Fields that are not ready yet."""
        return tuple(field for field in self.fields if field.computing)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one hour over one region, a row per downscaler."""

    quantity: Quantity
    hour: np.datetime64
    window: Window
    rows: tuple[Score, ...]

    def get(self, key: str) -> Score | None:
        """The row of one downscaler."""
        return next((row for row in self.rows if row.key == key), None)


def show_hour(hour: np.datetime64, *, weekday: bool = True) -> str:
    """An hour for people, in UTC."""
    stamp = hour.astype("datetime64[s]").item()
    return f"{stamp:%a %-d %b %Y, %H:%M} UTC" if weekday else f"{stamp:%Y-%m-%d %H:%M}"


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
    progress = param.Parameter(default=None, doc="Progress of what is sampled for this visitor, or None.")
    preview = param.Parameter(default=None, doc="Preview of the field being sampled, or None.")
    ensemble = param.Parameter(
        default=None, doc="Ensemble of the hour and region, or None; follows its view."
    )
    spectra = param.Parameter(default=None, doc="Spectra of the hour and region, or None; follows its view.")
    fluxes = param.Parameter(default=None, doc="Fluxes of the hour and region, or None; follows its view.")

    STATE = (
        "store", "hour", "season", "daytime", "models", "variable", "region", "mode", "reference", "palette",
        "limits", "members", "sampler", "steps", "seed", "generator", "theme", "view", "fit", "variant", "cells",
        "point", "span", "height",
        "split", "scope", "most", "left", "right", "layers", "selection",
    )  # fmt: skip

    def __init__(
        self, library: Library, *, deliver: Callable[[Callable[[], None]], None] | None = None, **params: Any
    ) -> None:
        super().__init__(**params)
        self.library = library
        self._deliver = deliver or (lambda work: work())
        self._catalogue: Catalogue | None = None
        self._searched: Future[Catalogue] | None = None
        self._generation = 0
        self._hours_seen = 0
        self._identity: tuple[str, str] = ("", "")
        self._prefetched: tuple[object, ...] = ()
        self._direction = 1
        self._ahead = 1
        self._closed = False
        self._correcting = False
        self._latest = {
            name: Latest(library.submit, self._later) for name in ("spectra", "fluxes", "ensemble")
        }
        self._desk = Desk(library.jobs, self._later, self._on_member, self._on_progress, self)
        self._gathered: tuple[object, ...] = ()
        self.points = PointStudy(self, self._later)
        self._recalled: frozenset[Piece] = frozenset()
        self.closing: list[Callable[[], None]] = []
        """What to call when the visitor leaves."""

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Open the store and look for downscalers; call once, after the state was restored."""
        self._list_stores()
        self.param.watch(self._on_store, "store")
        self.param.watch(self._on_filter, ["season", "daytime", "split"])
        self.param.watch(self._on_request, ["hour", "models", "variable", "sampler", "steps", "seed"])
        self.param.watch(self._gather, ["snapshot", "view", "members", "generator", "region", "models"])
        self.param.watch(self._recall, ["members", "generator"])
        self.param.watch(self._on_region, "region")
        self.param.watch(self._analyse, ["snapshot", "region", "view", "fit", "variant", "cells"])
        self.param.watch(self._on_other_scale, ["mode", "variable", "limits"])
        self._check_words()
        self._open()
        self._await_catalogue()
        self.points.start()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to another state, such as that of an address; what it leaves out goes to its default."""
        values = {name: state.get(name, self.param[name].default) for name in self.STATE}
        for name in ("store", "hour", "models"):  # their defaults are found, not known
            values[name] = state.get(name, getattr(self, name))
        self.param.update(**values)
        self._check_words()
        self._update_choices()

    def close(self) -> None:
        """Stop what runs for this visitor; results already under way are kept for others."""
        self._closed = True
        self._generation += 1
        self._desk.close()
        self.points.close()
        for work in self.closing:
            work()

    def on_close(self, work: Callable[[], None]) -> None:
        """Have ``work`` done when the visitor leaves."""
        self.closing.append(work)

    def background(self) -> Latest:
        """For work of a view that takes time, of which only what was asked for last counts."""
        return Latest(self.library.submit, self._later)

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
        try:
            return np.datetime64(self.hour, "ns") if self.hour else None
        except ValueError:
            return None

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
            self._direction = 1 if count > 0 else -1
            self.go(index)

    def go(self, index: int) -> None:
        """Show the hour at this position among those on offer."""
        self.hour = _iso(self.hours[index])

    def position(self) -> int:
        """Where the hour shown is among those on offer (the nearest, where the filter leaves it out)."""
        current = self.current
        if current is None or not self.hours.size:
            return 0
        return int(np.argmin(np.abs(self.hours - current)))

    def _check_words(self) -> None:
        """Put back to their defaults what an address may have spelled wrongly."""
        allowed = {"mode": MODES, "view": VIEWS, "theme": THEMES, "season": SEASONS, "daytime": DAYTIMES}
        allowed["variant"] = VARIANTS
        settings = self.library.settings
        most = {"members": settings.most_members, "steps": settings.most_steps}
        allowed |= {"split": PARTS, "scope": SCOPES, "selection": SELECTIONS, "most": (*MOST, 0)}
        allowed |= {
            "sampler": SAMPLERS, "members": range(1, most["members"] + 1), "steps": range(1, most["steps"] + 1),
            "seed": range(MOST_SEED + 1),
        }  # fmt: skip
        allowed |= {"span": SPANS, "height": ("cell", STATION_HEIGHT)}
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                default = self.param[name].default
                setattr(self, name, min(default, most[name]) if name in most else default)
        if any(layer not in LAYERS for layer in self.layers):
            self.layers = [layer for layer in LAYERS if layer in self.layers]
        limits = self.limits
        if limits is not None:
            numbers = all(isinstance(v, int | float) and np.isfinite(v) for v in limits)
            if len(limits) != 2 or not numbers or not limits[0] < limits[1]:
                self.limits = None
        if len(self.fit) != 2 or not all(_is_length(km) for km in self.fit) or self.fit[0] >= self.fit[1]:
            self.fit = list(FIT)
        if self.cells < 0:
            self.cells = 0
        if self.point is not None and not is_point(self.point):
            self.point = None

    # ---------------------------------------------------------------- stores and hours

    def _list_stores(self) -> None:
        self.stores = list(self.library.settings.find_stores())
        if not self.store and self.stores:
            self.store = self.stores[0]

    def _on_store(self, *_: object) -> None:
        self._open()

    def _open(self) -> None:
        self._generation += 1
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
        self._check_words()
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
            self._generation += 1
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
        if _iso(chosen) != asked:
            self.hour = _iso(chosen)  # requests the fields
        else:
            self._request()

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
        self._searched = self.library.search
        self._searched.add_done_callback(lambda future: self._later(lambda: self._on_catalogue(future)))

    def _on_catalogue(self, future: Any) -> None:
        try:
            self._catalogue = future.result()
        except Exception as error:
            self._catalogue = self._catalogue or Catalogue((), ())
            self.fail(error)
        self._update_choices()
        self._request()

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
        for downscaler in self._catalogue.downscalers:
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
        if any(event.name == "variable" for event in events):
            self._update_choices()
        self._check_words()
        self._desk.forgive()
        self._request()

    def _on_other_scale(self, *events: Any) -> None:
        """A colour range that was set for a field means nothing for a difference or another variable."""
        if "limits" not in [event.name for event in events]:
            self.limits = None

    def _request(self) -> None:
        """Show the fields of the hour: at once what is there, and each of the rest when it is ready."""
        self._generation += 1
        opened, hour = self.opened, self.current
        if opened is None or hour is None or hour not in opened.store.hours:
            return
        if not self.quantities:
            self.param.update(
                snapshot=None,
                scores=None,
                problem="This store holds none of the variables that can be shown (t2m, u10 and v10, tp).",
            )
            return
        generation, quantity = self._generation, self.quantity
        wanted = [(COARSE, "Coarse input")]
        if self.has_truth:
            wanted.append((TRUTH, "Truth"))
        wanted += [(choice.key, choice.label) for choice in self.running]
        sampled = {choice.key: self.piece(choice) for choice in self.generators}
        fields = tuple(
            self._sampled_field(key, label, quantity, sampled[key])
            if key in sampled
            else _make_field(key, label, quantity, self.library.peek(opened, hour, key))
            for key, label in wanted
        )
        target = Snapshot(opened, hour, quantity, fields)
        self._desk.show([field.piece for field in target.computing if field.piece is not None])
        self._recall()
        computing = [field.key for field in target.computing if field.piece is None]
        if not computing:
            self._publish(target)
            return
        # What reads or interpolates comes within a moment; showing it in one piece avoids flicker.
        quick = [key for key in computing if not self.is_slow(key)]
        slow = [key for key in computing if self.is_slow(key)]
        if not quick:
            self._publish(target)

        def work(keys: Sequence[str]) -> None:
            done: dict[str, Fields | Exception] = {}
            for key in keys:
                if generation != self._generation:
                    return
                try:
                    done[key] = self.library.fields(opened, hour, key)
                except Exception as error:
                    log.warning("%s failed for %s", key, hour, exc_info=error)
                    done[key] = error
            self._later(lambda: self._arrived(generation, target, done))

        for keys in ([quick] if quick else []) + [[key] for key in slow]:
            self.library.submit(lambda keys=keys: work(keys))

    @staticmethod
    def is_slow(key: str) -> bool:
        """Whether a field takes seconds rather than a moment."""
        return key not in (COARSE, TRUTH, *_INTERPOLATIONS)

    def _arrived(self, generation: int, target: Snapshot, done: dict[str, Fields | Exception]) -> None:
        if generation != self._generation:
            return
        shown = self.snapshot
        base = shown if _same_request(shown, target) else target
        fields = []
        for field in base.fields:
            result = done.get(field.key)
            if isinstance(result, Exception):
                field = replace(field, problem=_plain(result))
            elif result is not None:
                field = _make_field(field.key, field.label, target.quantity, result)
            elif field.piece is not None and field.computing:  # it may have come before the others
                field = self._sampled_field(field.key, field.label, target.quantity, field.piece)
            fields.append(field)
        self._publish(replace(base, fields=tuple(fields)))

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._score()
        if not snapshot.computing:
            self._prefetch(snapshot)

    def look_ahead(self, hours: int) -> None:
        """Make so many hours beforehand from now on; several for going forward without a pause."""
        self._ahead = hours
        if hours > 1:
            self._direction = 1
            if self.snapshot is not None and not self.snapshot.computing:
                self._prefetch(self.snapshot)

    def _prefetch(self, snapshot: Snapshot) -> None:
        """Make the next hours in the direction of travel, so that going on is instant."""
        index, opened = self.position(), snapshot.opened
        # Members are sampled when an hour is looked at: they cost much, and others may be waiting.
        made = [field.key for field in snapshot.fields if field.piece is None]
        places = [index + self._direction * count for count in range(1, self._ahead + 1)]
        hours = [self.hours[place] for place in places if 0 <= place < self.hours.size]
        wanted = [
            (hour, key) for hour in hours for key in made if self.library.peek(opened, hour, key) is None
        ]
        mark = (opened.identity, *wanted)
        if not wanted or mark == self._prefetched:
            return
        self._prefetched = mark
        generation = self._generation

        def work() -> None:
            for hour, key in wanted:
                if generation != self._generation:
                    return
                try:
                    self.library.fields(opened, hour, key)
                except Exception:  # it will be reported if somebody asks for this hour
                    return

        self.library.submit(work)

    # ---------------------------------------------------------------- scores

    def _on_region(self, *_: object) -> None:
        if self.snapshot is not None:
            self._score()

    def scored_fields(self) -> list[tuple[str, FloatField, FloatField]]:
        """(key, forecast, truth) of everything that is scored and ready; the coarse input as interpolated."""
        snapshot = self.snapshot
        truth = snapshot.get(TRUTH) if snapshot is not None else None
        if truth is None or truth.values is None:
            return []
        ready = [f for f in snapshot.fields if f.key not in (COARSE, TRUTH) and f.values is not None]
        found = [(field.key, field.values, truth.values) for field in ready]
        if QUADRATIC not in [field.key for field in ready]:
            made = self.library.peek(snapshot.opened, snapshot.hour, QUADRATIC)
            if made is not None:
                found.insert(0, (COARSE, snapshot.quantity.compute(made), truth.values))
        return found

    def _score(self) -> None:
        """Score what is shown against the truth over the region, in the background."""
        snapshot, window = self.snapshot, self.window
        truth = snapshot.get(TRUTH) if snapshot is not None else None
        if snapshot is None or window is None or truth is None or truth.values is None:
            self.scores = None
            return
        downscaled = [f for f in snapshot.fields if f.key not in (COARSE, TRUTH) and f.values is not None]
        quadratic_there = any(f.key == QUADRATIC for f in downscaled)
        can_quadratic = any(c.key == QUADRATIC and c.runs for c in self.choices or ())
        quantity, reference = snapshot.quantity, truth.values

        pieces = {field.key: field.piece for field in snapshot.fields}

        def row(key: str, label: str, values: FloatField) -> Score:
            piece = pieces.get(key)
            address = (
                "scores", *snapshot.opened.identity, str(snapshot.hour), quantity.key, window.key, key,
                None if piece is None else piece.draw,
            )  # fmt: skip
            return compute_score(
                key, label, values, reference, window, snapshot.opened.domain, self.library.results, address
            )

        def work() -> None:
            try:
                rows = []
                if can_quadratic and not quadratic_there:
                    made = self.library.fields(snapshot.opened, snapshot.hour, QUADRATIC)
                    rows.append(row(COARSE, "Coarse input (quadratic interpolation)", quantity.compute(made)))
                for field in downscaled:
                    label = field.label
                    if field.key == QUADRATIC:
                        label += " (= coarse input)"
                    rows.append(row(field.key, label, field.values))
            except Exception as error:
                failure = error
                self._later(lambda: self.fail(failure))
                return
            table = ScoreTable(quantity, snapshot.hour, window, tuple(rows))
            self._later(lambda: self._scored(snapshot, window, table))

        self.library.submit(work)

    def _scored(self, snapshot: Snapshot, window: Window, table: ScoreTable) -> None:
        # Two tables of one request are made at once when a slow model arrives late; the later one counts.
        if snapshot is self.snapshot and window == self.window:
            self.scores = table

    # ---------------------------------------------------------------- spectra and fluxes

    def _analyse(self, *_: object) -> None:
        """Ask for what the view in front draws of the snapshot; what is hidden waits until it is looked at."""
        snapshot, window, results = self.snapshot, self.window, self.library.results
        if snapshot is None or window is None:
            for latest in self._latest.values():
                latest.drop()
            self.param.update(spectra=None, fluxes=None)
            return
        opened, hour, quantity = snapshot.opened, snapshot.hour, snapshot.quantity
        ready = [
            (field.key, field.label, field.values) for field in snapshot.fields if field.values is not None
        ]
        shortest, longest = (float(length) for length in self.fit)

        def spectra() -> Iterator[Spectra]:
            fit = (shortest, longest)
            against, rows = compute_spectra(ready, opened.domain, window, fit, results)
            yield Spectra(quantity, hour, window, fit, against, rows)

        if self.view == "spectra" and ready:
            self._ask("spectra", spectra)
        elif self.view == "flux" and quantity.key == "t2m" and COARSE in [key for key, _, _ in ready]:
            variant, cells = self.variant, self.cells
            self._ask("fluxes", lambda: compute_fluxes(ready, hour, opened, window, variant, cells, results))

    def _ask(self, name: str, work: Callable[[], Iterable[Any]]) -> None:
        self._latest[name].ask(work, lambda result: self.param.update(**{name: result}), self.fail)

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
        choice, hour = self.generating, self.current
        if choice is None or self.opened is None or hour is None or hour not in self.opened.store.hours:
            return
        self._desk.ask([self.piece(choice, member) for member in self._numbers])
        self._request()

    def sample_pieces(self, pieces: Sequence[Piece]) -> None:
        """Sample these members, of whichever hours; ``progress`` tells how it goes."""
        self._desk.ask(pieces)
        self._request()

    def _recall(self, *_: object) -> None:
        """Bring back the members of the ensemble that somebody had sampled before this process began."""
        choice = self.generating
        if choice is None or self.current is None or self.opened is None or not self.library.keeps_on_disk:
            return
        pieces = [self.piece(choice, member) for member in self._numbers]
        absent = frozenset(piece for piece in pieces if self.library.peek_member(piece) is None)
        if absent and absent != self._recalled:
            self._recalled = absent
            self._desk.recall(sorted(absent, key=lambda piece: piece.member), self._tell_recalled)

    def _tell_recalled(self) -> None:
        self._gather()
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

    @property
    def _numbers(self) -> range:
        # Bounded here as well, since an address may ask for any number before its words are checked.
        return range(min(self.members, self.library.settings.most_members))

    def ready_members(self) -> tuple[int, ...]:
        """Members of the ensemble looked at that are there."""
        return tuple(self._members_there())

    def _members_there(self) -> dict[int, Fields]:
        choice = self.generating
        if choice is None or self.opened is None or self.current is None:
            return {}
        found = {n: self.library.peek_member(self.piece(choice, n)) for n in self._numbers}
        return {member: fields for member, fields in found.items() if fields is not None}

    def _sampled_field(self, key: str, label: str, quantity: Quantity, piece: Piece) -> Field:
        made = self.library.peek_member(piece)
        field = replace(_make_field(key, label, quantity, made), piece=piece)
        return field if made is not None else replace(field, problem=self._desk.problem(piece))

    def _on_member(self, piece: Piece) -> None:
        """A member arrived, or will not come."""
        snapshot = self.snapshot
        if snapshot is not None and any(f.piece == piece and f.values is None for f in snapshot.fields):
            fields = tuple(
                self._sampled_field(f.key, f.label, snapshot.quantity, piece) if f.piece == piece else f
                for f in snapshot.fields
            )
            self._publish(replace(snapshot, fields=fields))
        self._gather()
        self.points.on_member(piece)

    def _on_progress(self) -> None:
        self.param.update(progress=self._desk.progress, preview=self._desk.preview)

    def _gather(self, *_: object) -> None:
        """Put together the ensemble of what is shown while somebody looks at it."""
        if self.view != "ensemble":
            return
        snapshot, window, choice = self.snapshot, self.window, self.generating
        members = self._members_there()
        if (
            snapshot is None or window is None or choice is None or snapshot.hour != self.current
            or len(members) < 2 or not snapshot.quantity.available(next(iter(members.values())))
        ):  # fmt: skip
            self._latest["ensemble"].drop()
            self._gathered, self.ensemble = (), None
            return
        truth = snapshot.get(TRUTH)
        reference = truth.values if truth is not None else None
        draw, quantity, domain = self.draw, snapshot.quantity, snapshot.opened.domain
        mark = (
            snapshot.opened, snapshot.hour, choice.key, draw, *members, quantity.key, window, reference is None
        )  # fmt: skip
        if mark == self._gathered:
            return
        self._gathered = mark

        def work() -> Iterator[Ensemble]:
            yield compute_ensemble(
                domain, snapshot.hour, choice.key, choice.label, quantity, members, reference, window
            )

        self._ask("ensemble", work)


_INTERPOLATIONS = (QUADRATIC, "lapse_rate")


def _same_request(shown: Snapshot | None, target: Snapshot) -> bool:
    return (
        shown is not None
        and shown.opened is target.opened
        and shown.hour == target.hour
        and shown.quantity == target.quantity
        and [f.key for f in shown.fields] == [f.key for f in target.fields]
    )


def _make_field(key: str, label: str, quantity: Quantity, fields: Fields | None) -> Field:
    return Field(key, label, quantity.compute(fields) if fields is not None else None)


def _default_models(choices: Sequence[ModelChoice]) -> list[str]:
    """The plain interpolation and the first checkpoint that runs, else both interpolations."""
    running = [choice.key for choice in choices if choice.runs]
    plain = [key for key in running if key in _INTERPOLATIONS]
    trained = [key for key in running if key not in _INTERPOLATIONS]
    return plain[:1] + trained[:1] if trained else plain


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < np.inf


def _iso(hour: np.datetime64) -> str:
    return str(np.datetime_as_string(hour, unit="m"))
