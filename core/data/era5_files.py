"""Reading one file as people have it: NetCDF of both generations of the CDS, GRIB, also zipped, and Zarr.

:func:`open_files` turns files into :class:`Series`, one per predictor and file, that give fields in SI units
at time stamps, whatever the file calls them. It understands

* ``time`` or ``valid_time``, one stamp or many, also (time, step) with a two-dimensional ``valid_time`` as
  cfgrib writes it;
* ``expver`` as a dimension (final and preliminary data side by side, merged here) or as a coordinate;
* ``number``, of which one member is read;
* pressure levels under any of their names, in hPa or Pa, of which 850 hPa is taken;
* packed values, the usual names of each variable, and the usual units;
* the surface geopotential, or the orography made from it, as a constant;
* when sums began, where a file says so: GRIB messages by their step range, CF files by the bounds of time;
* where it is asked for, the targets of fine models on rotated grids (:mod:`core.data.fine`).

GRIB is read by :mod:`core.data.grib`, Zarr by :mod:`core.data.zarr_source`.
Nothing in a file is executed, and names inside archives never become paths.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from core.data import grib, zarr_source
from core.data.input_error import InputError
from core.data.rotated import RotatedPole, RotatedPoleError, find_pole
from core.variables import PREDICTORS, TARGETS, VARIABLES

FloatArray = NDArray[np.float64]
Times = NDArray[np.datetime64]

STANDARD_GRAVITY = 9.80665
"""[m s-2], with which ECMWF defines geopotential height."""

LEVEL = 850.0
"""[hPa], the pressure level of the predictors."""

_SLAB_VALUES = 16_000_000
# Most values read at once because a chunk of the file spans them; 128 MB as float64.


Era5Error = InputError
"""A file that can't be used; the message names the file, the fault and the way out."""


# ---------------------------------------------------------------- names and units

_SURFACE_NAMES: dict[str, tuple[str, ...]] = {
    "t2m": ("t2m", "2t", "var_2t", "var167", "2m_temperature", "2_metre_temperature"),
    "msl": ("msl", "var_msl", "var151", "mean_sea_level_pressure"),
    "u10": ("u10", "10u", "var_10u", "var165", "10m_u_component_of_wind", "10_metre_u_wind_component"),
    "v10": ("v10", "10v", "var_10v", "var166", "10m_v_component_of_wind", "10_metre_v_wind_component"),
    "d2m": (
        "d2m",
        "2d",
        "var_2d",
        "var168",
        "2m_dewpoint_temperature",
        "2_metre_dewpoint_temperature",
    ),
    "sst": ("sst", "sstk", "var34", "sea_surface_temperature"),
    "sd": ("sd", "var141", "snow_depth", "snow_depth_water_equivalent"),
    "tp": ("tp", "var228", "total_precipitation"),
    "ssrd": (
        "ssrd",
        "var169",
        "surface_solar_radiation_downwards",
        "surface_short_wave_solar_radiation_downwards",
    ),
}
_LEVEL_NAMES: dict[str, tuple[str, ...]] = {
    "q850": ("q", "var133", "specific_humidity"),
    "t850": ("t", "var130", "temperature"),
    "u850": ("u", "var131", "u_component_of_wind"),
    "v850": ("v", "var132", "v_component_of_wind"),
    "w850": ("w", "var135", "vertical_velocity"),
}
_OROGRAPHY_NAMES = (
    "z",
    "var129",
    "geopotential",
    "geopotential_at_surface",
    "surface_geopotential",
    "orography",
)

_SURFACE = {alias: name for name, aliases in _SURFACE_NAMES.items() for alias in aliases}
_SURFACE |= {name: name for name in _LEVEL_NAMES}  # "t850": the level is in the name
_AT_LEVEL = {alias: name for name, aliases in _LEVEL_NAMES.items() for alias in aliases}

_FINE_NAMES: dict[str, str] = (
    {alias: name for name in TARGETS for alias in _SURFACE_NAMES[name]}
    | {"t_2m": "t2m", "u_10m": "u10", "v_10m": "v10", "tot_prec": "tp", "tas": "t2m"}
    | {"uas": "u10", "vas": "v10"}
)
_FINE_STANDARD_NAMES = {
    "air_temperature": "t2m",
    "eastward_wind": "u10",
    "grid_eastward_wind": "u10",
    "x_wind": "u10",
    "northward_wind": "v10",
    "grid_northward_wind": "v10",
    "y_wind": "v10",
    "precipitation_amount": "tp",
    "lwe_thickness_of_precipitation_amount": "tp",
}
_GRID_WINDS = ("grid_eastward_wind", "grid_northward_wind", "x_wind", "y_wind")
_EARTH_WINDS = ("eastward_wind", "northward_wind")

Spellings = dict[str, tuple[float, float]]


def _spellings(factor: float, offset: float, *names: str) -> Spellings:
    return dict.fromkeys(names, (factor, offset))


