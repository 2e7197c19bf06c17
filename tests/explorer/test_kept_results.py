"""What one process computed is there for another one, which computes nothing."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import RLock

import numpy as np
import pytest
import zarr

from core.places import to_lonlat
from explorer.comparison import Comparison
from explorer.export.netcdf import gather
from explorer.export.scene import take_scene
from explorer.jobs import FAILED
from explorer.library import QUADRATIC, TRUTH, Library
from explorer.results import Results
from explorer.scoring import Scoring
from explorer.session import Session
from explorer.settings import Settings
from explorer.views.sampling import READ_ONLY, SamplingControls, describe
from tests.explorer.generative import HOURS, iso, make_ldm, make_square_store
from tests.explorer.prompt import PromptLibrary
from tests.explorer.small_store import DOMAIN, make_store, make_unet
from tests.synthetic_store import DOMAIN as SQUARE

PATIENCE = 60.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores ``square`` for the generative model and ``full`` for the UNet, and a folder with both models."""
    folder = tmp_path_factory.mktemp("kept")
    store = make_square_store(folder / "square.zarr")
    make_store(folder / "full.zarr")
    make_ldm(folder / "checkpoints" / "ldm.safetensors", store)
    make_unet(folder / "checkpoints" / "unet.safetensors", DOMAIN, "UNet (untrained)")
    return folder


def library(made: Path, cache: Path | None, **settings: object) -> Library:
    """A library of a process of its own; what its networks compute is counted in ``computed``."""
    stores = settings.pop("stores", (made / "square.zarr", made / "full.zarr"))
    found = PromptLibrary(Settings(stores, made / "checkpoints", made, cache=cache, **settings))
    found.catalogue.result()
    found.computed, found.interpolated = [], []
    for downscaler in found.catalogue.result().downscalers:
        name = "sample" if downscaler.stochastic else "downscale"
        run = getattr(downscaler, name)

        counts = found.computed if hasattr(downscaler, "identity") else found.interpolated

        def counted(*args: object, run=run, key=downscaler.key, counts=counts, **options: object):
            counts.append(key)
            return run(*args, **options)

        setattr(downscaler, name, counted)
    return found


def key(found: Library, kind: str) -> str:
    return next(d.key for d in found.catalogue.result().downscalers if d.key.startswith(kind))


def started(found: Library, **state: object) -> Session:
    turn = RLock()  # a page has one event loop; here members arrive from threads of their own

    def deliver(work: Callable[[], None]) -> None:
        with turn:
            work()

    session = Session(found, deliver=deliver, **{"steps": 3, "store": "square", **state})
    with turn:
        session.start()
    assert found.jobs.wait(PATIENCE)
    assert (session.error, session.problem) == ("", "")
    return session


def test_a_second_process_samples_nothing(made: Path, tmp_path: Path):
    first = library(made, tmp_path)
    session = started(first, models=[key(first, "ldm")], members=3)
    session.sample()
    assert first.jobs.wait(PATIENCE)
    wanted = {n: first.peek_member(session.piece(session.generating, n))["t2m"] for n in range(3)}
    assert first.computed.count(key(first, "ldm")) == 3

    second = library(made, tmp_path)
    again = started(second, models=[key(second, "ldm")], members=3, view="ensemble")
    assert second.computed == []
    assert again.ready_members() == (0, 1, 2)  # without pressing the button
    assert describe(again).startswith("All 3 members")
    assert again.ensemble.size == 3
    for number in range(3):
        kept = second.peek_member(again.piece(again.generating, number))["t2m"]
        np.testing.assert_array_equal(kept, wanted[number])
    again.members = 4
    again.sample()
    assert second.jobs.wait(PATIENCE)
    assert second.computed == [key(second, "ldm")]  # the fourth alone


def test_a_network_that_is_no_generative_one_runs_once_and_interpolation_is_not_kept(
    made: Path, tmp_path: Path
):
    first = library(made, tmp_path)
    unet = key(first, "unet")
    field = started(first, store="full", models=[QUADRATIC, unet]).snapshot.get(unet).values
    assert unet in first.computed
    second = library(made, tmp_path)
    again = started(second, store="full", models=[QUADRATIC, unet])
    np.testing.assert_array_equal(again.snapshot.get(unet).values, field)
    assert unet not in second.computed
    assert QUADRATIC in second.interpolated


