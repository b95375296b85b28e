"""How a command ends when its user can fix the error, and the exit codes that say why a run ended early."""

import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from moco_det.utils.children import end_children
from moco_det.utils.progress import BAR_POSITION

# Exit codes of runs that --resume continues: one that was asked to stop and saved itself (sysexits' EX_TEMPFAIL,
# "try again later"), and one that lost a process (EX_UNAVAILABLE).
STOPPED = 75
LOST = 69
# One that Ctrl-C ended: 128 and SIGINT, as shells count.
INTERRUPTED = 130


def user_errors(function: Callable) -> Callable:
    """Turn the errors that a user can fix into ``error: …`` on stderr and exit code 2.

    These are ValueError, OSError and FloatingPointError, also when raised in a process that
    :func:`detectron2.engine.launch` started. ``MOCO_DET_TRACEBACK=1`` in the environment shows the whole
    traceback instead.

    Ctrl-C ends all processes that the command started, says how to resume, and gives INTERRUPTED.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        if os.environ.get("MOCO_DET_TRACEBACK") == "1":
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError, FloatingPointError) as error:
            message = str(error)
            if message.startswith("Caught ") and "DataLoader worker process" in message:
                message = _message_of_child(message) or message
        except KeyboardInterrupt as interruption:
            _end_interrupted(str(interruption))
        except ProcessRaisedException as error:
            message = _message_of_child(str(error))
            if message is None:
                raise
        except ProcessExitedException as error:
            if error.exit_code in (STOPPED, LOST):  # it has said why
                sys.exit(error.exit_code)
            if not error.signal_name:
                raise
            print(
                f"error: process {error.error_index} of this machine was killed by {error.signal_name}; continue "
                "with --resume from the last checkpoint",
                file=sys.stderr,
            )
            sys.exit(LOST)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

    return wrapped


def _end_interrupted(how: str) -> NoReturn:
    """End after Ctrl-C; ``how`` to resume, empty where nothing was kept."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None  # once is enough
    try:
        end_children()
        if BAR_POSITION not in os.environ:  # else the command that started this one says it
            over = "\r" if sys.stderr.isatty() else ""  # the "^C" of a terminal
            how = how or "nothing was kept; the same command starts again"
            print(f"{over}interrupted: {how}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, before)


def _message_of_child(traceback: str) -> str | None:
    """What the last error of a child's traceback says; None when it is not one that a user can fix."""
    found = list(re.finditer(r"^(?:\w+\.)*(\w+): ", traceback, flags=re.MULTILINE))
    fixable = (
        *("ValueError", "OSError", "FileNotFoundError", "PermissionError", "FloatingPointError"),
        "UnreadableImage",
    )
    return traceback[found[-1].end() :].strip() if found and found[-1][1] in fixable else None
