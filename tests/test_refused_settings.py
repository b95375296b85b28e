"""Wrong settings are refused at once, with what is right, and leave nothing behind; nor do dry runs."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from checkpoint_examples import random_states

from moco_det.benchmark.plan import check_options
from moco_det.classify.command import main as classify
from moco_det.config import get_cfg, merge_config
from moco_det.pretrain.command import main as pretrain
from moco_det.testing.core import write_random_images

PRETRAIN = (
    *("--config-file", "configs/Pretrain/moco_v2_R_50_200ep.yaml", "--images", "images", "--num-gpus", "0"),
    *("MODEL.ENCODER.ARCH", "resnet18", "MODEL.MOCO.QUEUE_SIZE", "8", "MODEL.ENCODER.BN_GROUP_SIZE", "8"),
    *("SOLVER.IMS_PER_BATCH", "8", "SOLVER.EPOCHS", "1", "OUTPUT_DIR", "out"),
)
CLASSIFY = (
    *("--config-file", "configs/ImageNet-Classification/linear_R_50_100ep.yaml", "--images", "set"),
    *("--num-gpus", "0", "CLASSIFY.ARCH", "resnet18", "SOLVER.IMS_PER_BATCH", "8", "SOLVER.EPOCHS", "1"),
    *("OUTPUT_DIR", "out"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder: images, a labeled set, weights of ResNet-18, also for gray images, and a damaged file."""
    write_random_images(tmp_path / "images", 16)
    for part in ("train", "val"):
        for name in "ab":
            write_random_images(tmp_path / "set" / part / name, 4)
    states = random_states("resnet18")
    torch.save(states, tmp_path / "resnet18.pth")
    torch.save({**states, "conv1.weight": torch.randn(64, 1, 7, 7)}, tmp_path / "gray.pth")
    (tmp_path / "bad.pth").write_bytes(b"PK")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(command, words, folder, capsys) -> str:
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        command(list(words))
    said = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and said.startswith("error: ") and sorted(folder.rglob("*")) == before
    return said


COMMON = [
    ("SOLVER.EPOCH 3", "match: 'SOLVER.EPOCHS'"),
    ("SOLVER.EPOCHS many", "SOLVER.EPOCHS is 'many'; expected a whole number, such as 1"),
    ("SOLVER.BASE_LR fast", "SOLVER.BASE_LR is 'fast'; expected a number, such as"),
    ("SOLVER.BASE_LR -1", "-1.0; expected"),
    ("SOLVER.EPOCHS 0", "SOLVER.EPOCHS is 0"),
    ("SOLVER.MOMENTUM 1", "SOLVER.MOMENTUM is 1.0; expected 0 or more, below 1"),
    ("SOLVER.WEIGHT_DECAY -1", "SOLVER.WEIGHT_DECAY is -1.0; expected 0 or more"),
    ("SOLVER.PRECISION float8", "SOLVER.PRECISION is 'float8'; expected one of float32"),
    ("SOLVER.LOG_PERIOD 0", "SOLVER.LOG_PERIOD is 0; expected 1 or more"),
    ("SOLVER.CHECKPOINT_KEEP -1", "SOLVER.CHECKPOINT_KEEP is -1; expected 0 or more"),
    ("INPUT.VIEWS.SIZE 0", "INPUT.VIEWS.SIZE is 0; expected 1 or more"),
    ("DATALOADER.NUM_WORKERS -1", "DATALOADER.NUM_WORKERS is -1; expected 0 or more"),
    ("MODEL.DEVICE tpu", "MODEL.DEVICE is 'tpu'; expected 'cuda' or 'cpu'"),
    (
        "MODEL.META_ARCHITECTURE Moco",
        "MODEL.META_ARCHITECTURE is 'Moco'; ",
    ),
    (
        "MODEL.PIXEL_STD [0.0,1.0,1.0]",
        "MODEL.PIXEL_STD is [0.0, 1.0, 1.0]; expected one number for each channel, each above",
    ),
    ("MODEL.PIXEL_MEAN [1.0,2.0]", "INPUT.CHANNELS is 3 and MODEL.PIXEL_MEAN has 2 numbers, [1.0, 2.0]"),
    ("MODEL.WEIGHTS nowhere.pth", "MODEL.WEIGHTS 'nowhere.pth' is no file"),
    ("MODEL.WEIGHTS bad.pth", "MODEL.WEIGHTS 'bad.pth'"),
    ("OUTPUT_DIR images/000.jpg/x", "images/000.jpg' is no folder, or not yours to write to"),
    ("MODEL.MASK_ON True", "config key MODEL.MASK_ON does not apply to"),
    ("SOLVER.LR_SCHEDULER_NAME CosineLR SOLVER.STEP_EPOCHS (3,)", "SOLVER.STEP_EPOCHS has no effect with"),
    ("SOLVER.LR_SCHEDULER_NAME CosineLR SOLVER.GAMMA 0.5", "SOLVER.GAMMA has no effect with"),
    (
        "SOLVER.LR_SCHEDULER_NAME EpochCosineLR SOLVER.BASE_LR_END 0.1",
        "SOLVER.BASE_LR_END has no effect with",
    ),
    ("SOLVER.LR_SCHEDULER_NAME EpochMultiStepLR SOLVER.WARMUP_EPOCHS 1", "SOLVER.WARMUP_EPOCHS"),
]


