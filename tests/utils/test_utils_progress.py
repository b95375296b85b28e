"""How far a command is: a bar on a terminal, a line now and then in a log."""

import sys

import pytest

from moco_det.utils import progress as module
from moco_det.utils.progress import Progress, progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that is advanced by hand."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_a_minute(clock, capsys):
    with Progress("packing", 1400, done=200) as shown:
        for _ in range(6):
            clock[0] += 25
            shown.update(100)
    # 300 of its own in 75 seconds; then 600 in 150.
    assert capsys.readouterr().err.splitlines() == [
        "packing: 500 of 1,400 images, 4/s, 0:03:45 left",
        "packing: 800 of 1,400 images, 4/s, 0:02:30 left",
    ]


def test_short_work_says_nothing_to_a_log(capsys):
    assert list(progress("abc", "packing", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_one_line_and_clears_it(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in progress(range(3), "packing", 3):
        pass
    shown = capsys.readouterr().err
    assert "packing:" in shown and "/3" in shown and "image/s" in shown
    assert "\n" not in shown and shown.endswith("\r") and not shown.rsplit("\r", 2)[1].strip()
