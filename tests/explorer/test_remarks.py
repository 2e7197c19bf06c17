"""Remarks on models whose inputs of the hour lie outside what they were trained on."""

from pathlib import Path

import numpy as np
import pytest

from core.checkpoint import Description, rewrite_description
from core.data.ranges import TrainingRange, VariableRange
from core.model_card import make_card
from explorer.remarks import remark
from explorer.session import Session
from explorer.settings import Settings
from explorer.views.maps import Maps
from explorer.views.models import show_files
from tests.explorer.prompt import PromptLibrary
from tests.explorer.small_store import DOMAIN, HOURS, fields, make_store, make_unet

USUAL, HOT = "2021-03-16T12:00", "2021-03-16T22:00"
WIDE = VariableRange(minimum=-1e4, low=-1e4, high=1e4, maximum=1e4, mean=0, std=100)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A store whose temperature rises from hour to hour, and a UNet that knew what it was by 13 o'clock."""
    make_store(tmp_path / "full.zarr")
    model = tmp_path / "checkpoints" / "unet.safetensors"
    make_unet(model, DOMAIN, "UNet (test)")
    top = float(fields(13)[1].max())
    known = VariableRange(minimum=270, low=275, high=top, maximum=top, mean=285, std=5)
    ranges = TrainingRange(
        hours=13,
        predictors={"t2m": known},
        statics={"orography": WIDE, "latitude": WIDE},
        land_cover=(1.0,) + 15 * (0.0,),
    )
    card = make_card("unet", ("t2m",), "Test land", {"synthetic": True}, version="1")
    rewrite_description(model, Description(ranges=ranges, card=card))
    library = PromptLibrary(Settings((tmp_path / "full.zarr",), model.parent, tmp_path))
    key = next(item.key for item in library.catalogue.result().downscalers if item.label == "UNet (test)")
    made = Session(library, hour=USUAL, models=[key])
    made.start()
    return made


def test_a_remark_comes_and_goes_with_the_hour(session: Session):
    (key,) = session.models
    assert session.remarks == {}
    session.hour = HOT
    assert list(session.remarks) == [key]
    said = session.remarks[key]
    assert said.sentence.startswith(
        "2 metre temperature of 2021-03-16 22:00 lies outside what UNet (test) was trained on in 1"
    )
    top = float(fields(13)[1].max())
    outside = 100 * np.mean(fields(22)[1] > top)
    assert f"{outside:.1f} % of the cells outside the range" in said.details[0]
    session.hour = USUAL
    assert session.remarks == {}
    session.hour = HOT
    assert list(session.remarks) == [key]


def test_interpolations_have_no_remarks(session: Session):
    session.models = ["quadratic"]
    session.hour = HOT
    assert session.remarks == {}


def test_what_is_known_is_not_read_again(session: Session, monkeypatch: pytest.MonkeyPatch):
    (key,) = session.models
    session.hour = HOT
    opened, hour = session.opened, np.datetime64(HOT, "ns")
    known = session.library.peek_applicability(opened, hour, key)
    monkeypatch.setattr(opened, "read", None)
    assert session.library.applicability(opened, hour, key) is known
    assert session.library.applicability(opened, hour, "quadratic") is None
    assert session.library.peek_applicability(opened, HOURS[0], key) is None


def test_a_failure_leaves_the_page_as_it_is(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.hour = HOT

    def fail(*_: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(session.library, "applicability", fail)
    session.hour = "2021-03-16T23:00"
    assert session.remarks == {}
    assert session.error == ""


def test_the_map_and_the_dialog_show_it(session: Session):
    maps = Maps(session)
    (key,) = session.models
    assert "unusual" not in maps._heads[key].object
    session.hour = HOT
    assert "<span class='unusual' title='2 metre temperature of 2021-03-16 22:00" in maps._heads[key].object
    html = show_files(session)
    assert "<summary>2 metre temperature of 2021-03-16 22:00 lies outside" in html
    assert "<summary>Model card</summary>" in html
    assert "Learned from synthetic weather" in html


def test_files_without_ranges_say_so(session: Session):
    (key,) = session.models
    make_unet(session.library.settings.checkpoint_folders[0] / "unet.safetensors", DOMAIN, "UNet (test)")
    found = session.library.applicability(session.opened, np.datetime64(HOT, "ns"), key)
    assert found.recorded
    from dataclasses import replace

    said = remark(replace(found, recorded=False), "UNet", "now")
    assert said.details[-1] == "Judged by mean and standard deviation: the file records no ranges."
