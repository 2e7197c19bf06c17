"""How changes of a page travel to the browser: together, and at the right moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import panel as pn
from bokeh.document import Document
from panel.io.state import set_curdoc


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
    locked = _locked(document)
    if not locked:
        document.add_next_tick_callback(document.unhold)  # before the hold, which would hold this back, too
    document.hold("combine")
    try:
        yield
    finally:
        if locked:
            document.unhold()


@contextmanager
def adding() -> Iterator[None]:
    """Have Bokeh look through the models of the page once, after what is added inside, not at each addition."""
    document = pn.state.curdoc
    if document is None:
        yield
        return
    frozen = document.models.freeze()
    frozen.__enter__()
    try:
        yield
    finally:
        # Bokeh's own block does not end where what is inside fails, and would look at nothing ever after.
        frozen.__exit__(None, None, None)


def _locked(document: Document) -> bool:
    """Whether changes of a document may be sent now.

    Panel runs what follows from an event without Bokeh's lock when others of the same page are on their way, as
    happens when keys are pressed fast; changes must then wait for the lock.
    """
    context = document.session_context
    session = context.session if context is not None else None
    return session is None or getattr(session, "_pending_writes", ()) is not None


class Delivery:
    """Brings work from any thread to the event loop of one page, in order, one message each.

    Panel drops changes made while a browser that has fetched the document has not reported yet that it is ready;
    in that span the work waits.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self._loaded = False
        self._lock = Lock()
        self._work: deque[Callable[[], None]] = deque()
        pn.state.onload(self._on_load)

    def __call__(self, work: Callable[[], None]) -> None:
        """Run ``work`` soon, with the document locked."""
        with self._lock:
            self._work.append(work)
        self.document.add_next_tick_callback(self._run)

    def _on_load(self) -> None:
        self._loaded = True
        self.document.add_next_tick_callback(self._run)

    def _run(self) -> None:
        context = self.document.session_context
        fetched = context is not None and context.session is not None and context.session.connection_count > 0
        if fetched and not self._loaded:
            return  # _on_load calls again
        while True:
            with self._lock:
                if not self._work:
                    return
                work = self._work.popleft()
            with set_curdoc(self.document), together(self.document):
                work()
