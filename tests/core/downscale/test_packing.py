"""Packing: precision, limits, missing values."""

import numpy as np
import pytest

from core.downscale import DownscaleError
from core.downscale.packing import MISSING, PACKINGS, pack, unpack
from core.variables import TARGETS, VARIABLES


@pytest.mark.parametrize(("name", "error"), [("t2m", 0.002), ("u10", 0.003), ("v10", 0.003), ("tp", 6e-6)])
def test_values_come_back_within_the_stated_precision(name: str, error: float) -> None:
    low, high = PACKINGS[name].limits
    values = np.linspace(low, high, 200_001, dtype=np.float64)[1:-1].astype(np.float32)
    back = unpack(name, pack(name, values)).astype(np.float64)
    stated = PACKINGS[name].error
    assert stated <= error
    # Half a unit in the last place of float32 comes on top.
    assert np.abs(back - values).max() <= stated + np.spacing(np.float32(max(abs(low), abs(high))))


def test_every_target_has_a_packing_for_its_weather() -> None:
    assert set(PACKINGS) == set(TARGETS)
    for name in ("t2m", "u10", "v10"):
        low, high = PACKINGS[name].limits
        assert low <= VARIABLES[name].valid_range[0]
        assert high >= VARIABLES[name].valid_range[1]
    # The largest hourly sum ever observed is about 305 mm.
    assert PACKINGS["tp"].limits[1] > 0.305


def test_dry_stays_dry_and_missing_stays_missing() -> None:
    values = np.array([0.0, np.nan, 1e-5, 4e-6], np.float32)
    assert pack("tp", values).tolist() == [0, MISSING, 1, 0]
    back = unpack("tp", pack("tp", values))
    assert back[0] == 0
    assert np.isnan(back[1])


@pytest.mark.parametrize("value", [341.92, 178.08, np.inf, -np.inf])
def test_values_beyond_the_limits_are_refused(value: float) -> None:
    assert pack("t2m", np.array([341.917, 178.083], np.float32)).tolist() == [32767, -32767]
    with pytest.raises(DownscaleError, match=r"2 metre temperature \(t2m\) reaches .* 178.1 to 341.9 K"):
        pack("t2m", np.array([280.0, value], np.float32))
