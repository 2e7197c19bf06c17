"""What the PDE loss changes: latent diffusion fine-tuned and trained with it and without, otherwise alike.

``python -m benchmarks.pde_ablation STORE --ldm FILE --test STORE2 --out FOLDER`` trains every arm of
:data:`ARMS` on the hours of STORE, evaluates it on hours of the test weeks of STORE2, and writes
``ablation.md`` and ``ablation.csv``. Arms differ in what the table says and in nothing else: data, seed,
steps, batches, windows and the noise of the samples are the same. Work that is done is not repeated, and
several processes may work on one folder: each takes arms that no other is at work on.

    ablation.json   what all arms have in common
    arms/NAME/      the training run of an arm; arms/NAME.json is there when it has been evaluated as well
    evaluation/     scores (:mod:`core.evaluation`)
    latents/        encoded hours, shared by all arms
    vae.safetensors the VAE of the model, on which arms from random weights are trained
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from core.checkpoint import Checkpoint, load, read_header, save
from core.data.samples import Hours, split_hours
from core.data.store import Store
from core.downscale import Sampling
from core.downscale.catalogue import from_checkpoint
from core.downscale.network import NetworkDownscaler
from core.evaluation.result import open_evaluation
from core.evaluation.run import evaluate_models
from train.config import MACHINE_KEYS, LDMPDETrainConfig, LDMTrainConfig, load_config
from train.data import draw
from train.ldm import train_ldm
from train.ldm_pde import train_ldm_pde
from train.locks import lock_if_free, locked
from train.progress import Report, Status, describe
from train.run_folder import BEST, LAST, TrainError, replacing, writing

Tell = Callable[[str], None]

TARGET = "t2m"
BLOCK_HOURS = 24
HOURS_SEED = 0
ROUNDS = 6
SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_LOOKS = 10.0

SCORES = {
    "ensemble_rmse": "RMSE of the mean [K]",
    "crps": "CRPS [K]",
    "spectral_slope_loss": "spectral-slope loss",
    "flux_error": "flux error (coarse)",
    "flux_error_truth": "flux error (truth)",
    "spread_skill_ratio": "spread-skill ratio",
}
"""Scores of the table by their names in an evaluation."""


@dataclass(frozen=True)
class Arm:
    """One training of the ablation.

    Attributes
    ----------
    differs : in what, for people
    overrides : of the config, texts ``key=value``
    kind : "parent" is the model itself, as it is; "fine-tuned" comes from it, with the config
        ``ldm-pde-demo``; "start" from random weights, with ``ldm-demo``
    control : name of the arm that it is compared with
    weight_of : name of the arm whose last lambda is the weight of this one's flux term
    """

    name: str
    differs: str
    overrides: tuple[str, ...] = ()
    kind: Literal["parent", "fine-tuned", "start"] = "fine-tuned"
    control: str = "none"
    weight_of: str | None = None


# A term of weight 0 trains as without it, bit for bit, and its gradient is logged now and then.
UNWEIGHTED = ("physics={flux: {weight: 0}, every: 20}",)
TIED = "physics.reconstruction={weight: 1}"
DECODER = "trainable=[vae.decoder]"

ARMS = (
    Arm("none", "diffusion loss alone: the control", UNWEIGHTED),
    Arm("parent", "the model before fine-tuning", kind="parent"),
    Arm("none-other-seed", "as none with another seed: what chance does", (*UNWEIGHTED, "seed=1")),
    Arm("share-0.03", "flux error against the coarse field, share 0.03", ("physics.flux={share: 0.03}",)),
    Arm("share-0.1", "the same, share 0.1", ("physics.flux={share: 0.1}",)),
    Arm("share-0.3", "the same, share 0.3", ("physics.flux={share: 0.3}",)),
    Arm("share-1", "the same, share 1", ("physics.flux={share: 1.0}",)),
    Arm(
        "published-weight",
        "published training loss on the raw network output, published weight 1e-11, all noise levels alike",
        ("physics={flux: {formula: published_training, weight: 1e-11}, noise_weighting: none}",),
    ),
    Arm(
        "published-training",
        "published training loss on the raw network output, share 0.3",
        ("physics.flux={formula: published_training, share: 0.3}",),
    ),
    Arm("paper", "flux ratio of the paper, share 0.3", ("physics.flux={formula: paper, share: 0.3}",)),
    Arm("centred", "centred flux ratio, share 0.3", ("physics.flux={formula: centred, share: 0.3}",)),
    Arm(
        "truth",
        "flux error against the fine truth, share 0.3",
        ("physics.flux={reference: truth, share: 0.3}",),
    ),
    Arm(
        "decoder",
        "only the decoder learns: flux error with the lambda of share-0.3, reconstruction with weight 1",
        (DECODER, "physics={flux: {weight: 0}}", TIED),
        weight_of="share-0.3",
    ),
    Arm(
        "decoder-none",
        "only the decoder learns: reconstruction alone",
        (DECODER, "physics={flux: {weight: 0}}", TIED),
    ),
    Arm(
        "blocks",
        "output blocks, middle block and decoder learn: share 0.3, reconstruction with weight 1",
        (
            "trainable=[denoiser.output_blocks, denoiser.middle_block, vae.decoder]",
            "physics.flux={share: 0.3}",
            TIED,
        ),
    ),
    Arm(
        "start-none",
        "from random weights, diffusion loss alone: the control of start-flux",
        UNWEIGHTED,
        kind="start",
        control="start-none",
    ),
    Arm(
        "start-flux",
        "from random weights, flux error against the coarse field, share 0.3",
        ("physics={flux: {share: 0.3}}",),
        kind="start",
        control="start-none",
    ),
)
"""All arms. What learns is the conditioner and the denoiser where an arm does not say otherwise."""

BY_NAME = {arm.name: arm for arm in ARMS}


@dataclass(frozen=True)
class Ablation:
    """What all arms have in common.

    Attributes
    ----------
    store, ldm : hours to train on, and the file of the model that is fine-tuned
    test : store whose test weeks are evaluated
    folder : of all results
    steps, start_steps : of fine-tuning, and from random weights
    train_hours : drawn from the training hours; None for all
    hours, members : of the test weeks, drawn once, and of every ensemble
    sampler_steps : of the sampler in evaluation
    precision : of the networks in evaluation
    settings : further ``key=value`` of the configs of all arms
    command : what was typed
    """

    store: Path
    ldm: Path
    test: Path
    folder: Path
    steps: int = 600
    start_steps: int = 600
    train_hours: int | None = None
    hours: int = 48
    members: int = 4
    sampler_steps: int = Sampling().steps
    precision: Literal["float32", "bfloat16"] = "float32"
    settings: tuple[str, ...] = ()
    command: str = ""

    def identity(self) -> dict[str, Any]:
        """What every result depends on, plain JSON values."""
        test = Store.open(self.test)
        return {
            "training data": Store.open(self.store).attrs.get("fingerprint"),
            "test data": test.attrs.get("fingerprint"),
            "test hours": [str(hour) for hour in np.datetime_as_string(self.test_hours(), unit="h")],
            "model": load(self.ldm).file_hash,
            "steps": self.steps,
            "start-steps": self.start_steps,
            "train-hours": self.train_hours,
            "members": self.members,
            "sampler-steps": self.sampler_steps,
            "precision": self.precision,
            "settings": [one for one in self.settings if one.partition("=")[0] not in MACHINE_KEYS],
        }

    def test_hours(self) -> Hours:
        """Hours to evaluate, of the blocked split's test weeks; all of them where there are not enough."""
        return draw(split_hours(Store.open(self.test).hours, "test"), self.hours, HOURS_SEED)

    def run_folder(self, arm: Arm) -> Path:
        """Of the training run."""
        return self.folder / "arms" / arm.name

    def record(self, arm: Arm) -> Path:
        """File that is there when an arm has been trained and evaluated."""
        return self.folder / "arms" / f"{arm.name}.json"

    def file(self, arm: Arm) -> Path:
        """The trained model."""
        return self.ldm if arm.kind == "parent" else self.run_folder(arm) / f"{arm.name}.safetensors"

    @property
    def evaluation(self) -> Path:
        """Folder of the evaluation of all arms."""
        return self.folder / "evaluation"

    @property
    def vae(self) -> Path:
        """The VAE of the model in a file of its own."""
        return self.folder / "vae.safetensors"

    def lock(self, name: str) -> Path:
        """Of an arm, or of what is written for all of them."""
        return self.folder / "locks" / name


