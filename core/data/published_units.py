"""Units of the published variables, told from their statistics.

The published files do not say in which units the values were before they were normalised. ERA5 has SI units;
of the regional model's precipitation, for one, that is not sure. A mean over many hours tells units apart
that differ by a factor of 100 or more, or by 273 K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.data.published_files import PublishedError
from core.data.samples import MeanStd
from core.variables import VARIABLES


@dataclass(frozen=True)
class Unit:
    """A unit that a variable may come in: SI value = ``factor`` * value + ``offset``.

    ``low`` and ``high`` bound the mean that a variable in this unit can have over a region and many hours.
    """

    name: str
    low: float
    high: float
    factor: float = 1.0
    offset: float = 0.0


_TEMPERATURE = (Unit("K", 200, 330), Unit("degree Celsius", -60, 60, offset=273.15))
_WIND = (Unit("m s-1", -60, 60),)
UNITS: dict[str, tuple[Unit, ...]] = {
    "t2m": _TEMPERATURE,
    "d2m": _TEMPERATURE,
    "sst": _TEMPERATURE,
    "t850": _TEMPERATURE,
    "msl": (Unit("Pa", 8e4, 1.1e5), Unit("hPa", 800, 1100, 100.0)),
    "u10": _WIND,
    "v10": _WIND,
    "u850": _WIND,
    "v850": _WIND,
    "w850": (Unit("Pa s-1", -20, 20),),
    # Water equivalent, as all of ERA5's snow depth on single levels.
    "sd": (Unit("m", -1e-3, 5), Unit("mm", 5, 5000, 1e-3)),
    # No region has 2 mm in every hour; 0.002 mm an hour would be 18 mm a year.
    "tp": (Unit("m", -1e-6, 2e-3), Unit("mm", 2e-3, 2, 1e-3)),
    "ssrd": (Unit("W m-2", 5, 1500, 3600.0), Unit("J m-2", -1, 6e6)),
    "q850": (Unit("kg kg-1", -1e-4, 0.05), Unit("g kg-1", 0.05, 50, 1e-3)),
}
"""The units that are known of every variable, the likeliest first where ranges meet."""


def unit_of(name: str, statistics: MeanStd) -> Unit:
    """The unit that a variable with these statistics comes in. Raises PublishedError where none fits."""
    for unit in UNITS[name]:
        if unit.low <= statistics.mean < unit.high:
            return unit
    known = ", ".join(f"{unit.name} ({unit.low:g} to {unit.high:g})" for unit in UNITS[name])
    raise PublishedError(
        f"The mean of {VARIABLES[name].published_name} ({name}) is {statistics.mean:g}, which fits none of "
        "the "
        f"units that are known of it: {known}. Is the file of statistics the one of this data set?"
    )


def to_si(name: str, statistics: MeanStd) -> tuple[MeanStd, Unit]:
    """Mean and deviation in SI units, and the unit they came in: normalised * std + mean is in SI units
    then."""
    unit = unit_of(name, statistics)
    converted = MeanStd(mean=statistics.mean * unit.factor + unit.offset, std=statistics.std * unit.factor)
    return converted, unit


def notes(units: Mapping[str, Unit]) -> list[str]:
    """Sentences about variables that came in other units than the store has."""
    return [
        f"{VARIABLES[name].published_name} comes in {unit.name}, judged by its mean; the store has "
        f"{VARIABLES[name].units}."
        for name, unit in units.items()
        if (unit.factor, unit.offset) != (1.0, 0.0)
    ]