# Spelt without stars, carets and spaces; value in table units = file value * factor + offset.
_UNITS: dict[str, Spellings] = {
    "K": _spellings(1, 0, "k", "kelvin")
    | _spellings(1, 273.15, "c", "degc", "°c", "celsius", "degreescelsius", "degreecelsius"),
    "Pa": _spellings(1, 0, "pa") | _spellings(100, 0, "hpa", "mbar", "mb", "millibar", "millibars"),
    "m s-1": _spellings(1, 0, "ms-1", "m/s"),
    "m": _spellings(1, 0, "m", "metre", "metres", "mofwaterequivalent", "mwaterequivalent")
    | _spellings(1e-3, 0, "mm", "kgm-2", "kg/m2", "millimetre", "millimetres"),
    "kg kg-1": _spellings(1, 0, "kgkg-1", "kg/kg", "1") | _spellings(1e-3, 0, "gkg-1", "g/kg"),
    "J m-2": _spellings(1, 0, "jm-2", "j/m2")
    | _spellings(1e3, 0, "kjm-2", "kj/m2")
    | _spellings(1e6, 0, "mjm-2", "mj/m2"),
    "Pa s-1": _spellings(1, 0, "pas-1", "pa/s"),
    "m2 s-2": _spellings(1 / STANDARD_GRAVITY, 0, "m2s-2", "m2/s2", "jkg-1")
    | _spellings(1, 0, "m", "gpm", "metre", "metres"),
}
_NOT_NEGATIVE = ("sd", "tp", "ssrd")


def _plain(text: object) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(text).lower()).strip("_")


def _conversion(label: str, name: str, array: xr.DataArray, units: str) -> tuple[float, float]:
    """(factor, offset) to ``units`` from those that the file states; none stated are taken for right."""
    stated = str(array.attrs.get("units", "")).strip()
    spelt = re.sub(r"[\s*^]+", "", stated).lower()
    if not spelt:
        return next(iter(_UNITS[units].values()))
    if spelt not in _UNITS[units]:
        raise Era5Error(
            f"{label}: {name} is in {stated!r}, which is not a unit that it can have; convert it to {units}."
        )
    return _UNITS[units][spelt]


# ---------------------------------------------------------------- one predictor in one file


@dataclass(frozen=True)
class _Axes:
    """Names of the dimensions of a variable; None where it has no such dimension.

    ``best_first`` are the positions along ``version`` (expver), final data before preliminary.
    """

    latitude: str
    longitude: str
    time: str | None = None
    step: str | None = None
    version: str | None = None
    best_first: tuple[int, ...] = ()

    @property
    def horizontal(self) -> tuple[str, str]:
        return self.latitude, self.longitude

    @property
    def order(self) -> tuple[str, ...]:
        leading = (self.time, self.step, self.version)
        return (*(axis for axis in leading if axis is not None), *self.horizontal)

    def steps(self, array: xr.DataArray) -> int:
        return 1 if self.step is None else int(array.sizes[self.step])


@dataclass(frozen=True, eq=False)
class _Slab:
    """Values of the time positions start:stop in a window."""

    start: int
    stop: int
    rows: slice
    columns: tuple[slice, ...]
    values: FloatArray

    def holds(self, first: int, stop: int, rows: slice, columns: tuple[slice, ...]) -> bool:
        return (self.rows, self.columns) == (rows, columns) and self.start <= first and stop <= self.stop


