"""Observations of stations from CSV files."""

from pathlib import Path

import numpy as np
import pytest

from core.data import stations
from core.data.stations import StationError, parse_stations, read_stations

HEAD = "time,lon,lat,elevation,t2m,station,name\n"
GOOD = "2021-03-16T12:00Z,7.6869,45.0703,239,285.35,16059,Torino\n"


def parse(text: str) -> stations.Stations:
    return parse_stations(text.encode(), "obs.csv")


def many(count: int) -> str:
    """Good rows, an hour after the other."""
    return "".join(f"2021-03-{1 + h // 24:02}T{h % 24:02}:00,9,45,100,280.5,a,A\n" for h in range(count))


def test_a_file_becomes_times_by_stations(tmp_path: Path):
    rows = GOOD + "2021-03-16 13:00,7.6869,45.0703,239,286.0,16059,Torino\n"
    rows += "2021-03-16T14:00:00+01:00,11.35,46.5,254,280.0,16020,Bolzano\n"
    (tmp_path / "obs.csv").write_text(HEAD + rows)
    found = read_stations(tmp_path / "obs.csv")
    assert (found.source, found.size, found.observations) == ("obs.csv", 2, 3)
    assert found.keys == ("16059", "16020")
    assert found.names == ("Torino", "Bolzano")
    np.testing.assert_array_equal(found.times, np.array(["2021-03-16T12", "2021-03-16T13"], "datetime64[ns]"))
    np.testing.assert_allclose(found.t2m, [[285.35, np.nan], [286.0, 280.0]], rtol=1e-6)
    np.testing.assert_allclose(found.elevation, [239, 254])
    assert found.remarks == ()


def test_values_are_looked_up_at_exact_times():
    found = parse(HEAD + GOOD)
    hours = np.array(
        ["2021-03-16T11", "2021-03-16T12", "2021-03-16T12:10", "2030-01-01T00"], "datetime64[ns]"
    )
    np.testing.assert_allclose(found.at(hours)[:, 0], [np.nan, 285.35, np.nan, np.nan], rtol=1e-6)


def test_celsius_is_said_by_the_name_of_the_column():
    found = parse("Time, lat, lon, elevation, t2m_celsius, humidity\n2021-03-16T12:00, 45, 9, 0, -10.5, 80\n")
    assert found.t2m[0, 0] == pytest.approx(262.65)
    assert found.names == ("45.0000N 9.0000E",)


def test_longitudes_beyond_180_and_blank_lines_are_understood():
    found = parse("time,lon,lat,elevation,t2m\n\n2021-03-16T12,350,45,0,280\n\n")
    assert found.longitude[0] == -10
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("2021-03-16T12,9,45,100,12.4,b,B", "t2m '12.4' is outside 180 to 335 kelvin; degrees Celsius"),
        ("2021-03-16T12,9,45,100,warm,b,B", "t2m 'warm' is not a number"),
        ("yesterday,9,45,100,280,b,B", "time 'yesterday' is not a time in ISO 8601"),
        ("2021-03-16T12,9,95,100,280,b,B", "lat '95' is outside -90 to 90 degrees north"),
        ("2021-03-16T12,,45,100,280,b,B", "lon '' is not a number"),
        ("2021-03-16T12,9,45,90000,280,b,B", "elevation '90000' is outside -450 to 9000 metres"),
        ("2021-03-16T12,9,inf,1,280,b,B", "lat 'inf' is outside"),
        ("2021-03-20T12,9.5,45,100,280,a,A", "station 'a' has another place or elevation than before"),
        ("2021-03-01T00,9,45,100,281,a,A", "station 'a' has another value for this time already"),
    ],
)
def test_a_bad_row_is_left_out_and_named_with_its_line_and_value(row: str, words: str):
    found = parse(HEAD + many(20) + "\n" + row + "\n")
    assert found.observations == 20
    assert found.size == 1
    assert found.remarks[0] == "1 bad row is left out."
    assert found.remarks[1].startswith(f"Line 23: {words}")


def test_the_same_row_twice_counts_once():
    assert parse(HEAD + GOOD + GOOD).observations == 1
    assert parse(HEAD + GOOD + GOOD).remarks == ()


