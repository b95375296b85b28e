"""Files that a run writes line by line, when it goes on after it was killed: whole lines, and each step once."""

import json
import os

from moco_det.files import appears_whole


def cut_metrics(path: str | os.PathLike, start_iteration: int) -> None:
    """Remove from a metrics.json what the steps from ``start_iteration`` on wrote, since they are done again.

    A line that was cut by a kill goes too. Nothing happens when there is no such file.
    """
    if not os.path.exists(path):
        return
    with open(path) as lines:
        kept = [line for line in lines if _iteration(line) < start_iteration]
    with appears_whole(path) as temporary:
        temporary.write_text("".join(kept))


def _iteration(line: str) -> float:
    try:
        return json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def cut_unfinished_line(path: str | os.PathLike) -> None:
    """Remove the last line of a file if it has no end."""
    with open(path, "rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
