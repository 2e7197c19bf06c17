"""The training loss of the diffusion models.

Ho et al., arXiv 2006.11239, eq. 14, for a network that predicts the noise, z0 or v (Salimans and Ho, arXiv
2202.00512). The defaults are the published ones (Tomasi, Franch and Cristoforetti, arXiv 2406.13627).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from core.diffusion.schedule import Parameterization, Schedule

Norm = Literal["l1", "l2"]


class Denoising(NamedTuple):
    """One evaluation of a network in training.

    Attributes
    ----------
    losses : (N,) mean absolute or squared error of each sample; their mean is the training loss
    z : (N, ...) the noisy state that the network saw
    output : (N, ...) what it made of it; :meth:`Schedule.to_z0` turns the two into an estimate of z0
    """

    losses: Tensor
    z: Tensor
    output: Tensor


def diffusion_loss(
    denoise: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    noise: Tensor,
    t: Tensor,
    schedule: Schedule,
    *,
    parameterization: Parameterization = "v",
    norm: Norm = "l2",
) -> Denoising:
    """Error of a network that sees ``z0`` with noise.

    Parameters
    ----------
    denoise : gives the network's output (N, ...) from a state (N, ...) and times (N,)
    z0, noise : (N, ...) latents without noise, and unit normal noise
    t : (N,) whole numbers from 0 to ``schedule.steps`` - 1; training draws them uniformly
    norm : ``"l2"`` for the mean square, ``"l1"`` for the mean absolute error

    Losses are kept for each sample, so that they can be weighted by noise level before they are averaged.
    Raises ValueError where shapes differ or an option is unknown.
    """
    if noise.shape != z0.shape:
        raise ValueError(f"Noise of shape {tuple(noise.shape)} does not fit latents {tuple(z0.shape)}.")
    target = schedule.target(z0, noise, t, parameterization)
    z = schedule.add_noise(z0, noise, t)
    output = denoise(z, t)
    if output.shape != target.shape:
        raise ValueError(
            f"The network made {tuple(output.shape)} of latents {tuple(z0.shape)}; both must be the same."
        )
    error = output - target
    if norm == "l2":
        error = error.square()
    elif norm == "l1":
        error = error.abs()
    else:
        raise ValueError(f"The norm of the loss is l1 or l2, not {norm}.")
    return Denoising(error.flatten(1).mean(dim=1), z, output)
