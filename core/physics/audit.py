"""The audit: does a flux formulation put the truth first?

Fields whose quality is known (the truth, the truth blurred, with noise, a constant, ...) are scored under
every formulation, once with the truth as reference and once with the coarse field alone, as the loss of Rosu
et al. (arXiv 2510.23866) has it. A formulation that deserves trust passes the checks of :func:`checks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from core.interpolation import quadratic
from core.physics.flux_error import CELL, flux_error, smooth
from core.physics.flux_ratio import VARIANTS, CellRule, FluxFormula, flux_ratios
from core.physics.gradients import PhysicsError, Spacing, spacing_pair
from core.physics.supergrid import block_mean, grid_ratio
from core.plural import counted

Reference = Literal["fine", "coarse"]
REFERENCES: tuple[Reference, ...] = ("fine", "coarse")

BLURS = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Standard deviations of the Gaussian blur [km]."""

NOISES = (0.1, 0.3, 1.0)
"""Standard deviations of white noise, independent in every fine pixel [K]."""

SMALLEST = 16
"""Shortest side of a coarse field [pixels]: 8 x 8 cells of 2 x 2, as ``published_training`` has them."""

OFFSET = 10.0
"""Added to fields to see whether a formulation depends on the zero of the temperature scale [K]."""

TRUTH, CONSTANT, INTERPOLATED = "truth", "constant", "quadratic interpolation"
BLOCKS, DISPLACED = "block means of the truth", "truth, its detail displaced"
SHIFTED, BOTH_SHIFTED = f"truth + {OFFSET:g} K", f"truth blurred 8 km, both fields + {OFFSET:g} K"

FLUX_ERROR = "flux_error"
FORMULATIONS: tuple[str, ...] = (*VARIANTS, FLUX_ERROR)

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "paper": "km2",
        "published_training": "pixels",
        "published_metric": "pixels",
        "centred": "km2",
        FLUX_ERROR: "1",
    }
)
"""Unit of each formulation's score."""


def blur_name(width: float) -> str:
    """Name of the candidate that is the truth blurred by a Gaussian of ``width`` km."""
    return f"truth blurred {width:g} km"


def noise_name(deviation: float) -> str:
    """Name of the candidate that is the truth with white noise of ``deviation`` K."""
    return f"truth + noise {deviation:g} K"


def blurred(field: Tensor, width: float, spacing: Spacing) -> Tensor:
    """``field`` (..., H, W) blurred by a Gaussian of standard deviation ``width``; lengths in km."""
    down, across = spacing_pair(spacing)
    return smooth(field, (width / down, width / across))


def certain_candidates(fine: Tensor, coarse: Tensor, spacing: Spacing) -> Iterator[tuple[str, Tensor]]:
    """Fields of known quality made of the truth without chance: name and field.

    ``fine`` (N, H, W), ``coarse`` (N, h, w) and all fields (N, H, W) in kelvin; ``spacing`` in km.
    """
    ratio = fine.shape[-1] // coarse.shape[-1]
    yield TRUTH, fine
    for width in BLURS:
        yield blur_name(width), blurred(fine, width, spacing)
    yield CONSTANT, fine.mean((-2, -1), keepdim=True).expand_as(fine)
    spline = quadratic(coarse.numpy().astype(np.float32), ratio)
    yield INTERPOLATED, torch.from_numpy(spline).to(fine.dtype)
    blocks = block_mean(fine, ratio).repeat_interleave(ratio, -2).repeat_interleave(ratio, -1)
    yield BLOCKS, blocks
    shift = fine.shape[-2] // (2 * ratio) * ratio
    yield DISPLACED, blocks + (fine - blocks).roll(shift, -2)
    yield SHIFTED, fine + OFFSET
    yield BOTH_SHIFTED, blurred(fine, 8.0, spacing) + OFFSET


