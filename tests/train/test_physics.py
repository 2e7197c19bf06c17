"""train.physics: every term is the one of core on the right tensor, weights and shares, and refusals."""

import numpy as np
import pytest
import torch

from core.data.samples import MeanStd, Normalization
from core.domain import Domain
from core.physics import CellRule, divergence_loss, energy_loss, flux_ratio_loss, residual_loss
from core.physics.flux_error import flux_error
from core.variables import PREDICTORS
from train.config import PhysicsConfig, Term
from train.physics import Balance, Fields, PhysicsTerms, gradient_norm
from train.run_folder import TrainError

DOMAIN = Domain.regular("Test", left=4_000_000.0, top=2_500_000.0, shape=(32, 32), spacing=2000.0, ratio=4)
TARGETS = ("u10", "t2m", "v10")
NORMALIZATION = Normalization(
    predictors={name: MeanStd(mean=280.0, std=8.0) for name in PREDICTORS},
    targets={
        "u10": MeanStd(mean=1.0, std=4.0),
        "t2m": MeanStd(mean=285.0, std=9.0),
        "v10": MeanStd(mean=-1.0, std=3.0),
    },
    orography=MeanStd(mean=0.0, std=1.0),
    latitude=MeanStd(mean=0.0, std=1.0),
)
SPACING = (2.0, 2.0)
WINDOW = (32, 32)


def config(**terms):
    return PhysicsConfig.model_validate(terms)


def terms(targets=TARGETS, window=WINDOW, smoothing=0.0, **chosen):
    return PhysicsTerms(config(**chosen), NORMALIZATION, targets, DOMAIN, window, smoothing)


@pytest.fixture
def fields():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(2, *shape, generator=generator)

    return Fields(
        decoded=random(3, 32, 32),
        output=random(3, 32, 32),
        mean=random(3, 32, 32),
        truth=random(3, 32, 32),
        coarse=random(14, 8, 8),
        rotation=torch.from_numpy(DOMAIN.fine.rotation).float().expand(2, -1, -1),
        reconstructed=random(3, 32, 32),
    )


def physical(field, name):
    statistics = NORMALIZATION.targets[name]
    return field[:, TARGETS.index(name)] * statistics.std + statistics.mean


def coarse_kelvin(fields):
    return fields.coarse[:, PREDICTORS.index("t2m")] * 8.0 + 280.0


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "centred", "published_metric"])
@pytest.mark.parametrize("reference", ["coarse", "truth"])
def test_variants_look_at_kelvins(fields, name, reference):
    made = terms(flux={"formula": name, "reference": reference, "cell": 2, "weight": 1}).losses(fields)
    own = physical(fields.mean + fields.decoded, "t2m")
    other = coarse_kelvin(fields) if reference == "coarse" else physical(fields.truth, "t2m")
    cells = CellRule(count=2 if reference == "coarse" else 8)
    if name == "published_metric":
        cells = cells if reference == "coarse" else CellRule(unit="fine_pixels", count=8)
    for loss, one, target in zip(made["flux"], own, other, strict=True):
        expected = flux_ratio_loss(one, target, name, spacing=SPACING, cells=cells)
        torch.testing.assert_close(loss, expected)


def test_the_published_training_loss_looks_at_the_wrong_tensor(fields):
    made = terms(flux={"formula": "published_training", "cell": 2, "weight": 1}).losses(fields)
    coarse = fields.coarse[:, PREDICTORS.index("t2m")]
    for loss, output, target in zip(made["flux"], fields.output[:, 1], coarse, strict=True):
        expected = flux_ratio_loss(output, target, "published_training", cells=2)
        torch.testing.assert_close(loss, expected)
    changed = fields._replace(decoded=fields.decoded + 1, mean=2 * fields.mean)
    again = terms(flux={"formula": "published_training", "cell": 2, "weight": 1}).losses(changed)
    torch.testing.assert_close(made["flux"], again["flux"])


@pytest.mark.parametrize(
    ("reference", "cell", "smoothing"), [("coarse", 2, 0.0), ("coarse", 4, 1.25), ("truth", 1, 0.0)]
)
def test_the_flux_error_compares_with_either_reference(fields, reference, cell, smoothing):
    flux = {"reference": reference, "cell": cell, "weight": 1}
    made = terms(flux=flux, smoothing=smoothing).losses(fields)["flux"]
    own = physical(fields.mean + fields.decoded, "t2m")
    if reference == "coarse":
        expected = flux_error(own, coarse_kelvin(fields), spacing=SPACING, cell=cell, smoothing=smoothing)
    else:
        expected = flux_error(own, physical(fields.truth, "t2m"), spacing=SPACING, cell=4 * cell)
    torch.testing.assert_close(made, expected)


def test_no_flux_error_against_the_truth_itself(fields):
    same = fields._replace(decoded=fields.truth - fields.mean)
    made = terms(flux={"reference": "truth", "weight": 1}).losses(same)["flux"]
    torch.testing.assert_close(made, torch.zeros(2), rtol=0, atol=1e-5)


def test_companion_terms_are_those_of_core(fields):
    made = terms(
        energy={"weight": 1}, residual={"weight": 1}, divergence={"weight": 1}, reconstruction={"weight": 1}
    ).losses(fields)
    assert set(made) == {"energy", "residual", "divergence", "reconstruction"}
    whole = fields.mean + fields.decoded
    own, east, north = (physical(whole, name) for name in ("t2m", "u10", "v10"))
    coarse, angle = coarse_kelvin(fields), torch.from_numpy(DOMAIN.fine.rotation)
    for n in range(2):
        torch.testing.assert_close(made["energy"][n], energy_loss(own[n], coarse[n]))
        expected = residual_loss(own[n], coarse[n], spacing=SPACING)
        torch.testing.assert_close(made["residual"][n], expected)
        expected = divergence_loss(east[n], north[n], angle, (2000.0, 2000.0))
        torch.testing.assert_close(made["divergence"][n], expected)
        error = fields.reconstructed[n] - (fields.truth[n] - fields.mean[n])
        torch.testing.assert_close(made["reconstruction"][n], error.abs().mean())