def config_of(arm: Arm, ablation: Ablation) -> LDMPDETrainConfig | LDMTrainConfig:
    """The config of an arm's training. Raises ConfigError where the settings make none."""
    steps = ablation.start_steps if arm.kind == "start" else ablation.steps
    common = [
        f"name={arm.name}",
        f"label=Ablation {arm.name}",
        f"steps={steps}",
        f"validate_every={steps_in_a_round(steps)}",
        f"train_hours={json.dumps(ablation.train_hours)}",
        # A limit of time, a stop, or a choice of rounds would give arms different steps.
        "max_minutes=null",
        "patience=null",
        "keep=last",
        "sample_every=null",
        "pictures=false",
        f"latents={json.dumps(str(ablation.folder.resolve() / 'latents'))}",
    ]
    if arm.kind == "start":
        started = ["crop=192", f"warmup_steps={min(200, steps // 10)}"]
        return load_config(
            "ldm-demo", [*common, *started, *ablation.settings, *arm.overrides], LDMTrainConfig
        )
    given = list(arm.overrides)
    if arm.weight_of is not None:
        given.append(f"physics.flux.weight={measured(ablation.file(BY_NAME[arm.weight_of]))['lambda']}")
    return load_config("ldm-pde-demo", [*common, *ablation.settings, *given], LDMPDETrainConfig)


