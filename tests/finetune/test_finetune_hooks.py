import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from moco_det.engine.hooks import is_due
from moco_det.finetune.hooks import (
    BroadcastNormStatistics,
    RunState,
    get_generators,
    same_generators,
    set_generators,
)
from moco_det.testing.core import run_processes


def draws():
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(()).item()


def test_generators_go_back_through_a_file(tmp_path):
    np.random.randn()  # leaves a second normal number waiting, which is part of the state
    torch.save(get_generators(), tmp_path / "state.pth")
    first = draws()
    assert draws() != first
    set_generators(torch.load(tmp_path / "state.pth", weights_only=True))
    assert draws() == first


def test_what_runs_aside_draws_nothing():
    state = get_generators()
    expected = draws()
    set_generators(state)
    with same_generators():
        draws()
    assert draws() == expected


@pytest.mark.parametrize(
    ("done", "period", "expected"), [(4, 2, True), (3, 2, False), (9, 0, True), (8, 0, False)]
)
def test_periodic_work_is_due_at_the_end_too(done, period, expected):
    assert is_due(SimpleNamespace(iter=done - 1, max_iter=9), period) == expected


def test_another_seed_at_resume_is_refused():
    state = RunState(3, 1).state_dict()
    RunState(3, 1).load_state_dict(state)
    with pytest.raises(ValueError, match="SEED is 4, .* 3"):
        RunState(4, 1).load_state_dict(state)


def test_seconds_add_up_over_resumes():
    state = RunState(3, 1).state_dict() | {"seconds": 100.0}
    resumed = RunState(3, 1)
    resumed.load_state_dict(state)
    assert 100 < resumed.seconds < 160


def test_another_number_of_processes_is_said(log):
    hook = RunState(3, 1)
    hook.load_state_dict(RunState(3, 1).state_dict() | {"generators": [get_generators()] * 2})
    hook.trainer = SimpleNamespace(start_iter=5)
    state = torch.get_rng_state()
    hook.before_train()
    assert "generators of 2 processes, this run has 1" in log.text
    assert torch.equal(torch.get_rng_state(), state)


def two_processes():
    rank = torch.distributed.get_rank()
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)).train()
    model[0].running_mean.fill_(rank + 1.0)
    model[0].running_var.fill_(rank + 5.0)
    statistics = BroadcastNormStatistics(period=2)
    state = RunState(1, checkpoint_period=2)
    means = []
    for iteration in range(2):
        statistics.trainer = state.trainer = SimpleNamespace(model=model, iter=iteration, max_iter=10)
        torch.manual_seed(10 * rank + iteration)
        statistics.after_step()
        state.after_step()
        means.append((model[0].running_mean[0].item(), model[0].running_var[0].item()))
    saved = state.state_dict()["generators"]
    torch.manual_seed(99)
    state.trainer.start_iter = 2
    state.before_train()
    return means, len(saved), torch.rand(()).item()


def test_two_processes_share_statistics_and_keep_their_own_generators():
    results = run_processes(two_processes, 2)
    assert results[0][0] == [(1.0, 5.0), (1.0, 5.0)]
    assert results[1][0] == [(2.0, 6.0), (1.0, 5.0)]  # broadcast when PreciseBN is due, not before
    for rank, (_, saved, draw) in enumerate(results):
        assert saved == 2
        assert draw == torch.rand((), generator=torch.Generator().manual_seed(10 * rank + 1)).item()
