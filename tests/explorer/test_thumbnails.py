"""Small pictures of fields."""

import base64
import io

import numpy as np
from PIL import Image

from core.regions import Window, whole_window
from explorer.thumbnails import LONGEST, thumbnail
from tests.explorer.small_store import DOMAIN

COLOURS = ["#000000", "#800000", "#ff0000"]


def picture(field: np.ndarray, window: Window | None = None, **options: object) -> np.ndarray:
    """RGBA values of a thumbnail."""
    made = thumbnail(field, (0.0, 1.0), COLOURS, DOMAIN, window or whole_window(DOMAIN), **options)
    assert made.startswith("data:image/png;base64,")
    return np.array(Image.open(io.BytesIO(base64.b64decode(made.split(",")[1]))).convert("RGBA"))


def test_colours_span_the_limits_and_gaps_are_transparent():
    field = np.zeros(DOMAIN.fine.shape, "f4")
    field[:, 24:] = 1.5
    field[:16] = np.nan
    shown = picture(field)
    height, width = shown.shape[:2]
    assert max(height, width) <= LONGEST
    assert height * 48 == width * 64
    assert shown[-1, 0].tolist() == [0, 0, 0, 255]
    assert shown[-1, -1].tolist() == [255, 0, 0, 255]
    assert shown[0, 0, 3] == 0


def test_coarse_and_fine_fields_are_equally_large():
    fine, coarse = picture(np.zeros(DOMAIN.fine.shape)), picture(np.zeros(DOMAIN.coarse.shape))
    assert abs(fine.shape[0] / coarse.shape[0] - 1) < 0.1


def test_a_window_is_cut_out_and_large_fields_are_means():
    field = np.zeros(DOMAIN.fine.shape, "f4")
    field[:8, :8] = 1
    left, _, _, top = DOMAIN.fine.extent
    window = Window("corner", "Corner", left, left + 16_000, top - 16_000, top)
    assert (picture(field, window)[..., 0] == 255).all()


def test_outlines_are_drawn_where_they_are():
    left, right, bottom, top = DOMAIN.fine.extent
    middle = (top + bottom) / 2
    lines = {"coastline": (np.array([left, right, np.nan]), np.array([middle, middle, np.nan]))}
    shown = picture(np.ones(DOMAIN.fine.shape, "f4"), outlines=lines)
    rows = np.flatnonzero((shown[..., 0] < 200).any(axis=1))
    assert abs(rows.mean() / shown.shape[0] - 0.5) < 0.02