def steps_in_a_round(steps: int) -> int:
    """The divisor of ``steps`` that gives about six rounds."""
    divisors = [number for number in range(1, steps + 1) if steps % number == 0]
    return min(divisors, key=lambda number: abs(math.log(steps / number / ROUNDS)))


def measured(path: Path) -> dict[str, float | None]:
    """What the flux term was in the last round of a training: its lambda, and its pull, which is the norm of
    its weighted gradient as a share of the diffusion loss's. None where there was no such gradient."""
    said = read_header(path).provenance.get("physics", {})
    weight, own, diffusion = (
        said.get(f"{name}") for name in ("lambda_flux", "gradient_flux", "gradient_diffusion")
    )
    pull = weight * own / diffusion if weight is not None and own and diffusion else None
    return {"lambda": weight, "pull": 0.0 if weight == 0 else pull}


def write_vae(ldm: Checkpoint, path: Path) -> None:
    """The UNet and VAE of a model as a file, on which training from random weights builds."""
    header = ldm.header
    parts = ("unet", "vae")
    said = {
        key: header.provenance[key]
        for key in ("data_fingerprint", "split_method")
        if key in header.provenance
    }
    own = header.model_copy(
        update={
            "kind": "vae",
            "label": f"VAE of {header.label}"[:80],
            "models": {part: header.models[part] for part in parts},
            "provenance": {**said, "parents": {"ldm": {"file": ldm.path.name, "sha256": ldm.file_hash}}},
            # The card is that of the whole model.
            "description": header.description.model_copy(update={"card": None}),
        }
    )
    save(path, own, {k: w for k, w in ldm.tensors.items() if k.partition(".")[0] in parts})


# --- the run ----------------------------------------------------------------------------------------


def begin(ablation: Ablation) -> None:
    """Write down what all arms have in common, or see that it is as it was.

    Raises TrainError where the folder holds another ablation, or the model knows the hours of the test.
    """
    method = read_header(ablation.ldm).provenance.get("split_method", "blocked")
    if method != "blocked":
        raise TrainError(
            f"{ablation.ldm} was trained on the {method} split, so it knows hours of the test weeks. Use a "
            "model of the blocked split."
        )
    wanted, path = ablation.identity(), ablation.folder / "ablation.json"
    with locked(ablation.lock("begin"), lambda: None), writing(ablation.folder):
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            changed = [key for key in wanted if found.get(key) != wanted[key]]
            if changed:
                raise TrainError(
                    f"{ablation.folder} holds an ablation with other {', '.join(changed)}; choose another "
                    "folder with --out, or ask for the same."
                )
            return
        write_vae(load(ablation.ldm), ablation.vae)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")


