"""What the denoiser is told of an hour: coarse predictors and statics as fields at three resolutions.

Tomasi, Franch and Cristoforetti, arXiv 2406.13627, section 3, after the context network of Leinonen et al.,
arXiv 2304.12891: the statics are encoded on the latent grid, where the coarse fields live as they are, both
are analysed by AFNO blocks, joined, and carried on to coarser grids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from core.models.afno import FILTER_BLOCKS, AFNOBlock, ModeTruncation
from core.models.vae import (
    Encoder,
    ResidualBlock,
    check_fine,
    encoder_features,
    own_residual_name,
    own_vae_name,
)
from core.models.weights import count, renamed, size
from core.variables import PREDICTORS, STATIC_CHANNELS

Width = Annotated[int, Field(ge=1, le=8192)]
Depth = Annotated[int, Field(ge=0, le=64)]


class ConditionerConfig(BaseModel):
    """Sizes of a :class:`Conditioner`; the defaults are the published ones (23 832 982 parameters).

    ``static_features`` are the channels of the levels of the statics' encoder, each of which halves the
    grid, and ``static_latent_channels`` what it gives; ``static_embedding`` and ``coarse_embedding`` the
    channels of the AFNO blocks, of which there are ``static_depth`` and ``coarse_depth``; ``width`` the
    channels of the finest context, doubled from each of the ``levels`` to the next.

    ``filter_blocks`` and ``truncate_modes`` belong to the AFNO filters (:mod:`core.models.afno`): the first
    divides both embeddings, the second is ``"published"`` for imported weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coarse_channels: Width = len(PREDICTORS)
    static_channels: Width = STATIC_CHANNELS
    static_features: tuple[Width, ...] = Field(default=(54, 162, 486), min_length=1, max_length=8)
    static_latent_channels: Width = 243
    static_embedding: Width = 128
    coarse_embedding: Width = 24
    static_depth: Depth = 4
    coarse_depth: Depth = 4
    width: Width = 256
    levels: int = Field(default=3, ge=1, le=8)
    filter_blocks: Width = FILTER_BLOCKS
    truncate_modes: ModeTruncation = "none"

    @property
    def context_channels(self) -> tuple[int, ...]:
        """Channels of the contexts, from the finest to the coarsest."""
        return tuple(self.width << level for level in range(self.levels))

    @classmethod
    def from_weights(cls, state: Mapping[str, Tensor], *, truncate_modes: ModeTruncation = "none") -> Self:
        """The sizes of the :class:`Conditioner` whose weights are ``state``.

        How modes are truncated does not show in the weights and has to be said.

        Raises ValueError if a weight is missing from which sizes follow, or if a size is impossible.
        """
        return cls(
            coarse_channels=size(state, "coarse_projection.weight", 1),
            static_channels=size(state, "static_encoder.encoder.0.conv1.weight", 1),
            static_features=encoder_features(state, "static_encoder.encoder."),
            static_latent_channels=size(state, "static_projection.weight", 1),
            static_embedding=size(state, "static_projection.weight", 0),
            coarse_embedding=size(state, "coarse_projection.weight", 0),
            static_depth=count(state, "static_analysis.{}.filter.w1"),
            coarse_depth=count(state, "coarse_analysis.{}.filter.w1"),
            width=size(state, "fusion.2.weight", 0),
            levels=1 + count(state, "cascade.{}.conv1.weight"),
            filter_blocks=size(state, "fusion.1.filter.w1", 1),
            truncate_modes=truncate_modes,
        )


class StaticEncoder(nn.Module):
    """The encoding half of a VAE: statics (N, static, H, W) to the mean latent (N, latent, h, w).

    ``to_decoder`` is never used: the published model carries it along, and so do we, frozen, so that its
    weights go in and come out whole. The half of ``to_moments`` that gives the log variance is likewise
    without effect.
    """

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        deepest, latent = config.static_features[-1], config.static_latent_channels
        self.encoder = Encoder(config.static_channels, config.static_features)
        self.to_moments = nn.Conv2d(deepest, 2 * latent, 1)
        self.to_decoder = nn.Conv2d(latent, deepest, 1).requires_grad_(False)

    def forward(self, static: Tensor) -> Tensor:
        """(N, static, H, W) -> (N, latent, H / 2^k, W / 2^k) for k levels."""
        mean: Tensor = self.to_moments(self.encoder(static)).chunk(2, dim=1)[0]
        return mean


