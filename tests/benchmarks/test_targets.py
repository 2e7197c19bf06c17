"""Aims and what was reached: hand-made scores, and the table of the docs."""

import csv
from pathlib import Path

import pytest

from benchmarks.targets import as_table, main, read_scores, targets

ROOT = Path(__file__).resolve().parents[2]
SCORES = {
    ("quadratic", "rmse"): 2.0,
    ("unet", "rmse"): 1.0,
    ("unet", "mae"): 0.8,
    ("unet", "spectral_slope_loss"): 0.4,
    ("ldm_res", "rmse"): 1.4,
    ("ldm_res", "ensemble_rmse"): 1.5,
    ("ldm_res", "crps"): 0.6,
    ("ldm_res", "spectral_slope_loss"): 0.2,
    ("ldm_res", "spread_skill_ratio"): 1.3,
    ("ldm_res", "flux_error"): 0.5,
    ("ldm_pde", "rmse"): 1.428,
    ("ldm_pde", "crps"): 0.63,
    ("ldm_pde", "flux_error"): 0.5,
}


def write(path, rows):
    lines = ["target,score,model,members,value"]
    lines += [f"{target},{score},{model},{members},{value}" for target, model, score, members, value in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def rows():
    return [("t2m", f"{kind}-12ab", score, 8, value) for (kind, score), value in SCORES.items()]


def test_aims_from_a_file(tmp_path):
    path = write(tmp_path / "scores.csv", [*rows(), ("u10", "quadratic", "rmse", 1, 7.0)])
    scores, members = read_scores(path)
    assert scores == SCORES
    assert members == 8
    found = targets(scores, members)
    # 1.5 / sqrt(9 / 8) = 1.41421
    assert [t.value for t in found] == pytest.approx(
        [0.5, 1.414214, 0.75, 0.5, 1.3, 1.0, 1.02, 1.05], rel=1e-6
    )
    # "below" leaves the limit out, "at most" does not.
    assert [t.met for t in found] == [False, False, True, True, False, False, True, False]
    table = as_table(found).splitlines()
    assert table[2] == "| RMSE of the UNet / quadratic interpolation | below 0.50 | 0.500 | **no** |"
    assert len(table) == 10


def test_what_is_not_clear_is_refused(tmp_path, capsys):
    twice = write(tmp_path / "twice.csv", [*rows(), ("t2m", "unet-34cd", "rmse", 1, 1.0)])
    assert main([str(twice)]) == 1
    assert "two models of the kind unet" in capsys.readouterr().err
    few = write(tmp_path / "few.csv", [row for row in rows() if not row[1].startswith("ldm")])
    assert main([str(few)]) == 1
    assert "lacks ldm_pde, ldm_res" in capsys.readouterr().err
    assert main([str(tmp_path / "absent.csv")]) == 1
    assert "absent.csv" in capsys.readouterr().err
    assert main([]) == 2


def test_the_docs_hold_this_table(capsys):
    assert main([str(ROOT / "docs" / "results" / "scores.csv")]) == 0
    table = capsys.readouterr().out.strip()
    assert table.count("|") > 40
    assert table in (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_readme_and_docs_hold_the_table_of_scores():
    block = (ROOT / "docs" / "results" / "table.md").read_text(encoding="utf-8").split("\n\n")[1].strip()
    assert block.startswith("| model |")
    assert "| LDM_PDE (demo) |" in block
    assert block in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_of_the_ablation_holds_its_values():
    values: dict[str, list[str]] = {}
    with (ROOT / "docs" / "results" / "ablation.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            values.setdefault(row["arm"], []).append(f"{float(row['value']):.4g}")
    assert len(values) > 10
    page = (ROOT / "docs" / "pde-ablation.md").read_text(encoding="utf-8")
    assert [arm for arm, found in values.items() if f"| {arm} | {' | '.join(found)} |" not in page] == []


def test_what_longer_training_brings_is_in_the_docs_as_it_was_measured():
    found = {}
    with (ROOT / "docs" / "results" / "unet-longer.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["target"] == "t2m":
                found[row["model"], row["score"]] = row
    (longer,) = {name for name, _ in found if name.startswith("unet-")} - {
        "unet-f2aaab87"
    }  # the one that ships
    rmse, slope = found[longer, "rmse"], found[longer, "spectral_slope_loss"]
    quadratic = float(found["quadratic", "rmse"]["value"])
    share = f"{100 * float(rmse['value']) / quadratic:.1f} %"
    interval = f"{float(rmse['value']):.3f} K [{float(rmse['low']):.3f}, {float(rmse['high']):.3f}]"
    words = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert f"{interval} against {quadratic:.3f} K, {share}" in words
    assert f"to {float(slope['value']):.3f}" in words
    assert share in (ROOT / "README.md").read_text(encoding="utf-8")
