"""How much memory networks take per field, so that batches fit; estimates are upper bounds.

What is counted are the fields inside a network at its peak, in inference. Weights, and what every process
takes, come on top.

Measured in float32 on a CPU with one thread, for the published width (329 million parameters, 1.23 GiB) on
the whole Italy domain, as the largest resident set of `tramontana downscale STORE --model FILE --out OUT
--hours H H --device cpu`: 2.6 GiB with `--members 2 --steps 3`, computed together, and 3.5 GiB with
`--members 13 --steps 2`, as many as the default budget of 2 GiB takes. `python -m tests.published_width FILE`
writes such a model with random weights.
"""

from __future__ import annotations

import math

from core.domain import Domain
from core.models.denoiser import DenoiserConfig
from core.models.unet import UNetConfig
from core.models.vae import VAEConfig

BYTES = 4


def unet_bytes_per_hour(config: UNetConfig, domain: Domain) -> int:
    """Memory that the fields of one hour take inside a UNet at its peak, in inference [bytes].

    The peak is the last level of the decoder: the skip, the upsampled field, both concatenated, and the
    results of two layers of the finest width, while the deeper skips still wait.
    """
    waiting = sum(width * 0.25**level for level, width in enumerate(config.features))
    channels = config.in_channels + 6 * config.features[0] + waiting
    height, width = domain.fine.shape
    return BYTES * height * width * math.ceil(channels)


def decoder_bytes_per_field(config: VAEConfig, domain: Domain) -> int:
    """Memory of one field inside the decoder of a VAE at its peak [bytes].

    The peak is a residual block on the fine grid: its input, the shortcut, and twice what a layer and its
    activation hold.
    """
    height, width = domain.fine.shape
    return BYTES * height * width * (6 * config.features[0] + 2 * config.in_channels)


def denoiser_bytes_per_field(config: DenoiserConfig, domain: Domain, latent_ratio: int) -> int:
    """Memory of one field inside a denoiser at its peak [bytes].

    The peak is a stage of the finest level on the way up, whose cross-attention joins the field with the
    context: both beside each other, projected, their Fourier modes in and out of the filter, the hidden
    layer of twice their width; while the context of all levels, the skips and the sampler's states wait.
    """
    height, width = domain.fine.shape
    pixels = height * width // latent_ratio**2
    # One skip for each residual block, and one for the convolution that leads to each level.
    skips = sum(
        channels * (config.residual_blocks + 1) * 0.25**level
        for level, channels in enumerate(config.channels)
    )
    context = sum(channels * 0.25**level for level, channels in enumerate(config.context_channels))
    both = config.channels[0] + config.context_channels[0]
    channels = 8 * both + 2 * config.channels[0] + skips + context + 8 * config.in_channels
    return BYTES * pixels * math.ceil(channels)
