"""The coarse model: what a global reanalysis would make of the same weather.

Not a block mean of the fine fields: its mountains are smoother, its lapse rate is its own, coasts are
blurred, cold pools hardly exist, and it errs, partly as a function of the weather and partly at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from core.data.nature_run.config import NatureRunConfig
from core.data.nature_run.large_scale import AIR_DENSITY, Weather
from core.data.nature_run.noise import BandNoise, as_tensor, generator, remember
from core.data.nature_run.terrain import Terrain, block_mean, gradient

GRAVITY = 9.80665


@dataclass(frozen=True)
class FineFields:
    """What the coarse model sees of an hour, on the fine grid, earth-relative winds; SI units."""

    t2m: Tensor
    cold_pool: Tensor
    skin: Tensor
    d2m: Tensor
    u10: Tensor
    v10: Tensor
    tp: Tensor
    ssrd: Tensor
    snow: Tensor
    excess: Tensor
    air_mass: Tensor
    humidity: Tensor
    lapse_rate: Tensor
    longwave: Tensor
    calm: Tensor
    sunshine: Tensor


class CoarseErrors:
    """Smooth random errors of the coarse model, remembered over half a day: (4, h, w), unit variance."""

    def __init__(self, terrain: Terrain, config: NatureRunConfig, week: int) -> None:
        grid = terrain.domain.coarse
        cell = max(grid.dx, grid.dy)
        self._noise = BandNoise(grid.shape, (grid.dy, grid.dx), 4 * cell, 40 * cell)
        self._key = (config.seed, 3, week)

    def _draw(self, hour: int) -> Tensor:
        rng = generator(*self._key, hour + 1000)
        return torch.stack([self._noise.draw(rng) for _ in range(4)])

    def start(self, hour: int) -> Tensor:
        """Errors at the start of an episode."""
        return self._draw(hour)

    def next(self, errors: Tensor, hour: int) -> Tensor:
        """Errors one hour later."""
        return remember(errors, self._draw(hour), 1.0, 12.0)


def blurred(field: Tensor, width: float) -> Tensor:
    """Gaussian of ``width`` coarse cells: what a model can resolve is wider than its cells."""
    return as_tensor(gaussian_filter(field.numpy(), width, mode="nearest"))


def coarse_fields(
    fine: FineFields, weather: Weather, terrain: Terrain, errors: Tensor, config: NatureRunConfig
) -> dict[str, Tensor]:
    """The 14 predictors of an hour on the coarse grid (h, w), SI units, winds earth-relative.

    ``weather`` is the large scale on the coarse grid. Temperature: the fine temperature reduced to sea level
    with its own lapse rate, without most of the cold pools and part of the excess near the ground, block-
    averaged and blurred, put on the coarse orography with a lapse rate close to the model's own; plus biases
    in stable nights and strong sun, plus random error.
    """
    ratio, width = terrain.domain.ratio, config.coarse_state_width
    height, land = terrain.coarse_height, terrain.coarse_land

    def mean(field: Tensor) -> Tensor:
        return blurred(block_mean(field, ratio), width)

    lapse_rate = block_mean(fine.lapse_rate, ratio)
    unresolved = (
        0.75 * fine.cold_pool
        - (1 - config.coarse_surface_share) * fine.skin
        - (1 - config.coarse_layer_share) * fine.excess * terrain.land
    )
    sea_level = mean(fine.t2m + 1e-3 * fine.lapse_rate * terrain.height + unresolved)
    own_lapse_rate = 0.15 * lapse_rate + 0.85 * config.coarse_lapse_rate
    sunshine = block_mean(fine.sunshine, ratio)
    night = torch.exp(-sunshine / 60)
    stable = block_mean(fine.longwave * fine.calm, ratio) * night
    smooth_land = blurred(land, width)
    t2m = (
        sea_level
        - 1e-3 * own_lapse_rate * height
        + smooth_land * (config.coarse_night_bias * stable + config.coarse_day_bias * sunshine / 800)
        + config.coarse_random_error * errors[0]
    )
    dew = mean(fine.d2m + 1.8e-3 * terrain.height) - 1.8e-3 * height + 0.3 * errors[1]
    excess = mean(fine.excess * terrain.land)
    air_mass = blurred(block_mean(fine.air_mass, ratio), width)
    z850 = 1500 + 0.08 * (weather.pressure - 101500)
    lift_x, lift_y = gradient(height, terrain.domain.coarse.dx, terrain.domain.coarse.dy)
    ascent = weather.ascent + 0.35 * (weather.wind_x * lift_x + weather.wind_y * lift_y)
    cos, sin = block_mean(terrain.cos_rotation, ratio), block_mean(terrain.sin_rotation, ratio)
    upper_x, upper_y = weather.wind_x + 0.8 * weather.vortex_x, weather.wind_y + 0.8 * weather.vortex_y
    u850, v850 = earth_relative(upper_x, upper_y, cos, sin)
    sst = torch.where(land < 0.5, weather.sst, torch.full_like(land, torch.nan))
    return {
        "t2m": t2m,
        "msl": weather.pressure - 35 * excess + 15 * errors[2],
        "u10": 0.95 * mean(fine.u10) + 0.25 * errors[2],
        "v10": 0.95 * mean(fine.v10) + 0.25 * errors[3],
        "d2m": torch.minimum(dew, t2m),
        "sst": sst,
        "sd": block_mean(fine.snow, ratio),
        "tp": mean(fine.tp) * torch.exp(0.15 * errors[3] - 0.011),
        "ssrd": block_mean(fine.ssrd, ratio) * (1 + 0.04 * errors[2].clamp(-3, 3)),
        "q850": (0.68 * blurred(block_mean(fine.humidity, ratio), width) * (1 + 0.03 * errors[1])).clamp(
            min=0
        ),
        "t850": air_mass - 1e-3 * lapse_rate * z850 + 0.25 * excess + 0.2 * errors[1],
        "u850": u850 + 0.3 * errors[0],
        "v850": v850 + 0.3 * errors[3],
        "w850": -AIR_DENSITY * 0.87 * GRAVITY * ascent + 0.01 * errors[3],
    }


def earth_relative(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Wind towards true east and north from its components along the grid, see ``Grid.rotation``."""
    return cos * x + sin * y, cos * y - sin * x
