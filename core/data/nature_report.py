"""What a nature run must have, measured: a table of properties with their bands, and one picture.

The bands say what makes the synthetic weather a fair test bed: coarse inputs as hard to downscale as real
ones (published for ERA5 to 2.2 km over Italy: RMSE 2.0 K, R2 about 0.8, bias -0.3 K; Tomasi et al. 2025), a
spectrum like a numerical model's, small eddies that coarse fields do not determine, and temperatures, diurnal
cycles and variances like those of ERA5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pyproj import Transformer

from core.data.nature_run import NatureRunConfig
from core.data.nature_run.run import NatureRunError, by_week, prepare, run_weeks
from core.data.nature_run.terrain import Terrain
from core.domain import Domain
from core.interpolation import quadratic
from core.metrics.deterministic import bias, r2, rmse
from core.metrics.spectra import ralsd, spectral_slope

Array = NDArray[np.float64]

DAYS = ("2016-01-04", "2016-04-18", "2016-07-11", "2016-10-17")
"""Mondays sampled, one for each season."""
ERA5_DAYS = ("2022-05-09", "2022-05-23", "2022-06-06", "2022-06-20")
"""Mondays compared with the real sample, which covers May and June 2022."""
EVERY = 3
"""Hours between two sampled times; that of the real sample."""
SLOPE_RANGE = (20e3, 200e3)


@dataclass(frozen=True)
class Row:
    """A measured property and the band it must lie in, both bounds included; ``low`` may be infinite."""

    name: str
    value: float
    low: float
    high: float
    units: str
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the value lies in the band; NaN never does."""
        return bool(self.low <= self.value <= self.high)

    @property
    def formatted_value(self) -> str:
        """The value with its unit, for people."""
        return f"{self.value:.3g}{self._unit}"

    @property
    def formatted_band(self) -> str:
        """The band with its unit, for people."""
        if np.isinf(self.low):
            return f"at most {self.high:g}{self._unit}"
        if self.low == self.high:
            return f"{self.low:g}{self._unit}"
        return f"{self.low:g} to {self.high:g}{self._unit}"

    @property
    def _unit(self) -> str:
        return "" if self.units == "1" else f" {self.units}"


@dataclass(frozen=True)
class Scenes:
    """Fields and curves that the picture shows."""

    fields: dict[str, xr.DataArray] = field(default_factory=dict)
    spectra: dict[str, xr.DataArray] = field(default_factory=dict)
    diurnal: dict[str, Array] = field(default_factory=dict)
    hourly: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All properties of a nature run over one domain; ``skipped`` says in sentences what was not measured."""

    domain: str
    sampled_hours: int
    rows: tuple[Row, ...]
    skipped: tuple[str, ...]
    scenes: Scenes

    @property
    def holds(self) -> bool:
        """Whether every property lies in its band."""
        return all(row.holds for row in self.rows)


def report(
    domain: Domain,
    static: xr.Dataset,
    config: NatureRunConfig,
    *,
    era5_sample: Path | None = None,
    days: Sequence[str] = DAYS,
    every: int = EVERY,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Simulate days of all seasons and measure what the nature run must have.

    Parameters
    ----------
    era5_sample : NetCDF file with real ERA5 ``t2m`` (time, latitude, longitude); without it, or where it
        touches less than a tenth of the coarse cells, the comparison is left out and ``skipped`` says so
    days : dates whose 24 hours are sampled
    every : hours between two samples
    progress : called with (days done, days to do)

    Raises
    ------
    NatureRunError
        where the static fields do not fit the domain.
    """
    terrain = prepare(domain, static, config)
    era5, skipped = load_era5(era5_sample, domain)
    era5_days = () if era5 is None else ERA5_DAYS
    total, done = len(days) + len(days[::2]) + len(era5_days), 0

    def advance() -> None:
        # Work is counted in simulated days; the measurements take a few seconds.
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    sample: list[tuple[xr.Dataset, xr.Dataset]] = []
    for day in days:
        sample.append(simulate_day(terrain, config, day, every))
        advance()
    twin = config.model_copy(update={"eddy_seed": config.eddies + 1})
    twins: list[tuple[xr.Dataset, xr.Dataset]] = []
    for day in days[::2]:
        twins.append(simulate_day(terrain, twin, day, every))
        advance()

    scenes = Scenes()
    rows = [
        *interpolation_properties(sample, domain, scenes),
        *spectral_properties(sample, scenes),
        *eddy_properties(sample[::2], twins, domain, scenes),
        *diurnal_properties(sample, terrain, scenes, skipped),
        *consistency_properties(sample),
    ]
    if era5 is not None:
        synthetic = []
        for day in era5_days:
            synthetic.append(simulate_day(terrain, config, day, 3)[0])
            advance()
        ours = xr.concat(synthetic, "time", data_vars="minimal")
        rows += era5_properties(ours, era5, terrain, skipped)
    hours = sum(coarse.sizes["time"] for coarse, _ in sample)
    return Report(domain.name, hours, tuple(rows), tuple(skipped), scenes)


