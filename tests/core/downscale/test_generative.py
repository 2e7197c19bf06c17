"""Latent diffusion models from checkpoints: fields, ensembles, progress, sharing of work, refusals."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from core.checkpoint import CheckpointError, identity, load
from core.data.samples import MeanStd, Normalization
from core.data.store import Store
from core.diffusion.noise import member_noise
from core.diffusion.samplers import dpmpp_2m
from core.diffusion.schedule import Schedule
from core.domain import Domain
from core.downscale import (
    DownscaleError,
    GenerativeDownscaler,
    Sampling,
    SamplingStep,
    collect,
    from_checkpoint,
)
from core.models.conditioner import Conditioner
from core.models.denoiser import Denoiser
from core.models.latent_diffusion import PARTS, LatentDiffusion
from core.models.unet import UNet
from core.models.vae import VAE
from core.variables import VARIABLES
from tests.core.downscale.form import OTHER, check_form
from tests.small_models import small_latent_diffusion
from tests.synthetic_store import DOMAIN, make_store

SaveModel = Callable[..., Path]
FEW = Sampling(steps=3, seed=7)


@pytest.fixture
def ldm(save_ldm: SaveModel) -> GenerativeDownscaler:
    return GenerativeDownscaler(save_ldm(), device="cpu", threads=1)


@pytest.fixture
def coarse(store: Store) -> xr.Dataset:
    """The first three hours."""
    return store.read_coarse(store.hours[:3])


@pytest.fixture
def static(store: Store) -> xr.Dataset:
    return store.read_static()


def by_hand(
    path: Path, coarse: xr.Dataset, static: xr.Dataset, member: int, sampling: Sampling
) -> np.ndarray:
    """Fields (time, y, x) from the network, the sampler and the noise themselves."""
    checkpoint = load(path)
    model = LatentDiffusion(small_latent_diffusion())
    for part in PARTS:
        checkpoint.restore(part, model.get_submodule(part))
    model.eval()
    normalization = checkpoint.header.normalization
    inputs = normalization.predictors_to_tensor(coarse)
    statics = normalization.statics_to_tensor(static)[None]
    fields = []
    with torch.no_grad():
        for row, hour in enumerate(coarse["time"].values):
            one = inputs[row : row + 1]
            context = model.condition(one, statics)
            noise = member_noise((4, 8, 8), seed=sampling.seed, hour=hour, member=member)
            steps = dpmpp_2m(
                lambda z, t, context=context: model.denoise(z, t, context),
                noise[None],
                Schedule(),
                steps=sampling.steps,
                parameterization=checkpoint.header.parameterization,
            )
            *_, last = steps
            fields.append(model.mean(one, statics) + model.decode(last.z))
    return normalization.targets_from_tensor(torch.cat(fields), ("t2m",))[:, 0].numpy()


@pytest.mark.parametrize("parameterization", ["v", "eps"])
def test_equals_the_network_by_hand(
    store: Store, save_ldm: SaveModel, coarse: xr.Dataset, static: xr.Dataset, parameterization: str
) -> None:
    path = save_ldm(parameterization=parameterization)
    downscaler = from_checkpoint(path, device="cpu", threads=1)
    assert isinstance(downscaler, GenerativeDownscaler)
    assert downscaler.stochastic
    assert downscaler.key == f"ldm_res-{identity(path)[:8]}"
    assert downscaler.obstacles(store.contents, store.domain) == []
    result = collect(downscaler.sample(coarse, static, DOMAIN, [0, 3], FEW))
    assert result["t2m"].dims == ("member", "time", "y", "x")
    assert result["t2m"].dtype == np.float32
    assert result["t2m"].attrs == VARIABLES["t2m"].attrs
    assert result["member"].values.tolist() == [0, 3]
    for member in (0, 3):
        expected = by_hand(path, coarse, static, member, FEW)
        np.testing.assert_allclose(result["t2m"].sel(member=member).values, expected, rtol=0, atol=2e-3)


def test_downscale_is_member_0_of_the_default(
    ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset
) -> None:
    result = ldm.downscale(coarse, static, DOMAIN)
    check_form(result, coarse)
    expected = collect(ldm.sample(coarse, static, DOMAIN))
    np.testing.assert_array_equal(result["t2m"].values, expected["t2m"].values[0])
    none = ldm.downscale(coarse.isel(time=slice(0, 0)), static, DOMAIN)
    assert none["t2m"].shape == (0, 64, 64)


def test_members_hours_and_seeds_differ(
    ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset
) -> None:
    coarse = coarse.isel(time=[0, 0]).assign_coords(time=coarse["time"].values[:2])
    first = collect(ldm.sample(coarse, static, DOMAIN, [0, 1], FEW))["t2m"].values
    other = collect(ldm.sample(coarse, static, DOMAIN, [0], FEW.model_copy(update={"seed": 8})))
    fields = [*first.reshape(4, 64, 64), other["t2m"].values[0, 0]]
    differences = [np.abs(a - b).max() for i, a in enumerate(fields) for b in fields[:i]]
    assert min(differences) > 0.1


@pytest.mark.parametrize(
    "sampling", [FEW, Sampling(sampler="ddim", steps=4, eta=0.7), Sampling(sampler="heun", steps=2)]
)
def test_fields_do_not_depend_on_how_they_are_batched(
    ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset, sampling: Sampling
) -> None:
    """Nor on the order of members, or on which others and which hours are asked for."""

    def fields(hours: Sequence[int], members: Sequence[int], batch: int | None) -> xr.DataArray:
        some = coarse.isel(time=list(hours))
        return collect(ldm.sample(some, static, DOMAIN, members, sampling, batch=batch))["t2m"]

    whole = fields([0, 1, 2], [0, 1, 2], None)
    for hours, members, batch in (
        ([0, 1, 2], [0, 1, 2], 1),
        ([0, 1, 2], [0, 1, 2], 2),
        ([0, 1, 2], [2, 0], 5),
        ([2], [1], None),
        ([1, 2], [2, 1, 0], 4),
    ):
        part = fields(hours, members, batch)
        assert part["member"].values.tolist() == members
        same = whole.sel(member=members, time=part["time"])
        np.testing.assert_allclose(part.values, same.values, rtol=0, atol=1e-3)


def test_the_same_batches_give_the_same_bits(
    save_ldm: SaveModel, coarse: xr.Dataset, static: xr.Dataset
) -> None:
    path = save_ldm()
    first, second = (
        collect(
            GenerativeDownscaler(path, device="cpu", threads=1).sample(
                coarse, static, DOMAIN, range(3), FEW, batch=4
            )
        )
        for _ in range(2)
    )
    xr.testing.assert_identical(first, second)


def test_every_step_is_told(ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset) -> None:
    events = list(ldm.sample(coarse, static, DOMAIN, [4, 5], FEW, batch=4))
    kinds = ["hour" if isinstance(event, xr.Dataset) else event.step for event in events]
    assert kinds == [0, 1, 2, 3, "hour", "hour", 0, 1, 2, 3, "hour"]
    steps = [event for event in events if isinstance(event, SamplingStep)]
    assert [step.done for step in steps] == pytest.approx([0, 4 / 3, 8 / 3, 4, 4, 4 + 2 / 3, 4 + 4 / 3, 6])
    assert {step.total for step in steps} == {6}
    assert {step.steps for step in steps} == {3}
    assert steps[0].members == (4, 5, 4, 5)
    times = coarse["time"].values
    assert steps[0].hours == (times[0], times[0], times[1], times[1])
    assert steps[-1].hours == (times[2], times[2])
    assert np.isnan(steps[0].t)
    assert steps[1].t > steps[2].t > steps[3].t
    hours = [event["time"].values for event in events if isinstance(event, xr.Dataset)]
    np.testing.assert_array_equal(np.concatenate(hours), times)


def test_published_time_steps_may_be_more_than_asked_for(
    ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset
) -> None:
    events = ldm.sample(coarse[{"time": [0]}], static, DOMAIN, sampling=Sampling(sampler="ddim", steps=30))
    steps = [event for event in events if isinstance(event, SamplingStep)]
    assert [step.step for step in steps] == list(range(32))
    assert {step.steps for step in steps} == {31}
    assert steps[-1].done == 1


def test_previews_are_decoded_when_asked_for(
    ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = VAE.decode
    monkeypatch.setattr(VAE, "decode", lambda self, z: decoded.append(len(z)) or decode(self, z))
    *steps, first, second = ldm.sample(coarse[{"time": [0, 1]}], static, DOMAIN, [2], FEW)
    assert decoded == [2]
    # The last step of this sampler ends at the estimate itself.
    for position, hour in enumerate((first, second)):
        preview = steps[-1].preview(position)
        xr.testing.assert_allclose(preview, hour, atol=1e-3)
        assert preview["member"].values.tolist() == [2]
    assert decoded == [2, 1, 1]
    mean = steps[0].preview(0)["t2m"].values[0, 0]
    assert decoded == [2, 1, 1]
    model: Any = ldm._loaded()
    normalization = ldm.header.normalization
    with torch.no_grad():
        unet = model.mean(
            normalization.predictors_to_tensor(coarse)[:1], normalization.statics_to_tensor(static)[None]
        )
    expected = normalization.targets_from_tensor(unet, ("t2m",))[0, 0].numpy()
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-3)
    with pytest.raises(IndexError):
        steps[0].preview(2)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Batch sizes of every call of the parts of the network."""
    seen: dict[str, list[int]] = {}
    for name, kind, method in (
        ("mean", UNet, "forward"),
        ("static", Conditioner, "encode_static"),
        ("context", Conditioner, "contexts"),
        ("denoiser", Denoiser, "forward"),
    ):
        plain = getattr(kind, method)
        seen[name] = []

        def watched(self: Any, x: torch.Tensor, *rest: Any, plain: Any = plain, name: str = name) -> Any:
            seen[name].append(len(x))
            return plain(self, x, *rest)

        monkeypatch.setattr(kind, method, watched)
    return seen


