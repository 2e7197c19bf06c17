"""For ``panel serve --setup``: what each process of the server has to know before it answers.

Without it a process that has not shown a page yet does not find the style sheets and scripts of the widgets, which
a browser may ask it for when another process wrote the page.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # a clone that was not installed
    sys.path.insert(0, ROOT)

import explorer.page  # noqa: E402, F401
