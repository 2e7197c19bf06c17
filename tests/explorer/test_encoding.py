"""16-bit codes and colour ranges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from explorer.encoding import MISSING, Scale, nice_ticks, robust_range

FIELDS = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.one_of(st.just(np.nan), st.floats(-80, 60, width=32)),
)


@given(FIELDS)
def test_decoding_gives_the_field_back(field: np.ndarray):
    scale = Scale.spanning([field])
    codes = scale.encode(field)
    assert codes.dtype == np.uint16
    np.testing.assert_array_equal(codes == MISSING, np.isnan(field))
    spread = np.nanmax(field) - np.nanmin(field) if np.isfinite(field).any() else 0
    np.testing.assert_allclose(scale.decode(codes), field, atol=spread / 65534 + 1e-5)


def test_fields_share_one_scale():
    low, high = np.full((2, 2), -5.0), np.full((2, 2), 7.0)
    scale = Scale.spanning([low, high])
    assert scale.encode(low)[0, 0] == 1
    assert scale.encode(high)[0, 0] == 65535


def test_nothing_finite_has_a_scale_too():
    scale = Scale.spanning([np.full((2, 2), np.nan)])
    assert (scale.encode(np.full((2, 2), np.nan)) == MISSING).all()


def test_palette_holds_the_end_colours_beyond_the_colour_range():
    scale = Scale.spanning([np.array([[0.0, 100.0]])])
    palette = scale.palette(["blue", "white", "red"], 40, 70, size=100)
    assert palette[:40] == ["blue"] * 40
    assert palette[40:50] == ["blue"] * 10
    assert palette[50:60] == ["white"] * 10
    assert palette[60:] == ["red"] * 40


def test_colour_range_leaves_outliers_out():
    field = np.linspace(0, 10, 10_000).reshape(100, 100).astype("f4")
    field[0, 0], field[-1, -1] = -500, 900
    low, high = robust_range([field], signed=False)
    assert -0.5 <= low <= 0.1
    assert 9.9 <= high <= 10.5


def test_signed_colour_range_is_symmetric_about_zero():
    low, high = robust_range([np.array([[-1.0, 3.0]], "f4")], signed=True)
    assert low == -high
    assert high == pytest.approx(3.0, abs=0.2)


def test_colour_range_starts_at_the_floor():
    assert robust_range([np.array([[2.0, 9.0]], "f4")], signed=False, floor=0.0)[0] == 0.0


@pytest.mark.parametrize("field", [np.full((3, 3), np.nan), np.full((3, 3), 12.0)])
@pytest.mark.parametrize("signed", [True, False])
def test_colour_range_of_odd_fields_is_a_range(field: np.ndarray, signed: bool):
    low, high = robust_range([field], signed=signed)
    assert low < high


def test_ticks_are_round_numbers_inside_the_range():
    assert nice_ticks(-4.9, 15.1, 8) == [0, 5, 10, 15]
    assert nice_ticks(-1, 1, 4) == [-1, -0.5, 0, 0.5, 1]
