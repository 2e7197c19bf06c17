"""The authors' own fields: tables of pandas (``results_trained_models_*.pkl``), read without being run.

A row of such a table says what a model gave at a time stamp: ``model``, ``target_var`` (which networks: 2mT
or UV), ``variable``, ``time_step`` and ``spat_distr``, a tensor (y, x) in the units of the variable. Other
columns are not needed. The pickle is interpreted by :mod:`core.unpickle`: of what pandas, NumPy and PyTorch
write, only plain arrays, text, time stamps and tensors are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.inert_values import array, tensor
from core.unpickle import Inert, UnpickleError, read_pickle

MAX_BYTES = 2**30
MAX_FIELD_BYTES = 2**26
"""Bytes of the storage of one field; those of the Italian grid have 1.5 MB, or 3 MB in double precision."""
COLUMNS = ("model", "target_var", "variable", "spat_distr", "time_step")

_MOST_ROWS = 100_000
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_RESOLUTIONS = {7: "s", 8: "ms", 9: "us", 10: "ns"}
"""Units of time stamps by the numbers that pandas has for them."""
_NANOSECONDS = "datetime64[ns]"
_UNITS = {unit.encode(): unit for unit in _RESOLUTIONS.values()}

T = TypeVar("T")


class OutputsError(ValueError):
    """A table of outputs that can't be used; the message names the file and the fault."""


@dataclass(frozen=True, eq=False)
class OutputField:
    """A row: ``variable`` by its published name, ``values`` (y, x) as float32 in the units of the file."""

    model: str
    target_var: str
    variable: str
    time: np.datetime64
    values: NDArray[np.float32]


