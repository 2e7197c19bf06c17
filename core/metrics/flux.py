"""Flux ratios of :mod:`core.physics` as metrics: maps of R on the supergrid and the losses made of them.

R is the advective over the diffusive flux through the boundary of a supergrid cell. What the variants mean,
and what they can and can't tell, is said in :mod:`core.physics.flux_ratio`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from core.metrics.metric import FieldMetric, Metric, MetricError, spacing
from core.physics import FluxFormula, PhysicsError, flux_formula
from core.physics import flux_ratios as torch_flux_ratios

Array = NDArray[np.float64]


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
    coarse : the same on a grid whose cells are blocks of fine ones, or on the fine grid itself; hours and
        other dimensions are those of ``fine``, members need not be there
    variant : one of :data:`core.physics.VARIANTS`
    cells : supergrid cells along one side in coarse pixels, where the variant leaves that open
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
    steps = tuple(spacing(fine, axis, "A flux ratio") / 1e3 for axis in ("y", "x"))
    ratio = _block(fine, coarse)
    rest_fine, rest_coarse = (field.drop_vars(["y", "x"]) for field in (fine, coarse))
    try:
        rest_fine, rest_coarse = xr.align(rest_fine, rest_coarse, join="exact", exclude=["y", "x"])
    except ValueError as error:
        raise MetricError(f"The fields are not of the same hours: {error}") from error
    # Whole fields in one chunk, each with its own hours and members.
    rest_fine, rest_coarse = (
        field if field.chunks is None else field.chunk(y=-1, x=-1) for field in (rest_fine, rest_coarse)
    )
    arguments: dict[str, Any] = {"spacing": steps, "cells": cells, "epsilon": epsilon}

    def of(fine_values: Array, coarse_values: Array) -> tuple[Array, Array, Array]:
        shape = np.broadcast_shapes(fine_values.shape[:-2], coarse_values.shape[:-2])
        pair = [
            torch.from_numpy(np.broadcast_to(values, (*shape, *values.shape[-2:])).astype(np.float64))
            for values in (fine_values, coarse_values)
        ]
        with torch.inference_mode():
            ratios = torch_flux_ratios(pair[0], pair[1], variant, **arguments)
            return ratios.fine.numpy(), ratios.coarse.numpy(), ratios.per_cell.numpy()

    try:
        # Fields of zeros say which cells there are before anything lazy is computed.
        sides = [torch.zeros(field.sizes["y"], field.sizes["x"]) for field in (fine, coarse)]
        layout = torch_flux_ratios(sides[0], sides[1], variant, **arguments)
        maps = xr.apply_ufunc(
            of,
            rest_fine,
            rest_coarse.rename(y="coarse_y", x="coarse_x"),
            input_core_dims=[["y", "x"], ["coarse_y", "coarse_x"]],
            output_core_dims=[["cell_y", "cell_x"]] * 3,
            dask="parallelized",
            dask_gufunc_kwargs={
                "output_sizes": {"cell_y": layout.cells.rows, "cell_x": layout.cells.columns}
            },
            output_dtypes=[np.float64] * 3,
        )
    except PhysicsError as error:
        raise MetricError(str(error)) from error
    formula = layout.formula
    unit = "1" if formula.spacing == "pixel" else "km"
    centres = {
        axis: _centres(fine[axis].values, size, count)
        for axis, size, count in (
            ("y", layout.cells.height, layout.cells.rows),
            ("x", layout.cells.width, layout.cells.columns),
        )
    }
    dataset = xr.Dataset(dict(zip(("fine", "coarse", "difference"), maps, strict=True)))
    dataset = dataset.rename(cell_y="y", cell_x="x").assign_coords(
        {axis: (axis, values, {"units": "m"}) for axis, values in centres.items()}
    )
    for name in ("fine", "coarse"):
        dataset[name].attrs = {"long_name": f"flux ratio of the {name} field", "units": unit}
    dataset["difference"].attrs = {
        "long_name": f"{formula.difference} difference of the flux ratios",
        "units": _units(formula),
    }
    dataset.attrs = {"variant": formula.name, "fine_cells_per_coarse_cell": ratio}
    if layout.left_out is not None:
        dataset.attrs["left_out"] = layout.left_out
    return dataset


@dataclass(frozen=True, eq=False)
class FluxLoss(FieldMetric):
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
    same_grid: ClassVar[bool] = False

    variant: str | FluxFormula = "paper"
    coarse: xr.DataArray | None = None
    cells: int | None = None
    epsilon: float | None = None

    def values(self, forecast: xr.DataArray, reference: xr.DataArray) -> xr.DataArray:
        """The loss of every field."""
        if self.coarse is not None:
            reference = self.coarse
            if "time" in reference.dims and "time" in forecast.coords:
                try:
                    reference = reference.sel(time=forecast["time"])
                except KeyError as error:
                    raise MetricError("The coarse field lacks hours of the forecast.") from error
        maps = flux_ratio_maps(
            forecast, reference, variant=self.variant, cells=self.cells, epsilon=self.epsilon
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


def _formula(variant: str | FluxFormula) -> FluxFormula:
    try:
        return flux_formula(variant)
    except PhysicsError as error:
        raise MetricError(str(error)) from error


def _units(formula: FluxFormula) -> str:
    if formula.spacing == "pixel":
        return "1"
    return "km2" if formula.difference == "squared" else "km"


def _block(fine: xr.DataArray, coarse: xr.DataArray) -> int:
    """Fine cells along one side of a coarse one; MetricError where the grids do not cover one another."""
    ratio = 0
    for axis in ("y", "x"):
        spacing(coarse, axis, "A flux ratio")
        own, other = (np.asarray(field[axis].values, np.float64) for field in (fine, coarse))
        ratio = own.size // other.size
        tolerance = 1e-3 * abs(own[1] - own[0])
        if ratio * other.size != own.size or not np.allclose(
            own.reshape(-1, ratio).mean(axis=1), other, rtol=0, atol=tolerance
        ):
            raise MetricError(
                f"The cells of the coarse grid are not blocks of the fine grid along {axis}; cut both fields "
                "to the same region."
            )
    return ratio


def _centres(coordinate: NDArray[Any], size: int, count: int) -> Array:
    blocks = np.asarray(coordinate, np.float64)[: size * count].reshape(count, size)
    centres: Array = blocks.mean(axis=1)
    return centres


flux_loss = FluxLoss()

METRICS: dict[str, Metric] = {"flux_loss": flux_loss}
"""The metrics of fluxes by name."""
