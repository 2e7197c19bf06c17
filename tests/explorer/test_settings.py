"""What the explorer is started with."""

from pathlib import Path

import pytest

from explorer.jobs import MOST_MEMBERS, MOST_STEPS
from explorer.settings import SettingsError, parse


def test_arguments_come_before_environment(tmp_path: Path):
    environment = {"TRAMONTANA_STORES": "x.zarr", "TRAMONTANA_CHECKPOINTS": "elsewhere"}
    settings = parse(["a.zarr", "b.zarr", "--checkpoints", "models"], environment, tmp_path)
    assert settings.stores == (tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert settings.checkpoints == tmp_path / "models"


def test_environment_comes_before_defaults(tmp_path: Path):
    environment = {"TRAMONTANA_STORES": "x.zarr:y.zarr", "TRAMONTANA_CHECKPOINTS": "models"}
    settings = parse([], environment, tmp_path)
    assert settings.find_stores() == {"x": tmp_path / "x.zarr", "y": tmp_path / "y.zarr"}
    assert settings.checkpoints == tmp_path / "models"


def test_default_is_every_store_in_the_data_folder_also_later_ones(tmp_path: Path):
    settings = parse([], {}, tmp_path)
    assert settings.find_stores() == {}
    (tmp_path / "data" / "new.zarr").mkdir(parents=True)
    assert settings.find_stores() == {"new": tmp_path / "data" / "new.zarr"}


def test_stores_of_the_same_name_are_told_apart_by_path(tmp_path: Path):
    settings = parse(["a/demo.zarr", "b/demo.zarr"], {}, tmp_path)
    assert set(settings.find_stores()) == {str(tmp_path / "a/demo.zarr"), str(tmp_path / "b/demo.zarr")}


def test_unknown_option_is_refused_in_a_sentence(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"does not understand its arguments: .*--colour"):
        parse(["--colour", "red"], {}, tmp_path)


def test_a_file_of_stations_is_named_by_an_option_or_the_environment(tmp_path: Path):
    assert parse([], {}, tmp_path).stations is None
    named = {"TRAMONTANA_STATIONS": "far.csv"}
    assert parse([], named, tmp_path).stations == tmp_path / "far.csv"
    assert parse(["a.zarr", "--stations", "obs.csv"], named, tmp_path).stations == tmp_path / "obs.csv"


def test_model_files_are_told_from_stores_by_their_ending(tmp_path: Path):
    settings = parse(["a.zarr", "my.safetensors"], {}, tmp_path)
    assert (settings.stores, settings.files) == ((tmp_path / "a.zarr",), (tmp_path / "my.safetensors",))
    only = parse(["my.safetensors"], {}, tmp_path)
    (tmp_path / "data" / "found.zarr").mkdir(parents=True)
    assert only.find_stores() == {"found": tmp_path / "data" / "found.zarr"}


def test_results_are_kept_in_the_cache_of_the_user_unless_said_otherwise(tmp_path: Path):
    assert parse([], {"XDG_CACHE_HOME": "/c"}, tmp_path).cache == Path("/c/tramontana/results")
    assert parse([], {}, tmp_path).cache == Path.home() / ".cache/tramontana/results"
    assert parse(["--cache", "mine"], {"TRAMONTANA_CACHE": "other"}, tmp_path).cache == tmp_path / "mine"
    assert parse([], {"TRAMONTANA_CACHE": "other"}, tmp_path).cache == tmp_path / "other"


def test_uploads_go_to_the_folder_that_was_named_else_to_one_of_the_user(tmp_path: Path):
    assert parse(["--checkpoints", "models"], {}, tmp_path).uploads == tmp_path / "models"
    mine = parse([], {"XDG_DATA_HOME": "/d"}, tmp_path)
    assert mine.uploads == Path("/d/tramontana/checkpoints")
    assert mine.checkpoint_folders == (mine.checkpoints, mine.uploads)


def test_numbers_and_switches_come_from_arguments_then_from_the_environment(tmp_path: Path):
    environment = {
        "TRAMONTANA_CACHE_GB": "0.5", "TRAMONTANA_READ_ONLY": "1", "TRAMONTANA_MOST_MEMBERS": "8",
        "TRAMONTANA_ALLOW_UPLOAD": "no",
    }  # fmt: skip
    settings = parse(
        ["--most-members", "4", "--most-jobs", "2", "--most-fields", "50"], environment, tmp_path
    )
    assert (settings.cache_gb, settings.read_only, settings.allow_upload) == (0.5, True, False)
    assert (settings.most_members, settings.most_jobs, settings.most_steps) == (4, 2, MOST_STEPS)
    assert settings.most_fields == 50
    usual = parse([], {}, tmp_path)
    assert (usual.cache_gb, usual.read_only, usual.most_members, usual.local) == (
        5,
        False,
        MOST_MEMBERS,
        False,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cache-gb", "-1"], r"--cache-gb must be a number from 0 to 1e\+06, not '-1'"),
        (["--cache-gb", "nan"], "--cache-gb must be a number"),
        (["--most-members", "0"], "--most-members must be a whole number from 1 to 256, not '0'"),
        (["--most-members", "4.5"], "--most-members must be a whole number"),
        (["--most-steps", "9999"], "--most-steps must be a whole number from 1 to 1000"),
    ],
)
def test_numbers_out_of_range_are_refused_in_a_sentence(tmp_path: Path, arguments: list[str], words: str):
    with pytest.raises(SettingsError, match=words):
        parse(arguments, {}, tmp_path)


def test_a_switch_that_is_neither_on_nor_off_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="TRAMONTANA_READ_ONLY must be 1 or 0, not 'perhaps'"):
        parse([], {"TRAMONTANA_READ_ONLY": "perhaps"}, tmp_path)
