"""One validation hour as a stage shows it after a round: where it starts, the truth, and what is made now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.data.samples import Normalization

Field = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Three fields of one hour in the units of a target.

    Attributes
    ----------
    hour : as np.datetime64
    target : short name of the variable that is shown, a model's first target
    given : what the model starts from, (h, w) on the coarse grid or (H, W) on the fine one
    truth, made : (H, W)
    given_title, made_title : what these fields are, for people
    """

    hour: np.datetime64
    target: str
    given: Field
    truth: Field
    made: Field
    given_title: str
    made_title: str

    @property
    def rmse(self) -> float:
        """Of what was made against the truth, in the target's units."""
        return float(np.sqrt(np.mean((self.made - self.truth) ** 2)))


def from_coarse(
    hour: np.datetime64,
    coarse: Tensor,
    truth: Tensor,
    made: Tensor,
    made_title: str,
    normalization: Normalization,
    targets: tuple[str, ...],
) -> Scene:
    """The scene of a model that starts from the coarse field.

    ``coarse`` (1, P, h, w), ``truth`` and ``made`` (1, T, H, W) are standardised.
    """
    target = targets[0]
    place, statistics = list(normalization.predictors).index(target), normalization.predictors[target]
    given = coarse[0, place].detach().double().cpu().numpy() * statistics.std + statistics.mean
    fine = [_physical(field, normalization, targets) for field in (truth, made)]
    return Scene(hour, target, given, *fine, "Coarse field", made_title)


def from_mean(
    hour: np.datetime64,
    mean: Tensor,
    truth: Tensor,
    made: Tensor,
    made_title: str,
    normalization: Normalization,
    targets: tuple[str, ...],
) -> Scene:
    """The scene of a model that starts from the UNet's mean; fields (1, T, H, W), standardised."""
    fields = [_physical(field, normalization, targets) for field in (mean, truth, made)]
    return Scene(hour, targets[0], *fields, "Mean of the UNet", made_title)


def _physical(field: Tensor, normalization: Normalization, targets: tuple[str, ...]) -> Field:
    values = normalization.targets_from_tensor(field.detach().double().cpu(), targets)
    return values[0, 0].numpy()