def test_work_is_shared(
    ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset, calls: dict[str, list[int]]
) -> None:
    """Statics once, mean and context once per hour; also where a later call asks for the same hour."""
    collect(ldm.sample(coarse, static, DOMAIN, range(4), FEW, batch=5))
    assert calls == {"mean": [1] * 3, "static": [1], "context": [1] * 3, "denoiser": [5] * 6 + [2] * 3}
    collect(ldm.sample(coarse[{"time": [1]}], static, DOMAIN, [9], FEW))
    assert (calls["mean"], calls["static"]) == ([1] * 3, [1])
    changed = coarse[{"time": [1]}].copy(deep=True)
    changed["msl"] += 1000
    collect(ldm.sample(changed, static, DOMAIN, [9], FEW))
    assert (len(calls["mean"]), len(calls["static"])) == (4, 1)
    higher = static.copy(deep=True)
    higher["orography"] += 100
    collect(ldm.sample(changed, higher, DOMAIN, [9], FEW))
    assert (len(calls["mean"]), len(calls["static"])) == (5, 2)


def test_other_orography_makes_other_fields(
    ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset
) -> None:
    first = ldm.downscale(coarse, static, DOMAIN)
    higher = static.copy(deep=True)
    higher["orography"] = higher["orography"][::-1].values.copy() * xr.ones_like(higher["orography"])
    assert np.abs((ldm.downscale(coarse, higher, DOMAIN) - first)["t2m"].values).max() > 0.01
    xr.testing.assert_identical(ldm.downscale(coarse, static, DOMAIN), first)