def check(arms: Sequence[Arm], ablation: Ablation) -> None:
    """Raise TrainError where an arm waits for one that is neither asked for nor done."""
    for arm in arms:
        needed = arm.weight_of
        if needed is None or needed in [other.name for other in arms]:
            continue
        if not ablation.record(BY_NAME[needed]).exists():
            raise TrainError(f"The arm {arm.name} takes its lambda from {needed}; ask for that, too.")


def run(arms: Sequence[Arm], ablation: Ablation, tell: Tell) -> None:
    """Train and evaluate all ``arms``; those on which another process works are waited for."""
    begin(ablation)
    check(arms, ablation)
    waiting = [arm for arm in arms if not ablation.record(arm).exists()]
    while waiting:
        worked = False
        for arm in waiting:
            needed = arm.weight_of
            if needed is not None and not ablation.record(BY_NAME[needed]).exists():
                continue
            with lock_if_free(ablation.lock(arm.name)) as free:
                if free and not ablation.record(arm).exists():
                    finish(arm, ablation, tell)
                    worked = True
        waiting = [arm for arm in waiting if not ablation.record(arm).exists()]
        if waiting and not worked:
            tell(f"Waiting for another process: {', '.join(arm.name for arm in waiting)}")
            time.sleep(SECONDS_BETWEEN_LOOKS)


def finish(arm: Arm, ablation: Ablation, tell: Tell) -> None:
    """Train and evaluate one arm, going on where it was stopped."""
    path = train(arm, ablation, lines(arm.name, tell))
    evaluate([arm], ablation, tell)
    with writing(ablation.folder):
        ablation.record(arm).parent.mkdir(parents=True, exist_ok=True)
        with replacing(ablation.record(arm)) as temporary:
            said = {"sha256": load(path).file_hash, **measured(path)}
            temporary.write_text(json.dumps(said) + "\n", encoding="utf-8")
    # Nothing is left to resume, and all arms together would keep gigabytes.
    for state in (LAST, BEST):
        (ablation.run_folder(arm) / state).unlink(missing_ok=True)


def train(arm: Arm, ablation: Ablation, report: Report) -> Path:
    """The file of an arm, trained where it is not there yet."""
    if arm.kind == "parent":
        return ablation.ldm
    config, out = config_of(arm, ablation), ablation.run_folder(arm)
    if isinstance(config, LDMTrainConfig):
        return train_ldm(config, ablation.store, ablation.vae, out, progress=report)
    return train_ldm_pde(config, ablation.store, ablation.ldm, out, progress=report)


def evaluate(arms: Sequence[Arm], ablation: Ablation, tell: Tell, *, result: bool = False) -> dict[str, str]:
    """Evaluate trained arms; their keys in the evaluation, by name. With ``result`` its file is written."""
    downscalers = {arm.name: _downscaler(arm, ablation) for arm in arms}
    told = -math.inf
    for at in evaluate_models(
        Store.open(ablation.test),
        list(downscalers.values()),
        ablation.test_hours(),
        ablation.evaluation,
        members=ablation.members,
        sampling=Sampling(steps=ablation.sampler_steps),
        block_hours=BLOCK_HOURS,
        result=result,
    ):
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            tell(f"{at.label}: evaluation, {at.done:.0f} of {at.total} fields")
            told = time.monotonic()
    return {name: downscaler.key for name, downscaler in downscalers.items()}


def _downscaler(arm: Arm, ablation: Ablation) -> NetworkDownscaler:
    config = config_of(BY_NAME["none"], ablation)
    return from_checkpoint(
        ablation.file(arm),
        device=config.device,
        threads=config.threads,
        precision=ablation.precision,
        lazy=True,
    )


