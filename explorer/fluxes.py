"""Flux ratios, their losses and the flux error of an hour over a region, through :mod:`core.metrics.flux`.

The modules of core that compute fluxes bring torch, which takes seconds to import; they are imported where
they are needed, in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.domain import Domain
from core.metrics.metric import MetricError
from core.regions import Window
from explorer.cut import cut
from explorer.digest import digest
from explorer.display import COARSE
from explorer.hours import spread_out
from explorer.library import TRUTH, OpenStore
from explorer.quantities import QUANTITIES, FloatField
from explorer.results import Results

VARIANTS: dict[str, str] = {
    "paper": "Paper",
    "published_training": "Published training",
    "published_metric": "Published metric",
    "centred": "Centred",
}
"""Names of :data:`core.physics.VARIANTS` and how people read them."""

LOSS_UNITS = {"paper": "km²", "published_training": "pixels", "published_metric": "pixels", "centred": "km²"}
RATIO_UNITS = {name: "km" if units == "km²" else "pixels" for name, units in LOSS_UNITS.items()}

RESIZABLE = ("paper", "centred")
"""Variants whose supergrid may have cells of another size; the published ones have theirs."""
SIZES = (2, 3, 4, 6, 8, 12, 16, 24)
"""Sides of supergrid cells on offer [coarse pixels]."""

FLUX_ERROR, FLUX_ERROR_TRUTH = "flux_error", "flux_error_truth"
COLUMNS = (FLUX_ERROR_TRUTH, FLUX_ERROR, *VARIANTS)
"""Columns of the table of losses by name."""
HOURS_TO_FIT = 12
"""Hours over which the store's constants are found."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Constants:
    """What comparisons of fluxes need to know of a store.

    Attributes
    ----------
    mean, deviation : of the coarse temperature [K], which standardise it for ``published_training``
    smoothing : of the coarse field [coarse pixels], see :func:`core.physics.flux_error.fit_smoothing`; None
        while it is fitted
    fitted : whether it was; a store without truth has none to fit it to, and 0 is taken
    """

    mean: float
    deviation: float
    smoothing: float | None = None
    fitted: bool = False


@dataclass(frozen=True)
class FluxMap:
    """R of one field on the supergrid, (rows, columns), NaN where undefined."""

    key: str
    label: str
    values: Array


