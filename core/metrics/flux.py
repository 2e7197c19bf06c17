"""The fluxes of :mod:`core.physics` as metrics: maps of R on the supergrid, losses made of them, flux error.

R is the advective over the diffusive flux through the boundary of a supergrid cell. What its variants mean,
and why a low loss on R does not make a good field, is said in :mod:`core.physics.flux_ratio`; what
``flux_error`` compares instead, in :mod:`core.physics.flux_error`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from core.metrics.metric import FieldMetric, Metric, MetricError, spacing
from core.physics import FluxFormula, PhysicsError, flux_formula, flux_ratios
from core.physics.flux_error import EPSILON
from core.physics.flux_error import flux_error as torch_flux_error

Array = NDArray[np.float64]

CELL_LENGTH = 32.0
"""Default side of the cells of the flux error [km]: two cells of the coarse grid of the Italy domain."""


def flux_ratio_maps(
    fine: xr.DataArray,
    coarse: xr.DataArray,
    *,
    variant: str | FluxFormula = "paper",
    cells: int | None = None,
    epsilon: float | None = None,
) -> xr.Dataset:
    """R of a fine and of a coarse field on the supergrid, and how they differ.

    Parameters
    ----------
    fine : dims (..., y, x) with evenly spaced coordinates [m], temperature [K]
    coarse : the same on a grid whose cells are blocks of fine ones, or on the fine grid itself; hours are
        those of ``fine``, members need not be there
    variant : one of :data:`core.physics.VARIANTS`, or choices of your own
    cells : coarse pixels along one side of a supergrid cell; the variant's own cells where None
    epsilon : the variant's where None

    Returns
    -------
    Dataset of ``fine``, ``coarse`` (R) and ``difference`` (squared or absolute, as the variant has it), dims
    (..., y, x) with the centres of the supergrid cells [m]; NaN in cells that a NaN of the fields touches.
    Units km, or pixels ("1") where the variant counts pixels. The attribute ``left_out`` says what no whole
    cell covers. Lazy for arrays of dask.

    Raises
    ------
    MetricError
        where grids, hours or cells do not fit each other, or an option is unknown.
    """
    fine, coarse, steps = _paired(fine, coarse)

    def compute(pair: list[torch.Tensor]) -> Any:
        return flux_ratios(pair[0], pair[1], variant, spacing=steps, cells=cells, epsilon=epsilon)

    def maps(pair: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        ratios = compute(pair)
        return ratios.fine, ratios.coarse, ratios.per_cell

    try:
        # Fields of zeros say which cells there are before anything lazy is computed.
        layout = compute([torch.zeros(field.sizes["y"], field.sizes["x"]) for field in (fine, coarse)])
    except PhysicsError as error:
        raise MetricError(str(error)) from error
    sizes = {"cell_y": layout.cells.rows, "cell_x": layout.cells.columns}
    values = _applied(maps, fine, coarse, outputs=3, sizes=sizes)
    dataset = xr.Dataset(dict(zip(("fine", "coarse", "difference"), values, strict=True)))
    dataset = dataset.rename(cell_y="y", cell_x="x").assign_coords(
        y=("y", _centres(fine["y"], layout.cells.height, layout.cells.rows), {"units": "m"}),
        x=("x", _centres(fine["x"], layout.cells.width, layout.cells.columns), {"units": "m"}),
    )
    formula = layout.formula
    for name in ("fine", "coarse"):
        dataset[name].attrs = {
            "long_name": f"flux ratio of the {name} field",
            "units": "1" if formula.spacing == "pixel" else "km",
        }
    dataset["difference"].attrs = {
        "long_name": f"{formula.difference} difference of the flux ratios",
        "units": _units(formula),
    }
    dataset.attrs = {"variant": formula.name}
    if layout.left_out is not None:
        dataset.attrs["left_out"] = layout.left_out
    return dataset


@dataclass(frozen=True, eq=False)
class _CoarseReference(FieldMetric):
    """A metric whose reference is the fine truth or a coarse field.

    ``coarse`` (option): a coarse field to compare with instead of the reference; its hours include those of
    the forecast.
    """

    same_grid: ClassVar[bool] = False

    coarse: xr.DataArray | None = None

    def chosen(self, forecast: xr.DataArray, reference: xr.DataArray) -> xr.DataArray:
        """The coarse field of the forecast's hours, or the reference where there is none."""
        if self.coarse is None:
            return reference
        if "time" not in self.coarse.dims or "time" not in forecast.coords:
            return self.coarse
        try:
            return self.coarse.sel(time=forecast["time"])
        except KeyError as error:
            raise MetricError("The coarse field lacks hours of the forecast.") from error


