"""What the tests of downscalers share."""

import numpy as np
import xarray as xr

from core.domain import Domain
from core.downscale import Downscaler, interpolations
from core.variables import VARIABLES
from tests.synthetic_store import DOMAIN

OTHER = Domain.regular("Elsewhere", left=4.2e6, top=2.5e6, shape=(64, 64), spacing=2000.0, ratio=8)


def by_key(key: str) -> Downscaler:
    return next(downscaler for downscaler in interpolations() if downscaler.key == key)


def check_form(result: xr.Dataset, coarse: xr.Dataset, domain: Domain = DOMAIN) -> None:
    assert (result["time"].values == coarse["time"].values).all()
    assert domain.fine.matches(result["x"].values, result["y"].values)
    for name, field in result.items():
        assert field.dims == ("time", "y", "x")
        assert field.dtype == np.float32
        assert field.attrs == VARIABLES[str(name)].attrs
