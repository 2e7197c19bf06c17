"""What the explorer is started with."""

from pathlib import Path

import pytest

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
