"""Configs of training runs: validated, with every unknown key refused by name.

A config is a YAML file or one of those shipped in ``train/configs``, read by :func:`load_config`. Each stage
has its own class, with the keys that all stages share from :class:`StageConfig`; from Python, make one
directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.model_card import CardTexts
from core.variables import TARGETS

SHIPPED = Path(__file__).parent / "configs"


class ConfigError(ValueError):
    """A config that can't be used; the message names the file, the key and the fault."""


Positive = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = tuple[Decay, Decay]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
LABEL = r"^[^\x00-\x1f\x7f<>]{1,80}$"


class StageConfig(BaseModel):
    """What defines a training run of any stage, besides the data and the models that it builds on.

    A round is ``validate_every`` steps of training followed by a validation; a run that is stopped resumes
    from the last complete round. The keys of :data:`MACHINE_KEYS` may change when it does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stage: ClassVar[str]
    noun: ClassVar[str]

    name: str = Field(pattern=NAME, description="file name of the model")
    label: str = Field(pattern=LABEL, description="what people see")
    seed: int = Field(0, ge=0, description="seed of the weights, the order of hours, the crops and the noise")

    split: Literal["blocked", "random"] = Field("blocked", description="how hours are divided")
    crop: int | None = Field(None, ge=1, description="side of the training windows [fine pixels]; null: all")
    train_hours: Positive | None = Field(None, description="training hours drawn once; null: all")
    validation_hours: Positive | None = Field(None, description="validation hours drawn once; null: all")

    batch: Positive = Field(4, description="samples that are computed at once, by all processes together")
    accumulate: Positive = Field(1, description="batches whose gradients make a step")
    steps: Positive = Field(description="steps in all; a multiple of validate_every")
    validate_every: Positive = Field(description="steps in a round")
    learning_rate: float = Field(1e-3, gt=0, description="step size of the optimiser")
    schedule: Literal["constant", "cosine", "plateau"] = Field(
        "constant",
        description="cosine: to zero at the last step or at max_minutes, whichever is nearer; plateau: "
        "times 0.25 after 3 rounds without improvement",
    )
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises from zero")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient; null: any")
    patience: Positive | None = Field(
        5, description="rounds without improvement before stopping; null: never"
    )
    max_minutes: float | None = Field(None, gt=0, description="wall time of training and validation")

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field("32-true", description="Lightning's word")
    devices: Positive = Field(1, description="devices of each machine to train on, one process for each")
    num_nodes: Positive = Field(1, description="machines to train on")
    strategy: Literal["auto", "ddp", "ddp_fork"] = Field(
        "auto", description="Lightning's word for how several processes work together; auto: ddp"
    )
    threads: Positive | None = Field(None, description="CPU threads; null: torch's choice")
    workers: int = Field(0, ge=0, description="processes that read data")
    cache_gb: float = Field(4.0, ge=0, description="memory for hours that are kept decoded [10^9 bytes]")
    storage: Literal["float32", "float16"] = Field("float32", description="weights in the file that results")
    tensorboard: bool = Field(False, description="also log for TensorBoard (install tensorboard)")
    pictures: bool = Field(True, description="draw a validation hour after every round, into the logs")
    card: CardTexts | None = Field(
        None,
        description="what the model card says: intended_use, training_data, limits, evaluation, licence, "
        "authors, citation; what is left out is made from the facts of the run",
    )

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Plain JSON values of the keys that have one: what a run did that was begun before a key existed."""
        return {
            key: field.default
            for key, field in cls.model_fields.items()
            if isinstance(field.default, str | int | float | bool | None)
        }

    @property
    def processes(self) -> int:
        """Over how many processes a batch is spread."""
        return self.devices * self.num_nodes

    @model_validator(mode="after")
    def _whole_rounds(self) -> Self:
        if self.steps % self.validate_every:
            nearest = max(1, round(self.steps / self.validate_every)) * self.validate_every
            raise ValueError(
                f"steps ({self.steps}) must be a multiple of validate_every ({self.validate_every}), "
                f"for example {nearest}"
            )
        if self.batch % self.processes:
            raise ValueError(
                f"batch ({self.batch}) must be a multiple of the {self.processes} processes that share it "
                f"(devices times num_nodes), for example {-(-self.batch // self.processes) * self.processes}"
            )
        return self


def _check_crop(crop: int | None, multiple: int, why: str) -> None:
    if crop is not None and crop % multiple:
        raise ValueError(f"crop ({crop}) must be a multiple of {multiple} {why}")


