"""A process of a run that dies or hangs takes the others down soon, with a message that names it.

Without this, the others wait for it in a collective operation: until its connection closes (gloo), or for the half
hour that NCCL is given.
"""

import contextlib
import datetime
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable

import torch
from detectron2.utils import comm
from torch import distributed

from moco_det.utils.errors import LOST

logger = logging.getLogger(__name__)

# Seconds between two heartbeats; a process that died is noticed at the next.
PERIOD = 5.0
# Seconds within which each process must answer; one that is stopped or hangs is noticed then.
PATIENCE = 60.0
# What process 0 says at the end of a call, or does not say; else the number of a process that is lost.
_GO_ON, _LEAVE, _SILENCE = -1, -2, -3
# How the loss of another process shows in the middle of a step.
_BROKEN = re.compile("gloo|nccl|connection|socket|broken pipe|timed? ?out|peer", re.IGNORECASE)


class Heartbeat:
    """All processes of a run answer to process 0 every PERIOD seconds, from a thread, over a group of their own.

    Where one does not answer, process 0 tells the others which, and all end with exit code LOST.
    """

    def __init__(self, period: float = PERIOD, patience: float = PATIENCE):
        self._period, self._patience = period, datetime.timedelta(seconds=patience)
        # gloo, which waits on the CPU, whatever the run has. The others are more patient than process 0, so that
        # they hear from it.
        self._group = distributed.new_group(backend="gloo", timeout=2 * self._patience)
        self._leaving = threading.Event()
        self._failed = False
        self._calls = 0  # that all answered
        self._thread = threading.Thread(target=self._call, daemon=True)
        self._thread.start()

    def _call(self) -> None:
        verdict = _GO_ON
        while verdict == _GO_ON:
            self._leaving.wait(self._period)
            verdict = self._ask() if comm.get_rank() == 0 else self._answer()
            self._calls += 1
            if verdict not in (_GO_ON, _LEAVE) and not self._failed:
                give_up(verdict)

    def _ask(self) -> int:
        """Process 0's part of a call: hears all, then tells all what it found."""
        # Process 0 leaves after all have done their work.
        others, leaving, lost = range(1, comm.get_world_size()), self._leaving.is_set(), None
        for rank in others:
            answer = torch.zeros(1, dtype=torch.int64)
            try:
                distributed.irecv(answer, rank, group=self._group).wait(self._patience)
            except (RuntimeError, ValueError):  # ValueError: the group is taken down
                lost = rank if lost is None else lost
        verdict = torch.tensor([lost if lost is not None else _LEAVE if leaving else _GO_ON])
        for rank in others:
            with contextlib.suppress(RuntimeError, ValueError):  # lost since; the next call finds out
                distributed.send(verdict, rank, group=self._group)
        return int(verdict)

    def _answer(self) -> int:
        verdict = torch.zeros(1, dtype=torch.int64)
        try:
            distributed.send(torch.ones(1, dtype=torch.int64), 0, group=self._group)
            distributed.recv(verdict, 0, group=self._group)
        except (RuntimeError, ValueError):
            return _SILENCE
        return int(verdict)

    def close(self) -> None:
        """All processes leave together, when each has done its work."""
        comm.synchronize()
        self._leaving.set()
        self._thread.join()

    def fail(self, error: BaseException) -> None:
        """This process ends with an error of its own, which is the one to be shown.

        Where a lost process may have caused it, that is told first.
        """
        if isinstance(error, RuntimeError) and _BROKEN.search(str(error)):
            after = self._calls + 2  # the first may have begun before the loss
            deadline = time.monotonic() + 2 * (self._period + self._patience.total_seconds())
            while self._calls < after and time.monotonic() < deadline:
                time.sleep(0.05)
        self._failed = True


def give_up(lost: int) -> None:
    """End this process at once, whatever its other threads wait for; ``lost`` is a verdict."""
    who = f"process {lost} of {comm.get_world_size()} does not answer"
    if lost == _SILENCE:  # after a time-out, gloo gives process 0 no way to tell
        who = "process 0 is gone, or gave up because another does not answer (then its message says which)"
    message = f"{who}: process {comm.get_rank()} ends too; continue with --resume from the last checkpoint"
    logger.error(message)
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(LOST)


def with_heartbeat(function: Callable, *args) -> None:
    """Call ``function(*args)`` in a process of a run; with several, under a Heartbeat."""
    if comm.get_world_size() == 1:
        function(*args)
        return
    roll = Heartbeat()
    try:
        function(*args)
    except SystemExit:  # on all at once: a stop by a signal
        roll.close()
        raise
    except BaseException as error:
        roll.fail(error)
        raise
    roll.close()
