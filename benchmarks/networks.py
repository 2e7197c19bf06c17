"""The UNet on the Italy domain: memory layouts on this CPU."""

from __future__ import annotations

import copy

import torch

from benchmarks.comparison import Comparison
from core.domain import ITALY
from core.models.unet import UNet, UNetConfig
from core.variables import PREDICTORS, STATIC_CHANNELS


def comparisons() -> list[Comparison]:
    """A UNet of a quarter of the published width, both layouts with the same weights."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, len(PREDICTORS), *ITALY.coarse.shape, generator=generator)
    static = torch.randn(1, STATIC_CHANNELS, *ITALY.fine.shape, generator=generator)
    model = UNet(UNetConfig(features=(16, 32, 64, 128))).eval().requires_grad_(False)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)

    def run(network: UNet) -> torch.Tensor:
        with torch.inference_mode():
            return network(coarse, static)

    threads = torch.get_num_threads()
    return [
        Comparison(
            f"UNet (16-32-64-128), 1 hour of Italy, channels last, threads: {threads}",
            "the same, channels first",
            lambda: run(last),
            lambda: run(model),
            tolerance=1e-3,
        )
    ]
