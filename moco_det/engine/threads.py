"""Threads for arithmetic on a CPU: as many as cores are left by other programs, and a word when a run is slowed.

The threads of one operation wait for one another. Where another program holds the core of one of them, all wait
until the operating system lets that one run, at every operation: a run may fall to a thirtieth of its speed, where
with a thread less it loses that core's part alone.
"""

import logging
import os
import time

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from moco_det.utils.machine import num_cores
from moco_det_cli.cores import busy_cores, free_cores

logger = logging.getLogger(__name__)

VARIABLE = "OMP_NUM_THREADS"
# A fraction of a core that others take is no reason to leave it: what a desktop does in the background.
LITTLE = 0.3
SECONDS = 0.1  # for which the cores are watched
STEPS, SLOWER = 20, 3.0  # steps that are looked at together; times as long as the fastest of the run
QUIET_CHECKS = 50  # between two warnings


def choose_threads(cfg: CfgNode) -> None:
    """Choose the number of threads on a CPU, unless the user did by OMP_NUM_THREADS (torchrun sets it too).

    The cores that no other program uses now; with loader workers, one less where there are more than two. A run's
    rounding depends on it, so a resumed run keeps its own (:func:`keep_threads`).
    """
    if cfg.MODEL.DEVICE != "cpu":
        return
    if VARIABLE in os.environ:
        _warn_of_others()
        return
    busy = _busy()
    threads = min(torch.get_num_threads(), free_cores(busy - LITTLE))
    if threads > 2 and cfg.DATALOADER.NUM_WORKERS:
        threads -= 1
    torch.set_num_threads(threads)
    logger.info(
        f"Computing with {threads} thread{'s'[: threads > 1]}: {busy:.1f} of {num_cores()} cores are busy with "
        f"other programs (export {VARIABLE} to choose)"
    )


def keep_threads(saved: int | None) -> int:
    """Compute with as many threads as a run did before its checkpoint, so that it continues bit for bit.

    The user's OMP_NUM_THREADS wins, and this machine must have the cores.

    Returns:
        the number of threads.
    """
    if VARIABLE not in os.environ and saved and saved <= num_cores():
        torch.set_num_threads(saved)
        _warn_of_others()
    return torch.get_num_threads()


def _busy() -> float:
    return busy_cores(SECONDS) or 0.0


def _warn_of_others() -> None:
    threads = torch.get_num_threads()
    if threads == 1:  # waits for no other
        return
    busy = _busy()
    free = free_cores(busy - LITTLE)
    if threads > free:
        logger.warning(
            f"BUSY MACHINE: other programs use {busy:.1f} of {num_cores()} cores, and this run computes with "
            f"{threads} threads, which wait for one another at every operation. End the others, or stop and start "
            f"again (--resume continues) with {VARIABLE}={free}"
        )


class SlowStepWatch(HookBase):
    """Warns when steps on a CPU take several times as long as the fastest of the run: others use the cores.

    Time in which a step waits for images does not count; another warning speaks of that.
    """

    def __init__(self, cfg: CfgNode):
        self.cpu = cfg.MODEL.DEVICE == "cpu"
        self.seconds, self.steps = 0.0, 0
        self.fastest, self.checks, self.warned = float("inf"), 0, -QUIET_CHECKS

    def before_step(self):
        self.since = time.perf_counter()

    def after_step(self):
        self.seconds += time.perf_counter() - self.since - getattr(self.trainer, "data_seconds", 0.0)
        self.steps += 1
        if self.steps == STEPS:
            self._check(self.seconds / STEPS)
            self.seconds, self.steps = 0.0, 0

    def _check(self, seconds: float) -> None:
        self.checks += 1
        self.fastest = min(self.fastest, seconds)
        slow = seconds > SLOWER * self.fastest and self.checks - self.warned >= QUIET_CHECKS
        if slow and self.cpu and comm.is_main_process():
            self.warned = self.checks
            logger.warning(self.describe(seconds))

    def describe(self, seconds: float) -> str:
        """What is slow, and the fix."""
        threads, cores = torch.get_num_threads(), num_cores()
        fix = (
            f"stop and resume with --resume and {VARIABLE}={threads // 2}" if threads > 1 else "wait for them"
        )
        return (
            f"SLOW STEPS: the last {STEPS} took {seconds:.2f} s each, {seconds / self.fastest:.1f} times the "
            f"fastest of this run ({self.fastest:.2f} s), with {threads} thread{'s'[: threads > 1]} on {cores} "
            f"cores at a load of {os.getloadavg()[0]:.1f}. If other programs use the cores, end them, or {fix}"
        )
