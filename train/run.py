"""One training run of any stage: its folder, what it resumes, and the file that comes out of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core import __version__
from core.checkpoint import Checkpoint, CheckpointError, Description, Header, load, save
from core.data.ranges import TrainingRange
from core.data.samples import Hours, Normalization, compute_statistics
from core.data.splits import Split
from core.data.store import Store
from core.domain import Domain
from core.model_card import make_card
from core.variables import PREDICTORS
from train.config import MACHINE_KEYS, StageConfig
from train.data import STATICS_NEEDED, Batches
from train.fit import accelerator, fit
from train.parallel import device_number, process_number, started_together
from train.progress import Report, Status
from train.run_folder import (
    BEST,
    CACHE,
    LAST,
    TrainError,
    begin_run,
    code_version,
    find_run,
    tidy,
    writing,
)
from train.task import StageTask


@dataclass(frozen=True)
class StageRun:
    """A run of a stage in its folder.

    Attributes
    ----------
    where : Lightning's word for the device
    identity : config and data that a run is known by
    record : what an earlier start wrote down; None where this is the first
    """

    config: StageConfig
    folder: Path
    where: str
    identity: Mapping[str, Mapping[str, Any]]
    record: Mapping[str, Any] | None

    @classmethod
    def find(
        cls, config: StageConfig, data: Mapping[str, Any], folder: str | Path, *, resume: bool
    ) -> StageRun:
        """The run that is in ``folder``, or one that is yet to begin there.

        ``data`` tells the data from others, plain JSON values. Without ``resume``, what is there is removed.
        Raises TrainError where the device is absent, or the folder holds another run or something else.
        """
        where = accelerator(config.device)
        first = process_number() == 0
        if not resume and started_together():
            raise TrainError(
                "Processes that torchrun or SLURM starts together can't agree on when to start over. Remove "
                f"{folder} and leave --fresh out."
            )
        identity = {"config": config.model_dump(mode="json", exclude=set(MACHINE_KEYS)), "data": data}
        fresh = not resume and first
        record = find_run(Path(folder), identity, fresh=fresh, defaults=config.defaults())
        if first:
            tidy(Path(folder))
        return cls(config, Path(folder), where, identity, record)

    @property
    def result(self) -> Path:
        """The file that comes out."""
        return self.folder / f"{self.config.name}.safetensors"

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.record is not None and self.result.exists()

    @property
    def torch_device(self) -> str:
        """Torch's word for the device."""
        return f"cuda:{device_number()}" if self.where == "cuda" else self.where

    @property
    def cache(self) -> Path:
        """Folder for fields that are computed once."""
        # Processes that start together would write to the same files at once.
        number = process_number()
        own = number > 0 and started_together()
        return self.folder / CACHE / f"process-{number}" if own else self.folder / CACHE

    def begin(self, normalization: Normalization, ranges: TrainingRange | None = None) -> None:
        """Write down what this run is, unless an earlier start did."""
        if self.record is None and process_number() == 0:
            found = {"normalization": normalization, **({} if ranges is None else {"ranges": ranges})}
            begin_run(
                self.folder,
                {**self.identity, **{what: values.model_dump(mode="json") for what, values in found.items()}},
            )

    def statistics(
        self, store: Store, hours: Hours, targets: tuple[str, ...], report: Report
    ) -> tuple[Normalization, TrainingRange | None]:
        """Normalisation and ranges of the training hours: those an earlier start wrote down, or computed now.

        Runs that began before ranges were recorded have none.
        """
        if self.record is None:
            return compute_statistics(
                store,
                hours,
                targets=targets,
                progress=lambda done, total: report(Status("Normalisation", done, total, "hours")),
            )
        ranges = self.record.get("ranges")
        return (
            Normalization.model_validate(self.record["normalization"]),
            None if ranges is None else TrainingRange.model_validate(ranges),
        )

    def fit(self, task: StageTask, batches: tuple[Batches, Batches], report: Report) -> None:
        """Train until done, from the last complete round where there is one.

        Of several processes, all but the first end here, since the first writes what results.
        """
        fit(task, batches, self.folder, self.where, report)
        if process_number() > 0:
            sys.exit(0)

    def best(self) -> dict[str, Any]:
        """The state with the smallest validation loss: "state_dict" and "run"."""
        return _state(self.folder / BEST)

    def save(self, header: Header, weights: Mapping[str, Tensor]) -> Path:
        """Write the resulting file."""
        with writing(self.folder):
            save(
                self.result,
                header,
                {name: tensor.contiguous() for name, tensor in weights.items()},
                dtype=getattr(torch, self.config.storage),
            )
        return self.result

    def provenance(
        self,
        best_state: Mapping[str, Any],
        store: Store,
        parts: Split,
        train: Hours,
        validation: Hours,
        parents: Mapping[str, Checkpoint],
    ) -> dict[str, Any]:
        """What every stage says of its training in the header of its file.

        ``best_state`` is that of :meth:`best`.
        """
        history = _state(self.folder / LAST)["run"]["history"]
        best = best_state["run"]["history"][-1]
        config = self.config
        rmse = {name.removeprefix("rmse_"): value for name, value in best.items() if name.startswith("rmse_")}
        return {
            "data_title": store.attrs.get("title"),
            "data_source": store.attrs.get("source"),
            "data_fingerprint": store.attrs.get("fingerprint"),
            "synthetic": bool(store.attrs.get("synthetic")),
            "split": parts.describe(),
            "split_method": config.split,
            "train_hours": int(train.size),
            "train_period": _period(train),
            "validation_hours": int(validation.size),
            "steps": int(best["steps"]),
            "epochs": best["steps"] * config.batch * config.accumulate / train.size,
            "train_loss": best["train_loss"],
            "validation_loss": best["validation_loss"],
            **({"validation_rmse": rmse} if rmse else {}),
            "steps_in_all": int(history[-1]["steps"]),
            "minutes_in_all": history[-1]["seconds"] / 60,
            "validation_losses": {str(entry["steps"]): entry["validation_loss"] for entry in history},
            **({"parents": {name: _parent(file) for name, file in parents.items()}} if parents else {}),
            # A folder of this machine tells others nothing, and the card has a place of its own.
            "config": config.model_dump(mode="json", exclude={"latents", "card"}),
            "code_version": code_version(),
            "torch_version": torch.__version__,
        }


