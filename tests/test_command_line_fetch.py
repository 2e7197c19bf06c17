"""`tramontana fetch`: says what will come, asks, fetches, and refuses where nobody can be asked."""

import io
import re
import shutil
import sys
from pathlib import Path

import pytest

import commands.fetch
import core.data.remote.client
from core.assets import asset
from tests.command_line import Ended, run_program
from tests.core.data.remote.conftest import common_files, day_files
from tests.range_server import serving, write_zip

HIGH = Path("data/published/2016/2016-05-02_high_2mT.pt.zst")


class Terminal(io.StringIO):
    """A standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def server(tmp_path):
    """A server with the sample and the weights, its catalogue beside it."""
    folder = tmp_path / "server"
    sample = common_files("sample_data/") | day_files("sample_data/", "2016-05-02")
    write_zip(folder / "records/12934521/files/sample_data.zip", sample | day_files("", "2014-12-28"))
    weights = {"pretrained_models/LDM_residual_2mT.ckpt": b"weights" * 100, "outputs/results.pkl": b"table"}
    write_zip(folder / "records/12941117/files/pretrained_models.zip", weights)
    with serving(folder) as served:
        yield served


@pytest.fixture
def run(server, tmp_path, monkeypatch, capsys):
    """Runs the console script in an empty folder, with the server as mirror; ``answer`` is what is typed."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TRAMONTANA_MIRROR", server.address)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "TRAMONTANA_CATALOGUE"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments, answer: str | None = None) -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO() if answer is None else Terminal(f"{answer}\n"))
        return run_program(monkeypatch, capsys, "fetch", *arguments)

    return call


def test_what_will_come_is_shown_before_it_is_asked_for(run, server):
    ended = run("days", "2016-05-02", answer="n")
    assert ended.status == 1
    assert f"From {server.address}/records/12934521/files/sample_data.zip?download=1 (" in ended.out
    assert f"sample_data/2016/2016-05-02_high_2mT.pt.zst, 40 kB, to {HIGH}" in ended.out
    assert "high_UV" not in ended.out
    assert re.search(r"In all 4 files: 50 kB to transfer, 52 kB on the disk, of which .* are free", ended.out)
    assert "Cite: Tomasi" in ended.out
    assert "Nothing was fetched." in ended.out
    assert not Path("data").exists()


def test_a_password_of_the_mirror_is_neither_shown_nor_kept(run, server, monkeypatch):
    monkeypatch.setenv("TRAMONTANA_MIRROR", server.address.replace("://", "://me:secret@"))
    printed = [run("list"), run("list", "sample"), run("days", "2016-05-02", answer="n")]
    blocks = []

    def refuse(path: str) -> None:
        blocks.append(path)
        if len(blocks) == 4:  # one of the files is there in part or whole
            server.faults.statuses = [(403, {})] * 50

    server.faults.block = refuse
    printed.append(run("days", "2016-05-02", "--yes", "--parallel", 1))
    assert [ended.status for ended in printed] == [0, 0, 1, 1]
    assert all(server.address in ended.out for ended in printed)
    assert f"{server.address}/records/12934521" in printed[-1].said
    assert not any("secret" in ended.out + ended.err for ended in printed)
    kept = [path for path in Path("data").rglob("*") if path.is_file()]
    assert any(path.name == "member.json" for path in kept)
    assert not any(b"secret" in path.read_bytes() for path in kept)
    server.faults.block, server.faults.statuses = None, []
    assert run("days", "2016-05-02", "--yes").status == 0
    assert {headers.get("Authorization") for _, headers in server.requests} == {"Basic bWU6c2VjcmV0"}


