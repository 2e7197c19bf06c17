"""The model: one ISO week of weather, hour by hour.

State, tendencies, step. The prognostic fields are the air mass (sea-level temperature, humidity), carried by
the wind above the boundary layer; the boundary layer's temperature excess and the eddies' temperature,
carried by the wind in it; and the ground's memory (surface layer, cold pools, snow), which stays in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from core.data.nature_run import moisture, surface
from core.data.nature_run.coarse import CoarseErrors, FineFields, coarse_fields, earth_relative
from core.data.nature_run.config import NatureRunConfig
from core.data.nature_run.large_scale import LargeScale, Weather
from core.data.nature_run.noise import BandNoise, generator, remember
from core.data.nature_run.terrain import Terrain, gradient
from core.data.nature_run.wind import Transport, Wind, winds
from core.domain import Grid
from core.variables import PREDICTORS, TARGETS, VARIABLES

HOUR = np.timedelta64(3600, "s")
HOURS_OF_WEEK = 168


@dataclass(frozen=True)
class State:
    """Prognostic fields, tensors (H, W).

    air_mass: sea-level temperature [K]; humidity: specific, at sea level [kg/kg]; excess: of the boundary
    layer over the air mass [K]; eddy: eddy temperature [K]; skin: of the surface layer over the boundary
    layer [K]; cold_pool [K]; snow: water equivalent [m]; stream, stir: unit noise of the eddies;
    mesoscale: noise on the coarse grid; errors: of the coarse model.
    """

    air_mass: Tensor
    humidity: Tensor
    excess: Tensor
    eddy: Tensor
    skin: Tensor
    cold_pool: Tensor
    snow: Tensor
    stream: Tensor
    stir: Tensor
    mesoscale: tuple[Tensor, Tensor]
    errors: Tensor


@dataclass(frozen=True)
class Output:
    """An hour on the fine and the coarse grid, tensors by variable name, SI units."""

    fine: dict[str, Tensor]
    coarse: dict[str, Tensor]


def monday_of(time: np.datetime64) -> np.datetime64:
    """Monday 00 UTC of the ISO week that holds ``time``."""
    day = time.astype("datetime64[D]")
    # 1970-01-01 was a Thursday.
    weekday = (int(day.astype(int)) + 3) % 7
    monday: np.datetime64 = (day - np.timedelta64(weekday, "D")).astype("datetime64[s]")
    return monday


class Episode:
    """One week of weather over a domain; a pure function of config, terrain and Monday's date."""

    def __init__(self, terrain: Terrain, config: NatureRunConfig, monday: np.datetime64) -> None:
        self.terrain = terrain
        self.config = config
        self.monday = monday.astype("datetime64[s]")
        domain = terrain.domain
        grid = domain.fine
        self.large_scale = LargeScale(domain, config, monday)
        self.transport = Transport(grid.shape, grid.dx, grid.dy)
        self._errors = CoarseErrors(terrain, config, self.large_scale.week)
        # Eddies live between what the fine grid can carry and what the coarse grid can see.
        cell = max(grid.dx, grid.dy)
        self._eddies = BandNoise(grid.shape, (grid.dy, grid.dx), 2.4 * cell, 0.7 * domain.ratio * cell, -2.0)
        self._stream = BandNoise(grid.shape, (grid.dy, grid.dx), 2.8 * cell, 0.7 * domain.ratio * cell, -4.0)

    # ---------------------------------------------------------------- running

    def run(self, wanted: set[int]) -> Iterator[tuple[int, Output | None]]:
        """Simulate from the start of the spin-up to the last of the ``wanted`` hours of the week (0-167).

        Yields (hour, output) after every simulated hour; the output is None where it is not wanted, so that
        a caller can follow the spin-up.
        """
        first = -self.config.spin_up
        state = self.start(first)
        for hour in range(first + 1, max(wanted) + 1):
            weather = self.large_scale.at(hour, state.mesoscale)
            state, output = self.step(state, weather, hour, hour in wanted)
            yield hour, output

    def start(self, hour: int) -> State:
        """A state at rest with the large-scale weather, before the spin-up."""
        terrain = self.terrain
        mesoscale = self.large_scale.start(hour)
        weather = self.large_scale.at(hour, mesoscale).on_fine(terrain.domain.ratio)
        zero = torch.zeros_like(terrain.height)
        rng = generator(self.config.eddies, 4, self.large_scale.week, hour + 1000)
        air_mass = weather.temperature + 0.8 * weather.mesoscale
        return State(
            air_mass=air_mass,
            humidity=weather.humidity * moisture.saturation_humidity(air_mass),
            excess=(1 - terrain.land) * sea_excess(weather.sst, air_mass),
            eddy=zero,
            skin=zero,
            cold_pool=zero,
            snow=surface.snow_climatology(
                weather.temperature,
                weather.lapse_rate,
                self.large_scale.day_of_year(0),
                terrain.height,
                terrain.land,
            ),
            stream=self._stream.draw(rng),
            stir=self._eddies.draw(rng),
            mesoscale=mesoscale,
            errors=self._errors.start(hour),
        )

    def instant(self, hour: float) -> np.datetime64:
        """UTC time of an hour of the week."""
        time: np.datetime64 = self.monday + np.timedelta64(round(hour * 3600), "s")
        return time

    def step(
        self, state: State, coarse_weather: Weather, hour: int, wanted: bool
    ) -> tuple[State, Output | None]:
        """Advance the state to ``hour`` of the week under the large scale of that hour."""
        terrain, config = self.terrain, self.config
        weather = coarse_weather.on_fine(terrain.domain.ratio)
        rng = generator(config.eddies, 4, self.large_scale.week, hour + 1000)
        fresh = torch.stack([self._stream.draw(rng), self._eddies.draw(rng)])

        breeze = torch.hypot(weather.wind_x, weather.wind_y)
        regime = eddy_regime(breeze, state.excess, terrain)
        surface_excess = state.excess.clamp(-4, 6) * terrain.land + state.skin - state.cold_pool
        wind = winds(weather, terrain, state.excess, surface_excess)
        speed = torch.hypot(wind.x10, wind.y10)

        lift = (wind.air_x * terrain.slope_x + wind.air_y * terrain.slope_y).clamp(-0.5, 0.5)
        step_hours = config.time_step / 3600
        steps = round(1 / step_hours)
        calm = torch.exp(-((speed / 4.5) ** 2))
        rain, radiation = torch.zeros_like(speed), torch.zeros_like(speed)
        snow_share = surface.snow_cover(state.snow)
        instability = convection_potential(state.excess, weather, terrain)
        saturation = moisture.saturation_humidity(state.air_mass)
        longwave = calm
        sunshine = radiation
        for index in range(steps):
            time = self.instant(hour - 1 + (index + 0.5) * step_hours)
            gust_x, gust_y = self._eddy_wind(state.stream, regime)
            path = self.transport.departure(wind.air_x + gust_x, wind.air_y + gust_y, config.time_step)
            air_mass, humidity = self.transport.carry(torch.stack([state.air_mass, state.humidity]), path)
            # The eddies' own noise drifts with the flow, else it would comb the fields it stirs.
            path = self.transport.departure(
                wind.boundary_x + gust_x, wind.boundary_y + gust_y, config.time_step
            )
            excess, eddy, stream, stir = self.transport.carry(
                torch.stack([state.excess, state.eddy, state.stream, state.stir]), path
            )
            # Repeating the rim's value would bring in long streaks that are no eddies.
            outside = self.transport.inflow(path)
            eddy = eddy.masked_fill(outside, 0.0)
            stream, stir = torch.where(outside, fresh, torch.stack([stream, stir]))
            stream = remember(stream, fresh[0], step_hours, config.eddy_memory)
            stir = remember(stir, fresh[1], step_hours, config.eddy_memory)

            # Clouds: grid-scale humidity, raised by ascent over fronts and windward slopes.
            ascent = weather.ascent + 0.25 * lift
            relative = humidity / saturation + 1.5 * weather.ascent + 0.25 * lift + 0.06 * weather.mesoscale
            cloud = moisture.cloud_cover(relative)
            direction = surface.sun(time, terrain.latitude, terrain.longitude)
            flat = surface.clear_sky(direction[2]) * surface.cloud_transmission(cloud)
            sunshine = flat * surface.slope_factor(direction, terrain, cloud)
            dryness = (1.25 - 25 * humidity).clamp(0.6, 1.15)
            longwave = (1 - 0.8 * cloud) * dryness
            radiation = radiation + flat * config.time_step

            rain_rate = moisture.precipitation_rate(
                relative,
                ascent,
                humidity,
                moisture.convective_rain(instability, stream + 0.7 * weather.mesoscale, relative),
            )
            rain = rain + rain_rate * step_hours

            air_mass = self._air_mass(air_mass, weather, step_hours)
            humidity = self._humidity(humidity, weather, saturation, rain_rate, step_hours)
            excess = surface.boundary_layer(
                excess,
                sunshine,
                longwave,
                speed,
                sea_excess(weather.sst, air_mass),
                terrain,
                snow_share,
                config,
                step_hours,
            )
            growth = (2 / config.eddy_memory) * step_hours
            eddy = eddy * float(np.exp(-step_hours / config.eddy_memory)) + growth * regime * stir * (
                0.8 * config.eddy_temperature
            )
            state = replace(
                state,
                air_mass=air_mass,
                humidity=humidity,
                excess=excess,
                eddy=eddy,
                stream=stream,
                stir=stir,
                skin=surface.surface_layer(
                    state.skin, sunshine, longwave, calm, terrain, snow_share, config, step_hours
                ),
                cold_pool=surface.cold_pool(
                    state.cold_pool, sunshine, longwave, calm, terrain, config, step_hours
                ),
            )

        t2m = temperature_2m(state, weather, terrain, snow_share, lift)
        frozen = torch.sigmoid((274.3 - t2m) / 0.7)
        state = replace(
            state,
            snow=surface.melt(state.snow, t2m, 1e-3 * rain * frozen * terrain.land, 1.0),
            mesoscale=self.large_scale.next_mesoscale(state.mesoscale, hour),
            errors=self._errors.next(state.errors, hour),
        )
        if not wanted:
            return state, None
        return state, self._output(
            state, coarse_weather, weather, wind, regime, t2m, rain, radiation, longwave, calm, sunshine
        )

    # ---------------------------------------------------------------- tendencies

    def _eddy_wind(self, stream: Tensor, regime: Tensor) -> tuple[Tensor, Tensor]:
        """Wind of the eddies, free of divergence [m/s]: the curl of a stream function."""
        grid = self.terrain.domain.fine
        size = self.config.eddy_wind * float(np.sqrt(2)) / self._stream.mean_wavenumber
        x, y = gradient(size * regime * stream, grid.dx, grid.dy)
        return -y, x

    def _air_mass(self, air_mass: Tensor, weather: Weather, hours: float) -> Tensor:
        """Relaxation to the seasonal state, fast at the rim where the large scale enters; cloud heating."""
        config = self.config
        rate = 1 / config.air_mass_relaxation + 1.5 * self.terrain.edge
        heated = air_mass + config.mesoscale_heating * weather.mesoscale * hours
        outside = weather.temperature + 0.5 * weather.mesoscale * self.terrain.edge
        return outside + (heated - outside) * torch.exp(-rate * hours)

    def _humidity(
        self, humidity: Tensor, weather: Weather, saturation: Tensor, rain_rate: Tensor, hours: float
    ) -> Tensor:
        """Relaxation to the large scale, evaporation from the sea, loss by rain [kg/kg]."""
        rate = 1 / 14 + 1.5 * self.terrain.edge
        target = weather.humidity * saturation
        moist = target + (humidity - target) * torch.exp(-rate * hours)
        sea = 0.75 * moisture.saturation_humidity(weather.sst)
        moist = moist + (1 - self.terrain.land) * (sea - moist).clamp(min=0) * (hours / 24)
        # 1 mm of rain takes 0.1 g/kg out of a layer of 1 km.
        return (moist - 1e-4 * rain_rate * hours).clamp(min=2e-4)

    # ---------------------------------------------------------------- output

    def _output(
        self,
        state: State,
        coarse_weather: Weather,
        weather: Weather,
        wind: Wind,
        regime: Tensor,
        t2m: Tensor,
        rain: Tensor,
        radiation: Tensor,
        longwave: Tensor,
        calm: Tensor,
        sunshine: Tensor,
    ) -> Output:
        terrain = self.terrain
        gust_x, gust_y = self._eddy_wind(state.stream, regime)
        u10, v10 = earth_relative(
            wind.x10 + gust_x, wind.y10 + gust_y, terrain.cos_rotation, terrain.sin_rotation
        )
        near_surface = state.humidity * torch.exp(-terrain.height / 2600)
        pressure = weather.pressure * torch.exp(-terrain.height / 8400)
        d2m = torch.minimum(moisture.dew_point(near_surface, pressure), t2m)
        fine = FineFields(
            t2m=t2m,
            cold_pool=state.cold_pool,
            skin=state.skin,
            d2m=d2m,
            u10=u10,
            v10=v10,
            tp=1e-3 * rain,
            ssrd=radiation,
            snow=state.snow,
            excess=state.excess,
            air_mass=state.air_mass,
            humidity=state.humidity,
            lapse_rate=weather.lapse_rate,
            longwave=longwave,
            calm=calm,
            sunshine=sunshine,
        )
        coarse = coarse_fields(fine, coarse_weather.on_coarse(), terrain, state.errors, self.config)
        return Output(
            fine={"t2m": t2m, "u10": u10, "v10": v10, "tp": fine.tp},
            coarse={name: coarse[name] for name in PREDICTORS},
        )


