"""A small evaluation with all that a report reads: three models, one an ensemble; deterministic."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from core.metrics.deterministic import bias, mae, pearson, r2, rmse
from core.metrics.ensemble import crps, rank_histogram
from core.metrics.spectra import ralsd, spectral_slope

UNITS = {"rmse": "K", "mae": "K", "bias": "K", "crps": "K", "ensemble_rmse": "K"}
BEST = {"r2": "higher", "pearson": "higher", "bias": "zero", "perkins": "higher", "p01_error": "zero"}
KINDS = {
    "quadratic": "interpolation",
    "unet": "unet",
    "ldm_res": "ldm_res",
    "ldm_pde": "ldm_pde",
    "gan": "gan",
}
LABELS = {
    "quadratic": "Quadratic interpolation",
    "unet": "UNet",
    "ldm_res": "LDM_res",
    "ldm_pde": "LDM_PDE",
    "gan": "GAN",
}
ESTIMATES = ("value", "low", "high")


def noise(generator, shape, scale):
    """Smooth random fields of unit variance along the last two axes."""
    field = np.stack(
        [
            gaussian_filter(values, scale, mode="wrap")
            for values in generator.standard_normal((np.prod(shape[:-2], dtype=int), *shape[-2:]))
        ]
    ).reshape(shape)
    return field / field.std()


def evaluation(
    height=96,
    width=64,
    hours=24,
    members=4,
    keys=("quadratic", "unet", "ldm_res"),
    snapshots=2,
    left=4.3e6,
    top=2.1e6,
):
    """The Dataset; ``ldm*`` models are ensembles."""
    generator = np.random.default_rng(7)
    y, x = top - 2000.0 * np.arange(height), left + 2000.0 * np.arange(width)
    time = (
        np.datetime64("2018-04-16", "ns")
        + np.arange(hours) * np.timedelta64(31, "D").astype("m8[ns]")
        + (np.arange(hours) * np.timedelta64(1, "h"))
    )
    shape = (hours, height, width)
    land = 1 / (1 + np.exp(-2 * noise(generator, (height, width), 14)))
    orography = 1500 * np.clip(land - 0.5, 0, None) * (1 + noise(generator, (height, width), 3)).clip(0)
    season = 10 * np.sin(np.arange(hours) / hours * 6)[:, None, None]
    smooth = 285 + season + 5 * noise(generator, shape, 12) - 0.006 * orography
    detail = 0.9 * noise(generator, shape, 1.2) * (0.4 + land)
    grid = {"time": time, "y": y, "x": x}

    def field(values):
        dims = ("member", "time", "y", "x") if values.ndim == 4 else ("time", "y", "x")
        return xr.DataArray(values.astype("f4"), dims=dims, coords=grid, attrs={"units": "K"})

    truth = field(smooth + detail)
    made = {}
    for number, key in enumerate(keys):
        if key.startswith("ldm"):
            shift = 0.3 * noise(generator, shape, 2)
            made[key] = field(smooth + 0.6 * detail + shift + 0.5 * noise(generator, (members, *shape), 1.2))
        elif key == "quadratic":
            made[key] = field(gaussian_filter(smooth, (0, 6, 6)) + 0.4 * (land - 0.3))
        else:
            made[key] = field(smooth + 0.5 * detail + (0.2 + 0.05 * number) * noise(generator, shape, 4))

    scores = {}

    def store(name, key, values):
        scores.setdefault(name, np.full((len(keys), 1, hours), np.nan))[keys.index(key), 0] = values

    for key, forecast in made.items():
        for name, metric in (("rmse", rmse), ("mae", mae), ("bias", bias), ("r2", r2), ("pearson", pearson)):
            score = metric(forecast, truth)
            store(name, key, score.mean("member") if "member" in score.dims else score)
        store("crps", key, crps(forecast, truth))
        mean = forecast.mean("member") if "member" in forecast.dims else forecast
        store("ensemble_rmse", key, rmse(mean, truth))
        store("ensemble_mse", key, ((mean - truth) ** 2).mean(("y", "x")))
        if "member" in forecast.dims:
            store("ensemble_variance", key, forecast.var("member", ddof=1).mean(("y", "x")))
        level = 1 + keys.index(key)
        for name, size in (("flux_error", 0.1), ("flux_error_truth", 0.5), ("flux_loss_centred", 65.0)):
            store(name, key, size / level * (1 + 0.2 * generator.standard_normal(hours)))
        for name, size in (
            ("flux_loss_paper", 1e6),
            ("flux_loss_published_training", 3.0),
            ("flux_loss_published_metric", 880.0),
        ):
            store(name, key, size * level * (1 + 0.2 * generator.standard_normal(hours)))
        store("perkins", key, 0.9 + 0.02 * level + 0.01 * generator.standard_normal(hours))
        store("p01_error", key, (0.5 + generator.standard_normal(hours)) / level)
        store("brier_frost", key, 0.05 / level * (1 + 0.1 * generator.standard_normal(hours)))

    sources = ("truth", *keys)
    spectra = [ralsd(truth)]
    for forecast in made.values():
        spectrum = ralsd(forecast)
        spectra.append(spectrum.mean("member") if "member" in spectrum.dims else spectrum)
    density = xr.concat(spectra, xr.Variable("source", list(sources)), coords="minimal", compat="override")
    wavelengths = (10e3, min(200e3, float(density["wavelength"].max())))
    slope = spectral_slope(density, wavelengths=wavelengths)
    for number, key in enumerate(keys):
        store("spectral_slope_loss", key, abs(slope[number + 1] - slope[0]))

    ensembles = [key for key in keys if "member" in made[key].dims]
    maps = {
        name: np.full((len(keys), 1, height, width), np.nan, "f4")
        for name in ("bias_map", "rmse_map", "ensemble_rmse_map", "spread_map")
    }
    ranks = np.full((len(keys), 1, members + 1), np.nan)
    spread_of_bin, error_of_bin = (np.full((len(keys), 1, 6), np.nan) for _ in range(2))
    forecast_p, observed_p = (np.full((len(keys), 1, members + 1), np.nan) for _ in range(2))
    for number, key in enumerate(keys):
        maps["bias_map"][number, 0] = (made[key] - truth).mean(
            [d for d in made[key].dims if d not in ("y", "x")]
        )
        error = (made[key] - truth) ** 2
        maps["rmse_map"][number, 0] = error.mean([d for d in error.dims if d not in ("y", "x")]) ** 0.5
        if key in ensembles:
            maps["ensemble_rmse_map"][number, 0] = ((made[key].mean("member") - truth) ** 2).mean(
                "time"
            ) ** 0.5
            maps["spread_map"][number, 0] = made[key].var("member", ddof=1).mean("time") ** 0.5
            ranks[number, 0] = rank_histogram(made[key], truth, reduce=("time", "y", "x"))
            spread_of_bin[number, 0] = np.linspace(0.1, 0.9, 6)
            error_of_bin[number, 0] = np.linspace(0.2, 0.85, 6)
            forecast_p[number, 0] = np.linspace(0, 1, members + 1)
            observed_p[number, 0] = np.linspace(0.05, 0.9, members + 1)

    edges = np.arange(np.floor(truth.min()) - 6, np.ceil(truth.max()) + 7, 0.5)
    histogram = np.zeros((len(sources), 1, 2, edges.size - 1))
    for number, values in enumerate((truth, *made.values())):
        for surface, mask in enumerate((land <= 0.5, land > 0.5)):
            inside = values.values[..., mask].ravel()
            histogram[number, 0, surface] = np.histogram(inside, edges)[0] / inside.size

    shown = list(range(snapshots))
    snapshot = np.stack(
        [
            np.stack(
                [
                    (v.isel(member=0) if "member" in v.dims else v).values[hour]
                    for v in (truth, *made.values())
                ]
            )
            for hour in shown
        ]
    )[:, :, None]
    mean, spread = (np.full((snapshots, len(keys), 1, height, width), np.nan, "f4") for _ in range(2))
    for number, key in enumerate(keys):
        if key in ensembles:
            mean[:, number, 0] = made[key].mean("member").values[shown]
            spread[:, number, 0] = made[key].std("member", ddof=1).values[shown]
    blocks = truth.values[shown].reshape(snapshots, height // 8, 8, width // 8, 8).mean(axis=(2, 4))[:, None]

    names = list(scores)
    per_hour = {
        name: (
            ("model", "target", "time"),
            values,
            {"title": name, "units": UNITS.get(name, "1"), "best": BEST.get(name, "lower")},
        )
        for name, values in scores.items()
    }
    per_hour["flux_loss_paper"][2]["units"] = per_hour["flux_loss_centred"][2]["units"] = "km2"
    per_hour["ensemble_variance"][2].update(best="none", units="K2")
    ratio = np.sqrt(
        (members + 1) / members * scores["ensemble_variance"].mean(-1) / scores["ensemble_mse"].mean(-1)
    )
    names.append("spread_skill_ratio")
    stacked = np.stack([*(values.mean(-1) for values in scores.values()), ratio], axis=-1)
    half = np.stack([*(2 * v.std(-1) / np.sqrt(hours) for v in scores.values()), 0.03 * ratio], axis=-1)
    summary = np.stack([stacked, stacked - half, stacked + half], axis=-1)
    gaps = [values[:, None] - values[None, :] for values in scores.values()]
    value = np.stack([*(g.mean(-1) for g in gaps), ratio[:, None] - ratio[None, :]], axis=-1)
    width_ = np.stack(
        [*(2 * g.std(-1) / np.sqrt(hours) for g in gaps), 0.04 + 0 * (ratio[:, None] - ratio[None, :])],
        axis=-1,
    )
    difference = np.stack([value, value - width_, value + width_], axis=-1)

    keys = list(keys)
    dataset = xr.Dataset(
        {
            **per_hour,
            "spectral_slope": (("source", "target", "time"), slope.values[:, None], {"units": "1"}),
            "seconds": (("model", "time"), 0.5 + generator.random((len(keys), hours)), {"units": "s"}),
            "peak_memory": ("model", 500.0 + 100 * np.arange(len(keys)), {"units": "MiB"}),
            **{name: (("model", "target", "y", "x"), values) for name, values in maps.items()},
            "ralsd": (("source", "target", "time", "wavelength"), density.values[:, None], {"units": "K2"}),
            "histogram": (("source", "target", "surface", "bin"), histogram),
            "rank_histogram": (("model", "target", "rank"), ranks),
            "spread_of_bin": (("model", "target", "spread_bin"), spread_of_bin),
            "error_of_bin": (("model", "target", "spread_bin"), error_of_bin),
            "reliability_forecast": (("model", "target", "probability"), forecast_p),
            "reliability_observed": (("model", "target", "probability"), observed_p),
            "snapshot": (("snapshot_time", "source", "target", "y", "x"), snapshot),
            "snapshot_coarse": (("snapshot_time", "target", "y_coarse", "x_coarse"), blocks),
            "snapshot_mean": (("snapshot_time", "model", "target", "y", "x"), mean),
            "snapshot_spread": (("snapshot_time", "model", "target", "y", "x"), spread),
            "orography": (("y", "x"), orography.astype("f4")),
            "land_fraction": (("y", "x"), land.astype("f4")),
            "summary": (("model", "target", "score", "estimate"), summary),
            "difference": (("model", "other", "target", "score", "estimate"), difference),
        },
        coords={
            "model": keys,
            "label": ("model", [LABELS[key] for key in keys]),
            "kind": ("model", [KINDS[key] for key in keys]),
            "members": ("model", [members if key in ensembles else 1 for key in keys]),
            "other": keys,
            "target": ["t2m"],
            "time": time,
            "source": list(sources),
            "source_label": ("source", ["truth", *(LABELS[key] for key in keys)]),
            "wavelength": ("wavelength", density["wavelength"].values, {"units": "m"}),
            "y": ("y", y),
            "x": ("x", x),
            "y_coarse": ("y_coarse", y.reshape(-1, 8).mean(1)),
            "x_coarse": ("x_coarse", x.reshape(-1, 8).mean(1)),
            "bin_value": (("target", "bin"), ((edges[1:] + edges[:-1]) / 2)[None]),
            "surface": ["sea", "land"],
            "snapshot_time": time[shown],
            "score": names,
            "estimate": list(ESTIMATES),
        },
        attrs={
            "title": "Evaluation of downscalers",
            "data_title": "Synthetic test weather",
            "data_fingerprint": "0123456789abcdef",
            "synthetic": 1,
            "hours": f"{hours} hours, 2018-04-16 to 2020-03-29",
            "block_hours": 24,
            "resamples": 1000,
            "confidence": 0.95,
            "sampling": "dpmpp_2m, 10 steps, seed 0",
            "command": "tramontana evaluate data/test.zarr --models assets/checkpoints --members 4",
            "machine": "2 CPU cores",
            "version": "0.1.0",
            "created": "2026-11-21T10:00:00Z",
            "models": json.dumps(
                {
                    key: {
                        "label": LABELS[key],
                        "kind": KINDS[key],
                        "file": f"assets/checkpoints/{key}.safetensors",
                        "sha256": f"{number:064x}",
                        "parameters": 1000 * (number + 1),
                        "provenance": {"steps": 100, "data_fingerprint": "abc"},
                    }
                    for number, key in enumerate(keys)
                }
            ),
        },
    )
    return dataset
