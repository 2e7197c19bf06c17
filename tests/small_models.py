"""Sizes of models so small that a test can run them; small stands for few channels, not for few parts."""

from core.models.conditioner import ConditionerConfig
from core.models.denoiser import DenoiserConfig
from core.models.latent_diffusion import LatentDiffusionConfig
from core.models.unet import UNetConfig
from core.models.vae import VAEConfig


def small_latent_diffusion(
    channels: int = 4,
    *,
    targets: int = 1,
    unet_features: tuple[int, ...] | None = None,
    denoiser_width: int | None = None,
    multipliers: tuple[int, ...] = (1, 1, 2),
) -> LatentDiffusionConfig:
    """Three levels as in the published model, so that fine sides must be multiples of 32."""
    double = 2 * channels
    return LatentDiffusionConfig(
        unet=UNetConfig(out_channels=targets, features=unet_features or (channels, channels)),
        vae=VAEConfig(in_channels=targets, latent_channels=channels, features=(channels,) * 3),
        conditioner=ConditionerConfig(
            static_features=(channels,) * 3,
            static_latent_channels=channels,
            static_embedding=double,
            coarse_embedding=double,
            static_depth=1,
            coarse_depth=1,
            width=double,
        ),
        denoiser=DenoiserConfig(
            in_channels=channels,
            out_channels=channels,
            width=denoiser_width or double,
            multipliers=multipliers,
            residual_blocks=1,
            context_channels=(double, 2 * double, 4 * double),
        ),
    )


def two_level_latent_diffusion(latent: int, *, targets: int = 1) -> LatentDiffusionConfig:
    """Two levels, so that fine sides need be multiples of 16 only, and attention at one of them."""
    return LatentDiffusionConfig(
        unet=UNetConfig(out_channels=targets, features=(2, 2)),
        vae=VAEConfig(in_channels=targets, latent_channels=latent, features=(2, 2, 2)),
        conditioner=ConditionerConfig(
            static_features=(2, 2, 8),
            static_latent_channels=2,
            static_embedding=8,
            coarse_embedding=8,
            static_depth=1,
            coarse_depth=1,
            width=8,
            levels=2,
        ),
        denoiser=DenoiserConfig(
            in_channels=latent,
            out_channels=latent,
            width=8,
            multipliers=(1, 2),
            residual_blocks=1,
            attention_levels=1,
            context_channels=(8, 16),
        ),
    )
