"""What ``panel serve explorer/app.py`` opens; stores and ``--checkpoints``, ``--stations`` follow ``--args``."""

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
# Several visitors share the cores; spinning threads would take them from each other. Read when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if ROOT not in sys.path:  # a clone that was not installed
    sys.path.insert(0, ROOT)

from explorer.page import show  # noqa: E402

show()
