"""UNet and GAN from checkpoints: results, batches, refusals, and contradictions in files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.checkpoint import CheckpointError, identity, load
from core.data.samples import MeanStd, Normalization
from core.data.store import Store
from core.domain import Domain
from core.downscale import DownscaleError, UNetDownscaler, from_checkpoint, unet_bytes_per_hour
from core.models.unet import UNet, UNetConfig
from core.variables import PREDICTORS
from tests.core.downscale.form import OTHER, check_form
from tests.synthetic_store import DOMAIN

SaveModel = Callable[..., Path]


def test_unet_equals_the_network_by_hand(
    store: Store, save_unet: SaveModel, normalization: Normalization
) -> None:
    path = save_unet()
    downscaler = from_checkpoint(path, device="cpu")
    coarse, static = store.read_coarse(), store.read_static()
    assert downscaler.obstacles(store.contents, store.domain) == []
    assert downscaler.key == f"unet-{identity(path)[:8]}"
    assert (downscaler.label, downscaler.targets, downscaler.inputs) == ("UNet (unet)", ("t2m",), PREDICTORS)
    result = downscaler.downscale(coarse, static, DOMAIN)
    check_form(result, coarse)

    checkpoint = load(path)
    model = UNet(UNetConfig(features=(4, 4)))
    checkpoint.restore("unet", model)
    with torch.no_grad():
        fine = model.eval()(
            normalization.predictors_to_tensor(coarse), normalization.statics_to_tensor(static)[None]
        )
    expected = fine[:, 0].numpy() * normalization.targets["t2m"].std + normalization.targets["t2m"].mean
    np.testing.assert_allclose(result["t2m"].values, expected, rtol=0, atol=1e-3)


def test_batches_do_not_change_the_result(store: Store, save_unet: SaveModel) -> None:
    path = save_unet()
    gib = unet_bytes_per_hour(UNetConfig(features=(4, 4)), DOMAIN) / 2**30
    coarse, static = store.read_coarse(), store.read_static()
    results = [
        from_checkpoint(path, device="cpu", memory_gib=memory, threads=1).downscale(coarse, static, DOMAIN)
        for memory in (0.0, 2.5 * gib, None)
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result["t2m"].values, results[0]["t2m"].values, rtol=0, atol=1e-3)


def test_memory_budget_bounds_the_batch(
    store: Store, save_unet: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    forward = UNet.forward

    def watched(self: UNet, coarse: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
        sizes.append(len(coarse))
        return forward(self, coarse, static)

    monkeypatch.setattr(UNet, "forward", watched)
    gib = unet_bytes_per_hour(UNetConfig(features=(4, 4)), DOMAIN) / 2**30
    for memory, expected in ((2.5 * gib, [2, 2, 1]), (0.0, [1] * 5)):
        sizes.clear()
        downscaler = from_checkpoint(save_unet(), device="cpu", memory_gib=memory)
        downscaler.downscale(store.read_coarse(), store.read_static(), DOMAIN)
        assert sizes == expected


def test_several_targets(store: Store, save_unet: SaveModel, normalization: Normalization) -> None:
    both = normalization.model_copy(
        update={"targets": {"v10": MeanStd(mean=1, std=2), "t2m": normalization.targets["t2m"]}}
    )
    path = save_unet(config={"features": (4,), "out_channels": 2}, targets=("t2m", "v10"), normalization=both)
    result = from_checkpoint(path, device="cpu").downscale(store.read_coarse(), store.read_static(), DOMAIN)
    assert list(result) == ["t2m", "v10"]
    check_form(result, store.read_coarse())
    assert float(result["t2m"].mean()) > 200
    assert abs(float(result["v10"].mean())) < 20


def test_unet_says_what_it_lacks(store: Store, save_unet: SaveModel) -> None:
    downscaler = from_checkpoint(save_unet(), device="cpu")
    poor = replace(store.contents, predictors=("t2m", "msl"), statics=("latitude", "orography"))
    missing, statics, domain = downscaler.obstacles(poor, OTHER)
    assert missing.endswith("lacks: u10, v10, d2m, sst, sd, tp, ssrd, q850, t850, u850, v850, w850.")
    assert statics.endswith("lacks: land_cover.")
    assert "Small" in domain
    assert "Elsewhere" in domain
    renamed = Domain(name="Another name", fine=DOMAIN.fine, ratio=DOMAIN.ratio)
    assert downscaler.obstacles(store.contents, renamed) == []


def test_gaps_are_refused_except_in_sst(times: np.ndarray, store: Store, save_unet: SaveModel) -> None:
    downscaler = from_checkpoint(save_unet(), device="cpu")
    coarse, static = store.read_coarse(), store.read_static()
    assert np.isnan(coarse["sst"].values).any()
    assert np.isfinite(downscaler.downscale(coarse, static, DOMAIN)["t2m"].values).all()
    coarse["d2m"][3, 0, 0] = np.nan
    hour = np.datetime_as_string(times[3], unit="h")
    with pytest.raises(DownscaleError, match=rf"d2m has missing values .* at {hour}"):
        downscaler.downscale(coarse, static, DOMAIN)
    with pytest.raises(DownscaleError, match="static fields"):
        downscaler.downscale(store.read_coarse(), None, DOMAIN)
    with pytest.raises(DownscaleError, match="static fields have 32 x 64"):
        downscaler.downscale(store.read_coarse(), static.isel(y=slice(0, 32)), DOMAIN)
    with pytest.raises(DownscaleError, match="land_cover"):
        downscaler.downscale(store.read_coarse(), static.drop_vars("land_cover"), DOMAIN)


@pytest.mark.parametrize(
    ("config", "changes", "sentence"),
    [
        ({"features": (4, 4)}, {"kind": "vae"}, "a part of latent diffusion models, which can't run alone"),
        ({"features": (4, 4)}, {"kind": "ldm_res"}, "holds the parts unet; a latent diffusion model has"),
        ({"features": (4, 4)}, {"models": {"unet": {"features": [4, 8]}}}, "wrong shape"),
        ({"features": (4, 4)}, {"models": {"unet": {"features": [4]}}}, "does not know"),
        ({"features": (4, 4)}, {"models": {"unet": {"features": [4, 4, 4]}}}, "lacks weights"),
        ({"features": (4, 4)}, {"models": {"unet": {"features": [8192] * 2}}}, "wrong shape"),
        ({"features": (4, 4)}, {"models": {"unet": {"width": 4}}}, "wrong configuration of the UNet: width"),
        ({"features": (4,), "out_channels": 2}, {}, "32 inputs and 2 outputs"),
        ({"features": (4, 4)}, {"statics": ("orography",)}, "static fields orography; a UNet takes"),
        ({"features": (4,) * 7}, {}, "multiples of 128, but its domain has 64 x 64"),
    ],
)
def test_contradictions_in_a_checkpoint_are_named(
    save_unet: SaveModel, config: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    path = save_unet(config=config, **changes)
    with pytest.raises(CheckpointError, match=sentence) as error:
        from_checkpoint(path)
    assert str(path) in str(error.value)


def test_a_checkpoint_of_another_kind_is_no_unet(save_unet: SaveModel) -> None:
    with pytest.raises(CheckpointError, match=r"kind vae .*, not a UNet"):
        UNetDownscaler(save_unet(kind="vae"))


def test_a_gan_runs_as_its_generator(store: Store, save_unet: SaveModel) -> None:
    unet, gan = save_unet("a"), save_unet("b", kind="gan", label="GAN")
    coarse, static = store.read_coarse(), store.read_static()
    downscaler = from_checkpoint(gan, device="cpu")
    assert (downscaler.label, downscaler.stochastic) == ("GAN", False)
    assert downscaler.key == f"gan-{identity(gan)[:8]}"
    expected = from_checkpoint(unet, device="cpu").downscale(coarse, static, DOMAIN)
    np.testing.assert_array_equal(
        downscaler.downscale(coarse, static, DOMAIN)["t2m"].values, expected["t2m"].values
    )


def test_threads_are_set_while_it_runs(
    times: np.ndarray, store: Store, save_unet: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = UNet.forward

    def watched(self: UNet, coarse: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return forward(self, coarse, static)

    monkeypatch.setattr(UNet, "forward", watched)
    before = torch.get_num_threads()
    coarse, static = store.read_coarse(times[:1]), store.read_static()
    path = save_unet()
    monkeypatch.setenv("TRAMONTANA_THREADS", "2")
    for threads in (None, 1):
        from_checkpoint(path, device="cpu", threads=threads).downscale(coarse, static, DOMAIN)
    monkeypatch.delenv("TRAMONTANA_THREADS")
    from_checkpoint(path, device="cpu").downscale(coarse, static, DOMAIN)
    assert seen == [2, 1, before]
    assert torch.get_num_threads() == before
