"""What the land does to the air, derived once from the static fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
import xarray as xr
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter
from torch import Tensor

from core.data.nature_run.noise import as_tensor
from core.domain import Domain
from core.variables import LAND_COVER_CLASSES

Field = NDArray[np.float32]

# IGBP classes 1-16 (Loveland and Belward 1997): evergreen needleleaf, evergreen broadleaf, deciduous
# needleleaf, deciduous broadleaf and mixed forest, closed and open shrubland, woody savanna, savanna,
# grassland, wetland, cropland, urban, crop mosaic, snow and ice, barren. Relative to cropland: excess heating
# by day (dry and bare surfaces warm more), cooling by night (cities keep heat, grass loses it), and
# near-surface wind (forests and cities slow it).
DAY_RESPONSE = (0.55, 0.6, 0.6, 0.7, 0.65, 1.15, 1.25, 0.95, 1.05, 1.0, 0.4, 1.0, 1.35, 0.9, 0.2, 1.5)
NIGHT_RESPONSE = (0.6, 0.5, 0.6, 0.65, 0.6, 1.0, 1.15, 0.85, 1.0, 1.2, 0.5, 1.1, 0.25, 1.0, 1.4, 1.2)
WIND_RESPONSE = (0.65, 0.65, 0.65, 0.65, 0.65, 0.85, 0.95, 0.8, 0.9, 1.0, 1.0, 1.0, 0.7, 0.95, 1.05, 1.0)


@dataclass(frozen=True)
class Terrain:
    """Static fields of the model, tensors (H, W) unless said.

    height [m]; slope_x, slope_y (grid directions, north positive); steepness (smoothed rms slope);
    valley and ridge index (0-1); land (1 - open water); day, night, drag: land-cover responses;
    flow (4, H, W): flow around mountains, see :func:`mountain_flow`; depth (relative layer depth);
    latitude, longitude [degree]; rotation [radian]; coriolis [1/s].
    """

    domain: Domain
    height: Tensor
    slope_x: Tensor
    slope_y: Tensor
    steepness: Tensor
    valley: Tensor
    ridge: Tensor
    land: Tensor
    day: Tensor
    night: Tensor
    drag: Tensor
    flow: Tensor
    depth: Tensor
    latitude: Tensor
    longitude: Tensor
    cos_rotation: Tensor
    sin_rotation: Tensor
    edge: Tensor
    coarse_height: Tensor
    coarse_land: Tensor


def build_terrain(domain: Domain, static: xr.Dataset, coarse_orography_width: float) -> Terrain:
    """Derive the model's static fields.

    Parameters
    ----------
    static : ``orography`` [m], ``land_fraction`` (y, x), ``land_cover`` (class, y, x) on the fine grid
    coarse_orography_width : Gaussian width of the coarse model's orography [coarse cells]

    Raises
    ------
    ValueError
        if a field is missing, has gaps or does not lie on the fine grid.
    """
    height, land, cover = _checked(domain, static)
    dy, dx = domain.fine.dy, domain.fine.dx
    cell = float(np.sqrt(dx * dy))
    slope_x, slope_y = gradient(as_tensor(height), dx, dy)
    steep = np.hypot(slope_x.numpy(), slope_y.numpy())
    valley, ridge = valley_and_ridge(height, cell)
    flow, depth = mountain_flow(gaussian_filter(height, 1.0, mode="nearest"), dx, dy)
    coarse_height = gaussian_filter(
        block_mean(as_tensor(height), domain.ratio).numpy(), coarse_orography_width, mode="nearest"
    )
    rows, columns = np.indices(height.shape)
    rim = np.minimum.reduce(
        [rows, columns, height.shape[0] - 1 - rows, height.shape[1] - 1 - columns]
    ).astype(np.float32)
    responses = [_response(cover, table) for table in (DAY_RESPONSE, NIGHT_RESPONSE, WIND_RESPONSE)]
    rotation = domain.fine.rotation
    return Terrain(
        domain=domain,
        height=as_tensor(height),
        slope_x=slope_x,
        slope_y=slope_y,
        steepness=as_tensor(np.sqrt(gaussian_filter(steep**2, 12e3 / cell, mode="nearest"))),
        valley=as_tensor(valley * land),
        ridge=as_tensor(ridge * land),
        land=as_tensor(land),
        day=as_tensor(responses[0]),
        night=as_tensor(responses[1]),
        drag=as_tensor(0.85 * (1 - land) + 0.68 * land * responses[2]),
        flow=as_tensor(flow),
        depth=as_tensor(depth),
        latitude=as_tensor(domain.fine.latitude),
        longitude=as_tensor(domain.fine.longitude),
        cos_rotation=as_tensor(np.cos(rotation)),
        sin_rotation=as_tensor(np.sin(rotation)),
        edge=as_tensor(np.exp(-rim * cell / 30e3)),
        coarse_height=as_tensor(coarse_height),
        coarse_land=block_mean(as_tensor(np.asarray(static["land_fraction"], np.float32)), domain.ratio),
    )


def _checked(domain: Domain, static: xr.Dataset) -> tuple[Field, Field, Field]:
    missing = [name for name in ("orography", "land_cover", "land_fraction") if name not in static]
    if missing:
        raise ValueError(f"The nature run needs the static fields {', '.join(missing)}; they are missing.")
    height = np.asarray(static["orography"].transpose("y", "x"), np.float32)
    land = np.asarray(static["land_fraction"].transpose("y", "x"), np.float32)
    cover = np.asarray(static["land_cover"].transpose("class", "y", "x"), np.float32)
    expected = domain.fine.shape
    if height.shape != expected or land.shape != expected or cover.shape != (LAND_COVER_CLASSES, *expected):
        raise ValueError(
            f"The static fields have the shapes {height.shape}, {land.shape} and {cover.shape}; the fine "
            f"grid of {domain.name} needs {expected} and {LAND_COVER_CLASSES} land-cover classes."
        )
    for name, values in (("orography", height), ("land_fraction", land), ("land_cover", cover)):
        if not np.isfinite(values).all():
            raise ValueError(f"The static field {name} has gaps; fill them before a nature run is made.")
    return height, land.clip(0, 1), cover.clip(0, 1)


def _response(cover: Field, table: tuple[float, ...]) -> Field:
    """Mean of a land-cover table over the classes of a cell; 1 where no class is given."""
    total = cover.sum(axis=0)
    weighted = np.tensordot(np.asarray(table, np.float32), cover, axes=1)
    response: Field = np.where(total > 0.01, weighted / np.maximum(total, 0.01), 1.0).astype(np.float32)
    return response


def gradient(field: Tensor, dx: float, dy: float) -> tuple[Tensor, Tensor]:
    """Derivatives (d/dx, d/dy) towards grid east and grid north, one-sided at the rim; rows run south."""
    d_row, d_column = torch.gradient(field, dim=(0, 1))
    return d_column / dx, -d_row / dy


def valley_and_ridge(height: Field, cell: float) -> tuple[Field, Field]:
    """Valley and ridge index, 0 to 1: how deep a cell lies below, or above, the mean of its surroundings.

    Relative to a local relief of at least 250 m, so that plains are neither. The idea is the topographic
    position index (Weiss 2001) used by valley cold-pool schemes (Lundquist et al. 2008, J. Appl. Meteor.).
    """
    near = gaussian_filter(height, max(10e3 / cell / 2, 0.6), mode="nearest")
    window = max(3, 2 * round(8e3 / cell) + 1)
    top = gaussian_filter(maximum_filter(height, window, mode="nearest"), window / 3, mode="nearest")
    bottom = gaussian_filter(minimum_filter(height, window, mode="nearest"), window / 3, mode="nearest")
    relief = np.maximum(top - bottom, 250.0)
    position = (height - near) / relief
    enclosed = np.clip((top - height) / 600.0, 0, 1)
    return (
        (np.clip(-position * 3.0, 0, 1) * enclosed).astype(np.float32),
        np.clip(position * 3.0, 0, 1).astype(np.float32),
    )


def mountain_flow(height: Field, dx: float, dy: float) -> tuple[Field, Field]:
    """How a blocked layer flows around mountains: a linear map of the undisturbed wind.

    The lowest 3 km of air, whose relative depth is ``h = 1 - z / 3000 m`` (at least 0.15), conserves mass:
    ``u = U + grad(phi)``, ``div(h u) = 0``, with no flux correction through the rim. Solved for a unit
    wind along x and along y by conjugate gradients with a cosine-transform preconditioner: the mass-
    consistent wind model of Sherman (1978, J. Appl. Meteor. 17, 312-319) for one layer. Gaps funnel the wind,
    ridges deflect it.

    Returns
    -------
    flow (4, H, W) : du/dU, du/dV, dv/dU, dv/dV of the disturbance; depth (H, W) : h
    """
    depth = np.clip(1 - height.astype(np.float64) / 3000.0, 0.15, 1.0)
    h_x = 0.5 * (depth[:, 1:] + depth[:, :-1])
    h_y = 0.5 * (depth[1:] + depth[:-1])

    def divergence(flux_x: NDArray[np.float64], flux_y: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros(depth.shape)
        total[:, :-1] += flux_x / dx
        total[:, 1:] -= flux_x / dx
        total[:-1] -= flux_y / dy
        total[1:] += flux_y / dy
        return total

    def slopes(phi: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return (phi[:, 1:] - phi[:, :-1]) / dx, (phi[:-1] - phi[1:]) / dy

    rows = 2 - 2 * np.cos(np.pi * np.arange(depth.shape[0]) / depth.shape[0])
    columns = 2 - 2 * np.cos(np.pi * np.arange(depth.shape[1]) / depth.shape[1])
    symbol = rows[:, None] / dy**2 + columns[None] / dx**2
    symbol[0, 0] = 1.0
    scale = np.sqrt(depth)

    def precondition(residual: NDArray[np.float64]) -> NDArray[np.float64]:
        solved = dctn(residual / scale, norm="ortho") / symbol
        solved[0, 0] = 0.0
        result: NDArray[np.float64] = idctn(solved, norm="ortho") / scale
        return result

    def operator(phi: NDArray[np.float64]) -> NDArray[np.float64]:
        along, across = slopes(phi)
        return -divergence(h_x * along, h_y * across)

    flow = np.zeros((4, *depth.shape), np.float32)
    for index, (u, v) in enumerate(((1.0, 0.0), (0.0, 1.0))):
        residual = divergence(h_x * u, h_y * v)
        # The flux that a uniform wind brings through the rim is not the mountains' doing.
        residual[:, 0] -= depth[:, 0] * u / dx
        residual[:, -1] += depth[:, -1] * u / dx
        residual[-1] -= depth[-1] * v / dy
        residual[0] += depth[0] * v / dy
        residual -= residual.mean()
        phi = np.zeros(depth.shape)
        start = float((residual**2).sum())
        search, before = np.zeros(depth.shape), 1.0
        for _ in range(60):
            if float((residual**2).sum()) <= 1e-4 * start:
                break
            solved = precondition(residual)
            now = float((residual * solved).sum())
            search = solved + now / before * search
            before = now
            image = operator(search)
            step = now / float((search * image).sum())
            phi += step * search
            residual -= step * image
        d_row, d_column = np.gradient(phi)
        flow[index] = np.clip(d_column / dx, -1.2, 1.2)
        flow[2 + index] = np.clip(-d_row / dy, -1.2, 1.2)
    return flow, depth.astype(np.float32)


def block_mean(field: Tensor, ratio: int) -> Tensor:
    """Mean over blocks of ``ratio`` x ``ratio`` cells; the last two axes are (y, x)."""
    return nnf.avg_pool2d(field.reshape(-1, 1, *field.shape[-2:]), ratio).reshape(
        *field.shape[:-2], field.shape[-2] // ratio, field.shape[-1] // ratio
    )
