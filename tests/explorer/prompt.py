"""Background work that is done at once."""

from collections.abc import Callable
from concurrent.futures import Future

from explorer.library import Library


class PromptLibrary(Library):
    """Runs background work at once, so that a test sees its result."""

    def submit(self, work: Callable[[], None]) -> Future[None]:
        future: Future[None] = Future()
        work()
        future.set_result(None)
        return future
