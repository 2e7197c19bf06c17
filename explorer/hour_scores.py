"""Scores over many hours, as ``tramontana evaluate`` computes them: what is kept of each hour, and what the
hours say together.

The scores of an hour are those of :mod:`core.evaluation.field_scores`, the intervals those of
:mod:`core.evaluation.bootstrap`. Both bring torch and are imported where they are needed, in a thread.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.domain import Domain
from core.regions import Window
from core.text import for_csv
from explorer.cut import cut, inside
from explorer.quantities import Quantity
from explorer.results import Fields

if TYPE_CHECKING:
    from core.evaluation.field_scores import Truth
    from core.evaluation.tally import Tally

Array = NDArray[np.float64]
Hours = NDArray[np.datetime64]

NAMES = (
    "rmse", "mae", "bias", "r2", "pearson", "spectral_slope_loss", "flux_error_truth", "crps",
)  # fmt: skip
"""Scores of the table, of :data:`core.evaluation.field_scores.SCORES`."""
BLOCK_HOURS = 24
RESAMPLES = 1000
CONFIDENCE = 0.95
TARGETS: Mapping[str, str] = {"wind": "u10"}
"""A target with the range and units of a quantity that is none itself."""
SURFACES = ("sea", "land")
BEST, ALIKE = "best", "alike"


@dataclass(frozen=True)
class Column:
    """A score: its name, title and long name; ``units`` is empty where it has none, ``best`` says what is
    good ("lower", "higher", "zero", "one")."""

    name: str
    title: str
    long_name: str
    units: str
    best: str

    def penalty(self, values: Array) -> Array:
        """How far values are from the best one, the lowest being the best."""
        if self.best == "higher":
            return -values
        return {"zero": np.abs(values), "one": np.abs(values - 1)}.get(self.best, values)


@dataclass(frozen=True)
class Row:
    """What is known of one downscaler.

    Attributes
    ----------
    values : name -> score of every hour (N,), NaN where it is not scored
    means : name -> (mean over its hours, lower, upper bound); bounds are NaN for a single block of hours
    marks : name -> "best", or "alike" where the difference from the best one may be chance; others are missing
    members : members scored in every hour (N,), 0 where the hour is not scored
    bias, rmse : maps over the region (h, w) in units of differences
    shares : share of values per bin over sea and over land (2, bin) in percent per unit; NaN for no value
    """

    key: str
    label: str
    values: Mapping[str, Array]
    means: Mapping[str, tuple[float, float, float]]
    marks: Mapping[str, str]
    members: NDArray[np.intp]
    bias: Array | None = None
    rmse: Array | None = None
    shares: Array | None = None

    @property
    def hours(self) -> int:
        """How many hours are scored."""
        return int((self.members > 0).sum())


@dataclass(frozen=True)
class HoursTable:
    """Scores over hours and a region.

    Attributes
    ----------
    hours : that are to be scored (N,)
    offered, every : of how many hours they are every n-th
    common : whether means are over the hours that all rows have
    used : how many hours are in the means of the row with most
    blocks : of hours in the bootstrap
    bins : centres of the bins of the distributions in display units (bin,)
    truth_shares : as those of a row
    missing : members of generative models that are not sampled
    """

    quantity: Quantity
    window: Window
    hours: Hours
    offered: int
    every: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    common: bool
    used: int
    blocks: int
    bins: Array
    truth_shares: Array | None
    missing: int = 0

    def get(self, key: str) -> Row | None:
        """The row of one downscaler."""
        return next((row for row in self.rows if row.key == key), None)


def columns_of(quantity: Quantity) -> tuple[Column, ...]:
    """Titles and units of the scores of a quantity."""
    from core.evaluation.field_scores import score_attrs

    made = []
    for name in NAMES:
        said = score_attrs(name.removesuffix("_truth"), target_of(quantity))
        units = quantity.difference_units if name in _WITH_UNITS else ""
        made.append(Column(name, said["title"], said["long_name"], units, said["best"]))
    return tuple(made)


_WITH_UNITS = ("rmse", "mae", "bias", "crps")


def target_of(quantity: Quantity) -> str:
    """The target of core whose range and units a quantity has."""
    return TARGETS.get(quantity.key, quantity.key)


def prepare_truth(
    fields: Fields, quantity: Quantity, window: Window, domain: Domain, land: NDArray[np.bool_]
) -> Truth:
    """The truth of an hour over the region, from ``fields`` (H, W) in SI units; ``land`` (H, W)."""
    from core.evaluation.field_scores import Truth

    field = cut(_plain(quantity, fields), domain.fine, window)
    # No coarse field: flux errors are those against the truth, the others tell little.
    return Truth.of(target_of(quantity), field, None, inside(land, domain, window), domain.ratio)


def score_members(
    tally: Tally,
    position: int,
    members: Sequence[Fields],
    truth: Truth,
    quantity: Quantity,
    window: Window,
    domain: Domain,
) -> None:
    """Score the members of an hour, (H, W) in SI units, into a tally."""
    from core.evaluation.field_scores import score_hour
    from core.physics.audit import Scorer

    stack = [cut(_plain(quantity, fields), domain.fine, window) for fields in members]
    fine = domain.fine
    fluxes = Scorer((fine.dy / 1e3, fine.dx / 1e3), 0.0, 285.0, 8.0)  # only the first counts for the truth
    tally.add(tally.targets[0], position, score_hour(xr.concat(stack, "member"), truth, fluxes))
    tally.finish_hour(position, 0.0)


def count_truth(tally: Tally, position: int, truth: Truth) -> None:
    """Count the truth of an hour into its own tally."""
    tally.add_sum(tally.targets[0], "histogram", truth.counts)
    tally.finish_hour(position, 0.0)


def make_row(
    key: str,
    label: str,
    tally: Tally,
    members: NDArray[np.intp],
    quantity: Quantity,
    stochastic: bool,
    *,
    maps: bool,
) -> Row:
    """Scores of one downscaler in display units, without means; maps where they are wanted."""
    factor = quantity.factor
    values = {
        name: tally.scores[name][0] * (factor if name in _WITH_UNITS else 1.0)
        for name in NAMES
    }  # fmt: skip
    if stochastic:  # one member is no ensemble; its CRPS would be the MAE, twice that of a good ensemble
        values["crps"] = np.where(members > 1, values["crps"], np.nan)
    row = Row(key, label, values, {}, {}, members.copy())
    if not maps:
        return row
    count, error, square = (tally.sums[name][0] for name in ("count", "error", "square"))
    if count is None or error is None or square is None:
        return row
    with np.errstate(invalid="ignore", divide="ignore"):
        bias = np.where(count > 0, error / count, np.nan) * factor
        rmse = np.sqrt(np.where(count > 0, square / count, np.nan)) * factor
    return replace(row, bias=bias, rmse=rmse, shares=shares(tally, quantity))


def bins_of(quantity: Quantity) -> Array:
    """Centres of the bins of the distributions, in display units."""
    from core.evaluation.field_scores import bin_edges

    edges = bin_edges(target_of(quantity))
    return (edges[1:] + edges[:-1]) / 2 * quantity.factor + quantity.offset


def shares(tally: Tally, quantity: Quantity) -> Array | None:
    """Share of the values per bin over sea and over land, percent per display unit (2, bin)."""
    counts = tally.sums["histogram"][0]
    if counts is None:
        return None
    bins = bins_of(quantity)
    width = bins[1] - bins[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = 100 * counts / counts.sum(axis=1, keepdims=True) / width
    return found


def summarise(
    rows: Sequence[Row], columns: Sequence[Column], hours: Hours, *, common: bool = False
) -> tuple[tuple[Row, ...], int, int]:
    """Means with intervals and marks into the rows; how many hours and blocks the fullest row has.

    Intervals are of a bootstrap of blocks of :data:`BLOCK_HOURS` hours, the same draws for all rows. With
    ``common``, only hours that all rows have are in the means. Rows are ranked where they have all hours of
    the fullest one, since means over other hours say nothing about who is better; of those, ones whose paired
    difference from the best has an interval that holds zero are "alike".
    """
    from core.evaluation import bootstrap

    if not rows:
        return (), 0, 0
    scored = np.stack([row.members > 0 for row in rows])
    in_means = np.broadcast_to(scored.all(0), scored.shape) if common else scored
    fullest = in_means[int(in_means.sum(1).argmax())]
    used = np.flatnonzero(fullest | in_means.any(0))
    if not used.size:
        return tuple(replace(row, means={}, marks={}) for row in rows), 0, 0
    blocks = bootstrap.blocks_of(hours[used], BLOCK_HOURS)
    counts = bootstrap.weights(blocks, used.size, RESAMPLES)
    means: list[dict[str, tuple[float, float, float]]] = [{} for _ in rows]
    marks: list[dict[str, str]] = [{} for _ in rows]
    for column in columns:
        values = np.stack(
            [np.where(m, row.values[column.name], np.nan) for row, m in zip(rows, in_means, strict=True)]
        )
        values = values[:, used]
        draws = bootstrap.weighted_means(values, counts)
        found = bootstrap.interval(draws, CONFIDENCE)
        if len(blocks) < 2:
            found[:, 1:] = np.nan  # all draws are the same, which says nothing about other hours
        for number, (value, low, high) in enumerate(found.tolist()):
            means[number][column.name] = (value, low, high)
        _mark(marks, column, draws, values, len(blocks))
    done = tuple(replace(row, means=m, marks=k) for row, m, k in zip(rows, means, marks, strict=True))
    return done, int(fullest.sum()), len(blocks)


def _mark(marks: list[dict[str, str]], column: Column, draws: Array, values: Array, blocks: int) -> None:
    """Mark the best row of a column and those that are as good for all we know."""
    from core.evaluation import bootstrap

    have = np.isfinite(values)
    most = have.sum(1).max()
    ranked = [number for number in range(len(values)) if most and have[number].sum() == most]
    # Rows with as many hours may still have others.
    ranked = [number for number in ranked if (have[number] == have[ranked[0]]).all()]
    if len(ranked) < 2:
        return
    penalties = column.penalty(draws)
    winner = min(ranked, key=lambda number: penalties[number, 0])
    for number in ranked:
        if penalties[number, 0] == penalties[winner, 0]:
            marks[number][column.name] = BEST
        elif blocks > 1:
            low = bootstrap.interval(penalties[number] - penalties[winner], CONFIDENCE)[1]
            if low <= 0:
                marks[number][column.name] = ALIKE


@dataclass(frozen=True)
class Box:
    """A box plot: 5th, 25th, 50th, 75th and 95th percentile, the mean, and values beyond the outer two."""

    quantiles: tuple[float, float, float, float, float]
    mean: float
    beyond: tuple[float, ...]


def box(values: Array) -> Box | None:
    """Of the values that are not NaN; None without any."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    quantiles = tuple(float(q) for q in np.quantile(finite, (0.05, 0.25, 0.5, 0.75, 0.95)))
    beyond = finite[(finite < quantiles[0]) | (finite > quantiles[-1])]
    return Box(quantiles, float(finite.mean()), tuple(float(v) for v in beyond))


