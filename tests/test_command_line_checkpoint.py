"""``tramontana checkpoint``: show, import and verify, thin and without stack traces."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import tramontana
from core.checkpoint import load, read_header, save
from core.data.samples import MeanStd, Normalization
from core.data.store import Store
from core.domain import ITALY, Domain
from core.variables import PREDICTORS, VARIABLES
from tests.synthetic_store import make_store


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(tramontana.app, ["checkpoint", *map(str, arguments)], catch_exceptions=True)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> Any:
    """Exit status of the console script, in this process."""
    monkeypatch.setattr(sys, "argv", ["tramontana", "checkpoint", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        tramontana.main()
    return exit_.value.code


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    """A file of statistics in the published form."""
    names = [VARIABLES[name].published_name for name in PREDICTORS]
    one = {"mean": dict.fromkeys(names, 280.0), "std": dict.fromkeys(names, np.float32(8.0))}
    path = tmp_path / "normalization_data.pkl"
    path.write_bytes(pickle.dumps({"ERA5": one, "CMCC": one}))
    return path


@pytest.mark.parametrize("name", ["UNET_2mT", "GAN_2mT", "VAE_residual_2mT", "LDM_residual_2mT"])
def test_a_published_file_is_imported_shown_and_verified(
    name: str, fixtures: Path, statistics: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"{name}.safetensors"
    source = fixtures / "checkpoints" / f"{name}.ckpt"
    result = run("import", source, "--normalization", statistics, "--domain", "italy", "--out", out)
    assert result.exit_code == 0, result.output
    assert f"Wrote {out}" in result.output
    header = read_header(out)
    assert header.domain == ITALY.to_dict()
    assert header.normalization.predictors["w850"] == MeanStd(mean=280.0, std=8.0)
    assert 100 < header.normalization.orography.std < 1000
    assert 40 < header.normalization.latitude.mean < 43
    assert header.provenance["normalization_file"] == "normalization_data.pkl"

    result = run("show", out)
    assert result.exit_code == 0
    assert f"label: {header.label}" in result.output
    assert "domain: Italy, 672 x 576 cells" in result.output

    (tmp_path / source.name).write_bytes(source.read_bytes())
    result = run("verify", out)
    assert result.exit_code == 0, result.output
    assert result.output.count("ok:") == 6
    assert "WRONG" not in result.output


def test_domain_and_statics_of_a_store(fixtures: Path, statistics: Path, tmp_path: Path) -> None:
    domain = Domain.regular("Alps", left=4e6, top=2.6e6, shape=(64, 64), spacing=2000.0, ratio=8)
    store = make_store(tmp_path / "alps.zarr", ["2020-01-01T00"], coarse=["t2m"], domain=domain)
    out = tmp_path / "unet.safetensors"
    result = run(
        "import",
        *(fixtures / "checkpoints" / "UNET_2mT.ckpt", "--normalization", statistics),
        *("--domain", store.path, "--out", out, "--label", "Alpine UNet"),
    )
    assert result.exit_code == 0, result.output
    header = read_header(out)
    assert header.label == "Alpine UNet"
    assert header.domain["name"] == "Alps"
    orography = store.read_static()["orography"].values.astype(float)
    assert header.normalization.orography.mean == pytest.approx(orography.mean())
    assert header.normalization.orography.std == pytest.approx(orography.std(ddof=1))


def test_statistics_from_json_need_no_statics(fixtures: Path, tmp_path: Path) -> None:
    one = MeanStd(mean=1.0, std=2.0)
    values = Normalization(
        predictors=dict.fromkeys(PREDICTORS, one), targets={"t2m": one}, orography=one, latitude=one
    )
    path = tmp_path / "statistics.json"
    path.write_text(values.model_dump_json())
    domain = Domain.regular("Sea", left=4e6, top=2.6e6, shape=(64, 64), spacing=2000.0, ratio=8)
    store = Store.create(
        tmp_path / "sea.zarr", domain, title="Test", source="tests", coarse=["t2m"], synthetic=True,
        times=np.array(["2020-01-01T00"], "datetime64[ns]"), fingerprint="x",
    )  # fmt: skip
    source = tmp_path / "UNET_2mT.ckpt"
    source.write_bytes((fixtures / "checkpoints" / "UNET_2mT.ckpt").read_bytes())
    result = run("import", source, "--normalization", path, "--domain", store.path)
    assert result.exit_code == 0, result.output
    assert read_header(tmp_path / "UNET_2mT.safetensors").normalization == values


def test_a_file_is_replaced_only_on_request(
    fixtures: Path,
    statistics: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "mine.safetensors"
    out.write_text("mine")
    source = fixtures / "checkpoints" / "UNET_2mT.ckpt"
    words = ("import", source, "--normalization", statistics, "--out", out)
    assert run_main(monkeypatch, *words) == 1
    message = said(capsys)
    assert f"Error: {out} exists already; give another name with --out, or replace it" in message
    assert out.read_text() == "mine"
    assert run(*words, "--overwrite").exit_code == 0
    assert read_header(out).kind == "unet"


def test_options_of_a_latent_diffusion_model(fixtures: Path, statistics: Path, tmp_path: Path) -> None:
    source = fixtures / "checkpoints" / "LDM_residual_2mT.ckpt"
    for name, options in {"ema": [], "raw": ["--raw-weights"], "pde": ["--kind", "ldm_pde"]}.items():
        out = tmp_path / f"{name}.safetensors"
        result = run("import", source, "--normalization", statistics, "--out", out, *options)
        assert result.exit_code == 0, result.output
    ema, raw, pde = (load(tmp_path / f"{name}.safetensors") for name in ("ema", "raw", "pde"))
    key = "denoiser.out.weight"
    assert torch.equal(ema.tensors[key], pde.tensors[key])
    assert not torch.equal(ema.tensors[key], raw.tensors[key])
    assert [item.header.kind for item in (ema, raw, pde)] == ["ldm_res", "ldm_res", "ldm_pde"]


def test_targets_can_be_named(fixtures: Path, statistics: Path, tmp_path: Path) -> None:
    source, out = fixtures / "checkpoints" / "UNET_2mT.ckpt", tmp_path / "a.safetensors"
    result = run("import", source, "--normalization", statistics, "--targets", "u10", "--out", out)
    assert result.exit_code == 0, result.output
    assert read_header(out).targets == ("u10",)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to both streams: which of them the console writes to was settled when it was imported."""
    written = capsys.readouterr()
    return written.out + written.err


