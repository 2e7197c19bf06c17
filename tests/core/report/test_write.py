"""The report on disk and the page."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from core.report import write
from core.report.page import page
from core.report.write import ReportError, write_report

BARE = ["model", "label", "kind", "members", "target", "time", "rmse"]


class Tags(HTMLParser):
    """Tags in order, attributes, text, and whether every tag is closed."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parse(path):
    parser = Tags()
    parser.feed(path.read_text())
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def report(made, tmp_path_factory):
    steps = []
    path = write_report(
        made.isel(snapshot_time=[0]), tmp_path_factory.mktemp("report"), lambda *step: steps.append(step)
    )
    return path, steps


def test_everything_is_written(report):
    path, steps = report
    folder = path.parent
    assert path == folder / "report.html"
    assert len(list((folder / "figures").glob("t2m-*.png"))) == 14
    assert {f.name for f in (folder / "tables").iterdir()} == {
        "scores.csv",
        "differences.csv",
        "hours.csv",
        "power.csv",
        "cost.csv",
    }
    assert (folder / "table.md").read_text().startswith("| model |")
    assert not list(folder.rglob("*.partial"))
    assert steps == [(done, 15) for done in range(1, 16)]


def test_the_page_needs_nothing_else(report):
    parsed = parse(report[0])
    assert not {"script", "link", "iframe", "object", "form"} & set(parsed.seen)
    sources = [value for name, value in parsed.attributes if name == "src"]
    assert len(sources) == 14
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(value.startswith("#") for name, value in parsed.attributes if name == "href")
    content = report[0].read_text()
    assert "default-src &#x27;none&#x27;" in content
    assert "prefers-color-scheme: dark" in content
    assert not re.search(r"url\(|@import|https?:", re.sub(r"base64,[^\"]+", "", content))


def test_the_page_says_what_was_compared(report, made):
    words = " ".join(parse(report[0]).words)
    for expected in (
        made.attrs["title"],
        made.attrs["data_fingerprint"],
        made.attrs["command"],
        "assets/checkpoints/unet.safetensors",
        f"{1:064x}",
        "1000 resamples of blocks of 24 hours",
        "The data is synthetic",
        "Figure 14.",
        "has the lowest RMSE",
    ):
        assert expected in words


def test_order_of_the_page(report):
    headings = re.findall(r'<h2 id="(\w+)"', report[0].read_text())
    assert headings == ["compared", "scores", "findings", "figures", "tables"]


def test_a_bare_evaluation_makes_a_page_that_says_what_is_missing(evaluation, tmp_path):
    bare = evaluation[BARE].drop_attrs(deep=False)
    words = " ".join(parse(write_report(bare, tmp_path)).words)
    assert "Power spectra: The evaluation holds no ralsd." in words
    assert {f.stem for f in (tmp_path / "figures").iterdir()} == {"t2m-scores", "t2m-cycles"}


def test_figures_of_an_earlier_report_do_not_stay(evaluation, tmp_path):
    old = tmp_path / "figures" / "t2m-ranks.png"
    old.parent.mkdir()
    old.write_bytes(b"old")
    write_report(evaluation[BARE], tmp_path)
    assert not old.exists()


def test_all_text_is_escaped(evaluation):
    attack = "<script>alert(1)</script>\"'&"
    evaluation = evaluation.assign_coords(
        label=("model", [attack, "b", "c"]), kind=("model", [attack, "unet", "ldm_res"])
    )
    for name in evaluation.attrs:
        evaluation.attrs[name] = attack
    for name in evaluation.data_vars:
        evaluation[name].attrs = {"title": attack, "units": attack, "long_name": attack}
    content = page(evaluation, [])
    assert "alert(1)" in content
    assert "<script" not in content


def test_several_targets_have_their_own_sections(evaluation):
    both = xr.concat([evaluation, evaluation.assign_coords(target=["u10"])], "target", data_vars="minimal")
    content = page(both, [])
    assert "<h3>2 metre temperature</h3>" in content
    assert "<h3>10 metre eastward wind</h3>" in content
    assert "RMSE [m s⁻¹]" in content


def test_a_dataset_without_models_is_refused(tmp_path):
    with pytest.raises(ReportError, match=r"give evaluation\.nc"):
        write_report(xr.Dataset({"t2m": ("x", np.zeros(3))}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail(self, other):
        raise OSError("disk full")

    monkeypatch.setattr(write.Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write._write(target, b"new")
    assert target.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]
