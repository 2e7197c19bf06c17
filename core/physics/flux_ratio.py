"""Advective over diffusive flux of supergrid cells, and the losses that compare them between two grids.

For a temperature T on a grid with a spacing in kilometres, and a supergrid cell with boundary pixels dG and
outward normal n (Rosu et al., arXiv 2510.23866, section 3.3):

    g = grad T / (|grad T| + eps)
    F_adv = mean over dG of T (g . n),   F_diff = mean over dG of |grad T|,   R = F_adv / (F_diff + eps)
    L_PDE = mean over cells of (R_fine - R_coarse)^2

R has the unit of the spacing. The paper, its training code and its metric disagree in several choices; each
set of choices is a :class:`FluxFormula`, by name in :data:`VARIANTS`. What these losses can and can't tell is
another question: R is not dimensionless, depends on the zero of the temperature scale (all but ``centred``)
and on the resolution, so a low value does not mean a good field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from core.physics.gradients import PhysicsError, Spacing, spacing_pair
from core.physics.supergrid import Cells, Gradients, block_mean, boundary_gradient, cell_mean, grid_ratio

EpsilonIn = Literal["ratio", "magnitude"]


class CellRule(BaseModel):
    """How large the supergrid cells are, whatever the field.

    ``unit`` says what ``count`` counts: pixels of the coarse grid along one side of a cell, pixels of the
    fine grid, or cells along each side of the field. Without ``count`` a cell has as many coarse pixels
    along each side as the greatest common divisor of the sides of the coarse grid (section 3.3 of the
    paper).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Literal["coarse_pixels", "fine_pixels", "per_side"] = "coarse_pixels"
    count: Annotated[int, Field(ge=1)] | None = None

    def cells(self, coarse_shape: tuple[int, ...], ratio: int) -> Cells:
        """Cells in pixels of the fine grid.

        ``coarse_shape`` (..., h, w) is that of the coarse field, whose pixels have ``ratio`` x ``ratio``
        fine ones.

        Raises
        ------
        PhysicsError
            if no cell fits, a cell would have fewer than 2 x 2 pixels, or the sides are not multiples of
            the number of cells per side.
        """
        h, w = coarse_shape[-2:]
        shape = (h * ratio, w * ratio)
        if self.unit == "coarse_pixels":
            return Cells.fit(shape, ratio * (self.count or math.gcd(h, w)))
        if self.count is None:
            raise PhysicsError(f"Cells by {self.unit} need a count.")
        return (Cells.fit if self.unit == "fine_pixels" else Cells.per_side)(shape, self.count)


class FluxFormula(BaseModel):
    """The choices that make a flux ratio and its loss.

    Attributes
    ----------
    name : of the set of choices
    tensor : what the authors of the set apply it to: the "temperature" [K], or the "network_output", that
        is, the decoded output of the denoiser in standardised units without the UNet's mean
    difference : of the ratios, "squared" or "absolute"
    gradients : of the whole "field", or of each "cell" alone, one-sided at its border
    epsilon : regularises both divisions, units of the field per unit of the spacing
    epsilon_in : "ratio", as in the module's formulas, or "magnitude": N = |grad T| + eps takes the place of
        |grad T| throughout, so g = grad T / N and F_diff = mean of N, and the ratio is again divided by
        F_diff + eps
    spacing : "length", the true one of each grid, or "pixel", 1 on both
    fine : the fine field on its "native" grid, or averaged to the coarse grid ("block_mean")
    coarse : the coarse field on its "native" grid, or repeated to the fine grid ("nearest")
    centred : whether the area mean of its cell is taken off the temperature of F_adv
    cells : the supergrid
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    tensor: Literal["temperature", "network_output"] = "temperature"
    difference: Literal["squared", "absolute"] = "squared"
    gradients: Gradients = "field"
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-6
    epsilon_in: EpsilonIn = "ratio"
    spacing: Literal["length", "pixel"] = "length"
    fine: Literal["native", "block_mean"] = "native"
    coarse: Literal["native", "nearest"] = "native"
    centred: bool = False
    cells: CellRule = CellRule()

    def with_choices(self, **choices: Any) -> FluxFormula:
        """The same with some choices replaced. Raises PhysicsError for one that does not exist."""
        try:
            return FluxFormula.model_validate({**self.model_dump(), **choices})
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise PhysicsError(f"These choices do not make a flux formula: {wrong}.") from error


PAPER = FluxFormula(name="paper")
"""As section 3.3 of Rosu et al. has it, with the true spacing of each grid."""

PUBLISHED_TRAINING = FluxFormula(
    name="published_training",
    tensor="network_output",
    difference="absolute",
    gradients="cell",
    epsilon=1e-4,
    epsilon_in="magnitude",
    spacing="pixel",
    cells=CellRule(unit="per_side", count=8),
)
"""The loss that the published code trains with."""

PUBLISHED_METRIC = FluxFormula(
    name="published_metric",
    difference="absolute",
    spacing="pixel",
    coarse="nearest",
    cells=CellRule(unit="fine_pixels", count=16),
)
"""The flux loss that the published evaluation computes."""

CENTRED = FluxFormula(name="centred", fine="block_mean", centred=True)
"""The paper's, but of temperature minus the area mean of its cell and with both fields at one scale."""

