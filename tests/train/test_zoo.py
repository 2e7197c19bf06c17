"""train.zoo: five stages with one call, chained, killed and resumed, and its configs."""

import pytest
from typer.testing import CliRunner

from core.checkpoint import load
from core.downscale import find_downscalers
from tests.train import small
from train.config import ConfigError
from train.zoo import SIZES, STAGES, train_zoo, zoo_configs
from tramontana import app

QUICK = [
    *small.HERE,
    "steps=2",
    "validate_every=2",
    "crop=32",
    "vae.features=[2, 2, 2]",
    "ldm.multipliers=[1]",
    "unet.features=[4, 8]",
    "gan.features=[4, 8]",
    "ldm.sample_every=null",
    "ldm-pde.sample_every=null",
    "ldm-pde.physics.flux.share=0.5",
]
KINDS = {"unet": "unet", "gan": "gan", "vae": "vae", "ldm": "ldm_res", "ldm-pde": "ldm_pde"}


@pytest.fixture(scope="module")
def killed_and_resumed(weather, tmp_path_factory):
    """A zoo that was killed in its third stage and resumed: the zoo, its reports, when files were written."""
    folder = tmp_path_factory.mktemp("zoo") / "run"
    with pytest.raises(small.Killed):
        train_zoo("tiny", weather.path, folder, overrides=QUICK, progress=small.kill_at(1, "vae: training"))
    assert not (folder / "models").exists()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.safetensors")}
    reports = []
    zoo = train_zoo("tiny", weather.path, folder, overrides=QUICK, progress=reports.append)
    return zoo, reports, before


def test_all_stages_are_trained_one_on_another(killed_and_resumed):
    zoo, _, _ = killed_and_resumed
    headers = {stage: load(path).header for stage, path in zoo.files.items()}
    assert {stage: header.kind for stage, header in headers.items()} == KINDS
    for stage, name in {"gan": "unet", "vae": "unet", "ldm": "vae", "ldm-pde": "ldm"}.items():
        parent = headers[stage].provenance["parents"][name]
        assert parent["sha256"] == load(zoo.files[name]).file_hash
    assert headers["ldm-pde"].provenance["config"]["physics"]["flux"]["share"] == 0.5


def test_stages_that_were_done_are_not_repeated(killed_and_resumed):
    zoo, reports, before = killed_and_resumed
    assert set(before) == {zoo.files["unet"], zoo.files["gan"]}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert {report.stage.partition(":")[0] for report in reports} == {"vae", "ldm", "ldm-pde"}


def test_the_models_are_together_and_run(killed_and_resumed, weather):
    zoo, _, _ = killed_and_resumed
    downscalers, unreadable = find_downscalers(zoo.models)
    assert unreadable == []
    assert len(downscalers) == 4
    for downscaler in downscalers:
        assert downscaler.obstacles(weather.contents, weather.domain) == []


def test_the_command_says_where_a_finished_zoo_is(killed_and_resumed, weather):
    zoo, _, _ = killed_and_resumed
    settings = [word for override in QUICK for word in ("--set", override)]
    folder = zoo.models.parent
    command = ["train", "zoo", str(weather.path), "--config", "tiny", "--out", str(folder), *settings]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"Wrote {zoo.models}" in result.output


@pytest.mark.parametrize("size", SIZES)
def test_there_is_a_config_for_every_stage(size):
    configs = zoo_configs(size)
    assert list(configs) == ["unet", "gan", "vae", "ldm", "ldm-pde"]
    for stage, config in configs.items():
        assert isinstance(config, STAGES[stage])
        assert config.name == f"{stage}-{size}"
    # The GAN of the small sizes starts from the UNet.
    if size != "published":
        assert configs["gan"].features == configs["unet"].features


@pytest.mark.parametrize(
    ("size", "override", "message"),
    [
        ("huge", "steps=2", "no zoo of the size 'huge'; the sizes are tiny, demo, published"),
        ("tiny", "ldm.widht=8", r"ldm-tiny: Unknown key widht: did you mean width\?"),
        ("tiny", "widht=8", r"unet-tiny: Unknown key widht"),
        ("tiny", "unte.steps=2", r"Unknown key unte"),
    ],
)
def test_faults_are_named_before_anything_begins(weather, tmp_path, size, override, message):
    with pytest.raises(ConfigError, match=message):
        train_zoo(size, weather.path, tmp_path / "run", overrides=[override])
    assert not (tmp_path / "run").exists()