def lines(name: str, tell: Tell) -> Report:
    """A report that tells of every stage of training and of its progress twice a minute."""
    stage, told = "", -math.inf

    def report(status: Status) -> None:
        nonlocal stage, told
        now = time.monotonic()
        if status.stage == "Validation" or (status.stage == stage and now - told < SECONDS_BETWEEN_LINES):
            return
        stage, told = status.stage, now
        so_far = f"{status.done} of {status.total} {status.unit}"
        tell(f"{name}: {status.stage}, {so_far} {describe(status)}".rstrip())

    return report


# --- the tables -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """An arm in the table: every score's (value, low, high), and the same of the difference to its control,
    which is None where the control is the arm itself or is not there."""

    arm: Arm
    weight: float | None
    pull: float | None
    values: dict[str, tuple[float, float, float]]
    differences: dict[str, tuple[float, float, float]] | None
    control_values: dict[str, float]


def table_rows(arms: Sequence[Arm], ablation: Ablation, keys: dict[str, str], data: xr.Dataset) -> list[Row]:
    """Rows of the arms from the evaluation of all of them, ``keys`` being their names in it."""
    rows = []
    for arm in arms:
        key, control = keys[arm.name], keys.get(arm.control)
        compared = control is not None and control != key
        found = measured(ablation.file(arm))
        summary = data["summary"].sel(target=TARGET)
        rows.append(
            Row(
                arm,
                found["lambda"],
                found["pull"],
                {name: _triple(summary.sel(model=key, score=name)) for name in SCORES},
                {
                    name: _triple(data["difference"].sel(target=TARGET, model=key, other=control, score=name))
                    for name in SCORES
                }
                if compared
                else None,
                {name: _triple(summary.sel(model=control, score=name))[0] for name in SCORES}
                if compared
                else {},
            )
        )
    return rows


def _triple(estimate: xr.DataArray) -> tuple[float, float, float]:
    value, low, high = (float(estimate.sel(estimate=name)) for name in ("value", "low", "high"))
    return value, low, high


def markdown(rows: Sequence[Row], ablation: Ablation, data: xr.Dataset) -> str:
    """The page ``ablation.md``."""
    head = ["arm", "what differs", "pull", "lambda"]
    differences = [
        [*head, "compared with", *SCORES.values()],
        *(
            [
                row.arm.name,
                row.arm.differs,
                _number(row.pull),
                _number(row.weight),
                row.arm.control,
                *(_difference(row.differences[name]) for name in SCORES),
            ]
            for row in rows
            if row.differences is not None
        ),
    ]
    values = [
        ["arm", *SCORES.values()],
        *([row.arm.name, *(f"{row.values[name][0]:.4g}" for name in SCORES)] for row in rows),
    ]
    hours = ablation.test_hours().size
    steps = f"{ablation.steps} steps of fine-tuning, {ablation.start_steps} from random weights"
    data_used = "all" if ablation.train_hours is None else f"{ablation.train_hours} of the"
    attrs = data.attrs
    parts = [
        "# Ablation of the PDE loss",
        f"{steps}, {data_used} training hours; evaluated on {hours} hours of test weeks with "
        f"{ablation.members} members ({attrs['sampling']}).",
        "## Differences",
        "Arm minus what it is compared with, over the same hours and with the same noise, with its "
        f"{100 * attrs['confidence']:.0f} % interval (bootstrap of blocks of {attrs['block_hours']} hours); "
        "bold where the interval leaves out 0. Less is better in all columns but the last, of which 1 is "
        "best. The interval is that of the choice of hours. What another seed of training changes is in the "
        "row none-other-seed; differences as small as these say nothing. Pull is the norm of the weighted "
        "gradient of the flux term at the output of the network, as a share of that of the diffusion loss, "
        "in the last round.",
        _table(differences),
        "## Values",
        _table(values),
        f"Made with `{ablation.command}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _difference(triple: tuple[float, float, float]) -> str:
    value, low, high = triple
    text = f"{value:+.2g} ({low:+.2g}, {high:+.2g})"
    return f"**{text}**" if low > 0 or high < 0 else text


def _table(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def comma_separated(rows: Sequence[Row]) -> str:
    """The file ``ablation.csv``: a line for every arm and score."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    bounds = ("value", "low", "high")
    writer.writerow(
        [
            *("arm", "what_differs", "lambda", "pull", "score", *bounds, "compared_with"),
            *(f"difference_{name}" for name in bounds),
            "difference_percent",
        ]
    )
    for row in rows:
        for name in SCORES:
            found = [row.arm.name, row.arm.differs, row.weight, row.pull, name, *row.values[name]]
            if row.differences is None:
                writer.writerow([*found, *[None] * 5])
                continue
            difference = row.differences[name]
            before = row.control_values[name]
            percent = 100 * difference[0] / before if before else None
            writer.writerow([*found, row.arm.control, *difference, percent])
    return file.getvalue()


