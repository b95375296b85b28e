"""Timing two versions of the same work side by side, and what they hold in memory."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

Work = Callable[[], int | None]  # does some, returns how many units (None: one)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some numbers of the same quantity: mean and standard deviation (0 for a single one)."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Pair:
    """Seconds for a unit of work, of the reference and of ours, round by round."""

    reference: Sample
    ours: Sample

    @property
    def speedup(self) -> Sample:
        """How many times faster ours is in each round: what disturbed a round disturbed both."""
        return Sample(tuple(r / o for r, o in zip(self.reference.values, self.ours.values, strict=True)))


def alternate(reference: Work, ours: Work, *, rounds: int, seconds: float, device: str) -> Pair:
    """Time both in turns, the other one first in every second round, after one call of each to warm up.

    Args:
        seconds: least time for each of them in a round.
    """
    for work in (reference, ours):
        work()
    found = {reference: [], ours: []}
    for number in range(rounds):
        for work in (reference, ours) if number % 2 == 0 else (ours, reference):
            found[work].append(seconds_a_unit(work, seconds, device))
    return Pair(Sample(tuple(found[reference])), Sample(tuple(found[ours])))


def seconds_a_unit(work: Work, seconds: float, device: str) -> float:
    """Seconds per unit of work that is repeated for at least ``seconds``."""
    _wait(device)
    start, units = time.perf_counter(), 0
    while units == 0 or time.perf_counter() - start < seconds:
        done = work()
        units += 1 if done is None else done
    _wait(device)
    return (time.perf_counter() - start) / units


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(make: Callable[..., Work], arguments: Sequence, device: str) -> int | None:
    """The most memory that a piece of work adds to what was there before it.

    On a CPU it runs in a process of its own, whose peak Linux knows; small arrays drown in what any process takes.

    Args:
        make: an importable function that prepares the work and returns it.

    Returns:
        bytes; None where the system does not tell them.
    """
    if device == "cuda":
        work = make(*arguments)
        work()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_process, (make, tuple(arguments), torch.get_num_threads()))


def _peak_of_process(make: Callable[..., Work], arguments: tuple, threads: int) -> int | None:
    torch.set_num_threads(threads)
    work = make(*arguments)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is held now
        before = _resident_bytes("VmRSS")
    except OSError:  # not Linux
        return None
    work()
    return _resident_bytes("VmHWM") - before


def _resident_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
