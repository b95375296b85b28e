"""The command line in several processes: torchrun, and machines that join over the network. On CPUs, with gloo."""

import json
import os
import socket
import subprocess
import sys

import pytest

from moco_det.testing.core import REPOSITORY, write_random_images

RUN = (
    *(
        "tools/pretrain_moco.py",
        "--config-file",
        "configs/Pretrain/moco_v2_R_50_200ep.yaml",
        "--num-gpus",
        "0",
    ),
    *("--images", "images"),
)
TINY = (
    *("MODEL.ENCODER.ARCH", "resnet18", "MODEL.MOCO.DIM", "16", "MODEL.MOCO.QUEUE_SIZE", "16"),
    *("MODEL.ENCODER.BN_GROUP_SIZE", "8", "INPUT.VIEWS.SIZE", "32", "SOLVER.IMS_PER_BATCH", "8"),
    *("SOLVER.EPOCHS", "1", "SOLVER.LOG_PERIOD", "1", "DATALOADER.NUM_WORKERS", "0", "SEED", "1"),
)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(folder, *command):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    tool = next(place for place, word in enumerate(command) if word.startswith("tools/"))
    command = [*command[:tool], str(REPOSITORY / command[tool]), *command[tool + 1 :]]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE)


def losses(folder, name):
    return [
        json.loads(line)["total_loss"] for line in (folder / name / "metrics.json").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs of three steps, side by side: one process, torchrun with two, two machines of one each."""
    folder = tmp_path_factory.mktemp("launch")
    write_random_images(folder / "images", 24)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    join = ("--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}", "--machine-rank")
    runs = [
        start(folder, sys.executable, *RUN, *TINY, "OUTPUT_DIR", "one"),
        start(folder, *torchrun, "--master-port", str(free_port()), *RUN, *TINY, "OUTPUT_DIR", "torchrun"),
        start(folder, sys.executable, *RUN, *join, "0", *TINY, "OUTPUT_DIR", "machines"),
        start(folder, sys.executable, *RUN, *join, "1", *TINY, "OUTPUT_DIR", "machines"),
    ]
    for run in runs:
        _, error = run.communicate(timeout=300)
        assert run.returncode == 0, error
    return folder


@pytest.mark.parametrize("name", ["torchrun", "machines"])
def test_two_processes_log_the_losses_of_one(folder, name):
    """A batch-norm group spans the two; in float32 the first losses agree, later ones part by rounding."""
    ours, alone = losses(folder, name), losses(folder, "one")
    assert ours[0] == pytest.approx(alone[0], rel=1e-5)
    assert len(ours) == len(alone) == 3
    assert "on 2 x cpu" in (folder / name / "log.txt").read_text()
    assert (folder / name / "run.json").exists()
