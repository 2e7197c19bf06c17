"""Noise that members start from: from seeds and from files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from core.diffusion.noise import member_noise
from core.downscale import DownscaleError, NoiseFile
from core.downscale.start_noise import seeded

HOURS = np.array(["2020-01-01T00", "2020-01-01T05"], "datetime64[ns]")
SHAPE = (4, 3, 2)


def dataset() -> xr.Dataset:
    values = np.random.default_rng(0).standard_normal((2, 3, *SHAPE)).astype(np.float32)
    return xr.Dataset(
        {"noise": (("time", "member", "channel", "y", "x"), values)},
        coords={"time": HOURS, "member": [0, 2, 7]},
    )


def test_seeded_noise_is_that_of_the_member() -> None:
    given = seeded(5)(SHAPE, HOURS[1], 3, 2)
    torch.testing.assert_close(given, member_noise(SHAPE, seed=5, hour=HOURS[1], member=3, step=2))


def test_a_file_gives_the_start_and_the_seed_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "noise.nc"
    dataset().transpose("x", "y", "channel", "member", "time").to_netcdf(path)
    noise = NoiseFile(path, seed=5)
    assert noise.file_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    for row, member in ((0, 0), (1, 7), (1, 2)):
        expected = dataset()["noise"].values[row, [0, 2, 7].index(member)]
        np.testing.assert_array_equal(noise(SHAPE, HOURS[row], member, 0).numpy(), expected)
    torch.testing.assert_close(noise(SHAPE, HOURS[0], 1, 3), seeded(5)(SHAPE, HOURS[0], 1, 3))
    for shape, hour, member, sentence in (
        (SHAPE, HOURS[0], 1, "no noise for member 1 of 2020-01-01T00"),
        (SHAPE, np.datetime64("2020-01-02", "ns"), 0, "no noise for member 0 of 2020-01-02T00"),
        ((4, 2, 3), HOURS[0], 0, r"4 x 3 x 2 values .* need 4 x 2 x 3"),
    ):
        with pytest.raises(DownscaleError, match=sentence):
            noise(shape, hour, member, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.rename(noise="other"), "no variable `noise`"),
        (lambda d: d.isel(channel=0), "needs .time, member, channel, y, x."),
        (lambda d: d.drop_vars("member"), "needs coordinates"),
        (lambda d: d.assign_coords(time=[0, 1]), "CF times"),
        (lambda d: d.where(d["noise"] < 1), "missing values"),
        (lambda d: d.astype("int32"), "type int32, not floats"),
        (lambda d: d.assign_coords(member=[0, 0, 7]), "an hour or a member twice"),
        (lambda d: d.assign_coords(time=HOURS[[0, 0]]), "an hour or a member twice"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change, sentence: str) -> None:
    path = tmp_path / "noise.nc"
    change(dataset()).to_netcdf(path)
    with pytest.raises(DownscaleError, match=sentence):
        NoiseFile(path)


def test_no_file_and_no_netcdf(tmp_path: Path) -> None:
    with pytest.raises(DownscaleError, match="no noise file"):
        NoiseFile(tmp_path / "absent.nc")
    (tmp_path / "text.nc").write_text("no NetCDF")
    with pytest.raises(DownscaleError, match=r"can't be read as NetCDF: [^\n]*$"):
        NoiseFile(tmp_path / "text.nc")
