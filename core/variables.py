"""One table of every variable: names, units, CF standard names, published names, role.

The order of :data:`PREDICTORS` is the channel order of the published weights (Tomasi et al.,
arXiv 2406.13627); everything that stacks channels takes its order from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a variable is to a downscaler."""

    PREDICTOR = "predictor"
    TARGET = "target"
    STATIC = "static"


@dataclass(frozen=True)
class Variable:
    """A physical variable of the store.

    ``published_name`` is its key in the published data set, ``valid_range`` the physically possible
    values in ``units`` (outside them a file is taken for corrupt or in other units), and
    ``accumulated`` says that the value is a sum over the hour that ends at the time stamp, so that it is
    regridded conservatively.
    """

    name: str
    long_name: str
    standard_name: str | None
    units: str
    published_name: str
    roles: frozenset[Role]
    valid_range: tuple[float, float]
    accumulated: bool = False

    @property
    def attrs(self) -> dict[str, str]:
        """CF attributes for a NetCDF or Zarr variable."""
        attrs = {"long_name": self.long_name, "units": self.units}
        if self.standard_name is not None:
            attrs["standard_name"] = self.standard_name
        if self.accumulated:
            attrs["cell_methods"] = "time: sum (interval: 1 hour)"
        return attrs


def _variable(
    name: str,
    long_name: str,
    standard_name: str | None,
    units: str,
    published_name: str,
    roles: str,
    valid_range: tuple[float, float],
    accumulated: bool = False,
) -> Variable:
    kinds = {"p": Role.PREDICTOR, "t": Role.TARGET, "s": Role.STATIC}
    return Variable(
        name,
        long_name,
        standard_name,
        units,
        published_name,
        frozenset(kinds[letter] for letter in roles),
        valid_range,
        accumulated,
    )


_TABLE = (
    _variable("t2m", "2 metre temperature", "air_temperature", "K", "2mT", "pt", (180, 340)),
    _variable(
        "msl", "mean sea level pressure", "air_pressure_at_mean_sea_level", "Pa", "PMSL", "p", (85e3, 110e3)
    ),
    _variable("u10", "10 metre eastward wind", "eastward_wind", "m s-1", "U10", "pt", (-100, 100)),
    _variable("v10", "10 metre northward wind", "northward_wind", "m s-1", "V10", "pt", (-100, 100)),
    _variable("d2m", "2 metre dew point temperature", "dew_point_temperature", "K", "dp2mT", "p", (150, 320)),
    _variable("sst", "sea surface temperature", "sea_surface_temperature", "K", "SST", "p", (265, 315)),
    _variable(
        "sd",
        "snow depth, water equivalent",
        "lwe_thickness_of_surface_snow_amount",
        "m",
        "SNDPT",
        "p",
        (-1e-4, 60),
    ),
    _variable(
        "tp",
        "precipitation in the past hour",
        "lwe_thickness_of_precipitation_amount",
        "m",
        "TP",
        "pt",
        (-1e-4, 1),
        True,
    ),
    _variable(
        "ssrd",
        "surface solar radiation downwards in the past hour",
        "integral_wrt_time_of_surface_downwelling_shortwave_flux_in_air",
        "J m-2",
        "SSRadIn",
        "p",
        (-1e3, 6e6),
        True,
    ),
    _variable(
        "q850", "specific humidity at 850 hPa", "specific_humidity", "kg kg-1", "Q850", "p", (-1e-3, 0.05)
    ),
    _variable("t850", "temperature at 850 hPa", "air_temperature", "K", "T850", "p", (190, 330)),
    _variable("u850", "eastward wind at 850 hPa", "eastward_wind", "m s-1", "U850", "p", (-150, 150)),
    _variable("v850", "northward wind at 850 hPa", "northward_wind", "m s-1", "V850", "p", (-150, 150)),
    _variable(
        "w850",
        "vertical velocity in pressure coordinates at 850 hPa",
        "lagrangian_tendency_of_air_pressure",
        "Pa s-1",
        "W850",
        "p",
        (-100, 100),
    ),
    _variable(
        "orography",
        "height of the model surface above sea level",
        "surface_altitude",
        "m",
        "dtm",
        "s",
        (-500, 9000),
    ),
    _variable(
        "land_cover",
        "fraction of the cell in each land-cover class",
        "area_fraction",
        "1",
        "land_cover",
        "s",
        (0, 1),
    ),
    _variable("latitude", "latitude", "latitude", "degree_north", "lat", "s", (-90, 90)),
    _variable(
        "land_fraction",
        "fraction of the cell that is land",
        "land_area_fraction",
        "1",
        "land_fraction",
        "s",
        (0, 1),
    ),
)

VARIABLES: dict[str, Variable] = {variable.name: variable for variable in _TABLE}
"""Every known variable by short name."""

PREDICTORS: tuple[str, ...] = tuple(v.name for v in _TABLE if Role.PREDICTOR in v.roles)
"""The 14 coarse inputs in the channel order of the published weights."""

TARGETS: tuple[str, ...] = tuple(v.name for v in _TABLE if Role.TARGET in v.roles)
"""Fine fields that can be generated."""

STATICS: tuple[str, ...] = tuple(v.name for v in _TABLE if Role.STATIC in v.roles)
"""Fields of the fine grid that do not change in time."""

LAND_COVER_CLASSES = 16
"""Number of land-cover classes, IGBP or published; water belongs to none."""

STATIC_CHANNELS = 1 + LAND_COVER_CLASSES + 1
"""Orography, land cover, latitude: the static channels of every published network, in this order."""