def simulate_day(
    terrain: Terrain, config: NatureRunConfig, day: str, every: int
) -> tuple[xr.Dataset, xr.Dataset]:
    """Every ``every``-th hour of a day: coarse and fine fields (time, y, x)."""
    times = np.datetime64(day, "ns") + np.arange(0, 24, every) * np.timedelta64(1, "h")
    hours = list(run_weeks(terrain, config, by_week(times)))
    coarse = xr.concat([hour[1] for hour in hours], "time", data_vars="minimal")
    return coarse, xr.concat([hour[2] for hour in hours], "time", data_vars="minimal")


def block_average(values: NDArray[Any], ratio: int) -> NDArray[Any]:
    """Mean over blocks of the last two axes."""
    height, width = values.shape[-2:]
    shape = (*values.shape[:-2], height // ratio, ratio, width // ratio, ratio)
    averaged: NDArray[Any] = values.reshape(shape).mean(axis=(-3, -1))
    return averaged


Sample = Sequence[tuple[xr.Dataset, xr.Dataset]]


def interpolation_properties(sample: Sample, domain: Domain, scenes: Scenes) -> list[Row]:
    """How hard the coarse temperature is to downscale: scores of quadratic interpolation."""
    scores = []
    for coarse, fine in sample:
        truth = fine["t2m"].transpose("time", "y", "x")
        spline = quadratic(coarse["t2m"].transpose("time", "y", "x").values, domain.ratio)
        forecast = truth.copy(data=spline)
        scores.append([metric(forecast, truth).values for metric in (rmse, r2, bias)])
        label = str(coarse["time"].values[0])[:10]
        scenes.hourly[label] = np.asarray(scores[-1][0], np.float64)
    mean = np.concatenate(scores, axis=1).mean(axis=1)
    note = "coarse t2m to the fine grid, per hour, averaged over hours"
    return [
        Row("quadratic interpolation: RMSE", float(mean[0]), 1.5, 2.5, "K", note),
        Row("quadratic interpolation: R2", float(mean[1]), 0.6, 0.95, "1", note),
        Row("quadratic interpolation: bias", float(mean[2]), -1.0, 1.0, "K", note),
    ]


def spectral_properties(sample: Sample, scenes: Scenes) -> list[Row]:
    """The decay of variance with wavenumber of the fine temperature."""
    slopes = []
    for coarse, fine in sample:
        spectrum = ralsd(fine["t2m"])
        slopes.append(spectral_slope(spectrum, wavelengths=SLOPE_RANGE).values)
        label = str(fine["time"].values[0])[:10]
        for name, density, field_ in (("fine", spectrum, fine), ("coarse", ralsd(coarse["t2m"]), coarse)):
            curve = density.isel(time=0, drop=True).copy(data=np.exp(np.log(density.values).mean(axis=0)))
            area = abs(float(field_["x"].diff("x")[0] * field_["y"].diff("y")[0])) * 1e-6
            curve.attrs["cell_area_km2"] = area
            scenes.spectra[f"{name} {label}"] = curve
        middle = int(fine.sizes["time"] * (0.5 if "-07-" in label else 0.25))
        time = str(fine["time"].values[middle])[:13]
        scenes.fields[f"fine t2m {time}"] = fine["t2m"][middle]
        scenes.fields[f"coarse t2m {time}"] = coarse["t2m"][middle]
    slope = float(np.concatenate(slopes).mean())
    note = "RALSD, raw field, rings of physical wavenumber"
    return [Row("slope of the fine t2m spectrum, 20-200 km", slope, -3.5, -2.0, "1", note)]


def eddy_properties(sample: Sample, twins: Sample, domain: Domain, scenes: Scenes) -> list[Row]:
    """What coarse fields do not determine: runs that differ only in the seed of the eddies."""
    differences = [
        one["t2m"].values - two["t2m"].values for (_, one), (_, two) in zip(sample, twins, strict=True)
    ]
    difference = np.concatenate(differences).astype(np.float64)
    averaged = block_average(difference, domain.ratio)
    size = f"{domain.coarse.dx / 1e3:g} km"
    scenes.fields["eddy seeds: difference of t2m"] = sample[0][1]["t2m"][0].copy(data=differences[0][0])
    return [
        Row("eddy seeds: t2m difference on the fine grid", _rms(difference), 0.3, 0.8, "K", "rms"),
        Row(f"eddy seeds: t2m difference averaged to {size}", _rms(averaged), 0.0, 0.15, "K", "rms"),
    ]


def diurnal_properties(sample: Sample, terrain: Terrain, scenes: Scenes, skipped: list[str]) -> list[Row]:
    """Range of the day over land and sea, averaged over the sampled days of all seasons.

    Where the domain has no such cells, ``skipped`` gets a sentence that says so.
    """
    fraction = terrain.land.numpy()
    rows = []
    for name, mask, low, high in (("land", fraction > 0.9, 4.0, 14.0), ("sea", fraction < 0.1, 0.3, 4.0)):
        if not mask.any():
            skipped.append(f"Diurnal range over {name}: no fine cell of the domain is {name}.")
            continue
        ranges = []
        for _, fine in sample:
            cycles = fine["t2m"].values[:, mask]
            ranges.append(float(np.ptp(cycles, axis=0).mean()))
            scenes.diurnal[f"{name} {str(fine['time'].values[0])[:10]}"] = cycles.mean(axis=1)
        note, mean = "mean over cells of daily maximum minus minimum", float(np.mean(ranges))
        rows.append(Row(f"diurnal range of fine t2m over {name}", mean, low, high, "K", note))
    return rows


def consistency_properties(sample: Sample) -> list[Row]:
    """Companions that agree with each other."""
    excess = max(float((coarse["d2m"] - coarse["t2m"]).max()) for coarse, _ in sample)
    coarse_rain = sum(float(coarse["tp"].mean()) for coarse, _ in sample)
    fine_rain = sum(float(fine["tp"].mean()) for _, fine in sample)
    ratio = coarse_rain / fine_rain if fine_rain > 0 else np.nan
    dark = min(float(coarse["ssrd"].values.max(axis=(1, 2)).min()) for coarse, _ in sample)
    return [
        Row("largest excess of coarse dew point over temperature", excess, -np.inf, 0.0, "K"),
        Row("coarse over fine precipitation, domain mean", ratio, 0.85, 1.15, "1"),
        Row("largest radiation of the darkest hour", dark, 0.0, 0.0, "J m-2"),
    ]


def era5_properties(
    synthetic: xr.Dataset, era5: xr.DataArray, terrain: Terrain, skipped: list[str]
) -> list[Row]:
    """Coarse temperature against the real sample: same points, same season, 3-hourly.

    Where no point of the sample lies over land or over sea, ``skipped`` gets a sentence that says so.
    """
    domain = terrain.domain
    points = _sample_points(era5, domain)
    ours = synthetic["t2m"].values[:, points.rows, points.columns].astype(np.float64)
    real = era5.values[:, points.inside].astype(np.float64)
    land = terrain.coarse_land.numpy()[points.rows, points.columns]
    note = "synthetic over real, coarse t2m, May and June"
    days = era5.sizes["time"] // 8
    real_days = real[: days * 8].reshape(days, 8, -1)
    our_days = ours.reshape(-1, 8, ours.shape[1])
    spread = [float(np.quantile(x, 0.99) - np.quantile(x, 0.01)) for x in (ours, real)]
    properties = [
        Row(
            "ERA5 sample: difference of mean t2m",
            float(ours.mean() - real.mean()),
            -4.0,
            4.0,
            "K",
            "four synthetic days against two real months of a hot spring",
        ),
        Row(
            "ERA5 sample: spatial standard deviation",
            float(ours.std(axis=1).mean() / real.std(axis=1).mean()),
            0.67,
            1.5,
            "1",
            note,
        ),
        Row("ERA5 sample: range, 1st to 99th percentile", spread[0] / spread[1], 0.67, 1.5, "1", note),
    ]
    for name, mask, low, high in (("land", land > 0.9, 0.67, 1.5), ("sea", land < 0.1, 0.4, 2.5)):
        if not mask.any():
            skipped.append(f"Diurnal range of the ERA5 sample over {name}: none of its points is {name}.")
            continue
        amplitude = [float(np.ptp(x[:, :, mask], axis=1).mean()) for x in (our_days, real_days)]
        ratio = amplitude[0] / amplitude[1]
        properties.append(Row(f"ERA5 sample: diurnal range over {name}", ratio, low, high, "1", note))
    return properties


@dataclass(frozen=True)
class _Points:
    """Points of a latitude-longitude sample inside the domain, and the coarse cells that hold them."""

    inside: NDArray[np.bool_]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]