class Trap:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        import os

        return os.system, (self.command,)


def test_a_malicious_file_is_a_sentence(
    statistics: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same file does run its command where it is loaded the usual way."""
    source, canary = tmp_path / "evil.ckpt", tmp_path / "ran"
    torch.save({"state_dict": {"net.e1.conv.conv.0.weight": Trap(f"touch {canary}")}}, source)
    assert run_main(monkeypatch, "import", source, "--normalization", statistics) == 1
    assert "is <posix.system(...)>, not a tensor" in said(capsys)
    assert not canary.exists()
    assert not source.with_suffix(".safetensors").exists()
    torch.load(source, weights_only=False)
    assert canary.exists()


def test_malice_beside_the_weights_does_not_run(fixtures: Path, statistics: Path, tmp_path: Path) -> None:
    state = torch.load(tiny(fixtures, tmp_path), weights_only=True)
    source, canary = tmp_path / "evil.ckpt", tmp_path / "ran"
    torch.save({"state_dict": state, "hyper_parameters": Trap(f"touch {canary}")}, source)
    result = run("import", source, "--normalization", statistics)
    assert result.exit_code == 0, result.output
    assert not canary.exists()


def tiny(fixtures: Path, folder: Path) -> Path:
    """The bare weights of the published UNet."""
    from core.torch_archive import TorchArchive

    archive = TorchArchive(fixtures / "checkpoints" / "UNET_2mT.ckpt")
    state = {key: archive.tensor(value).clone() for key, value in archive.value["state_dict"].items()}
    torch.save(state, folder / "state.pt")
    return folder / "state.pt"


def test_other_files_and_places_come_with_advice(
    fixtures: Path,
    statistics: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("letter.ckpt").write_text("Dear reader")
    source = fixtures / "checkpoints" / "UNET_2mT.ckpt"
    options = ("--normalization", statistics)
    for words, sentences in (
        (("import", "letter.ckpt", *options), ("is a text file (it begins with 'Dear reader')",)),
        (
            ("import", source, *options, "--domain", "nowhere"),
            ("There is no domain or store nowhere. The domain known by name is italy",),
        ),
        (("import", source, *options, "--domain", source), ("is no store.",)),
        (("show", source), ("seems to be a checkpoint of PyTorch", "`tramontana checkpoint import`")),
        (("show", "letter.ckpt"), ("is not a Tramontana checkpoint", "`tramontana train`")),
    ):
        assert run_main(monkeypatch, *words) == 1
        message = said(capsys)
        assert message.count("\n") == 1
        for sentence in sentences:
            assert sentence in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.ckpt", "normalization_data.pkl"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["import", "none.ckpt", "--normalization", "none.pkl"], "There is no file none.ckpt"),
        (["show", "none.safetensors"], "There is no checkpoint at none.safetensors"),
    ],
)
def test_errors_are_one_sentence(
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main(monkeypatch, *arguments) == 1
    assert sentence in said(capsys)


def test_verify_fails_where_one_file_is_wrong(fixtures: Path, statistics: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    run("import", fixtures / "checkpoints" / "UNET_2mT.ckpt", "--normalization", statistics, "--out", out)
    broken = tmp_path / "b.safetensors"
    broken.write_bytes(out.read_bytes()[:-8])
    result = run("verify", out, broken)
    assert result.exit_code == 1
    assert "WRONG" in result.output
    assert "is truncated" in result.output


def test_show_reads_no_weights(fixtures: Path, statistics: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    run("import", fixtures / "checkpoints" / "UNET_2mT.ckpt", "--normalization", statistics, "--out", out)
    checkpoint = load(out)
    whole = dict(checkpoint.tensors)
    whole["unet.head.bias"] = whole["unet.head.bias"].clone()
    save(out, checkpoint.header, whole)
    data = bytearray(out.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"  # a NaN
    out.write_bytes(data)
    assert run("show", out).exit_code == 0
    assert run("verify", out).exit_code == 1


def test_describe_writes_a_card_and_show_tells_it(
    fixtures: Path, statistics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "unet.safetensors"
    source = fixtures / "checkpoints" / "UNET_2mT.ckpt"
    assert run("import", source, "--normalization", statistics, "--out", out).exit_code == 0
    before = load(out).file_hash
    card = tmp_path / "card.yaml"
    card.write_text("licence: CC-BY-4.0\n")
    result = run("describe", out, "--card", card)
    assert result.exit_code == 0, result.output
    assert before in result.output
    assert load(out).file_hash == before
    shown = run("show", out).output
    assert "licence: CC-BY-4.0" in shown
    assert "arXiv 2406.13627" in shown
    store = make_store(tmp_path / "a.zarr", ["2020-01-01T00"], coarse=["t2m"])
    assert run_main(monkeypatch, "describe", out, "--store", store.path) == 1
    card.write_text("lizenz: none\n")
    assert run_main(monkeypatch, "describe", out, "--card", card) == 1
