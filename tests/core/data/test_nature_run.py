"""The nature run on a small piece of the map: physics against known values, determinism, writing."""

import warnings
from itertools import pairwise
from queue import Queue

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.data.nature_run import (
    NatureRunConfig,
    NatureRunError,
    episodes,
    moisture,
    simulate,
    surface,
    write,
    write_nature_run,
)
from core.data.nature_run.coarse import earth_relative
from core.data.nature_run.large_scale import LargeScale
from core.data.nature_run.noise import BandNoise, generator, remember
from core.data.nature_run.terrain import block_mean, mountain_flow
from core.data.nature_run.wind import Transport
from core.data.statics import load_italy_static
from core.data.store import Store
from core.domain import Domain
from core.variables import PREDICTORS, TARGETS, VARIABLES

HOUR = np.timedelta64(1, "h")
SUMMER = np.datetime64("2016-07-11T00")
QUICK = NatureRunConfig(spin_up=2)


@pytest.fixture(scope="module")
def static() -> xr.Dataset:
    """64 x 64 cells of Corsica and the sea around it."""
    whole = load_italy_static()
    return whole.isel(y=slice(290, 354), x=slice(140, 204))


@pytest.fixture(scope="module")
def domain(static: xr.Dataset) -> Domain:
    return Domain.regular(
        "Corsica", left=float(static.x[0]), top=float(static.y[0]), shape=(64, 64), spacing=2000.0, ratio=8
    )


@pytest.fixture(scope="module")
def day(domain, static) -> list[tuple[np.datetime64, xr.Dataset, xr.Dataset]]:
    return list(simulate(domain, static, QUICK, SUMMER + np.arange(0, 24, 3) * HOUR))


# ------------------------------------------------------------------------------- what comes out


def test_every_hour_holds_all_variables_on_their_grids(domain, day):
    for time, coarse, fine in day:
        assert coarse["time"].values == fine["time"].values == time
        assert set(coarse) == {*PREDICTORS, "orography"}
        assert set(fine) == set(TARGETS)
        assert coarse["t2m"].shape == (1, *domain.coarse.shape)
        assert fine["t2m"].shape == (1, *domain.fine.shape)
        assert domain.fine.matches(fine["x"].values, fine["y"].values)
        for dataset in (coarse, fine):
            for name, values in dataset.items():
                assert values.dtype == np.float32
                low, high = VARIABLES[name].valid_range
                assert np.nanmin(values) >= low
                assert np.nanmax(values) <= high
                if name != "sst":
                    assert np.isfinite(values).all()


def test_sea_temperature_is_missing_exactly_over_land(domain, static, day):
    land = block_mean(torch.from_numpy(static["land_fraction"].values), domain.ratio).numpy() >= 0.5
    assert land.any()
    for _, coarse, _ in day:
        np.testing.assert_array_equal(np.isnan(coarse["sst"].values[0]), land)


def test_companions_agree(day):
    for time, coarse, fine in day:
        assert (coarse["d2m"] <= coarse["t2m"]).all()
        assert (fine["tp"] >= 0).all()
        assert (coarse["sd"] >= 0).all()
        sunlit = 6 <= time.astype(object) // 3_600_000_000_000 % 24 <= 18
        assert (coarse["ssrd"].values.max() > 0) == sunlit


def test_land_has_a_larger_diurnal_range_than_the_sea(static, day):
    t2m = np.concatenate([fine["t2m"].values for _, _, fine in day])
    land = static["land_fraction"].values
    span = np.ptp(t2m, axis=0)
    assert span[land > 0.9].mean() > 2 * span[land < 0.1].mean()


def test_coarse_orography_is_smoother_than_block_means(domain, static, day):
    means = block_mean(torch.from_numpy(static["orography"].values), domain.ratio).numpy()
    orography = day[0][1]["orography"].values
    assert orography.mean() == pytest.approx(means.mean(), rel=0.1)
    assert orography.std() < 0.95 * means.std()


# ------------------------------------------------------------------------------- determinism


def test_hours_do_not_depend_on_which_others_are_asked_for(domain, static, day):
    (time, coarse, fine) = next(simulate(domain, static, QUICK, SUMMER + 9 * HOUR))
    assert time == SUMMER + 9 * HOUR
    xr.testing.assert_identical(coarse, day[3][1])
    xr.testing.assert_identical(fine, day[3][2])