def test_other_noise_steps_sampler_or_hour_is_sampled(made: Path, tmp_path: Path):
    started(first := library(made, tmp_path), models=[key(first, "ldm")])
    for change in ({"seed": 1}, {"steps": 2}, {"sampler": "ddim"}):
        second = library(made, tmp_path)
        started(second, models=[key(second, "ldm")], **change)
        assert second.computed == [key(second, "ldm")], change
    second = library(made, tmp_path)
    session = started(second, models=[key(second, "ldm")])
    assert second.computed == []
    session.step(1)
    assert second.jobs.wait(PATIENCE)
    assert second.computed == [key(second, "ldm")]


def test_data_that_changed_under_the_same_fingerprint_is_not_mistaken(made: Path, tmp_path: Path):
    started(first := library(made, tmp_path), models=[key(first, "ldm")])
    assert first.computed == [key(first, "ldm")]
    elsewhere = tmp_path / "elsewhere" / "square.zarr"
    shutil.copytree(made / "square.zarr", elsewhere)
    moved = library(made, tmp_path, stores=(elsewhere,))
    started(moved, models=[key(moved, "ldm")])
    assert moved.computed == []  # the same numbers in another place
    coarse = zarr.open_group(elsewhere / "coarse")
    coarse["t2m"][:] = coarse["t2m"][:] + 1
    warmer = library(made, tmp_path, stores=(elsewhere,))
    started(warmer, models=[key(warmer, "ldm")])
    assert warmer.computed == [key(warmer, "ldm")]


def test_another_checkpoint_of_the_same_label_is_sampled(made: Path, tmp_path: Path):
    started(first := library(made, tmp_path), models=[key(first, "ldm")])
    other = tmp_path / "other"
    make_ldm(other / "checkpoints" / "ldm.safetensors", first.open("square").store, seed=5)
    second = library(other, tmp_path, stores=(made / "square.zarr",))
    started(second, models=[key(second, "ldm")])
    assert second.computed == [key(second, "ldm")]


def test_without_a_folder_or_with_no_room_nothing_is_kept(made: Path, tmp_path: Path):
    for settings in ({"cache": None}, {"cache": tmp_path / "r", "cache_gb": 0.0}):
        found = library(made, **settings)
        assert not found.keeps_on_disk
        started(found, models=[key(found, "ldm")])
    assert not (tmp_path / "r").exists()


def test_a_damaged_file_is_sampled_again(made: Path, tmp_path: Path):
    started(first := library(made, tmp_path), models=[key(first, "ldm")])
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    second = library(made, tmp_path)
    session = started(second, models=[key(second, "ldm")])
    assert second.computed == [key(second, "ldm")]
    assert session.snapshot.get(key(second, "ldm")).values is not None
    started(third := library(made, tmp_path), models=[key(third, "ldm")])
    assert third.computed == []


# ---------------------------------------------------------------- what visitors may do


def test_a_read_only_page_shows_what_is_there_and_samples_nothing(made: Path, tmp_path: Path):
    started(first := library(made, tmp_path), models=[key(first, "ldm")])
    demo = library(made, tmp_path, read_only=True)
    session = started(demo, models=[QUADRATIC, key(demo, "ldm")])
    assert session.snapshot.get(key(demo, "ldm")).values is not None
    session.step(1)
    assert demo.jobs.wait(PATIENCE)
    field = session.snapshot.get(key(demo, "ldm"))
    assert field.values is None
    assert field.problem.startswith("This page is read-only: it shows what was sampled before")
    assert session.snapshot.get(QUADRATIC).values is not None
    session.sample()
    assert demo.jobs.wait(PATIENCE)
    assert demo.computed == []
    controls = SamplingControls(session)
    assert [w.disabled for w in (controls.button, controls.seed, controls.sampler, controls.steps)] == [
        True
    ] * 4
    assert READ_ONLY in controls.button.description
    assert READ_ONLY in describe(session)


def test_visitors_get_no_more_members_and_steps_than_allowed(made: Path):
    found = library(made, None, most_members=2, most_steps=3)
    session = started(found, models=[key(found, "ldm")], members=9, steps=50)
    assert (session.members, session.steps) == (2, 3)
    controls = SamplingControls(session)
    assert (controls.members.end, controls.steps.end) == (2, 3)
    session.members = 9
    session.sample()
    assert found.jobs.wait(PATIENCE)
    assert session.ready_members() == (0, 1)


def test_who_has_too_many_jobs_waiting_is_told(made: Path, tmp_path: Path):
    store = library(made, None).open("square").store
    for seed in range(3):
        make_ldm(tmp_path / "checkpoints" / f"{seed}.safetensors", store, seed=seed)
    found = library(tmp_path, None, stores=(made / "square.zarr",), most_jobs=1)
    models = [d.key for d in found.catalogue.result().downscalers if d.stochastic]
    session = Session(found, store="square", models=[QUADRATIC], steps=3)
    session.start()
    assert found.jobs.wait(PATIENCE)
    states = []
    session.param.watch(lambda event: states.append(event.new), "progress")
    session.param.update(models=models, steps=100)
    assert found.jobs.wait(PATIENCE)
    problems = [field.problem for field in session.snapshot.fields if field.problem]
    assert problems
    assert all(problem.startswith("Too many models of yours wait") for problem in problems)
    assert any(field.values is not None for field in session.snapshot.fields if field.piece is not None)
    assert states[-1] is None or states[-1].state == FAILED


