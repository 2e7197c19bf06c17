"""Estimates of memory against what the tensors of a network really take, without making any numbers."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from core.domain import ITALY, Domain
from core.downscale.memory import (
    decoder_bytes_per_field,
    denoiser_bytes_per_field,
    unet_bytes_per_hour,
)
from core.models.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from tests.core.downscale.live_memory import LiveMemory
from tests.small_models import small_latent_diffusion
from tests.synthetic_store import DOMAIN


@pytest.mark.parametrize(
    ("config", "domain"), [(LatentDiffusionConfig(), ITALY), (small_latent_diffusion(), DOMAIN)]
)
def test_estimates_are_upper_bounds(config: LatentDiffusionConfig, domain: Domain) -> None:
    """Published width on Italy and a tiny network: never below the peak, and not far above it."""
    (height, width), (h, w) = domain.fine.shape, domain.coarse.shape
    fields = 3
    with FakeTensorMode(), torch.no_grad():
        model = LatentDiffusion(config).eval()
        coarse, static = torch.empty(fields, 14, h, w), torch.empty(1, 18, height, width)
        context = model.condition(coarse, static)
        z, t = torch.empty(fields, config.vae.latent_channels, h, w), torch.empty(fields)
        peaks = []
        for call in (
            lambda: model.mean(coarse, static),
            lambda: model.denoise(z, t, context),
            lambda: model.decode(z),
        ):
            with LiveMemory() as memory:
                call()
            peaks.append(memory.peak / fields)
    estimates = (
        unet_bytes_per_hour(config.unet, domain),
        denoiser_bytes_per_field(config.denoiser, domain, model.latent_ratio)
        - sum(level[0].numel() * 4 for level in context),
        decoder_bytes_per_field(config.vae, domain),
    )
    for estimate, peak in zip(estimates, peaks, strict=True):
        assert peak < estimate < 4 * peak


def test_live_memory_counts_what_is_alive() -> None:
    with LiveMemory() as memory:
        first = torch.zeros(1000)
        view = first.view(10, 100)
        torch.zeros(500)
        del first
        second = view + 1
    assert memory.now == 8000
    assert memory.peak == 8000
    del second
    assert memory.now == 4000
