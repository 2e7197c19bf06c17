"""Maps as a GeoTIFF: one band each, or one map alone on its own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from pyproj import CRS
from rasterio.transform import from_origin

from core import __version__
from core.text import plain
from explorer.display import spread
from explorer.export.scene import ExportError, Panel, Scene
from explorer.library import COARSE
from explorer.snapshot import show_hour


def write_geotiff(scene: Scene, path: Path, key: str = "") -> None:
    """Write the maps of a scene in the units they are shown in, float32, NaN where there is no value.

    Without ``key`` every map is a band on the fine grid, named by its label; each coarse cell fills the fine
    cells that lie in it. With the ``key`` of a map, that one alone on its own grid. The whole domain
    is written, whatever region is shown. Raises ExportError where there is no such map.
    """
    panels = [panel for panel in scene.panels if key in ("", panel.key)]
    if not panels:
        raise ExportError("That map is not shown any more; choose another.")
    grid = scene.grid(panels[0].values) if key else scene.opened.domain.fine
    height, width = grid.shape
    left, _, _, top = grid.extent
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=len(panels), dtype="float32",
        crs=CRS.from_user_input(grid.crs).to_wkt(), transform=from_origin(left, top, grid.dx, grid.dy),
        nodata=np.nan, compress="deflate", predictor=3, tiled=True, blockxsize=256, blockysize=256,
    ) as file:  # fmt: skip
        file.update_tags(**_tags(scene))
        for number, panel in enumerate(panels, 1):
            file.write(spread(panel.values, grid.shape).astype(np.float32, copy=False), number)
            file.set_band_description(number, _band(scene, panel, alone=bool(key)))
            file.set_band_unit(number, scene.units)


def _band(scene: Scene, panel: Panel, *, alone: bool) -> str:
    words = plain(panel.label)
    if panel.key == COARSE and not alone:
        words += f" (cells of {scene.opened.domain.coarse.dx / 1000:g} km)"
    return words + (f" minus {plain(scene.subtracted)}" if scene.against else "")


def _tags(scene: Scene) -> dict[str, str]:
    attrs, draw = scene.opened.store.attrs, scene.draw
    tags = {
        "TITLE": f"{plain(scene.title, 200)}, {show_hour(scene.hour)}",
        "TIME": str(np.datetime_as_string(scene.hour, unit="s", timezone="UTC")),
        "VARIABLE": scene.quantity.key,
        "UNITS": scene.units,
        "DATA_TITLE": plain(attrs.get("title", ""), 200),
        "DATA_SOURCE": plain(attrs.get("source", ""), 200),
        "DATA_FINGERPRINT": plain(attrs.get("fingerprint", ""), 200),
        "SYNTHETIC": "yes: made by a program, never observed" if scene.opened.synthetic else "no",
        "TIFFTAG_SOFTWARE": f"tramontana {__version__}",
    }
    if scene.members:
        tags |= {
            "SAMPLER": draw.sampler,
            "SAMPLER_STEPS": str(draw.steps),
            "SEED": str(draw.seed),
            "MEMBER": "0",
        }
    return tags
