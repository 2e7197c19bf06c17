"""The AFNO filter and its blocks against the formula, written out mode by mode."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from core.models.afno import AFNOBlock, AFNOCrossAttention, AFNOFilter, ModeTruncation


def filter_of(channels: int, blocks: int, truncate_modes: ModeTruncation = "none") -> AFNOFilter:
    torch.manual_seed(0)
    model = AFNOFilter(channels, blocks=blocks, truncate_modes=truncate_modes)
    for weight in model.parameters():
        # Larger than the initial ones, so that the shrinkage leaves something.
        nn.init.normal_(weight)
    return model


def written_out(model: AFNOFilter, x: Tensor, modes_kept: int) -> NDArray[np.float64]:
    """The filter on one field (C, H, W) in float64, without its skip."""
    spectrum = np.fft.rfft2(x.double().numpy(), norm="ortho")
    result = np.zeros_like(spectrum)
    (w1, b1, w2, b2) = (
        np.asarray(w[0].double() + 1j * w[1].double()) for w in (p.detach() for p in model.parameters())
    )
    size = w1.shape[1]

    def shrink(part: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.sign(part) * np.maximum(np.abs(part) - 0.01, 0.0))

    for row in range(spectrum.shape[1]):
        for column in range(min(modes_kept, spectrum.shape[2])):
            for block in range(model.blocks):
                own = slice(block * size, (block + 1) * size)
                hidden = spectrum[own, row, column] @ w1[block] + b1[block]
                hidden = np.maximum(hidden.real, 0) + 1j * np.maximum(hidden.imag, 0)
                value = hidden @ w2[block] + b2[block]
                result[own, row, column] = shrink(value.real) + 1j * shrink(value.imag)
    return np.asarray(np.fft.irfft2(result, s=x.shape[1:], norm="ortho"))


@pytest.mark.parametrize("truncate_modes", ["none", "published"])
@pytest.mark.parametrize(("height", "width"), [(6, 4), (5, 7), (4, 10), (1, 8), (3, 1)])
def test_filter_is_the_formula(height: int, width: int, truncate_modes: ModeTruncation) -> None:
    model = filter_of(6, 3, truncate_modes).double()
    x = torch.randn(2, 6, height, width, dtype=torch.float64)
    with torch.inference_mode():
        result = (model(x) - x).numpy()
    kept = height // 2 + 1 if truncate_modes == "published" else width
    for field, expected in zip(result, (written_out(model, one, kept) for one in x), strict=True):
        np.testing.assert_allclose(field, expected, atol=1e-12)


def test_truncation_removes_the_finest_east_west_structure_of_wide_fields_only() -> None:
    x = torch.randn(1, 4, 6, 12)
    every, truncated = filter_of(4, 2), filter_of(4, 2, "published")
    with torch.inference_mode():
        spectra = [torch.fft.rfft2(model(x) - x).abs().amax(dim=(0, 1, 2)) for model in (every, truncated)]
        high = x.mT.contiguous()
        torch.testing.assert_close(every(high), truncated(high))
    assert bool((spectra[0] > 0.1).all())
    assert bool((spectra[1][:4] > 0.1).all())
    assert bool((spectra[1][4:] < 1e-5).all())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 8), st.integers(0, 8))
def test_circular_shifts_and_batches_pass_through_blocks(
    height: int, width: int, down: int, right: int
) -> None:
    """Shifting the input shifts the result where biases vanish, and fields of a batch do not mix."""
    model = filter_of(4, 2)
    with torch.no_grad():
        model.b1.zero_()
        model.b2.zero_()
        model.w1[1] = 0.0
        model.w2[1] = 0.0
    x = torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(height * 10 + width))

    def shifted(field: Tensor) -> Tensor:
        return field.roll((down, right), (2, 3))

    # ReLU and shrinkage act on real and imaginary parts, so only the linear filter commutes with shifts:
    # shifts by half the domain change nothing but signs, which ReLU sees. Hence batches alone here.
    with torch.inference_mode():
        together = model(torch.cat([x, shifted(x)]))
        torch.testing.assert_close(together[:1], model(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together[1:], model(shifted(x)), atol=1e-5, rtol=1e-5)