def test_the_divergence_of_a_rotating_wind_is_none(fields):
    # Solid rotation and a uniform wind, in the grid's directions, turned to east and north.
    angle = DOMAIN.fine.rotation
    y, x = np.meshgrid(DOMAIN.fine.y, DOMAIN.fine.x, indexing="ij")
    along_x, along_y = -1e-4 * (y - y.mean()) + 3, 1e-4 * (x - x.mean())
    east = along_x * np.cos(angle) + along_y * np.sin(angle)
    north = -along_x * np.sin(angle) + along_y * np.cos(angle)
    winds = torch.from_numpy(np.stack([(east - 1) / 4, np.zeros_like(east), (north + 1) / 3]))[None].float()
    wind = fields._replace(mean=torch.zeros_like(winds), decoded=winds, rotation=fields.rotation[:1])
    spinning = terms(divergence={"weight": 1}).losses(wind)["divergence"]
    assert float(spinning) < 1e-13
    assert float(terms(divergence={"weight": 1}).losses(fields)["divergence"].min()) > 1e-7


@pytest.mark.parametrize("formula", ["flux_error", "paper", "centred", "published_metric"])
def test_gradients_reach_the_field_and_are_finite_where_it_is_flat(fields, formula):
    decoded = fields.decoded.clone()
    decoded[:, :, :16] = 0
    mean = fields.mean.clone()
    mean[:, :, :16] = 0
    decoded.requires_grad_(True)
    flat = fields._replace(decoded=decoded, mean=mean)
    loss = terms(flux={"formula": formula, "cell": 2, "weight": 1}).losses(flat)["flux"].sum()
    (gradient,) = torch.autograd.grad(loss, decoded)
    assert gradient.isfinite().all()
    assert gradient[:, 1].abs().max() > 0
    assert gradient[:, [0, 2]].abs().max() == 0


# --- weights ----------------------------------------------------------------------------------------


def test_a_weight_is_lambda_and_a_share_follows_the_norms():
    balance = Balance(config(flux={"share": 0.3}, energy={"weight": 1e-3}, residual={"share": 1}))
    balance.measure({"diffusion": 2.0, "flux": 0.5, "energy": 7.0, "residual": 0.0})
    assert balance.weight("flux") == pytest.approx(0.3 * 2.0 / 0.5)
    assert balance.weight("energy") == 1e-3
    assert balance.weight("residual") == 0
    balance.measure({"diffusion": 4.0, "flux": 0.5, "energy": 7.0, "residual": 0.0})
    assert balance.weight("flux") == pytest.approx(0.3 * (0.9 * 2 + 0.1 * 4) / 0.5)
    scores = balance.scores()
    assert scores["gradient_energy"] == pytest.approx(7)
    assert scores["lambda_energy"] == 1e-3


def test_the_norm_is_that_of_the_gradient():
    output = torch.tensor([1.0, -2.0], requires_grad=True)
    assert gradient_norm((3 * output[0] + 4 * output[1]).sum(), output) == pytest.approx(5)
    other = torch.ones(1, requires_grad=True)
    assert gradient_norm(2 * other.sum(), output) == 0
    assert gradient_norm(output.detach().sum(), output) == 0
    assert gradient_norm(None, output) == 0


@pytest.mark.parametrize("values", [{}, {"weight": 1, "share": 0.1}])
def test_a_term_needs_a_weight_or_a_share(values):
    with pytest.raises(ValueError, match=r"needs a weight .* or a share .* and not both"):
        Term.model_validate(values)


def test_physics_without_a_term_is_refused():
    with pytest.raises(ValueError, match="physics needs a term: flux, energy"):
        config()


# --- what does not fit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flux", "window", "message"),
    [
        ({"cell": 3}, WINDOW, r"cells of 12 x 12 pixels, which do not fill windows of 32 x 32\. Set crop to"),
        ({"cell": 1}, WINDOW, r"flux.cell = 1\) .* at least 2 x 2 pixels .* 1 x 1"),
        (
            {"cell": 9},
            WINDOW,
            r"flux.cell = 9\) does not fit .* 32 x 32 .* No supergrid cell of 36 x 36 pixels",
        ),
        ({"formula": "paper", "cell": 3}, (24, 32), "do not fill windows of 24 x 32"),
        ({"formula": "published_training"}, WINDOW, "fit windows of 32 x 32 fine pixels"),
        ({"formula": "published_training", "reference": "truth"}, (28, 28), "can't be divided into 8 x 8"),
        ({"reference": "truth", "cell": 3}, WINDOW, "cells of 12 x 12 pixels"),
    ],
)
def test_supergrids_that_do_not_fit_are_refused(flux, window, message):
    with pytest.raises(TrainError, match=message):
        terms(window=window, flux={"weight": 1, **flux})


@pytest.mark.parametrize(
    ("targets", "chosen", "message"),
    [
        (
            ("u10", "v10"),
            {"flux": {"weight": 1}},
            "term flux needs the target t2m; this model makes u10, v10",
        ),
        (("t2m", "u10"), {"divergence": {"weight": 1}}, "divergence needs the target v10"),
        (("u10",), {"energy": {"weight": 1}, "residual": {"share": 1}}, "energy, residual needs .* t2m"),
    ],
)
def test_terms_for_absent_variables_are_refused(targets, chosen, message):
    with pytest.raises(TrainError, match=message):
        terms(targets=targets, **chosen)
