"""What follows the snapshot of a session: scores, spectra, fluxes, the ensemble."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from core.regions import Window
from explorer.ensembles import Ensemble, compute_ensemble
from explorer.fluxes import compute_fluxes
from explorer.library import COARSE, QUADRATIC, TRUTH
from explorer.quantities import FloatField
from explorer.scores import Score, compute_score
from explorer.snapshot import ScoreTable, Snapshot
from explorer.spectra import Spectra, compute_spectra

if TYPE_CHECKING:
    from explorer.session import Session


class Analyses:
    """Computes in the background what views draw of a session's snapshot; it all ends with the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._latest = {name: session.background() for name in ("spectra", "fluxes", "ensemble")}
        self._gathered: tuple[object, ...] = ()

    # ---------------------------------------------------------------- scores

    def on_region(self, *_: object) -> None:
        """Score the same fields over another region."""
        snapshot: Snapshot | None = self._session.snapshot
        if snapshot is not None:
            if self.outdated(snapshot):
                self._session.scores = None
            self.score()

    def outdated(self, snapshot: Snapshot) -> bool:
        """Whether the scores that are there are not those of a snapshot over the region."""
        session = self._session
        table: ScoreTable | None = session.scores
        return table is not None and not table.belongs_to(snapshot, session.window)

    @property
    def scoring(self) -> bool:
        """Whether scores of what is shown are on their way."""
        session = self._session
        truth = session.snapshot.get(TRUTH) if session.snapshot is not None else None
        return session.scores is None and truth is not None and truth.values is not None and not session.error

    def scored_fields(self) -> list[tuple[str, FloatField, FloatField]]:
        """(key, forecast, truth) of everything that is scored and ready; the coarse input as interpolated."""
        snapshot: Snapshot | None = self._session.snapshot
        truth = snapshot.get(TRUTH) if snapshot is not None else None
        if snapshot is None or truth is None or truth.values is None:
            return []
        ready = [
            (field.key, field.values)
            for field in snapshot.fields
            if field.key not in (COARSE, TRUTH) and field.values is not None
        ]
        found = [(key, values, truth.values) for key, values in ready]
        if QUADRATIC not in dict(ready):
            made = self._session.library.peek(snapshot.opened, snapshot.hour, QUADRATIC)
            if made is not None:
                found.insert(0, (COARSE, snapshot.quantity.compute(made), truth.values))
        return found

    def score(self) -> None:
        """Score what is shown against the truth over the region, in the background."""
        session = self._session
        snapshot, window = session.snapshot, session.window
        truth = snapshot.get(TRUTH) if snapshot is not None else None
        if snapshot is None or window is None or truth is None or truth.values is None:
            session.scores = None
            return
        downscaled = [f for f in snapshot.fields if f.key not in (COARSE, TRUTH) and f.values is not None]
        quadratic_there = any(f.key == QUADRATIC for f in downscaled)
        can_quadratic = any(c.key == QUADRATIC and c.runs for c in session.choices or ())
        quantity, reference = snapshot.quantity, truth.values
        domain, results = snapshot.opened.domain, session.library.results
        pieces = {field.key: field.piece for field in snapshot.fields}

        def row(key: str, label: str, values: FloatField) -> Score:
            piece = pieces.get(key)
            address = (
                "scores", *snapshot.opened.identity, str(snapshot.hour), quantity.key, window.key, key,
                None if piece is None else piece.draw,
            )  # fmt: skip
            return compute_score(key, label, values, reference, window, domain, results, address)

        def passed() -> bool:
            """Whoever goes through the hours does not wait for the scores of each."""
            return snapshot is not session.snapshot or window != session.window

        def work() -> None:
            try:
                rows = []
                if can_quadratic and not quadratic_there and not passed():
                    made = session.library.fields(snapshot.opened, snapshot.hour, QUADRATIC)
                    rows.append(row(COARSE, "Coarse input (quadratic interpolation)", quantity.compute(made)))
                for field in downscaled:
                    if passed():
                        return
                    label = field.label
                    if field.key == QUADRATIC:
                        label += " (= coarse input)"
                    rows.append(row(field.key, label, field.values))
            except Exception as error:
                failure = error
                session.later(lambda: session.fail(failure))
                return
            scored = tuple(piece for row in rows if (piece := pieces.get(row.key)) is not None)
            table = ScoreTable(snapshot.opened, quantity, snapshot.hour, window, tuple(rows), scored)
            session.later(lambda: self._scored(snapshot, window, table))

        session.library.submit(work)

    def _scored(self, snapshot: Snapshot, window: Window, table: ScoreTable) -> None:
        # Two tables of one request are made at once when a slow model arrives late; the later one counts.
        if snapshot is self._session.snapshot and window == self._session.window:
            self._session.scores = table

    # ---------------------------------------------------------------- spectra and fluxes

    def analyse(self, *_: object) -> None:
        """Ask for what the view in front draws of the snapshot; what is hidden waits until it is looked at."""
        session = self._session
        snapshot, window, results = session.snapshot, session.window, session.library.results
        if snapshot is None or window is None:
            for name in ("spectra", "fluxes"):
                self._latest[name].drop()
            session.param.update(spectra=None, fluxes=None)
            return
        opened, hour, quantity = snapshot.opened, snapshot.hour, snapshot.quantity
        ready = [
            (field.key, field.label, field.values) for field in snapshot.fields if field.values is not None
        ]
        shortest, longest = (float(length) for length in session.fit)

        def spectra() -> Iterator[Spectra]:
            fit = (shortest, longest)
            against, rows = compute_spectra(ready, opened.domain, window, fit, results)
            yield Spectra(quantity, hour, window, fit, against, rows)

        if session.view == "spectra" and ready:
            self._ask("spectra", spectra)
        elif session.view == "flux" and quantity.key == "t2m" and COARSE in [key for key, _, _ in ready]:
            variant, cells = session.variant, session.cells
            self._ask("fluxes", lambda: compute_fluxes(ready, hour, opened, window, variant, cells, results))

    def _ask(
        self,
        name: str,
        work: Callable[[], Iterable[Any]],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        self._latest[name].ask(
            work, lambda result: self._session.param.update(**{name: result}), failed or self._session.fail
        )

    # ---------------------------------------------------------------- the ensemble

    def gather(self, *_: object) -> None:
        """Put together the ensemble of what is shown while somebody looks at it."""
        session = self._session
        if session.view != "ensemble":
            return
        snapshot, window, choice = session.snapshot, session.window, session.generating
        members = session.members_there()
        if (
            snapshot is None or window is None or choice is None or snapshot.hour != session.current
            or len(members) < 2 or not snapshot.quantity.available(next(iter(members.values())))
        ):  # fmt: skip
            self._latest["ensemble"].drop()
            self._gathered, session.ensemble = (), None
            return
        truth = snapshot.get(TRUTH)
        reference = truth.values if truth is not None else None
        draw, quantity, domain = session.draw, snapshot.quantity, snapshot.opened.domain
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

        def failed(error: Exception) -> None:
            self._gathered, session.ensemble = (), None  # to be tried again
            session.fail(error)

        self._ask("ensemble", work, failed)
