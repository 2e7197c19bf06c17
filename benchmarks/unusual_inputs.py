"""How often usual hours are called unusual, and foreign ones are: ``python -m benchmarks.unusual_inputs``.

Takes the shipped LDM_res and stores of the nature run. Prints the table of docs/applicability.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from core.assets import shipped_checkpoints
from core.checkpoint import Description, Header, read_header
from core.data.samples import split_hours
from core.data.store import Store
from core.downscale.applicability import TOGETHER, Applicability, check_predictors

CHANGES: dict[str, Callable[[xr.Dataset], dict[str, Any]]] = {
    "as they are": lambda fields: {},
    "t2m 5 K warmer": lambda fields: {"t2m": fields["t2m"] + 5},
    "t2m 10 K warmer": lambda fields: {"t2m": fields["t2m"] + 10},
    "t2m 10 K colder": lambda fields: {"t2m": fields["t2m"] - 10},
    "t2m in degrees Celsius": lambda fields: {"t2m": fields["t2m"] - 273.15},
    "msl in hectopascal": lambda fields: {"msl": fields["msl"] / 100},
    "tp in millimetres": lambda fields: {"tp": fields["tp"] * 1000},
    "u10 and v10 exchanged": lambda fields: {"u10": fields["v10"], "v10": fields["u10"]},
    "one cell of t2m at 400 K": lambda fields: {
        "t2m": fields["t2m"].where(np.arange(fields.sizes["x"]) > 0, 400)
    },
}


def hours_of(store: Store, hours: Any) -> Iterator[xr.Dataset]:
    """The predictors hour by hour."""
    for start in range(0, hours.size, TOGETHER):
        coarse = store.read_coarse(hours[start : start + TOGETHER])
        for position in range(coarse.sizes["time"]):
            yield coarse.isel(time=position)


def main() -> None:
    """Print shares of unusual hours, and the extremes that they are judged by."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("training", type=Path, help="store that the shipped models were trained on")
    parser.add_argument("others", type=Path, nargs="*", help="further stores, taken whole")
    arguments = parser.parse_args()
    header = read_header(shipped_checkpoints() / "ldm-demo.safetensors")
    bare = header.model_copy(update={"description": Description()})
    training = Store.open(arguments.training)
    sets = {
        f"{part} weeks": (training, split_hours(training.hours, part))
        for part in ("train", "validation", "test")
    }
    sets |= {path.name: (store, store.hours) for path in arguments.others for store in [Store.open(path)]}
    for label, (store, hours) in sets.items():
        table, seconds = measure(store, hours, {"recorded": header, "mean and deviation": bare})
        print(f"{label}: {hours.size} hours, {1000 * seconds / hours.size / len(CHANGES) / 2:.2f} ms an hour")
        for change in CHANGES:
            found = [table[change, basis] for basis in ("recorded", "mean and deviation")]
            rates = [f"{sum(bool(a.unusual) for a in one)} of {len(one)}" for one in found]
            checks = [check for one in found[0] for check in one.checks]
            outside, widths, surprise = (
                max(checks, key=key)
                for key in (lambda c: c.outside, lambda c: c.widths, lambda c: abs(c.surprise))
            )
            print(
                f"  {change:26} unusual {rates[0]}, without ranges {rates[1]}; most outside {outside.name} "
                f"{outside.outside:.3f}, widths {widths.name} {widths.widths:.2f}, surprise {surprise.name} "
                f"{abs(surprise.surprise):.1f}"
            )


def measure(
    store: Store, hours: Any, headers: dict[str, Header]
) -> tuple[dict[tuple[str, str], list[Applicability]], float]:
    """Judgements by (change, header) and the time that they took [s]."""
    table: dict[tuple[str, str], list[Applicability]] = {}
    seconds = 0.0
    for fields in hours_of(store, hours):
        for change, make in CHANGES.items():
            inputs = {**fields.data_vars, **make(fields)}
            for basis, header in headers.items():
                begin = time.perf_counter()
                found = check_predictors(header, inputs)  # type: ignore[arg-type]
                seconds += time.perf_counter() - begin
                table.setdefault((change, basis), []).append(found)
    return table, seconds


if __name__ == "__main__":
    main()
