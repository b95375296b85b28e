"""How commands end: one sentence for what a user can mend, also when a started process raised it."""

import pytest
import torch

from moco_det.cli import user_errors


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
