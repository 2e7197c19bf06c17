"""Winds of the model: large-scale flow around mountains, breezes, slope winds, eddies; and transport."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from core.data.nature_run.large_scale import Weather
from core.data.nature_run.terrain import Terrain, gradient


@dataclass(frozen=True)
class Wind:
    """Grid-relative winds [m/s]: at 10 m, of the boundary layer, and of the air mass above it."""

    x10: Tensor
    y10: Tensor
    boundary_x: Tensor
    boundary_y: Tensor
    air_x: Tensor
    air_y: Tensor


def blocked(x: Tensor, y: Tensor, terrain: Terrain, stability: Tensor) -> tuple[Tensor, Tensor]:
    """Flow around mountains where the air is too slow or too stable to cross them.

    The disturbance of :func:`mountain_flow` counts with ``1 / (1 + Fr^2)``, Froude number ``Fr = U / (N H)``,
    H = 1500 m, N = 0.012 (1 + stability / 4) 1/s (Smith 1989, Adv. Geophys. 31).
    """
    froude = torch.hypot(x, y) / (0.012 * (1 + stability / 4) * 1500)
    weight = 1 / (1 + froude**2)
    xx, xy, yx, yy = terrain.flow
    return x + weight * (xx * x + xy * y), y + weight * (yx * x + yy * y)


def friction(x: Tensor, y: Tensor, land: Tensor) -> tuple[Tensor, Tensor]:
    """Surface wind turned towards low pressure: 12 degrees over sea, 26 over land (Ekman veering)."""
    angle = torch.deg2rad(12 + 14 * land)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return cos * x - sin * y, sin * x + cos * y


def smooth(field: Tensor, cells: int) -> Tensor:
    """Three passes of a running mean over ``2 cells + 1`` points, edges repeated; close to a Gaussian."""
    width = 2 * cells + 1
    result = field[None, None]
    for _ in range(3):
        padded = nnf.pad(result, (cells, cells, cells, cells), mode="replicate")
        result = nnf.avg_pool2d(nnf.avg_pool2d(padded, (width, 1), 1), (1, width), 1)
    return result[0, 0]


def sea_breeze(excess: Tensor, terrain: Terrain) -> tuple[Tensor, Tensor]:
    """Breeze down the gradient of the boundary layer's temperature excess [m/s], at most 6 m/s.

    Linear breeze theory (Rotunno 1983, J. Atmos. Sci. 40): speed proportional to the land-sea temperature
    difference, over some 20 km on either side; 3 K across the coast give about 3 m/s.
    """
    grid = terrain.domain.fine
    # Pooling first keeps the filter cheap; the breeze is smooth anyway.
    pool = 4 if min(grid.shape) >= 64 else 1
    pooled = nnf.avg_pool2d(excess[None, None], pool)[0, 0]
    wide = smooth(pooled, max(1, round(8e3 / (grid.dx * pool))))
    x, y = gradient(wide, grid.dx * pool, grid.dy * pool)
    pair = torch.stack([x, y])[None]
    size = list(grid.shape)
    x, y = nnf.interpolate(pair, size=size, mode="bilinear", align_corners=False)[0] * 3.0e4
    limit = 1 / torch.sqrt(1 + (x**2 + y**2) / 36)
    return x * limit, y * limit


def slope_wind(excess: Tensor, terrain: Terrain) -> tuple[Tensor, Tensor]:
    """Upslope by day, downslope by night [m/s]: 0.35 m/s per kelvin of excess on steep slopes.

    After the bulk theory of Prandtl (1942) as used by Mahrt (1982): speed grows with the temperature excess
    and saturates with the slope (here at a few per cent).
    """
    steep = torch.hypot(terrain.slope_x, terrain.slope_y) + 0.04
    speed = 0.35 * excess.clamp(-7, 7) * terrain.land
    return speed * terrain.slope_x / steep, speed * terrain.slope_y / steep


def winds(weather: Weather, terrain: Terrain, excess: Tensor, surface_excess: Tensor) -> Wind:
    """All winds of an hour, without the eddies.

    ``excess`` is the temperature excess of the boundary layer, ``surface_excess`` that of the surface layer
    including cold pools [K].
    """
    synoptic_x, synoptic_y = weather.wind_x + weather.vortex_x, weather.wind_y + weather.vortex_y
    around_x, around_y = blocked(synoptic_x, synoptic_y, terrain, weather.stability)
    breeze_x, breeze_y = sea_breeze(excess, terrain)
    low_x, low_y = friction(around_x, around_y, terrain.land)
    # Above the terrain that rises into it the layer is thin and slow; crests reach into the free flow.
    shelter = torch.sqrt(terrain.depth) * (1 - 0.45 * terrain.valley + 0.55 * terrain.ridge)
    day_mixing = 1 - 0.12 * torch.tanh(-excess / 3)
    slope_x, slope_y = slope_wind(surface_excess, terrain)
    strength = terrain.drag * shelter * day_mixing
    return Wind(
        x10=strength * low_x + 0.75 * breeze_x + slope_x,
        y10=strength * low_y + 0.75 * breeze_y + slope_y,
        boundary_x=0.7 * shelter * low_x + breeze_x + 0.5 * slope_x,
        boundary_y=0.7 * shelter * low_y + breeze_y + 0.5 * slope_y,
        air_x=0.4 * synoptic_x + 0.6 * around_x + 0.3 * breeze_x,
        air_y=0.4 * synoptic_y + 0.6 * around_y + 0.3 * breeze_y,
    )


class Transport:
    """Semi-Lagrangian advection on the fine grid (Staniforth and Cote 1991, Mon. Wea. Rev. 119).

    A parcel that arrives at a cell left ``x - dt u(x - dt/2 u)``; its values are found there by bicubic
    interpolation. Stable for any step; parcels from outside carry the value of the rim.
    """

    def __init__(self, shape: tuple[int, int], dx: float, dy: float) -> None:
        self.dx, self.dy = dx, dy
        rows = torch.linspace(-1, 1, shape[0])
        columns = torch.linspace(-1, 1, shape[1])
        self._rows, self._columns = torch.meshgrid(rows, columns, indexing="ij")
        self._scale_x = 2 / ((shape[1] - 1) * dx)
        self._scale_y = -2 / ((shape[0] - 1) * dy)

    def departure(self, x: Tensor, y: Tensor, step: float) -> Tensor:
        """Where parcels came from during ``step`` [s], in the coordinates of ``grid_sample``."""
        velocity = torch.stack([x * self._scale_x, y * self._scale_y])
        here = torch.stack([self._columns, self._rows], dim=-1)
        middle = here - 0.5 * step * velocity.permute(1, 2, 0)
        between = nnf.grid_sample(
            velocity[None], middle[None], mode="bilinear", padding_mode="border", align_corners=True
        )[0]
        return (here - step * between.permute(1, 2, 0))[None]

    @staticmethod
    def inflow(departure: Tensor) -> Tensor:
        """Cells (H, W) whose parcels came from outside the domain."""
        return departure[0].abs().amax(dim=-1) > 1

    def carry(self, fields: Tensor, departure: Tensor) -> Tensor:
        """Fields (C, H, W) after the step."""
        return nnf.grid_sample(
            fields[None], departure, mode="bicubic", padding_mode="border", align_corners=True
        )[0]
