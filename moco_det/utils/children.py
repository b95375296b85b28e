"""Processes that a command starts: its signals are for the command to answer, and none of them outlives it."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

# Programs that run now, and seconds that they get to end after Ctrl-C.
_running: set[subprocess.Popen] = set()
PATIENCE = 15.0


def ignore_stop_signals(_worker: int = 0) -> None:
    """The ``worker_init_fn`` of loaders: schedulers and terminals signal all processes, and what stops is the run.

    A worker still ends when the process that started it says so, by SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # which tells who sent it; not on macOS, where a worker ends
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process().pid
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


@contextlib.contextmanager
def map_in_processes(
    processes: int, chunksize: int, start_method: str | None = None
) -> Iterator[Callable[[Callable, Sequence], Iterator]]:
    """A ``map`` by several processes; after Ctrl-C, what they have not begun is canceled."""
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context(start_method))

    def mapped(function: Callable, items: Sequence) -> Iterator:
        # Processes start here, and inherit that Ctrl-C is held back, from their first instruction on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return pool.map(function, items, chunksize=chunksize)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield mapped
    finally:
        pool.shutdown(cancel_futures=True)


def call(command: Sequence[str], **options) -> int:
    """As :func:`subprocess.call`; :func:`end_children` ends what is still running."""
    process = subprocess.Popen(command, **options)
    _running.add(process)
    code = process.wait()
    _running.discard(process)
    return code


def end_children() -> None:
    """End all processes that this one started and still has: by SIGINT, by SIGTERM, at last by SIGKILL."""
    programs = list(_running)
    _wait(programs, 1.0)  # the Ctrl-C of a terminal reached them too
    for program in programs:
        program.send_signal(signal.SIGINT)
    _wait(programs, PATIENCE)
    for program in programs:
        program.kill()
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(PATIENCE)
        child.kill()


def _wait(programs: Sequence[subprocess.Popen], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(program.poll() is None for program in programs):
        time.sleep(0.05)


@contextlib.contextmanager
def resumed_by(how: str) -> Iterator[None]:
    """Work that ``how`` resumes after Ctrl-C, such as "the same command resumes it"."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how) from None