class Conditioner(nn.Module):
    """Coarse predictors and statics, standardised, to contexts on the latent grid and coarser ones.

    At published size ``coarse`` (N, 14, h, w) and ``static`` (N or 1, 18, 8 h, 8 w) give (N, 256, h, w),
    (N, 512, h / 2, w / 2) and (N, 1024, h / 4, w / 4).

    What comes of the statics alone is the same at every hour: whoever has several computes it once with
    :meth:`encode_static` and calls :meth:`contexts`.
    """

    def __init__(self, config: ConditionerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ConditionerConfig()

        def block(channels: int, mlp_ratio: int) -> AFNOBlock:
            return AFNOBlock(
                channels,
                mlp_ratio=mlp_ratio,
                blocks=config.filter_blocks,
                truncate_modes=config.truncate_modes,
            )

        static, coarse = config.static_embedding, config.coarse_embedding
        self.static_encoder = StaticEncoder(config)
        self.static_projection = nn.Conv2d(config.static_latent_channels, static, 1)
        self.static_analysis = nn.Sequential(*(block(static, 4) for _ in range(config.static_depth)))
        self.coarse_projection = nn.Conv2d(config.coarse_channels, coarse, 1)
        self.coarse_analysis = nn.Sequential(*(block(coarse, 4) for _ in range(config.coarse_depth)))
        both = static + coarse
        self.fusion = nn.Sequential(nn.Linear(both, both), block(both, 2), nn.Linear(both, config.width))
        channels = config.context_channels
        self.cascade = nn.ModuleList(ResidualBlock(i, o, normalize=False) for i, o in pairwise(channels))

    @property
    def latent_ratio(self) -> int:
        """How many times coarser than the fine grid the coarse fields and the finest context are."""
        return 1 << len(self.config.static_features)

    @property
    def side_multiple(self) -> int:
        """Number of which both fine sides must be multiples."""
        return self.latent_ratio << (self.config.levels - 1)

    def forward(self, coarse: Tensor, static: Tensor) -> tuple[Tensor, ...]:
        """The contexts of ``coarse`` (N, predictors, h, w) and ``static`` (N or 1, static, H, W).

        One tensor per level: (N, width 2^k, h / 2^k, w / 2^k) for k = 0, 1, ...

        Raises ValueError where channels or sides do not fit.
        """
        return self.contexts(coarse, self.encode_static(static))

    def encode_static(self, static: Tensor) -> Tensor:
        """What :meth:`contexts` needs of ``static`` (M, static, H, W): (M, static_embedding, h, w).

        Raises ValueError where channels or sides do not fit.
        """
        check_fine(static, self.config.static_channels, self.side_multiple, "conditioner")
        z = self.static_projection(self.static_encoder(static)).permute(0, 2, 3, 1)
        encoded: Tensor = self.static_analysis(z)
        return encoded.permute(0, 3, 1, 2)

    def contexts(self, coarse: Tensor, encoded_static: Tensor) -> tuple[Tensor, ...]:
        """The contexts of ``coarse`` (N, predictors, h, w) with a result of :meth:`encode_static`.

        ``encoded_static`` is (N or 1, static_embedding, h, w); one serves a whole batch.

        Raises ValueError where channels or sides do not fit.
        """
        channels, (h, w) = self.config.coarse_channels, encoded_static.shape[-2:]
        if coarse.ndim != 4 or coarse.shape[1:] != (channels, h, w):
            raise ValueError(
                f"With fine fields of {h * self.latent_ratio} x {w * self.latent_ratio} this conditioner "
                f"takes coarse fields of the shape (N, {channels}, {h}, {w}); got {tuple(coarse.shape)}."
            )
        if len(encoded_static) not in (1, len(coarse)):
            raise ValueError(
                f"{len(encoded_static)} static fields serve neither one by one nor together "
                f"{len(coarse)} coarse ones; give one, or as many."
            )
        y = self.coarse_analysis(self.coarse_projection(coarse).permute(0, 2, 3, 1))
        s = encoded_static.expand(len(coarse), -1, -1, -1).permute(0, 2, 3, 1)
        context: Tensor = self.fusion(torch.cat([s, y], dim=-1)).permute(0, 3, 1, 2)
        result = [context]
        for block in self.cascade:
            context = block(nn.functional.avg_pool2d(context, 2))
            result.append(context)
        return tuple(result)


_BLOCK = re.compile(r"\d+\.(norm[12]\.(weight|bias)|filter\.[wb][12]|mlp\.fc[12]\.(weight|bias))")
_INPUTS = {"0": "static", "1": "coarse"}


def own_name(published: str) -> str | None:
    """Name in :class:`Conditioner` of a published weight, None where it is no part of one."""
    part, _, rest = published.partition(".")
    if part == "fusion":
        rest = rest.removeprefix("fusion.")
        linear = re.fullmatch(r"[02]\.(weight|bias)", rest)
        return f"fusion.{rest}" if linear or (rest.startswith("1.") and _BLOCK.fullmatch(rest)) else None
    index, _, rest = rest.partition(".")
    if part == "resnet" and index.isdecimal():
        own = own_residual_name(rest)
        return own and f"cascade.{index}.{own}"
    if part == "autoencoder" and index == "0":
        own = own_vae_name(rest)
        return None if own is None or own.startswith("decoder.") else f"static_encoder.{own}"
    if part == "proj" and index in _INPUTS and rest in ("weight", "bias"):
        return f"{_INPUTS[index]}_projection.{rest}"
    if part == "analysis" and index in _INPUTS and _BLOCK.fullmatch(rest):
        return f"{_INPUTS[index]}_analysis.{rest}"
    return None


def from_published_names(state: Mapping[str, Tensor], prefix: str = "context_encoder.") -> dict[str, Tensor]:
    """A published conditioner's state dict under the names of :class:`Conditioner`.

    Takes the entries beneath ``prefix`` (``"context_encoder."`` in a latent diffusion model's checkpoint)
    and leaves all others.

    Raises ValueError if there is none, if one does not belong to a conditioner, or if the two entries of a
    layer that is stored twice differ.
    """
    return renamed(state, prefix, own_name, "published conditioner")
