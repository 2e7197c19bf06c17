"""What is closed where a ``with`` block ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Closed, with :meth:`close`, at the end of a ``with`` block, however it ends."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held; calling it again does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
