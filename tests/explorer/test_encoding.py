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


@given(FIELDS, st.floats(-90, 70), st.floats(0.1, 100))
def test_a_scale_around_a_colour_range_holds_every_value(field: np.ndarray, low: float, width: float):
    scale = Scale.around(low, low + width, [field])
    lowest, highest = scale.decode(np.array([1, 65535], np.uint16))
    assert lowest <= low - 0.499 * width
    assert highest >= low + 1.499 * width
    codes = scale.encode(field)
    np.testing.assert_array_equal(codes == MISSING, np.isnan(field))
    np.testing.assert_allclose(scale.decode(codes), field, rtol=1e-6, atol=0.501 * scale.step + 1e-5)
    beyond = max(np.nanmax(field) - low - width, low - np.nanmin(field), 0) if (codes != MISSING).any() else 0
    assert highest - lowest <= 2.001 * width + 4.001 * beyond


@given(st.integers(-400, 400), st.integers(1, 300), st.integers(-400, 400), st.integers(1, 300))
def test_hours_of_different_ranges_have_the_same_palette(low: int, width: int, other: int, wide: int):
    def palette(low: float, width: float) -> list[str]:
        field = np.array([[low - 0.3 * width, low + 1.8 * width]])
        colours = [str(number) for number in range(256)]
        return Scale.around(low, low + width, [field]).palette(colours, low, low + width)

    first = palette(low / 10, width / 10)
    assert first == palette(other / 10, wide / 10)
    # Half a width below the range and one above it.
    assert len(first) == 512 * 2.5
    assert first[:256] == ["0"] * 256
    assert first[256:768:2] == first[257:768:2] == [str(number) for number in range(256)]
    assert first[768:] == ["255"] * 512


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
