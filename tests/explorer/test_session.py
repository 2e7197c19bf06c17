"""The state of a visitor, without a browser."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from core.data.era5 import ingest
from core.data.store import Store
from core.metrics.deterministic import bias, rmse
from explorer.library import COARSE, QUADRATIC, TRUTH, Library
from explorer.scores import Score
from explorer.session import Session
from explorer.settings import Settings
from explorer.views.about import About
from explorer.words import DIFFERENCE, FIELDS
from tests import era5_like
from tests.explorer.prompt import PromptLibrary
from tests.explorer.small_store import DOMAIN, HOURS, fields, fill, make_store, make_unet
from tests.synthetic_store import static_dataset


def started(library: Library, **state: object) -> Session:
    session = Session(library, **state)
    session.start()
    return session


def values(session: Session, key: str) -> np.ndarray:
    return session.snapshot.get(key).values


def open_alone(path: Path, **state: object) -> Session:
    library = PromptLibrary(Settings((path,), path.parent / "checkpoints", path.parent))
    library.catalogue.result()
    return started(library, **state)


# ---------------------------------------------------------------- what is shown


def test_opens_the_first_store_at_noon_with_what_can_run(library: Library):
    session = started(library)
    assert (session.store, session.hour) == ("full", "2021-03-16T12:00")
    assert [f.key for f in session.snapshot.fields] == [COARSE, TRUTH, QUADRATIC, "lapse_rate"]
    assert not session.snapshot.computing
    assert session.problem == session.error == session.note == ""


def test_fields_are_those_of_the_store_in_degrees_celsius(library: Library):
    session = started(library)
    fine, coarse = fields(12)
    np.testing.assert_allclose(values(session, TRUTH), fine - 273.15, atol=1e-3)
    np.testing.assert_allclose(values(session, COARSE), coarse - 273.15, atol=1e-3)


def test_another_hour_brings_other_fields(library: Library):
    session = started(library)
    session.step(1)
    assert session.hour == "2021-03-16T13:00"
    np.testing.assert_allclose(values(session, TRUTH), fields(13)[0] - 273.15, atol=1e-3)


def test_steps_stay_within_the_hours(library: Library):
    session = started(library)
    session.step(-100)
    assert session.hour == "2021-03-16T00:00"
    session.step(100)
    assert session.hour == "2021-03-16T23:00"


def test_ticking_decides_which_downscalers_are_shown(library: Library):
    session = started(library)
    session.models = ["lapse_rate"]
    assert [f.key for f in session.snapshot.fields] == [COARSE, TRUTH, "lapse_rate"]
    session.models = []
    assert [f.key for f in session.snapshot.fields] == [COARSE, TRUTH]


def test_time_of_day_limits_the_hours_and_shows_one_of_them(library: Library):
    session = started(library)
    session.daytime = "night"
    assert session.hours.size == 12
    assert session.current in session.hours
    assert session.snapshot.hour == session.current


def test_a_season_without_hours_says_so_and_recovers(library: Library):
    session = started(library)
    session.season = "summer"
    assert "No hour of this store matches" in session.problem
    session.season = "all"
    assert session.problem == ""
    assert session.snapshot is not None


def test_a_fixed_colour_range_does_not_outlive_what_it_was_set_for(library: Library):
    session = started(library, limits=[-5.0, 5.0])
    assert session.limits == [-5.0, 5.0]
    session.mode = DIFFERENCE
    assert session.limits is None
    session.restore({"store": "full", "limits": [0.0, 9.0]})
    assert (session.mode, session.limits) == ("fields", [0.0, 9.0])


def test_next_hour_is_made_beforehand(library: Library):
    session = started(library)
    following = np.datetime64("2021-03-16T13:00", "ns")
    assert all(library.peek(session.opened, following, f.key) for f in session.snapshot.fields)


def test_what_is_made_beforehand_is_made_although_something_else_was_asked_for(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    session = started(library)
    held: list[Callable[[], None]] = []
    monkeypatch.setattr(library, "submit", held.append)
    session.step(1)
    session.seed = 3  # the same maps, asked for anew
    for work in held:
        work()
    following = np.datetime64("2021-03-16T14:00", "ns")
    assert all(library.peek(session.opened, following, f.key) for f in session.snapshot.fields)


def test_what_is_made_beforehand_is_made_again_when_it_was_forgotten(library: Library):
    session = started(library)
    library.results._done.clear()
    session.seed = 3
    following = np.datetime64("2021-03-16T13:00", "ns")
    assert all(library.peek(session.opened, following, f.key) for f in session.snapshot.fields)


# ---------------------------------------------------------------- differences and scores


@pytest.mark.parametrize(
    "change",
    [{"variable": "u10"}, {"hour": "2021-03-16T13:00"}, {"store": "bare"}],
    ids=lambda c: next(iter(c)),
)
def test_scores_of_something_else_are_never_beside_a_snapshot(
    library: Library, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
):
    session = started(library)
    monkeypatch.setattr(session.analyses, "score", lambda: None)
    seen = []
    session.param.watch(lambda *_: seen.append(session.scores), "snapshot")
    session.param.update(**change)
    assert session.snapshot.quantity == session.quantity
    assert seen
    assert not any(seen)


def test_scores_of_another_region_are_dropped(library: Library, monkeypatch: pytest.MonkeyPatch):
    session = started(library)
    north = replace(session.window, key="north")
    monkeypatch.setattr(type(session), "window", property(lambda _: north))
    monkeypatch.setattr(session.analyses, "score", lambda: None)
    session.region = "north"
    assert session.scores is None


def test_hours_that_were_passed_are_not_scored(library: Library, monkeypatch: pytest.MonkeyPatch):
    session = Session(library)
    session.start()
    for count in (1, 1, 1, -3):
        session.step(count)
    waiting, scored = [], []
    monkeypatch.setattr(library, "submit", waiting.append)
    monkeypatch.setattr(
        "explorer.following.compute_score", lambda *a: scored.append(a[-1]) or Score(*a[:2], *[0] * 5)
    )
    for _ in range(3):
        session.step(1)
    while waiting:
        waiting.pop(0)()
    assert {address[3] for address in scored} == {str(session.current)}
    assert session.scores.hour == session.current


def test_difference_leaves_the_reference_out_and_is_centred_on_zero(library: Library):
    session = started(library, mode=DIFFERENCE)
    shown = session.shown()
    assert set(shown.values) == {COARSE, QUADRATIC, "lapse_rate"}
    assert shown.units == "K"
    assert shown.limits[0] == -shown.limits[1]
    expected = values(session, QUADRATIC) - values(session, TRUTH)
    np.testing.assert_array_equal(shown.values[QUADRATIC], expected)


def test_difference_of_the_coarse_input_counts_each_cell_wherever_it_lies(library: Library):
    session = started(library, mode=DIFFERENCE, reference=COARSE)
    fine, coarse = fields(12)
    expected = fine - np.kron(coarse, np.ones((8, 8)))
    np.testing.assert_allclose(session.shown().values[TRUTH], expected, atol=1e-3)


def test_scores_are_those_of_core_metrics_over_the_region(library: Library):
    session = started(library)
    table = session.scores
    assert [row.key for row in table.rows] == [QUADRATIC, "lapse_rate"]
    data = session.opened.store
    truth = data.read_fine(session.current)["t2m"]
    made = (
        library.catalogue.result()
        .get(QUADRATIC)
        .downscale(data.read_coarse(session.current), data.read_static(), DOMAIN)["t2m"]
    )
    row = table.get(QUADRATIC)
    assert row.rmse == pytest.approx(float(rmse(made, truth).item()), rel=1e-4)
    assert row.bias == pytest.approx(float(bias(made, truth).item()), abs=1e-4)


def test_coarse_input_is_scored_by_quadratic_interpolation(library: Library):
    session = started(library)
    quadratic = session.scores.get(QUADRATIC)
    session.models = ["lapse_rate"]
    assert session.scores.get(COARSE).rmse == pytest.approx(quadratic.rmse)
    assert [key for key, _, _ in session.scored_fields()] == [COARSE, "lapse_rate"]


# ---------------------------------------------------------------- state in the address


def test_state_of_an_address_is_restored(library: Library):
    session = started(
        library, store="full", hour="2021-03-16T05:00", models=["lapse_rate"], mode=DIFFERENCE,
        reference="lapse_rate", view="scores", theme="dark",
    )  # fmt: skip
    assert session.hour == "2021-03-16T05:00"
    assert [choice.key for choice in session.running] == ["lapse_rate"]
    assert (session.against, session.view, session.theme) == ("lapse_rate", "scores", "dark")


@pytest.mark.parametrize(
    ("name", "nonsense", "kept"),
    [
        ("mode", "sideways", "fields"),
        ("view", "window", "maps"),
        ("theme", "pink", "light"),
        ("season", "monsoon", "all"),
        ("region", "atlantis", "all"),
        ("variable", "ozone", "t2m"),
        ("limits", [5, 1], None),
        ("limits", ["a", "b"], None),
    ],
)
def test_nonsense_in_an_address_falls_back(library: Library, name: str, nonsense: object, kept: object):
    session = started(library, **{name: nonsense})
    shown = session.quantity.key if name == "variable" else getattr(session, name)
    assert shown == kept
    assert session.snapshot is not None


@pytest.mark.parametrize("hour", ["yesterday", "2021-13-45", "1999-01-01T00:00"])
def test_an_hour_that_is_not_there_gives_another(library: Library, hour: str):
    session = started(library, hour=hour)
    assert session.current in session.hours
    assert session.snapshot.hour == session.current


def test_a_downscaler_that_is_not_there_is_ignored(library: Library):
    session = started(library, models=["unet-00000000", QUADRATIC])
    assert [f.key for f in session.snapshot.fields] == [COARSE, TRUTH, QUADRATIC]


# ---------------------------------------------------------------- bad input


def test_no_store_at_all(tmp_path: Path):
    session = started(Library(Settings((), tmp_path, tmp_path)))
    assert session.problem == "There is no store to show."
    assert session.stores == []


def test_missing_store_is_named_and_opened_when_it_appears(tmp_path: Path):
    path = tmp_path / "late.zarr"
    session = open_alone(path)
    assert str(path) in session.problem
    make_store(path)
    session.look()
    assert session.problem == ""
    assert session.snapshot is not None


def test_a_folder_that_is_no_store(tmp_path: Path):
    path = tmp_path / "photos.zarr"
    path.mkdir()
    (path / "holiday.jpg").write_bytes(b"x")
    assert "is not a store" in open_alone(path).problem


def test_a_store_that_is_not_listed_can_not_be_opened(library: Library, tmp_path: Path):
    session = started(library, store=str(tmp_path / "secret"))
    assert "no store called" in session.problem
    session.store = "full"
    assert session.problem == ""
    assert session.snapshot is not None


def test_store_without_truth_shows_maps_and_says_what_is_missing(library: Library):
    session = started(library, store="bare", mode=DIFFERENCE)
    assert not session.has_truth
    assert session.scores is None
    assert TRUTH not in session.references()
    assert session.against == QUADRATIC
    assert session.snapshot.get(TRUTH) is None


def test_era5_files_without_some_predictors_leave_the_unet_grey(tmp_path: Path):
    held = ["t2m", "msl", "u10", "v10", "d2m", "sst", "tp", "q", "t", "u", "v"]
    times = era5_like.stamps(hours=3)
    file = era5_like.write_new(era5_like.fields(held, times), tmp_path / "era5.nc")
    statics = static_dataset(era5_like.DOMAIN)
    ingest([file], tmp_path / "era5.zarr", era5_like.DOMAIN, static=statics, assume_850=True)
    make_unet(tmp_path / "checkpoints" / "unet.safetensors", era5_like.DOMAIN, "Small UNet")
    session = open_alone(tmp_path / "era5.zarr")
    unet = next(choice for choice in session.choices if choice.label == "Small UNet")
    assert not unet.runs
    assert unet.reason == "Small UNet needs predictors that the store lacks: sd, ssrd, w850."
    assert [choice.key for choice in session.running] == [QUADRATIC]
    session.models = [unet.key, QUADRATIC]
    assert [field.key for field in session.snapshot.fields] == [COARSE, QUADRATIC]
    np.testing.assert_allclose(
        values(session, COARSE), era5_like.expected("t2m", times[:1])[0] - 273.15, atol=0.02
    )


def test_unknown_variables_are_named_and_ignored(tmp_path: Path):
    make_store(tmp_path / "odd.zarr")
    group = zarr.open_group(str(tmp_path / "odd.zarr"), mode="r+")["coarse"]
    group.create_array(
        "ozone", data=np.ones((24, 8, 6), "f4"), chunks=(1, 8, 6), dimension_names=("time", "y", "x")
    )
    session = open_alone(tmp_path / "odd.zarr")
    assert session.opened.store.contents.unknown == ("/coarse/ozone",)
    assert [quantity.key for quantity in session.quantities] == ["t2m", "wind", "u10", "v10", "tp"]


def test_store_with_no_hour_yet_says_so(tmp_path: Path):
    make_store(tmp_path / "empty.zarr", written=0)
    session = open_alone(tmp_path / "empty.zarr")
    assert "No hour of this store is written yet (24 planned)" in session.problem


def test_a_corrupt_checkpoint_is_listed_with_the_reason(folder: Path):
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "broken.safetensors").write_bytes(b"not a checkpoint")
    session = open_alone(folder / "full.zarr")
    broken = next(choice for choice in session.choices if choice.label == "broken.safetensors")
    assert not broken.runs
    assert broken.reason
    assert [choice.key for choice in session.running] == [QUADRATIC, "lapse_rate"]


def test_a_checkpoint_that_arrives_is_offered(folder: Path):
    session = open_alone(folder / "full.zarr")
    assert [choice.key for choice in session.choices] == [QUADRATIC, "lapse_rate"]
    make_unet(folder / "checkpoints" / "new.safetensors", DOMAIN, "New one")
    found = threading.Event()
    session.param.watch(lambda *_: found.set(), "choices")
    session.look()
    assert found.wait(30)
    new = session.choices[-1]
    assert (new.label, new.runs) == ("New one", True)
    assert session.models == [QUADRATIC, "lapse_rate"]
    session.models = [new.key]
    assert [choice.label for choice in session.running] == ["New one"]


def test_a_downscaler_that_fails_marks_its_map_alone(library: Library, monkeypatch: pytest.MonkeyPatch):
    lapse_rate = library.catalogue.result().get("lapse_rate")
    monkeypatch.setattr(lapse_rate, "downscale", lambda *_: (_ for _ in ()).throw(ValueError("No good.")))
    session = started(library)
    assert session.snapshot.get("lapse_rate").problem == "No good."
    assert values(session, QUADRATIC) is not None
    assert [row.key for row in session.scores.rows] == [QUADRATIC]


def test_an_unexpected_exception_becomes_a_sentence(library: Library):
    session = started(library)
    session.fail(ZeroDivisionError("division by zero"))
    assert session.error.startswith("That did not work (ZeroDivisionError: division by zero)")
    assert "Traceback" not in session.error


# ---------------------------------------------------------------- stores that change


def test_hours_that_arrive_are_offered_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("explorer.library.REFRESH_EVERY", 0.0)
    make_store(tmp_path / "grows.zarr", written=3)
    session = open_alone(tmp_path / "grows.zarr")
    assert session.hours.size == 3
    shown = session.snapshot.hour
    fill(Store.open(tmp_path / "grows.zarr", mode="a"), HOURS[3:5])
    session.look()
    assert session.hours.size == 5
    assert session.note == "2 new hours in this store since you opened it."
    assert session.snapshot.hour == shown


def test_two_visitors_of_a_growing_store_both_hear_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("explorer.library.REFRESH_EVERY", 0.0)
    make_store(tmp_path / "grows.zarr", written=3)
    first = open_alone(tmp_path / "grows.zarr")
    second = started(first.library)
    fill(Store.open(tmp_path / "grows.zarr", mode="a"), HOURS[3:4])
    first.look()
    second.look()
    assert first.note == second.note == "1 new hour in this store since you opened it."


def test_a_store_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("explorer.library.REFRESH_EVERY", 0.0)
    path = tmp_path / "shy.zarr"
    make_store(path)
    session = open_alone(path)
    shutil.rmtree(path)
    session.look()
    assert str(path) in session.problem
    make_store(path)
    session.look()
    assert session.problem == ""
    assert session.snapshot is not None


def test_a_store_that_is_replaced_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("explorer.library.REFRESH_EVERY", 0.0)
    path = tmp_path / "new.zarr"
    make_store(path)
    session = open_alone(path)
    shutil.rmtree(path)
    make_store(path, fingerprint="another", title="Other weather")
    session.look()
    assert "replaced" in session.note
    assert session.opened.store.attrs["title"] == "Other weather"


def test_the_page_of_words_names_every_folder_of_checkpoints(folder: Path):
    settings = Settings((folder / "full.zarr",), folder / "checkpoints", folder, own=folder / "my own")
    library = PromptLibrary(settings)
    library.catalogue.result()
    words = About(started(library, view="about"))._pane.object
    assert f"looked for in {folder / 'checkpoints'} and {folder / 'my own'}." in words


# ---------------------------------------------------------------- several visitors, real threads


def test_visitors_share_results_and_each_is_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    library = Library(Settings((folder / "full.zarr",), folder, folder))
    quadratic = library.catalogue.result().get(QUADRATIC)
    calls, plain = [], quadratic.downscale

    def counted(coarse, static, domain):
        calls.append(coarse["time"].values[0])
        return plain(coarse, static, domain)

    monkeypatch.setattr(quadratic, "downscale", counted)
    opened = library.open("full")
    hours = HOURS[:4]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda hour: library.fields(opened, hour, QUADRATIC), np.tile(hours, 8)))
    assert sorted(calls) == sorted(hours)


def test_late_results_of_an_hour_left_behind_are_dropped(folder: Path):
    queue: list[Callable[[], None]] = []
    arrived = threading.Condition()

    def deliver(work: Callable[[], None]) -> None:
        with arrived:
            queue.append(work)
            arrived.notify()

    library = Library(Settings((folder / "full.zarr",), folder, folder))
    library.catalogue.result()
    session = Session(library, deliver=deliver)
    session.start()

    def run_until(done: Callable[[], bool]) -> None:
        with arrived:
            while not done():
                assert arrived.wait_for(lambda: queue, 20)
                queue.pop(0)()

    run_until(lambda: session.snapshot is not None and not session.snapshot.computing)
    session.hour = "2021-03-16T20:00"
    session.hour = "2021-03-16T04:00"
    run_until(lambda: session.snapshot.hour == np.datetime64("2021-03-16T04:00"))
    while queue:
        queue.pop(0)()
    assert session.snapshot.hour == np.datetime64("2021-03-16T04:00")
    np.testing.assert_allclose(values(session, TRUTH), fields(4)[0] - 273.15, atol=1e-3)


def test_a_long_computation_ends_with_the_visitor(library: Library, monkeypatch: pytest.MonkeyPatch):
    session = started(library)
    done = []

    def slow(*_: object):
        for step in range(3):
            done.append(step)
            if step == 1:
                session.close()
            yield None

    monkeypatch.setattr("explorer.following.compute_fluxes", slow)
    session.view = "flux"
    assert done == [0, 1]


def test_nothing_is_delivered_to_a_visitor_who_left(library: Library):
    delivered = []
    session = Session(library, deliver=delivered.append)
    session.start()
    session.close()
    for work in delivered:
        work()
    assert session.snapshot is None or not session.snapshot.computing
    before = len(delivered)
    session.look()
    assert len(delivered) == before


# ---------------------------------------------------------------- limits of what may be asked for


FORGED = 10**11
"""A number that a browser or an address may send; making so many pieces would never end."""


@pytest.mark.parametrize("name", ["members", "steps", "seed", "cells"])
def test_numbers_beyond_their_bounds_never_reach_who_watches(library: Library, name: str):
    session = started(library)
    seen = []
    session.param.watch(lambda event: seen.append(len(session.member_numbers())), name)
    setattr(session, name, FORGED)
    assert getattr(session, name) == session.param[name].default
    session.restore({"store": "full", name: FORGED})
    assert getattr(session, name) == session.param[name].default
    assert max(seen) == 4


def test_a_page_that_samples_less_has_fewer_members(folder: Path):
    settings = Settings((folder / "full.zarr",), folder, folder, most_members=2)
    session = Session(PromptLibrary(settings), members=FORGED)
    assert session.member_numbers() == [0, 1]
    session.start()
    assert (session.members, session.member_numbers()) == (2, [0, 1])


def test_what_is_put_right_is_put_right_at_once(library: Library):
    session = started(library)
    seen = []
    session.param.watch(lambda *_: seen.append((session.mode, session.steps, session.point)), "mode")
    session.param.update(mode="sideways", steps=FORGED, point=[1.0])
    assert seen[0] == (FIELDS, 15, None)


@pytest.mark.parametrize("hour", ["yesterday", "today", "99999999", "9999-01-01T00:00", "1999-01-01T00:00"])
def test_going_back_to_an_hour_that_is_not_there_shows_another(library: Library, hour: str):
    session = started(library)
    session.restore({"store": "full", "hour": hour})
    assert session.hour != hour
    assert session.current in session.hours
    assert session.snapshot.hour == session.current


@pytest.mark.filterwarnings("error")
def test_an_hour_may_say_that_it_is_in_utc(library: Library):
    session = started(library, hour="2021-03-16T05:00Z")
    assert session.hour == "2021-03-16T05:00"
    session.restore({"store": "full", "hour": "2021-03-16T06:00:00Z"})
    assert session.snapshot.hour == np.datetime64("2021-03-16T06:00")


def test_a_page_opens_its_store_once(library: Library, monkeypatch: pytest.MonkeyPatch):
    opened, update = [], Session._update_hours
    monkeypatch.setattr(Session, "_update_hours", lambda self: opened.append(self.store) or update(self))
    Session(library).start()
    assert opened == ["full"]
