"""Numbers, arrays and tables that a pickle describes, read off its inert objects.

:mod:`core.unpickle` leaves the calls undone by which NumPy, pandas and PyTorch write their objects. What
these calls hold is laid out here, without importing what a pickle names or believing its sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.unpickle import Inert, Reference, UnpickleError, read_pickle

_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_TENSOR = ("torch._utils._rebuild_tensor_v2",)
_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_TORCH_CODES = {"Double": "f8", "Float": "f4", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2"}
MAX_STORAGE_BYTES = 2**20
MOST_PARTS = 8
"""Things in the state of an index that are searched for its labels."""
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C


def number(value: Any) -> float:
    """A Python, NumPy or PyTorch number as float. Raises UnpickleError for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise UnpickleError("a whole number is too large") from error
    values = array(value)
    if values.size != 1 or values.dtype == object:
        raise UnpickleError(f"{_kind(value)} is no single number")
    return float(values.reshape(-1)[0])


def table(value: Any) -> Mapping[Any, Any]:
    """A dictionary, pandas Series (label to number) or DataFrame (column to such a mapping).

    Raises UnpickleError for anything else.
    """
    if isinstance(value, dict):
        return value
    if isinstance(value, Inert) and value.name.startswith("pandas.") and isinstance(value.state, dict):
        if value.name.endswith(".Series"):
            return _series(value)
        if value.name.endswith(".DataFrame"):
            return _frame(value)
    raise UnpickleError(f"{_kind(value)} is no table of numbers")


def array(value: Any) -> NDArray[Any]:
    """A NumPy array or scalar, or a PyTorch tensor. Text comes as an array of objects.

    Raises UnpickleError for anything else, and for arrays whose bytes do not fit their shape.
    """
    if isinstance(value, Inert) and value.arguments is not None:
        arguments, state = value.arguments, value.state
        if value.name in _SCALAR and len(arguments) == 2:
            return _from_bytes(arguments[1], _dtype(arguments[0]), ())
        if value.name in _FROM_BUFFER and len(arguments) == 4:
            return _from_bytes(arguments[0], _dtype(arguments[1]), arguments[2], arguments[3] == "F")
        if value.name in _RECONSTRUCT and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, content = state
            if isinstance(content, list):
                return _from_list(content, shape)
            return _from_bytes(content, _dtype(dtype), shape, fortran is True)
        if value.name in _TENSOR and len(arguments) >= 4:
            return _from_tensor(arguments)
    raise UnpickleError(f"{_kind(value)} is neither a number nor an array")


def _kind(value: Any) -> str:
    return repr(value) if isinstance(value, Inert) else f"a {type(value).__name__}"


def _dtype(value: Any) -> np.dtype[Any]:
    if isinstance(value, Inert) and value.name == "numpy.dtype" and value.arguments:
        code = value.arguments[0]
        order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
        if code in _CODES and order in ("<", ">", "|", "="):
            dtype: np.dtype[Any] = np.dtype(order + code)
            return dtype
        raise UnpickleError("an array holds values that are no numbers")
    raise UnpickleError(f"{_kind(value)} is no type of numbers")


def _shape(value: Any) -> tuple[int, ...]:
    sides = isinstance(value, tuple) and len(value) <= 8 and all(type(n) is int and n >= 0 for n in value)
    # Even an empty array has a limit to its other sides.
    if sides and math.prod(n for n in value if n) < 2**40:
        shape: tuple[int, ...] = value
        return shape
    raise UnpickleError("an array has an impossible shape")


def _from_bytes(content: Any, dtype: np.dtype[Any], shape: Any, fortran: bool = False) -> NDArray[Any]:
    shape = _shape(shape)
    if isinstance(content, str):
        # How Python 2 wrote bytes.
        content = content.encode("latin1", "replace")
    if not isinstance(content, bytes) or len(content) != math.prod(shape) * dtype.itemsize:
        raise UnpickleError(f"an array of the shape {shape} has other bytes than it needs")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _from_list(content: list[Any], shape: Any) -> NDArray[Any]:
    shape = _shape(shape)
    if len(content) != math.prod(shape) or not all(isinstance(text, str) for text in content):
        raise UnpickleError("an array holds objects that are no text")
    values = np.empty(len(content), object)
    values[:] = content
    return values.reshape(shape)


# --- pandas -----------------------------------------------------------------------------------------


def _labels(value: Any) -> list[str]:
    """Labels of an index, which wraps an array of text once or twice, depending on the version."""
    arguments = value.arguments if isinstance(value, Inert) else None
    held = arguments[1] if arguments and len(arguments) == 2 else None
    data = held.get("data") if isinstance(held, dict) else None
    parts = [data]
    if isinstance(data, Inert) and isinstance(data.state, tuple):
        parts += data.state[:MOST_PARTS]
    for part in parts:
        if isinstance(part, Inert) and part.name in _RECONSTRUCT:
            found = array(part)
            if found.ndim == 1 and found.dtype == object:
                return [str(label) for label in found]
    raise UnpickleError(f"{_kind(value)} has no plain labels")


def _series(value: Inert) -> dict[str, float]:
    manager = value.state.get("_mgr", value.state.get("_data"))
    state = manager.state if isinstance(manager, Inert) else None
    if not (isinstance(state, tuple) and len(state) >= 2 and _lists(state[0], state[1])):
        raise UnpickleError("a pandas Series is laid out in an unknown way")
    labels, values = _labels(state[0][0]), array(state[1][0]).reshape(-1)
    if len(labels) != len(values):
        raise UnpickleError("a pandas Series has other labels than values")
    return dict(zip(labels, values.tolist(), strict=True))


