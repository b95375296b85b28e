"""The benchmark: what it plans, what it refuses to mix, what its table says before all runs are there."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from moco_det.benchmark import command as benchmark
from moco_det.benchmark.estimate import describe_plan
from moco_det.benchmark.inits import read_starts, write_overlays
from moco_det.benchmark.plan import make_plan, settle_plan
from moco_det.benchmark.steps import Step
from moco_det.benchmark.suites import SUITES, choose
from moco_det.model_zoo.tasks import TASKS
from moco_det.report.report import refuse_incomplete, write_report
from moco_det.report.rows import build_rows, difference
from moco_det.report.runs import find_runs
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, write_backbone


def write_weights(path, arch="resnet50", preprocessing=TORCHVISION_PREPROCESSING):
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"stem.conv1.weight": np.zeros((1, 3, 7, 7), np.float32)}
    write_backbone(path, tensors, preprocessing, {"source": "test", "arch": arch})
    return path


@pytest.fixture
def weights(tmp_path):
    """moco=… for both depths."""
    files = [write_weights(tmp_path / f"{arch}.pkl", arch) for arch in ("resnet18", "resnet50")]
    return "moco=" + ",".join(map(str, files))


def plan(
    suite="toy", tasks=("all",), inits=("random",), seeds=1, fractions=(1.0,), output=Path("/out"), **more
):
    return make_plan(choose(suite, tasks, **more), read_starts(inits), seeds, fractions, output)


# ---- what is planned ----------------------------------------------------------------------------------------


def test_every_task_is_in_the_suites():
    for suite in ("paper", "toy"):
        assert {task.name for task in TASKS} == {
            name for entry in SUITES[suite].entries for name in entry.tasks
        }
    recipes = [entry.recipe for entry in SUITES["toy"].entries]
    assert len(set(recipes)) == len(recipes)  # each once, though tasks share some


def test_the_matrix_is_whole_and_its_folders_differ(weights):
    planned = plan(inits=("random", weights), seeds=2, fractions=(0.1, 1.0))
    assert len(planned) == len(SUITES["toy"].entries) * 2 * 2 * 2
    assert len({run.folder for run in planned}) == len(planned)
    few = [run for run in planned if "DATASETS.LABEL_FRACTION" in run.command]
    assert len(few) == len(planned) // 2
    assert {run.task for run in few} & {"toy/mask_rcnn_R_18_FPN, 10% of the labels"}
    assert [run.seed for run in planned] == sorted(run.seed for run in planned)


def test_the_file_of_the_right_depth_is_taken(weights):
    for run in plan(inits=(weights,), tasks=("voc-c4", "coco-fpn")):
        arch = "resnet50" if "R_50" in run.task else "resnet18"
        assert run.command[run.command.index("MODEL.WEIGHTS") + 1].endswith(f"{arch}.pkl")
    only = weights.split(",")[0]
    with pytest.raises(
        ValueError, match=r"moco has weights for ResNet-18, but toy/faster_rcnn_R_50_C4 .* voc-c4"
    ):
        plan(inits=(only,), tasks=("coco-fpn", "voc-c4"))
    with pytest.raises(ValueError, match="supervised_torchvision .*ResNet-50.*R_18"):
        plan(inits=("supervised_torchvision",), tasks=("coco-fpn",))


def test_frozen_statistics_are_for_supervised_weights_alone(weights):
    planned = plan("paper", ("lvis-v0.5",), ("random", weights, "supervised_torchvision"))
    assert {run.init for run in planned if "frozenBN" in run.task} == {"supervised_torchvision"}
    assert {run.init for run in planned if "frozenBN" not in run.task} > {"random", "moco"}


def test_the_paper_suite_trains_the_papers_recipes_unchanged():
    (run,) = plan("paper", ("voc-c4",))
    assert run.iterations == 24_000 and run.task == "PascalVOC-Detection/faster_rcnn_R_50_C4_24k"
    pairs = run.command[run.command.index("--resume") + 1 :]
    assert list(pairs[0::2]) == ["SEED", "OUTPUT_DIR"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["moco"], "'moco' needs a weight file: moco=backbone.pkl; without one there are: random"),
        (["mine"], "'mine' needs a weight file"),
        (["random", "random"], "expected different names"),
        (["a/b=x.pkl"], "expected different names of letters"),
        (["moco=nothing.pkl"], "moco=nothing.pkl: there is no such file"),
    ],
)
def test_inits_that_cannot_be(words, message):
    with pytest.raises(ValueError, match=message):
        read_starts(words)


def test_weights_that_do_not_say_what_they_are(tmp_path):
    path = write_weights(tmp_path / "x.pkl", arch="")
    with pytest.raises(ValueError, match="x.pkl .*tools/convert_to_d2.py"):
        read_starts([f"moco={path}"])


def test_an_init_of_another_name_or_preprocessing_gets_an_overlay(tmp_path):
    from moco_det.finetune.inits import read_init

    path = write_weights(tmp_path / "weights" / "w.pkl")
    (start,) = read_starts([f"mine={path}"])
    write_overlays([start], tmp_path / "inits")
    flags, pairs = start.words(tmp_path / "inits")
    init = read_init(flags[1])
    assert (init.name, pairs) == ("mine", ()) and Path(init.weights).resolve() == path.resolve()
    assert init.preprocessing == TORCHVISION_PREPROCESSING


@pytest.mark.parametrize(
    ("tasks", "recipes", "message"),
    [
        (["voc"], ["*"], "the suite paper has no task 'voc'; it has: voc-c4"),
        (["coco-c4"], ["*_6x"], "--recipes .*_6x matches no recipe of the tasks"),
    ],
)
def test_choices_that_match_nothing(tasks, recipes, message):
    with pytest.raises(ValueError, match=message):
        choose("paper", tasks, recipes)


def test_recipes_narrow_the_tasks():
    assert [entry.recipe[-2:] for entry in choose("paper", ["coco-fpn", "coco-c4"], ["*_1x"])] == ["1x", "1x"]


# ---- what is never mixed ------------------------------------------------------------------------------------


def test_a_run_is_not_continued_as_another(tmp_path, monkeypatch):
    (run,) = plan(tasks=("coco-fpn",), output=tmp_path)
    settle_plan([run], tmp_path)
    monkeypatch.setattr("moco_det.benchmark.plan.running_commit", lambda: "another")
    (other,) = plan(tasks=("coco-fpn",), output=tmp_path)
    settle_plan([other], tmp_path)  # nothing was started
    (tmp_path / run.folder).mkdir(parents=True)
    with pytest.raises(ValueError, match="another run .code 'another' then, '.*' now"):
        settle_plan([run], tmp_path)


def test_scenes_and_options_are_part_of_a_run(tmp_path):
    world = tmp_path / "toyworld.json"
    prints = set()
    for text, options in (("1", ()), ("2", ()), ("2", ("SOLVER.BASE_LR", "0.1"))):
        world.write_text(text)
        entries = choose("toy", ["coco-fpn"])
        (run,) = make_plan(entries, read_starts(["random"]), 1, [1], tmp_path, (), options, world)
        prints.add(json.dumps(run.fingerprint))
    assert len(prints) == 3


def test_runs_planned_before_stay_in_the_plan(tmp_path):
    first, second = (plan(tasks=(name,), output=tmp_path) for name in ("coco-fpn", "voc-c4"))
    settle_plan(first, tmp_path)
    settle_plan(second, tmp_path)
    assert len(json.loads((tmp_path / "benchmark.json").read_text())["runs"]) == 2


# ---- the table before and after all runs are there ----------------------------------------------------------


def planned_as(root, runs):
    entries = {
        name: {"task": "toy/faster_rcnn", "iterations": 100, "init": init} for name, init in runs.items()
    }
    (root / "benchmark.json").write_text(json.dumps({"runs": entries}))


def test_a_row_that_lacks_runs_says_so_and_is_not_tested(make_run, tmp_path):
    names = {f"{init}{seed}": init for init in ("random", "moco") for seed in (1, 2, 3, 4)}
    for name, init in names.items():
        if name != "moco4":
            make_run(name, init=init, seed=int(name[-1]), ap=10.0 + int(name[-1]))
    planned_as(tmp_path / "runs", names)
    report = write_report([tmp_path / "runs"], tmp_path / "report")
    assert "3 of 4" in report.table and "incomplete" in report.table
    assert [entry.reason for entry in report.incomplete] == ["planned, not started"]
    random, moco = build_rows(report.runs, report.incomplete)[0]
    assert difference(moco, random, "bbox/AP") is None  # so no other table or file has it either
    with pytest.raises(ValueError, match="1 planned runs are not finished .*moco4"):
        refuse_incomplete(report.incomplete)
    make_run("moco4", init="moco", seed=4, ap=20)
    whole = write_report([tmp_path / "runs"], tmp_path / "report")
    assert "of 4" not in whole.table and "[" in whole.table.splitlines()[-1]


def test_each_task_is_compared_by_its_own_metric(make_run, tmp_path):
    for seed in (1, 2, 3):
        for init, gain in (("random", 0), ("moco", 5)):
            metrics = {"bbox/AP": 50.0 - gain - seed, "keypoints/AP": 10.0 + gain + seed}
            task = "COCO-Keypoints/keypoint_rcnn_R_50_FPN_2x"
            make_run(f"{init}{seed}", init=init, seed=seed, task=task, metrics=metrics)
            make_run(
                f"seg_{init}{seed}", init=init, seed=seed, task="x/y", metrics={"sem_seg/mIoU": 7.0 + gain}
            )
    text = write_report([tmp_path / "runs"], tmp_path / "report").markdown.read_text()
    assert "keypoint AP 17.0 ± 1.0 from moco" in text and "difference +5.0" in text
    assert "mIoU 12.0 ± 0.0 from moco, 7.0 ± 0.0 from random" in text
    assert "| init | iterations | n | keypoint AP | keypoint AP − random | AP |" in text


def test_rows_that_training_did_not_raise_are_named(make_run, tmp_path):
    for name, ap in (("good", 5.0), ("bad", 1.0)):
        folder = make_run(name, init=name, ap=ap)
        curve = (folder / "metrics.json").read_text()
        (folder / "metrics.json").write_text('{"iteration": 0, "bbox/AP": 2.0}\n' + curve)
    report = write_report([tmp_path / "runs"], tmp_path / "report")
    assert benchmark.verdicts(report) == [
        "toy/faster_rcnn, bad: AP 1.0 is not above its start",
        "1 of 2 rows ended above their start",
    ]
    row = build_rows(find_runs([tmp_path / "runs"])[0])[0][0]
    assert str(row.at_start("bbox/AP")) == "2.0"


# ---- hours, SLURM, the command ------------------------------------------------------------------------------


def test_hours_come_from_runs_that_were_measured(make_run, tmp_path):
    planned = plan(tasks=("coco-fpn", "voc-c4"), seeds=3, output=tmp_path / "out")
    text = describe_plan(planned, tmp_path / "out", tmp_path / "none", jobs=2)
    assert "6 runs, 2 at a time, 0.0 hours and the unmeasured recipes (2)" in text
    # 50 iterations took 30 minutes: 100 take an hour.
    make_run("a", task="toy/mask_rcnn_R_18_FPN", iterations=50, seconds=1800.0)
    text = describe_plan(planned, tmp_path / "runs", tmp_path / "none", jobs=2)
    assert "60.0" in text and "1.5 hours and the unmeasured recipes (1)" in text


def test_slurm_runs_one_line_a_job(tmp_path, capsys):
    code = "import os, sys; open(sys.argv[1], 'w').write(os.environ['DETECTRON2_DATASETS'])"
    steps = []
    for name in ("a b", "c"):
        command = ("-c", code, str(tmp_path / name))
        environment = (("DETECTRON2_DATASETS", "/da ta"),)
        steps.append(Step(name, command, tmp_path / name, environment=environment))
    benchmark.write_slurm(tmp_path / "jobs", steps, 1)
    script = (tmp_path / "jobs" / "array.sh").read_text()
    assert "#SBATCH --array=1-2\n" in script and "--gpus-per-node=1" in script
    for number in "12":
        command = ["bash", str(tmp_path / "jobs" / "array.sh")]
        subprocess.run(command, check=True, env={"SLURM_ARRAY_TASK_ID": number, "PATH": "/usr/bin:/bin"})
    assert (tmp_path / "a b").read_text() == (tmp_path / "c").read_text() == "/da ta"
    benchmark.write_slurm(tmp_path / "jobs", steps[:1] + [steps[1]], 1)
    assert "0 commands" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    words = ("--suite", "toy", "--tasks", "lvis-v1", "--inits", "random", "--seeds", "2", "--num-gpus", "0")
    benchmark.main([*words, "--output", str(tmp_path / "out"), "--dry-run"])
    printed = capsys.readouterr().out
    assert printed.count("tools/train_net.py --config-file configs/toy/lvis_mask_rcnn_R_18_FPN.yaml") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "expected a whole number from 1 on, found '0'"),
        (["--label-fraction", "0"], " above 0, up to 1; found [0.0]"),
        (["--", "SOLVER.MAX_ITER"], "options after -- must be KEY VALUE pairs; found 1"),
        (["--num-gpus", "99"], "--num-gpus is 99 for each run, but this machine has"),
    ],
)
def test_what_cannot_be_asked(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--suite", "toy", "--inits", "random", "--output", str(tmp_path / "x"), *words])
    assert message in capsys.readouterr().err


def test_own_data_sets_reach_every_run_and_the_check(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = {"id": 1, "file_name": "none.jpg", "width": 8, "height": 8}
    labels = {"categories": [{"id": 1, "name": "a"}], "images": [image], "annotations": []}
    (tmp_path / "x.json").write_text(json.dumps(labels))
    words = ["--suite", "paper", "--tasks", "voc-c4", "--inits", "random", "--seeds", "1"]
    words += ["--output", "out", "--coco", "mine", "x.json", "."]
    options = ("--", "DATASETS.TRAIN", "('mine',)", "DATASETS.TEST", "('mine',)")
    benchmark.main([*words, "--dry-run", *options])
    assert f"--coco mine {tmp_path}/x.json {tmp_path}" in capfd.readouterr().out
    with pytest.raises(SystemExit):
        benchmark.main([*words, *options])
    printed = capfd.readouterr()
    assert "data sets are not complete" in printed.err and "none.jpg" in printed.out
    assert "voc_2012" not in printed.out


def test_nothing_starts_on_data_that_is_not_there(tmp_path, capfd):
    words = ["--suite", "paper", "--tasks", "voc-c4", "--inits", "random", "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        benchmark.main([*words, "--num-gpus", "0", "--datasets", str(tmp_path)])
    printed = capfd.readouterr()
    assert "data sets are not complete, see above" in printed.err and "voc_2012_trainval" in printed.out
    assert not (tmp_path / "out").exists()


def test_photographs_need_their_pictures(tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--suite", "photos", "--inits", "random", "--output", str(tmp_path)])
    assert "renders it from --cutouts DIR and --backgrounds DIR" in capsys.readouterr().err


def test_a_small_benchmark_ends_in_a_table_and_is_not_run_again(tmp_path, capsys):
    """Two inits in processes of their own; the failing one leaves a table that says what it lacks."""
    weights = write_weights(tmp_path / "w.pkl", "resnet18")  # of one tensor: refused by the run
    words = ["--suite", "toy", "--tasks", "lvis-v1", "--seeds", "1", "--num-gpus", "0", "--jobs", "2"]
    words += ["--inits", "random", f"moco={weights}", "--output", str(tmp_path / "out")]
    words += ["--", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()", "TEST.PRECISE_BN.NUM_ITER", "1"]
    words += ["INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48", "SOLVER.IMS_PER_BATCH", "2"]
    with pytest.raises(SystemExit):
        benchmark.main(words)
    first = capsys.readouterr()
    assert "1 of 2 runs failed" in first.err
    (row,) = [line for line in first.out.splitlines() if line.startswith("toy/lvis") and " 2 " in line][-1:]
    assert "random" in row
    assert (tmp_path / "out/report/report.html").exists()
    with pytest.raises(SystemExit):
        benchmark.main(words)
    assert "lvis_mask_rcnn_R_18_FPN from random, seed 1: done before" in capsys.readouterr().out
