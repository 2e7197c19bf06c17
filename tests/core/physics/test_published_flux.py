"""The flux ratio and its losses against what the published code computed (tests/fixtures)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.physics import (
    VARIANTS,
    CellRule,
    FluxFormula,
    PhysicsError,
    energy_loss,
    flux_ratio_loss,
    flux_ratios,
)

CASES = (
    "sq64_n8",
    "sq64_smooth_n4",
    "rect128x96_n4",
    "rect96x128_n2",
    "tiny16_n8",
    "kelvin48_n3",
    "train512_n8",
    "full672x576_n12",
    "flatpatch32_n4",
    "const16_n2",
)
METRIC_CASES = (
    "full_truth_vs_nn_era",
    "crop160x96",
    "crop_odd_150x100_remainder_dropped",
    "crop64_ss8",
)
PER_PIXEL = VARIANTS["paper"].with_choices(spacing="pixel", epsilon=1e-4)


def load(path: Path, case: str) -> dict[str, Tensor]:
    with np.load(path) as file:
        names = [name for name in file.files if name.startswith(f"{case}/")]
        return {name.split("/")[1]: torch.from_numpy(np.asarray(file[name])) for name in names}


@pytest.fixture
def case(fixtures: Path, request: pytest.FixtureRequest) -> dict[str, Tensor]:
    return load(fixtures / "pde_loss_repo.npz", request.param)


@pytest.fixture
def metric(fixtures: Path, request: pytest.FixtureRequest) -> dict[str, Tensor]:
    return load(fixtures / "pde_flux_metric_notebook.npz", request.param)


def per_side(case: dict[str, Tensor]) -> CellRule:
    return CellRule(unit="per_side", count=int(case["n"]))


def pair(case: dict[str, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The fine field and, of the predictors, the temperature."""
    return case["T_f"][:, 0].to(dtype), case["T_c"][:, 0].to(dtype)