def _sample_points(era5: xr.DataArray, domain: Domain) -> _Points:
    longitude, latitude = np.meshgrid(era5["longitude"].values, era5["latitude"].values)
    x, y = Transformer.from_crs("EPSG:4326", domain.crs, always_xy=True).transform(longitude, latitude)
    left, right, bottom, top = domain.coarse.extent
    inside = (x > left) & (x < right) & (y > bottom) & (y < top)
    columns = ((x[inside] - left) / domain.coarse.dx).astype(np.intp)
    rows = ((top - y[inside]) / domain.coarse.dy).astype(np.intp)
    return _Points(inside, rows, columns)


def load_era5(path: Path | None, domain: Domain) -> tuple[xr.DataArray | None, list[str]]:
    """The real sample (time, latitude, longitude) [K], or None and the reason it can't be compared with."""
    if path is None:
        return None, ["Comparison with ERA5: no sample of real ERA5 temperature was given."]
    if not Path(path).exists():
        raise NatureRunError(f"There is no file {path} to compare with.")
    try:
        with xr.open_dataset(path) as dataset:
            sample = dataset["t2m"].load()
    except (OSError, ValueError, KeyError) as error:
        raise NatureRunError(f"{path} holds no readable ERA5 t2m: {error}") from error
    cells = len(set(zip(*_cells(sample, domain), strict=True)))
    share = cells / (domain.coarse.shape[0] * domain.coarse.shape[1])
    if share < 0.1:
        return None, ["Comparison with ERA5: the sample covers too little of the domain."]
    return sample, []


