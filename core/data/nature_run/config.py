"""Parameters of the nature run, each with its unit."""

from __future__ import annotations

from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field

MODEL_VERSION = 2
"""Raised whenever the equations change, so that stores made by different versions can be told apart."""


class NatureRunConfig(BaseModel):
    """What defines the synthetic weather besides the domain; two equal configs give equal weather.

    The same ``seed`` with another ``eddy_seed`` gives the same large-scale weather with other small
    eddies, the part of the fine fields that coarse inputs do not determine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="seed of the large-scale weather")
    eddy_seed: int | None = Field(
        None, ge=0, description="seed of the unresolved eddies; the seed by default"
    )

    time_step: float = Field(1200.0, ge=300, le=1800, description="time step [s]; a divisor of one hour")
    spin_up: int = Field(16, ge=1, le=16, description="hours simulated before each week, not kept")

    pressure_systems: int = Field(8, ge=0, description="travelling lows and highs of a week")
    low_depth: float = Field(1300.0, description="central pressure anomaly of winter lows [Pa]")
    front_contrast: float = Field(3.2, description="half the temperature jump across winter cold fronts [K]")
    front_width: float = Field(30e3, gt=0, description="width of a cold front where it enters [m]")
    air_mass_relaxation: float = Field(24.0, gt=0, description="relaxation to the seasonal state [h]")
    mesoscale_wind: float = Field(1.6, ge=0, description="rms wind of mesoscale vortices, 40-250 km [m/s]")
    mesoscale_heating: float = Field(0.12, ge=0, description="rms heating by mesoscale cloud systems [K/h]")

    eddy_wind: float = Field(0.4, ge=0, description="rms wind of unresolved eddies in a neutral breeze [m/s]")
    eddy_temperature: float = Field(0.32, ge=0, description="rms eddy temperature in a neutral breeze [K]")
    eddy_memory: float = Field(1.5, gt=0, description="e-folding time of the eddies [h]")

    solar_heating: float = Field(2.5e-3, ge=0, description="heating of the boundary layer [K/h per W/m2]")
    night_cooling: float = Field(0.85, ge=0, description="clear-sky cooling of the boundary layer [K/h]")
    boundary_layer_memory: float = Field(
        6.0, gt=0, description="relaxation of the boundary layer in calm [h]"
    )
    skin_amplitude: float = Field(3.5, ge=0, description="surface-layer excess under 700 W/m2 [K]")
    cold_pool_depth: float = Field(
        11.0, ge=0, description="deepest valley cold pool on a clear calm night [K]"
    )

    coarse_orography_width: float = Field(
        1.25, gt=0, description="smoothing of the model orography [coarse cells]"
    )
    coarse_state_width: float = Field(1.0, gt=0, description="smoothing of the coarse state [coarse cells]")
    coarse_lapse_rate: float = Field(6.5, description="the coarse model's own lapse rate [K/km]")
    coarse_surface_share: float = Field(
        0.5, ge=0, le=1, description="share of the surface-layer excess that the coarse model has [1]"
    )
    coarse_layer_share: float = Field(
        0.88, ge=0, le=1, description="share of the boundary-layer excess that the coarse model has [1]"
    )
    coarse_night_bias: float = Field(0.6, description="coarse warm bias on stable nights over land [K]")
    coarse_day_bias: float = Field(0.0, description="coarse cold bias under full sun over land [K]")
    coarse_random_error: float = Field(0.25, ge=0, description="rms random error of coarse temperature [K]")

    @property
    def eddies(self) -> int:
        """The seed that the eddies use."""
        return self.seed if self.eddy_seed is None else self.eddy_seed

    def fingerprint(self, domain: dict[str, object], static: bytes) -> str:
        """Hash of everything that defines the content: equations, parameters, domain and static fields."""
        text = f"{MODEL_VERSION}|{self.model_dump_json()}|{self.eddies}|{sorted(domain.items())}"
        return sha256(text.encode() + static).hexdigest()[:16]
