"""What the command lines share: how they end when the user can mend it, and how many GPUs they take."""

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable

import torch
from torch.multiprocessing import ProcessRaisedException


def user_errors(function: Callable) -> Callable:
    """Turn the errors that a user can mend into ``error: …`` on stderr and exit code 2.

    These are ValueError, OSError and FloatingPointError, also when raised in a process that
    :func:`detectron2.engine.launch` started. ``MOCO_DET_TRACEBACK=1`` in the environment shows the whole
    traceback instead.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        if os.environ.get("MOCO_DET_TRACEBACK") == "1":
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError, FloatingPointError) as error:
            message = str(error)
        except ProcessRaisedException as error:
            message = _message_of_child(str(error))
            if message is None:
                raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

    return wrapped


def _message_of_child(traceback: str) -> str | None:
    """What the last error of a child's traceback says; None when it is not one that a user can mend."""
    found = list(re.finditer(r"^(?:\w+\.)*(\w+): ", traceback, flags=re.MULTILINE))
    mendable = ("ValueError", "OSError", "FileNotFoundError", "PermissionError", "FloatingPointError")
    return traceback[found[-1].end() :].strip() if found and found[-1][1] in mendable else None


def settle_processes(args: argparse.Namespace) -> None:
    """Set ``args.num_gpus``: those asked for, else one where there is one; 0 is the CPU.

    Raises:
        ValueError: more are asked for than this machine has, or several machines without GPUs.
    """
    available = torch.cuda.device_count()
    if args.num_gpus is None:
        args.num_gpus = min(1, available)
    if not 0 <= args.num_gpus <= available:
        raise ValueError(
            f"--num-gpus is {args.num_gpus}, but this machine has {available} CUDA GPUs; expected 0 (the CPU) "
            f"to {available}"
        )
    if args.num_machines > 1 and args.num_gpus == 0:
        raise ValueError(
            f"--num-machines is {args.num_machines}, but --num-gpus is 0; several machines need GPUs"
        )
