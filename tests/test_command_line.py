"""The command line: thin, helpful, and without stack traces."""

import csv
import functools
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import commands.explore
import core.data.nature_report
import core.data.nature_run
import core.data.statics
import core.domain
import explorer.serve
import tramontana
from commands.console import say
from commands.demo import DEMO_STORE
from core.checkpoint import read_header
from core.data.samples import split_hours
from core.data.statics import load_italy_static, pack_static, static_dataset
from core.data.store import Store, grid_mapping_attrs
from core.domain import Domain
from tests import era5_like, synthetic_store
from tests.command_line import run_program
from tests.explorer.small_store import make_unet
from tests.grib_like import message, write_grib

COMMANDS = [
    "demo",
    "ingest",
    "fetch",
    "statics",
    "show",
    "train",
    "downscale",
    "evaluate",
    "checkpoint",
    "explore",
]
WEEKS = synthetic_store.hours_of_weeks(weeks=20, per_week=2)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the console script in this process, in an empty folder and without the shipped checkpoints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAMONTANA_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("COLUMNS", "200")

    return functools.partial(run_program, monkeypatch, capsys)


@pytest.fixture
def place(monkeypatch):
    """Puts another domain, with its static fields among the assets, in the place of Italy."""

    def put(domain: Domain, static: xr.Dataset) -> None:
        monkeypatch.setattr(core.domain, "ITALY", domain)
        monkeypatch.setattr(core.data.statics, "ITALY", domain)
        pack_static(static, Path("assets", "italy", "static.nc"))

    return put


@pytest.fixture(scope="session")
def corsica() -> tuple[Domain, xr.Dataset]:
    """64 x 64 cells of the real map, with sea and mountains."""
    static = load_italy_static().isel(y=slice(290, 354), x=slice(140, 204))
    left, top = float(static.x[0]), float(static.y[0])
    return Domain.regular("Corsica", left=left, top=top, shape=(64, 64), spacing=2000.0, ratio=8), static


@pytest.fixture(scope="session")
def weather(tmp_path_factory) -> Path:
    """Two hours of each of 20 weeks with truth; never written to by a test."""
    return synthetic_store.make_store(tmp_path_factory.mktemp("weather") / "weather.zarr").path


# ---------------------------------------------------------------- all commands