def _lists(*values: Any) -> bool:
    return all(isinstance(value, list) and len(value) == 1 for value in values)


def _frame(value: Inert) -> dict[str, dict[str, float]]:
    manager = value.state.get("_mgr", value.state.get("_data"))
    arguments = manager.arguments if isinstance(manager, Inert) else None
    if not (arguments and len(arguments) == 2 and isinstance(arguments[1], list) and len(arguments[1]) == 2):
        raise UnpickleError("a pandas DataFrame is laid out in an unknown way")
    columns, rows = (_labels(axis) for axis in arguments[1])
    result: dict[str, dict[str, float]] = {}
    blocks, left = arguments[0], len(columns)
    for block in blocks if isinstance(blocks, list | tuple) else [blocks]:
        content = block.arguments if isinstance(block, Inert) else None
        if content is None or len(content) < 2:
            raise UnpickleError("a pandas DataFrame is laid out in an unknown way")
        values, positions = array(content[0]), _positions(content[1], len(columns))
        left -= len(positions)
        # A column lies in one block, or the same block could be read again and again.
        if not positions or left < 0 or values.shape != (len(positions), len(rows)):
            raise UnpickleError("a pandas DataFrame has blocks of the wrong shape")
        for position, line in zip(positions, values.tolist(), strict=True):
            result[columns[position]] = dict(zip(rows, line, strict=True))
    return result


def _positions(place: Any, count: int) -> list[int]:
    """Columns that a block holds: a slice or an array of whole numbers."""
    if isinstance(place, Inert) and place.name.endswith(".slice") and place.arguments:
        bounds = place.arguments
        if len(bounds) == 3 and all(n is None or type(n) is int for n in bounds) and bounds[2] != 0:
            return list(range(count)[slice(*bounds)])
    elif isinstance(place, Inert):
        found = array(place)
        if found.dtype.kind in "iu" and found.ndim == 1 and all(0 <= n < count for n in found.tolist()):
            return [int(n) for n in found]
    raise UnpickleError("a pandas DataFrame has columns in an unknown order")


# --- PyTorch ----------------------------------------------------------------------------------------


def _from_tensor(arguments: tuple[Any, ...], most_bytes: int = MAX_STORAGE_BYTES) -> NDArray[Any]:
    """A single number as tensor; its storage is a file within the pickle, of PyTorch's form before 1.6."""
    values = _tensor_storage(arguments[0], most_bytes)
    offset, shape = arguments[1], _shape(arguments[2])
    if math.prod(shape) != 1 or type(offset) is not int or not 0 <= offset < values.size:
        raise UnpickleError("a tensor is no single number")
    return values[offset : offset + 1].reshape(shape)


def tensor(value: Any, *, most_bytes: int) -> NDArray[Any]:
    """A whole PyTorch tensor that a plain pickle holds, with a storage of at most ``most_bytes``.

    Raises UnpickleError for anything else, and for tensors that reach out of their storage.
    """
    arguments = value.arguments if isinstance(value, Inert) and value.name in _TENSOR else None
    if arguments is None or len(arguments) < 4:
        raise UnpickleError(f"{_kind(value)} is no tensor")
    values = _tensor_storage(arguments[0], most_bytes)
    offset, shape, strides = arguments[1], _shape(arguments[2]), arguments[3]
    steps = isinstance(strides, tuple) and len(strides) == len(shape)
    if not steps or not all(type(n) is int and 0 <= n < 2**40 for n in (offset, *strides)):
        raise UnpickleError("a tensor has impossible strides")
    reach = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1
    if math.prod(shape) == 0 or reach > values.size or math.prod(shape) > values.size:
        raise UnpickleError(f"a tensor of the shape {shape} has other numbers than it needs")
    size = values.itemsize
    return np.lib.stride_tricks.as_strided(
        values[offset:], shape, tuple(step * size for step in strides), writeable=False
    )


def _tensor_storage(storage: Any, most_bytes: int) -> NDArray[Any]:
    """The numbers of a storage, which is a file within the pickle, of PyTorch's form before 1.6."""
    content = storage.arguments if isinstance(storage, Inert) else None
    if not (content and storage.name == "torch.storage._load_from_bytes" and isinstance(content[0], bytes)):
        raise UnpickleError("a tensor has no storage of the known form")
    if len(content[0]) > most_bytes:
        raise UnpickleError(f"a tensor has a storage larger than {most_bytes} bytes")
    stream = BytesIO(content[0])
    if read_pickle(stream, max_bytes=most_bytes) != _TORCH_MAGIC:
        raise UnpickleError("a tensor has no storage of the known form")
    _protocol, _system, described, _keys = (read_pickle(stream, max_bytes=most_bytes) for _ in range(4))
    identifier = described.identifier if isinstance(described, Reference) else None
    if not (isinstance(identifier, tuple) and len(identifier) >= 5 and isinstance(identifier[1], Inert)):
        raise UnpickleError("a tensor has no storage of the known form")
    name = identifier[1].name.removeprefix("torch.").removeprefix("storage.").removesuffix("Storage")
    if name not in _TORCH_CODES:
        raise UnpickleError(f"a tensor has numbers of the unknown type {_kind(identifier[1])}")
    dtype = np.dtype("<" + _TORCH_CODES[name])
    count = int.from_bytes(stream.read(8), "little")
    return _from_bytes(stream.read(), dtype, (count,))
