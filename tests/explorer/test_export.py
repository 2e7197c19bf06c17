"""Files of what is shown, read back with other programs' libraries."""

import csv
import hashlib
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 (gives arrays the accessor rio)
import xarray as xr
from matplotlib.collections import LineCollection
from PIL import Image
from typer.testing import CliRunner

from core.metrics.deterministic import bias, rmse
from core.outlines import load_outlines
from explorer.export.command import in_lines, make_command
from explorer.export.figure import HIGHEST, WIDTH, Graticule, arrange, draw
from explorer.export.make import file_name, make_file
from explorer.export.scene import ExportError, Scene, file_part, take_scene
from explorer.export.table import STATISTICS, statistics
from explorer.library import COARSE, QUADRATIC, TRUTH, Library
from explorer.session import Session
from explorer.settings import Settings
from explorer.words import DIFFERENCE
from tests.explorer.generative import HOURS, iso, make_ldm, make_square_store
from tests.explorer.prompt import PromptLibrary
from tests.explorer.small_store import DOMAIN, fields

STAMP = "full-20210316T1200Z"


def started(library: Library, **state: object) -> Session:
    session = Session(library, **state)
    session.start()
    return session


@pytest.fixture
def session(library: Library) -> Session:
    return started(library)


def made(scene: Scene, library: Library, kind: str, path: Path, key: str = "") -> Path:
    """A file of a scene at ``path``."""
    with make_file(scene, library, kind, key) as stream:
        path.write_bytes(stream.read())
    return path


# ---------------------------------------------------------------- what is shown


def test_a_scene_holds_what_the_maps_draw(session: Session):
    scene = take_scene(session)
    assert [panel.key for panel in scene.panels] == [COARSE, TRUTH, QUADRATIC, "lapse_rate"]
    assert (scene.units, scene.against, scene.missing, scene.members) == ("°C", "", (), {})
    assert list(scene.limits) == session.automatic_limits()
    assert scene.models == (QUADRATIC, "lapse_rate")
    session.limits = [-5.0, 5.0]
    assert take_scene(session).limits == (-5.0, 5.0)


def test_a_scene_of_differences(session: Session):
    session.mode = DIFFERENCE
    scene = take_scene(session)
    assert [panel.key for panel in scene.panels] == [COARSE, QUADRATIC, "lapse_rate"]
    assert scene.title == "2 metre temperature, difference from truth"
    assert scene.units == "K"
    assert [field.key for field in scene.fields] == [COARSE, TRUTH, QUADRATIC, "lapse_rate"]
    found = scene.panels[1].values
    np.testing.assert_allclose(found, scene.fields[2].values - scene.fields[1].values, atol=1e-4)


def test_nothing_shown_can_not_be_exported(session: Session):
    session.snapshot = None
    with pytest.raises(ExportError, match="no hour is shown"):
        take_scene(session)


def test_names_of_files_say_store_hour_and_variable(session: Session):
    assert file_name(take_scene(session), "nc") == f"{STAMP}-fields.nc"
    assert file_name(take_scene(session), "tif") == f"{STAMP}-t2m.tif"
    assert file_name(take_scene(session), "tif", "truth") == f"{STAMP}-t2m-truth.tif"
    session.mode = DIFFERENCE
    assert file_name(take_scene(session), "png") == f"{STAMP}-t2m-minus-truth.png"
    assert file_part("../a b/“c”") == "a-b-c"
    assert file_part("…") == "_"


# ---------------------------------------------------------------- NetCDF


def test_netcdf_holds_every_field_in_si_units(session: Session, library: Library, tmp_path: Path):
    path = made(take_scene(session), library, "nc", tmp_path / "x.nc")
    fine, coarse = fields(12)
    with xr.open_datatree(path, engine="netcdf4") as tree:
        assert set(tree.children) == {COARSE, TRUTH, QUADRATIC, "lapse_rate"}
        np.testing.assert_allclose(tree["truth/t2m"].values[0, 0], fine)
        np.testing.assert_allclose(tree["coarse/t2m"].values[0, 0], coarse)
        assert {"t2m", "u10", "v10"} <= set(tree["quadratic"].data_vars)
        assert tree["coarse/t2m"].attrs["standard_name"] == "air_temperature"
        assert tree["coarse/t2m"].attrs["units"] == "K"
        assert tree["coarse/time"].values == [np.datetime64("2021-03-16T12:00")]
        assert tree.attrs["Conventions"] == "CF-1.11"
        assert (tree.attrs["synthetic"], tree.attrs["data_fingerprint"]) == (1, "full")
        assert tree["quadratic"].attrs["downscaler"] == "Quadratic interpolation"
        for name, grid in (("coarse", DOMAIN.coarse), ("truth", DOMAIN.fine)):
            field = xr.open_dataset(path, group=name, decode_coords="all")["t2m"]
            assert field.rio.crs.to_epsg() == 3035
            left, right, bottom, top = grid.extent
            assert field.rio.bounds() == (left, bottom, right, top)


