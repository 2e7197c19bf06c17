"""The variational autoencoder whose latents the diffusion model generates.

Tomasi, Franch and Cristoforetti, arXiv 2406.13627, section 3: the residual (fine truth minus the UNet's
mean) is encoded on a grid 8 times coarser, 32 channels per target. The bottleneck is that of Kingma and
Welling, arXiv 1312.6114; latent diffusion follows Rombach et al., arXiv 2112.10752.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from core.models.weights import renamed, size

Width = Annotated[int, Field(ge=1, le=8192)]
KL_WEIGHT = 0.01


class VAEConfig(BaseModel):
    """Sizes of a :class:`VAE`; the defaults are the published ones for one target (115 696 parameters).

    ``in_channels`` are the targets, ``features`` the channels of the levels from the finest to the
    coarsest, each of which halves the grid, and ``latent_channels`` those of the latent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Width = 1
    latent_channels: Width = 32
    features: tuple[Width, ...] = Field(default=(16, 16, 64), min_length=1, max_length=8)

    @property
    def levels(self) -> int:
        """Number of halvings between the field and its latent."""
        return len(self.features)

    @classmethod
    def published(cls, targets: int) -> Self:
        """The published sizes for a number of targets: four times the channels per level, at least 16."""
        features = tuple(max(16, targets * 4**level) for level in (1, 2, 3))
        return cls(in_channels=targets, latent_channels=features[-1] // 2, features=features)

    @classmethod
    def from_weights(cls, state: Mapping[str, Tensor]) -> Self:
        """The sizes of the :class:`VAE` whose weights are ``state``.

        Raises ValueError if a weight is missing from which they follow, or if a size is impossible.
        """
        return cls(
            in_channels=size(state, "encoder.0.conv1.weight", 1),
            latent_channels=size(state, "to_decoder.weight", 1),
            features=encoder_features(state),
        )


def encoder_features(state: Mapping[str, Tensor], prefix: str = "encoder.") -> tuple[int, ...]:
    """Channels of the levels of the :class:`Encoder` whose weights lie beneath ``prefix``."""
    weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    # Two entries per level: the residual block and the convolution that halves the grid.
    levels = sum(f"{2 * level}.conv1.weight" in weights for level in range(len(weights)))
    return tuple(size(weights, f"{2 * level}.conv2.weight", 0) for level in range(levels))


class GroupNorm(nn.GroupNorm):
    """Group normalisation with one group: mean and variance over all channels and points.

    (N, C, H, W) -> the same. On a CPU, PyTorch's own is a hundred times less accurate with channels last
    than otherwise (errors of 1e-4 in decoded fields), and that layout is the faster one. So inference on a
    CPU takes the variance about the mean here.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised ``x``, scaled and shifted by channel."""
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(x)
        variance, mean = torch.var_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
        scale = self.weight[:, None, None] * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None] - mean * scale, x, scale)


