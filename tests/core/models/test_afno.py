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
@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 4), st.sampled_from(["none", "published"]))
def test_neither_batch_nor_layout_matter(
    height: int, width: int, batch: int, truncate_modes: ModeTruncation
) -> None:
    model = filter_of(4, 2, truncate_modes)
    x = torch.randn(batch, 4, height, width)
    with torch.inference_mode():
        together = model(x)
        for number in range(batch):
            torch.testing.assert_close(together[number], model(x[number : number + 1])[0], atol=1e-4, rtol=0)
        other_layout = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        torch.testing.assert_close(model(other_layout), together, atol=1e-4, rtol=0)


def test_small_modes_are_shrunk_to_nothing() -> None:
    """Weights of the initial size and no biases turn small fields into zeros, which the skip adds to."""
    torch.manual_seed(0)
    model = AFNOFilter(8, blocks=2)
    nn.init.zeros_(model.b1)
    nn.init.zeros_(model.b2)
    x = 0.1 * torch.randn(1, 8, 6, 4)
    with torch.inference_mode():
        assert torch.equal(model(x), x)
        assert not torch.equal(model(100 * x), 100 * x)


def test_half_precision_is_left_to_the_rest_of_the_network() -> None:
    model = filter_of(4, 2)
    x = torch.randn(2, 4, 6, 4)
    with torch.inference_mode():
        expected = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(model(x), expected)
            small = model(x.bfloat16())
        assert small.dtype == torch.bfloat16
        torch.testing.assert_close(small.float(), model(x.bfloat16().float()), atol=0.0, rtol=2**-8)
        # Weights in half precision, too.
        assert model.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_gradients_are_those_of_finite_differences() -> None:
    model = filter_of(4, 2, "published").double()
    x = torch.randn(1, 4, 2, 6, dtype=torch.float64, requires_grad=True)
    parameters = tuple(model.parameters())

    def run(field: Tensor, *weights: Tensor) -> Tensor:
        named = dict(zip(dict(model.named_parameters()), weights, strict=True))
        result: Tensor = torch.func.functional_call(model, named, field)
        return result

    assert torch.autograd.gradcheck(run, (x, *parameters), eps=1e-7)


def test_channels_must_fit_the_blocks() -> None:
    with pytest.raises(ValueError, match="10 channels cannot be cut into 8 equal blocks"):
        AFNOFilter(10)


def test_block_adds_filter_and_perceptron_of_normalised_fields() -> None:
    torch.manual_seed(0)
    model = AFNOBlock(8, mlp_ratio=3, blocks=2)
    x = torch.randn(2, 5, 6, 8)

    def normalised(field: Tensor) -> Tensor:
        spread = field.var(dim=-1, keepdim=True, correction=0)
        return (field - field.mean(dim=-1, keepdim=True)) / (spread + 1e-5).sqrt()

    with torch.inference_mode():
        between = x + model.filter(normalised(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        hidden = nn.functional.gelu(normalised(between) @ model.mlp.fc1.weight.mT + model.mlp.fc1.bias)
        assert hidden.shape[-1] == 24
        expected = between + hidden @ model.mlp.fc2.weight.mT + model.mlp.fc2.bias
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


def test_cross_attention_joins_field_and_context() -> None:
    torch.manual_seed(0)
    model = AFNOCrossAttention(4, 6, blocks=2)
    x, context = torch.randn(2, 4, 5, 6), torch.randn(2, 6, 5, 6)
    with torch.inference_mode():
        both = torch.cat([x, context], dim=1).permute(0, 2, 3, 1)
        both = both + model.pre_proj(both)
        both = both + model.filter(both.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        expected = x + model.mlp(both).permute(0, 3, 1, 2)
        torch.testing.assert_close(model(x, context), expected, atol=1e-5, rtol=1e-5)
        assert model.mlp.fc1.out_features == 20
        one = model(x, context[:1])
        torch.testing.assert_close(one, model(x, context[:1].repeat(2, 1, 1, 1)))
        assert not torch.allclose(one[1], expected[1])
