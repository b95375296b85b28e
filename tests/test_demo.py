"""The demo's plan, and how its steps run: skipped when done, side by side, failing with the reason."""

import json
import time
from pathlib import Path

import pytest

from moco_det import demo
from moco_det.config import get_cfg, merge_config
from moco_det.demo import (
    SCALES,
    Step,
    check_no_test_picture_in_pretraining,
    plan,
    run_steps,
    schedule_options,
    settle_plan,
)
from moco_det.model_zoo import get_config_file


@pytest.mark.parametrize("scale", sorted(SCALES))
def test_plan_compares_the_inits_on_equal_terms(scale, tmp_path):
    steps = plan(SCALES[scale], tmp_path, ("--num-gpus", "0"), ())
    assert [Path(step.command[0]).name for step in steps[:3]] == [
        "make_toyworld.py",
        "pretrain_moco.py",
        "convert_to_d2.py",
    ]
    runs = steps[3:]
    assert len(runs) == 2 * len(SCALES[scale].seeds) * len(SCALES[scale].schedules)
    assert all(Path(step.command[0]).is_file() and step.alongside for step in runs)
    for random, moco in zip(runs[::2], runs[1::2], strict=True):
        words = [w for w in moco.command if w not in ("MODEL.WEIGHTS", str(tmp_path / "backbone.pkl"))]
        changed = [(a, b) for a, b in zip(random.command, words, strict=True) if a != b]
        assert changed == [
            ("random", "moco"),
            (str(random.result.parent), str(moco.result.parent)),
        ]
    assert len({step.result for step in steps}) == len(steps)


@pytest.mark.parametrize("scale", sorted(SCALES))
def test_settings_of_the_demo_are_those_that_its_recipes_know(scale):
    for recipe, options in (
        (SCALES[scale].finetune, (*schedule_options(180), *SCALES[scale].options)),
        (SCALES[scale].pretrain, ()),
    ):
        merge_config(get_cfg(), get_config_file(recipe), list(options))


@pytest.mark.parametrize("scale", ["photos", "photos_gpu"])
def test_photographs_have_a_short_and_a_three_times_longer_schedule_and_three_seeds(scale):
    short, long = SCALES[scale].schedules
    assert long == 3 * short and len(SCALES[scale].seeds) >= 3


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
    assert "[1/3] first: done before" in capsys.readouterr().out


def test_runs_alongside_share_the_time(tmp_path):
    steps = [script(tmp_path, name, WRITE, tmp_path / name, alongside=True) for name in ("x", "y")]
    start = time.time()
    run_steps(steps, tmp_path, jobs=2)
    x, y = (float((tmp_path / name).read_text()) for name in "xy")
    assert abs(x - y) < 0.45 and time.time() - start < 5


def test_a_failing_step_ends_the_demo_with_its_words(tmp_path):
    steps = [script(tmp_path, "bad", "import sys; sys.exit('error: no such cow')", tmp_path / "never")]
    with pytest.raises(
        ValueError, match=r"bad failed with exit code 1; the end of .*1_of_2.log:\nerror: no such"
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


def test_results_of_another_plan_are_not_taken_for_these(tmp_path):
    steps = plan(SCALES["toy"], tmp_path, (), ())
    settle_plan(SCALES["toy"], steps, tmp_path)
    settle_plan(SCALES["toy"], steps, tmp_path)
    with pytest.raises(ValueError, match="holds the results of another plan"):
        settle_plan(SCALES["photos"], plan(SCALES["photos"], tmp_path, (), ()), tmp_path)


@pytest.mark.parametrize(
    "train, test, ok",
    [
        (["train/bird/a.png"], ["test/bird/b.png"], True),
        ([], [], True),
        (["train/bird/a.png", "test/bird/b.png"], ["test/bird/b.png"], False),
        (["test/bird/c.png"], [], False),
    ],
)
def test_test_pictures_in_pretraining_are_found(tmp_path, train, test, ok):
    (tmp_path / "toyworld.json").write_text(json.dumps({"pictures_used": {"train": train, "test": test}}))
    if ok:
        check_no_test_picture_in_pretraining(tmp_path)
    else:
        with pytest.raises(ValueError, match="is shown in pre-training and belongs to the test"):
            check_no_test_picture_in_pretraining(tmp_path)


def test_photographs_must_be_named(capsys):
    with pytest.raises(SystemExit) as stop:
        demo.main(["--scale", "photos"])
    assert stop.value.code == 2 and "needs --cutouts DIR and --backgrounds DIR" in capsys.readouterr().err


@pytest.mark.stress
def test_the_whole_demo(tmp_path, capfd):
    """What `make demo` runs, in full: the encoder learns, both inits are fine-tuned, the page is there."""
    demo.main(["--output", str(tmp_path / "demo"), "--num-gpus", "0"])
    metrics = json.loads((tmp_path / "demo/pretrain/run.json").read_text())["metrics"]
    assert metrics["knn_accuracy"] > metrics["knn_untrained"]
    table = capfd.readouterr().out
    assert "random" in table and "moco" in table and "report.html" in table
    assert (tmp_path / "demo/report/report.html").stat().st_size > 10_000
