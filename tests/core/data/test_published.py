"""The published data set: from files in its layout to a store with the numbers they were made of."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zstandard

from core.data.published import PublishedError, ingest
from core.data.published_files import BORDERS
from core.data.published_static import FILES
from core.data.store import Store
from core.domain import ITALY, Domain
from core.outlines import stored_outlines
from core.published_normalization import NormalizationError
from core.variables import PREDICTORS, TARGETS, VARIABLES
from tests.published_layout import (
    HOURS,
    nature_run,
    scalars,
    statistics_of,
    write_day,
    write_layout,
    write_tif,
)

DAYS = ("2014-12-28", "2016-05-02")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The nature run that the files are made of."""
    return nature_run(tmp_path_factory.mktemp("nature") / "run.zarr")


@pytest.fixture(scope="module")
def made_once(source: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layout") / "Corsica"
    write_layout(folder, source)
    return folder


@pytest.fixture
def folder(made_once: Path, tmp_path: Path) -> Path:
    """Two days in the published layout, for a test to change."""
    return Path(shutil.copytree(made_once, tmp_path / "Corsica"))


def check(found: Store, source: Store, hours: np.ndarray = HOURS, targets: tuple[str, ...] = TARGETS) -> None:
    """All fields equal those of the source, to what a float32 keeps of them when it is normalised."""
    np.testing.assert_array_equal(found.hours, hours)
    assert found.contents.predictors == PREDICTORS
    assert found.contents.targets == targets
    coarse, expected = found.read_coarse(hours), source.read_coarse(hours)
    statistics = statistics_of(source)
    for name in PREDICTORS:
        step = statistics["ERA5"]["std"][VARIABLES[name].published_name]
        np.testing.assert_allclose(
            coarse[name].values, expected[name].values, rtol=1e-6, atol=1e-6 * step, err_msg=name
        )
    if targets:
        fine, truth = found.read_fine(hours), source.read_fine(hours)
        for name in targets:
            step = statistics["CMCC"]["std"][VARIABLES[name].published_name]
            np.testing.assert_allclose(fine[name].values, truth[name].values, rtol=1e-6, atol=2e-6 * step)


@pytest.mark.parametrize(
    ("wrap", "metadata", "fill_sea"),
    [(scalars, True, False), (pd.Series, False, True), (dict, False, False)],
    ids=["numpy scalars", "pandas, -10 over land", "by names of files"],
)
def test_round_trip(source: Store, tmp_path: Path, wrap: Any, metadata: bool, fill_sea: bool) -> None:
    folder = tmp_path / "Corsica"
    write_layout(folder, source, wrap=wrap, metadata=metadata, fill_sea=fill_sea)
    steps: list[tuple[int, int]] = []
    report = ingest(folder, tmp_path / "out.zarr", progress=lambda done, total: steps.append((done, total)))
    assert (report.days, report.hours, report.held) == (2, 4, 0)
    assert steps == [(4, 4)]
    found = Store.open(tmp_path / "out.zarr")
    check(found, source)
    assert np.isnan(found.read_coarse()["sst"].values).any()
    assert found.domain.fine == source.domain.fine
    assert found.domain.ratio == 8
    assert found.attrs["synthetic"] is False
    assert found.validate() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Corsica", "out.zarr"]


def test_static_fields(folder: Path, source: Store, tmp_path: Path) -> None:
    ingest(folder, tmp_path / "out.zarr")
    found, expected = Store.open(tmp_path / "out.zarr").read_static(), source.read_static()
    for name in ("orography", "land_cover", "latitude"):
        np.testing.assert_array_equal(found[name].values, expected[name].values)
    # The classes of this map sum to the land fraction, and the sea has none.
    np.testing.assert_allclose(found["land_fraction"].values, expected["land_fraction"].values, atol=0.02)
    assert found["land_cover"].attrs["legend"].startswith("unknown")
    assert "flag_meanings" not in found["land_cover"].attrs
    assert found["class"].values.tolist() == list(range(1, 17))


def test_days_by_name_and_by_range_and_later_ones(folder: Path, source: Store, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    ingest(folder, out, days=["2014-12-28"])
    check(Store.open(out), source, HOURS[:2])
    report = ingest(folder, out, start=np.datetime64("2015-01-01"))
    assert (report.days, report.hours, report.held) == (1, 2, 0)
    check(Store.open(out), source)
    report = ingest(folder, out)
    assert (report.hours, report.held) == (0, 4)
    assert "4 hours are in it already" in " ".join(report.sentences())


def test_outlines_come_along_or_are_named(folder: Path, source: Store, tmp_path: Path) -> None:
    out, file = tmp_path / "out.zarr", folder / "plotting_resources" / BORDERS
    file.parent.mkdir()
    file.write_text("{}")
    report = ingest(folder, out, days="2014-12-28")
    assert [note for note in report.notes if f"{file} is no GeoJSON" in note and "those" not in note]
    assert stored_outlines(Store.open(out)) is None
    left, _, _, top = source.domain.fine.extent
    line = [[left + 100, top - 100], [left + 9_000, top - 9_000]]
    file.write_text(json.dumps({"type": "LineString", "coordinates": line}))
    report = ingest(folder, out)
    assert f"Maps show the outlines of {BORDERS}." in report.notes
    found = stored_outlines(Store.open(out))
    assert found is not None
    np.testing.assert_allclose(found["coastline"][0], [left + 100, left + 9_000, np.nan])
    check(Store.open(out), source)
    # What a store has, it keeps.
    file.write_text("{}")
    assert not [note for note in ingest(folder, out).notes if "outlines" in note]


def test_earlier_days_need_a_new_store(folder: Path, tmp_path: Path) -> None:
    ingest(folder, tmp_path / "out.zarr", days="2016-05-02")
    with pytest.raises(PublishedError, match=r"ends at 2016-05-02 12:00 UTC .* 2014-12-28 03:00 UTC"):
        ingest(folder, tmp_path / "out.zarr")


def test_shards_that_days_share(folder: Path, source: Store, tmp_path: Path) -> None:
    """Days of 16 hours: shards of 24 begin within them, and a run that was stopped goes on in the middle."""
    wide = tmp_path / "wide"
    shutil.copytree(folder, wide)
    (wide / "metadata.csv").unlink()
    statistics = statistics_of(source)
    dates = [np.datetime64("2016-05-02") + day for day in range(4)]
    rng = np.random.default_rng(3)
    expected = {}
    for date in dates:
        content: dict[int, dict[str, torch.Tensor]] = {}
        for hour in range(16):
            fields = {
                VARIABLES[name].published_name: torch.from_numpy(
                    rng.uniform(-0.1, 0.1, (12, 8)).astype(np.float32)
                )
                for name in PREDICTORS
            }
            expected[date + np.timedelta64(hour, "h")] = fields["2mT"].numpy()
            content[hour] = fields
        write_day(wide / "2016" / f"{date}_low.pt.zst", content)

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == 64
        raise Stop

    options: dict[str, Any] = {"days": dates, "targets": ()}
    with pytest.raises(Stop):
        ingest(wide, tmp_path / "out.zarr", **options, progress=stop)
    assert Store.open(tmp_path / "out.zarr").hours.size == 24
    assert not list(tmp_path.glob(".*"))
    steps: list[tuple[int, int]] = []
    ingest(wide, tmp_path / "out.zarr", **options, progress=lambda *step: steps.append(step))
    assert steps == [(24, 40), (40, 40)]
    found = Store.open(tmp_path / "out.zarr")
    assert found.hours.size == 64
    mean, std = (statistics["ERA5"][which]["2mT"] for which in ("mean", "std"))
    for time, values in expected.items():
        field = found.read_coarse([time], ["t2m"])["t2m"].values[0]
        np.testing.assert_allclose(field, values * std + mean, rtol=1e-6)


# --- what may be missing


def test_truth_that_some_days_lack(folder: Path, source: Store, tmp_path: Path) -> None:
    (folder / "2014" / "2014-12-28_high_UV.pt.zst").unlink()
    report = ingest(folder, tmp_path / "common.zarr")
    assert report.targets == ("t2m", "tp")
    assert "u10 is left out of the truth, because 2014-12-28 lacks it." in report.notes
    check(Store.open(tmp_path / "common.zarr"), source, targets=("t2m", "tp"))
    with pytest.raises(PublishedError, match="2014-12-28 lacks the truth of v10"):
        ingest(folder, tmp_path / "wind.zarr", targets=["v10"])
    ingest(folder, tmp_path / "wind.zarr", days="2016-05-02")
    with pytest.raises(PublishedError, match=r"holds t2m, u10, v10, tp, which is the same at every hour"):
        ingest(folder, tmp_path / "wind.zarr", targets=["t2m"])


def test_without_truth_and_static_fields_the_grid_is_not_known(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "static_var")
    for path in folder.glob("*/*_high_*"):
        path.unlink()
    with pytest.raises(PublishedError, match="12 x 8 cells; Italy has 84 x 72"):
        ingest(folder, tmp_path / "out.zarr")


def test_some_static_fields(folder: Path, tmp_path: Path) -> None:
    (folder / "static_var" / "land_cover_classes_2km_domain_trim_EPSG3035.tif").unlink()
    report = ingest(folder, tmp_path / "out.zarr")
    assert Store.open(tmp_path / "out.zarr").contents.statics == ("orography", "latitude")
    assert any(note.startswith("There is no land_cover_classes") for note in report.notes)


def test_static_fields_that_are_strange(folder: Path, source: Store, tmp_path: Path) -> None:
    """They stay as they are, since networks were trained with them, unless they can't be what they say."""
    static, grid = source.read_static(), source.domain.fine
    place = folder / "static_var"
    file = {name: place / name_of_file for name, name_of_file in FILES.items()}
    write_tif(file["latitude"], static["latitude"].values + 1, grid)
    water = np.maximum(1 - static["land_cover"].values.sum(axis=0), 0)
    cover = static["land_cover"].values.copy()
    cover[15] += water  # one of the classes is water, and nobody says which
    write_tif(file["land_cover"], 100 * cover, grid)
    notes = " ".join(ingest(folder, tmp_path / "out.zarr").notes)
    assert "lat_2km_domain_trim_EPSG3035.tif differs by up to 1 degrees" in notes
    assert "to 100, not from 0 to 1; it is kept as it is" in notes
    found = Store.open(tmp_path / "out.zarr").read_static()
    np.testing.assert_allclose(found["land_cover"].values, 100 * cover, rtol=1e-6)
    assert "land_fraction" not in found

    write_tif(file["land_cover"], cover, grid)
    notes = " ".join(ingest(folder, tmp_path / "other.zarr").notes)
    assert "do not tell land from sea" in notes

    write_tif(file["orography"], static["orography"].values - 9999, grid)
    with pytest.raises(PublishedError, match=r"dtm_2km.* ranges from -9999 to .* heights are -500 to 9000 m"):
        ingest(folder, tmp_path / "third.zarr")
    write_tif(file["orography"], np.full(grid.shape, np.nan), grid)
    with pytest.raises(PublishedError, match="lacks 6144 values"):
        ingest(folder, tmp_path / "third.zarr")
    write_tif(file["orography"], static["land_cover"].values, grid)
    with pytest.raises(PublishedError, match="has 16 bands instead of 1"):
        ingest(folder, tmp_path / "third.zarr")
    elsewhere = Domain.regular("West", left=3e6, top=2e6, shape=grid.shape, spacing=2000.0, ratio=8).fine
    write_tif(file["orography"], static["orography"].values, elsewhere)
    with pytest.raises(PublishedError, match="do not lie on the same grid"):
        ingest(folder, tmp_path / "third.zarr")


def test_the_size_of_italy_needs_no_static_fields(tmp_path: Path) -> None:
    """One hour in the true size, without truth; the variables lie apart by more than units could."""
    folder = tmp_path / "data"
    (folder / "2016").mkdir(parents=True)
    means = {"2mT": 12.0, "dp2mT": 280.0, "SST": 290.0, "T850": 275.0, "PMSL": 1015.0, "Q850": 5.0, "TP": 0.1}
    means |= {"SSRadIn": 150.0, "SNDPT": 0.01} | dict.fromkeys(("U10", "V10", "U850", "V850", "W850"), 0.0)
    statistics = {
        "ERA5": {"mean": means, "std": dict.fromkeys(means, 0.5)},
        "CMCC": {"mean": {}, "std": {}},
    }
    (folder / "normalization_data.pkl").write_bytes(pickle.dumps(statistics))
    zero = torch.zeros(ITALY.coarse.shape)
    ones = torch.ones(ITALY.coarse.shape, dtype=torch.float64)
    fields = {name: zero for name in means} | {"2mT": ones, "TP": ones}
    write_day(folder / "2016" / "2016-05-02_low.pt.zst", {12: fields})
    report = ingest(folder, tmp_path / "out.zarr")
    store = Store.open(tmp_path / "out.zarr")
    assert store.domain == ITALY
    assert store.contents.targets == store.contents.statics == ()
    found = {name: float(values.mean()) for name, values in store.read_coarse().items()}
    assert found["t2m"] == pytest.approx(12 + 0.5 + 273.15)
    assert found["msl"] == pytest.approx(101_500)
    assert found["q850"] == pytest.approx(5e-3)
    assert found["tp"] == pytest.approx(6e-4)
    assert found["ssrd"] == pytest.approx(150 * 3600)
    assert found["d2m"] == pytest.approx(280)
    assert "TP comes in mm, judged by its mean; the store has m." in report.notes


def test_files_may_lie_in_several_archives(folder: Path, source: Store, tmp_path: Path) -> None:
    """As they do when two of the published archives were unpacked side by side."""
    both = tmp_path / "both"
    for name, year in (("2012-2014", "2014"), ("2015-2017", "2016")):
        shutil.copytree(folder, both / name)
        shutil.rmtree(both / name / {"2014": "2016", "2016": "2014"}[year])
    ingest(both, tmp_path / "out.zarr")
    check(Store.open(tmp_path / "out.zarr"), source)
    path = both / "2012-2014" / "normalization_data.pkl"
    path.write_bytes(path.read_bytes() + b"N.")
    with pytest.raises(PublishedError, match=r"normalization_data.pkl differ"):
        ingest(both, tmp_path / "other.zarr")


# --- what is refused


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-200])


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)


