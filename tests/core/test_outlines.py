"""core.outlines and core.assets: what ships is found and lies where it should."""

import numpy as np
import pytest

from core.assets import asset
from core.data.statics import load_italy_static
from core.domain import ITALY, Domain
from core.outlines import KINDS, load_outlines


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
