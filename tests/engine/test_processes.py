"""Runs of several processes on a CPU: one that is lost takes the others down and is named; all must agree."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
from detectron2.utils import comm
from torch import distributed

from moco_det.data.image_files import names_digest
from moco_det.engine.agreement import check_agreement, code_digest, settings_and_code
from moco_det.engine.lost_processes import Heartbeat, with_heartbeat
from moco_det.testing.core import run_processes, tiny_pretrain_config
from moco_det.utils.errors import LOST

COUNT = 3


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moco_det.pretrain.command", "moco_det.testing.core"])
    return context


def join(rank, folder, behave) -> None:
    with open(folder / f"{rank}.err", "w") as errors:
        os.dup2(errors.fileno(), 2)
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=COUNT)
    Heartbeat.__init__.__defaults__ = (0.2, 3.0)
    with_heartbeat(behave, rank)
    distributed.destroy_process_group()
    os._exit(0)


def work_on(rank) -> None:
    time.sleep(300)


def die_alone(rank) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    work_on(rank)


def freeze_alone(rank) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    work_on(rank)


def first_dies(rank) -> None:
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    work_on(rank)


def die_in_a_collective(rank) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.all_reduce(torch.ones(1))


def leave_one_after_the_other(rank) -> None:
    time.sleep(rank / 2)


def leave_before_the_first(rank) -> None:
    """Process 0 learns last that all have done their work, some beats after the others."""
    synchronize = comm.synchronize
    comm.synchronize = lambda: (synchronize(), time.sleep(0 if rank else 1))


def stop_together(rank) -> None:
    raise SystemExit(75)


def codes(server, folder, behave) -> list[int]:
    """Exit codes of the processes; one that is frozen is not waited for."""
    processes = [server.Process(target=join, args=(rank, folder, behave)) for rank in range(COUNT)]
    for process in processes:
        process.start()
    waited = [p for rank, p in enumerate(processes) if (behave, rank) != (freeze_alone, 1)]
    for process in waited:
        process.join(200)
    for process in processes:
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


@pytest.mark.parametrize(
    "behave, lost", [(die_alone, 1), (die_in_a_collective, 1), (freeze_alone, 1), (first_dies, 0)]
)
def test_one_lost_process_ends_all_and_is_named(server, tmp_path, behave, lost):
    """Who is left would work for minutes."""
    left = [rank for rank in range(COUNT) if rank != lost]
    found = codes(server, tmp_path, behave)
    assert [found[rank] for rank in left] == [LOST, LOST]
    said = {rank: (tmp_path / f"{rank}.err").read_text() for rank in left}
    if lost:
        assert f"error: process {lost} of 3 does not answer" in said[0]
    # The others repeat it, or say that they lost process 0.
    assert (
        f"error: process {lost} of 3 does not answer" in said[2] or "error: process 0 is gone, or" in said[2]
    )


@pytest.mark.parametrize(
    "behave, code", [(leave_one_after_the_other, 0), (leave_before_the_first, 0), (stop_together, 75)]
)
def test_processes_that_leave_raise_no_alarm(server, tmp_path, behave, code):
    assert codes(server, tmp_path, behave) == [code] * COUNT
    assert all("error" not in (tmp_path / f"{rank}.err").read_text() for rank in range(COUNT))


def _disagree() -> str:
    rank = distributed.get_rank()
    cfg = tiny_pretrain_config(f"of_{rank}")
    check_agreement(settings_and_code(cfg))  # OUTPUT_DIR may differ
    cfg.SOLVER.BASE_LR = 0.03 + rank
    try:
        check_agreement({**settings_and_code(cfg), "code": "abc", "images": "3" if rank else "4"})
    except ValueError as error:
        return str(error)
    return ""


def test_processes_that_disagree_are_told_in_what():
    first, second = run_processes(_disagree, 2)
    assert first == second
    assert "SOLVER.BASE_LR is 0.03 on 0 and 1.03 on 1; images is '4' on 0 and '3' on 1 (number" in first
    assert "code" not in first.replace("command, code", "")


def test_facts_are_of_the_code_and_of_the_images():
    facts = settings_and_code(tiny_pretrain_config())
    assert facts["the code of moco_det"] == code_digest() and facts["MODEL.MOCO.DIM"] == 16
    assert "OUTPUT_DIR" not in facts and facts["torch"].startswith(torch.__version__.split("+")[0])
    here = names_digest(["/a/x.jpg", "/a/y.jpg"], "/a")
    assert here == names_digest(["/b/x.jpg", "/b/y.jpg"], "/b") and here.startswith("2 ")
    assert here != names_digest(["/a/y.jpg", "/a/x.jpg"], "/a")
