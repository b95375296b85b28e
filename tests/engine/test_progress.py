"""The bar follows the storage; a resumed run's starts where it was interrupted."""

import sys

import pytest
from detectron2.utils.events import EventStorage

from moco_det.engine.progress import ProgressBar


@pytest.mark.parametrize("start", [0, 40])
def test_bar_follows_the_iteration(start, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = ProgressBar("training", 100)
    with EventStorage(start) as storage:
        for iteration in (start + 19, start + 39):
            storage.iter = iteration
            storage.put_scalar("total_loss", 2.5)
            bar.write()
    assert bar.bar.n == start + 40 and bar.bar.initial == start + 19
    bar.close()
    assert "loss=2.500" in capsys.readouterr().err


def test_no_bar_without_a_terminal(capsys):
    bar = ProgressBar("training", 100)
    with EventStorage(0):
        bar.write()
    bar.close()
    assert capsys.readouterr().err == ""
