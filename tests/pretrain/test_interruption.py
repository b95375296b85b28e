"""Runs that are killed or asked to stop, at any moment, end with the weights of the run that was left alone.

The runs are processes of a server that has imported the package, so that each starts at once.
"""

import contextlib
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections import OrderedDict

import pytest
import torch

from moco_det.engine.checkpoint_files import newest_first
from moco_det.engine.interruption import StopOnSignal, passes_signals_on
from moco_det.engine.run_folder import prepare_run_folder
from moco_det.pretrain.moco import model as moco
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import tiny_pretrain_config, write_random_images
from moco_det.utils.errors import STOPPED

# 24 images in batches of 8: 3 steps and a checkpoint an epoch.
EPOCHS = 4


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moco_det.pretrain.command", "moco_det.testing.core"])
    return context


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_random_images(folder, 24)
    return folder


@pytest.fixture(scope="module")
def alone(server, images, tmp_path_factory):
    """The run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("alone")
    assert run(server, images, folder) == 0
    return folder


def run(server, images, folder, disturb=None, *details, **settings) -> int:
    """Start or continue the run in ``folder``; its exit code. ``disturb(trainer, *details)`` comes before it."""
    process = server.Process(target=train, args=(images, folder, disturb, details, settings))
    process.start()
    return exit_code(process)


def exit_code(process) -> int:
    process.join(60)
    if process.exitcode is None:
        process.kill()
        pytest.fail("the run hangs")
    return process.exitcode


def train(images, folder, disturb, details, settings) -> None:
    # As on Linux by default: workers belong to the group of their run, and see when it is killed.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    moco.build_resnet = tiny_encoder
    cfg = tiny_pretrain_config(folder, EPOCHS=EPOCHS, CHECKPOINT_KEEP=2)
    cfg.DATASETS.IMAGES = str(images)
    cfg.DATALOADER.NUM_WORKERS = settings.get("workers", 0)
    prepare_run_folder(cfg, resume=True)
    trainer = PretrainTrainer(cfg)
    trainer.resume()
    if disturb is not None:
        disturb(trainer, *details)
    trainer.run()


def tiny_encoder(arch, norm, num_classes, stem, in_channels) -> torch.nn.Module:
    """Replace the ResNet: checkpoints of kilobytes, steps of milliseconds, the same kinds of state."""
    layers = {
        "conv": torch.nn.Conv2d(3, 16, 5, stride=4, bias=False),
        "norm": norm(16),
        "relu": torch.nn.ReLU(),
        "pool": torch.nn.AdaptiveAvgPool2d(1),
        "flat": torch.nn.Flatten(),
        "fc": torch.nn.Linear(16, num_classes),
    }
    return torch.nn.Sequential(OrderedDict(layers))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_step(trainer, step: int) -> None:
    signal_in_step(trainer, step, signal.SIGKILL)


def signal_in_step(trainer, step: int, number: int) -> None:
    forward = trainer.method.forward

    def forward_and_signal(batch):
        if batch["iteration"] == step:
            os.kill(os.getpid(), number)
        return forward(batch)

    trainer.method.forward = forward_and_signal


def die_in_save(trainer, which: int, when: str) -> None:
    """Die in save number ``which`` of this process: half-written, not named, or named and not noted."""
    save, replace, saves = torch.save, os.replace, []

    def torch_save(data, path):
        saves.append(path)
        if len(saves) == which and when == "half-written":
            whole = io.BytesIO()
            save(data, whole)
            path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
            die()
        save(data, path)

    def os_replace(source, target):
        is_due = len(saves) == which and str(target).endswith(".pth")
        if is_due and when == "written":
            die()
        replace(source, target)
        if is_due and when == "named":
            die()

    torch.save, os.replace = torch_save, os_replace


def die_after(trainer, seconds: float) -> None:
    threading.Timer(seconds, die).start()


def assert_equal_runs(folder, alone) -> None:
    """Weights, dictionary and optimizer bit for bit; each step once in metrics.json, with the same numbers."""
    ours, theirs = (torch.load(f / "model_final.pth", weights_only=True) for f in (folder, alone))
    assert ours["model"].keys() == theirs["model"].keys() and ours["iteration"] == theirs["iteration"]
    for name, value in theirs["model"].items():
        assert torch.equal(value, ours["model"][name]), name
    for number, state in theirs["optimizer"]["state"].items():
        buffer = ours["optimizer"]["state"][number]["momentum_buffer"]
        assert torch.equal(buffer, state["momentum_buffer"]), number
    ours, theirs = (
        [json.loads(line) for line in (f / "metrics.json").read_text().splitlines()] for f in (folder, alone)
    )
    for lines in (ours, theirs):
        assert [line["iteration"] for line in lines] == list(range(3 * EPOCHS))
    assert [line["total_loss"] for line in ours] == [line["total_loss"] for line in theirs]
    assert not list(folder.glob(".*.tmp"))
    assert [path.stem for path in newest_first(folder)] == ["model_final", "model_0000011", "model_0000008"]


def test_a_run_survives_kills_and_stops(server, images, alone, tmp_path):
    """Kills come before the first checkpoint, inside saves and between steps; short form of the stress test."""
    killed = -signal.SIGKILL
    assert run(server, images, tmp_path, die_before_step, 1) == killed
    assert run(server, images, tmp_path, die_in_save, 1, "half-written") == killed
    assert not newest_first(tmp_path) and list(tmp_path.glob(".model_0000002.pth.*.tmp"))
    assert run(server, images, tmp_path, die_in_save, 2, "written") == killed
    assert [path.stem for path in newest_first(tmp_path)] == ["model_0000002"]
    assert run(server, images, tmp_path, signal_in_step, 4, signal.SIGTERM) == STOPPED
    assert newest_first(tmp_path)[0].stem == "model_0000004"
    assert run(server, images, tmp_path, die_in_save, 1, "named") == killed
    # The file has its name, so nothing of its steps is lost, though last_checkpoint names the one before.
    assert newest_first(tmp_path)[0].stem == "model_0000005"
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    assert run(server, images, tmp_path, signal_in_step, 7, signal.SIGUSR1, workers=1) == STOPPED
    assert run(server, images, tmp_path) == 0
    assert_equal_runs(tmp_path, alone)


@pytest.mark.stress
def test_a_run_survives_twenty_kills(server, images, alone, tmp_path):
    rng = random.Random(0)
    counts = {"before the first checkpoint": 0, "in a save": 0, "at any moment": 0}
    for step in (0, 1):
        assert run(server, images, tmp_path, die_before_step, step) == -signal.SIGKILL
        counts["before the first checkpoint"] += not newest_first(tmp_path)
    for when in ("half-written", "written", "named") * 2:
        assert run(server, images, tmp_path, die_in_save, 1, when) == -signal.SIGKILL
        counts["in a save"] += 1
    while sum(counts.values()) < 20:
        code = run(server, images, tmp_path, die_after, rng.uniform(0, 1), workers=rng.randrange(3))
        if code == 0:  # it came to its end: the last epochs again
            for path in newest_first(tmp_path)[:2]:
                path.unlink()
        else:
            assert code == -signal.SIGKILL
            counts["at any moment"] += 1
    assert run(server, images, tmp_path) == 0
    assert_equal_runs(tmp_path, alone)
    print(counts)


def fill_the_disk(trainer) -> None:
    """No file may grow beyond half a checkpoint from now on; what is there stays."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails as on a full disk, with an error
    limit = newest_first(trainer.cfg.OUTPUT_DIR)[0].stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(server, images, alone, tmp_path):
    """Real writes that fail half-way, not a stand-in."""
    assert run(server, images, tmp_path, signal_in_step, 4, signal.SIGTERM) == STOPPED
    before = {path.name: path.read_bytes() for path in newest_first(tmp_path)}
    assert run(server, images, tmp_path, fill_the_disk) == 1
    assert {path.name: path.read_bytes() for path in newest_first(tmp_path)} == before
    assert not list(tmp_path.glob(".model*"))
    assert run(server, images, tmp_path) == 0
    assert_equal_runs(tmp_path, alone)


