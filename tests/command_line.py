"""The console script, run inside the tests' process."""

import sys
from typing import NamedTuple

import pytest

import tramontana


class Ended(NamedTuple):
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """What was printed for people to read when it ended, without the progress bar before it."""
        return "".join(line for line in self.err.splitlines(keepends=True) if "━" not in line)


def run_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> Ended:
    """Run ``tramontana`` with these arguments; it never ends with a stack trace."""
    monkeypatch.setattr(sys, "argv", ["tramontana", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        tramontana.main()
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return Ended(ended.value.code or 0, printed.out, printed.err)
