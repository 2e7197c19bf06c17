"""Quadratic and lapse-rate interpolation: results, obstacles, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from core.data.store import Store
from core.downscale import DownscaleError, interpolations
from core.interpolation import quadratic
from tests.core.downscale.form import OTHER, by_key, check_form
from tests.synthetic_store import DOMAIN


def test_quadratic_gives_every_target_there_is(store: Store) -> None:
    coarse = store.read_coarse()
    result = by_key("quadratic").downscale(coarse, None, DOMAIN)
    assert set(result) == {"t2m", "u10", "v10", "tp"}
    check_form(result, coarse)
    for name in ("t2m", "u10", "v10"):
        np.testing.assert_array_equal(result[name].values, quadratic(coarse[name].values, 8))
    raw = quadratic(coarse["tp"].values, 8)
    assert raw.min() < 0
    np.testing.assert_array_equal(result["tp"].values, np.maximum(raw, 0))


def test_order_of_dimensions_does_not_matter(store: Store) -> None:
    coarse = store.read_coarse()
    for downscaler in interpolations():
        straight = downscaler.downscale(coarse, store.read_static(), DOMAIN)
        turned = downscaler.downscale(coarse.transpose("x", "time", "y"), store.read_static(), DOMAIN)
        xr.testing.assert_identical(straight, turned)


def test_lapse_rate_follows_the_relief(times: np.ndarray, store: Store) -> None:
    """Exact where the sea-level temperature and the lapse rate are the same everywhere."""
    coarse = store.read_coarse()
    coarse["t2m"] = xr.full_like(coarse["t2m"], 285.0) - 0.0065 * coarse["orography"]
    truth = 285.0 - 0.0065 * store.read_static()["orography"].expand_dims(time=times)
    result = by_key("lapse_rate").downscale(coarse, store.read_static(), DOMAIN)
    assert set(result) == {"t2m"}
    check_form(result, coarse)
    np.testing.assert_allclose(result["t2m"].values, truth.values, rtol=0, atol=1e-3)
    plain = by_key("quadratic").downscale(coarse, None, DOMAIN)["t2m"]
    assert float(abs(plain - truth).mean()) > 1.0


def test_cells_without_data_are_masked(times: np.ndarray, store: Store) -> None:
    coarse = store.read_coarse(times[:1])
    coarse["t2m"][0, 2, 3] = np.nan
    for downscaler in interpolations():
        field = downscaler.downscale(coarse, store.read_static(), DOMAIN)["t2m"].values[0]
        expected = np.zeros(DOMAIN.fine.shape, bool)
        expected[16:24, 24:32] = True
        assert (np.isnan(field) == expected).all()


def test_interpolations_run_on_a_complete_store(store: Store) -> None:
    assert [d.key for d in interpolations()] == ["quadratic", "lapse_rate"]
    assert not any(d.obstacles(store.contents, store.domain) for d in interpolations())


def test_interpolations_say_what_they_lack(store: Store) -> None:
    bare = replace(store.contents, predictors=("msl",), coarse_orography=False, statics=("latitude",))
    (sentence,) = by_key("quadratic").obstacles(bare, DOMAIN)
    assert "t2m, u10, v10, tp" in sentence
    assert by_key("quadratic").obstacles(replace(bare, predictors=("u10",)), DOMAIN) == []
    sentences = by_key("lapse_rate").obstacles(bare, DOMAIN)
    assert ["(t2m)" in sentences[0], "coarse model" in sentences[1], "fine orography" in sentences[2]] == [
        True
    ] * 3
    assert len(by_key("lapse_rate").obstacles(replace(store.contents, coarse_orography=False), DOMAIN)) == 1


def test_missing_fields_are_refused_with_a_sentence(times: np.ndarray, store: Store) -> None:
    coarse, static = store.read_coarse(times[:1]), store.read_static()
    cases = [
        ("quadratic", coarse[["msl"]], static, "needs one of t2m"),
        ("lapse_rate", coarse.drop_vars("orography"), static, "orography of the coarse model"),
        ("lapse_rate", coarse, None, "fine orography"),
        ("lapse_rate", coarse.drop_vars("t2m"), static, "t2m"),
    ]
    for key, fields, statics, sentence in cases:
        with pytest.raises(DownscaleError, match=sentence):
            by_key(key).downscale(fields, statics, DOMAIN)
    with pytest.raises(DownscaleError, match="coarse grid of Elsewhere"):
        by_key("quadratic").downscale(coarse, static, OTHER)
