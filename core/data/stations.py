"""Observations of stations from a file of comma-separated values.

    time,lon,lat,elevation,t2m,station,name
    2021-03-16T12:00Z,7.6869,45.0703,239,285.35,16059,Torino

``time`` is ISO 8601, in UTC where it names no offset; ``lon`` and ``lat`` are degrees east and north,
``elevation`` metres above the sea. The temperature is ``t2m`` in kelvin or ``t2m_celsius`` in degrees
Celsius: the name of the column decides, never the look of the values. ``station`` (what tells stations apart)
and ``name`` are optional; other columns are ignored. docs/stations.md says the same for people.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from core.plural import are, counted

KELVIN, CELSIUS = "t2m", "t2m_celsius"
REQUIRED = ("time", "lon", "lat", "elevation")
ZERO_CELSIUS = 273.15
PLAUSIBLE = {
    "lon": (-180.0, 360.0, "degrees east"),
    "lat": (-90.0, 90.0, "degrees north"),
    "elevation": (-450.0, 9000.0, "metres"),
    KELVIN: (180.0, 335.0, "kelvin"),
    CELSIUS: (180.0 - ZERO_CELSIUS, 335.0 - ZERO_CELSIUS, "degrees Celsius"),
}
"""Lowest and highest value taken seriously and the unit, by column. Air on land has been between -89.2 and
56.7 degrees Celsius (World Meteorological Organization, Weather and Climate Extremes Archive)."""

MOST_BYTES = 50_000_000
MOST_ROWS = 1_000_000
MOST_STATIONS = 2000
MOST_VALUES = 20_000_000
"""Stations times times, which takes 80 MB: a file of few lines may name a time of its own in each of them."""
MOST_COLUMNS = 200
MOST_BAD = 0.1
"""Share of bad rows beyond which a file is refused: it is probably of another kind."""
NAMED = 5
"""Bad rows that are named one by one; the others are counted."""
LONGEST_NAME = 60
MISSING = ("", "nan", "na", "null", "none", "-")
"""Words for a temperature that was not observed."""

Times = NDArray[np.datetime64]


class StationError(ValueError):
    """A file of observations that can't be used; the message says why and how to mend it."""


@dataclass(frozen=True, eq=False)
class Stations:
    """What n stations observed at t times.

    Attributes
    ----------
    source : name of the file
    keys, names : (n,) what tells a station apart, and what people call it
    longitude, latitude : (n,) degrees east and north
    elevation : (n,) metres
    times : (t,) ascending, datetime64[ns] in UTC
    t2m : (t, n) kelvin, float32; NaN where there is none
    counts : (n,) observations of each station
    remarks : sentences about rows that were left out
    """

    source: str
    keys: tuple[str, ...]
    names: tuple[str, ...]
    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]
    elevation: NDArray[np.float64]
    times: Times
    t2m: NDArray[np.float32]
    counts: NDArray[np.intp]
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many stations there are."""
        return len(self.keys)

    @property
    def observations(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())

    def at(self, times: ArrayLike) -> NDArray[np.float32]:
        """Observations at exactly these times, (len(times), n) in kelvin; NaN where there is none."""
        wanted = np.atleast_1d(np.asarray(times, "datetime64[ns]"))
        values = np.full((wanted.size, self.size), np.nan, np.float32)
        if self.times.size:
            index = np.clip(np.searchsorted(self.times, wanted), 0, self.times.size - 1)
            there = self.times[index] == wanted
            values[there] = self.t2m[index[there]]
        return values


def read_stations(path: str | Path) -> Stations:
    """Stations of a CSV file.

    Raises StationError where there is no such file, it is too large, a column is missing, or too many rows
    can't be used.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise StationError(
                f"{path} is larger than {MOST_BYTES // 10**6} MB; cut it to the times that matter."
            )
        content = path.read_bytes()
    except OSError as error:
        raise StationError(f"{path} can't be read: {error.strerror or error}.") from error
    return parse_stations(content, path.name)


