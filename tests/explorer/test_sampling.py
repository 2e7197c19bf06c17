"""Sampling as one visitor has it: maps of generative models, ensembles, the state of it all."""

from pathlib import Path

import numpy as np
import pytest

from core.data.store import Store
from core.downscale import from_checkpoint
from core.downscale.sampling import Sampling, collect
from core.metrics import ensemble as metrics
from explorer.address import from_query, to_query
from explorer.jobs import DONE, Draw
from explorer.library import QUADRATIC, TRUTH, Library
from explorer.session import Session
from explorer.settings import Settings
from explorer.views.ensemble import why_none
from explorer.views.sampling import describe, show_seconds
from explorer.words import DIFFERENCE
from tests.explorer.generative import HOURS, LABEL, iso, make_ldm, make_square_store
from tests.explorer.prompt import PromptLibrary

PATIENCE = 60.0


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores ``square`` and ``bare`` (without truth) and a folder with one generative model."""
    folder = tmp_path_factory.mktemp("generative")
    store = make_square_store(folder / "square.zarr")
    make_square_store(folder / "bare.zarr", truth=False)
    make_ldm(folder / "checkpoints" / "ldm.safetensors", store)
    return folder


@pytest.fixture
def library(made: Path) -> Library:
    library = PromptLibrary(Settings((made / "square.zarr", made / "bare.zarr"), made / "checkpoints", made))
    library.catalogue.result()
    return library


def started(library: Library, **state: object) -> Session:
    session = Session(library, **{"steps": 3, **state})
    session.start()
    finish(library)
    return session


def finish(library: Library) -> None:
    """Wait until nothing is being sampled."""
    assert library.jobs.wait(PATIENCE)


def forget(library: Library, name: str) -> None:
    """As if others had pushed these fields out of memory."""
    for address in [address for address in library.results._done if address[-1] == name]:
        del library.results._done[address]


def key(library: Library) -> str:
    return next(d.key for d in library.catalogue.result().downscalers if d.stochastic)


def expected(made: Path, members: list[int], hour: np.datetime64, **sampling: object) -> np.ndarray:
    """Members (M, H, W) [K] as the downscaler gives them to anybody."""
    store = Store.open(made / "square.zarr")
    downscaler = from_checkpoint(made / "checkpoints" / "ldm.safetensors")
    events = downscaler.sample(
        store.read_coarse(hour), store.read_static(), store.domain, members, Sampling(**sampling)
    )
    return collect(events)["t2m"].values[:, 0]


# ---------------------------------------------------------------- maps


def test_ticking_a_generative_model_samples_its_member_0(library: Library, made: Path):
    session = started(library, models=[QUADRATIC])
    assert [choice.label for choice in session.choices if choice.generative] == [LABEL]
    assert session.generators == ()
    reports, previews = [], []
    session.param.watch(lambda event: reports.append(event.new), "progress")
    session.param.watch(lambda event: previews.append(event.new), "preview")
    session.models = [QUADRATIC, key(library)]
    finish(library)
    field = session.snapshot.get(key(library))
    wanted = expected(made, [0], session.current, steps=3)[0]
    np.testing.assert_allclose(field.values, wanted - 273.15, atol=1e-3)
    assert [p.step for p in reports if p is not None and p.steps] != []
    assert any(p is not None and p.step == 0 for p in previews)
    assert (session.progress, session.preview) == (None, None)
    assert [row.key for row in session.scores.rows] == [QUADRATIC, key(library)]


def test_a_generative_model_is_never_run_through_downscale(library: Library, monkeypatch: pytest.MonkeyPatch):
    downscaler = library.catalogue.result().get(key(library))
    monkeypatch.setattr(downscaler, "downscale", lambda *_: pytest.fail("It was run without saying so."))
    session = started(library, models=[key(library)])
    session.step(1)
    finish(library)
    assert session.snapshot.get(key(library)).values is not None
    with pytest.raises(ValueError, match="sampled"):
        library.fields(session.opened, session.current, key(library))


def test_the_preview_is_drawn_but_not_scored(library: Library):
    session = started(library, models=[QUADRATIC])
    seen = []

    def look(event) -> None:
        if event.new is not None and session.snapshot.get(event.new.piece.key) is not None:
            shown = session.shown().values.get(event.new.piece.key)
            seen.append((shown is not None, session.snapshot.get(event.new.piece.key).values))

    session.param.watch(look, "preview")
    session.models = [QUADRATIC, key(library)]
    finish(library)
    assert (True, None) in seen


def test_another_seed_sampler_or_number_of_steps_gives_another_field_and_scores(library: Library, made: Path):
    session = started(library, models=[key(library)])
    first = session.snapshot.get(key(library)).values
    rmse = session.scores.get(key(library)).rmse
    for change in ({"seed": 5}, {"steps": 2}, {"sampler": "ddim"}):
        session.param.update(**({"seed": 0, "steps": 3, "sampler": "dpmpp_2m"} | change))
        finish(library)
        other = session.snapshot.get(key(library)).values
        assert np.abs(other - first).max() > 1e-3, change
        assert session.scores.get(key(library)).rmse != rmse, change
    session.param.update(seed=0, steps=3, sampler="dpmpp_2m")
    np.testing.assert_array_equal(session.snapshot.get(key(library)).values, first)


@pytest.mark.parametrize("change", [{"seed": 5}, {"steps": 2}, {"sampler": "ddim"}])
def test_a_field_that_was_drawn_otherwise_is_not_shown_while_others_are_read_again(
    library: Library, change: dict[str, object]
):
    session = started(library, models=[key(library)])
    forget(library, TRUTH)
    session.param.update(**change)
    field = session.snapshot.get(key(library))
    assert field.piece == session.piece(session.generators[0])
    finish(library)
    field = session.snapshot.get(key(library))
    np.testing.assert_array_equal(field.values, library.peek_member(field.piece)["t2m"] - 273.15)


def test_scores_of_members_that_were_drawn_otherwise_are_dropped(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    session = started(library, models=[QUADRATIC, key(library)])
    assert session.scores.get(key(library)) is not None
    monkeypatch.setattr(library, "submit", lambda work: None)
    session.models = [QUADRATIC]
    assert session.scores is not None  # they are still those of this hour
    session.models = [QUADRATIC, key(library)]
    assert session.scores is not None
    session.seed = 5
    assert session.scores is None


def test_an_ensemble_that_failed_is_tried_again(library: Library, monkeypatch: pytest.MonkeyPatch):
    session = started(library, models=[key(library)], members=2, view="ensemble")
    with monkeypatch.context() as patched:
        patched.setattr("explorer.following.compute_ensemble", lambda *_: 1 / 0)
        session.sample()
        finish(library)
        assert "ZeroDivisionError" in session.error
        assert session.ensemble is None
    session.view = "maps"
    session.view = "ensemble"
    assert session.ensemble is not None


def test_a_second_visitor_gets_members_at_once(library: Library, monkeypatch: pytest.MonkeyPatch):
    started(library, models=[key(library)])
    monkeypatch.setattr(library, "sample", lambda *_: pytest.fail("It was sampled again."))
    second = Session(library, models=[key(library)], steps=3)
    second.start()
    assert second.snapshot.get(key(library)).values is not None
    assert not second.snapshot.computing


def test_what_fails_marks_its_map_alone_and_is_tried_again_on_request(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    def fail(pieces: object) -> None:
        raise ValueError("The hour has a gap.")

    with monkeypatch.context() as patch:
        patch.setattr(library, "sample", fail)
        session = started(library, models=[QUADRATIC, key(library)])
        assert session.snapshot.get(key(library)).problem == "The hour has a gap."
        assert session.snapshot.get(QUADRATIC).values is not None
        assert "gap" in describe(session)
        assert [row.key for row in session.scores.rows] == [QUADRATIC]
    session.sample()
    finish(library)
    assert session.snapshot.get(key(library)).values is not None
    assert session.progress is None


def test_another_hour_stops_what_the_maps_no_longer_need(library: Library):
    session = started(library, models=[QUADRATIC])
    hours = []

    def leave(event) -> None:
        if event.new is not None and event.new.steps:
            hours.append(event.new.piece.hour)
            if len(hours) == 1:
                session.go(session.position() + 1)

    session.param.watch(leave, "progress")
    session.go(0)
    session.param.update(models=[key(library)], steps=500)
    assert library.jobs.wait(PATIENCE)
    assert session.snapshot.hour == HOURS[1]
    assert session.snapshot.get(key(library)).values is not None
    there = session.piece(session.generating)
    assert library.peek_member(there) is not None
    assert hours.count(HOURS[0]) < 5


# ---------------------------------------------------------------- more members


def test_members_are_sampled_when_asked_for_and_make_an_ensemble(library: Library, made: Path):
    session = started(library, models=[key(library)], members=3, view="ensemble")
    assert session.ready_members() == (0,)
    assert session.ensemble is None
    assert "1 of 3 members is there" in why_none(session)[1]
    session.sample()
    finish(library)
    assert session.ready_members() == (0, 1, 2)
    assert describe(session).startswith("All 3 members")
    ensemble = session.ensemble
    members = expected(made, [0, 1, 2], session.current, steps=3)
    np.testing.assert_allclose(ensemble.mean, members.mean(0) - 273.15, atol=2e-3)
    np.testing.assert_allclose(ensemble.spread, members.std(0, ddof=1), atol=2e-3)
    store = Store.open(made / "square.zarr")
    downscaler = from_checkpoint(made / "checkpoints" / "ldm.safetensors")
    events = downscaler.sample(
        store.read_coarse(session.current), store.read_static(), store.domain, [0, 1, 2], Sampling(steps=3)
    )
    forecast = collect(events)["t2m"].isel(time=0, drop=True)
    truth = store.read_fine(session.current)["t2m"].isel(time=0, drop=True)
    for name in ("crps", "ensemble_rmse", "spread", "spread_skill_ratio"):
        wanted = float(metrics.METRICS[name](forecast, truth))
        assert ensemble.score(name) == pytest.approx(wanted, rel=1e-3), name
    np.testing.assert_allclose(ensemble.ranks, metrics.rank_histogram(forecast, truth), atol=2e-3)
    assert ensemble.ranks.sum() == pytest.approx(1)


def test_fewer_members_of_what_is_there_need_no_sampling(library: Library):
    session = started(library, models=[key(library)], members=4, view="ensemble")
    session.sample()
    finish(library)
    session.members = 2
    assert session.ensemble.size == 2
    session.members = 1
    assert session.ensemble is None
    assert "Set Members to two or more" in why_none(session)[1]


def test_cancelling_keeps_what_is_made_and_sampling_goes_on_from_there(library: Library):
    session = started(library, models=[key(library)], members=4)
    watcher = session.param.watch(
        lambda event: session.cancel_sampling() if event.new and len(event.new.made) == 2 else None,
        "progress",
    )
    session.sample()
    finish(library)
    assert session.ready_members() == (0, 1)
    assert describe(session) == "Stopped. 2 of 4 members of this hour are there."
    session.param.unwatch(watcher)
    session.sample()
    finish(library)
    assert session.ready_members() == (0, 1, 2, 3)


def test_a_stopped_map_says_so_and_another_hour_samples_anew(library: Library):
    session = started(library, models=[QUADRATIC])
    watcher = session.param.watch(
        lambda event: session.cancel_sampling() if event.new and event.new.step else None, "progress"
    )
    session.param.update(models=[key(library)], steps=500)
    finish(library)
    field = session.snapshot.get(key(library))
    assert field.values is None
    assert field.problem.startswith("Stopped after step ")
    assert not session.progress.active
    session.param.unwatch(watcher)
    session.steps = 3
    finish(library)
    assert session.snapshot.get(key(library)).values is not None


def test_an_ensemble_without_truth_has_mean_and_spread_alone(library: Library):
    session = started(library, store="bare", models=[key(library)], members=2, view="ensemble")
    session.sample()
    finish(library)
    assert session.snapshot.get(TRUTH) is None
    assert session.ensemble.size == 2
    assert (session.ensemble.scores, session.ensemble.ranks) == ((), None)
    assert session.ensemble.spread.max() > 0


def test_what_to_do_without_a_generative_model(library: Library, tmp_path: Path, made: Path):
    session = started(library, models=[QUADRATIC], view="ensemble")
    assert why_none(session)[1] == f"Tick one under Downscalers in the sidebar: {LABEL}."
    session.sample()
    assert session.progress is None
    none = PromptLibrary(Settings((made / "square.zarr",), tmp_path, tmp_path))
    none.catalogue.result()
    assert why_none(started(none))[0] == "No generative model"


def test_sampling_of_a_visitor_who_leaves_ends(library: Library):
    session = started(library, models=[QUADRATIC])
    session.param.watch(lambda event: session.close() if event.new and event.new.step else None, "progress")
    session.param.update(models=[key(library)], steps=500)
    finish(library)
    assert library.peek_member(session.piece(session.generating)) is None


# ---------------------------------------------------------------- state and words


def test_sampling_is_in_the_address(library: Library):
    session = started(library, models=[key(library)], hour=iso(HOURS[1]))
    session.param.update(members=3, sampler="heun", steps=2, seed=7, view="ensemble", mode=DIFFERENCE)
    finish(library)
    query = to_query(session)
    assert "members=3" in query
    again = Session(library, **from_query(query))
    again.start()
    assert again.draw == Draw("heun", 2, 7)
    assert (again.members, again.view) == (3, "ensemble")
    assert not again.snapshot.computing


@pytest.mark.parametrize(
    "query",
    [
        "members=0",
        "members=17",
        "members=many",
        "steps=0",
        "steps=2000",
        "seed=-1",
        "seed=1.5",
        "sampler=magic",
    ],
)
def test_nonsense_about_sampling_falls_back(library: Library, query: str):
    session = Session(library, **from_query(query))
    session.start()
    assert (session.members, session.draw) == (4, Draw())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.3, "less than 1 s"), (12.4, "12 s"), (200, "3 min"), (9000, "2.5 h")],
)
def test_times_are_in_units_that_people_use(seconds: float, words: str):
    assert show_seconds(seconds) == words


def test_a_finished_job_is_done(library: Library):
    session = started(library, models=[key(library)], members=2)
    states = []
    session.param.watch(lambda event: states.append(event.new), "progress")
    session.sample()
    finish(library)
    assert states[-1] is None
    assert DONE not in [state.state for state in states if state is not None]
