"""The most memory a process has taken.

``python -m benchmarks.peak_memory flux 0 ours`` prints it for one way of one comparison [GiB].
"""

from __future__ import annotations

import importlib
import resource
import subprocess
import sys
from pathlib import Path

GIB = 2**30
STATUS = Path("/proc/self/status")


def peak_memory() -> float:
    """The largest resident set of this process so far [GiB]."""
    if STATUS.exists():
        # Unlike the resource usage, which a new process takes over from the one that started it.
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024 / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def in_own_processes(group: str, index: int) -> tuple[float, float]:
    """Peak memory of a process that only runs ours, and of one that only runs the reference [GiB].

    ``index`` is the place of a comparison in its group.
    """

    def run(way: str) -> float:
        command = [sys.executable, "-m", "benchmarks.peak_memory", group, str(index), way]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return float(done.stdout.splitlines()[-1])

    return run("ours"), run("reference")


if __name__ == "__main__":
    _, name, place, which = sys.argv
    comparison = importlib.import_module(f"benchmarks.{name}").comparisons()[int(place)]
    getattr(comparison, which)()
    print(peak_memory())