def _day(content: Any) -> Callable[[Path], None]:
    return lambda folder: write_day(folder / "2016" / "2016-05-02_low.pt.zst", content)


LOW = "2016/2016-05-02_low.pt.zst"
FIELD = torch.zeros(12, 8)
LIST = b"ref_time,files_path_low,hour\n"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_remove("normalization_data.pkl"), "no normalization_data.pkl, without which"),
        (_cut(LOW), "2016-05-02_low.pt.zst is truncated"),
        (_write(LOW, b""), "no file of Zstandard"),
        (_write(LOW, b"<html>Not found</html>" * 9), "no file of Zstandard"),
        (_cut("2016/2016-05-02_high_2mT.pt.zst"), "2016-05-02_high_2mT.pt.zst is truncated"),
        (_day([1, 2]), "no table of hours"),
        (_day({"noon": {}}), "an hour that is no number"),
        (_day({24: {}}), "has the hour 24; hours are 0 to 23"),
        (_day({11: {"2mT": FIELD}}), "has no hour 12; it has 11"),
        (_day({11: {"2mT": FIELD, "PMSL": FIELD}, 12: {"2mT": FIELD}}), "no PMSL at hour 12; it has 2mT"),
        (_day({11: {"2mT": FIELD.long()}}), r"2mT at hour 11 is no field but \(12, 8\) torch.int64"),
        (_day({1: dict.fromkeys("abc", FIELD)}), "none of the predictors"),
        (_write("metadata.csv", b"ref_time,hour\n"), "lacks the columns files_path_low"),
        (_write("metadata.csv", b"ref_time,files_path_low,hour\nsoon,a,1\n"), "metadata.csv can't be"),
        (_write("metadata.csv", LIST + b"2016-05-02 12:00:00,a_low,inf\n"), "given as hour inf"),
        (_write("metadata.csv", LIST + b"2016-05-02 12:00:00,a_low,11\n"), "given as hour 11. Remove it"),
        (_write("metadata.csv", LIST + b"2016-05-02 12:30:00,a_low,12\n"), "given as hour 12"),
        (_write("metadata.csv", LIST + b"12016-05-02 12:00:00,a_low,12\n"), "metadata.csv can't be"),
        (
            _write("metadata.csv", LIST + b"2016-05-03 12:00:00,x/2016-05-02_low.pt.zst,12\n"),
            "said to be in 2016-05-02_low.pt.zst",
        ),
        (_write("static_var/lat_2km_domain_trim_EPSG3035.tif", b"II*"), "no readable GeoTIFF"),
    ],
)
def test_faults_are_explained(
    spoil: Callable[[Path], None], sentence: str, folder: Path, tmp_path: Path
) -> None:
    spoil(folder)
    with pytest.raises(PublishedError, match=sentence):
        ingest(folder, tmp_path / "out.zarr", days="2016-05-02")
    # Neither a store without any hour nor what was unpacked stays behind.
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"Corsica"} or Store.open(tmp_path / "out.zarr").hours.size == 1


