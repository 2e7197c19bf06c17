"""Files of the published data set: which days a folder holds, and the fields in the file of a day.

The data set of Tomasi, Franch and Cristoforetti (doi 10.5194/gmd-18-2051-2025) has two or more files for
every day, ``YYYY/YYYY-MM-DD_low.pt.zst`` with the predictors and ``_high_2mT``, ``_high_UV``, ``_high_TP``
with targets. Each is a file of PyTorch, compressed by Zstandard, that holds ``{hour: {variable: tensor}}``
with normalised values. ``metadata.csv`` says for every time stamp which file and hour hold it. A folder need
not hold all of it. Nothing in the files is executed (:mod:`core.torch_archive`).
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from filecmp import cmp
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from core.closing import Closing
from core.inert_values import number
from core.torch_archive import ArchiveError, TorchArchive
from core.unpickle import UnpickleError

MAX_DAY_BYTES = 2**30
"""Decompressed size beyond which the file of a day is refused; 24 hours of both wind components have 74
MB."""
MAX_WINDOW_BYTES = 2**27
"""Memory that a compressed file may ask for, the most that Zstandard's own levels do."""
MAX_DEPTH = 4
"""Folders below the one named in which files are looked for."""

TRUTH_FILES: dict[str, tuple[str, ...]] = {"2mT": ("t2m",), "UV": ("u10", "v10"), "TP": ("tp",)}
"""The part of the name that tells files of targets apart, and what they hold."""

NORMALIZATION = "normalization_data.pkl"
BORDERS = "borders_downscaling_domain_3035.geojson"
_METADATA = re.compile(r"metadata(_\d{4}-\d{4})?\.csv")
"""The lists of hours; where several archives were fetched from, each has the years in its name."""

_LOW = re.compile(r"(\d{4}-\d\d-\d\d)_low\.pt\.zst")
_HOUR = np.timedelta64(1, "h")
_CHUNK = 2**22

Times = NDArray[np.datetime64]


class PublishedError(ValueError):
    """Files of the published layout that can't be used; the message names the file and the way out."""


@dataclass(frozen=True, eq=False)
class Day:
    """The files of one day.

    ``high`` maps targets to the file that holds them. ``listed`` maps time stamps to the hours of the file as
    metadata.csv has them; it is None where that is absent or does not name the day.
    """

    date: np.datetime64
    low: Path
    high: Mapping[str, Path]
    listed: Mapping[np.datetime64, int] | None

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets that the day has files of."""
        return tuple(self.high)


@dataclass(frozen=True)
class Layout:
    """What a folder in the published layout holds.

    ``files`` maps the names of all other files to where they lie; ``metadata`` tells whether there was any.
    """

    folder: Path
    days: tuple[Day, ...]
    files: Mapping[str, tuple[Path, ...]]
    metadata: bool

    def file(self, name: str) -> Path | None:
        """The only file of that name, None where there is none.

        Raises PublishedError where several differ, as they may when archives were unpacked side by side.
        """
        found = self.files.get(name, ())
        if other := next((path for path in found[1:] if not cmp(found[0], path, shallow=False)), None):
            raise PublishedError(
                f"{found[0]} and {other} differ. Keep the one that belongs to the days, or name the "
                "folder "
                "that it lies in."
            )
        return found[0] if found else None


def find_layout(folder: str | Path) -> Layout:
    """Look through a folder and the folders in it; the days come in the order of dates.

    Raises PublishedError where there is no folder or no day in it, where a day is there twice, and for
    a metadata.csv that can't be understood.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PublishedError(f"There is no folder {folder}. Get the files with `tramontana fetch`.")
    files: dict[str, list[Path]] = {}
    for path in _walk(folder):
        files.setdefault(path.name, []).append(path)
    listed: dict[str, dict[np.datetime64, int]] = {}
    lists = [path for name, paths in files.items() if _METADATA.fullmatch(name) for path in paths]
    for path in lists:
        _read_metadata(path, listed)
    days = []
    for name in sorted(files):
        match = _LOW.fullmatch(name)
        if match is None:
            continue
        if len(files[name]) > 1:
            raise PublishedError(f"{folder} has two files of one day: {files[name][0]} and {files[name][1]}.")
        low = files[name][0]
        truth = {part: low.with_name(f"{match[1]}_high_{part}.pt.zst") for part in TRUTH_FILES}
        high = {
            target: path for part, path in truth.items() if path.is_file() for target in TRUTH_FILES[part]
        }
        try:
            date = np.datetime64(match[1], "D")
        except ValueError:
            raise PublishedError(f"{low} is named after a date that does not exist.") from None
        days.append(Day(date, low, high, listed.get(name)))
    if not days:
        raise PublishedError(
            f"{folder} holds no day in the published layout (files such as 2016/2016-05-02_low.pt.zst). Get "
            "days "
            "with `tramontana fetch`."
        )
    others = {name: tuple(paths) for name, paths in files.items() if not name.endswith(".pt.zst")}
    return Layout(folder, tuple(days), others, bool(lists))


