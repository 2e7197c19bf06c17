"""core.model_card: facts in words, people's words before them, and no letters that mislead."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.model_card import (
    LDM_PAPER,
    PDE_PAPER,
    CardError,
    CardTexts,
    make_card,
    published_card,
    read_card_texts,
)

FACTS = {
    "data_title": "Nature run",
    "synthetic": True,
    "train_hours": 1104,
    "train_period": "2016-01-05T00 to 2017-10-17T23 UTC",
    "validation_loss": 0.25,
}


def test_a_card_is_made_from_facts() -> None:
    card = make_card("ldm_res", ("t2m",), "Italy", FACTS, version="1.2")
    assert "2 metre temperature" in card.intended_use
    assert card.training_data == (
        "Nature run, synthetic weather; 1104 hours of 2016-01-05T00 to 2017-10-17T23 UTC"
    )
    assert card.limits.startswith("Learned from synthetic weather")
    assert "0.25" in card.evaluation
    assert card.licence == "not stated"
    assert card.citation[0].endswith("version 1.2")
    assert LDM_PAPER in card.citation
    assert PDE_PAPER not in card.citation
    assert PDE_PAPER in make_card("ldm_pde", ("t2m",), "Italy", {}, version="1").citation


def test_real_data_are_not_called_synthetic() -> None:
    card = make_card("unet", ("u10", "v10"), "Alps", {"synthetic": False}, version="1")
    assert "synthetic" not in f"{card.training_data}{card.limits}{card.intended_use}".lower()


def test_words_of_people_come_first() -> None:
    texts = CardTexts(licence="CC-BY-4.0", authors=("A. Person",))
    card = make_card("unet", ("t2m",), "Italy", FACTS, version="1", texts=texts)
    assert (card.licence, card.authors) == ("CC-BY-4.0", ("A. Person",))
    assert dict(card.lines())["Authors"] == "A. Person"


def test_published_weights_cite_their_authors_and_record() -> None:
    card = published_card("ldm_res", ("t2m",), "Italy", version="1")
    assert "2406.13627" in card.citation[0]
    assert any("12941117" in entry for entry in card.citation)
    assert "Elena Tomasi" in card.authors
    assert "Paul Rosu" in published_card("ldm_pde", ("t2m",), "Italy", version="1").authors


@pytest.mark.parametrize("text", ["", "two\nlines", "escape \x1b[31m", "reversed \u202e", "x" * 2001])
def test_unreadable_texts_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        CardTexts(licence=text)


def test_cards_are_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("licence: CC-BY-4.0\nauthors: [A. Person, B. Person]\n")
    assert read_card_texts(path) == CardTexts(licence="CC-BY-4.0", authors=("A. Person", "B. Person"))
    path.write_text("")
    assert read_card_texts(path) == CardTexts()


@pytest.mark.parametrize(
    "text", ["licenze: CC0\n", "authors: 3\n", "- a\n", "a: [b\n", "!!python/object:os.x {}\n"]
)
def test_bad_yaml_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(CardError, match=r"card\.yaml"):
        read_card_texts(path)
    with pytest.raises(CardError, match=r"absent\.yaml"):
        read_card_texts(tmp_path / "absent.yaml")
