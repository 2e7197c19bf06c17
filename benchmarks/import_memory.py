"""Peak memory of importing, restoring and verifying a checkpoint of published size.

``python -m benchmarks.import_memory`` writes a latent diffusion model of published width with random weights,
moving averages and the optimiser's state (4.9 GB; ``--without-optimizer`` 2.5 GB) to a temporary folder, runs
``tramontana checkpoint import`` and ``verify`` on it in processes of their own, prints their peak memory and
times, and removes the files. The exit status is 1 where the import takes more than 4 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.serialization import skip_data

from core.data.samples import MeanStd, Normalization
from core.diffusion.schedule import Schedule
from core.torch_archive import TorchArchive
from core.variables import PREDICTORS

LIMIT = 4e9
FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
TRAINED = ("denoiser.", "context_encoder.")


def write_published_size(path: Path, *, optimizer: bool) -> None:
    """A checkpoint in the published layout, written without holding it in memory."""
    shapes = json.loads((FIXTURES / "LDM_residual_2mT.keys.json").read_text())
    # Layers of residual blocks are registered twice: the second name stands for the same storage.
    rules = json.loads((FIXTURES / "ldm_tiny_2mT.weight_rules.json").read_text())["rules"]
    with FakeTensorMode():
        state: OrderedDict[str, Tensor] = OrderedDict()
        for key, entry in shapes.items():
            alias = rules.get(key, {}).get("alias_of")
            dtype = getattr(torch, entry["dtype"])
            state[key] = state[alias] if alias in state else torch.empty(entry["shape"], dtype=dtype)
        trained = [tensor for key, tensor in state.items() if key.startswith(TRAINED)]
        moments = {
            number: {"step": 2.0, "exp_avg": torch.empty_like(t), "exp_avg_sq": torch.empty_like(t)}
            for number, t in enumerate(trained if optimizer else [])
        }
        content = {
            "epoch": 1,
            "global_step": 2,
            "pytorch-lightning_version": "2.0.5",
            "state_dict": state,
            "optimizer_states": [{"state": moments, "param_groups": []}],
        }
        with skip_data(materialize_fake_tensors=True):
            torch.save(content, path)
    _fill(path)


def _fill(path: Path) -> None:
    """Small random numbers in every storage that was left empty, and the noise schedule in its own."""
    archive = TorchArchive(path)
    state = archive.value["state_dict"]
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, 2**20).astype("<f4")
    tables = {"alphas_cumprod": Schedule().alpha_bar.astype("<f4")}
    with path.open("r+b") as file:
        for key, value in state.items():
            storage = value.arguments[0].identifier
            member = archive.storage(storage[2])
            file.seek(member.start)
            if archive.tensor(value).dtype != torch.float32:
                continue
            numbers = tables.get(key, noise)
            if key.endswith("running_var"):
                numbers = np.abs(noise) + np.float32(0.5)
            for at in range(0, member.size, numbers.nbytes):
                file.write(numbers.tobytes()[: member.size - at])


def measured(*arguments: str) -> tuple[int, int, float]:
    """(exit status, peak resident memory in bytes, seconds) of a ``tramontana`` command.

    Linux counts the memory of this process, which starts the command, into the peak: about 0.4 GB at least.
    """
    started = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, "-m", "tramontana", *arguments], os.environ)
    _, status, usage = os.wait4(process, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return os.waitstatus_to_exitcode(status), unit * usage.ru_maxrss, time.perf_counter() - started


def main() -> int:
    """Write the file, measure, report, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-optimizer", action="store_true")
    parser.add_argument("--folder", help="where to make the temporary folder")
    options = parser.parse_args()
    one = MeanStd(mean=0.0, std=1.0)
    statistics = Normalization(
        predictors=dict.fromkeys(PREDICTORS, one), targets={"t2m": one}, orography=one, latitude=one
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, result = Path(folder, "LDM.ckpt"), Path(folder, "LDM.safetensors")
        write_published_size(source, optimizer=not options.without_optimizer)
        normalization = Path(folder, "normalization.json")
        normalization.write_text(statistics.model_dump_json())
        print(f"Published file: {source.stat().st_size / 1e9:.2f} GB")
        rows = {
            "import": ("checkpoint", "import", str(source), "--normalization", str(normalization)),
            "show": ("checkpoint", "show", str(result)),
            "verify": ("checkpoint", "verify", str(result)),
        }
        peaks = {}
        for name, arguments in rows.items():
            status, peaks[name], seconds = measured(*arguments)
            if status:
                return status
            print(f"{name}: peak {peaks[name] / 1e9:.2f} GB, {seconds:.1f} s", flush=True)
        print(f"Our file: {result.stat().st_size / 1e9:.2f} GB")
    return int(peaks["import"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
