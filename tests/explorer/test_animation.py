"""Playing hours, steps by days, and what keys do, without a browser."""

from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pytest

from core.downscale import DownscaleError
from explorer.jobs import SAMPLERS
from explorer.library import QUADRATIC, Library
from explorer.player import AHEAD, LONGEST_WAIT, Player, day_away
from explorer.session import Session
from explorer.settings import Settings
from explorer.views.keys import Keys
from tests.explorer.generative import HOURS as FOUR_HOURS
from tests.explorer.generative import iso, make_ldm, make_square_store
from tests.explorer.prompt import PromptLibrary


class Clock:
    """Time that passes when a test says so, and the work that waits for it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waiting: list[tuple[float, object]] = []

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, work: object) -> None:
        self.waiting.append((self.now + seconds, work))

    def pass_by(self, seconds: float) -> None:
        """Let time pass, doing what falls due on the way."""
        end = self.now + seconds
        while due := [item for item in self.waiting if item[0] <= end]:
            item = min(due, key=lambda item: item[0])
            self.waiting.remove(item)
            self.now = item[0]
            item[1]()
        self.now = end


@pytest.fixture
def clock() -> Clock:
    return Clock()


def started(library: Library, **state: Any) -> Session:
    """A session without scores, whose time these tests need not take."""
    session = Session(library, **{"models": [], **state})
    session.analyses.score = lambda: None
    session.start()
    return session


def player_of(session: Session, clock: Clock, *, draws: bool = True) -> Player:
    """A player over a browser that draws at once."""
    player = Player(session, clock.after, clock)
    if draws:
        player.param.watch(lambda event: player.drawn(event.new), "frame")
    return player


# ---------------------------------------------------------------- playing


def test_hours_follow_one_another_at_their_pace(library: Library, clock: Clock):
    session = started(library, hour="2021-03-16T10:00")
    player = player_of(session, clock)
    player.play()
    clock.pass_by(0.01)  # the hour on the screen gives way at once
    assert session.hour == "2021-03-16T11:00"
    clock.pass_by(0.9)
    assert session.hour == "2021-03-16T11:00"
    clock.pass_by(0.2)
    assert session.hour == "2021-03-16T12:00"
    player.pause = 0.5
    clock.pass_by(0.95)  # the hour under way keeps its pace
    clock.pass_by(0.5)
    assert session.hour == "2021-03-16T14:00"
    player.toggle()
    clock.pass_by(20)
    assert session.hour == "2021-03-16T14:00"
    assert not clock.waiting


def test_no_hour_is_left_out_and_the_last_is_followed_by_the_first(library: Library, clock: Clock):
    session = started(library, hour="2021-03-16T21:00", daytime="night")
    seen: list[str] = []
    session.param.watch(lambda event: seen.append(event.new), "hour")
    player_of(session, clock).play()
    clock.pass_by(5.5)
    assert [hour[11:] for hour in seen] == ["22:00", "23:00", "00:00", "01:00", "02:00", "03:00"]


def test_the_next_hour_waits_until_the_browser_has_drawn(library: Library, clock: Clock):
    session = started(library)
    player = player_of(session, clock, draws=False)
    player.play()
    assert player.frame == 1
    clock.pass_by(30)
    assert session.hour == "2021-03-16T12:00"
    player.drawn(7)  # of something else
    clock.pass_by(1)
    assert session.hour == "2021-03-16T12:00"
    player.drawn(1)
    clock.pass_by(0.1)
    assert session.hour == "2021-03-16T13:00"


def test_the_next_hour_is_not_shown_before_it_is_made(
    library: Library, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    session = started(library)
    player = player_of(session, clock)
    made = [False]
    monkeypatch.setattr(player, "_made", lambda hour: made[0])
    player.play()
    clock.pass_by(LONGEST_WAIT - 1)
    assert session.hour == "2021-03-16T12:00"
    made[0] = True
    clock.pass_by(0.2)
    assert session.hour == "2021-03-16T13:00"
    made[0] = False
    clock.pass_by(LONGEST_WAIT + 1.2)  # what never comes is not waited for
    assert session.hour == "2021-03-16T14:00"


def test_hours_ahead_are_made_beforehand_while_playing(library: Library, clock: Clock):
    session = started(library)
    session.step(-1)  # so that it looks back
    key = session.snapshot.fields[-1].key
    later = [np.datetime64(f"2021-03-16T{11 + count}:00", "ns") for count in range(1, AHEAD + 2)]
    assert library.peek(session.opened, later[2], key) is None
    player = player_of(session, clock, draws=False)
    player.play()
    assert all(library.peek(session.opened, hour, key) is not None for hour in later[:AHEAD])
    assert library.peek(session.opened, later[AHEAD], key) is None


@pytest.mark.parametrize(
    "change",
    [
        {"hour": "2021-03-16T03:00"},
        {"models": ["lapse_rate"]},
        {"season": "summer"},
        {"view": "scores"},
        {"store": "bare"},
        {"error": "It failed."},
    ],
)
def test_a_choice_or_an_error_stops_it(library: Library, clock: Clock, change: dict[str, object]):
    session = started(library)
    player = player_of(session, clock)
    player.play()
    clock.pass_by(0.1)
    assert player.playing
    session.param.update(**change)
    assert not player.playing
    stays = session.hour
    clock.pass_by(10)
    assert session.hour == stays


def test_colours_and_differences_may_change_meanwhile(library: Library, clock: Clock):
    session = started(library)
    player = player_of(session, clock)
    player.play()
    session.param.update(mode="difference", palette="viridis", theme="dark")
    session.region = "all"
    clock.pass_by(2.5)
    assert player.playing
    assert session.hour == "2021-03-16T15:00"


def test_a_field_that_can_not_be_made_stops_it(
    library: Library, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    session = started(library, models=["lapse_rate"])
    player = player_of(session, clock)
    compute = library._compute

    def fail(opened: object, hour: np.datetime64, key: str) -> object:
        if key == "lapse_rate" and hour == np.datetime64("2021-03-16T18:00"):
            raise DownscaleError("It has no heights.")
        return compute(opened, hour, key)

    monkeypatch.setattr(library, "_compute", fail)
    player.play()
    clock.pass_by(60)
    assert session.hour == "2021-03-16T18:00"
    assert not player.playing
    assert session.snapshot.get("lapse_rate").problem == "It has no heights."


def test_one_hour_can_not_be_played(library: Library, clock: Clock):
    session = started(library)
    session.hours = session.hours[:1]
    player = player_of(session, clock)
    player.play()
    assert not player.playing


def test_what_is_drawn_of_an_hour_beside_maps_is_waited_for(library: Library, clock: Clock):
    session = started(library, view="spectra")
    held: list[object] = []
    player = player_of(session, clock)
    ask = session.analyses._latest["spectra"].ask
    session.analyses._latest["spectra"].ask = lambda *work: held.append(work)
    player.play()
    clock.pass_by(5)
    assert session.hour == "2021-03-16T13:00"
    ask(*held.pop())
    clock.pass_by(1.1)
    assert session.hour == "2021-03-16T14:00"


def test_scores_that_are_looked_at_are_waited_for(
    library: Library, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    session = Session(library, models=[QUADRATIC], view="scores", hour="2021-03-16T10:00")
    session.start()
    held: list[object] = []
    score = session.analyses.score
    monkeypatch.setattr(session.analyses, "score", lambda: held.append(None))
    player = player_of(session, clock)
    player.play()
    clock.pass_by(5)
    assert session.hour == "2021-03-16T11:00"
    score()
    clock.pass_by(1.1)
    assert session.hour == "2021-03-16T12:00"


# ---------------------------------------------------------------- generative models


@pytest.fixture(scope="session")
def generative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("played")
    make_ldm(folder / "checkpoints" / "ldm.safetensors", make_square_store(folder / "square.zarr"))
    return folder


def test_one_member_an_hour_is_sampled_and_the_loop_ends_with_the_last_hour(generative: Path, clock: Clock):
    library = PromptLibrary(Settings((generative / "square.zarr",), generative / "checkpoints", generative))
    key = library.catalogue.result().downscalers[-1].key
    turn = RLock()  # a page has one event loop; here members arrive from threads of their own

    def deliver(work: Callable[[], None]) -> None:
        with turn:
            work()

    session = started(library, models=[key], steps=2, members=3, hour=iso(FOUR_HOURS[0]), deliver=deliver)
    assert session.sampler in SAMPLERS
    assert library.jobs.wait(60)
    player = player_of(session, clock)
    for times in (1, 2):  # the second time everything is there
        with turn:
            session.hour = iso(FOUR_HOURS[0])
        assert library.jobs.wait(60)
        with turn:
            player.play()
        for _ in range(8):
            with turn:
                clock.pass_by(1.1)
            assert library.jobs.wait(60)
        if times == 1:
            assert session.hour == iso(FOUR_HOURS[-1])
            assert not player.playing
        else:
            assert player.playing
        choice = session.generating
        found = [session.piece(choice, member) for member in range(3)]
        assert [library.peek_member(piece) is not None for piece in found] == [True, False, False]
    player.stop()


# ---------------------------------------------------------------- days and keys


def test_a_day_away_is_the_nearest_hour_of_the_next_day_there_is():
    days = [
        "2020-01-01T00",
        "2020-01-01T06",
        "2020-01-01T12",
        "2020-01-05T05",
        "2020-01-05T14",
        "2020-02-01T00",
    ]
    hours = np.array(days, "datetime64[ns]")
    assert [day_away(hours, place, 1) for place in range(6)] == [3, 3, 4, 5, 5, 5]
    assert [day_away(hours, place, -1) for place in (0, 3, 4, 5)] == [0, 1, 2, 3]
    assert day_away(hours, 0, 2) == 5
    assert day_away(hours[:0], 0, 1) == 0


def test_messages_of_the_browser_become_choices(library: Library, clock: Clock):
    session = started(library)
    player = player_of(session, clock, draws=False)
    keys = Keys(session, player, lambda: {"Maps": "maps", "About": "about"})
    assert keys.views == ["Maps", "About"]
    keys._handle_msg({"hours": -2, "count": 1})
    assert session.hour == "2021-03-16T10:00"
    keys._handle_msg({"view": 1, "count": 2})
    assert session.view == "about"
    keys._handle_msg({"view": 5, "count": 3})
    keys._handle_msg({"days": 1, "count": 4})  # there is one day alone
    assert (session.view, session.hour) == ("about", "2021-03-16T10:00")
    keys._handle_msg({"play": True, "count": 5})
    assert player.playing
    assert keys.frame == player.frame == 1
    keys._handle_msg({"drawn": 1})
    clock.pass_by(0.1)
    assert session.hour == "2021-03-16T11:00"
    keys._handle_msg({"hidden": True})
    assert not player.playing
    for nonsense in ("x", None, {}, {"hours": "many"}, {"view": True}, {"count": "1"}):
        keys._handle_msg(nonsense)
    assert keys.handled == 5
