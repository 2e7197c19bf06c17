"""A run cut into pieces: what is computed, written, recorded and repeated as a whole.

A piece is a block of hours and members of one downscaler on one store. Its fields lie in one shard of the
output of each variable, which nothing else writes to, so pieces can be made in any order and by any process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

PIECE_FIELDS = 24
"""Fields (hours x members) of a piece; an hour with more members is cut."""


@dataclass(frozen=True)
class Block:
    """How many hours and members the pieces of a downscaler have; the last ones may have fewer."""

    hours: int
    members: int


@dataclass(frozen=True)
class Piece:
    """Place of a piece: downscaler, position of the store, rows of the time axis and of the members."""

    index: int
    key: str
    store: int
    hours: slice
    members: slice

    @property
    def size(self) -> int:
        """How many fields it has."""
        return int((self.hours.stop - self.hours.start) * (self.members.stop - self.members.start))


class Pieces:
    """The pieces of a run, numbered from 0; none is made before it is asked for.

    Members of the same hours follow each other, since they share what depends on the hour alone.

    Parameters
    ----------
    stores, hours : how many
    members : how many each downscaler gives, by key
    fields : of a piece, at most
    """

    def __init__(self, stores: int, hours: int, members: Mapping[str, int], fields: int = PIECE_FIELDS):
        self._stores, self._hours, self._members = stores, hours, dict(members)
        self.blocks: dict[str, Block] = {}
        self._first: list[tuple[int, str]] = []
        self._count = 0
        for key, number in members.items():
            of_members = min(number, fields)
            block = Block(min(hours, max(1, fields // of_members)), of_members)
            self.blocks[key] = block
            self._first.append((self._count, key))
            self._count += stores * ceil(hours / block.hours) * ceil(number / block.members)

    @property
    def fields(self) -> int:
        """Fields of the whole run."""
        return self._stores * self._hours * sum(self._members.values())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Piece]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Piece:
        if not 0 <= index < self._count:
            raise IndexError(f"There are {self._count} pieces; there is no piece {index}.")
        first, key = next(entry for entry in reversed(self._first) if entry[0] <= index)
        block, members = self.blocks[key], self._members[key]
        rest, column = divmod(index - first, ceil(members / block.members))
        store, row = divmod(rest, ceil(self._hours / block.hours))
        return Piece(
            index,
            key,
            store,
            slice(row * block.hours, min((row + 1) * block.hours, self._hours)),
            slice(column * block.members, min((column + 1) * block.members, members)),
        )
