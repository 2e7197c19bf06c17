"""How figures look: sizes, ink, colour maps and the frame that every panel has.

Figures are made with matplotlib's objects alone, so nothing global is changed and threads may draw at once.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from colorcet import CET_D1A, CET_L8, CET_L17
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageChops

from core.report.contents import Model
from core.text import for_figure

WIDTH = 9.0
"""Width of a figure [inch]."""
DPI = 140
MARGIN = 10
"""White pixels left around a figure."""
GREYS = 32
"""Greys among the 256 colours of a file that holds maps."""
SMALL, NORMAL = 7.5, 8.5
INK, QUIET, GRID = "#1a1a1a", "#5f666b", "#d9dde0"

SEQUENTIAL: Colormap = ListedColormap(CET_L8, name="thermal")
INTENSITY: Colormap = ListedColormap(CET_L17, name="intensity")
DIVERGING: Colormap = ListedColormap(CET_D1A, name="balance")


def new_figure(
    height: float, *, width: float = WIDTH, layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """An empty white figure [inch]; layout ``"compressed"`` for panels of a fixed aspect."""
    figure = Figure(figsize=(width, height), facecolor="white", layout=layout)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.05, h_pad=0.05, wspace=0.03, hspace=0.03)  # type: ignore[call-arg]
    return figure


def dress(axis: Axes, *, title: str = "", x: str = "", y: str = "", grid: str = "both") -> None:
    """Thin frame on two sides, light grid (``"x"``, ``"y"``, ``"both"`` or ``""``), small words."""
    axis.set_title(title, fontsize=NORMAL, color=INK, loc="left")
    axis.set_xlabel(x, fontsize=SMALL, color=INK)
    axis.set_ylabel(y, fontsize=SMALL, color=INK)
    axis.tick_params(labelsize=SMALL, colors=INK, width=0.6, length=3, which="major")
    axis.tick_params(width=0.4, length=1.8, which="minor")
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_linewidth(0.6)
    axis.set_axisbelow(True)
    if grid:
        axis.grid(axis=grid, color=GRID, linewidth=0.5)  # type: ignore[arg-type]


def legend(
    figure_or_axis: Figure | Axes,
    entries: Iterable[tuple[str, Artist]],
    *,
    loc: str = "best",
    columns: int = 1,
) -> None:
    """A legend of (label as it is written, artist) without a frame."""
    pairs = [(for_figure(label, 40), handle) for label, handle in entries]
    # One call for both kinds of artist, whose signatures are typed apart.
    place: Any = figure_or_axis
    place.legend(
        [handle for _, handle in pairs],
        [label for label, _ in pairs],
        loc=loc,
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        labelcolor=INK,
        handlelength=1.8,
    )


def line_of(model: Model, *, marker: bool = False) -> Line2D:
    """The legend's line of a model: solid with its marker, or dashed as its curves are."""
    line = Line2D([], [], color=model.colour, linewidth=1.5, markersize=4)
    if marker:
        line.set_marker(model.marker)
    else:
        line.set_linestyle(model.dash)
    return line


TRUTH_LINE = Line2D([], [], color="black", linewidth=1.7)


def tick_label(label: str, width: int = 18) -> str:
    """A label for an axis, on at most two lines."""
    lines = textwrap.wrap(for_figure(label, 2 * width), width) or [""]
    return "\n".join(lines[:2])


def box_plot(
    axis: Axes, columns: Sequence[np.ndarray], colours: Sequence[str], *, vertical: bool = False
) -> None:
    """Box plots, the first at the top (or left), whiskers from the 5th to the 95th percentile.

    NaN is left out; outer values are dots, the mean is a diamond. A column without a value stays empty.
    """
    finite = [column[np.isfinite(column)] for column in columns]
    drawn = axis.boxplot(
        finite,
        positions=range(len(finite)),
        orientation="vertical" if vertical else "horizontal",
        whis=(5, 95),
        widths=0.62,
        patch_artist=True,
        showmeans=True,
        medianprops={"color": INK, "linewidth": 1.1},
        meanprops={
            "marker": "D",
            "markersize": 2.6,
            "markerfacecolor": "white",
            "markeredgecolor": INK,
            "markeredgewidth": 0.6,
        },
        whiskerprops={"linewidth": 0.8},
        capprops={"linewidth": 0.8},
        flierprops={"marker": ".", "markersize": 2.2, "markeredgewidth": 0, "alpha": 0.5},
    )
    for number, colour in enumerate(colours):
        drawn["boxes"][number].set(facecolor=colour, edgecolor=colour, alpha=0.55, linewidth=0.8)
        drawn["fliers"][number].set(markerfacecolor=colour)
        for part in ("whiskers", "caps"):
            for artist in drawn[part][2 * number : 2 * number + 2]:
                artist.set_color(colour)
    if not vertical:
        axis.set_ylim(len(finite) - 0.5, -0.5)


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as a PNG file, cut to what is drawn; maps with 256 colours, a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"compress_level": 1}
    )
    with Image.open(buffer) as drawn:
        picture = drawn.convert("RGB")
    # Cutting pixels costs nothing; savefig's bbox_inches="tight" would lay out the figure twice.
    box = ImageChops.invert(picture).getbbox()
    if box is not None:
        left, top, right, bottom = box
        picture = picture.crop(
            (
                max(left - MARGIN, 0),
                max(top - MARGIN, 0),
                min(right + MARGIN, picture.width),
                min(bottom + MARGIN, picture.height),
            )
        )
    maps = {image.cmap.name: image.cmap for axes in figure.axes for image in axes.images}
    return _encoded(_reduced(picture, maps.values()) if maps else picture)


def _reduced(picture: Image.Image, maps: Collection[Colormap]) -> Image.Image:
    palette = _palette(maps)
    colours = np.array(picture.quantize(palette=palette, dither=Image.Dither.NONE))
    # The nearest colour is found only roughly, and paper that is nearly white shows beside a white page.
    colours[(np.asarray(picture) == 255).all(axis=-1)] = GREYS - 1
    reduced = Image.frombytes("P", picture.size, colours.tobytes())
    reduced.putpalette(palette.getpalette() or [])
    return reduced


def _palette(maps: Collection[Colormap]) -> Image.Image:
    """256 colours: greys for ink and paper, the rest taken evenly from the colour maps."""
    greys = np.repeat(np.linspace(0, 1, GREYS)[:, None], 3, axis=1)
    share = (256 - GREYS) // len(maps)
    colours = [colour_map(np.linspace(0, 1, share))[:, :3] for colour_map in maps]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * np.concatenate([greys, *colours])).astype(np.uint8).tobytes())
    return palette


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=7)
    return buffer.getvalue()
