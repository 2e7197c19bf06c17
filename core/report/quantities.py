"""Values as labels show them: temperature in degrees Celsius, its differences in kelvin, rain in mm."""

from __future__ import annotations

import xarray as xr

from core.report.contents import target_units
from core.text import units_text


def shown_value(field: xr.DataArray, target: str) -> xr.DataArray:
    """Values of a target in the units of :func:`value_units`."""
    return field - 273.15 if target_units(target) == "K" else shown_difference(field, target)


def shown_difference(field: xr.DataArray, target: str) -> xr.DataArray:
    """Differences, errors and spreads of a target in the units of :func:`difference_units`."""
    return field * 1e3 if target == "tp" else field


def value_units(target: str) -> str:
    """Units of values as text, empty where they are not known."""
    return "°C" if target_units(target) == "K" else difference_units(target)


def difference_units(target: str) -> str:
    """Units of differences as text, empty where they are not known."""
    return "mm" if target == "tp" else units_text(target_units(target))


def bracketed(name: str, units: str) -> str:
    """``"name [units]"``, or the name alone without units."""
    return f"{name} [{units}]" if units else name
