"""How steps run: skipped when done, side by side, on a GPU each, failing with the reason."""

import time

import pytest

from moco_det.benchmark.steps import Step, run_steps


def script(tmp_path, name, code, result, **kwargs):
    path = tmp_path / f"{name}.py"
    path.write_text(code)
    return Step(name, (str(path), str(result)), result, **kwargs)


WRITE = "import sys, pathlib, time; pathlib.Path(sys.argv[1]).write_text(str(time.time())); time.sleep(0.5)"


def test_steps_run_once_and_in_order(tmp_path, capsys):
    checked = []
    steps = [
        script(tmp_path, "first", WRITE, tmp_path / "a", check=lambda: checked.append("a")),
        script(tmp_path, "second", WRITE, tmp_path / "b"),
    ]
    run_steps(steps, tmp_path, jobs=1)
    first, second = (float((tmp_path / name).read_text()) for name in "ab")
    assert first + 0.5 <= second and checked == ["a"]
    run_steps(steps, tmp_path, jobs=1)
    assert float((tmp_path / "a").read_text()) == first
    assert "[1/2] first: done before" in capsys.readouterr().out


def test_runs_alongside_share_the_time(tmp_path):
    steps = [script(tmp_path, name, WRITE, tmp_path / name, alongside=True) for name in ("x", "y")]
    start = time.time()
    run_steps(steps, tmp_path, jobs=2)
    x, y = (float((tmp_path / name).read_text()) for name in "xy")
    assert abs(x - y) < 0.45 and time.time() - start < 5


def test_a_failing_step_ends_with_its_words(tmp_path):
    steps = [script(tmp_path, "bad", "import sys; sys.exit('error: no such cow')", tmp_path / "never")]
    with pytest.raises(
        ValueError, match=r"bad failed with exit code 1; the end of .*1_of_1.log:\nerror: no such"
    ):
        run_steps(steps, tmp_path, jobs=1)


def test_a_step_that_writes_nothing_is_no_success(tmp_path):
    steps = [script(tmp_path, "lazy", "", tmp_path / "never")]
    with pytest.raises(ValueError, match="lazy ended without writing"):
        run_steps(steps, tmp_path, jobs=1)


def test_after_a_failure_nothing_new_starts(tmp_path):
    steps = [script(tmp_path, "bad", "raise SystemExit(3)", tmp_path / "bad", alongside=True)]
    steps += [script(tmp_path, f"run{i}", WRITE, tmp_path / f"{i}", alongside=True) for i in range(6)]
    with pytest.raises(ValueError, match="bad failed with exit code 3"):
        run_steps(steps, tmp_path, jobs=2)
    assert not (tmp_path / "5").exists()


def test_with_keep_going_the_others_run_and_the_failures_are_counted(tmp_path, capsys):
    steps = [script(tmp_path, "bad", "raise SystemExit(3)", tmp_path / "bad", alongside=True)]
    steps += [script(tmp_path, f"run{i}", WRITE, tmp_path / f"{i}", alongside=True) for i in range(2)]
    with pytest.raises(ValueError, match="1 of 3 runs failed"):
        run_steps(steps, tmp_path, keep_going=True)
    assert (tmp_path / "1").exists() and "bad failed with exit code 3" in capsys.readouterr().err


def test_gpus_are_dealt_out_and_never_shared(tmp_path):
    code = (
        "import os, pathlib, sys, time; gpu = os.environ['CUDA_VISIBLE_DEVICES'];"
        "lock = pathlib.Path(sys.argv[1]).parent / f'gpu{gpu}'; lock.mkdir(); time.sleep(0.3); lock.rmdir();"
        "pathlib.Path(sys.argv[1]).write_text(gpu)"
    )
    steps = [script(tmp_path, f"r{i}", code, tmp_path / f"{i}", alongside=True) for i in range(4)]
    run_steps(steps, tmp_path, gpus=("2", "5,6"))
    assert {(tmp_path / f"{i}").read_text() for i in range(4)} == {"2", "5,6"}


def test_a_step_is_printed_as_it_would_be_typed(tmp_path, capsys):
    step = script(tmp_path, "say", WRITE, tmp_path / "with space", environment=(("CITY", "a b"),))
    run_steps([step], tmp_path)
    assert f"CITY='a b' {tmp_path}/say.py '{tmp_path}/with space'" in capsys.readouterr().out
