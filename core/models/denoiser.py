"""The denoiser: a time-dependent UNet on the latent grid, informed by the conditioner's cascade.

Tomasi, Franch and Cristoforetti, arXiv 2406.13627, section 3; the layout is that of Rombach et al.,
arXiv 2112.10752, without normalisation and with AFNO cross-attention (:mod:`core.models.afno`) in place of
attention, after Leinonen et al., arXiv 2304.12891.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from core.models.afno import FILTER_BLOCKS, AFNOCrossAttention, ModeTruncation
from core.models.weights import renamed, size
from core.plural import counted

Width = Annotated[int, Field(ge=1, le=16384)]

LONGEST_PERIOD = 10_000
TIME_WIDENING = 4


class DenoiserConfig(BaseModel):
    """Sizes of a :class:`Denoiser`; the defaults are the published ones (274 467 616 parameters).

    Level i works on a grid 2^i times coarser than the latents with ``width * multipliers[i]`` channels,
    ``residual_blocks`` residual blocks on the way down and one more on the way up. The first
    ``attention_levels`` levels and the middle block take the context, of ``context_channels[i]`` channels:
    every level but possibly the last has to. ``filter_blocks`` and ``truncate_modes`` belong to the AFNO
    filter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Width = 32
    out_channels: Width = 32
    width: Width = 256
    multipliers: tuple[Width, ...] = Field(default=(1, 2, 4), min_length=1, max_length=8)
    residual_blocks: int = Field(default=2, ge=1, le=16)
    attention_levels: int = Field(default=2, ge=0)
    context_channels: tuple[Width, ...] = (256, 512, 1024)
    filter_blocks: Width = FILTER_BLOCKS
    truncate_modes: ModeTruncation = "none"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        levels = len(self.multipliers)
        if len(self.context_channels) != levels:
            raise ValueError(
                f"context_channels must have one number for each of the {levels} levels; "
                f"got {len(self.context_channels)}."
            )
        if self.attention_levels not in (levels - 1, levels):
            raise ValueError(
                f"attention_levels must be {levels - 1} or {levels} with {levels} levels; "
                f"got {self.attention_levels}."
            )
        for channels, context in zip(self.channels, self.context_channels, strict=True):
            if (channels + context) % self.filter_blocks:
                raise ValueError(
                    f"{channels} channels and {context} of context cannot be cut into "
                    f"{self.filter_blocks} equal blocks."
                )
        return self

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the levels, finest first."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @classmethod
    def from_weights(cls, state: Mapping[str, Tensor], *, truncate_modes: ModeTruncation = "none") -> Self:
        """The sizes of the :class:`Denoiser` whose weights are ``state``.

        Weights do not tell which modes the filter passes on: ``truncate_modes`` says so.
        Raises ValueError if a weight is missing from which they follow, or if a size is impossible.
        """
        width = size(state, "input_blocks.0.weight", 0)
        levels = _levels(state)
        channels = [size(state, f"{blocks[0]}.residual.conv1.weight", 0) for blocks in levels]
        if any(number % width for number in channels):
            raise ValueError(f"The channels of the levels, {channels}, must be multiples of {width}.")
        attentive = [blocks[0] for blocks in levels if f"{blocks[0]}.attention.pre_proj.weight" in state]
        # Without an attention of its own, the last level's context goes to the middle block alone.
        mixing = attentive + ["middle_block.0"] * (len(levels) - len(attentive))
        both = [size(state, f"{block}.attention.pre_proj.weight", 0) for block in mixing]
        return cls(
            in_channels=size(state, "input_blocks.0.weight", 1),
            out_channels=size(state, "out.weight", 0),
            width=width,
            multipliers=tuple(number // width for number in channels),
            residual_blocks=len(levels[0]),
            attention_levels=len(attentive),
            context_channels=tuple(total - own for total, own in zip(both, channels, strict=True)),
            filter_blocks=size(state, "middle_block.0.attention.filter.w1", 1),
            truncate_modes=truncate_modes,
        )


def _levels(state: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of the residual stages of every level on the way down."""
    levels: list[list[str]] = [[]]
    for number in range(1, len(state)):
        block = f"input_blocks.{number}"
        if f"{block}.residual.conv1.weight" in state:
            levels[-1].append(block)
        elif f"{block}.weight" in state:
            levels.append([])
        else:
            break
    if not levels[0] or len({len(blocks) for blocks in levels}) != 1:
        raise ValueError(
            "All levels of a denoiser must have the same number of residual blocks, at least 1; "
            f"these weights have {', '.join(str(len(blocks)) for blocks in levels)}."
        )
    return levels


def time_embedding(t: Tensor, channels: int) -> Tensor:
    """Cosines and sines of time steps ``t`` (N,), which may be fractional: (N, channels), float32.

    The angular frequencies fall geometrically from 1 towards 1 / 10 000 (Vaswani et al., arXiv 1706.03762);
    an odd number of channels ends with a zero.
    """
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * steps / half)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, channels % 2))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions after SiLU, the time embedding added between: (N, i, H, W) -> (N, o, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, time_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_channels, out_channels)
        self.conv2 = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The block's result for ``x`` (N, i, H, W) and an activated time ``embedding`` (N, T)."""
        hidden = self.conv1(F.silu(x)) + self.time(embedding)[:, :, None, None]
        result: Tensor = self.skip(x) + self.conv2(F.silu(hidden))
        return result


class Stage(nn.Module):
    """A residual block, and where asked for cross-attention and an upsampling by 2 with a 3x3 convolution."""

    def __init__(
        self,
        residual: ResidualBlock,
        attention: AFNOCrossAttention | None = None,
        upsample: nn.Conv2d | None = None,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention = attention
        self.upsample = upsample

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        """``x`` (N, i, H, W) to (N, o, H, W), or (N, o, 2 H, 2 W); ``context`` lies on the grid of ``x``."""
        x = self.residual(x, embedding)
        if self.attention is not None:
            x = self.attention(x, context)
        if self.upsample is not None:
            x = self.upsample(F.interpolate(x, scale_factor=2, mode="nearest"))
        return x


class Denoiser(nn.Module):
    """Noisy latents, their time steps and the context to the network output (v, as published).

    Calling it with ``z`` (N, in_channels, h, w), ``t`` (N,), whole or fractional, and ``context``, one tensor
    (N or 1, context_channels[i], h / 2^i, w / 2^i) per level, gives (N, out_channels, h, w). h and w must be
    multiples of :attr:`side_multiple` (4 at published depth).
    """

    def __init__(self, config: DenoiserConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DenoiserConfig()
        width, levels = config.width, len(config.multipliers)
        time_channels = TIME_WIDENING * width
        self.time_embed = nn.Sequential(
            nn.Linear(width, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels)
        )

        def stage(inputs: int, level: int, *, attention: bool, up: bool = False) -> Stage:
            channels = config.channels[level]
            return Stage(
                ResidualBlock(inputs, channels, time_channels),
                AFNOCrossAttention(
                    channels,
                    config.context_channels[level],
                    blocks=config.filter_blocks,
                    truncate_modes=config.truncate_modes,
                )
                if attention
                else None,
                nn.Conv2d(channels, channels, 3, padding=1) if up else None,
            )

        current = width
        skips = [width]
        self.input_blocks = nn.ModuleList([nn.Conv2d(config.in_channels, width, 3, padding=1)])
        for level, channels in enumerate(config.channels):
            for _ in range(config.residual_blocks):
                attention = level < config.attention_levels
                self.input_blocks.append(stage(current, level, attention=attention))
                current = channels
                skips.append(current)
            if level < levels - 1:
                self.input_blocks.append(nn.Conv2d(current, current, 3, stride=2, padding=1))
                skips.append(current)
        self.middle_block = nn.ModuleList(
            [stage(current, levels - 1, attention=True), stage(current, levels - 1, attention=False)]
        )
        self.output_blocks = nn.ModuleList()
        for level, channels in reversed(list(enumerate(config.channels))):
            for number in range(config.residual_blocks + 1):
                attention = level < config.attention_levels
                up = level > 0 and number == config.residual_blocks
                self.output_blocks.append(stage(current + skips.pop(), level, attention=attention, up=up))
                current = channels
        self.out = _zero(nn.Conv2d(current, config.out_channels, 3, padding=1))

    @property
    def side_multiple(self) -> int:
        """Number of which both sides of the latents must be multiples."""
        return 1 << (len(self.config.multipliers) - 1)

    def embed_time(self, t: Tensor) -> Tensor:
        """The learned embedding (N, 4 width) of time steps ``t`` (N,)."""
        sinusoids = time_embedding(t, self.config.width)
        result: Tensor = self.time_embed(sinusoids.to(self.out.weight.dtype))
        return result

    def forward(self, z: Tensor, t: Tensor, context: Sequence[Tensor]) -> Tensor:
        """The network output (N, out_channels, h, w) for noisy latents ``z`` at time steps ``t``.

        Raises ValueError where sides, channels, batch or levels do not fit.
        """
        self._check(z, t, context)
        embedding = F.silu(self.embed_time(t))
        # On the finer levels one field keeps all cores of a CPU busy, and the temporaries of several are so
        # large that their memory is fetched anew each time, which costs more than a batch saves.
        apart = z.device.type == "cpu" and not torch.is_grad_enabled()
        parts = [slice(i, i + 1) for i in range(len(z))] if apart else [slice(None)]
        contexts = [[level[part] if len(level) > 1 else level for level in context] for part in parts]
        skips = [
            self._descend(z[part], embedding[part], own) for part, own in zip(parts, contexts, strict=True)
        ]
        x = self._coarsest(torch.cat([of_part.pop() for of_part in skips]), embedding, context[-1])
        return torch.cat(
            [
                self._ascend(x[part], of_part, embedding[part], own)
                for part, of_part, own in zip(parts, skips, contexts, strict=True)
            ]
        )

    @property
    def _finer_blocks(self) -> int:
        """Number of input blocks before those of the coarsest level."""
        return 1 + (len(self.config.multipliers) - 1) * (self.config.residual_blocks + 1)

    def _descend(self, x: Tensor, embedding: Tensor, context: Sequence[Tensor]) -> list[Tensor]:
        """Results of the input blocks down to the grid of the coarsest level."""
        level = 0
        skips: list[Tensor] = []
        for block in self.input_blocks[: self._finer_blocks]:
            if isinstance(block, Stage):
                x = block(x, embedding, context[level])
            else:
                x = block(x)
                level += bool(skips)
            skips.append(x)
        return skips

    def _coarsest(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        """Through the coarsest level, and up to the grid of the one above."""
        skips = [x]
        for block in self.input_blocks[self._finer_blocks :]:
            x = block(x, embedding, context)
            skips.append(x)
        for block in self.middle_block:
            x = block(x, embedding, context)
        for block in self.output_blocks[: len(skips)]:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding, context)
        return x

    def _ascend(self, x: Tensor, skips: list[Tensor], embedding: Tensor, context: Sequence[Tensor]) -> Tensor:
        """Through the finer levels to the network output; takes the ``skips`` away."""
        level = len(self.config.multipliers) - 2
        for block in self.output_blocks[self.config.residual_blocks + 1 :]:
            assert isinstance(block, Stage)
            x = block(torch.cat([x, skips.pop()], dim=1), embedding, context[level])
            level -= block.upsample is not None
        result: Tensor = self.out(F.silu(x))
        return result

    def _check(self, z: Tensor, t: Tensor, context: Sequence[Tensor]) -> None:
        config, multiple = self.config, self.side_multiple
        if z.ndim != 4:
            raise ValueError(
                f"This denoiser takes latents of the shape (N, {config.in_channels}, h, w); "
                f"got {tuple(z.shape)}."
            )
        batch, channels, height, width = z.shape
        if channels != config.in_channels:
            raise ValueError(
                f"This denoiser takes latents of {counted(config.in_channels, 'channel')}; got {channels}."
            )
        if height % multiple or width % multiple:
            raise ValueError(
                f"This denoiser needs latent sides that are multiples of {multiple}; got {height} x {width}."
            )
        if t.shape != (batch,):
            raise ValueError(
                f"Every latent needs a time step of its own: t must have the shape ({batch},); "
                f"got {tuple(t.shape)}."
            )
        if len(context) != len(config.context_channels):
            raise ValueError(
                f"This denoiser takes {len(config.context_channels)} levels of context; got {len(context)}."
            )
        for level, (given, expected) in enumerate(zip(context, config.context_channels, strict=True)):
            shape = (expected, height >> level, width >> level)
            if given.shape[1:] != shape or given.shape[0] not in (1, batch):
                raise ValueError(
                    f"Context level {level} must have shape ({batch} or 1, {', '.join(map(str, shape))}); "
                    f"got {tuple(given.shape)}."
                )


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    """``layer`` with weights of zero, so that an untrained block passes its input on."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


RESIDUAL_NAMES = {
    "in_layers.2": "conv1",
    "emb_layers.1": "time",
    "out_layers.3": "conv2",
    "skip_connection": "skip",
}


def _own_name(published: str) -> str | None:
    """Name in :class:`Denoiser` of a published weight (without prefix), None where it is no part of one."""
    parameter = r"\.(weight|bias)"
    if re.fullmatch(rf"time_embed\.[02]{parameter}", published):
        return published
    if match := re.fullmatch(rf"input_blocks\.0\.0{parameter}", published):
        return f"input_blocks.0.{match[1]}"
    if match := re.fullmatch(rf"input_blocks\.(\d+)\.0\.op{parameter}", published):
        return f"input_blocks.{match[1]}.{match[2]}"
    if match := re.fullmatch(rf"output_blocks\.(\d+)\.[12]\.conv{parameter}", published):
        return f"output_blocks.{match[1]}.upsample.{match[2]}"
    if match := re.fullmatch(rf"out\.2{parameter}", published):
        return f"out.{match[1]}"
    layers = "|".join(map(re.escape, RESIDUAL_NAMES))
    if match := re.fullmatch(
        rf"(middle_block|(?:input|output)_blocks\.\d+)\.([02])\.({layers}){parameter}", published
    ):
        block, place, layer, rest = match.groups()
        if block == "middle_block":
            block, place = f"{block}.{int(place) // 2}", "0"
        return f"{block}.residual.{RESIDUAL_NAMES[layer]}.{rest}" if place == "0" else None
    if match := re.fullmatch(
        r"(middle_block|(?:input|output)_blocks\.\d+)\.1\."
        rf"(filter\.[wb][12]|(?:pre_proj|mlp\.fc[12]){parameter})",
        published,
    ):
        block = "middle_block.0" if match[1] == "middle_block" else match[1]
        return f"{block}.attention.{match[2]}"
    return None


Averages = bool | Literal["partial"]
"""Which of a published denoiser's weights are wanted: their moving averages (True), the raw ones (False), or
the averages of those that have one and the others raw (``"partial"``), as is right for a model that was
fine-tuned in parts: weights that did not move are their own average."""


def from_published_names(
    state: Mapping[str, Tensor], prefix: str = "denoiser.", *, ema: Averages = True
) -> dict[str, Tensor]:
    """A published denoiser's weights under the names of :class:`Denoiser`.

    The names are those of the entries beneath ``prefix``, the values those of their exponential moving
    averages, with which the published models sample: they stand beneath ``denoiser_ema.`` under the same
    names with the dots removed, beside ``decay`` and ``num_updates``, which are dropped. ``ema`` can ask for
    other values: see :data:`Averages`.

    Raises ValueError if there are no weights, if one does not belong to a denoiser, or if averages are
    missing, are left over or have other shapes than the weights.
    """
    raw = renamed(state, prefix, _own_name, "published denoiser")
    if ema is False:
        return raw
    ema_prefix = f"{prefix.removesuffix('.')}_ema."
    averages = {k.removeprefix(ema_prefix): v for k, v in state.items() if k.startswith(ema_prefix)}
    for bookkeeping in ("decay", "num_updates"):
        averages.pop(bookkeeping, None)
    weights = {key: tensor for key, tensor in state.items() if key.startswith(prefix)}
    values: dict[str, Tensor] = {}
    missing: list[str] = []
    for key, tensor in weights.items():
        average = averages.pop(key.removeprefix(prefix).replace(".", ""), None)
        if average is None:
            missing.append(key)
        elif average.shape != tensor.shape:
            raise ValueError(
                f"The moving average of {key} has the shape {tuple(average.shape)}, "
                f"the weight {tuple(tensor.shape)}."
            )
        values[key] = tensor if average is None else average
    if averages:
        raise ValueError(f"{ema_prefix}{next(iter(averages))} is the average of no weight of the denoiser.")
    if missing and (ema is True or len(missing) == len(weights)):
        raise ValueError(
            f"{len(missing)} of {len(weights)} weights of the denoiser have no moving average, first "
            f"{missing[0]}. Published models sample with the averages. Ask for the raw weights to do "
            "without, or for partial averages if a part of the denoiser was frozen in training."
        )
    return renamed(values, prefix, _own_name, "published denoiser")
