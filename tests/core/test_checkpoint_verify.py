"""Verification finds what is wrong with a file, and says what it could not check."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from core.checkpoint import CheckpointError, Header, load, save
from core.checkpoint_verify import KINDS, MOST_PARENTS, build, verify
from core.data.samples import MeanStd, Normalization
from core.domain import Domain
from core.models.unet import UNet, UNetConfig
from core.models.vae import VAE, VAEConfig

ONE = MeanStd(mean=0.0, std=1.0)
CONFIG = UNetConfig(in_channels=20, features=(4, 8))


def header(**changes: Any) -> Header:
    values: dict[str, Any] = {
        "kind": "unet",
        "label": "Test",
        "models": {"unet": CONFIG.model_dump()},
        "predictors": ("t2m", "sst"),
        "statics": ("orography", "land_cover", "latitude"),
        "targets": ("t2m",),
        "normalization": Normalization(
            predictors={"t2m": ONE, "sst": ONE}, targets={"t2m": ONE, "u10": ONE}, orography=ONE, latitude=ONE
        ),
        "domain": Domain.regular(
            "Small", left=4e6, top=2.5e6, shape=(32, 32), spacing=2000.0, ratio=8
        ).to_dict(),
    }
    return Header(**(values | changes))


def weights(**modules: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"{part}.{k}": v for part, module in modules.items() for k, v in module.state_dict().items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save(tmp_path / "a.safetensors", header(), weights(unet=UNet(CONFIG)))
    return tmp_path / "a.safetensors"


def faults(path: Path) -> list[str]:
    return [finding.sentence for finding in verify(path) if finding.holds is False]


def test_a_sound_file_has_no_fault(file: Path) -> None:
    assert [(finding.what, finding.holds) for finding in verify(file)] == [
        ("file", True),
        ("hash", True),
        ("weights", True),
        ("run", True),
        ("card", None),
        ("ranges", None),
    ]


@pytest.mark.parametrize("ratio", [1, 3, 8])
def test_it_runs_whatever_the_ratio_of_the_grids(ratio: int, tmp_path: Path) -> None:
    domain = Domain.regular("Small", left=0, top=0, shape=(48, 48), spacing=1.0, ratio=ratio)
    save(tmp_path / "a.safetensors", header(domain=domain.to_dict()), weights(unet=UNet(CONFIG)))
    assert not faults(tmp_path / "a.safetensors")


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    (finding,) = verify(tmp_path / "none.safetensors")
    assert finding.holds is False
    assert "There is no checkpoint" in finding.sentence


def test_a_changed_weight_is_found(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-4:] = struct.pack("<f", 0.125)
    file.write_bytes(data)
    (fault,) = faults(file)
    assert "were changed after they were written" in fault


def test_a_file_without_hash_says_so(file: Path) -> None:
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    outer = json.loads(data[8 : 8 + length])
    del outer["__metadata__"]["weights_sha256"]
    text = json.dumps(outer).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    findings = {finding.what: finding for finding in verify(file)}
    assert findings["hash"].holds is None
    assert findings["run"].holds is True


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "wizard"}, "kind wizard; known are unet"),
        ({"kind": "vae"}, "has the parts unet; the kind vae has unet, vae"),
        ({"models": {"unet": {"features": []}}}, "wrong configuration of the unet: features"),
        ({"models": {"unet": {"warmth": 1}}}, "wrong configuration of the unet: warmth"),
        ({"models": {"unet": UNetConfig(in_channels=20, features=(4, 9)).model_dump()}}, "wrong shape"),
        ({"models": {"unet": UNetConfig(in_channels=20, features=(4, 8, 16)).model_dump()}}, "lacks weights"),
        ({"models": {"unet": UNetConfig(in_channels=20, features=(4,)).model_dump()}}, "does not know"),
        ({"targets": ("t2m", "u10")}, "the UNet gives 1 field; its header names t2m, u10"),
        (
            {
                "predictors": ("t2m",),
                "normalization": Normalization(
                    predictors={"t2m": ONE}, targets={"t2m": ONE}, orography=ONE, latitude=ONE
                ),
            },
            "does not run: This UNet takes 20 channels",
        ),
    ],
)
def test_contradictions_are_found(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", header(**changes), weights(unet=UNet(CONFIG)))
    (fault,) = faults(tmp_path / "a.safetensors")
    assert sentence in fault


def test_weights_that_explode_are_found(tmp_path: Path) -> None:
    net = UNet(CONFIG)
    with torch.no_grad():
        net.head.weight.fill_(3e38)
        net.decoder[1][4].bias.fill_(10.0)
    save(tmp_path / "a.safetensors", header(), weights(unet=net))
    (fault,) = faults(tmp_path / "a.safetensors")
    assert "the UNet gives values that are not finite" in fault


def test_every_part_runs(tmp_path: Path) -> None:
    vae = VAEConfig(latent_channels=4, features=(4, 4, 8))
    head = header(kind="vae", models={"unet": CONFIG.model_dump(), "vae": vae.model_dump()})
    save(tmp_path / "a.safetensors", head, weights(unet=UNet(CONFIG), vae=VAE(vae)))
    assert not faults(tmp_path / "a.safetensors")
    two = VAEConfig(in_channels=2, latent_channels=4, features=(4, 4, 8))
    head = header(kind="vae", models={"unet": CONFIG.model_dump(), "vae": two.model_dump()})
    save(tmp_path / "b.safetensors", head, weights(unet=UNet(CONFIG), vae=VAE(two)))
    (fault,) = faults(tmp_path / "b.safetensors")
    assert "does not run" in fault


def test_modules_come_ready_to_run(file: Path) -> None:
    modules = build(load(file))
    assert set(modules) == set(KINDS["unet"])
    assert not modules["unet"].training
    with pytest.raises(CheckpointError, match="kind"):
        build(load(saved_as(file.with_name("b.safetensors"), kind="wizard")))


def saved_as(path: Path, **changes: Any) -> Path:
    save(path, header(**changes), weights(unet=UNet(CONFIG)))
    return path


# --- where it came from

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("content", "holds"), [(b"", True), (b"other", False), (None, None)], ids=["same", "changed", "absent"]
)
def test_parents_beside_the_file_are_compared(content: bytes | None, holds: Any, tmp_path: Path) -> None:
    path = saved_as(
        tmp_path / "a.safetensors", provenance={"parents": [{"file": "parent.ckpt", "sha256": EMPTY}]}
    )
    if content is not None:
        (tmp_path / "parent.ckpt").write_bytes(content)
    finding = list(verify(path))[-1]
    assert (finding.what, finding.holds) == ("parent", holds)
    assert "parent.ckpt" in finding.sentence


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "", ".hidden", "a\\b", "a\x9bb", 3, None]
)
def test_no_other_file_is_read(name: Any, tmp_path: Path) -> None:
    path = saved_as(tmp_path / "a.safetensors", provenance={"parents": [{"file": name, "sha256": EMPTY}]})
    (fault,) = faults(path)
    assert "no proper way" in fault


@pytest.mark.parametrize("parents", [[], 3, "text", None])
def test_other_records_are_passed_over(parents: Any, tmp_path: Path) -> None:
    assert not faults(saved_as(tmp_path / "a.safetensors", provenance={"parents": parents}))


def test_only_few_parents_are_read(tmp_path: Path) -> None:
    """A thousand entries could name one large file."""
    parents = [{"file": "parent.ckpt", "sha256": EMPTY}] * 1000
    path = saved_as(tmp_path / "a.safetensors", provenance={"parents": parents})
    assert len([finding for finding in verify(path) if finding.what == "parent"]) == MOST_PARENTS


def test_networks_of_huge_fields_are_not_run(tmp_path: Path) -> None:
    domain = Domain.regular("Odd", left=4e6, top=2.5e6, shape=(4636, 4636), spacing=2000.0, ratio=1159)
    path = saved_as(tmp_path / "a.safetensors", domain=domain.to_dict())
    (finding,) = (finding for finding in verify(path) if finding.what == "run")
    assert (finding.holds, "4636 x 4636 cells" in finding.sentence) == (None, True)
