"""The large scale: travelling pressure systems, fronts and seasons, prescribed analytically.

Everything here is smooth and evaluated on the coarse grid, extended by a margin and interpolated to the fine
grid. It drives the dynamical model; fronts enter through the rim and are then carried by the model's wind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from core.data.nature_run.config import NatureRunConfig
from core.data.nature_run.noise import BandNoise, as_tensor, generator, remember
from core.data.nature_run.terrain import gradient
from core.domain import Domain, Grid

Array = NDArray[np.float64]

MARGIN = 2
AIR_DENSITY = 1.2
EARTH_ROTATION = 7.292e-5


def season(day_of_year: float, lag: float) -> float:
    """Annual cycle: +1 at its winter extreme, ``lag`` days after New Year, -1 half a year later."""
    return float(np.cos(2 * np.pi * (day_of_year - lag) / 365.25))


def seasonal_temperature(latitude: Array, day_of_year: float) -> Array:
    """Sea-level temperature of the air mass [K] without diurnal or synoptic changes.

    Fitted by eye to the climate of the central Mediterranean (annual mean 17 degrees Celsius at 42 N, January
    9, July 24; meridional gradient 0.6 K per degree, steeper in winter).
    """
    winter = season(day_of_year, 23)
    return 289.8 - 7.9 * winter - (0.55 + 0.15 * winter) * (latitude - 42)


def sea_surface_temperature(latitude: Array, day_of_year: float) -> Array:
    """Climatological sea surface temperature [K]: at 40 N 14 degrees Celsius in February, 26 in August."""
    winter = season(day_of_year, 53)
    return 292.8 - 6.0 * winter - (0.30 + 0.2 * winter) * (latitude - 40)


@dataclass(frozen=True)
class Weather:
    """Large-scale fields of one instant, tensors on the coarse grid with its margin unless said.

    pressure at sea level [Pa]; wind_x, wind_y: geostrophic, along the grid [m/s]; temperature: sea-level air
    mass [K]; humidity: relative, of the lower troposphere [1]; ascent: vertical wind at 850 hPa [m/s];
    lapse_rate [K/km]; stability: -1 (cyclonic) to 1 (anticyclonic); sst [K]; vortex_x, vortex_y: wind of
    mesoscale vortices [m/s]; mesoscale: unit noise.
    """

    pressure: Tensor
    wind_x: Tensor
    wind_y: Tensor
    temperature: Tensor
    humidity: Tensor
    ascent: Tensor
    lapse_rate: Tensor
    stability: Tensor
    sst: Tensor
    vortex_x: Tensor
    vortex_y: Tensor
    mesoscale: Tensor

    NAMES: ClassVar[tuple[str, ...]] = (
        "pressure",
        "wind_x",
        "wind_y",
        "temperature",
        "humidity",
        "ascent",
        "lapse_rate",
        "stability",
        "sst",
        "vortex_x",
        "vortex_y",
        "mesoscale",
    )

    def on_fine(self, ratio: int) -> Weather:
        """The same fields on the fine grid, by bicubic interpolation, without the margin."""
        stack = torch.stack([getattr(self, name) for name in self.NAMES])[None]
        fine = nnf.interpolate(stack, scale_factor=ratio, mode="bicubic", align_corners=False)[0]
        cut = MARGIN * ratio
        return Weather(*fine[:, cut:-cut, cut:-cut].unbind(0))

    def on_coarse(self) -> Weather:
        """The same fields on the coarse grid, without the margin."""
        return Weather(*(getattr(self, name)[MARGIN:-MARGIN, MARGIN:-MARGIN] for name in self.NAMES))


@dataclass(frozen=True)
class PressureSystem:
    """A travelling low or high: position [m] at ``time`` [h of the week], velocity [m/s], radius [m]."""

    x: float
    y: float
    time: float
    velocity_x: float
    velocity_y: float
    radius: float
    amplitude: float
    life: float
    contrast: float
    moisture: float

    def offset(self, x: Array, y: Array, time: float) -> tuple[Array, Array]:
        """Distance from the centre [m] at ``time`` [h]."""
        seconds = 3600 * (time - self.time)
        return x - self.x - self.velocity_x * seconds, y - self.y - self.velocity_y * seconds

    def strength(self, time: float) -> float:
        """Life cycle, 0 to 1."""
        return float(np.exp(-0.5 * ((time - self.time) / self.life) ** 2))


class LargeScale:
    """The large-scale weather of one week.

    Parameters
    ----------
    monday : start of the week (00 UTC); with the seed it fixes everything
    """

    def __init__(self, domain: Domain, config: NatureRunConfig, monday: np.datetime64) -> None:
        coarse = domain.coarse
        grid = Grid(_extended(coarse.x), _extended(coarse.y), coarse.crs)
        x, y = np.meshgrid(grid.x, grid.y)
        self.x: Array = x - x.mean()
        self.y: Array = y - y.mean()
        self.latitude: Array = grid.latitude
        self.coriolis: Array = 2 * EARTH_ROTATION * np.sin(np.deg2rad(self.latitude))
        self.spacing = (grid.dx, grid.dy)
        self.config = config
        self.monday = monday.astype("datetime64[s]")
        self.week = int((monday.astype("datetime64[D]") - np.datetime64("0001-01-01")).astype(int))
        rng = generator(config.seed, 1, self.week)
        self.strength = 0.72 + 0.28 * season(self.day_of_year(84.0), 20)
        self.anomaly = float(rng.normal(0, 1.5))
        self.trend = float(rng.normal(0, 0.8))
        self.pressure_level = float(101600 + rng.normal(0, 350) + 200 * self.strength)
        self.wave_phase = float(rng.uniform(0, 2 * np.pi))
        self.wave_length = float(rng.uniform(2.2e6, 3.6e6))
        self.wave_speed = float(rng.uniform(3, 9))
        self.sst_anomaly = float(rng.normal(0, 0.5))
        self.systems = [self._system(rng) for _ in range(config.pressure_systems)]
        finest = 2.6 * max(self.spacing)
        self._mesoscale = BandNoise(x.shape, self.spacing[::-1], finest, 6 * finest)
        self._vortices = BandNoise(x.shape, self.spacing[::-1], finest, 6 * finest, slope=-14 / 3)

    def day_of_year(self, hour: float) -> float:
        """Day of the year, from 0, of an hour of the week."""
        instant = self.monday + np.timedelta64(round(hour * 3600), "s")
        return float((instant - instant.astype("datetime64[Y]")) / np.timedelta64(1, "D"))

    def _system(self, rng: np.random.Generator) -> PressureSystem:
        low = rng.uniform() < 0.62
        size = rng.uniform(0.5, 1.2) * self.strength
        return PressureSystem(
            x=float(rng.uniform(-7e5, 7e5)),
            y=float(rng.uniform(-4e5, 9e5) if low else rng.uniform(-6e5, 6e5)),
            time=float(rng.uniform(-15, 185)),
            velocity_x=float(rng.uniform(5, 12)),
            velocity_y=float(rng.normal(-1.5, 2.5)),
            radius=float(rng.uniform(2.6e5, 5.5e5) if low else rng.uniform(5e5, 9e5)),
            amplitude=float(-self.config.low_depth * size if low else 900 * size),
            life=float(rng.uniform(22, 45)),
            contrast=float(self.config.front_contrast * size if low else 0.0),
            moisture=float(0.3 * size if low else -0.15),
        )

    def start(self, hour: float) -> tuple[Tensor, Tensor]:
        """Mesoscale noise and stream function at the first hour of the spin-up, unit variance."""
        rng = generator(self.config.seed, 2, self.week, round(hour) + 1000)
        return self._mesoscale.draw(rng), self._vortices.draw(rng)

    def next_mesoscale(self, state: tuple[Tensor, Tensor], hour: float) -> tuple[Tensor, Tensor]:
        """The mesoscale fields one hour later, at ``hour`` of the week."""
        rng = generator(self.config.seed, 2, self.week, round(hour) + 1000)
        return (
            remember(state[0], self._mesoscale.draw(rng), 1.0, 5.0),
            remember(state[1], self._vortices.draw(rng), 1.0, 7.0),
        )

    def at(self, hour: float, mesoscale: tuple[Tensor, Tensor]) -> Weather:
        """All large-scale fields at an hour of the week (negative during the spin-up).

        The wind is geostrophic, ``(u, v) = (-dp/dy, dp/dx) / (rho f)``, softly limited at 28 m/s; the
        temperature carries the systems' fronts and follows the wave's meridional wind.
        """
        x, y, config = self.x, self.y, self.config
        day = self.day_of_year(hour)
        winter = season(day, 20)
        k = 2 * np.pi / self.wave_length
        phase = k * (x + 0.35 * y - self.wave_speed * 3600 * hour) + self.wave_phase
        pressure = self.pressure_level + 480 * self.strength * np.cos(phase) - 3.5e-4 * self.strength * y
        temperature = (
            seasonal_temperature(self.latitude, day)
            + self.anomaly
            + self.trend * (hour / 84 - 1)
            - 2.0 * self.strength * np.sin(phase)
        )
        humidity = 0.67 + 0.06 * winter - 0.06 * np.cos(phase)
        ascent = -0.012 * self.strength * np.sin(phase)
        for system in self.systems:
            east, north = system.offset(x, y, hour)
            grown = system.strength(hour)
            radius = system.radius
            shape = np.exp(-0.5 * (east**2 + north**2) / radius**2)
            wide = np.exp(-0.5 * (east**2 + north**2) / (1.6 * radius) ** 2)
            pressure = pressure + system.amplitude * grown * shape
            humidity = humidity + system.moisture * grown * wide
            if system.contrast:
                front = cold_front(east, north, radius)
                south = 1 / (1 + np.exp(north / (0.15 * radius)))
                sharp = np.tanh(front / config.front_width) * south
                smooth = np.tanh(east / (0.8 * radius)) * (1 - south)
                temperature = temperature + system.contrast * grown * wide * (sharp + 0.8 * smooth)
                band = np.exp(-0.5 * ((front - 20e3) / 45e3) ** 2) * south * wide * grown
                humidity = humidity + 0.22 * band
                ascent = ascent + grown * (0.05 * band + 0.03 * shape * east / radius)
        dx, dy = self.spacing
        p_x, p_y = (part.numpy().astype(float) for part in gradient(torch.from_numpy(pressure), dx, dy))
        wind_x, wind_y = -p_y / (AIR_DENSITY * self.coriolis), p_x / (AIR_DENSITY * self.coriolis)
        limit = 1 / np.sqrt(1 + (wind_x**2 + wind_y**2) / 28.0**2)
        stability = np.tanh((pressure - 101500) / 900)
        lapse_rate = (
            6.1 - 0.7 * stability * (0.6 + 0.4 * winter) - 0.5 * winter + 12 * ascent.clip(-0.02, 0.02)
        )
        sst = sea_surface_temperature(self.latitude, day) + self.sst_anomaly
        noise, stream = mesoscale
        stream_x, stream_y = gradient(stream, dx, dy)
        vortex = config.mesoscale_wind * np.sqrt(2) / self._vortices.mean_wavenumber
        return Weather(
            pressure=as_tensor(pressure),
            wind_x=as_tensor(wind_x * limit),
            wind_y=as_tensor(wind_y * limit),
            temperature=as_tensor(temperature),
            humidity=as_tensor(humidity.clip(0.15, 1.02)),
            ascent=as_tensor(ascent),
            lapse_rate=as_tensor(lapse_rate),
            stability=as_tensor(stability),
            sst=as_tensor(sst),
            vortex_x=-vortex * stream_y,
            vortex_y=vortex * stream_x,
            mesoscale=noise,
        )


def cold_front(east: Array, north: Array, radius: float) -> Array:
    """Distance east of the cold front that trails south-westwards from a low [m].

    The front is the parabola ``east = 0.15 R - 0.25 s - 0.2 s^2 / R`` with ``s`` the distance south of the
    centre and ``R`` the radius, a common sketch of the polar-front cyclone (Bjerknes and Solberg 1922).
    """
    south = np.minimum(north, 0.0)
    return east - 0.15 * radius + 0.25 * np.abs(south) + 0.2 * south**2 / radius


def _extended(values: Array) -> Array:
    step = values[1] - values[0]
    return np.concatenate(
        [values[0] - step * np.arange(MARGIN, 0, -1), values, values[-1] + step * np.arange(1, MARGIN + 1)]
    )