VARIANTS: Mapping[str, FluxFormula] = MappingProxyType(
    {formula.name: formula for formula in (PAPER, PUBLISHED_TRAINING, PUBLISHED_METRIC, CENTRED)}
)
"""The named sets of choices."""


class Fluxes(NamedTuple):
    """Mean fluxes over the boundary of every cell, both (..., rows, columns).

    Attributes
    ----------
    advective : F_adv, units of the field
    diffusive : F_diff, units of the field per unit of the spacing
    """

    advective: Tensor
    diffusive: Tensor

    def ratio(self, epsilon: float) -> Tensor:
        """R = F_adv / (F_diff + epsilon), unit of the spacing."""
        return self.advective / (self.diffusive + epsilon)


def cell_fluxes(
    field: Tensor,
    cells: Cells,
    *,
    spacing: Spacing = 1.0,
    epsilon: float = 1e-6,
    gradients: Gradients = "field",
    epsilon_in: EpsilonIn = "ratio",
    centred: bool = False,
) -> Fluxes:
    """Advective and diffusive flux of every supergrid cell; see the module for the formulas.

    Parameters
    ----------
    field : (..., H, W)
    cells : of this field
    spacing : of its grid, any unit of length
    epsilon, epsilon_in, gradients, centred : as in :class:`FluxFormula`

    Where |grad T| is 0 its derivative is taken to be 0, so the fluxes can be differentiated everywhere; that
    of g is 1 / epsilon there.

    Raises
    ------
    PhysicsError
        as :func:`core.physics.supergrid.boundary_gradient`.
    """
    edge = boundary_gradient(field, cells, spacing=spacing, gradients=gradients)
    value = edge.value - cell_mean(field, cells).unsqueeze(-1) if centred else edge.value
    steepness = edge.steepness
    regularised = steepness + epsilon
    diffusive = regularised if epsilon_in == "magnitude" else steepness
    return Fluxes((value * edge.outward / regularised).mean(-1), diffusive.mean(-1))


def flux_ratio(
    field: Tensor,
    cells: Cells,
    *,
    spacing: Spacing = 1.0,
    epsilon: float = 1e-6,
    gradients: Gradients = "field",
    epsilon_in: EpsilonIn = "ratio",
    centred: bool = False,
) -> Tensor:
    """R of every supergrid cell, (..., rows, columns), unit of the spacing.

    Parameters and errors as in :func:`cell_fluxes`.
    """
    fluxes = cell_fluxes(
        field,
        cells,
        spacing=spacing,
        epsilon=epsilon,
        gradients=gradients,
        epsilon_in=epsilon_in,
        centred=centred,
    )
    return fluxes.ratio(epsilon)


@dataclass(frozen=True)
class FluxRatios:
    """R of two fields on one supergrid, and how they differ.

    Attributes
    ----------
    fine, coarse : R (..., rows, columns) of either field, unit of the spacing (pixels where the formula
        counts pixels)
    formula : by which they were computed
    cells : the supergrid in fine pixels
    """

    fine: Tensor
    coarse: Tensor
    formula: FluxFormula
    cells: Cells

    @property
    def per_cell(self) -> Tensor:
        """(R_fine - R_coarse)^2, or its absolute value, as the formula has it: (..., rows, columns)."""
        difference = self.fine - self.coarse
        return difference.square() if self.formula.difference == "squared" else difference.abs()

    @property
    def per_field(self) -> Tensor:
        """Mean over the cells of each field: (...)."""
        return self.per_cell.mean((-2, -1))

    @property
    def loss(self) -> Tensor:
        """Mean over cells and fields, a single number."""
        return self.per_cell.mean()

    @property
    def left_out(self) -> str | None:
        """A sentence about fine pixels that no whole cell covers, None where there are none."""
        return self.cells.left_out


