"""What other programs on the cores cost a run on the CPU, with all threads, with fewer, and with patient ones.

Each way is a process of its own, since the way in which threads wait is settled when torch is loaded.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

import torch

from moco_det.machine import num_cores
from moco_det.speed.clock import Pair, Sample, seconds_a_unit
from moco_det.speed.measurement import Measurement, rates
from moco_det.speed.model import our_step
from moco_det.speed.options import Options

# A small network has many short operations, and each is a wait.
SIZES = {"batch": 32, "size": 64, "queue": 4096}
FOREVER = "while True: pass"


def measure_busy(options: Options) -> Iterator[Measurement]:
    """Steps beside none, one and as many other programs as there are cores; on a CPU alone."""
    cores = num_cores()
    if options.cuda or cores == 1:
        return
    sizes = dataclasses.replace(
        options,
        arch="resnet18",
        **{name: min(value, getattr(options, name)) for name, value in SIZES.items()},
    )
    for others in sorted({0, 1, cores}):
        fewer = max(1, cores - max(others, 1))
        ways = {
            f"{fewer} thread{'s'[: fewer > 1]}": {"OMP_NUM_THREADS": str(fewer)},
            f"{cores} threads that wait asleep (OMP_WAIT_POLICY=PASSIVE)": {
                "OMP_NUM_THREADS": str(cores),
                "OMP_WAIT_POLICY": "PASSIVE",
            },
        }
        step = f"MoCo v2 step, {sizes.arch}, {sizes.batch} images of {sizes.size} px"
        for name, environment in ways.items():
            with other_programs(others):
                pair = _alternate({"OMP_NUM_THREADS": str(cores)}, environment, sizes)
            yield rates("busy", f"{step}, {name}; {others} other busy programs", f"{cores} threads", pair)


@contextlib.contextmanager
def other_programs(count: int) -> Iterator[None]:
    """Programs that compute without end, each on a core."""
    programs = [subprocess.Popen([sys.executable, "-c", FOREVER]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _alternate(reference: dict[str, str], ours: dict[str, str], options: Options) -> Pair:
    """As :func:`moco_det.speed.clock.alternate`, of a step in two processes with these environments."""
    with _stepping(reference, options) as theirs, _stepping(ours, options) as own:
        found = {theirs: [], own: []}
        for number in range(options.rounds):
            for process in (theirs, own) if number % 2 == 0 else (own, theirs):
                process.send(options.seconds)
                found[process].append(process.recv())
    return Pair(Sample(tuple(found[theirs])), Sample(tuple(found[own])))


@contextlib.contextmanager
def _stepping(environment: dict[str, str], options: Options) -> Iterator[Connection]:
    """A process that takes steps for as many seconds as it is sent, and sends back seconds an image."""
    here, there = multiprocessing.Pipe()
    before = os.environ.copy()
    os.environ.update(environment)
    try:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_take_steps, args=(there, options), daemon=True)
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    there.close()
    try:
        here.recv()  # it is warm
        yield here
    finally:
        process.kill()
        process.join()


def _take_steps(parent: Connection, options: Options) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    step = our_step(options, "float32", channels_last=True)
    step()
    parent.send("warm")
    while True:
        parent.send(seconds_a_unit(step, parent.recv(), "cpu"))
