"""core.assets: shipped files are found in the checkout, where a variable says, or in an installation."""

import sys

import pytest

import core.assets
from core.assets import asset


def test_in_the_checkout(monkeypatch):
    monkeypatch.delenv("TRAMONTANA_ASSETS", raising=False)
    assert asset("italy/static.nc").is_file()
    assert asset("italy").is_dir()


def test_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAMONTANA_ASSETS", str(tmp_path))
    (tmp_path / "mine.txt").write_text("")
    assert asset("mine.txt") == tmp_path / "mine.txt"
    with pytest.raises(FileNotFoundError, match="TRAMONTANA_ASSETS"):
        asset("italy/static.nc")


def test_in_an_installation(monkeypatch, tmp_path):
    monkeypatch.delenv("TRAMONTANA_ASSETS", raising=False)
    monkeypatch.setattr(core.assets, "__file__", str(tmp_path / "site-packages" / "core" / "assets.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    shipped = tmp_path / "share" / "tramontana" / "assets" / "italy" / "static.nc"
    shipped.parent.mkdir(parents=True)
    shipped.write_text("")
    assert asset("italy/static.nc") == shipped