def flux_formula(formula: str | FluxFormula) -> FluxFormula:
    """A formula by its name in :data:`VARIANTS`. Raises PhysicsError for a name that is not there."""
    if isinstance(formula, FluxFormula):
        return formula
    if formula not in VARIANTS:
        raise PhysicsError(f"Unknown flux formula {formula!r}; choose one of {', '.join(VARIANTS)}.")
    return VARIANTS[formula]


def flux_ratios(
    fine: Tensor,
    coarse: Tensor,
    formula: str | FluxFormula = "paper",
    *,
    spacing: Spacing | None = None,
    cells: int | CellRule | None = None,
    epsilon: float | None = None,
) -> FluxRatios:
    """R of a fine and a coarse field on one supergrid.

    Parameters
    ----------
    fine : (..., H, W), what the formula's ``tensor`` says
    coarse : (..., h, w); H and W are one and the same multiple of h and w, which may be 1, so that a fine
        reference can stand here. Leading dimensions pair as :func:`core.physics.supergrid.grid_ratio`
        says: many members may share one coarse field.
    formula : name in :data:`VARIANTS`, or choices of your own
    spacing : of the fine grid, in km for values that compare with others; the coarse grid's is the ratio
        times that. Needed where the formula asks for lengths; where it counts pixels it is not used.
    cells : supergrid cells along one side in coarse pixels, or another rule; the formula's where None
    epsilon : the formula's where None

    Cells are laid from the first row and column; what does not fit a whole cell counts only as a neighbour
    of the pixels beside it (``left_out`` says so). NaN in a field makes R of the cells it touches NaN.

    Raises
    ------
    PhysicsError
        if the formula is unknown, grids or cells do not fit each other, the spacing is missing, or a field
        is not of float32 or float64.
    """
    rule = flux_formula(formula)
    if cells is not None:
        rule = rule.with_choices(cells=cells if isinstance(cells, CellRule) else {"count": cells})
    if epsilon is not None:
        rule = rule.with_choices(epsilon=epsilon)
    ratio = grid_ratio(fine, coarse)
    step = (1.0, 1.0)
    if rule.spacing == "length":
        if spacing is None:
            raise PhysicsError(
                f"The flux formula {rule.name} needs the spacing of the fine grid in km, for example "
                "spacing=2.0; on the Italy domain it is 2 km."
            )
        step = spacing_pair(spacing)
    wide = step if rule.spacing == "pixel" else (step[0] * ratio, step[1] * ratio)
    fine_cells = rule.cells.cells(tuple(coarse.shape), ratio)
    if rule.fine == "block_mean":
        small = (block_mean(fine, ratio), fine_cells.in_blocks(ratio), wide)
    else:
        small = (fine, fine_cells, step)
    if rule.coarse == "nearest":
        large = (coarse.repeat_interleave(ratio, -2).repeat_interleave(ratio, -1), fine_cells, step)
    else:
        large = (coarse, fine_cells.in_blocks(ratio), wide)
    fine_ratio, coarse_ratio = (
        flux_ratio(
            field,
            own_cells,
            spacing=length,
            epsilon=rule.epsilon,
            gradients=rule.gradients,
            epsilon_in=rule.epsilon_in,
            centred=rule.centred,
        )
        for field, own_cells, length in (small, large)
    )
    return FluxRatios(fine_ratio, coarse_ratio, rule, fine_cells)


def flux_ratio_loss(
    fine: Tensor,
    coarse: Tensor,
    formula: str | FluxFormula = "paper",
    *,
    spacing: Spacing | None = None,
    cells: int | CellRule | None = None,
    epsilon: float | None = None,
) -> Tensor:
    """L_PDE of Rosu et al.: mean difference of R over cells and fields, a scalar that can be differentiated.

    Parameters and errors as in :func:`flux_ratios`, whose result also holds the maps of R.
    """
    return flux_ratios(fine, coarse, formula, spacing=spacing, cells=cells, epsilon=epsilon).loss
