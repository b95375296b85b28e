"""Launchers that start a run again: torchrun after a lost process, SLURM after a signal. Minutes on a CPU."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from moco_det.testing.core import REPOSITORY, write_random_images

pytestmark = pytest.mark.stress

TOOL = str(REPOSITORY / "tools/pretrain_moco.py")
FLAGS = ("--config-file", "Pretrain/moco_v2_R_50_200ep", "--images", "images")
SETTINGS = (
    *("MODEL.ENCODER.ARCH", "resnet18", "MODEL.MOCO.DIM", "16", "MODEL.MOCO.QUEUE_SIZE", "16"),
    *("MODEL.ENCODER.BN_GROUP_SIZE", "4", "INPUT.VIEWS.SIZE", "32", "SOLVER.IMS_PER_BATCH", "8"),
    *("SOLVER.EPOCHS", "6", "SOLVER.LOG_PERIOD", "1", "DATALOADER.NUM_WORKERS", "0", "SEED", "1"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_random_images(tmp_path / "images", 24)
    return tmp_path


def torchrun(output: str, *flags: str) -> list[str]:
    start = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *flags)
    return [*start, TOOL, *FLAGS, "--num-gpus", "0", *SETTINGS, "OUTPUT_DIR", output]


def wait_for(path: Path, run: subprocess.Popen) -> None:
    while not path.exists():
        assert run.poll() is None, "the run ended"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def assert_equal_weights(one: Path, other: Path) -> None:
    ours, theirs = (torch.load(f / "model_final.pth", weights_only=True)["model"] for f in (one, other))
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_torchrun_restarts_a_run_that_lost_a_process(folder):
    """It ends with the weights of the run that lost none, without --resume on the command line."""
    subprocess.run(torchrun("alone"), check=True)
    run = subprocess.Popen(torchrun("cut", "--max-restarts", "1"))
    wait_for(folder / "cut/model_0000005.pth", run)
    os.kill(children(run.pid)[-1], signal.SIGKILL)
    assert run.wait(600) == 0
    assert "Loading from cut/model_" in (folder / "cut/log.txt").read_text()
    assert_equal_weights(folder / "cut", folder / "alone")


# sbatch runs the job as long as it is queued; srun starts a task a machine and, the first time, signals them.
FAKES = {
    "sbatch": """
        export SLURM_JOB_ID=$$ SLURM_JOB_NODELIST=x SLURM_NNODES=2 SLURM_RESTART_COUNT=0
        while :; do
            rm -f queued; bash "$1"; echo $? >> codes
            [ -e queued ] || break
            SLURM_RESTART_COUNT=$((SLURM_RESTART_COUNT + 1))
        done""",
    "srun": """
        for node in 0 1; do SLURM_NODEID=$node "$@" & tasks="$tasks $!"; done
        if [ $SLURM_RESTART_COUNT = 0 ]; then
            until [ -e cut/model_0000005.pth ]; do sleep 0.05; done
            kill -USR1 $tasks
        fi
        worst=0
        for task in $tasks; do wait $task; code=$?; [ $code -gt $worst ] && worst=$code; done
        exit $worst""",
    "scontrol": """
        if [ "$1" = requeue ]; then touch queued; else echo 127.0.0.1; fi""",
}


def test_a_job_on_two_machines_is_signalled_and_goes_on(folder, monkeypatch):
    (folder / "bin").mkdir()
    for name, body in FAKES.items():
        (folder / "bin" / name).write_text("#!/bin/bash\n" + body)
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    subprocess.run(torchrun("alone"), check=True)
    launch = [sys.executable, str(REPOSITORY / "tools/launch_slurm.py"), "--nodes", "2", "--gpus", "0"]
    subprocess.run([*launch, "--", TOOL, *FLAGS, *SETTINGS, "OUTPUT_DIR", "cut"], check=True)
    assert (folder / "codes").read_text().split() == ["75", "0"]
    assert_equal_weights(folder / "cut", folder / "alone")