# ---------------------------------------------------------------- files


def means_csv(table: HoursTable, store: str) -> str:
    """A row per downscaler: hours, and of every score the mean and its bounds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [f"{_head(c)}{end}" for c in table.columns for end in ("", " low", " high")]
    writer.writerow(["store", "variable", "region", "downscaler", "hours", *heads])
    for row in table.rows:
        numbers = [f"{v:.6g}" for c in table.columns for v in row.means.get(c.name, (np.nan,) * 3)]
        writer.writerow([*_about(table, row, store), row.hours, *numbers])
    return text.getvalue()


def hours_csv(table: HoursTable, store: str) -> str:
    """A row per downscaler and hour with its scores."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["store", "variable", "region", "downscaler", "hour (UTC)", "members", *map(_head, table.columns)]
    )
    stamps = [str(np.datetime_as_string(hour, unit="m")) for hour in table.hours]
    for row in table.rows:
        for place in np.flatnonzero(row.members).tolist():
            numbers = [f"{row.values[c.name][place]:.6g}" for c in table.columns]
            writer.writerow([*_about(table, row, store), stamps[place], int(row.members[place]), *numbers])
    return text.getvalue()


def _about(table: HoursTable, row: Row, store: str) -> list[str]:
    """Store, variable, region and downscaler of a row."""
    return [for_csv(word) for word in (store, table.quantity.label, table.window.name, row.label)]


def _head(column: Column) -> str:
    return f"{column.title} [{column.units}]" if column.units else column.title


# ---------------------------------------------------------------- fields


def _plain(quantity: Quantity, fields: Fields) -> NDArray[np.floating]:
    """The field of a quantity in SI units."""
    return replace(quantity, factor=1.0, offset=0.0).compute(fields)