def read_outputs(path: str | Path) -> list[OutputField]:
    """All rows of a table, in its order. Memory holds about twice the file.

    Raises OutputsError where the file is absent, damaged, too large, or no table with these columns.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise OutputsError(f"{path} has {size / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} are read.")
        value = read_pickle(path.read_bytes(), max_bytes=MAX_BYTES)
    except OSError as error:
        raise OutputsError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnpickleError as error:
        raise OutputsError(f"{path} is no published table of outputs: {error}.") from error
    try:
        columns = _columns(value)
        if lacking := [name for name in COLUMNS if name not in columns]:
            raise UnpickleError(
                f"it has no column {', '.join(lacking)}; it has {', '.join(map(str, columns)) or 'none'}"
            )
        models, networks, variables = (_each(columns[name], _text) for name in COLUMNS[:3])
        times = _times(columns["time_step"])
        fields = _fields(columns["spat_distr"], max(4 * size, MAX_BYTES))
    except UnpickleError as error:
        raise OutputsError(f"{path} is no published table of outputs: {error}.") from error
    rows = zip(models, networks, variables, times, fields, strict=True)
    return [OutputField(*row) for row in rows]


def _columns(value: Any) -> dict[str, NDArray[Any]]:
    """The columns of a DataFrame, one-dimensional: numbers, time stamps, or objects that nobody made."""
    state = value.state if isinstance(value, Inert) and value.name.endswith(".DataFrame") else None
    manager = state.get("_mgr", state.get("_data")) if isinstance(state, dict) else None
    arguments = manager.arguments if isinstance(manager, Inert) else None
    if not (arguments and len(arguments) == 2 and isinstance(arguments[1], list) and len(arguments[1]) == 2):
        raise UnpickleError("it is no DataFrame, or laid out in an unknown way")
    names = _names(arguments[1][0])
    found: dict[str, NDArray[Any]] = {}
    for block in arguments[0] if isinstance(arguments[0], list | tuple) else ():
        content = block.arguments if isinstance(block, Inert) else None
        if content is None or len(content) < 2:
            raise UnpickleError("it is laid out in an unknown way")
        positions = _positions(content[1], len(names))
        rows = _rows(content[0], len(positions))
        for position, row in zip(positions, rows, strict=True):
            if names[position] in found:
                raise UnpickleError(f"it has the column {names[position]} twice")
            found[names[position]] = row
    if len({len(column) for column in found.values()}) > 1:
        raise UnpickleError("its columns differ in length")
    return found


def _names(index: Any) -> list[str]:
    arguments = index.arguments if isinstance(index, Inert) else None
    held = arguments[1] if arguments and len(arguments) == 2 else None
    data = held.get("data") if isinstance(held, dict) else None
    (names,) = _rows(data, 1)
    return [str(name) for name in names]


def _positions(place: Any, count: int) -> list[int]:
    """Columns that a block holds."""
    if isinstance(place, Inert) and place.name.endswith(".slice") and place.arguments:
        bounds = place.arguments
        if len(bounds) == 3 and all(n is None or type(n) is int for n in bounds) and bounds[2] != 0:
            return list(range(count)[slice(*bounds)])
    if isinstance(place, Inert):
        found = array(place)
        if found.dtype.kind in "iu" and found.ndim == 1 and all(0 <= n < count for n in found.tolist()):
            return [int(n) for n in found]
    raise UnpickleError("it has columns in an unknown order")


def _rows(values: Any, count: int) -> list[NDArray[Any]]:
    """A block of ``count`` columns as one sequence for each."""
    whole = _array_of(values)
    if whole is None or whole.size % max(count, 1) or whole.size > _MOST_ROWS * max(count, 1):
        raise UnpickleError("it holds a column of an unknown kind")
    return list(whole.reshape(count, -1)) if count else []


def _array_of(values: Any) -> NDArray[Any] | None:
    """The array of a block, which pandas wraps for text and time stamps; None if there is none."""
    state = values.state if isinstance(values, Inert) else None
    if isinstance(values, Inert) and values.name in _RECONSTRUCT and isinstance(state, tuple):
        if len(state) == 5 and isinstance(state[4], list):
            return _objects(state)
        unit = _unit(state[2]) if len(state) == 5 else None
        if unit is not None and isinstance(state[4], bytes):
            return _stamps(state, unit)
    if isinstance(values, Inert) and values.name.endswith("NDArrayBacked") and isinstance(state, tuple):
        parts = [
            _array_of(part) for part in state[:4] if isinstance(part, Inert) and part.name in _RECONSTRUCT
        ]
        return next((part for part in parts if part is not None), None)
    return array(values)


def _objects(state: tuple[Any, ...]) -> NDArray[Any]:
    _, shape, _, fortran, content = state
    sides = (
        isinstance(shape, tuple) and 1 <= len(shape) <= 2 and all(type(n) is int and n >= 0 for n in shape)
    )
    if not sides or int(np.prod(shape, dtype=object)) != len(content):
        raise UnpickleError("it holds a column with other values than it needs")
    whole = np.empty(len(content), object)
    # One by one, because NumPy would look into lists.
    for number, item in enumerate(content):
        whole[number] = item
    return whole.reshape(shape, order="F" if fortran is True else "C")


def _unit(dtype: Any) -> str | None:
    """The unit of an array of time stamps; None for other arrays."""
    if not (isinstance(dtype, Inert) and dtype.arguments and dtype.arguments[0] == "M8"):
        return None
    state = dtype.state
    described = state[8] if isinstance(state, tuple) and len(state) == 9 else None
    unit = described[1][0] if isinstance(described, tuple) and len(described) == 2 else None
    if not isinstance(state, tuple) or state[1] != "<" or unit not in _UNITS:
        raise UnpickleError("it holds time stamps in an unknown unit")
    return _UNITS[unit]


def _stamps(state: tuple[Any, ...], unit: str) -> NDArray[Any]:
    numbers = np.frombuffer(state[4][: len(state[4]) // 8 * 8], "<i8")
    return numbers.astype(f"datetime64[{unit}]")


def _times(column: NDArray[Any]) -> list[np.datetime64]:
    known = column.dtype.kind == "M"
    times = list(column.astype(_NANOSECONDS)) if known else _each(column, _timestamp)
    if any(np.isnat(time) for time in times):
        raise UnpickleError("a row has no time stamp")
    return times


def _timestamp(value: Any) -> np.datetime64:
    """A pandas Timestamp."""
    arguments = value.arguments if isinstance(value, Inert) else None
    if arguments and value.name.endswith("._unpickle_timestamp") and type(arguments[0]) is int:
        # Nothing but nanoseconds before pandas 2, which added the number of the unit and UTC as the zone.
        unit = _RESOLUTIONS.get(arguments[3] if len(arguments) > 3 else 10)
        if unit is not None and -(2**63) <= arguments[0] < 2**63:
            stamp: np.datetime64 = np.int64(arguments[0]).astype(f"datetime64[{unit}]").astype(_NANOSECONDS)
            return stamp
    raise UnpickleError("a row has a time stamp of an unknown kind")


def _each(column: NDArray[Any], read: Callable[[Any], T]) -> list[T]:
    return [read(item) for item in column]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 60:
        raise UnpickleError("a row has a model or variable that is no name")
    return value


def _fields(column: NDArray[Any], most_bytes: int) -> list[NDArray[np.float32]]:
    """The fields of all rows, which share one where they name the same.

    A pickle may name the same storage in any number of tensors, so what they take is bounded by its size.
    """
    read: dict[int, NDArray[np.float32]] = {}
    for value in column:
        if id(value) not in read:
            read[id(value)] = field = _field(value)
            most_bytes -= field.nbytes + _storage_bytes(value)
            if most_bytes < 0:
                raise UnpickleError("its rows take many times the memory of the file")
    return [read[id(value)] for value in column]


def _storage_bytes(value: Any) -> int:
    """Bytes that had to be gone through for a field that was read."""
    return len(value.arguments[0].arguments[0]) if value.name.startswith("torch.") else 0


def _field(value: Any) -> NDArray[np.float32]:
    # What was not made by PyTorch may be an array of NumPy.
    is_tensor = isinstance(value, Inert) and value.name.startswith("torch.")
    found = tensor(value, most_bytes=MAX_FIELD_BYTES) if is_tensor else array(value)
    if found.ndim != 2 or found.dtype.kind != "f":
        raise UnpickleError(f"a row has no field (y, x), but numbers of the shape {found.shape}")
    # A copy, or a small view would hold the storage that it lies in.
    return np.array(found, np.float32, order="C")
