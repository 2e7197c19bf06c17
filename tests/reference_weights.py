"""Weights of the numeric reference fixtures, made from the rules in ``*.weight_rules.json``.

A random weight is ``offset + scale * (2 u - 1)`` in float32, where u in [0, 1) is made of the upper 24 bits
of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), whose stream starts at FNV-1a of the weight's name plus
the seed times the golden-ratio increment; element i of the flattened weight takes output i + 1.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def fnv1a(text: str) -> int:
    """The 64-bit FNV-1a hash of a text in UTF-8."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


def uniform(key: str, seed: int, size: int) -> NDArray[np.float64]:
    """``size`` numbers in [-1, 1), a pure function of ``key`` and ``seed``."""
    start = np.uint64((fnv1a(key) + seed * GOLDEN) & MASK)
    # Wrapping at 64 bits is the algorithm.
    z = start + np.arange(1, size + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0


def reference_weights(path: Path) -> dict[str, torch.Tensor]:
    """Every weight of a rules file by its published name; diffusion schedules are left out."""
    document = json.loads(path.read_text())
    weights: dict[str, torch.Tensor] = {}
    for key, rule in document["rules"].items():
        shape = tuple(rule["shape"])
        if "const" in rule:
            weights[key] = torch.from_numpy(np.full(shape, rule["const"], rule["dtype"]))
        elif "offset" in rule:
            values = rule["offset"] + rule["scale"] * uniform(key, document["seed"], int(np.prod(shape)))
            weights[key] = torch.from_numpy(values.astype(np.float32).reshape(shape))
    for key, rule in document["rules"].items():
        if "alias_of" in rule:
            weights[key] = weights[rule["alias_of"]]
    return weights