@pytest.mark.parametrize(
    "words, message",
    [
        *COMMON,
        ("MODEL.MOCO.DIM 0", "MODEL.MOCO.DIM is 0; expected 1 or more"),
        ("MODEL.MOCO.TEMPERATURE 0", "MODEL.MOCO.TEMPERATURE is 0.0; expected above 0"),
        (
            "MODEL.ENCODER.ARCH resnet50 MODEL.WEIGHTS resnet18.pth",
            "is a resnet18; MODEL.ENCODER.ARCH is resnet50",
        ),
        (
            "MODEL.WEIGHTS gray.pth",
            "'gray.pth' are for images of 1 channel, and INPUT.CHANNELS is 3",
        ),
        ("TEST.KNN.IMAGES nowhere", "TEST.KNN.IMAGES: 'nowhere' does not exist"),
        ("DATASETS.TRAIN ('coco_2017_trian',)", "expected one of them"),
    ],
)
def test_pretraining_refuses(folder, capsys, words, message):
    assert message in refused(pretrain, [*PRETRAIN, *words.split()], folder, capsys)


@pytest.mark.parametrize(
    "words, message",
    [
        *COMMON,
        ("CLASSIFY.NUM_CLASSES 3", "CLASSIFY.NUM_CLASSES is not to be set"),
        ("CLASSIFY.ARCH resnet50 MODEL.WEIGHTS resnet18.pth", "is a resnet18; CLASSIFY.ARCH is resnet50"),
        ("MODEL.WEIGHTS gray.pth", "has 3 channels of 8 bits where INPUT.CHANNELS is 1"),
        ("SOLVER.IMS_PER_BATCH 99", "8 images do not fill one batch"),
        ("CLASSIFY.FEATURES dead", "CLASSIFY.FEATURES is 'dead'; expected one of live, cached"),
    ],
)
def test_classification_refuses(folder, capsys, words, message):
    assert message in refused(classify, [*CLASSIFY, *words.split()], folder, capsys)


