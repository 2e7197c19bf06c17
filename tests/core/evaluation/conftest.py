"""The small store and networks of the tests of downscalers."""

from tests.core.downscale.conftest import (
    normalization as normalization,
)
from tests.core.downscale.conftest import save_ldm as save_ldm
from tests.core.downscale.conftest import save_unet as save_unet
from tests.core.downscale.conftest import store as store
from tests.core.downscale.conftest import times as times
