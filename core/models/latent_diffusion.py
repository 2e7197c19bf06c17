"""The latent diffusion model: UNet, VAE, conditioner and denoiser joined.

Tomasi, Franch and Cristoforetti, arXiv 2406.13627, section 3 (LDM_res): a fine field is the UNet's mean plus
a residual, which a denoiser generates on the VAE's latent grid, told of the hour by the conditioner. LDM_PDE
(Rosu et al.) is the same network, trained further. How latents are sampled is :mod:`core.diffusion`'s part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from core.diffusion.schedule import Parameterization, Schedule
from core.models import conditioner, denoiser, unet, vae
from core.models.afno import ModeTruncation
from core.models.conditioner import Conditioner, ConditionerConfig
from core.models.denoiser import Averages, Denoiser, DenoiserConfig
from core.models.unet import UNet, UNetConfig
from core.models.vae import VAE, VAEConfig

PARTS = ("unet", "vae", "conditioner", "denoiser")


class LatentDiffusionConfig(BaseModel):
    """The sizes of the four parts and what the denoiser predicts; the defaults are the published ones.

    Raises pydantic's ValidationError where the parts do not fit together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unet: UNetConfig = UNetConfig()
    vae: VAEConfig = VAEConfig()
    conditioner: ConditionerConfig = ConditionerConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    parameterization: Parameterization = "v"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        net, vae, conditioner, denoiser = self.unet, self.vae, self.conditioner, self.denoiser
        pairs: dict[str, tuple[object, object]] = {
            "The UNet's inputs and the conditioner's coarse and static channels": (
                net.in_channels,
                conditioner.coarse_channels + conditioner.static_channels,
            ),
            "The UNet's outputs and the VAE's fields": (net.out_channels, vae.in_channels),
            "The VAE's latent channels and the denoiser's inputs": (
                vae.latent_channels,
                denoiser.in_channels,
            ),
            "The denoiser's inputs and outputs": (denoiser.in_channels, denoiser.out_channels),
            "The halvings in VAE and conditioner": (vae.levels, len(conditioner.static_features)),
            "The context channels of conditioner and denoiser": (
                conditioner.context_channels,
                denoiser.context_channels,
            ),
        }
        for what, (first, second) in pairs.items():
            if first != second:
                raise ValueError(f"{what} must be the same; got {first} and {second}.")
        return self

    @classmethod
    def from_weights(
        cls,
        state: Mapping[str, Tensor],
        *,
        parameterization: Parameterization = "v",
        truncate_modes: ModeTruncation = "none",
    ) -> Self:
        """The sizes of the :class:`LatentDiffusion` whose weights are ``state``.

        Weights tell neither what the denoiser predicts nor which modes its filters and the conditioner's
        pass on; for published ones that is ``"v"`` and ``"published"``.

        Raises ValueError if a weight is missing from which a size follows, or if the parts do not fit.
        """
        parts = {
            part: {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
            for part in PARTS
        }
        return cls(
            unet=UNetConfig.from_weights(parts["unet"]),
            vae=VAEConfig.from_weights(parts["vae"]),
            conditioner=ConditionerConfig.from_weights(parts["conditioner"], truncate_modes=truncate_modes),
            denoiser=DenoiserConfig.from_weights(parts["denoiser"], truncate_modes=truncate_modes),
            parameterization=parameterization,
        )


class LatentDiffusion(nn.Module):
    """Coarse predictors and statics to fine fields, by way of latents; all fields are standardised.

    ``coarse`` is (N, predictors, h, w), ``static`` (N or 1, 18, H, W), a latent ``z`` (N, latent, h, w); at
    published size H = 8 h, and fine sides are multiples of 32. One sample is::

        context = model.condition(coarse, static)
        z = ...  # a sampler of core.diffusion with lambda z, t: model.denoise(z, t, context)
        fine = model.mean(coarse, static) + model.decode(z)
    """

    def __init__(self, config: LatentDiffusionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LatentDiffusionConfig()
        self.unet = UNet(config.unet)
        self.vae = VAE(config.vae)
        self.conditioner = Conditioner(config.conditioner)
        self.denoiser = Denoiser(config.denoiser)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Switch the parts that learn here; the UNet stays as it is used.

        In training mode its batch statistics would drift away from the weights, as they did in the published
        models.
        """
        super().train(mode)
        self.unet.eval()
        return self

    @property
    def latent_ratio(self) -> int:
        """How many times coarser than the fine grid the latents are."""
        return self.vae.side_multiple

    @property
    def side_multiple(self) -> int:
        """Number of which both fine sides must be multiples."""
        return max(
            self.unet.side_multiple,
            self.conditioner.side_multiple,
            self.latent_ratio * self.denoiser.side_multiple,
        )

    def latent_shape(self, static: Tensor) -> tuple[int, int, int]:
        """Channels, height and width of the latents that go with ``static`` (..., H, W)."""
        height, width = static.shape[-2:]
        ratio = self.latent_ratio
        return self.config.vae.latent_channels, height // ratio, width // ratio

    def mean(self, coarse: Tensor, static: Tensor) -> Tensor:
        """The UNet's estimate (N, targets, H, W), to which residuals are added."""
        result: Tensor = self.unet(coarse, static)
        return result

    def condition(
        self, coarse: Tensor, static: Tensor, *, encoded_static: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """What the denoiser is told: one tensor (N, channels, h / 2^i, w / 2^i) per level.

        It is the same for all steps and members of an hour. ``encoded_static``, a result of
        :meth:`Conditioner.encode_static`, spares encoding ``static`` again at every hour.
        """
        if encoded_static is None:
            encoded_static = self.conditioner.encode_static(static)
        contexts = self.conditioner.contexts(coarse, encoded_static)
        # The denoiser joins them with its own fields at every step, which is slow for other layouts.
        return tuple(context.contiguous() for context in contexts)

    def denoise(self, z: Tensor, t: Tensor, context: Sequence[Tensor]) -> Tensor:
        """The denoiser's output, of the shape of ``z``, for noisy latents ``z`` at time steps ``t`` (N,).

        ``config.parameterization`` says what it is, and :class:`core.diffusion.schedule.Schedule` converts.
        """
        result: Tensor = self.denoiser(z, t, context)
        return result

    def decode(self, z: Tensor) -> Tensor:
        """The residual (N, targets, H, W) of latents ``z`` without noise."""
        return self.vae.decode(z)


SCHEDULE_BUFFERS = {
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
}
PUBLISHED_PARTS = (
    r"(autoencoder\.(?!unet_regr\.)|autoencoder\.unet_regr\.net\.|context_encoder\.|denoiser(_ema)?\.)"
)


def from_published_names(state: Mapping[str, Tensor], *, ema: Averages = True) -> dict[str, Tensor]:
    """A published latent diffusion model's state dict under the names of :class:`LatentDiffusion`.

    The UNet is the one inside the checkpoint (``autoencoder.unet_regr.net.``): its batch statistics drifted
    while VAE and denoiser were trained, and both got used to them, so the separate UNet does not fit.

    Left out on purpose are the second names of the layers that residual blocks register twice; the tables of
    the noise schedule, once they prove to be those of :class:`core.diffusion.schedule.Schedule`; and of the
    denoiser's two sets of weights the raw one, or with ``ema=False`` the averages (see
    :data:`core.models.denoiser.Averages`).

    Raises ValueError if an entry belongs to no part, if a part or the averages are missing, if the two
    entries of a layer stored twice differ, or if the noise schedule is another.
    """
    for key, tensor in state.items():
        if key == "alphas_cumprod":
            _check_schedule(tensor)
        elif key not in SCHEDULE_BUFFERS and not re.match(PUBLISHED_PARTS, key):
            raise ValueError(f"{key} is not part of a published latent diffusion model.")
    weights = {
        "unet": unet.from_published_names(state, "autoencoder.unet_regr.net."),
        "vae": vae.from_published_names(state, "autoencoder."),
        "conditioner": conditioner.from_published_names(state, "context_encoder."),
        "denoiser": denoiser.from_published_names(state, "denoiser.", ema=ema),
    }
    return {f"{part}.{name}": weights[part][name] for part in PARTS for name in weights[part]}


def _check_schedule(alpha_bar: Tensor) -> None:
    """Raise ValueError unless a recorded table is that of the published schedule; without data, no check."""
    expected = torch.from_numpy(Schedule().alpha_bar.copy())
    if alpha_bar.shape != expected.shape or not (
        alpha_bar.is_meta or torch.allclose(alpha_bar.double().cpu(), expected, rtol=1e-4, atol=0.0)
    ):
        raise ValueError(
            "The model was trained with another noise schedule than the published one of 1000 steps with "
            "betas from 1e-4 to 2e-2, linear in their square root. Only that one can be imported."
        )