def test_yes_at_the_prompt(run, server):
    ended = run("days", "2016-05-02", "2014-12-28", answer="y")
    assert ended.status == 0, ended.err
    expected = day_files("", "2016-05-02")
    assert HIGH.read_bytes() == expected["2016/2016-05-02_high_2mT.pt.zst"]
    assert sorted(path.name for path in Path("data/published").iterdir()) == [
        "2014",
        "2016",
        "metadata.csv",
        "normalization_data.pkl",
    ]
    assert "Fetched 6 files into data/published: " in ended.out
    assert re.search(r"\d+ kB transferred, \d+\.\d\d% of the archives", ended.out)
    assert "tramontana ingest published data/published" in ended.out


def test_where_nobody_can_be_asked(run):
    ended = run("statics")
    assert ended.status == 1
    assert "In all 4 files" in ended.out
    assert "nobody can be asked here. Add --yes" in ended.said
    assert not Path("data").exists()


def test_only_what_is_missing(run, server):
    assert run("days", "2016-05-02", "--yes", "--target", "UV").status == 0
    ended = run("days", "2016-05-02", "--yes", "--target", "UV", "--target", "2mT", "--parallel", 1)
    assert ended.status == 0
    assert "Already in data/published: 4 files." in ended.out
    assert "In all 1 file: 40 kB" in ended.out
    asked = len(server.requests)
    ended = run("days", "2016-05-02")
    assert ended.status == 0
    assert "Nothing is missing." in ended.out
    assert len(server.requests) == asked


def test_coarse_fields_only(run):
    assert run("days", "2016-05-02", "--yes", "--target", "none").status == 0
    assert [path.name for path in HIGH.parent.iterdir()] == ["2016-05-02_low.pt.zst"]


def test_the_other_kinds(run):
    ended = run("weights", "ldm-2mT", "--yes", "--out", "mine")
    assert ended.status == 0
    assert Path("mine/pretrained_models/LDM_residual_2mT.ckpt").read_bytes() == b"weights" * 100
    assert "tramontana checkpoint import" in ended.out
    assert run("outputs", "--yes", "--out", "mine").status == 0
    assert Path("mine/outputs/results.pkl").read_bytes() == b"table"
    assert run("statics", "--yes", "--out", "mine").status == 0
    assert len(list(Path("mine/static_var").iterdir())) == 3
    Path("mine/normalization_data.pkl").unlink()
    assert run("normalization", "--yes", "--out", "mine").status == 0
    assert Path("mine/normalization_data.pkl").stat().st_size == 300


def test_verify_brings_anew_what_differs(run):
    assert run("normalization", "--yes").status == 0
    path = Path("data/published/normalization_data.pkl")
    content = path.read_bytes()
    path.write_bytes(bytes(300))
    assert "Nothing is missing." in run("normalization").out
    assert "In all 1 file" in run("normalization", "--yes", "--verify").out
    assert path.read_bytes() == content


def test_list(run, server):
    ended = run("list")
    assert ended.status == 0
    assert (
        f"weights: trained networks and their outputs, about 12.0 GB, {server.address}/records/1294"
        in ended.out
    )
    assert "Networks: unet-2mT, gan-2mT, vae-2mT, ldm-2mT, unet-UV" in ended.out
    assert "Targets of days: 2mT, UV, TP." in ended.out
    assert not server.requests
    ended = run("list", "sample")
    assert "2 days: 2014-12-28 2016-05-02" in ended.out
    assert "  sample_data/static_var/lat_2km_domain_trim_EPSG3035.tif" in ended.out
    assert ".pt.zst" not in ended.out
    assert run("list", "nothing").said.startswith("Error: The catalogue names no archive 'nothing'.")


