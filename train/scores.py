"""Scores of standardised fields in physical units, for validations."""

from __future__ import annotations

import xarray as xr
from torch import Tensor

from core.data.samples import Normalization
from core.domain import Domain
from core.metrics.spectra import spectral_slope_loss


def field_scores(
    field: Tensor, truth: Tensor, normalization: Normalization, targets: tuple[str, ...], domain: Domain
) -> dict[str, float]:
    """RMSE over all fields and mean spectral-slope loss per target: ``rmse_<target>``, ``slope_<target>``.

    ``field`` and ``truth`` are (N, T, H, W) on the whole domain, standardised; errors are in the target's
    units.
    """
    field, truth = (normalization.targets_from_tensor(x.double().cpu(), targets) for x in (field, truth))
    scores = {}
    for channel, name in enumerate(targets):
        scores[f"rmse_{name}"] = float((field - truth)[:, channel].square().mean().sqrt())
        one, other = (
            xr.DataArray(
                x[:, channel].numpy(),
                dims=("time", "y", "x"),
                coords={"y": domain.fine.y, "x": domain.fine.x},
            )
            for x in (field, truth)
        )
        scores[f"slope_{name}"] = float(spectral_slope_loss.values(one, other).mean())
    return scores