def test_weeks_are_independent_and_in_order(domain, static):
    monday = SUMMER + np.timedelta64(7, "D")
    both = list(simulate(domain, static, QUICK, [monday, SUMMER]))
    assert [time for time, _, _ in both] == [SUMMER, monday]
    alone = next(simulate(domain, static, QUICK, monday))
    xr.testing.assert_identical(both[1][2], alone[2])
    assert float(abs(both[0][2]["t2m"].values - both[1][2]["t2m"].values).max()) > 0.5


def test_seeds_change_what_they_should(domain, static, day):
    reference = day[0]
    other = next(simulate(domain, static, NatureRunConfig(spin_up=2, seed=1), SUMMER))
    assert float(abs(other[1]["msl"].values - reference[1]["msl"].values).mean()) > 30
    twin = next(simulate(domain, static, NatureRunConfig(spin_up=2, eddy_seed=1), SUMMER))
    assert float(abs(twin[1]["t850"].values - reference[1]["t850"].values).mean()) < 0.05
    assert float((twin[2]["t2m"].values - reference[2]["t2m"].values).std()) > 0.1


def test_no_seed_for_the_eddies_means_the_same_seed():
    assert NatureRunConfig(seed=3).eddies == NatureRunConfig(seed=3, eddy_seed=3).eddies == 3


def test_configs_refuse_unknown_parameters():
    with pytest.raises(ValidationError, match="gravity"):
        NatureRunConfig(gravity=3.7)


def test_episodes_are_the_mondays_of_touched_weeks():
    mondays = episodes("2016-01-06", "2016-01-19")
    assert [str(monday)[:10] for monday in mondays] == ["2016-01-04", "2016-01-11", "2016-01-18"]
    assert episodes("2016-01-04", "2016-01-04") == []


# ------------------------------------------------------------------------------- physics


def test_sun_at_the_equinox_stands_overhead_at_the_equator():
    _, _, up = surface.sun(np.datetime64("2016-03-20T12:07"), torch.zeros(1), torch.zeros(1))
    assert float(up) == pytest.approx(1.0, abs=1e-3)


def test_sun_rises_in_the_east_and_shines_from_the_south_at_noon():
    rome = torch.tensor([41.9]), torch.tensor([12.5])
    east, _, up = surface.sun(np.datetime64("2016-06-21T06"), *rome)
    assert float(east) > 0.5
    _, north, up = surface.sun(np.datetime64("2016-06-21T11:12"), *rome)
    assert float(north) < 0
    # Elevation at noon: 90 - 41.9 + 23.44 degrees.
    assert np.rad2deg(np.arcsin(float(up))) == pytest.approx(71.5, abs=0.3)


def test_clear_sky_is_dark_at_night_and_follows_haurwitz():
    radiation = surface.clear_sky(torch.tensor([-0.5, 0.0, 0.5, 1.0]))
    assert radiation[:2].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(radiation[2:], [1098 * 0.5 * np.exp(-0.114), 1098 * np.exp(-0.057)], rtol=1e-6)


def test_saturation_and_dew_point():
    # Bolton (1980), table 1: 23.37 hPa at 20 degrees Celsius.
    assert float(moisture.saturation_pressure(torch.tensor(293.15))) == pytest.approx(2337, rel=2e-3)
    temperature = torch.linspace(250, 305, 12)
    back = moisture.dew_point(moisture.saturation_humidity(temperature))
    np.testing.assert_allclose(back, temperature, atol=0.02)


@given(start=st.floats(-10, 10), target=st.floats(-10, 10), hours=st.floats(0, 48), memory=st.floats(0.1, 24))
def test_relaxation_never_overshoots(start, target, hours, memory):
    after = float(surface.relax(torch.tensor(start), torch.tensor(target), hours, memory))
    assert min(start, target) - 1e-4 <= after <= max(start, target) + 1e-4


def test_flat_land_does_not_disturb_the_wind():
    flow, depth = mountain_flow(np.zeros((24, 32), np.float32), 2000.0, 2000.0)
    assert np.abs(flow).max() < 1e-6
    assert (depth == 1).all()


def test_wind_flows_around_a_mountain_and_keeps_mass():
    rows, columns = np.indices((64, 64)) - 31.5
    height = 2000 * np.exp(-(rows**2 + columns**2) / 60).astype(np.float32)
    flow, depth = mountain_flow(height, 2000.0, 2000.0)

    def divergence(u, v):
        return np.gradient(depth * u, axis=1) - np.gradient(depth * v, axis=0)

    undisturbed = divergence(np.ones_like(depth), np.zeros_like(depth))
    around = divergence(1 + flow[0], flow[2])
    assert around[4:-4, 4:-4].std() < 0.3 * undisturbed.std()
    # Air that meets the western slope north of the summit turns north, south of it south.
    assert flow[2][20, 24] > 0.02 > -0.02 > flow[2][43, 24]


