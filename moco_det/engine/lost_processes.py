"""A process of a run that dies or is stopped takes the others down soon, with a message that names it.

Without this, the others wait for it in a collective operation: until its connection closes (gloo), or for the half
hour that NCCL is given.
"""

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
# Seconds within which each process must answer; one that is stopped is noticed then.
PATIENCE = 60.0
# How torch tells process 0 which process does not come to a monitored barrier.
_NAMED = re.compile(r"Rank (\d+) failed to pass monitoredBarrier")
# How the loss of another process shows in the middle of a step.
_BROKEN = re.compile("gloo|nccl|connection|socket|broken pipe|timed? ?out|peer", re.IGNORECASE)


class Heartbeat:
    """All processes of a run meet at a barrier every PERIOD seconds, in a thread, over a group of their own.

    Where one does not come, process 0 says which, and all end with exit code LOST.
    """

    def __init__(self, period: float = PERIOD, patience: float = PATIENCE):
        self._period, self._patience = period, datetime.timedelta(seconds=patience)
        # gloo, which waits on the CPU, whatever the run has.
        self._group = distributed.new_group(backend="gloo", timeout=2 * self._patience)
        self._leaving = threading.Event()
        self._failed = False
        self._beats = 0  # to which all came
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        # The others are more patient than process 0, so that it is the one to say who is lost.
        patience = self._patience if comm.get_rank() == 0 else 2 * self._patience
        go_on = torch.ones(1)
        while go_on:
            self._leaving.wait(self._period)
            try:
                distributed.monitored_barrier(self._group, patience)
                go_on.fill_(not self._leaving.is_set())
                distributed.broadcast(go_on, 0, group=self._group)  # all leave after the same beat
            except (RuntimeError, ValueError) as error:  # ValueError: the group is taken down
                if self._failed:
                    return
                give_up(self._lost(error))
            self._beats += 1

    def _lost(self, error: Exception) -> int | None:
        """The process that did not come to the barrier, as process 0 knows it; None on the others."""
        if comm.get_rank() != 0:
            return None
        if named := _NAMED.search(str(error)):
            return int(named[1])
        for rank in range(1, comm.get_world_size()):
            try:  # torch names none whose connection was closed before; this fails at once for it
                distributed.irecv(torch.zeros(1), rank, group=self._group)
            except (RuntimeError, ValueError):
                return rank
        return None

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
            after = self._beats + 2  # the first may have started before the loss
            deadline = time.monotonic() + 2 * (self._period + self._patience.total_seconds())
            while self._beats < after and time.monotonic() < deadline:
                time.sleep(0.05)
        self._failed = True


def give_up(lost: int | None) -> None:
    """End this process at once, whatever its other threads wait for; ``lost``: the one that is gone, if known."""
    who = f"process {lost} of {comm.get_world_size()} does not answer"
    if lost is None:
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
    heartbeat = Heartbeat()
    try:
        function(*args)
    except SystemExit:  # on all at once: a stop by a signal
        heartbeat.close()
        raise
    except BaseException as error:
        heartbeat.fail(error)
        raise
    heartbeat.close()
