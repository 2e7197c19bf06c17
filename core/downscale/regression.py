"""UNet and GAN: one fine field per hour, from the same generator."""

from __future__ import annotations

import torch
import xarray as xr
from torch import nn

from core.checkpoint import Checkpoint, CheckpointError
from core.domain import Domain
from core.downscale.base import fine_dataset
from core.downscale.devices import batch_size, torch_threads
from core.downscale.memory import unet_bytes_per_hour
from core.downscale.network import NetworkDownscaler
from core.models.unet import UNet, UNetConfig
from core.plural import counted
from core.variables import STATIC_CHANNELS


class UNetDownscaler(NetworkDownscaler):
    """The UNet of a checkpoint, hour by hour or many hours at once.

    Also the generator of a GAN, which is the same network trained against a discriminator.
    """

    kinds = ("unet", "gan")
    noun = "a UNet"

    def _check_header(self) -> None:
        self.check_parts(("unet",))
        self._unet_config = check_unet_config(self)

    def _build(self, checkpoint: Checkpoint) -> nn.Module:
        with torch.device("meta"):
            model = UNet(self._unet_config)
        checkpoint.restore("unet", model)
        return model

    def downscale(self, coarse: xr.Dataset, static: xr.Dataset | None, domain: Domain) -> xr.Dataset:
        """The targets on the fine grid.

        A predictor other than sst with a missing value is refused with a sentence that names it and the hour:
        the network would spread it over the whole field.
        """
        inputs, statics = self._tensors(coarse, static, domain)
        model = self._loaded()
        normalization = self.header.normalization
        result = torch.empty(len(inputs), len(self.targets), *domain.fine.shape)
        with torch.inference_mode(), torch_threads(self.threads):
            statics = statics.to(self.device)
            size = batch_size(unet_bytes_per_hour(self._unet_config, domain), self.device, self.memory_gib)
            for start in range(0, len(inputs), size):
                fine = model(inputs[start : start + size].to(self.device), statics)
                result[start : start + size] = normalization.targets_from_tensor(fine, self.targets)
        fields = {name: result[:, channel].numpy() for channel, name in enumerate(self.targets)}
        return fine_dataset(fields, coarse["time"].values, domain)


def check_unet_config(downscaler: NetworkDownscaler) -> UNetConfig:
    """The configuration of the UNet of a checkpoint, agreeing with its variables and domain.

    Raises CheckpointError where it does not.
    """
    header, path = downscaler.header, downscaler.path
    config = downscaler.part_config("unet", UNetConfig)
    downscaler.check_sides(1 << len(config.features))
    channels = len(header.predictors) + STATIC_CHANNELS
    if config.in_channels != channels or config.out_channels != len(header.targets):
        raise CheckpointError(
            f"{path} has a UNet of {counted(config.in_channels, 'input')} and "
            f"{counted(config.out_channels, 'output')}, but names "
            f"variables for {channels} and {len(header.targets)}."
        )
    return config
