"""Worker processes of this machine leave Ctrl-C to the process that started them."""

import subprocess
import sys

SCRIPT = """
import os, signal
from core.downscale.local_worker import dask_setup
dask_setup(None)
os.kill(os.getpid(), signal.SIGINT)
print("goes on")
"""


DEFAULT = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""Processes that a shell starts in the background ignore interrupts, and so would their children."""


def test_an_interrupt_does_not_end_a_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEFAULT + SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "goes on\n"
