"""Downscalers: anything that maps coarse and static fields to fine ones, behind one interface.

Two interpolations that always come along, and networks from checkpoints: UNet and GAN, which give one field
per hour, and latent diffusion models, which give ensembles. A downscaler says from the contents of a store
why it can't run there, before anything is computed.
"""

from core.downscale.base import DownscaleError as DownscaleError
from core.downscale.base import Downscaler as Downscaler
from core.downscale.catalogue import find_downscalers as find_downscalers
from core.downscale.catalogue import from_checkpoint as from_checkpoint
from core.downscale.devices import choose_device as choose_device
from core.downscale.devices import default_threads as default_threads
from core.downscale.generative import GenerativeDownscaler as GenerativeDownscaler
from core.downscale.interpolations import LapseRateInterpolation as LapseRateInterpolation
from core.downscale.interpolations import QuadraticInterpolation as QuadraticInterpolation
from core.downscale.interpolations import interpolations as interpolations
from core.downscale.memory import unet_bytes_per_hour as unet_bytes_per_hour
from core.downscale.network import NetworkDownscaler as NetworkDownscaler
from core.downscale.regression import UNetDownscaler as UNetDownscaler
from core.downscale.run import RunProgress as RunProgress
from core.downscale.run import downscale_to_file as downscale_to_file
from core.downscale.sampling import Sampling as Sampling
from core.downscale.sampling import SamplingStep as SamplingStep
from core.downscale.sampling import collect as collect
from core.downscale.start_noise import NoiseFile as NoiseFile
from core.downscale.stored import StoredOutput as StoredOutput
from core.downscale.stored import stored_outputs as stored_outputs
from core.downscale.stores import downscale_store as downscale_store
from core.downscale.workers import Workers as Workers
