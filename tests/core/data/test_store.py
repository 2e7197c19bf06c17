"""core.data.store: planned hours, atomic writing, resuming, and plain words for what is wrong."""

import re
import shutil

import numpy as np
import pytest
import rioxarray  # noqa: F401  registers the accessor that reads the grid mapping
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from core.data.store import Store, StoreError, _runs
from core.domain import Domain
from core.variables import LAND_COVER_CLASSES, PREDICTORS, VARIABLES

DOMAIN = Domain.regular("Small", left=4_000_000.0, top=2_500_000.0, shape=(32, 48), spacing=2000.0, ratio=8)
START = np.datetime64("2016-01-04T00", "ns")
HOUR = np.timedelta64(1, "h")
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def hours(count, start=START):
    return start + np.arange(count) * HOUR


def values(names, count, shape, offset=0.0):
    levels = {name: np.mean(VARIABLES[name].valid_range) for name in names}
    ramp = np.arange(count * shape[0] * shape[1], dtype=np.float32).reshape(count, *shape) * 1e-6
    return {name: (levels[name] + ramp + offset).astype(np.float32) for name in names}


def static_dataset(domain=DOMAIN):
    shape = domain.fine.shape
    return xr.Dataset(
        {
            "orography": (("y", "x"), np.full(shape, 100.0, np.float32)),
            "land_cover": (("class", "y", "x"), np.zeros((LAND_COVER_CLASSES, *shape), np.float32)),
            "latitude": (("y", "x"), domain.fine.latitude.astype(np.float32)),
            "land_fraction": (("y", "x"), np.ones(shape, np.float32)),
        },
        coords={"y": domain.fine.y, "x": domain.fine.x},
    )


@pytest.fixture
def make(tmp_path):
    def _make(count=30, name="a.zarr", **changes):
        options = {
            "title": "A test store",
            "source": "tests",
            "times": hours(count),
            "coarse": ("t2m", "msl"),
            "fine": ("t2m",),
            "synthetic": True,
            "fingerprint": "abc",
        }
        return Store.create(tmp_path / name, DOMAIN, **{**options, **changes})

    return _make


def fill(store, times):
    coarse = values(("t2m", "msl"), times.size, DOMAIN.coarse.shape, offset=float(times[0].astype("i8") % 7))
    fine = values(("t2m",), times.size, DOMAIN.fine.shape)
    store.write(times, coarse, fine)
    return coarse, fine


def test_round_trip(make):
    store = make()
    coarse, fine = fill(store, hours(24))
    again = Store.open(store.path)
    assert again.domain == DOMAIN
    assert again.attrs["synthetic"] is True
    np.testing.assert_array_equal(again.hours, hours(24))
    np.testing.assert_array_equal(again.pending, hours(30)[24:])
    np.testing.assert_array_equal(again.read_coarse()["t2m"].values, coarse["t2m"])
    scattered = hours(24)[[3, 4, 9, 20]]
    read = again.read_fine(scattered)["t2m"]
    np.testing.assert_array_equal(read.values, fine["t2m"][[3, 4, 9, 20]])
    assert read.attrs["units"] == "K"
    assert again.read_fine(hours(1))["t2m"].dims == ("time", "y", "x")


def test_contents_say_what_is_missing(make):
    store = make()
    fill(store, hours(24))
    contents = store.contents
    assert contents.hours == 24
    assert contents.pending == 6
    assert contents.predictors == ("t2m", "msl")
    assert contents.missing_predictors == tuple(n for n in PREDICTORS if n not in ("t2m", "msl"))
    assert contents.targets == ("t2m",)
    assert contents.statics == ()
    assert not contents.coarse_orography
    text = " ".join(contents.sentences())
    for word in (
        "24 hours",
        "6 planned hours are not written yet",
        "Missing predictors: u10",
        "Missing static",
        "No coarse orography",
    ):
        assert word in text