def test_gdal_reads_place_and_values_of_the_netcdf(session: Session, library: Library, tmp_path: Path):
    path = made(take_scene(session), library, "nc", tmp_path / "x.nc")
    with rasterio.open(f'netcdf:"{path}":/coarse/t2m') as file:
        assert file.crs.to_epsg() == 3035
        left, right, bottom, top = DOMAIN.coarse.extent
        assert tuple(file.bounds) == (left, bottom, right, top)
        np.testing.assert_allclose(file.read(1), fields(12)[1])
    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not installed; on Debian: apt-get install gdal-bin.")
    name = f'NETCDF:"{path}":/truth/t2m'
    words = subprocess.run(["gdalinfo", name], capture_output=True, text=True, check=True).stdout
    assert 'ID["EPSG",3035]' in words
    assert "Pixel Size = (2000.000000000000000,-2000.000000000000000)" in words
    assert "Unit Type: K" in words


def test_a_store_without_truth_gives_no_truth(library: Library, tmp_path: Path):
    scene = take_scene(started(library, store="bare", models=[]))
    path = made(scene, library, "nc", tmp_path / "x.nc")
    with xr.open_dataset(path) as data:  # one field alone lies at the root
        np.testing.assert_allclose(data["t2m"].values[0, 0], fields(12)[1])
        assert data.attrs["synthetic"] == 0


# ---------------------------------------------------------------- GeoTIFF


def test_geotiff_has_a_band_for_each_map(session: Session, library: Library, tmp_path: Path):
    path = made(take_scene(session), library, "tif", tmp_path / "x.tif")
    fine, coarse = fields(12)
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 3035
        left, right, bottom, top = DOMAIN.fine.extent
        assert tuple(file.bounds) == (left, bottom, right, top)
        assert np.isnan(file.nodata)
        assert file.descriptions == (
            "Coarse input (cells of 16 km)", "Truth", "Quadratic interpolation", "Lapse-rate interpolation",
        )  # fmt: skip
        assert file.units == ("°C",) * 4
        np.testing.assert_allclose(file.read(2), fine - 273.15, atol=1e-4)
        np.testing.assert_allclose(file.read(1)[::8, ::8], coarse - 273.15, atol=1e-4)
        np.testing.assert_allclose(file.read(1)[7::8, 7::8], coarse - 273.15, atol=1e-4)
        tags = file.tags()
        assert tags["SYNTHETIC"].startswith("yes")
        assert tags["DATA_FINGERPRINT"] == "full"
        assert tags["TIME"] == "2021-03-16T12:00:00Z"


def test_geotiff_of_one_map_lies_on_its_own_grid(session: Session, library: Library, tmp_path: Path):
    scene = take_scene(session)
    with rasterio.open(made(scene, library, "tif", tmp_path / "c.tif", COARSE)) as file:
        assert (file.count, file.res, file.shape) == (1, (16000.0, 16000.0), DOMAIN.coarse.shape)
        np.testing.assert_allclose(file.read(1), fields(12)[1] - 273.15, atol=1e-4)
    session.mode = DIFFERENCE
    with rasterio.open(made(take_scene(session), library, "tif", tmp_path / "d.tif", QUADRATIC)) as file:
        assert file.descriptions == ("Quadratic interpolation minus truth",)
        assert file.units == ("K",)
    with pytest.raises(ExportError, match="not shown any more"):
        make_file(take_scene(session), library, "tif", TRUTH)
    session.reference = QUADRATIC
    with rasterio.open(made(take_scene(session), library, "tif", tmp_path / "x.tif")) as file:
        assert file.descriptions[1] == "Truth minus Quadratic interpolation"


