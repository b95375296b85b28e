"""Files that a run writes line by line, when it resumes after it was killed: whole lines, and each step once.

And what is logged before there is a file for it.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator

from moco_det.utils.files import atomic_write


def cut_metrics(path: str | os.PathLike, start_iteration: int) -> None:
    """Remove from a metrics.json what the steps from ``start_iteration`` on wrote, since they are done again.

    A line that a kill left incomplete is removed too. Nothing happens when there is no such file.
    """
    if not os.path.exists(path):
        return
    with open(path) as lines:
        kept = [line for line in lines if _iteration(line) < start_iteration]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(kept))


def _iteration(line: str) -> float:
    try:
        return json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def read_metrics(path: str | os.PathLike) -> list[dict[str, float]]:
    """The lines of a metrics.json, as names and numbers."""
    with open(path) as lines:
        return [json.loads(line) for line in lines]


class _Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def held_back_logs(names: tuple[str, ...] = ("moco_det", "fvcore")) -> Iterator[None]:
    """Keep what is logged until the end of the block, which checks a run, makes its folder and its log.

    So that a run which is refused leaves nothing behind, and one which starts has all in its log. Where the block
    fails, warnings go to stderr.
    """
    kept, loggers = _Kept(), [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addHandler(kept)
        logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in loggers:
            logger.removeHandler(kept)
        for record in kept.records:
            if not failed or record.levelno >= logging.WARNING:
                logging.getLogger(record.name).handle(record)
