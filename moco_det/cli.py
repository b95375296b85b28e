"""How every command line ends when the user can mend it: one sentence, exit code 2, no traceback."""

import functools
import os
import sys
from collections.abc import Callable


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
