"""Residuals, truth minus the frozen UNet's mean, of whole fields: kept in memory or made when needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from core.checkpoint import Checkpoint
from core.data.samples import Hours, Normalization, aligned_corner
from core.data.store import Store
from core.models.unet import UNet, UNetConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