def test_rows_without_a_temperature_are_counted():
    found = parse(HEAD + many(3) + "2021-03-16T12,9,45,100,,a,A\n2021-03-16T13,9,45,100,NaN,a,A\n")
    assert found.observations == 3
    assert found.remarks == ("2 rows without a temperature are left out.",)


def test_many_bad_rows_are_counted_after_the_first():
    found = parse(HEAD + many(100) + "2021-03-20T12,9,45,100,5,a,A\n" * 8)
    assert found.remarks[0] == "8 bad rows are left out."
    assert found.remarks[-1] == "3 more."
    assert len(found.remarks) == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            HEAD + "2021-03-16T12,9,45,100,12.4,b,B\n" * 9,
            "9 of 9 rows are bad. Line 2: t2m '12.4' is outside",
        ),
        ("time,lon,lat,t2m\n", "lacks the column elevation"),
        ("a;b;c\n1;2;3\n", "lacks the columns time, lon, lat, elevation; its first line says 'a;b;c'"),
        ("time,lon,lat,elevation\n", "it has neither"),
        ("time,lon,lat,elevation,t2m,t2m_celsius\n", "it has both"),
        ("time,lon,lon,lat,elevation,t2m\n", "two columns called lon"),
        (HEAD, "holds no observation"),
        (HEAD + "2021-03-16T12,9,45,100,,b,B\n", "holds no observation"),
        ("", "is not a table"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_a_sentence(text: str, words: str):
    with pytest.raises(StationError, match=r"obs\.csv") as caught:
        parse(text)
    assert words in str(caught.value)


def test_what_is_no_text_or_no_file_is_refused(tmp_path: Path):
    with pytest.raises(StationError, match="UTF-8"):
        parse_stations(b"time,lon\n\xff\xfe\x00", "obs.csv")
    with pytest.raises(StationError, match=r"obs\.csv"):
        parse_stations(b"PK\x03\x04\x00\x00\x00", "obs.csv")
    with pytest.raises(StationError, match="can't be read: No such file"):
        read_stations(tmp_path / "absent.csv")
    with pytest.raises(StationError, match="can't be read"):
        read_stations(tmp_path)


def test_size_rows_and_stations_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = HEAD + many(4) + GOOD
    monkeypatch.setattr(stations, "MOST_STATIONS", 1)
    with pytest.raises(StationError, match="2 stations; at most 1"):
        parse(text)
    monkeypatch.setattr(stations, "MOST_ROWS", 4)
    with pytest.raises(StationError, match="more than 4 rows"):
        parse(text)
    monkeypatch.setattr(stations, "MOST_BYTES", 50)
    (tmp_path / "large.csv").write_text(text)
    with pytest.raises(StationError, match="larger than"):
        read_stations(tmp_path / "large.csv")


def test_names_from_a_file_are_kept_short():
    found = parse(HEAD + GOOD.replace("Torino", "T" * 500))
    assert found.names == ("T" * 60,)


def test_a_table_that_would_fill_the_memory_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch):
    rows = "".join(f"2021-03-16T{n:02}:00,9,45,100,280.5,{n},A\n" for n in range(20))
    assert parse(HEAD + rows).t2m.size == 400
    monkeypatch.setattr(stations, "MOST_VALUES", 399)
    with pytest.raises(StationError, match="holds 20 stations at 20 times, which is too much to show"):
        parse(HEAD + rows)


@pytest.mark.parametrize("start", ["", '"\n"', "\ufeff"])
def test_a_file_of_commas_is_refused_before_it_is_read(start: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stations.pd, "read_csv", lambda *_, **__: pytest.fail("It was read."))
    with pytest.raises(StationError, match="more than 200 columns"):
        parse(start + "," * 1000)


def test_observations_are_counted_by_station():
    other = "2021-03-16T13:00Z,11.35,46.5,254,{},16020,Bolzano\n"
    found = parse(HEAD + GOOD + other.format("280.0") + other.format("").replace("13:00", "14:00"))
    assert found.counts.tolist() == [1, 1]
    assert found.observations == int(np.isfinite(found.t2m).sum()) == 2