# ---------------------------------------------------------------- figure


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_figure_is_a_picture_as_wide_as_two_columns(
    session: Session, library: Library, tmp_path: Path, kind: str
):
    path = made(take_scene(session), library, kind, tmp_path / f"x.{kind}")
    if kind == "pdf":
        content = path.read_bytes()
        assert content.startswith(b"%PDF-")
        assert b"/FontFile2" in content  # TrueType, not type 3
        assert b"/Type3" not in content
        return
    with Image.open(path) as picture:
        assert picture.width == pytest.approx(WIDTH / 25.4 * 300, abs=2)
        assert picture.info["dpi"][0] == pytest.approx(300, abs=0.1)
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_figure_says_what_when_units_and_that_it_is_synthetic(session: Session):
    scene = take_scene(session)
    figure = draw(scene, load_outlines(DOMAIN.fine))
    words = " | ".join(text.get_text() for text in figure.texts)
    assert "2 metre temperature · Tue 16 Mar 2021, 12:00 UTC" in words
    assert "Synthetic weather" in words
    assert "Data: Test weather" in words
    *maps, bar = figure.axes
    assert [axes.get_title(loc="left") for axes in maps] == [
        "(a) Coarse input", "(b) Truth", "(c) Quadratic interpolation", "(d) Lapse-rate interpolation",
    ]  # fmt: skip
    assert bar.get_ylabel() == "2 metre temperature [°C]"
    assert len({image.norm.vmin for axes in maps for image in axes.images}) == 1
    assert all(image.get_clim() == scene.limits for axes in maps for image in axes.images)
    error = session.scores.get(QUADRATIC).rmse
    assert f"RMSE {error:.2f} K" in [text.get_text() for text in maps[2].texts]
    assert any(" km" in text.get_text() for text in maps[0].texts)
    assert all(any(isinstance(c, LineCollection) for c in axes.collections) for axes in maps)
    sizes = [text.get_fontsize() for axes in maps for text in (axes.title, *axes.get_xticklabels())]
    assert min(sizes) >= 6.5


def test_figure_of_another_store_does_not_call_it_synthetic(library: Library):
    scene = take_scene(started(library, store="bare", models=[QUADRATIC]))
    words = " ".join(text.get_text() for text in draw(scene, {}).texts)
    assert "ynthetic" not in words


@pytest.mark.parametrize("aspect", [0.4, 1.17, 2.5])
@pytest.mark.parametrize("count", range(1, 13))
def test_maps_fit_on_the_page(count: int, aspect: float):
    layout = arrange(count, aspect)
    assert layout.columns * layout.rows >= count
    assert layout.total <= HIGHEST + 1e-6
    assert layout.columns * layout.width < WIDTH
    assert layout.height == pytest.approx(layout.width * aspect)


def test_graticule_crosses_the_edges_where_the_projection_says(session: Session):
    from pyproj import Transformer

    window = session.window
    graticule = Graticule(window, DOMAIN.crs)
    to_degrees = Transformer.from_crs(DOMAIN.crs, "EPSG:4326", always_xy=True)
    places, labels = graticule.longitudes
    assert places
    for x, label in zip(places, labels, strict=True):
        assert to_degrees.transform(x, window.bottom)[0] == pytest.approx(float(label[:-2]), abs=1e-4)
        assert label.endswith("°E")
    places, labels = graticule.latitudes
    for y, label in zip(places, labels, strict=True):
        assert to_degrees.transform(window.left, y)[1] == pytest.approx(float(label[:-2]), abs=1e-4)


# ---------------------------------------------------------------- table


def test_statistics_leave_out_what_has_no_value():
    count, numbers = statistics(np.array([[1.0, 3.0], [np.nan, 5.0]], np.float32))
    assert count == 3
    assert dict(zip(STATISTICS, numbers, strict=True)) == pytest.approx(
        {"mean": 3, "standard deviation": (8 / 3) ** 0.5, "lowest": 1, "highest": 5}
    )
    assert statistics(np.full((2, 2), np.nan))[0] == 0


def test_table_has_statistics_and_scores_of_every_field(session: Session, library: Library, tmp_path: Path):
    path = made(take_scene(session), library, "csv", tmp_path / "x.csv")
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))
    assert [row["field"] for row in rows] == [
        "Coarse input", "Truth", "Quadratic interpolation", "Lapse-rate interpolation",
    ]  # fmt: skip
    fine, coarse = (field - 273.15 for field in fields(12))
    assert float(rows[0]["mean [°C]"]) == pytest.approx(coarse.mean(), rel=1e-5)
    assert float(rows[1]["highest [°C]"]) == pytest.approx(fine.max(), rel=1e-5)
    assert (rows[0]["cells"], rows[1]["cells"]) == ("48", "3072")
    assert rows[1]["RMSE [K]"] == ""
    made_field = session.snapshot.get(QUADRATIC).values
    pair = [xr.DataArray(values, dims=("y", "x")) for values in (made_field, fine)]
    assert float(rows[2]["RMSE [K]"]) == pytest.approx(float(rmse(*pair)), rel=1e-4)
    assert float(rows[2]["Bias [K]"]) == pytest.approx(float(bias(*pair)), rel=1e-3)
    assert {row["synthetic"] for row in rows} == {"yes"}
    assert {row["hour (UTC)"] for row in rows} == {"2021-03-16T12:00"}


