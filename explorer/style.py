"""Colours, type and other looks that the views share."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import colorcet
import panel as pn
from bokeh.palettes import Cividis256, Inferno256, Magma256, Viridis256

CSS = Path(__file__).with_name("style.css").read_text()
LOGO = Path(__file__).with_name("logo.svg")

SEQUENTIAL: dict[str, tuple[str, Sequence[str]]] = {
    "thermal": ("Thermal", colorcet.CET_L8),
    "inferno": ("Inferno", Inferno256),
    "magma": ("Magma", Magma256),
    "viridis": ("Viridis", Viridis256),
    "cividis": ("Cividis", Cividis256),
    "rain": ("Rain", colorcet.CET_L12),
}
"""Perceptually uniform colour maps, distinct under the common colour-vision deficiencies."""

DIVERGING: Sequence[str] = colorcet.CET_D1A
"""Blue, white, red: differences and signed components, centred on zero."""

PALETTES: dict[str, Sequence[str]] = {key: colours for key, (_, colours) in SEQUENTIAL.items()} | {
    "balance": DIVERGING
}

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6ff0", "#8c8c8c")
"""Colours of downscalers in charts (Okabe and Ito, plus two)."""

TRUTH_COLOUR = {"light": "#000000", "dark": "#ffffff"}
COARSE_COLOUR = "#8c8c8c"
"""Colours in charts of the two fields that are not downscaled."""


def series_colours(keys: Iterable[str]) -> dict[str, str]:
    """A colour for each downscaler in its order, so that it has the same one in every chart."""
    return {key: SERIES[number % len(SERIES)] for number, key in enumerate(keys)}


PRIMARY = {"light": "#17577c", "dark": "#7cc4ea"}
HEADER = {"light": "#12405c", "dark": "#101b24"}

THEME_CONFIG: dict[str, Any] = {
    mode: {
        "palette": {
            "primary": {"main": PRIMARY[mode]},
            **(
                {"background": {"default": "#12181d", "paper": "#12181d"}}
                if mode == "dark"
                else {"background": {"default": "#ffffff", "paper": "#ffffff"}}
            ),
        },
        "typography": {"button": {"textTransform": "none"}},
        "shape": {"borderRadius": 8},
        "components": {
            # A tooltip would be as narrow as the button that it hangs from.
            "MuiTooltip": {"styleOverrides": {"tooltip": {"width": "max-content", "maxWidth": 260}}},
            "MuiPickersTextField": {"styleOverrides": {"root": {"width": "100%"}}},
            "MuiPickersInputBase": {
                "styleOverrides": {"root": {"& .MuiIconButton-root": {"color": "inherit"}}}
            },
        },
    }
    for mode in ("light", "dark")
}

INK = {
    "light": {
        "coast": "#1c1c1c",
        "halo": "#ffffff",
        "hatch": "#b9c0c5",
        "empty": "#eef1f3",
        "cross": "#000000",
    },
    "dark": {
        "coast": "#101010",
        "halo": "#e8eef2",
        "hatch": "#55606a",
        "empty": "#1d252c",
        "cross": "#ffffff",
    },
}
"""Colours inside the maps per theme; the outlines lie over the same data colours in both."""

NO_WRAP = {"& .MuiToggleButton-root, & .MuiButton-root": {"whiteSpace": "nowrap"}}
"""Of a group of buttons: each keeps its words on one line."""


def text(value: object) -> str:
    """Text made safe for HTML; names come from files."""
    return html.escape(str(value))


def template_text(value: object) -> str:
    """Text made safe for the HTML of a hover, where Bokeh takes what follows ``@`` and ``$`` for a column."""
    return text(value).replace("@", "&#64;").replace("$", "&#36;")


def block(content: str = "", **params: Any) -> pn.pane.HTML:
    """A pane of HTML in the house style."""
    params.setdefault("sizing_mode", "stretch_width")
    params.setdefault("margin", 0)
    return pn.pane.HTML(content, stylesheets=[CSS], **params)


def message(title: str, sentence: str, *commands: str) -> str:
    """HTML of a full-page message with commands to copy."""
    lines = "".join(f"<pre>{text(command)}</pre>" for command in commands)
    return f"<div class='message' role='status'><h2>{text(title)}</h2><p>{text(sentence)}</p>{lines}</div>"
