"""The benchmark runs as a whole, and its tables say what was measured."""

import json
import math

import pytest

from moco_det.report.speed_tables import kept_speed
from moco_det.speed import loop
from moco_det.speed.clock import Pair, Sample, alternate, peak_bytes
from moco_det.speed.command import PARTS, main
from moco_det.speed.images import write_photographs
from moco_det.speed.measurement import times
from moco_det.speed.options import smoke_options


def test_every_part_runs(tmp_path, capsys):
    main(["--smoke", "--device", "cpu", "--output", str(tmp_path)])
    record = json.loads((tmp_path / "speed.json").read_text())
    assert {m["part"] for m in record["measurements"]} == PARTS.keys() - {"growth"} and record["growth"]
    for m in record["measurements"]:
        assert all(map(math.isfinite, (*m["theirs"], *m["ours"], *m["ratio"]))), m
    assert (tmp_path / "speed.md").read_text() == kept_speed(record) + "\n"
    assert "MoCo v2 step" in capsys.readouterr().out


def test_a_loop_that_is_not_installed_is_left_out_by_name(monkeypatch, tmp_path, capsys):
    def lacks(*_):
        raise ImportError("No module named 'lightly'")

    monkeypatch.setattr(loop, "lightly_loop", lacks)
    options = smoke_options("cpu", paths=tuple(write_photographs(tmp_path, 256)))
    found = [row.reference for row in loop.measure_loop(options)]
    assert len(found) == 2 and not any("lightly" in reference for reference in found)
    assert "lightly's transform, modules and loss: left out (No module named" in capsys.readouterr().out


def test_what_was_measured_before_a_failure_is_kept(monkeypatch, tmp_path, capsys):
    def fails(_):
        raise ValueError("no memory")

    monkeypatch.setitem(PARTS, "growth", fails)
    with pytest.raises(SystemExit):
        main(["--smoke", "--device", "cpu", "--part", "shuffle", "growth", "--output", str(tmp_path)])
    record = json.loads((tmp_path / "speed.json").read_text())
    assert {m["part"] for m in record["measurements"]} == {"shuffle"} and record["finished"]


def test_both_are_called_in_turns():
    calls = []
    pair = alternate(lambda: calls.append("r"), lambda: calls.append("o"), rounds=3, seconds=0, device="cpu")
    assert calls == list("ro" + "ro" + "or" + "ro") and len(pair.speedup.values) == 3


def test_the_ratio_is_paired_by_round():
    pair = Pair(Sample((4.0, 8.0)), Sample((2.0, 2.0)))
    found = times("x", "x", "x", pair, target=(">=", 3.0))
    assert found.ratio[0] == 3 and found.met and found.theirs[0] == 6000
    slower = times("x", "x", "x", pair, inverse=True, target=("<=", 0.3))
    assert slower.ratio[0] == (0.5 + 0.25) / 2 and not slower.met


def _allocate(megabytes: int):
    return lambda: bytearray(b"x" * (megabytes << 20)) and None


def test_the_peak_is_what_the_work_adds():
    found = peak_bytes(_allocate, (64,), "cpu")
    assert found is None or 64 <= found / 2**20 < 160  # the bytes and their copy


@pytest.mark.parametrize(
    "arguments, message", [(["--rounds", "0"], "--rounds is 0"), (["--images", "nowhere"], "does not exist")]
)
def test_what_cannot_be_measured_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(["--smoke", *arguments])
    assert error.value.code == 2 and message in capsys.readouterr().err
