"""Interpolations against xarray, against exact polynomials, and by their invariants."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.interpolation import (
    LAPSE_RATE_RANGE,
    STANDARD_LAPSE_RATE,
    lapse_rate,
    lapse_rate_corrected,
    quadratic,
)

SPACING = 16_000.0


def centres(size: int, ratio: int = 1) -> np.ndarray:
    """Cell centres on an axis whose coarse cells are 1 long."""
    return (np.arange(size * ratio) + 0.5) / ratio


def by_xarray(fields: np.ndarray, ratio: int) -> np.ndarray:
    height, width = fields.shape[-2:]
    coords = {"y": -centres(height), "x": centres(width)}
    array = xr.DataArray(fields, dims=("time", "y", "x"), coords=coords)
    for axis, points in (("y", -centres(height, ratio)), ("x", centres(width, ratio))):
        array = array.interp({axis: points}, method="quadratic", kwargs={"fill_value": "extrapolate"})
    return array.transpose("time", "y", "x").values


def blocks(mask: np.ndarray, ratio: int) -> np.ndarray:
    return np.kron(mask, np.ones((ratio, ratio), bool))


@pytest.mark.parametrize("shape", [(3, 3), (3, 7), (9, 4), (12, 6), (84, 72)])
@pytest.mark.parametrize("ratio", [1, 2, 5, 8])
def test_quadratic_equals_xarray(shape: tuple[int, int], ratio: int) -> None:
    fields = 285 + 10 * np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    result = quadratic(fields, ratio)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, by_xarray(fields, ratio), rtol=0, atol=1e-4)


def test_quadratic_of_a_real_field_equals_xarray(shared_data) -> None:
    with xr.open_dataset(shared_data / "era5_t2m_italy_3h_2022-05_06.nc") as dataset:
        fields = dataset["t2m"].isel(time=slice(0, 3)).values
    np.testing.assert_allclose(quadratic(fields, 8), by_xarray(fields, 8), rtol=0, atol=1e-4)


coefficients = st.lists(st.floats(-3, 3), min_size=9, max_size=9)


@given(coefficients, st.integers(3, 9), st.integers(3, 9), st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_quadratic_functions_are_reproduced(c: list[float], height: int, width: int, ratio: int) -> None:
    """Products of parabolas in x and y, at the edge too."""

    def surface(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        powers_y = np.stack([np.ones_like(y), y - 2, (y - 2) ** 2])
        powers_x = np.stack([np.ones_like(x), x - 2, (x - 2) ** 2])
        return np.einsum("ij,iy,jx->yx", np.reshape(c, (3, 3)), powers_y, powers_x)

    expected = surface(centres(height, ratio), centres(width, ratio))
    result = quadratic(surface(centres(height), centres(width)), ratio)
    np.testing.assert_allclose(result, expected, rtol=0, atol=3e-6 * max(1.0, np.abs(expected).max()))


def test_two_cells_give_a_straight_line() -> None:
    result = quadratic([[0.0, 2.0], [4.0, 6.0]], 2)
    assert result.tolist() == [
        [-1.5, -0.5, 0.5, 1.5],
        [0.5, 1.5, 2.5, 3.5],
        [2.5, 3.5, 4.5, 5.5],
        [4.5, 5.5, 6.5, 7.5],
    ]


@given(
    hnp.arrays(np.float32, (4, 5), elements=st.floats(-30, 30, width=32)),
    st.floats(-100, 300),
    hnp.arrays(np.bool_, (4, 5)),
)
@settings(deadline=None, max_examples=50)
def test_adding_a_constant_adds_it(field: np.ndarray, constant: float, missing: np.ndarray) -> None:
    field = np.where(missing, np.nan, field)
    np.testing.assert_allclose(
        quadratic(field + np.float32(constant), 4), quadratic(field, 4) + constant, rtol=0, atol=2e-4
    )


@given(hnp.arrays(np.bool_, (5, 4)))
@settings(deadline=None, max_examples=50)
def test_missing_cells_are_masked(missing: np.ndarray) -> None:
    """Exactly the fine cells of missing coarse cells are NaN, and the rest stays within reason."""
    field = np.where(missing, np.nan, 280.0)
    result = quadratic(field, 3)
    assert (np.isnan(result) == blocks(missing, 3)).all()
    np.testing.assert_allclose(result[~np.isnan(result)], 280.0, rtol=1e-6)


def test_missing_cells_take_the_nearest_value() -> None:
    field = np.random.default_rng(2).standard_normal((5, 6))
    field[2, 0] = np.nan
    filled = field.copy()
    filled[2, 0] = field[1, 0]
    result = quadratic(field, 4)
    missing = blocks(np.isnan(field), 4)
    # Three neighbours are equally near; any of them will do.
    candidates = []
    for neighbour in ((1, 0), (3, 0), (2, 1)):
        filled[2, 0] = field[neighbour]
        candidates.append(np.array_equal(result[~missing], quadratic(filled, 4)[~missing]))
    assert sum(candidates) == 1


def test_hours_do_not_touch_each_other() -> None:
    fields = np.random.default_rng(3).standard_normal((3, 2, 4, 5))
    fields[1, 0, 2, 2] = np.nan
    result = quadratic(fields, 2)
    assert result.shape == (3, 2, 8, 10)
    for index in np.ndindex(3, 2):
        np.testing.assert_array_equal(result[index], quadratic(fields[index], 2))


def test_input_is_left_alone() -> None:
    field = np.random.default_rng(3).standard_normal((4, 5))
    field.setflags(write=False)
    quadratic(field, 2)
    quadratic(field[::-1, ::-1], 2)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (5, 1)])
def test_too_small_fields_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 2 x 2 cells"):
        quadratic(np.zeros(shape), 2)


# --- lapse rate


def relief(shape: tuple[int, int] = (12, 10), rms: float = 600.0) -> np.ndarray:
    return rms * np.abs(np.random.default_rng(4).standard_normal(shape))


def plane(shape: tuple[int, int]) -> np.ndarray:
    """A south-north and a west-east gradient of temperature [K], as large as weather makes them."""
    y, x = np.indices(shape)
    return 285 + 0.4 * y - 0.2 * x


def test_lapse_rate_is_found_on_a_tilted_background() -> None:
    z = relief()
    true = np.array([3e-3, 6.5e-3, 9e-3])[:, None, None]
    t = plane(z.shape) - true * z
    # Without a prior the least-squares slope; what keeps the background's plane solvable biases it a little.
    least_squares = lapse_rate(t, z, dx=SPACING, dy=SPACING, prior=1.0)
    np.testing.assert_allclose(least_squares, np.broadcast_to(true, t.shape), rtol=0, atol=2e-5)
    # With it a part of the standard value stays, more in the corners, where fewer cells speak.
    rate = lapse_rate(t, z, dx=SPACING, dy=SPACING)
    np.testing.assert_allclose(rate[1], STANDARD_LAPSE_RATE, rtol=1e-4)
    data_share = (rate[[0, 2]] - STANDARD_LAPSE_RATE) / (true[[0, 2]] - STANDARD_LAPSE_RATE)
    assert data_share.min() > 0.6
    assert data_share.max() < 1.0
    assert data_share[:, 0, 0].max() < data_share[:, 6, 5].min()


def test_lapse_rate_is_ridge_regression() -> None:
    """One cell against the regression written out with a weighted least-squares solver."""
    z = relief((7, 8))
    t = plane(z.shape) - 5e-3 * z + np.random.default_rng(5).standard_normal(z.shape)
    weights = np.random.default_rng(6).uniform(0, 1, z.shape)
    rate = lapse_rate(t[None], z, dx=15e3, dy=20e3, weights=weights, bandwidth=40e3, prior=2e6)[0]
    row, column = 3, 5
    y, x = np.indices(z.shape)
    distance = np.hypot((y - row) * 20e3, (x - column) * 15e3)
    root = np.sqrt(weights * np.exp(-0.5 * (distance / 40e3) ** 2)).ravel()
    background = np.stack([np.ones_like(z), y, x]).reshape(3, -1).T * root[:, None]

    def residual(values: np.ndarray) -> np.ndarray:
        values = values.ravel() * root
        return values - background @ np.linalg.lstsq(background, values, rcond=None)[0]

    rz, rt = residual(z), residual(t)
    expected = (2e6 * STANDARD_LAPSE_RATE - rz @ rt) / (rz @ rz + 2e6)
    assert rate[row, column] == pytest.approx(expected, rel=1e-3)


def test_standard_lapse_rate_where_it_cannot_be_estimated() -> None:
    z = relief()
    t = (plane(z.shape) - 9e-3 * z)[None]
    flat = lapse_rate(t, np.full_like(z, 300.0), dx=SPACING, dy=SPACING)
    sea = lapse_rate(t, z, dx=SPACING, dy=SPACING, weights=np.zeros_like(z))
    empty = lapse_rate(np.full_like(t, np.nan), z, dx=SPACING, dy=SPACING)
    few = np.full_like(t, np.nan)
    few[0, 5, 5:8] = t[0, 5, 5:8]
    for rate in (flat, sea, empty, lapse_rate(few, z, dx=SPACING, dy=SPACING)):
        np.testing.assert_allclose(rate, STANDARD_LAPSE_RATE, rtol=1e-2)


@pytest.mark.parametrize(("true", "end"), [(-0.05, 0), (0.05, 1)])
def test_lapse_rate_stays_physical(true: float, end: int) -> None:
    z = relief()
    rate = lapse_rate((plane(z.shape) - true * z)[None], z, dx=SPACING, dy=SPACING)
    assert (rate == LAPSE_RATE_RANGE[end]).all()


def test_sea_cells_do_not_count() -> None:
    """A warm sea at height zero would otherwise pass for a lapse rate."""
    z = relief()
    land = np.ones_like(z)
    land[:, :4] = 0.0
    z[:, :4] = 0.0
    t = plane(z.shape) - 4e-3 * z
    warm = np.where(land == 0, t + 8.0, t)
    options = {"dx": SPACING, "dy": SPACING, "weights": land}
    np.testing.assert_allclose(lapse_rate(warm[None], z, **options), lapse_rate(t[None], z, **options))
    assert np.ptp(lapse_rate(warm[None], z, dx=SPACING, dy=SPACING)) > 1e-3


def test_missing_cells_do_not_count() -> None:
    """Hours with and without gaps in one call give what they give alone."""
    z = relief()
    t = np.stack([plane(z.shape) - rate * z for rate in (4e-3, 8e-3)])
    t[1, :3] = np.nan
    both = lapse_rate(t, z, dx=SPACING, dy=SPACING)
    for hour in (0, 1):
        alone = lapse_rate(t[hour : hour + 1], z, dx=SPACING, dy=SPACING)
        np.testing.assert_allclose(both[hour], alone[0], rtol=1e-9)
    weights = np.ones_like(z)
    weights[:3] = 0
    filled = np.where(np.isnan(t[1]), 0.0, t[1])[None]
    weighted = lapse_rate(filled, z, dx=SPACING, dy=SPACING, weights=weights)
    np.testing.assert_allclose(both[1], weighted[0], rtol=1e-6)


def test_corrected_temperature_follows_the_fine_orography() -> None:
    """Exact where temperature is a plane minus the standard lapse rate times height."""
    ratio = 4
    coarse = relief((10, 9))
    fine = quadratic(coarse, ratio) + 300 * np.random.default_rng(7).standard_normal((40, 36))
    y, x = np.meshgrid(centres(10, ratio) - 0.5, centres(9, ratio) - 0.5, indexing="ij")
    t = (plane(coarse.shape) - STANDARD_LAPSE_RATE * coarse)[None]
    rate = lapse_rate(t, coarse, dx=SPACING, dy=SPACING)
    result = lapse_rate_corrected(t, coarse, fine, rate, ratio)
    expected = 285 + 0.4 * y - 0.2 * x - STANDARD_LAPSE_RATE * fine
    np.testing.assert_allclose(result[0], expected, rtol=0, atol=2e-4)


@given(st.floats(-20, 20))
@settings(deadline=None, max_examples=20)
def test_a_warmer_field_is_as_much_warmer_after_correction(constant: float) -> None:
    z = relief((6, 5))
    fine = quadratic(z, 3) + 100
    t = (plane(z.shape) - 5e-3 * z)[None]
    t[0, 0, 0] = np.nan

    def corrected(temperature: np.ndarray) -> np.ndarray:
        rate = lapse_rate(temperature, z, dx=SPACING, dy=SPACING)
        return lapse_rate_corrected(temperature, z, fine, rate, 3)

    result = corrected(t)
    assert (np.isnan(result[0]) == blocks(np.isnan(t[0]), 3)).all()
    np.testing.assert_allclose(corrected(t + constant), result + constant, rtol=0, atol=3e-4)
