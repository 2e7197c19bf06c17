"""What people should know of a model before they use it: its card, kept in the description of its checkpoint.

The headings follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, arXiv 1810.03993, cut down
to what a reader of weather maps asks. Facts that the header holds are put into words here; what only people
know (licence, authors) is theirs to give.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from core.typed_yaml import read_yaml
from core.variables import VARIABLES

LONGEST = 2000
"""Letters of a text."""

UNKNOWN = "not stated"

TRAMONTANA = "Tramontana: generative downscaling of near-surface weather, version {version}"
LDM_PAPER = (
    "Tomasi, E., Franch, G., Cristoforetti, M. (2025): Can AI be enabled to perform dynamical downscaling? "
    "A latent "
    "diffusion model to mimic kilometer-scale COSMO5.0_CLM9 simulations. Geoscientific Model Development "
    "18, 2051, "
    "https://doi.org/10.5194/gmd-18-2051-2025, arXiv 2406.13627"
)
PDE_PAPER = (
    "Rosu, P., Bahng, M., Jiang, E., Zhu, R., Tarokh, V. (2025): A PDE-Informed Latent Diffusion Model for "
    "2-m "
    "Temperature Downscaling. arXiv 2510.23866"
)
DATA_RECORD = "Published weights and outputs, https://doi.org/10.5281/zenodo.12941117"
PUBLISHED_AUTHORS = {
    "ldm_res": ("Elena Tomasi", "Gabriele Franch", "Marco Cristoforetti"),
    "ldm_pde": ("Paul Rosu", "Muchang Bahng", "Erick Jiang", "Rico Zhu", "Vahid Tarokh"),
}
"""Authors of the published models by kind; those of LDM_res also made the UNet and the GAN."""


class CardError(ValueError):
    """A card that can't be read; the message names file and key."""


def _one_paragraph(value: str) -> str:
    # Shown on pages and terminals, where other letters could pass for something else.
    if not value.isprintable():
        raise ValueError("must be one paragraph of printable letters")
    return value


Text = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_one_paragraph)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1, max_length=20)]


class ModelCard(BaseModel):
    """The card of a model; texts of one paragraph each.

    Attributes
    ----------
    intended_use : what it is made for
    training_data : what it learned from; says where that is synthetic
    limits : where it should not be trusted
    evaluation : where its scores are
    licence : of the weights
    authors : who trained it
    citation : what to cite, one entry each
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    intended_use: Text
    training_data: Text
    limits: Text
    evaluation: Text
    licence: Text
    authors: Texts
    citation: Texts

    def lines(self) -> list[tuple[str, str]]:
        """(what, value) for people."""
        return [
            ("Intended use", self.intended_use),
            ("Training data", self.training_data),
            ("Limits", self.limits),
            ("Evaluation", self.evaluation),
            ("Licence", self.licence),
            ("Authors", ", ".join(self.authors)),
            ("Cite as", "; ".join(self.citation)),
        ]


class CardTexts(BaseModel):
    """What people say of a model; the rest of its card is made from facts. The keys are those of a card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    intended_use: Text | None = None
    training_data: Text | None = None
    limits: Text | None = None
    evaluation: Text | None = None
    licence: Text | None = None
    authors: Texts | None = None
    citation: Texts | None = None


def make_card(
    kind: str,
    targets: tuple[str, ...],
    domain: str,
    provenance: Mapping[str, Any],
    *,
    version: str,
    texts: CardTexts | None = None,
) -> ModelCard:
    """The card of a model that was trained here.

    Parameters
    ----------
    kind, targets, provenance : as in the header of its checkpoint
    domain : name of the domain
    version : of Tramontana
    texts : what stands instead of the words that are made here
    """
    made = ", ".join(VARIABLES[name].long_name.lower() for name in targets)
    synthetic = provenance.get("synthetic") is True
    data = str(provenance.get("data_title") or "data without a title")
    if synthetic and "synthetic" not in data.lower():
        data += ", synthetic weather"
    if isinstance(hours := provenance.get("train_hours"), int):
        data += f"; {hours} hours"
    if provenance.get("train_period"):
        data += f" of {provenance['train_period']}"
    limits = [f"Knows the domain {domain} and the inputs it was trained on, and no others."]
    if synthetic:
        limits.insert(0, "Learned from synthetic weather, so it says nothing about real places and times.")
    if kind in ("ldm_res", "ldm_pde"):
        limits.append("Members differ where the coarse fields leave room; a single one is no forecast.")
    scores = provenance.get("validation_loss")
    known = f"validation loss {scores:.4g} in its header; " if isinstance(scores, int | float) else ""
    return _filled(
        ModelCard(
            intended_use=_sentence(
                f"{'Demonstration of' if synthetic else ''} downscaling {made} from the coarse "
                f"grid of {domain} to its fine one"
            ),
            training_data=_printable(data),
            limits=" ".join(limits),
            evaluation=f"{known}score it on hours of your own with `tramontana evaluate`",
            licence=UNKNOWN,
            authors=(UNKNOWN,),
            citation=(TRAMONTANA.format(version=version), *_papers(kind)),
        ),
        texts,
    )


def published_card(
    kind: str, targets: tuple[str, ...], domain: str, *, version: str, texts: CardTexts | None = None
) -> ModelCard:
    """The card of a model that others trained and published, imported from their file."""
    made = ", ".join(VARIABLES[name].long_name.lower() for name in targets)
    return _filled(
        ModelCard(
            intended_use=_sentence(f"Downscaling {made} from ERA5 on a 16-km grid to 2 km over {domain}"),
            training_data="ERA5 as predictors and the COSMO-CLM downscaling VHR-REA_IT as truth, as the "
            "authors describe; this program has not seen it",
            limits="Knows the domain and the inputs it was trained on, and no others. Its truth is a model "
            "run, with the errors of that model.",
            evaluation="the authors' paper; score it on hours of your own with `tramontana evaluate`",
            licence="see the authors' data record",
            authors=PUBLISHED_AUTHORS.get(kind, PUBLISHED_AUTHORS["ldm_res"]),
            citation=(*_papers(kind), DATA_RECORD, TRAMONTANA.format(version=version)),
        ),
        texts,
    )


def _papers(kind: str) -> tuple[str, ...]:
    """The papers whose architecture or training a kind of model takes."""
    return {"ldm_pde": (LDM_PAPER, PDE_PAPER)}.get(kind, (LDM_PAPER,))


def _filled(card: ModelCard, texts: CardTexts | None) -> ModelCard:
    given = {} if texts is None else texts.model_dump(exclude_none=True)
    return ModelCard.model_validate({**card.model_dump(), **given})


def _sentence(words: str) -> str:
    words = words.strip()
    return _printable(words[:1].upper() + words[1:])


def _printable(words: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:LONGEST]


def read_card_texts(path: str | Path) -> CardTexts:
    """What people say of a model, from a YAML file with keys of a card.

    Raises CardError, naming file and key, where it can't be read.
    """
    return read_yaml(path, CardTexts, "a model card", CardError)
