"""Fields as whole numbers of 16 bits: half the size of float32, and far smaller when compressed.

CF-1.11, section 8.1: value = packed * scale_factor + add_offset. Programs that know CF (xarray, CDO, NCO,
GDAL) unpack by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.downscale.base import DownscaleError
from core.variables import VARIABLES

MISSING = -32768
LARGEST = 32767


@dataclass(frozen=True)
class Packing:
    """How a variable is packed, in its units; ``MISSING`` stands for NaN."""

    scale_factor: float
    add_offset: float

    @property
    def error(self) -> float:
        """The largest difference between a value and what is read back."""
        return self.scale_factor / 2

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value that can be held."""
        half = LARGEST * self.scale_factor
        return self.add_offset - half, self.add_offset + half

    @property
    def attrs(self) -> dict[str, float]:
        """CF attributes, without the one for missing values."""
        return {"scale_factor": self.scale_factor, "add_offset": self.add_offset}


PACKINGS: dict[str, Packing] = {
    "t2m": Packing(scale_factor=0.0025, add_offset=260.0),
    "u10": Packing(scale_factor=0.004, add_offset=0.0),
    "v10": Packing(scale_factor=0.004, add_offset=0.0),
    # No offset: dry stays exactly dry. Up to 327 mm in an hour, in steps of a hundredth of a millimetre.
    "tp": Packing(scale_factor=1e-5, add_offset=0.0),
}
"""By short name of the target; the limits lie beyond what has been observed near the ground."""


def pack(name: str, values: NDArray[np.float32]) -> NDArray[np.int16]:
    """The whole numbers that stand for values of a variable.

    Raises DownscaleError where a value lies beyond the limits of its packing, or is infinite: it would come
    back as another one.
    """
    packing = PACKINGS[name]
    whole = np.rint((values.astype(np.float64) - packing.add_offset) / packing.scale_factor)
    beyond = np.abs(whole) > LARGEST
    if beyond.any():
        low, high = packing.limits
        units = VARIABLES[name].units
        raise DownscaleError(
            f"{VARIABLES[name].long_name} ({name}) reaches {values[beyond][0]:.6g} {units}; packed fields "
            f"hold values from {low:.4g} to {high:.4g} {units}. Write the fields without packing."
        )
    missing = np.isnan(whole)
    whole[missing] = MISSING
    return whole.astype(np.int16)


def unpack(name: str, packed: NDArray[np.int16]) -> NDArray[np.float32]:
    """The values that whole numbers stand for, NaN where they are missing."""
    packing = PACKINGS[name]
    values = packed * packing.scale_factor + packing.add_offset
    values[packed == MISSING] = np.nan
    return values.astype(np.float32)
