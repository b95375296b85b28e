"""What must hold before fine-tuning starts: the same checks for a run and for its dry run.

Nothing here writes, but for what the look at the data keeps (:mod:`moco_det.finetune.look`).
"""

import argparse
import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from torch import nn

from moco_det.cli import num_machines
from moco_det.config import value_of
from moco_det.disk_space import check_space, state_bytes
from moco_det.files import gib
from moco_det.finetune.coco_evaluator import check_coco_evaluator
from moco_det.finetune.datasets import check_datasets
from moco_det.finetune.evaluators import check_evaluator
from moco_det.finetune.hooks import same_generators
from moco_det.finetune.inits import Init, check_init
from moco_det.finetune.labels import check_label_fraction
from moco_det.finetune.look import look_before_run, quiet
from moco_det.finetune.safe_checkpointer import SafeCheckpointer
from moco_det.finetune.weights_check import (
    Weights,
    check_backbone,
    check_detector,
    check_preprocessing,
    read_weights,
)
from moco_det.run_folder import check_writable
from moco_det.run_record import FILE_NAME as RECORD

# In OUTPUT_DIR, the file in which detectron2 names the checkpoint to resume from.
CHECKPOINT = "last_checkpoint"
# Settings of a run's length, batch and images: the least that each may be, or what there is to choose from.
LEAST = {
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.WARMUP_ITERS": 0,
    "TEST.EVAL_PERIOD": 0,
    "INPUT.MIN_SIZE_TRAIN": 1,
    "INPUT.MAX_SIZE_TRAIN": 1,
    "INPUT.MIN_SIZE_TEST": 0,  # 0: images keep their size
    "INPUT.MAX_SIZE_TEST": 1,
}
CHOICES = {
    "DATALOADER.SAMPLER_TRAIN": (
        "TrainingSampler",
        "RepeatFactorTrainingSampler",
        "RandomSubsetTrainingSampler",
    ),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.CROP.TYPE": ("relative_range", "relative", "absolute", "absolute_range"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
}


def resumes(cfg: CfgNode, args: argparse.Namespace) -> bool:
    """Whether a run goes on from a checkpoint."""
    return args.resume and os.path.isfile(os.path.join(cfg.OUTPUT_DIR, CHECKPOINT))


def used_datasets(cfg: CfgNode, args: argparse.Namespace) -> tuple[str, ...]:
    """The names of the data sets that a run opens."""
    return tuple(cfg.DATASETS.TEST if args.eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))


def check_run(cfg: CfgNode, args: argparse.Namespace, init: Init | None) -> nn.Module | None:
    """Refuse, before any process starts, what would fail later or train on something else.

    Returns:
        the model on the CPU with its weights; None where a run goes on from its checkpoint.

    Raises:
        ValueError: a setting that cannot work; says what was found, what was expected, and the mend.
    """
    for architecture, stage, tool in (
        ("MoCo", "pre-training", "pretrain_moco"),
        ("Classifier", "classification", "train_classifier"),
    ):
        if cfg.MODEL.META_ARCHITECTURE == architecture:
            raise ValueError(f"{args.config_file!r} is a recipe of {stage}; run it with tools/{tool}.py")
    _check_ranges(cfg)
    check_label_fraction(cfg)
    check_coco_evaluator(cfg)
    check_datasets(cfg, used_datasets(cfg, args))
    if not cfg.DATASETS.TRAIN and not args.eval_only:
        near = [name for name in DatasetCatalog.list() if name.endswith("train")][:3]
        raise ValueError(f"DATASETS.TRAIN is empty; give data sets to train on, such as {near}")
    for name in cfg.DATASETS.TEST:
        check_evaluator(name, num_machines(args))
    if not (args.resume or args.eval_only) and any(
        os.path.exists(os.path.join(cfg.OUTPUT_DIR, name)) for name in (CHECKPOINT, RECORD)
    ):
        raise ValueError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} already holds a run; continue it with --resume, or choose another"
        )
    check_writable(cfg.OUTPUT_DIR)
    if int(os.environ.get("RANK", 0)) == 0:  # of torchrun's processes the first looks for all
        for name, finding in look_before_run(cfg, args.eval_only):
            print(f"warning: {name}: {finding}", flush=True)
    if resumes(cfg, args):
        return None
    if not args.eval_only:
        check_init(cfg, init)
    elif not cfg.MODEL.WEIGHTS:
        raise ValueError("--eval-only has no MODEL.WEIGHTS; give MODEL.WEIGHTS path/to/model_final.pth")
    weights = read_weights(cfg.MODEL.WEIGHTS) if cfg.MODEL.WEIGHTS else None
    if weights is not None:
        check_preprocessing(cfg, weights, init)
    model = _loaded_model(cfg, weights, args.eval_only)
    if not args.eval_only:
        check_disk_space(cfg, model)
    return model


def _check_ranges(cfg: CfgNode) -> None:
    for key, least in LEAST.items():
        value = value_of(cfg, key)
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if number < least:
                raise ValueError(f"{key} is {value}; expected {least} or more")
    for key, choices in CHOICES.items():
        if value_of(cfg, key) not in choices:
            raise ValueError(f"{key} is {value_of(cfg, key)!r}; expected one of {', '.join(choices)}")
    if not 0 < cfg.SOLVER.BASE_LR < float("inf"):
        raise ValueError(f"SOLVER.BASE_LR is {cfg.SOLVER.BASE_LR}; expected above 0")
    steps = list(cfg.SOLVER.STEPS)
    if steps != sorted(steps) or any(step < 1 for step in steps):
        raise ValueError(f"SOLVER.STEPS is {tuple(steps)}; expected iterations from 1 on, in rising order")


def _loaded_model(cfg: CfgNode, weights: Weights | None, complete: bool) -> nn.Module:
    """The model on the CPU with the weights; ``complete``: a whole detector is expected.

    Raises:
        ValueError: it cannot be built from these settings, or the weights do not fit it.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    with same_generators(), quiet():
        try:
            model = build_model(cfg)
            build_lr_scheduler(cfg, build_optimizer(cfg, model))
        except Exception as error:  # detectron2 asserts, and looks names up
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"no model and optimizer can be built from these settings ({reason})") from error
        if weights is None:
            return model
        SafeCheckpointer(model, save_dir="").load(weights.location)
        if complete or weights.is_detector:
            check_detector(model, weights, complete=complete)
        else:
            check_backbone(cfg, model, weights)
    return model


def check_disk_space(cfg: CfgNode, model: nn.Module) -> tuple[int, int, int]:
    """Refuse a run whose checkpoints, all of which stay, do not fit the disk.

    Returns:
        how many there will be, the bytes that they take, and the bytes that are free.

    Raises:
        ValueError: there is too little space.
    """
    size = state_bytes(model, momentum=cfg.SOLVER.MOMENTUM > 0)
    number = cfg.SOLVER.MAX_ITER // cfg.SOLVER.CHECKPOINT_PERIOD + 1
    free = check_space(
        "OUTPUT_DIR",
        cfg.OUTPUT_DIR,
        number * size,
        f"{number} checkpoints of {gib(size)}",
        f"raise SOLVER.CHECKPOINT_PERIOD ({cfg.SOLVER.CHECKPOINT_PERIOD})",
    )
    return number, number * size, free