@pytest.mark.parametrize("command, words", [(pretrain, PRETRAIN), (classify, CLASSIFY)])
@pytest.mark.parametrize("flag", ["", "--dry-run"])
def test_too_little_disk_is_refused_before_anything_is_written(
    folder, capsys, monkeypatch, command, words, flag
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    said = refused(command, [*filter(None, [flag]), *words], folder, capsys)
    assert "OUTPUT_DIR 'out' has 0.00 GiB free, but" in said and "SOLVER.CHECKPOINT_KEEP" in said


# ---- dry runs ----------------------------------------------------------------------------------------


def test_a_dry_run_of_pretraining(folder, capsys):
    before = sorted(folder.rglob("*"))
    pretrain(["--dry-run", *PRETRAIN, "MODEL.WEIGHTS", "resnet18.pth", "SOLVER.BASE_LR", "3"])
    said = " ".join(capsys.readouterr().out.split())
    assert "SOLVER.BASE_LR 3.0 (recipe: 0.03)" in said and "images 16 in images" in said
    assert "1 epoch, 2 steps" in said and "checkpoints" in said and "trial" not in said
    assert sorted(folder.rglob("*")) == before


def test_a_dry_run_of_classification(folder, capsys):
    before = sorted(folder.rglob("*"))
    classify(["--dry-run", "--weights", "resnet18.pth", *CLASSIFY])
    said = " ".join(capsys.readouterr().out.split())
    assert "CLASSIFY.ARCH 'resnet18' (recipe: 'resnet50')" in said
    assert "8 of 2 classes in set/train, measured on 8 of set/val" in said
    assert "a linear classifier on frozen resnet18" in said and "weights resnet18.pth: torchvision" in said
    assert "1 epoch of 1 step of 8 images on 1 process; learning rate 30" in said
    assert "Start it with" in said and sorted(folder.rglob("*")) == before


def test_what_was_said_before_the_folder_stands_in_its_log(folder):
    """Checks come first, so their messages wait for the log."""
    options = ("MODEL.WEIGHTS", "resnet18.pth", "DATALOADER.NUM_WORKERS", "0", "INPUT.VIEWS.SIZE", "32")
    pretrain([*PRETRAIN, *options])
    log = (folder / "out/log.txt").read_text()
    assert log.index("Both encoders start from resnet18.pth") < log.index("16 images, 2 steps an epoch")


@pytest.mark.parametrize("command, words", [(pretrain, PRETRAIN), (classify, CLASSIFY)])
def test_both_trainers_by_epochs_have_the_same_schedules(folder, capsys, command, words):
    """What CosineLR reads applies to both."""
    given = (
        "SOLVER.LR_SCHEDULER_NAME CosineLR SOLVER.EPOCHS 3 SOLVER.WARMUP_EPOCHS 1 SOLVER.BASE_LR_END 0.001"
    )
    command(["--dry-run", *words, *given.split()])
    assert "SOLVER.WARMUP_EPOCHS 1" in " ".join(capsys.readouterr().out.split())


# ---- benchmarks and ablations ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        (("SOLVER.MAX_ITERS", "3"), "SOLVER.MAX_ITERS.* 'SOLVER.MAX_ITER'"),
        (("SOLVER.MAX_ITER", "x"), "SOLVER.MAX_ITER is 'x'; expected a whole number"),
        (("SEED", "3"), "SEED cannot be given after --"),
        (("OUTPUT_DIR", "x"), "OUTPUT_DIR cannot be given after --"),
    ],
)
def test_options_for_all_runs_are_refused_before_the_first(options, message):
    with pytest.raises(ValueError, match=message):
        check_options(options)


def test_whole_numbers_will_do_for_numbers():
    cfg = get_cfg()
    merge_config(cfg, "", ["SOLVER.BASE_LR", "30", "SOLVER.EPOCHS", "3", "SOLVER.WEIGHT_DECAY", "0"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.EPOCHS, cfg.SOLVER.WEIGHT_DECAY) == (30.0, 3, 0.0)
    assert type(cfg.SOLVER.BASE_LR) is float and type(cfg.SOLVER.EPOCHS) is int
    with pytest.raises(ValueError, match=r"SOLVER.EPOCHS is '1.5'; expected a whole number"):
        merge_config(cfg, "", ["SOLVER.EPOCHS", "1.5"])