def parse_stations(content: bytes, source: str) -> Stations:
    """Stations of the content of a CSV file that is called ``source``; errors as in :func:`read_stations`.

    Rows with an impossible value are left out and named in ``remarks``; rows without a temperature are left
    out. The file is refused where more than a tenth of its rows are bad.
    """
    if len(content) > MOST_BYTES:
        raise StationError(f"{source} is larger than {MOST_BYTES // 10**6} MB; cut it.")
    table = _read(content, source)
    temperature = _temperature_column(table, source)
    numbers, problems = _numbers(table, temperature)
    times = pd.to_datetime(table["time"].str.strip(), utc=True, format="ISO8601", errors="coerce")
    problems = _first_of(
        problems, times.isna(), _complaint(table["time"], "time", "is not a time in ISO 8601")
    )
    missing = (numbers[temperature].isna() & (problems == "")).to_numpy()
    keys = _keys(table, numbers)
    good = ((problems == "") & ~missing).to_numpy()

    frame = pd.DataFrame(
        {
            "line": table.index + 2,  # the first line holds the names of the columns
            "key": keys,
            "name": _names(table, keys),
            "time": times,
            "lon": np.where(numbers["lon"] > 180, numbers["lon"] - 360, numbers["lon"]),
            "lat": numbers["lat"],
            "elevation": numbers["elevation"],
            "t2m": numbers[temperature] + (ZERO_CELSIUS if temperature == CELSIUS else 0.0),
        }
    )[good]
    frame, complaints = _consistent(frame)
    said = problems[problems != ""]
    complaints += [(int(row) + 2, words) for row, words in zip(said.index.to_numpy(), said, strict=True)]
    complaints.sort()
    remarks = _remarks(complaints, int(missing.sum()), len(table), source)
    if frame.empty:
        raise StationError(f"{source} holds no observation. It needs a line for each, below the names.")
    return _collect(frame, source, remarks)


def _read(content: bytes, source: str) -> pd.DataFrame:
    """All columns as text."""
    try:
        # Each column costs pandas some kilobytes, and a file of commas alone has millions of them.
        lines = csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8-sig"), skipinitialspace=True)
        if len(next(lines, [])) > MOST_COLUMNS:
            raise StationError(f"{source} has more than {MOST_COLUMNS} columns; leave those that are needed.")
        table = pd.read_csv(
            io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False,
            skip_blank_lines=False, nrows=MOST_ROWS + 1, skipinitialspace=True,
        )  # fmt: skip
    except UnicodeDecodeError as error:
        raise StationError(f"{source} is not text in UTF-8 (byte {error.start}); save it as CSV.") from error
    except StationError:
        raise
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise StationError(f"{source} is not a table of comma-separated values: {error}.") from error
    if len(table) > MOST_ROWS:
        raise StationError(f"{source} has more than {MOST_ROWS} rows; cut it to the times that matter.")
    table.columns = [str(name).strip().lower() for name in table.columns]
    table = table.fillna("")
    # Blank lines keep their place in the index, so that the number of a line is the one an editor shows.
    return table[(table != "").any(axis=1)]


def _temperature_column(table: pd.DataFrame, source: str) -> str:
    """Name of the column of temperatures; StationError where columns are missing or stand twice."""
    columns = list(table.columns)
    # pandas calls the second of two columns "lon" "lon.1".
    known = (*REQUIRED, KELVIN, CELSIUS)
    twice = [name for name in known if columns.count(name) + columns.count(f"{name}.1") > 1]
    if twice:
        raise StationError(f"{source} has two columns called {twice[0]}; leave one.")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        found = ", ".join(columns[:8])
        raise StationError(
            f"{source} lacks the {'columns' if len(missing) > 1 else 'column'} {', '.join(missing)}; its "
            f"first line says {found[:200]!r}. Columns are separated by commas."
        )
    held = [name for name in (KELVIN, CELSIUS) if name in columns]
    if len(held) != 1:
        raise StationError(
            f"{source} needs either a column t2m (kelvin) or a column t2m_celsius (degrees Celsius); it has "
            f"{'both' if held else 'neither'}."
        )
    return held[0]


def _numbers(table: pd.DataFrame, temperature: str) -> tuple[pd.DataFrame, pd.Series]:
    """Numbers of all numeric columns, and what is wrong with each row (empty where nothing is)."""
    problems = pd.Series("", index=table.index, dtype=object)
    numbers = {}
    for name in ("lon", "lat", "elevation", temperature):
        words = table[name].str.strip()
        values = pd.to_numeric(words, errors="coerce").astype(np.float64)
        absent = words.str.lower().isin(MISSING) if name == temperature else words.isna()
        low, high, units = PLAUSIBLE[name]
        wrong = values.isna() & ~absent
        problems = _first_of(problems, wrong, _complaint(table[name], name, "is not a number"))
        beyond = values.notna() & ~values.between(low, high)
        advice = f"is outside {low:g} to {high:g} {units}"
        if name == KELVIN:
            advice += "; degrees Celsius belong in a column t2m_celsius"
        problems = _first_of(problems, beyond, _complaint(table[name], name, advice))
        numbers[name] = values
    return pd.DataFrame(numbers), problems