@dataclass(frozen=True, eq=False)
class FluxLoss(_CoarseReference):
    """Flux-ratio loss, ``mean over cells of (R_f - R_r)^2``, in km^2 (variant ``paper``).

    Of each hour's field, averaged over what else is in ``reduce``. Cells that a NaN touches are left out,
    hours without a cell too. The reference is the coarse field on its own grid or the fine truth; the option
    ``coarse`` names a coarse field to compare with instead, whose hours include those of the forecast.
    Options ``variant``, ``cells`` and ``epsilon`` as in :func:`flux_ratio_maps`; some variants take the
    absolute difference or count pixels, which changes the units. A low loss does not mean a good field.
    Reference: Rosu et al. (arXiv 2510.23866), section 3.3.
    """

    name = "flux_loss"
    title = "Flux-ratio loss"
    long_name = "difference of flux ratios on the supergrid"
    units = "own"
    best = "lower"
    formula = "mean over cells of (R_f - R_r)^2"
    source = "Rosu et al. (arXiv 2510.23866), section 3.3"

    variant: str | FluxFormula = "paper"
    cells: int | None = None
    epsilon: float | None = None

    def values(self, forecast: xr.DataArray, reference: xr.DataArray) -> xr.DataArray:
        """The loss of every field."""
        maps = flux_ratio_maps(
            forecast,
            self.chosen(forecast, reference),
            variant=self.variant,
            cells=self.cells,
            epsilon=self.epsilon,
        )
        return maps["difference"].mean(["y", "x"])

    def units_for(self, units: str | None) -> str | None:
        """Units of the variant, whatever those of the fields."""
        return _units(_formula(self.variant))

    def finish(self, partial: xr.Dataset) -> xr.DataArray:
        """The average of the fields' losses."""
        score = super().finish(partial)
        score.attrs["variant"] = _formula(self.variant).name
        return score


@dataclass(frozen=True, eq=False)
class FluxError(_CoarseReference):
    """Relative error of signed fluxes, ``(E(F_adv) + E(F_dif)) / 2``, dimensionless, 0 to 2.

    ``E(F) = sum over cells (F - F_r)^2 / sum over cells (F^2 + F_r^2)`` with the centred advective and the
    signed diffusive flux through the boundaries of supergrid cells; 0 for equal fluxes, 1 for a constant
    field. Of each hour's field, averaged over what else is in ``reduce``. Cells that a NaN touches are left
    out. Options: ``coarse`` as in :class:`FluxLoss`; ``cell`` [km], rounded to whole cells of the reference,
    at least two; ``smoothing`` of a coarse reference [coarse cells] and ``epsilon`` [K/km] as in
    :mod:`core.physics.flux_error`. Reference: :mod:`core.physics.flux_error`, after Rosu et al. (arXiv
    2510.23866), section 3.3.
    """

    name = "flux_error"
    title = "Flux error"
    long_name = "relative error of the fluxes through supergrid cells"
    units = "1"
    best = "lower"
    formula = "(E(F_adv) + E(F_dif)) / 2"
    source = "core.physics.flux_error"

    cell: float = CELL_LENGTH
    smoothing: float = 0.0
    epsilon: float = EPSILON

    def values(self, forecast: xr.DataArray, reference: xr.DataArray) -> xr.DataArray:
        """The error of every field."""
        fine, coarse, steps = _paired(forecast, self.chosen(forecast, reference))
        side = spacing(coarse, "x", "A flux") / 1e3
        cell = max(round(self.cell / side), 2)

        def error(pair: list[torch.Tensor]) -> tuple[torch.Tensor]:
            found = torch_flux_error(
                pair[0],
                pair[1],
                spacing=steps,
                cell=cell,
                smoothing=self.smoothing,
                epsilon=self.epsilon,
            )
            return (found,)

        values: xr.DataArray = _applied(error, fine, coarse, outputs=1, sizes={})
        return values


