"""train.schedule: learning rates by hand and against torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.schedule import cosine_factor, learning_rate, plateau_factor


def test_cosine_runs_from_one_to_zero():
    assert cosine_factor(0) == 1
    assert cosine_factor(0.5) == pytest.approx(0.5)
    assert cosine_factor(1) == pytest.approx(0)
    assert cosine_factor(3) == pytest.approx(0)


def test_cosine_equals_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        ours = learning_rate(0.1, "cosine", step=step, progress=step / 20)
        assert ours == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


@given(st.lists(st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.49999]), max_size=30))
def test_plateau_equals_torch(losses):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.25, patience=3, eps=0)
    for number, loss in enumerate(losses):
        schedule.step(loss)
        assert plateau_factor(losses[: number + 1]) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_warmup_rises_linearly():
    rates = [learning_rate(1.0, "constant", step=step, progress=0, warmup_steps=4) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1, 1, 1]


def test_plateau_follows_the_losses():
    assert learning_rate(1.0, "plateau", step=9, progress=0.9, losses=[1, 2, 2, 2, 2]) == 0.25