def test_opens_as_a_datatree_with_crs(make):
    store = make(static=static_dataset(), coarse_orography=np.zeros(DOMAIN.coarse.shape))
    fill(store, hours(30))
    tree = xr.open_datatree(store.path, engine="zarr", consolidated=False, decode_coords="all")
    assert set(tree.children) == {"coarse", "fine", "static"}
    assert tree.attrs["Conventions"] == "CF-1.11"
    np.testing.assert_array_equal(tree["fine/time"].values, hours(30))
    assert tree["fine"].ds.rio.crs.to_epsg() == 3035
    assert tree["fine"].ds["t2m"].attrs["standard_name"] == "air_temperature"
    left, bottom, right, top = tree["fine"].ds.rio.bounds()
    assert (left, right, bottom, top) == pytest.approx(DOMAIN.fine.extent)
    np.testing.assert_array_equal(store.read_static()["orography"].values, 100.0)
    assert store.contents.coarse_orography
    assert "orography" in store.read_coarse(hours(1))


def test_interrupted_writer_resumes(make):
    store = make(48)
    fill(store, hours(24))
    resumed = Store.open(store.path, mode="a")
    np.testing.assert_array_equal(resumed.pending, hours(48)[24:])
    fill(resumed, resumed.pending)
    assert Store.open(store.path).pending.size == 0


def test_nothing_counts_as_written_when_writing_fails(make, monkeypatch):
    store = make()
    calls = []

    def fail_on_second(array, *arguments):
        calls.append(array)
        if len(calls) == 2:
            raise OSError("disk full")
        return original(array, *arguments)

    original = zarr.Array.__setitem__
    monkeypatch.setattr(zarr.Array, "__setitem__", fail_on_second)
    with pytest.raises(OSError, match="disk full"):
        fill(store, hours(24))
    monkeypatch.undo()
    assert Store.open(store.path).hours.size == 0


def test_appending_in_time(make):
    store = make(30)
    fill(store, hours(30))
    reader = Store.open(store.path)
    store.plan(hours(10, START + 30 * HOUR))
    assert reader.refresh() is True
    assert reader.hours.size == 30
    fill(store, store.pending)
    assert reader.refresh() is True
    assert reader.refresh() is False
    np.testing.assert_array_equal(reader.hours, hours(40))
    with pytest.raises(StoreError, match="Only later hours"):
        store.plan(hours(1))


def test_history_tells_what_was_added(make):
    store = make(2)
    created = store.attrs["history"]
    assert re.fullmatch(rf"{STAMP} created by tramontana \S+", created)
    store.plan(hours(0))
    store.plan(hours(3, START + 30 * HOUR))
    store.write(hours(1), values(("t2m", "msl"), 1, (4, 6)), values(("t2m",), 1, (32, 48)))
    store.plan(hours(1, START + 40 * HOUR))
    first, *added = store.attrs["history"].split("\n")
    assert first == created
    span = "2016-01-05 06:00 UTC to 2016-01-05 08:00 UTC"
    assert re.fullmatch(rf"{STAMP} 3 hours added, {span}, by tramontana \S+", added[0])
    assert re.fullmatch(rf"{STAMP} 1 hour added, 2016-01-05 16:00 UTC, by tramontana \S+", added[1])
    assert len(added) == 2
    assert Store.open(store.path).attrs == store.attrs
    assert xr.open_zarr(store.path, consolidated=False).attrs["history"] == store.attrs["history"]


def test_interrupted_plan_is_mended_when_opened_for_appending(make):
    store = make(30)
    fill(store, hours(30))
    # As if the process died after the first array had grown.
    group = zarr.open_group(str(store.path), mode="r+")["fine"]
    group["t2m"].resize((54, *DOMAIN.fine.shape))
    group["time"].resize((54,))
    assert Store.open(store.path).hours.size == 30
    assert any("does not agree" in line for line in Store.open(store.path).validate())
    assert not any("does not agree" in line for line in Store.open(store.path, mode="a").validate())


def test_failed_creation_leaves_nothing_behind(make, tmp_path):
    with pytest.raises(StoreError, match="coarse orography"):
        make(coarse_orography=np.zeros((3, 3)))
    assert list(tmp_path.iterdir()) == []
    make()
    with pytest.raises(StoreError, match="exists already"):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coarse": ("nonsense",)}, "must be some of"),
        ({"coarse": ()}, "got none"),
        ({"fine": ("msl",)}, "must be some of"),
        ({"times": [START, START]}, "strictly increasing"),
        ({"times": [START, np.datetime64("NaT")]}, "strictly increasing"),
        ({"static": static_dataset().isel(y=slice(0, 8))}, "do not lie on the fine grid"),
    ],
)
def test_wrong_plans_are_refused(make, tmp_path, changes, message):
    with pytest.raises(StoreError, match=message):
        make(**changes)
    assert list(tmp_path.iterdir()) == []


