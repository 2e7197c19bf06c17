"""Files of a scene, made under a temporary name and handed over as open streams."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO

from explorer.export.scene import Scene
from explorer.library import Library

TYPES = {
    "nc": "application/x-netcdf",
    "tif": "image/tiff",
    "png": "image/png",
    "pdf": "application/pdf",
    "csv": "text/csv",
}
"""Kinds of file by suffix, with their media types."""


def file_name(scene: Scene, kind: str, key: str = "") -> str:
    """What a file is called: store, hour, variable, and what of it the file holds."""
    if kind == "nc":
        return f"{scene.store_and_hour}-fields.nc"
    if kind == "tif":
        return f"{scene.name}{f'-{key}' if key else ''}.tif"
    return f"{scene.name}{scene.region}.{kind}"


def make_file(scene: Scene, library: Library, kind: str, key: str = "") -> IO[bytes]:
    """A file of the kind ``kind`` of :data:`TYPES`, open at its beginning, gone from the disk when closed.

    ``key`` names the map of a GeoTIFF, all where it is empty. Takes seconds. Raises ExportError, StoreError
    or DownscaleError in plain words.
    """
    write = _writer(scene, library, kind, key)
    with TemporaryDirectory(prefix="tramontana-") as folder:
        path = Path(folder) / f"export.{kind}"
        write(path)
        stream = TemporaryFile()  # noqa: SIM115
        try:
            with path.open("rb") as file:
                shutil.copyfileobj(file, stream)
            stream.seek(0)
        except BaseException:
            stream.close()
            raise
    return stream


def _writer(scene: Scene, library: Library, kind: str, key: str) -> Callable[[Path], None]:
    # matplotlib, rasterio and reports are imported by the first who wants such a file, not by every page.
    if kind == "nc":
        from explorer.export.netcdf import write_netcdf

        return lambda path: write_netcdf(scene, library, path)
    if kind == "tif":
        from explorer.export.geotiff import write_geotiff

        return lambda path: write_geotiff(scene, path, key)
    if kind in ("png", "pdf"):
        from explorer.export.figure import write_figure

        outlines = library.outlines(scene.opened)
        return lambda path: write_figure(scene, outlines, path)
    from explorer.export.table import to_csv

    return lambda path: _write_text(path, to_csv(scene))


def _write_text(path: Path, text: str) -> None:
    # With the mark that makes spreadsheets read degrees and superscripts as they are.
    path.write_text(text, encoding="utf-8-sig", newline="")
