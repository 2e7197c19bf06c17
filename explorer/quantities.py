"""What can be shown: a field in the units people read, with its colours and number format."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.variables import VARIABLES

FloatField = NDArray[np.floating]


@dataclass(frozen=True)
class Quantity:
    """A field made of store variables, shown as ``factor * value + offset``.

    ``needs`` names the variables it is made of (two are the components of a vector, whose length is shown),
    ``signed`` asks for a diverging colour map about zero, ``floor`` is the lowest value of an automatic
    colour range.
    """

    key: str
    label: str
    needs: tuple[str, ...]
    units: str
    difference_units: str
    decimals: int
    palette: str
    factor: float = 1.0
    offset: float = 0.0
    signed: bool = False
    floor: float | None = None

    def compute(self, fields: Mapping[str, FloatField]) -> FloatField:
        """The field in display units, float32, same shape as the ``fields`` in SI units."""
        if len(self.needs) == 2:
            values = np.hypot(*(fields[name] for name in self.needs))
        else:
            values = fields[self.needs[0]]
        return (values * np.float32(self.factor) + np.float32(self.offset)).astype(np.float32, copy=False)

    def available(self, names: Collection[str]) -> bool:
        """Whether everything it needs is among ``names``."""
        return all(name in names for name in self.needs)


def _label(name: str) -> str:
    return VARIABLES[name].long_name.capitalize()


QUANTITIES: dict[str, Quantity] = {
    quantity.key: quantity
    for quantity in (
        Quantity("t2m", _label("t2m"), ("t2m",), "°C", "K", 1, "thermal", offset=-273.15),
        Quantity("wind", "10 metre wind speed", ("u10", "v10"), "m/s", "m/s", 1, "viridis", floor=0.0),
        Quantity("u10", _label("u10"), ("u10",), "m/s", "m/s", 1, "balance", signed=True),
        Quantity("v10", _label("v10"), ("v10",), "m/s", "m/s", 1, "balance", signed=True),
        Quantity("tp", _label("tp"), ("tp",), "mm", "mm", 2, "rain", factor=1000.0, floor=0.0),
    )
}
"""Every quantity the explorer can show, in the order of the selector."""
