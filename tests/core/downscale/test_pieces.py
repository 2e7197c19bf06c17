"""Pieces of a run: every field in exactly one, members of an hour together."""

import numpy as np
import pytest

from core.downscale.pieces import Pieces


@pytest.mark.parametrize(
    ("stores", "hours", "members", "fields"),
    [
        (1, 1, {"a": 1}, 24),
        (1, 100, {"a": 1}, 24),
        (2, 7, {"a": 16, "b": 1}, 24),
        (3, 5, {"a": 5, "b": 1, "c": 50}, 4),
    ],
)
def test_every_field_is_in_one_piece(stores: int, hours: int, members: dict[str, int], fields: int) -> None:
    pieces = Pieces(stores, hours, members, fields)
    counts = {key: np.zeros((stores, number, hours), int) for key, number in members.items()}
    for index, piece in enumerate(pieces):
        assert piece.index == index
        assert 1 <= piece.size <= fields
        # Whole shards: each begins where one begins.
        block = pieces.blocks[piece.key]
        assert piece.hours.start % block.hours == piece.members.start % block.members == 0
        counts[piece.key][piece.store, piece.members, piece.hours] += 1
    assert all((count == 1).all() for count in counts.values())
    assert pieces.fields == sum(count.size for count in counts.values())


def test_members_of_an_hour_follow_each_other() -> None:
    pieces = Pieces(2, 3, {"a": 6}, 4)
    places = [(p.store, p.hours.start, p.members.start, p.members.stop) for p in pieces]
    assert places[:4] == [(0, 0, 0, 4), (0, 0, 4, 6), (0, 1, 0, 4), (0, 1, 4, 6)]
    assert places[6] == (1, 0, 0, 4)
    with pytest.raises(IndexError, match="12 pieces; there is no piece 12"):
        pieces[12]


def test_hours_fill_a_piece_where_members_are_few() -> None:
    block = Pieces(1, 1000, {"a": 5}, 24).blocks["a"]
    assert (block.hours, block.members) == (4, 5)