def make_header(
    kind: str,
    config: StageConfig,
    store: Store,
    targets: tuple[str, ...],
    normalization: Normalization,
    models: Mapping[str, Any],
    provenance: Mapping[str, Any],
    ranges: TrainingRange | None,
) -> Header:
    """The header of a resulting file with its model card; ``models`` are the configs of its parts."""
    card = make_card(kind, targets, store.domain.name, provenance, version=__version__, texts=config.card)
    return Header(
        kind=kind,
        label=config.label,
        models={part: model.model_dump(mode="json") for part, model in models.items()},
        predictors=PREDICTORS,
        statics=STATICS_NEEDED,
        targets=targets,
        normalization=normalization,
        domain=store.domain.to_dict(),
        provenance=dict(provenance),
        description=Description(ranges=ranges, card=card),
    )


def load_parent(path: str | Path, kinds: tuple[str, ...], store: Store, config: StageConfig) -> Checkpoint:
    """A model that this stage builds on.

    Raises CheckpointError where the file can't be read, and TrainError where it is of another kind, for
    another domain, or was trained on hours that this run would validate with.
    """
    checkpoint = load(path)
    header = checkpoint.header
    if header.kind not in kinds:
        raise TrainError(
            f"{path} holds a model of kind {header.kind}; a {config.noun} is trained on one of kind "
            f"{' or '.join(kinds)}."
        )
    domain = Domain.from_dict(header.domain)
    if (domain.fine, domain.ratio) != (store.domain.fine, store.domain.ratio):
        raise TrainError(
            f"{path} was trained for the domain {domain.name}, the hours of {store.path} lie on another "
            f"({store.domain.name}). Use a store of the same domain."
        )
    if header.predictors != PREDICTORS or header.statics != STATICS_NEEDED:
        raise CheckpointError(f"{path} takes other variables than those that stages train with.")
    method = header.provenance.get("split_method")
    same_data = header.provenance.get("data_fingerprint") == store.attrs.get("fingerprint")
    if same_data and method is not None and method != config.split:
        raise TrainError(
            f"{path} was trained on the {method} split of these hours, so the {config.split} one would "
            f"validate with hours that it knows. Set split={method}."
        )
    return checkpoint


def _parent(checkpoint: Checkpoint) -> dict[str, Any]:
    grandparents = checkpoint.header.provenance.get("parents")
    return {
        "file": checkpoint.path.name,
        "label": checkpoint.header.label,
        "kind": checkpoint.header.kind,
        "sha256": checkpoint.file_hash,
        **({"parents": grandparents} if grandparents else {}),
    }


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    return state


def _period(hours: Hours) -> str:
    first, last = np.datetime_as_string(hours[[0, -1]], unit="h")
    return f"{first} to {last} UTC"
