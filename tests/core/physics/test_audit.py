"""The audit on made fields, and on real fields where those are at hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from core.data.pairs import averaged_pairs, read_temperature
from core.physics import PhysicsError, block_mean
from core.physics.audit import (
    CONSTANT,
    FLUX_ERROR,
    FORMULATIONS,
    TRUTH,
    Check,
    audit,
    blur_name,
    certain_candidates,
    checks,
    markdown,
    noise_name,
    noisy_candidates,
)
from core.physics.flux_error import fit_smoothing, smooth


def weather(hours: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    white = [torch.randn(hours, 192, 192, dtype=torch.float64, generator=generator) for _ in range(3)]
    return 285 + 90 * smooth(white[0], 12.0) + 15 * smooth(white[1], 4.0) + 2 * smooth(white[2], 1.0)


@pytest.fixture(scope="module")
def scores() -> xr.DataArray:
    fine = weather(4)
    return audit([(part, block_mean(part, 8)) for part in fine.split(2)], spacing=2.0, seeds=2)


def kept(found: list[Check], formulation: str) -> dict[tuple[str, str], bool]:
    return {(c.reference, c.promise): c.holds for c in found if c.formulation == formulation}


def test_candidates_are_what_their_names_say():
    fine = weather(2)
    coarse = block_mean(fine, 8)
    fields = dict(certain_candidates(fine, coarse, 2.0))
    fields |= dict(noisy_candidates(fine, torch.Generator().manual_seed(0)))
    assert all(field.shape == fine.shape for field in fields.values())
    assert fields[TRUTH] is fine
    assert fields[CONSTANT].std((-2, -1)).max() < 1e-9
    assert (fields[noise_name(0.3)] - fine).std().item() == pytest.approx(0.3, rel=0.02)
    torch.testing.assert_close(fields[blur_name(4)], smooth(fine, 2.0))
    for name in ("block means of the truth", "truth, its detail displaced"):
        torch.testing.assert_close(block_mean(fields[name], 8), coarse)


def test_result_has_every_case(scores: xr.DataArray):
    assert scores.sizes == {"candidate": 15, "seed": 2, "formulation": 5, "reference": 2, "hour": 4}
    assert np.isfinite(scores).all()
    own = scores.sel(formulation=FLUX_ERROR)
    assert (own >= 0).all()
    assert (own <= 2).all()


def test_the_flux_error_keeps_every_promise(scores: xr.DataArray):
    found = kept(checks(scores), FLUX_ERROR)
    assert len(found) == 10
    assert all(found.values()), [promise for promise, holds in found.items() if not holds]


def test_the_published_formulations_do_not(scores: xr.DataArray):
    found = checks(scores)
    for name in ("paper", "published_training", "published_metric"):
        assert not kept(found, name)["fine", "unchanged by a constant added"]
        assert not kept(found, name)["fine", "dimensionless"]
    assert not kept(found, "published_metric")["fine", "a constant is worst"]


def test_a_formulation_that_can_not_tell_fails(scores: xr.DataArray):
    blind = xr.ones_like(scores)
    assert not any(
        check.holds
        for check in checks(blind)
        if "unchanged" not in check.promise and check.promise != "dimensionless"
    )


def test_table_shows_all_of_it(scores: xr.DataArray):
    text = markdown(scores)
    assert text.count("| truth |") == 2
    assert all(name in text for name in FORMULATIONS)
    order = [text.index(f"| {name} |") for name in (TRUTH, blur_name(2), noise_name(0.1), CONSTANT)]
    assert order == sorted(order)


def test_scores_do_not_depend_on_batches():
    fine = weather(2, seed=5)
    coarse = block_mean(fine, 8)
    together = audit([(fine, coarse)], spacing=2.0, seeds=1)
    apart = audit([(fine[:1], coarse[:1]), (fine[1:], coarse[1:])], spacing=2.0, seeds=1)
    certain = [name for name in together["candidate"].values if "noise" not in name]
    np.testing.assert_allclose(
        together.sel(candidate=certain).transpose(*apart.dims),
        apart.sel(candidate=certain),
        rtol=1e-6,
        atol=1e-12,
    )


def test_gaps_and_nothing_at_all_are_refused():
    fine = weather(1)
    coarse = block_mean(fine, 8)
    coarse[0, 0, 0] = torch.nan
    with pytest.raises(PhysicsError, match="without gaps"):
        audit([(fine, coarse)], spacing=2.0)
    with pytest.raises(PhysicsError, match="at least one hour"):
        audit([], spacing=2.0)


def test_odd_sides_are_cut_and_small_fields_refused():
    fine = weather(1)
    cut = audit([(fine[:, :144, :136], block_mean(fine[:, :144, :136], 8))], spacing=2.0, seeds=1)
    even = audit([(fine[:, :144, :128], block_mean(fine[:, :144, :128], 8))], spacing=2.0, seeds=1)
    certain = [name for name in cut["candidate"].values if "noise" not in name]
    np.testing.assert_array_equal(cut.sel(candidate=certain), even.sel(candidate=certain))
    with pytest.raises(PhysicsError, match="at least 16 x 16 pixels; these have 18 x 15"):
        audit([(fine[:, :144, :120], block_mean(fine[:, :144, :120], 8))], spacing=2.0)


@pytest.mark.parametrize("name", ["cosmo_i7_t2m.nc", "era5_t2m_italy_3h_2022-05_06.nc"])
def test_the_flux_error_passes_on_real_fields(shared_data: Path, name: str):
    field, spacing = read_temperature(shared_data / name)
    field = field[:: max(1, field.sizes["time"] // 8)]
    smoothing = fit_smoothing(averaged_pairs(field, 2), spacing=spacing)
    assert smoothing == 0  # the coarse field is an average
    scores = audit(averaged_pairs(field, 2), spacing=spacing, smoothing=smoothing, seeds=2)
    found = kept(checks(scores), FLUX_ERROR)
    assert all(found.values()), [promise for promise, holds in found.items() if not holds]
