"""The point and the stations of a visitor, without a browser."""

import csv
import dataclasses
import io
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from core.data.stations import parse_stations
from core.places import to_lonlat
from explorer.address import from_query, to_query
from explorer.jobs import CANCELLED
from explorer.library import COARSE, QUADRATIC, TRUTH, Library
from explorer.points import Band, Place, find_place, hours_around, is_point, middle, towns, with_gaps
from explorer.session import Session
from explorer.settings import Settings
from explorer.stations import to_csv
from explorer.views.maps import Maps
from explorer.views.point import PointView
from explorer.views.station_table import StationSection
from tests.explorer.generative import HOURS as FEW
from tests.explorer.generative import make_ldm, make_square_store
from tests.explorer.observations import CELLS, observations
from tests.explorer.prompt import PromptLibrary
from tests.explorer.small_store import DOMAIN, HOURS, fields
from tests.synthetic_store import DOMAIN as SQUARE

ROW, COLUMN = CELLS["Beta"]
POINT = list(to_lonlat(DOMAIN, DOMAIN.fine.x[COLUMN] + 300, DOMAIN.fine.y[ROW] - 400))
"""500 m from the centre of the cell of a station."""


@pytest.fixture(scope="module")
def shared(made_once: Path) -> Library:
    """A library whose results tests share, since reading a day takes a moment."""
    made = PromptLibrary(
        Settings((made_once / "full.zarr", made_once / "bare.zarr"), made_once / "checkpoints", made_once)
    )
    made.catalogue.result()
    return made


def started(library: Library, **state: object) -> Session:
    session = Session(library, **{"view": "point", **state})
    session.start()
    return session


def celsius(hour: int) -> tuple[np.ndarray, np.ndarray]:
    fine, coarse = fields(hour)
    return fine - 273.15, coarse - 273.15


