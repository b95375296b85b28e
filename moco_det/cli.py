"""What the command lines share: how they end when the user can mend it, and how many GPUs they take."""

import functools
import os
import sys
from collections.abc import Callable

import torch


def user_errors(function: Callable) -> Callable:
    """Turn ValueError and OSError of a command into ``error: …`` on stderr and exit code 2.

    ``MOCO_DET_TRACEBACK=1`` in the environment shows the whole traceback instead.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        if os.environ.get("MOCO_DET_TRACEBACK") == "1":
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return wrapped


def settle_num_gpus(asked: int | None) -> int:
    """How many GPUs a command uses: those asked for, else one where there is one; 0 is the CPU.

    Raises:
        ValueError: more are asked for than this machine has.
    """
    available = torch.cuda.device_count()
    if asked is None:
        return min(1, available)
    if not 0 <= asked <= available:
        raise ValueError(
            f"--num-gpus is {asked}, but this machine has {available} CUDA GPUs; expected 0 (the CPU) "
            f"to {available}"
        )
    return asked
