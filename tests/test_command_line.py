"""The command line: thin, helpful, and without stack traces."""

import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import tramontana
from core.data.store import Store
from core.domain import Domain

COMMANDS = ["demo", "ingest", "statics", "show", "train", "evaluate", "checkpoint", "explore"]


def run_main(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tramontana", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_command():
    result = CliRunner().invoke(tramontana.app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    assert CliRunner().invoke(tramontana.app, [command, "--help"]).exit_code == 0


def test_errors_are_one_sentence(tmp_path):
    result = run_main("show", tmp_path / "missing.zarr")
    assert result.returncode == 1
    assert "There is no store at" in result.stderr
    assert "Traceback" not in result.stderr


def test_show_and_validate(tmp_path):
    domain = Domain.regular("Small", left=4e6, top=2.5e6, shape=(32, 32), spacing=2000.0, ratio=8)
    times = np.datetime64("2020-01-01T00", "ns") + np.arange(2) * np.timedelta64(1, "h")
    store = Store.create(
        tmp_path / "a.zarr", domain, title="Test", source="tests", times=times, coarse=["t2m"],
        synthetic=True, fingerprint="x",
    )  # fmt: skip
    store.write(times, {"t2m": np.full((2, 4, 4), 280.0)})
    result = run_main("show", store.path, "--validate")
    assert result.returncode == 0, result.stderr
    for text in (
        "(synthetic)",
        "2 hours",
        "Missing predictors: msl",
        "Quadratic interpolation: can run",
        "sound",
    ):
        assert text in result.stdout
    store.write(times, {"t2m": np.full((2, 4, 4), 7.0)})
    result = run_main("show", store.path, "--validate")
    assert result.returncode == 1
    assert "Wrong units" in result.stdout
