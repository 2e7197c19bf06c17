"""Exponential moving average of a network's parameters: what the samplers run with.

Published settings: decay 0.9999, reached from below as min(decay, (1 + n) / (10 + n)) at update n, so that
the first, nearly random weights are soon forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """Moving average of the parameters of a module that need a gradient.

    It starts as a copy of them. Buffers, such as the running statistics of a normalisation, are not averaged.
    Raises ValueError for a decay outside [0, 1].
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999) -> None:
        self.maximum = _valid(decay)
        self.updates = 0
        self._average = {name: p.detach().clone() for name, p in _trained(module)}

    @property
    def decay(self) -> float:
        """Weight of the old average in the latest update."""
        return min(self.maximum, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the module's present parameters in; call it once after each step of the optimizer."""
        parameters = self._matching(module)
        self.updates += 1
        weight = 1.0 - self.decay
        for name, parameter in parameters.items():
            self._average[name] = self._average[name].to(parameter).lerp_(parameter.detach(), weight)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's parameters with their average."""
        for name, parameter in self._matching(module).items():
            parameter.copy_(self._average[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module has the averaged parameters within the block and its own afterwards."""
        own = {name: p.detach().clone() for name, p in self._matching(module).items()}
        try:
            self.copy_to(module)
            yield module
        finally:
            with torch.no_grad():
                for name, parameter in self._matching(module).items():
                    parameter.copy_(own[name])

    def weights(self) -> dict[str, Tensor]:
        """The averaged parameters by the module's names (not copies)."""
        return dict(self._average)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later: plain numbers and tensors."""
        return {"decay": self.maximum, "updates": self.updates, "average": self.weights()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`.

        Raises ValueError where an entry is missing, or where names or shapes are not those of the module; it
        names them, and nothing has changed then.
        """
        if absent := [entry for entry in ("decay", "updates", "average") if entry not in state]:
            raise ValueError(f"The state of a moving average lacks {', '.join(absent)}.")
        average: Mapping[str, Tensor] = state["average"]
        self._check({name: tensor.shape for name, tensor in average.items()})
        self.maximum, self.updates = _valid(float(state["decay"])), int(state["updates"])
        for name, tensor in average.items():
            self._average[name].copy_(tensor)

    def _matching(self, module: nn.Module) -> dict[str, nn.Parameter]:
        parameters = dict(_trained(module))
        self._check({name: parameter.shape for name, parameter in parameters.items()})
        return parameters

    def _check(self, shapes: Mapping[str, torch.Size]) -> None:
        kept = {name: tensor.shape for name, tensor in self._average.items()}
        different = [
            f"{name} has the shape {tuple(shapes[name])} instead of {tuple(shape)}"
            for name, shape in kept.items()
            if name in shapes and shapes[name] != shape
        ]
        faults = [
            f"{what}: {_first(names)}"
            for what, names in (
                ("missing", sorted(kept.keys() - shapes.keys())),
                ("unknown", sorted(shapes.keys() - kept.keys())),
            )
            if names
        ]
        if different:
            faults.append(_first(different))
        if faults:
            raise ValueError(f"The moving average was made for other parameters; {'; '.join(faults)}.")


def _valid(decay: float) -> float:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"The decay of a moving average lies between 0 and 1; got {decay}.")
    return decay


def _first(items: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


def _trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)
