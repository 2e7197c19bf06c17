"""Scores over many hours, without a browser."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.data.splits import Split
from core.data.store import Store
from core.evaluation import bootstrap
from core.metrics.deterministic import METRICS as DETERMINISTIC
from core.metrics.ensemble import crps
from core.metrics.spectra import spectral_slope_loss
from explorer import hours as choosing
from explorer.hour_scores import ALIKE, BEST, Column, Row, box, hours_csv, means_csv, summarise
from explorer.library import QUADRATIC, Library
from explorer.results import Results
from explorer.scoring import Scoring
from explorer.session import Session
from explorer.settings import Settings
from explorer.words import HOURS as MANY
from tests.explorer import generative
from tests.explorer.prompt import PromptLibrary
from tests.explorer.small_store import HOURS, make_store
from tests.explorer.test_sampling import finish, key, made  # noqa: F401  (a fixture)

LOWER = Column("rmse", "RMSE", "", "K", "lower")
NEAR = Column("bias", "Bias", "", "K", "zero")


def started(library: Library, **state: object) -> tuple[Session, Scoring]:
    session = Session(library, **{"view": "scores", "scope": MANY, "steps": 2, "most": 12} | state)
    session.start()
    scoring = Scoring(session)
    return session, scoring


def row(key: str, values: np.ndarray, scored: np.ndarray | None = None) -> Row:
    members = np.ones(values.size, int) if scored is None else scored.astype(int)
    return Row(key, key, {"rmse": values, "bias": values}, {}, {}, members)


# ---------------------------------------------------------------- computing


def test_means_and_intervals_are_those_of_the_block_bootstrap():
    hours = np.arange("2021-01-01", "2021-01-11", dtype="datetime64[h]").astype("datetime64[ns]")
    values = np.random.default_rng(0).normal(2, 0.5, hours.size)
    (done,), used, blocks = summarise([row("a", values)], [LOWER], hours)
    assert (used, blocks) == (240, 10)
    counts = bootstrap.weights(bootstrap.blocks_of(hours, 24), 240, 1000)
    expected = bootstrap.interval(bootstrap.weighted_means(values, counts))
    np.testing.assert_allclose(done.means["rmse"], expected)
    assert done.means["rmse"][0] == pytest.approx(values.mean())
    assert done.marks == {}


def test_ranking_tells_the_best_from_those_that_may_be_as_good():
    hours = np.arange("2021-01-01", "2021-01-11", dtype="datetime64[h]").astype("datetime64[ns]")
    noise = np.random.default_rng(1).normal(0, 0.3, hours.size)
    rows = [row("a", 1 + noise), row("b", 1.001 + noise[::-1]), row("c", 2 + noise)]
    a, b, c = summarise(rows, [LOWER], hours)[0]
    assert (a.marks["rmse"], b.marks["rmse"]) == (BEST, ALIKE)
    assert "rmse" not in c.marks
    signed = [row("low", np.full(240, -0.1)), row("high", np.full(240, 0.5))]
    assert summarise(signed, [NEAR], hours)[0][0].marks == {"bias": BEST}


def test_rows_of_fewer_hours_are_not_ranked_unless_hours_are_common():
    hours = np.arange("2021-01-01", "2021-01-11", dtype="datetime64[h]").astype("datetime64[ns]")
    few = np.arange(240) < 72
    rows = [row("a", np.full(240, 2.0)), row("b", np.full(240, 3.0)), row("c", np.full(240, 1.0), few)]
    a, _, c = summarise(rows, [LOWER], hours)[0]
    assert (a.marks, c.marks) == ({"rmse": BEST}, {})
    done, used, blocks = summarise(rows, [LOWER], hours, common=True)
    assert (used, blocks) == (72, 3)
    assert done[2].marks == {"rmse": BEST}
    assert done[0].means["rmse"][0] == 2


def test_a_single_block_of_hours_has_no_interval():
    (done,), _, blocks = summarise([row("a", np.arange(24.0))], [LOWER], HOURS)
    assert blocks == 1
    assert done.means["rmse"][0] == 11.5
    assert np.isnan(done.means["rmse"][1:]).all()


def test_box_of_known_values():
    found = box(np.append(np.arange(101.0), np.nan))
    assert found.quantiles == (5, 25, 50, 75, 95)
    assert found.mean == 50
    assert found.beyond == (0, 1, 2, 3, 4, 96, 97, 98, 99, 100)
    assert box(np.full(3, np.nan)) is None


# ---------------------------------------------------------------- a session


def test_scores_of_every_hour_are_those_of_core(library: Library, folder: Path):
    session, scoring = started(library, most=0)
    table = scoring.table
    assert [r.key for r in table.rows] == [QUADRATIC, "lapse_rate"]
    assert (table.used, table.every, table.rows[0].hours) == (24, 1, 24)
    store = Store.open(folder / "full.zarr")
    downscaler = library.catalogue.result().get(QUADRATIC)
    forecast = downscaler.downscale(store.read_coarse(HOURS), store.read_static(), store.domain)["t2m"]
    truth = store.read_fine(HOURS)["t2m"]
    for name in ("rmse", "mae", "bias", "r2", "pearson"):
        expected = DETERMINISTIC[name](forecast, truth)
        np.testing.assert_allclose(table.rows[0].values[name], expected, rtol=1e-4, atol=1e-5)
    expected = spectral_slope_loss(forecast, truth)
    np.testing.assert_allclose(table.rows[0].values["spectral_slope_loss"], expected, rtol=1e-4)
    error = (forecast - truth).astype("f8")
    np.testing.assert_allclose(table.rows[0].bias, error.mean("time"), atol=1e-4)
    np.testing.assert_allclose(table.rows[0].rmse, (error**2).mean("time") ** 0.5, atol=1e-4)
    width = table.bins[1] - table.bins[0]
    np.testing.assert_allclose(np.nansum(table.truth_shares, axis=1).max() * width, 100)
    assert scoring.standing.done == scoring.standing.total == 48
    assert not scoring.standing.running
    assert session.error == ""


def test_a_region_is_scored_alone_and_another_variable_anew(library: Library):
    session, scoring = started(library)
    whole = scoring.table.rows[0].means["rmse"][0]
    regions = [window.key for window in session.windows if window.key != session.region]
    for region in regions:
        session.region = region
        assert scoring.problems == {}
        assert scoring.table.rows[0].means["rmse"][0] != whole
        assert scoring.table.rows[0].bias.shape != (64, 48)


def test_a_downscaler_that_is_ticked_later_is_the_only_one_that_is_computed(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    session, scoring = started(library, models=[QUADRATIC])
    once, made_now = library.fields_once, []

    def watch(opened, hour, name):
        made_now.append(name)
        return once(opened, hour, name)

    monkeypatch.setattr(library, "fields_once", watch)
    session.models = [QUADRATIC, "lapse_rate"]
    assert set(made_now) == {"truth", "lapse_rate"}
    assert [r.hours for r in scoring.table.rows] == [12, 12]
    made_now.clear()
    session.models = [QUADRATIC]
    assert made_now == []
    assert [r.key for r in scoring.table.rows] == [QUADRATIC]


def test_filters_and_the_limit_choose_the_hours(library: Library, monkeypatch: pytest.MonkeyPatch):
    session, scoring = started(library, daytime="night", most=0)
    assert scoring.table.hours.size == 12
    session.most = 12
    session.daytime = "all"
    assert (scoring.table.hours.size, scoring.table.offered, scoring.table.every) == (12, 24, 2)
    parts = Split("blocked", HOURS[:5], HOURS[5:7], HOURS[7:], HOURS[:0])
    monkeypatch.setattr("explorer.hours.blocked_split", lambda hours: parts)
    session.split = "validation"
    assert session.hours.tolist() == HOURS[5:7].tolist()
    assert scoring.table.hours.size == 2
    assert choosing.PARTS[2] == "validation"


def test_hidden_it_computes_nothing_and_a_failure_names_the_downscaler(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    session, scoring = started(library, scope="hour")
    assert scoring.table is None
    compute = library._compute

    def broken(opened, hour, name):
        if name == "lapse_rate":
            raise ValueError("There is no slope.")
        return compute(opened, hour, name)

    monkeypatch.setattr(library, "_compute", broken)
    library.results._done.clear()
    session.scope = MANY
    assert scoring.table.get(QUADRATIC).hours == 12
    assert scoring.problems == {"Lapse-rate interpolation": "There is no slope."}


def test_a_store_without_truth_has_no_table(library: Library):
    session, scoring = started(library, store="bare")
    assert scoring.table is None
    assert session.error == ""


def test_a_stop_keeps_what_is_there_and_going_on_computes_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = Settings((folder / "full.zarr",), folder / "checkpoints", folder)
    library = PromptLibrary(settings)
    library.catalogue.result()
    session, scoring = started(library, scope="hour", models=[QUADRATIC])
    once = library.fields_once

    def stopping(opened, hour, name):
        if hour == HOURS[10]:
            scoring.stop()
        return once(opened, hour, name)

    monkeypatch.setattr("explorer.scoring.TABLE_EVERY", 0.0)
    monkeypatch.setattr(library, "fields_once", stopping)
    session.scope = MANY
    assert scoring.standing.stopped
    assert 5 <= scoring.table.rows[0].hours <= 6
    monkeypatch.setattr(library, "fields_once", once)
    scoring.go_on()
    assert scoring.table.rows[0].hours == 12
    assert not scoring.standing.stopped


# ---------------------------------------------------------------- generative models


@pytest.fixture
def sampling_library(made: Path) -> Library:  # noqa: F811
    library = PromptLibrary(Settings((made / "square.zarr",), made / "checkpoints", made))
    library.catalogue.result()
    return library


def test_members_that_are_there_are_scored_and_the_others_can_be_sampled(sampling_library: Library):
    library = sampling_library
    session, scoring = started(library, members=2, models=[QUADRATIC], view="maps")
    session.models = [QUADRATIC, key(library)]
    finish(library)
    session.view = "scores"
    ours = scoring.table.get(key(library))
    assert (scoring.table.rows[0].hours, ours.hours) == (4, 1)
    assert scoring.table.missing == 7
    assert np.isnan(ours.values["crps"]).all()  # of one member
    scoring.sample_missing()
    finish(library)
    table = scoring.table
    ours = table.get(key(library))
    assert table.missing == 0
    assert ours.members.tolist() == [2, 2, 2, 2]
    store = session.opened.store
    pieces = scoring._pieces(session.generators[0], generative.HOURS[2])
    import xarray as xr

    members = xr.DataArray(
        np.stack([library.peek_member(p)["t2m"] for p in pieces]), dims=("member", "y", "x"),
        coords={"y": store.domain.fine.y, "x": store.domain.fine.x},
    )  # fmt: skip
    truth = store.read_fine(generative.HOURS[2])["t2m"].isel(time=0, drop=True)
    assert ours.values["crps"][2] == pytest.approx(float(crps(members, truth)), rel=1e-5)
    expected = float(DETERMINISTIC["rmse"](members, truth).mean())
    assert ours.values["rmse"][2] == pytest.approx(expected, rel=1e-5)


def keep(library: Library, session: Session, hours: np.ndarray, members: int) -> None:
    """Members as if somebody had sampled them."""
    choice = next(choice for choice in session.choices if choice.generative)
    for hour in hours:
        for number in range(members):
            field = np.random.default_rng(number).normal(280, 1, (64, 64)).astype("f4")
            library.keep_member(replace(session.piece(choice, number), hour=hour), {"t2m": field})


def test_what_is_scored_stays_when_memory_forgets_its_members(sampling_library: Library):
    library, hours = sampling_library, generative.HOURS
    session, scoring = started(library, members=2, models=[QUADRATIC], hour=generative.iso(hours[3]))
    keep(library, session, hours[:2], 2)
    keep(library, session, hours[2:3], 1)
    session.models = [QUADRATIC, key(library)]
    library.jobs.wait(60)
    scoring._start()
    ours = scoring.table.get(key(library))
    assert ours.members.tolist() == [2, 2, 1, 1]  # the last is on the maps
    assert scoring.table.missing == 2
    library.results = Results(10**9)
    scoring.go_on()
    assert scoring.table.get(key(library)).members.tolist() == [2, 2, 1, 1]
    assert scoring.table.missing == 2
    scoring.sample_missing()
    finish(library)
    assert scoring.sampling is None
    full = scoring.table.get(key(library))
    assert full.members.tolist() == [2, 2, 2, 2]
    assert scoring.table.missing == 0
    np.testing.assert_array_equal(full.values["rmse"][:2], ours.values["rmse"][:2])
    np.testing.assert_allclose(full.bias.mean(), full.values["bias"].mean(), rtol=1e-4)  # each hour once
    tally = scoring._entries[scoring._mark(session.generators[0])]
    assert tally.part is None


def test_scores_ask_for_no_more_members_than_allowed(made: Path):  # noqa: F811
    settings = Settings((made / "square.zarr",), made / "checkpoints", made, most_members=3)
    library = PromptLibrary(settings)
    library.catalogue.result()
    session, scoring = started(library, models=[QUADRATIC, key(library)], scope="hour")
    session.members = 500
    assert len(scoring._pieces(session.generators[0], generative.HOURS[0])) == 3
    finish(library)
    session.scope = MANY
    assert scoring.table.get(key(library)).hours == 1
    assert scoring.table.missing == 11


def test_scores_of_other_members_and_seeds_are_not_kept(sampling_library: Library):
    library = sampling_library
    session, scoring = started(library, models=[QUADRATIC, key(library)])
    for number in range(1, 6):
        session.param.update(members=number, seed=number)
    finish(library)
    assert len(scoring._entries) == 2
    session.models = [key(library)]
    assert len(scoring._entries) == 2  # the other one may be ticked again


def test_more_missing_members_than_may_wait_take_several_presses(made: Path):  # noqa: F811
    library = PromptLibrary(
        Settings((made / "square.zarr",), made / "checkpoints", made, most_fields=4, most_jobs=2)
    )
    library.catalogue.result()
    _, scoring = started(library, members=2, models=[QUADRATIC, key(library)])
    finish(library)
    scoring.go_on()  # sees the member that was sampled for the maps
    finish(library)
    left = [scoring.table.missing]
    while left[-1] and len(left) < 4:
        scoring.sample_missing()
        finish(library)
        left.append(scoring.table.missing)
    assert left == [7, 3, 0]
    assert scoring.table.get(key(library)).members.tolist() == [2, 2, 2, 2]


def test_closing_stops_the_sampling(sampling_library: Library):
    library = sampling_library
    session, scoring = started(library, members=8, steps=400, models=[QUADRATIC, key(library)])
    scoring.sample_missing()
    assert scoring.sampling.active
    session.close()
    finish(library)


# ---------------------------------------------------------------- files


def test_files_hold_the_numbers(library: Library):
    _, scoring = started(library)
    table = scoring.table
    rows = list(csv.DictReader(io.StringIO(hours_csv(table, "full"))))
    assert len(rows) == 24
    assert float(rows[3]["RMSE [K]"]) == pytest.approx(table.rows[0].values["rmse"][3], rel=1e-5)
    assert rows[3]["hour (UTC)"] == "2021-03-16T06:00"
    (first, _) = csv.DictReader(io.StringIO(means_csv(table, "full")))
    assert float(first["RMSE [K]"]) == pytest.approx(table.rows[0].means["rmse"][0], rel=1e-5)
    assert (first["hours"], first["region"]) == ("12", table.window.name)


def test_files_hold_no_formula(library: Library):
    _, scoring = started(library)
    rows = tuple(replace(row, label="=1+1") for row in scoring.table.rows)
    for write in (means_csv, hours_csv):
        first = next(csv.DictReader(io.StringIO(write(replace(scoring.table, rows=rows), "@full"))))
        assert (first["store"], first["downscaler"]) == ("'@full", "'=1+1")


def test_a_table_of_nothing_is_empty():
    assert summarise([], [LOWER], HOURS) == ((), 0, 0)


def test_two_stores_of_one_session(library: Library, folder: Path):
    make_store(folder / "other.zarr", HOURS[:6])
    library.settings = Settings((folder / "full.zarr", folder / "other.zarr"), folder / "checkpoints", folder)
    session, scoring = started(library)
    session.store = "other"
    assert scoring.table.hours.size == 6