def test_help_names_every_command():
    result = CliRunner().invoke(tramontana.app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    assert CliRunner().invoke(tramontana.app, [command, "--help"]).exit_code == 0


def test_the_module_runs_and_its_errors_are_one_sentence(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "tramontana", "show", str(tmp_path / "missing.zarr")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: There is no store at")
    assert len(result.stderr.splitlines()) == 1


# ---------------------------------------------------------------- show


def test_titles_can_not_steer_the_terminal(capsys):
    say("sto\x1b[2Jre\x9b31m \u202eevil\ntwo [brackets]")
    assert capsys.readouterr().out == "sto[2Jre31m evil\ntwo [brackets]\n"


def test_show_and_validate(run):
    domain = Domain.regular("Small", left=4e6, top=2.5e6, shape=(32, 32), spacing=2000.0, ratio=8)
    times = np.datetime64("2020-01-01T00", "ns") + np.arange(2) * np.timedelta64(1, "h")
    store = Store.create(
        "a.zarr", domain, title="Test", source="tests", times=times, coarse=["t2m"],
        synthetic=True, fingerprint="x",
    )  # fmt: skip
    store.write(times, {"t2m": np.full((2, 4, 4), 280.0)})
    ended = run("show", store.path, "--validate")
    assert ended.status == 0
    for text in (
        "(synthetic)",
        "2 hours",
        "Missing predictors: msl",
        "Quadratic interpolation: can run",
        "sound",
    ):
        assert text in ended.out
    store.write(times, {"t2m": np.full((2, 4, 4), 7.0)})
    ended = run("show", store.path, "--validate")
    assert ended.status == 1
    assert "Wrong units" in ended.out


@pytest.mark.parametrize("command", [("show",), ("show", "--validate"), ("downscale",)])
def test_a_checkpoint_in_the_place_of_a_store(run, fixtures, command):
    source = fixtures / "checkpoints" / "UNET_2mT.ckpt"
    options = ("--model", "quadratic", "--out", "a.nc") if command == ("downscale",) else ()
    ended = run(*command, source, *options)
    assert ended.status == 1
    assert ended.said.startswith(f"Error: {source} is no store. {source} seems to be a checkpoint of PyTorch")
    for advice in ("`tramontana checkpoint import`", "`tramontana checkpoint show`"):
        assert advice in ended.said
    Path("letter.txt").write_text("Dear reader")
    ended = run(*command, "letter.txt", *options)
    assert ended.status == 1
    assert ended.said.startswith("Error: letter.txt is not a store")
    assert "`tramontana demo`" in ended.said


# ---------------------------------------------------------------- demo


def test_demo_makes_a_store_and_continues_it(run, place, corsica):
    place(*corsica)
    ended = run("demo", "--out", "demo.zarr", "--start", "2016-07-11", "--hours", 1)
    assert ended.status == 0
    assert "demo.zarr: Tramontana nature run: synthetic weather over Corsica (synthetic)" in ended.out
    assert "1 hour from 2016-07-11 00:00 UTC" in ended.out
    assert "Lapse-rate interpolation: can run" in ended.out
    before = Store.open("demo.zarr").read_fine()["t2m"]
    ended = run("demo", "--out", "demo.zarr", "--start", "2016-07-11", "--hours", 2, "--starts", 1)
    assert ended.status == 0
    store = Store.open("demo.zarr")
    assert store.hours.size == 2
    np.testing.assert_array_equal(store.read_fine(before["time"])["t2m"], before)
    assert "1 hour added" in store.attrs["history"]


def test_demo_does_not_mix_seeds(run, place, corsica):
    place(*corsica)
    synthetic_store.make_store("other.zarr", WEEKS[:1], domain=corsica[0])
    ended = run("demo", "--out", "other.zarr", "--hours", 1)
    assert ended.status == 1
    assert ended.said.startswith("Error: other.zarr holds other data than this nature run would make")


def test_demo_can_be_stopped(run, place, corsica, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    place(*corsica)
    monkeypatch.setattr(core.data.nature_run, "write_nature_run", stop)
    ended = run("demo", "--out", "demo.zarr")
    assert ended.status == 130
    assert "Stopped. What is done is kept in demo.zarr; the same command continues it." in ended.err


def test_demo_report_prints_a_table_and_draws_a_picture(run, place, corsica, monkeypatch):
    place(*corsica)
    whole = core.data.nature_report.report
    short = functools.partial(whole, days=("2016-01-04",), every=12)
    monkeypatch.setattr(core.data.nature_report, "report", short)
    ended = run("demo", "--report")
    rows = [line for line in ended.out.splitlines() if " yes " in line or " NO " in line]
    assert any("quadratic interpolation: RMSE" in row for row in rows)
    assert len(rows) == 11
    assert ended.status == int(any(" NO " in row for row in rows))
    assert "Comparison with ERA5: no sample" in ended.out
    assert Path("data", "nature-run-report.png").read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------- ingest and statics


@pytest.fixture
def small(place, run) -> Domain:
    """The domain that files of ``era5_like`` cover."""
    domain = era5_like.DOMAIN
    fields = synthetic_store.static_dataset(domain)
    layers = {name: fields[name].values for name in ("orography", "land_fraction", "land_cover")}
    place(domain, static_dataset(domain, **layers))
    return domain


def test_ingest_and_append(run, small):
    times = era5_like.stamps(hours=4)
    files = [
        era5_like.write_new(era5_like.fields(["t2m", "u10", "t"], part), Path(f"part{number}.nc"))
        for number, part in enumerate((times[:3], times[3:]))
    ]
    ended = run("ingest", "era5", files[0], "--out", "era5.zarr", "--assume-850")
    assert ended.status == 0, ended.err
    assert "3 hours from 2020-03-01 00:00 UTC to 2020-03-01 02:00 UTC from 1 file" in ended.out
    assert "Not in the files: msl" in ended.out
    assert "Quadratic interpolation: can run" in ended.out
    ended = run("ingest", "era5", files[1], "--out", "era5.zarr", "--assume-850", "--append")
    assert ended.status == 0, ended.err
    store = Store.open("era5.zarr")
    np.testing.assert_array_equal(store.hours, times)
    assert store.contents.predictors == ("t2m", "u10", "t850")
    np.testing.assert_allclose(store.read_coarse()["t2m"], era5_like.expected("t2m", times), atol=0.02)
    assert "1 hour added" in store.attrs["history"].splitlines()[-1]


def test_a_bar_without_hours_is_not_left_behind(run, small):
    file = era5_like.write_new(era5_like.fields(["t2m"], era5_like.stamps(hours=2)), Path("a.nc"))
    words = ("ingest", "era5", file, "--out", "era5.zarr")
    assert "2/2" in run(*words).err
    again = run(*words, "--append")
    assert again.status == 0
    assert "left as before" in again.out
    assert "?" not in again.err


def test_ingest_refuses_what_is_no_era5(run, small):
    Path("letter.nc").write_text("Dear reader")
    ended = run("ingest", "era5", "letter.nc", "--out", "era5.zarr")
    assert ended.status == 1
    assert ended.said == "Error: letter.nc is not a NetCDF or GRIB file.\n"
    assert not Path("era5.zarr").exists()


def test_ingest_of_an_ensemble_in_grib(run, small):
    times = era5_like.stamps("2020-03-01T01", 3)
    place = era5_like.LATITUDE[:, None], era5_like.LONGITUDE
    messages = [
        message("t2m", values + number, step=(hour, hour), number=number)
        for number in (0, 1)
        for hour, values in enumerate(era5_like.linear("t2m", times, *place), 1)
    ]
    write_grib(Path("ens.grib"), messages)
    ended = run("ingest", "era5", "ens.grib", "--out", "ens.zarr")
    assert ended.status == 1
    assert "ens.grib has 2 ensemble members (number 0, 1); pick one member" in ended.said
    ended = run("ingest", "era5", "ens.grib", "--out", "ens.zarr", "--all-members", "--number", "1")
    assert "either --number or --all-members" in ended.said
    ended = run(
        "ingest", "era5", "ens.grib", "--out", "ens.zarr", "--all-members", "--start", "2020-03-01T02"
    )
    assert ended.status == 0, ended.err
    assert "ens-01.zarr" in ended.out
    stores = [Store.open(f"ens-0{number}.zarr") for number in (0, 1)]
    assert [store.attrs["coarse_member"] for store in stores] == [0, 1]
    np.testing.assert_array_equal(stores[0].hours, times[1:])
    warmer = stores[1].read_coarse()["t2m"] - stores[0].read_coarse()["t2m"]
    np.testing.assert_allclose(warmer, 1, atol=1e-3)


def test_ingest_of_an_address_without_a_server(run, small):
    # Nothing listens on port 1, and the address must arrive with both its slashes.
    ended = run("ingest", "era5", "http://127.0.0.1:1/era5.zarr", "--out", "s.zarr", "--end", "2020-03-01")
    assert ended.status == 1
    assert ended.said.startswith("Error: http://127.0.0.1:1/era5.zarr can't be read")
    assert not Path("s.zarr").exists()


def test_fine_fields_become_truth(run, small):
    times = era5_like.stamps(hours=2)
    files = [
        era5_like.write_new(era5_like.fields(names, times), Path(name))
        for name, names in (("coarse.nc", ["t2m", "msl"]), ("fine.nc", ["t2m"]))
    ]
    run("ingest", "era5", files[0], "--out", "coarse.zarr")
    ended = run(
        "ingest", "fine", files[1], "--store", "coarse.zarr", "--out", "both.zarr", "--source", "Analysis"
    )
    assert ended.status == 0, ended.err
    assert "t2m: 100.0 % of the fine cells are covered." in ended.out
    assert "Truth: t2m." in ended.out
    store = Store.open("both.zarr")
    assert store.attrs["title"].startswith("Analysis beside ERA5")
    true = era5_like.linear("t2m", times, small.fine.latitude, small.fine.longitude)
    np.testing.assert_allclose(store.read_fine()["t2m"], true, atol=0.02)


def test_requests_are_printed_for_a_file_or_another_program(run, small):
    words = ["ingest", "era5", "--request", "--start", "2016-05-01", "--end", "2016-05-02"]
    ended = run(*words, "--as", "json")
    assert ended.status == 0, ended.err
    requests = json.loads(ended.out)
    assert [one["file"] for one in requests] == [
        "era5-orography.nc",
        "era5-single-levels-2016-05-01-to-02.nc",
        "era5-850-hpa-2016-05-01-to-02.nc",
    ]
    assert sum(len(one["request"]["variable"]) for one in requests[1:]) == 14
    ended = run(*words, "--folder", "my files", "--format", "grib", "--margin", "1")
    compile(ended.out, "request.py", "exec")
    assert '"my files/era5-orography.grib"' in ended.out
    assert str(requests[0]["request"]["area"][0] + 0.5) in ended.out
    assert not list(Path().glob("**/*.grib"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--request --start soon --end 2016-05-02", "The start 'soon' is no date"),
        ("--request --start 2016-05-01", "Say which days to ask for"),
        (
            "--request --start 2016-05-01 --end 2016-05-02 a.nc",
            "Files can't be given together with --request",
        ),
        ("--request --start 2016-05-01 --end 2016-05-02 --out s.zarr", "--out can't be given together"),
        ("a.nc --out s.zarr --send", "--send is for --request only"),
        ("a.nc --out s.zarr --format grib", "--format is for --request only"),
        (
            "--out s.zarr",
            "Name the files to take the fields from. Without any, `tramontana ingest era5 --req",
        ),
        ("a.nc", "Say with --out which store to make"),
    ],
)
def test_files_and_requests_are_not_mixed_up(run, small, words, sentence):
    ended = run("ingest", "era5", *words.split())
    assert ended.status == 1
    assert ended.err.startswith(f"Error: {sentence}")
    assert not ended.out


def test_requests_are_sent_where_cdsapi_is_configured(run, small, monkeypatch):
    asked = []

    class Client:
        def retrieve(self, dataset, request, target):
            asked.append((dataset, request["variable"]))
            Path(target).write_bytes(b"a file")

    monkeypatch.setitem(sys.modules, "cdsapi", types.SimpleNamespace(Client=Client))
    words = ["ingest", "era5", "--request", "--start", "2016-05-01", "--end", "2016-05-01", "--send"]
    ended = run(*words, "--folder", "era5")
    assert ended.status == 0, ended.err
    assert [dataset for dataset, _ in asked] == [
        "reanalysis-era5-single-levels",
        "reanalysis-era5-single-levels",
        "reanalysis-era5-pressure-levels",
    ]
    assert sorted(path.name for path in Path("era5").iterdir()) == [
        "era5-850-hpa-2016-05-01-to-01.nc",
        "era5-orography.nc",
        "era5-single-levels-2016-05-01-to-01.nc",
    ]
    assert ended.out.count("has come.") == 3
    assert "Go on with: tramontana ingest era5 era5/era5-* --out data/era5.zarr" in ended.out
    assert run(*words, "--folder", "era5").out.count("was there already.") == 3
    assert len(asked) == 3


def raster(path: Path, name: str, values: np.ndarray, grid: core.domain.Grid) -> Path:
    """A field on a grid as NetCDF with its projection."""
    field = xr.Dataset({name: (("y", "x"), values)}, {"y": grid.y, "x": grid.x})
    field.coords["spatial_ref"] = ((), 0, grid_mapping_attrs(grid))
    field[name].attrs["grid_mapping"] = "spatial_ref"
    field.to_netcdf(path)
    return path


def test_statics_of_ones_own_domain(run, weather):
    store = Store.open(weather)
    grid = store.domain.fine
    heights = raster(Path("height.nc"), "height", np.full(grid.shape, 250.0), grid)
    cover = raster(Path("cover.nc"), "cover", np.full(grid.shape, 40, np.int16), grid)
    Path("classes.csv").write_text("40,12\n")
    words = ["statics", "--elevation", heights, "--land-cover", cover, "--store", weather]
    ended = run(*words, "--classes", "classes.csv", "--out", "static.nc")
    assert ended.status == 0, ended.err
    assert "Wrote static.nc: orography, land_cover, latitude, land_fraction." in ended.out
    assert "The rasters cover all of Small." in ended.out
    with xr.open_dataset("static.nc") as static:
        np.testing.assert_allclose(static["orography"], 250.0)
        np.testing.assert_allclose(static["land_cover"].sel({"class": 12}), 1.0)
    Path("classes.csv").write_text("number,class\n40,12\n")
    ended = run(*words, "--classes", "classes.csv", "--out", "static.nc")
    assert ended.status == 1
    assert "classes.csv must have two whole numbers in every line" in ended.err


# ---------------------------------------------------------------- train and evaluate


def scores_of(table: str) -> dict[str, list[str]]:
    """The cells of a Markdown table by downscaler."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    return {row[1]: row for row in rows[2:]}


def test_train_then_evaluate(run, weather):
    small = ("steps=4", "validate_every=2", "features=[4,8]", "crop=32", "threads=1", "device=cpu")
    changes = [word for change in small for word in ("--set", change)]
    ended = run("train", "unet", weather, "--config", "unet-tiny", *changes, "--out", "models")
    assert ended.status == 0, ended.err
    assert "Wrote models/unet-tiny.safetensors. See it with `tramontana explore" in ended.out
    header = read_header("models/unet-tiny.safetensors")
    assert header.models["unet"]["features"] == [4, 8]

    ended = run("evaluate", weather, "--checkpoints", "models", "--csv", "scores.csv")
    assert ended.status == 0, ended.err
    hours = 6  # two of each of the weeks 17 to 19
    assert f"{hours} hours of the test split of {weather}." in ended.out
    table = scores_of(ended.out)
    assert list(table) == ["Quadratic interpolation", "Lapse-rate interpolation", "UNet (tiny)"]
    with Path("scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * hours
    errors = [float(row["rmse"]) for row in rows if row["label"] == "Quadratic interpolation"]
    assert table["Quadratic interpolation"][2] == f"{np.mean(errors):.3g} K"


def test_a_config_with_a_typing_error_is_explained(run, weather):
    ended = run("train", "unet", weather, "--config", "unet-tiny", "--set", "stepz=4", "--out", "models")
    assert ended.status == 1
    assert "did you mean steps?" in ended.err
    assert not Path("models").exists()


def test_a_report_of_models_and_hours(run, weather):
    words = ("evaluate", weather, "--models", "quadratic", "--every", "2", "--out", "report")
    ended = run(*words)
    assert ended.status == 0, ended.err
    assert "Wrote report/report.html" in ended.out
    first = Path("report/parts/quadratic.nc").stat().st_mtime_ns
    ended = run(*words, "--models", "lapse_rate", "--block-hours", "48")
    assert ended.status == 0, ended.err
    assert Path("report/parts/quadratic.nc").stat().st_mtime_ns == first
    with xr.open_dataset("report/evaluation.nc") as found:
        assert found["label"].values.tolist() == ["Quadratic interpolation", "Lapse-rate interpolation"]
        assert found.sizes["time"] == 3
        assert found.attrs["block_hours"] == 48
        assert found.attrs["command"].endswith("--models lapse_rate --block-hours 48")
        rmse = float(found["rmse"].sel(model="quadratic", target="t2m").mean())
    page = Path("report/report.html").read_text()
    assert "Lapse-rate interpolation" in page
    assert f"{rmse:.3g}" in Path("report/table.md").read_text()
    assert "Quadratic interpolation" in ended.out
    ended = run("evaluate", weather, "--models", "quadratic", "--out", "report")
    assert ended.status == 1
    assert "it differs in: hours" in ended.err
    ended = run("evaluate", weather, "--models", "quadratic", "--out", "report", "--csv", "a.csv")
    assert ended.status == 1
    assert "leave out --metric and --csv" in ended.err


def test_evaluate_says_what_is_left_out(run, tmp_path):
    coarse = ("t2m", "msl")
    synthetic_store.make_store("part.zarr", WEEKS[:2], coarse=coarse, static=False)
    Path("models").mkdir()
    Path("models", "broken.safetensors").write_bytes(b"not a checkpoint")
    ended = run("evaluate", "part.zarr", "--split", "all", "--checkpoints", "models")
    assert ended.status == 0, ended.err
    assert list(scores_of(ended.out)) == ["Quadratic interpolation"]
    assert "models/broken.safetensors left out: " in ended.err
    assert "Lapse-rate interpolation left out: " in ended.err


def test_evaluate_leaves_out_a_file_with_broken_weights(run, tmp_path):
    store = synthetic_store.make_store(tmp_path / "s.zarr")
    folder = tmp_path / "models"
    make_unet(folder / "broken.safetensors", store.domain, "Broken")
    data = (folder / "broken.safetensors").read_bytes()
    (folder / "broken.safetensors").write_bytes(data[:-4] + b"\xff\xff\xff\x7f")  # NaN
    ended = run("evaluate", tmp_path / "s.zarr", "--checkpoints", folder)
    assert ended.status == 0
    assert "Broken left out:" in ended.err
    assert "not finite" in ended.err
    assert "Quadratic interpolation" in ended.out


def test_evaluate_with_metrics_of_ones_choice(run, tmp_path):
    synthetic_store.make_store(tmp_path / "s.zarr")
    ended = run("evaluate", tmp_path / "s.zarr", "--metric", "flux_error", "--metric", "rmse")
    assert "| target | downscaler | Flux error | RMSE |" in ended.out
    assert "choose one of rmse" in run("evaluate", tmp_path / "s.zarr", "--metric", "skill").err
    refused = run("evaluate", tmp_path / "s.zarr", "--audit", "--metric", "rmse")
    assert (refused.status, "scores no models" in refused.err) == (1, True)


def test_a_kill_removes_what_is_half_written(tmp_path):
    """The signal becomes an ordinary end of the program, as that of Ctrl-C does."""
    code = (
        "import os, signal, sys, pathlib, commands.show, tramontana\n"
        "def show(*_, **__):\n"
        "    path = pathlib.Path(sys.argv[2])\n"
        "    path.touch()\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        "    finally:\n"
        "        path.unlink()\n"
        "commands.show.show_store = show\n"
        "tramontana.main()\n"
    )
    half = tmp_path / "half"
    done = subprocess.run([sys.executable, "-c", code, "show", str(half)], capture_output=True, text=True)
    assert (done.returncode, half.exists(), done.stderr) == (143, False, "")


def test_evaluate_needs_truth(run):
    synthetic_store.make_store("bare.zarr", WEEKS[:2], fine=())
    ended = run("evaluate", "bare.zarr", "--split", "all", "--csv", "scores.csv")
    assert ended.status == 1
    assert "bare.zarr holds no fine truth" in ended.err
    assert not Path("scores.csv").exists()


@pytest.mark.parametrize("options", [(), ("--audit",)])
def test_evaluate_needs_hours_of_the_split(run, options):
    synthetic_store.make_store("short.zarr", WEEKS[:2])
    ended = run("evaluate", "short.zarr", "--split", "test", *options)
    assert ended.status == 1
    assert ended.said.startswith("Error: ")
    assert len(ended.said.splitlines()) == 1


# ---------------------------------------------------------------- the audit of the fluxes


def test_audit_of_a_store(run):
    domain = Domain.regular("Large", left=4e6, top=2.5e6, shape=(128, 128), spacing=2000.0, ratio=8)
    times = synthetic_store.hours_of_weeks(weeks=20, per_week=1)
    synthetic_store.make_store("large.zarr", times, coarse=("t2m",), domain=domain)
    ended = run("evaluate", "large.zarr", "--audit", "--audit-hours", 2, "--draws", 1)
    assert ended.status == 0, ended.err
    assert "2 hours of the test split of large.zarr; spacing 2 x 2 km; smoothing" in ended.out
    assert "| truth | 0 |" in ended.out
    assert "flux_error" in ended.out
    assert ended.out.count("| *unchanged by a constant added") == 2


def test_audit_of_a_store_without_training_weeks(run):
    domain = Domain.regular("Large", left=4e6, top=2.5e6, shape=(128, 128), spacing=2000.0, ratio=8)
    synthetic_store.make_store("late.zarr", split_hours(WEEKS, "test"), coarse=("t2m",), domain=domain)
    ended = run("evaluate", "late.zarr", "--audit", "--audit-hours", 1, "--draws", 1)
    assert ended.status == 0, ended.err
    assert "1 hour of the test split of late.zarr" in ended.out


def test_audit_of_an_empty_store(run):
    synthetic_store.create_store(
        "empty.zarr",
        synthetic_store.DOMAIN,
        WEEKS,
        synthetic_store.static_dataset(),
        coarse=["t2m"],
        fine=["t2m"],
        fingerprint="x",
    )
    for options in ([], ["--audit"]):
        ended = run("evaluate", "empty.zarr", "--split", "all", *options)
        assert ended.status == 1
        assert ended.said.startswith("Error: ")


def test_audit_of_a_file(run):
    generator = np.random.default_rng(0)
    latitude, longitude = np.arange(47.0, 39.0, -0.25), np.arange(8.0, 16.0, 0.25)
    values = 285 + generator.normal(size=(2, latitude.size, longitude.size)).cumsum(-1).cumsum(-2) / 10
    axes = {"time": era5_like.stamps(hours=2), "latitude": latitude, "longitude": longitude}
    xr.Dataset({"t2m": (tuple(axes), values, {"units": "K"})}, axes).to_netcdf("t2m.nc")
    ended = run("evaluate", "t2m.nc", "--audit", "--audit-hours", 2, "--draws", 1, "--ratio", 2)
    assert ended.status == 0, ended.err
    assert "2 hours of t2m.nc, the coarse field is its average over 2 x 2 pixels" in ended.out
    assert "| truth | 0 |" in ended.out


@pytest.mark.parametrize("content", [None, b"Dear reader", b"\x89HDF\r\n\x1a\nrubbish"])
def test_audit_of_a_wrong_file_is_one_sentence(run, content):
    if content is not None:
        Path("wrong.nc").write_bytes(content)
    ended = run("evaluate", "wrong.nc", "--audit")
    assert ended.status == 1
    assert ended.err.startswith("Error: wrong.nc ")
    assert len(ended.err.splitlines()) == 1


# ---------------------------------------------------------------- explore


@pytest.fixture
def served(monkeypatch) -> list[tuple[list[Path], dict[str, object]]]:
    """Stands for the server: what it was asked to serve."""
    calls = []

    def serve(stores, checkpoints, **options):
        calls.append((stores, {"checkpoints": checkpoints, **options}))

    monkeypatch.setattr(explorer.serve, "serve", serve)
    return calls


def test_explore_serves_what_it_is_told(run, served):
    for folder in ("a.zarr", "b.zarr", "models"):
        Path(folder).mkdir()
    words = ("--checkpoints", "models", "--port", 5010, "--address", "0.0.0.0", "--no-open")
    assert run("explore", "a.zarr", "b.zarr", *words).status == 0
    options = {"checkpoints": Path("models"), "port": 5010, "address": "0.0.0.0", "open_browser": False}
    assert served == [([Path("a.zarr"), Path("b.zarr")], options)]


def test_explore_reads_a_file_of_stations_before_it_serves(run, served):
    Path("good.csv").write_text("time,lon,lat,elevation,t2m\n2021-03-16T12:00Z,9,45,100,280\n")
    Path("bad.csv").write_text("time,lon,lat,elevation,t2m\n2021-03-16T12:00Z,9,45,100,12\n")
    assert run("explore", "--stations", "good.csv", "--no-open").status == 0
    assert served[0][1]["stations"] == Path("good.csv")
    ended = run("explore", "--stations", "bad.csv", "--no-open")
    assert ended.status == 1
    assert ended.err.startswith("Error: bad.csv can't be used: 1 of 1 row is bad. Line 2: t2m '12' is")
    assert len(served) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--checkpoints", "nowhere"), "There is no folder nowhere with checkpoints."),
        (("there.zarr", "nowhere.zarr"), "There is no store at nowhere.zarr. Make one with"),
        (
            ("a.safetensors",),
            "a.safetensors is not a Tramontana checkpoint.",
        ),
    ],
)
def test_explore_of_what_is_not_there_ends_before_the_server_starts(run, served, words, sentence):
    Path("there.zarr").mkdir()
    Path("a.safetensors").write_bytes(b"1234567")
    ended = run("explore", *words, "--no-open")
    assert ended.status == 1
    assert ended.err.startswith(f"Error: {sentence}")
    assert len(ended.err.splitlines()) == 1
    assert served == []


def test_explore_without_anything(run, served):
    assert run("explore").status == 0
    options = {"checkpoints": None, "port": 5006, "address": "localhost", "open_browser": True}
    assert served == [([], options)]


def test_explore_demo_makes_the_store_once(run, served, monkeypatch):
    made = []

    def demo():
        made.append(synthetic_store.make_store(DEMO_STORE, WEEKS[:1]))

    monkeypatch.setattr(commands.explore, "demo", demo)
    ended = run("explore", "--demo", "--no-open")
    assert ended.status == 0
    assert "Making a day of synthetic weather in data/demo.zarr" in ended.out
    assert run("explore", "--demo", "--no-open").status == 0
    Path("mine.zarr").mkdir()
    assert run("explore", "mine.zarr", "--demo", "--no-open").status == 0
    assert len(made) == 1
    assert [stores for stores, _ in served] == [[], [], [Path("mine.zarr")]]
