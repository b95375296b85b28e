"""The demo's plan: inits on equal terms, no test picture in pre-training."""

import json
from pathlib import Path

import pytest

from moco_det import demo
from moco_det.config import get_cfg, merge_config
from moco_det.demo import SCALES, check_no_test_picture_in_pretraining, plan, settle_plan
from moco_det.model_zoo import get_config_file
from moco_det.steps import schedule_options


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
