"""What is to come: found in the right archive, counted, and only what is missing."""

from datetime import date

import pytest

import core.data.remote.plan
from core.data.remote import (
    CatalogueError,
    Client,
    DiskSpaceError,
    FetchError,
    MemberError,
    NotThereError,
    OfflineError,
    Wanted,
    days_from,
    days_in,
    fetch,
    look_into,
    make_plan,
    words_of,
)
from core.data.remote.archive import TAIL
from tests.core.data.remote.conftest import HIGH, LOW, day_files
from tests.range_server import write_zip

DAY, OTHER = date(2016, 5, 2), date(2014, 12, 28)


def paths(plan) -> dict[str, str]:
    """Where files will lie, and from which archive they come."""
    return {item.path: item.source.name for item in plan.items}


def test_days_come_with_their_list_and_the_normalisation(catalogue, client, tmp_path):
    plan = make_plan(catalogue, Wanted(days=(DAY, OTHER)), tmp_path / "out", client)
    assert paths(plan) == {
        "metadata_2015-2017.csv": "2015-2017",
        "metadata.csv": "sample",
        "2016/2016-05-02_low.pt.zst": "2015-2017",
        "2016/2016-05-02_high_2mT.pt.zst": "2015-2017",
        "2014/2014-12-28_low.pt.zst": "sample",
        "2014/2014-12-28_high_2mT.pt.zst": "sample",
        "normalization_data.pkl": "sample",
    }
    # The lists of hours come first, because nobody looks for them again when the days are there.
    assert {item.path for item in plan.items[:2]} == {"metadata.csv", "metadata_2015-2017.csv"}
    sizes = {item.path: item.member.size for item in plan.items}
    assert sizes["2016/2016-05-02_low.pt.zst"] == LOW
    assert sizes["2014/2014-12-28_high_2mT.pt.zst"] == HIGH
    assert plan.to_write == sum(sizes.values())
    assert 2 * (LOW + HIGH) < plan.to_transfer < 2 * (LOW + HIGH) + 2000
    assert (plan.present, plan.whole) == ((), ())
    # The archive of 2012 to 2014 is not on this server, and the day was in another one.
    assert len(plan.remarks) == 1
    assert "12945040" not in plan.remarks[0]
    assert "2012-2014.zip" in plan.remarks[0]
    assert not (tmp_path / "out").exists()


def test_planning_reads_directories_only(catalogue, client, server, tmp_path):
    plan = make_plan(catalogue, Wanted(days=(DAY,)), tmp_path, client)
    assert client.transferred == server.sent == 2 * (4 + TAIL)
    assert plan.archive_bytes > 20 * LOW


@pytest.mark.parametrize(
    ("targets", "files"),
    [
        ((), ["low"]),
        (("UV",), ["low", "high_UV"]),
        (("2mT", "UV", "TP"), ["low", "high_2mT", "high_UV", "high_TP"]),
    ],
)
def test_targets_of_days(catalogue, client, tmp_path, targets, files):
    plan = make_plan(catalogue, Wanted(days=(date(2016, 5, 11),), targets=targets), tmp_path, client)
    found = [path.rpartition("11_")[2].removesuffix(".pt.zst") for path in paths(plan) if "2016-05" in path]
    assert found == files


def test_statics_weights_normalisation_and_outputs(catalogue, client, tmp_path):
    plan = make_plan(catalogue, Wanted(statics=True), tmp_path, client)
    assert set(paths(plan)) == {
        "static_var/dtm_2km_domain_trim_EPSG3035.tif",
        "static_var/land_cover_classes_2km_domain_trim_EPSG3035.tif",
        "static_var/lat_2km_domain_trim_EPSG3035.tif",
        "plotting_resources/borders_downscaling_domain_3035.geojson",
    }
    assert paths(make_plan(catalogue, Wanted(normalization=True), tmp_path, client)) == {
        "normalization_data.pkl": "sample"
    }
    # Upper and lower case of names are not told apart.
    assert paths(
        make_plan(catalogue, Wanted(weights=("ldm-2mt", "LDM-2mT", "unet-UV")), tmp_path, client)
    ) == {
        "normalization_data.pkl": "sample",
        "pretrained_models/LDM_residual_2mT.ckpt": "weights",
        "pretrained_models/UNET_UV.ckpt": "weights",
    }
    assert paths(make_plan(catalogue, Wanted(outputs=True), tmp_path, client)) == {
        "outputs/metrics.pkl": "weights",
        "outputs/results_2mT.pkl": "weights",
    }


