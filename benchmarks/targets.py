"""What the models that ship were to reach on 2-metre temperature, and what they reach.

    python -m benchmarks.targets reports/zoo/tables/scores.csv

reads the scores of an evaluation (`tramontana evaluate STORE --out reports/zoo`) and prints a table, ratios
of what is there and nothing else.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

QUADRATIC, UNET, LDM_RES, LDM_PDE = "quadratic", "unet", "ldm_res", "ldm_pde"
Scores = Mapping[tuple[str, str], float]
"""(kind of model, score) -> mean over hours."""


@dataclass(frozen=True)
class Target:
    """One aim: ``value`` should lie between ``low`` and ``high``, both included unless ``strict``."""

    what: str
    value: float
    wanted: str
    low: float
    high: float
    strict: bool = False

    @property
    def met(self) -> bool:
        """Whether it does."""
        if self.strict:
            return self.low < self.value < self.high
        return self.low <= self.value <= self.high


def read_scores(path: Path, target: str = "t2m") -> tuple[dict[tuple[str, str], float], int]:
    """Mean scores of one kind of model each, and the number of members of LDM_res.

    Raises ValueError where a kind is missing or there twice, so that it isn't clear which is meant.
    """
    scores: dict[tuple[str, str], float] = {}
    members = 0
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["target"] != target:
                continue
            kind = row["model"].partition("-")[0]
            if (kind, row["score"]) in scores:
                raise ValueError(f"{path} holds two models of the kind {kind}.")
            scores[kind, row["score"]] = float(row["value"])
            if kind == LDM_RES:
                members = int(row["members"])
    missing = {QUADRATIC, UNET, LDM_RES, LDM_PDE} - {kind for kind, _ in scores}
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}.")
    return scores, members


def targets(scores: Scores, members: int) -> list[Target]:
    """All aims with what was reached."""

    def ratio(first: tuple[str, str], second: tuple[str, str]) -> float:
        return scores[first] / scores[second]

    # The mean of M members errs more than that of very many by this factor, where spread and error agree.
    few = sqrt(1 + 1 / members)
    slope = "spectral_slope_loss"
    return [
        Target(
            "RMSE of the UNet / quadratic interpolation",
            ratio((UNET, "rmse"), (QUADRATIC, "rmse")), "below 0.50", 0, 0.5, strict=True,
        ),
        Target(
            "RMSE of the mean of LDM_res / sqrt(1 + 1/M) / RMSE of the UNet",
            ratio((LDM_RES, "ensemble_rmse"), (UNET, "rmse")) / few, "at most 1.05", 0, 1.05,
        ),
        Target(
            "CRPS of LDM_res / MAE of the UNet",
            ratio((LDM_RES, "crps"), (UNET, "mae")), "below 1", 0, 1, strict=True,
        ),
        Target(
            "spectral-slope loss of LDM_res / UNet",
            ratio((LDM_RES, slope), (UNET, slope)), "at most 0.50", 0, 0.5,
        ),
        Target(
            "spread-skill ratio of LDM_res",
            scores[LDM_RES, "spread_skill_ratio"], "0.8 to 1.2", 0.8, 1.2,
        ),
        Target(
            "flux error against the coarse field, LDM_PDE / LDM_res",
            ratio((LDM_PDE, "flux_error"), (LDM_RES, "flux_error")), "below 1", 0, 1, strict=True,
        ),
        Target(
            "RMSE of LDM_PDE / LDM_res",
            ratio((LDM_PDE, "rmse"), (LDM_RES, "rmse")), "at most 1.02", 0, 1.02,
        ),
        Target(
            "CRPS of LDM_PDE / LDM_res",
            ratio((LDM_PDE, "crps"), (LDM_RES, "crps")), "at most 1.02", 0, 1.02,
        ),
    ]  # fmt: skip


def as_table(found: Iterable[Target]) -> str:
    """The aims as a Markdown table."""
    lines = ["| what | aim | reached | met |", "|---|---|---:|---|"]
    lines += [f"| {t.what} | {t.wanted} | {t.value:.3f} | {'yes' if t.met else '**no**'} |" for t in found]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the table of one file of scores."""
    if len(arguments) != 1:
        print("Name one file: python -m benchmarks.targets reports/zoo/tables/scores.csv", file=sys.stderr)
        return 2
    try:
        scores, members = read_scores(Path(arguments[0]))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(as_table(targets(scores, members)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