@dataclass(frozen=True)
class FluxRow:
    """Losses of one field by name of the variant, and its flux errors; what is missing is undefined."""

    key: str
    label: str
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Fluxes:
    """Flux ratios of one hour over one region under one variant, and all losses.

    Attributes
    ----------
    cells : coarse pixels along one side of a supergrid cell as asked for, 0 for the variant's own
    maps : the coarse field first; empty where ``problem`` says why
    extent : left, right, bottom, top of the supergrid [m]
    remark : what no cell covers, as a sentence; empty where nothing is left out
    rows : a row per field other than the coarse one
    reasons : why a column has no value, by its name
    pending : names of the columns that are still computed
    """

    hour: np.datetime64
    window: Window
    variant: str
    cells: int
    constants: Constants
    maps: tuple[FluxMap, ...] = ()
    extent: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    problem: str = ""
    remark: str = ""
    rows: tuple[FluxRow, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    pending: tuple[str, ...] = ()

    def get(self, key: str) -> FluxMap | None:
        """The map of one field."""
        return next((one for one in self.maps if one.key == key), None)


def cell_sizes(domain: Domain, window: Window) -> list[int]:
    """Sides of supergrid cells [coarse pixels] of which one fits the window."""
    rows, columns = window.slices(domain.coarse)
    shorter = min(rows.stop - rows.start, columns.stop - columns.start)
    return [size for size in SIZES if size <= shorter]


def compute_fluxes(
    fields: Sequence[tuple[str, str, FloatField]],
    hour: np.datetime64,
    opened: OpenStore,
    window: Window,
    variant: str,
    cells: int,
    results: Results,
) -> Iterator[Fluxes]:
    """What the view of fluxes shows: the maps at first, then all losses, and last what needs the smoothing.

    The smoothing of a store is fitted when it is first needed, which takes some seconds.

    Parameters
    ----------
    fields : (key, label, values) of 2-metre temperature in degrees Celsius, (h, w) for the coarse field, which
        must be there, and (H, W) for the others
    variant : for the maps; the losses are those of all variants
    cells : coarse pixels along one side of a cell for that variant where it is :data:`RESIZABLE`, 0 for its
        own; the losses of the other variants are those of their own cells
    """
    constants = _standard(opened, results)
    kelvin = [(key, label, _kelvin(values)) for key, label, values in fields]
    coarse = next(values for key, _, values in kelvin if key == COARSE)
    others = [
        (key, label, _Pair(values, coarse, opened.domain, window))
        for key, label, values in kelvin
        if key != COARSE
    ]
    known = (
        "t2m" not in opened.store.contents.targets or results.peek(_address("smoothing", opened)) is not None
    )
    if known:
        constants = _smoothed(constants, opened, results)
    yield _fluxes(others, hour, window, variant, cells, constants, results, (variant,))
    if not known:
        yield _fluxes(others, hour, window, variant, cells, constants, results, (*VARIANTS, FLUX_ERROR_TRUTH))
        constants = _smoothed(constants, opened, results)
    yield _fluxes(others, hour, window, variant, cells, constants, results, COLUMNS)


class _Pair:
    """A fine and the coarse field over a window [K]."""

    def __init__(self, fine: FloatField, coarse: FloatField, domain: Domain, window: Window) -> None:
        self.fine = cut(fine, domain.fine, window)
        self.coarse = cut(coarse, domain.coarse, window)
        self.address = (digest(fine), digest(coarse), domain.fine.dx, window)

    def prepared(self, variant: str, constants: Constants) -> tuple[xr.DataArray, xr.DataArray, str]:
        """Both fields as a variant takes them, and what is left out of them, as a sentence."""
        from core.physics import flux_formula

        formula, remark = flux_formula(variant), ""
        fine, coarse = self.fine, self.coarse
        if formula.tensor == "network_output":
            fine, coarse = ((f - constants.mean) / constants.deviation for f in (fine, coarse))
        if formula.cells.unit == "per_side" and formula.cells.count:
            # As in the audit: the largest piece that so many equal cells can cover.
            count, ratio = formula.cells.count, fine.sizes["y"] // coarse.sizes["y"]
            height, width = (coarse.sizes[axis] // count * count for axis in ("y", "x"))
            spare = coarse.sizes["y"] - height, coarse.sizes["x"] - width
            if any(spare) and height and width:
                remark = (
                    f"{count} × {count} equal cells do not cover the region: its last {spare[0]} rows and "
                    f"{spare[1]} columns of coarse pixels are left out."
                )
                coarse = coarse.isel(y=slice(height), x=slice(width))
                fine = fine.isel(y=slice(height * ratio), x=slice(width * ratio))
        return fine, coarse, remark


def _fluxes(
    pairs: Sequence[tuple[str, str, _Pair]],
    hour: np.datetime64,
    window: Window,
    variant: str,
    cells: int,
    constants: Constants,
    results: Results,
    wanted: tuple[str, ...],
) -> Fluxes:
    """The maps of ``variant`` and the losses that are wanted."""
    cells = cells if variant in RESIZABLE else 0
    pending = tuple(name for name in COLUMNS if name not in wanted)
    shown = Fluxes(hour, window, variant, cells, constants, pending=pending)
    if not pairs:
        return replace(shown, problem="There is no field beside the coarse input. Tick a downscaler.")
    reasons: dict[str, str] = {}
    truth = next((pair for key, _, pair in pairs if key == TRUTH), None)
    if truth is None:
        reasons[FLUX_ERROR_TRUTH] = "This store has no fine truth."
    rows, maps = [], []
    for key, label, pair in pairs:
        losses: dict[str, float] = {}
        for name in (name for name in VARIANTS if name in wanted):
            try:
                found, remark = _ratios(pair, name, cells if name == variant else 0, constants, results)
            except MetricError as error:
                reasons[name] = str(error)
                continue
            losses[name] = float(found["loss"][0])
            if name == variant:
                if not maps:
                    maps.append(FluxMap(COARSE, "Coarse input", found["coarse"]))
                    shown = replace(shown, extent=_edges(found), remark=remark)
                maps.append(FluxMap(key, label, found["fine"]))
        try:
            if FLUX_ERROR in wanted and constants.smoothing is not None:
                losses[FLUX_ERROR] = _error(pair, constants.smoothing, results)
            if FLUX_ERROR_TRUTH in wanted and truth is not None:
                losses[FLUX_ERROR_TRUTH] = _error_against_truth(pair, truth, results)
        except MetricError as error:
            reasons[FLUX_ERROR] = reasons[FLUX_ERROR_TRUTH] = str(error)
        rows.append(FluxRow(key, label, losses))
    problem = "" if maps else reasons.get(variant, "")
    return replace(shown, maps=tuple(maps), problem=problem, rows=tuple(rows), reasons=reasons)


def _ratios(
    pair: _Pair, variant: str, cells: int, constants: Constants, results: Results
) -> tuple[Mapping[str, Array], str]:
    """``fine``, ``coarse``, ``loss`` (1,) and ``extent`` (4,) of the cells, and what they leave out."""
    from core.metrics.flux import flux_ratio_maps

    fine, coarse, remark = pair.prepared(variant, constants)
    said: list[str] = [remark] if remark else []

    def compute() -> dict[str, Array]:
        maps = flux_ratio_maps(fine, coarse, variant=variant, cells=cells or None)
        found = {name: maps[name].values.copy() for name in ("fine", "coarse")}
        extent = _extent(maps, fine)
        return found | {"loss": np.array([float(maps["difference"].mean())]), "extent": np.array(extent)}

    address = ("flux ratio", *pair.address, variant, cells, constants.mean, constants.deviation)
    found = results.get(address, compute)
    left, right, bottom, top = _edges(found)
    height, width = (abs(float(fine[axis][0] - fine[axis][-1])) for axis in ("y", "x"))
    spacing = height / (fine.sizes["y"] - 1)
    bare = (
        round((height + spacing - (top - bottom)) / spacing),
        round((width + spacing - (right - left)) / spacing),
    )
    if any(bare):
        said.append(f"The last {bare[0]} rows and {bare[1]} columns of fine pixels are in no whole cell.")
    return found, " ".join(said)


def _error(pair: _Pair, smoothing: float, results: Results) -> float:
    from core.metrics.flux import FluxError

    def compute() -> dict[str, Array]:
        return {"error": np.array([float(FluxError(smoothing=smoothing)(pair.fine, pair.coarse))])}

    return float(results.get(("flux error", *pair.address, smoothing), compute)["error"][0])


def _error_against_truth(pair: _Pair, truth: _Pair, results: Results) -> float:
    from core.metrics.flux import flux_error

    def compute() -> dict[str, Array]:
        return {"error": np.array([float(flux_error(pair.fine, truth.fine))])}

    return float(results.get(("flux error", *pair.address, truth.address), compute)["error"][0])


def _standard(opened: OpenStore, results: Results) -> Constants:
    """Mean and deviation of the coarse temperature over hours spread over the store."""

    def compute() -> dict[str, Array]:
        values = np.stack([opened.read(COARSE, hour, ["t2m"])["t2m"].values for hour in _some(opened)])
        return {"constants": np.array([np.nanmean(values), np.nanstd(values) or 1.0], np.float64)}

    mean, deviation = results.get(_address("standard", opened), compute)["constants"]
    return Constants(float(mean), float(deviation))


def _smoothed(constants: Constants, opened: OpenStore, results: Results) -> Constants:
    """The constants with the smoothing of the coarse field fitted to the truth, or 0 where that can't be done."""
    import torch

    from core.physics.flux_error import fit_smoothing

    if "t2m" not in opened.store.contents.targets:
        return replace(constants, smoothing=0.0)

    def compute() -> dict[str, Array]:
        fine, coarse = (
            np.stack([opened.read(group, hour, ["t2m"])["t2m"].values.squeeze() for hour in _some(opened)])
            for group in (TRUTH, COARSE)
        )
        whole = np.isfinite(fine).all((1, 2)) & np.isfinite(coarse).all((1, 2))
        if not whole.any():
            return {"width": np.array([0.0, 0.0])}
        grid, pair = opened.domain.fine, (torch.from_numpy(fine[whole]), torch.from_numpy(coarse[whole]))
        return {"width": np.array([fit_smoothing([pair], spacing=(grid.dy / 1e3, grid.dx / 1e3)), 1.0])}

    width, fitted = results.get(_address("smoothing", opened), compute)["width"]
    return replace(constants, smoothing=float(width), fitted=bool(fitted))


def _some(opened: OpenStore) -> NDArray[np.datetime64]:
    return spread_out(opened.store.hours, HOURS_TO_FIT)


def _address(name: str, opened: OpenStore) -> tuple[str | int, ...]:
    # A store that is still being written has other constants when it has more hours.
    return (f"flux {name}", *opened.identity, opened.store.hours.size)


def _kelvin(values: FloatField) -> FloatField:
    # In float32 this gives back the very numbers that the offset was added to.
    return values - np.float32(QUANTITIES["t2m"].offset)


def _edges(found: Mapping[str, Array]) -> tuple[float, float, float, float]:
    left, right, bottom, top = (float(edge) for edge in found["extent"])
    return left, right, bottom, top


def _extent(maps: xr.Dataset, fine: xr.DataArray) -> tuple[float, float, float, float]:
    """left, right, bottom, top of all cells [m], which begin at the first row and column of the field."""
    found = []
    for axis in ("x", "y"):
        step = float(fine[axis][1] - fine[axis][0])
        first = float(fine[axis][0]) - step / 2
        centres = maps[axis].values
        half = centres[0] - first
        found += sorted((first, float(centres[-1] + half)))
    return found[0], found[1], found[2], found[3]
