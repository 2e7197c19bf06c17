"""Remarks on the models shown: which inputs of the hour lie outside what a model was trained on.

They are made in the background and kept by the library for everybody.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from explorer.background import Latest
from explorer.loading import is_slow
from explorer.snapshot import Remark, Snapshot, show_hour

if TYPE_CHECKING:
    from core.downscale.applicability import Applicability
    from explorer.session import Session

log = logging.getLogger(__name__)


class Remarks:
    """Fills ``session.remarks``, a :class:`Remark` by key of a model, for the hour that is shown."""

    def __init__(self, session: Session, background: Latest) -> None:
        self._session = session
        self._background = background
        self._known: tuple[object, ...] = ()

    def update(self, *_: object) -> None:
        """Make the remarks that suit the snapshot, unless they are there."""
        session = self._session
        snapshot: Snapshot | None = session.snapshot
        if snapshot is None:
            return
        opened, hour = snapshot.opened, snapshot.hour
        models = {field.key: field.label for field in snapshot.fields if is_slow(field.key)}
        wanted = (*opened.identity, hour, *models.items())
        if wanted == self._known:
            return
        self._known = wanted
        when = show_hour(hour, weekday=False)

        def told(found: dict[str, Applicability | None]) -> dict[str, Remark]:
            return {
                key: remark(one, models[key], when)
                for key, one in found.items()
                if one is not None and one.unusual
            }

        # At once what is known, so that no remark stays beside the fields of another hour.
        known = {key: session.library.peek_applicability(opened, hour, key) for key in models}
        self._show(told(known))
        if all(one is not None for one in known.values()):
            self._background.drop()
            return

        def work() -> Iterator[dict[str, Remark]]:
            yield told({key: session.library.applicability(opened, hour, key) for key in models})

        self._background.ask(work, self._show, self._fail)

    def _show(self, made: dict[str, Remark]) -> None:
        if made != self._session.remarks:
            self._session.remarks = made

    def _fail(self, error: Exception) -> None:
        # The fields are what people came for; who reads the store for them is told what is wrong with it.
        log.warning("The inputs could not be compared with the training data.", exc_info=error)
        self._known = ()
        self._show({})


def remark(found: Applicability, model: str, when: str) -> Remark:
    """What is unusual about the inputs of an hour, in short and in full."""
    rows = tuple(
        f"{check.label}: {100 * check.outside:.1f} % of the cells outside the range, up to {check.distance:.1f} "
        f"standard deviations; mean {check.shift:+.1f} from that of the training, {check.surprise:+.1f} from what "
        "the other inputs let expect"
        for check in found.unusual
    )
    basis = "" if found.recorded else "Judged by mean and standard deviation: the file records no ranges."
    return Remark("unusual input", found.sentence(model, when), tuple(row for row in (*rows, basis) if row))
