"""Small pictures of fields, for pages with many of them: no chart each, a few kilobytes each."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from core.domain import Domain
from core.regions import Window
from explorer.cut import inside
from explorer.quantities import FloatField

LONGEST = 200
"""Pixels along the longer side at most, unless the field has fewer cells."""
SHADES = 240
COAST, NOTHING = SHADES, SHADES + 1
"""Places in the palette of outlines and of cells without a value, which are transparent."""


def thumbnail(
    field: FloatField,
    limits: tuple[float, float],
    colours: Sequence[str],
    domain: Domain,
    window: Window,
    outlines: Mapping[str, Any] | None = None,
) -> str:
    """A PNG as a ``data:`` address of what a field (h, w) or (H, W) shows in the window.

    ``colours`` span ``limits``; ``outlines`` are coastlines in the plane [m], name -> (x, y) with gaps of NaN.
    """
    values = _shrunk(inside(field, domain, window))
    factor = max(1, LONGEST // max(values.shape))
    low, high = limits
    share = (values - low) / max(high - low, 1e-12)
    with np.errstate(invalid="ignore"):
        index = np.clip(share * SHADES, 0, SHADES - 1)
    codes = np.where(np.isfinite(values), index, NOTHING).astype(np.uint8)
    codes = codes.repeat(factor, axis=0).repeat(factor, axis=1)
    picture = Image.fromarray(codes)  # grey, until it gets its colours
    picture.putpalette(_palette(colours))
    draw = ImageDraw.Draw(picture)
    height, width = codes.shape
    for x, y in (outlines or {}).values():
        across = (np.asarray(x) - window.left) / (window.right - window.left) * width
        down = (window.top - np.asarray(y)) / (window.top - window.bottom) * height
        for piece in _pieces(across, down, width, height):
            draw.line([tuple(point) for point in piece.tolist()], fill=COAST, width=1)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=NOTHING, optimize=False)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _shrunk(field: NDArray[np.floating]) -> NDArray[np.floating]:
    """Means over blocks, so that the longer side has about :data:`LONGEST` cells at most."""
    block = -(-max(field.shape) // LONGEST)
    rows, columns = (side // block * block for side in field.shape)
    cut = field[:rows, :columns].reshape(rows // block, block, columns // block, block)
    return cut.mean(axis=(1, 3))


def _palette(colours: Sequence[str]) -> list[int]:
    places = np.linspace(0, len(colours) - 1, SHADES).round().astype(int)
    rgb = [ImageColor.getrgb(colours[place])[:3] for place in places]
    return [part for colour in [*rgb, (28, 28, 28), (128, 128, 128)] for part in colour]


def _pieces(
    x: NDArray[np.floating], y: NDArray[np.floating], width: int, height: int
) -> list[NDArray[np.floating]]:
    """Runs of points between gaps that come near the picture."""
    points = np.column_stack([x, y])
    near = (x > -width) & (x < 2 * width) & (y > -height) & (y < 2 * height)
    points[~near] = np.nan
    gaps = np.flatnonzero(np.isnan(points).any(axis=1))
    pieces = np.split(points, gaps)
    kept = [piece[~np.isnan(piece).any(axis=1)] for piece in pieces]
    return [piece for piece in kept if len(piece) > 1]
