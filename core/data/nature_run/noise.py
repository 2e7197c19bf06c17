"""Random fields: reproducible, band-limited, correlated in time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def generator(*keys: int) -> np.random.Generator:
    """A generator that is a pure function of non-negative integers (seed, stream, date)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(keys)))


class BandNoise:
    """Gaussian random fields of unit variance whose wavelengths lie between two bounds.

    The spectrum inside the band falls as ``k**(slope)`` (power per wavevector), edges are one tenth of an
    octave wide. Fields are periodic over the domain.

    Parameters
    ----------
    shape : (H, W); spacing : (dy, dx) [m]; shortest, longest : wavelengths [m]
    """

    def __init__(
        self,
        shape: tuple[int, int],
        spacing: tuple[float, float],
        shortest: float,
        longest: float,
        slope: float = -8 / 3,
    ) -> None:
        self.shape = shape
        ky = np.fft.fftfreq(shape[0], spacing[0])[:, None]
        kx = np.fft.rfftfreq(shape[1], spacing[1])[None, :]
        k = np.hypot(ky, kx)
        with np.errstate(divide="ignore"):
            octave = np.log2(np.where(k > 0, k, np.nan))
        low, high, edge = np.log2(1 / longest), np.log2(1 / shortest), 0.1
        inside = 1 / (1 + np.exp(-(octave - low) / edge)) / (1 + np.exp((octave - high) / edge))
        self.amplitude = np.nan_to_num(np.sqrt(inside) * np.where(k > 0, k, 1.0) ** (slope / 2))
        # Modes between the first and the last column of rfft2 stand for two.
        twice = np.full(kx.shape, 2.0)
        twice[0, 0] = 1.0
        if shape[1] % 2 == 0:
            twice[0, -1] = 1.0
        power = float((self.amplitude**2 * twice).sum()) / (shape[0] * shape[1])
        self.amplitude /= np.sqrt(power) if power > 0 else 1.0
        self.wavenumber = 2 * np.pi * k
        self._filter = torch.from_numpy(self.amplitude.astype(np.float32))

    def draw(self, rng: np.random.Generator) -> Tensor:
        """One field (H, W), float32, mean 0 and variance 1."""
        white = torch.from_numpy(rng.standard_normal(self.shape, dtype=np.float32))
        field: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * self._filter, s=self.shape)
        return field

    @property
    def mean_wavenumber(self) -> float:
        """Root-mean-square wavenumber [rad/m]: turns a stream function of unit variance into wind."""
        weight = self.amplitude**2
        total = float(weight.sum())
        return float(np.sqrt((weight * self.wavenumber**2).sum() / total)) if total > 0 else 1.0


def remember(old: Tensor, new: Tensor, hours: float, memory: float) -> Tensor:
    """First-order autoregressive step: variance is kept, correlation falls as exp(-t/memory)."""
    keep = float(np.exp(-hours / memory))
    return keep * old + float(np.sqrt(1 - keep**2)) * new


def as_tensor(values: NDArray[np.floating]) -> Tensor:
    """float32 tensor of an array."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