def write_tables(ablation: Ablation, tell: Tell) -> Path:
    """Write both tables of all arms that are done in the folder; the page."""
    done = [arm for arm in ARMS if ablation.record(arm).exists()]
    page = ablation.folder / "ablation.md"
    with locked(ablation.lock("tables"), lambda: None), writing(ablation.folder):
        keys = evaluate(done, ablation, tell, result=True)
        data = open_evaluation(ablation.evaluation)
        rows = table_rows(done, ablation, keys, data)
        for path, text in (
            (page, markdown(rows, ablation, data)),
            (page.with_suffix(".csv"), comma_separated(rows)),
        ):
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return page


# --- the command ------------------------------------------------------------------------------------

QUICK: dict[str, Any] = {
    "steps": 2,
    "start_steps": 2,
    "train_hours": 2,
    "hours": 2,
    "members": 2,
    "sampler_steps": 2,
}
QUICK_ARMS = ("none", "share-0.3", "decoder", "start-none", "start-flux")
QUICK_SETTINGS = ("batch=2", "validation_hours=1", "validation_times=1", "sample_steps=2")


def parsed(words: Sequence[str]) -> tuple[list[Arm], Ablation]:
    """Arms and what they have in common, from the words of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pde_ablation", description="Ablation of the PDE loss."
    )
    parser.add_argument("store", type=Path, help="store to train on")
    parser.add_argument("--ldm", type=Path, required=True, help="file of the latent diffusion model")
    parser.add_argument("--test", type=Path, required=True, help="store whose test weeks are evaluated")
    parser.add_argument("--out", type=Path, required=True, help="folder of all results")
    parser.add_argument("--arms", nargs="+", choices=list(BY_NAME), metavar="ARM", help=", ".join(BY_NAME))
    parser.add_argument("--steps", type=_count, help="of fine-tuning")
    parser.add_argument("--start-steps", type=_count, help="of training from random weights")
    parser.add_argument("--train-hours", type=_count, help="drawn from the training hours; all by default")
    parser.add_argument("--hours", type=_count, help="of the test weeks")
    parser.add_argument("--members", type=_members, help="of every ensemble")
    parser.add_argument("--sampler-steps", type=_count, help="of the sampler in evaluation")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="of networks in evaluation")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="in all configs"
    )
    parser.add_argument("--quick", action="store_true", help="try the machinery, in a minute")
    given = parser.parse_args(words)
    names = ("steps", "start_steps", "train_hours", "hours", "members", "sampler_steps", "precision")
    options = {name: value for name in names if (value := getattr(given, name)) is not None}
    settings = (*(QUICK_SETTINGS if given.quick else ()), *given.settings)
    ablation = Ablation(
        given.store,
        given.ldm,
        given.test,
        given.out,
        settings=settings,
        command=f"python -m benchmarks.pde_ablation {' '.join(words)}",
        **{**(QUICK if given.quick else {}), **options},
    )
    chosen = given.arms or (QUICK_ARMS if given.quick else BY_NAME)
    return [arm for arm in ARMS if arm.name in chosen], ablation


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _members(text: str) -> int:
    number = _count(text)
    if number < 2:
        raise argparse.ArgumentTypeError("an ensemble needs at least 2 members for its spread")
    return number


def main(words: Sequence[str]) -> int:
    """Run the ablation; the exit status is 1 where it can't go on."""
    arms, ablation = parsed(words)

    def tell(text: str) -> None:
        print(text, flush=True)

    try:
        run(arms, ablation, tell)
        tell(f"Wrote {write_tables(ablation, tell)}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
