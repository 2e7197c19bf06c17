"""Files in the layout of the published data set, made from a store of ours.

The layout is described in :mod:`core.data.published_files`; the tables of outputs are pandas rows with
tensors.
"""

from __future__ import annotations

import csv
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import torch
import xarray as xr
import zstandard

from core.data.nature_run import NatureRunConfig, write_nature_run
from core.data.published_files import TRUTH_FILES
from core.data.published_static import FILES
from core.data.statics import load_italy_static
from core.data.store import Store
from core.domain import Domain, Grid
from core.variables import VARIABLES

HOURS = np.array(
    ["2014-12-28T03", "2014-12-28T12", "2016-05-02T11", "2016-05-02T12"], dtype="datetime64[h]"
).astype("datetime64[ns]")
"""Hours of both days that the appendix of the paper shows."""

Statistics = dict[str, dict[str, dict[str, float]]]


def corsica() -> tuple[Domain, xr.Dataset]:
    """96 x 64 cells of Corsica and the sea around it, and its static fields."""
    static = load_italy_static().isel(y=slice(290, 386), x=slice(140, 204))
    domain = Domain.regular(
        "Corsica", left=float(static.x[0]), top=float(static.y[0]), shape=(96, 64), spacing=2000.0, ratio=8
    )
    return domain, static


def nature_run(path: Path, hours: np.ndarray = HOURS) -> Store:
    """A store of synthetic weather over Corsica; seconds."""
    domain, static = corsica()
    return write_nature_run(path, domain, static, NatureRunConfig(spin_up=2), hours)


def statistics_of(store: Store) -> Statistics:
    """Mean and standard deviation over all hours of a store, by the published names."""
    groups = {"ERA5": store.read_coarse()[list(store.contents.predictors)]}
    if store.contents.targets:
        groups["CMCC"] = store.read_fine()
    found: Statistics = {}
    for source, data in groups.items():
        values = {VARIABLES[str(name)].published_name: field.values for name, field in data.items()}
        found[source] = {
            "mean": {name: float(np.nanmean(v, dtype=np.float64)) for name, v in values.items()},
            "std": {name: float(np.nanstd(v, dtype=np.float64)) or 1.0 for name, v in values.items()},
        }
    return found


def scalars(values: Mapping[str, float]) -> dict[str, np.float64]:
    """Statistics as NumPy has them."""
    return {name: np.float64(value) for name, value in values.items()}


def write_layout(
    folder: Path,
    store: Store,
    *,
    statistics: Statistics | None = None,
    wrap: Callable[[Mapping[str, float]], Any] = scalars,
    parts: Sequence[str] = tuple(TRUTH_FILES),
    static: bool = True,
    metadata: bool = True,
    fill_sea: bool = False,
) -> Statistics:
    """Write all hours of a store into a folder in the published layout; gives the statistics used.

    Parameters
    ----------
    statistics : by default those of the store itself
    wrap : what the tables of ``normalization_data.pkl`` are made with, for example ``pandas.Series``
    parts : files of targets
    fill_sea : write -10 instead of NaN where there is no sea
    """
    statistics = statistics or statistics_of(store)
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        source: {which: wrap(values) for which, values in group.items()}
        for source, group in statistics.items()
    }
    (folder / "normalization_data.pkl").write_bytes(pickle.dumps(described))
    rows = []
    for date in np.unique(store.hours.astype("datetime64[D]")):
        hours = store.hours[store.hours.astype("datetime64[D]") == date]
        place = folder / str(date)[:4]
        place.mkdir(exist_ok=True)
        coarse = store.read_coarse(hours)[list(store.contents.predictors)]
        low = _normalised(coarse, statistics["ERA5"], fill_sea)
        write_day(place / f"{date}_low.pt.zst", low)
        if parts:
            fine = store.read_fine(hours)
        for part in parts:
            high = _normalised(fine[list(TRUTH_FILES[part])], statistics["CMCC"], False)
            write_day(place / f"{date}_high_{part}.pt.zst", high)
        for hour in hours:
            time = str(hour.astype("datetime64[s]")).replace("T", " ")
            path = f"{str(date)[:4]}/{date}"
            rows.append([time, f"{path}_low.pt.zst", f"{path}_high.pt.zst", _hour(hour)])
    if metadata:
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ref_time", "files_path_low", "files_path_high", "hour"])
            writer.writerows(rows)
    if static:
        write_static(folder / "static_var", store)
    return statistics


def _hour(stamp: np.datetime64) -> int:
    return int(stamp.astype("datetime64[h]").astype(int) % 24)


def _normalised(data: xr.Dataset, statistics: Mapping[str, Mapping[str, float]], fill_sea: bool) -> Any:
    content: dict[int, dict[str, torch.Tensor]] = {}
    for row, stamp in enumerate(data["time"].values):
        fields = content.setdefault(_hour(stamp), {})
        for name in data.data_vars:
            key = VARIABLES[str(name)].published_name
            values = (data[name].values[row] - statistics["mean"][key]) / statistics["std"][key]
            if fill_sea and key == "SST":
                values = np.nan_to_num(values, nan=-10)
            fields[key] = torch.from_numpy(values.astype(np.float32))
    return content


def write_day(path: Path, content: Any) -> None:
    """A file of a day."""
    plain = io.BytesIO()
    torch.save(content, plain)
    path.write_bytes(zstandard.ZstdCompressor().compress(plain.getvalue()))


def write_static(folder: Path, store: Store) -> None:
    """The three GeoTIFFs."""
    folder.mkdir(parents=True, exist_ok=True)
    static = store.read_static()
    for name, file in FILES.items():
        write_tif(folder / file, static[name].values, store.domain.fine)


def write_tif(path: Path, values: np.ndarray, grid: Grid) -> None:
    """One GeoTIFF with one band or several."""
    bands = values.reshape(-1, *grid.shape).astype(np.float32)
    left, _, _, top = grid.extent
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=grid.shape[0],
        width=grid.shape[1],
        count=len(bands),
        dtype="float32",
        crs=grid.crs,
        transform=rasterio.Affine(grid.dx, 0, left, 0, -grid.dy, top),
    ) as file:
        file.write(bands)


def output_rows(store: Store, models: Mapping[str, float], target: str = "2mT") -> pd.DataFrame:
    """A table as the published ``outputs/*.pkl``: the fields of every model are the truth plus an offset."""
    names = {"2mT": ["t2m"], "UV": ["u10", "v10"]}[target]
    rows = []
    for model, offset in models.items():
        for time in store.hours:
            fine = store.read_fine([time], names)
            fields = {
                VARIABLES[name].published_name: torch.from_numpy(fine[name].values[0] + np.float32(offset))
                for name in names
            }
            if target == "UV":
                fields["WS10"] = torch.hypot(fields["U10"], fields["V10"])
            for variable, field in fields.items():
                rows.append(
                    {
                        "input_var": "all",
                        "target_var": target,
                        "model": model,
                        "variable": variable,
                        "spat_distr": field,
                        "min": np.percentile(field, 0.5),
                        "max": np.percentile(field, 99.5),
                        "time_step": pd.Timestamp(time),
                    }
                )
    return pd.DataFrame(rows)


def pack(folder: Path, archive: Path, *, padding: Mapping[str, int] | None = None) -> Path:
    """A zip archive of a folder, without compression as the published ones; ``padding`` adds zeros."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder.parent))
        for name, size in (padding or {}).items():
            with file.open(f"{folder.name}/{name}", "w") as member:
                for start in range(0, size, 2**20):
                    member.write(bytes(min(2**20, size - start)))
    return archive
