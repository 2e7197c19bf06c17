"""Moisture, clouds and precipitation."""

from __future__ import annotations

import torch
from torch import Tensor

SURFACE_PRESSURE = 101325.0


def saturation_pressure(temperature: Tensor) -> Tensor:
    """Saturation vapour pressure over water [Pa] at ``temperature`` [K] (Bolton 1980, eq. 10)."""
    celsius = temperature - 273.15
    return 611.2 * torch.exp(17.67 * celsius / (celsius + 243.5))


def saturation_humidity(temperature: Tensor, pressure: Tensor | float = SURFACE_PRESSURE) -> Tensor:
    """Saturation specific humidity [kg/kg]."""
    vapour = saturation_pressure(temperature)
    return 0.622 * vapour / (pressure - 0.378 * vapour)


def dew_point(humidity: Tensor, pressure: Tensor | float = SURFACE_PRESSURE) -> Tensor:
    """Dew point [K] of a specific humidity [kg/kg] (Bolton 1980, eq. 10 inverted)."""
    vapour = humidity.clamp(min=1e-5) * pressure / (0.622 + 0.378 * humidity)
    logarithm = torch.log(vapour / 611.2)
    return 273.15 + 243.5 * logarithm / (17.67 - logarithm)


def cloud_cover(relative_humidity: Tensor) -> Tensor:
    """Cloud cover [0-1] from relative humidity above 0.62 (Sundqvist et al. 1989, Mon. Wea. Rev. 117)."""
    dryness = ((1 - relative_humidity) / (1 - 0.62)).clamp(0, 1)
    return 1 - torch.sqrt(dryness)


def precipitation_rate(
    relative_humidity: Tensor, ascent: Tensor, humidity: Tensor, convection: Tensor
) -> Tensor:
    """Precipitation [mm/h] from forced ascent of nearly saturated air and from convection.

    The condensation rate of a saturated column is proportional to the ascent times its humidity (Smith 1979);
    convective cells bring up to some 15 mm/h.
    """
    wet = ((relative_humidity - 0.84) / 0.13).clamp(0, 1)
    stratiform = 0.25 + 60 * ascent.clamp(min=0)
    return wet * stratiform * humidity / 6e-3 + convection


def convective_rain(instability: Tensor, eddies: Tensor, relative_humidity: Tensor) -> Tensor:
    """Showers [mm/h] where the heated, moist boundary layer meets strong eddies (unit noise ``eddies``)."""
    moist = ((relative_humidity - 0.45) / 0.35).clamp(0, 1)
    return 3 * instability * moist * (eddies - 1.1).clamp(0, 2.5) ** 1.5
