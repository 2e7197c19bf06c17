"""Configs of training runs: validated, with every unknown key refused by name.

A config is a YAML file or one of those shipped in ``train/configs``, read by :func:`load_config`; from
Python, make a :class:`UNetTrainConfig` directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.variables import TARGETS

SHIPPED = Path(__file__).parent / "configs"


class ConfigError(ValueError):
    """A config that can't be used; the message names the file, the key and the fault."""


Positive = Annotated[int, Field(ge=1)]


class UNetTrainConfig(BaseModel):
    """Everything that defines a UNet training run besides the data.

    A round is ``validate_every`` steps of training followed by a validation; a run that is stopped resumes
    from the last complete round. The keys of :data:`MACHINE_KEYS` may change when it does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field("unet", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="file name of the model")
    label: str = Field("UNet", pattern=r"^[^\x00-\x1f\x7f<>]{1,80}$", description="what people see")
    seed: int = Field(0, ge=0, description="seed of the weights, the order of hours and the crops")

    targets: tuple[str, ...] = Field(("t2m",), min_length=1, description="fine variables to generate")
    split: Literal["blocked", "random"] = Field("blocked", description="how hours are divided")
    crop: int | None = Field(None, ge=1, description="side of the training windows [fine pixels]; null: all")
    validation_hours: Positive | None = Field(None, description="validation hours drawn once; null: all")

    features: tuple[Positive, ...] = Field((64, 128, 256, 512), min_length=1, description="channels by level")
    batchnorm_momentum: float = Field(0.1, gt=0, le=1, description="weight of the newest batch statistics")
    batchnorm_steps: Positive | None = Field(
        None,
        description="steps that normalise by the statistics of their batch; later ones by those collected "
        "until then, as in use; null: all steps",
    )

    batch: Positive = Field(4, description="samples in a step")
    steps: Positive = Field(description="steps in all; a multiple of validate_every")
    validate_every: Positive = Field(description="steps in a round")
    learning_rate: float = Field(1e-3, gt=0, description="step size of Adam")
    schedule: Literal["constant", "cosine", "plateau"] = Field(
        "constant",
        description="cosine: to zero at the last step or at max_minutes, whichever is nearer; plateau: "
        "times 0.25 after 3 rounds without improvement",
    )
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises from zero")
    patience: Positive | None = Field(
        5, description="rounds without improvement before stopping; null: never"
    )
    max_minutes: float | None = Field(None, gt=0, description="wall time of training and validation")

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field("32-true", description="Lightning's word")
    threads: Positive | None = Field(None, description="CPU threads; null: torch's choice")
    workers: int = Field(0, ge=0, description="processes that read data")
    cache_gb: float = Field(4.0, ge=0, description="memory for hours that are kept decoded [10^9 bytes]")
    storage: Literal["float32", "float16"] = Field("float32", description="weights in the file that results")
    tensorboard: bool = Field(False, description="also log for TensorBoard (install tensorboard)")

    @model_validator(mode="after")
    def _check(self) -> UNetTrainConfig:
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets must be different ones of {', '.join(TARGETS)}")
        if self.steps % self.validate_every:
            nearest = max(1, round(self.steps / self.validate_every)) * self.validate_every
            raise ValueError(
                f"steps ({self.steps}) must be a multiple of validate_every ({self.validate_every}), "
                f"for example {nearest}"
            )
        multiple = 1 << len(self.features)
        if self.crop is not None and self.crop % multiple:
            raise ValueError(f"crop ({self.crop}) must be a multiple of {multiple} for this many features")
        return self


MACHINE_KEYS = frozenset({"device", "threads", "workers", "cache_gb", "max_minutes", "tensorboard"})
"""Keys that say where and how long to train, not what."""


def shipped_configs() -> list[str]:
    """Names of the configs that come with the program."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> UNetTrainConfig:
    """The config in a YAML file, or shipped under the name ``source``, with some keys set anew.

    ``overrides`` are texts ``key=value``; the value is read as YAML, so ``features=[8,16]`` is a list and
    ``crop=null`` is none.

    Raises ConfigError, naming the nearest valid key where one is unknown.
    """
    shipped = SHIPPED / f"{source}.yaml"
    path = shipped if shipped.is_file() and not Path(source).is_file() else Path(source)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"There is no readable config {source}. Give a YAML file, or one of the names "
            f"{', '.join(shipped_configs())}."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold lines of the form `key: value`.")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set takes key=value, for example steps=100; got {override!r}.")
        try:
            values[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"The value of --set {override} is not valid: {_one_line(error)}") from error
    return validate(values, str(source))


def validate(values: Mapping[Any, Any], source: str) -> UNetTrainConfig:
    """A config from plain values; ``source`` is what messages call them.

    Raises ConfigError with a sentence for every fault.
    """
    try:
        return UNetTrainConfig.model_validate({str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise ConfigError(f"{source}: {' '.join(map(_sentence, error.errors()))}") from error


def _sentence(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        keys = list(UNetTrainConfig.model_fields)
        near = get_close_matches(key, keys, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(keys)}."
        return f"Unknown key {key}: {advice}"
    if fault["type"] == "missing":
        return f"The key {key} is missing."
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key} = {fault['input']!r}: {message}." if key else f"{message}."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
