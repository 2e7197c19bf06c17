"""Import of published checkpoints: the same fields come out, and every fault is named."""

import subprocess
import sys
import textwrap
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.checkpoint import CheckpointError, Header, load
from core.checkpoint_verify import build
from core.data.samples import MeanStd, Normalization
from core.diffusion.schedule import Schedule
from core.domain import Domain
from core.models.unet import UNet, UNetConfig
from core.published_checkpoint import PublishedCheckpoint
from core.torch_archive import TorchArchive
from core.variables import PREDICTORS, TARGETS

ROOT = Path(__file__).resolve().parents[2]
ONE = MeanStd(mean=0.0, std=1.0)
DOMAIN = Domain.regular("Small", left=4e6, top=2.5e6, shape=(128, 96), spacing=2000.0, ratio=8)
FILES = {"UNET_2mT": "unet", "GAN_2mT": "gan", "VAE_residual_2mT": "vae", "LDM_residual_2mT": "ldm_res"}

State = dict[str, Tensor]


def statistics(
    targets: tuple[str, ...] = ("t2m",), predictors: tuple[str, ...] = PREDICTORS
) -> Normalization:
    return Normalization(
        predictors=dict.fromkeys(predictors, ONE),
        targets=dict.fromkeys(targets, ONE),
        orography=ONE,
        latitude=ONE,
    )


def write(published: PublishedCheckpoint, out: Path, **options: Any) -> Header:
    return published.write(out, **({"normalization": statistics(), "domain": DOMAIN} | options))


def state_of(path: Path) -> State:
    """A copy of a file's state dict; entries that share numbers still do."""
    archive = TorchArchive(path)
    copies: dict[int, Tensor] = {}
    state = {}
    for key, value in archive.value["state_dict"].items():
        tensor = archive.tensor(value)
        state[key] = copies.setdefault(tensor.data_ptr(), tensor.clone()) if tensor.numel() else tensor
    return state


def saved(path: Path, state: State, **more: Any) -> Path:
    torch.save({"epoch": 3, "global_step": 40, "state_dict": OrderedDict(state), **more}, path)
    return path