def test_the_memory_budget_bounds_the_batch(
    save_ldm: SaveModel, coarse: xr.Dataset, static: xr.Dataset, calls: dict[str, list[int]]
) -> None:
    path = save_ldm()
    for memory, most in ((0.0, 1), (None, 12)):
        calls["denoiser"].clear()
        downscaler = GenerativeDownscaler(path, device="cpu", threads=1, memory_gib=memory)
        collect(downscaler.sample(coarse, static, DOMAIN, range(4), FEW))
        assert max(calls["denoiser"]) == most
        assert sum(calls["denoiser"]) == 36


def test_nothing_runs_before_it_is_asked_for(
    ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset, calls: dict[str, list[int]]
) -> None:
    events: Iterator[Any] = ldm.sample(coarse, static, DOMAIN, range(4), FEW, batch=2)
    assert calls["mean"] == []
    for _ in range(3):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert calls["denoiser"] == [2, 2]
    assert calls["mean"] == [1]


def test_the_caller_keeps_its_own_threads_and_modes(
    save_ldm: SaveModel, coarse: xr.Dataset, static: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    inside: list[int] = []
    forward = Denoiser.forward

    def watched(self: Denoiser, *given: Any) -> torch.Tensor:
        inside.append(torch.get_num_threads())
        return forward(self, *given)

    monkeypatch.setattr(Denoiser, "forward", watched)
    downscaler = GenerativeDownscaler(save_ldm(), device="cpu", threads=before + 1)
    for _ in downscaler.sample(coarse, static, DOMAIN, sampling=FEW):
        assert torch.get_num_threads() == before
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    assert set(inside) == {before + 1}


def test_any_sides_that_are_multiples_of_32(
    tmp_path: Path, ldm: GenerativeDownscaler, times: np.ndarray
) -> None:
    assert ldm.side_multiple == 32
    for number, shape in enumerate([(32, 96), (96, 64)]):
        domain = Domain.regular("Other", left=4e6, top=2.5e6, shape=shape, spacing=2000.0, ratio=8)
        store = make_store(tmp_path / f"{number}.zarr", times[:1], domain=domain)
        result = ldm.downscale(store.read_coarse(), store.read_static(), domain)
        assert result["t2m"].shape == (1, *shape)
        assert np.isfinite(result["t2m"].values).all()
        (sentence,) = ldm.obstacles(store.contents, domain)
        assert "was trained for the domain Small" in sentence
    for shape, ratio, sentence in (
        ((48, 64), 8, "multiples of 32; Odd has 48 x 64 cells"),
        ((64, 64), 4, "8 x 8 fine cells; those of Odd are 4 x 4"),
    ):
        odd = Domain.regular("Odd", left=4e6, top=2.5e6, shape=shape, spacing=2000.0, ratio=ratio)
        store = make_store(tmp_path / f"odd-{ratio}.zarr", times[:1], domain=odd)
        with pytest.raises(DownscaleError, match=sentence):
            ldm.sample(store.read_coarse(), store.read_static(), odd)


def test_several_targets(
    save_ldm: SaveModel, normalization: Normalization, coarse: xr.Dataset, static: xr.Dataset
) -> None:
    both = normalization.model_copy(
        update={"targets": {"u10": MeanStd(mean=0, std=2), "v10": MeanStd(mean=50, std=2)}}
    )
    path = save_ldm(config=small_latent_diffusion(targets=2), targets=("u10", "v10"), normalization=both)
    downscaler = from_checkpoint(path, device="cpu")
    result = downscaler.downscale(coarse, static, DOMAIN)
    assert list(result) == ["u10", "v10"]
    check_form(result, coarse)
    assert float((result["v10"] - result["u10"]).mean()) > 25


def test_faults_of_the_inputs_are_named_at_once(
    ldm: GenerativeDownscaler, coarse: xr.Dataset, static: xr.Dataset
) -> None:
    assert np.isnan(coarse["sst"].values).any()
    hour = np.datetime_as_string(coarse["time"].values[1], unit="h")
    gap = coarse.copy(deep=True)
    gap["d2m"][1, 0, 0] = np.nan
    for given, statics, domain, sentence in (
        (gap, static, DOMAIN, rf"d2m has missing values .* at {hour}"),
        (coarse, None, DOMAIN, "needs the static fields"),
        (coarse.drop_vars("q850"), static, DOMAIN, "q850 is missing"),
        (coarse, static, OTHER, "coarse grid of Elsewhere"),
    ):
        with pytest.raises(DownscaleError, match=sentence):
            ldm.sample(given, statics, domain)
    for members in ([], [0, 0], [-1], [2**32]):
        with pytest.raises(DownscaleError, match="different whole numbers"):
            ldm.sample(coarse, static, DOMAIN, members)
    with pytest.raises(DownscaleError, match="batch of 0"):
        ldm.sample(coarse, static, DOMAIN, batch=0)


def test_half_precision_changes_members_by_little(
    save_ldm: SaveModel, coarse: xr.Dataset, static: xr.Dataset
) -> None:
    path = save_ldm()
    exact, half = (
        collect(
            GenerativeDownscaler(path, device="cpu", precision=precision).sample(
                coarse, static, DOMAIN, (0, 1), Sampling(steps=3)
            )
        )["t2m"]
        for precision in ("float32", "bfloat16")
    )
    spread = float(abs(exact.sel(member=0) - exact.sel(member=1)).mean())
    assert 0 < float(abs(half - exact).mean()) < 0.05 * spread
    assert half.dtype == np.float32


WIDE = small_latent_diffusion().conditioner.model_copy(update={"width": 16}).model_dump(mode="json")
DEEP = small_latent_diffusion().unet.model_copy(update={"features": (4, 4, 4)}).model_dump(mode="json")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parts": {"conditioner": WIDE}}, "do not belong together: .*context channels"),
        ({"parts": {"vae": {"width": 3}}}, "wrong configuration of the VAE: width"),
        ({"parts": {"unet": DEEP}}, "lacks weights"),
        ({"kind": "unet"}, "a UNet has unet"),
        ({"statics": ("orography",)}, "static fields orography; a latent diffusion model takes"),
        (
            {"domain": DOMAIN.to_dict() | {"height": 96, "width": 80}},
            "multiples of 32, but its domain has 96 x 80",
        ),
        ({"domain": DOMAIN.to_dict() | {"ratio": 4}}, "8 times coarser .* coarse cells 4 times larger"),
    ],
)
def test_contradictions_in_a_checkpoint_are_named(
    save_ldm: SaveModel, changes: dict[str, Any], sentence: str
) -> None:
    path = save_ldm(**changes)
    with pytest.raises(CheckpointError, match=sentence) as error:
        from_checkpoint(path, device="cpu")
    assert str(path) in str(error.value)