def _applied(
    function: Callable[[list[torch.Tensor]], tuple[torch.Tensor, ...]],
    fine: xr.DataArray,
    coarse: xr.DataArray,
    *,
    outputs: int,
    sizes: dict[str, int],
) -> Any:
    """Results (..., sizes) of a function of float64 tensors (..., H, W) and (..., h, w), lazily."""

    def run(*arrays: Array) -> Any:
        leading = np.broadcast_shapes(*(array.shape[:-2] for array in arrays))
        whole = [np.broadcast_to(array, (*leading, *array.shape[-2:])) for array in arrays]
        try:
            with torch.inference_mode():
                results = function([torch.from_numpy(array.astype(np.float64)) for array in whole])
        except PhysicsError as error:
            raise MetricError(str(error)) from error
        found = tuple(result.numpy() for result in results)
        return found if outputs > 1 else found[0]

    return xr.apply_ufunc(
        run,
        fine.drop_vars(["y", "x"]),
        coarse.drop_vars(["y", "x"]).rename(y="coarse_y", x="coarse_x"),
        input_core_dims=[["y", "x"], ["coarse_y", "coarse_x"]],
        output_core_dims=[list(sizes)] * outputs,
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": sizes},
        output_dtypes=[np.float64] * outputs,
    )


def _paired(
    fine: xr.DataArray, coarse: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray, tuple[float, float]]:
    """Both fields, each in one chunk along y and x, and the spacing of rows and columns [km]."""
    steps = tuple(spacing(fine, axis, "A flux") / 1e3 for axis in ("y", "x"))
    for axis in ("y", "x"):
        spacing(coarse, axis, "A flux", cells=2)
        own, other = (np.asarray(field[axis].values, np.float64) for field in (fine, coarse))
        ratio = own.size // other.size
        blocks = own[: ratio * other.size].reshape(other.size, ratio)
        if (
            own.size != blocks.size
            or ratio < 1
            or np.abs(blocks.mean(axis=1) - other).max() > _tolerance(own)
        ):
            raise MetricError(
                f"The cells of the coarse grid are not blocks of the fine grid along {axis}; cut both fields "
                "to the same region."
            )
    try:
        xr.align(fine, coarse, join="exact", exclude=["y", "x"])
    except ValueError as error:
        raise MetricError(f"The fields are not of the same hours: {error}") from error
    fine, coarse = (field if field.chunks is None else field.chunk(y=-1, x=-1) for field in (fine, coarse))
    return fine, coarse, (steps[0], steps[1])


def _tolerance(coordinate: Array) -> float:
    return 1e-3 * float(abs(coordinate[1] - coordinate[0]))


def _centres(coordinate: xr.DataArray, size: int, count: int) -> Array:
    values = np.asarray(coordinate.values, np.float64)
    centres: Array = values[: size * count].reshape(count, size).mean(axis=1)
    return centres


def _formula(variant: str | FluxFormula) -> FluxFormula:
    try:
        return flux_formula(variant)
    except PhysicsError as error:
        raise MetricError(str(error)) from error


def _units(formula: FluxFormula) -> str:
    if formula.spacing == "pixel":
        return "1"
    return "km2" if formula.difference == "squared" else "km"


flux_loss, flux_error = FluxLoss(), FluxError()

METRICS: dict[str, Metric] = {"flux_error": flux_error, "flux_loss": flux_loss}
"""The metrics of fluxes by name."""