@pytest.fixture(scope="module")
def imported(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four files under our format."""
    folder = tmp_path_factory.mktemp("imported")
    for name in FILES:
        published = PublishedCheckpoint(fixtures / "checkpoints" / f"{name}.ckpt")
        write(published, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in FILES}


# --- the same fields


def tensors(path: Path) -> State:
    with np.load(path) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if not key.startswith("f64_")}


@pytest.mark.parametrize("name", FILES)
def test_kinds_and_parts(name: str, imported: dict[str, Path]) -> None:
    header = load(imported[name]).header
    assert header.kind == FILES[name]
    parts = {"vae": ["unet", "vae"], "ldm_res": ["unet", "vae", "conditioner", "denoiser"]}
    assert list(header.models) == parts.get(header.kind, ["unet"])
    assert header.models["unet"]["features"] == [4, 8, 16, 32]
    assert header.predictors == PREDICTORS
    assert header.targets == ("t2m",)
    assert header.provenance["parents"][0]["file"] == f"{name}.ckpt"
    assert header.provenance["lightning_version"] == "2.0.5"


@pytest.mark.parametrize("shape", ["io", "io_wide"])
def test_the_latent_diffusion_model_gives_the_published_fields(
    shape: str, imported: dict[str, Path], fixtures: Path
) -> None:
    """With moving averages in the denoiser, and with the published truncation on fields that are wide."""
    expected = tensors(fixtures / f"ldm_tiny_2mT.{shape}.npz")
    parts: dict[str, Any] = build(load(imported["LDM_residual_2mT"]))
    with torch.inference_mode():
        mean = parts["unet"](expected["low_res"], expected["static"])
        context = parts["conditioner"](expected["low_res"], expected["static"])
        output = parts["denoiser"](expected["x_noisy"], expected["t"], context)
        final = mean + parts["vae"].decode(expected["ddim_x"][-1])
    for level, field in enumerate(context):
        torch.testing.assert_close(field, expected[f"ctx_level{level}"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean, expected["unet_out"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output, expected["denoiser_ema"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(final, expected["final"], rtol=1e-4, atol=1e-4)
    # The averages are far from the weights as trained, so that they can't be mistaken.
    assert (expected["denoiser_ema"] - expected["denoiser_raw"]).abs().max() > 0.1


def test_raw_weights_on_request(fixtures: Path, tmp_path: Path) -> None:
    published = PublishedCheckpoint(fixtures / "checkpoints" / "LDM_residual_2mT.ckpt", averages=False)
    header = write(published, tmp_path / "raw.safetensors")
    assert header.provenance["denoiser_weights"] == "as trained"
    expected = tensors(fixtures / "ldm_tiny_2mT.io.npz")
    parts: dict[str, Any] = build(load(tmp_path / "raw.safetensors"))
    with torch.inference_mode():
        context = parts["conditioner"](expected["low_res"], expected["static"])
        output = parts["denoiser"](expected["x_noisy"], expected["t"], context)
    torch.testing.assert_close(output, expected["denoiser_raw"], rtol=1e-4, atol=1e-4)


def test_the_vae_gives_the_published_fields(imported: dict[str, Path], fixtures: Path) -> None:
    expected = tensors(fixtures / "ldm_tiny_2mT.io.npz")
    parts: dict[str, Any] = build(load(imported["VAE_residual_2mT"]))
    with torch.inference_mode():
        posterior = parts["vae"].encode(expected["residual"])
        decoded = parts["vae"].decode(expected["vae_mean"])
    torch.testing.assert_close(posterior.mean, expected["vae_mean"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoded, expected["vae_decode_mean"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["UNET_2mT", "GAN_2mT"])
def test_unet_and_gan_are_those_of_the_file(name: str, imported: dict[str, Path], fixtures: Path) -> None:
    state = state_of(fixtures / "checkpoints" / f"{name}.ckpt")
    checkpoint = load(imported[name])
    assert torch.equal(checkpoint.tensors["unet.head.weight"], state["net.outputs.weight"])
    assert not any("discriminator" in key for key in checkpoint.tensors)
    assert len(checkpoint.tensors) == 118


# --- variables, kinds, labels


def other_width(state: State, channels: int) -> State:
    """A UNet for another number of targets."""
    old = state["net.outputs.weight"]
    return state | {
        "net.outputs.weight": torch.randn(channels, *old.shape[1:]),
        "net.outputs.bias": torch.zeros(channels),
    }


@pytest.fixture
def unet(fixtures: Path) -> State:
    return state_of(fixtures / "checkpoints" / "UNET_2mT.ckpt")


@pytest.fixture(scope="module")
def ldm(fixtures: Path) -> State:
    return state_of(fixtures / "checkpoints" / "LDM_residual_2mT.ckpt")


@pytest.mark.parametrize(
    ("channels", "asked", "expected"),
    [
        (1, None, ("t2m",)),
        (2, None, ("u10", "v10")),
        (2, ("v10", "u10"), ("v10", "u10")),
        (1, ("tp",), ("tp",)),
        (3, ("u10", "v10", "tp"), ("u10", "v10", "tp")),
    ],
)
def test_targets_follow_from_shapes(
    channels: int, asked: Any, expected: Any, unet: State, tmp_path: Path
) -> None:
    published = PublishedCheckpoint(saved(tmp_path / "a.ckpt", other_width(unet, channels)))
    assert published.recorded_variables is None
    assert published.variables(asked).targets == expected
    header = write(published, tmp_path / "a.safetensors", targets=asked, normalization=statistics(expected))
    assert header.targets == expected


def test_recorded_variables_set_the_order(unet: State, tmp_path: Path) -> None:
    rest = "U10 V10 dp2mT SST SNDPT TP SSRadIn Q850 T850 U850 V850 W850"
    low = ["PMSL", "2mT", *rest.split(" ")]
    settings = {"target_vars": {"low_res": low, "high_res": ["V10", "U10"]}}
    path = saved(tmp_path / "a.ckpt", other_width(unet, 2), datamodule_hyper_parameters=settings)
    variables = PublishedCheckpoint(path).variables()
    assert variables.targets == ("v10", "u10")
    assert variables.predictors[:3] == ("msl", "t2m", "u10")


@pytest.mark.parametrize(
    "settings",
    [None, 3, {}, {"target_vars": None}, {"target_vars": {"low_res": [], "high_res": []}},
     {"target_vars": {"low_res": ["warmth"], "high_res": ["2mT"]}},
     {"target_vars": {"low_res": [["2mT"]], "high_res": [None]}}],
)  # fmt: skip
def test_records_of_another_form_are_passed_over(settings: Any, unet: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", unet, datamodule_hyper_parameters=settings)
    assert PublishedCheckpoint(path).recorded_variables is None


def test_records_that_repeat_themselves_take_no_time(unet: State, tmp_path: Path) -> None:
    """Ten lists of a hundred times the list before: 10^20 values for who walks them."""
    value: Any = "2mT"
    for _ in range(10):
        value = [value] * 100
    settings = {"target_vars": {"low_res": value, "high_res": value}}
    path = saved(tmp_path / "a.ckpt", unet, datamodule_hyper_parameters=settings)
    assert PublishedCheckpoint(path).recorded_variables is None


def test_a_model_fine_tuned_with_the_pde_loss(ldm: State, tmp_path: Path) -> None:
    """Its averages cover what was trained; it looks like any other latent diffusion model."""
    state = {k: v for k, v in ldm.items() if not k.startswith("denoiser_ema.input_blocks")}
    path = saved(tmp_path / "a.ckpt", state)
    with pytest.raises(CheckpointError, match="moving average"):
        PublishedCheckpoint(path)
    header = write(PublishedCheckpoint(path, averages="partial"), tmp_path / "a.safetensors", kind="ldm_pde")
    assert header.kind == "ldm_pde"
    assert header.label == "LDM_PDE (t2m, published)"


@pytest.mark.parametrize(
    ("channels", "options", "sentence"),
    [
        (3, {}, "has 3 targets; name them"),
        (2, {"targets": ("t2m",)}, "gives 2 fields, but the targets are t2m"),
        (2, {"targets": ("u10", "u10")}, "gives 2 fields"),
        (1, {"targets": ("warmth",)}, f"Unknown targets: warmth; known are {', '.join(TARGETS)}"),
        (1, {"kind": "ldm_pde"}, "kind unet, which is no ldm_pde"),
        (1, {"label": "<b>"}, "can't be described: label"),
        (1, {"normalization": statistics(("u10",))}, "lacks the target t2m"),
        (1, {"normalization": statistics(predictors=PREDICTORS[::-1])}, "in another order"),
        (1, {"provenance": {"loss": float("nan")}}, "JSON"),
        (
            1,
            {"domain": Domain.regular("Odd", left=0, top=0, shape=(24, 24), spacing=1.0, ratio=8)},
            "multiples of 16; Odd has 24 x 24",
        ),
    ],
)
def test_what_does_not_fit_is_explained(
    channels: int, options: dict[str, Any], sentence: str, unet: State, tmp_path: Path
) -> None:
    path = saved(tmp_path / "a.ckpt", other_width(unet, channels))
    with pytest.raises(CheckpointError, match=sentence):
        write(PublishedCheckpoint(path), tmp_path / "a.safetensors", **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


def test_the_file_itself_is_never_replaced(unet: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", unet)
    with pytest.raises(CheckpointError, match="is the file to import"):
        write(PublishedCheckpoint(path), path)


# --- faults in the file


def without(key: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if name != key}


def replaced(**tensors: Tensor) -> Callable[[State], State]:
    return lambda state: state | {key.replace("__", "."): tensor for key, tensor in tensors.items()}


def renamed(old: str, new: str) -> Callable[[State], State]:
    return lambda state: {key.replace(old, new): tensor for key, tensor in state.items()}


def nan_in(key: str) -> Callable[[State], State]:
    return lambda state: state | {key: torch.full_like(state[key], float("nan"))}


def repeated(state: State) -> State:
    """A deeper bottleneck than the file has numbers for: every row of it is the same storage."""
    small = torch.zeros(1)
    return state | {"net.outputs.weight": small.expand(1, 4, 1, 1)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("net.b.conv.3.weight"), r"lacks weights.*bottleneck\.3\.weight"),
        (without("net.outputs.weight"), "head.weight is missing"),
        (replaced(net__b__extra=torch.ones(1)), "net.b.extra is not part of a published UNet"),
        (replaced(net__b__conv__7__weight=torch.ones(1)), r"does not know: bottleneck\.7"),
        (replaced(other=torch.ones(1)), "other is no part of a published unet"),
        (replaced(net__outputs__bias=torch.ones(4)), r"head\.bias is 4 and should be 1"),
        (replaced(net__b__conv__0__weight=torch.ones(64, 32, 5, 5)), "64 x 32 x 5 x 5 and should be"),
        (replaced(net__outputs__bias=torch.ones(1, dtype=torch.int64)), r"unet\.head\.bias as torch\.int64"),
        (nan_in("net.outputs.bias"), r"a\.ckpt has weights that are not finite.*unet\.head\.bias"),
        (repeated, "more numbers than its storage"),
        (renamed("net.", "model."), "none of the published models.*model.e1"),
        (lambda state: {}, "no state_dict"),
        (lambda state: state | {"net.\x1b[2J": torch.ones(1)}, "no names of weights"),
        (lambda state: state | {"net." + "x" * 300: torch.ones(1)}, "no names of weights"),
    ],
)
def test_faults_of_a_unet_are_named(
    change: Callable[[State], State], sentence: str, unet: State, tmp_path: Path
) -> None:
    path = saved(tmp_path / "a.ckpt", change(unet))
    with pytest.raises(CheckpointError, match=sentence) as error:
        write(PublishedCheckpoint(path), tmp_path / "a.safetensors")
    assert str(path) in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


ALIAS = "autoencoder.encoder.net.0.conv1.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: {k: v for k, v in s.items() if not k.startswith("denoiser_ema.")},
            r"no moving averages \(EMA\).*--raw-weights",
        ),
        (without("denoiser_ema.out2bias"), r"no moving average.*denoiser\.out\.2\.bias"),
        (nan_in("denoiser_ema.out2bias"), r"not finite.*denoiser\.out\.bias"),
        (replaced(denoiser_ema__stranger=torch.ones(1)), "stranger"),
        (replaced(denoiser_ema__out2bias=torch.ones(3)), "shape"),
        (nan_in(ALIAS), "one and the same weight"),
        (replaced(betas2=torch.ones(1)), "betas2 is not part"),
        (
            lambda s: s | {"alphas_cumprod": s["alphas_cumprod"] ** 2},
            "another noise schedule",
        ),
        (
            lambda s: {k: v for k, v in s.items() if not k.startswith("autoencoder.unet_regr")},
            "autoencoder.unet_regr.net",
        ),
        (
            lambda s: {k: v for k, v in s.items() if not k.startswith("context_encoder")},
            "context_encoder",
        ),
    ],
)
def test_faults_of_a_latent_diffusion_model_are_named(
    change: Callable[[State], State], sentence: str, ldm: State, tmp_path: Path
) -> None:
    path = saved(tmp_path / "a.ckpt", change(ldm))
    with pytest.raises(CheckpointError, match=sentence) as error:
        write(PublishedCheckpoint(path), tmp_path / "a.safetensors")
    assert str(path) in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


def test_nan_in_what_is_not_used_does_not_matter(ldm: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", nan_in("denoiser.out.2.bias")(ldm))
    write(PublishedCheckpoint(path), tmp_path / "a.safetensors")


def test_the_schedule_of_the_fixture_is_ours(ldm: State) -> None:
    np.testing.assert_allclose(ldm["alphas_cumprod"].numpy(), Schedule().alpha_bar, rtol=1e-5)


def test_a_small_file_can_not_ask_for_many_weights(unet: State, tmp_path: Path) -> None:
    """All layers of one size share one storage, which no file that Lightning wrote does."""
    state = other_width(unet, 1)
    largest = max(state.values(), key=Tensor.numel)
    flat = largest.flatten()
    shared = {
        key: flat[: t.numel()].view(t.shape) if t.is_floating_point() else t for key, t in state.items()
    }
    path = saved(tmp_path / "a.ckpt", shared)
    with pytest.raises(CheckpointError, match="more weights than it holds numbers for"):
        PublishedCheckpoint(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\x03\x04 and no more", "truncated or damaged"),
        (b"\x80\x02}q\x00.", "zip form"),
        (
            b"<!DOCTYPE\nhtml>" + b" " * 99,
            r"a text file \(it begins with '<!DOCTYPE\?html>'\).*the \.ckpt file",
        ),
        (b"\x08" + bytes(7) + b'{"a":{}}', r"is a safetensors file.*`tramontana checkpoint show`"),
        (None, "no file"),
    ],
)
def test_other_files_are_named_as_such(content: bytes | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        PublishedCheckpoint(tmp_path / "a.ckpt")


def test_a_list_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="no state_dict"):
        PublishedCheckpoint(tmp_path / "a.ckpt")


# --- memory

MEASURE = """
    import resource, sys
    from tests.core.test_published_checkpoint import DOMAIN, statistics, write
    from core.checkpoint import load
    from core.checkpoint_verify import build
    from core.published_checkpoint import PublishedCheckpoint

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = peak()
    write(PublishedCheckpoint(sys.argv[1]), sys.argv[2])
    imported = peak()
    modules = build(load(sys.argv[2]))
    print(imported - before, peak() - before)
"""


def test_memory_stays_far_below_the_size_of_the_file(tmp_path: Path) -> None:
    """A UNet with its optimiser's state: the file has three times the weights, which alone take 104 MB."""
    with torch.device("meta"):
        shapes = UNet(UNetConfig(features=(64, 128, 256, 468))).state_dict()
    names = published_unet_names(shapes)
    state = {names[key]: torch.full(t.shape, 0.5, dtype=t.dtype) for key, t in shapes.items()}
    moments = {
        number: {"exp_avg": torch.zeros_like(t), "exp_avg_sq": torch.zeros_like(t)}
        for number, t in enumerate(state.values())
    }
    path = saved(tmp_path / "large.ckpt", state, optimizer_states=[{"state": moments}])
    weights = sum(t.nbytes for t in state.values())
    size = path.stat().st_size
    assert size > 2.9 * weights > 2.5e8
    del state, moments
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(path), str(tmp_path / "large.safetensors")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    importing, restoring = (unit * int(text) for text in result.stdout.split())
    # Without mapping and streaming: the whole file, and once more the weights.
    assert importing < size / 3
    # The modules have their own weights; the file's must not be there a second time.
    assert restoring < 1.7 * weights


def published_unet_names(shapes: State) -> dict[str, str]:
    """The published name of every weight of a UNet."""
    names = {}
    for key in shapes:
        part, _, rest = key.partition(".")
        level, _, inner = rest.partition(".")
        names[key] = {
            "encoder": f"net.e{int(level) + 1 if level.isdigit() else 0}.conv.conv.{inner}",
            "decoder": f"net.d{int(level) + 1 if level.isdigit() else 0}.conv.conv.{inner}",
            "upsample": f"net.d{int(level) + 1 if level.isdigit() else 0}.up.{inner}",
            "bottleneck": f"net.b.conv.{rest}",
            "head": f"net.outputs.{rest}",
        }[part]
    return names


def test_an_endless_number_of_updates_is_passed_over(ldm: State, tmp_path: Path) -> None:
    for number in (float("inf"), float("nan")):
        state = ldm | {"denoiser_ema.num_updates": torch.tensor(number)}
        header = write(PublishedCheckpoint(saved(tmp_path / "a.ckpt", state)), tmp_path / "a.safetensors")
        assert "average_updates" not in header.provenance