def _cells(sample: xr.DataArray, domain: Domain) -> tuple[list[int], list[int]]:
    points = _sample_points(sample, domain)
    return points.rows.tolist(), points.columns.tolist()


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt((values**2).mean()))


def plot_report(result: Report, path: Path) -> None:
    """Draw the scenes of a report into one PNG file: maps, spectra, diurnal cycles, errors by hour."""
    scenes = result.scenes
    maps = list(scenes.fields.items())
    columns = 3
    rows = -(-(len(maps) + 3) // columns)
    figure = Figure(figsize=(6 * columns, 6 * rows), layout="constrained")
    figure.suptitle(f"Nature run over {result.domain} (synthetic weather)", fontsize=18)
    axes = list(figure.subplots(rows, columns).flat)
    for axis, (title, values) in zip(axes, maps, strict=False):
        difference = "difference" in title
        shown = values.values - (0 if difference else 273.15)
        low, high = np.quantile(shown, [0.005, 0.995])
        limit = max(abs(low), abs(high))
        image = axis.imshow(
            shown,
            cmap="RdBu_r" if difference else "turbo",
            vmin=-limit if difference else low,
            vmax=limit if difference else high,
        )
        axis.set_title(f"{title} [{'K' if difference else '°C'}]")
        axis.set_xticks([])
        axis.set_yticks([])
        figure.colorbar(image, ax=axis, shrink=0.8)
    spectra, diurnal, errors = axes[len(maps) : len(maps) + 3]
    for name, spectrum in scenes.spectra.items():
        style = "-" if name.startswith("fine") else ":"
        # Times the area of a cell, densities on both grids are comparable.
        spectra.loglog(
            spectrum["wavelength"] / 1e3, spectrum * spectrum.attrs["cell_area_km2"], style, label=name
        )
    spectra.invert_xaxis()
    spectra.set(xlabel="wavelength [km]", ylabel="power spectral density [K² km²]", title="RALSD of t2m")
    for name, cycle in scenes.diurnal.items():
        style = "-" if name.startswith("land") else "--"
        diurnal.plot(np.linspace(0, 24, cycle.size, endpoint=False), cycle - 273.15, style, label=name)
    diurnal.set(xlabel="hour (UTC)", ylabel="t2m [°C]", title="Diurnal cycle of fine t2m")
    for name, scores in scenes.hourly.items():
        errors.plot(np.linspace(0, 24, scores.size, endpoint=False), scores, "o-", label=name)
    errors.set(xlabel="hour (UTC)", ylabel="RMSE [K]", title="Quadratic interpolation", ylim=(0, None))
    for axis in (spectra, diurnal, errors):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in axes[len(maps) + 3 :]:
        axis.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    figure.savefig(temporary, dpi=70, format="png")
    temporary.replace(path)