def _walk(folder: Path) -> Iterator[Path]:
    """Files of a folder and those below, without hidden ones and stores."""
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        below = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".zarr"))
        folders[:] = below if depth < MAX_DEPTH else []
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _read_metadata(path: Path, listed: dict[str, dict[np.datetime64, int]]) -> None:
    """Add the time stamps that a file names, by the name of the low-resolution file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            needed = {"ref_time", "files_path_low", "hour"}
            if lacking := needed - set(rows.fieldnames or ()):
                raise PublishedError(f"{path} lacks the columns {', '.join(sorted(lacking))}.")
            for row in rows:
                name = re.split(r"[/\\]", row["files_path_low"])[-1]
                listed.setdefault(name, {}).update([_listed_hour(row, name)])
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        if isinstance(error, PublishedError):
            raise
        raise PublishedError(
            f"{path} can't be understood: {error}. Remove it, so that days are found by the names of files, "
            "or "
            "get it again."
        ) from error


def _listed_hour(row: Mapping[str, str], name: str) -> tuple[np.datetime64, int]:
    """(time stamp, hour in the file) of a row. Raises ValueError where they don't belong together."""
    stamp, hour = datetime.fromisoformat(row["ref_time"]), float(row["hour"])
    if stamp.tzinfo is not None:
        stamp = stamp.astimezone(UTC).replace(tzinfo=None)
    if (hour, 0, 0, 0) != (stamp.hour, stamp.minute, stamp.second, stamp.microsecond):
        raise ValueError(f"{row['ref_time']} is given as hour {row['hour']}")
    if (match := _LOW.fullmatch(name)) and match[1] != str(stamp.date()):
        raise ValueError(f"{row['ref_time']} is said to be in {name}")
    return np.datetime64(stamp, "ns"), int(hour)


