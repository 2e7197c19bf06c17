"""train.config: the shipped configs hold, and every fault is named."""

import pytest

from train.config import SHIPPED, ConfigError, UNetTrainConfig, load_config, shipped_configs, validate


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["unet-tiny", "unet-demo", "unet-published"])
def test_shipped_configs_are_valid(name):
    assert name in shipped_configs()
    config = load_config(name)
    assert config.name == name
    assert load_config(SHIPPED / f"{name}.yaml") == config


def test_the_published_settings():
    config = load_config("unet-published")
    assert (config.features, config.batch, config.learning_rate) == ((64, 128, 256, 512), 4, 1e-3)
    assert (config.crop, config.patience, config.split, config.schedule) == (None, 5, "random", "constant")


def test_overrides_are_yaml_values():
    config = load_config(
        "unet-tiny",
        ["features=[8, 16]", "crop=null", "learning_rate=1e-4", "label=My UNet", "tensorboard=true"],
    )
    assert config.features == (8, 16)
    assert config.crop is None
    assert config.learning_rate == 1e-4
    assert config.label == "My UNet"
    assert config.tensorboard is True


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learningrate=1", "Unknown key learningrate: did you mean learning_rate?"),
        ("validate_evry=5", "Unknown key validate_evry: did you mean validate_every?"),
        ("feature=[4]", "Unknown key feature: did you mean features?"),
        ("qqq=1", "Unknown key qqq: known keys are name, label, seed,"),
        ("batch=0", "batch = 0: Input should be greater than or equal to 1."),
        ("batch=many", "batch = 'many': Input should be a valid integer"),
        ("learning_rate=.nan", "learning_rate = nan: Input should be"),
        ("steps=21", "steps (21) must be a multiple of validate_every (10), for example 20."),
        ("crop=40", "crop (40) must be a multiple of 16 for this many features."),
        ("targets=[t2m, rain]", "targets must be different ones of t2m, u10, v10, tp."),
        ("targets=[]", "targets = []:"),
        ("name=../x", "name = '../x':"),
        ("label=<b>", "label = '<b>':"),
        ("split=weekly", "split = 'weekly': Input should be 'blocked' or 'random'."),
        ("steps", "--set takes key=value, for example steps=100; got 'steps'."),
        ("features=[4", "The value of --set features=[4 is not valid:"),
    ],
)
def test_faults_are_named(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config("unet-tiny", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path):
    path = write(tmp_path, "stepps: 10\nbatch: -1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for part in ("mine.yaml", "steps is missing", "did you mean steps?", "batch = -1"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- 1\n- 2\n", "must hold lines of the form"),
        ("", "must hold lines of the form"),
        ("steps: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_files_that_hold_something_else(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_an_absent_config_names_the_shipped_ones(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no readable config unet-dmeo.*unet-demo, unet-published, unet-tiny"
    ):
        load_config("unet-dmeo")
    with pytest.raises(ConfigError, match="no readable config"):
        load_config(tmp_path)


def test_a_config_reads_back_what_it_writes():
    config = load_config("unet-tiny")
    assert validate(config.model_dump(mode="json"), "again") == config
    with pytest.raises(ValueError, match="frozen"):
        config.batch = 3
    assert UNetTrainConfig(steps=4, validate_every=2).features == (64, 128, 256, 512)
