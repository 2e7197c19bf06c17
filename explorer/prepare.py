"""For ``panel serve --setup``: what each process of the server does before it answers.

Without it a process that has not shown a page yet does not find the style sheets and scripts of the widgets, which
a browser may ask it for when another process wrote the page, and the first visitor waits for what is read here.
"""

import sys
from contextlib import suppress
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # a clone that was not installed
    sys.path.insert(0, ROOT)

from explorer.page import library  # noqa: E402
from explorer.settings import SettingsError  # noqa: E402

given = sys.argv[sys.argv.index("--args") + 1 :] if "--args" in sys.argv else []
with suppress(SettingsError):  # the page says it to whoever looks
    library(tuple(given))
