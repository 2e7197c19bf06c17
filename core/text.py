"""Text for readers: numbers with the digits that their intervals allow, units, and names made harmless.

Labels of models come from the headers of checkpoints, which anybody may have written; they are escaped for
whatever they are put into.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"
LONGEST_LABEL = 60
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_FORMULA = ("=", "+", "-", "@")


def plain(text: object, longest: int = LONGEST_LABEL) -> str:
    """One line without control or direction characters, cut with an ellipsis where it is too long."""
    line = "".join(
        " " if letter.isspace() else letter
        for letter in str(text)
        if letter.isspace() or unicodedata.category(letter)[0] != "C"
    )
    line = " ".join(line.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def for_figure(text: object, longest: int = LONGEST_LABEL) -> str:
    """For matplotlib, which would take ``$`` for mathematics and leave ``_name`` out of legends."""
    line = plain(text, longest).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line


def for_markdown(text: object, longest: int = LONGEST_LABEL) -> str:
    """For a cell of a Markdown table: no markup, no HTML and no bar gets through."""
    line = plain(text, longest)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*{}\[\]|~!])|(?<!\w)_|_(?!\w)", lambda found: "\\" + found.group(0), line)


def for_csv(text: object, longest: int = 10_000) -> str:
    """For a cell of a CSV file: an apostrophe before what a spreadsheet would take for a formula."""
    line = plain(text, longest)
    return f"'{line}" if line.startswith(_FORMULA) else line


def for_file_name(text: object) -> str:
    """Letters, digits, ``_`` and ``-`` only, at most 60 of them."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", str(text))[:60] or "_"


def units_text(units: str | None) -> str:
    """``"m s-1"`` as ``"m s⁻¹"``; nothing for ``"1"`` and for units that are not known."""
    if units is None or units == "1":
        return ""
    # (K)2, as the metrics write derived units, reads better as K2 where the bracket holds one symbol.
    units = re.sub(r"\((\w+)\)", r"\1", plain(units, 30))
    return re.sub(r"(?<=[A-Za-z)])(-?\d+)", lambda found: found.group(1).translate(_SUPERSCRIPTS), units)


def with_units(title: str, units: str | None) -> str:
    """``"RMSE [K]"``, or the title alone where there are no units."""
    shown = units_text(units)
    return f"{title} [{shown}]" if shown else title


def number(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """A number with so many significant digits and a typographic minus; a dash for NaN."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -4 <= size < 5:
        text = f"{value:+.{max(digits - 1 - size, 0)}f}" if sign else f"{value:.{max(digits - 1 - size, 0)}f}"
    else:
        mantissa, exponent = f"{value:{'+' if sign else ''}.{digits - 1}e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", MINUS)


def fixed(value: float, decimals: int | None, *, sign: bool = False) -> str:
    """A number with so many decimals, or with three significant digits where that is None."""
    if decimals is None or not math.isfinite(value):
        return number(value, sign=sign)
    text = f"{value:{'+' if sign else ''}.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def decimals_for(values: Iterable[float], half_widths: Iterable[float]) -> int | None:
    """Decimals that show two digits of the typical half-width of the intervals of a column.

    None where numbers are better shown with three significant digits each: without intervals, or where they
    are large, tiny or of very different size.
    """
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0]
    widths = sorted(width for width in half_widths if math.isfinite(width) and width > 0)
    if not widths or (sizes and (max(sizes) >= 1e5 or max(sizes) > 1e4 * min(sizes))):
        return None
    decimals = max(1 - math.floor(math.log10(widths[len(widths) // 2])), 0)
    return decimals if decimals <= 5 else None


def joined(parts: Iterable[str]) -> str:
    """``"a, b and c"``."""
    items = list(parts)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
