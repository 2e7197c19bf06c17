"""core.data.samples: statistics, splits that stand still, crops that fit together, reproducible order."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from core.data.samples import (
    HourDataset,
    MeanStd,
    Normalization,
    RoundSampler,
    SampleError,
    _Moments,
    compute_normalization,
    random_split_hours,
    split,
    split_hours,
)
from core.data.splits import blocked_split
from core.data.store import Store
from core.variables import PREDICTORS, STATIC_CHANNELS
from tests.synthetic_store import DOMAIN, hours_of_weeks, make_store, static_dataset

HOUR = np.timedelta64(1, "h")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(
        tmp_path_factory.mktemp("samples") / "a.zarr", hours_of_weeks(3, 2), fine=("t2m", "u10")
    )


@pytest.fixture(scope="module")
def normalization(store):
    return compute_normalization(store, store.hours, targets=("t2m", "u10"))


# --- normalisation ----------------------------------------------------------------------------------


def test_statistics_are_those_of_the_whole_array(store, normalization):
    coarse, fine = store.read_coarse(), store.read_fine()
    for name in PREDICTORS:
        values = coarse[name].values.astype("f8")
        assert normalization.predictors[name].mean == pytest.approx(np.nanmean(values), rel=1e-9)
        assert normalization.predictors[name].std == pytest.approx(np.nanstd(values, ddof=1), rel=1e-9)
    assert normalization.targets["u10"].std == pytest.approx(
        fine["u10"].values.std(ddof=1, dtype="f8"), rel=1e-9
    )
    orography = torch.from_numpy(store.read_static()["orography"].values).double()
    assert normalization.orography.std == pytest.approx(float(orography.std()), rel=1e-9)
    assert tuple(normalization.predictors) == PREDICTORS


@settings(max_examples=4, deadline=None)
@given(batch=st.integers(1, 9))
def test_statistics_do_not_depend_on_the_batches(store, normalization, batch):
    again = compute_normalization(store, store.hours, targets=("t2m", "u10"), batch_hours=batch)
    for name in PREDICTORS:
        assert again.predictors[name].mean == pytest.approx(normalization.predictors[name].mean, rel=1e-12)
        assert again.predictors[name].std == pytest.approx(normalization.predictors[name].std, rel=1e-12)


def test_statistics_keep_small_deviations_from_a_large_mean():
    # In float32, or with sums of squares, deviations of 0.1 Pa around 101 325 Pa would drown.
    moments = _Moments()
    values = 101_325.0 + 0.1 * np.random.default_rng(0).standard_normal(10_000)
    for part in np.array_split(values, 7):
        moments.add(part)
    assert moments.mean_std("msl").std == pytest.approx(values.std(ddof=1), rel=1e-9)


def test_predictors_are_standardised_in_order_and_sst_filled(store, normalization):
    coarse = store.read_coarse(store.hours[:2])
    tensor = normalization.predictors_to_tensor(coarse)
    assert tensor.shape == (2, 14, 8, 8)
    assert tensor.dtype == torch.float32
    position = PREDICTORS.index("msl")
    statistics = normalization.predictors["msl"]
    expected = (coarse["msl"].values.astype("f8") - statistics.mean) / statistics.std
    np.testing.assert_allclose(tensor[:, position], expected, atol=2e-5)
    sst = tensor[:, PREDICTORS.index("sst")]
    assert (sst[..., :4] == -10).all()
    assert sst[..., 4:].abs().max() < 6


def test_the_order_of_channels_is_that_of_the_statistics(store, normalization):
    swapped = normalization.model_copy(
        update={"predictors": dict(reversed(normalization.predictors.items()))}
    )
    coarse = store.read_coarse(store.hours[:1])
    assert torch.equal(
        swapped.predictors_to_tensor(coarse), normalization.predictors_to_tensor(coarse).flip(1)
    )
    assert Normalization.model_validate_json(swapped.model_dump_json()) == swapped
    assert next(iter(Normalization.model_validate_json(swapped.model_dump_json()).predictors)) == "w850"


def test_statics_are_orography_land_cover_latitude(store, normalization):
    static = store.read_static()
    tensor = normalization.statics_to_tensor(static)
    assert tensor.shape == (STATIC_CHANNELS, 64, 64)
    orography = torch.from_numpy(static["orography"].values)
    torch.testing.assert_close(tensor[0], (orography - orography.mean()) / orography.std(), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(tensor[1:17], static["land_cover"].values)
    latitude = torch.from_numpy(static["latitude"].values).double()
    expected = ((latitude - latitude.mean()) / latitude.std()).float()
    torch.testing.assert_close(tensor[17], expected, atol=1e-4, rtol=0)


def test_targets_there_and_back(store, normalization):
    fine = store.read_fine(store.hours[:2])
    names = ("u10", "t2m")
    back = normalization.targets_from_tensor(normalization.targets_to_tensor(fine, names), names)
    for channel, name in enumerate(names):
        np.testing.assert_allclose(back[:, channel], fine[name].values, atol=1e-4)


def test_a_constant_predictor_is_named(tmp_path):
    store = make_store(tmp_path / "a.zarr", hours_of_weeks(1, 2))
    store.plan(store.hours[-1:] + HOUR)
    data = store.read_coarse(store.hours[:1]).drop_vars("orography")
    fine = store.read_fine(store.hours[:1])
    late = store.pending
    store.write(late, data.assign(sd=xr.full_like(data["sd"], 0.3)), fine)
    with pytest.raises(SampleError, match=r"^sd has the same value everywhere and always \(0.3\)"):
        compute_normalization(store, late)


def test_missing_values_are_named_with_the_hour(tmp_path):
    store = make_store(tmp_path / "a.zarr", hours_of_weeks(1, 2))
    store.plan(store.hours[-1:] + HOUR)
    data, fine = (read(store.hours[:1]) for read in (store.read_coarse, store.read_fine))
    fine["t2m"][0, 5, 5] = np.nan
    store.write(store.pending, data.drop_vars("orography"), fine)
    with pytest.raises(SampleError, match=r"t2m has missing values .* at 2016-01-06T02"):
        compute_normalization(store, store.hours)


def test_faults_of_fields_are_sentences(store, normalization):
    coarse, static = store.read_coarse(store.hours[:1]), store.read_static()
    with pytest.raises(SampleError, match="variable q850 is missing"):
        normalization.predictors_to_tensor(coarse.drop_vars("q850"))
    with pytest.raises(SampleError, match="land_cover has 15 classes"):
        normalization.statics_to_tensor(static.isel({"class": slice(15)}))
    with pytest.raises(SampleError, match="no statistics for the target t2m"):
        normalization.model_copy(update={"targets": {}}).targets_from_tensor(torch.zeros(1, 2, 2), ("t2m",))
    with pytest.raises(SampleError, match="doesn't hold the targets t2m"):
        normalization.targets_from_tensor(torch.zeros(2, 3, 3), ("t2m",))
    with pytest.raises(SampleError, match="no hours"):
        compute_normalization(store, [])


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deviation_is_positive_and_finite(std):
    with pytest.raises(ValueError, match="std"):
        MeanStd(mean=0.0, std=std)


def test_a_domain_without_sea_has_nothing_but_the_fill(tmp_path):
    store = make_store(tmp_path / "a.zarr", hours_of_weeks(1, 2))
    data = store.read_coarse()
    dry = data.assign(sst=xr.full_like(data["sst"], np.nan)).drop_vars("orography")
    store.write(store.hours, dry, store.read_fine())
    normalization = compute_normalization(store, store.hours)
    tensor = normalization.predictors_to_tensor(store.read_coarse())
    assert (tensor[:, PREDICTORS.index("sst")] == -10).all()


# --- splits -----------------------------------------------------------------------------------------


def test_the_random_split_is_the_published_one():
    hours = hours_of_weeks(10, 10)
    parts = random_split_hours(hours)
    assert [parts.train.size, parts.validation.size, parts.test.size] == [70, 15, 15]
    order = torch.randperm(100, generator=torch.Generator().manual_seed(42)).numpy()
    np.testing.assert_array_equal(parts.train, hours[np.sort(order[:70])])
    np.testing.assert_array_equal(parts.test, hours[np.sort(order[85:])])


def test_split_reports_and_refuses():
    hours = hours_of_weeks(20, 2)
    assert "28 hours to train, 6 to validate, 6 to test" in split(hours).describe()
    assert "seed 42" in split(hours, "random").describe()
    assert split_hours(hours, "all").size == 40
    np.testing.assert_array_equal(split_hours(hours, "test"), blocked_split(hours).test)
    with pytest.raises(SampleError, match="not 'testing'"):
        split_hours(hours, "testing")
    with pytest.raises(SampleError, match="Of 4 hours none falls into the validation part"):
        split_hours(hours[:4], "validation")
    with pytest.raises(SampleError, match="no split named 'fraction'"):
        split(hours, "fraction")


# --- samples ----------------------------------------------------------------------------------------


def test_whole_fields_without_a_crop(store, normalization):
    dataset = HourDataset(store, store.hours, normalization, ("t2m", "u10"))
    sample = dataset[5]
    assert {name: tuple(value.shape) for name, value in sample.items()} == {
        "coarse": (14, 8, 8),
        "static": (18, 64, 64),
        "target": (2, 64, 64),
    }
    hour = store.hours[5:6]
    assert torch.equal(sample["coarse"], normalization.predictors_to_tensor(store.read_coarse(hour))[0])
    assert torch.equal(
        sample["target"], normalization.targets_to_tensor(store.read_fine(hour), ("t2m", "u10"))[0]
    )


@pytest.mark.parametrize("cache_bytes", [0, 1e9])
def test_crops_of_all_three_tensors_lie_on_each_other(tmp_path, cache_bytes):
    # Fields whose values are the positions of their cells.
    store = make_store(tmp_path / "a.zarr", hours_of_weeks(1, 2))
    cells = np.arange(64, dtype=np.float32).reshape(1, 8, 8).repeat(2, 0)
    fine = cells.repeat(8, 1).repeat(8, 2)
    coarse = store.read_coarse().drop_vars("orography")
    coarse["t2m"].values[:] = cells
    store.write(store.hours, coarse, {"t2m": fine})
    unit = MeanStd(mean=0.0, std=1.0)
    normalization = Normalization(
        predictors={name: unit for name in PREDICTORS}, targets={"t2m": unit}, orography=unit, latitude=unit
    )
    static = store.read_static()
    dataset = HourDataset(store, store.hours, normalization, crop=32, seed=3, cache_bytes=cache_bytes)
    corners = set()
    for epoch in range(12):
        sample = dataset[epoch, 1]
        assert torch.equal(
            sample["coarse"][0].repeat_interleave(8, 0).repeat_interleave(8, 1), sample["target"][0]
        )
        row, column = divmod(int(sample["coarse"][0, 0, 0]), 8)
        window = static["orography"].values[row * 8 : row * 8 + 32, column * 8 : column * 8 + 32]
        np.testing.assert_array_equal(sample["static"][0], window)
        corners.add((row, column))
    assert len(corners) > 6
    assert max(corner[0] for corner in corners) <= 4


def test_a_crop_is_a_function_of_seed_epoch_and_position(store, normalization):
    def crops(seed, keys):
        dataset = HourDataset(store, store.hours, normalization, crop=16, seed=seed)
        return [dataset[key]["static"] for key in keys]

    keys = [(epoch, position) for epoch in range(3) for position in (0, 5)]
    forward, backward = crops(1, keys), crops(1, keys[::-1])[::-1]
    assert all(torch.equal(one, two) for one, two in zip(forward, backward, strict=True))
    other = crops(2, keys)
    assert not all(torch.equal(one, two) for one, two in zip(forward, other, strict=True))
    assert not all(torch.equal(forward[0], one) for one in forward[1:])


@pytest.mark.parametrize("crop", [12, 4, 72, 0, -8])
def test_crops_that_do_not_fit_are_refused(store, normalization, crop):
    with pytest.raises(SampleError, match=f"Crops of {crop} fine pixels don't fit: .* multiple of 8"):
        HourDataset(store, store.hours, normalization, crop=crop)


def test_positions_outside_are_index_errors(store, normalization):
    dataset = HourDataset(store, store.hours, normalization)
    assert len(dataset) == 6
    with pytest.raises(IndexError):
        dataset[6]
    with pytest.raises(IndexError):
        dataset[0, -1]
    with pytest.raises(SampleError, match="no hours"):
        HourDataset(store, [], normalization)


def test_the_cache_changes_nothing_and_keeps_to_its_budget(store, normalization):
    seen = []
    cached = HourDataset(
        store, store.hours, normalization, crop=32, cache_bytes=1e9, progress=lambda *step: seen.append(step)
    )
    direct = HourDataset(
        store, store.hours, normalization, crop=32, cache_bytes=1e4, progress=lambda *step: seen.append(step)
    )
    assert seen == [(6, 6)]
    for position in range(6):
        for name, value in cached[2, position].items():
            assert torch.equal(value, direct[2, position][name])


def test_worker_processes_read_the_same_samples(store, normalization):
    dataset = HourDataset(store, store.hours, normalization, crop=32, seed=1)
    sampler = RoundSampler(len(dataset), 8, seed=1)
    alone = list(DataLoader(dataset, batch_size=4, sampler=sampler))
    shared = list(DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=2))
    assert all(torch.equal(a["target"], b["target"]) for a, b in zip(alone, shared, strict=True))


@given(hours=st.integers(1, 30), samples=st.integers(1, 20), rounds=st.integers(1, 8), seed=st.integers(0, 9))
def test_rounds_run_through_every_hour_once_an_epoch(hours, samples, rounds, seed):
    sampler = RoundSampler(hours, samples, seed)
    assert len(sampler) == samples
    keys = []
    for number in range(rounds):
        sampler.set_epoch(number)
        keys += list(sampler)
    assert len(set(keys)) == len(keys) == rounds * samples
    for epoch in range(len(keys) // hours):
        assert {position for number, position in keys if number == epoch} == set(range(hours))
    fresh = RoundSampler(hours, samples, seed)
    fresh.set_epoch(rounds - 1)
    assert list(fresh) == keys[-samples:]


def test_a_store_opened_again_gives_the_same_samples(store, normalization):
    again = Store.open(store.path)
    first = HourDataset(store, store.hours, normalization, crop=16, seed=4)[1, 2]
    second = HourDataset(again, again.hours, normalization, crop=16, seed=4)[1, 2]
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_invented_static_fits_its_domain():
    assert DOMAIN.fine.matches(static_dataset()["x"], static_dataset()["y"])
