"""Changes of a page that travel to the browser together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import panel as pn
from bokeh.document import Document


@contextmanager
def together(document: Document | None = None) -> Iterator[None]:
    """Collect the changes made inside and send them as one message; nests.

    Bokeh's own hold rather than Panel's, which drops what happens between the moment a browser fetches the
    document and the moment it reports that it is ready.
    """
    document = document or pn.state.curdoc
    if document is None or document.callbacks.hold_value:
        yield
        return
    document.hold("combine")
    try:
        yield
    finally:
        document.unhold()
