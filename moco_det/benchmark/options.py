"""KEY VALUE pairs that a benchmark or an ablation hands to each of its runs, and words of its command line."""

import argparse
from collections.abc import Sequence

from moco_det.config import get_cfg, merge_config
from moco_det.config.rules import ROWS


def check_options(options: Sequence[str]) -> None:
    """Refuse now what each run would refuse.

    Raises:
        ValueError: a key is unknown, a value of another kind, or it is one that differs from run to run.
    """
    for key in options[0::2]:
        if key in ROWS and ROWS[key].each_run:
            raise ValueError(f"{key} cannot be given after --: it is another one for each run; leave it out")
    merge_config(get_cfg(), "", list(options))


def at_least_one(word: str) -> int:
    """A word of the command line as a number of runs."""
    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {word!r}")
    return int(word)
