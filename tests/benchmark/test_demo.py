"""The demo's plan: inits on equal terms, no test picture in pre-training."""

import json
from pathlib import Path

import pytest

from moco_det.benchmark import demo
from moco_det.benchmark.demo import SCALES, check_no_test_picture_in_pretraining, plan, settle_plan
from moco_det.benchmark.steps import schedule_options
from moco_det.config import get_cfg, merge_config
from moco_det.model_zoo import get_config_file


@pytest.mark.parametrize("scale", sorted(SCALES))
def test_plan_compares_the_inits_on_equal_terms(scale, tmp_path):
    steps = plan(SCALES[scale], tmp_path, ("--num-gpus", "0"))
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


def test_another_seed_changes_the_world_pretraining_and_every_fine_tuning(tmp_path):
    def seeds(seed):
        steps = plan(SCALES["toy"], tmp_path, (), seed=seed)
        words = [step.command for step in steps if "make_report" not in step.command[0]]
        flag = {"make_toyworld.py": "--seed", "pretrain_moco.py": "SEED", "train_net.py": "SEED"}
        tools = [(Path(command[0]).name, command) for command in words]
        return [command[command.index(flag[name]) + 1] for name, command in tools if name in flag]

    runs = len(SCALES["toy"].seeds)
    for seed in (0, 2):
        expected = [str(number + seed * runs) for number in SCALES["toy"].seeds for _ in range(2)]
        assert seeds(seed) == [str(seed), str(seed), *expected]


@pytest.mark.parametrize("busy, warned", [(None, False), (0.1, False), (1.4, True)])
def test_the_expectation_follows_the_trial_and_names_other_programs(busy, warned):
    said = demo.expectation(3 * demo.USUAL_STEP, busy)
    assert f"about {3 * demo.USUAL_MINUTES} minutes" in said
    assert ("use 1.4 of" in said) == warned


def test_the_trial_is_a_time():
    assert 0 < demo.step_seconds() < 60


def test_results_of_another_plan_are_not_taken_for_these(tmp_path):
    steps = plan(SCALES["toy"], tmp_path, ())
    settle_plan(SCALES["toy"], steps, tmp_path)
    settle_plan(SCALES["toy"], steps, tmp_path)
    with pytest.raises(ValueError, match="another plan"):
        settle_plan(SCALES["photos"], plan(SCALES["photos"], tmp_path, ()), tmp_path)


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
        with pytest.raises(ValueError, match="pre-training .*test"):
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
    assert metrics["knn_accuracy"] > 2 * metrics["knn_untrained"]
    table = capfd.readouterr().out
    assert "about" in table.splitlines()[0] and "Pre-training helped" in table
    assert "random" in table and "moco" in table and "report.html" in table
    assert (tmp_path / "demo/report/report.html").stat().st_size > 10_000
