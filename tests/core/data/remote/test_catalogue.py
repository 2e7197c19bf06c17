"""The catalogue: typed, strict, and true to the published records."""

from datetime import date
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from core.assets import asset
from core.data.remote import CatalogueError, read_catalogue


def changed(tmp_path, change) -> Path:
    """A copy of the catalogue that ships, changed."""
    values = yaml.safe_load(asset("catalogue.yaml").read_text())
    change(values)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_addresses_are_those_of_the_records():
    catalogue = read_catalogue()
    address = "https://zenodo.org/records/12934521/files/sample_data.zip?download=1"
    assert catalogue.address("sample") == address
    records = {name: archive.record for name, archive in catalogue.archives.items()}
    assert records == {
        "sample": "12934521",
        "2000-2002": "12944960",
        "2003-2005": "12945014",
        "2006-2008": "12945028",
        "2009-2011": "12945040",
        "2012-2014": "12945050",
        "2015-2017": "12945058",
        "2018-2020": "12945066",
        "weights": "12941117",
    }


def test_every_year_has_its_archive():
    catalogue = read_catalogue()
    for year in range(2000, 2021):
        archive = catalogue.holding_day(date(year, 7, 1))[0]
        first, last = map(int, archive.split("-"))
        assert first <= year <= last
        assert catalogue.holding_day(date(year, 7, 1))[1:] == ("sample",)
    assert catalogue.holding_day(date(2021, 1, 1)) == ("sample",)


def test_names_of_days_and_of_weights():
    layout = read_catalogue().layout
    assert layout.low_of(date(2016, 5, 2)) == "2016/2016-05-02_low.pt.zst"
    assert layout.high_of(date(2016, 5, 2), "2mT") == "2016/2016-05-02_high_2mT.pt.zst"
    assert layout.weights["ldm-2mT"] == "LDM_residual_2mT.ckpt"
    assert layout.weights["gan-UV"] == "GAN_UV.ckpt"


def test_mirrors():
    catalogue = read_catalogue()
    assert (
        catalogue.with_mirror("http://here:8000/copy/").address("weights")
        == "http://here:8000/copy/records/12941117/files/pretrained_models.zip?download=1"
    )
    assert catalogue.with_mirror("http://here/{file}").address("sample") == "http://here/sample_data.zip"
    for mirror in (
        "me:secret@host",
        "me:my secret@host",
        "ftp://me:secret@host/a",
        "https://me:sec/ret@host",
    ):
        with pytest.raises(CatalogueError, match="must begin with https://") as error:
            read_catalogue().with_mirror(mirror)
        assert "ret" not in str(error.value)
    with pytest.raises(CatalogueError, match="must begin with https://"):
        catalogue.with_mirror("ftp://here")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.update(sever="x"), "sever: Extra inputs"),
        (lambda values: values["archives"]["sample"].update(site=3), "archives.sample.site: Extra inputs"),
        (lambda values: values["archives"]["sample"].update(holds=["dayz"]), "archives.sample.holds.0"),
        (lambda values: values["layout"].update(outputs="../up"), "layout.outputs.*relative path"),
        (lambda values: values["layout"].update(statics=["/etc/passwd"]), "layout.statics.0.*relative path"),
        (
            lambda values: values["layout"]["weights"].update(a="b/c.ckpt"),
            "layout.weights.a.*without folders",
        ),
        (lambda values: values["archives"]["sample"].update(file=".hidden"), "archives.sample.file"),
        (lambda values: values.update(server="https://here/x.zip"), "must hold {file}"),
        (lambda values: values.update(server="file:///etc/{file}"), "must begin with https://"),
        (lambda values: values.update(archives={}), "archives"),
    ],
)
def test_mistakes_are_named(tmp_path, change, words):
    with pytest.raises(CatalogueError, match=words):
        read_catalogue(changed(tmp_path, change))


def test_files_that_are_no_catalogue(tmp_path):
    with pytest.raises(CatalogueError, match="can't be read"):
        read_catalogue(tmp_path / "absent.yaml")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(CatalogueError, match="as a catalogue in YAML"):
        read_catalogue(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("- 3")
    with pytest.raises(CatalogueError, match="does not describe a catalogue: the whole"):
        read_catalogue(tmp_path / "a.yaml")
    # A tag that would make an object of Python is refused by the reader of YAML.
    (tmp_path / "a.yaml").write_text("title: !!python/object/apply:os.getcwd []")
    with pytest.raises(CatalogueError, match="as a catalogue in YAML"):
        read_catalogue(tmp_path / "a.yaml")


def test_a_catalogue_can_not_be_changed_by_accident():
    with pytest.raises(ValidationError):
        read_catalogue().title = "another"