class UNetTrainConfig(StageConfig):
    """A training run of the UNet."""

    stage: ClassVar[str] = "unet"
    noun: ClassVar[str] = "UNet"

    name: str = Field("unet", pattern=NAME, description="file name of the model")
    label: str = Field("UNet", pattern=LABEL, description="what people see")

    targets: tuple[str, ...] = Field(("t2m",), min_length=1, description="fine variables to generate")
    features: tuple[Positive, ...] = Field((64, 128, 256, 512), min_length=1, description="channels by level")
    batchnorm_momentum: float = Field(0.1, gt=0, le=1, description="weight of the newest batch statistics")
    batchnorm_steps: Positive | None = Field(
        None,
        description="steps that normalise by the statistics of their batch; later ones by those collected "
        "until then, as in use; null: all steps",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets must be different ones of {', '.join(TARGETS)}")
        _check_crop(self.crop, 1 << len(self.features), "for this many features")
        return self


class GANTrainConfig(UNetTrainConfig):
    """A training run of the UNet as the generator of a GAN."""

    stage: ClassVar[str] = "gan"
    noun: ClassVar[str] = "GAN"

    name: str = Field("gan", pattern=NAME, description="file name of the model")
    label: str = Field("GAN", pattern=LABEL, description="what people see")

    betas: Betas = Field((0.5, 0.9), description="decay of the moments of the gradient in Adam")
    discriminator_features: tuple[Positive, ...] = Field(
        (64, 128, 256, 512), min_length=2, max_length=8, description="channels of the discriminator"
    )
    adversarial_start: int = Field(50_000, ge=0, description="steps before the discriminator takes part")
    adversarial_scale: float = Field(0.2, ge=0, description="factor of the adaptive weight")
    keep: Literal["best", "last"] = Field(
        "best",
        description="which round is kept: that of the smallest absolute error, or the last one, since what "
        "the discriminator teaches costs absolute error",
    )


class AdamWConfig(StageConfig):
    """A stage that is optimised with AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""

    betas: Betas = Field((0.5, 0.9), description="decay of the moments of the gradient in AdamW")
    weight_decay: float = Field(1e-3, ge=0, description="decay of the weights in AdamW")


class VAETrainConfig(AdamWConfig):
    """A training run of the VAE on the residuals that a UNet leaves."""

    stage: ClassVar[str] = "vae"
    noun: ClassVar[str] = "VAE"

    name: str = Field("vae", pattern=NAME, description="file name of the model")
    label: str = Field("VAE", pattern=LABEL, description="what people see")

    features: tuple[Positive, ...] = Field(
        (16, 16, 64), min_length=1, description="channels by level; their number must match the data's ratio"
    )
    latent_channels: Positive = Field(32, description="channels of the latent")
    kl_weight: float = Field(0.01, ge=0, description="weight of the divergence from the normal distribution")
    scale_latents: bool = Field(
        False,
        description="at the end, shift and scale every channel of the latent to mean 0 and variance 1 over "
        "training hours, undone by the decoder: what is decoded stays the same",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_crop(self.crop, 1 << len(self.features), "for this many features")
        return self


class Term(BaseModel):
    """How strongly a physical term counts: by its weight, or by the norm of its gradient."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: float | None = Field(None, ge=0, description="lambda itself")
    share: float | None = Field(
        None,
        ge=0,
        description="norm of the weighted term's gradient at the network's output, as a share of that of the "
        "diffusion loss; lambda follows",
    )

    @model_validator(mode="after")
    def _set(self) -> Self:
        if (self.weight is None) == (self.share is None):
            raise ValueError(
                "a physical term needs a weight (lambda itself) or a share (of the gradient of the diffusion "
                "loss), and not both; there is no default, since a good value depends on the term"
            )
        return self


FLUX_ERROR = "flux_error"


class FluxTerm(Term):
    """The loss on fluxes, the PDE loss."""

    formula: Literal["flux_error", "paper", "published_training", "published_metric", "centred"] = Field(
        FLUX_ERROR, description="of core.physics.flux_error, or a variant of the flux ratio"
    )
    reference: Literal["coarse", "truth"] = Field(
        "coarse", description="whose fluxes are compared with: the coarse field's, or the fine truth's"
    )
    cell: Positive | None = Field(
        None,
        description="side of a supergrid cell [coarse pixels]; null: the formula's, and where that is the "
        "greatest common divisor of the domain's sides, the domain's",
    )
    smoothing: Annotated[float, Field(ge=0)] | Literal["fit"] = Field(
        "fit",
        description="Gaussian that brings the fine field to what the coarse model saw [coarse pixels]; fit: "
        "from training hours; of flux_error against the coarse field only",
    )


class PhysicsConfig(BaseModel):
    """Physical terms beside the diffusion loss (Rosu et al., arXiv 2510.23866); at least one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flux: FluxTerm | None = None
    energy: Term | None = Field(None, description="block means of t2m against the coarse field [K2]")
    residual: Term | None = Field(None, description="balance of advection and diffusion of t2m")
    divergence: Term | None = Field(None, description="divergence of u10 and v10 [s-2]")
    reconstruction: Term | None = Field(
        None,
        description="absolute error of what the decoder makes of the true latent, standardised: ties a "
        "decoder that trains to its task, as in the training of the VAE (weight 1)",
    )
    noise_weighting: Literal["none", "signal"] = Field(
        "signal",
        description="signal: samples count by their share of signal, alpha_bar, as the estimate of a clean "
        "field means little where noise prevails",
    )
    largest_time: Annotated[int, Field(ge=0, le=999)] | None = Field(
        None, description="largest time step that the terms look at, from 0 to 999; null: any"
    )
    every: Positive = Field(1, description="steps from one evaluation of the terms to the next")

    @property
    def terms(self) -> dict[str, Term]:
        """The terms that are set, by name."""
        return {
            name: term
            for name in ("flux", "energy", "residual", "divergence", "reconstruction")
            if (term := getattr(self, name)) is not None
        }

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.terms:
            raise ValueError("physics needs a term: flux, energy, residual, divergence or reconstruction")
        return self


class DiffusionConfig(AdamWConfig):
    """What all training runs of latent diffusion share."""

    shared_window: bool = Field(
        False,
        description="one window for all samples of a step, so that its statics are encoded once; false: each "
        "has its own",
    )
    times: Literal["uniform", "stratified"] = Field(
        "uniform",
        description="how the time steps of a batch are drawn: each by itself, or one from each of as many "
        "equal parts as there are samples",
    )
    norm: Literal["l1", "l2"] = Field("l2", description="of the diffusion loss")
    ema_decay: float = Field(0.9999, ge=0, le=1, description="largest weight of the old moving average")
    ema_conditioner: bool = Field(False, description="also average the conditioner's weights")
    trainable: tuple[str, ...] = Field(
        ("conditioner", "denoiser"), min_length=1, description="parts of the network that learn"
    )
    physics: PhysicsConfig | None = Field(None, description="physical terms; null: none")
    validation_times: Positive = Field(4, description="time steps at which every validation hour is denoised")
    sample_every: Positive | None = Field(5, description="rounds between samples of whole hours; null: never")
    sample_hours: Positive = Field(1, description="validation hours that are sampled")
    sample_steps: Positive = Field(10, description="steps of the sampler (dpmpp_2m) in validation")
    latents: Path | None = Field(
        None,
        description="folder where encoded hours are kept and shared with other runs; null: this run's own, "
        "removed at the end",
    )
    keep: Literal["best", "last"] = Field(
        "best", description="which round is kept: that of the smallest diffusion loss, or the last one"
    )

    @model_validator(mode="after")
    def _tied_decoder(self) -> Self:
        learning = [name for name in self.trainable if name.partition(".")[0] == "vae"]
        if not learning:
            return self
        if self.physics is None:
            raise ValueError(
                f"trainable names {', '.join(learning)}, but without physics nothing depends on the decoder: "
                "the diffusion loss is one of latents"
            )
        if self.physics.reconstruction is None:
            raise ValueError(
                f"trainable names {', '.join(learning)}, which only physical terms would move, away from "
                "what it was trained for; set physics.reconstruction.weight: 1 is the loss that the VAE was "
                "trained with, 0 lets the decoder drift as in the published code"
            )
        return self


class LDMTrainConfig(DiffusionConfig):
    """A training run of latent diffusion: conditioner and denoiser on the latents of a frozen VAE."""

    stage: ClassVar[str] = "ldm"
    noun: ClassVar[str] = "latent diffusion model"

    name: str = Field("ldm", pattern=NAME, description="file name of the model")
    label: str = Field("LDM_res", pattern=LABEL, description="what people see")

    width: Positive = Field(256, description="channels of the denoiser's finest level")
    multipliers: tuple[Positive, ...] = Field(
        (1, 2, 4), min_length=1, description="the denoiser's channels by level, as multiples of width"
    )
    residual_blocks: Positive = Field(2, description="residual blocks of the denoiser by level")
    context_width: Positive = Field(256, description="channels of the finest context, doubled by level")
    static_features: tuple[Positive, ...] = Field(
        (54, 162, 486), min_length=1, description="channels by level of the statics' encoder"
    )
    static_latent_channels: Positive = Field(243, description="channels of the encoded statics")
    static_embedding: Positive = Field(128, description="channels of the statics' analysis")
    coarse_embedding: Positive = Field(24, description="channels of the predictors' analysis")
    analysis_depth: int = Field(4, ge=0, description="AFNO blocks of each analysis")
    parameterization: Literal["v", "eps", "x0"] = Field("v", description="what the denoiser predicts")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        multiple = 1 << (len(self.static_features) + len(self.multipliers) - 1)
        _check_crop(self.crop, multiple, "for this many levels")
        return self


class LDMPDETrainConfig(DiffusionConfig):
    """A run that fine-tunes latent diffusion with physical terms."""

    stage: ClassVar[str] = "ldm-pde"
    noun: ClassVar[str] = "latent diffusion model with the PDE loss"

    name: str = Field("ldm-pde", pattern=NAME, description="file name of the model")
    label: str = Field("LDM_PDE", pattern=LABEL, description="what people see")

    physics: PhysicsConfig = Field(description="physical terms")


MACHINE_KEYS = frozenset(
    {
        "device",
        "devices",
        "num_nodes",
        "strategy",
        "threads",
        "workers",
        "cache_gb",
        "max_minutes",
        "tensorboard",
        "pictures",
        "latents",
        "card",
    }
)
"""Keys that say where and how long to train and what to show and tell of it, not what comes out."""

Config = TypeVar("Config", bound=StageConfig)


def shipped_configs(stage: str = "") -> list[str]:
    """Names of the configs that come with the program, of one stage or of all."""
    return sorted(
        path.stem for path in SHIPPED.glob("*.yaml") if not stage or path.stem.rpartition("-")[0] == stage
    )


def load_config(
    source: str | Path,
    overrides: Sequence[str] = (),
    kind: type[Config] = UNetTrainConfig,  # type: ignore[assignment]
) -> Config:
    """The config in a YAML file, or shipped under the name ``source``, with some keys set anew.

    ``overrides`` are texts ``key=value``; the value is read as YAML, so ``features=[8,16]`` is a list and
    ``crop=null`` is none; a key inside another is named with dots, as in ``physics.flux.share=0.1``.
    ``kind`` is the class of the stage's configs.

    Raises ConfigError, naming the nearest valid key where one is unknown.
    """
    shipped = SHIPPED / f"{source}.yaml"
    path = shipped if shipped.is_file() and not Path(source).is_file() else Path(source)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"There is no readable config {source}. Give a YAML file, or one of the names "
            f"{', '.join(shipped_configs(kind.stage))}."
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
            _set(values, key.strip(), yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ConfigError(f"The value of --set {override} is not valid: {_one_line(error)}") from error
    return validate(values, str(source), kind)


def _set(values: dict[Any, Any], key: str, value: Any) -> None:
    """Set a key, which may name one inside another: ``physics.flux.share``."""
    first, dot, rest = key.partition(".")
    if not dot:
        values[first] = value
        return
    # What is there belongs to the file; a copy leaves it as it is.
    inner = dict(values[first]) if isinstance(values.get(first), dict) else {}
    _set(inner, rest, value)
    values[first] = inner


def validate(
    values: Mapping[Any, Any],
    source: str,
    kind: type[Config] = UNetTrainConfig,  # type: ignore[assignment]
) -> Config:
    """A config from plain values; ``source`` is what messages call them.

    Raises ConfigError with a sentence for every fault.
    """
    try:
        return kind.model_validate({str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise ConfigError(
            f"{source}: {' '.join(_sentence(fault, kind) for fault in error.errors())}"
        ) from error


def _sentence(fault: Any, kind: type[StageConfig]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        outer, _, last = key.rpartition(".")
        keys = list(_inner(kind, outer).model_fields)
        near = get_close_matches(last, keys, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(keys)}."
        return f"Unknown key {key}: {advice}"
    if fault["type"] == "missing":
        return f"The key {key} is missing."
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key} = {fault['input']!r}: {message}." if key else f"{message}."


def _inner(kind: type[BaseModel], path: str) -> type[BaseModel]:
    """The class of the values beneath a dotted key."""
    for key in filter(None, path.split(".")):
        annotation = kind.model_fields[key].annotation
        classes = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        kind = next(one for one in classes if issubclass(one, BaseModel))
    return kind


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