def test_a_catalogue_of_ones_own(run, server, tmp_path, monkeypatch):
    monkeypatch.delenv("TRAMONTANA_MIRROR")
    mine = tmp_path / "mine.yaml"
    text = asset("catalogue.yaml").read_text().replace("https://zenodo.org", server.address)
    mine.write_text(text.replace("normalization_data.pkl", "metadata.csv"))
    assert run("normalization", "--yes", "--catalogue", mine).status == 0
    assert Path("data/published/metadata.csv").is_file()
    monkeypatch.setenv("TRAMONTANA_CATALOGUE", str(mine))
    assert "Nothing is missing." in run("normalization").out
    mine.write_text(text + "colour: red\n")
    assert "colour: Extra inputs are not permitted" in run("normalization").said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("days", "2016-02-30"), "Error: '2016-02-30' is no day; write 2016-05-02"),
        (("days", "2016-06-02"), "Error: 2016/2016-06-02_low.pt.zst is not in sample."),
        (("weights", "ldm"), "Error: The catalogue names no network 'ldm'. There are: unet-2mT"),
        (("statics", "--mirror", "here"), "Error: The mirror 'here/records/"),
    ],
)
def test_mistakes_are_one_sentence(run, words, sentence):
    ended = run(*words, "--yes")
    assert ended.status == 1
    assert ended.said.startswith(sentence)


def test_offline(run, monkeypatch):
    monkeypatch.setattr(core.data.remote.client, "uniform", lambda low, high: 0.0)
    ended = run("statics", "--yes", "--mirror", "http://127.0.0.1:9")
    assert ended.status == 1
    assert "127.0.0.1:9 can't be reached" in ended.said
    assert "--proxy" in ended.said
    assert "TRAMONTANA_MIRROR" in ended.said
    assert "data/published/archives/sample_data.zip" in ended.said


def test_a_server_without_ranges_is_asked_for_all_only_with_consent(run, server):
    server.faults.ranges = False
    ended = run("statics", "--yes")
    assert ended.status == 1
    assert "would have to come as a whole" in ended.out
    assert "Add --whole" in ended.said
    assert not Path("data").exists()
    assert run("statics", "--yes", answer="n").status == 1
    assert not Path("data").exists()
    assert run("statics", "--yes", "--whole").status == 0
    assert len(list(Path("data/published/static_var").iterdir())) == 3
    asked = len(server.requests)
    ended = run("normalization", "--yes")
    assert ended.status == 0
    assert "From data/published/archives/sample_data.zip" in ended.out
    assert len(server.requests) == asked


def test_stopped_and_continued(run, server, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands.fetch, "_show_transfer", stop)
        ended = run("statics", "--yes")
    assert ended.status == 130
    assert "the same command goes on" in ended.said
    assert run("statics", "--yes").status == 0


def test_many_files_are_summed_up(run, server, tmp_path):
    tables = {f"outputs/table{number:02}.pkl": b"x" for number in range(45)}
    path = tmp_path / "server/records/12941117/files/pretrained_models.zip"
    write_zip(path, tables)
    ended = run("outputs", "--yes")
    assert ended.out.count(", to data/published/outputs/") == 40
    assert "and 5 further files" in ended.out
    assert "In all 45 files" in ended.out
    assert len(list(Path("data/published/outputs").iterdir())) == 45
    shutil.rmtree("data")
    assert "and 5 further files" in run("list", "weights").out


def test_a_wait_is_said(run, server):
    server.faults.statuses = [(429, {"Retry-After": "0"})]
    ended = run("normalization", "--yes")
    assert ended.status == 0
    assert "answered 429 Too Many Requests; the next attempt is in" in ended.err


def test_restart_after_the_archive_changed(run, server):
    blocks = []

    def refuse(path: str) -> None:
        blocks.append(path)
        if len(blocks) == 4:  # the last two files are refused, one of the others is there in part or whole
            server.faults.statuses = [(403, {})] * 50

    server.faults.block = refuse
    ended = run("days", "2016-05-02", "--yes", "--parallel", 1)
    assert ended.status == 1
    assert "403 Forbidden" in ended.said
    assert Path("data/published/.fetching").is_dir()
    server.faults.block, server.faults.statuses, server.faults.etag = None, [], '"second"'
    ended = run("days", "2016-05-02", "--yes")
    assert ended.status == 1
    assert "--restart" in ended.said
    assert run("days", "2016-05-02", "--yes", "--restart").status == 0
    assert HIGH.is_file()
    assert not Path("data/published/.fetching").exists()