# ---------------------------------------------------------------- members and the command


@pytest.fixture(scope="session")
def generative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder")
    make_ldm(folder / "checkpoints" / "ldm.safetensors", make_square_store(folder / "square.zarr"))
    return folder


@pytest.fixture(scope="session")
def sampled(generative: Path) -> tuple[Session, Library]:
    """A session with two members of a generative model and one more of other settings."""
    library = PromptLibrary(Settings((generative / "square.zarr",), generative / "checkpoints", generative))
    key = library.catalogue.result().downscalers[-1].key
    settings = {"steps": 3, "seed": 7, "members": 2, "hour": iso(HOURS[1]), "sampler": "ddim"}
    session = started(library, models=[QUADRATIC, key], **settings)
    session.sample()
    assert library.jobs.wait(60)
    session.steps = 2
    assert library.jobs.wait(60)
    session.steps = 3
    assert library.jobs.wait(60)
    return session, library


def test_netcdf_holds_the_members_that_are_there_and_how_they_were_drawn(
    sampled: tuple[Session, Library], generative: Path, tmp_path: Path
):
    session, library = sampled
    key = session.generating.key
    path = made(take_scene(session), library, "nc", tmp_path / "x.nc")
    checkpoint = generative / "checkpoints" / "ldm.safetensors"
    with xr.open_dataset(path, group=key) as data:
        assert data["member"].values.tolist() == [0, 1]
        for member in (0, 1):
            wanted = library.peek_member(session.piece(session.generating, member))["t2m"]
            np.testing.assert_array_equal(data["t2m"].values[member, 0], wanted)
        assert data.attrs["model_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        assert (data.attrs["sampler"], data.attrs["sampler_steps"], data.attrs["seed"]) == ("ddim", 3, "7")


def as_a_shell_reads(command: str) -> list[str]:
    """The arguments that a shell hands to the program of a command."""
    script = f"tramontana() {{ printf '%s\\0' \"$@\"; }}\n{command}\n"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def test_the_command_makes_the_fields_of_the_page(sampled: tuple[Session, Library], tmp_path: Path):
    from tramontana import app

    session, library = sampled
    scene = take_scene(session)
    page = made(scene, library, "nc", tmp_path / "page.nc")
    words = as_a_shell_reads(in_lines(make_command(scene, library)))
    assert words[-1] == f"square-{session.hour.replace('-', '').replace(':', '')}Z.nc"
    words[-1] = str(tmp_path / words[-1])
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    with xr.open_datatree(page, engine="netcdf4") as ours, xr.open_datatree(words[-1]) as theirs:
        assert set(theirs.children) == {QUADRATIC, session.generating.key}
        for key in theirs.children:
            assert set(theirs[key].data_vars) == set(ours[key].data_vars)
            for name in set(theirs[key].data_vars) - {"spatial_ref"}:
                np.testing.assert_allclose(
                    theirs[key][name].values,
                    ours[key][name].values,
                    rtol=0,
                    atol=2e-4,
                    err_msg=f"{key} {name}",
                )
            assert theirs[key].attrs == ours[key].attrs


def test_a_command_needs_a_downscaler(library: Library):
    scene = take_scene(started(library, models=[]))
    with pytest.raises(ExportError, match="No downscaler is shown"):
        make_command(scene, library)


def test_an_option_stands_on_each_line():
    words = ["tramontana", "downscale", "a b.zarr", "--model", "x", "--hours", "1", "2", "--out", "y.nc"]
    assert in_lines(words).splitlines() == [
        "tramontana downscale 'a b.zarr' \\", "  --model x \\", "  --hours 1 2 \\", "  --out y.nc",
    ]  # fmt: skip


def test_a_file_that_fails_leaves_nothing_behind(
    session: Session, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    session.mode = DIFFERENCE
    with pytest.raises(ExportError):
        make_file(take_scene(session), library, "tif", TRUTH)
    assert list(tmp_path.glob("tramontana-*")) == []
