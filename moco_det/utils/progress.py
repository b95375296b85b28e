"""How far a command is, with rate and time left: one line on a terminal, a line now and then in a log."""

import datetime
import os
import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

# Environment variable with the bar's line, for commands that another one started and that share its terminal.
BAR_POSITION = "MOCO_DET_BAR_POSITION"
# Between two lines of a log.
LOG_SECONDS = 60.0


def terminal_bar(description: str, total: int | None, unit: str, done: int = 0) -> tqdm:
    """A bar that shows on a terminal only."""
    return tqdm(
        desc=description,
        total=total,
        initial=done,
        unit=unit,
        dynamic_ncols=True,
        position=int(os.environ.get(BAR_POSITION, 0)),
        leave=False,
        disable=not sys.stderr.isatty(),
    )


class Progress:
    """Counts what is done of ``total`` and shows it; a context that clears its line."""

    def __init__(self, description: str, total: int, unit: str = "image", done: int = 0):
        """
        Args:
            unit: the name of one of them.
            done: how many were done before.
        """
        self._bar = terminal_bar(description, total, unit, done)
        self._description, self._total, self._unit = description, total, unit
        self._before = self._done = done
        self._start = self._said = time.monotonic()

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self._bar.update(count)
        self._done += count
        now = time.monotonic()
        if self._bar.disable and now - self._said >= LOG_SECONDS:
            self._said = now
            print(self._line(now - self._start), file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        rate = (self._done - self._before) / seconds
        left = datetime.timedelta(seconds=round((self._total - self._done) / rate))
        return (
            f"{self._description}: {self._done:,} of {self._total:,} {self._unit}s, {rate:.3g}/s, {left} left"
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()


def progress(items: Iterable, description: str, total: int, unit: str = "image") -> Iterator:
    """The items, whose number is shown as they are taken."""
    with Progress(description, total, unit) as shown:
        for item in items:
            yield item
            shown.update()