def sea_excess(sst: Tensor, air_mass: Tensor) -> Tensor:
    """Excess of marine air over the air mass [K]: it follows the sea to four fifths."""
    return (0.8 * (sst - air_mass)).clamp(-7, 7)


def eddy_regime(breeze: Tensor, excess: Tensor, terrain: Terrain) -> Tensor:
    """Strength of the unresolved eddies relative to a neutral breeze over a plain.

    Wind over steep land makes gravity waves and rotors, heated land convection, cold stable land little;
    the sea is calmer. Smooth in space, so that eddies stay small-scale.
    """
    rough = (terrain.steepness / 0.06).clamp(0, 2)
    convection = (excess / 4).clamp(-0.5, 1.2)
    land = terrain.land * (0.45 + 0.35 * convection) + 0.3 * rough
    return (0.4 + 0.02 * breeze + land).clamp(0.3, 2.2)


def convection_potential(excess: Tensor, weather: Weather, terrain: Terrain) -> Tensor:
    """How ready heated land is for showers [1]: boundary-layer excess, relief, cyclonic air."""
    heated = (excess / 4).clamp(0, 1.5) * terrain.land
    return heated * (0.55 + 2.5 * terrain.steepness.clamp(0, 0.2)) * (1 - 0.6 * weather.stability)


