"""Numbers, arrays and tables read off pickles equal those of the packages that wrote them."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from core.inert_values import array, number, table
from core.unpickle import Inert, UnpickleError, read_pickle


def through(value: Any, protocol: int = 4) -> Any:
    return read_pickle(pickle.dumps(value, protocol=protocol))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        3,
        2.5,
        np.float32(2.5),
        np.float64(1 / 3),
        np.int64(-7),
        np.array(0.1),
        np.array([[4.5]], np.float16),
        torch.tensor(1.25),
        torch.tensor([7], dtype=torch.int64),
        torch.arange(6, dtype=torch.float64)[4],
    ],
    ids=repr,
)
def test_numbers(value: Any, protocol: int) -> None:
    assert number(through(value, protocol)) == np.asarray(value).item()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "u1"])
def test_arrays(dtype: str, protocol: int) -> None:
    values = np.arange(12).reshape(3, 4).astype(dtype)
    for case in (values, np.asfortranarray(values)):
        back = array(through(case, protocol))
        assert back.dtype == case.dtype
        np.testing.assert_array_equal(back, case)
    text = array(through(np.array(["a", "b"], object), protocol))
    assert text.tolist() == ["a", "b"]


def series(labels: Any) -> pd.Series:
    return pd.Series([1.5, 2.5], index=labels)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_tables(protocol: int) -> None:
    expected = {"2mT": 1.5, "U10": 2.5}
    assert table(through(expected, protocol)) == expected
    for labels in (["2mT", "U10"], pd.Index(["2mT", "U10"], dtype=object)):
        assert table(through(series(labels), protocol)) == expected
    frame = pd.DataFrame({"mean": series(["2mT", "U10"]), "count": np.array([3, 4])})
    back = table(through(frame, protocol))
    assert {column: dict(table(rows)) for column, rows in back.items()} == {
        "mean": expected,
        "count": {"2mT": 3, "U10": 4},
    }


def inert(name: str, *arguments: Any, state: Any = None) -> Inert:
    value = Inert(name, arguments)
    value.state = state
    return value


DTYPE = inert("numpy.dtype", "f8", False, True, state=(3, "<", None, None, None, -1, -1, 0))
RECONSTRUCT = "numpy.core.multiarray._reconstruct"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "1.5",
        [1.5],
        Inert("numpy.float64"),
        inert("os.system", "echo"),
        inert("numpy.core.multiarray.scalar", DTYPE, b"1234567"),
        inert("numpy.core.multiarray.scalar", inert("numpy.dtype", "O8"), b"12345678"),
        inert("numpy.core.multiarray.scalar", inert("numpy.dtype", "V99999999"), b""),
        inert(RECONSTRUCT, state=(1, (2**31, 2**31), DTYPE, False, b"")),
        inert(RECONSTRUCT, state=(1, (0, 2**31, 2**31, 2**31), DTYPE, False, b"")),
        10**400,
        inert(RECONSTRUCT, state=(1, (-1,), DTYPE, False, b"12345678")),
        inert(RECONSTRUCT, state=(1, (1,), DTYPE, False, [inert("os.system")])),
        inert("torch._utils._rebuild_tensor_v2", inert("torch.storage._load_from_bytes", b"N."), 0, (), ()),
        inert("torch._utils._rebuild_tensor_v2", inert("torch.storage._load_from_bytes", b""), 0, (), ()),
        through(np.array([1.0, 2.0])),
    ],
    ids=repr,
)
def test_anything_else_is_no_number(value: Any) -> None:
    with pytest.raises(UnpickleError):
        number(value)


def labels(name: str) -> Inert:
    text = inert(RECONSTRUCT, state=(1, (1,), None, False, [name]))
    return inert("pandas._new_Index", inert("pandas.Index"), {"data": text})


LABELS = [labels("mean"), labels("2mT")]
BLOCK = inert(
    "pandas.new_block",
    inert(RECONSTRUCT, state=(1, (1, 1), DTYPE, False, bytes(8))),
    inert("builtins.slice", 0, 1, 1),
)


def test_a_frame_by_hand() -> None:
    """The same block twice, which is refused below, is all that is wrong with it."""
    frame = inert("pandas.core.frame.DataFrame", state={"_mgr": inert("x", [BLOCK], LABELS)})
    assert table(frame) == {"mean": {"2mT": 0.0}}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [("2mT", 1.5)],
        inert("pandas.core.series.Series"),
        inert("pandas.core.series.Series", state={}),
        inert("pandas.core.frame.DataFrame", state={"_mgr": inert("x", (), ([], []))}),
        inert("pandas.core.frame.DataFrame", state={"_mgr": inert("x", None, LABELS)}),
        inert("pandas.core.frame.DataFrame", state={"_mgr": inert("x", [inert("b", 1)], LABELS)}),
        inert("pandas.core.frame.DataFrame", state={"_mgr": inert("x", [BLOCK, BLOCK], LABELS)}),
        inert("collections.Counter", state={}),
    ],
    ids=repr,
)
def test_anything_else_is_no_table(value: Any) -> None:
    with pytest.raises(UnpickleError):
        table(value)
