"""The UNet that estimates the mean of the fine fields.

Tomasi, Franch and Cristoforetti, arXiv 2406.13627, section 3: the regression network, which is also the
generator of their GAN and the deterministic part of their latent diffusion model. The layout follows
Ronneberger, Fischer and Brox, arXiv 1505.04597, with batch normalisation and zero padding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from core.models.weights import count, renamed, size
from core.variables import PREDICTORS, STATIC_CHANNELS

Width = Annotated[int, Field(ge=1, le=8192)]


class UNetConfig(BaseModel):
    """Sizes of a :class:`UNet`; the defaults are the published ones (31 054 337 parameters).

    ``in_channels`` counts coarse and static channels together, ``features`` are the channels of the levels
    from the finest to the coarsest; the bottleneck has twice the last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Width = len(PREDICTORS) + STATIC_CHANNELS
    out_channels: Width = 1
    features: tuple[Width, ...] = Field(default=(64, 128, 256, 512), min_length=1, max_length=8)

    @classmethod
    def from_weights(cls, state: Mapping[str, Tensor]) -> Self:
        """The sizes of the :class:`UNet` whose weights are ``state``.

        Raises ValueError if a weight is missing from which a size follows.
        """
        levels = count(state, "encoder.{}.0.weight")
        return cls(
            in_channels=size(state, "encoder.0.0.weight", 1),
            out_channels=size(state, "head.weight", 0),
            features=tuple(size(state, f"encoder.{level}.0.weight", 0) for level in range(levels)),
        )


class DoubleConv(nn.Sequential):
    """Twice a 3x3 convolution, batch normalisation and ReLU: (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Coarse predictors and statics to fine targets, all standardised.

    Calling it with ``coarse`` (N, predictors, h, w) and ``static`` (N or 1, 18, H, W) gives
    (N, targets, H, W). H and W are whole multiples of h and w (8 in the papers), and of
    2 to the number of levels (16 at published depth).
    """

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        features = config.features
        bottleneck = 2 * features[-1]
        inputs = (config.in_channels, *features[:-1])
        below = (bottleneck, *reversed(features[1:]))
        self.encoder = nn.ModuleList(DoubleConv(i, o) for i, o in zip(inputs, features, strict=True))
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = DoubleConv(features[-1], bottleneck)
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in zip(below, reversed(features), strict=True)
        )
        self.decoder = nn.ModuleList(DoubleConv(2 * o, o) for o in reversed(features))
        self.head = nn.Conv2d(features[0], config.out_channels, 1)

    @property
    def side_multiple(self) -> int:
        """Number of which both fine sides must be multiples."""
        return 1 << len(self.config.features)

    def forward(self, coarse: Tensor, static: Tensor) -> Tensor:
        """Fine targets (N, targets, H, W) from ``coarse`` (N, predictors, h, w) and ``static`` (N, 18, H, W).

        One static field (1, 18, H, W) serves a whole batch. Raises ValueError where sides or channels do
        not fit.
        """
        x = torch.cat([self._upsampled(coarse, static), static.expand(len(coarse), -1, -1, -1)], dim=1)
        skips: list[Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for up, block in zip(self.upsample, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        result: Tensor = self.head(x)
        return result

    def _upsampled(self, coarse: Tensor, static: Tensor) -> Tensor:
        """``coarse`` on the fine grid by nearest neighbour, the published way."""
        (height, width), (h, w) = static.shape[-2:], coarse.shape[-2:]
        multiple = self.side_multiple
        if height % multiple or width % multiple:
            raise ValueError(
                f"This UNet needs fine sides that are multiples of {multiple}; got {height} x {width}. "
                "Crop the fields, or choose a domain with such sides."
            )
        if height % h or width % w:
            raise ValueError(
                f"Coarse fields of {h} x {w} do not divide fine fields of {height} x {width} evenly."
            )
        if coarse.shape[1] + static.shape[1] != self.config.in_channels:
            raise ValueError(
                f"This UNet takes {self.config.in_channels} channels; got {coarse.shape[1]} coarse and "
                f"{static.shape[1]} static ones."
            )
        return coarse.repeat_interleave(height // h, dim=-2).repeat_interleave(width // w, dim=-1)


def _own_name(published: str) -> str | None:
    """Name in :class:`UNet` of a published weight (without prefix), None where it is no part of one."""
    if match := re.fullmatch(r"([ed])([1-9])\.(up|conv\.conv)\.(.+)", published):
        side, level, part, rest = match.groups()
        stage = "upsample" if part == "up" else "encoder" if side == "e" else "decoder"
        return f"{stage}.{int(level) - 1}.{rest}"
    for theirs, ours in (("b.conv.", "bottleneck."), ("outputs.", "head.")):
        if published.startswith(theirs):
            return ours + published.removeprefix(theirs)
    return None


def from_published_names(state: Mapping[str, Tensor], prefix: str = "net.") -> dict[str, Tensor]:
    """A published UNet's state dict under the names of :class:`UNet`.

    Takes the entries beneath ``prefix`` (``"net."`` in the UNet's own checkpoint,
    ``"autoencoder.unet_regr.net."`` inside a latent diffusion model's) and leaves all others.

    Raises ValueError if there is none, or if one does not belong to a UNet.
    """
    return renamed(state, prefix, _own_name, "published UNet")
