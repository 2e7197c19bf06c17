"""Every figure of the report in its order: its title, the function that draws it and its caption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import xarray as xr
from matplotlib.figure import Figure

from core.report import boxes, cycles, distributions, ensembles, fluxes, maps, power, snapshots


@dataclass(frozen=True)
class FigureKind:
    """A figure: ``draw`` and ``caption`` take (evaluation, target) and raise Absent without data."""

    key: str
    title: str
    draw: Callable[[xr.Dataset, str], Figure]
    caption: Callable[[xr.Dataset, str], str]


SCORES = FigureKind("scores", "Scores over hours", boxes.score_boxes, boxes.score_boxes_caption)
SLOPES = FigureKind("slopes", "Spectral slopes", boxes.slope_boxes, boxes.slope_boxes_caption)
SPECTRA = FigureKind("spectra", "Power spectra", power.spectra, power.spectra_caption)
BIAS = FigureKind("bias", "Maps of the bias", maps.bias_maps, maps.bias_maps_caption)
RMSE = FigureKind("rmse", "Maps of the RMSE", maps.rmse_maps, maps.rmse_maps_caption)
DISTRIBUTIONS = FigureKind(
    "distributions",
    "Frequency distributions",
    distributions.distributions,
    distributions.distributions_caption,
)
RANKS = FigureKind("ranks", "Rank histograms", ensembles.rank_histograms, ensembles.rank_histograms_caption)
SPREAD = FigureKind(
    "spread",
    "Spread and reliability",
    ensembles.spread_and_reliability,
    ensembles.spread_and_reliability_caption,
)
SPREAD_MAPS = FigureKind(
    "spread-maps", "Maps of error and spread", maps.spread_maps, maps.spread_maps_caption
)
FLUXES = FigureKind("fluxes", "Fluxes", fluxes.flux_table, fluxes.flux_table_caption)
CYCLES = FigureKind("cycles", "Skill over the day and the year", cycles.cycles, cycles.cycles_caption)


def figures_of(evaluation: xr.Dataset, target: str) -> list[FigureKind]:
    """The figures of a target in the report's order, with those of every snapshot the evaluation has.

    Kinds without data are among them; drawing them raises Absent, whose message says what is missing.
    """
    shots = []
    for hour in range(max(len(snapshots.hours_shown(evaluation)), 1)):
        shots += [
            FigureKind(
                f"snapshot-{hour + 1}",
                f"Snapshot {hour + 1}",
                partial(snapshots.snapshots, hour=hour),
                partial(snapshots.snapshots_caption, hour=hour),
            ),
            FigureKind(
                f"snapshot-{hour + 1}-zoom",
                f"Snapshot {hour + 1}, enlarged",
                partial(snapshots.snapshots, hour=hour, zoom=True),
                partial(snapshots.snapshots_caption, hour=hour, zoom=True),
            ),
            FigureKind(
                f"snapshot-{hour + 1}-ensemble",
                f"Snapshot {hour + 1}, ensembles",
                partial(snapshots.ensemble_snapshots, hour=hour),
                partial(snapshots.ensemble_snapshots_caption, hour=hour),
            ),
        ]
    return [
        SCORES,
        SLOPES,
        SPECTRA,
        BIAS,
        RMSE,
        *shots,
        DISTRIBUTIONS,
        RANKS,
        SPREAD,
        SPREAD_MAPS,
        FLUXES,
        CYCLES,
    ]
