"""Worker processes of this machine leave Ctrl-C to the process that started them."""

import signal
import subprocess
import sys

SCRIPT = """
import os, signal
from core.downscale.local_worker import dask_setup
dask_setup(None)
os.kill(os.getpid(), signal.SIGINT)
print("goes on")
"""


def test_an_interrupt_does_not_end_a_worker() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"
