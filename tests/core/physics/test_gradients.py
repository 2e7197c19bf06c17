"""Derivatives against numpy, fields whose derivatives are known, and finite differences."""

import numpy as np
import pytest
import torch

from core.physics import PhysicsError, gradient, laplacian, magnitude


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(7, 9), (2, 2), (3, 2, 5, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_equals_numpy(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    field = 280 + 8 * noise(*shape, dtype=dtype)
    rows, columns = gradient(field, (2.0, 3.0))
    assert rows.dtype == dtype
    expected = np.gradient(field.numpy(), 2.0, 3.0, axis=(-2, -1))
    np.testing.assert_allclose(rows, expected[0], rtol=1e-6)
    np.testing.assert_allclose(columns, expected[1], rtol=1e-6)


def test_gradient_of_a_plane_is_exact_to_the_edge() -> None:
    i, j = torch.meshgrid(
        torch.arange(6, dtype=torch.float64), torch.arange(5, dtype=torch.float64), indexing="ij"
    )
    rows, columns = gradient(3 + 2 * i - 4 * j, 0.5)
    assert (rows == 4).all()
    assert (columns == -8).all()


def test_laplacian_of_a_paraboloid_is_exact() -> None:
    i, j = torch.meshgrid(
        torch.arange(6, dtype=torch.float64), torch.arange(5, dtype=torch.float64), indexing="ij"
    )
    result = laplacian(3 * (2 * i) ** 2 - 0.5 * (4 * j) ** 2 + i * j + 7, (2.0, 4.0))
    assert result.shape == (4, 3)
    torch.testing.assert_close(result, torch.full_like(result, 2 * 3 - 2 * 0.5))


def test_derivatives_can_be_differentiated() -> None:
    field = noise(2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: gradient(f, (2.0, 3.0)), (field,))
    assert torch.autograd.gradcheck(lambda f: laplacian(f, 2.0), (field,))
    assert torch.autograd.gradcheck(lambda f: magnitude(*gradient(f)), (field,))


def test_magnitude_of_nothing_has_a_gradient_of_zero() -> None:
    first = torch.tensor([3.0, 0.0], requires_grad=True)
    second = torch.tensor([4.0, 0.0], requires_grad=True)
    length = magnitude(first, second)
    assert length.tolist() == [5.0, 0.0]
    gradients = torch.autograd.grad(length.sum(), (first, second))
    torch.testing.assert_close(torch.stack(gradients), torch.tensor([[0.6, 0.0], [0.8, 0.0]]))


@pytest.mark.parametrize(
    ("field", "spacing", "message"),
    [
        (torch.zeros(4, 4, dtype=torch.bfloat16), 1.0, r"bfloat16.*\.float\(\)"),
        (torch.zeros(4, 4, dtype=torch.int64), 1.0, "int64"),
        (torch.zeros(1, 4), 1.0, r"2 rows.*\(1, 4\)"),
        (torch.zeros(4), 1.0, r"\(4,\)"),
        (torch.zeros(4, 4), 0.0, "positive length"),
        (torch.zeros(4, 4), (1.0, float("nan")), "positive length"),
    ],
)
def test_unusable_fields_are_refused(
    field: torch.Tensor, spacing: float | tuple[float, float], message: str
) -> None:
    with pytest.raises(PhysicsError, match=message):
        gradient(field, spacing)


def test_laplacian_needs_neighbours() -> None:
    with pytest.raises(PhysicsError, match="3 rows"):
        laplacian(torch.zeros(2, 4))
