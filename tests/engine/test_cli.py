"""How commands end: one sentence for what a user can fix, also when a started process raised it."""

import argparse

import pytest
import torch

from moco_det.engine.launch import choose_gpus, num_processes
from moco_det.utils.errors import user_errors


def _fail(rank, kind):
    raise kind("the cow is missing")


@user_errors
def spawn(kind):
    torch.multiprocessing.spawn(_fail, (kind,), nprocs=1)


@user_errors
def fail_here(kind):
    _fail(0, kind)


@pytest.mark.parametrize("command", [fail_here, spawn])
@pytest.mark.parametrize("kind", [ValueError, FloatingPointError])
def test_an_error_of_the_user_is_one_sentence(command, kind, capfd):
    with pytest.raises(SystemExit) as stop:
        command(kind)
    assert stop.value.code == 2
    assert capfd.readouterr().err.splitlines()[-1] == "error: the cow is missing"


def test_an_error_of_ours_keeps_its_traceback():
    with pytest.raises(KeyError):
        fail_here(KeyError)
    with pytest.raises(torch.multiprocessing.ProcessRaisedException):
        spawn(KeyError)


def arguments(num_gpus=None, num_machines=1):
    return argparse.Namespace(num_gpus=num_gpus, num_machines=num_machines)


@pytest.fixture
def gpus(monkeypatch):
    """A machine with four GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.fixture
def torchrun(monkeypatch):
    """One of two processes on each of two machines."""
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")


@pytest.mark.parametrize(
    "asked, machines, settled, processes",
    [(None, 1, 1, 1), (0, 1, 0, 1), (4, 1, 4, 4), (3, 2, 3, 6), (0, 2, 0, 2)],
)
def test_processes_of_a_machine_with_gpus(gpus, asked, machines, settled, processes):
    args = arguments(asked, machines)
    choose_gpus(args)
    assert args.num_gpus == settled and num_processes(args) == processes


@pytest.mark.parametrize("asked, settled", [(None, 2), (2, 2), (0, 0)])
def test_torchrun_says_how_many(gpus, torchrun, asked, settled):
    args = arguments(asked)
    choose_gpus(args)
    assert args.num_gpus == settled and num_processes(args) == 4


def test_without_a_gpu_it_is_the_cpu(monkeypatch, torchrun):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    args = arguments()
    choose_gpus(args)
    assert args.num_gpus == 0


def test_more_gpus_than_there_are_is_refused(gpus):
    with pytest.raises(ValueError, match="--num-gpus is 8.* 4 CUDA"):
        choose_gpus(arguments(8))


@pytest.mark.parametrize(
    "args, message",
    [
        (arguments(1), "torchrun started 2 processes on this machine, but --num-gpus is 1"),
        (arguments(None, 2), "--num-machines is 2 under torchrun, which has --nnodes"),
    ],
)
def test_what_contradicts_torchrun_is_refused(gpus, torchrun, args, message):
    with pytest.raises(ValueError, match=message):
        choose_gpus(args)