def over_the_day(key: str) -> list[float]:
    """Truth or coarse input [degree C] in the cells of the point."""
    cells = {TRUTH: (ROW, COLUMN), COARSE: (ROW // 8, COLUMN // 8)}
    return [float(celsius(hour)[key == COARSE][cells[key]]) for hour in range(24)]


# ---------------------------------------------------------------- the place


def test_a_point_knows_its_cells_and_heights(shared: Library):
    place = find_place(shared.open("full"), *POINT)
    assert isinstance(place, Place)
    assert (place.fine, place.coarse) == ((ROW, COLUMN), (ROW // 8, COLUMN // 8))
    assert place.distance == pytest.approx(500, abs=1)
    assert place.height == pytest.approx(10 * np.hypot(ROW, COLUMN), rel=1e-4)
    block = 10 * np.hypot(*np.mgrid[40:48, 24:32])
    assert place.coarse_height == pytest.approx(block.mean(), rel=1e-4)


def test_towns_on_the_domain_are_offered(shared: Library):
    assert list(towns(shared.open("full"))) == ["Venezia"]


def test_a_point_outside_or_none_shows_nothing(shared: Library):
    for point in ([-3.0, 40.0], None):
        session = started(shared, point=point)
        assert session.points.place is None
        assert session.points.series is None
        assert session.problem == session.error == ""


@pytest.mark.parametrize("value", [[1], ["a", "b"], [1, 95], [200, 5], [float("nan"), 5], "12", 3])
def test_what_is_no_point_is_seen(value: object):
    assert not is_point(value)
    assert is_point([7.69, 45.07])


@pytest.mark.parametrize(
    "query", ["?point=a,b", "?point=1", "?point=900,45", "?point=", "?span=year&height=moon"]
)
def test_nonsense_in_an_address_falls_back(shared: Library, query: str):
    session = Session(shared, **from_query(query))
    session.start()
    assert (session.point, session.span, session.height) == (None, "day", "cell")
    session.restore(from_query(query))
    assert session.point is None


def test_the_point_is_in_the_address(shared: Library):
    session = started(shared, point=[7.6869, 45.0703], span="days", height="station")
    again = from_query(to_query(session))
    assert (again["point"], again["span"], again["height"]) == ([7.6869, 45.0703], "days", "station")
    assert again["view"] == "point"


def test_hours_are_those_of_the_days_around():
    hours = np.arange("2021-03-14", "2021-03-19", dtype="datetime64[h]").astype("datetime64[ns]")
    noon = np.datetime64("2021-03-16T12", "ns")
    assert hours_around(hours, noon, "day").size == 24
    around = hours_around(hours, noon, "days")
    assert (around[0], around[-1]) == (np.datetime64("2021-03-15T00"), np.datetime64("2021-03-17T23"))


def test_lines_break_where_hours_are_missing():
    hours = np.array(["2021-03-16T00", "2021-03-16T03", "2021-03-16T06", "2021-03-16T15"], "datetime64[ns]")
    filled, (values,) = with_gaps(hours, np.arange(4.0))
    assert filled[3] == np.datetime64("2021-03-16T09")
    np.testing.assert_array_equal(values, [0, 1, 2, np.nan, 3])


# ---------------------------------------------------------------- the series


def test_the_series_of_a_day_is_what_the_store_says_in_the_cells(shared: Library):
    session = started(shared, point=POINT)
    series = session.points.series
    np.testing.assert_array_equal(series.hours, HOURS)
    assert [line.key for line in series.lines] == [COARSE, TRUTH, QUADRATIC, "lapse_rate"]
    for key in (TRUTH, COARSE):
        np.testing.assert_allclose(series.get(key).values, over_the_day(key), atol=1e-3)
    store = session.opened.store
    made = shared.catalogue.result().get(QUADRATIC)
    expected = [
        float(made.downscale(store.read_coarse(hour), None, DOMAIN)["t2m"].values[0, ROW, COLUMN]) - 273.15
        for hour in HOURS[:3]
    ]
    np.testing.assert_allclose(series.get(QUADRATIC).values[:3], expected, atol=1e-3)
    assert (series.pending, series.bands, series.observed, series.corrected) == (0, (), None, None)


def test_nothing_is_gathered_behind_another_view(library: Library, monkeypatch: pytest.MonkeyPatch):
    session = started(library, point=POINT, view="maps")
    assert session.points.series is None
    session.view = "point"
    assert session.points.series.pending == 0
    session.view = "maps"
    monkeypatch.setattr(library, "fields", lambda *_: pytest.fail("It was computed again."))
    session.view = "point"
    np.testing.assert_allclose(session.points.series.get(TRUTH).values, over_the_day(TRUTH), atol=1e-3)


def test_going_through_the_hours_of_a_day_computes_nothing_anew(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    session = started(library, point=POINT)
    monkeypatch.setattr(library, "fields", lambda *_: pytest.fail("It was computed again."))
    session.step(1)
    series = session.points.series
    assert series.index(session.current) == 13
    assert np.isfinite(series.get(TRUTH).values).all()


def test_the_series_grows_from_the_hour_shown_and_the_quick_fields_come_first(library: Library):
    session = Session(library, view="maps", point=POINT)
    session.start()
    asked = []
    fields_of = library.fields
    library.fields = lambda opened, hour, key: asked.append((key, hour)) or fields_of(opened, hour, key)
    seen = []
    session.points.param.watch(lambda event: seen.append(event.new), "series")
    session.view = "point"
    hours = [hour for key, hour in asked if key == TRUTH]
    distances = np.abs(np.array(hours) - session.current)
    assert (np.diff(distances) >= np.timedelta64(0)).all()
    assert seen[0].pending > 0
    assert seen[-1].pending == 0


def test_another_quantity_or_downscaler_is_shown(shared: Library):
    session = started(shared, point=POINT)
    session.models = ["lapse_rate"]
    assert [line.key for line in session.points.series.lines] == [COARSE, TRUTH, "lapse_rate"]
    session.variable = "wind"
    series = session.points.series
    assert series.quantity.key == "wind"
    assert [line.key for line in series.lines] == [COARSE]
    np.testing.assert_allclose(series.get(COARSE).values, np.hypot(1, 1), rtol=1e-5)


def test_a_downscaler_that_fails_says_so_in_its_line_alone(library: Library, monkeypatch: pytest.MonkeyPatch):
    lapse_rate = library.catalogue.result().get("lapse_rate")
    monkeypatch.setattr(lapse_rate, "downscale", lambda *_: (_ for _ in ()).throw(ValueError("No good.")))
    series = started(library, point=POINT).points.series
    assert series.get("lapse_rate").problem == "No good."
    assert series.pending == 0
    assert np.isfinite(series.get(QUADRATIC).values).all()


def test_a_store_without_truth_has_a_series_without_it(shared: Library):
    series = started(shared, store="bare", point=POINT).points.series
    assert series.get(TRUTH) is None
    assert series.hours.size == 8
    assert np.isfinite(series.get(COARSE).values).all()


def test_results_of_a_point_left_behind_are_dropped(library: Library):
    late = []
    session = Session(library, deliver=lambda work: work(), view="maps")
    session.start()
    library.submit = late.append
    session.param.update(view="point", point=POINT)
    session.point = list(to_lonlat(DOMAIN, DOMAIN.fine.x[3], DOMAIN.fine.y[3]))
    while late:
        late.pop(0)()
    series = session.points.series
    assert series.place.fine == (3, 3)
    np.testing.assert_allclose(series.get(TRUTH).values[7], celsius(7)[0][3, 3], atol=1e-3)


# ---------------------------------------------------------------- members


def test_the_band_of_members_is_their_range_percentiles_and_mean():
    members = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 5.0], [4.0, np.nan], [5.0, np.nan]])
    band = Band("k", "K", members)
    summary = band.summary()
    assert [summary[name][0] for name in ("low", "p10", "mean", "p90", "high")] == pytest.approx(
        [1, 1.4, 3, 4.6, 5]
    )
    assert {summary[name][1] for name in summary} == {5.0}
    np.testing.assert_array_equal(band.counts, [5, 1])
    assert Band("k", "K", np.full((3, 2), np.nan)).summary()["mean"].tolist() == pytest.approx(
        [np.nan, np.nan], nan_ok=True
    )


@pytest.fixture(scope="module")
def generative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    store = make_square_store(folder / "square.zarr")
    make_ldm(folder / "checkpoints" / "ldm.safetensors", store)
    return folder


@pytest.fixture
def sampling(generative: Path) -> Session:
    """A visitor at a point of a store with two hours on each of some days, and one generative model."""
    library = PromptLibrary(Settings((generative / "square.zarr",), generative / "checkpoints", generative))
    catalogue = library.catalogue.result()
    key = next(d.key for d in catalogue.downscalers if d.stochastic)
    point = list(to_lonlat(SQUARE, SQUARE.fine.x[20], SQUARE.fine.y[30]))
    session = started(library, point=point, models=[QUADRATIC, key], steps=2, members=3)
    assert library.jobs.wait(60)
    return session


def test_members_are_never_sampled_for_the_series_by_themselves(sampling: Session):
    (band,) = sampling.points.series.bands
    hours = hours_around(FEW, sampling.current, "day").size
    assert hours > 1
    assert band.counts.sum() == 1  # the field on the maps
    assert len(sampling.points.missing_members()) == 3 * hours - 1


def test_missing_members_are_sampled_when_asked_for_and_are_those_of_the_library(sampling: Session):
    sampling.points.sample()
    assert sampling.library.jobs.wait(60)
    assert sampling.points.missing_members() == []
    series = sampling.points.series
    (band,) = series.bands
    assert (band.counts == 3).all()
    for index, hour in enumerate(series.hours):
        sampling.hour = str(np.datetime_as_string(hour, unit="m"))
        piece = sampling.piece(sampling.generating, 2)
        kept = sampling.library.peek_member(piece)["t2m"][30, 20] - 273.15
        assert band.members[2, index] == pytest.approx(kept, abs=1e-3)


def test_sampling_of_the_series_can_be_cancelled(sampling: Session):
    sampling.seed = 7
    assert sampling.library.jobs.wait(60)
    sampling.param.watch(
        lambda event: event.new and event.new.fields > 1 and event.new.made and sampling.cancel_sampling(),
        "progress",
    )
    sampling.points.sample()
    assert sampling.library.jobs.wait(60)
    assert sampling.progress.state == CANCELLED
    assert 0 < len(sampling.points.missing_members()) < 3 * sampling.points.series.hours.size


# ---------------------------------------------------------------- stations


def with_stations(library: Library, content: bytes, **state: object) -> Session:
    session = started(library, **{"point": POINT, **state})
    session.points.load(content, "obs.csv")
    return session


def test_errors_are_those_that_were_built_in(shared: Library):
    table = with_stations(shared, observations(excess=1.5)).points.errors
    truth = table.get(TRUTH)
    assert truth.bias == pytest.approx(-1.5, abs=1e-3)
    assert truth.rmse == pytest.approx(1.5, abs=1e-3)
    assert (truth.pairs, truth.hours) == (72, 24)
    station = list(CELLS).index("Gamma")
    row, column = CELLS["Gamma"]
    expected = np.array(
        [celsius(h)[1][row // 8, column // 8] - celsius(h)[0][row, column] - 1.5 for h in range(24)]
    )
    coarse = table.get(COARSE, station)
    assert coarse.bias == pytest.approx(expected.mean(), abs=1e-3)
    assert coarse.rmse == pytest.approx(np.sqrt((expected**2).mean()), abs=1e-3)
    assert list(table.labels) == [COARSE, TRUTH, QUADRATIC, "lapse_rate"]


def test_the_correction_brings_cells_to_the_height_of_the_station(shared: Library):
    session = with_stations(shared, observations(higher=200.0))
    assert session.points.errors.get(TRUTH).bias == pytest.approx(0, abs=1e-3)
    assert session.points.series.corrected is None
    session.height = "station"
    assert session.points.errors.get(TRUTH).bias == pytest.approx(-0.0065 * 200, abs=2e-3)
    series = session.points.series
    assert series.corrected == pytest.approx(10 * np.hypot(ROW, COLUMN) + 200, abs=0.01)
    np.testing.assert_allclose(series.get(TRUTH).values, np.array(over_the_day(TRUTH)) - 1.3, atol=2e-3)
    place = series.place
    lifted = np.array(over_the_day(COARSE)) + 0.0065 * (place.coarse_height - series.corrected)
    np.testing.assert_allclose(series.get(COARSE).values, lifted, atol=2e-3)


def test_all_hours_are_those_that_were_computed(library: Library):
    session = started(library, point=POINT, view="maps", hour="2021-03-16T03:00")
    session.points.load(observations(hours=HOURS[:6]), "obs.csv")
    session.step(1)
    session.step(1)
    session.view = "point"
    table = session.points.errors
    assert table.get(TRUTH).hours == table.get(TRUTH, everything=True).hours == 6
    assert session.points.near[0] == list(CELLS).index("Beta")


def test_hours_computed_before_the_stations_came_count(library: Library):
    session = started(library, point=POINT)
    session.points.load(observations(excess=-1.0), "obs.csv")
    assert session.points.errors.get(QUADRATIC, everything=True).hours == 24


def test_the_nearest_station_is_shown_with_the_point(shared: Library):
    session = with_stations(shared, observations(excess=1.0))
    observed = session.points.series.observed
    assert observed.label == "Beta"
    np.testing.assert_allclose(observed.values, np.array(over_the_day(TRUTH)) + 1, atol=1e-3)
    session.variable = "wind"
    assert session.points.series.observed is None
    assert session.points.near is None


def test_stations_elsewhere_are_counted_and_left_out(shared: Library):
    far = [["2021-03-16T12:00Z", -60, 10, 5, 300, "far", "Far away"]]
    sited = with_stations(shared, observations(extra=far)).points.sited
    assert (sited.size, sited.outside) == (3, 1)
    assert sited.names == list(CELLS)


def test_only_stations_elsewhere_leave_no_errors(shared: Library):
    content = b"time,lon,lat,elevation,t2m\n2021-03-16T12:00Z,-60,10,5,300\n"
    session = with_stations(shared, content)
    assert (session.points.sited.size, session.points.sited.outside) == (0, 1)
    assert session.points.errors is None
    assert session.points.series.observed is None
    assert session.error == ""


def test_a_bad_file_becomes_a_sentence_and_keeps_what_was_there(shared: Library):
    session = with_stations(shared, observations())
    before = session.points.sited
    session.points.load(b"a,b\n1,2\n", "other.csv")
    assert session.error.startswith("other.csv lacks the columns time")
    assert session.points.sited is before
    assert not session.points.reading
    session.points.forget_stations()
    assert session.points.sited is None
    assert session.points.errors is None


def test_a_file_named_at_the_start_is_read(folder: Path, tmp_path: Path):
    (tmp_path / "obs.csv").write_bytes(observations())
    settings = Settings((folder / "full.zarr",), folder / "checkpoints", folder, tmp_path / "obs.csv")
    library = PromptLibrary(settings)
    library.catalogue.result()
    assert started(library).points.sited.names == list(CELLS)
    missing = PromptLibrary(Settings((folder / "full.zarr",), folder, folder, tmp_path / "absent.csv"))
    missing.catalogue.result()
    assert "absent.csv can't be read" in started(missing).error


def test_another_store_sites_the_stations_anew(shared: Library):
    session = with_stations(shared, observations(hours=HOURS[:4]))
    session.store = "bare"
    assert session.points.sited.size == 3
    table = session.points.errors
    assert table.get(TRUTH) is None
    assert table.get(COARSE).hours == 2


def test_scores_can_be_read_back_from_csv(shared: Library):
    session = with_stations(shared, observations(excess=1.5))
    table = session.points.errors
    rows = list(csv.DictReader(io.StringIO(to_csv(table, store="full", hours="16 March"))))
    everyone = [row for row in rows if row["name"] == "all stations" and row["period"] == "16 March"]
    assert [row["downscaler"] for row in everyone] == list(table.labels.values())
    truth = next(row for row in everyone if row["downscaler"] == "Truth")
    assert float(truth["bias [K]"]) == pytest.approx(-1.5, abs=1e-3)
    beta = next(row for row in rows if row["name"] == "Beta" and row["downscaler"] == "Truth")
    assert float(beta["cell height [m]"]) == pytest.approx(500, abs=0.1)
    assert float(beta["RMSE [K]"]) == pytest.approx(1.5, abs=1e-3)


def test_files_hold_no_formula(shared: Library):
    lon, lat = to_lonlat(DOMAIN, DOMAIN.fine.x[3], DOMAIN.fine.y[3])
    evil = [["2021-03-16T12:00Z", lon, lat, 5, 285, "@SUM(A1)", "=1+1"]]
    table = with_stations(shared, observations(extra=evil)).points.errors
    rows = list(csv.DictReader(io.StringIO(to_csv(table, store="-full", hours="16 March"))))
    assert {row["store"] for row in rows} == {"'-full"}
    assert ("'@SUM(A1)", "'=1+1") in {(row["station"], row["name"]) for row in rows}


def test_what_fields_say_at_stations_is_remembered_for_so_many_hours(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("explorer.study.MOST_HOURS", 5)
    monkeypatch.setattr("explorer.study.MOST_VALUES", 1)
    session = started(library, point=POINT, view="maps", hour="2021-03-16T00:00")
    session.points.load(observations(), "obs.csv")
    for _ in range(9):
        session.step(1)
    known = session.points._cells[TRUTH]
    assert list(known) == HOURS[5:10].astype(np.int64).tolist()


def test_a_long_series_pushes_nothing_out_of_memory(library: Library, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("explorer.study.KEPT_HOURS", 23)
    session = started(library, point=POINT)
    assert session.points.series.pending == 0
    assert np.isfinite(session.points.series.get(TRUTH).values).all()
    hours = [hour for hour in HOURS if library.peek(session.opened, hour, TRUTH) is not None]
    assert hours == [
        session.current,
        session.current + np.timedelta64(1, "h"),
    ]  # the maps, and the hour ahead


def send(section: StationSection, content: object, number: int = 1) -> None:
    section.upload._handle_msg(
        {"status": "upload_event", "name": "mine.csv", "chunk": number, "data": content}
    )


def test_stations_arrive_in_pieces(shared: Library):
    session = started(shared, point=POINT)
    section, content = StationSection(session), observations()
    send(section, content[:100])
    send(section, content[100:], 2)
    section._finish()
    assert session.points.sited.stations.source == "mine.csv"
    assert session.points.sited.size == 3


def test_what_is_sent_beyond_the_limit_or_is_no_content_is_not_held(shared: Library):
    session = started(shared, point=POINT)
    section = StationSection(session)
    section._content.limit = 1000
    send(section, 10**12)
    send(section, b"x" * 600)
    send(section, b"x" * 600, 2)
    assert session.error == "mine.csv is larger than the 0.001 MB that may be loaded here."
    send(section, b"x" * 600, 3)
    section._finish()
    assert session.points.sited is None
    session.error = ""
    send(section, b"x" * 600)
    send(section, b"x", 3)
    assert session.error == "The file did not arrive in order; send it again."
    session.error = ""
    session.points.reading = True
    send(section, b"x" * 600)
    section._finish()
    assert section._content.take() == b""
    assert session.error == ""
    section.upload._handle_msg({"status": "error", "error": "too big"})
    assert session.error == "too big"


# ---------------------------------------------------------------- the view, as its widgets hold it


def test_the_view_says_how_to_begin_and_then_what_is_there(shared: Library):
    session = started(shared)
    view = PointView(session)
    assert "Choose a point" in view._why.object
    assert [button.label for button in view._towns.objects] == ["Venezia"]
    assert session.point is None
    assert (view.longitude.value, view.latitude.value) == tuple(middle(session.opened))
    view._towns.objects[0].clicks += 1
    assert session.point == [12.33, 45.44]
    assert view.town.value == "Venezia"
    view.latitude.value = 45.0
    assert session.point == [12.33, 45.0]
    assert view._content.visible
    session.point = POINT
    assert f"{celsius(12)[0][ROW, COLUMN]:.2f}" in view._values.object
    assert f"{celsius(12)[1][ROW // 8, COLUMN // 8]:.2f}" in view._values.object
    assert "500 m above the sea" in view._facts.object
    session.point = [-3.0, 40.0]
    assert "lies outside" in view._why.object


def test_a_click_in_the_series_goes_to_its_hour(shared: Library):
    session = started(shared, point=POINT)
    view = PointView(session)
    moment = np.datetime64("2021-03-16T05:20", "ms").astype(int)
    view._clicked.data = {"x": [float(moment)]}
    assert session.hour == "2021-03-16T05:00"
    assert f"{celsius(5)[0][ROW, COLUMN]:.2f}" in view._values.object
    assert view._now.location == np.datetime64("2021-03-16T05:00", "ms").astype(int)


def test_a_click_on_a_map_chooses_the_point_and_marks_it(shared: Library):
    session = started(shared, view="maps")
    maps = Maps(session)
    x, y = DOMAIN.fine.x[COLUMN], DOMAIN.fine.y[ROW]
    maps.marks.clicked.data = {"x": [x], "y": [y]}
    assert session.points.place.fine == (ROW, COLUMN)
    assert maps.marks.marker.data["x"] == [pytest.approx(x, abs=10)]
    before = session.point
    maps.marks.clicked.data = {"x": [x - 1e6], "y": [y]}
    assert session.point == before


def test_stations_on_the_maps_have_the_colour_of_what_they_observe(shared: Library):
    session = started(shared, view="maps")
    maps = Maps(session)
    session.points.load(observations(excess=1.0), "obs.csv")
    data, scale = maps.marks.stations.data, maps._scale
    observed = np.array([celsius(12)[0][cell] for cell in CELLS.values()]) + 1
    np.testing.assert_allclose(scale.low + (data["fill_truth"] - 1) * scale.step, observed, atol=0.01)
    assert data["words_truth"][1] == f"{observed[1] - 1:.1f} °C  (−1.0 K)".replace("-", "−")
    session.mode = "difference"
    scale = maps._scale
    row, column = CELLS["Beta"]
    error = celsius(12)[1][row // 8, column // 8] - observed[1]
    code = maps.marks.stations.data["fill_coarse"][1]
    np.testing.assert_allclose(scale.low + (code - 1) * scale.step, error, atol=0.01)
    session.variable = "wind"
    assert len(maps.marks.stations.data["x"]) == 0


def test_names_from_a_file_are_no_markup(shared: Library):
    session = started(shared, point=POINT)
    view = PointView(session)
    evil = {"<img src=x onerror=alert(1)>": CELLS["Beta"]}
    session.points.load(observations(cells=evil), "<b>obs</b>.csv")
    for pane in (
        view._values,
        view._facts,
        view._stations._says,
        view._stations._summary,
        view._stations._each,
    ):
        assert "<img" not in pane.object
        assert "<b>obs" not in pane.object
    assert "&lt;img" in view._stations._each.object


def test_the_section_of_stations_says_what_it_has(shared: Library):
    session = started(shared, point=POINT)
    section = PointView(session)._stations
    assert "load a CSV file" in section._says.object
    far = [["2021-03-16T12:00Z", -60, 10, 5, 300, "far", "Far away"]]
    session.points.load(observations(excess=1.5, extra=far), "obs.csv")
    assert (
        "3 stations on this domain, 72 observations. 1 station outside is left out." in section._says.object
    )
    assert "−1.50</td><td>1.50</td><td>72" in section._summary.object
    assert "Gamma" in section._each.object
    assert "Truth" in section._csv().getvalue()
    session.variable = "wind"
    assert section._summary.object == ""
    assert "2-metre temperature" in section._says.object


def test_members_are_drawn_and_the_button_says_how_many_are_missing(sampling: Session):
    view = PointView(sampling)
    hours = sampling.points.series.hours.size
    missing = len(sampling.points.missing_members())
    assert view.button.visible is bool(missing)
    if missing:
        assert view.button.label == f"Sample {missing} fields"
    sampling.points.sample()
    assert sampling.library.jobs.wait(60)
    (band,) = sampling.points.series.bands
    data = view._bands[band.key][0].data
    np.testing.assert_allclose(data["mean"], band.members.mean(0))
    np.testing.assert_allclose(data["high"], band.members.max(0))
    assert list(data["count"]) == [3] * hours
    assert len(view._dots.data["value"]) == 3
    assert view._boxes.data["row"] == [band.label]
    assert "mean of 3" in view._values.object
    assert not view.button.visible


# ---------------------------------------------------------------- what takes time


def test_a_point_waits_for_the_heights_and_not_the_page(library: Library, tmp_path: Path):
    late = []
    at_once, library.submit = library.submit, lambda work: late.append((work, future := Future())) or future
    session = Session(library, view="point", point=POINT)
    session.start()
    session.points._on_read(parse_stations(observations(), "obs.csv"), "")
    assert session.points.place is None
    assert session.points.sited is None
    library.submit = at_once
    for work, future in late:
        work()
        future.set_result(None)
    row, column = session.points.place.fine
    assert session.points.place.height == pytest.approx(10 * np.hypot(row, column), abs=0.01)
    assert session.points.sited.size
    assert session.points.series is not None


def test_members_that_arrive_together_are_drawn_together(sampling: Session):
    session, waiting, drawn = sampling, [], []
    study, piece = session.points, session.points.missing_members()[0]
    session.points.param.watch(lambda event: drawn.append(event.new), "series")
    study._later = waiting.append
    for member in range(3):
        kept = dataclasses.replace(piece, member=member)
        session.library.keep_member(kept, {"t2m": np.full(SQUARE.fine.shape, 280.0, "f4")})
        study.on_member(kept)
    assert drawn == []
    while waiting:
        waiting.pop(0)()
    assert len(drawn) == 1
    assert len(study.missing_members()) <= 3 * study.series.hours.size - 3
