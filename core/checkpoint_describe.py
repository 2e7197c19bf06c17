"""Describing a checkpoint anew: its model card and the ranges of its training data.

What ``tramontana checkpoint describe`` does. Only the description in the header changes
(:func:`core.checkpoint.rewrite_description`): weights, identity and hashes stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from core import __version__
from core.checkpoint import CheckpointError, Description, Header, read_header, rewrite_description
from core.data.ranges import TrainingRange
from core.data.samples import MeanStd, Normalization, compute_statistics, split_hours
from core.data.splits import SplitMethod
from core.data.store import Store
from core.model_card import CardTexts, ModelCard, make_card, published_card

AGREEMENT = 1e-6
"""Relative difference up to which statistics of the store are those that the checkpoint was trained with."""


def describe_checkpoints(
    paths: Iterable[str | Path],
    *,
    texts: CardTexts | None = None,
    store: Store | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Path, Description]]:
    """Write the descriptions of checkpoints, and give (file, description) after each.

    Parameters
    ----------
    texts : what the cards say; of what they leave out, the card that is there is kept, or it is made from
        the facts of the header
    store : that the checkpoints were trained on, to take the ranges from; without it those that are there
        stay
    progress : called with (hours done, hours in all) while the store is read, which is done once for
        checkpoints with the same normalisation

    Raises CheckpointError where a file can't be read or described, or was not trained on the store.
    """
    known: dict[str, TrainingRange] = {}
    for path in map(Path, paths):
        header = read_header(path)
        ranges = header.description.ranges
        if store is not None:
            key = f"{header.normalization.model_dump_json()}{_method(header)}{_fingerprint(header)}"
            if key not in known:
                known[key] = training_ranges(path, header, store, progress)
            ranges = known[key]
        description = Description(ranges=ranges, card=_card(header, texts))
        rewrite_description(path, description)
        yield path, description


def training_ranges(
    path: Path, header: Header, store: Store, progress: Callable[[int, int], None] | None = None
) -> TrainingRange:
    """The ranges of the hours of a store that a checkpoint was trained on.

    Raises CheckpointError where the fingerprint of the store is not the one in the header, or the statistics
    of its training hours are not those that the checkpoint standardises with: then it was trained on others.
    """
    if _fingerprint(header) is None or _fingerprint(header) != store.attrs.get("fingerprint"):
        raise CheckpointError(
            f"{path} was trained on data with the fingerprint {_fingerprint(header) or 'unknown'}, and "
            f"{store.path} "
            f"has {store.attrs.get('fingerprint', 'none')}. Name the store it was trained on."
        )
    hours = split_hours(store.hours, "train", _method(header))
    targets = [name for name in header.targets if name in store.contents.targets]
    normalization, ranges = compute_statistics(
        store, hours, targets=targets, predictors=header.predictors, progress=progress
    )
    different = [
        name for name, mine, theirs in _pairs(header.normalization, normalization) if not _agree(mine, theirs)
    ]
    if different:
        raise CheckpointError(
            f"{path} was not trained on the training hours of {store.path}: mean or standard deviation of "
            f"{', '.join(different)} differ. Its ranges can't be told from them."
        )
    return ranges


def _pairs(one: Normalization, other: Normalization) -> Iterator[tuple[str, MeanStd, MeanStd]]:
    for name, mine in one.predictors.items():
        yield name, mine, other.predictors[name]
    yield "orography", one.orography, other.orography
    yield "latitude", one.latitude, other.latitude


def _agree(one: MeanStd, other: MeanStd) -> bool:
    # A mean near zero is compared in standard deviations.
    return math.isclose(one.std, other.std, rel_tol=AGREEMENT) and math.isclose(
        one.mean, other.mean, rel_tol=AGREEMENT, abs_tol=AGREEMENT * other.std
    )


def _card(header: Header, texts: CardTexts | None) -> ModelCard:
    there = header.description.card
    if there is not None:
        given = {} if texts is None else texts.model_dump(exclude_none=True)
        return ModelCard.model_validate({**there.model_dump(), **given})
    domain = str(header.domain["name"])
    if "imported_from" in header.provenance:
        return published_card(header.kind, header.targets, domain, version=__version__, texts=texts)
    return make_card(header.kind, header.targets, domain, header.provenance, version=__version__, texts=texts)


def _fingerprint(header: Header) -> str | None:
    value = header.provenance.get("data_fingerprint")
    return value if isinstance(value, str) else None


def _method(header: Header) -> SplitMethod:
    return "random" if header.provenance.get("split_method") == "random" else "blocked"
