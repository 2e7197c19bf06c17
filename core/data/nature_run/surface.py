"""Sun, clouds, the ground and what it does to the 2-metre temperature."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.data.nature_run.config import NatureRunConfig
from core.data.nature_run.terrain import Terrain


def sun(time: np.datetime64, latitude: Tensor, longitude: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Direction to the sun at a UTC instant: components towards east, north and up (cosine of zenith).

    Declination and equation of time after Spencer (1971).
    """
    day = time.astype("datetime64[s]")
    year = day.astype("datetime64[Y]")
    seconds = float((day - day.astype("datetime64[D]")) / np.timedelta64(1, "s"))
    angle = 2 * np.pi * float((day - year) / np.timedelta64(1, "D")) / 365.25
    declination = (
        0.006918
        - 0.399912 * np.cos(angle)
        + 0.070257 * np.sin(angle)
        - 0.006758 * np.cos(2 * angle)
        + 0.000907 * np.sin(2 * angle)
    )
    minutes = 229.18 * (
        0.000075
        + 0.001868 * np.cos(angle)
        - 0.032077 * np.sin(angle)
        - 0.014615 * np.cos(2 * angle)
        - 0.040849 * np.sin(2 * angle)
    )
    hour_angle = torch.deg2rad(longitude + 15 * (seconds / 3600 + minutes / 60 - 12))
    phi = torch.deg2rad(latitude)
    cos_declination, sin_declination = float(np.cos(declination)), float(np.sin(declination))
    up = torch.sin(phi) * sin_declination + torch.cos(phi) * cos_declination * torch.cos(hour_angle)
    east = -cos_declination * torch.sin(hour_angle)
    north = torch.cos(phi) * sin_declination - torch.sin(phi) * cos_declination * torch.cos(hour_angle)
    return east, north, up


def clear_sky(up: Tensor) -> Tensor:
    """Clear-sky global radiation on a horizontal surface [W/m2] (Haurwitz 1945); zero at night."""
    height = up.clamp(min=1e-3)
    return torch.where(up > 0, 1098 * height * torch.exp(-0.057 / height), torch.zeros_like(up))


def cloud_transmission(cloud: Tensor) -> Tensor:
    """Share of the clear-sky radiation that reaches the ground (Kasten and Czeplak 1980)."""
    return 1 - 0.75 * cloud.clamp(0, 1) ** 3.4


def slope_factor(direction: tuple[Tensor, Tensor, Tensor], terrain: Terrain, cloud: Tensor) -> Tensor:
    """Radiation on the slope over that on the flat, for a direct share of 0.7 under a clear sky."""
    east, north, up = direction
    # The sun's direction along the grid, to be compared with slopes along the grid.
    grid_x = east * terrain.cos_rotation - north * terrain.sin_rotation
    grid_y = east * terrain.sin_rotation + north * terrain.cos_rotation
    facing = 1 - (terrain.slope_x * grid_x + terrain.slope_y * grid_y) / up.clamp(min=0.2)
    return 1 + 0.7 * (1 - cloud) * (facing.clamp(0.3, 1.7) - 1)


def relax(value: Tensor, equilibrium: Tensor, hours: float, memory: Tensor | float) -> Tensor:
    """Exact solution of ``dA/dt = (A_eq - A) / memory`` after ``hours``."""
    if isinstance(memory, float):
        return equilibrium + (value - equilibrium) * float(np.exp(-hours / memory))
    return equilibrium + (value - equilibrium) * torch.exp(-hours / memory)


def boundary_layer(
    excess: Tensor,
    sunshine: Tensor,
    longwave: Tensor,
    wind: Tensor,
    sea_excess: Tensor,
    terrain: Terrain,
    snow: Tensor,
    config: NatureRunConfig,
    hours: float,
) -> Tensor:
    """Temperature excess of the boundary layer over the air mass [K] after a step.

    Over land ``dD/dt = a Q - c L - D / tau``: solar heating, longwave cooling (``longwave``, 0-1: how clear
    and dry the sky is), mixing with the air mass, faster in wind; over water D tends to the sea's excess
    within 2.5 h. Snow reflects most of the sun.
    """
    memory = config.boundary_layer_memory / (1 + wind / 7)
    absorbed = sunshine * (1 - 0.6 * snow) * (0.4 + 0.6 * terrain.day)
    shape = 1 + 0.6 * terrain.valley - 0.4 * terrain.ridge
    forcing = shape * (
        config.solar_heating * absorbed - config.night_cooling * longwave * (0.4 + 0.6 * terrain.night)
    )
    land = relax(excess, forcing * memory, hours, memory)
    sea = relax(excess, sea_excess, hours, 2.5)
    return sea + terrain.land * (land - sea)


def surface_layer(
    skin: Tensor,
    sunshine: Tensor,
    longwave: Tensor,
    calm: Tensor,
    terrain: Terrain,
    snow: Tensor,
    config: NatureRunConfig,
    hours: float,
) -> Tensor:
    """Excess of the surface layer over the boundary layer [K]: the part that land cover alone sets.

    Tends within 0.8 h to a value proportional to the absorbed sun by day and to radiative loss by night,
    each times the response of the land cover; wind destroys the night's part.
    """
    day = config.skin_amplitude * sunshine / 700 * terrain.day * (1 - 0.7 * snow)
    night = (
        0.7
        * config.skin_amplitude
        * longwave
        * calm
        * (terrain.night + 0.5 * snow)
        * torch.exp(-sunshine / 60)
    )
    return relax(skin, (day - night) * terrain.land, hours, 0.8)


def cold_pool(
    pool: Tensor,
    sunshine: Tensor,
    longwave: Tensor,
    calm: Tensor,
    terrain: Terrain,
    config: NatureRunConfig,
    hours: float,
) -> Tensor:
    """Depth of nocturnal cold pools in valleys [K].

    They grow within some 5 h on clear calm nights towards a depth set by the valley index and dissolve within
    1.5 h of sunshine (Whiteman 2000, Mountain Meteorology, chapter 11).
    """
    night = torch.exp(-sunshine / 40)
    target = config.cold_pool_depth * terrain.valley * longwave * calm * night
    return relax(pool, target, hours, 1.5 + 3.5 * night)


def snow_climatology(
    temperature: Tensor, lapse_rate: Tensor, day_of_year: float, height: Tensor, land: Tensor
) -> Tensor:
    """Snow water equivalent at the start of a week [m]: what a winter below freezing leaves behind.

    Grows with the height above the seasonal snow line, where the air mass is at 0 degrees Celsius; late in
    spring the pack lags behind and lies higher up.
    """
    lag = float(np.cos(2 * np.pi * (day_of_year - 80) / 365.25))
    line = 1000 * (temperature - 273.15) / lapse_rate - 250 - 200 * lag
    return land * (0.45 * ((height - line) / 1000).clamp(0, 2.5))


def snow_cover(depth: Tensor) -> Tensor:
    """Share of the ground under snow [0-1] from its water equivalent [m]."""
    return (depth / 0.02).clamp(0, 1)


def melt(depth: Tensor, temperature: Tensor, snowfall: Tensor, hours: float) -> Tensor:
    """Snow after a step: snowfall [m water] added, 4 mm a day and kelvin melted (degree-day method)."""
    loss = 4e-3 * (temperature - 273.15).clamp(min=0) * hours / 24
    return (depth + snowfall - loss).clamp(min=0)
