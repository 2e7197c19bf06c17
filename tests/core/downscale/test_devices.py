"""Device, threads and memory budget."""

import pytest
import torch

from core.downscale import DownscaleError, choose_device, default_threads
from core.downscale.devices import batch_size


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1025", "\u0664"])
def test_wrong_thread_counts_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TRAMONTANA_THREADS", text)
    with pytest.raises(DownscaleError, match="TRAMONTANA_THREADS"):
        default_threads()


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in ("cpu", "cuda", "mps")
    for name in ("quantum", "cuda:99", "meta", "hpu:1"):
        with pytest.raises(DownscaleError, match=name):
            choose_device(name)


def test_a_budget_holds_at_least_one() -> None:
    cpu = torch.device("cpu")
    assert batch_size(2**30, cpu, 3.5) == 3
    assert batch_size(2**30, cpu, 0.0) == 1
    assert batch_size(2**30, cpu, None) == 2
    assert batch_size(2**40, cpu, None) == 1
    assert batch_size(2**30, cpu, float("inf")) > 1000