def test_nothing_is_sampled_for_a_page_that_nobody_looks_at(made: Path):
    found = library(made, None)
    session = Session(found, store="square", models=[key(found, "ldm")], steps=3)
    session.hold_sampling()
    session.start()
    assert found.jobs.wait(PATIENCE)
    assert found.computed == []
    assert session.snapshot.get(key(found, "ldm")).computing
    session.begin_sampling()
    assert found.jobs.wait(PATIENCE)
    assert session.snapshot.get(key(found, "ldm")).values is not None


def test_who_leaves_before_they_looked_has_nothing_sampled(made: Path):
    found = library(made, None)
    session = Session(found, store="square", models=[key(found, "ldm")], steps=3)
    session.hold_sampling()
    session.start()
    session.close()
    session.begin_sampling()
    assert found.jobs.wait(PATIENCE)
    assert found.computed == []


# ---------------------------------------------------------------- members of other hours


def keep(found: Library, session: Session, members: int) -> None:
    """Members of all hours, as if they had been sampled."""
    for hour in HOURS:
        for number in range(members):
            field = np.random.default_rng(number).normal(280, 1, (64, 64)).astype("f4")
            found.keep_member(replace(session.piece(session.generating, number), hour=hour), {"t2m": field})


@pytest.mark.parametrize("read_only", [False, True])
def test_hours_scores_and_the_point_show_members_that_are_on_disk(
    made: Path, tmp_path: Path, read_only: bool
):
    first = library(made, tmp_path)
    ldm = key(first, "ldm")
    keep(first, started(first, models=[ldm]), 2)
    second = library(made, tmp_path, read_only=read_only)
    state = {"models": [QUADRATIC, ldm], "members": 2, "hour": iso(HOURS[0]), "selection": "spread"}
    session = started(second, view="hours", **state)
    comparison = Comparison(session)
    assert comparison.multiples.complete
    assert [cell.words for cell in comparison.multiples.cells.values() if cell.words] == []
    session.param.update(selection="story", left=ldm, right=TRUTH)
    assert comparison.cards.story.missing == 0
    session.param.update(view="scores", scope="hours")
    table = Scoring(session).table
    assert table.get(ldm).members.tolist() == [2, 2, 2, 2]
    assert table.missing == 0
    session.param.update(view="point", point=list(to_lonlat(SQUARE, SQUARE.fine.x[20], SQUARE.fine.y[30])))
    (band,) = session.points.series.bands
    assert band.counts.tolist() == [2, 2, 2, 2]
    assert session.points.series.pending == 0
    assert second.jobs.wait(PATIENCE)
    assert second.computed == []
    assert second.peek_member(replace(session.piece(session.generating), hour=HOURS[3])) is None


def test_a_member_is_found_once_without_being_kept_in_memory(made: Path, tmp_path: Path):
    first = library(made, tmp_path)
    session = started(first, models=[key(first, "ldm")])
    piece = session.piece(session.generating)
    kept = first.peek_member(piece)
    assert first.member_once(piece) is kept
    first.results = Results(10**9)
    np.testing.assert_array_equal(first.member_once(piece)["t2m"], kept["t2m"])
    assert first.peek_member(piece) is None
    assert first.member_once(replace(piece, member=7)) is None


def test_files_and_the_point_hold_as_many_members_as_are_allowed(made: Path, tmp_path: Path):
    first = library(made, tmp_path, most_members=20)
    ldm = key(first, "ldm")
    keep(first, started(first, models=[ldm]), 20)
    second = library(made, tmp_path, most_members=20)
    point = list(to_lonlat(SQUARE, SQUARE.fine.x[20], SQUARE.fine.y[30]))
    session = started(second, models=[ldm], members=20, hour=iso(HOURS[0]), point=point, view="point")
    assert session.points.series.bands[0].counts.tolist() == [20] * 4
    second.results = Results(10**9)
    second.fields(session.opened, HOURS[0], TRUTH)
    second.find_member(session.piece(session.generating))
    assert list(gather(take_scene(session), second)[ldm]) == list(range(20))
    assert session.member_numbers() == list(range(20))
    assert second.jobs.wait(PATIENCE)
