import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from opened_files import opened_files

from moco_det.config import get_cfg as moco_det_cfg
from moco_det.config import known_keys, value_of
from moco_det.engine.record import read_run_record
from moco_det.finetune.command import main
from moco_det.finetune.trainer import Trainer
from moco_det.testing.core import REPOSITORY
from moco_det.utils.errors import STOPPED

RECIPE = "toy/faster_rcnn_R_18_FPN"


@pytest.fixture
def seen(monkeypatch):
    """The images of each training step, in order."""
    batches = []
    step = Trainer.run_step

    def run_step(self):
        model = self.model
        handle = model.register_forward_pre_hook(
            lambda _, args: batches.append([x["image_id"] for x in args[0]])
        )
        step(self)
        handle.remove()

    monkeypatch.setattr(Trainer, "run_step", run_step)
    return batches


@contextlib.contextmanager
def hidden(folder, name):
    """The folder without one of its files; all of it for an empty name."""
    if name:
        (folder / name).rename(folder / "hidden")
    yield
    if name:
        (folder / "hidden").rename(folder / name)


def parameters(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


# ---- a run and what it leaves -------------------------------------------------------------------------------


def test_a_run_from_moco_leaves_its_record(train, backbone):
    folder = train("--init", "moco", "MODEL.WEIGHTS", backbone, "SOLVER.MAX_ITER", "1")
    record = read_run_record(folder)
    assert record["stage"] == "finetune"
    assert set(record["metrics"]) == {"bbox/AP", "bbox/AP50", "bbox/AP75"}
    assert record["seconds"] > 0
    extra = record["extra"]
    assert (extra["init"], extra["task"], extra["iterations"]) == ("moco", RECIPE, 1)
    assert extra["weights"] == os.path.basename(backbone) and len(extra["weights_sha256"]) == 64
    samples = json.loads((folder / "sample_detections.json").read_text())
    assert len(samples) == 8  # of 12
    assert samples[0]["ground_truth"][0]["class"] in samples[0]["classes"]
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert "total_loss" in lines[0] and "bbox/AP" in lines[-1] and "iteration" in lines[-1]
    assert (folder / "config.yaml").is_file()


def test_fewer_labels_train_on_fewer_images_and_are_named_so(train, seen):
    folder = train("--init", "random", "SOLVER.MAX_ITER", "4", "DATASETS.LABEL_FRACTION", "0.25")
    images = {image for batch in seen for image in batch}
    assert len(images) == 3  # of 13
    assert read_run_record(folder)["extra"]["task"] == f"{RECIPE}, 25% of the labels"


# ---- resume -------------------------------------------------------------------------------------------------


def test_stop_and_resume_equals_an_uninterrupted_run(train, seen):
    every = ("SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "2", "SOLVER.WARMUP_ITERS", "0")
    whole = train("--init", "random", *every, "SOLVER.MAX_ITER", "4", output="whole")
    images, seen[:] = list(seen), []
    train("--init", "random", *every, "SOLVER.MAX_ITER", "2", output="parts")
    torch.rand(7), np.random.rand(7)  # another process would be elsewhere in its stream, too
    parts = train(
        "--init", "random", "--resume", *every, "SOLVER.MAX_ITER", "4", "SEED", "-1", output="parts"
    )
    assert seen == images and len(images) == 4
    expected, found = parameters(whole), parameters(parts)  # with the statistics of PreciseBN
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert read_run_record(parts)["seed"] == 1  # the checkpoint's


def test_a_signal_saves_and_the_resumed_run_is_the_same(train, seen, monkeypatch):
    """SIGTERM in the third iteration, of which no checkpoint was due; then the newest checkpoint is damaged."""
    every = ("SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "2", "SOLVER.WARMUP_ITERS", "0")
    words = ("--init", "random", "--resume", *every, "SOLVER.MAX_ITER", "4")
    whole = train(*words, output="whole")
    images, seen[:] = list(seen), []
    step = Trainer.run_step

    def run_step(self):
        if self.iter == 2 and len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(Trainer, "run_step", run_step)
    with pytest.raises(SystemExit) as stop:
        train(*words, output="parts")
    assert stop.value.code == STOPPED and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    parts = train(*words, output="parts")
    assert seen == images and len(images) == 4
    expected = parameters(whole)
    assert [name for name, value in parameters(parts).items() if not torch.equal(expected[name], value)] == []

    for name in ("model_final.pth", "model_0000003.pth"):
        content = bytearray((parts / name).read_bytes())
        content[len(content) // 2] ^= 1
        (parts / name).write_bytes(content)
    (parts / "run.json").unlink()
    train(*words, output="parts")
    assert "model_0000003.pth' is damaged" in (parts / "log.txt").read_text()
    assert [name for name, value in parameters(parts).items() if not torch.equal(expected[name], value)] == []


def test_a_finished_run_is_not_trained_again(train, backbone, seen):
    once = ("SOLVER.MAX_ITER", "1")
    folder = train("--init", "moco", "MODEL.WEIGHTS", backbone, *once)
    first = read_run_record(folder)
    before = {name: (folder / name).read_bytes() for name in ("run.json", "metrics.json")}
    seen.clear()
    for forgotten in ("", "last_checkpoint", "run.json"):
        with hidden(folder, forgotten), pytest.raises(ValueError, match="already holds a run; .* --resume"):
            train("--init", "random", *once)
    os.remove(backbone)
    again = ("--init", "moco", "--resume", "MODEL.WEIGHTS", backbone, *once)
    train(*again)
    assert {name: (folder / name).read_bytes() for name in before} == before
    log = (folder / "log.txt").read_text()
    assert "MODEL.WEIGHTS was not read and is not checked" in log
    assert "holds the finished run of 1 iterations; nothing to do" in log
    (folder / "run.json").unlink()  # as if stopped during the last evaluation
    train(*again)
    second = read_run_record(folder)
    assert second["metrics"] == first["metrics"] and len(first["metrics"]) == 3
    assert second["extra"]["weights_sha256"] == first["extra"]["weights_sha256"]
    assert seen == []
    for checkpoint in (*folder.glob("*.pth"), folder / "last_checkpoint"):
        checkpoint.unlink()  # to save space; the record is kept
    with pytest.raises(ValueError, match="already holds a run"):
        train("--init", "random", *once)


def test_a_run_is_not_continued_as_another(train, capsys):
    """An evaluation between, with a setting of its own, is not taken for the run."""
    start = ("--init", "random", "--resume", "SOLVER.MAX_ITER")
    folder = train(*start, "1")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for key, value, was in (
        ("SOLVER.BASE_LR", "0.5", "0.02"),
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "7", "32"),
        ("MODEL.WEIGHTS", "other.pkl", "''"),
        ("SEED", "2", "1"),
        ("DATASETS.LABEL_FRACTION", "0.5", "1.0"),
    ):
        with pytest.raises(ValueError, match=f"{key} was {was}, is '?{value}"):
            train(*start, "2", key, value)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    train("--init", "random", "--resume", "--eval-only", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.9")
    assert (folder / "config.yaml").read_bytes() == before["config.yaml"]
    named = "SOLVER.MAX_ITER was 1, is 2; it holds from here on"
    longer = (*start, "2", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu")
    capsys.readouterr()
    train("--dry-run", *longer)
    assert f"changed {named}" in " ".join(capsys.readouterr().out.split())
    train(*longer)
    log = (folder / "log.txt").read_text()
    assert f"--resume: {named}" in log and log.count("--resume: ") == 1
    assert read_run_record(folder)["extra"]["iterations"] == 2


def test_a_run_of_detectron2_alone_is_continued(train):
    """Its config.yaml holds detectron2's keys and no seed, its checkpoint no state of ours."""
    folder = train("--init", "random", "SOLVER.MAX_ITER", "1")
    saved, stock = yaml.safe_load((folder / "config.yaml").read_text()), get_cfg()
    for key in set(known_keys(moco_det_cfg())) - set(known_keys(stock)):
        parents, _, name = key.rpartition(".")
        value_of(saved, parents).pop(name)
    saved["SEED"] = -1
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    checkpoint = torch.load(folder / "model_final.pth", weights_only=True)
    del checkpoint["trainer"]["hooks"]["RunState"]
    torch.save(checkpoint, folder / "model_final.pth")
    (folder / "run.json").unlink()
    go_on = ("--init", "random", "--resume", "SOLVER.MAX_ITER", "2", "SEED")
    with pytest.raises(ValueError, match="INPUT.RANDOM_SCALE was .0.5, 2.0., is .0.5, 3.0"):
        train(*go_on, "5", "INPUT.RANDOM_SCALE", "(0.5, 3.0)")
    train(*go_on, "-1")
    record = read_run_record(folder)
    assert record["extra"]["iterations"] == 2 and record["seed"] >= 0
    assert "Resumed at iteration 1" in (folder / "log.txt").read_text()
    (folder / "config.yaml").unlink()
    train(*go_on, str(record["seed"]))
    assert "so nobody knows whether the settings are the run's" in (folder / "log.txt").read_text()


def test_a_run_without_a_seed_gets_one(train):
    folder = train("--init", "random", "SOLVER.MAX_ITER", "1", "SEED", "-1")
    seed = read_run_record(folder)["seed"]
    assert seed >= 0
    assert f"\nSEED: {seed}\n" in (folder / "config.yaml").read_text()


# ---- evaluation ---------------------------------------------------------------------------------------------


def test_eval_only_takes_a_full_detector(train, backbone):
    weights = str(train("--init", "random", "SOLVER.MAX_ITER", "1") / "model_final.pth")
    folder = train("--init", "random", "--eval-only", "MODEL.WEIGHTS", weights, output="evaluated")
    log = (folder / "log.txt").read_text()
    assert "tensors equal those of the detector" in log
    assert "Evaluation results for toy_voc_2007_test" in log
    with pytest.raises(ValueError, match="checkpoint of a detector"):
        train("--init", "moco", "--eval-only", "MODEL.WEIGHTS", backbone, output="evaluated")
    with pytest.raises(ValueError, match="--eval-only has no MODEL.WEIGHTS"):
        train("--init", "random", "--eval-only", output="evaluated")
    with pytest.raises(ValueError, match="DATASETS.TEST is empty"):
        train("--init", "random", "--eval-only", "DATASETS.TEST", "()", output="evaluated")


@pytest.mark.parametrize("words", [("--init",), ("--init", "moco", "MODEL.WEIGHTS"), ("--eval-only",)])
def test_weights_are_read_once_and_hashed_once(train, backbone, words):
    """An overlay, the checks, the log, the load and the record all use what one reading gave."""
    path = backbone
    if words == ("--eval-only",):
        path = str(train("--init", "random", output="trained") / "model_final.pth")
        words = ("--eval-only", "MODEL.WEIGHTS")
    with opened_files() as opened:
        folder = train(*words, path)
    assert opened.count(path) == 2
    if "--eval-only" not in words:
        hashed = read_run_record(folder)["extra"]["weights_sha256"]
        assert hashed == hashlib.sha256(Path(path).read_bytes()).hexdigest()


# ---- refusals before training -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("SOLVER.EPOCHS", "12"), "SOLVER.EPOCHS does not apply to fine-tuning; use SOLVER.MAX_ITER"),
        (("SOLVER.PRECISION", "bfloat16"), "SOLVER.PRECISION does not apply .*; use SOLVER.AMP.ENABLED"),
        (("SOLVER.ACCUMULATE", "2"), "SOLVER.ACCUMULATE does not apply to fine-tuning; remove it"),
        (("--init", "moco"), "--init moco needs a weight file and has none"),
        (("--init", "moco", "MODEL.WEIGHTS", "gone.pkl"), "'gone.pkl' does not exist"),
        (("--init", "random", "MODEL.WEIGHTS", "some.pkl"), "starts from scratch, but MODEL.WEIGHTS"),
        ((), "give --init random"),
        (("--init", "random", "SOLVER.BASE_LRR", "1"), "SOLVER.BASE_LRR.* 'SOLVER.BASE_LR'"),
        (("--init", "random", "DATASETS.TEST", "('coco_2017_val',)"), "coco_2017_val.* is missing"),
        (("--init", "random", "MODEL.ROI_HEADS.NUM_CLASSES", "20"), "NUM_CLASSES is 20"),
        (("--init", "random", "--num-gpus", "99"), "--num-gpus is 99, but"),
        (("--init", "random", "--num-machines", "2"), "2 processes were asked for on CPUs"),
        (("--init", "random", "--config-file", "Pretrain/moco_v2_R_50_200ep"), "tools/pretrain_moco.py"),
        (("--init", "random", "--config-file", ""), "there is no --config-file"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, train, words, match):
    with pytest.raises(ValueError, match=match):
        train(*words)
    assert not (tmp_path / "out").exists()


def test_a_preprocessing_mismatch_stops_the_run(train, backbone):
    with pytest.raises(ValueError, match="INPUT.FORMAT is BGR, expected RGB"):
        train("--init", "moco", "MODEL.WEIGHTS", backbone, "INPUT.FORMAT", "BGR")


def test_a_half_loaded_backbone_stops_the_run(train, backbone, monkeypatch):
    """detectron2 passes over what does not match; here it is made to pass over res4."""
    load = DetectionCheckpointer._load_model

    def forgetful(self, checkpoint):
        checkpoint["model"] = {n: v for n, v in checkpoint["model"].items() if "res4" not in n}
        return load(self, checkpoint)

    monkeypatch.setattr(DetectionCheckpointer, "_load_model", forgetful)
    with pytest.raises(
        ValueError, match=r"40 other in the file: res4.0.conv1.norm.running_mean|other in the file"
    ):
        train("--init", "moco", "MODEL.WEIGHTS", backbone)


# ---- the command line ---------------------------------------------------------------------------------------


def test_main_ends_in_one_sentence(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--config-file", "toy/faster_rcnn_R18_FPN", "--init", "random"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: 'toy/faster_rcnn_R18_FPN' is neither")


def test_the_tool_says_what_it_takes(tmp_path):
    tool = [sys.executable, str(REPOSITORY / "tools/train_net.py"), "--help"]
    done = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("--config-file", "--init", "--num-gpus", "--resume", "--eval-only", "--dist-url"):
        assert word in done.stdout
