"""Domains from YAML: where they lie, and what is wrong with those that are none."""

from pathlib import Path

import numpy as np
import pytest

from core.domain import ITALY, DomainError
from core.domain_file import find_domain, read_domain
from tests.synthetic_store import DOMAIN, make_store

TEXT = "name: Western Alps\nlongitude: 7.5\nlatitude: 45.5\nheight: 96\nwidth: 64\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "alps.yaml"
    path.write_text(TEXT)
    return path


def test_a_domain_lies_around_its_place_on_whole_coarse_cells(file: Path) -> None:
    domain = read_domain(file)
    assert (domain.name, domain.fine.shape, domain.coarse.shape) == ("Western Alps", (96, 64), (12, 8))
    assert (domain.fine.dx, domain.crs) == (2000, "EPSG:3035")
    left, _, _, top = domain.fine.extent
    assert left % 16_000 == 0
    assert top % 16_000 == 0
    middle = domain.fine.latitude.shape[0] // 2, domain.fine.latitude.shape[1] // 2
    assert domain.fine.longitude[middle] == pytest.approx(7.5, abs=0.15)
    assert domain.fine.latitude[middle] == pytest.approx(45.5, abs=0.1)


def test_another_projection_and_spacing(file: Path) -> None:
    file.write_text(TEXT + "crs: EPSG:32632\nspacing: 1000\nratio: 16\nsupergrid_cell: 2\n")
    domain = read_domain(file)
    assert (domain.crs, domain.fine.dx, domain.coarse.shape) == ("EPSG:32632", 1000, (6, 4))
    assert np.ptp(domain.fine.latitude) == pytest.approx(95 / 111, abs=0.05)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT.replace("height: 96", "heigth: 96"), "heigth"),
        (TEXT.replace("height: 96", "height: 90"), "choose a ratio that divides both sides"),
        (TEXT.replace("latitude: 45.5", "latitude: 145"), "latitude"),
        (TEXT + "crs: EPSG:4326\n", "projected"),
        (TEXT + "crs: nonsense\n", "nonsense"),
        ("- 1\n", "does not describe a domain"),
        ("a: [", "can't be read"),
        ("!!python/object:os.system {}", "can't be read"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(DomainError, match=words):
        read_domain(file)


def test_a_word_means_italy_a_file_or_a_store(file: Path, tmp_path: Path) -> None:
    assert find_domain("Italy") == ITALY
    assert find_domain(str(file)) == read_domain(file)
    store = make_store(tmp_path / "a.zarr", ["2020-01-01T00"], coarse=["t2m"])
    assert find_domain(str(store.path)) == DOMAIN
    with pytest.raises(DomainError, match="There is no domain nowhere"):
        find_domain("nowhere")