def assert_same_gradient(result: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal where the published gradient is a number, and finite everywhere."""
    known = ~expected.isnan()
    assert result.isfinite().all()
    scale = float(expected[known].abs().max())
    assert float((result - expected)[known].abs().max()) <= tolerance * scale


def test_no_case_is_left_out(fixtures: Path) -> None:
    for name, cases in (("pde_loss_repo", CASES), ("pde_flux_metric_notebook", METRIC_CASES)):
        with np.load(fixtures / f"{name}.npz") as file:
            assert {key.split("/")[0] for key in file.files} == set(cases)


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize(("dtype", "suffix"), [(torch.float32, "f32"), (torch.float64, "f64")])
def test_training_loss_equals_the_published_one(
    case: dict[str, Tensor], dtype: torch.dtype, suffix: str
) -> None:
    fine, coarse = pair(case, dtype)
    fine.requires_grad_()
    result = flux_ratios(fine, coarse, "published_training", cells=per_side(case))
    result.loss.backward()
    exact = dtype == torch.float64
    for ours, name in ((result.fine, "R_f"), (result.coarse, "R_c")):
        expected = case[f"{name}_f64" if exact else name]
        scale = max(float(expected.abs().max()), 1e-30)
        assert float((ours.detach() - expected).abs().max()) <= (1e-14 if exact else 2e-6) * scale
    assert float(result.loss.detach()) == pytest.approx(
        float(case[f"loss_{suffix}"]), rel=1e-14 if exact else 5e-7, abs=0
    )
    assert fine.grad is not None
    if f"grad_{suffix}" in case:
        assert_same_gradient(fine.grad, case[f"grad_{suffix}"][:, 0], 1e-12 if exact else 5e-7)


@pytest.mark.parametrize("name", ["flatpatch32_n4", "const16_n2"])
def test_the_published_gradient_is_not_a_number_where_the_field_is_flat(fixtures: Path, name: str) -> None:
    # Else the finiteness that assert_same_gradient asks for would mean nothing.
    assert load(fixtures / "pde_loss_repo.npz", name)["grad_f32"].isnan().any()


def test_flat_patches_have_the_derivative_of_the_formula(fixtures: Path) -> None:
    """Where |grad T| = 0, g = grad T / (|grad T| + eps) still has the derivative 1 / eps."""
    case = load(fixtures / "pde_loss_repo.npz", "flatpatch32_n4")
    # The loss has a kink of its own where both ratios are 0, so the sum of R is differentiated here.
    fine, coarse = pair(case, torch.float64)
    fine.requires_grad_()

    def total(field: Tensor) -> Tensor:
        return flux_ratios(field, coarse, "published_training", cells=per_side(case)).fine.sum()

    (derivative,) = torch.autograd.grad(total(fine), fine)
    pixels = case["grad_f64"][0, 0].isnan().nonzero()[::12].tolist()
    for i, j in pixels:
        # |grad T| has a kink here, which the difference of both sides takes out.
        step = torch.zeros_like(fine)
        step[0, i, j] = 1e-9
        expected = float((total(fine.detach() + step) - total(fine.detach() - step)) / 2e-9)
        assert float(derivative[0, i, j]) == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert max(abs(float(derivative[0, i, j])) for i, j in pixels) > 1


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize(
    ("formula", "spacing", "expected"),
    [
        (VARIANTS["published_training"], None, "indep_repo_abs"),
        (PER_PIXEL.with_choices(gradients="cell"), None, "indep_paper_sq_blockgrad"),
        (PER_PIXEL, None, "indep_paper_sq_globalgrad"),
        (VARIANTS["paper"].with_choices(epsilon=1e-4), 1.0, "indep_paper_sq_globalgrad_physdx"),
        (
            VARIANTS["published_training"].with_choices(difference="squared"),
            None,
            "sq_with_repo_fluxes_f64",
        ),
    ],
    ids=["training", "paper, gradients in cells", "paper, per pixel", "paper", "training, squared"],
)
def test_losses_equal_an_independent_implementation(
    case: dict[str, Tensor], formula: FluxFormula, spacing: float | None, expected: str
) -> None:
    fine, coarse = pair(case, torch.float64)
    loss = flux_ratio_loss(fine, coarse, formula, spacing=spacing, cells=per_side(case))
    assert float(loss) == pytest.approx(float(case[expected]), rel=1e-12, abs=0)


@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith("full")], indirect=True)
def test_gradient_of_the_squared_loss(case: dict[str, Tensor]) -> None:
    fine, coarse = pair(case, torch.float64)
    fine.requires_grad_()
    formula = VARIANTS["published_training"].with_choices(difference="squared")
    flux_ratio_loss(fine, coarse, formula, cells=per_side(case)).backward()
    assert fine.grad is not None
    assert_same_gradient(fine.grad, case["sq_with_repo_fluxes_grad"][:, 0], 1e-6)


@pytest.mark.parametrize(
    ("fine", "coarse", "message"),
    [
        ((72, 72), (9, 9), "whole coarse pixels"),
        ((64, 64), (8, 8), "at least 2 x 2"),
        ((672, 576), (84, 72), "whole coarse pixels"),
    ],
)
def test_cells_the_published_code_refuses_are_refused(
    fixtures: Path, fine: tuple[int, int], coarse: tuple[int, int], message: str
) -> None:
    name = f"error_{fine[0]}x{fine[1]}_c{coarse[0]}x{coarse[1]}_n8"
    assert isinstance(json.loads((fixtures / "pde_loss_meta.json").read_text())[name], str)
    rule = CellRule(unit="per_side", count=8)
    with pytest.raises(PhysicsError, match=message):
        flux_ratio_loss(torch.zeros(1, *fine), torch.zeros(1, *coarse), "published_training", cells=rule)


def test_eight_cells_per_side_are_the_training_default(fixtures: Path) -> None:
    case = load(fixtures / "pde_loss_repo.npz", "train512_n8")
    loss = flux_ratio_loss(*pair(case, torch.float64), "published_training")
    assert float(loss) == pytest.approx(float(case["loss_f64"]), rel=1e-14)


@pytest.mark.parametrize("metric", METRIC_CASES, indirect=True)
def test_metric_equals_the_published_one(metric: dict[str, Tensor]) -> None:
    rule = CellRule(unit="fine_pixels", count=int(metric["ss"]))
    for dtype, suffix, tolerance in ((torch.float32, "", 2e-6), (torch.float64, "_f64", 1e-13)):
        fields = metric["pred"].to(dtype), metric["ref"].to(dtype)
        result = flux_ratios(*fields, "published_metric", cells=rule)
        for ours, name in ((result.fine, "R_pred"), (result.coarse, "R_ref")):
            expected = metric[name + suffix]
            assert ours.shape == expected.shape
            assert float((ours - expected).abs().max()) <= tolerance * float(expected.abs().max())
        assert float(result.loss) == pytest.approx(float(metric[f"loss{suffix or '_f32'}"]), rel=tolerance)
    squared = VARIANTS["published_metric"].with_choices(difference="squared", cells=rule)
    assert float(flux_ratio_loss(*fields, squared)) == pytest.approx(float(metric["paper_sq_f64"]), rel=1e-13)
    height, width = metric["ref"].shape
    whole = height % int(metric["ss"]) == 0 and width % int(metric["ss"]) == 0
    assert (result.left_out is None) == whole


def test_metric_takes_the_coarse_field_on_its_own_grid(fixtures: Path) -> None:
    """The published metric is given the coarse field repeated to the fine grid; ours repeats it."""
    metric = load(fixtures / "pde_flux_metric_notebook.npz", "full_truth_vs_nn_era")
    expected = float(metric["loss_f64"])
    coarse, fine = metric["ref"][::8, ::8].double(), metric["pred"].double()
    assert coarse.shape == (84, 72)
    assert float(flux_ratio_loss(fine, coarse, "published_metric")) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_energy_equals_the_published_one(case: dict[str, Tensor]) -> None:
    """The published term subtracts every predictor it is given from the fine temperature."""
    fine, coarse = case["T_f"], case["T_c"]
    loss = energy_loss(fine.expand(-1, coarse.shape[1], -1, -1), coarse)
    # Where the coarse field is the block mean, the rest is rounding: a few float32 steps, squared.
    rounding = (4 * float(coarse.abs().max()) * 2**-24) ** 2
    assert float(loss) == pytest.approx(float(case["energy_loss_f32"]), rel=1e-6, abs=rounding)