def test_wind_blows_anticlockwise_around_a_low(domain):
    large_scale = LargeScale(domain, NatureRunConfig(mesoscale_wind=0), SUMMER)
    weather = large_scale.at(30.0, large_scale.start(-2))
    p_row, p_column = np.gradient(weather.pressure.numpy())
    u, v = weather.wind_x.numpy(), weather.wind_y.numpy()
    # Geostrophic: along the isobars, low pressure to the left.
    across = u * p_column - v * p_row
    assert np.abs(across).max() < 1e-3 * np.hypot(u, v).max() * np.hypot(p_row, p_column).max()
    left_x, left_y = -v, u
    assert (left_x * p_column - left_y * p_row).max() < 0


def test_transport_moves_a_bump_downwind():
    transport = Transport((48, 64), 2000.0, 2000.0)
    rows, columns = np.indices((48, 64))
    bump = torch.from_numpy(np.exp(-((rows - 24) ** 2 + (columns - 20) ** 2) / 30).astype(np.float32))
    east, north = torch.full((48, 64), 10.0), torch.full((48, 64), 5.0)
    moved = transport.carry(bump[None], transport.departure(east, north, 1200.0))[0]
    # 12 km east are 6 columns, 6 km north 3 rows up.
    np.testing.assert_allclose(moved[8:40, 10:50], torch.roll(bump, (-3, 6), (0, 1))[8:40, 10:50], atol=2e-3)


def test_air_from_outside_is_recognised():
    transport = Transport((16, 16), 2000.0, 2000.0)
    still = torch.zeros(16, 16)
    west = transport.inflow(transport.departure(still + 10, still, 1200.0))
    assert west[:, :6].all()
    assert not west[:, 7:].any()


def test_band_noise_has_unit_variance_inside_its_band():
    noise = BandNoise((96, 128), (2000.0, 2000.0), 6e3, 14e3)
    field = noise.draw(generator(1, 2, 3))
    assert float(field.std()) == pytest.approx(1.0, abs=0.1)
    power = np.abs(np.fft.rfft2(field.numpy())) ** 2
    k = np.hypot(np.fft.fftfreq(96, 2000.0)[:, None], np.fft.rfftfreq(128, 2000.0)[None])
    outside = (k < 1 / 20e3) | (k > 1 / 4.5e3)
    assert power[outside].sum() < 0.02 * power.sum()
    np.testing.assert_array_equal(field, noise.draw(generator(1, 2, 3)))


def test_memory_keeps_the_variance():
    rng = np.random.default_rng(0)
    fields = [torch.from_numpy(rng.normal(size=40_000)) for _ in range(2)]
    assert float(remember(*fields, 1.0, 1.5).std()) == pytest.approx(1.0, abs=0.02)


@settings(deadline=None)
@given(u=st.floats(-30, 30), v=st.floats(-30, 30), angle=st.floats(-0.5, 0.5))
def test_winds_turn_from_grid_to_earth(u, v, angle):
    # The grid's definition: u cos a - v sin a and u sin a + v cos a are the components along x and y.
    x, y = u * np.cos(angle) - v * np.sin(angle), u * np.sin(angle) + v * np.cos(angle)
    east, north = earth_relative(*(torch.tensor(value) for value in (x, y, np.cos(angle), np.sin(angle))))
    assert (float(east), float(north)) == pytest.approx((u, v), abs=1e-4)


# ------------------------------------------------------------------------------- bad input


def test_half_hours_are_refused(domain, static):
    with pytest.raises(NatureRunError, match="whole hours"):
        next(simulate(domain, static, QUICK, SUMMER + np.timedelta64(30, "m")))


def test_static_fields_that_do_not_fit_are_refused(domain, static):
    with pytest.raises(NatureRunError, match="land_cover"):
        next(simulate(domain, static.drop_vars("land_cover"), QUICK, SUMMER))
    with pytest.raises(NatureRunError, match=r"\(64, 64\)"):
        next(simulate(domain, static.isel(y=slice(0, 32)), QUICK, SUMMER))
    holes = static.copy(deep=True)
    holes["orography"][3, 4] = np.nan
    with pytest.raises(NatureRunError, match="orography has gaps"):
        next(simulate(domain, holes, QUICK, SUMMER))


