"""What the page shows at one moment, held still, so that files can be made of it while the page goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.domain import Grid
from core.regions import WHOLE, Window
from explorer.cut import grid_of
from explorer.jobs import Draw, Piece
from explorer.library import COARSE, TRUTH, OpenStore
from explorer.quantities import FloatField, Quantity
from explorer.scores import Score
from explorer.session import Session
from explorer.snapshot import ScoreTable, Snapshot
from explorer.style import DIVERGING, PALETTES
from explorer.words import DIFFERENCE


class ExportError(ValueError):
    """A file that can't be made of what is shown; the message says why."""


@dataclass(frozen=True)
class Panel:
    """One map as it is drawn: ``values`` (h, w) or (H, W) in the units of the scene."""

    key: str
    label: str
    values: FloatField


@dataclass(frozen=True)
class Scene:
    """One hour as one visitor sees it.

    Attributes
    ----------
    panels : the maps that are ready, in their order: fields, or differences from ``against``
    fields : the fields themselves in display units, also where ``panels`` are differences
    missing : labels of maps that are not ready, which no file holds
    against : label of the field that differences are taken from, empty where fields are shown
    draw : how the generative models among the fields are drawn
    units : of the panels
    colours, limits : the colour map, from low to high, and its range
    members : pieces of each ticked generative model that are in memory, by key
    numbers : of the members that the page asks for, some of which may be on disk
    scores : of the hour over the window, none where there is no truth
    """

    opened: OpenStore
    hour: np.datetime64
    quantity: Quantity
    window: Window
    panels: tuple[Panel, ...]
    fields: tuple[Panel, ...]
    missing: tuple[str, ...]
    against: str
    units: str
    colours: tuple[str, ...]
    limits: tuple[float, float]
    draw: Draw
    models: tuple[str, ...]
    members: dict[str, tuple[Piece, ...]]
    numbers: Sequence[int]
    scores: tuple[Score, ...]

    def grid(self, values: FloatField) -> Grid:
        """The grid that a field lies on, by its shape."""
        return grid_of(self.opened.domain, values)

    @property
    def title(self) -> str:
        """The quantity, and what it is compared with where differences are shown."""
        return (
            f"{self.quantity.label}, difference from {self.subtracted}"
            if self.against
            else self.quantity.label
        )

    @property
    def subtracted(self) -> str:
        """``against`` within a sentence; names of models stay as they are written."""
        return self.against.lower() if self.against in ("Truth", "Coarse input") else self.against

    @property
    def name(self) -> str:
        """Beginning of file names: store, hour and variable."""
        parts = [self.store_and_hour, self.quantity.key]
        parts += [f"minus-{file_part(self.against).lower()}"] if self.against else []
        return "-".join(parts)

    @property
    def store_and_hour(self) -> str:
        """Beginning of the name of a file that holds every variable."""
        stamp = self.hour.astype("datetime64[s]").item()
        return f"{file_part(self.opened.path.stem)}-{stamp:%Y%m%dT%H%MZ}"

    @property
    def region(self) -> str:
        """Part of a file name that says the region; empty for the whole domain."""
        return "" if self.window.key == WHOLE else f"-{file_part(self.window.key)}"


def take_scene(session: Session) -> Scene:
    """What a session shows now. Raises ExportError in plain words where that is nothing."""
    snapshot, shown, window = session.snapshot, session.shown(), session.window
    if snapshot is None or shown is None or window is None:
        raise ExportError("There is nothing to export: no hour is shown.")
    ready = [field for field in snapshot.fields if field.values is not None]
    if not ready:
        raise ExportError("There is nothing to export yet: the fields of this hour are being computed.")
    difference = session.mode == DIFFERENCE
    against = snapshot.get(session.against) if difference else None
    panels = tuple(
        Panel(field.key, field.label, shown.values[field.key]) for field in ready if field.key in shown.values
    )
    quantity = snapshot.quantity
    low, high = session.limits or shown.limits
    palette = session.palette if session.palette in PALETTES else quantity.palette
    colours: Sequence[str] = DIVERGING if shown.signed else PALETTES[palette]
    table: ScoreTable | None = session.scores
    return Scene(
        opened=snapshot.opened,
        hour=snapshot.hour,
        quantity=quantity,
        window=window,
        panels=panels,
        fields=tuple(Panel(field.key, field.label, field.values) for field in ready),
        missing=tuple(field.label for field in snapshot.fields if field.values is None),
        against="" if against is None else against.label,
        units=shown.units,
        colours=tuple(colours),
        limits=(float(low), float(high)),
        draw=next((field.piece.draw for field in snapshot.fields if field.piece is not None), session.draw),
        models=tuple(field.key for field in ready if field.key not in (COARSE, TRUTH)),
        members=_members(session, snapshot),
        numbers=session.member_numbers(),
        scores=() if table is None else table.rows,
    )


def _members(session: Session, snapshot: Snapshot) -> dict[str, tuple[Piece, ...]]:
    """Members of the generative models shown that are there, drawn as those that are shown."""
    found = {}
    for field in snapshot.fields:
        if field.piece is None or field.values is None:
            continue  # what is only emerging is drawn, but is no result
        pieces = [replace(field.piece, member=n) for n in session.member_numbers()]
        found[field.key] = tuple(piece for piece in pieces if session.library.peek_member(piece) is not None)
    return {key: made for key, made in found.items() if made}


def file_part(text: object) -> str:
    """Letters, digits and ``_`` of a text, ``-`` for the rest, at most 60 of them."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", str(text)).strip("-")[:60] or "_"
