"""What is shown of one hour: fields, and scores of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.regions import Window
from explorer.jobs import Piece
from explorer.library import OpenStore
from explorer.quantities import FloatField, Quantity
from explorer.results import Fields
from explorer.scores import Score


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
class Remark:
    """Something to know about a model at the hour shown: two words, a sentence, and numbers line by line."""

    short: str
    sentence: str
    details: tuple[str, ...] = ()


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
    """Scores of one hour over one region, a row per downscaler; ``pieces`` are the members among them."""

    opened: OpenStore
    quantity: Quantity
    hour: np.datetime64
    window: Window
    rows: tuple[Score, ...]
    pieces: tuple[Piece, ...] = ()

    def get(self, key: str) -> Score | None:
        """The row of one downscaler."""
        return next((row for row in self.rows if row.key == key), None)

    def belongs_to(self, snapshot: Snapshot, window: Window | None) -> bool:
        """Whether these are scores of what a snapshot shows; it may hold more fields, or fewer."""
        shown = {field.key: field.piece for field in snapshot.fields}
        return (
            self.opened is snapshot.opened
            and (self.quantity, self.hour, self.window) == (snapshot.quantity, snapshot.hour, window)
            and all(shown.get(piece.key, piece) == piece for piece in self.pieces)
        )


def show_hour(hour: np.datetime64, *, weekday: bool = True) -> str:
    """An hour for people, in UTC."""
    stamp = hour.astype("datetime64[s]").item()
    return f"{stamp:%a %-d %b %Y, %H:%M} UTC" if weekday else f"{stamp:%Y-%m-%d %H:%M}"


def same_request(shown: Snapshot | None, target: Snapshot) -> bool:
    """Whether two snapshots are of the same fields, drawn alike, however far they are."""
    return (
        shown is not None
        and shown.opened is target.opened
        and shown.hour == target.hour
        and shown.quantity == target.quantity
        and [(f.key, f.piece) for f in shown.fields] == [(f.key, f.piece) for f in target.fields]
    )


def make_field(key: str, label: str, quantity: Quantity, fields: Fields | None) -> Field:
    """A field of these variables (SI units), which are to come where they are None."""
    return Field(key, label, quantity.compute(fields) if fields is not None else None)
