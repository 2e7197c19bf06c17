"""The ablation: its arms, what they share, the run of several processes, and the tables."""

import contextlib
import csv
import json

import numpy as np
import pytest

from benchmarks import pde_ablation
from benchmarks.pde_ablation import (
    ARMS,
    BY_NAME,
    Ablation,
    config_of,
    main,
    measured,
    parsed,
    steps_in_a_round,
)
from core.checkpoint import Header, load, save
from core.data.samples import compute_normalization
from core.domain import Domain
from core.evaluation.result import open_evaluation
from core.models.latent_diffusion import PARTS, LatentDiffusion
from core.variables import PREDICTORS
from tests.small_models import two_level_latent_diffusion
from tests.synthetic_store import hours_of_weeks, make_store
from train.data import STATICS_NEEDED
from train.locks import lock_if_free
from train.run_folder import TrainError

DOMAIN = Domain.regular(
    "Square", left=4_000_000.0, top=2_500_000.0, shape=(128, 128), spacing=2000.0, ratio=8
)
SIZES = two_level_latent_diffusion(latent=4)
ASKED = ("none", "share-0.3", "decoder", "start-none")


def write_model(path, store, **provenance):
    header = Header(
        kind="ldm_res",
        label="Untrained",
        models={part: getattr(SIZES, part).model_dump(mode="json") for part in PARTS},
        predictors=PREDICTORS,
        statics=STATICS_NEEDED,
        targets=("t2m",),
        normalization=compute_normalization(store, store.hours, targets=("t2m",)),
        domain=store.domain.to_dict(),
        provenance=provenance,
    )
    save(path, header, LatentDiffusion(SIZES).state_dict())
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A store of 40 hours, and an untrained model of it."""
    folder = tmp_path_factory.mktemp("ablation")
    store = make_store(folder / "weather.zarr", hours_of_weeks(), domain=DOMAIN)
    return store, write_model(folder / "untrained.safetensors", store)


def words(given, folder, *more):
    store, model = given
    settings = ("--set", "crop=128", "--set", "threads=1", "--set", "device=cpu")
    where = (str(store.path), "--ldm", str(model), "--test", str(store.path), "--out", str(folder))
    return [*where, "--quick", *settings, *more]


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    """A quick run of some arms: its folder."""
    folder = tmp_path_factory.mktemp("run") / "out"
    assert main(words(given, folder, "--arms", *ASKED)) == 0
    return folder


def ablation_of(given, folder, *more):
    return parsed(words(given, folder, *more))[1]


def table(folder):
    with (folder / "ablation.csv").open() as file:
        return list(csv.DictReader(file))


# --- arms -------------------------------------------------------------------------------------------


def test_arms_are_told_apart_and_compared_with_arms():
    assert len(BY_NAME) == len(ARMS)
    for arm in ARMS:
        control = BY_NAME[arm.control]
        assert control.control == control.name
        assert control.kind == arm.kind or arm.kind == "parent"
        assert arm.weight_of is None or BY_NAME[arm.weight_of].weight_of is None


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.kind != "parent"], ids=lambda arm: arm.name)
def test_arms_differ_in_what_they_say_alone(arm, tmp_path, monkeypatch):
    monkeypatch.setattr(pde_ablation, "measured", lambda path: {"lambda": 0.125})
    ablation = Ablation(tmp_path, tmp_path, tmp_path, tmp_path, steps=600, start_steps=400, train_hours=10)
    config = config_of(arm, ablation).model_dump()
    control = config_of(BY_NAME[arm.control], ablation).model_dump()
    said = {override.partition("=")[0].partition(".")[0] for override in arm.overrides}
    changed = {key for key in config if config[key] != control[key]}
    assert changed <= {"name", "label"} | said
    assert said <= {"physics", "trainable", "seed"}
    assert (config["steps"], config["max_minutes"], config["patience"], config["keep"]) == (
        400 if arm.kind == "start" else 600,
        None,
        None,
        "last",
    )
    assert config["crop"] == 192
    if arm.weight_of:
        assert config["physics"]["flux"]["weight"] == 0.125


@pytest.mark.parametrize(("steps", "each"), [(600, 100), (601, 601), (4, 1), (2, 1), (1, 1), (50, 10)])
def test_there_are_about_six_rounds(steps, each):
    assert steps_in_a_round(steps) == each


# --- a run ------------------------------------------------------------------------------------------


def test_the_table_is_that_of_the_scores_of_every_hour(whole):
    data = open_evaluation(whole / "evaluation")
    rows = table(whole)
    assert [row["arm"] for row in rows[::6]] == list(ASKED)
    labels = dict(zip(data["label"].values.tolist(), data["model"].values.tolist(), strict=True))
    scores = {name: data.sel(target="t2m", model=labels[f"Ablation {name}"]) for name in ASKED}
    for row in rows:
        name, score = row["arm"], row["score"]
        if score == "spread_skill_ratio":
            one = scores[name]
            expected = np.sqrt(1.5 * float(one["ensemble_variance"].mean() / one["ensemble_mse"].mean()))
            assert float(row["value"]) == pytest.approx(expected)
            continue
        expected = float(scores[name][score].mean())
        assert float(row["value"]) == pytest.approx(expected)
        if name in ("none", "start-none"):
            assert row["difference_value"] == ""
            continue
        before = float(scores["none"][score].mean())
        assert row["compared_with"] == "none"
        assert float(row["difference_value"]) == pytest.approx(expected - before, abs=1e-12)
        assert float(row["difference_percent"]) == pytest.approx(100 * (expected - before) / before, abs=1e-9)
        assert float(row["difference_low"]) <= float(row["difference_high"])


def test_the_page_says_what_was_compared_and_how(whole):
    page = (whole / "ablation.md").read_text()
    lines = page.splitlines()
    assert "evaluated on 2 hours of test weeks with 2 members (dpmpp_2m, 2 steps" in page
    for row in table(whole):
        if row["score"] != "crps" or not row["difference_value"]:
            continue
        (line,) = [line for line in lines if line.startswith(f"| {row['arm']} | {row['what_differs']} |")]
        low, high = float(row["difference_low"]), float(row["difference_high"])
        cell = f"{float(row['difference_value']):+.2g} ({low:+.2g}, {high:+.2g})"
        assert cell in line
        assert (f"**{cell}**" in line) == (low > 0 or high < 0)
    assert "--quick" in lines[-1]


def test_measured_pulls_and_the_weight_of_the_decoder(whole):
    files = {name: whole / "arms" / name / f"{name}.safetensors" for name in ASKED}
    found = {name: measured(path) for name, path in files.items()}
    assert found["none"] == {"lambda": 0.0, "pull": 0.0}
    assert found["share-0.3"]["pull"] == pytest.approx(0.3, rel=1e-6)
    assert found["decoder"] == {"lambda": found["share-0.3"]["lambda"], "pull": None}
    changed = {
        name
        for name, tensor in load(files["none"]).tensors.items()
        if not np.array_equal(tensor, load(files["decoder"]).tensors[name])
    }
    assert any(name.startswith("vae.decoder") for name in changed)


def test_all_arms_share_their_latents(whole):
    """One set of training hours and one of validation hours, also for arms from random weights."""
    assert len(list((whole / "latents").iterdir())) == 2
    assert load(whole / "arms" / "start-none" / "start-none.safetensors").header.kind == "ldm_res"
    assert not list(whole.glob("arms/*/*.ckpt"))


def test_what_is_done_is_not_repeated(given, whole, monkeypatch, capsys):
    page, lines = (whole / "ablation.md").read_text(), (whole / "ablation.csv").read_text()
    monkeypatch.setattr(pde_ablation, "finish", pytest.fail)
    assert main(words(given, whole, "--arms", *ASKED)) == 0
    assert (whole / "ablation.md").read_text() == page
    assert (whole / "ablation.csv").read_text() == lines
    assert f"Wrote {whole / 'ablation.md'}" in capsys.readouterr().out


def test_other_settings_need_another_folder(given, whole, capsys):
    assert main(words(given, whole, "--steps", "4", "--members", "3", "--arms", "none")) == 1
    assert "holds an ablation with other steps, members; choose another folder" in capsys.readouterr().err
    # Where it runs is not what it is.
    pde_ablation.begin(ablation_of(given, whole, "--set", "threads=2"))


# --- several processes ------------------------------------------------------------------------------


def test_an_arm_that_another_works_on_is_left_and_looked_at_again(given, tmp_path, monkeypatch):
    ablation = ablation_of(given, tmp_path / "out")
    done, told = [], []

    def finish(arm, ablation, tell):
        done.append(arm.name)
        ablation.record(arm).parent.mkdir(parents=True, exist_ok=True)
        ablation.record(arm).write_text("{}")

    monkeypatch.setattr(pde_ablation, "finish", finish)
    with contextlib.ExitStack() as other:
        assert other.enter_context(lock_if_free(ablation.lock("share-0.3")))

        def sleep(seconds):
            # The other process is killed before its arm is done.
            assert done == ["none", "share-1"]
            other.close()

        monkeypatch.setattr(pde_ablation.time, "sleep", sleep)
        arms = [BY_NAME[name] for name in ("decoder", "none", "share-0.3", "share-1")]
        pde_ablation.run(arms, ablation, told.append)
    # The decoder's weight comes from share-0.3.
    assert done == ["none", "share-1", "share-0.3", "decoder"]
    assert told == ["Waiting for another process: decoder, share-0.3"]


def test_an_arm_without_the_one_it_needs_is_refused(given, tmp_path, capsys):
    assert main(words(given, tmp_path / "out", "--arms", "decoder")) == 1
    assert "The arm decoder takes its lambda from share-0.3; ask for that, too." in capsys.readouterr().err


def test_a_model_that_knows_the_test_hours_is_refused(given, tmp_path):
    store, _ = given
    model = write_model(tmp_path / "random.safetensors", store, split_method="random")
    with pytest.raises(TrainError, match="trained on the random split, so it knows hours of the test weeks"):
        pde_ablation.begin(ablation_of((store, model), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# --- the command ------------------------------------------------------------------------------------


def test_options_reach_the_ablation(given, tmp_path):
    store, model = given
    command = [str(store.path), "--ldm", str(model), "--test", str(store.path), "--out", str(tmp_path)]
    arms, ablation = parsed([*command, "--arms", "share-1", "none", "--hours", "7", "--set", "batch=2"])
    # In the order of the table, controls first.
    assert [arm.name for arm in arms] == ["none", "share-1"]
    assert (ablation.steps, ablation.start_steps, ablation.train_hours) == (600, 600, None)
    assert (ablation.hours, ablation.members, ablation.settings) == (7, 4, ("batch=2",))
    assert parsed(command)[0] == list(ARMS)
    arms, quick = parsed([*command, "--quick", "--steps", "3", "--precision", "bfloat16"])
    assert [arm.name for arm in arms] == ["none", "share-0.3", "decoder", "start-none", "start-flux"]
    assert (quick.steps, quick.start_steps, quick.members, quick.precision) == (3, 2, 2, "bfloat16")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--members", "1"), "an ensemble needs at least 2 members"),
        (("--steps", "0"), "0 is not at least 1"),
        (("--arms", "nothing"), "invalid choice: 'nothing'"),
    ],
)
def test_words_that_mean_nothing_are_refused(given, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        parsed(words(given, tmp_path, *more))
    assert message in capsys.readouterr().err


def test_a_fault_of_the_input_is_a_sentence(given, tmp_path, capsys):
    assert main(words((given[0], tmp_path / "absent.safetensors"), tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert "absent.safetensors" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert main(words(given, tmp_path / "out", "--set", "lerning_rate=1", "--arms", "none")) == 1
    assert "Unknown key lerning_rate: did you mean learning_rate?" in capsys.readouterr().err


def test_the_record_says_what_all_arms_share(whole, given):
    said = json.loads((whole / "ablation.json").read_text())
    assert said["model"] == load(given[1]).file_hash
    assert len(said["test hours"]) == 2
    assert said["settings"][-1] == "crop=128"