def test_what_is_there_is_not_asked_for(catalogue, client, server, tmp_path):
    wanted = Wanted(days=(DAY,), statics=True)
    list(fetch(make_plan(catalogue, wanted, tmp_path, client), client))
    asked = len(server.requests)
    plan = make_plan(catalogue, wanted, tmp_path, client)
    assert plan.items == ()
    assert len(plan.present) == 7
    assert len(server.requests) == asked
    plan = make_plan(catalogue, Wanted(days=(DAY, date(2016, 5, 3))), tmp_path, client)
    assert set(paths(plan)) == {"2016/2016-05-03_low.pt.zst", "2016/2016-05-03_high_2mT.pt.zst"}


def test_what_is_there_is_compared_if_asked_for(catalogue, client, tmp_path):
    wanted = Wanted(statics=True)
    list(fetch(make_plan(catalogue, wanted, tmp_path, client), client))
    assert make_plan(catalogue, wanted, tmp_path, client, verify=True).items == ()
    damaged = tmp_path / "static_var/lat_2km_domain_trim_EPSG3035.tif"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    assert make_plan(catalogue, wanted, tmp_path, client).items == ()
    plan = make_plan(catalogue, wanted, tmp_path, client, verify=True)
    assert list(paths(plan)) == ["static_var/lat_2km_domain_trim_EPSG3035.tif"]
    list(fetch(plan, client))
    assert damaged.read_bytes() == content


def test_a_list_of_hours_that_is_damaged_comes_anew(catalogue, client, tmp_path):
    wanted = Wanted(days=(DAY,))
    list(fetch(make_plan(catalogue, wanted, tmp_path, client), client))
    path = tmp_path / "metadata_2015-2017.csv"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    plan = make_plan(catalogue, wanted, tmp_path, client, verify=True)
    assert list(paths(plan)) == ["metadata_2015-2017.csv"]
    list(fetch(plan, client))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        (Wanted(weights=("ldm",)), CatalogueError, "no network 'ldm'. There are: unet-2mT, .*ldm-UV"),
        (Wanted(days=(DAY,), targets=("T2m",)), CatalogueError, "no target 'T2m'. There are: 2mT, UV, TP"),
        (
            Wanted(days=(date(2016, 6, 1),)),
            FetchError,
            "2016-06-01_low.pt.zst is not in 2015-2017 nor in sample",
        ),
        (
            Wanted(days=(date(2016, 5, 2),), targets=("TP",)),
            FetchError,
            "2016-05-02_high_TP.pt.zst is not in",
        ),
        (Wanted(weights=("gan-UV",)), FetchError, "GAN_UV.ckpt is not in weights"),
    ],
)
def test_what_is_nowhere(catalogue, client, tmp_path, wanted, error, words):
    with pytest.raises(error, match=words):
        make_plan(catalogue, wanted, tmp_path, client)


def test_many_missing_days_are_summed_up(catalogue, client, tmp_path):
    days = tuple(date(2016, 6, day) for day in range(1, 6))
    with pytest.raises(FetchError, match=r"2016-06-01_low.*2016-06-02_low.* 7 further files likewise\.$"):
        make_plan(catalogue, Wanted(days=days), tmp_path, client)


def test_a_server_without_the_archives(catalogue, client, published, tmp_path):
    (published / "records/12941117/files/pretrained_models.zip").unlink()
    with pytest.raises(FetchError, match=r"the server has none of the archives weights.*404"):
        make_plan(catalogue, Wanted(weights=("ldm-2mT",)), tmp_path, client)
    with pytest.raises(FetchError, match=r"the server has none of the archives weights.*404"):
        make_plan(catalogue, Wanted(outputs=True), tmp_path, client)
    with pytest.raises(NotThereError, match=r"pretrained_models.zip"):
        look_into(catalogue, "weights", tmp_path, client)


def test_a_kind_that_no_archive_holds(catalogue, client, tmp_path):
    sample = {"sample": catalogue.archives["sample"]}
    with pytest.raises(FetchError, match=r"No archive .* UNET_UV\.ckpt"):
        make_plan(
            catalogue.model_copy(update={"archives": sample}), Wanted(weights=("unet-UV",)), tmp_path, client
        )


