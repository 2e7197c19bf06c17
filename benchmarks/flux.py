"""The flux-ratio loss, forward and backward, against a plain loop over the supergrid cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.comparison import Comparison
from core.physics import CellRule, flux_ratio_loss

CELLS = 16
"""Cells along each side of the field."""


def flux_ratio_by_loop(field: Tensor, count: int, epsilon: float) -> Tensor:
    """R of ``count`` x ``count`` cells by the training formula, one cell after the other: (N, H, W) in."""
    height, width = field.shape[-2] // count, field.shape[-1] // count
    rows = []
    for i in range(count):
        row = []
        for j in range(count):
            cell = field[:, i * height : (i + 1) * height, j * width : (j + 1) * width]
            south, east = torch.gradient(cell, dim=(-2, -1))
            steepness = torch.sqrt(south**2 + east**2) + epsilon
            south, east = cell * south / steepness, cell * east / steepness
            sides = (-south[:, 0], south[:, -1], -east[:, 1:-1, 0], east[:, 1:-1, -1])
            rim = (steepness[:, 0], steepness[:, -1], steepness[:, 1:-1, 0], steepness[:, 1:-1, -1])
            row.append(torch.cat(sides, 1).mean(1) / (torch.cat(rim, 1).mean(1) + epsilon))
        rows.append(torch.stack(row, 1))
    return torch.stack(rows, 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other count as processor time, on a busy machine most of it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _with_gradient(loss: Callable[[], Tensor], field: Tensor) -> Tensor:
    """Loss and its gradient in one vector, the gradient scaled to order one."""
    with _one_thread():
        value = loss()
        (gradient,) = torch.autograd.grad(value, field)
        return torch.cat((value.detach().reshape(1), 1e3 * gradient.flatten()))


def comparisons() -> list[Comparison]:
    """A batch of four training crops, 16 x 16 cells, by the formula of the published training."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(4, 64, 64, generator=generator)
    repeated = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    fine = (repeated + torch.randn(4, 512, 512, generator=generator)).requires_grad_()
    rule = CellRule(unit="per_side", count=CELLS)

    def ours() -> Tensor:
        return flux_ratio_loss(fine, coarse, "published_training", cells=rule)

    def reference() -> Tensor:
        fluxes = [flux_ratio_by_loop(field, CELLS, 1e-4) for field in (fine, coarse)]
        return (fluxes[0] - fluxes[1]).abs().mean()

    return [
        Comparison(
            f"flux-ratio loss and gradient, {CELLS} x {CELLS} cells, batch 4 of 512 x 512, one thread",
            "the same with a loop over the cells",
            lambda: _with_gradient(ours, fine),
            lambda: _with_gradient(reference, fine),
            tolerance=1e-5,
            required=20,
        )
    ]
