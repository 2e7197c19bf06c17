"""Reading state dicts."""

import pytest
import torch

from core.models.weights import count, renamed, size


def own(published: str) -> str | None:
    """Both a.x and b.x are our x; all else is foreign."""
    part, _, rest = published.partition(".")
    return rest if part in ("a", "b") else None


def test_entries_beneath_the_prefix_are_renamed() -> None:
    state = {"net.a.x": torch.ones(2), "other": torch.zeros(1), "net.b.y": torch.zeros(3)}
    assert list(renamed(state, "net.", own, "net")) == ["x", "y"]


def test_a_weight_may_be_stored_twice() -> None:
    values = torch.tensor([1.0, float("nan"), -0.0])
    result = renamed({"a.x": values, "b.x": values.clone()}, "", own, "net")
    assert result["x"] is values
    only_second = renamed({"b.x": values}, "", own, "net")
    assert only_second["x"] is values


@pytest.mark.parametrize(
    "other",
    [torch.zeros(3), torch.ones(2), torch.ones(3).double(), torch.ones(2, device="meta")],
    ids=["values", "shape", "dtype", "shape without data"],
)
def test_two_entries_of_one_weight_may_not_differ(other: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"a\.x and b\.x should be one and the same weight of a net"):
        renamed({"a.x": torch.ones(3), "b.x": other}, "", own, "net")


def test_foreign_and_absent_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"net\.c\.x is not part of a toy"):
        renamed({"net.c.x": torch.ones(1)}, "net.", own, "toy")
    with pytest.raises(ValueError, match=r"No weights lie beneath 'net\.'"):
        renamed({"c.x": torch.ones(1)}, "net.", own, "toy")


def test_sizes() -> None:
    state = {"layers.0.w": torch.ones(2, 3), "layers.1.w": torch.ones(5, 2), "layers.3.w": torch.ones(1)}
    assert size(state, "layers.1.w", 0) == 5
    assert count(state, "layers.{}.w") == 2
    assert count(state, "blocks.{}.w") == 0
    with pytest.raises(ValueError, match=r"layers\.2\.w is missing"):
        size(state, "layers.2.w", 0)
    with pytest.raises(ValueError, match=r"has the shape \(1,\); at least 2 axes"):
        size(state, "layers.3.w", 1)