def temperature_2m(state: State, weather: Weather, terrain: Terrain, snow: Tensor, lift: Tensor) -> Tensor:
    """The diagnosed 2-metre temperature [K].

    ``T = theta - gamma z + D + S - C + eddies + lifting``: air mass at the height of the surface, boundary
    layer, surface layer, cold pool; air forced up a slope for a quarter of an hour cools dry-adiabatically
    (9.8 K/km), lee air warms; over melting snow the excess over 1 degree Celsius is halved.
    """
    aloft = 1 - 0.25 * (terrain.height / 2500).clamp(0, 1)
    t2m = (
        state.air_mass
        - 1e-3 * weather.lapse_rate * terrain.height
        + aloft * state.excess
        + state.skin
        - state.cold_pool
        + state.eddy
        - 1e-3 * (9.8 - weather.lapse_rate) * 900 * lift
    )
    return t2m - 0.5 * snow * (t2m - 274.15).clamp(min=0)


def to_dataset(
    fields: list[dict[str, Tensor]], times: list[np.datetime64], grid: Grid, names: tuple[str, ...]
) -> xr.Dataset:
    """Hours as a dataset (time, y, x), float32 with CF attributes."""
    return xr.Dataset(
        {
            name: (
                ("time", "y", "x"),
                np.stack([hour[name].numpy() for hour in fields]).astype(np.float32, copy=False),
                VARIABLES[name].attrs,
            )
            for name in names
        },
        coords={"time": np.asarray(times, "datetime64[ns]"), "y": grid.y, "x": grid.x},
    )


__all__ = ["HOURS_OF_WEEK", "PREDICTORS", "TARGETS", "Episode", "Output", "State", "monday_of", "to_dataset"]
