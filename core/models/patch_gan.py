"""The PatchGAN discriminator and the losses of the generative adversarial network.

Tomasi, Franch and Cristoforetti, arXiv 2406.13627, section 3: the GAN's generator is the UNet, trained with
the absolute error alone for 50 000 steps and then also against this discriminator. The discriminator
follows Isola et al., arXiv 1611.07004; the hinge loss Lim and Ye, arXiv 1705.02894; the adaptive weight
Esser, Rombach and Ommer, arXiv 2012.09841, equation 7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from core.models.weights import renamed, size

Width = Annotated[int, Field(ge=1, le=8192)]
ADVERSARIAL_START = 50_000
"""Training steps (batches) before the discriminator takes part."""
ADVERSARIAL_SCALE = 0.2
LARGEST_WEIGHT = 1e4


class PatchGANConfig(BaseModel):
    """Sizes of a :class:`PatchGAN`; the defaults are the published ones (2 763 585 parameters).

    ``in_channels`` are the targets, ``features`` the channels of the convolutions; all but the last of
    them halve the grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Width = 1
    features: tuple[Width, ...] = Field(default=(64, 128, 256, 512), min_length=2, max_length=8)

    @classmethod
    def from_weights(cls, state: Mapping[str, Tensor]) -> Self:
        """The sizes of the :class:`PatchGAN` whose weights are ``state``.

        Raises ValueError if a weight is missing from which they follow, or if a size is impossible.
        """
        kernels = sorted(
            (key for key in state if key.endswith(".weight") and state[key].ndim == 4),
            key=lambda name: int(name.split(".")[0]) if name.split(".")[0].isdecimal() else -1,
        )
        # The last convolution makes the logits.
        return cls(
            in_channels=size(state, "0.weight", 1),
            features=tuple(size(state, key, 0) for key in kernels[:-1]),
        )


class PatchGAN(nn.Sequential):
    """Fields (N, targets, H, W) to logits (N, 1, h, w), one per patch: positive where the field looks real.

    4x4 convolutions with padding 1, all but the first and last followed by batch normalisation, leaky ReLU
    (0.2) between. The published depth gives h = H / 8 - 2 and w = W / 8 - 2, for sides that are multiples
    of 8 and at least 24, which is its ``smallest_side``.
    """

    def __init__(self, config: PatchGANConfig | None = None) -> None:
        config = config or PatchGANConfig()
        features = config.features
        layers: list[nn.Module] = [
            nn.Conv2d(config.in_channels, features[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for level, (i, o) in enumerate(pairwise(features), start=2):
            stride = 1 if level == len(features) else 2
            layers += [
                nn.Conv2d(i, o, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(o),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        super().__init__(*layers, nn.Conv2d(features[-1], 1, 4, padding=1))
        self.config = config
        # The halvings leave three rows or more, of which the last two convolutions take one each.
        self.smallest_side = 3 << (len(features) - 1)
        self.apply(_initialise)

    def forward(self, fields: Tensor) -> Tensor:
        """The logits of ``fields``; ValueError where they have another shape or sides that are too small."""
        channels, smallest = self.config.in_channels, self.smallest_side
        if fields.ndim != 4 or fields.shape[1] != channels:
            raise ValueError(
                f"This discriminator takes fields of the shape (N, {channels}, H, W); "
                f"got {tuple(fields.shape)}."
            )
        height, width = fields.shape[2:]
        if min(height, width) < smallest:
            raise ValueError(
                f"This discriminator needs fields of at least {smallest} x {smallest} cells; "
                f"got {height} x {width}. Take larger crops, or fewer features."
            )
        logits: Tensor = super().forward(fields)  # type: ignore[no-untyped-call]
        return logits


def _initialise(module: nn.Module) -> None:
    """Normal weights with a deviation of 0.02 (arXiv 1611.07004, section 6.2)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Hinge loss of the discriminator from its logits (any shape) for real and generated fields; a scalar.

    0.5 (mean max(0, 1 - real) + mean max(0, 1 + generated)): half of arXiv 1705.02894, as published. The
    discriminator is not trained before step :data:`ADVERSARIAL_START` either.
    """
    return 0.5 * (nn.functional.relu(1.0 - real).mean() + nn.functional.relu(1.0 + generated).mean())


def adversarial_loss(generated: Tensor) -> Tensor:
    """What the generator minimises to pass for real: minus the mean of the logits (any shape); a scalar."""
    return -generated.mean()


def adaptive_weight(
    reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor, *, scale: float = ADVERSARIAL_SCALE
) -> Tensor:
    """Weight that balances the gradients of two losses at the generator's last layer; a scalar constant.

    ``scale`` times |d reconstruction / d last_layer| / (|d adversarial / d last_layer| + 1e-4), the ratio at
    most 1e4 (arXiv 2012.09841, equation 7). The graphs of both losses are kept.

    Raises RuntimeError (from PyTorch) where the losses do not depend on ``last_layer``, as under
    ``torch.no_grad``.
    """
    ours, theirs = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
        for loss in (reconstruction, adversarial)
    )
    weight: Tensor = (ours / (theirs + 1e-4)).clamp(max=LARGEST_WEIGHT).detach() * scale
    return weight


class GeneratorLoss(NamedTuple):
    """What the generator minimises, its two parts, and the weight of the second; scalars."""

    total: Tensor
    reconstruction: Tensor
    adversarial: Tensor
    weight: Tensor


def generator_loss(
    prediction: Tensor,
    target: Tensor,
    logits: Tensor,
    last_layer: Tensor,
    *,
    step: int,
    start: int = ADVERSARIAL_START,
    scale: float = ADVERSARIAL_SCALE,
) -> GeneratorLoss:
    """The published loss of the generator: mean absolute error, from ``start`` on plus the weighted other.

    ``prediction`` and ``target`` are (N, targets, H, W), ``logits`` the discriminator's for the prediction,
    ``last_layer`` the weight of the generator's last convolution, ``step`` the number of batches seen.
    Before ``start`` the weight is 0. Without gradients, as in validation, no weight can be found: it is 0
    as well, and the total is the absolute error.
    """
    reconstruction = (target - prediction).abs().mean()
    adversarial = adversarial_loss(logits)
    if step < start or not reconstruction.requires_grad:
        weight = torch.zeros_like(reconstruction, requires_grad=False)
    else:
        weight = adaptive_weight(reconstruction, adversarial, last_layer, scale=scale)
    return GeneratorLoss(reconstruction + weight * adversarial, reconstruction, adversarial, weight)


def own_name(published: str) -> str | None:
    """Name in :class:`PatchGAN` of a published weight, None where it is no part of one."""
    kinds = "weight|bias|running_mean|running_var|num_batches_tracked"
    match = re.fullmatch(rf"main\.(\d+\.(?:{kinds}))", published)
    return match and match.group(1)


def from_published_names(
    state: Mapping[str, Tensor], prefix: str = "loss.discriminator."
) -> dict[str, Tensor]:
    """A published discriminator's state dict under the names of :class:`PatchGAN`.

    Takes the entries beneath ``prefix`` and leaves all others.

    Raises ValueError if there is none, or if one does not belong to a discriminator.
    """
    return renamed(state, prefix, own_name, "published discriminator")