def test_a_damaged_day_leaves_the_others_alone(
    made_once: Path, folder: Path, source: Store, tmp_path: Path
) -> None:
    _cut("2014/2014-12-28_high_UV.pt.zst")(folder)
    with pytest.raises(
        PublishedError, match=r"1 day could not .*_UV.pt.zst is truncated.*The other 2 hours are"
    ):
        ingest(folder, tmp_path / "out.zarr")
    check(Store.open(tmp_path / "out.zarr"), source, HOURS[2:])
    shutil.copy(made_once / "2014" / "2014-12-28_high_UV.pt.zst", folder / "2014")
    ingest(folder, tmp_path / "out.zarr")
    check(Store.open(tmp_path / "out.zarr"), source)


def test_values_that_can_not_be(folder: Path, source: Store, tmp_path: Path) -> None:
    fields = {VARIABLES[name].published_name: FIELD for name in PREDICTORS}
    write_day(folder / LOW, {11: fields | {"2mT": FIELD + 1000}, 12: fields})
    with pytest.raises(PublishedError, match=r"2mT at hour 11 would range from .* Does norm"):
        ingest(folder, tmp_path / "a.zarr", days="2016-05-02")
    write_day(folder / LOW, {11: fields | {"2mT": FIELD / 0.0}, 12: fields})
    ingest_gaps = ingest(folder, tmp_path / "b.zarr", days="2016-05-02")
    assert "t2m has missing values at 1 hour." in ingest_gaps.notes
    write_day(folder / LOW, {11: fields | {"2mT": 1 / FIELD}, 12: fields})
    with pytest.raises(PublishedError, match="2mT at hour 11 is infinite"):
        ingest(folder, tmp_path / "c.zarr", days="2016-05-02")
    write_day(folder / LOW, {11: fields, 12: fields | {"2mT": FIELD.T}})
    with pytest.raises(PublishedError, match="2mT at hour 12 has 8 x 12 cells, not 12 x 8"):
        ingest(folder, tmp_path / "d.zarr", days="2016-05-02")