def damage_newest(folder) -> str:
    path = newest_first(folder)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path.name


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(server, images, alone, tmp_path):
    assert run(server, images, tmp_path, die_before_step, 7) == -signal.SIGKILL
    name = damage_newest(tmp_path)
    assert run(server, images, tmp_path) == 0
    log = (tmp_path / "log.txt").read_text()
    assert f"{name}' is damaged" in log and "going back to the one before it" in log
    assert_equal_runs(tmp_path, alone)


def test_a_stop_comes_within_a_step_although_workers_are_signalled_too(server, images, tmp_path):
    """The whole process group gets the signal, as from a scheduler."""
    started = server.Event()
    process = server.Process(target=train_in_group, args=(images, tmp_path, started))
    process.start()
    assert started.wait(60)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    assert exit_code(process) == STOPPED and time.monotonic() - began < 20
    assert newest_first(tmp_path)


def train_in_group(images, folder, started) -> None:
    os.setpgid(0, 0)
    train(images, folder, tell, (started,), {"workers": 2})


def tell(trainer, started) -> None:
    forward = trainer.method.forward

    def forward_and_tell(batch):
        if batch["iteration"] == 1:
            started.set()
            time.sleep(0.5)  # the signal arrives here
        return forward(batch)

    trainer.method.forward = forward_and_tell


def exit_by_handlers() -> None:
    """With code 0 if this process has the system's own answer to both signals, and holds neither back."""
    numbers = {signal.SIGTERM, signal.SIGUSR1}
    free = not numbers & signal.pthread_sigmask(signal.SIG_BLOCK, ())
    raise SystemExit(not free or any(signal.getsignal(number) != signal.SIG_DFL for number in numbers))


@pytest.mark.parametrize("waits", ["trains", "passes on"])
def test_processes_forked_meanwhile_end_by_the_signal(waits):
    """A pool ends its processes by SIGTERM and waits for them."""
    hook = StopOnSignal(save=lambda: None)
    with passes_signals_on() if waits == "passes on" else contextlib.nullcontext():
        if waits == "trains":
            hook.before_train()
        try:
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            child.start()
            child.terminate()
            child.join(10)
            assert child.exitcode == -signal.SIGTERM
            # Not by a handler of Python's, which a child that waits for a lock may never run.
            child = multiprocessing.get_context("fork").Process(target=exit_by_handlers)
            child.start()
            child.join(10)
            assert child.exitcode == 0
        finally:
            child.kill()
            if waits == "trains":
                hook.after_train()
