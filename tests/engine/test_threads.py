"""The number of threads on a CPU, and the words of a run that others slow down."""

import logging
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from moco_det.config import get_cfg
from moco_det.engine import threads
from moco_det_cli import cores


@pytest.fixture
def machine(monkeypatch):
    """A machine of eight cores on which others use as many as the test says; torch would take all eight."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for module in (cores, threads):
        monkeypatch.setattr(module, "num_cores" if module is threads else "usable_cores", lambda: 8)
    monkeypatch.setattr(cores, "allowed_cores", lambda: set(range(8)))
    own = torch.get_num_threads()
    torch.set_num_threads(8)
    yield lambda busy: monkeypatch.setattr(threads, "busy_cores", lambda seconds: busy)
    torch.set_num_threads(own)


def config(workers=2, device="cpu"):
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.DATALOADER.NUM_WORKERS = device, workers
    return cfg


@pytest.mark.parametrize(
    "busy, workers, expected",
    [
        (0.0, 0, 8),  # all
        (0.0, 2, 7),  # one for the workers
        (0.2, 0, 8),  # what little a desktop does
        (1.0, 0, 7),
        (2.1, 2, 5),
        (6.0, 2, 2),  # of two, none for the workers
        (7.0, 2, 1),
        (8.0, 2, 1),  # at least one
        (None, 2, 7),  # the system does not tell
    ],
)
def test_threads_leave_others_their_cores(machine, busy, workers, expected):
    machine(busy)
    threads.choose_threads(config(workers))
    assert torch.get_num_threads() == expected


def test_the_user_s_number_wins_and_a_busy_machine_is_named(machine, monkeypatch, caplog):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with caplog.at_level(logging.INFO):
        machine(0.2)
        threads.choose_threads(config())
        assert torch.get_num_threads() == 8 and not caplog.text
        machine(3.0)
        threads.choose_threads(config())
    assert torch.get_num_threads() == 8
    assert (
        "BUSY MACHINE: other programs use 3.0 of 8 cores" in caplog.text
        and "OMP_NUM_THREADS=5" in caplog.text
    )


def test_on_a_gpu_threads_are_left_alone(machine):
    machine(5.0)
    threads.choose_threads(config(device="cuda"))
    assert torch.get_num_threads() == 8


@pytest.mark.parametrize(
    "saved, variable, expected", [(3, None, 3), (3, "8", 8), (9, None, 8), (None, None, 8)]
)
def test_a_run_goes_on_with_its_threads(machine, monkeypatch, saved, variable, expected):
    machine(0.0)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert threads.keep_threads(saved) == torch.get_num_threads() == expected


def run_steps(watch, seconds, monkeypatch, data_seconds=0.0):
    """Let ``watch`` see steps of these lengths, by a clock of our own."""
    clock = [0.0]
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
    watch.trainer = SimpleNamespace(data_seconds=data_seconds)
    for length in seconds:
        watch.before_step()
        clock[0] += length
        watch.after_step()


def test_steps_that_become_slow_are_named_once_with_the_fix(machine, monkeypatch, caplog):
    watch = threads.SlowStepWatch(config())
    run_steps(watch, [1.0] * 20 + [0.5] * 20 + [1.4] * 20, monkeypatch)
    assert not caplog.text  # 2.8 times
    run_steps(watch, [1.6] * 60, monkeypatch)
    (record,) = caplog.records
    assert (
        "SLOW STEPS: the last 20 took 1.60 s each, 3.2 times the fastest of this run (0.50 s)"
        in record.message
    )
    assert (
        "with 8 threads on 8 cores" in record.message and "--resume and OMP_NUM_THREADS=4" in record.message
    )


def test_waiting_for_images_is_no_slow_step(machine, monkeypatch, caplog):
    watch = threads.SlowStepWatch(config())
    run_steps(watch, [0.5] * 20, monkeypatch)
    run_steps(watch, [2.5] * 20, monkeypatch, data_seconds=2.0)
    assert not caplog.text


def test_a_gpu_s_steps_are_not_judged(machine, monkeypatch, caplog):
    watch = threads.SlowStepWatch(config(device="cuda"))
    run_steps(watch, [0.5] * 20 + [5.0] * 20, monkeypatch)
    assert not caplog.text


def test_a_busy_program_is_seen():
    """Pinned to one core, with a process beside it that computes there."""
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    allowed = os.sched_getaffinity(0)
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        os.sched_setaffinity(0, {core})
        time.sleep(0.3)
        assert cores.usable_cores() == 1 and cores.busy_cores() > 0.8 and cores.free_cores(0.9) == 1
    finally:
        process.kill()
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    "files, own, expected, usable",
    [
        (
            {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"},
            "0::/a/b",
            2.5,
            3,
        ),  # of the group above
        ({"cpu.max": "150000 100000"}, "0::/", 1.5, 2),  # as a container sees its own group
        ({"a/cpu.max": "max 100000"}, "0::/a", float("inf"), 8),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", 0.5, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", float("inf"), 8),
        ({}, "", float("inf"), 8),
    ],
)
def test_the_quota_of_a_container(tmp_path, monkeypatch, files, own, expected, usable):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert cores.cgroup_quota(tmp_path, tmp_path / "own") == expected
    monkeypatch.setattr(cores, "cgroup_quota", lambda: expected)
    monkeypatch.setattr(cores, "allowed_cores", lambda: set(range(8)))
    assert cores.usable_cores() == usable