# ------------------------------------------------------------------------------- writing


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


def test_an_interrupted_run_resumes_and_ends_the_same(tmp_path, domain, static, day):
    hours = np.concatenate([SUMMER + np.arange(26) * HOUR, SUMMER + (168 + np.arange(2)) * HOUR])
    seen = []

    def stop_at(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 26:
            raise Interrupted

    path = tmp_path / "run.zarr"
    with pytest.raises(Interrupted):
        write_nature_run(path, domain, static, QUICK, hours, progress=stop_at)
    assert seen == [(done, 28) for done in range(27)]
    half = Store.open(path)
    # The first shard is complete; what came after it was not written yet.
    assert half.hours.size == 24
    store = write_nature_run(path, domain, static, QUICK, hours, progress=stop_at_nothing(seen))
    assert store.hours.size == 28
    assert store.validate() == []
    assert all(later >= earlier for (earlier, _), (later, _) in pairwise(seen[27:]))
    np.testing.assert_array_equal(store.read_fine(SUMMER + 9 * HOUR)["t2m"], day[3][2]["t2m"])
    np.testing.assert_array_equal(store.read_coarse(SUMMER + 9 * HOUR)["sst"], day[3][1]["sst"])
    np.testing.assert_array_equal(store.read_coarse(SUMMER)["orography"], day[0][1]["orography"])


def stop_at_nothing(seen: list[tuple[int, int]]):
    return lambda done, total: seen.append((done, total))


def test_the_store_says_that_it_is_synthetic(tmp_path, domain, static):
    store = write_nature_run(tmp_path / "run.zarr", domain, static, QUICK, SUMMER)
    assert store.attrs["synthetic"] is True
    assert "synthetic" in store.attrs["title"].lower()
    assert "synthetic" in store.attrs["source"].lower()
    assert store.attrs["nature_run"]["spin_up"] == 2


def test_a_store_is_appended_but_never_mixed(tmp_path, domain, static):
    path = tmp_path / "run.zarr"
    write_nature_run(path, domain, static, QUICK, SUMMER)
    grown = write_nature_run(path, domain, static, QUICK, SUMMER + HOUR)
    assert grown.hours.size == 2
    with pytest.raises(NatureRunError, match="another seed"):
        write_nature_run(path, domain, static, NatureRunConfig(spin_up=2, seed=9), SUMMER)
    with pytest.raises(NatureRunError, match="at least one worker"):
        write_nature_run(path, domain, static, QUICK, SUMMER, workers=0)
    with pytest.raises(NatureRunError, match="No hours"):
        write_nature_run(path, domain, static, QUICK, [])


def test_a_worker_that_fails_sends_one_sentence(domain, static, monkeypatch):
    monkeypatch.setattr(write.signal, "signal", lambda *_: None)
    monkeypatch.setattr(write.torch, "set_num_threads", lambda _: None)
    tasks, results = Queue(), Queue()
    monkeypatch.setattr(write, "run_weeks", fail)
    tasks.put(write._Plan({np.datetime64("2016-07-11", "ns"): [0]}, {}))
    write._work(domain, static, QUICK, 1, tasks, results)
    assert results.get_nowait() == (
        "in the week of 2016-07-11, RuntimeError: no memory left. "
        "With one worker the error shows where it happens."
    )


def fail(*_: object):
    raise RuntimeError("no memory\n left.")


def test_several_workers_make_the_same_weather(tmp_path, domain, static):
    hours = np.concatenate([SUMMER + np.arange(2) * HOUR, SUMMER + (168 + np.arange(2)) * HOUR])
    done = []
    with warnings.catch_warnings():
        # Imports of the worker processes are not this test's business.
        warnings.simplefilter("ignore")
        parallel = write_nature_run(
            tmp_path / "two.zarr",
            domain,
            static,
            QUICK,
            hours,
            workers=2,
            progress=lambda count, total: done.append((count, total)),
        )
    assert done[0] == (0, 4)
    assert done[-1] == (4, 4)
    single = write_nature_run(tmp_path / "one.zarr", domain, static, QUICK, hours)
    for name in PREDICTORS:
        np.testing.assert_allclose(
            parallel.read_coarse()[name], single.read_coarse()[name], rtol=1e-6, atol=1e-7
        )
    np.testing.assert_allclose(parallel.read_fine()["t2m"], single.read_fine()["t2m"], atol=1e-3)
