"""What the numbers of an evaluation say, as plain sentences; each is made from the Dataset alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import xarray as xr

from core.report.contents import (
    Absent,
    Estimate,
    Model,
    best_first,
    confidence,
    difference,
    estimates,
    models_of,
    score_of,
    target_units,
)
from core.report.fluxes import SOUND, preferences
from core.text import MINUS, number, units_text

CALIBRATED = (0.8, 1.2)
"""Spread-skill ratios that are called well calibrated."""


def findings(evaluation: xr.Dataset, target: str) -> list[str]:
    """Sentences about a target, not escaped; those whose models or scores are absent are left out."""
    return [sentence for part in _PARTS for sentence in part(evaluation, target)]


def lowest_rmse(evaluation: xr.Dataset, target: str) -> Iterator[str]:
    """Which model has the lowest RMSE, and how far the second is."""
    found = estimates(evaluation, "rmse", target)
    order = best_first(score_of(evaluation, "rmse", target), found)
    if len(order) < 2:
        return
    best, second = (_models(evaluation)[key] for key in order[:2])
    gap = difference(evaluation, "rmse", target, second.key, best.key)
    if found[best.key].value == found[second.key].value:
        return
    start = (
        f"{best.label} has the lowest RMSE, {_with_interval(found[best.key], target, evaluation)}; "
        f"{second.label} "
        f"follows with {_value(found[second.key].value, target)}"
    )
    if not math.isfinite(gap.value):
        yield f"{start}."
        return
    verdict = "the difference is clear" if gap.excludes_zero else "the hours do not tell the two apart"
    yield f"{start}, {_with_interval(gap, target, evaluation)} more (paired over hours): {verdict}."


def unet_against_interpolation(evaluation: xr.Dataset, target: str) -> Iterator[str]:
    """RMSE of every UNet as a share of that of every interpolation."""
    found = estimates(evaluation, "rmse", target)
    for unet in _of_kind(evaluation, "unet"):
        for plain in _of_kind(evaluation, "interpolation"):
            if unet.key in found and plain.key in found and found[plain.key].value > 0:
                share = found[unet.key].value / found[plain.key].value
                yield (
                    f"The RMSE of {unet.label} is {_percent(share)} of that of {plain.label} "
                    f"({_value(found[unet.key].value, target)} and {_value(found[plain.key].value, target)})."
                )


def mean_against_unet(evaluation: xr.Dataset, target: str) -> Iterator[str]:
    """RMSE of ensemble means, without the part that too few members cause, against every UNet's RMSE."""
    means, single = (estimates(evaluation, name, target) for name in ("ensemble_rmse", "rmse"))
    for ensemble in _ensembles(evaluation):
        for unet in _of_kind(evaluation, "unet"):
            if ensemble.key not in means or unet.key not in single or single[unet.key].value <= 0:
                continue
            corrected = means[ensemble.key].value / math.sqrt(1 + 1 / ensemble.members)
            yield (
                f"The mean of the {ensemble.members} members of {ensemble.label} has an RMSE of "
                f"{_value(means[ensemble.key].value, target)}; divided by √(1 + 1/{ensemble.members}), "
                "which allows for the finite size of a reliable ensemble, "
                f"{_value(corrected, target)}, "
                f"{_above(corrected / single[unet.key].value)} that of {unet.label} "
                f"({_value(single[unet.key].value, target)})."
            )


def crps_against_unet(evaluation: xr.Dataset, target: str) -> Iterator[str]:
    """CRPS of ensembles against the MAE of every UNet, which is the CRPS of a single field."""
    crps, mae = (estimates(evaluation, name, target) for name in ("crps", "mae"))
    for ensemble in _ensembles(evaluation):
        for unet in _of_kind(evaluation, "unet"):
            if unet.members != 1 or ensemble.key not in crps or unet.key not in mae:
                continue
            one, other = crps[ensemble.key].value, mae[unet.key].value
            gap = difference(evaluation, "crps", target, ensemble.key, unet.key)
            interval = (
                f", a paired difference of {_with_interval(gap, target, evaluation, sign=True)}"
                if math.isfinite(gap.value)
                else ""
            )
            side = "below" if one < other else "not below"
            yield (
                f"The CRPS of {ensemble.label}, {_value(one, target)}, is {side} the MAE of {unet.label}, "
                f"{_value(other, target)}{interval}."
            )