class ResidualBlock(nn.Module):
    """Twice normalisation, SiLU and a 3x3 convolution, beside a shortcut: (N, in, H, W) -> (N, out, H, W).

    The normalisation takes mean and variance over all channels and points (group normalisation with one
    group); ``normalize=False`` leaves it out. The shortcut is a 1x1 convolution where the numbers of
    channels differ.
    """

    def __init__(self, in_channels: int, out_channels: int, *, normalize: bool = True) -> None:
        super().__init__()
        self.norm1 = GroupNorm(in_channels) if normalize else nn.Identity()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(out_channels) if normalize else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H, W)."""
        inner = self.conv1(nn.functional.silu(self.norm1(x)))
        inner = self.conv2(nn.functional.silu(self.norm2(inner)))
        result: Tensor = inner + self.shortcut(x)
        return result


class Encoder(nn.Sequential):
    """Per level a residual block and a 2x2 convolution of stride 2.

    (N, in, H, W) -> (N, features[-1], H / 2^levels, W / 2^levels).
    """

    def __init__(self, in_channels: int, features: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for i, o in zip((in_channels, *features), features, strict=False):
            layers += [ResidualBlock(i, o), nn.Conv2d(o, o, 2, stride=2)]
        super().__init__(*layers)


class Decoder(nn.Sequential):
    """The mirror of :class:`Encoder`: per level a 2x2 transposed convolution and a residual block.

    (N, features[-1], h, w) -> (N, out, h 2^levels, w 2^levels).
    """

    def __init__(self, out_channels: int, features: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for i, o in zip(reversed(features), (*reversed(features[:-1]), out_channels), strict=True):
            layers += [nn.ConvTranspose2d(i, i, 2, stride=2), ResidualBlock(i, o)]
        super().__init__(*layers)


class Posterior(NamedTuple):
    """The normal distribution of the latent of a field; both parts have the shape (N, latent, h, w).

    The parts are taken apart by unpacking: ``mean, log_variance = vae.encode(x)``.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor | torch.Generator) -> Tensor:
        """A latent (N, latent, h, w): mean + standard deviation * noise.

        ``noise`` is standard normal noise of that shape, or a generator to draw it from, which lives on
        the device of the mean.
        """
        if isinstance(noise, torch.Generator):
            noise = torch.randn(
                self.mean.shape, generator=noise, dtype=self.mean.dtype, device=self.mean.device
            )
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal distribution, mean over all elements.

        0.5 (variance + mean^2 - 1 - log variance), arXiv 1312.6114, appendix B; there it is a sum.
        """
        return 0.5 * (self.log_variance.exp() + self.mean.square() - 1.0 - self.log_variance).mean()


class VAE(nn.Module):
    """Residuals (N, targets, H, W) to latents (N, latent, H / 2^levels, W / 2^levels) and back."""

    def __init__(self, config: VAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VAEConfig()
        deepest, latent = config.features[-1], config.latent_channels
        self.encoder = Encoder(config.in_channels, config.features)
        self.to_moments = nn.Conv2d(deepest, 2 * latent, 1)
        self.to_decoder = nn.Conv2d(latent, deepest, 1)
        self.decoder = Decoder(config.in_channels, config.features)

    @property
    def side_multiple(self) -> int:
        """Number of which both fine sides must be multiples; the latent is that many times coarser."""
        return 1 << self.config.levels

    def encode(self, x: Tensor) -> Posterior:
        """The latent's distribution for fields ``x`` (N, targets, H, W).

        Raises ValueError where channels or sides do not fit.
        """
        check_fine(x, self.config.in_channels, self.side_multiple, "VAE")
        mean, log_variance = self.to_moments(self.encoder(x)).chunk(2, dim=1)
        return Posterior(mean, log_variance)

    def decode(self, z: Tensor) -> Tensor:
        """Fields (N, targets, h 2^levels, w 2^levels) from latents ``z`` (N, latent, h, w).

        Raises ValueError if the number of channels is another.
        """
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"This VAE takes latents of the shape (N, {self.config.latent_channels}, h, w); "
                f"got {tuple(z.shape)}."
            )
        result: Tensor = self.decoder(self.to_decoder(z))
        return result

    def forward(self, x: Tensor, noise: Tensor | torch.Generator | None = None) -> tuple[Tensor, Posterior]:
        """The reconstruction of ``x`` (N, targets, H, W) and the latent's distribution.

        Decodes a sample made with ``noise`` (see :meth:`Posterior.sample`), as in training; without it
        the mean.
        """
        posterior = self.encode(x)
        z = posterior.mean if noise is None else posterior.sample(noise)
        return self.decode(z), posterior


def check_fine(x: Tensor, channels: int, multiple: int, network: str) -> None:
    """Raise ValueError unless ``x`` is (N, channels, H, W) with sides that are multiples of ``multiple``."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(
            f"This {network} takes fields of the shape (N, {channels}, H, W); got {tuple(x.shape)}."
        )
    height, width = x.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(
            f"This {network} needs fine sides that are multiples of {multiple}; got {height} x {width}. "
            "Crop the fields, or choose a domain with such sides."
        )


class VAELoss(NamedTuple):
    """What training minimises, and its two parts; scalars."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


def vae_loss(
    reconstruction: Tensor, target: Tensor, posterior: Posterior, *, kl_weight: float = KL_WEIGHT
) -> VAELoss:
    """The published loss: mean absolute error + ``kl_weight`` * :meth:`Posterior.kl`.

    ``reconstruction`` and ``target`` are (N, targets, H, W). As the divergence is a mean, not a sum, the
    balance does not depend on the size of the fields.
    """
    error = (target - reconstruction).abs().mean()
    kl = posterior.kl()
    return VAELoss(error + kl_weight * kl, error, kl)


# The published residual block holds its layers by name and again in a sequence.
_SEQUENCE = {"0": "norm1", "2": "conv1", "3": "norm2", "5": "conv2"}


def own_residual_name(published: str) -> str | None:
    """Name in :class:`ResidualBlock` of a published weight, None where it is no part of one."""
    match = re.fullmatch(r"(norm[12]|conv[12]|proj|sequence\.([0235]))\.(weight|bias)", published)
    if match is None:
        return None
    layer, position, kind = match.groups()
    layer = _SEQUENCE[position] if position else layer.replace("proj", "shortcut")
    return f"{layer}.{kind}"


def own_vae_name(published: str) -> str | None:
    """Name in :class:`VAE` of a published weight of encoder, decoder or the 1x1 convolutions between."""
    if re.fullmatch(r"to_(moments|decoder)\.(weight|bias)", published):
        return published
    match = re.fullmatch(r"(encoder|decoder)\.net\.(\d+)\.(.+)", published)
    if match is None:
        return None
    side, index, rest = match.groups()
    own = rest if rest in ("weight", "bias") else own_residual_name(rest)
    return own and f"{side}.{index}.{own}"


def from_published_names(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """A published VAE's state dict under the names of :class:`VAE`.

    Takes the entries beneath ``prefix`` (``""`` in the VAE's own checkpoint, ``"autoencoder."`` inside a
    latent diffusion model's) except the UNet's (``unet_regr.``), and leaves all others.

    Raises ValueError if there is none, if one does not belong to a VAE, or if the two entries of a layer
    that is stored twice differ.
    """
    others = prefix + "unet_regr."
    own = {key: value for key, value in state.items() if not key.startswith(others)}
    return renamed(own, prefix, own_vae_name, "published VAE")
