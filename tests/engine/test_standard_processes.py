"""What torch's own parts do where a process of a run is lost: why there is a heartbeat (docs/RELIABILITY.md).

Three processes on a CPU are started by ``torch.multiprocessing.spawn`` or torchrun; process 1 is lost in a step.
"""

import datetime
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import distributed

COUNT, LOST_STEP, PATIENCE = 3, 5, 60.0


def train(rank: int, folder: str, loss: str) -> None:
    patience = datetime.timedelta(seconds=PATIENCE)
    distributed.init_process_group("gloo", f"file://{folder}/meet", patience, COUNT, rank)
    for step in range(10_000):
        distributed.all_reduce(torch.ones(1))
        if (rank, step) == (1, LOST_STEP):
            Path(folder, "lost").write_text(str(time.time()))
            if loss == "exception":
                raise ValueError("a setting is wrong")
            os.kill(os.getpid(), signal.Signals[loss])
        time.sleep(0.1)


@pytest.mark.stress
@pytest.mark.parametrize("start", ["spawn", "torchrun"])
@pytest.mark.parametrize("loss", ["SIGKILL", "SIGTERM", "exception", "SIGSTOP"])
def test_torch_alone_ends_what_died_and_blames_another_for_what_is_stopped(tmp_path, start, loss):
    """If this fails for SIGSTOP, torch has learned it and the heartbeat can go."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(COUNT)]
    command = [sys.executable, *(torchrun if start == "torchrun" else ()), __file__, str(tmp_path), loss]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300).stderr
    seconds = time.time() - float((tmp_path / "lost").read_text())
    blamed = re.search(r"rocess (\d) terminated|Root Cause(?:.|\n)*?rank +: (\d)", said)
    print(f"{start}, {loss}: all at an end after {seconds:.0f} s, process {blamed[1] or blamed[2]} blamed")
    assert ((blamed[1] or blamed[2]) == "1", seconds < PATIENCE) == 2 * (loss != "SIGSTOP",)


if __name__ == "__main__":
    if "RANK" in os.environ:
        train(int(os.environ["RANK"]), *sys.argv[1:])
    else:
        torch.multiprocessing.spawn(train, tuple(sys.argv[1:]), nprocs=COUNT)
