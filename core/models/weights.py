"""State dicts: published names under ours, and the sizes of a network read from its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def renamed(
    state: Mapping[str, Tensor], prefix: str, own_name: Callable[[str], str | None], network: str
) -> dict[str, Tensor]:
    """The weights of ``state`` beneath ``prefix`` under our names.

    ``own_name`` gives our name of a published one (without ``prefix``), and None where it is no part of
    ``network``, which is how a sentence calls it ("published VAE"). Two published names may stand for one
    weight: the published residual blocks register each layer twice.

    Raises ValueError if nothing lies beneath ``prefix``, if a name is no part of the network, or if two
    names of one weight carry different values.
    """
    result: dict[str, Tensor] = {}
    first: dict[str, str] = {}
    for key, tensor in state.items():
        if not key.startswith(prefix):
            continue
        name = own_name(key.removeprefix(prefix))
        if name is None:
            raise ValueError(f"{key} is not part of a {network}.")
        if name in result and not _same(result[name], tensor):
            raise ValueError(
                f"{first[name]} and {key} should be one and the same weight of a {network}, but differ: "
                "the file is damaged."
            )
        result.setdefault(name, tensor)
        first.setdefault(name, key)
    if not result:
        raise ValueError(f"No weights lie beneath {prefix!r}.")
    return result


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal bit for bit, so that NaN equals itself; without data, in shape."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.is_meta or second.is_meta or first.data_ptr() == second.data_ptr():
        return True
    return torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))


def size(state: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Length of one axis of the weight ``name``; ValueError if it is missing or has no such axis."""
    if name not in state:
        raise ValueError(f"The weight {name} is missing, from which a size of the network would follow.")
    shape = tuple(state[name].shape)
    if axis >= len(shape):
        raise ValueError(f"The weight {name} has the shape {shape}; at least {axis + 1} axes were expected.")
    return shape[axis]


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many of ``pattern`` with {} = 0, 1, 2, ... are in ``state``, up to the first that is missing."""
    number = 0
    while pattern.format(number) in state:
        number += 1
    return number
