"""Many hours side by side, without a browser."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer.address import from_query, to_query
from explorer.comparison import Comparison
from explorer.library import COARSE, QUADRATIC, TRUTH, Library
from explorer.session import Session
from explorer.settings import Settings
from explorer.views.hours import HoursView, cards_html, multiples_html, ordinal
from explorer.words import DIFFERENCE, STATISTICS, SWIPE
from tests.explorer.prompt import PromptLibrary
from tests.explorer.small_store import HOURS, make_store
from tests.explorer.test_sampling import finish, key, made  # noqa: F401  (a fixture)


def started(library: Library, **state: object) -> tuple[Session, Comparison]:
    session = Session(library, **{"view": "hours"} | state)
    session.start()
    return session, Comparison(session)


# ---------------------------------------------------------------- small multiples


def test_every_third_hour_of_the_day_has_a_picture_of_every_field(library: Library):
    session, comparison = started(library)
    shown = comparison.multiples
    assert [str(h)[11:13] for h in shown.hours] == ["00", "03", "06", "09", "12", "15", "18", "21"]
    assert [key for key, _ in shown.rows] == [COARSE, TRUTH, QUADRATIC, "lapse_rate"]
    assert shown.complete
    assert all(cell.picture for cell in shown.cells.values())
    assert not comparison.running
    session.selection = "day6"
    assert comparison.multiples.hours.size == 4
    session.selection = "spread"
    assert comparison.multiples.hours.size == 8
    assert comparison.multiples.hours[-1] == HOURS[-1]


def test_differences_leave_their_reference_out(library: Library):
    _, comparison = started(library, mode=DIFFERENCE)
    shown = comparison.multiples
    assert TRUTH not in dict(shown.rows)
    assert shown.units == "K"
    assert shown.limits[0] == -shown.limits[1]


def test_another_hour_of_the_same_day_computes_nothing_anew(library: Library):
    session, comparison = started(library)
    before = comparison.multiples
    session.step(1)
    assert comparison.multiples is before


def test_members_that_are_not_sampled_are_blank(made: Path):  # noqa: F811
    library = PromptLibrary(Settings((made / "square.zarr",), made / "checkpoints", made))
    library.catalogue.result()
    session, comparison = started(library, models=[QUADRATIC], steps=2, selection="spread")
    session.models = [QUADRATIC, key(library)]
    finish(library)
    words = [comparison.multiples.cells[key(library), hour].words for hour in session.hours]
    assert words.count("not sampled") == 3
    assert words[list(session.hours).index(session.current)] == ""
    session.param.update(selection="story", left=key(library), right=TRUTH)
    assert comparison.cards.story.missing == 3
    assert [card.hour for card in comparison.cards.cards] == [session.current]


def test_members_sampled_later_are_seen(made: Path):  # noqa: F811
    library = PromptLibrary(Settings((made / "square.zarr",), made / "checkpoints", made))
    library.catalogue.result()
    ours = key(library)
    session, comparison = started(
        library, models=[QUADRATIC, ours], steps=2, selection="story", left=ours, right=TRUTH
    )
    finish(library)
    assert comparison.cards.story.missing == 3
    session.view = "maps"
    for hour in session.hours:
        piece = replace(session.piece(session.generators[0]), hour=hour)
        library.keep_member(piece, {"t2m": np.full((64, 64), 280, "f4")})
    session.view = "hours"
    assert comparison.cards.story.missing == 0
    shown = comparison.cards
    session.view = "maps"
    session.view = "hours"
    assert comparison.cards is shown


def test_nothing_is_done_behind_another_view_and_it_goes_on_where_it_was(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    waiting, asked, once = [], [], library.fields_once

    def watch(opened, hour, name):
        asked.append((hour, name))
        return once(opened, hour, name)

    monkeypatch.setattr(library, "fields_once", watch)
    monkeypatch.setattr(library, "submit", lambda work: waiting.append(work))
    session = Session(library, view="hours", selection="spread")
    session.start()
    comparison = Comparison(session)

    def work() -> None:
        while waiting:
            waiting.pop(0)()

    for _ in range(4):
        waiting.pop(0)()
    session.view = "maps"
    work()
    begun = len(asked)
    assert 0 < begun < 32
    assert not comparison.multiples or not comparison.multiples.complete
    session.view = "hours"
    work()
    assert comparison.multiples.complete
    assert len(asked) == len(set(asked)) == 32


def test_a_failing_field_says_so_in_its_cell(library: Library, monkeypatch: pytest.MonkeyPatch):
    compute = library._compute

    def broken(opened, hour, name):
        if name == "lapse_rate":
            raise ValueError("There is <no> slope.")
        return compute(opened, hour, name)

    monkeypatch.setattr(library, "_compute", broken)
    session, comparison = started(library)
    assert comparison.multiples.cells["lapse_rate", HOURS[3]].words == "There is <no> slope."
    page = multiples_html(comparison.multiples, session.current)
    assert "There is &lt;no&gt; slope." in page
    assert session.error == ""


# ---------------------------------------------------------------- the story


def days(folder: Path) -> Library:
    """A library over three days."""
    hours = np.arange("2021-03-16", "2021-03-19", dtype="datetime64[h]").astype("datetime64[ns]")
    make_store(folder / "days.zarr", hours)
    library = PromptLibrary(Settings((folder / "days.zarr",), folder / "checkpoints", folder))
    library.catalogue.result()
    return library


def test_the_story_is_of_the_pair_and_leads_to_its_hour(tmp_path: Path):
    session, comparison = started(days(tmp_path), selection="story", most=0)
    shown = comparison.cards
    assert (shown.left, shown.right) == ("Lapse-rate interpolation", "Truth")
    assert shown.story.complete
    assert 1 <= len(shown.cards) <= 3
    view = HoursView(session)
    page = cards_html(view.comparison.cards)
    picks = re.findall("data-pick='([^']+)'", page)
    assert len(picks) == len(shown.cards)
    view._go(picks[-1])
    assert (session.view, session.hour, session.mode) == ("maps", picks[-1], SWIPE)
    assert session.pair() == ("lapse_rate", TRUTH)
    view._go("nonsense")
    view._go("1999-01-01T00:00")
    assert session.hour == picks[-1]


def test_another_pair_is_another_story(tmp_path: Path):
    session, comparison = started(days(tmp_path), selection="story", most=12)
    assert comparison.cards.story.total <= 12
    first = comparison.cards
    session.param.update(left=COARSE, right=QUADRATIC)
    assert (comparison.cards.left, comparison.cards.right) == ("Coarse input", "Quadratic interpolation")
    assert comparison.cards is not first


def test_stop_and_look_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library = days(tmp_path)
    session, comparison = started(library, selection="day3", most=0)
    once = library.fields_once

    def stopping(opened, hour, name):
        comparison.stop()
        return once(opened, hour, name)

    monkeypatch.setattr(library, "fields_once", stopping)
    session.selection = "story"
    assert comparison.stopped
    assert not comparison.running
    assert comparison.cards.cards == ()
    monkeypatch.setattr(library, "fields_once", once)
    comparison.go_on()
    assert comparison.cards.story.complete
    assert not comparison.stopped


# ---------------------------------------------------------------- the state behind it


def test_pairs_are_two_fields_that_are_there(library: Library):
    session, _ = started(library)
    assert session.pair() == ("lapse_rate", TRUTH)
    session.left = "gone"
    assert session.pair() == ("lapse_rate", TRUTH)
    session.param.update(left=TRUTH, right=TRUTH)
    assert session.pair() == ("lapse_rate", TRUTH)
    session.models = []
    assert session.pair() == (COARSE, TRUTH)
    session.store = "bare"
    assert session.pair() == (COARSE, COARSE)  # the only field of this store without downscalers


def test_the_address_holds_the_new_state_and_bad_words_go(library: Library):
    state = {
        "scope": "hours", "most": 24, "split": "all", "left": QUADRATIC, "right": COARSE, "mode": SWIPE,
        "layers": ["arrows"], "selection": "story", "view": "hours",
    }  # fmt: skip
    session, _ = started(library, **state)
    found = from_query(to_query(session))
    for name, value in state.items():
        if value != session.param[name].default:
            assert found[name] == value, name
    session.layers = []
    assert from_query(to_query(session))["layers"] == []
    wrong = {"scope": "year", "most": 5, "split": "x", "layers": ["x", STATISTICS], "selection": "y"}
    session.restore({"store": "full"} | wrong)
    assert (session.scope, session.most, session.split, session.selection) == ("hour", 48, "all", "day3")
    assert session.layers == [STATISTICS]


def test_ordinals():
    assert [ordinal(n) for n in (1, 2, 3, 5, 11, 13, 22, 33)] == [
        "1st", "2nd", "3rd", "5th", "11th", "13th", "22nd", "33rd",
    ]  # fmt: skip
