"""Adaptive Fourier neural operators: mixing of all grid points at the price of an FFT.

Guibas et al., arXiv 2111.13587: a field is Fourier transformed, every mode passes through one small complex
perceptron shared by all modes, small results are shrunk to zero, and the result is transformed back. The
conditioner and the denoiser of Tomasi, Franch and Cristoforetti (arXiv 2406.13627, section 3) use it in place
of attention, after Leinonen et al., arXiv 2304.12891.

The weights have the published names. Fields are (N, C, H, W) and should be contiguous, only those of
:class:`AFNOBlock` are (N, H, W, C): Fourier transforms of neighbouring channels take several times as long.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ModeTruncation = Literal["none", "published"]
"""Which Fourier modes a filter passes on: all, or those that the published code keeps.

``"published"`` keeps the east-west wavenumbers below H // 2 + 1 and sets the others to zero. On fields at
least as high as wide, as the Italy domain is, both are the same; on wider ones the limit, which is a
count of north-south wavenumbers, removes the finest east-west structure.
"""

FILTER_BLOCKS = 8
SPARSITY_THRESHOLD = 0.01
INITIAL_SCALE = 0.02


def _small_normal(*shape: int) -> nn.Parameter:
    empty = torch.empty(shape)
    if empty.is_meta:  # random numbers without values would have torch import its compiler, for seconds
        return nn.Parameter(empty)
    return nn.Parameter(INITIAL_SCALE * torch.randn(shape))


class AFNOFilter(nn.Module):
    """The spectral filter: (N, channels, H, W) -> the same, with the input added.

    With X the orthonormal Fourier transform, every mode's channels are cut into ``blocks`` groups, and each
    group becomes ``shrink(W2 relu(W1 X + b1) + b2)``, where ReLU and soft shrinkage (by 0.01) act on real and
    imaginary parts apart. Transforms and perceptron run in float32 also under autocast, where half
    precision would drop the small modes (in float64 for float64 input).

    Raises ValueError where ``blocks`` does not divide ``channels``.
    """

    def __init__(
        self, channels: int, *, blocks: int = FILTER_BLOCKS, truncate_modes: ModeTruncation = "none"
    ) -> None:
        super().__init__()
        if channels % blocks:
            raise ValueError(f"{channels} channels cannot be cut into {blocks} equal blocks.")
        self.blocks = blocks
        self.truncate_modes = truncate_modes
        size = channels // blocks
        # Real and imaginary parts, blocks, inputs, outputs.
        self.w1 = _small_normal(2, blocks, size, size)
        self.b1 = _small_normal(2, blocks, size)
        self.w2 = _small_normal(2, blocks, size, size)
        self.b2 = _small_normal(2, blocks, size)

    def forward(self, x: Tensor) -> Tensor:
        """The filtered ``x`` (N, channels, H, W) plus ``x``, in its dtype."""
        with torch.autocast(x.device.type, enabled=False):
            exact = x.to(torch.promote_types(x.dtype, torch.float32))
            return (self._filtered(exact) + exact).to(x.dtype)

    def _filtered(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        modes = torch.fft.rfft2(x.contiguous(), norm="ortho")
        available = modes.shape[3]
        if self.truncate_modes == "published":
            modes = modes[..., : height // 2 + 1]
        modes = self._perceptron(modes)
        if modes.shape[3] < available:
            modes = F.pad(modes, (0, available - modes.shape[3]))
        # One axis after the other: where the spectrum is not Hermitian, as here, a two-dimensional
        # complex-to-real transform may differ from one library to the next.
        modes = torch.fft.ifft(modes, dim=2, norm="ortho")
        result: Tensor = torch.fft.irfft(modes, n=width, dim=3, norm="ortho")
        return result

    def _perceptron(self, modes: Tensor) -> Tensor:
        """Modes (N, channels, H, K), complex, through the perceptron that all modes share."""
        batch, channels = modes.shape[:2]
        vectors = modes.reshape(batch * self.blocks, channels // self.blocks, -1)
        hidden = self._affine(self.w1, self.b1, vectors)
        result = self._affine(self.w2, self.b2, torch.view_as_complex(F.relu(torch.view_as_real(hidden))))
        result = torch.view_as_complex(F.softshrink(torch.view_as_real(result), SPARSITY_THRESHOLD))
        return result.reshape(modes.shape)

    @staticmethod
    def _affine(weight: Tensor, bias: Tensor, vectors: Tensor) -> Tensor:
        """Complex W X + b of every block: X (N blocks, i, modes) -> (N blocks, o, modes)."""
        real = vectors.real.dtype
        matrix = torch.complex(*weight.to(real)).mT
        column = torch.complex(*bias.to(real))[..., None]
        repeats = len(vectors) // len(matrix)
        if repeats > 1:
            matrix, column = matrix.repeat(repeats, 1, 1), column.repeat(repeats, 1, 1)
        return torch.baddbmm(column, matrix, vectors)


class Perceptron(nn.Module):
    """Two linear layers with a GELU between, over the last axis: (..., i) -> (..., o)."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """The result of both layers."""
        result: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return result

    def over_channels(self, x: Tensor) -> Tensor:
        """The same for fields: (N, i, H, W) -> (N, o, H, W)."""
        return _over_channels(self.fc2, F.gelu(_over_channels(self.fc1, x)))


def _over_channels(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer at every point of fields, (N, i, H, W) -> (N, o, H, W), without moving axes."""
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


class AFNOBlock(nn.Module):
    """Layer normalisation, filter, layer normalisation, perceptron, with two skips: (N, H, W, C) -> same.

    ``mlp_ratio`` is the width of the perceptron's hidden layer as a multiple of ``channels``.
    """

    def __init__(
        self,
        channels: int,
        *,
        mlp_ratio: int = 4,
        blocks: int = FILTER_BLOCKS,
        truncate_modes: ModeTruncation = "none",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.filter = AFNOFilter(channels, blocks=blocks, truncate_modes=truncate_modes)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Perceptron(channels, mlp_ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The block's result for ``x`` (N, H, W, C)."""
        x = x + self.filter(self.norm1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class AFNOCrossAttention(nn.Module):
    """Mixes a field with its context: ``x`` (N, C, H, W), ``context`` (N or 1, D, H, W) -> (N, C, H, W).

    Both are put side by side, mixed by a linear layer and by a filter over C + D channels (each with a skip),
    and a perceptron with a hidden layer of 2 (C + D) leads back to C channels, to which ``x`` is added.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        *,
        blocks: int = FILTER_BLOCKS,
        truncate_modes: ModeTruncation = "none",
    ) -> None:
        super().__init__()
        both = channels + context_channels
        self.pre_proj = nn.Linear(both, both)
        self.filter = AFNOFilter(both, blocks=blocks, truncate_modes=truncate_modes)
        self.mlp = Perceptron(both, 2 * both, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """``x`` informed by ``context``; one context (1, D, H, W) serves a whole batch."""
        both = torch.cat([x, context.expand(len(x), -1, -1, -1)], dim=1)
        both = both + _over_channels(self.pre_proj, both)
        both = both + self.filter(both)
        return x + self.mlp.over_channels(both)
