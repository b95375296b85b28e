"""From the command line to a checked config of pre-training."""

import argparse
import os

from detectron2.config import CfgNode
from detectron2.utils import comm

from moco_det.config import get_cfg, known_keys, merge_config

# What pre-training reads; a key set outside of these would silently do nothing, so it is refused.
APPLIES = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.DEVICE",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.MOCO",
    "INPUT.FORMAT",
    "INPUT.VIEWS",
    "DATASETS.IMAGES",
    "DATASETS.TRAIN",
    "DATASETS.MAX_UNREADABLE",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.BASE_LR",
    "SOLVER.MOMENTUM",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.LR_SCHEDULER_NAME",
    "SOLVER.GAMMA",
    "SOLVER.EPOCHS",
    "SOLVER.STEP_EPOCHS",
    "SOLVER.PRECISION",
    "SOLVER.CHECKPOINT_EPOCHS",
    "SOLVER.CHECKPOINT_KEEP",
    "SOLVER.LOG_PERIOD",
    "TEST.KNN",
    "OUTPUT_DIR",
    "SEED",
    "CUDNN_BENCHMARK",
    "VERSION",
)
INSTEAD = {
    "SOLVER.MAX_ITER": "SOLVER.EPOCHS",
    "SOLVER.STEPS": "SOLVER.STEP_EPOCHS",
    "SOLVER.CHECKPOINT_PERIOD": "SOLVER.CHECKPOINT_EPOCHS",
    "SOLVER.AMP.ENABLED": "SOLVER.PRECISION",
    "MODEL.RESNETS.DEPTH": "MODEL.MOCO.ARCH",
}


def build_config(args: argparse.Namespace, add_configs=()) -> CfgNode:
    """Recipe < ``--images`` < KEY VALUE pairs, checked; called on every rank.

    Args:
        args: of :func:`moco_det.pretrain.trainer.argument_parser`.
        add_configs: functions that add a project's keys to the config.

    Raises:
        ValueError: a key is unknown or does not apply, the input is missing or named twice.
    """
    cfg = get_cfg()
    core_keys = known_keys(cfg)
    for add_config in add_configs:
        add_config(cfg)
    set_keys = merge_config(cfg, args.config_file, args.opts)
    _refuse_what_does_not_apply([key for key in set_keys if key in core_keys])
    if args.images:
        cfg.DATASETS.IMAGES = args.images
    if bool(cfg.DATASETS.IMAGES) == bool(cfg.DATASETS.TRAIN):
        raise ValueError(
            f"DATASETS.IMAGES is {cfg.DATASETS.IMAGES!r} and DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)}; "
            "expected one of them: give --images DIR (or a list file), or DATASETS.TRAIN \"('coco_2017_train',)\""
        )
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    _settle_seed(cfg, args.resume)
    cfg.freeze()
    return cfg


def _refuse_what_does_not_apply(set_keys: list[str]) -> None:
    for key in set_keys:
        if not any(key == name or key.startswith(name + ".") for name in APPLIES):
            mend = f"use {INSTEAD[key]}" if key in INSTEAD else "remove it"
            raise ValueError(f"config key {key} does not apply to pre-training; {mend}")


def _settle_seed(cfg: CfgNode, resume: bool) -> None:
    """A run always has a seed: the config's, the resumed run's, or one drawn now and written to config.yaml."""
    saved = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
    if cfg.SEED < 0 and resume and os.path.exists(saved):
        cfg.SEED = CfgNode.load_yaml_with_base(saved, allow_unsafe=False)["SEED"]
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed() % 2**31