@dataclass(eq=False)
class Series:
    """One predictor (or the orography) in one file.

    Attributes
    ----------
    predictor : short name of :mod:`core.variables`, or ``"orography"``
    label : the file, as messages name it
    name : what the file calls the variable
    times : time stamps (UTC) in the order of the file, datetime64[ns], shape (n,); NaT where a slot of a
        (time, step) table is empty; one NaT for the orography
    longitude, latitude : [degree] as in the file, of a rotated grid where there is a ``pole``
    since_midnight : whether the file says that it accumulates since 00 UTC, as ERA5-Land does
    starts : when sums began, as the file says, datetime64[ns], shape (n,); None where it doesn't
    reference : start of the forecast that a field belongs to, likewise
    pole : of a rotated grid
    grid_winds : whether the file says that winds are relative to the grid, None where it doesn't say
    of_member : whether the file says which ensemble member it is of
    """

    predictor: str
    label: str
    name: str
    times: Times
    longitude: FloatArray
    latitude: FloatArray
    since_midnight: bool
    _array: xr.DataArray = field(repr=False)
    _axes: _Axes = field(repr=False)
    _factor: float = field(repr=False)
    _offset: float = field(repr=False)
    starts: Times | None = field(default=None, repr=False)
    reference: Times | None = field(default=None, repr=False)
    pole: RotatedPole | None = None
    grid_winds: bool | None = None
    of_member: bool = False
    _remote: bool = field(default=False, repr=False)
    _slab: _Slab | None = field(default=None, repr=False)

    @property
    def area(self) -> tuple[float, float, float, float]:
        """(west, east, south, north) [degree], of the rotated grid where there is a ``pole``."""
        lon, lat = self.longitude, self.latitude
        return float(lon.min()), float(lon.max()), float(lat.min()), float(lat.max())

    def read(self, positions: NDArray[np.intp], rows: slice, columns: tuple[slice, ...]) -> FloatArray:
        """Fields at ``positions`` of ``times`` in SI units, shape (n, rows, columns); NaN where missing.

        What a compressed chunk of the file holds beyond ``positions`` is kept for the next call, so read
        forward in time.

        Raises Era5Error where the file can't be read or holds impossible values.
        """
        outer, step = np.divmod(positions, self._axes.steps(self._array))
        first, stop = int(outer.min()), int(outer.max()) + 1
        slab = self._slab
        if slab is None or not slab.holds(first, stop, rows, columns):
            end = self._slab_end(first, stop, rows, columns)
            slab = _Slab(first, end, rows, columns, self._load(slice(first, end), rows, columns))
        self._slab = slab if slab.stop > stop else None
        fields: FloatArray = slab.values[outer - slab.start, step]
        return fields

    def read_constant(self, rows: slice, columns: tuple[slice, ...]) -> FloatArray:
        """The first field, shape (rows, columns)."""
        constant: FloatArray = self._load(slice(0, 1), rows, columns)[0, 0]
        return constant

    def _slab_end(self, first: int, stop: int, rows: slice, columns: tuple[slice, ...]) -> int:
        """Where to stop reading, so that compressed chunks that span many hours are read once."""
        if self._axes.time is None:
            return stop
        chunk = int(self._array.encoding.get("preferred_chunks", {}).get(self._axes.time, 1))
        horizontal = (rows.stop - rows.start) * sum(part.stop - part.start for part in columns)
        others = [axis for axis in (self._axes.step, self._axes.version) if axis is not None]
        per_time = horizontal * math.prod(self._array.sizes[axis] for axis in others)
        aligned = min(-(-stop // chunk) * chunk, self._array.sizes[self._axes.time])
        end: int = max(stop, min(aligned, first + _SLAB_VALUES // max(per_time, 1)))
        return end

    def _load(self, times: slice, rows: slice, columns: tuple[slice, ...]) -> FloatArray:
        """Fields (time, step, rows, columns) in SI units."""
        axes = self._axes
        window: dict[Any, slice] = {axes.latitude: rows}
        if axes.time is not None:
            window[axes.time] = times
        try:
            parts = [
                # Transposed after loading: a transposed lazy array is read point by point.
                np.asarray(
                    self._fetch(self._array.isel({**window, axes.longitude: part}))
                    .transpose(*axes.order)
                    .values,
                    np.float64,
                )
                for part in columns
            ]
        except Era5Error:
            raise
        except Exception as error:
            # The readers raise many kinds of exception on damaged files.
            raise Era5Error(_unreadable(self.label, error)) from error
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        if axes.version is not None:
            merged = values[..., axes.best_first[0], :, :]
            for version in axes.best_first[1:]:
                merged = np.where(np.isnan(merged), values[..., version, :, :], merged)
            values = merged
        if axes.time is None:
            values = values[np.newaxis]
        if axes.step is None:
            values = values[:, np.newaxis]
        values = values * self._factor + self._offset
        self._check(values)
        if self.predictor in _NOT_NEGATIVE:
            # Packing leaves values just below zero.
            np.maximum(values, 0, out=values)
        return values

    def _fetch(self, part: xr.DataArray) -> xr.DataArray:
        return zarr_source.load(self.label, part) if self._remote else part.load()

    def _check(self, values: FloatArray) -> None:
        variable = VARIABLES[self.predictor]
        low, high = variable.valid_range
        self.check_range(values, low, high * self._longest_sum if variable.accumulated else high)

    @property
    def _longest_sum(self) -> float:
        """Hours that a value may have been summed over, at least those since midnight."""
        since = self.reference if self.starts is None else self.starts
        if since is None or (spans := self.times - since)[~np.isnat(spans)].size == 0:
            return 24.0
        return max(24.0, float(np.nanmax(spans / np.timedelta64(1, "h"))))

    def check_range(self, values: NDArray[Any], low: float, high: float) -> None:
        """Raise Era5Error unless all values, NaN aside, lie between ``low`` and ``high``."""
        given = values[~np.isnan(values)]
        if given.size == 0 or (given.min() >= low and given.max() <= high):
            return
        guess = (
            "the file is corrupt or states a wrong unit"
            if self._array.attrs.get("units")
            else "the file states no unit and may use another, or it is corrupt"
        )
        units = VARIABLES[self.predictor].units
        raise Era5Error(
            f"{self.label}: {self.name} ranges from {given.min():g} to {given.max():g} {units}, "
            f"but possible values are {low:g} to {high:g}; {guess}."
        )


@dataclass(frozen=True, eq=False)
class FileContent:
    """What one NetCDF file (or member of an archive) holds.

    ``ignored`` names variables that are not used; ``notes`` are sentences worth knowing; ``centre`` is the
    weather service that made a GRIB file.
    """

    label: str
    series: tuple[Series, ...]
    orography: Series | None
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    centre: str | None = None


# ---------------------------------------------------------------- opening


@dataclass(frozen=True)
class Options:
    """How files are to be understood.

    Attributes
    ----------
    assume_850 : q, t, u, v, w without a pressure level are those of 850 hPa
    number : which ensemble member to read
    start, end : hours wanted, both included; of a Zarr store no other is looked at
    anonymous : read cloud storage without credentials
    fine : look for targets, also on rotated grids, instead of predictors
    """

    assume_850: bool = False
    number: int | None = None
    start: np.datetime64 | None = None
    end: np.datetime64 | None = None
    anonymous: bool = False
    fine: bool = False


_DEFAULTS = Options()


@dataclass(frozen=True, eq=False)
class _Opened:
    """A dataset of a file; ``starts`` as :func:`core.data.grib.open_grib` gives them."""

    label: str
    dataset: xr.Dataset
    starts: Mapping[str, Times] = field(default_factory=dict)
    remote: bool = False


@contextmanager
def open_files(
    files: Sequence[str | Path], options: Options = _DEFAULTS, *, assume_850: bool = False
) -> Iterator[list[FileContent]]:
    """Open files for the duration of a ``with`` block; archives are unpacked to a temporary folder.

    ``files`` are NetCDF or GRIB files, zip archives of them, and folders or addresses of Zarr stores.

    Raises Era5Error for a file that is missing, damaged, of another kind, or without anything usable.
    """
    if assume_850:
        options = replace(options, assume_850=True)
    with ExitStack() as stack:
        opened = _open_all(files, options, stack)
        held = _members(opened)
        if options.number is None and len(held) > 1:
            raise Era5Error(
                f"{opened[0].label} has {len(held)} ensemble members (number {_listed(held)}); "
                "pick one member, or read each into a store of its own."
            )
        if options.number is not None and options.number not in held:
            raise Era5Error(
                f"There is no ensemble member {options.number}; "
                + (f"the files hold number {_listed(held)}." if held else "the files hold no members.")
            )
        contents = [
            _content(label, [one for one in opened if one.label == label], options)
            for label in dict.fromkeys(one.label for one in opened)
        ]
        yield contents if options.number is None else _members_first(contents)


def members(files: Sequence[str | Path], options: Options = _DEFAULTS) -> tuple[int, ...]:
    """The ensemble members (coordinate ``number``) that files hold, ascending; none for plain files."""
    with ExitStack() as stack:
        return _members(_open_all(files, options, stack))


def _members_first(contents: Sequence[FileContent]) -> list[FileContent]:
    """Without fields of no member, such as those of a single forecast, that the ensemble has itself."""
    held = {series.predictor for content in contents for series in content.series if series.of_member}
    return [
        replace(
            content,
            series=tuple(one for one in content.series if one.of_member or one.predictor not in held),
        )
        for content in contents
    ]


def _open_all(files: Sequence[str | Path], options: Options, stack: ExitStack) -> list[_Opened]:
    if not files:
        raise Era5Error("No files were given.")
    opened: list[_Opened] = []
    for given in files:
        if zarr_source.is_zarr(given):
            store = stack.enter_context(
                zarr_source.open_zarr(given, options.start, options.end, anonymous=options.anonymous)
            )
            opened.append(_Opened(zarr_source.name_of(given), store, remote=True))
            continue
        for label, path in _unpack(Path(given), stack):
            with path.open("rb") as file:
                start = file.read(4)
            if start == b"GRIB":
                found = stack.enter_context(grib.open_grib(label, path))
                opened += [_Opened(label, one.dataset, one.starts) for one in found]
            else:
                opened.append(_Opened(label, stack.enter_context(_open_dataset(label, path))))
    return opened


def _members(opened: Iterable[_Opened]) -> tuple[int, ...]:
    numbers: set[int] = set()
    for one in opened:
        if "number" in one.dataset.variables and one.dataset["number"].dtype.kind in "iuf":
            numbers |= {int(number) for number in np.atleast_1d(one.dataset["number"].values)}
    return tuple(sorted(numbers))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:4])) + (f" to {numbers[-1]}" if len(numbers) > 4 else "")


def _one_member(one: _Opened, number: int | None) -> tuple[xr.Dataset, bool]:
    """(the dataset of one member, whether it is another member's)."""
    dataset = one.dataset
    if number is None or "number" not in dataset.variables:
        return dataset, False
    numbers = np.atleast_1d(dataset["number"].values)
    found = np.flatnonzero(numbers == number)
    if "number" not in dataset.dims or found.size == 0:
        return dataset, found.size == 0
    return dataset.isel(number=int(found[0])), False


def _content(label: str, opened: Sequence[_Opened], options: Options) -> FileContent:
    """What one file holds, whose datasets are ``opened``. Raises Era5Error where nothing is of use."""
    found = []
    for one in opened:
        dataset, foreign = _one_member(one, options.number)
        if foreign and "number" in dataset.dims:
            continue
        understood = _understand(replace(one, dataset=dataset), options)
        # Another member's fields aren't wanted, but the height of the surface is the same for all.
        found.append(replace(understood, series=()) if foreign else understood)
    series = tuple(series for content in found for series in content.series)
    orography = next((content.orography for content in found if content.orography is not None), None)
    ignored = tuple(dict.fromkeys(name for content in found for name in content.ignored))
    notes = tuple(dict.fromkeys(note for content in found for note in content.notes))
    if not series and orography is None:
        wanted = TARGETS if options.fine else PREDICTORS
        held = ", ".join(ignored[:8]) or "no gridded variable"
        reasons = " ".join(note.removeprefix(f"{label}: ") for note in notes)
        if options.number is not None and not ignored:
            held = f"nothing of the ensemble member {options.number}"
        raise Era5Error(
            f"{label} holds none of {', '.join(wanted)}; it has {held}{': ' if reasons else '.'}{reasons}"
        )
    centre = next((content.centre for content in found if content.centre), None)
    return FileContent(label, series, orography, ignored, notes, centre)


_ENDINGS = (".nc", ".nc4", ".netcdf", ".cdf", ".grib", ".grb", ".grib1", ".grib2", ".grb1", ".grb2")


def _unreadable(label: str, error: Exception) -> str:
    detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{label} can't be read, it is damaged or incomplete ({detail[:160]}); download it again."


def _unpack(path: Path, stack: ExitStack) -> list[tuple[str, Path]]:
    """(label, path) of the NetCDF files that ``path`` is or contains."""
    if not path.is_file():
        if path.is_dir() and path.suffix == ".zarr":
            raise Era5Error(f"{path} is no Zarr store (it has neither zarr.json nor .zgroup or .zmetadata).")
        raise Era5Error(
            f"{path} is a folder; name the files in it." if path.is_dir() else f"There is no file {path}."
        )
    try:
        with path.open("rb") as opened:
            start = opened.read(64)
    except OSError as error:
        raise Era5Error(f"{path} can't be read: {error.strerror or error}.") from error
    if start[:4] != b"PK\x03\x04":
        _check_kind(str(path), start)
        return [(str(path), path)]
    try:
        with zipfile.ZipFile(path) as archive:
            return _extract(path, archive, stack)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, OSError, ValueError) as error:
        if isinstance(error, Era5Error):
            raise
        raise Era5Error(_unreadable(str(path), error)) from error


