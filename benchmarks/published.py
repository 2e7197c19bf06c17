"""Days of the published data set into a store against the script that one would write.

Both read the same two days in the published layout, on the grids of Italy with 2-metre temperature as truth,
take the values back from their normalised form and write Zarr. The script lets PyTorch load the files and
pickle the statistics, which execute what the files say, checks nothing, and keeps sea surface temperature
over land as the number that it is not.
"""

from __future__ import annotations

import atexit
import io
import pickle
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zstandard

from benchmarks.comparison import Comparison
from core.data.published import ingest
from core.data.statics import load_italy_static
from core.data.store import Store
from core.domain import ITALY
from core.variables import PREDICTORS, VARIABLES
from tests.published_layout import write_layout

DAYS = 2
HOURS = 24 * DAYS
MEANS = {"t2m": (285.0, 8.0), "d2m": (278.0, 6.0), "msl": (101_300.0, 800.0), "sst": (290.0, 3.0)}
FURTHER = {
    "u10": (0.0, 5.0), "v10": (0.0, 5.0), "sd": (0.5, 0.01), "tp": (1e-2, 1e-4), "ssrd": (1e6, 1e4),
    "q850": (5e-3, 5e-4), "t850": (278.0, 6.0), "u850": (5.0, 5.0), "v850": (0.0, 5.0), "w850": (0.0, 0.3),
}  # fmt: skip
COMPARED = "t2m"


def _write(folder: Path) -> Path:
    """Days of noise, by the maker of files in the published layout that the tests have."""
    generator = np.random.default_rng(0)
    times = np.datetime64("2016-05-02", "ns") + np.arange(HOURS) * np.timedelta64(1, "h")
    store = Store.create(
        folder / "noise.zarr",
        ITALY,
        title="noise",
        source="random numbers",
        times=times,
        coarse=PREDICTORS,
        fine=[COMPARED],
        static=load_italy_static(),
        synthetic=True,
        fingerprint="noise",
    )

    def noise(name: str, shape: tuple[int, int]) -> np.ndarray:
        mean, spread = (MEANS | FURTHER)[name]
        return mean + spread * generator.uniform(-1, 1, (HOURS, *shape)).astype(np.float32)

    coarse = {name: noise(name, ITALY.coarse.shape) for name in PREDICTORS}
    store.write(times, coarse, {COMPARED: noise(COMPARED, ITALY.fine.shape)})
    write_layout(folder / "layout", store, parts=["2mT"])
    return folder / "layout"


def _script(folder: Path, out: Path) -> np.ndarray:
    statistics = pickle.loads((folder / "normalization_data.pkl").read_bytes())
    names = {VARIABLES[name].published_name: name for name in PREDICTORS}
    unpack = zstandard.ZstdDecompressor()
    fields: dict[str, list[np.ndarray]] = {}
    times = []
    for low in sorted(folder.glob("*/*_low.pt.zst")):
        date = low.name.partition("_")[0]
        for kind, file, source in (
            ("coarse", low, "ERA5"),
            ("fine", low.with_name(f"{date}_high_2mT.pt.zst"), "CMCC"),
        ):
            day = torch.load(io.BytesIO(unpack.decompress(file.read_bytes())))
            for hour, variables in day.items():
                if kind == "coarse":
                    times.append(np.datetime64(f"{date}T{hour:02}", "ns"))
                for name, values in variables.items():
                    mean, std = statistics[source]["mean"][name], statistics[source]["std"][name]
                    fields.setdefault(f"{kind}_{names[name]}", []).append(values.numpy() * std + mean)
    dataset = xr.Dataset(
        {
            key: (("time", *(f"{axis}_{key.partition('_')[0]}" for axis in "yx")), np.stack(rows))
            for key, rows in fields.items()
        },
        coords={"time": times},
    ).astype(np.float32)
    dataset.to_zarr(out, mode="w", consolidated=False)
    with xr.open_zarr(out, consolidated=False, chunks=None) as found:
        return np.concatenate([found[f"{kind}_{COMPARED}"].values.ravel() for kind in ("coarse", "fine")])


def _ours(folder: Path, out: Path) -> np.ndarray:
    shutil.rmtree(out, ignore_errors=True)
    ingest(folder, out)
    store = Store.open(out)
    read = (store.read_coarse(variables=[COMPARED]), store.read_fine(variables=[COMPARED]))
    return np.concatenate([dataset[COMPARED].values.ravel() for dataset in read])


def comparisons() -> list[Comparison]:
    """Two days, all 14 predictors, one target."""
    folder = Path(tempfile.mkdtemp(prefix="tramontana-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    layout = _write(folder)
    return [
        Comparison(
            f"{HOURS} published hours, 14 predictors and 1 target of Italy, into a store",
            "zstandard, torch.load, numpy, to_zarr",
            lambda: _ours(layout, folder / "ours.zarr"),
            lambda: _script(layout, folder / "script.zarr"),
            tolerance=1e-3,
        )
    ]