def test_days_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishedError, match=r"does not hold 2016-05-03. Get them with `tramontana fetch"):
        ingest(folder, tmp_path / "out.zarr", days=["2016-05-02", "2016-05-03"])
    with pytest.raises(PublishedError, match="holds 2014-12-28 to 2016-05-02, and no day of those asked for"):
        ingest(folder, tmp_path / "out.zarr", start=np.datetime64("2017-01-01"))
    with pytest.raises(PublishedError, match="written as 2016-05-02"):
        ingest(folder, tmp_path / "out.zarr", days=["yesterday"])
    with pytest.raises(PublishedError, match="no target wind; there are t2m"):
        ingest(folder, tmp_path / "out.zarr", targets=["wind"])
    with pytest.raises(PublishedError, match="no folder"):
        ingest(folder / "absent", tmp_path / "out.zarr")
    with pytest.raises(PublishedError, match="holds no day in the published layout"):
        ingest(folder / "static_var", tmp_path / "out.zarr")


def test_stores_of_something_else(folder: Path, source: Store, tmp_path: Path) -> None:
    with pytest.raises(PublishedError, match="was not made from files in the published layout"):
        ingest(folder, source.path)
    ingest(folder, tmp_path / "out.zarr", days="2014-12-28")
    write_layout(folder, source, statistics=statistics_of(nature_run(tmp_path / "b.zarr", HOURS[:1])))
    with pytest.raises(PublishedError, match="with the same statistics"):
        ingest(folder, tmp_path / "out.zarr")


