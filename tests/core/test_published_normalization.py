"""Statistics for imported weights: from the published pickle, from JSON, completed from static fields."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from core.data.samples import MeanStd, Normalization
from core.published_normalization import NormalizationError, read_normalization
from core.variables import PREDICTORS, TARGETS, VARIABLES

PUBLISHED = {name: VARIABLES[name].published_name for name in (*PREDICTORS, *TARGETS)}
STATIC = xr.Dataset(
    {
        "orography": (("y", "x"), np.array([[0.0, 100.0], [200.0, 700.0]])),
        "latitude": (("y", "x"), np.array([[45.0, 45.0], [44.0, 44.0]])),
    }
)
EXPECTED = Normalization(
    predictors={name: MeanStd(mean=10.0 * i, std=1.0 + i) for i, name in enumerate(PREDICTORS)},
    targets={"u10": MeanStd(mean=-1.5, std=3.0), "v10": MeanStd(mean=0.25, std=2.0)},
    orography=MeanStd(mean=250.0, std=float(torch.tensor([0.0, 100, 200, 700]).std())),
    latitude=MeanStd(mean=44.5, std=float(torch.tensor([45.0, 45, 44, 44]).std())),
)


def published(wrap: Callable[[dict[str, float]], Any] = dict) -> dict[str, Any]:
    """As the published file has it, with more variables than are needed."""

    def part(statistics: dict[str, MeanStd]) -> dict[str, Any]:
        return {
            "mean": wrap({PUBLISHED[name]: s.mean for name, s in statistics.items()} | {"other": 0.0}),
            "std": wrap({PUBLISHED[name]: s.std for name, s in statistics.items()} | {"other": 1.0}),
        }

    return {"ERA5": part(EXPECTED.predictors), "CMCC": part(EXPECTED.targets)}


def read(path: Path, **options: Any) -> Normalization:
    return read_normalization(path, **({"targets": ("u10", "v10"), "static": STATIC} | options))


def check(found: Normalization) -> None:
    for group in ("predictors", "targets"):
        ours, theirs = getattr(found, group), getattr(EXPECTED, group)
        assert list(ours) == list(theirs)
        for name, statistics in theirs.items():
            assert ours[name].mean == pytest.approx(statistics.mean, rel=1e-6)
            assert ours[name].std == pytest.approx(statistics.std, rel=1e-6)
    for name in ("orography", "latitude"):
        assert getattr(found, name).mean == pytest.approx(getattr(EXPECTED, name).mean)
        assert getattr(found, name).std == pytest.approx(getattr(EXPECTED, name).std)


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda values: {name: np.float32(value) for name, value in values.items()},
        lambda values: {name: np.array(value) for name, value in values.items()},
        lambda values: {name: torch.tensor(value) for name, value in values.items()},
        pd.Series,
    ],
    ids=["floats", "numpy scalars", "numpy arrays", "tensors", "pandas"],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_published_file(wrap: Any, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "normalization_data.pkl"
    path.write_bytes(pickle.dumps(published(wrap), protocol=protocol))
    check(read(path))


def test_the_published_file_as_data_frames(tmp_path: Path) -> None:
    path = tmp_path / "normalization_data.pkl"
    path.write_bytes(pickle.dumps({key: pd.DataFrame(value) for key, value in published().items()}))
    check(read(path))


def test_json_with_and_without_statics(tmp_path: Path) -> None:
    path = tmp_path / "normalization.json"
    path.write_text(EXPECTED.model_dump_json())
    assert read(path, static=None) == EXPECTED
    path.write_text(EXPECTED.model_dump_json(include={"predictors", "targets"}, indent=1))
    check(read(path))


def test_order_and_choice_are_those_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "normalization.json"
    path.write_text(EXPECTED.model_dump_json())
    found = read(path, predictors=("sst", "t2m"), targets=("v10",))
    assert list(found.predictors) == ["sst", "t2m"]
    assert list(found.targets) == ["v10"]


def changed(**changes: Any) -> bytes:
    return json.dumps(EXPECTED.model_dump() | changes).encode()


class Trap:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (None, {}, "can't be read"),
        (b"", {}, "no published file of statistics"),
        (b"{", {}, "not valid JSON"),
        (b"x" * (16 * 2**20 + 1), {}, "too large"),
        (pickle.dumps([1, 2]), {}, "no published file of statistics"),
        (pickle.dumps(Trap()), {}, r"<builtins.exec\(...\)> is no table"),
        (pickle.dumps({"ERA5": {"mean": Trap()}}), {}, r"\['ERA5'\]\['mean'\]\['2mT'\]: <builtins.exec"),
        (pickle.dumps({"CMCC": published()["CMCC"]}), {}, r"no \['ERA5'\]\['mean'\]\['2mT'\]"),
        (pickle.dumps(published()), {"targets": ("t2m",)}, r"no \['CMCC'\]\['mean'\]\['2mT'\].*of t2m"),
        (pickle.dumps(published(lambda v: dict.fromkeys(v, "a"))), {}, "a str is neither a number"),
        (
            pickle.dumps(published(lambda v: dict.fromkeys(v, 0.0))),
            {},
            r"predictors.t2m.std: .*greater than 0",
        ),
        (pickle.dumps(published(lambda v: dict.fromkeys(v, float("nan")))), {}, "finite number"),
        (changed(), {"targets": ("t2m",)}, "no statistics for the targets t2m"),
        (changed(predictors={}), {}, "no statistics for the predictors t2m, msl"),
        (changed(predictors=3), {}, "no statistics for the predictors"),
        (changed(warmth=1), {}, "warmth"),
        (changed(**{"\x1b[2Jwarmth": 1}), {}, r": \?\[2Jwarmth"),
        (pickle.dumps(published(lambda v: dict.fromkeys(v, 10**400))), {}, "too large"),
        (changed(orography={"mean": 1}), {}, "orography.std"),
        (pickle.dumps(published()), {"static": None}, "no statistics of orography, and there are no static"),
        (pickle.dumps(published()), {"static": STATIC * 0}, "orography is constant"),
    ],
)
def test_faults_are_explained(
    content: bytes | None, options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "statistics"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NormalizationError, match=sentence):
        read(path, **options)
