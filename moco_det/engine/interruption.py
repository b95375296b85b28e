"""SIGTERM and SIGUSR1, by which schedulers announce the end: a checkpoint after the step, then exit STOPPED."""

import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator

from detectron2.engine import HookBase
from detectron2.utils import comm

from moco_det.utils.errors import STOPPED

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(HookBase):
    """Ends a run after the step in which any of its processes got one of SIGNALS. Comes after the other hooks.

    All processes end after the same step: they tell each other after each. A run whose last step is done continues
    to its end.
    """

    def __init__(self, save: Callable[[], None]):
        """
        Args:
            save: called on all processes, with the trainer after a whole step.
        """
        self._save = save
        self._asked: str | None = None

    def before_train(self):
        self._handlers = {number: signal.signal(number, only_here(self._ask)) for number in SIGNALS}

    def after_train(self):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int) -> None:
        self._asked = signal.Signals(number).name

    def after_step(self):
        asked = list(filter(None, comm.all_gather(self._asked)))
        done = self.trainer.iter + 1
        if asked and done < self.trainer.max_iter:
            logger.warning(f"{asked[0]}: saving a checkpoint after step {done}; continue with --resume")
            self._save()
            comm.synchronize()  # the first process to leave takes the others down
            raise SystemExit(STOPPED)


def only_here(act: Callable[[int], None]) -> Callable:
    """A handler of this process; those that it forks end by the signal, as they do without a handler.

    Else nothing could end them: detectron2 reads Cityscapes by a pool of processes, which it ends by SIGTERM.
    """
    _forked_processes_have_no_handler()

    def handle(number: int, frame) -> None:
        act(number)

    handle.only_here = True
    return handle


@functools.cache
def _forked_processes_have_no_handler() -> None:
    """Signals are held while forking, until the child has the system's own answer to them again.

    Python would drop one that comes to a child before it is set up; and a handler of Python's runs between two of
    its instructions, too late for a child that already waits for a lock.
    """
    of_thread = threading.local()

    def hold() -> None:
        of_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def let_in() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, of_thread.mask)

    def let_in_child() -> None:
        for number in SIGNALS:
            if hasattr(signal.getsignal(number), "only_here"):
                signal.signal(number, signal.SIG_DFL)
        let_in()

    os.register_at_fork(before=hold, after_in_parent=let_in, after_in_child=let_in_child)


@contextlib.contextmanager
def passes_signals_on() -> Iterator[None]:
    """A process that waits for those it started hands SIGNALS on to them, instead of dying."""

    def pass_on(number: int) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, number)

    handlers = {number: signal.signal(number, only_here(pass_on)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