def test_statistics_of_something_else(folder: Path, source: Store, tmp_path: Path) -> None:
    statistics = statistics_of(source)
    statistics["ERA5"]["mean"]["PMSL"] = 3.0
    write_layout(folder, source, statistics=statistics)
    with pytest.raises(PublishedError, match=r"mean of PMSL \(msl\) is 3, which fits none .* Pa"):
        ingest(folder, tmp_path / "out.zarr")
    del statistics["ERA5"]["mean"]["PMSL"]
    (folder / "normalization_data.pkl").write_bytes(pickle.dumps(statistics))
    with pytest.raises(NormalizationError, match="the statistics of msl"):
        ingest(folder, tmp_path / "out.zarr")


def test_files_that_would_fill_the_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the size is stated or comes out only when the file is unpacked."""
    monkeypatch.setattr("core.data.published_files.MAX_DAY_BYTES", 5000)
    with pytest.raises(PublishedError, match="would take more than"):
        ingest(folder, tmp_path / "out.zarr", days="2016-05-02")
    packer = zstandard.ZstdCompressor().compressobj()
    (folder / LOW).write_bytes(packer.compress(bytes(10**6)) + packer.flush())
    with pytest.raises(PublishedError, match="would take more than"):
        ingest(folder, tmp_path / "out.zarr", days="2016-05-02")


def test_nothing_in_the_files_is_executed(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    write_day(folder / LOW, {11: {"2mT": Trap()}})
    with pytest.raises(PublishedError):
        ingest(folder, tmp_path / "out.zarr", days="2016-05-02")
    assert not marker.exists()


def test_a_static_field_is_no_list_of_other_files(folder: Path, tmp_path: Path) -> None:
    """GDAL knows formats that name files and addresses to read instead."""
    path = folder / "static_var" / FILES["latitude"]
    path.rename(tmp_path / "secret.tif")
    path.write_text(
        '<VRTDataset rasterXSize="64" rasterYSize="96"><VRTRasterBand dataType="Float32" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="0">{tmp_path / "secret.tif"}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(PublishedError, match="no readable GeoTIFF"):
        ingest(folder, tmp_path / "out.zarr")


def test_a_static_field_that_would_fill_the_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.data.published_static.MOST_VALUES", 96 * 64 * 15)
    with pytest.raises(PublishedError, match=r"land_cover.* has 96 x 64 pixels, too many"):
        ingest(folder, tmp_path / "out.zarr")


def test_a_file_of_several_frames(folder: Path, source: Store, tmp_path: Path) -> None:
    """As programs write that compress on several processors."""
    plain = zstandard.ZstdDecompressor().decompress((folder / LOW).read_bytes())
    pack = zstandard.ZstdCompressor().compress
    (folder / LOW).write_bytes(pack(plain[:5000]) + pack(plain[5000:]))
    ingest(folder, tmp_path / "out.zarr")
    check(Store.open(tmp_path / "out.zarr"), source)


def test_two_processes_do_not_write_one_store(folder: Path, tmp_path: Path) -> None:
    seen = []

    def other(done: int, of: int) -> None:
        with pytest.raises(PublishedError, match=r"Another process writes .*out\.zarr"):
            ingest(folder, tmp_path / "out.zarr")
        seen.append(done)

    ingest(folder, tmp_path / "out.zarr", progress=other)
    assert seen
    assert {path.name for path in tmp_path.iterdir()} == {"Corsica", "out.zarr"}
