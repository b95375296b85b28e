"""Fine-tuning refuses wrong settings before anything is written; a dry run says what the run will be."""

import shutil
import sys
from types import SimpleNamespace

import pytest
import torch


@pytest.mark.parametrize(
    "words, message",
    [
        ("SOLVER.MAX_ITERS 3", "SOLVER.MAX_ITERS.* 'SOLVER.MAX_ITER'"),
        ("SOLVER.MAX_ITER x", "SOLVER.MAX_ITER is 'x'; expected a whole number"),
        ("SOLVER.MAX_ITER 0", "SOLVER.MAX_ITER is 0; expected 1 or more"),
        ("SOLVER.BASE_LR 0", "SOLVER.BASE_LR is 0.0; expected above 0"),
        ("SOLVER.MOMENTUM 3", "SOLVER.MOMENTUM is 3.0; expected 0 or more, below 1"),
        ("SOLVER.STEPS (2,1)", "SOLVER.STEPS is .2, 1.; expected numbers in rising order, each 1 or more"),
        ("SOLVER.CHECKPOINT_PERIOD 0", "SOLVER.CHECKPOINT_PERIOD is 0; expected 1 or more"),
        (
            "SOLVER.LR_SCHEDULER_NAME foo",
            "SOLVER.LR_SCHEDULER_NAME is .foo.; expected one of WarmupMultiStepLR",
        ),
        ("TEST.EVAL_PERIOD -1", "TEST.EVAL_PERIOD is -1; expected 0 or more"),
        ("MODEL.RESNETS.DEPTH 51", "no model and optimizer can be built from these settings .KeyError: 51"),
        ("MODEL.ROI_HEADS.NAME foo", "No object named 'foo' found in 'ROI_HEADS' registry"),
        ("MODEL.META_ARCHITECTURE RCNN", "'RCNN'.* 'GeneralizedRCNN'"),
        ("MODEL.DEVICE tpu", "MODEL.DEVICE is 'tpu'"),
        ("MODEL.PIXEL_STD [0.0,1.0,1.0]", "MODEL.PIXEL_STD is"),
        ("INPUT.FORMAT XYZ", "INPUT.FORMAT is 'XYZ'; expected one of RGB, BGR"),
        ("INPUT.MIN_SIZE_TRAIN (0,)", r"INPUT.MIN_SIZE_TRAIN is \(0,\); expected 1 or more"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING foo", "expected one of choice, range"),
        ("INPUT.CROP.TYPE foo", "INPUT.CROP.TYPE is 'foo'; expected one of"),
        (
            "DATALOADER.SAMPLER_TRAIN foo",
            "DATALOADER.SAMPLER_TRAIN is 'foo'; expected one of TrainingSampler",
        ),
        ("DATASETS.TRAIN ()", "DATASETS.TRAIN is empty"),
        ("DATASETS.TEST ('toy_coco_vall',)", "toy_coco_vall.* 'toy_coco_val'"),
    ],
)
def test_fine_tuning_refuses(train, tmp_path, words, message):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        train("--init", "random", *words.split())
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_cannot_be_written(train, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="OUTPUT_DIR .* cannot be written: .*file' is no folder"):
        train("--init", "random", output="file/out")


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(train, backbone, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for words, message in (
        (("MODEL.RESNETS.DEPTH", "34"), "not in the file|other in the file"),
        (("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"), "wants its input otherwise"),
    ):
        with pytest.raises(ValueError, match=message):
            train("--init", "moco", "MODEL.WEIGHTS", backbone, *words)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_metric_whose_package_is_missing(train, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("faster_coco_eval")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ValueError, match="faster.coco.eval"):
        train("--init", "random", "TEST.COCO_EVALUATOR", "faster_coco_eval", recipe="toy/mask_rcnn_R_18_FPN")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", [(), ("--dry-run",)])
def test_too_little_disk_is_refused(train, tmp_path, monkeypatch, flag):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match="1 checkpoints .*SOLVER.CHECKPOINT_PERIOD"):
        train(*flag, "--init", "random")
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_the_run_will_be(train, backbone, tmp_path, capsys):
    before, state = sorted(tmp_path.rglob("*")), torch.get_rng_state()
    train("--dry-run", "--init", "moco", "MODEL.WEIGHTS", backbone, "SOLVER.BASE_LR", "1")
    said = " ".join(capsys.readouterr().out.split())
    assert "SOLVER.BASE_LR 1.0 (recipe:" in said and "_train" in said and ": 13 images" in said
    assert ": 12 images, measured by " in said
    assert f"weights {backbone}: a backbone; all of its tensors are in the model" in said
    assert "2 iterations of 2 images on 1 process; learning rate 1" in said and "1 checkpoint take" in said
    assert "million parameters" in said and "Start it with" in said
    assert sorted(tmp_path.rglob("*")) == before and torch.equal(state, torch.get_rng_state())


def test_a_dry_run_of_a_run_that_goes_on_and_of_an_evaluation(train, tmp_path, capsys):
    folder = train("--init", "random", "SOLVER.MAX_ITER", "1")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "log.txt"}
    capsys.readouterr()
    train("--dry-run", "--resume", "--init", "random")
    assert "the newest checkpoint in" in " ".join(capsys.readouterr().out.split())
    train("--dry-run", "--eval-only", "MODEL.WEIGHTS", str(folder / "model_final.pth"), output="other")
    said = " ".join(capsys.readouterr().out.split())
    assert "a whole detector" in said and "iterations of" not in said
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "log.txt"}
    assert after == before