def _extract(path: Path, archive: zipfile.ZipFile, stack: ExitStack) -> list[tuple[str, Path]]:
    members = [
        member for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename
    ]
    wanted = [m for m in members if m.filename.lower().endswith(_ENDINGS)]
    if not wanted:
        names = ", ".join(member.filename for member in members[:4]) or "nothing"
        raise Era5Error(f"{path} is an archive without NetCDF or GRIB files (it holds {names}).")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tramontana-era5-")))
    needed, free = sum(member.file_size for member in wanted), shutil.disk_usage(folder).free
    if needed > free:
        raise Era5Error(
            f"{path} needs {needed / 1e9:.1f} GB unpacked, but {folder.parent} has {free / 1e9:.1f} GB free; "
            "unpack it elsewhere and name the files in it, or set TMPDIR to a larger disk."
        )
    unpacked = []
    for number, member in enumerate(wanted):
        label = f"{path} ({member.filename})"
        # Numbered, because a name from an archive could point anywhere.
        target = folder / f"{number}.nc"
        with archive.open(member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        with target.open("rb") as opened:
            _check_kind(label, opened.read(64))
        unpacked.append((label, target))
    return unpacked


def _check_kind(label: str, start: bytes) -> None:
    if start.startswith((b"CDF\x01", b"CDF\x02", b"CDF\x05", b"\x89HDF\r\n\x1a\n", b"GRIB")):
        return
    text = start.lstrip().lower()
    if not start:
        fault = "is empty; download it again"
    elif text.startswith((b"<", b"{")):
        fault = "is a web page or an error message saved under this name; download it again"
    elif start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        fault = "is compressed; unpack it first"
    else:
        fault = "is not a NetCDF or GRIB file"
    raise Era5Error(f"{label} {fault}.")


@contextmanager
def _open_dataset(label: str, path: Path) -> Iterator[xr.Dataset]:
    with path.open("rb") as opened:
        start = opened.read(4)
    # The NetCDF library reads the missing end of a truncated classic file as zeros; scipy refuses.
    engine = {b"CDF\x01": "scipy", b"CDF\x02": "scipy", b"CDF\x05": "netcdf4"}.get(start, "h5netcdf")
    try:
        dataset = xr.open_dataset(path, engine=engine, cache=False, decode_timedelta=False)
        if start == b"CDF\x05":
            _check_length(label, path, dataset)
    except Era5Error:
        raise
    except Exception as error:
        raise Era5Error(_unreadable(label, error)) from error
    try:
        yield dataset
    finally:
        with warnings.catch_warnings():
            # scipy warns where a caller still holds an array of the file.
            warnings.simplefilter("ignore", RuntimeWarning)
            dataset.close()


def _check_length(label: str, path: Path, dataset: xr.Dataset) -> None:
    """Refuse a file shorter than the values that its header announces."""
    announced = sum(
        variable.size * np.dtype(variable.encoding.get("dtype", variable.dtype)).itemsize
        for variable in dataset.variables.values()
    )
    if announced > path.stat().st_size:
        raise Era5Error(f"{label} is incomplete (its end is missing); download it again.")


# ---------------------------------------------------------------- understanding

_LATITUDE_NAMES = ("latitude", "lat")
_LONGITUDE_NAMES = ("longitude", "lon", "long")
_LEVEL_AXES = ("pressure_level", "level", "isobaricinhpa", "isobaricinpa", "plev", "pressure", "lev")
_TIME_NAMES = ("valid_time", "time")
_NOT_FIELDS = ("expver", "number", "time", "valid_time", "step", "time_bnds", "crs", "spatial_ref")


def _understand(one: _Opened, options: Options) -> FileContent:
    label, dataset, assume_850 = one.label, one.dataset, options.assume_850
    identify = _identify_fine if options.fine else _identify
    series: dict[str, Series] = {}
    heights: list[tuple[str, xr.DataArray]] = []
    ignored: list[str] = []
    notes: list[str] = []
    unlabelled: list[str] = []
    names = [str(name) for name in dataset.data_vars]
    if options.fine:
        # Those known by name before those that share a standard name, such as the mean of a day.
        names.sort(key=lambda name: _plain(name) not in _FINE_NAMES)
    for name in names:
        array = dataset[name]
        if name in _NOT_FIELDS or array.ndim < 2 or array.dtype.kind not in "fiu":
            continue
        predictor, at_level = identify(name, array)
        levels = _Levels.of(array)
        if predictor is None or (predictor == "orography" and levels is not None):
            ignored.append(name)
            continue
        if predictor == "orography":
            heights.append((name, array))
            continue
        if at_level and levels is None and not assume_850:
            unlabelled.append(name)
            continue
        if at_level and levels is not None:
            position = levels.position(LEVEL)
            if position is None:
                notes.append(f"{label}: {name} is on {levels}, not on {LEVEL:g} hPa; it is not used.")
                ignored.append(name)
                continue
            if levels.name in array.dims:
                array = array.isel({levels.name: position})
        if predictor in series:
            notes.append(f"{label}: {name} is {predictor} once more; {series[predictor].name} is used.")
            ignored.append(name)
            continue
        series[predictor] = _series(one, name, predictor, array, options)

    orography = None
    for name, array in heights:
        # Beside fields on an unnamed pressure level, z is the height of that level.
        found = None if unlabelled or assume_850 else _orography(one, name, array, options)
        if found is None:
            notes.append(f"{label}: {name} is not the surface geopotential; it is not used.")
            ignored.append(name)
        orography = orography or found
    if unlabelled:
        ignored += unlabelled
        notes.append(
            f"{label}: {', '.join(unlabelled)} {'has' if len(unlabelled) == 1 else 'have'} no pressure level "
            f"(the old Climate Data Store leaves it out where one level is asked for) and can't be used; "
            f"if it is {LEVEL:g} hPa, say so with assume_850."
        )
    if _has_preliminary(dataset):
        notes.append(f"{label} contains preliminary data (ERA5T, expver 5), which may still be revised.")
    centre = dataset.attrs.get("GRIB_centreDescription")
    return FileContent(
        label,
        tuple(series.values()),
        orography,
        tuple(ignored),
        tuple(notes),
        str(centre) if centre else None,
    )


def _identify(name: str, array: xr.DataArray) -> tuple[str | None, bool]:
    """(predictor or "orography", whether it needs a pressure level), (None, False) for anything else."""
    for text in (name, array.attrs.get("long_name", "")):
        plain = _plain(text)
        if plain in _SURFACE:
            return _SURFACE[plain], False
        if plain in _AT_LEVEL:
            return _AT_LEVEL[plain], True
        if plain in _OROGRAPHY_NAMES:
            return "orography", False
    return None, False


def _identify_fine(name: str, array: xr.DataArray) -> tuple[str | None, bool]:
    """As :func:`_identify`, for targets: by name, and by standard name where it is one of near the ground."""
    found = _FINE_NAMES.get(_plain(name))
    extreme = re.search("maximum|minimum", str(array.attrs.get("cell_methods", "")))
    if found is None and not extreme and _near_ground(array):
        found = _FINE_STANDARD_NAMES.get(str(array.attrs.get("standard_name", "")))
    return found, False


def _near_ground(array: xr.DataArray) -> bool:
    """Whether a field is not one of the free atmosphere, as far as its coordinates say."""
    heights = [c for c in array.coords.values() if c.attrs.get("standard_name") == "height" and c.size == 1]
    return _Levels.of(array) is None and all(float(c.values.item()) <= 10 for c in heights)


@dataclass(frozen=True)
class _Levels:
    """Pressure levels [hPa] of a variable; ``name`` is their coordinate."""

    name: str
    values: tuple[float, ...]

    def __str__(self) -> str:
        more = ", ..." if len(self.values) > 8 else ""
        return ", ".join(f"{value:g}" for value in self.values[:8]) + more + " hPa"

    def position(self, level: float) -> int | None:
        near = [index for index, value in enumerate(self.values) if abs(value - level) < 0.5]
        return near[0] if near else None

    @classmethod
    def of(cls, array: xr.DataArray) -> _Levels | None:
        for name, coordinate in array.coords.items():
            if _plain(name) in _LEVEL_AXES and coordinate.ndim <= 1 and coordinate.dtype.kind in "fiu":
                values = np.atleast_1d(np.asarray(coordinate.values, np.float64))
                units = str(coordinate.attrs.get("units", "")).lower()
                if units == "pa" or (units not in ("hpa", "mbar", "mb", "millibars") and values.max() > 2000):
                    values = values / 100
                return cls(str(name), tuple(values.tolist()))
        return None


def _series(
    one: _Opened, name: str, predictor: str, array: xr.DataArray, options: Options, *, constant: bool = False
) -> Series:
    label, dataset = one.label, one.dataset
    variable = VARIABLES[predictor]
    step_type = str(array.attrs.get("GRIB_stepType", ""))
    if step_type.startswith("avg"):
        raise Era5Error(
            f"{label}: {name} holds averages over many hours (GRIB_stepType {step_type}); "
            "ask for hourly data."
        )
    place = _place(label, name, array, dataset, options.fine)
    latitude, longitude = place.latitude_axis, place.longitude_axis
    version: str | None = None
    best_first: tuple[int, ...] = ()
    for dim in map(str, array.dims):
        if dim == "number" and array.sizes[dim] > 1:
            raise Era5Error(
                f"{label}: {name} has {array.sizes[dim]} ensemble members (dimension number); "
                "pick one member first."
            )
        if dim == "expver" and array.sizes[dim] > 1:
            version, best_first = dim, _best_first(dataset, array)
    if constant:
        time, step, times = None, None, np.array(["NaT"], "datetime64[ns]")
        starts = reference = None
    else:
        time, step, times = _times(label, name, array, dataset)
        starts, reference = one.starts.get(name), _reference(array, dataset, time, step)
        if starts is not None:
            # GRIB messages that aren't there leave gaps in the table of forecasts and steps.
            times = np.where(np.isnat(starts), np.datetime64("NaT"), times)
        elif variable.accumulated and (bounds := _bounds(array, dataset, time, step)) is not None:
            starts, times = bounds
    kept = (latitude, longitude, version, time, step)
    if constant:
        array = array.isel({dim: 0 for dim in array.dims if dim not in kept})
    array = array.squeeze([dim for dim in array.dims if dim not in kept and array.sizes[dim] == 1])
    strange = [str(dim) for dim in array.dims if dim not in kept]
    if strange:
        raise Era5Error(
            f"{label}: {name} has the dimension {strange[0]} of size {array.sizes[strange[0]]}, which is not "
            "understood; pick one position along it first."
        )
    units = "m2 s-2" if predictor == "orography" else variable.units
    factor, offset = _conversion(label, name, array, units)
    attributes = " ".join(str(value) for value in (*dataset.attrs.values(), *array.attrs.values()))
    series = Series(
        predictor=predictor,
        label=label,
        name=name,
        times=times,
        longitude=place.longitude,
        latitude=place.latitude,
        since_midnight=variable.accumulated and bool(re.search(r"era5[-_ ]?land", attributes, re.IGNORECASE)),
        _array=array,
        _axes=_Axes(latitude, longitude, time, step, version, best_first),
        _factor=factor,
        _offset=offset,
        starts=starts if variable.accumulated else None,
        reference=reference,
        pole=place.pole,
        grid_winds=_grid_winds(array),
        of_member="number" in dataset.variables,
        _remote=one.remote,
    )
    if step is not None and name not in one.starts:
        series.times = _without_empty_slots(series)
    return series


def _without_empty_slots(series: Series) -> Times:
    """Time stamps with NaT where a (time, step) table is filled up with NaN."""
    everywhere = slice(0, series.latitude.size), (slice(0, series.longitude.size),)
    times = series.times.copy()
    steps = series._axes.steps(series._array)
    for start in range(0, times.size, steps):
        fields = series.read(np.arange(start, start + steps), *everywhere)
        times[start : start + steps][np.isnan(fields).all(axis=(-2, -1))] = np.datetime64("NaT")
    return times


def _orography(one: _Opened, name: str, array: xr.DataArray, options: Options) -> Series | None:
    """The constant field z, or None where it is the geopotential of something else than the surface."""
    if array.attrs.get("GRIB_typeOfLevel", "surface") != "surface":
        return None
    for dim in _TIME_NAMES:
        if array.sizes.get(dim, 1) > 1:
            try:
                first, last = (np.asarray(array.isel({dim: at}).values, np.float64) for at in (0, -1))
            except Exception as error:
                raise Era5Error(_unreadable(one.label, error)) from error
            # 10 m2 s-2 is a metre; packing differs by less.
            if not np.nanmax(np.abs(first - last)) < 10:
                return None
    return _series(one, name, "orography", array, options, constant=True)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where the points of a variable lie: dimensions, coordinates along them [degree], pole if rotated."""

    latitude_axis: str
    longitude_axis: str
    latitude: FloatArray
    longitude: FloatArray
    pole: RotatedPole | None = None


def _place(label: str, name: str, array: xr.DataArray, dataset: xr.Dataset, rotated: bool) -> _Place:
    kind = str(array.attrs.get("GRIB_gridType", ""))
    if kind.startswith("reduced") or kind == "sh":
        raise Era5Error(
            f"{label}: {name} is on a grid of the type {kind}, which is not a regular longitude/latitude "
            "grid; ask for one, or convert it, for example with cdo."
        )
    if rotated and (found := _rotated_place(label, name, array, dataset)) is not None:
        return found
    axes = []
    for names, units in ((_LATITUDE_NAMES, "degrees_north"), (_LONGITUDE_NAMES, "degrees_east")):
        candidates = _coordinates(array, names, units)
        if any(coordinate.ndim == 2 for coordinate in candidates):
            raise Era5Error(
                f"{label}: {name} is not on a regular longitude/latitude grid (its coordinates are "
                "two-dimensional); regrid it first, for example with cdo remapbil."
            )
        found_axes = [str(c.dims[0]) for c in candidates if c.ndim == 1 and c.name == c.dims[0]]
        if not found_axes:
            raise Era5Error(f"{label}: {name} has no {names[0]} coordinate, so its place is unknown.")
        axes.append(found_axes[0])
    latitude, longitude = (np.asarray(array[axis].values, np.float64) for axis in axes)
    return _Place(axes[0], axes[1], latitude, longitude)


def _coordinates(array: xr.DataArray, names: Sequence[str], units: str) -> list[xr.DataArray]:
    return [
        coordinate
        for key, coordinate in array.coords.items()
        if _plain(key) in names or coordinate.attrs.get("units") == units
    ]


def _rotated_place(label: str, name: str, array: xr.DataArray, dataset: xr.Dataset) -> _Place | None:
    """The place on a rotated grid, from its grid mapping or from two-dimensional coordinates."""
    pairs = [
        next((c for c in _coordinates(array, names, units) if c.ndim == 2), None)
        for names, units in ((_LATITUDE_NAMES, "degrees_north"), (_LONGITUDE_NAMES, "degrees_east"))
    ]
    latitude, longitude = pairs
    plane = latitude is not None and longitude is not None and latitude.dims == longitude.dims
    try:
        found = _mapped_place(array, dataset)
        if found is None:
            if not plane or latitude is None or longitude is None:
                return None
            pole, columns, rows = find_pole(longitude.values, latitude.values)
            return _Place(str(latitude.dims[0]), str(latitude.dims[1]), rows, columns, pole)
    except RotatedPoleError as error:
        raise Era5Error(f"{label}: {name} can't be placed, {error}.") from error
    if plane and latitude is not None and longitude is not None and found.pole is not None:
        order = found.latitude_axis, found.longitude_axis
        turned = found.pole.rotate(
            *(c.transpose(*order).values[::-1, ::-1][[0, -1]][:, [0, -1]] for c in (longitude, latitude))
        )
        stated = np.meshgrid(found.longitude[[-1, 0]], found.latitude[[-1, 0]])
        apart = max(
            float(np.abs((turned[0] - stated[0] + 180) % 360 - 180).max()),
            float(np.abs(turned[1] - stated[1]).max()),
        )
        if apart > 0.5 * abs(found.latitude[1] - found.latitude[0]):
            raise Era5Error(
                f"{label}: the grid mapping of {name} and its two-dimensional coordinates disagree by up to "
                f"{apart:.3g} degrees; one of them is wrong."
            )
    return found


def _mapped_place(array: xr.DataArray, dataset: xr.Dataset) -> _Place | None:
    """The place as a CF grid mapping says it, None where there is none."""
    named = array.attrs.get("grid_mapping") or array.encoding.get("grid_mapping")
    mappings = [
        str(key)
        for key, variable in dataset.variables.items()
        if variable.attrs.get("grid_mapping_name") == "rotated_latitude_longitude"
    ]
    if not mappings:
        return None
    mapping = named if named in mappings else mappings[0]
    axes = []
    for standard_name, plain in (("grid_latitude", "rlat"), ("grid_longitude", "rlon")):
        axis = next(
            (
                dim
                for dim in array.dims
                if dim in array.coords
                and (array.coords[dim].attrs.get("standard_name") == standard_name or _plain(dim) == plain)
            ),
            None,
        )
        if axis is None:
            return None
        axes.append(str(axis))
    rows, columns = (np.asarray(array[axis].values, np.float64) for axis in axes)
    return _Place(axes[0], axes[1], rows, columns, RotatedPole.from_cf(dataset[mapping].attrs))


def _grid_winds(array: xr.DataArray) -> bool | None:
    """Whether winds are relative to the grid, as GRIB or the standard name says."""
    if "GRIB_uvRelativeToGrid" in array.attrs:
        return bool(array.attrs["GRIB_uvRelativeToGrid"])
    name = array.attrs.get("standard_name")
    return True if name in _GRID_WINDS else False if name in _EARTH_WINDS else None


def _best_first(dataset: xr.Dataset, array: xr.DataArray) -> tuple[int, ...]:
    """Positions along expver with 1 (final) before 5 (preliminary)."""
    if "expver" not in dataset.variables:
        return tuple(range(array.sizes["expver"]))
    order = np.argsort(np.asarray(dataset["expver"].values).astype(str), kind="stable")
    return tuple(int(position) for position in order)


def _has_preliminary(dataset: xr.Dataset) -> bool:
    if "expver" not in dataset.variables:
        return False
    return bool(np.isin(np.asarray(dataset["expver"].values).astype(str), ("5", "0005")).any())


def _times(
    label: str, name: str, array: xr.DataArray, dataset: xr.Dataset
) -> tuple[str | None, str | None, Times]:
    """(time dimension, step dimension, stamps in the order of the file)."""
    candidates = (dataset.variables.get(key) for key in _TIME_NAMES)
    best = next((c for c in candidates if c is not None and set(c.dims) <= set(array.dims)), None)
    if best is None or best.ndim > 2:
        raise Era5Error(f"{label}: {name} has no time stamps (neither time nor valid_time).")
    if best.dtype.kind != "M":
        raise Era5Error(
            f"{label}: its time stamps can't be read as dates of the common calendar "
            f"(units {best.attrs.get('units', best.encoding.get('units', 'missing'))!r}, calendar "
            f"{best.attrs.get('calendar', best.encoding.get('calendar', 'missing'))!r})."
        )
    values = np.asarray(best.values, "datetime64[ns]").ravel()
    if np.isnat(values).any():
        raise Era5Error(f"{label}: some of its time stamps are missing.")
    rounded = _whole_minutes(values)
    dims = [str(dim) for dim in best.dims]
    if len(dims) == 2 and dims != sorted(dims, key=lambda dim: dim == "step"):
        raise Era5Error(f"{label}: {best.dims} is an order of forecast times that is not understood.")
    return (dims[0] if dims else None), (dims[1] if len(dims) == 2 else None), rounded


def _whole_minutes(values: NDArray[Any]) -> Times:
    # Stamps stored as floating-point days are off by some seconds.
    half_minute = np.timedelta64(30, "s")
    rounded: Times = (values + half_minute).astype("datetime64[m]").astype("datetime64[ns]")
    return rounded


def _reference(array: xr.DataArray, dataset: xr.Dataset, time: str | None, step: str | None) -> Times | None:
    """Start of the forecast of each time stamp, None where the file doesn't say."""
    stamped = next((key for key in _TIME_NAMES if key in dataset.variables), None)
    candidates = ["forecast_reference_time", *(["time"] if stamped == "valid_time" else [])]
    found = next((dataset[key] for key in candidates if key in dataset.variables), None)
    if found is None or found.dtype.kind != "M" or not set(found.dims) <= {time, step}:
        return None
    shape = {axis: array.sizes[axis] for axis in (time, step) if axis is not None}
    whole = found.broadcast_like(xr.DataArray(np.zeros(tuple(shape.values())), dims=tuple(shape)))
    return _whole_minutes(np.asarray(whole.transpose(*shape).values, "datetime64[ns]").ravel())


def _bounds(
    array: xr.DataArray, dataset: xr.Dataset, time: str | None, step: str | None
) -> tuple[Times, Times] | None:
    """(starts, ends) of the intervals of sums, where the file gives bounds of time (CF-1.11, section 7)."""
    if time is None or step is not None or "sum" not in str(array.attrs.get("cell_methods", "")):
        return None
    coordinate = dataset.variables.get(time)
    name = None if coordinate is None else coordinate.attrs.get("bounds", coordinate.encoding.get("bounds"))
    if name not in dataset.variables:
        return None
    bounds = dataset.variables[str(name)]
    if bounds.dtype.kind != "M" or bounds.ndim != 2 or bounds.dims[0] != time or bounds.shape[1] != 2:
        return None
    values = np.asarray(bounds.values, "datetime64[ns]")
    return None if np.isnat(values).any() else (_whole_minutes(values[:, 0]), _whole_minutes(values[:, 1]))