class DayFile(Closing):
    """One file of a day, decompressed into a folder for as long as it is open (a context manager).

    Attributes
    ----------
    hours : whole numbers, ascending

    Raises PublishedError where the file is damaged, larger than MAX_DAY_BYTES or holds something else.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._plain = scratch / path.name.removesuffix(".zst")
        try:
            _decompress(path, self._plain)
            self._archive = TorchArchive(self._plain)
            self._content = self._read_content()
        except ArchiveError as error:
            self.close()
            raise self._damaged(str(error).replace(str(self._plain), path.name)) from error
        except BaseException:
            self.close()
            raise
        self.hours = tuple(sorted(self._content))

    def close(self) -> None:
        """Remove what was decompressed."""
        self._plain.unlink(missing_ok=True)

    def names(self, hour: int) -> tuple[str, ...]:
        """Variables of an hour, by their published names. Raises PublishedError where it has no such hour."""
        return tuple(map(str, self._hour(hour)))

    def shape(self, hour: int, name: str) -> tuple[int, int]:
        """Rows and columns of a field."""
        height, width = self.field(hour, name).shape
        return height, width

    def field(self, hour: int, name: str) -> NDArray[np.float64]:
        """A normalised field (y, x), NaN where undefined. Raises PublishedError where it is not there."""
        fields = self._hour(hour)
        if name not in fields:
            raise PublishedError(
                f"{self.path} has no {name} at hour {hour}; it has "
                f"{', '.join(map(str, fields)) or 'nothing'}."
            )
        try:
            tensor = self._archive.tensor(fields[name], f"{name} at hour {hour}")
        except ArchiveError as error:
            raise self._damaged(str(error).replace(str(self._plain), self.path.name)) from error
        if tensor.ndim != 2 or not tensor.is_floating_point() or not math.prod(tensor.shape):
            raise PublishedError(
                f"{self.path}: {name} at hour {hour} is no field but {tuple(tensor.shape)} {tensor.dtype}."
            )
        values: NDArray[np.float64] = tensor.double().numpy()
        if np.isinf(values).any():
            raise self._damaged(f"{name} at hour {hour} is infinite somewhere.")
        return values

    def _hour(self, hour: int) -> Mapping[Any, Any]:
        if hour not in self._content:
            raise PublishedError(f"{self.path} has no hour {hour}; it has {_listing(self.hours)}.")
        fields: Mapping[Any, Any] = self._content[hour]
        return fields

    def _read_content(self) -> dict[int, Any]:
        content = self._archive.value
        if not isinstance(content, dict) or not all(isinstance(part, dict) for part in content.values()):
            raise PublishedError(f"{self.path} holds no table of hours and variables.")
        try:
            hours = {number(key): fields for key, fields in content.items()}
        except UnpickleError as error:
            raise PublishedError(f"{self.path} has an hour that is no number: {error}.") from error
        if strange := [hour for hour in hours if hour not in range(24)]:
            raise PublishedError(f"{self.path} has the hour {strange[0]:g}; hours are 0 to 23.")
        return {int(hour): fields for hour, fields in hours.items()}

    def _damaged(self, fault: str) -> PublishedError:
        return PublishedError(
            f"{self.path} is damaged: {fault} Get it again: `tramontana fetch ... --verify`."
        )


def hours_of(day: Day, scratch: Path) -> dict[np.datetime64, int]:
    """Time stamps of a day and the hours of its file; the file is read where metadata.csv does not tell."""
    if day.listed is not None:
        return dict(sorted(day.listed.items()))
    with DayFile(day.low, scratch) as file:
        return {day.date.astype("datetime64[ns]") + hour * _HOUR: hour for hour in file.hours}


def _decompress(path: Path, plain: Path) -> None:
    """Write what a file of Zstandard holds; PublishedError where it is damaged or too large."""
    again = "Get it again: `tramontana fetch ... --verify`."
    try:
        with path.open("rb") as packed:
            stated = zstandard.get_frame_parameters(packed.read(18)).content_size
            known = stated not in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR)
            if known and stated > MAX_DAY_BYTES:
                raise _too_large(path)
            packed.seek(0)
            reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(
                packed, read_across_frames=True
            )
            written = 0
            with plain.open("wb") as target:
                while chunk := reader.read(_CHUNK):
                    written += len(chunk)
                    if written > MAX_DAY_BYTES:
                        raise _too_large(path)
                    target.write(chunk)
            # Several frames may follow each other, of which the first one's size is known.
            if known and written < stated:
                raise PublishedError(f"{path} is truncated. {again}")
    except zstandard.ZstdError as error:
        raise PublishedError(
            f"{path} is no file of Zstandard, or it is damaged ({error}). {again}"
        ) from error
    except OSError as error:
        raise PublishedError(f"{path} can't be unpacked: {error.strerror or error}.") from error


def _too_large(path: Path) -> PublishedError:
    return PublishedError(
        f"{path} would take more than {MAX_DAY_BYTES // 2**20} MiB when unpacked, which no day of the "
        "published "
        "data set does."
    )


def _listing(hours: Iterable[int]) -> str:
    return ", ".join(map(str, hours)) or "none"
