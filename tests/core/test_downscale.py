"""Downscalers on small stores of invented weather: results, obstacles, refusals, and files of a folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from core.checkpoint import CheckpointError, Header, load, save
from core.data.samples import MeanStd, Normalization, compute_normalization
from core.data.store import Store
from core.domain import Domain
from core.downscale import (
    DownscaleError,
    Downscaler,
    UNetDownscaler,
    choose_device,
    default_threads,
    downscale_store,
    find_downscalers,
    from_checkpoint,
    interpolations,
    unet_bytes_per_hour,
)
from core.interpolation import quadratic
from core.models.unet import UNet, UNetConfig
from core.variables import PREDICTORS, VARIABLES
from tests.synthetic_store import DOMAIN, hours_of_weeks, make_store

STATICS = ("orography", "land_cover", "latitude")
OTHER = Domain.regular("Elsewhere", left=4.2e6, top=2.5e6, shape=(64, 64), spacing=2000.0, ratio=8)
TIMES = hours_of_weeks(weeks=1, per_week=5)
SaveUNet = Callable[..., Path]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "full.zarr", TIMES)


@pytest.fixture(scope="module")
def normalization(store: Store) -> Normalization:
    return compute_normalization(store, store.hours)


@pytest.fixture
def save_unet(tmp_path: Path, normalization: Normalization) -> SaveUNet:
    """Writes a small untrained UNet as a checkpoint, with any part of its header changed."""

    def write(
        name: str = "unet", *, seed: int = 0, config: dict[str, Any] | None = None, **changes: Any
    ) -> Path:
        torch.manual_seed(seed)
        chosen = UNetConfig(**(config or {"features": (4, 4)}))
        model = UNet(chosen)
        # Running statistics as after training, so that evaluation differs from the identity.
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
        values: dict[str, Any] = {
            "kind": "unet",
            "label": f"UNet ({name})",
            "models": {"unet": chosen.model_dump(mode="json")},
            "predictors": PREDICTORS,
            "statics": STATICS,
            "targets": ("t2m",),
            "normalization": normalization,
            "domain": DOMAIN.to_dict(),
        }
        path = tmp_path / "checkpoints" / f"{name}.safetensors"
        save(
            path,
            Header(**(values | changes)),
            {f"unet.{key}": tensor for key, tensor in model.state_dict().items()},
        )
        return path

    return write


def by_key(key: str) -> Downscaler:
    return next(downscaler for downscaler in interpolations() if downscaler.key == key)


def check_form(result: xr.Dataset, coarse: xr.Dataset, domain: Domain = DOMAIN) -> None:
    assert (result["time"].values == coarse["time"].values).all()
    assert domain.fine.matches(result["x"].values, result["y"].values)
    for name, field in result.items():
        assert field.dims == ("time", "y", "x")
        assert field.dtype == np.float32
        assert field.attrs == VARIABLES[str(name)].attrs


# --- interpolations


def test_quadratic_gives_every_target_there_is(store: Store) -> None:
    coarse = store.read_coarse()
    result = by_key("quadratic").downscale(coarse, None, DOMAIN)
    assert set(result) == {"t2m", "u10", "v10", "tp"}
    check_form(result, coarse)
    for name in ("t2m", "u10", "v10"):
        np.testing.assert_array_equal(result[name].values, quadratic(coarse[name].values, 8))
    raw = quadratic(coarse["tp"].values, 8)
    assert raw.min() < 0
    np.testing.assert_array_equal(result["tp"].values, np.maximum(raw, 0))


def test_order_of_dimensions_does_not_matter(store: Store) -> None:
    coarse = store.read_coarse()
    for downscaler in interpolations():
        straight = downscaler.downscale(coarse, store.read_static(), DOMAIN)
        turned = downscaler.downscale(coarse.transpose("x", "time", "y"), store.read_static(), DOMAIN)
        xr.testing.assert_identical(straight, turned)


def test_lapse_rate_follows_the_relief(store: Store) -> None:
    """Exact where the sea-level temperature and the lapse rate are the same everywhere."""
    coarse = store.read_coarse()
    coarse["t2m"] = xr.full_like(coarse["t2m"], 285.0) - 0.0065 * coarse["orography"]
    truth = 285.0 - 0.0065 * store.read_static()["orography"].expand_dims(time=TIMES)
    result = by_key("lapse_rate").downscale(coarse, store.read_static(), DOMAIN)
    assert set(result) == {"t2m"}
    check_form(result, coarse)
    np.testing.assert_allclose(result["t2m"].values, truth.values, rtol=0, atol=1e-3)
    plain = by_key("quadratic").downscale(coarse, None, DOMAIN)["t2m"]
    assert float(abs(plain - truth).mean()) > 1.0


def test_cells_without_data_are_masked(store: Store) -> None:
    coarse = store.read_coarse(TIMES[:1])
    coarse["t2m"][0, 2, 3] = np.nan
    for downscaler in interpolations():
        field = downscaler.downscale(coarse, store.read_static(), DOMAIN)["t2m"].values[0]
        expected = np.zeros(DOMAIN.fine.shape, bool)
        expected[16:24, 24:32] = True
        assert (np.isnan(field) == expected).all()


def test_interpolations_run_on_a_complete_store(store: Store) -> None:
    assert [d.key for d in interpolations()] == ["quadratic", "lapse_rate"]
    assert not any(d.obstacles(store.contents, store.domain) for d in interpolations())


def test_interpolations_say_what_they_lack(store: Store) -> None:
    bare = replace(store.contents, predictors=("msl",), coarse_orography=False, statics=("latitude",))
    (sentence,) = by_key("quadratic").obstacles(bare, DOMAIN)
    assert "t2m, u10, v10, tp" in sentence
    assert by_key("quadratic").obstacles(replace(bare, predictors=("u10",)), DOMAIN) == []
    sentences = by_key("lapse_rate").obstacles(bare, DOMAIN)
    assert ["(t2m)" in sentences[0], "coarse model" in sentences[1], "fine orography" in sentences[2]] == [
        True
    ] * 3
    assert len(by_key("lapse_rate").obstacles(replace(store.contents, coarse_orography=False), DOMAIN)) == 1


def test_missing_fields_are_refused_with_a_sentence(store: Store) -> None:
    coarse, static = store.read_coarse(TIMES[:1]), store.read_static()
    cases = [
        ("quadratic", coarse[["msl"]], static, "needs one of t2m"),
        ("lapse_rate", coarse.drop_vars("orography"), static, "orography of the coarse model"),
        ("lapse_rate", coarse, None, "fine orography"),
        ("lapse_rate", coarse.drop_vars("t2m"), static, "t2m"),
    ]
    for key, fields, statics, sentence in cases:
        with pytest.raises(DownscaleError, match=sentence):
            by_key(key).downscale(fields, statics, DOMAIN)
    with pytest.raises(DownscaleError, match="coarse grid of Elsewhere"):
        by_key("quadratic").downscale(coarse, static, OTHER)


# --- UNet


def test_unet_equals_the_network_by_hand(
    store: Store, save_unet: SaveUNet, normalization: Normalization
) -> None:
    path = save_unet()
    downscaler = from_checkpoint(path, device="cpu")
    coarse, static = store.read_coarse(), store.read_static()
    assert downscaler.obstacles(store.contents, store.domain) == []
    assert downscaler.key == f"unet-{load(path).file_hash[:8]}"
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


def test_batches_do_not_change_the_result(store: Store, save_unet: SaveUNet) -> None:
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
    store: Store, save_unet: SaveUNet, monkeypatch: pytest.MonkeyPatch
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


def test_several_targets(store: Store, save_unet: SaveUNet, normalization: Normalization) -> None:
    both = normalization.model_copy(
        update={"targets": {"v10": MeanStd(mean=1, std=2), "t2m": normalization.targets["t2m"]}}
    )
    path = save_unet(config={"features": (4,), "out_channels": 2}, targets=("t2m", "v10"), normalization=both)
    result = from_checkpoint(path, device="cpu").downscale(store.read_coarse(), store.read_static(), DOMAIN)
    assert list(result) == ["t2m", "v10"]
    check_form(result, store.read_coarse())
    assert float(result["t2m"].mean()) > 200
    assert abs(float(result["v10"].mean())) < 20


def test_unet_says_what_it_lacks(store: Store, save_unet: SaveUNet) -> None:
    downscaler = from_checkpoint(save_unet(), device="cpu")
    poor = replace(store.contents, predictors=("t2m", "msl"), statics=("latitude", "orography"))
    missing, statics, domain = downscaler.obstacles(poor, OTHER)
    assert missing.endswith("lacks: u10, v10, d2m, sst, sd, tp, ssrd, q850, t850, u850, v850, w850.")
    assert statics.endswith("lacks: land_cover.")
    assert "Small" in domain
    assert "Elsewhere" in domain
    renamed = Domain(name="Another name", fine=DOMAIN.fine, ratio=DOMAIN.ratio)
    assert downscaler.obstacles(store.contents, renamed) == []


def test_gaps_are_refused_except_in_sst(store: Store, save_unet: SaveUNet) -> None:
    downscaler = from_checkpoint(save_unet(), device="cpu")
    coarse, static = store.read_coarse(), store.read_static()
    assert np.isnan(coarse["sst"].values).any()
    assert np.isfinite(downscaler.downscale(coarse, static, DOMAIN)["t2m"].values).all()
    coarse["d2m"][3, 0, 0] = np.nan
    hour = np.datetime_as_string(TIMES[3], unit="h")
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
        ({"features": (4, 4)}, {"kind": "gan"}, "kind gan; this version runs unet"),
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
    save_unet: SaveUNet, config: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    path = save_unet(config=config, **changes)
    with pytest.raises(CheckpointError, match=sentence) as error:
        from_checkpoint(path)
    assert str(path) in str(error.value)


def test_a_checkpoint_of_another_kind_is_no_unet(save_unet: SaveUNet) -> None:
    with pytest.raises(CheckpointError, match=r"kind gan .*, not a UNet"):
        UNetDownscaler(load(save_unet(kind="gan")))


def test_threads_are_set_while_it_runs(
    store: Store, save_unet: SaveUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = UNet.forward

    def watched(self: UNet, coarse: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return forward(self, coarse, static)

    monkeypatch.setattr(UNet, "forward", watched)
    before = torch.get_num_threads()
    coarse, static = store.read_coarse(TIMES[:1]), store.read_static()
    path = save_unet()
    monkeypatch.setenv("TRAMONTANA_THREADS", "2")
    for threads in (None, 1):
        from_checkpoint(path, device="cpu", threads=threads).downscale(coarse, static, DOMAIN)
    monkeypatch.delenv("TRAMONTANA_THREADS")
    from_checkpoint(path, device="cpu").downscale(coarse, static, DOMAIN)
    assert seen == [2, 1, before]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_wrong_thread_counts_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TRAMONTANA_THREADS", text)
    with pytest.raises(DownscaleError, match="TRAMONTANA_THREADS"):
        default_threads()


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in ("cpu", "cuda", "mps")
    for name in ("quantum", "cuda:99"):
        with pytest.raises(DownscaleError, match=name):
            choose_device(name)


# --- folders and stores


def test_a_folder_gives_what_it_can(save_unet: SaveUNet) -> None:
    first, second = save_unet("b"), save_unet("a", seed=1)
    folder = first.parent
    (folder / "copy.safetensors").write_bytes(first.read_bytes())
    (folder / "broken.safetensors").write_bytes(first.read_bytes()[:-7])
    (folder / ".b.safetensors.1.partial").write_bytes(b"half")
    (folder / ".hidden.safetensors").write_bytes(b"half")
    (folder / "notes.txt").write_text("no checkpoint")
    save_unet("later", kind="ldm")
    found, refused = find_downscalers(folder, device="cpu")
    assert [d.label for d in found] == ["UNet (a)", "UNet (b)"]
    assert [d.key for d in found] == [f"unet-{load(path).file_hash[:8]}" for path in (second, first)]
    assert {path.name: reason.split(str(path))[1].split(".")[0] for path, reason in refused} == {
        "broken.safetensors": " is truncated: it should have at least "
        f"{first.stat().st_size} bytes and has {first.stat().st_size - 7}",
        "copy.safetensors": " is a copy of another checkpoint of this folder",
        "later.safetensors": " holds a model of kind ldm; this version runs unet",
    }


def test_no_folder_holds_nothing(tmp_path: Path) -> None:
    assert find_downscalers(tmp_path / "absent") == ([], [])


def test_a_store_is_downscaled_batch_by_batch(store: Store, save_unet: SaveUNet) -> None:
    downscalers = [*interpolations(), from_checkpoint(save_unet(), device="cpu")]
    batches = list(downscale_store(store, downscalers, batch_hours=2))
    assert [hours.size for hours, _ in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([hours for hours, _ in batches]), TIMES)
    for downscaler in downscalers:
        whole = downscaler.downscale(store.read_coarse(), store.read_static(), DOMAIN)
        parts = xr.concat([results[downscaler.key] for _, results in batches], "time")
        xr.testing.assert_allclose(parts, whole, atol=1e-3)
    ((hours, results),) = downscale_store(store, downscalers[:1], TIMES[3])
    assert hours == TIMES[3]
    assert list(results) == ["quadratic"]


def test_obstacles_stop_before_any_work(tmp_path: Path, save_unet: SaveUNet) -> None:
    store = make_store(tmp_path / "poor.zarr", TIMES, coarse=("t2m",), fine=(), static=False)
    with pytest.raises(DownscaleError, match=r"fine orography.*predictors that the store lacks: msl"):
        next(downscale_store(store, [by_key("lapse_rate"), from_checkpoint(save_unet(), device="cpu")]))
    ((_, results),) = downscale_store(store, [by_key("quadratic")])
    assert set(results["quadratic"]) == {"t2m"}
