"""Lines of GeoJSON files, good ones and such as nobody should trust."""

import json

import numpy as np
import pytest

from core import geojson
from core.geojson import GeoJsonError, read_lines

SQUARE = [[0, 0], [1, 0], [1, 1], [0, 0]]


def write(tmp_path, content):
    path = tmp_path / "lines.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def feature(kind, coordinates):
    return {"type": "Feature", "properties": {}, "geometry": {"type": kind, "coordinates": coordinates}}


def test_lines_and_rings_of_every_kind(tmp_path):
    hole = [[0.2, 0.2, 5.0], [0.4, 0.2, 5.0], [0.2, 0.2, 5.0]]
    geometry = {"type": "LineString", "coordinates": [[7, 8], [9, 10]]}
    content = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3035"}},
        "features": [
            feature("LineString", [[1.5, 2], [3, 4]]),
            feature("Polygon", [SQUARE, hole]),
            feature("MultiPolygon", [[SQUARE], [SQUARE]]),
            feature("MultiLineString", [[[5, 6], [6, 6]]]),
            feature("Point", [1, 2]),
            {"type": "Feature", "properties": {}, "geometry": None},
            {"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": [geometry]}},
        ],
    }
    crs, points = read_lines(write(tmp_path, content))
    assert crs == "EPSG:3035"
    gap = [[np.nan, np.nan]]
    flat = [[x, y] for x, y, _ in hole]
    lines = [[[1.5, 2], [3, 4]], SQUARE, flat, SQUARE, SQUARE, [[5, 6], [6, 6]], [[7, 8], [9, 10]]]
    np.testing.assert_array_equal(points, np.array([point for line in lines for point in line + gap]))


@pytest.mark.parametrize(
    ("name", "crs"),
    [("EPSG:32632", "EPSG:32632"), ("urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326"), (None, None)],
)
def test_coordinate_systems(tmp_path, name, crs):
    content = {"type": "LineString", "coordinates": SQUARE}
    if name is not None:
        content["crs"] = {"type": "name", "properties": {"name": name}}
    assert read_lines(write(tmp_path, content))[0] == crs


def test_a_mark_of_the_byte_order_is_passed_over(tmp_path):
    path = write(tmp_path, "\ufeff" + json.dumps(line([*SQUARE])))
    assert len(read_lines(path)[1]) == len(SQUARE) + 1


def line(coordinates, **more):
    return {"type": "LineString", "coordinates": coordinates, **more}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "no GeoJSON"),
        ("{}", "not as they must be"),
        ("[1]", "it is no object"),
        ("[" * 100_000, "no GeoJSON"),
        ('{"type": "LineString", "coordinates": [[NaN, 1], [2, 3]]}', "holds NaN, which is no number"),
        ('{"type": "LineString", "coordinates": [[1e999, 1], [2, 3]]}', "not finite"),
        (f'{{"type": "LineString", "coordinates": [[{"9" * 400}, 1], [2, 3]]}}', "not as they must be"),
        (line([["1", "2"], ["3", "4"]]), "not lists of pairs of numbers"),
        (line([[True, False]]), "not lists of pairs of numbers"),
        (line([[1], [2]]), "not lists of pairs of numbers"),
        (line("abc"), "not lists of pairs of numbers"),
        (line(None), "not lists of pairs of numbers"),
        ({"type": "MultiLineString", "coordinates": 7}, "not as they must be"),
        ({"type": "FeatureCollection", "features": [3]}, "not as they must be"),
        ({"type": "Circle"}, "of the type 'Circle'"),
        ({"type": "FeatureCollection", "features": []}, "holds no line"),
        (line([]), "holds no line"),
        ({"type": "Point", "coordinates": [1, 2]}, "holds no line"),
        (line(SQUARE, crs={"properties": {"name": "+proj=longlat +nadgrids=/etc/passwd"}}), "none of EPSG's"),
        (line(SQUARE, crs={"properties": {"name": ["EPSG:3035"]}}), "not as they must be"),
        (line(SQUARE, crs="EPSG:3035"), "not as they must be"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, content, fault):
    path = write(tmp_path, content)
    with pytest.raises(GeoJsonError, match=fault) as error:
        read_lines(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < len(str(path)) + 200


def test_collections_in_each_other(tmp_path):
    content = line(SQUARE)
    for _ in range(20):
        content = {"type": "GeometryCollection", "geometries": [content]}
    with pytest.raises(GeoJsonError, match="too deep"):
        read_lines(write(tmp_path, content))


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    path = write(tmp_path, line(SQUARE))
    monkeypatch.setattr(geojson, "MOST_BYTES", path.stat().st_size - 1)
    with pytest.raises(GeoJsonError, match="too much for outlines"):
        read_lines(path)
    with pytest.raises(GeoJsonError, match=r"absent can't be read: No such file"):
        read_lines(tmp_path / "absent")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(GeoJsonError, match="no GeoJSON"):
        read_lines(path)
