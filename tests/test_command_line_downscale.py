"""`tramontana downscale`: published results from published files, runs of several models, refusals."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import tramontana
from core.checkpoint import identity, load
from core.data.samples import MeanStd, Normalization, split_hours
from core.data.store import Store
from core.domain import Domain
from core.models.unet import UNet, UNetConfig
from core.variables import PREDICTORS

HOUR = np.datetime64("2020-01-01T06", "ns")
PUBLISHED = ("--sampler", "ddim", "--steps", "10", "--timesteps", "published")


def call(*arguments):
    """The output of a command that must succeed."""
    result = CliRunner().invoke(tramontana.app, list(map(str, arguments)))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def fail(*arguments):
    """What a command that must fail tells the person who typed it."""
    result = CliRunner().invoke(tramontana.app, list(map(str, arguments)))
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)
    return str(result.exception)


class Published:
    """A store, statistics and start noise that equal one sample of a reference file.

    The reference inputs are standardised already, so mean 0 and deviation 1 pass them on as they are; they
    are complete, so nothing is filled.
    """

    def __init__(self, folder, fixtures, file, sample):
        self.folder, self.fixtures, self.file, self.sample = folder, fixtures, file, sample
        self.io = np.load(fixtures / f"{file}.npz")
        static = self.io["static"][sample]
        domain = Domain.regular(
            "Reference", left=4e6, top=2.5e6, shape=static.shape[1:], spacing=2000.0, ratio=8
        )
        fields = xr.Dataset(
            {
                "orography": (("y", "x"), static[0]),
                "land_cover": (("class", "y", "x"), static[1:17]),
                "latitude": (("y", "x"), static[17]),
            },
            coords={"y": domain.fine.y, "x": domain.fine.x},
        )
        self.store = Store.create(
            folder / "reference.zarr", domain, title="Reference", source="random numbers", times=[HOUR],
            coarse=PREDICTORS, static=fields, synthetic=True, fingerprint="reference",
        )  # fmt: skip
        coarse = self.io["low_res"][sample]
        self.store.write([HOUR], {name: coarse[[i]] for i, name in enumerate(PREDICTORS)})
        one = MeanStd(mean=0, std=1)
        normalization = Normalization(
            predictors=dict.fromkeys(PREDICTORS, one), targets={"t2m": one}, orography=one, latitude=one
        )
        self.normalization = folder / "identity.json"
        self.normalization.write_text(normalization.model_dump_json())
        self.noise = folder / "noise.nc"
        xr.Dataset(
            {"noise": (("time", "member", "channel", "y", "x"), self.io["x_T"][sample][None, None])},
            coords={"time": [HOUR], "member": [0]},
        ).to_netcdf(self.noise)

    def imported(self, name):
        """The path of one of the published-layout files, imported by the command line."""
        path = self.folder / f"{name}.safetensors"
        call(
            "checkpoint", "import", self.fixtures / "checkpoints" / f"{name}.ckpt", "--normalization",
            self.normalization, "--domain", self.store.path, "--out", path,
        )  # fmt: skip
        return path

    def tolerance(self):
        """Ten times the largest difference between float32 and float64 of the published code itself."""
        differences = json.loads((self.fixtures / f"{self.file}.f32_vs_f64.json").read_text())
        return 10 * differences["final"]["max_abs"]


@pytest.mark.parametrize(
    ("file", "sample"), [("ldm_tiny_2mT.io", 0), ("ldm_tiny_2mT.io", 1), ("ldm_tiny_2mT.io_wide", 0)]
)
def test_a_published_model_gives_the_published_field(tmp_path, fixtures, file, sample):
    """From a Lightning checkpoint to a NetCDF file, by the command line alone."""
    published = Published(tmp_path, fixtures, file, sample)
    model = published.imported("LDM_residual_2mT")
    path = tmp_path / "final.nc"
    output = call(
        "downscale", published.store.path, "--model", model, "--out", path, *PUBLISHED, "--noise",
        published.noise, "--device", "cpu",
    )  # fmt: skip
    assert "1 hour of LDM_res" in output
    with xr.open_dataset(path) as dataset:
        field = dataset["t2m"].load()
        assert dataset.attrs["model_sha256"] == load(model).file_hash
        assert dataset.attrs["sampler_timesteps"] == "published"
        assert dataset.attrs["start_noise_file"] == "noise.nc"
    assert field["time"].values == [HOUR]
    final = published.io["final"][sample, 0]
    np.testing.assert_allclose(field.values[0, 0], final, rtol=0, atol=published.tolerance())
    # Without the noise of the reference it is another member.
    other = tmp_path / "other.zarr"
    call("downscale", published.store.path, "--model", model, "--out", other, *PUBLISHED)
    with xr.open_dataset(other) as dataset:
        assert np.abs(dataset["t2m"].values[0, 0] - final).max() > 100 * published.tolerance()


def test_several_published_models_at_once(tmp_path, fixtures):
    published = Published(tmp_path, fixtures, "ldm_tiny_2mT.io", 0)
    names = ("UNET_2mT", "GAN_2mT", "LDM_residual_2mT")
    paths = [published.imported(name) for name in names]
    out = tmp_path / "all.nc"
    result = CliRunner().invoke(
        tramontana.app,
        [
            "downscale", str(published.store.path), *(f"--model={path}" for path in paths),
            "--model=quadratic", "--out", str(out), "--members", "2",
            "--seed", "5", "--steps", "2", "--batch", "1",
        ],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "UNet (t2m, published) gives one field an hour: member 0." in result.output
    coarse, static = (torch.from_numpy(published.io[name][:1]) for name in ("low_res", "static"))
    with xr.open_datatree(out) as tree:
        assert len(tree.children) == 4
        for path, kind in zip(paths, ("unet", "gan"), strict=False):
            checkpoint = load(path)
            network = UNet(UNetConfig.model_validate(checkpoint.header.models["unet"]))
            checkpoint.restore("unet", network)
            with torch.no_grad():
                expected = network.eval()(coarse, static)[0].numpy()
            field = tree[f"{kind}-{identity(checkpoint.path)[:8]}"]["t2m"]
            np.testing.assert_allclose(field.values[0], expected, rtol=0, atol=1e-4)
        ensemble = tree[f"ldm_res-{identity(paths[2])[:8]}"]
        assert ensemble["t2m"].shape == (2, 1, 128, 96)
        assert np.abs(np.diff(ensemble["t2m"].values, axis=0)).max() > 0.1
        assert ensemble.attrs["seed"] == "5"


def small_store(path, times):
    """A store of t2m alone, a kelvin warmer from hour to hour."""
    domain = Domain.regular("Small", left=4e6, top=2.5e6, shape=(32, 32), spacing=2000.0, ratio=8)
    store = Store.create(
        path, domain, title="Test", source="tests", times=times, coarse=["t2m"], synthetic=True,
        fingerprint="x",
    )  # fmt: skip
    shape = (times.size, 4, 4)
    store.write(times, {"t2m": np.arange(float(times.size))[:, None, None] + np.full(shape, 280.0)})
    return store


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """The hours 00 and 12 of twenty days."""
    times = np.datetime64("2020-01-01T00", "ns") + np.arange(40) * np.timedelta64(12, "h")
    return small_store(tmp_path_factory.mktemp("days") / "a.zarr", times)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), slice(None)),
        (("--hours", "2020-01-02", "2020-01-03T12"), slice(2, 6)),
        (("--hours", "2020-01-02", "2020-01-03"), slice(2, 6)),
        (("--hours", "2020-01-02", "2020-01-03T00"), slice(2, 5)),
        (("--hours", "2020-01-02T06:30", "2020-01-02T23"), slice(3, 4)),
    ],
)
def test_hours_are_chosen_from_first_to_last(tmp_path, days, options, expected):
    path = tmp_path / "a.zarr"
    call("downscale", days.path, "--model", "quadratic", "--out", path, *options)
    with xr.open_dataset(path) as dataset:
        np.testing.assert_array_equal(dataset["time"].values, days.hours[expected])
        values = dataset["t2m"].values[0, :, 16, 16]
    np.testing.assert_allclose(values, 280.0 + np.arange(40)[expected], rtol=0, atol=1e-3)


def test_hours_of_a_split(tmp_path):
    weeks = np.datetime64("2020-01-01T00", "ns") + np.arange(40) * np.timedelta64(84, "h")
    store = small_store(tmp_path / "weeks.zarr", weeks)
    path = tmp_path / "a.nc"
    for part in ("validation", "test"):
        call("downscale", store.path, "--model", "quadratic", "--out", path, "--split", part, "--overwrite")
        with xr.open_dataset(path) as dataset:
            np.testing.assert_array_equal(dataset["time"].values, split_hours(weeks, part))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--eta", "0.5"), "dpmpp_2m has no random steps, so eta must be 0"),
        (("--hours", "2021-01-01", "2021-01-02"), "no hour from 2021-01-01"),
        (("--hours", "2020-01-03", "2020-01-02"), "end 2020-01-02 lies before the start 2020-01-03"),
        (("--hours", "soon", "2020-01-02"), "'soon' is no date"),
        (("--noise", "absent.nc"), "no noise file at absent.nc"),
        (("--model", "absent.safetensors"), "no checkpoint at absent.safetensors"),
        (("--model", "lapse_rate"), "needs the orography of the coarse model"),
        (("--split", "tomorrow"), "not 'tomorrow'"),
    ],
)
def test_mistakes_are_sentences(tmp_path, days, options, sentence):
    path = tmp_path / "out" / "a.nc"
    message = fail("downscale", days.path, "--model", "quadratic", "--out", path, *options)
    assert sentence in message
    assert "\n" not in message
    assert not path.parent.exists()


def test_a_file_is_replaced_only_on_request(tmp_path, days):
    path = tmp_path / "a.nc"
    path.write_text("mine")
    command = ("downscale", days.path, "--model", "quadratic", "--out", path)
    assert "exists already" in fail(*command)
    assert path.read_text() == "mine"
    call(*command, "--overwrite")
    with xr.open_dataset(path) as dataset:
        assert dataset.sizes["time"] == 40


def test_stopping_in_the_first_piece_leaves_nothing(tmp_path, days, monkeypatch):
    from core.downscale import QuadraticInterpolation

    plain, hours = QuadraticInterpolation.downscale, []

    def interrupted(self, *given):
        hours.append(1)
        if len(hours) == 3:
            raise KeyboardInterrupt
        return plain(self, *given)

    monkeypatch.setattr(QuadraticInterpolation, "downscale", interrupted)
    path = tmp_path / "out" / "a.zarr"
    result = CliRunner().invoke(
        tramontana.app, ["downscale", str(days.path), "--model", "quadratic", "--out", str(path)]
    )
    assert result.exit_code == 130
    assert "Stopped. The same command goes on" in result.output
    assert list(path.parent.iterdir()) == []


def wait_for_pieces(process, record, pieces):
    """Until so many pieces are recorded as done."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if record.exists() and sum(record.read_bytes()) >= pieces:
            return
        time.sleep(0.01)
    pytest.fail(f"{pieces} pieces were not done (exit status {process.poll()}).")


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path):
    times = np.datetime64("2030-01-01T00", "ns") + np.arange(1200) * np.timedelta64(1, "h")
    store = small_store(tmp_path / "hours.zarr", times)
    path = tmp_path / "a.zarr"
    folder = tmp_path / ".a.zarr.partial"
    command = ("downscale", store.path, "--model", "quadratic", "--out", path)
    process = subprocess.Popen(
        [sys.executable, "-m", "tramontana", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_pieces(process, folder / "done", 3)
    process.kill()
    process.wait()
    assert not path.exists()
    done = np.frombuffer((folder / "done").read_bytes(), np.uint8)
    assert 3 <= done.sum() < 50
    shards = {
        str(row): next(folder.glob("data-*")) / "t2m/c/0" / f"{row}/0/0" for row in np.flatnonzero(done)
    }
    written = {row: shard.stat().st_mtime_ns for row, shard in shards.items()}
    assert "another request" in fail(*command, "--packed")
    call(*command)
    assert {row: (path / f"t2m/c/0/{row}/0/0").stat().st_mtime_ns for row in written} == written
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "hours.zarr"]
    with xr.open_dataset(path) as dataset:
        # As one computes it from the store: a kelvin warmer from hour to hour.
        values = dataset["t2m"].values[0]
    np.testing.assert_allclose(
        values, 280.0 + np.arange(1200.0)[:, None, None] + np.zeros((32, 32)), atol=1e-2
    )


def test_several_stores_make_a_dimension(tmp_path, days):
    times = days.hours
    other = small_store(tmp_path / "b.zarr", times)
    path = tmp_path / "a.nc"
    output = call(
        "downscale", days.path, other.path, "--model", "quadratic", "--out", path, "--per-month", "--fresh"
    )
    assert "a-YEAR-MONTH.nc: 40 hours of Quadratic interpolation, 2 coarse members" in output
    with xr.open_dataset(tmp_path / "a-2020-01.nc") as dataset:
        assert dataset["t2m"].sizes["number"] == 2


def test_unusual_inputs_are_told_of_before_the_run(tmp_path, fixtures):
    """Standardised values pass for 0 and 1; 50 does not. Of several stores it is said which one it is."""
    published = Published(tmp_path, fixtures, "ldm_tiny_2mT.io", 0)
    model = published.imported("UNET_2mT")
    (tmp_path / "odd").mkdir()
    other = Published(tmp_path / "odd", fixtures, "ldm_tiny_2mT.io", 0)
    odd, coarse = other.store.path, other.io["low_res"][0]
    other.store.write([HOUR], {name: coarse[[i]] + 50 * (name == "msl") for i, name in enumerate(PREDICTORS)})
    command = ("downscale", published.store.path, "--model", model, "--out")
    assert "Warning" not in call(*command, tmp_path / "usual.nc")
    assert "Warning: Mean sea level pressure of 2020-01-01 06:00 UTC lies outside" in call(
        "downscale", odd, "--model", model, "--out", tmp_path / "odd.nc"
    )
    both = call("downscale", published.store.path, odd, "--model", model, "--out", tmp_path / "both.nc")
    assert both.count("Warning: ") == both.count(f"Warning: {odd}: Mean sea level") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--workers", "1", "--scheduler", "tcp://127.0.0.1:1"), "either a number of workers or the address"),
        (("--scheduler", "nonsense"), "no Dask scheduler at nonsense"),
    ],
)
def test_workers_that_are_not_there(tmp_path, days, options, sentence):
    path = tmp_path / "a.nc"
    assert sentence in fail("downscale", days.path, "--model", "quadratic", "--out", path, *options)
    assert list(tmp_path.iterdir()) == []


def test_the_console_script_has_no_stack_traces(tmp_path, days):
    result = subprocess.run(
        [
            sys.executable, "-m", "tramontana", "downscale", str(days.path), "--model", "quadratic",
            "--out", str(tmp_path / "a.grib"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "must end in .nc or .zarr" in result.stderr
    assert "Traceback" not in result.stderr