def _complaint(words: pd.Series, name: str, what: str) -> pd.Series:
    return name + " " + words.str.slice(0, 40).map(repr) + " " + what


def _first_of(problems: pd.Series, wrong: pd.Series, words: pd.Series) -> pd.Series:
    return problems.mask(wrong & (problems == ""), words)


def _keys(table: pd.DataFrame, numbers: pd.DataFrame) -> pd.Series:
    """What tells stations apart: the column ``station``, else the name, else the place."""
    place = numbers["lat"].map("{:.4f}N ".format) + numbers["lon"].map("{:.4f}E".format)
    keys = place
    for column in ("name", "station"):
        if column in table.columns:
            given = table[column].str.strip().str.slice(0, LONGEST_NAME)
            keys = given.where(given != "", keys)
    return keys


def _names(table: pd.DataFrame, keys: pd.Series) -> pd.Series:
    if "name" not in table.columns:
        return keys
    names = table["name"].str.strip().str.slice(0, LONGEST_NAME)
    return names.where(names != "", keys)


def _consistent(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """Rows without those that contradict an earlier one, and what those say: (line, words)."""
    complaints = []
    first = frame.groupby("key", sort=False)[["lon", "lat", "elevation"]].transform("first")
    moved = (
        (frame["lon"] - first["lon"]).abs().gt(1e-3)
        | (frame["lat"] - first["lat"]).abs().gt(1e-3)
        | (frame["elevation"] - first["elevation"]).abs().gt(1)
    )
    for line, key in _lines(frame[moved]):
        complaints.append((line, f"station {key!r} has another place or elevation than before"))
    frame = frame[~moved]
    earlier = frame.groupby(["key", "time"], sort=False)["t2m"].transform("first")
    again = frame.duplicated(["key", "time"])
    for line, key in _lines(frame[again & (frame["t2m"] - earlier).abs().gt(1e-6)]):
        complaints.append((line, f"station {key!r} has another value for this time already"))
    return frame[~again], complaints


def _lines(frame: pd.DataFrame) -> list[tuple[int, str]]:
    """(line of the file, key of the station) of every row."""
    return [(int(line), str(key)) for line, key in zip(frame["line"], frame["key"], strict=True)]


def _remarks(complaints: list[tuple[int, str]], missing: int, rows: int, source: str) -> tuple[str, ...]:
    """Sentences about what was left out; StationError where that is too much."""
    bad = len(complaints)
    named = [f"Line {line}: {words}." for line, words in complaints[:NAMED]]
    if bad > MOST_BAD * rows:
        raise StationError(
            f"{source} can't be used: {bad} of {counted(rows, 'row')} {are(bad)} bad. {' '.join(named)}"
        )
    remarks = [f"{counted(bad, 'bad row')} {are(bad)} left out.", *named] if bad else []
    if bad > NAMED:
        remarks.append(f"{bad - NAMED} more.")
    if missing:
        remarks.append(f"{counted(missing, 'row')} without a temperature {are(missing)} left out.")
    return tuple(remarks)


def _collect(frame: pd.DataFrame, source: str, remarks: tuple[str, ...]) -> Stations:
    stations = frame.drop_duplicates("key")
    if len(stations) > MOST_STATIONS:
        raise StationError(
            f"{source} holds {len(stations)} stations; at most {MOST_STATIONS} can be shown. Cut it to "
            "the region."
        )
    keys = stations["key"].to_numpy()
    stamps = frame["time"].dt.tz_convert(None).to_numpy().astype("datetime64[ns]")
    times, rows = np.unique(stamps, return_inverse=True)
    if times.size * keys.size > MOST_VALUES:
        raise StationError(
            f"{source} holds {keys.size} stations at {times.size} times, which is too much to show. Cut it "
            "to the region or to the times that matter."
        )
    number = {key: column for column, key in enumerate(keys)}
    columns = frame["key"].map(number).to_numpy()
    values = np.full((times.size, keys.size), np.nan, np.float32)
    values[rows, columns] = frame["t2m"].to_numpy()
    return Stations(
        source,
        tuple(keys),
        tuple(stations["name"]),
        stations["lon"].to_numpy(np.float64),
        stations["lat"].to_numpy(np.float64),
        stations["elevation"].to_numpy(np.float64),
        times,
        values,
        np.bincount(columns, minlength=keys.size),
        remarks,
    )
