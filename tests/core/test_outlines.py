"""core.outlines and core.assets: what ships is found and lies where it should."""

import json

import numpy as np
import pytest
import xarray as xr
import zarr
from pyproj import Transformer

from core import outlines
from core.assets import asset
from core.data.statics import load_italy_static
from core.data.store import Store, StoreError
from core.domain import ITALY, Domain
from core.geojson import GeoJsonError
from core.outlines import KINDS, add_outlines, load_outlines, stored_outlines
from tests.synthetic_store import DOMAIN, make_store


def test_lines_surround_the_domain():
    outlines = load_outlines(ITALY.fine)
    assert tuple(outlines) == KINDS
    left, right, bottom, top = ITALY.fine.extent
    for x, y in outlines.values():
        assert x.shape == y.shape
        assert x.size > 100
        assert np.nanmin(x) >= left - 101e3
        assert np.nanmax(x) <= right + 101e3
        assert np.nanmin(y) >= bottom - 101e3
        assert np.nanmax(y) <= top + 101e3
        np.testing.assert_array_equal(np.isnan(x), np.isnan(y))


def test_coastline_runs_between_land_and_sea():
    land = load_italy_static()["land_fraction"].values
    x, y = load_outlines(ITALY.fine)["coastline"]
    grid = ITALY.fine
    columns, rows = (x - grid.x[0]) / grid.dx, (grid.y[0] - y) / grid.dy
    inside = (columns > 3) & (columns < grid.shape[1] - 4) & (rows > 3) & (rows < grid.shape[0] - 4)
    mixed = 0
    for row, column in zip(
        rows[inside].round().astype(int), columns[inside].round().astype(int), strict=True
    ):
        window = land[row - 2 : row + 3, column - 2 : column + 3]
        mixed += 0 < window.mean() < 1
    assert mixed / inside.sum() > 0.95


def test_other_projections():
    utm = Domain.regular(
        "UTM", left=500_000.0, top=5_000_000.0, shape=(16, 16), spacing=2e3, ratio=8, crs="EPSG:32632"
    )
    x, y = load_outlines(utm.fine)["coastline"]
    # Genoa: 8.93 E, 44.41 N lies at 494 000, 4 917 000 in UTM zone 32 and at the coast.
    assert np.nanmin(np.hypot(x - 494_400, y - 4_917_500)) < 5e3


def test_missing_assets_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAMONTANA_ASSETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"italy/static\.nc is not in .*TRAMONTANA_ASSETS"):
        asset("italy/static.nc")


# ---------------------------------------------------------------- a store's own


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "s.zarr", ["2020-03-01T00"])


def write(path, lines, **more):
    path.write_text(json.dumps({"type": "MultiLineString", "coordinates": lines, **more}))
    return path


# In the first cells of the domain, north-west, 2 km each; its edges are 4 000 000 and 2 500 000.
LINE = [
    [4_000_100.0, 2_499_900.0],
    [4_000_200.0, 2_499_900.0],
    [4_003_000.0, 2_499_900.0],
    [4_003_100.0, 2_499_900.0],
]


def test_lines_of_a_file_take_the_place_of_those_that_ship(store, tmp_path):
    before = store.validate()
    assert stored_outlines(store) is None
    add_outlines(store, write(tmp_path / "a.geojson", [LINE, [[0.0, 0.0], [1.0, 1.0]]]))
    lines = stored_outlines(store)
    assert tuple(lines) == KINDS
    x, y = lines["coastline"]
    # The second point lies in the quarter of a cell that the first one lies in; the ends of lines stay.
    np.testing.assert_array_equal(x, [4_000_100, 4_003_000, 4_003_100, np.nan, 0, 1, np.nan])
    np.testing.assert_array_equal(y, [2_499_900, 2_499_900, 2_499_900, np.nan, 0, 1, np.nan])
    assert lines["border"][0].size == lines["lake"][0].size == 0
    with xr.open_datatree(store.path, engine="zarr", consolidated=False) as tree:
        assert tree["outlines"].attrs["source_file"] == "a.geojson"
    assert Store.open(store.path).validate() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.geojson", "s.zarr"]


@pytest.mark.parametrize("stated", [True, False])
def test_longitudes_and_latitudes(store, tmp_path, stated):
    turn = Transformer.from_crs(DOMAIN.crs, "EPSG:4326", always_xy=True)
    degrees = [list(turn.transform(*LINE[0])), list(turn.transform(*LINE[-1]))]
    crs = {"crs": {"type": "name", "properties": {"name": "EPSG:4326"}}} if stated else {}
    add_outlines(store, write(tmp_path / "a.geojson", [degrees], **crs))
    x, y = stored_outlines(store)["coastline"]
    np.testing.assert_allclose(x[:2], [LINE[0][0], LINE[-1][0]], atol=0.01)
    np.testing.assert_allclose(y[:2], [LINE[0][1], LINE[-1][1]], atol=0.01)


def test_lines_that_can_not_be_drawn(store, tmp_path, monkeypatch):
    with pytest.raises(GeoJsonError, match=r"a\.geojson has no line in the domain Small"):
        add_outlines(store, write(tmp_path / "a.geojson", [[[0.0, 0.0], [1.0, 1.0]]]))
    unknown = {"crs": {"properties": {"name": "EPSG:999999"}}}
    with pytest.raises(GeoJsonError, match="in EPSG:999999, which is unknown here"):
        add_outlines(store, write(tmp_path / "a.geojson", [LINE], **unknown))
    monkeypatch.setattr(outlines, "MOST_POINTS", 3)
    with pytest.raises(GeoJsonError, match="has 4 points, more than the 3 that can be drawn"):
        add_outlines(store, write(tmp_path / "a.geojson", [LINE]))
    assert stored_outlines(store) is None
    assert not (store.path / "outlines").exists()


@pytest.mark.parametrize("damage", ["complex", "lengths", "absent", "long"])
def test_outlines_in_a_store_that_are_damaged(store, tmp_path, damage, monkeypatch):
    add_outlines(store, write(tmp_path / "a.geojson", [LINE]))
    group = zarr.open_group(str(store.path / "outlines"), mode="r+")
    if damage == "complex":
        group.create_array("x", data=np.ones(4, "c16"), dimension_names=("point",), overwrite=True)
    elif damage == "lengths":
        # Nothing but a few words on the disk, and more than any memory where it is read.
        names = ("point", "more")
        group.create_array(
            "x", shape=(4, 10**13), chunks=(4, 1), dtype="f8", dimension_names=names, overwrite=True
        )
    elif damage == "absent":
        del group["y"]
    else:
        monkeypatch.setattr(outlines, "MOST_POINTS", 3)
    with pytest.raises(StoreError, match=r"/outlines of .*s\.zarr can't be read"):
        stored_outlines(Store.open(store.path))
