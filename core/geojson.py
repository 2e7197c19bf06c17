"""Lines of a GeoJSON file that may come from anybody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 1 << 25
"""Size beyond which a file is refused; a country's outlines at the scale of a map have a hundredth of it."""
_DEEPEST = 8
"""Collections within collections."""
_NUMBERS = (int, float)
_CRS = re.compile(r"(?:urn:ogc:def:crs:EPSG:[0-9.]*:|EPSG:)([0-9]{4,6})|urn:ogc:def:crs:OGC:[0-9.]*:CRS84")


class GeoJsonError(ValueError):
    """A file that is no GeoJSON, or none with lines; the message names it and the fault."""


def read_lines(path: str | Path) -> tuple[str | None, NDArray[np.float64]]:
    """(coordinate system, points) of all lines and of the rings of all polygons in a file.

    The coordinate system is ``EPSG:...`` where the file states one, None where it does not. Points have the
    shape (n, 2), x before y, with a row of NaN after every line. Points in the file that are no part of a
    line are passed over.

    Raises GeoJsonError where it can't be read, is too large, states another coordinate system, or holds no
    line.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise GeoJsonError(f"{path} has more than {MOST_BYTES // 10**6} MB, too much for outlines.")
        content = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
        crs = _crs(content)
        lines = [points for line in _lines(content, 0) if len(points := _points(line))]
    except GeoJsonError:
        raise
    except OSError as error:
        raise GeoJsonError(f"{path} can't be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise GeoJsonError(f"{path} is no GeoJSON that can be read: {error}.") from error
    except (TypeError, KeyError, OverflowError, RecursionError) as error:
        raise GeoJsonError(
            f"{path} is no GeoJSON that can be read: its parts are not as they must be."
        ) from error
    if not lines:
        raise GeoJsonError(f"{path} holds no line and no polygon.")
    gap = np.full((1, 2), np.nan)
    return crs, np.concatenate([part for line in lines for part in (line, gap)])


def _refuse_constant(text: str) -> None:
    raise ValueError(f"it holds {text}, which is no number")


def _crs(content: Any) -> str | None:
    if not isinstance(content, dict):
        raise ValueError("it is no object")
    stated = content.get("crs")
    if stated is None:
        return None
    # The member of GeoJSON's first edition, which QGIS and geopandas still write.
    name = stated["properties"]["name"]
    found = _CRS.fullmatch(name)
    if found is None:
        raise ValueError(f"its coordinate system {name[:60]!r} is none of EPSG's")
    return f"EPSG:{found[1] or 4326}"


def _lines(thing: Any, depth: int) -> Iterator[Any]:
    """The coordinates of each line in an object."""
    if depth > _DEEPEST:
        raise ValueError("its collections lie too deep in each other")
    if thing is None:
        return  # of a feature without a place
    kind = thing["type"]
    if kind == "FeatureCollection":
        for feature in thing["features"]:
            yield from _lines(feature, depth + 1)
    elif kind == "Feature":
        yield from _lines(thing["geometry"], depth + 1)
    elif kind == "GeometryCollection":
        for geometry in thing["geometries"]:
            yield from _lines(geometry, depth + 1)
    elif kind == "LineString":
        yield thing["coordinates"]
    elif kind in ("MultiLineString", "Polygon"):
        yield from thing["coordinates"]
    elif kind == "MultiPolygon":
        for polygon in thing["coordinates"]:
            yield from polygon
    elif kind not in ("Point", "MultiPoint"):
        raise ValueError(f"it holds something of the type {str(kind)[:60]!r}")


def _points(line: Any) -> NDArray[np.float64]:
    if not isinstance(line, list) or not all(
        isinstance(point, list)
        and len(point) >= 2
        and type(point[0]) in _NUMBERS
        and type(point[1]) in _NUMBERS
        for point in line
    ):
        raise ValueError("its coordinates are not lists of pairs of numbers")
    points = np.array([point[:2] for point in line], np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("its coordinates are not finite")
    return points
