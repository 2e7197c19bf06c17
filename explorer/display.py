"""From the fields of an hour to the numbers that maps draw: the fields, or their differences from one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from core.domain import Domain
from core.regions import Window
from explorer.cut import inside
from explorer.encoding import robust_range
from explorer.quantities import FloatField, Quantity

COARSE = "coarse"


@dataclass(frozen=True)
class Display:
    """What is drawn, by key of the field.

    ``reference`` is the field that differences are taken from (None where fields themselves are drawn, or
    while it is computed), ``limits`` the automatic colour range, ``signed`` asks for a diverging map.
    """

    values: dict[str, FloatField]
    reference: FloatField | None
    signed: bool
    limits: tuple[float, float]
    units: str


def display(
    ready: Mapping[str, FloatField],
    quantity: Quantity,
    domain: Domain,
    window: Window | None = None,
    against: str = "",
) -> Display:
    """What to draw of the fields that are ready; the colour range fits what lies in the window.

    With ``against``, each field minus that one on the finer of their grids (coarse cells count wherever they
    lie), the reference itself left out; nothing while the reference is missing.
    """
    if not against:
        seen = _inside(ready.values(), domain, window)
        limits = robust_range(seen, signed=quantity.signed, floor=quantity.floor)
        return Display(dict(ready), None, quantity.signed, limits, quantity.units)
    reference = ready.get(against)
    values: dict[str, FloatField] = {}
    if reference is not None:
        values = {key: difference(field, reference) for key, field in ready.items() if key != against}
    # The coarse cells differ most, by their size alone, and would leave no contrast for the others.
    deciding = [field for key, field in values.items() if key != COARSE] or list(values.values())
    limits = robust_range(_inside(deciding, domain, window), signed=True)
    return Display(values, reference, True, limits, quantity.difference_units)


def _inside(fields: Iterable[FloatField], domain: Domain, window: Window | None) -> list[FloatField]:
    return list(fields) if window is None else [inside(field, domain, window) for field in fields]


def difference(values: FloatField, reference: FloatField) -> FloatField:
    """values - reference on the finer of the two grids, float32."""
    if values.shape == reference.shape:
        return values - reference
    shape = tuple(np.maximum(values.shape, reference.shape))
    return spread(values, shape) - spread(reference, shape)


def spread(field: FloatField, shape: tuple[int, ...]) -> FloatField:
    """A field with each cell repeated to fill ``shape``, whole multiples of its own."""
    rows, columns = shape[0] // field.shape[0], shape[1] // field.shape[1]
    return field if rows == columns == 1 else field.repeat(rows, axis=0).repeat(columns, axis=1)