def test_offline_says_what_to_do(catalogue, tmp_path):
    offline = catalogue.with_mirror("http://127.0.0.1:9")
    with Client(pause=0.01) as client, pytest.raises(OfflineError) as error:
        make_plan(offline, Wanted(statics=True), tmp_path, client)
    for words in ("--proxy", "HTTPS_PROXY", "--mirror", "TRAMONTANA_MIRROR", "sample_data.zip?download=1"):
        assert words in str(error.value)
    assert str(tmp_path / "archives" / "sample_data.zip") in str(error.value)


def test_hostile_members_stop_the_plan(catalogue, client, published, tmp_path):
    members = {"../static_var/dtm_2km_domain_trim_EPSG3035.tif": b"x"}
    write_zip(published / "records/12934521/files/sample_data.zip", members)
    with pytest.raises(MemberError, match="out of its folder"):
        make_plan(catalogue, Wanted(statics=True), tmp_path, client)
    write_zip(published / "records/12941117/files/pretrained_models.zip", {"a/outputs/../outputs/x": b"x"})
    with pytest.raises(MemberError, match="out of its folder"):
        make_plan(catalogue, Wanted(outputs=True), tmp_path, client)


def test_archives_on_this_disk_come_first(catalogue, client, server, published, tmp_path):
    (tmp_path / "out/archives").mkdir(parents=True)
    archive = published / "records/12945058/files/2015-2017.zip"
    archive.rename(tmp_path / "out/archives/2015-2017.zip")
    plan = make_plan(catalogue, Wanted(days=(DAY,)), tmp_path / "out", client)
    assert [item.packed for item in plan.items if item.source.name == "2015-2017"] == [0, 0, 0]
    assert plan.to_transfer < 500


def test_an_archive_without_a_list_of_hours(catalogue, client, published, tmp_path):
    write_zip(published / "records/12945058/files/2015-2017.zip", day_files("x/y/", "2016-05-02"))
    plan = make_plan(catalogue, Wanted(days=(DAY,)), tmp_path, client)
    assert "metadata_2015-2017.csv" not in paths(plan)
    assert plan.remarks == (f"{catalogue.address('2015-2017')} holds no metadata.csv.",)


def test_room_on_the_disk(catalogue, client, tmp_path, monkeypatch):
    plan = make_plan(catalogue, Wanted(days=(DAY,)), tmp_path / "not" / "there", client)
    two = sum(sorted((item.packed for item in plan.items), reverse=True)[:2])
    assert plan.room(2) == plan.to_write + two
    plan.check_room(2)
    monkeypatch.setattr(core.data.remote.plan, "free_space", lambda folder: (1 << 26) + plan.room(2))
    plan.check_room(2)
    with pytest.raises(DiskSpaceError, match=r"kB are needed in .*there, 67\.\d MB are free.*--out"):
        plan.check_room(3)


def test_a_file_in_the_place_of_the_folder(catalogue, client, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(FetchError, match="out is a file"):
        make_plan(catalogue, Wanted(statics=True), tmp_path / "out", client)


def test_looking_into_an_archive(catalogue, client, server, tmp_path):
    source = look_into(catalogue, "2015-2017", tmp_path, client)
    assert days_in(source, catalogue) == [date(2016, 5, day) for day in range(1, 12)]
    assert "metadata.csv" in source.directory.names()
    with pytest.raises(CatalogueError, match=r"no archive 'samples'\. There are: sample, 2000-2002"):
        look_into(catalogue, "samples", tmp_path, client)
    server.faults.ranges = False
    with pytest.raises(FetchError, match="can't be listed: its server sends no parts"):
        look_into(catalogue, "sample", tmp_path, client)


def test_days_from_words():
    assert days_from(["2016-05-02", "2016-02-28..2016-03-01", "2016-05-02"]) == (
        DAY,
        date(2016, 2, 28),
        date(2016, 2, 29),
        date(2016, 3, 1),
    )


def test_words_of_days():
    words = ["2016-02-28..2016-03-01", "2016-05-02"]
    assert words_of(days_from(["2016-05-02", *words])) == words
    assert words_of([]) == []


@pytest.mark.parametrize("word", ["2016-02-30", "tomorrow", "2016-05-02..", "2016-05-02..2016-05-01", ""])
def test_words_that_are_no_days(word):
    with pytest.raises(FetchError, match=repr(word).replace(".", r"\.")):
        days_from([word])
