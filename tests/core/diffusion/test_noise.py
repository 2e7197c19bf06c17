"""Noise of the members: the documented layout, step by step, and what must not matter."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from core.diffusion.noise import member_noise

HOUR = np.datetime64("2022-07-15T12", "h")
seeds = st.integers(0, 2**64 - 1)
members = st.integers(0, 2**32 - 1)
steps = st.integers(0, 2**64 - 1)
hours = st.integers(-(2**31), 2**31 - 1)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """One block of Philox 4x64-10, from the paper, in plain whole numbers."""
    mask = 2**64 - 1
    x, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * x[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * x[2], 2**64)
        x = [high1 ^ x[1] ^ k[0], low1, high0 ^ x[3] ^ k[1], low0]
        k = [k[0] + 0x9E3779B97F4A7C15 & mask, k[1] + 0xBB67AE8584CAA73B & mask]
    return x


def by_definition(size: int, seed: int, hour: int, member: int, step: int, number: int) -> list[float]:
    key = [seed, (hour % 2**32) * 2**32 + member]
    raw: list[int] = []
    while len(raw) < size + size % 2:
        raw += philox([1 + len(raw) // 4, 0, number, step], key)
    result: list[float] = []
    for a, b in zip(raw[::2], raw[1::2], strict=True):
        radius = math.sqrt(-2 * math.log((a // 2**11 + 1) / 2**53))
        angle = 2 * math.pi * (b // 2**11) / 2**53
        result += [radius * math.cos(angle), radius * math.sin(angle)]
    return result[:size]


@given(seeds, hours, members, steps, st.just(0) | members, st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_layout_is_the_documented_one(
    seed: int, hour: int, member: int, step: int, number: int, size: int
) -> None:
    result = member_noise(
        (size,), seed=seed, hour=np.datetime64(hour, "h"), member=member, step=step, number=number
    )
    expected = by_definition(size, seed, hour, member, step, number)
    np.testing.assert_allclose(result.numpy(), expected, rtol=2e-7, atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"seed": 0, "hour": np.datetime64("1970-01-01T00"), "member": 0},
            [0.15853384, 2.9828794, -1.925692, -0.82492554, -0.20250328, 1.1557642],
        ),
        (
            {"seed": 20240613, "hour": np.datetime64("2022-07-15T12"), "member": 3, "step": 2},
            [0.8099796, -1.2491407, 0.60399336, 2.0639403, 0.074357286, -2.3278708],
        ),
    ],
)
def test_numbers_never_change(arguments: dict[str, Any], expected: list[float]) -> None:
    """Stored results depend on them."""
    result = member_noise((2, 3), **arguments)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy().ravel(), np.float32(expected), rtol=2e-7)


def test_order_and_neighbours_do_not_matter() -> None:
    keys = [(seed, member, step) for seed in (0, 1) for member in (0, 1, 2) for step in (0, 1)]

    def draw(key: tuple[int, int, int]) -> torch.Tensor:
        return member_noise((4, 3, 2), seed=key[0], hour=HOUR, member=key[1], step=key[2])

    forward = {key: draw(key) for key in keys}
    np.random.default_rng(0).normal(size=5)
    torch.randn(5)
    backward = {key: draw(key) for key in reversed(keys)}
    assert all(torch.equal(forward[key], backward[key]) for key in keys)
    for first, second in combinations(keys, 2):
        assert not torch.isin(forward[first], forward[second]).any()


def test_the_global_generators_are_left_alone() -> None:
    state = torch.get_rng_state()
    member_noise((5,), seed=1, hour=HOUR, member=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_part_of_the_key_counts() -> None:
    base: dict[str, Any] = {"seed": 5, "hour": HOUR, "member": 6, "step": 7}
    others = [
        base,
        base | {"seed": 5 + 2**63},
        base | {"seed": 6},
        base | {"hour": HOUR + np.timedelta64(1, "h")},
        base | {"hour": np.datetime64("1900-01-01T00")},
        base | {"member": 5},
        base | {"member": 6 + 2**31},
        base | {"step": 8},
        base | {"member": 7, "step": 6},
        base | {"number": 1},
        base | {"number": 7, "step": 1},
    ]
    first = [float(member_noise((1,), **key)) for key in others]
    assert len(set(first)) == len(others)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 40))
@settings(deadline=None)
def test_a_larger_draw_begins_with_the_smaller(shape: list[int], more: int) -> None:
    result = member_noise(shape, seed=3, hour=HOUR, member=4)
    assert result.shape == tuple(shape)
    longer = member_noise((math.prod(shape) + more,), seed=3, hour=HOUR, member=4)
    assert torch.equal(result.flatten(), longer[: math.prod(shape)])


@pytest.mark.parametrize("unit", ["h", "m", "s", "ms", "us", "ns"])
def test_the_unit_of_the_hour_does_not_matter(unit: str) -> None:
    expected = member_noise((8,), seed=1, hour=HOUR, member=2)
    assert torch.equal(
        member_noise((8,), seed=1, hour=HOUR.astype(f"datetime64[{unit}]"), member=2), expected
    )


def test_whole_numbers_of_numpy_are_taken() -> None:
    expected = member_noise((8,), seed=1, hour=HOUR, member=2, step=3)
    result = member_noise((8,), seed=np.int64(1), hour=HOUR, member=np.uint8(2), step=np.int32(3))
    assert torch.equal(result, expected)


def test_numbers_are_unit_normal_and_independent() -> None:
    """Over 32 members as one ensemble; the bounds leave 5 standard deviations."""
    draws = np.stack([member_noise((64, 64), seed=9, hour=HOUR, member=m).double() for m in range(32)])
    count = draws.size
    assert abs(draws.mean()) < 5 / count**0.5
    assert abs(draws.var() - 1) < 5 * (2 / count) ** 0.5
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-4
    correlations = np.corrcoef(draws.reshape(32, -1)) - np.eye(32)
    assert np.abs(correlations).max() < 5 / 64
    pairs = draws.reshape(-1, 2)
    assert abs((pairs[:, 0] * pairs[:, 1]).mean()) < 5 / len(pairs) ** 0.5
    along = (draws[:, :, 1:] * draws[:, :, :-1]).mean()
    assert abs(along) < 5 / count**0.5


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"seed": -1}, "seed of the noise must be a whole number from 0 to 2"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"seed": True}, "seed"),
        ({"member": 2**32}, "member"),
        ({"step": -1}, "step"),
        ({"number": 2**32}, "number"),
        ({"hour": np.datetime64("2022-07-15T12:30")}, "whole hours; 2022-07-15T12:30 is none"),
        ({"hour": np.datetime64("NaT")}, "must be a numpy.datetime64"),
        ({"hour": "2022-07-15T12"}, "must be a numpy.datetime64"),
        ({"hour": np.datetime64(2**31, "h")}, "too far from 1970"),
    ],
)
def test_what_can_not_be_a_key_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    arguments: dict[str, Any] = {"seed": 1, "hour": HOUR, "member": 0}
    with pytest.raises(ValueError, match=sentence):
        member_noise((2,), **(arguments | wrong))
