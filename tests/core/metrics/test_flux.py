"""Flux metrics against the published notebook's recorded values and against core.physics."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from core.metrics.flux import flux_error, flux_loss, flux_ratio_maps
from core.metrics.metric import Accumulator, MetricError
from core.physics import VARIANTS, flux_ratios
from core.physics.flux_error import flux_error as torch_flux_error

SPACING, RATIO, HOURS, MEMBERS = 2000.0, 4, 3, 2


def grid(field, spacing=SPACING, left=1e6, top=2e6):
    """A field with coordinates of cell centres, from the outer corner of its first cell."""
    dims = ("member", "time", "y", "x")[-field.ndim :]
    coords = {
        "y": top - spacing * (np.arange(field.shape[-2]) + 0.5),
        "x": left + spacing * (np.arange(field.shape[-1]) + 0.5),
    }
    return xr.DataArray(field, dims=dims, coords=coords, attrs={"units": "K"})


@pytest.fixture(scope="module")
def fields():
    """Members and truth on a 32 x 48 grid, coarse field on 8 x 12."""
    generator = np.random.default_rng(4)
    truth = 285 + generator.standard_normal((HOURS, 32, 48)).cumsum(-1).cumsum(-2) / 4
    ensemble = truth + 0.3 * generator.standard_normal((MEMBERS, HOURS, 32, 48))
    coarse = truth.reshape(HOURS, 8, RATIO, 12, RATIO).mean((2, 4))
    return grid(ensemble), grid(truth), grid(coarse, RATIO * SPACING)


@pytest.mark.parametrize("case", ["crop160x96", "crop_odd_150x100_remainder_dropped", "crop64_ss8"])
def test_maps_and_loss_equal_the_published_notebooks(fixtures, case):
    with np.load(fixtures / "pde_flux_metric_notebook.npz") as file:
        known = {key.split("/")[1]: file[key] for key in file.files if key.startswith(f"{case}/")}
    reference, prediction = (grid(known[name].astype(float)) for name in ("ref", "pred"))
    side = int(known["ss"])
    options = {"variant": "published_metric", "cells": side}
    maps = flux_ratio_maps(prediction, reference, **options)
    np.testing.assert_allclose(maps["fine"], known["R_pred_f64"], rtol=1e-9)
    np.testing.assert_allclose(maps["coarse"], known["R_ref_f64"], rtol=1e-9)
    loss = flux_loss(prediction, reference, **options)
    assert float(loss) == pytest.approx(float(known["loss_f64"]), rel=1e-9)
    assert ("left_out" in maps.attrs) == ("odd" in case)
    np.testing.assert_allclose(maps["x"][:2], 1e6 + SPACING * side * np.array([0.5, 1.5]))
    np.testing.assert_allclose(maps["y"][:2], 2e6 - SPACING * side * np.array([0.5, 1.5]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_that_of_core_physics(fields, variant):
    ensemble, _, coarse = fields
    cells = None if variant == "published_metric" else 4
    found = flux_loss(ensemble, coarse, variant=variant, cells=cells)
    assert set(found.dims) == {"member", "time"}
    for member in range(MEMBERS):
        known = flux_ratios(
            torch.from_numpy(ensemble[member].values.copy()),
            torch.from_numpy(coarse.values.copy()),
            variant,
            spacing=SPACING / 1e3,
            cells=cells,
        ).per_field
        np.testing.assert_allclose(found.isel(member=member), known, rtol=1e-9)
    formula = VARIANTS[variant]
    assert found.attrs["variant"] == variant
    assert found.attrs["units"] == (
        "1" if formula.spacing == "pixel" else "km2" if formula.difference == "squared" else "km"
    )


def test_a_coarse_field_may_be_named_beside_the_truth(fields):
    ensemble, truth, coarse = fields
    hours = np.datetime64("2020-01-01", "ns") + np.arange(HOURS) * np.timedelta64(1, "h")
    ensemble, truth, coarse = (f.assign_coords(time=hours) for f in (ensemble, truth, coarse))
    for metric in (flux_loss, flux_error):
        expected = metric(ensemble, coarse, reduce=("time", "y", "x"))
        total = Accumulator(metric, coarse=coarse)
        for batch in ([0], [1, 2]):
            total.add(ensemble.isel(time=batch), truth.isel(time=batch))
        np.testing.assert_allclose(total.result(), expected)
        assert not np.allclose(metric(ensemble, truth, reduce=("time", "y", "x")), expected)
        with pytest.raises(MetricError, match="lacks hours"):
            metric(ensemble, truth, coarse=coarse[:2])


def test_flux_error_is_that_of_core_physics(fields):
    ensemble, truth, coarse = fields
    one = torch.from_numpy(ensemble[1].values.copy())
    for reference, cell, smoothing in ((truth, 16, 0.0), (coarse, 4, 0.0), (coarse, 4, 0.7)):
        known = torch_flux_error(
            one, torch.from_numpy(reference.values.copy()), spacing=2.0, cell=cell, smoothing=smoothing
        )
        found = flux_error(ensemble, reference, smoothing=smoothing)
        np.testing.assert_allclose(found.isel(member=1), known, rtol=1e-9)
    assert found.attrs["units"] == "1"
    np.testing.assert_allclose(flux_error(truth, truth), 0, atol=1e-12)
    np.testing.assert_allclose(flux_error(truth * 0 + 280, truth), 1)


def test_cells_with_gaps_are_left_out(fields):
    _, truth, coarse = fields
    holed = truth.copy()
    holed[0, 0, 0] = holed[1] = np.nan
    maps = flux_ratio_maps(holed, coarse)
    assert maps["fine"].shape == (HOURS, 2, 3)
    assert int(maps["fine"][0].isnull().sum()) == 1
    whole = flux_ratio_maps(truth, coarse)["difference"]
    loss = flux_loss(holed, coarse)
    assert float(loss[0]) == pytest.approx(float(whole[0].values.ravel()[1:].mean()))
    assert np.isnan(loss[1])
    hours = [float(v) for v in loss.values if math.isfinite(v)]
    assert float(flux_loss(holed, coarse, reduce=("time", "y", "x"))) == pytest.approx(np.mean(hours))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, c: flux_loss(f, c, variant="best"), "Unknown flux formula 'best'"),
        (lambda f, c: flux_loss(f, c.isel(x=slice(1, None))), "not blocks of the fine grid along x"),
        (lambda f, c: flux_loss(f, c.assign_coords(y=c.y + 500)), "not blocks of the fine grid along y"),
        (lambda f, c: flux_loss(f, c.isel(time=slice(2))), "not of the same hours"),
        (lambda f, c: flux_loss(f.drop_vars("x"), c), "x is missing"),
        (lambda f, c: flux_loss(f, c, cells=99), "No supergrid cell"),
        (lambda f, c: flux_error(f, f, smoothing=1.0), "on one grid"),
        (lambda f, c: flux_error(f, c, reduce="y"), "has to hold y and x"),
    ],
)
def test_refusals(fields, call, message):
    with pytest.raises(MetricError, match=message):
        call(fields[1], fields[2])
