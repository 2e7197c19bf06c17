"""Training the VAE on the residuals of a frozen UNet: absolute error + 0.01 KL (arXiv 2406.13627)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.data.samples import Hours, Normalization
from core.data.store import Store
from core.downscale.devices import torch_threads
from core.models.unet import UNet
from core.models.vae import VAE, VAEConfig, vae_loss
from train.config import VAETrainConfig
from train.data import data_identity, draw, hour_datasets, loaders, usable_hours
from train.progress import Report, Status
from train.residuals import Means, ResidualDataset, WholeHours, frozen_unet
from train.run import StageRun, load_parent, make_header
from train.run_folder import TrainError
from train.scene import from_mean
from train.task import StageTask, keyed_generator

HOURS_FOR_MOMENTS = 64
"""Training hours, at most, from which the latent's moments are taken at the end."""

SMALLEST_SHARE = 0.05
"""A channel that varies less than this share of the liveliest one carries next to nothing and is not blown up
beyond that."""


class VAETask(StageTask):
    """The VAE with its loss, optimiser and scores; the UNet whose residuals it learns stands still.

    Validation decodes the mean of the latent's distribution. ``validation_loss`` is that of training,
    ``rmse_<target>`` the error of the reconstruction in the target's units (the VAE's floor: no latent
    diffusion model on top of it can come closer to the truth), ``latent_std_smallest``, ``..._largest`` and
    ``latent_mean_largest`` describe the channels of the latent over the validation hours. ``pictured`` is the
    first of these where it is to be shown after every round.
    """

    config: VAETrainConfig

    def __init__(
        self,
        config: VAETrainConfig,
        normalization: Normalization,
        targets: tuple[str, ...],
        unet: UNet,
        pictured: WholeHours | None = None,
    ) -> None:
        super().__init__(config)
        self.normalization = normalization
        self.targets = targets
        self.pictured = pictured
        self.model_config = VAEConfig(
            in_channels=len(targets), latent_channels=config.latent_channels, features=config.features
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.vae = VAE(self.model_config)
        self.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.unet = unet
        self._clear()

    def train(self, mode: bool = True) -> VAETask:
        """Switch all but the UNet, which stays as it is used."""
        super().train(mode)
        self.unet.eval()
        return self

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(
            self.vae.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )

    def residual(self, batch: dict[str, Tensor]) -> Tensor:
        """The residuals (N, T, H, W) of a batch, which holds them or what they are made from."""
        if "residual" in batch:
            return batch["residual"]
        with torch.no_grad():
            return batch["target"] - self.unet(batch["coarse"], batch["static"])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        residual = self.residual(batch)
        shape = (
            self.config.latent_channels,
            *(side // self.vae.side_multiple for side in residual.shape[-2:]),
        )
        draws = [
            torch.randn(shape, generator=keyed_generator(self.config.seed, number))
            for number in self.sample_numbers(batch_idx, len(residual))
        ]
        noise = torch.stack(draws).to(residual)
        reconstruction, posterior = self.vae(residual, noise)
        return self.checked(
            vae_loss(reconstruction, residual, posterior, kl_weight=self.config.kl_weight).total
        )

    def _clear(self) -> None:
        self._losses_seen: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._moments = Moments(self.config.latent_channels)

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self._clear()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        residual = self.residual(batch)
        reconstruction, posterior = self.vae(residual)
        loss = vae_loss(reconstruction, residual, posterior, kl_weight=self.config.kl_weight)
        self._losses_seen.append(torch.stack(loss))
        self._squares.append((reconstruction - residual).square().mean(dim=(2, 3)))
        self._moments.add(posterior.mean)
        if batch_idx == 0 and self.pictured is not None:
            shown = self.pictured
            made = shown.mean + reconstruction.float().cpu()
            self.scene = from_mean(
                shown.hours[0],
                shown.mean,
                shown.truth,
                made,
                "UNet and decoded latent",
                self.normalization,
                self.targets,
            )

    def validation_scores(self) -> dict[str, float]:
        total, reconstruction, kl = torch.stack(self._losses_seen).double().cpu().mean(dim=0).tolist()
        squares = torch.cat(self._squares).double().cpu().mean(dim=0).tolist()
        mean, std = self._moments.mean_std()
        return {
            "validation_loss": total,
            "reconstruction": reconstruction,
            "kl": kl,
            **{
                f"rmse_{name}": square**0.5 * self.normalization.targets[name].std
                for name, square in zip(self.targets, squares, strict=True)
            },
            "latent_std_smallest": float(std.min()),
            "latent_std_largest": float(std.max()),
            "latent_mean_largest": float(mean.abs().max()),
        }


class Moments:
    """Mean and standard deviation of every channel of a stream of latents (N, C, h, w)."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, latents: Tensor) -> None:
        """Take some latents in."""
        # Latents lie around 0, so sums of squares lose nothing in float64.
        values = latents.detach().double().cpu()
        self._count += values.numel() // values.shape[1]
        self._sum += values.sum(dim=(0, 2, 3))
        self._squares += values.square().sum(dim=(0, 2, 3))

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """Both, (C,), float64."""
        mean = self._sum / self._count
        return mean, (self._squares / self._count - mean.square()).clamp(min=0).sqrt()


@torch.no_grad()
def standardise_latents(vae: VAE, mean: Tensor, std: Tensor) -> None:
    """Shift and scale the latent's channels, in the weights: new = (old - ``mean``) / ``std``, both (C,).

    What the VAE makes of a field stays the same, since the decoder's first layer undoes it.
    """
    encode, decode = vae.to_moments, vae.to_decoder
    assert encode.bias is not None
    assert decode.bias is not None
    channels = len(mean)
    mean, std = mean.to(encode.weight), std.to(encode.weight)
    encode.weight[:channels] /= std[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / std
    encode.bias[channels:] -= 2 * std.log()
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= std[None, :, None, None]


def train_vae(
    config: VAETrainConfig,
    store_path: str | Path,
    unet: str | Path,
    out_dir: str | Path,
    *,
    resume: bool = True,
    progress: Report | None = None,
) -> Path:
    """Train a VAE on what a UNet leaves and write both as a checkpoint file of kind ``"vae"``.

    Parameters
    ----------
    store_path : store with all predictors, the UNet's targets as fine truth, and statics
    unet : checkpoint of a UNet for the same domain
    out_dir, resume, progress : as in :func:`train.unet.train_unet`

    Returns
    -------
    ``out_dir / "<name>.safetensors"``: the UNet as it was and the VAE with the smallest validation loss.

    Raises
    ------
    TrainError, SampleError, StoreError, CheckpointError
        as in :func:`train.unet.train_unet`, and where the UNet does not fit the store.
    """
    report: Report = progress or (lambda status: None)
    store = Store.open(store_path)
    parent = load_parent(unet, ("unet",), store, config)
    targets, normalization = parent.header.targets, parent.header.normalization
    network = frozen_unet(parent)
    depth, ratio = len(config.features), store.domain.ratio
    if 1 << depth != ratio:
        raise TrainError(
            f"A VAE with {depth} features makes latents {1 << depth} times coarser than the fine grid; the "
            f"coarse cells of {store.domain.name} are {ratio} times larger, and both must agree. Give as "
            "many features as it takes halvings."
        )
    parts = usable_hours(config, store, targets, max(ratio, network.side_multiple), "its UNet")
    train = draw(parts.train, config.train_hours, config.seed)
    validation = draw(parts.validation, config.validation_hours, config.seed)
    data = {**data_identity(store, train, validation), "unet": parent.file_hash}
    run = StageRun.find(config, data, out_dir, resume=resume)
    if run.done:
        return run.result
    means = Means(network, store, normalization, targets, run.torch_device)
    with torch_threads(config.threads):
        bytes_needed = 2 * (train.size + validation.size) * len(targets) * _pixels(store)
        if bytes_needed <= 1e9 * config.cache_gb:
            datasets = tuple(
                ResidualDataset(means.residuals(hours, _telling(report, what)), ratio, crop, config.seed)
                for hours, what, crop in (
                    (train, "training", config.crop),
                    (validation, "validation", None),
                )
            )
        else:
            datasets = hour_datasets(config, store, train, validation, normalization, targets, report)
    run.begin(normalization)

    pictured = means.whole(validation[:1]) if config.pictures else None
    task = VAETask(config, normalization, targets, network, pictured)
    run.fit(task, loaders(config, *datasets, run.where), report)

    best = run.best()
    weights = best["state_dict"]
    vae = VAE(task.model_config)
    vae.load_state_dict({k.removeprefix("vae."): w for k, w in weights.items() if k.startswith("vae.")})
    with torch_threads(config.threads):
        latents = _finish(
            vae, means, draw(train, HOURS_FOR_MOMENTS, config.seed), config.scale_latents, report
        )
    provenance = {
        **run.provenance(best, store, parts, train, validation, {"unet": parent}),
        **latents,
    }
    models = {"unet": network.config, "vae": task.model_config}
    ranges = parent.header.description.ranges
    header = make_header("vae", config, store, targets, normalization, models, provenance, ranges)
    parts_of_file = {"unet": network, "vae": vae}
    return run.save(
        header,
        {f"{part}.{k}": w for part, module in parts_of_file.items() for k, w in module.state_dict().items()},
    )


def _pixels(store: Store) -> int:
    height, width = store.domain.fine.shape
    return height * width


def _telling(report: Report, what: str) -> Any:
    return lambda done, total: report(Status(f"Residuals of {what} hours", done, total, "hours"))


@torch.inference_mode()
def _latent_moments(vae: VAE, means: Means, hours: Hours, report: Report) -> tuple[Tensor, Tensor]:
    moments = Moments(vae.config.latent_channels)
    for number, (_, truth, mean) in enumerate(means.hours(hours)):
        moments.add(vae.encode(truth - mean).mean)
        report(Status("Moments of the latent", number + 1, hours.size, "hours"))
    return moments.mean_std()


def _finish(vae: VAE, means: Means, hours: Hours, scale: bool, report: Report) -> dict[str, Any]:
    """Scale the latent where that is wanted; its moments, for the provenance."""
    vae.to(means.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    mean, std = _latent_moments(vae, means, hours, report)
    said: dict[str, Any] = {}
    if scale:
        said = {"latent_mean_trained": _rounded(mean), "latent_std_trained": _rounded(std)}
        divisor = std.clamp(min=SMALLEST_SHARE * float(std.max()))
        standardise_latents(vae, mean, divisor)
        mean, std = torch.zeros_like(mean), std / divisor
    vae.cpu()
    return {
        **said,
        "latent_mean": _rounded(mean),
        "latent_std": _rounded(std),
        "latent_hours": int(hours.size),
    }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]
