"""Tables of the authors' fields: what pandas and PyTorch wrote is read, and nothing is executed."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from core.published_outputs import OutputsError, read_outputs

FIELD = torch.arange(12, dtype=torch.float32).reshape(3, 4)
NOON, NIGHT = (np.datetime64(time, "ns") for time in ("2016-05-02T12", "2014-12-28T03"))


def row(**changes: Any) -> dict[str, Any]:
    return {
        "input_var": "all",
        "target_var": "2mT",
        "model": "UNET",
        "variable": "2mT",
        "spat_distr": FIELD,
        "min": 0.0,
        "max": np.percentile(FIELD, 99.5),
        "time_step": pd.Timestamp(NOON),
    } | changes


def save(path: Path, *rows: dict[str, Any], protocol: int = 5) -> Path:
    path.write_bytes(pickle.dumps(pd.DataFrame(list(rows)), protocol=protocol))
    return path


def test_a_file_of_pandas_2_0(fixtures: Path) -> None:
    """Written by the versions that the published code names (pandas 2.0.3, NumPy 1.25.1)."""
    found = read_outputs(fixtures / "outputs-pandas-2.0.pkl")
    told = [(item.model, item.target_var, item.variable, item.time) for item in found]
    assert told == [(model, "2mT", "2mT", time) for model in ("COSMO-CLM", "UNET") for time in (NOON, NIGHT)]
    for item in found:
        offset = {"COSMO-CLM": 280.0, "UNET": 280.5}[item.model]
        np.testing.assert_array_equal(item.values, offset + np.arange(12, dtype="f4").reshape(3, 4))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_file_of_this_pandas(protocol: int, tmp_path: Path) -> None:
    views = torch.arange(48, dtype=torch.float64).reshape(2, 4, 6)
    rows = [
        row(model="GAN", spat_distr=views[1].T[2:5]),
        row(spat_distr=FIELD.numpy(), time_step=pd.Timestamp(NIGHT)),
        row(spat_distr=FIELD.half()),
    ]
    found = read_outputs(save(tmp_path / "table.pkl", *rows, protocol=protocol))
    assert [item.time for item in found] == [NOON, NIGHT, NOON]
    assert [item.model for item in found] == ["GAN", "UNET", "UNET"]
    for item, expected in zip(found, (views[1].T[2:5], FIELD, FIELD), strict=True):
        np.testing.assert_array_equal(item.values, expected.float().numpy())
        assert item.values.dtype == np.float32


@pytest.mark.parametrize("kind", [object, "datetime64[s]", "datetime64[ns]"])
def test_time_stamps(kind: Any, tmp_path: Path) -> None:
    table = pd.DataFrame([row(), row(time_step=pd.Timestamp(NIGHT))])
    table["time_step"] = table["time_step"].astype(kind)
    (tmp_path / "table.pkl").write_bytes(pickle.dumps(table))
    assert [item.time for item in read_outputs(tmp_path / "table.pkl")] == [NOON, NIGHT]


def test_other_orders_of_columns(tmp_path: Path) -> None:
    table = pd.concat([pd.DataFrame([row(variable="U10")]), pd.DataFrame([row(variable="V10")])])
    table = table[["time_step", "spat_distr", "max", "variable", "model", "target_var"]]
    (tmp_path / "table.pkl").write_bytes(pickle.dumps(table))
    found = read_outputs(tmp_path / "table.pkl")
    assert [(item.model, item.variable) for item in found] == [("UNET", "U10"), ("UNET", "V10")]


class Trap:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ([1, 2], "no DataFrame"),
        (pd.Series([1.0]), "no DataFrame"),
        (Trap(), "no DataFrame"),
        (pd.DataFrame({"model": ["UNET"]}), "no column target_var, variable, spat_distr, time_step"),
        (pd.DataFrame([row(spat_distr=Trap())]), r"<builtins.exec\(...\)> is neither"),
        (pd.DataFrame([row(spat_distr="far")]), "a str is neither"),
        (pd.DataFrame([row(spat_distr=torch.zeros(3))]), r"numbers of the shape \(3,\)"),
        (pd.DataFrame([row(spat_distr=torch.zeros(3, 4, dtype=int))]), "no field"),
        (pd.DataFrame([row(model=3)]), "no name"),
        (pd.DataFrame([row(model="a\x1b[2J")]), "no name"),
        (pd.DataFrame([row(time_step="noon")]), "time stamp of an unknown kind"),
        (pd.DataFrame([row(), row(time_step=pd.NaT)]), "a row has no time stamp"),
    ],
)
def test_other_tables_are_refused(table: Any, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "table.pkl"
    path.write_bytes(pickle.dumps(table))
    with pytest.raises(OutputsError, match=sentence):
        read_outputs(path)


def test_damaged_files_are_refused(fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (fixtures / "outputs-pandas-2.0.pkl").read_bytes()
    path = tmp_path / "table.pkl"
    with pytest.raises(OutputsError, match="can't be read"):
        read_outputs(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OutputsError, match="no published table"):
        read_outputs(path)
    monkeypatch.setattr("core.published_outputs.MAX_BYTES", 1000)
    path.write_bytes(whole)
    with pytest.raises(OutputsError, match="at most"):
        read_outputs(path)


def test_a_tensor_that_reaches_out_of_its_storage(tmp_path: Path) -> None:
    path = save(tmp_path / "table.pkl", row(), protocol=2)
    data = path.read_bytes()
    shape = b"K\x03K\x04\x86"
    assert data.count(shape) == 1
    path.write_bytes(data.replace(shape, b"K\x09K\x04\x86"))
    with pytest.raises(OutputsError, match=r"of the shape \(9, 4\) has other numbers"):
        read_outputs(path)


def test_rows_of_one_tensor_share_it_and_views_keep_no_storage(tmp_path: Path) -> None:
    batch = torch.zeros(2, 300, 400)
    found = read_outputs(save(tmp_path / "t.pkl", row(spat_distr=batch[0]), row(spat_distr=batch[1, :2])))
    assert [item.values.base for item in found] == [None, None]
    same = torch.ones(300, 400)
    found = read_outputs(save(tmp_path / "t.pkl", *[row(spat_distr=same)] * 5))
    assert len({id(item.values) for item in found}) == 1


def test_many_tensors_of_one_storage_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file can't fill the memory by naming the same numbers again and again."""

    class Repeated:
        def __init__(self, storage: Any) -> None:
            self.storage = storage

        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (self.storage, 0, (500, 500), (500, 1), False, {})

    storage = torch.zeros(500, 500).storage()
    path = save(tmp_path / "t.pkl", *[row(spat_distr=Repeated(storage)) for _ in range(100)])
    assert path.stat().st_size < 2_000_000
    monkeypatch.setattr("core.published_outputs.MAX_BYTES", 20_000_000)
    with pytest.raises(OutputsError, match="many times the memory of the file"):
        read_outputs(path)
    monkeypatch.undo()
    assert len(read_outputs(path)) == 100