def spread_and_skill(evaluation: xr.Dataset, target: str) -> Iterator[str]:
    """Whether the spread of every ensemble says how large its error is."""
    low, high = CALIBRATED
    found = estimates(evaluation, "spread_skill_ratio", target)
    for ensemble in _ensembles(evaluation):
        if ensemble.key not in found:
            continue
        ratio = found[ensemble.key]
        if low <= ratio.value <= high:
            verdict = f"within {low:g} to {high:g}"
        elif ratio.value < low:
            verdict = f"below {low:g}: the ensemble is too sure of itself"
        else:
            verdict = f"above {high:g}: the members differ more than they err"
        yield (
            f"The spread-skill ratio of {ensemble.label} is {_with_interval(ratio, None, evaluation)}, "
            f"{verdict}."
        )


def slope_losses(evaluation: xr.Dataset, target: str) -> Iterator[str]:
    """Spectral slope loss of every generative model as a share of every UNet's."""
    found = estimates(evaluation, "spectral_slope_loss", target)
    for model in _models(evaluation).values():
        if model.kind in ("unet", "interpolation"):
            continue
        for unet in _of_kind(evaluation, "unet"):
            if model.key in found and unet.key in found and found[unet.key].value > 0:
                share = found[model.key].value / found[unet.key].value
                yield (
                    f"The spectral slope loss of {model.label} is {_percent(share)} of that of {unet.label} "
                    f"({number(found[model.key].value)} and {number(found[unet.key].value)})."
                )


def physics_fine_tuning(evaluation: xr.Dataset, target: str) -> Iterator[str]:
    """What the PDE loss changed: LDM_PDE minus LDM_res in flux error, RMSE and CRPS, paired over hours."""
    for tuned in _of_kind(evaluation, "ldm_pde"):
        for base in _of_kind(evaluation, "ldm_res"):
            parts = []
            for name in ("flux_error", "flux_error_truth", "rmse", "crps"):
                found = estimates(evaluation, name, target)
                gap = difference(evaluation, name, target, tuned.key, base.key)
                if base.key not in found or not math.isfinite(gap.value) or found[base.key].value == 0:
                    continue
                scale = 100 / found[base.key].value
                relative = Estimate(*(part * scale for part in gap))
                if not math.isfinite(relative.half_width):
                    continue
                title = score_of(evaluation, name, target).title
                title = title if title.isupper() else title[0].lower() + title[1:]
                parts.append(
                    f"{title} {number(relative.value, 2, sign=True)} % "
                    f"({number(relative.low, 2, sign=True)} to "
                    f"{number(relative.high, 2, sign=True)} %)"
                )
            if parts:
                yield (
                    f"{tuned.label} against {base.label}, paired over hours with {confidence(evaluation)} "
                    "intervals: "
                    f"{', '.join(parts)}; negative is better."
                )


def flux_formulations(evaluation: xr.Dataset, target: str) -> Iterator[str]:
    """Which model each flux formulation prefers, and which formulation to trust."""
    try:
        chosen = preferences(evaluation, target)
    except Absent:
        return
    if chosen:
        yield f"{chosen} {SOUND}"


_PARTS = (
    lowest_rmse,
    unet_against_interpolation,
    mean_against_unet,
    crps_against_unet,
    spread_and_skill,
    slope_losses,
    physics_fine_tuning,
    flux_formulations,
)


def _models(evaluation: xr.Dataset) -> dict[str, Model]:
    return {model.key: model for model in models_of(evaluation)}


def _of_kind(evaluation: xr.Dataset, kind: str) -> list[Model]:
    return [model for model in models_of(evaluation) if model.kind == kind]


def _ensembles(evaluation: xr.Dataset) -> list[Model]:
    return [model for model in models_of(evaluation) if model.members > 1]


def _units(target: str | None) -> str:
    shown = units_text(target_units(target)) if target is not None else ""
    return f" {shown}" if shown else ""


def _value(value: float, target: str | None, *, sign: bool = False) -> str:
    return f"{number(value, sign=sign)}{_units(target)}"


def _with_interval(
    estimate: Estimate, target: str | None, evaluation: xr.Dataset, *, sign: bool = False
) -> str:
    text = _value(estimate.value, target, sign=sign)
    if not math.isfinite(estimate.half_width):
        return text
    low, high = (number(bound, sign=sign) for bound in (estimate.low, estimate.high))
    return f"{text} ({confidence(evaluation)} interval {low} to {high}{_units(target)})"


def _percent(share: float) -> str:
    return f"{number(100 * share)} %"


def _above(ratio: float) -> str:
    percent = 100 * (ratio - 1)
    if abs(percent) < 0.05:
        return "equal to"
    text = f"{abs(percent):.1f} %".replace("-", MINUS)
    return f"{text} {'above' if percent > 0 else 'below'}"
