"""docs/your-own-domain.md: its commands, run in order at a small size, give what the page promises."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401  (the accessor that writes rasters)
import xarray as xr
from typer.testing import CliRunner

import tramontana
from core.checkpoint import read_header
from core.domain_file import read_domain
from explorer.session import Session
from explorer.settings import Settings
from tests.explorer.prompt import PromptLibrary

PAGE = Path(__file__).resolve().parent.parent / "docs" / "your-own-domain.md"
FEW = "--set steps=2 --set validate_every=2 --set train_hours=4 --set validation_hours=1 --set threads=1"
SMALLER = {
    "height: 96": "height: 64",
    "width: 96": "width: 64",
    "--hours 12": "--hours 10",
    "--hours 24": "--hours 10",
    "zoo valais.zarr --config tiny": f"zoo valais.zarr --config tiny {FEW}",
    "unet-demo": "unet-tiny --set train_hours=4 --set validation_hours=1",
    "crop=96": "crop=64",
    "steps=800": "steps=2",
    "validate_every=100": "validate_every=2",
    "--members 4": "--members 2 --steps 2 --threads 1",
}
"""What makes the page's commands quick; each must stand there."""


def commands() -> list[str]:
    """The code to copy from the page, made small, command by command."""
    code = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S))
    for words, fewer in SMALLER.items():
        assert words in code, f"{words} is not in the page any more"
        code = code.replace(words, fewer)
    found, lines = [], iter(code.splitlines())
    for line in lines:
        block = [line]
        if line.endswith("<<END"):
            block += iter(lambda: next(lines), "END")
            block.append("END")
        found.append("\n".join(block) + "\n")
    return found


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Invented raw files around the place of the page: mountains, two land classes, two days of ERA5."""
    monkeypatch.chdir(tmp_path)
    latitude, longitude = np.arange(48, 44.9, -0.05), np.arange(6, 10.1, 0.05)
    waves = np.sin(6 * latitude)[:, None] * np.cos(5 * longitude)
    coordinates = {"y": latitude, "x": longitude}
    for name, values in (
        ("elevation", (1500 + 1000 * waves).astype("f4")),
        ("land_cover", np.where(waves > 0, 10, 16).astype("u1")),
    ):
        field = xr.DataArray(values, coordinates, ("y", "x")).rio.write_crs("EPSG:4326")
        field.rio.to_raster(tmp_path / f"{name}.tif")
    for day in ("2016-01-01", "2016-01-02"):
        times = np.datetime64(day, "ns") + np.arange(24) * np.timedelta64(1, "h")
        grid = {
            "time": times,
            "latitude": np.arange(48.5, 44.4, -0.25),
            "longitude": np.arange(5.5, 10.6, 0.25),
        }
        shape = tuple(len(values) for values in grid.values())
        t2m = xr.DataArray(np.full(shape, 275, "f4"), grid, tuple(grid), attrs={"units": "K"})
        xr.Dataset({"t2m": t2m}).to_netcdf(tmp_path / f"era5_{day.replace('-', '')}.nc", engine="h5netcdf")
    return tmp_path


def test_the_page_can_be_followed(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAMONTANA_THREADS", "1")
    run = 0
    for command in commands():
        if command.startswith("tramontana explore"):
            continue
        if command.startswith("tramontana "):
            result = CliRunner().invoke(tramontana.app, shlex.split(command)[1:])
            assert result.exit_code == 0, (command, result.output, result.exception)
            run += 1
        else:
            subprocess.run(["bash", "-e", "-c", command], check=True, cwd=raw)
    assert run == 13
    assert read_domain("valais.yaml").fine.shape == (64, 64)
    header = read_header("runs/unet-year/unet.safetensors")
    assert header.domain["name"] == "Valais and Ticino"
    assert header.description.card is not None
    assert header.description.card.licence == "CC-BY-4.0"
    assert header.description.ranges is not None
    with xr.open_dataset("fields.nc", engine="h5netcdf") as fields:
        assert fields["t2m"].sizes["member"] == 2
        assert np.isfinite(fields["t2m"]).all()
    with xr.open_dataset("era5-2km.nc", engine="h5netcdf") as fields:
        assert np.allclose(fields["t2m"], 275, atol=0.01)
    assert "Learned from synthetic weather" in _explored(raw)


def _explored(folder: Path) -> str:
    """What the page's dialog of models says; its maps show the store's hour by the trained UNet."""
    from explorer.views.models import show_files

    stores = (folder / "valais.zarr", folder / "valais-era5.zarr")
    library = PromptLibrary(Settings(stores, folder / "runs" / "models", folder))
    library.catalogue.result()
    session = Session(library)
    session.start()
    names = {"UNet (tiny)", "LDM_res (tiny)"}
    assert {choice.label for choice in session.choices if choice.runs} >= names
    assert not session.problem
    return show_files(session)