def noisy_candidates(fine: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """The truth with one draw of white noise at several strengths: name and field (N, H, W) [K]."""
    noise = torch.randn(fine.shape, generator=generator, dtype=fine.dtype)
    for deviation in NOISES:
        yield noise_name(deviation), fine + deviation * noise


@dataclass(frozen=True)
class Scorer:
    """Scores of fields under every formulation.

    Attributes
    ----------
    spacing : of the fine grid [km]
    smoothing : of the coarse field, see :func:`core.physics.flux_error.observe` [coarse pixels]
    mean, deviation : of temperature [K], which standardise fields for ``published_training``
    """

    spacing: Spacing
    smoothing: float
    mean: float
    deviation: float

    def table(self, field: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """Scores of ``field`` (N, H, W), (formulation, reference, N); the references are truth and coarse."""
        ratio = fine.shape[-1] // coarse.shape[-1]
        return torch.stack(
            [
                torch.stack([self.score(name, field, reference, ratio) for reference in (fine, coarse)])
                for name in FORMULATIONS
            ]
        )

    def score(self, name: str, field: Tensor, reference: Tensor, ratio: int) -> Tensor:
        """Score of each field under the formulation ``name``.

        Parameters
        ----------
        field : (N, H, W) [K]
        reference : (N, H, W) truth or (N, h, w) coarse field [K]
        ratio : fine pixels along one side of a coarse one, also where the reference is the truth

        Returns
        -------
        (N,) in :data:`UNITS`
        """
        fine_reference = reference.shape == field.shape
        scale = ratio if fine_reference else 1
        if name == FLUX_ERROR:
            smoothing = 0.0 if fine_reference else self.smoothing
            return flux_error(field, reference, spacing=self.spacing, cell=CELL * scale, smoothing=smoothing)
        formula = VARIANTS[name]
        if formula.tensor == "network_output":
            field, reference = ((f - self.mean) / self.deviation for f in (field, reference))
        if formula.cells.unit == "per_side" and formula.cells.count is not None:
            field, reference = _largest(field, reference, formula.cells.count)
        cells = _cells(formula, reference, scale)
        return flux_ratios(field, reference, formula, spacing=self.spacing, cells=cells).per_field


def _largest(field: Tensor, reference: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest piece, from the first row and column, that ``count`` x ``count`` equal cells cover."""
    ratio = field.shape[-1] // reference.shape[-1]
    height, width = (side // count * count for side in reference.shape[-2:])
    return field[..., : height * ratio, : width * ratio], reference[..., :height, :width]


def _cells(formula: FluxFormula, reference: Tensor, scale: int) -> CellRule:
    """The formula's cells; on the fine grid they keep the size that they have on the coarse one."""
    rule = formula.cells
    if rule.unit == "coarse_pixels" and scale > 1:
        height, width = (side // scale for side in reference.shape[-2:])
        return CellRule(count=scale * (rule.count or math.gcd(height, width)))
    return rule


def audit(
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    spacing: Spacing,
    smoothing: float = 0.0,
    standard: tuple[float, float] = (285.0, 8.0),
    seeds: int = 3,
    progress: Callable[[int], None] | None = None,
) -> xr.DataArray:
    """Score every candidate under every formulation and with either reference.

    Parameters
    ----------
    batches : truth (N, H, W) and coarse field (N, h, w) [K], a few hours at a time; float64 is used
        throughout. An odd last coarse row or column is left out, because the paper's cells need sides with
        a common divisor.
    spacing : of the fine grid [km]
    smoothing : of the coarse field, from :func:`core.physics.flux_error.fit_smoothing` [coarse pixels]
    standard : mean and standard deviation [K] that standardise fields for ``published_training``, for example
        those of the training hours' coarse fields
    seeds : how many draws of the noise
    progress : called with the number of hours done

    Returns
    -------
    dims (candidate, seed, formulation, reference, hour), units of :data:`UNITS`

    Raises
    ------
    PhysicsError
        if there is no hour, a field has gaps, or the coarse field is smaller than 16 x 16 pixels.
    """
    rows: list[NDArray[np.float64]] = []
    names: list[str] = []
    done = 0
    scorer = Scorer(spacing, smoothing, *standard)
    for number, (fine, coarse) in enumerate(batches):
        fine, coarse = _even(fine.double(), coarse.double())
        if fine.isnan().any() or coarse.isnan().any():
            raise PhysicsError(
                "The audit needs fields without gaps (NaN); leave out the hours that have any."
            )
        scores: dict[str, list[Tensor]] = {}
        for name, field in certain_candidates(fine, coarse, spacing):
            added = OFFSET if name == BOTH_SHIFTED else 0.0
            scores[name] = [scorer.table(field, fine + added, coarse + added)] * seeds
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            for name, field in noisy_candidates(fine, generator):
                scores.setdefault(name, []).append(scorer.table(field, fine, coarse))
        names = list(scores)
        # (candidate, seed, formulation, reference, hour)
        rows.append(torch.stack([torch.stack(draws) for draws in scores.values()]).numpy())
        done += len(fine)
        if progress is not None:
            progress(done)
    if not rows:
        raise PhysicsError("The audit needs at least one hour with truth.")
    return xr.DataArray(
        np.concatenate(rows, axis=-1),
        dims=("candidate", "seed", "formulation", "reference", "hour"),
        coords={
            "formulation": list(FORMULATIONS),
            "reference": list(REFERENCES),
            "candidate": names,
            "units": ("formulation", [UNITS[name] for name in FORMULATIONS]),
        },
        name="flux_audit",
        attrs={"smoothing": smoothing, "spacing_km": spacing_pair(spacing)},
    ).sel(candidate=sorted(names, key=_order))


def _even(fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
    """Both fields cut to even sides of the coarse one; PhysicsError where it is too small."""
    ratio = grid_ratio(fine, coarse)
    height, width = (side // 2 * 2 for side in coarse.shape[-2:])
    if min(height, width) < SMALLEST:
        raise PhysicsError(
            f"The audit needs coarse fields of at least {SMALLEST} x {SMALLEST} pixels; these have "
            f"{coarse.shape[-2]} x {coarse.shape[-1]}. Take a larger region, or average fewer pixels."
        )
    return fine[..., : height * ratio, : width * ratio], coarse[..., :height, :width]


def _order(name: str) -> int:
    """Place of a candidate in tables: noise after blur, although it is made last."""
    listed = [
        TRUTH,
        *map(blur_name, BLURS),
        *map(noise_name, NOISES),
        CONSTANT,
        INTERPOLATED,
        BLOCKS,
        DISPLACED,
    ]
    return listed.index(name) if name in listed else len(listed) + (name == BOTH_SHIFTED)


@dataclass(frozen=True)
class Check:
    """Whether one formulation keeps one promise."""

    formulation: str
    reference: Reference
    promise: str
    holds: bool


def checks(scores: xr.DataArray) -> list[Check]:
    """What a flux formulation has to keep, judged by medians over hours and seeds.

    With the truth as reference: zero for the truth; growing with blur (up to 16 km) and with noise; a
    constant worse than all of these; unchanged by a constant added to the temperature; dimensionless.
    With the coarse field: the truth better than noise of 1 K, a constant, and blur of 16 km and more;
    unchanged by a constant added to both fields.

    Parameters
    ----------
    scores : as :func:`audit` gives them
    """
    found = []
    for name in map(str, scores["formulation"].values):
        for reference in REFERENCES:
            part = scores.sel(formulation=name, reference=reference)
            found += [Check(name, reference, promise, holds) for promise, holds in _promises(part, reference)]
    return found


def _promises(scores: xr.DataArray, reference: Reference) -> Iterator[tuple[str, bool]]:
    middle = scores.median(("hour", "seed"))
    value = {str(name): float(middle.sel(candidate=name)) for name in middle["candidate"].values}
    scale = value[CONSTANT] or 1.0

    def worse(name: str) -> bool:
        """In the median of the differences of the same hours and seeds."""
        return bool((scores.sel(candidate=name) - scores.sel(candidate=TRUTH)).median() > 0)

    unmoved = _close(value[BOTH_SHIFTED], value[blur_name(8)], scale)
    if reference == "coarse":
        yield "truth better than noise 1 K", worse(noise_name(1.0))
        yield "truth better than a constant", worse(CONSTANT)
        yield "truth better than blur of 16 km and more", all(worse(blur_name(w)) for w in (16.0, 32.0))
        yield "unchanged by a constant added to both", unmoved
        return
    blurs = [value[TRUTH], *(value[blur_name(width)] for width in (2.0, 4.0, 8.0, 16.0))]
    noises = [value[TRUTH], *(value[noise_name(deviation)] for deviation in NOISES)]
    yield "zero for the truth", _close(value[TRUTH], 0, scale)
    yield "grows with blur", _rises(blurs)
    yield "grows with noise", _rises(noises)
    yield "a constant is worst", value[CONSTANT] > max(*blurs, *noises)
    yield "unchanged by a constant added", unmoved and _close(value[SHIFTED], value[TRUTH], scale)
    yield "dimensionless", str(scores["units"].values) == "1"


def _close(one: float, other: float, scale: float) -> bool:
    return abs(one - other) <= 1e-6 * abs(scale)


def _rises(values: list[float]) -> bool:
    return all(one < other for one, other in pairwise(values))


def markdown(scores: xr.DataArray) -> str:
    """The medians over hours and seeds, and the checks, as Markdown tables."""
    parts = []
    found = checks(scores)
    titles = {"fine": "the truth", "coarse": "the coarse field alone"}
    for reference in REFERENCES:
        middle = scores.sel(reference=reference).median(("hour", "seed"))
        heads = [f"{name} [{unit}]" for name, unit in zip(FORMULATIONS, middle["units"].values, strict=True)]
        lines = [
            f"Reference: {titles[reference]}. Medians over {counted(scores.sizes['hour'], 'hour')} and "
            f"{counted(scores.sizes['seed'], 'draw')} of the noise.",
            "",
            "| field | " + " | ".join(heads) + " |",
            "|---|" + "---:|" * len(heads),
        ]
        for name in middle["candidate"].values:
            values = middle.sel(candidate=name).values
            lines.append(f"| {name} | " + " | ".join(f"{value:.4g}" for value in values) + " |")
        for promise in dict.fromkeys(c.promise for c in found if c.reference == reference):
            kept = {c.formulation: c.holds for c in found if (c.reference, c.promise) == (reference, promise)}
            marks = ["yes" if kept[name] else "no" for name in FORMULATIONS]
            lines.append(f"| *{promise}* | " + " | ".join(marks) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
