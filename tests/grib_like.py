"""GRIB files made message by message, as weather services write them."""

import numpy as np

# Before eccodes: its library hides the table of projections from pyproj where it is loaded first.
import pyproj  # noqa: F401
import xarray  # noqa: F401

import eccodes  # isort: skip

from tests.era5_like import LATITUDE, LONGITUDE

PARAMETERS = {"t2m": 167, "msl": 151, "tp": 228, "ssrd": 169, "t": 130, "u": 131, "z": 129}


def message(
    name,
    values,
    *,
    reference="2020-03-01T00",
    step=(0, 0),
    level=None,
    number=None,
    members=2,
    latitude=LATITUDE,
    longitude=LONGITUDE,
    centre="ecmf",
):
    """One GRIB 2 field; ``values`` (latitude, longitude) from north; ``step`` (start, end) [h]."""
    start, end = step
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2" if level else "regular_ll_sfc_grib2")
    when = np.datetime64(reference, "h")
    accumulated = start != end or name in ("tp", "ssrd")
    keys = {
        "centre": centre,
        "dataDate": int(str(when.astype("datetime64[D]")).replace("-", "")),
        "dataTime": int(str(when)[-2:]) * 100,
        "Ni": longitude.size,
        "Nj": latitude.size,
        "latitudeOfFirstGridPointInDegrees": latitude[0],
        "latitudeOfLastGridPointInDegrees": latitude[-1],
        "longitudeOfFirstGridPointInDegrees": longitude[0],
        "longitudeOfLastGridPointInDegrees": longitude[-1],
        "iDirectionIncrementInDegrees": abs(longitude[1] - longitude[0]),
        "jDirectionIncrementInDegrees": abs(latitude[1] - latitude[0]),
    }
    if number is not None:
        keys |= {"productDefinitionTemplateNumber": 11 if accumulated else 1, "number": number}
        keys |= {"numberOfForecastsInEnsemble": members}
    elif accumulated:
        keys |= {"productDefinitionTemplateNumber": 8}
    keys |= {"paramId": PARAMETERS[name]}
    if level:
        keys |= {"typeOfLevel": "isobaricInhPa", "level": level}
    if accumulated:
        keys |= {"stepType": "accum", "stepRange": f"{start}-{end}"}
    else:
        keys |= {"stepRange": str(end)}
    keys |= {"bitsPerValue": 24}
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, np.asarray(values, float).ravel())
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def write_grib(path, messages):
    """A file of messages."""
    path.write_bytes(b"".join(messages))
    return path
