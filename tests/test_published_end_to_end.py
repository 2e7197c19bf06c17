"""From nothing to LDM_res on published hours: fetch, ingest, import, explore; a server on this machine."""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import tramontana
from core.data.store import Store
from core.downscale import from_checkpoint
from core.downscale.sampling import Sampling, collect
from explorer.export.command import make_command
from explorer.export.netcdf import write_netcdf
from explorer.export.scene import take_scene
from explorer.library import QUADRATIC, TRUTH
from explorer.session import Session
from explorer.settings import parse
from tests.explorer.prompt import PromptLibrary
from tests.published_layout import HOURS, nature_run, output_rows, pack, write_layout
from tests.range_server import Served, serving

DAYS = ("2016-05-02", "2014-12-28")
"""Both days of the hours in the paper's appendix."""
PADDING = {"padding.bin": 30 * 2**20}
"""What stands for all that nobody asks for in an archive."""
STEPS = 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return nature_run(tmp_path_factory.mktemp("nature") / "run.zarr")


@pytest.fixture(scope="module")
def records(source: Store, fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives as they lie on Zenodo: two of three years, the sample with what all share, the weights."""
    made, root = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("server")
    write_layout(made / "sample_data", source)
    for record, years, year in (("12945050", "2012-2014", "2014"), ("12945058", "2015-2017", "2016")):
        place = made / years
        write_layout(place, source, static=False)
        (place / "normalization_data.pkl").unlink()
        (made / "sample_data" / year).rename(made / f"unused-{year}")
        for path in (place / {"2014": "2016", "2016": "2014"}[year]).iterdir():
            path.unlink()
        pack(place, _file(root, record, f"{years}.zip"), padding=PADDING)
    weights = made / "pretrained_models"
    (weights / "outputs").mkdir(parents=True)
    for name in ("UNET_2mT.ckpt", "LDM_residual_2mT.ckpt"):
        (weights / name).write_bytes((fixtures / "checkpoints" / name).read_bytes())
    models = {"ERA5": 0.0, "COSMO-CLM": 0.0, "UNET": 0.5, "LDM_res": -0.25}
    output_rows(source, models).to_pickle(weights / "outputs" / "results_trained_models_2mT.pkl")
    pack(made / "sample_data", _file(root, "12934521", "sample_data.zip"), padding=PADDING)
    pack(weights, _file(root, "12941117", "pretrained_models.zip"), padding=PADDING)
    return root


def _file(root: Path, record: str, name: str) -> Path:
    path = root / "records" / record / "files" / name
    path.parent.mkdir(parents=True)
    return path


def run(*words: object) -> str:
    """What a command says; it must succeed."""
    result = CliRunner().invoke(tramontana.app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def arguments_of_the_page(monkeypatch: pytest.MonkeyPatch, *words: object) -> list[str]:
    """What ``tramontana explore`` would start the page with, after all its checks."""
    seen: list[str] = []
    monkeypatch.setattr("panel.command.main", lambda: seen.extend(sys.argv))
    run("explore", *words, "--no-open")
    return seen[seen.index("--args") + 1 :]


@pytest.fixture(scope="module")
def brought(records: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Served]:
    """The folder that the commands of ``fetch`` filled, and the server with what it sent."""
    folder = tmp_path_factory.mktemp("fetched") / "published"
    patch = pytest.MonkeyPatch()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        patch.delenv(name, raising=False)
    with serving(records) as served:
        options = ("--mirror", served.address, "--out", folder, "--yes")
        run("fetch", "days", *DAYS, *options)
        run("fetch", "statics", *options)
        run("fetch", "weights", "ldm-2mT", "unet-2mT", *options)
        run("fetch", "outputs", *options)
    patch.undo()
    return folder, served


def test_few_bytes_are_transferred(brought: tuple[Path, Served], records: Path) -> None:
    whole = sum(path.stat().st_size for path in records.rglob("*.zip"))
    assert 0 < brought[1].sent < 0.05 * whole


def test_from_fetched_files_to_the_page(
    brought: tuple[Path, Served], source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = brought
    path, models = tmp_path / "published.zarr", tmp_path / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "4 hours of 2 days with truth (t2m)" in run("ingest", "published", folder, "--out", path)
    for file, name in (("UNET_2mT", "unet"), ("LDM_residual_2mT", "ldm")):
        run(
            "checkpoint", "import", folder / "pretrained_models" / f"{file}.ckpt",
            "--normalization", folder / "normalization_data.pkl", "--domain", path,
            "--out", models / f"{name}.safetensors",
        )  # fmt: skip
    table = folder / "outputs" / "results_trained_models_2mT.pkl"
    assert "Published LDM_res 2mT (authors' output): 4 hours." in run(
        "ingest", "outputs", table, "--store", path
    )
    shown = run("show", path)
    assert "Published UNET 2mT (authors' output): can run" in shown

    library = PromptLibrary(parse(arguments_of_the_page(monkeypatch, path, "--checkpoints", models)))
    library.catalogue.result()
    session = Session(library, hour="2016-05-02T12:00", steps=STEPS)
    session.start()
    assert session.problem == session.error == session.note == ""
    assert sorted(map(str, session.hours)) == sorted(map(str, HOURS))
    keys = {choice.label: choice.key for choice in session.choices if choice.runs}
    stored = [label for label in keys if label.startswith("Published")]
    assert stored == ["Published LDM_res 2mT (authors' output)", "Published UNET 2mT (authors' output)"]
    (ldm,) = (choice.key for choice in session.choices if choice.generative)
    session.models = [QUADRATIC, ldm, *(keys[label] for label in stored)]

    for hour in ("2014-12-28T12:00", "2016-05-02T12:00"):
        session.hour = hour
        assert library.jobs.wait(120)
        assert session.error == ""
        truth = source.read_fine([np.datetime64(hour, "ns")], ["t2m"])["t2m"].values[0] - 273.15
        fields: dict[str, Any] = {field.key: field.values for field in session.snapshot.fields}
        np.testing.assert_allclose(fields[TRUTH], truth, atol=1e-3)
        np.testing.assert_allclose(fields[keys[stored[0]]], truth - 0.25, atol=1e-3)
        wanted = sampled(models / "ldm.safetensors", path, hour)
        np.testing.assert_allclose(fields[ldm], wanted - 273.15, atol=1e-3)
        scores = {row.key: row.rmse for row in session.scores.rows}
        assert scores[keys[stored[1]]] == pytest.approx(0.5, abs=1e-3)
        assert np.isfinite(scores[ldm])

    scene = take_scene(session)
    command = make_command(scene, library)
    assert [word for before, word in pairwise(command) if before == "--model"] == [
        QUADRATIC,
        str(models / "ldm.safetensors"),
    ]
    write_netcdf(scene, library, tmp_path / "hour.nc")
    with xr.open_dataset(tmp_path / "hour.nc", group=keys[stored[0]]) as group:
        np.testing.assert_allclose(group["t2m"].values.squeeze(), truth + 273.15 - 0.25, atol=1e-3)
        assert group.attrs["output_model"] == "LDM_res"
        assert group.attrs["output_source_file"] == table.name


def sampled(model: Path, path: Path, hour: str) -> np.ndarray:
    """Member 0 [K] as anybody gets it without the page."""
    store, time = Store.open(path), np.datetime64(hour, "ns")
    events = from_checkpoint(model).sample(
        store.read_coarse(time), store.read_static(), store.domain, [0], Sampling(steps=STEPS)
    )
    member: np.ndarray = collect(events)["t2m"].values[0, 0]
    return member


def test_an_hour_that_the_authors_did_not_publish(brought: tuple[Path, Served], tmp_path: Path) -> None:
    """The other fields are shown, and in the place of that one the reason why it is not."""
    folder, _ = brought
    path = tmp_path / "published.zarr"
    run("ingest", "published", folder, "--out", path)
    table = pd.read_pickle(folder / "outputs" / "results_trained_models_2mT.pkl")
    table[table["time_step"] < "2016"].to_pickle(tmp_path / "half.pkl")
    run("ingest", "outputs", tmp_path / "half.pkl", "--store", path)
    library = PromptLibrary(parse([str(path), "--checkpoints", str(tmp_path)], {}))
    library.catalogue.result()
    session = Session(library, hour="2016-05-02T12:00")
    session.start()
    (key, *_) = (choice.key for choice in session.choices if choice.label.startswith("Published"))
    session.models = [QUADRATIC, key]
    assert session.snapshot.get(QUADRATIC).values is not None
    assert "has no field of 2016-05-02 12:00 UTC; it has 2014-12-28" in session.snapshot.get(key).problem
    session.hour = "2014-12-28T12:00"
    assert session.snapshot.get(key).values is not None
