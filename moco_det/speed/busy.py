"""What other programs on the cores cost a run on the CPU, with all threads, with fewer, and with patient ones.

Each way is a process of its own, since the way in which threads wait is settled when torch is loaded.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection

import torch

from moco_det.engine.threads import VARIABLE
from moco_det.speed.clock import Pair, Sample, seconds_a_unit
from moco_det.speed.measurement import Measurement, rates
from moco_det.speed.model import our_step
from moco_det.speed.options import Options
from moco_det.utils.machine import num_cores

# A small network has many short operations, and each is a wait.
SIZES = {"batch": 32, "size": 64, "queue": 4096}
FOREVER = "while True: pass"


def measure_busy(options: Options) -> Iterator[Measurement]:
    """Steps beside no other program, one, and as many as there are cores; on a CPU of several cores alone."""
    cores = num_cores()
    if options.cuda or cores == 1:
        return
    sizes = {name: min(value, getattr(options, name)) for name, value in SIZES.items()}
    options = dataclasses.replace(options, arch="resnet18", **sizes)
    step = f"MoCo v2 step, {options.arch}, {options.batch} images of {options.size} px"
    reference = f"{cores} threads"
    ways = {reference: {VARIABLE: str(cores)}}
    ways |= {_threads(count): {VARIABLE: str(count)} for count in sorted({1, cores - 1})}
    ways[f"{reference} that sleep while they wait"] = {VARIABLE: str(cores), "OMP_WAIT_POLICY": "PASSIVE"}
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(_stepping(way, options)) for name, way in ways.items()}
        for process in processes.values():
            process.recv()  # it is warm
        for others in sorted({0, 1, cores}):
            with other_programs(others):
                found = _take_turns(processes, options)
            for name in list(ways)[1:]:
                what = f"{step}, {name}; {others} other programs compute"
                yield rates("busy", what, reference, Pair(found[reference], found[name]))


def _threads(count: int) -> str:
    return f"{count} thread{'s'[: count > 1]}"


@contextlib.contextmanager
def other_programs(count: int) -> Iterator[None]:
    """Programs that compute without end, one thread each."""
    programs = [subprocess.Popen([sys.executable, "-c", FOREVER]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _take_turns(processes: Mapping[str, Connection], options: Options) -> dict[str, Sample]:
    """Seconds an image of each, one after the other, the last one first in every second round."""
    found = {name: [] for name in processes}
    for number in range(options.rounds):
        for name in found if number % 2 == 0 else reversed(found):
            processes[name].send(options.seconds)
            found[name].append(processes[name].recv())
    return {name: Sample(tuple(values)) for name, values in found.items()}


@contextlib.contextmanager
def _stepping(environment: Mapping[str, str], options: Options) -> Iterator[Connection]:
    """A process that says when it is warm; sent seconds, it takes steps for as long and sends seconds an image."""
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
    there.close()  # so that a process that ends is met as EOFError
    try:
        yield here
    finally:
        process.kill()
        process.join()


def _take_steps(parent: Connection, options: Options) -> None:
    torch.set_num_threads(int(os.environ[VARIABLE]))
    step = our_step(options, "float32", channels_last=True)
    step()
    parent.send("warm")
    while True:
        parent.send(seconds_a_unit(step, parent.recv(), "cpu"))