def test_wrong_writes_are_refused(make):
    store = make()
    coarse = values(("t2m", "msl"), 24, DOMAIN.coarse.shape)
    fine = values(("t2m",), 24, DOMAIN.fine.shape)
    with pytest.raises(StoreError, match="was not planned"):
        store.write(hours(24, START + 20 * HOUR), coarse, fine)
    with pytest.raises(StoreError, match="holds msl, t2m, but t2m was given"):
        store.write(hours(24), {"t2m": coarse["t2m"]}, fine)
    with pytest.raises(StoreError, match=r"/fine/t2m: got the shape"):
        store.write(hours(24), coarse, {"t2m": fine["t2m"][:, :8]})
    assert Store.open(store.path).hours.size == 0


def test_wrong_reads_are_refused(make):
    store = make(fine=())
    store.write(hours(5), values(("t2m", "msl"), 5, DOMAIN.coarse.shape))
    with pytest.raises(StoreError, match="holds no fine truth"):
        store.read_fine()
    with pytest.raises(StoreError, match=r"2016-01-04 06:00 UTC .* not written yet"):
        store.read_coarse(START + 6 * HOUR)
    with pytest.raises(StoreError, match="2020-01-01 00:00 UTC is not in the store"):
        store.read_coarse("2020-01-01")
    with pytest.raises(StoreError, match=r"holds no tp in /coarse"):
        store.read_coarse(variables=["tp"])
    with pytest.raises(StoreError, match="no static fields"):
        store.read_static()


def test_what_is_no_store(tmp_path, make):
    with pytest.raises(StoreError, match=r"There is no store at .*`tramontana demo`"):
        Store.open(tmp_path / "missing.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="no readable Zarr group"):
        Store.open(tmp_path / "folder")
    zarr.create_group(str(tmp_path / "other.zarr"), zarr_format=3)
    with pytest.raises(StoreError, match="not a Tramontana store"):
        Store.open(tmp_path / "other.zarr")
    store = make()
    zarr.open_group(str(store.path), mode="r+").attrs["tramontana_store"] = 99
    with pytest.raises(StoreError, match="store format 99"):
        Store.open(store.path)
    zarr.open_group(str(store.path), mode="r+").attrs.update({"tramontana_store": 1, "domain": {"name": "x"}})
    with pytest.raises(StoreError, match="does not describe its domain"):
        Store.open(store.path)
    broken = make(name="broken.zarr")
    shutil.rmtree(broken.path / "coarse" / "written")
    with pytest.raises(StoreError, match="record of hours"):
        Store.open(broken.path)


def test_unknown_variables_are_named_and_ignored(make):
    store = make()
    fill(store, hours(30))
    group = zarr.open_group(str(store.path), mode="r+")["coarse"]
    group.create_array("wind_chill", shape=(30, *DOMAIN.coarse.shape), dtype="float32")
    again = Store.open(store.path)
    assert again.contents.unknown == ("/coarse/wind_chill",)
    assert "wind_chill" not in again.read_coarse()


def test_validate_finds_wrong_units_and_empty_hours(make):
    store = make(3)
    coarse, fine = fill(store, hours(3))
    assert store.validate() == []
    store.write(hours(3), {**coarse, "t2m": coarse["t2m"] - 273.15}, {"t2m": fine["t2m"] * np.nan})
    problems = store.validate()
    assert any("Wrong units" in line and "/coarse/t2m" in line for line in problems)
    assert any("/fine/t2m has no value" in line for line in problems)


@given(st.lists(st.integers(0, 60), min_size=0, max_size=30))
def test_runs_cover_the_request_in_order(numbers):
    index = np.array(numbers, dtype=np.intp)
    source = np.arange(100)
    got = np.full(index.size, -1)
    for positions, rows in _runs(index):
        got[rows] = source[positions]
    np.testing.assert_array_equal(got, index)
